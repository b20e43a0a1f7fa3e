"""Where the work arrays of a program live: one block of memory, used again and again."""

from __future__ import annotations

import numpy as np

from loopnest.network.program import Program, Storage

ALIGNMENT = 64  # bytes: a cache line, and the longest vector

# Steps whose output may be one of their inputs, from this one on: what is done element by element.
# A convolution is none of them: some of its kernels write sums before they add what it adds.
IN_PLACE = {"unary": 0, "binary": 0, "affine": 0}


class Workspace:
    """Offsets, in elements, of the work arrays of a program within one block.

    Two arrays share elements only if the last use of one comes before the first of the other, or
    if a step may work in place.
    """

    def __init__(self, program: Program, keep: bool = False) -> None:
        self.unit = ALIGNMENT // program.dtype.itemsize
        self.offsets: dict[Storage, int] = {}
        self.size = 0
        self._free: list[tuple[int, int]] = []  # (offset, size), in order
        last_use: dict[Storage, int] = {}
        for at, step in enumerate(program.steps):
            for value in step.values:
                last_use[value.storage] = at
        owners: dict[int, int] = {}  # offset -> how many live arrays are there
        for at, step in enumerate(program.steps):
            for value in step.outputs:
                storage = value.storage
                if storage.kind != "work" or storage.integer or storage in self.offsets:
                    continue
                offset = None
                if step.kind in IN_PLACE and not keep:
                    first = IN_PLACE[step.kind]
                    others = [v.storage for v in step.inputs[:first] if v is not None]
                    for given in step.inputs[first:]:
                        if (
                            given is not None
                            and given.storage in self.offsets
                            and last_use[given.storage] == at
                            and given.size == given.storage.size == value.size == storage.size
                            and self.offsets[given.storage] not in map(self.offsets.get, others)
                        ):
                            offset = self.offsets[given.storage]
                            break
                if offset is None:
                    offset = self._take(self._rounded(storage.size))
                owners[offset] = owners.get(offset, 0) + 1
                self.offsets[storage] = offset
            if self.size * program.dtype.itemsize > program.limit:
                raise ValueError(
                    f"network: its work space would have {self.size * program.dtype.itemsize} "
                    f"bytes; accepted: at most {program.limit}"
                )
            if keep:
                continue
            for storage in {v.storage for v in step.values}:
                if storage in self.offsets and last_use[storage] == at:
                    offset = self.offsets[storage]
                    owners[offset] -= 1
                    if not owners[offset]:
                        self._give(offset, self._rounded(storage.size))

    def _rounded(self, size: int) -> int:
        return max(1, -(-size // self.unit)) * self.unit

    def _take(self, size: int) -> int:
        for i, (offset, room) in enumerate(self._free):
            if room >= size:
                self._free[i : i + 1] = [(offset + size, room - size)] if room > size else []
                return offset
        offset = self.size
        if self._free and sum(self._free[-1]) == self.size:  # grow the last hole
            offset = self._free.pop()[0]
        self.size = offset + size
        return offset

    def _give(self, offset: int, size: int) -> None:
        merged: list[tuple[int, int]] = []
        for start, room in sorted([*self._free, (offset, size)]):
            if merged and sum(merged[-1]) == start:
                merged[-1] = (merged[-1][0], merged[-1][1] + room)
            else:
                merged.append((start, room))
        self._free = merged


def aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """An array of ``size`` elements that begins at a cache line."""
    room = ALIGNMENT // dtype.itemsize
    block = np.empty(size + room, dtype)
    skip = (-block.ctypes.data % ALIGNMENT) // dtype.itemsize
    return block[skip : skip + size]
