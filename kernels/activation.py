"""Element-wise functions over contiguous 1-D arrays; y may be x itself.

The scalar functions are in scalar.py; the twin is csrc/activation.c.
"""

from loopnest.kernels import scalar
from loopnest.kernels.jit import block, kernel
from loopnest.kernels.simd_lanes import (
    BLOCK,
    LANES,
    fetch_to_read,
    fetch_to_write,
    load,
    load_block,
    load_some,
    store,
    store_some,
    to_cache_line,
)


@block
def unary(function, x, y):
    """y = function(x): up to a cache line of y, then BLOCK at a time, then 16."""
    n, zero, at = x.size, x.dtype.type(0), to_cache_line(y)
    if at:
        store_some(y, 0, at, function(load_some(x, 0, at, zero)))
    for i in range(at, n - (n - at) % BLOCK, BLOCK):
        fetch_to_read(x, i)
        fetch_to_write(y, i)
        store(y, i, function(load_block(x, i)))
        at = i + BLOCK
    rest = (n - at) % LANES
    for i in range(at, n - rest, LANES):
        store(y, i, function(load(x, i)))
    if rest:
        store_some(y, n - rest, rest, function(load_some(x, n - rest, rest, zero)))


@block
def binary(function, dy, x, dx):
    """dx = function(dy, x), in the same pieces."""
    n, zero, at = x.size, x.dtype.type(0), to_cache_line(dx)
    if at:
        store_some(dx, 0, at, function(load_some(dy, 0, at, zero), load_some(x, 0, at, zero)))
    for i in range(at, n - (n - at) % BLOCK, BLOCK):
        fetch_to_read(dy, i)
        fetch_to_read(x, i)
        fetch_to_write(dx, i)
        store(dx, i, function(load_block(dy, i), load_block(x, i)))
        at = i + BLOCK
    rest = (n - at) % LANES
    for i in range(at, n - rest, LANES):
        store(dx, i, function(load(dy, i), load(x, i)))
    if rest:
        a, b = load_some(dy, n - rest, rest, zero), load_some(x, n - rest, rest, zero)
        store_some(dx, n - rest, rest, function(a, b))


@kernel
def exp(x, y):
    unary(scalar.exp, x, y)


@kernel
def sigmoid(x, y):
    unary(scalar.sigmoid, x, y)


@kernel
def tanh(x, y):
    unary(scalar.tanh, x, y)


@kernel
def relu(x, y):
    unary(scalar.relu, x, y)


@kernel
def silu(x, y):
    unary(scalar.silu, x, y)


@kernel
def silu_wide(x, y):
    unary(scalar.silu_wide, x, y)


@kernel
def gelu(x, y):
    unary(scalar.gelu, x, y)


@kernel
def gelu_wide(x, y):
    unary(scalar.gelu_wide, x, y)


@kernel
def gelu_tanh(x, y):
    unary(scalar.gelu_tanh, x, y)


@kernel
def gelu_erf(x, y):
    unary(scalar.gelu_erf, x, y)


@kernel
def gelu_derivative(x, y):
    unary(scalar.gelu_derivative, x, y)


@kernel
def gelu_tanh_derivative(x, y):
    unary(scalar.gelu_tanh_derivative, x, y)


@kernel
def gelu_erf_derivative(x, y):
    unary(scalar.gelu_erf_derivative, x, y)


@kernel
def leaky_relu(x, negative_slope, y):
    slope, zero, whole = x.dtype.type(negative_slope), x.dtype.type(0), x.size - x.size % LANES
    for i in range(0, whole, LANES):
        store(y, i, scalar.leaky_relu(load(x, i), slope))
    rest = x.size - whole
    if rest:
        last = load_some(x, whole, rest, zero)
        store_some(y, whole, rest, scalar.leaky_relu(last, slope))


@kernel
def exp_backward(dy, x, dx):
    binary(scalar.exp_backward, dy, x, dx)


@kernel
def sigmoid_backward(dy, x, dx):
    binary(scalar.sigmoid_backward, dy, x, dx)


@kernel
def tanh_backward(dy, x, dx):
    binary(scalar.tanh_backward, dy, x, dx)


@kernel
def relu_backward(dy, x, dx):
    binary(scalar.relu_backward, dy, x, dx)


@kernel
def silu_backward(dy, x, dx):
    binary(scalar.silu_backward, dy, x, dx)


@kernel
def gelu_backward(dy, x, dx):
    binary(scalar.gelu_backward, dy, x, dx)


@kernel
def gelu_tanh_backward(dy, x, dx):
    binary(scalar.gelu_tanh_backward, dy, x, dx)


@kernel
def gelu_erf_backward(dy, x, dx):
    binary(scalar.gelu_erf_backward, dy, x, dx)


@kernel
def leaky_relu_backward(dy, x, negative_slope, dx):
    slope, zero, whole = x.dtype.type(negative_slope), x.dtype.type(0), x.size - x.size % LANES
    for i in range(0, whole, LANES):
        store(dx, i, scalar.leaky_relu_backward(load(dy, i), load(x, i), slope))
    rest = x.size - whole
    if rest:
        a, b = load_some(dy, whole, rest, zero), load_some(x, whole, rest, zero)
        store_some(dx, whole, rest, scalar.leaky_relu_backward(a, b, slope))
