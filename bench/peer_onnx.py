"""ONNX Runtime: one node a session, weights as constants, output bound once."""

from __future__ import annotations

from typing import Any

import numpy as np
import reference
import reference_network
from cases import Case
from peers import Peer
from timing import Prepared

OPSET, IR = 20, 9


class OnnxRuntime(Peer):
    name = "onnxruntime"
    requires = ("onnx", "onnxruntime")

    def settings(self) -> str:
        return "weights constant (prepacked), all optimizations, outputs bound once"

    def supports(self, case: Case, dtype: np.dtype) -> bool:
        return super().supports(case, dtype) and not case.options.get("return_indices")

    def prepare(self, case: Case, arguments: tuple, dtype: np.dtype) -> list[Prepared]:
        nodes, constants = getattr(self, case.op)(case, *arguments)
        x = next(a for a in arguments if isinstance(a, np.ndarray))
        return [self._session(nodes, constants, x)]

    def _session(self, nodes: list, constants: dict[str, np.ndarray], x: np.ndarray) -> Prepared:
        """Call of a session whose input and output are bound."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        # Its threads may spin within a call, but not after it: they would take the core from
        # whoever comes next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(
            model(nodes, constants, x), options, providers=["CPUExecutionProvider"]
        )
        shape = session.run(None, {"x": x})[0].shape
        y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, x.dtype)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
        binding.bind_ortvalue_output("y", y)
        return Prepared(session.run_with_iobinding, (binding,), result=lambda raw: y.numpy())

    # -- each op as (nodes, constants); the last node writes y --

    def exp(self, case: Case, x):
        return [node("Exp", "x")], {}

    def sigmoid(self, case: Case, x):
        return [node("Sigmoid", "x")], {}

    def tanh(self, case: Case, x):
        return [node("Tanh", "x")], {}

    def relu(self, case: Case, x):
        return [node("Relu", "x")], {}

    def leaky_relu(self, case: Case, x):
        return [node("LeakyRelu", "x", alpha=case.options.get("negative_slope", 0.01))], {}

    def silu(self, case: Case, x):
        return [node("QuickGelu", "x", domain="com.microsoft", alpha=1.0)], {}

    def gelu(self, case: Case, x):
        form = case.options.get("approximate", "sigmoid")
        if form == "sigmoid":
            return [node("QuickGelu", "x", domain="com.microsoft", alpha=1.702)], {}
        return [node("Gelu", "x", approximate=form)], {}

    def conv2d(self, case: Case, x, weight, bias=None):
        o = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **case.options}
        geometry = (o["padding"], x.shape[2:], weight.shape[2:], o["stride"], o["dilation"])
        (top, bottom), (left, right) = reference.resolve_padding(*geometry)
        constants = {"w": weight} if bias is None else {"w": weight, "b": bias}
        convolution = node(
            "Conv", "x", *constants,
            kernel_shape=weight.shape[2:], group=o["groups"], pads=[top, left, bottom, right],
            strides=reference._pair(o["stride"]), dilations=reference._pair(o["dilation"]),
        )  # fmt: skip
        return activated(convolution, o.get("activation")), constants

    def avg_pool2d(self, case: Case, x):
        if case.options.get("divisor_override"):
            raise NotImplementedError("no divisor_override")
        include = int(case.options.get("count_include_pad", True))
        return [node("AveragePool", "x", count_include_pad=include, **window(case))], {}

    def max_pool2d(self, case: Case, x):
        dilations = reference._pair(case.options.get("dilation", 1))
        return [node("MaxPool", "x", dilations=dilations, **window(case))], {}

    def global_avg_pool2d(self, case: Case, x):
        return [node("GlobalAveragePool", "x")], {}

    def global_max_pool2d(self, case: Case, x):
        return [node("GlobalMaxPool", "x")], {}

    def linear(self, case: Case, x, weight, bias):
        if x.ndim != 2:
            raise NotImplementedError("two dimensions only")
        constants = {"w": weight, "b": bias}
        return activated(node("Gemm", "x", "w", "b"), case.options.get("activation")), constants

    def softmax(self, case: Case, x):
        return [node("Softmax", "x", axis=case.options["axis"])], {}

    def log_softmax(self, case: Case, x):
        return [node("LogSoftmax", "x", axis=case.options["axis"])], {}

    def network_forward(self, case: Case, name, x):
        """The same layers, weights as constants."""
        net = reference_network.network(name)
        values = {k.replace(".", "_"): v for k, v in net.parameters.items()}
        names, nodes, at = iter(values), [], "x"
        for n in net.nodes:
            kind, attributes, constants = n.op, dict(n.attributes), []
            if kind in ("Conv", "Linear"):
                constants = [next(names), next(names)]
            kind = "Gemm" if kind == "Linear" else kind
            nodes.append(node(kind, at, *constants, output=n.outputs[0], **attributes))
            at = n.outputs[0]
        nodes[-1].output[0] = "y"
        return nodes, values


def node(kind: str, *inputs: str, output: str = "y", domain: str = "", **attributes: Any):
    import onnx

    return onnx.helper.make_node(kind, inputs, [output], domain=domain, **attributes)


def activated(first: Any, name: str | None) -> list:
    """The node, and its activation as a second one, which the runtime may fuse."""
    if name is None:
        return [first]
    first.output[0] = "z"
    if name == "gelu":
        return [first, node("QuickGelu", "z", domain="com.microsoft", alpha=1.702)]
    kinds = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp"}
    if name not in kinds:
        raise NotImplementedError(f"activation {name!r}")
    return [first, node(kinds[name], "z")]


def window(case: Case) -> dict[str, Any]:
    o = case.options
    kernel, padding = reference._pair(o["kernel_size"]), reference._pair(o["padding"])
    stride = kernel if o["stride"] is None else reference._pair(o["stride"])
    return {
        "kernel_shape": kernel, "strides": stride, "pads": [*padding, *padding],
        "ceil_mode": int(o.get("ceil_mode", False)),
    }  # fmt: skip


def model(nodes: list, constants: dict[str, np.ndarray], x: np.ndarray) -> bytes:
    """The graph with weights inside, as ONNX Runtime reads it."""
    import onnx
    from onnx import helper, numpy_helper

    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        nodes, "case",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(a, name) for name, a in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=IR)
    assert isinstance(made, onnx.ModelProto)
    return made.SerializeToString()


PEERS = (OnnxRuntime,)
