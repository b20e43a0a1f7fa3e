"""Whether a program is what its steps can work on: run after each rewriting of it.

Lowering tells users what is wrong with their networks. What is found here is a fault of this
library, and an internal error instead of a wrong number. The work is linear in the steps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from loopnest.network.program import Program, Shape, Step, Storage, Value
from loopnest.ops.pooling import resolve as resolve_pooling
from loopnest.ops.shapes import resolve as resolve_convolution


class ProgramError(RuntimeError):
    """A program that cannot be run: a fault of loopnest, not of the network."""


def verify(program: Program) -> None:
    """Raise `ProgramError` unless shapes, dtypes and storages fit and all is written before it is read."""
    written: dict[Storage, int] = defaultdict(int)  # elements, those written twice counted twice
    for at, step in enumerate(program.steps):
        try:
            for value in step.inputs:
                if value is not None:
                    _within(value)
                    _readable(program, value, written)
            for value in step.outputs:
                _within(value)
                _require(value.storage.kind in ("work", "output"), "it writes what is given")
            _integers(step)
            SHAPES[step.kind](step)
        except (ProgramError, ValueError, KeyError) as error:
            raise ProgramError(f"internal error: step {at}, {step.kind}: {error}") from error
        for value in step.outputs:
            moved = step.kind == "move"
            written[value.storage] += math.prod(step.options["shape"]) if moved else value.size
    for index, value in enumerate(program.outputs):
        storage = value.storage
        fits = storage.kind == "output" and storage.index == index and value.size == storage.size
        if not fits or value.offset or written[storage] < value.size:
            raise ProgramError(f"internal error: output {index} is not computed, or not whole")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ProgramError(what)


def _within(value: Value) -> None:
    inside = value.offset >= 0 and value.offset + value.size <= value.storage.size
    _require(inside and min(value.shape, default=0) >= 0, f"{value.shape} lies outside its array")


def _readable(program: Program, value: Value, written: dict[Storage, int]) -> None:
    storage, data = value.storage, value.storage.data
    if storage.kind == "constant":
        assert data is not None
        _require(data.dtype == program.dtype and data.flags.c_contiguous, "a constant's dtype")
        _require(data.size == storage.size, "a constant's size")
    elif storage.kind != "input":
        _require(written[storage] >= value.size, "it reads what is not written yet")


def _integers(step: Step) -> None:
    """Places of maxima are int64, all else is of the program's dtype."""
    places = {"max_pool2d": step.outputs[1:], "max_pool2d_backward": step.inputs[2:]}
    whole = [v.storage for v in places.get(step.kind, ()) if v is not None]
    for value in step.values:
        _require(value.storage.integer == (value.storage in whole), "integers and floats are mixed")


def _same(what: str, *shapes: tuple[Any, ...]) -> None:
    _require(len(set(shapes)) == 1, f"{what}: shapes {', '.join(map(str, shapes))}")


def _shapes(step: Step) -> tuple[list[Shape], list[Shape]]:
    inputs = [() if v is None else v.shape for v in step.inputs]
    return inputs, [v.shape for v in step.outputs]


def _windows(x: Shape, y: Shape, size: Shape, step: Step, pool: bool) -> None:
    o, plane, window = step.options, (x[2], x[3]), (size[0], size[1])
    output: tuple[int, ...]
    if pool:
        dilation = o.get("dilation", (1, 1))
        output = resolve_pooling(
            step.kind, plane, window, o["stride"], o["padding"], dilation, o["ceil_mode"]
        ).output
    else:
        output = resolve_convolution(
            step.kind, plane, window, o["stride"], o["padding"], o["dilation"]
        ).output
    _same("its result", y[2:], tuple(output))


def _conv2d(step: Step) -> None:
    (x, weight, bias, *more), (y,) = _shapes(step)
    groups = step.options["groups"]
    _same("channels", (x[1], y[1], y[0]), (weight[1] * groups, weight[0], x[0]))
    _windows(x, y, weight[2:], step, pool=False)
    _require(step.inputs[2] is None or bias == (weight[0],), f"bias of shape {bias}")
    _same("what is added", y, *more)


def _linear(step: Step) -> None:
    (x, weight, bias), (y,) = _shapes(step)
    _same("a product", (*x[:-1], weight[1]), y)
    _same("a product's terms", x[-1:], weight[:1])
    _require(step.inputs[2] is None or bias == (weight[1],), f"bias of shape {bias}")


def _matmul(step: Step) -> None:
    (a, b), (y,) = _shapes(step)
    _same("a product", (a[0], a[1], b[2]), y)
    _same("a product's terms", (a[0], a[2]), (b[0], b[1]))


def _pool2d(step: Step) -> None:
    (x,), ys = _shapes(step)
    _same("planes", *[y[:2] for y in (x, *ys)])
    for y in ys:
        _windows(x, y, step.options["kernel"], step, pool=True)


def _global_pool2d(step: Step) -> None:
    (x,), (y,) = _shapes(step)
    _same("its result", (*x[:2], 1, 1), y)


def _elementwise(step: Step) -> None:
    inputs, outputs = _shapes(step)
    _same("elements", *[(math.prod(s),) for s in (*inputs, *outputs)])


def _rows(step: Step) -> None:
    inputs, outputs = _shapes(step)
    _same("rows", *inputs, *outputs)
    _require(len(inputs[0]) == 2, f"rows of shape {inputs[0]}")


def _fill(step: Step) -> None:
    _require(not step.inputs, "it reads")


def _move(step: Step) -> None:
    o = step.options
    ends = ((step.inputs[0], o["x_strides"], o["x_offset"]),
            (step.outputs[0], o["y_strides"], o["y_offset"]))  # fmt: skip
    for value, strides, offset in ends:
        assert value is not None
        low, high = reach(o["shape"], strides, offset)
        _require(low >= 0 and high < value.size, f"elements {low} to {high} of {value.size}")


def reach(shape: Sequence[int], strides: Sequence[int], offset: int) -> tuple[int, int]:
    """The first and the last of strided elements; (0, -1) if there are none."""
    if min(shape, default=1) < 1:
        return 0, -1
    ends = [(size - 1) * stride for size, stride in zip(shape, strides, strict=True)]
    return offset + sum(min(end, 0) for end in ends), offset + sum(max(end, 0) for end in ends)


def _batch_norm(step: Step) -> None:
    inputs, (scale, shift) = _shapes(step)
    _same("channels", *inputs, shift)
    _same("factors", scale, (*shift, 1, 1, 1))


def _layer_backward(step: Step) -> None:
    """dy, x, weight -> (dx, if asked for,) dweight, dbias"""
    (dy, x, weight), outputs = _shapes(step)
    if step.kind == "conv2d_backward":
        _windows(x, dy, weight[2:], step, pool=False)
        filters = (weight[0],)
    else:
        _same("a product", (x[0], weight[1]), dy)
        filters = (weight[1],)
    _same("gradients", (x, weight, filters)[-len(outputs) :], tuple(outputs))


def _matmul_backward(step: Step) -> None:
    (dy, a, b), outputs = _shapes(step)
    _same("a product", (a[0], a[1], b[2]), dy)
    _same("gradients", (a, b), tuple(outputs))


def _max_pool2d_backward(step: Step) -> None:
    (dy, x, places), (dx,) = _shapes(step)
    _same("planes", dy, places)
    _same("gradients", x, dx)
    _same("planes", dy[:2], x[:2])


def _avg_pool2d_backward(step: Step) -> None:
    (dy, x), (dx,) = _shapes(step)
    _same("gradients", x, dx)
    _windows(x, dy, step.options["kernel"], step, pool=True)


SHAPES: dict[str, Callable[[Step], None]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool2d": _pool2d,
    "avg_pool2d": _pool2d,
    "global_avg_pool2d": _global_pool2d,
    "global_max_pool2d": _global_pool2d,
    "unary": _elementwise,
    "binary": _elementwise,
    "affine": _elementwise,
    "softmax": _rows,
    "log_softmax": _rows,
    "fill": _fill,
    "move": _move,
    "batch_norm": _batch_norm,
    "conv2d_backward": _layer_backward,
    "linear_backward": _layer_backward,
    "matmul_backward": _matmul_backward,
    "max_pool2d_backward": _max_pool2d_backward,
    "avg_pool2d_backward": _avg_pool2d_backward,
    "unary_backward": _elementwise,
    "softmax_backward": _rows,
}
