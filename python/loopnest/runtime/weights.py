"""The arrays that hold a network's weights: how they may change, and what else lies in their memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any

import numpy as np


class Weights(dict[str, np.ndarray]):
    """Arrays by name, which stay the same arrays for as long as the network lives.

    Programs and compiled functions hold the arrays themselves. So an assignment copies its numbers
    into the entry's array; entries do not come or go.
    """

    def __setitem__(self, name: str, value: Any) -> None:
        own = self.get(name)
        if own is None:
            raise ValueError(f"the network has no weights {name!r}; accepted: {sorted(self)}")
        if value is own:  # after ``weights[name] *= 2``
            return
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise TypeError(f"{name} has dtype {array.dtype}; accepted: floats")
        if array.shape != own.shape:
            raise ValueError(f"{name} has shape {array.shape}; accepted: {own.shape}")
        if not own.flags.writeable:
            raise ValueError(f"{name} is read-only: it never changes in this network")
        own[...] = array

    def update(self, *others: Any, **named: Any) -> None:
        for name, value in dict(*others, **named).items():
            self[name] = value

    def __ior__(self, other: Any) -> Weights:  # type: ignore[override,misc]
        self.update(other)
        return self

    def _refuse(self, *_: Any) -> Any:
        raise TypeError("the weights of a network cannot be removed or added")

    __delitem__ = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self) -> tuple:
        return dict, (dict(self),)  # a copy belongs to no network


def read_only(array: np.ndarray) -> np.ndarray:
    """The same memory as an array that cannot be made writable again."""
    if not (array.size and array.flags.c_contiguous) or array.dtype.hasobject:
        array.setflags(write=False)
        return array
    flat: Any = array.reshape(-1).view(np.uint8)
    memory = memoryview(flat).toreadonly()
    return np.frombuffer(memory, np.uint8).view(array.dtype).reshape(array.shape)


def _owner(array: np.ndarray) -> Any:
    """The object whose memory an array shows."""
    owner: Any = array
    while True:
        base = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
        if base is None:
            return owner
        owner = base


class Ranges:
    """The memory of several arrays, as ranges of addresses in order."""

    def __init__(self, arrays: Iterable[np.ndarray]) -> None:
        arrays = list(arrays)
        self._owners = [_owner(array) for array in arrays]  # kept alive, so the ids stay theirs
        self._owner_ids = set(map(id, self._owners))
        merged: list[list[int]] = []
        for first, end in sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays):
            if first == end:
                continue
            if merged and first <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([first, end])
        self.firsts = [first for first, _ in merged]
        self.ends = [end for _, end in merged]

    def may_meet(self, array: np.ndarray) -> bool:
        """A quick look: an array that owns its memory is apart from all that others own."""
        return not array.flags.owndata or id(array) in self._owner_ids

    def meet(self, array: np.ndarray) -> bool:
        """Whether a contiguous array has a byte in one of them."""
        first = array.ctypes.data
        at = bisect_right(self.ends, first)  # the first range that ends behind ``first``
        return at < len(self.ends) and self.firsts[at] < first + array.nbytes
