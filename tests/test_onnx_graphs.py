"""Random ONNX graphs, rewritten and run, against ONNX's reference and ONNX Runtime.

`make fuzz` sets LOOPNEST_FUZZ_CALLS to the number of graphs.
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx.printer
import pytest
from helpers import assert_same_bits
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from test_export_c import compiled, needs_compiler, run

import loopnest as ln

GRAPHS = int(os.environ.get("LOOPNEST_FUZZ_CALLS", "150"))
UNARY = ("Relu", "Sigmoid", "Tanh", "Identity", "Dropout", "LeakyRelu")
ARITHMETIC = ("Add", "Sub", "Mul", "Div")


class Graph:
    """A graph that grows: nodes, constants, and the shape of each value made so far."""

    def __init__(self, draw, opset: int, pools: bool) -> None:
        self.draw, self.opset, self.pools = draw, opset, pools
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.nodes: list = []
        self.weights: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def one_of(self, *values):
        return self.draw(st.sampled_from(values))

    def whole(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def weight(self, shape, low=-1.0, high=1.0) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = self.rng.uniform(low, high, shape).astype(np.float32)
        return name

    def integers(self, *values: int) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = np.array(values, np.int64)
        return name

    def node(self, op, inputs, shape, **attributes) -> None:
        # A name that a rewriting might choose for a constant of its own.
        ends = (f"v{len(self.nodes)}", f"v{len(self.nodes) + 1}.weight", f"v{len(self.nodes)}.bias")
        name = self.one_of(*ends)
        while name in self.shapes:
            name += "'"
        self.nodes.append(helper.make_node(op, inputs, [name], f"n{len(self.nodes)}", **attributes))
        self.shapes[name] = tuple(shape)

    def step(self) -> None:
        """One more node, on the newest value for the most part."""
        names = list(self.shapes)
        x = names[-1] if self.whole(0, 3) else self.one_of(*names)
        shape = self.shapes[x]
        kinds = ["unary", "arithmetic", "arithmetic", "moved", "join"]
        kinds += ["norm", "norm", "softmax", "pad"] if len(shape) > 1 else []
        kinds += ["dense"] if len(shape) == 2 else []
        if 3 <= len(shape) <= 5 and min(shape) > 0:
            kinds += ["conv", "conv", *["pool"] * self.pools]
        getattr(self, self.one_of(*kinds))(x, shape)

    def unary(self, x, shape) -> None:
        self.node(self.one_of(*UNARY), [x], shape)

    def arithmetic(self, x, shape) -> None:
        op = self.one_of(*ARITHMETIC)
        if op == "Add" and self.whole(0, 3) == 0:
            return self.node(op, [x, x], shape)
        sizes = [self.one_of(1, s, s) for s in shape[self.whole(0, len(shape)) :]]
        if len(sizes) == len(shape) and len(shape) < 5 and self.whole(0, 5) == 0:
            sizes = [self.one_of(1, 2), *sizes]
        other = self.weight(sizes, 0.5, 2.0)
        inputs = [x, other] if op == "Div" or self.whole(0, 2) else [other, x]
        return self.node(op, inputs, np.broadcast_shapes(shape, tuple(sizes)))

    def join(self, x, shape) -> None:
        fits = [n for n, s in self.shapes.items() if len(s) == len(shape) and s[1:] == shape[1:]]
        other = self.one_of(*fits)
        if shape and self.whole(0, 1):
            rows = shape[0] + self.shapes[other][0]
            return self.node("Concat", [x, other], (rows, *shape[1:]), axis=0)
        if self.shapes[other] != shape:
            other = x
        return self.node(self.one_of("Sum", "Add", "Mul"), [x, other], shape)

    def norm(self, x, shape) -> None:
        c = shape[1]
        parameters = [self.weight([c], low, 1.5) for low in (0.5, -1.0, -1.0, 0.5)]
        self.node("BatchNormalization", [x, *parameters], shape, epsilon=self.one_of(1e-5, 0.1))

    def conv(self, x, shape) -> None:
        n, c, *spatial = shape
        groups, k = self.one_of(1, c), self.whole(1, 3)
        kernel = [self.whole(1, min(2, s)) for s in spatial]
        pads = [self.whole(0, 1) for _ in range(2 * len(spatial))]
        weight = self.weight([k * groups, c // groups, *kernel])
        inputs = [x, weight] + ([self.weight([k * groups])] if self.whole(0, 1) else [])
        out = [s + pads[i] + pads[i + len(spatial)] - kernel[i] + 1 for i, s in enumerate(spatial)]
        self.node("Conv", inputs, (n, k * groups, *out), group=groups, pads=pads)

    def pool(self, x, shape) -> None:
        op = self.one_of("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
        if op.startswith("Global"):
            return self.node(op, [x], shape[:2] + (1,) * (len(shape) - 2))
        kernel = [self.whole(1, min(2, s)) for s in shape[2:]]
        out = [s - k + 1 for s, k in zip(shape[2:], kernel, strict=True)]
        return self.node(op, [x], (*shape[:2], *out), kernel_shape=kernel)

    def softmax(self, x, shape) -> None:
        if min(shape) == 0:
            return self.unary(x, shape)
        axis = self.one_of(*range(-len(shape), len(shape)), None)
        more = {} if axis is None else {"axis": axis}
        return self.node(self.one_of("Softmax", "LogSoftmax"), [x], shape, **more)

    def pad(self, x, shape) -> None:
        pads = [self.whole(0, 1) for _ in range(2 * len(shape))]
        out = [s + pads[i] + pads[i + len(shape)] for i, s in enumerate(shape)]
        if math.prod(out) > 4096:
            return self.unary(x, shape)
        return self.node("Pad", [x, self.integers(*pads)], out)

    def moved(self, x, shape) -> None:
        op = self.one_of("Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze")
        if op == "Flatten":
            axis = self.whole(0, len(shape))
            self.node(op, [x], (math.prod(shape[:axis]), math.prod(shape[axis:])), axis=axis)
        elif op == "Reshape" and math.prod(shape):
            parts = self.draw(st.permutations(shape))
            cut = self.whole(0, len(parts))
            target = (math.prod(parts[:cut]), *parts[cut:])
            given_shape = list(target)
            if self.whole(0, 1):
                given_shape[self.whole(0, len(target) - 1)] = -1
            self.node(op, [x, self.integers(*given_shape)], target)
        elif op == "Transpose":
            order = self.draw(st.permutations(range(len(shape))))
            self.node(op, [x], [shape[a] for a in order], perm=list(order)) if order else None
        elif op == "Unsqueeze" and len(shape) < 5:
            axis = self.whole(0, len(shape))
            self.axes(op, x, [axis], (*shape[:axis], 1, *shape[axis:]))
        elif op == "Squeeze" and 1 in shape:
            axis = shape.index(1)
            self.axes(op, x, [axis], shape[:axis] + shape[axis + 1 :])

    def axes(self, op, x, axes, shape) -> None:
        if self.opset < 13:
            self.node(op, [x], shape, axes=axes)
        else:
            self.node(op, [x, self.integers(*axes)], shape)

    def dense(self, x, shape) -> None:
        m, k = shape
        n, turned = self.whole(1, 3), self.whole(0, 1)
        if self.whole(0, 3) == 0:
            return self.node("MatMul", [x, self.weight([k, n])], (m, n))
        inputs = [x, self.weight([n, k] if turned else [k, n])]
        if self.whole(0, 4):
            c = self.one_of((), (1,), (n,), (1, n), (m, 1), (m, n), (1, 1))
            inputs.append(self.weight(c))
        more = {"alpha": self.one_of(1.0, 0.5), "beta": self.one_of(1.0, 2.0, 0.0)}
        return self.node("Gemm", inputs, (m, n), transB=turned, **more)


@st.composite
def graphs(draw, opsets, pools):
    """(model, input) whose shapes all fit."""
    graph = Graph(draw, draw(st.sampled_from(opsets)), pools)
    rank = draw(st.integers(1, 5))
    shape = tuple(draw(st.integers(1, 3)) for _ in range(rank))
    graph.shapes["x"] = shape
    for _ in range(draw(st.integers(1, 7))):
        graph.step()
        if math.prod(graph.shapes[list(graph.shapes)[-1]]) > 20_000:
            break
    made = list(graph.shapes)[1:] or ["x"]
    outputs = list(dict.fromkeys([made[-1], *draw(st.lists(st.sampled_from(made), max_size=2))]))
    told = draw(st.booleans())  # whether the file says the sizes, or their number only
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [s if told else None for s in shape])
    ]
    if draw(st.booleans()):  # as before IR version 4: constants are inputs with a default
        inputs += [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for k, v in graph.weights.items()
        ]
    made_graph = helper.make_graph(
        graph.nodes, "graph", inputs,
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, [None] * len(graph.shapes[o]))
         for o in outputs],
        [numpy_helper.from_array(v, k) for k, v in graph.weights.items()],
    )  # fmt: skip
    opset = helper.make_opsetid("", graph.opset)
    model = helper.make_model(made_graph, opset_imports=[opset], ir_version=8)
    return model, graph.rng.uniform(-2, 2, shape).astype(np.float32)


def compare(found, expected) -> None:
    found = found if isinstance(found, tuple) else (found,)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.shape == theirs.shape
        scale = max(1.0, float(np.abs(theirs).max(initial=0)))
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=2e-5 * scale)


@settings(max_examples=GRAPHS, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs([14, 17], False))
def test_fuzz_graphs(case) -> None:
    """(ONNX's reference is wrong in pooling, and below opset 14 in batch normalisation.)"""
    model, x = case
    note(onnx.printer.to_text(model))
    onnx.checker.check_model(model)
    net = ln.load_onnx(model)
    expected = ReferenceEvaluator(model).run(None, {"x": x})
    with ln.use_backend("c"):
        compare(net(x), expected)


@settings(max_examples=GRAPHS // 3, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs([11, 13, 17], True))
def test_fuzz_graphs_against_onnx_runtime(case) -> None:
    runtime = pytest.importorskip("onnxruntime")
    model, x = case
    note(onnx.printer.to_text(model))
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    with ln.use_backend("c"):
        compare(ln.load_onnx(model)(x), session.run(None, {"x": x}))


@needs_compiler
@settings(
    max_examples=min(GRAPHS // 12, 400), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(graphs([11, 17], True))
def test_fuzz_graphs_as_c(case) -> None:
    """The exported file gives the same bits, under -Wall -Wextra -Werror."""
    model, x = case
    note(onnx.printer.to_text(model))
    net = ln.load_onnx(model)
    with ln.use_backend("c"):
        expected = net(x)
    if isinstance(expected, tuple) or x.size == 0:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = net.to_c(Path(folder, "net.c"), batch=x.shape[0], input_shape=x.shape[1:])
        assert_same_bits(run(compiled(path), "net", x, expected), expected)


@settings(
    max_examples=min(GRAPHS // 40, 40), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(graphs([11, 17], True))
def test_fuzz_graphs_inside_njit(case) -> None:
    model, x = case
    note(onnx.printer.to_text(model))
    net = ln.load_onnx(model)
    with ln.use_backend("numba"):
        expected = net(x)
        forward = net.njit(input_shape=x.shape[1:], batch=x.shape[0])
    if not isinstance(expected, tuple):
        assert_same_bits(forward(x), expected)
