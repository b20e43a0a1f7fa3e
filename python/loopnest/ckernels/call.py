"""What every C kernel call needs: the function for a dtype, and pointers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from loopnest._c import ffi, lib

_from_buffer = ffi.from_buffer
_CTYPES = {
    "f": "float[]",
    "d": "double[]",
    "i": "int32_t[]",
    "l": "int64_t[]",
    "q": "int64_t[]",
    "B": "uint8_t[]",
    "L": "uint64_t[]",
    "Q": "uint64_t[]",
}
_CTYPES_CACHE = {np.dtype(char): ffi.typeof(ctype) for char, ctype in _CTYPES.items()}


def by_dtype(name: str) -> dict[np.dtype, Callable[..., None]]:
    """The C function ``ln_<name>`` for each dtype."""
    return {
        np.dtype(np.float32): getattr(lib, f"ln_{name}_f32"),
        np.dtype(np.float64): getattr(lib, f"ln_{name}_f64"),
    }


def pointer(array: np.ndarray) -> Any:
    """C pointer to a contiguous array; the array lives as long as it does."""
    return _from_buffer(_CTYPES_CACHE[array.dtype], array)
