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

from loopnest import lower_elements, lower_matrices, lower_shapes, lower_windows
from loopnest.lowering import Lowering, Node
from loopnest.program import Value

OPERATORS: dict[str, Callable[[Lowering, Node, list], list[Value]]] = {
    "Add": lower_elements.binary("add"),
    "AveragePool": lower_windows.average_pool,
    "BatchNormalization": lower_elements.batch_normalization,
    "Concat": lower_shapes.concat,
    "Conv": lower_windows.conv,
    "Div": lower_elements.binary("div"),
    "Dropout": lower_shapes.identity,
    "Exp": lower_elements.unary("exp"),
    "Flatten": lower_shapes.flatten,
    "Gelu": lower_elements.gelu,
    "Gemm": lower_matrices.gemm,
    "GlobalAveragePool": lower_windows.global_pool("global_avg_pool2d"),
    "GlobalMaxPool": lower_windows.global_pool("global_max_pool2d"),
    "Identity": lower_shapes.identity,
    "LRN": lower_elements.lrn,
    "LeakyRelu": lower_elements.leaky_relu,
    "Linear": lower_matrices.linear,
    "LogSoftmax": lower_elements.softmax("log_softmax"),
    "MatMul": lower_matrices.matmul,
    "MaxPool": lower_windows.max_pool,
    "Mul": lower_elements.binary("mul"),
    "Pad": lower_shapes.pad,
    "Relu": lower_elements.unary("relu"),
    "Reshape": lower_shapes.reshape,
    "Sigmoid": lower_elements.unary("sigmoid"),
    "Softmax": lower_elements.softmax("softmax"),
    "Squeeze": lower_shapes.squeeze,
    "Sub": lower_elements.binary("sub"),
    "Sum": lower_elements.sum_,
    "Swish": lower_elements.swish,
    "Tanh": lower_elements.unary("tanh"),
    "Transpose": lower_shapes.transpose,
    "Unsqueeze": lower_shapes.unsqueeze,
}


def lower(b: Lowering, node: Node, inputs: Sequence[Value | None]) -> list[Value]:
    """The values of a node's outputs."""
    b.where = node.label
    outputs = OPERATORS[node.op](b, node, list(inputs))
    rows = {v.shape[0] if v.ndim else None for v in b.inputs}
    if len(rows) != 1 or any(not v.ndim or v.shape[0] not in rows for v in outputs):
        b.mixes_rows = True
    return outputs
