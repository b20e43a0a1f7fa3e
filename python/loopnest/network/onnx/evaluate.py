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

from loopnest.network.execute import BINDERS, Executor
from loopnest.network.lowering import Lowering, Node
from loopnest.network.onnx.cost import NODE, Budget, program_cost
from loopnest.network.onnx.table import SHAPE_INPUTS
from loopnest.network.program import Program, Storage, Value
from loopnest.network.steps.operators import OPERATORS, lower
from loopnest.network.steps.windows import window_of

_FLOATS = (np.float32, np.float64)
# Work, in multiply-adds of 1 ns: of one of NumPy's on integers, of one random number, and of the
# dozen NumPy calls that a tap of a window is.
_INTEGER_MULTIPLY, _RANDOM, _NUMPY_CALLS = 4, 16, 50_000
# Operators that only move elements: of any dtype.
_MOVES = ("Concat", "Flatten", "Pad", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
# Inputs that may have another dtype than the first one.
_OTHER_DTYPE = {**SHAPE_INPUTS, "BatchNormalization": (1, 2, 3, 4), "Dropout": (1, 2)}


class _Evaluation(Lowering):
    """A builder for one node whose inputs are at hand; what the node may cost is in ``budget``."""

    def __init__(self, dtype: Any, node: Node, budget: Budget) -> None:
        super().__init__(dtype, budget.bytes)
        self.where, self.budget = node.label, budget

    def spend(self, work: float) -> None:
        self.budget.spend(self.where, work)


def evaluate(node: Node, inputs: Sequence[Any], budget: Budget) -> list[Any]:
    """Results of one node; ``budget`` bounds the bytes of each, and the work.

    Both bounds are checked from shapes, before anything is allocated or computed.

    Raises
    ------
    ValueError, TypeError
        Arrays that do not fit; the message names the node.
    """
    b = _Evaluation(np.float32, node, budget)
    b.spend(NODE)
    if node.op == "Identity":
        return [inputs[0]]
    if any(isinstance(v, (list, tuple)) or v is None for v in inputs[:1]):
        raise TypeError(f"{node.label}: an input is a sequence or left out; accepted: arrays")
    arrays = [None if v is None else np.asarray(v) for v in inputs]
    with np.errstate(all="ignore"):
        special = SPECIAL.get(node.op)
        if special is not None:
            results = special(b, node, arrays)
            if results is not None:
                return results
        return [_lowered(node, arrays, budget)]


def _lowered(node: Node, arrays: list, budget: Budget) -> np.ndarray:
    x = arrays[0]
    half = x.dtype == np.float16 and node.op not in _MOVES
    if half:
        arrays = [
            v.astype(np.float32) if v is not None and v.dtype == np.float16 else v for v in arrays
        ]
        x = arrays[0]
    _check_dtypes(node, arrays)
    b = _Evaluation(x.dtype, node, budget)
    values: list[Value | None] = [b.input(x.shape)]
    for array in arrays[1:]:
        if array is None:
            values.append(None)
            continue
        data = np.require(array, requirements=("C", "A"))
        values.append(Value(Storage("constant", data.size, data=data), data.shape))
    outputs = lower(b, node, values)
    program = b.finish(outputs[:1], separable=False)
    b.spend(program_cost(program))
    y = np.empty(program.outputs[0].shape, x.dtype)
    _run(program, np.require(x, requirements=("C", "A")), y)
    return y.astype(np.float16) if half else y


def _check_dtypes(node: Node, arrays: list) -> None:
    x = arrays[0]
    if x.dtype.type not in _FLOATS and node.op not in _MOVES:
        raise TypeError(f"{node.label}: an input has dtype {x.dtype}; accepted: floats")
    others = _OTHER_DTYPE.get(node.op, ())
    same = [v.dtype for i, v in enumerate(arrays) if v is not None and i not in others]
    if any(dtype != x.dtype for dtype in same):
        raise TypeError(f"{node.label}: inputs of dtypes {sorted({str(d) for d in same})}")


def _run(program: Program, x: np.ndarray, y: np.ndarray) -> None:
    """Run a program of one input and one output once."""
    if len(program.steps) != 1:
        return Executor(program).run([x], [y])
    # Most nodes are one step: it is called as it is, without the work space of an executor.
    (step,) = program.steps
    arrays = {program.inputs[0].storage: x, program.outputs[0].storage: y}

    def array(value: Value | None) -> np.ndarray | None:
        if value is None or value.storage not in arrays:
            return None if value is None else value.constant
        flat = arrays[value.storage].reshape(-1)
        return flat[value.offset : value.offset + value.size].reshape(value.shape)

    BINDERS[step.kind]([array(v) for v in step.inputs], [array(v) for v in step.outputs],
                       step.options)()  # fmt: skip
    return None


# ---- what is not a step of a program; None: it is, after all ----


def _result_shape(b: _Evaluation, *arrays: np.ndarray) -> None:
    """Check a broadcast before it is made, and pay for it."""
    try:
        shape = np.broadcast_shapes(*[a.shape for a in arrays])
    except ValueError:
        raise b.fail(f"shapes {[a.shape for a in arrays]} do not broadcast") from None
    _check_size(b, shape, max(a.itemsize for a in arrays))
    b.spend(2 * math.prod(shape))


def _check_size(b: _Evaluation, shape: Sequence[int], itemsize: int) -> None:
    if math.prod(shape) * itemsize > b.limit:
        raise b.fail(
            f"the result would have shape {tuple(shape)}; accepted: at most {b.limit} bytes"
        )


def _operands(b: _Evaluation, node: Node, arrays: list) -> tuple[np.ndarray, np.ndarray]:
    first, second = arrays
    if node.opset < 7 and node.attributes.get("broadcast"):
        axis = node.attributes.get("axis", first.ndim - second.ndim)
        after = first.ndim - axis - second.ndim
        if after < 0:
            raise b.fail(f"axis is {axis} for shapes {first.shape} and {second.shape}")
        if second.ndim + after > 32:
            raise b.fail(f"axis is {axis} for shapes {first.shape} and {second.shape}")
        second = second.reshape(*second.shape, *[1] * after)
    if first.dtype != second.dtype:
        raise TypeError(f"{b.where}: inputs of dtypes {first.dtype} and {second.dtype}")
    _result_shape(b, first, second)
    return first, second


def _arithmetic(function: Callable) -> Callable:
    def run(b: _Evaluation, node: Node, arrays: list) -> list:
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
    def run(b: _Evaluation, node: Node, arrays: list) -> list:
        first, second = _operands(b, node, arrays)
        if first.dtype != np.bool_:
            raise TypeError(f"{b.where}: an input has dtype {first.dtype}; accepted: bool")
        return [np.asarray(function(first, second))]

    return run


def _not(b: _Evaluation, node: Node, arrays: list) -> list:
    if arrays[0].dtype != np.bool_:
        raise TypeError(f"{b.where}: the input has dtype {arrays[0].dtype}; accepted: bool")
    return [np.logical_not(arrays[0])]


def _sum(b: _Evaluation, node: Node, arrays: list) -> list:
    total = arrays[0]
    for array in arrays[1:]:
        if array.dtype != total.dtype:
            raise TypeError(f"{b.where}: inputs of dtypes {total.dtype} and {array.dtype}")
        _result_shape(b, total, array)
        total = np.asarray(total + array)
    return [total]


def _constant(b: _Evaluation, node: Node, arrays: list) -> list:
    ((name, value),) = node.attributes.items()
    kind: dict[str, Any] = {"value_float": np.float32, "value_floats": np.float32}
    kind |= {"value_int": np.int64, "value_ints": np.int64}
    if name in ("value_string", "value_strings"):
        return [np.array(value, object)]
    return [np.asarray(value, kind.get(name))]


def _constant_of_shape(b: _Evaluation, node: Node, arrays: list) -> list:
    shape = [int(v) for v in arrays[0].reshape(-1)]
    value = np.asarray(node.attributes.get("value", np.zeros(1, np.float32)))
    if value.size != 1 or arrays[0].dtype.kind not in "iu" or arrays[0].ndim != 1:
        raise b.fail("value must have one element, and the shape be a vector of integers")
    if min(shape, default=0) < 0 or len(shape) > 32:
        raise b.fail(f"shape is {shape}")
    if math.prod(shape) * value.itemsize > b.limit:
        raise b.fail(f"shape is {shape}; accepted: at most {b.limit} bytes")
    b.spend(math.prod(shape))
    return [np.full(shape, value.reshape(-1)[0], value.dtype)]


def _integers(function: Callable) -> Callable:
    """A NumPy function for integers; floats go to the kernels."""

    def run(b: _Evaluation, node: Node, arrays: list) -> list | None:
        return function(b, node, arrays) if arrays[0].dtype.kind in "iu" else None

    return run


@_integers
def _matmul(b: _Evaluation, node: Node, arrays: list) -> list:
    first, second = arrays
    if first.dtype != second.dtype:
        raise TypeError(f"{b.where}: inputs of dtypes {first.dtype} and {second.dtype}")
    if not first.ndim or not second.ndim:
        raise b.fail("an operand has no axes")
    rows, columns = first.shape[-2:-1], second.shape[-1:] if second.ndim > 1 else ()
    inner = first.shape[-1]
    try:
        batch = np.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    except ValueError:
        batch = None
    if batch is None or inner != second.shape[-2 if second.ndim > 1 else -1]:
        raise b.fail(f"shapes {first.shape} and {second.shape} do not fit")
    shape = (*batch, *rows, *columns)
    _check_size(b, shape, first.itemsize)
    b.spend(_INTEGER_MULTIPLY * math.prod(shape) * inner)
    return [np.asarray(np.matmul(first, second))]


def _dropout(b: _Evaluation, node: Node, arrays: list) -> list:
    x, ratio, training = (arrays + [None] * 2)[:3]
    if node.opset < 12 or training is None or not bool(training):
        return [x, np.ones(x.shape, bool)]
    share = 0.5 if ratio is None else float(ratio)
    if not 0 <= share < 1:
        raise b.fail(f"ratio is {share}; accepted: from 0 to below 1")
    if share == 0:
        return [x, np.ones(x.shape, bool)]
    seed = node.attributes.get("seed")
    if seed is not None and not 0 <= seed < 2**32:
        raise b.fail(f"seed is {seed}; accepted: 0 to 2**32 - 1")
    _check_size(b, x.shape, 8)
    b.spend(_RANDOM * x.size)
    # Which elements are dropped is the implementer's choice; this one is that of ONNX's own tests.
    random = np.random.RandomState(seed)
    mask = random.uniform(0, 1, x.shape) >= share
    return [(mask * x * (1 / (1 - share))).astype(x.dtype), mask]


def _batch_normalization(b: _Evaluation, node: Node, arrays: list) -> list | None:
    x, scale, bias, mean, variance = arrays
    a = node.attributes
    if not a.get("training_mode", 0):
        if any(v.shape != x.shape[1:2] for v in arrays[1:]):
            raise b.fail(f"x has shape {x.shape}, parameters {[v.shape for v in arrays[1:]]}")
        return None
    if x.ndim < 2 or any(v.shape != x.shape[1:2] for v in arrays[1:]):
        raise b.fail(f"x has shape {x.shape}, parameters {[v.shape for v in arrays[1:]]}")
    _check_size(b, x.shape, 8)
    b.spend(8 * x.size)
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


def _max_pool(b: _Evaluation, node: Node, arrays: list) -> list | None:
    """Integers, and the places of the maxima in the whole input."""
    (x,) = arrays
    if len(node.outputs) < 2 and x.dtype.kind == "f":
        return None
    if x.ndim < 3:
        raise b.fail(f"x has shape {x.shape}; accepted: (N, C, ...)")
    w = window_of(b, node, x.shape[2:], node.attributes["kernel_shape"])
    least = -math.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    shape, spatial = (*x.shape[:2], *w.output), x.shape[2:]
    taps = math.prod(w.kernel)
    if math.prod(shape) * 8 > b.limit or taps > 1 << 20:
        raise b.fail(f"the result would have shape {shape}, the window is {w.kernel}")
    b.spend(taps * (8 * math.prod(shape) + _NUMPY_CALLS))
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


def _relu(b: _Evaluation, node: Node, arrays: list) -> list | None:
    b.spend(arrays[0].size)
    return [np.maximum(arrays[0], 0)] if arrays[0].dtype.kind == "i" else None


SPECIAL: dict[str, Callable[[_Evaluation, Node, list], list | None]] = {
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
    outputs, sizes = set(network.outputs), dict.fromkeys(values, 0)
    budget = Budget(network._limit, math.inf)
    for i, node in enumerate(network.nodes):
        inputs = [values[name] for name in node.inputs]
        made = evaluate(node, inputs, budget)
        for name, value in zip(node.outputs, made, strict=False):
            # Identity hands on its input, which has been counted.
            fresh = name and not any(value is v for v in inputs)
            sizes[name] = value.nbytes if fresh and isinstance(value, np.ndarray) else 0
            values[name] = value
            budget.bytes -= sizes[name]
        for name in {*node.inputs, *node.outputs}:
            if name and last.get(name, i) == i and name not in outputs:
                values[name] = None
                budget.bytes += sizes[name]
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
