"""C twins of ``loopnest.kernels.optimizer``."""

from __future__ import annotations

from collections.abc import Callable

from loopnest.ops.c.call import kernel


def _step(name: str) -> Callable:
    def arrange(grad, *arguments):
        return grad, grad.size, *arguments

    return kernel(name)(arrange)


sgd_step = _step("sgd_step")
adam_step = _step("adam_step")
rmsprop_step = _step("rmsprop_step")
adagrad_step = _step("adagrad_step")
lion_step = _step("lion_step")
