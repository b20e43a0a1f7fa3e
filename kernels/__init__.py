"""Numba loops, one module an op family; installed as ``loopnest.kernels``.

Kernels take contiguous arrays, outputs last, sizes from the arrays and options
as plain ints. They check nothing and allocate nothing large: that is the work of
the package above. ``loopnest.ckernels`` has the same modules and functions in C.
"""

from loopnest.kernels import (
    activation,
    convolution,
    convolution_pointwise,
    convolution_stacked,
    convolution_tiled,
    convolution_weight,
    dense,
    dense_tiled,
    descent,
    gates,
    logic,
    logic_bits,
    loss,
    optimizer,
    pooling,
    winograd,
)

__all__ = [
    "activation",
    "convolution",
    "convolution_pointwise",
    "convolution_stacked",
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
