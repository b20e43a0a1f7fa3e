"""ONNX operators on arrays at hand: every dtype that they are listed for, shapes that come as data.

For constants while a model is loaded, and for networks that no program of fixed shapes can
express (integers, logic, shapes that are computed). What floats go through here runs on the same
kernels: the one node is lowered for the shapes at hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from loopnest.execute import Executor
from loopnest.lower_windows import window_of
from loopnest.lowering import Lowering, Node
from loopnest.operators import OPERATORS, lower
from loopnest.program import Storage, Value

_FLOATS = (np.float32, np.float64)
# Operators that only move elements: of any dtype.
_MOVES = ("Concat", "Flatten", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def evaluate(node: Node, inputs: Sequence[Any], limit: int) -> list[Any]:
    """Results of one node; ``limit`` bounds each, in bytes.

    Raises
    ------
    ValueError, TypeError
        Arrays that do not fit; the message names the node.
    """
    b = Lowering(np.float32, limit)
    b.where = node.label
    if node.op == "Identity":
        return [inputs[0]]
    if any(isinstance(v, (list, tuple)) for v in inputs):
        raise TypeError(f"{node.label}: an input is a sequence; accepted: arrays")
    arrays = [None if v is None else np.asarray(v) for v in inputs]
    with np.errstate(all="ignore"):
        special = SPECIAL.get(node.op)
        if special is not None:
            results = special(b, node, arrays)
            if results is not None:
                return results
        return [_lowered(node, arrays, limit)]


def _lowered(node: Node, arrays: list, limit: int) -> np.ndarray:
    x = arrays[0]
    half = x.dtype == np.float16 and node.op not in _MOVES
    if half:
        arrays = [
            v.astype(np.float32) if v is not None and v.dtype == np.float16 else v for v in arrays
        ]
        x = arrays[0]
    if x.dtype.type not in _FLOATS and node.op not in _MOVES:
        raise TypeError(f"{node.label}: an input has dtype {x.dtype}; accepted: floats")
    if node.op == "Concat" and any(v.dtype != x.dtype for v in arrays):
        raise TypeError(f"{node.label}: inputs of dtypes {sorted({str(v.dtype) for v in arrays})}")
    b = Lowering(x.dtype, limit)
    values: list[Value | None] = [b.input(x.shape)]
    for array in arrays[1:]:
        if array is None:
            values.append(None)
            continue
        data = np.require(array, requirements=("C", "A"))
        values.append(Value(Storage("constant", data.size, data=data), data.shape))
    outputs = lower(b, node, values)
    program = b.finish(outputs[:1], separable=False)
    y = np.empty(program.outputs[0].shape, x.dtype)
    Executor(program).run([np.require(x, requirements=("C", "A"))], [y])
    return y.astype(np.float16) if half else y


# ---- what is not a step of a program; None: it is, after all ----


def _result_shape(b: Lowering, *arrays: np.ndarray) -> None:
    """Check a broadcast before it is made."""
    try:
        shape = np.broadcast_shapes(*[a.shape for a in arrays])
    except ValueError:
        raise b.fail(f"shapes {[a.shape for a in arrays]} do not broadcast") from None
    size = math.prod(shape) * max(a.itemsize for a in arrays)
    if size > b.limit:
        raise b.fail(f"the result would have shape {shape}; accepted: at most {b.limit} bytes")


def _operands(b: Lowering, node: Node, arrays: list) -> tuple[np.ndarray, np.ndarray]:
    first, second = arrays
    if node.opset < 7 and node.attributes.get("broadcast"):
        axis = node.attributes.get("axis", first.ndim - second.ndim)
        after = first.ndim - axis - second.ndim
        if after < 0:
            raise b.fail(f"axis is {axis} for shapes {first.shape} and {second.shape}")
        second = second.reshape(*second.shape, *[1] * after)
    if first.dtype != second.dtype:
        raise TypeError(f"{b.where}: inputs of dtypes {first.dtype} and {second.dtype}")
    _result_shape(b, first, second)
    return first, second


def _arithmetic(function: Callable) -> Callable:
    def run(b: Lowering, node: Node, arrays: list) -> list:
        first, second = _operands(b, node, arrays)
        if first.dtype.kind not in "iuf":
            raise TypeError(f"{b.where}: an input has dtype {first.dtype}; accepted: numbers")
        return [np.asarray(function(first, second))]

    return run


def _divide(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Integers are cut towards zero."""
    if first.dtype.kind == "f":
        return first / second
    quotient = first // second
    if first.dtype.kind == "i":
        quotient += ((first % second != 0) & ((first < 0) != (second < 0))).astype(first.dtype)
    return quotient


def _logic(function: Callable) -> Callable:
    def run(b: Lowering, node: Node, arrays: list) -> list:
        first, second = _operands(b, node, arrays)
        if first.dtype != np.bool_:
            raise TypeError(f"{b.where}: an input has dtype {first.dtype}; accepted: bool")
        return [np.asarray(function(first, second))]

    return run


def _not(b: Lowering, node: Node, arrays: list) -> list:
    if arrays[0].dtype != np.bool_:
        raise TypeError(f"{b.where}: the input has dtype {arrays[0].dtype}; accepted: bool")
    return [np.logical_not(arrays[0])]


def _sum(b: Lowering, node: Node, arrays: list) -> list:
    total = arrays[0]
    for array in arrays[1:]:
        if array.dtype != total.dtype:
            raise TypeError(f"{b.where}: inputs of dtypes {total.dtype} and {array.dtype}")
        _result_shape(b, total, array)
        total = np.asarray(total + array)
    return [total]


def _constant(b: Lowering, node: Node, arrays: list) -> list:
    ((name, value),) = node.attributes.items()
    kind: dict[str, Any] = {"value_float": np.float32, "value_floats": np.float32}
    kind |= {"value_int": np.int64, "value_ints": np.int64}
    if name in ("value_string", "value_strings"):
        return [np.array(value, object)]
    return [np.asarray(value, kind.get(name))]


def _constant_of_shape(b: Lowering, node: Node, arrays: list) -> list:
    shape = [int(v) for v in arrays[0].reshape(-1)]
    value = np.asarray(node.attributes.get("value", np.zeros(1, np.float32)))
    if value.size != 1 or arrays[0].dtype.kind not in "iu" or arrays[0].ndim != 1:
        raise b.fail("value must have one element, and the shape be a vector of integers")
    if min(shape, default=0) < 0 or len(shape) > 32:
        raise b.fail(f"shape is {shape}")
    if math.prod(shape) * value.itemsize > b.limit:
        raise b.fail(f"shape is {shape}; accepted: at most {b.limit} bytes")
    return [np.full(shape, value.reshape(-1)[0], value.dtype)]


def _integers(function: Callable) -> Callable:
    """A NumPy function for integers; floats go to the kernels."""

    def run(b: Lowering, node: Node, arrays: list) -> list | None:
        return function(b, node, arrays) if arrays[0].dtype.kind in "iu" else None

    return run


@_integers
def _matmul(b: Lowering, node: Node, arrays: list) -> list:
    try:
        return [np.asarray(np.matmul(*arrays))]
    except ValueError as error:
        raise b.fail(str(error)) from None


def _dropout(b: Lowering, node: Node, arrays: list) -> list:
    x, ratio, training = (arrays + [None] * 2)[:3]
    if node.opset < 12 or training is None or not bool(training):
        return [x, np.ones(x.shape, bool)]
    share = 0.5 if ratio is None else float(ratio)
    if not 0 <= share < 1:
        raise b.fail(f"ratio is {share}; accepted: from 0 to below 1")
    if share == 0:
        return [x, np.ones(x.shape, bool)]
    # Which elements are dropped is the implementer's choice; this one is that of ONNX's own tests.
    random = np.random.RandomState(node.attributes.get("seed"))
    mask = random.uniform(0, 1, x.shape) >= share
    return [(mask * x * (1 / (1 - share))).astype(x.dtype), mask]


def _batch_normalization(b: Lowering, node: Node, arrays: list) -> list | None:
    x, scale, bias, mean, variance = arrays
    a = node.attributes
    if not a.get("training_mode", 0):
        if any(v.shape != x.shape[1:2] for v in arrays[1:]):
            raise b.fail(f"x has shape {x.shape}, parameters {[v.shape for v in arrays[1:]]}")
        return None
    momentum, axes = a.get("momentum", 0.9), tuple(i for i in range(x.ndim) if i != 1)
    wide = x.astype(np.float64)
    now_mean, now_variance = wide.mean(axes), wide.var(axes)
    column = (1, -1) + (1,) * (x.ndim - 2)
    y = (wide - now_mean.reshape(column)) / np.sqrt(
        now_variance.reshape(column) + a.get("epsilon", 1e-5)
    ) * scale.reshape(column) + bias.reshape(column)
    running = [
        (old * momentum + new * (1 - momentum)).astype(old.dtype)
        for old, new in ((mean, now_mean), (variance, now_variance))
    ]
    return [y.astype(x.dtype), *running]


def _max_pool(b: Lowering, node: Node, arrays: list) -> list | None:
    """Integers, and the places of the maxima in the whole input."""
    (x,) = arrays
    if len(node.outputs) < 2 and x.dtype.kind == "f":
        return None
    if x.ndim < 3:
        raise b.fail(f"x has shape {x.shape}; accepted: (N, C, ...)")
    w = window_of(b, node, x.shape[2:], node.attributes["kernel_shape"])
    least = -math.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    shape, spatial = (*x.shape[:2], *w.output), x.shape[2:]
    if math.prod(shape) * 8 > b.limit or math.prod(w.kernel) > 1 << 20:
        raise b.fail(f"the result would have shape {shape}, the window is {w.kernel}")
    best, places = np.full(shape, least, x.dtype), np.full(shape, -1, np.int64)
    order = list(reversed(range(len(spatial)))) if node.attributes.get("storage_order") else None
    numbers = np.arange(math.prod(spatial)).reshape(
        [spatial[a] for a in order] if order else spatial
    )
    numbers = numbers.transpose(order) if order else numbers
    planes = np.arange(shape[0] * shape[1]).reshape(*shape[:2], *[1] * len(spatial))
    for tap in np.ndindex(*w.kernel):
        at = [
            np.arange(o) * s - p + t * d
            for o, s, p, t, d in zip(w.output, w.stride, w.before, tap, w.dilation, strict=True)
        ]
        inside = np.ones(w.output, bool)
        for axis, (a, size) in enumerate(zip(at, spatial, strict=True)):
            column = [1] * len(spatial)
            column[axis] = -1
            inside &= ((a >= 0) & (a < size)).reshape(column)
        index = np.ix_(*[np.clip(a, 0, size - 1) for a, size in zip(at, spatial, strict=True)])
        value = x[(slice(None), slice(None), *index)]
        better = inside & ((value > best) | (value != value) | (places < 0))
        np.copyto(best, value, where=better)
        np.copyto(places, planes * math.prod(spatial) + numbers[index], where=better)
    return [best, places][: len(node.outputs)]


def _relu(b: Lowering, node: Node, arrays: list) -> list | None:
    return [np.maximum(arrays[0], 0)] if arrays[0].dtype.kind == "i" else None


SPECIAL: dict[str, Callable[[Lowering, Node, list], list | None]] = {
    "Add": _arithmetic(np.add),
    "And": _logic(np.logical_and),
    "BatchNormalization": _batch_normalization,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _arithmetic(_divide),
    "Dropout": _dropout,
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _arithmetic(np.multiply),
    "Not": _not,
    "Or": _logic(np.logical_or),
    "Relu": _relu,
    "Sub": _arithmetic(np.subtract),
    "Sum": _sum,
    "Xor": _logic(np.logical_xor),
}


def run(network: Any, arrays: Sequence[Any]) -> list[Any]:
    """All nodes, one after the other, on these inputs."""
    if len(arrays) != len(network.inputs):
        names = ", ".join(i.name for i in network.inputs)
        raise TypeError(
            f"{network.name}: {len(arrays)} arrays; accepted: {len(network.inputs)} ({names})"
        )
    values: dict[str, Any] = {**network.buffers, **network.parameters, "": None}
    for spec, array in zip(network.inputs, arrays, strict=True):
        values[spec.name] = _input(network.name, spec, array)
    last = {name: i for i, node in enumerate(network.nodes) for name in node.inputs}
    for i, node in enumerate(network.nodes):
        made = evaluate(node, [values[name] for name in node.inputs], network._limit)
        values.update(zip(node.outputs, made, strict=False))
        for name in node.inputs:
            if name and last[name] == i and name not in network.outputs:
                values[name] = None
    return [values[name] for name in network.outputs]


def _input(op: str, spec: Any, value: Any) -> Any:
    if spec.dtype is None:  # a sequence or an optional value
        return value
    array = np.asarray(value)
    if array.dtype != spec.dtype:
        raise TypeError(f"{op}: {spec.name} has dtype {array.dtype}; accepted: {spec.dtype}")
    if not spec.accepts(array.shape):
        raise ValueError(f"{op}: {spec.name} has shape {array.shape}; accepted: {spec.described()}")
    return array


def is_lowered(op: str) -> bool:
    """Whether a program can have this operator."""
    return op in OPERATORS
