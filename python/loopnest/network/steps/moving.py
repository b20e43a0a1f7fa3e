"""Operators that move numbers or rename axes, as steps: see operators.py."""

from __future__ import annotations

import math
from typing import Any

from loopnest.network.lowering import Lowering, Node
from loopnest.network.program import Shape, Value, is_constant, row_strides


def identity(b: Lowering, node: Node, inputs: list) -> list[Value]:
    if len(node.outputs) > 1 or (len(inputs) > 2 and inputs[2] is not None):
        raise b.fail("its mask and its training mode are for NumPy calls only")
    return [inputs[0]]


def flatten(b: Lowering, node: Node, inputs: list) -> list[Value]:
    (x,), axis = inputs, node.attributes.get("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise b.fail(f"axis is {axis} for {x.ndim} dimensions")
    axis = axis + x.ndim if axis < 0 else axis
    b.mixes_rows |= axis == 0
    return [x.reshaped(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))]


def whole(b: Lowering, value: Value | None, attribute: Any, what: str) -> list[int] | None:
    """Integers from a constant input, or from the attribute of older opsets."""
    if value is not None:
        numbers = b.numbers(value, what).reshape(-1)
        if numbers.dtype.kind not in "iu":
            raise b.fail(f"{what} has dtype {numbers.dtype}; accepted: integers")
        return [int(v) for v in numbers]
    return None if attribute is None else [int(v) for v in attribute]


def reshape(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, given = (inputs + [None])[:2]
    shape = whole(b, given, node.attributes.get("shape"), "shape")
    if shape is None:
        raise b.fail("shape is missing")
    return [x.reshaped(*resolve_shape(b, x.shape, shape, node.attributes.get("allowzero", 0)))]


def resolve_shape(b: Lowering, old: Shape, shape: list[int], allow_zero: int) -> list[int]:
    """Reshape's target: 0 keeps an axis, -1 is what is left."""
    if not allow_zero:
        if any(s == 0 and i >= len(old) for i, s in enumerate(shape)):
            raise b.fail(f"shape is {shape} for x of shape {old}")
        shape = [old[i] if s == 0 else s for i, s in enumerate(shape)]
    size, known = math.prod(old), math.prod(s for s in shape if s != -1)
    if shape.count(-1) > 1 or min(shape, default=0) < -1:
        raise b.fail(f"shape is {shape}; accepted: at most one -1")
    if -1 in shape:
        if known == 0 or size % known:
            raise b.fail(f"x of shape {old} does not fit shape {shape}")
        shape = [size // known if s == -1 else s for s in shape]
    if math.prod(shape) != size:
        raise b.fail(f"x of shape {old} does not fit shape {shape}")
    return shape


def squeeze(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, given = (inputs + [None])[:2]
    axes = whole(b, given, node.attributes.get("axes"), "axes")
    if axes is None:
        axes = [a for a, size in enumerate(x.shape) if size == 1]
    axes = [b.axis(a, x.ndim) for a in axes]
    if any(x.shape[a] != 1 for a in axes):
        raise b.fail(f"axes are {axes} for shape {x.shape}; accepted: axes of size 1")
    b.mixes_rows |= 0 in axes
    return [x.reshaped(*[s for a, s in enumerate(x.shape) if a not in axes])]


def unsqueeze(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, given = (inputs + [None])[:2]
    axes = whole(b, given, node.attributes.get("axes"), "axes") or []
    ndim = x.ndim + len(axes)
    axes = [b.axis(a, ndim) for a in axes]
    if len(set(axes)) != len(axes):
        raise b.fail(f"axes are {axes}; accepted: each once")
    b.mixes_rows |= 0 in axes
    sizes = iter(x.shape)
    return [x.reshaped(*[1 if a in axes else next(sizes) for a in range(ndim)])]


def transpose(b: Lowering, node: Node, inputs: list) -> list[Value]:
    (x,) = inputs
    axes = list(node.attributes.get("perm") or range(x.ndim - 1, -1, -1))
    if sorted(axes) != list(range(x.ndim)):
        raise b.fail(f"perm is {axes} for shape {x.shape}")
    b.mixes_rows |= bool(axes) and axes[0] != 0
    return [b.transposed(x, axes)]


def concat(b: Lowering, node: Node, inputs: list) -> list[Value]:
    axis = b.axis(node.attributes.get("axis", 1), inputs[0].ndim)
    shapes = [[s for a, s in enumerate(v.shape) if a != axis] for v in inputs]
    if any(s != shapes[0] for s in shapes):
        raise b.fail(f"shapes {[v.shape for v in inputs]} differ beside axis {axis}")
    b.mixes_rows |= axis == 0
    shape = list(inputs[0].shape)
    shape[axis] = sum(v.shape[axis] for v in inputs)
    y, strides, at = b.work(shape), row_strides(shape), 0
    if not any(not is_constant(v) for v in inputs):
        b.mixes_rows = True
    for value in inputs:
        # Axes before and after the joined one are contiguous in both: three axes do.
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        block = (before, value.shape[axis] * after)
        b.move(value, y, block, (block[1], 1), (shape[axis] * after, 1), 0, at * strides[axis])
        at += value.shape[axis]
    return [y]


def pad(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, given, value, axes_given = (inputs + [None] * 3)[:4]
    a = node.attributes
    pads = whole(b, given, a.get("pads", a.get("paddings")), "pads")
    fill = a.get("value", 0.0)
    if value is not None:
        given_fill = b.numbers(value, "constant_value")
        if given_fill.size != 1:
            raise b.fail(f"constant_value has shape {given_fill.shape}; accepted: one number")
        fill = given_fill.reshape(()).item()
    axes = whole(b, axes_given, None, "axes")
    axes = list(range(x.ndim)) if axes is None else [b.axis(v, x.ndim) for v in axes]
    if pads is None or len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise b.fail(f"pads are {pads} for axes {axes}")
    sides = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        sides[axis] = (pads[i], pads[i + len(axes)])
    if x.ndim and any(sides[0]):
        b.mixes_rows = True
    if any(s + min(p, 0) + min(q, 0) < 0 for s, (p, q) in zip(x.shape, sides, strict=True)):
        raise b.fail(f"pads are {pads} for shape {x.shape}: they crop more than there is")
    mode = a.get("mode", "constant")
    if mode == "constant":
        return [b.padded(x, sides, fill)]
    x = b.padded(x, [(min(p, 0), min(q, 0)) for p, q in sides], 0.0)
    for axis, (before, after) in enumerate(sides):
        x = _repeat(b, x, axis, max(before, 0), max(after, 0), mode)
    return [x]


def _repeat(b: Lowering, x: Value, axis: int, before: int, after: int, mode: str) -> Value:
    """x continued along one axis by "edge", "reflect" or "wrap"."""
    if not before and not after:
        return x
    size, room = x.shape[axis], {"edge": 2**31, "reflect": x.shape[axis] - 1}
    if max(before, after) > room.get(mode, size) or not size:
        raise b.fail(f"pads are {(before, after)} for {size} elements in mode {mode!r}")
    shape = list(x.shape)
    shape[axis] += before + after
    y, x_strides, y_strides = b.work(shape), row_strides(x.shape), row_strides(shape)

    def part(at: int, count: int, first: int, step: int) -> None:
        if count:
            block, strides = list(shape), list(x_strides)
            block[axis], strides[axis] = count, step * x_strides[axis]
            offset = first * x_strides[axis]
            b.move(x, y, block, strides, y_strides, offset, at * y_strides[axis])

    first, last = {
        "edge": ((0, 0), (size - 1, 0)),
        "reflect": ((before, -1), (size - 2, -1)),
        "wrap": ((size - before, 1), (0, 1)),
    }[mode]
    part(0, before, *first)
    part(before, size, 0, 1)
    part(before + size, after, *last)
    return y
