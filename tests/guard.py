"""Arrays beside pages that nobody may touch, and a run of the whole table of cases on them.

`python guard.py BACKEND DTYPE SIDE` runs every small case with all its inputs, outputs and
work space placed so; a kernel that reads or writes one byte too many kills the process,
which is why tests run it as one. The case in hand is printed before it starts.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from typing import Any

import numpy as np

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_PROT_NONE = 0


def guarded(shape: Any, dtype: Any = float, side: str = "end") -> np.ndarray:
    """Uninitialised array whose last ("end") or first ("start") byte touches a protected page."""
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (int(shape),)
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    pages = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + 2 * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (address, address + mmap.PAGESIZE + pages):
        if _libc.mprotect(page, mmap.PAGESIZE, _PROT_NONE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = mmap.PAGESIZE + (pages - nbytes if side == "end" else 0)
    return np.ndarray(shape, dtype, memory, offset)


def placed(array: np.ndarray, side: str) -> np.ndarray:
    """A copy of ``array`` beside a protected page."""
    copy = guarded(array.shape, array.dtype, side)
    copy[...] = array
    return copy


class _GuardedNumPy:
    """NumPy for the package's modules, with guarded new arrays."""

    def __init__(self, side: str) -> None:
        self._side = side

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any = float) -> np.ndarray:
        return guarded(shape, dtype, self._side)

    def empty_like(self, prototype: np.ndarray) -> np.ndarray:
        return guarded(prototype.shape, prototype.dtype, self._side)

    def zeros(self, shape: Any, dtype: Any = float) -> np.ndarray:
        array = guarded(shape, dtype, self._side)
        array[...] = 0
        return array


def _guard_package(side: str) -> None:
    """Let every array that the package makes, work space included, be guarded."""
    import loopnest  # noqa: F401
    from loopnest.runtime import scratch

    for name, module in list(sys.modules.items()):
        if name.startswith("loopnest.") and getattr(module, "np", None) is np:
            module.np = _GuardedNumPy(side)  # type: ignore[attr-defined]

    class take:
        def __init__(self, shape: Any, dtype: Any = np.uint8) -> None:
            self._array = guarded(shape, dtype, side)

        def __enter__(self) -> np.ndarray:
            return self._array

        def __exit__(self, *exception: object) -> None:
            pass

    scratch.take = take  # type: ignore[assignment, misc]


def main(backend: str, dtype: str, side: str) -> None:
    from cases import SMALL
    from helpers import assert_same_bits

    import loopnest as ln

    ln.use_backend(backend)
    expected = [case.call(ln, case.arguments(np.dtype(dtype))) for case in SMALL]
    _guard_package(side)
    for case, plain in zip(SMALL, expected, strict=True):
        print(f"{case} {dtype} {backend} {side}", flush=True)
        arguments = tuple(placed(a, side) for a in case.arguments(np.dtype(dtype)))
        assert_same_bits(case.call(ln, arguments), plain, str(case))
    print("all", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
