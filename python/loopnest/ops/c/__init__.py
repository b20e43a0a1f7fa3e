"""C kernels under the names and arguments of ``loopnest.kernels``, one module an op family.

Each function passes pointers and sizes of its arrays to ``ln_<name>_f32`` or ``_f64``.
"""

from loopnest.ops.c import (
    activation,
    convolution,
    convolution_driver,
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
