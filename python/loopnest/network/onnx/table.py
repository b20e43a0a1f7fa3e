"""The ONNX operators that are supported: how many inputs and outputs, which attributes."""

from __future__ import annotations

from typing import Any, NamedTuple

FIRST_OPSET, LAST_OPSET = 1, 28

# Before opset 6 operators had other attributes; these had not.
BEFORE_OPSET_6 = ("Constant", "Flatten", "Identity", "Not", "Transpose")

INT, INTS, FLOAT, TENSOR = "INT", "INTS", "FLOAT", "TENSOR"
FLOATS, STRING, STRINGS = "FLOATS", "STRING", "STRINGS"
FLAG = (0, 1)
_AUTO_PAD = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


class Operator(NamedTuple):
    """Bounds of an operator."""

    inputs: tuple[int, int]
    outputs: int
    attributes: dict[str, Any]  # name -> type, or the values that are accepted


_ANY = 1 << 16
_WINDOW = {"auto_pad": _AUTO_PAD, "pads": INTS, "strides": INTS, "dilations": INTS}
_POOL = {**_WINDOW, "kernel_shape": INTS, "ceil_mode": FLAG}
_OLD_BROADCAST = {"broadcast": FLAG, "axis": INT}  # before opset 7
_CONSTANT = {
    "value": TENSOR,
    "value_float": FLOAT,
    "value_floats": FLOATS,
    "value_int": INT,
    "value_ints": INTS,
    "value_string": STRING,
    "value_strings": STRINGS,
}


def _binary() -> Operator:
    return Operator((2, 2), 1, _OLD_BROADCAST)


SUPPORTED: dict[str, Operator] = {
    "Add": _binary(),
    "And": _binary(),
    "AveragePool": Operator((1, 1), 1, {**_POOL, "count_include_pad": FLAG}),
    "BatchNormalization": Operator(
        (5, 5),
        5,
        {
            "epsilon": FLOAT,
            "momentum": FLOAT,
            "training_mode": FLAG,
            "spatial": (1,),
            "is_test": (1,),
        },
    ),
    "Concat": Operator((1, _ANY), 1, {"axis": INT}),
    "Constant": Operator((0, 0), 1, _CONSTANT),
    "ConstantOfShape": Operator((1, 1), 1, {"value": TENSOR}),
    "Conv": Operator((2, 3), 1, {**_WINDOW, "kernel_shape": INTS, "group": INT}),
    "Div": _binary(),
    "Dropout": Operator((1, 3), 2, {"ratio": FLOAT, "seed": INT, "is_test": (1,)}),
    "Flatten": Operator((1, 1), 1, {"axis": INT}),
    "Gelu": Operator((1, 1), 1, {"approximate": ("none", "tanh")}),
    "Gemm": Operator(
        (2, 3),
        1,
        {"alpha": FLOAT, "beta": FLOAT, "transA": FLAG, "transB": FLAG, "broadcast": FLAG},
    ),
    "GlobalAveragePool": Operator((1, 1), 1, {}),
    "GlobalMaxPool": Operator((1, 1), 1, {}),
    "Identity": Operator((1, 1), 1, {}),
    "LRN": Operator((1, 1), 1, {"alpha": FLOAT, "beta": FLOAT, "bias": FLOAT, "size": INT}),
    "LeakyRelu": Operator((1, 1), 1, {"alpha": FLOAT}),
    "LogSoftmax": Operator((1, 1), 1, {"axis": INT}),
    "MatMul": Operator((2, 2), 1, {}),
    "MaxPool": Operator((1, 1), 2, {**_POOL, "storage_order": FLAG}),
    "Mul": _binary(),
    "Not": Operator((1, 1), 1, {}),
    "Or": _binary(),
    "Pad": Operator(
        (1, 4),
        1,
        {"mode": ("constant", "reflect", "edge", "wrap"), "pads": INTS, "value": FLOAT},
    ),
    "Relu": Operator((1, 1), 1, {}),
    "Reshape": Operator((1, 2), 1, {"allowzero": FLAG, "shape": INTS}),
    "Sigmoid": Operator((1, 1), 1, {}),
    "Softmax": Operator((1, 1), 1, {"axis": INT}),
    "Squeeze": Operator((1, 2), 1, {"axes": INTS}),
    "Sub": _binary(),
    "Sum": Operator((1, _ANY), 1, {}),
    "Swish": Operator((1, 1), 1, {"alpha": FLOAT}),
    "Tanh": Operator((1, 1), 1, {}),
    "Transpose": Operator((1, 1), 1, {"perm": INTS}),
    "Unsqueeze": Operator((1, 2), 1, {"axes": INTS}),
    "Xor": _binary(),
}

# Attributes without a default.
REQUIRED = {
    "AveragePool": "kernel_shape",
    "MaxPool": "kernel_shape",
    "Concat": "axis",
    "LRN": "size",
}

# Inputs that say how, not what: they must be constants for a network of fixed shapes.
SHAPE_INPUTS = {"Reshape": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Pad": (1, 2, 3)}
