"""C twins of ``loopnest.kernels.activation``."""

from __future__ import annotations

from collections.abc import Callable

from loopnest.ops.c.call import kernel


def _forward(name: str) -> Callable:
    def arrange(x, *options):
        *options, y = options
        return x, x.size, *options, y

    return kernel(name)(arrange)


def _backward(name: str) -> Callable:
    def arrange(dy, x, *options):
        *options, dx = options
        return dy, x, x.size, *options, dx

    return kernel(name)(arrange)


exp = _forward("exp")
sigmoid = _forward("sigmoid")
tanh = _forward("tanh")
relu = _forward("relu")
leaky_relu = _forward("leaky_relu")
silu = _forward("silu")
silu_wide = _forward("silu_wide")
gelu = _forward("gelu")
gelu_wide = _forward("gelu_wide")
gelu_tanh = _forward("gelu_tanh")
gelu_erf = _forward("gelu_erf")
gelu_derivative = _forward("gelu_derivative")
gelu_tanh_derivative = _forward("gelu_tanh_derivative")
gelu_erf_derivative = _forward("gelu_erf_derivative")

exp_backward = _backward("exp_backward")
sigmoid_backward = _backward("sigmoid_backward")
tanh_backward = _backward("tanh_backward")
relu_backward = _backward("relu_backward")
leaky_relu_backward = _backward("leaky_relu_backward")
silu_backward = _backward("silu_backward")
gelu_backward = _backward("gelu_backward")
gelu_tanh_backward = _backward("gelu_tanh_backward")
gelu_erf_backward = _backward("gelu_erf_backward")
