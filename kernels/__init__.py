"""Numba loops, one module an op family; installed as ``loopnest.kernels``.

Kernels take contiguous arrays, outputs last, sizes from the arrays and options
as plain ints. They check nothing and allocate nothing large: that is the work of
the package above. ``loopnest.ops.c`` has the same modules and functions in C.

A module is imported when it is first asked for. So modules of plain rules, which do not import
Numba, serve the package where Numba is absent.
"""

from importlib import import_module

__all__ = [
    "activation",
    "convolution",
    "convolution_driver",
    "convolution_tiled",
    "convolution_weight",
    "dense",
    "dense_tiled",
    "descent",
    "gates",
    "logic",
    "logic_bits",
    "loss",
    "optimizer",
    "pooling",
    "winograd",
]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")
