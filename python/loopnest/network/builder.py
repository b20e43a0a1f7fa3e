"""Makes programs: a method a kind of step, which checks shapes and adds the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from loopnest.network.program import (
    MAX_DIMS,
    MOST_MOVES,
    Program,
    Shape,
    Step,
    Storage,
    Value,
    row_strides,
)
from loopnest.network.verify import reach, verify
from loopnest.ops import activation as activations
from loopnest.ops.pooling import resolve as resolve_pooling
from loopnest.ops.shapes import resolve as resolve_convolution

# Steps of a program: far more than any network needs, and a bound for hostile files.
MAX_STEPS = 100_000


class Builder:
    """Makes a program, one step a method. Methods check shapes, and raise ValueError.

    ``where`` is put in front of messages: the node that is being built.
    """

    def __init__(self, dtype: Any, limit: int, fuse: bool = True) -> None:
        self.dtype = np.dtype(dtype)
        self.limit = limit  # of one array, in bytes
        self.fuse = fuse  # activations into the step before; never where gradients are wanted
        self.where = "network"
        self.steps: list[Step] = []
        self.inputs: list[Value] = []

    # ---- values ----

    def fail(self, message: str) -> ValueError:
        return ValueError(f"{self.where}: {message}")

    def input(self, shape: Shape) -> Value:
        value = Value(Storage("input", math.prod(shape), len(self.inputs)), shape)
        self.inputs.append(value)
        return value

    def constant(self, data: np.ndarray, name: str = "") -> Value:
        data = np.require(data, self.dtype, ("C", "A"))
        return Value(Storage("constant", data.size, data=data, name=name), data.shape)

    def work(self, shape: Iterable[int], integer: bool = False) -> Value:
        shape = tuple(shape)
        size = math.prod(shape)
        if min(shape, default=0) < 0:
            raise self.fail(f"a result would have the shape {shape}")
        if size * self.dtype.itemsize > self.limit:
            raise self.fail(
                f"a result would have the shape {shape}, {size * self.dtype.itemsize} bytes; "
                f"accepted: at most {self.limit}"
            )
        return Value(Storage("work", size, integer=integer), shape)

    def step(
        self,
        kind: str,
        inputs: Sequence[Value | None],
        outputs: Sequence[Value],
        **options: Any,
    ) -> Value:
        if len(self.steps) >= MAX_STEPS:
            raise self.fail(f"the network needs more than {MAX_STEPS} steps")
        self.steps.append(Step(kind, tuple(inputs), tuple(outputs), options))
        return outputs[0]

    # ---- kernels ----

    def conv2d(
        self,
        x: Value,
        weight: Value,
        bias: Value | None,
        stride: Shape = (1, 1),
        padding: tuple[Shape, Shape] = ((0, 0), (0, 0)),
        dilation: Shape = (1, 1),
        groups: int = 1,
    ) -> Value:
        n, c, h, w = x.shape
        k, group_channels, r, s = weight.shape
        if groups < 1 or c % groups or k % groups or group_channels * groups != c or not r * s:
            raise self.fail(
                f"{c} channels, {groups} groups and a weight of shape {weight.shape} do not fit"
            )
        if bias is not None and bias.shape != (k,):
            raise self.fail(f"bias has shape {bias.shape}; accepted: {(k,)}")
        geometry = resolve_convolution(self.where, (h, w), (r, s), stride, padding, dilation)
        y = self.work((n, k, *geometry.output))
        return self.step(
            "conv2d",
            (x, weight, bias),
            (y,),
            stride=tuple(stride),
            padding=tuple(tuple(side) for side in padding),
            dilation=tuple(dilation),
            groups=groups,
            activation=None,
        )

    def linear(self, x: Value, weight: Value, bias: Value | None) -> Value:
        """x (..., inputs) @ weight (inputs, outputs) + bias"""
        if not x.ndim or weight.ndim != 2 or x.shape[-1] != weight.shape[0]:
            raise self.fail(f"x of shape {x.shape} and weight of shape {weight.shape} do not fit")
        inputs, outputs = weight.shape
        if bias is not None and bias.shape != (outputs,):
            raise self.fail(f"bias has shape {bias.shape}; accepted: {(outputs,)}")
        rows = math.prod(x.shape[:-1])
        y = self.work((rows, outputs))
        self.step("linear", (x.reshaped(rows, inputs), weight, bias), (y,), activation=None)
        return y.reshaped(*x.shape[:-1], outputs)

    def matmul(self, a: Value, b: Value) -> Value:
        """Products of batches of matrices, (batch, m, k) and (batch, k, n)."""
        y = self.work((a.shape[0], a.shape[1], b.shape[2]))
        return self.step("matmul", (a, b), (y,))

    def pool2d(
        self,
        kind: str,
        x: Value,
        kernel: Shape,
        stride: Shape,
        padding: Shape = (0, 0),
        ceil_mode: bool = False,
        **options: Any,
    ) -> Value:
        """``max_pool2d`` (option dilation) or ``avg_pool2d`` (count_include_pad)."""
        dilation = options.get("dilation", (1, 1))
        geometry = resolve_pooling(
            self.where, (x.shape[2], x.shape[3]), kernel, stride, padding, dilation, ceil_mode
        )
        y = self.work((*x.shape[:2], *geometry.output))
        return self.step(
            kind,
            (x,),
            (y,),
            kernel=tuple(kernel),
            stride=tuple(stride),
            padding=tuple(padding),
            ceil_mode=bool(ceil_mode),
            **options,
        )

    def global_pool2d(self, kind: str, x: Value) -> Value:
        """``global_avg_pool2d`` or ``global_max_pool2d`` of (n, c, h, w)."""
        if not x.shape[2] * x.shape[3]:
            raise self.fail(f"x has shape {x.shape}; accepted: planes of at least one element")
        return self.step(kind, (x,), (self.work((*x.shape[:2], 1, 1)),))

    def unary(self, name: str, x: Value, slope: float = 0.01) -> Value:
        """An activation (`UNARY`); part of the step before where that step can have it."""
        last = self.steps[-1] if self.steps else None
        if (
            self.fuse
            and last is not None
            and last.kind in ("conv2d", "linear", "binary")
            and last.options["activation"] is None
            and last.outputs[0].storage is x.storage
            and name in activations.FUSED
            and (name != "leaky_relu" or slope == 0.01)
            and (last.kind != "binary" or name == "relu")
        ):
            fused = self.step(last.kind, last.inputs, (self.work(last.outputs[0].shape),),
                              **{**last.options, "activation": name})  # fmt: skip
            # Where something else reads x too, the step before stays; else it is dropped.
            return fused.reshaped(*x.shape)
        return self.step("unary", (x,), (self.work(x.shape),), name=name, slope=slope)

    def softmax(self, kind: str, x: Value) -> Value:
        """``softmax`` or ``log_softmax`` of the rows (rows, classes)."""
        return self.step(kind, (x,), (self.work(x.shape),))

    def binary(self, name: str, a: Value, b: Value) -> Value:
        """`BINARY`, element by element, broadcasting as NumPy does."""
        try:
            shape = np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            raise self.fail(f"shapes {a.shape} and {b.shape} do not broadcast") from None
        a, b = self.expanded(a, shape), self.expanded(b, shape)
        return self.step("binary", (a, b), (self.work(shape),), name=name, activation=None)

    def batch_norm(self, parameters: Sequence[Value], epsilon: float) -> tuple[Value, Value]:
        """(scale, shift) of a batch normalisation by (weight, bias, mean, variance)."""
        (channels,) = parameters[0].shape
        scale, shift = self.work((channels, 1, 1, 1)), self.work((channels,))
        self.step("batch_norm", parameters, (scale, shift), epsilon=float(epsilon))
        return scale, shift

    def affine(self, x: Value, scale: float, shift: float = 0.0) -> Value:
        """x scale + shift, rounded twice; a scale of 1 or a shift of 0 is left out."""
        if scale == 1 and shift == 0:
            return x
        return self.step(
            "affine", (x,), (self.work(x.shape),), scale=float(scale), shift=float(shift)
        )

    # ---- moving numbers ----

    def fill(self, y: Value, value: float) -> Value:
        # Integers, of which only NumPy calls have arrays, stay exact.
        value = float(value) if self.dtype.kind == "f" else value
        return self.step("fill", (), (y,), value=value)

    def move(
        self,
        x: Value,
        y: Value,
        shape: Sequence[int],
        x_strides: Sequence[int],
        y_strides: Sequence[int],
        x_offset: int = 0,
        y_offset: int = 0,
        how: str = "set",
    ) -> Value:
        """y[at] = x[at] over strided elements, or with ``how`` "add" y[at] += x[at]."""
        _check_bounds(self, x, shape, x_strides, x_offset)
        _check_bounds(self, y, shape, y_strides, y_offset)
        shape, x_strides, y_strides = joined_axes(shape, x_strides, y_strides)
        if len(shape) > MAX_DIMS:
            return self._moves(x, y, (shape, x_strides, y_strides), x_offset, y_offset, how)
        return self.step(
            "move",
            (x,),
            (y,),
            how=how,
            shape=tuple(shape),
            x_strides=tuple(x_strides),
            y_strides=tuple(y_strides),
            x_offset=x_offset,
            y_offset=y_offset,
        )

    def _moves(
        self, x: Value, y: Value, axes: tuple, x_offset: int, y_offset: int, how: str
    ) -> Value:
        """A move over too many axes, as one for each index of the shortest of them."""
        shape, x_strides, y_strides = map(list, axes)
        count = min(shape)
        if count > MOST_MOVES:
            told = f"elements lie in {len(shape)} axes of {count} and more"
            raise self.fail(f"{told}; accepted: {MAX_DIMS}, or one of at most {MOST_MOVES}")
        at = shape.index(count)
        del shape[at]
        x_step, y_step = x_strides.pop(at), y_strides.pop(at)
        for i in range(count):
            offsets = x_offset + i * x_step, y_offset + i * y_step
            self.move(x, y, shape, x_strides, y_strides, *offsets, how)
        return y

    def expanded(self, x: Value, shape: Shape) -> Value:
        """x broadcast to a shape."""
        if x.shape == shape:
            return x
        missing = len(shape) - x.ndim
        strides = [0] * missing + [
            0 if size == 1 != wanted else stride
            for size, wanted, stride in zip(
                x.shape, shape[missing:], row_strides(x.shape), strict=True
            )
        ]
        return self.move(x, self.work(shape), shape, strides, row_strides(shape))

    def transposed(self, x: Value, axes: Sequence[int]) -> Value:
        """x with its axes in another order."""
        if list(axes) == list(range(x.ndim)):
            return x
        shape = tuple(x.shape[a] for a in axes)
        if [a for a in axes if x.shape[a] != 1] == [a for a in range(x.ndim) if x.shape[a] != 1]:
            return x.reshaped(*shape)  # no element moves
        strides = row_strides(x.shape)
        y = self.work(shape)
        return self.move(x, y, shape, [strides[a] for a in axes], row_strides(shape))

    def padded(self, x: Value, pads: Sequence[tuple[int, int]], value: float) -> Value:
        """x with (before, after) elements of ``value`` along each axis; negative ones crop."""
        if not any(map(any, pads)):
            return x
        shape = tuple(s + a + b for s, (a, b) in zip(x.shape, pads, strict=True))
        y = self.work(shape)
        if any(before > 0 or after > 0 for before, after in pads):
            self.fill(y, value)
        block = [s + min(a, 0) + min(b, 0) for s, (a, b) in zip(x.shape, pads, strict=True)]
        if min(block, default=1) <= 0 or not y.size:
            return y
        x_strides, y_strides = row_strides(x.shape), row_strides(shape)
        x_offset = sum(max(0, -a) * s for (a, _), s in zip(pads, x_strides, strict=True))
        y_offset = sum(max(0, a) * s for (a, _), s in zip(pads, y_strides, strict=True))
        return self.move(x, y, block, x_strides, y_strides, x_offset, y_offset)

    # ---- the whole ----

    def finish(self, outputs: Sequence[Value], separable: bool) -> Program:
        """The program; every output gets an array of its own, steps that serve nothing go."""
        results, written = [], set()
        for index, value in enumerate(outputs):
            whole = value.offset == 0 and value.size == value.storage.size
            if value.storage.kind != "work" or value.storage in written or not whole:
                copy, shape = self.work(value.shape), (value.size,)
                self.move(value.reshaped(*shape), copy.reshaped(*shape), shape, (1,), (1,))
                value = copy
            written.add(value.storage)
            value.storage.kind, value.storage.index = "output", index
            results.append(value)
        steps = needed(self.steps, results)
        program = Program(self.dtype, self.inputs, results, steps, separable, self.limit)
        verify(program)
        return program


def needed(steps: Sequence[Step], results: Iterable[Value]) -> list[Step]:
    """The steps that the results depend on."""
    wanted = {value.storage for value in results}
    kept = []
    for step in reversed(steps):
        if any(value.storage in wanted for value in step.outputs):
            kept.append(step)
            wanted.update(v.storage for v in step.inputs if v is not None)
    return kept[::-1]


def joined_axes(
    shape: Sequence[int], x_strides: Sequence[int], y_strides: Sequence[int]
) -> tuple[Shape, Shape, Shape]:
    """The same elements in as few axes as can be: neighbours that lie together become one.

    Axes of size 1 stay apart from this unless they are dropped, which would make the number of
    axes depend on a batch of 1; the first axis is therefore kept.
    """
    sizes: list[int] = []
    a: list[int] = []
    b: list[int] = []
    for axis, (size, p, q) in enumerate(zip(shape, x_strides, y_strides, strict=True)):
        if size == 1 and axis > 0:
            continue
        if len(sizes) > 1 and a[-1] == size * p and b[-1] == size * q:
            sizes[-1], a[-1], b[-1] = sizes[-1] * size, p, q
        else:
            sizes.append(size)
            a.append(p)
            b.append(q)
    return tuple(sizes), tuple(a), tuple(b)


def _check_bounds(
    builder: Builder, value: Value, shape: Sequence[int], strides: Sequence[int], offset: int
) -> None:
    low, high = reach(shape, strides, offset)
    if low < 0 or high >= value.size:
        raise builder.fail(f"elements {low} to {high} of {value.size} were asked for")
