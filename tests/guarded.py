"""Arrays that end, or begin, at a page that must not be touched: one byte beyond is a crash."""

from __future__ import annotations

import ctypes
import math
import mmap
import weakref

import numpy as np

_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _pages(shape: int | tuple[int, ...], dtype, at_end: bool) -> np.ndarray:
    shape = shape if isinstance(shape, tuple) else (shape,)
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    inner = -(-max(nbytes, 1) // _PAGE) * _PAGE
    size = inner + 2 * _PAGE
    start = _libc.mmap(
        None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0
    )
    assert start not in (None, ctypes.c_void_p(-1).value)
    for page in (start, start + size - _PAGE):
        assert _libc.mprotect(page, _PAGE, 0) == 0
    offset = _PAGE + (inner - nbytes if at_end else 0)
    memory = (ctypes.c_char * nbytes).from_address(start + offset)
    weakref.finalize(memory, _libc.munmap, start, size)  # the array keeps it alive
    return np.frombuffer(memory, dtype).reshape(shape)


def at_page_end(shape: int | tuple[int, ...], dtype) -> np.ndarray:
    """Zeros whose last byte is followed by a protected page."""
    return _pages(shape, dtype, True)


def at_page_start(shape: int | tuple[int, ...], dtype) -> np.ndarray:
    """Zeros whose first byte follows a protected page."""
    return _pages(shape, dtype, False)
