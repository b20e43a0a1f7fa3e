"""Steps of a program put together where numbers are computed from Python: fewer passes over memory.

`fused` takes and gives a `Program` of the same bits. What it does:

    an addition (and what it is followed by) becomes part of the convolution before it
    what is computed only to be copied into a part of a larger array, as for Concat, is
    computed there
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from loopnest.program import Program, Step, Storage, Value, row_strides


def fused(program: Program) -> Program:
    """The program with fewer steps, where it can have fewer."""
    steps = _with_additions(program.steps)
    return replace(program, steps=_without_copies(steps))


def _is_whole(value: Value | None) -> bool:
    """Whether a value is all of a work array."""
    return value is not None and value.storage.kind == "work" and value.size == value.storage.size


def _writes(step: Step, storage: Storage) -> bool:
    return any(value.storage is storage for value in step.outputs)


def _reads(step: Step, storage: Storage) -> bool:
    return any(value is not None and value.storage is storage for value in step.inputs)


# ---- additions ----


def _with_additions(steps: Sequence[Step]) -> list[Step]:
    """Each addition of what one convolution before it computes, and only for it, in one step."""
    result = list(steps)
    for step in steps:
        if step.kind != "binary" or step.options["name"] != "add":
            continue
        found = next(_addable(result, step), None)
        if found is None:
            continue
        product, more = found
        options = {**product.options, "activation": step.options["activation"]}
        result.remove(product)
        # The sum is as large as the convolution, though it may have another shape.
        sums = tuple(y.reshaped(*product.outputs[0].shape) for y in step.outputs)
        result[result.index(step)] = Step("conv2d", (*product.inputs, more), sums, options)
    return result


def _addable(steps: Sequence[Step], addition: Step) -> Iterator[tuple[Step, Value]]:
    """(convolution, the other operand), the later convolution first."""
    at = steps.index(addition)
    a, b = addition.inputs
    assert a is not None and b is not None
    for i in range(at - 1, -1, -1):
        step, between = steps[i], steps[i + 1 : at]
        for sums, more in ((a, b), (b, a)):
            if (
                step.kind == "conv2d"
                and len(step.inputs) == 3
                and step.options["activation"] is None
                and _writes(step, sums.storage)
                and _is_whole(sums)
                and more.storage is not sums.storage
                and sum(_reads(s, sums.storage) for s in steps) == 1
                and sum(_writes(s, sums.storage) for s in steps) == 1
                and not any(_writes(s, v.storage) for s in between for v in step.inputs if v)
            ):
                yield step, more.reshaped(*step.outputs[0].shape)


# ---- copies ----


def _without_copies(steps: Sequence[Step]) -> list[Step]:
    """Without the moves of a whole work array to where it could have been from the start."""
    result, at = list(steps), 0
    while at < len(result):
        place = _place(result, at)
        if place is None:
            at += 1
            continue
        source = result.pop(at).inputs[0]
        assert source is not None
        result = [_redirected(step, source.storage, place) for step in result]
    return result


def _place(steps: Sequence[Step], at: int) -> Value | None:
    """Where the source of a move could be, as a flat value; None if it must be where it is."""
    move = steps[at]
    if move.kind != "move" or move.options["how"] != "set":
        return None
    (x,), (y,), shape = move.inputs, move.outputs, move.options["shape"]
    if (
        x is None
        or not _is_whole(x)
        or x.storage is y.storage
        or math.prod(shape) != x.size
        or not _straight(shape, move.options["x_strides"])
        or not _straight(shape, move.options["y_strides"])
    ):
        return None
    place = Value(y.storage, (x.size,), y.offset + move.options["y_offset"])
    apart = not any(
        value.storage is y.storage and _overlap(step, value, place)
        for step in (*steps[:at], *steps[at + 1 :])
        for value in step.outputs
    )
    early = any(
        value is not None and value.storage is y.storage and _meet(value.offset, value.size, place)
        for step in steps[:at]
        for value in step.inputs
    )
    late = any(_writes(step, x.storage) for step in steps[at:])
    return place if apart and not early and not late else None


def _straight(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements lie one after the other."""
    return all(
        size == 1 or stride == wanted
        for size, stride, wanted in zip(shape, strides, row_strides(shape), strict=True)
    )


def _overlap(step: Step, value: Value, place: Value) -> bool:
    """Whether a step may write within a place, ``value`` being what it writes; exact for straight moves."""
    first, size = value.offset, value.size
    if step.kind == "move" and _straight(step.options["shape"], step.options["y_strides"]):
        first, size = first + step.options["y_offset"], math.prod(step.options["shape"])
    return _meet(first, size, place)


def _meet(first: int, size: int, place: Value) -> bool:
    """Whether elements from ``first`` on of the same array are some of a place."""
    return first < place.offset + place.size and place.offset < first + size


def _redirected(step: Step, source: Storage, place: Value) -> Step:
    """The step with ``place`` for the array ``source``."""

    def moved(value: Value) -> Value:
        if value.storage is not source:
            return value
        return Value(place.storage, value.shape, place.offset + value.offset)

    if not (_reads(step, source) or _writes(step, source)):
        return step
    inputs = tuple(None if value is None else moved(value) for value in step.inputs)
    return Step(step.kind, inputs, tuple(map(moved, step.outputs)), step.options)
