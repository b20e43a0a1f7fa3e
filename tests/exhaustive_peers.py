"""Others' float32 activations, for the table of `exhaustive.py`; what is not installed is left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Functions = dict[str, Callable[[np.ndarray], np.ndarray]]
K = np.float32(1.702)


def _numpy() -> Functions:
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    return {
        "exp": np.exp,
        "tanh": np.tanh,
        "sigmoid": sigmoid,
        "silu": lambda x: x * sigmoid(x),
        "gelu": lambda x: x * sigmoid(K * x),
    }


def _torch() -> Functions:
    import torch
    import torch.nn.functional as F

    def of(function):
        return lambda x: function(torch.from_numpy(x)).detach().numpy()

    def slope(function):
        def run(x):
            leaf = torch.from_numpy(x).requires_grad_(True)
            function(leaf).sum().backward()
            return leaf.grad.numpy()

        return run

    forward = {
        "exp": torch.exp,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "silu": F.silu,
        "gelu": lambda x: x * torch.sigmoid(1.702 * x),
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "gelu_erf": F.gelu,
    }
    functions = {name: of(f) for name, f in forward.items()}
    functions |= {f"{name}_backward": slope(f) for name, f in forward.items()}
    return functions


def _onnxruntime() -> Functions:
    import onnxruntime
    from onnx import TensorProto, helper

    def node(op, domain="", **attributes):
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n"]) for n in "xy")
        nodes = [helper.make_node(op, ["x"], ["y"], domain=domain, **attributes)]
        graph = helper.make_graph(nodes, op, [x], [y])
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return lambda a: session.run(None, {"x": a})[0]

    return {
        "exp": node("Exp"),
        "sigmoid": node("Sigmoid"),
        "tanh": node("Tanh"),
        "silu": node("QuickGelu", "com.microsoft", alpha=1.0),
        "gelu": node("QuickGelu", "com.microsoft", alpha=1.702),
        "gelu_tanh": node("Gelu", approximate="tanh"),
        "gelu_erf": node("Gelu"),
    }


def load() -> dict[str, Functions]:
    """Functions of each peer that can be imported."""
    found = {}
    for name, make in (("NumPy", _numpy), ("PyTorch", _torch), ("ONNX Runtime", _onnxruntime)):
        try:
            found[name] = make()
        except ImportError:
            continue
    return found
