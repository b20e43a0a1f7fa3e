"""C twins of ``loopnest.kernels.optimizer``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from loopnest.ckernels.call import by_dtype, pointer


def _step(name: str) -> Callable:
    functions = by_dtype(name)

    def call(grad, *arguments):
        arguments = [pointer(a) if type(a) is np.ndarray else a for a in arguments]
        functions[grad.dtype](pointer(grad), grad.size, *arguments)

    return call


sgd_step = _step("sgd_step")
adam_step = _step("adam_step")
rmsprop_step = _step("rmsprop_step")
adagrad_step = _step("adagrad_step")
lion_step = _step("lion_step")
