"""Networks made in code: `Sequential` and the layers it takes, in PyTorch's names.

A layer is a description with fresh weights; `Sequential` makes a network of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from loopnest.network.lowering import Node
from loopnest.network.network import Input, Network
from loopnest.ops.activation import FUSED, GELU_KERNELS
from loopnest.ops.window_rules import LIMIT
from loopnest.runtime import checks

Sizes = tuple[int | None, ...]


class Graph:
    """Collects the nodes and weights of a network under way."""

    def __init__(self, dtype: np.dtype, rng: np.random.Generator) -> None:
        self.dtype, self.rng = dtype, rng
        self.nodes: list[Node] = []
        self.parameters: dict[str, np.ndarray] = {}
        self.buffers: dict[str, np.ndarray] = {}

    def add(self, op: str, inputs: Sequence[str], path: str, **attributes: Any) -> str:
        """Add an operator; the name of its output."""
        name = f"{path}:{op.lower()}"
        self.nodes.append(Node(op, tuple(inputs), (name,), attributes, path))
        return name

    def uniform(self, name: str, shape: tuple[int, ...], bound: float) -> str:
        """A parameter that starts as PyTorch's does, even within the bound."""
        self.parameters[name] = self.rng.uniform(-bound, bound, shape).astype(self.dtype)
        return name


class Layer:
    """Base of all layers."""

    def sizes(self) -> Sizes | None:
        """Shape of one input without the batch axis, None if any will do."""
        return None

    def build(self, graph: Graph, x: str, path: str) -> str:
        """Add the layer's operators on the value ``x``; the name of the result."""
        raise NotImplementedError


class Linear(Layer):
    """Dense layer, x @ weight + bias.

    Parameters
    ----------
    in_features, out_features : int
    bias : bool
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        self.inputs = checks.integer("Linear", "in_features", in_features, 1, LIMIT)
        self.outputs = checks.integer("Linear", "out_features", out_features, 1, LIMIT)
        self.bias = bool(bias)

    def sizes(self) -> Sizes:
        return (self.inputs,)

    def build(self, graph: Graph, x: str, path: str) -> str:
        bound = 1 / math.sqrt(self.inputs)
        names = [x, graph.uniform(f"{path}.weight", (self.inputs, self.outputs), bound)]
        if self.bias:
            names.append(graph.uniform(f"{path}.bias", (self.outputs,), bound))
        return graph.add("Linear", names, path)


class Conv2d(Layer):
    """2D convolution; options as in `conv2d`.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size, stride, dilation : int or (int, int)
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid"
    groups : int
    bias : bool
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        op = "Conv2d"
        self.inputs = checks.integer(op, "in_channels", in_channels, 1, LIMIT)
        self.outputs = checks.integer(op, "out_channels", out_channels, 1, LIMIT)
        self.kernel = checks.pair(op, "kernel_size", kernel_size, 1, LIMIT)
        self.stride = checks.pair(op, "stride", stride, 1, LIMIT)
        self.dilation = checks.pair(op, "dilation", dilation, 1, LIMIT)
        self.groups = checks.integer(op, "groups", groups, 1, LIMIT)
        if self.inputs % self.groups or self.outputs % self.groups:
            raise ValueError(
                f"{op}: groups is {groups}; accepted: a divisor of {in_channels} and {out_channels}"
            )
        from loopnest.ops.shapes import padding_of  # one place knows all its forms

        (top, bottom), (left, right) = padding_of(
            op, padding, self.kernel, self.stride, self.dilation
        )
        self.pads = [top, left, bottom, right]
        self.bias = bool(bias)

    def sizes(self) -> Sizes:
        return (self.inputs, None, None)

    def build(self, graph: Graph, x: str, path: str) -> str:
        shape = (self.outputs, self.inputs // self.groups, *self.kernel)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        names = [x, graph.uniform(f"{path}.weight", shape, bound)]
        if self.bias:
            names.append(graph.uniform(f"{path}.bias", (self.outputs,), bound))
        return graph.add(
            "Conv",
            names,
            path,
            strides=list(self.stride),
            pads=self.pads,
            dilations=list(self.dilation),
            group=self.groups,
        )


class _Pool2d(Layer):
    op = ""

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False
    ) -> None:
        op = type(self).__name__
        self.kernel = checks.pair(op, "kernel_size", kernel_size, 1, LIMIT)
        given = self.kernel if stride is None else stride
        self.stride = checks.pair(op, "stride", given, 1, LIMIT)
        self.padding = checks.pair(op, "padding", padding, 0, LIMIT)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(
                f"{op}: padding is {padding}; accepted: at most half of kernel_size {kernel_size}"
            )
        self.more: dict[str, Any] = {"ceil_mode": int(bool(ceil_mode))}

    def sizes(self) -> Sizes:
        return (None, None, None)

    def build(self, graph: Graph, x: str, path: str) -> str:
        return graph.add(
            self.op,
            [x],
            path,
            kernel_shape=list(self.kernel),
            strides=list(self.stride),
            pads=[*self.padding, *self.padding],
            **self.more,
        )


class MaxPool2d(_Pool2d):
    """Maximum pooling; options as in `max_pool2d`."""

    op = "MaxPool"


class AvgPool2d(_Pool2d):
    """Average pooling; options as in `avg_pool2d`."""

    op = "AveragePool"

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.more["count_include_pad"] = int(bool(count_include_pad))


class GlobalAvgPool2d(Layer):
    """Mean of each plane: (N, C, H, W) to (N, C, 1, 1)."""

    op = "GlobalAveragePool"

    def sizes(self) -> Sizes:
        return (None, None, None)

    def build(self, graph: Graph, x: str, path: str) -> str:
        return graph.add(self.op, [x], path)


class GlobalMaxPool2d(GlobalAvgPool2d):
    """Maximum of each plane: (N, C, H, W) to (N, C, 1, 1)."""

    op = "GlobalMaxPool"


class BatchNorm2d(Layer):
    """Batch normalisation with fixed statistics: a scale and a shift of each channel.

    The statistics are those that training elsewhere left (`load_state_dict`); here they are
    not learned, and neither are scale and shift.
    A change of these ``buffers`` shows in the next call.

    Parameters
    ----------
    num_features : int
    eps : float
    """

    def __init__(self, num_features: int, eps: float = 1e-5) -> None:
        self.channels = checks.integer("BatchNorm2d", "num_features", num_features, 1, LIMIT)
        self.eps = checks.number("BatchNorm2d", "eps", eps, 0.0)

    def sizes(self) -> Sizes:
        return (self.channels, None, None)

    def build(self, graph: Graph, x: str, path: str) -> str:
        names = [x]
        for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            graph.buffers[f"{path}.{name}"] = np.full(self.channels, value, graph.dtype)
            names.append(f"{path}.{name}")
        return graph.add("BatchNormalization", names, path, epsilon=self.eps)


class _Elementwise(Layer):
    op = ""

    def build(self, graph: Graph, x: str, path: str) -> str:
        return graph.add(self.op, [x], path)


class ReLU(_Elementwise):
    """max(x, 0)"""

    op = "Relu"


class Sigmoid(_Elementwise):
    """1 / (1 + exp(-x))"""

    op = "Sigmoid"


class Tanh(_Elementwise):
    """Hyperbolic tangent."""

    op = "Tanh"


class SiLU(_Elementwise):
    """x sigmoid(x)"""

    op = "Swish"


class Identity(_Elementwise):
    """x"""

    op = "Identity"


class LeakyReLU(Layer):
    """x where x > 0, else ``negative_slope`` x."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.slope = checks.number("LeakyReLU", "negative_slope", negative_slope)

    def build(self, graph: Graph, x: str, path: str) -> str:
        return graph.add("LeakyRelu", [x], path, alpha=self.slope)


class GELU(Layer):
    """`gelu`, whose default form is "sigmoid" (PyTorch's is "none")."""

    def __init__(self, approximate: str = "sigmoid") -> None:
        self.form = checks.choice("GELU", "approximate", approximate, GELU_KERNELS)

    def build(self, graph: Graph, x: str, path: str) -> str:
        return graph.add("Gelu", [x], path, approximate=self.form)


class Softmax(Layer):
    """Softmax along an axis of the batch (-1: the last)."""

    op = "Softmax"

    def __init__(self, axis: int = -1) -> None:
        self.axis = checks.integer(type(self).__name__, "axis", axis, -LIMIT, LIMIT)

    def build(self, graph: Graph, x: str, path: str) -> str:
        return graph.add(self.op, [x], path, axis=self.axis)


class LogSoftmax(Softmax):
    """Logarithm of softmax along an axis of the batch (-1: the last)."""

    op = "LogSoftmax"


class Flatten(Layer):
    """All axes but the batch become one."""

    def build(self, graph: Graph, x: str, path: str) -> str:
        return graph.add("Flatten", [x], path, axis=1)


class _Branches(Layer):
    """Several layers on the same input."""

    def __init__(self, *branches: Layer | Sequential) -> None:
        op = type(self).__name__
        if not branches:
            raise ValueError(f"{op}: no branches; accepted: at least one")
        self.branches = [_layer(op, branch) for branch in branches]

    def sizes(self) -> Sizes | None:
        return next((s for s in (b.sizes() for b in self.branches) if s is not None), None)

    def outputs(self, graph: Graph, x: str, path: str) -> list[str]:
        return [b.build(graph, x, f"{path}.{i}") for i, b in enumerate(self.branches)]


class Add(_Branches):
    """Sum of the results of several branches, a residual block: ``Add(Sequential(...), Identity())``."""

    def build(self, graph: Graph, x: str, path: str) -> str:
        return graph.add("Sum", self.outputs(graph, x, path), path)


class Concat(_Branches):
    """Results of several branches side by side, along axis 1 (the channels)."""

    def build(self, graph: Graph, x: str, path: str) -> str:
        return graph.add("Concat", self.outputs(graph, x, path), path, axis=1)


class _Chain(Layer):
    """Layers one after the other."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = list(layers)

    def sizes(self) -> Sizes | None:
        for layer in self.layers:
            if (sizes := layer.sizes()) is not None:
                return sizes
            if not isinstance(layer, (_Elementwise, LeakyReLU, GELU)):
                return None  # it may change the shape
        return None

    def build(self, graph: Graph, x: str, path: str) -> str:
        for i, layer in enumerate(self.layers):
            x = layer.build(graph, x, f"{path}.{i}" if path else str(i))
        return x


def _layer(op: str, value: Any) -> Layer:
    if isinstance(value, Sequential):
        return value.chain
    if isinstance(value, str) and value in FUSED:
        raise TypeError(f"{op}: layer is {value!r}; accepted: a layer, such as ln.ReLU()")
    if isinstance(value, type):
        raise TypeError(f"{op}: layer is the class {value.__name__}; accepted: {value.__name__}()")
    if not isinstance(value, Layer):
        raise TypeError(f"{op}: layer is a {type(value).__name__}; accepted: layers of loopnest")
    return value


class Sequential(Network):
    """A network of layers, one after the other.

    Parameters
    ----------
    *layers : layer or Sequential
        `Linear`, `Conv2d`, `MaxPool2d`, `AvgPool2d`, `GlobalAvgPool2d`, `GlobalMaxPool2d`, `BatchNorm2d`,
        `ReLU`, `LeakyReLU`, `Sigmoid`, `Tanh`, `GELU`, `SiLU`, `Softmax`, `LogSoftmax`,
        `Flatten`, `Identity`, and `Add` and `Concat` of branches. A Sequential among them counts for
        its layers (with fresh weights).
    input_shape : tuple of int, optional
        Shape of one input without the batch axis, where the first layer does not tell it.
    dtype : dtype
        float32 or float64.
    seed : int
        For the weights, which start as PyTorch's do (even within 1/sqrt(inputs of a neuron)).

    Attributes
    ----------
    vector : ndarray
        All parameters in one vector, whose pieces ``parameters`` are: one optimizer step on
        it trains the network.

    Raises
    ------
    TypeError, ValueError
        A layer that is none, or options out of range.

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> net = ln.Sequential(ln.Linear(4, 8), ln.Tanh(), ln.Linear(8, 2))
    >>> net(np.zeros((5, 4), np.float32)).shape
    (5, 2)
    """

    def __init__(
        self,
        *layers: Layer | Sequential,
        input_shape: Iterable[int] | None = None,
        dtype: Any = np.float32,
        seed: int = 0,
        name: str = "network",
    ) -> None:
        op = "Sequential"
        real = np.dtype(dtype)
        if real not in (checks.F32, checks.F64):
            raise TypeError(f"{op}: dtype is {real}; accepted: float32 or float64")
        self.chain = _Chain(_layer(op, layer) for layer in layers)
        sizes = self.chain.sizes()
        if input_shape is not None:
            sizes = tuple(checks.integer(op, "input_shape", s, 1, LIMIT) for s in input_shape)
        if sizes is None:
            raise ValueError(
                f"{op}: the layers do not tell the input's shape; accepted: with input_shape"
            )
        graph = Graph(real, np.random.default_rng(seed))
        result = self.chain.build(graph, "x", "")
        super().__init__(
            graph.nodes,
            [Input("x", (None, *sizes), real)],
            [result],
            graph.parameters,
            graph.buffers,
            dtype=real,
            name=name,
        )
        self._bind_vector(
            np.concatenate([np.empty(0, real), *map(np.ravel, self.parameters.values())])
        )

    @property
    def vector(self) -> np.ndarray:
        return self._vector

    @vector.setter
    def vector(self, value: Any) -> None:
        """Copies the numbers: ``net.vector -= step`` and ``net.vector = numbers``."""
        if value is self._vector:
            return
        array = checks.array("Sequential", "vector", value)
        checks.same_shape("Sequential", "vector", array, self._vector.shape)
        self._vector[...] = array

    def _bind_vector(self, vector: np.ndarray) -> None:
        """Make the parameters pieces of a vector that holds their numbers."""
        self._vector, at = vector, 0
        pieces = {}
        for key, value in self.parameters.items():
            pieces[key] = vector[at : at + value.size].reshape(value.shape)
            at += value.size
        self._take_weights(pieces, self.buffers)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        # Shapes alone: the numbers are those of the vector.
        state["_parameters"] = {k: v.shape for k, v in self.parameters.items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        shapes, vector = state["_parameters"], np.require(state["_vector"], None, ("C", "A", "W"))
        super().__setstate__({**state, "_parameters": {k: np.zeros(s) for k, s in shapes.items()}})
        self._bind_vector(vector)
