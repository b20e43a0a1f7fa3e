"""Work memory for kernels: aligned blocks, kept by each thread and used again.

Fresh memory costs a page fault every 4 KB, several times what a kernel that fits in the
caches costs; so each thread keeps the blocks that its calls gave back, up to `KEPT` bytes.
Threads share nothing, so there is no lock for a fork to leave held.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

ALIGNMENT = 64  # a cache line, and the widest vector
KEPT = 16 << 20  # bytes that one thread keeps between calls
_GRAIN = 1 << 12  # sizes are rounded up to it, so that similar calls share a block


class _Kept(threading.local):
    """Blocks that this thread gave back."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []


class _Block:
    """Aligned bytes, and the array that they were last taken as."""

    __slots__ = ("array", "dtype", "memory", "shape", "size")

    def __init__(self, nbytes: int) -> None:
        raw = np.empty(nbytes + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        self.memory = raw[start : start + nbytes]
        self.size = nbytes

    def array_of(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        self.shape, self.dtype = shape, dtype
        self.array = array = np.ndarray(shape, dtype, self.memory)
        return array


_kept = _Kept()


class take:
    """Borrow an uninitialised, 64-byte aligned work array for a ``with`` block.

    Parameters
    ----------
    shape : int or tuple of int
        Its shape; a number of bytes with the default dtype.
    dtype : numpy.dtype or type
        Its dtype.

    Raises
    ------
    MemoryError
        There is not so much memory.

    Notes
    -----
    Blocks may be nested, left in any order and by exceptions. The array must not be used
    after the block: its memory then serves another.

    Examples
    --------
    >>> import numpy as np
    >>> from loopnest.runtime import scratch
    >>> with scratch.take((4, 16), np.float32) as work:
    ...     work.shape, work.ctypes.data % 64
    ((4, 16), 0)
    """

    __slots__ = ("_block", "_dtype", "_shape")

    def __init__(self, shape: int | tuple[int, ...], dtype: Any = np.uint8) -> None:
        self._shape = shape if isinstance(shape, tuple) else (shape,)
        self._dtype = dtype

    def __enter__(self) -> np.ndarray:
        shape, dtype, blocks = self._shape, self._dtype, _kept.blocks
        # Most calls want what the last one gave back, as it is.
        if blocks and (last := blocks[-1]).shape == shape and last.dtype is dtype:
            self._block = blocks.pop()
            return last.array
        self._block = block = _fitting(blocks, math.prod(shape) * np.dtype(dtype).itemsize)
        return block.array_of(shape, dtype)

    def __exit__(self, *exception: object) -> None:
        blocks = _kept.blocks
        blocks.append(self._block)
        if len(blocks) > 1 or self._block.size > KEPT:
            _trim(blocks)


def _fitting(blocks: list[_Block], nbytes: int) -> _Block:
    """Take the smallest kept block that is large enough, else a new one."""
    best, best_size = -1, 1 << 63
    for i, block in enumerate(blocks):
        if nbytes <= block.size < best_size:
            best, best_size = i, block.size
    if best >= 0:
        return blocks.pop(best)
    if blocks:
        # The new one will do what the largest did; gone first, for the sake of the peak.
        blocks.remove(max(blocks, key=lambda block: block.size))
    try:
        return _Block(max(_GRAIN, -(-nbytes // _GRAIN) * _GRAIN))
    except (MemoryError, ValueError):
        raise MemoryError(f"loopnest: no memory for {nbytes} bytes of work space") from None


def _trim(blocks: list[_Block]) -> None:
    """Let go of the longest unused blocks beyond `KEPT` bytes."""
    total = 0
    for block in blocks:
        total += block.size
    while total > KEPT:
        total -= blocks.pop(0).size
