"""Activations inside ``@njit``: arrays of any shape, and plain numbers."""

import math

import numpy as np
from numba import types
from numba.core.errors import TypingError

from loopnest.kernels import activation as kernels
from loopnest.kernels import scalar
from loopnest.kernels.jit import jitable
from loopnest.kernels.linking import linked
from loopnest.ops import activation as public
from loopnest.ops.activation import GELU_KERNELS
from loopnest.ops.njit.common import (
    at_least,
    contiguous,
    literal,
    no_output,
    output,
    overloads,
    promoted,
    same_dtype,
    separate,
)


def _real(op, name, argument):
    """NumPy's scalar type for a number argument, or None if it is an array."""
    if isinstance(argument, types.Array):
        return None
    dtype = promoted(op, name, types.unliteral(argument))
    return np.float32 if dtype == types.float32 else np.float64


def _forward(op, x, out, kernel, function):
    """Implementation ``(x, out)`` of an element-wise function."""
    real = _real(op, "x", x)
    if real is not None:
        no_output(op, out)
        return lambda x, out=None: function(real(x))
    dtype = same_dtype(op, x=x)
    prepare, make = contiguous(x, dtype), output(op, out, dtype, x.ndim)
    check = separate(op, out, in_place=True)

    def forward(x, out=None):
        given = prepare(x)
        y = make(out, x.shape)
        check(y, x)
        kernel(given.reshape(given.size), y.reshape(y.size))
        return y

    return forward


def _backward(op, dy, x, out, kernel, function):
    """Implementation ``(dy, x, out)`` of the gradient of an element-wise function."""
    real = _real(op, "x", x)
    if real is not None:
        if _real(op, "dy", dy) is not real:
            raise TypingError(f"{op}: dy and x are of different types: {dy}, {x}")
        no_output(op, out)
        return lambda dy, x, out=None: function(real(dy), real(x))
    dtype = same_dtype(op, dy=dy, x=x)
    if dy.ndim != x.ndim:
        raise TypingError(f"{op}: dy has {dy.ndim} dimensions, x {x.ndim}; accepted: the same")
    prepare_dy, prepare_x = contiguous(dy, dtype), contiguous(x, dtype)
    make, check = output(op, out, dtype, x.ndim), separate(op, out, in_place=True)

    message = op + ": dy and x differ in shape"

    def backward(dy, x, out=None):
        if dy.shape != x.shape:
            raise ValueError(message)
        a, b = prepare_dy(dy), prepare_x(x)
        dx = make(out, x.shape)
        check(dx, dy)
        check(dx, x)
        kernel(a.reshape(a.size), b.reshape(b.size), dx.reshape(dx.size))
        return dx

    return backward


def _register(op):
    """An activation without parameters, and its gradient."""
    kernel, function = linked(getattr(kernels, op)), getattr(scalar, op)
    kernel_backward = linked(getattr(kernels, op + "_backward"))
    function_backward = getattr(scalar, op + "_backward")

    @overloads(getattr(public, op))
    def forward(x, out=None):
        return _forward(op, x, out, kernel, function)

    @overloads(getattr(public, op + "_backward"))
    def backward(dy, x, out=None):
        return _backward(op + "_backward", dy, x, out, kernel_backward, function_backward)


for _op in ("exp", "sigmoid", "tanh", "relu", "silu"):
    _register(_op)


@overloads(public.leaky_relu)
def leaky_relu(x, negative_slope=0.01, out=None):
    op = "leaky_relu"
    real, slope = _real(op, "x", x), at_least(op, "negative_slope", -math.inf)
    if real is not None:
        no_output(op, out)
        function = scalar.leaky_relu
        return lambda x, negative_slope=0.01, out=None: function(
            real(x), real(slope(negative_slope))
        )
    dtype = same_dtype(op, x=x)
    prepare, make = contiguous(x, dtype), output(op, out, dtype, x.ndim)
    check = separate(op, out, in_place=True)
    kernel = linked(kernels.leaky_relu)

    def forward(x, negative_slope=0.01, out=None):
        given = prepare(x)
        y = make(out, x.shape)
        check(y, x)
        kernel(given.reshape(given.size), slope(negative_slope), y.reshape(y.size))
        return y

    return forward


@overloads(public.leaky_relu_backward)
def leaky_relu_backward(dy, x, out=None, negative_slope=0.01):
    op = "leaky_relu_backward"
    real, slope = _real(op, "x", x), at_least(op, "negative_slope", -math.inf)
    if real is not None:
        if _real(op, "dy", dy) is not real:
            raise TypingError(f"{op}: dy and x are of different types: {dy}, {x}")
        no_output(op, out)
        function = scalar.leaky_relu_backward
        return lambda dy, x, out=None, negative_slope=0.01: function(
            real(dy), real(x), real(slope(negative_slope))
        )
    dtype = same_dtype(op, dy=dy, x=x)
    prepare_dy, prepare_x = contiguous(dy, dtype), contiguous(x, dtype)
    make, check = output(op, out, dtype, x.ndim), separate(op, out, in_place=True)
    kernel = linked(kernels.leaky_relu_backward)

    def backward(dy, x, out=None, negative_slope=0.01):
        if dy.shape != x.shape:
            raise ValueError("leaky_relu_backward: dy and x differ in shape")
        a, b = prepare_dy(dy), prepare_x(x)
        dx = make(out, x.shape)
        check(dx, dy)
        check(dx, x)
        kernel(a.reshape(a.size), b.reshape(b.size), slope(negative_slope), dx.reshape(dx.size))
        return dx

    return backward


def _gelu(op, approximate, suffix):
    """Kernel and scalar function of a form of GELU."""
    name = GELU_KERNELS[literal(op, "approximate", approximate, GELU_KERNELS)]
    return linked(getattr(kernels, name + suffix)), name


@overloads(public.gelu)
def gelu(x, approximate="sigmoid", out=None):
    kernel, name = _gelu("gelu", approximate, "")
    run = jitable(_forward("gelu", x, out, kernel, getattr(scalar, name)))
    return lambda x, approximate="sigmoid", out=None: run(x, out)


@overloads(public.gelu_derivative)
def gelu_derivative(x, approximate="sigmoid", out=None):
    kernel, name = _gelu("gelu_derivative", approximate, "_derivative")
    function = getattr(scalar, name + "_derivative")
    run = jitable(_forward("gelu_derivative", x, out, kernel, function))
    return lambda x, approximate="sigmoid", out=None: run(x, out)


@overloads(public.gelu_backward)
def gelu_backward(dy, x, out=None, approximate="sigmoid"):
    kernel, name = _gelu("gelu_backward", approximate, "_backward")
    run = jitable(
        _backward("gelu_backward", dy, x, out, kernel, getattr(scalar, name + "_backward"))
    )
    return lambda dy, x, out=None, approximate="sigmoid": run(dy, x, out)
