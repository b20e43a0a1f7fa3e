"""C twins of ``loopnest.kernels.optimizer``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from loopnest._c import ffi
from loopnest.ckernels.call import by_dtype

_POINTERS = {
    np.dtype(np.float32): ffi.typeof("float[]"),
    np.dtype(np.float64): ffi.typeof("double[]"),
}


def _step(name: str) -> Callable:
    functions = by_dtype(name)
    from_buffer = ffi.from_buffer

    def call(grad, *arguments):
        dtype = grad.dtype
        kind = _POINTERS[dtype]  # all arrays are of one dtype
        arguments = [from_buffer(kind, a) if type(a) is np.ndarray else a for a in arguments]
        functions[dtype](from_buffer(kind, grad), grad.size, *arguments)

    return call


sgd_step = _step("sgd_step")
adam_step = _step("adam_step")
rmsprop_step = _step("rmsprop_step")
adagrad_step = _step("adagrad_step")
lion_step = _step("lion_step")
