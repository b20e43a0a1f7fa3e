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


def kernel(name: str) -> Callable[[Callable], Callable]:
    """Make a kernel of a function that brings arguments into the order of ``ln_<name>``.

    It returns them as C takes them, arrays in place of pointers; the first one's dtype picks the
    C function. ``arrange`` of the kernel gives function and arguments without calling.
    """
    functions = by_dtype(name)

    def make(arrange: Callable) -> Callable:
        def call(*arguments):
            given = arrange(*arguments)
            functions[arguments[0].dtype](
                *[
                    _from_buffer(_CTYPES_CACHE[a.dtype], a) if type(a) is np.ndarray else a
                    for a in given
                ]
            )

        made: Any = call
        made.arrange = lambda *arguments: (functions[arguments[0].dtype], arrange(*arguments))
        made.__name__ = name
        return made

    return make


def or_null(array: np.ndarray) -> Any:
    """An empty array stands for one that is not wanted."""
    return array if array.size else ffi.NULL
