"""Dense layers inside ``@njit``; x has one or more dimensions."""

from numba import types
from numba.core.errors import TypingError

from loopnest.kernels import dense as kernels
from loopnest.kernels import whole
from loopnest.kernels.jit import jitable
from loopnest.kernels.linking import linked
from loopnest.ops import dense as public
from loopnest.ops.njit.common import (
    activate,
    array_of,
    contiguous,
    float_array,
    gradient_arrays,
    optional,
    optional_dx,
    output,
    overloads,
    same_dtype,
    separate,
)
from loopnest.ops.njit.packing import array_in, unpack, weight_of


def _features(op, x):
    """Check that x has rows."""
    float_array(op, "x", x)
    if x.ndim < 1:
        raise TypingError(f"{op}: x has 0 dimensions; accepted: shape (..., inputs)")


@jitable
def _row_count(x):
    rows = 1
    for i in range(x.ndim - 1):
        rows *= x.shape[i]
    return rows


def _with_last(ndim):
    """Compiled function ``(shape, size)``: the shape with another last entry."""
    if ndim == 1:
        return jitable(lambda shape, size: (size,))
    return jitable(lambda shape, size: (*shape[:-1], size))


@overloads(public.linear)
def linear(x, weight, bias=None, activation=None, out=None):
    op = "linear"
    _features(op, x)
    array_of(op, "weight", weight_of(weight), 2)
    dtype = same_dtype(op, x=x, weight=weight_of(weight), bias=bias)
    prepare_x, prepare_weight = contiguous(x, dtype), unpack(op, weight, dtype)
    prepare_bias, has_bias = (
        optional(op, "bias", bias, dtype),
        bias is not None and bias != types.none,
    )
    make, check = output(op, out, dtype, x.ndim), separate(op, out)
    finish, with_last, multiply = activate(op, activation), _with_last(x.ndim), linked(whole.linear)

    def implementation(x, weight, bias=None, activation=None, out=None):
        b, packed = prepare_weight(weight, 1)
        inputs, outputs = b.shape
        if x.shape[-1] != inputs:
            raise ValueError("linear: x has not as many inputs as weight (inputs, outputs)")
        a, c = prepare_x(x), prepare_bias(bias)
        if has_bias and c.size != outputs:
            raise ValueError("linear: bias must have one entry for each output of weight")
        y = make(out, with_last(x.shape, outputs))
        check(y, x)
        check(y, array_in(weight))
        check(y, bias)
        rows = _row_count(x)
        multiply(a.reshape((rows, inputs)), b, packed, c, y.reshape((rows, outputs)))
        finish(y.reshape(y.size))
        return y

    return implementation


@overloads(public.linear_backward)
def linear_backward(dy, x, weight, gradients=None, needs_dx=True):
    op = "linear_backward"
    _features(op, x)
    array_of(op, "dy", dy, x.ndim)
    array_of(op, "weight", weight, 2)
    dtype = same_dtype(op, dy=dy, x=x, weight=weight)
    prepare_dy, prepare_x = contiguous(dy, dtype), contiguous(x, dtype)
    prepare_weight, with_last = contiguous(weight, dtype), _with_last(x.ndim)
    by_bias = linked(kernels.linear_backward_bias)
    by_weight = linked(whole.linear_backward_weight)
    by_input, shape_of_dx, given_back = optional_dx(
        op, needs_dx, x.ndim, linked(whole.linear_backward_input)
    )
    make, check = gradient_arrays(op, gradients, dtype, (x.ndim, 2, 1), needs_dx)

    def implementation(dy, x, weight, gradients=None, needs_dx=True):
        inputs, outputs = weight.shape
        if x.shape[-1] != inputs or dy.shape != with_last(x.shape, outputs):
            raise ValueError("linear_backward: dy, x and weight do not fit together")
        rows = _row_count(x)
        a, b, c = prepare_dy(dy), prepare_x(x), prepare_weight(weight)
        rows_dy, rows_x = a.reshape((rows, outputs)), b.reshape((rows, inputs))
        dx, dweight, dbias = made = make(gradients, shape_of_dx(b.shape), c.shape, (outputs,))
        check(made, (dy, x, weight))
        by_input(rows_dy, c, dx.reshape((dx.size // max(1, inputs), inputs)))
        by_weight(rows_x, rows_dy, dweight)
        by_bias(rows_dy, dbias)
        return given_back(dx), dweight, dbias

    return implementation
