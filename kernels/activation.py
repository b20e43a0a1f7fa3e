"""Element-wise functions over contiguous 1-D arrays; y may be x itself.

The scalar functions are in scalar.py; the twin is csrc/activation.c.
"""

from loopnest.kernels import scalar
from loopnest.kernels.jit import kernel


@kernel
def exp(x, y):
    for i in range(x.size):
        y[i] = scalar.exp(x[i])


@kernel
def sigmoid(x, y):
    for i in range(x.size):
        y[i] = scalar.sigmoid(x[i])


@kernel
def tanh(x, y):
    for i in range(x.size):
        y[i] = scalar.tanh(x[i])


@kernel
def relu(x, y):
    for i in range(x.size):
        y[i] = scalar.relu(x[i])


@kernel
def silu(x, y):
    for i in range(x.size):
        y[i] = scalar.silu(x[i])


@kernel
def gelu(x, y):
    for i in range(x.size):
        y[i] = scalar.gelu(x[i])


@kernel
def gelu_tanh(x, y):
    for i in range(x.size):
        y[i] = scalar.gelu_tanh(x[i])


@kernel
def gelu_erf(x, y):
    for i in range(x.size):
        y[i] = scalar.gelu_erf(x[i])


@kernel
def gelu_derivative(x, y):
    for i in range(x.size):
        y[i] = scalar.gelu_derivative(x[i])


@kernel
def gelu_tanh_derivative(x, y):
    for i in range(x.size):
        y[i] = scalar.gelu_tanh_derivative(x[i])


@kernel
def gelu_erf_derivative(x, y):
    for i in range(x.size):
        y[i] = scalar.gelu_erf_derivative(x[i])


@kernel
def leaky_relu(x, negative_slope, y):
    slope = x.dtype.type(negative_slope)
    for i in range(x.size):
        y[i] = scalar.leaky_relu(x[i], slope)


@kernel
def exp_backward(dy, x, dx):
    for i in range(x.size):
        dx[i] = scalar.exp_backward(dy[i], x[i])


@kernel
def sigmoid_backward(dy, x, dx):
    for i in range(x.size):
        dx[i] = scalar.sigmoid_backward(dy[i], x[i])


@kernel
def tanh_backward(dy, x, dx):
    for i in range(x.size):
        dx[i] = scalar.tanh_backward(dy[i], x[i])


@kernel
def relu_backward(dy, x, dx):
    for i in range(x.size):
        dx[i] = scalar.relu_backward(dy[i], x[i])


@kernel
def silu_backward(dy, x, dx):
    for i in range(x.size):
        dx[i] = scalar.silu_backward(dy[i], x[i])


@kernel
def gelu_backward(dy, x, dx):
    for i in range(x.size):
        dx[i] = scalar.gelu_backward(dy[i], x[i])


@kernel
def gelu_tanh_backward(dy, x, dx):
    for i in range(x.size):
        dx[i] = scalar.gelu_tanh_backward(dy[i], x[i])


@kernel
def gelu_erf_backward(dy, x, dx):
    for i in range(x.size):
        dx[i] = scalar.gelu_erf_backward(dy[i], x[i])


@kernel
def leaky_relu_backward(dy, x, negative_slope, dx):
    slope = x.dtype.type(negative_slope)
    for i in range(x.size):
        dx[i] = scalar.leaky_relu_backward(dy[i], x[i], slope)
