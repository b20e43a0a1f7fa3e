"""Operators of a network as steps of a program: one function an operator.

The operators are ONNX's, from opset 6 on, in its names and attributes; ``Linear`` is this
library's (weight of shape (inputs, outputs)). `lower` makes the steps of one node from the values of its
inputs. Where a kernel of this library does the job it is called as it is: 2D convolution,
pooling with symmetric padding, dense layers, activations, softmax. The rest is arranged around
these: 1D data is 2D data of height 1, a 3D convolution is a 2D one whose channels are (channel,
depth tap), uneven padding is written out, and what else there is moves or adds numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loopnest.network.lowering import Lowering, Node
from loopnest.network.program import Value
from loopnest.network.steps import elements, matrices, moving, windows

OPERATORS: dict[str, Callable[[Lowering, Node, list], list[Value]]] = {
    "Add": elements.binary("add"),
    "AveragePool": windows.average_pool,
    "BatchNormalization": elements.batch_normalization,
    "Concat": moving.concat,
    "Conv": windows.conv,
    "Div": elements.binary("div"),
    "Dropout": moving.identity,
    "Exp": elements.unary("exp"),
    "Flatten": moving.flatten,
    "Gelu": elements.gelu,
    "Gemm": matrices.gemm,
    "GlobalAveragePool": windows.global_pool("global_avg_pool2d"),
    "GlobalMaxPool": windows.global_pool("global_max_pool2d"),
    "Identity": moving.identity,
    "LRN": elements.lrn,
    "LeakyRelu": elements.leaky_relu,
    "Linear": matrices.linear,
    "LogSoftmax": elements.softmax("log_softmax"),
    "MatMul": matrices.matmul,
    "MaxPool": windows.max_pool,
    "Mul": elements.binary("mul"),
    "Pad": moving.pad,
    "Relu": elements.unary("relu"),
    "Reshape": moving.reshape,
    "Sigmoid": elements.unary("sigmoid"),
    "Softmax": elements.softmax("softmax"),
    "Squeeze": moving.squeeze,
    "Sub": elements.binary("sub"),
    "Sum": elements.sum_,
    "Swish": elements.swish,
    "Tanh": elements.unary("tanh"),
    "Transpose": moving.transpose,
    "Unsqueeze": moving.unsqueeze,
}


def lower(b: Lowering, node: Node, inputs: Sequence[Value | None]) -> list[Value]:
    """The values of a node's outputs."""
    b.where = node.label
    outputs = OPERATORS[node.op](b, node, list(inputs))
    rows = {v.shape[0] if v.ndim else None for v in b.inputs}
    if len(rows) != 1 or any(not v.ndim or v.shape[0] not in rows for v in outputs):
        b.mixes_rows = True
    return outputs
