"""Steps of a program put together where numbers are computed from Python: fewer passes over memory.

`fused` takes and gives a `Program` of the same bits. What it does:

    an addition (and what it is followed by) becomes part of the convolution before it
    what is computed only to be copied into a part of a larger array, as for Concat, is
    computed there

The work grows with the number of steps and no faster: every question is answered from tables
that are made in one pass (`_Uses`, `_Placing`).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from loopnest.network.program import Program, Step, Storage, Value, row_strides
from loopnest.network.verify import verify


def fused(program: Program) -> Program:
    """The program with fewer steps, where it can have fewer."""
    steps = _with_additions(program.steps)
    result = replace(program, steps=_without_copies(steps))
    verify(result)
    return result


def _is_whole(value: Value | None) -> bool:
    """Whether a value is all of a work array."""
    return value is not None and value.storage.kind == "work" and value.size == value.storage.size


class _Uses:
    """For each storage the places of the steps that read it and of those that write it, in order."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.reads: dict[Storage, list[int]] = defaultdict(list)
        self.writes: dict[Storage, list[int]] = defaultdict(list)
        for at, step in enumerate(steps):
            for storage in {v.storage for v in step.inputs if v is not None}:
                self.reads[storage].append(at)
            for storage in {v.storage for v in step.outputs}:
                self.writes[storage].append(at)

    def written_between(self, storage: Storage, first: int, last: int) -> bool:
        """Whether a step writes it after ``first`` and before ``last``."""
        places = self.writes[storage]
        after = bisect_right(places, first)
        return after < len(places) and places[after] < last


# ---- additions ----


def _with_additions(steps: Sequence[Step]) -> list[Step]:
    """Each addition of what one convolution before it computes, and only for it, in one step."""
    result: list[Step | None] = list(steps)
    uses = _Uses(steps)
    for at, step in enumerate(steps):
        if step.kind != "binary" or step.options["name"] != "add":
            continue
        found = next(_addable(result, uses, at), None)
        if found is None:
            continue
        place, more = found
        product = result[place]
        assert product is not None
        # The convolution may work in another shape than the addition: that of 1D data, or of the
        # planes of a batch normalisation.
        y = step.outputs[0].reshaped(*product.outputs[0].shape)
        options = {**product.options, "activation": step.options["activation"]}
        result[place], result[at] = None, Step("conv2d", (*product.inputs, more), (y,), options)
    return [step for step in result if step is not None]


def _addable(steps: Sequence[Step | None], uses: _Uses, at: int) -> Iterator[tuple[int, Value]]:
    """(place of a convolution, the other operand) of an addition, the later convolution first."""
    addition = steps[at]
    assert addition is not None
    a, b = addition.inputs
    assert a is not None and b is not None
    candidates = []
    for sums, more in ((a, b), (b, a)):
        writes = uses.writes[sums.storage]
        if len(writes) == 1 and len(uses.reads[sums.storage]) == 1 and _is_whole(sums):
            candidates.append((writes[0], more))
    for place, more in sorted(candidates, key=lambda found: -found[0]):
        step = steps[place]
        if (
            step is not None
            and step.kind == "conv2d"
            and len(step.inputs) == 3
            and step.options["activation"] is None
            and more.storage is not step.outputs[0].storage
            and not any(uses.written_between(v.storage, place, at) for v in step.inputs if v)
        ):
            yield place, more.reshaped(*step.outputs[0].shape)


# ---- copies ----


def _without_copies(steps: Sequence[Step]) -> list[Step]:
    """Without the moves of a whole work array to where it could have been from the start."""
    placing = _Placing(steps)
    kept = [step for at, step in enumerate(steps) if not placing.take(at, step)]
    return [placing.redirected(step) for step in kept]


class _Placing:
    """Work arrays that are computed within other arrays, and the tables that tell whether they can be.

    Arrays only ever move to a range of another one that nothing else writes, so what the tables
    say of an array stays true once others are placed within it.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.uses = _Uses(steps)
        self.places: dict[Storage, Value] = {}  # where an array is instead
        self._alone = _alone(steps)

    def take(self, at: int, move: Step) -> bool:
        """Place the source of a move where it goes to; False if it must be where it is."""
        if move.kind != "move" or move.options["how"] != "set":
            return False
        (x,), (y,), shape = move.inputs, move.outputs, move.options["shape"]
        x = None if x is None else self.moved(x)
        reads, writes = self.uses.reads[y.storage], self.uses.writes
        if (
            x is None
            or not _is_whole(x)
            or not x.size
            or x.storage is y.storage
            or math.prod(shape) != x.size
            or not _straight(shape, move.options["x_strides"])
            or not _straight(shape, move.options["y_strides"])
            or at not in self._alone
            or (reads and reads[0] < at)
            or (writes[x.storage] and writes[x.storage][-1] >= at)
        ):
            return False
        self.places[x.storage] = Value(y.storage, (x.size,), y.offset + move.options["y_offset"])
        return True

    def moved(self, value: Value) -> Value:
        """A value where it is now."""
        passed = []
        storage, offset = value.storage, value.offset
        while storage in self.places:
            passed.append((storage, offset))
            place = self.places[storage]
            storage, offset = place.storage, offset + place.offset
        for before, at in passed:  # so that the next search is one look
            self.places[before] = Value(storage, (before.size,), offset - at)
        return Value(storage, value.shape, offset) if passed else value

    def redirected(self, step: Step) -> Step:
        """The step on the arrays where they are now."""
        if not any(value.storage in self.places for value in step.values):
            return step
        inputs = tuple(None if value is None else self.moved(value) for value in step.inputs)
        return Step(step.kind, inputs, tuple(map(self.moved, step.outputs)), step.options)


def _alone(steps: Sequence[Step]) -> set[int]:
    """The moves whose range of the array that they write is written by no other step."""
    ranges: dict[Storage, list[tuple[int, int, int]]] = defaultdict(list)
    for at, step in enumerate(steps):
        for value in step.outputs:
            first, size = _written(step, value)
            if size:
                ranges[value.storage].append((first, first + size, at))
    found = set()
    for written in ranges.values():
        written.sort()
        reached = 0  # the end of all ranges before this one
        for i, (first, end, at) in enumerate(written):
            if reached <= first and (i + 1 == len(written) or end <= written[i + 1][0]):
                found.add(at)
            reached = max(reached, end)
    return {at for at in found if steps[at].kind == "move"}


def _straight(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements lie one after the other."""
    return all(
        size == 1 or stride == wanted
        for size, stride, wanted in zip(shape, strides, row_strides(shape), strict=True)
    )


def _written(step: Step, value: Value) -> tuple[int, int]:
    """(first element, elements) within which a step writes ``value``; exact for straight moves."""
    if step.kind == "move" and _straight(step.options["shape"], step.options["y_strides"]):
        return value.offset + step.options["y_offset"], math.prod(step.options["shape"])
    return value.offset, value.size
