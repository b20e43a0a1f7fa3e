"""Pooling inside ``@njit``."""

import numpy as np
from numba import types
from numba.core.errors import TypingError

from loopnest.kernels import pooling as kernels
from loopnest.kernels import whole
from loopnest.kernels.jit import jitable
from loopnest.kernels.linking import linked
from loopnest.ops import pooling as public
from loopnest.ops import window_rules as rules
from loopnest.ops.njit.common import (
    array_of,
    contiguous,
    flag,
    integer,
    is_none,
    output,
    overloads,
    pair_of,
    same_dtype,
    separate,
    switch,
)
from loopnest.ops.window_rules import LIMIT


def _axis_size(op):
    """Compiled function that gives the output size along one axis."""

    wrong_padding = op + ": padding must be at most half of kernel_size"
    too_large = op + ": window is larger than the padded input"

    def size(size, kernel, stride, pad, dilation, ceil_mode):
        if not rules.padding_fits(pad, kernel):
            raise ValueError(wrong_padding)
        count = rules.window_count(size, kernel, stride, pad, pad, dilation, ceil_mode)
        if count == rules.WINDOW_TOO_LARGE:
            raise ValueError(too_large)
        return count

    return jitable(size)


def _window(op, kernel_size, stride, padding, dilation):
    """Compiled function of these options that checks their ranges: the kernels' options."""
    windows, pads = pair_of(op, "kernel_size", kernel_size, 1), pair_of(op, "padding", padding, 0)
    gaps = pair_of(op, "dilation", dilation, 1)
    steps = (
        jitable(lambda stride, kernel: kernel)
        if is_none(stride)
        else _given_stride(pair_of(op, "stride", stride, 1))
    )

    def window(kernel_size, stride, padding, dilation):
        kernel = windows(kernel_size)
        step, pad, gap = steps(stride, kernel), pads(padding), gaps(dilation)
        return kernel[0], kernel[1], step[0], step[1], pad[0], pad[1], gap[0], gap[1]

    return jitable(window)


def _plane(op):
    """Compiled function that refuses planes without elements."""
    message = op + ": x must have a height and width of at least 1"

    def check(height, width):
        if height < 1 or width < 1:
            raise ValueError(message)

    return jitable(check)


def _resolve(op, kernel_size, stride, padding, dilation):
    """Compiled function that checks the options: output size, then the kernels' options."""
    window, size = _window(op, kernel_size, stride, padding, dilation), _axis_size(op)
    check_plane = _plane(op)

    def resolve(height, width, kernel_size, stride, padding, dilation, ceil_mode):
        check_plane(height, width)
        o = window(kernel_size, stride, padding, dilation)
        oh = size(height, o[0], o[2], o[4], o[6], ceil_mode)
        ow = size(width, o[1], o[3], o[5], o[7], ceil_mode)
        return oh, ow, o

    return jitable(resolve)


def _given_stride(pair):
    return jitable(lambda stride, kernel: pair(stride))


def _divisor(op, divisor_override):
    """Compiled function ``(divisor_override)`` -> int, 0 for None."""
    if is_none(divisor_override):
        return jitable(lambda value: 0)

    whole = integer(op, "divisor_override", divisor_override, -LIMIT)
    message = op + ": divisor_override is 0; accepted: another integer, or None"

    def check(value):
        if value == 0:
            raise ValueError(message)
        return whole(value)

    return jitable(check)


@overloads(public.avg_pool2d)
def avg_pool2d(
    x,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
    out=None,
):
    op = "avg_pool2d"
    switch(op, "ceil_mode", ceil_mode)
    switch(op, "count_include_pad", count_include_pad)
    array_of(op, "x", x, 4)
    dtype = same_dtype(op, x=x)
    resolve, divisor = _resolve(op, kernel_size, stride, padding, 1), _divisor(op, divisor_override)
    prepare, make, check = contiguous(x, dtype), output(op, out, dtype, 4), separate(op, out)
    kernel = linked(whole.avg_pool2d)

    def implementation(
        x,
        kernel_size,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
        out=None,
    ):
        n, c, height, width = x.shape
        oh, ow, o = resolve(height, width, kernel_size, stride, padding, 1, ceil_mode)
        by, include = divisor(divisor_override), int(bool(count_include_pad))
        a = prepare(x)
        y = make(out, (n, c, oh, ow))
        check(y, x)
        kernel(a, o[:6], include, by, y)
        return y

    return implementation


@overloads(public.avg_pool2d_backward)
def avg_pool2d_backward(
    dy,
    x,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
    out=None,
):
    op = "avg_pool2d_backward"
    switch(op, "ceil_mode", ceil_mode)
    switch(op, "count_include_pad", count_include_pad)
    array_of(op, "x", x, 4)
    array_of(op, "dy", dy, 4)
    dtype = same_dtype(op, dy=dy, x=x)
    resolve, divisor = _resolve(op, kernel_size, stride, padding, 1), _divisor(op, divisor_override)
    prepare, make, check = contiguous(dy, dtype), output(op, out, dtype, 4), separate(op, out)
    kernel = linked(whole.avg_pool2d_backward)

    def implementation(
        dy,
        x,
        kernel_size,
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
        out=None,
    ):
        n, c, height, width = x.shape
        oh, ow, o = resolve(height, width, kernel_size, stride, padding, 1, ceil_mode)
        by, include = divisor(divisor_override), int(bool(count_include_pad))
        if dy.shape != (n, c, oh, ow):
            raise ValueError("avg_pool2d_backward: dy has not the shape of the output")
        a = prepare(dy)
        dx = make(out, x.shape)
        check(dx, dy)
        check(dx, x)
        kernel(a, o[:6], include, by, dx)
        return dx

    return implementation


@overloads(public.max_pool2d)
def max_pool2d(
    x,
    kernel_size,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
    out=None,
):
    op = "max_pool2d"
    switch(op, "ceil_mode", ceil_mode)
    array_of(op, "x", x, 4)
    dtype = same_dtype(op, x=x)
    resolve = _resolve(op, kernel_size, stride, padding, dilation)
    prepare, make, check = contiguous(x, dtype), output(op, out, dtype, 4), separate(op, out)
    run = _with_indices if flag(op, "return_indices", return_indices) else _without_indices

    def implementation(
        x,
        kernel_size,
        stride=None,
        padding=0,
        dilation=1,
        ceil_mode=False,
        return_indices=False,
        out=None,
    ):
        n, c, height, width = x.shape
        oh, ow, o = resolve(height, width, kernel_size, stride, padding, dilation, ceil_mode)
        a = prepare(x)
        y = make(out, (n, c, oh, ow))
        check(y, x)
        return run(a, o, y)

    return implementation


_LARGEST = 2**63 - 1

_maxima, _maxima_indices = linked(whole.max_pool2d), linked(whole.max_pool2d_indices)


@jitable
def _without_indices(x, options, y):
    _maxima(x, options, y)
    return y


@jitable
def _with_indices(x, options, y):
    indices = np.empty(y.shape, np.int64)
    _maxima_indices(x, options, indices, y)
    return y, indices


@jitable
def _as_given(indices):
    return np.ascontiguousarray(indices)


@jitable
def _as_int64(indices):
    for index in indices.flat:
        if index > _LARGEST:  # unsigned: it would turn negative, which means an empty window
            raise ValueError("max_pool2d_backward: indices holds one outside the plane")
    return np.ascontiguousarray(indices).astype(np.int64)


@overloads(public.max_pool2d_backward)
def max_pool2d_backward(
    dy,
    x,
    indices,
    kernel_size=None,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    out=None,
):
    op = "max_pool2d_backward"
    switch(op, "ceil_mode", ceil_mode)
    array_of(op, "x", x, 4)
    array_of(op, "dy", dy, 4)
    if not (
        isinstance(indices, types.Array)
        and isinstance(indices.dtype, types.Integer)
        and indices.ndim == 4
    ):
        raise TypingError(f"{op}: indices is {indices}; accepted: an integer array, 4 dimensions")
    dtype = same_dtype(op, dy=dy, x=x)
    prepare, make, check = contiguous(dy, dtype), output(op, out, dtype, 4), separate(op, out)
    kernel, outside = linked(kernels.max_pool2d_backward), kernels.indices_outside
    as_places = _as_given if indices.dtype == types.int64 and indices.aligned else _as_int64
    message = op + ": dy has not the shape of the output"
    if is_none(kernel_size):
        window, check_plane = _window(op, 1, stride, padding, dilation), _plane(op)

        def check_options(x, dy, kernel_size, stride, padding, dilation, ceil):
            check_plane(x.shape[2], x.shape[3])
            window(1, stride, padding, dilation)

        fits = jitable(check_options)
    else:
        resolve = _resolve(op, kernel_size, stride, padding, dilation)

        def check_shape(x, dy, kernel_size, stride, padding, dilation, ceil):
            h, w = x.shape[2:]
            oh, ow, _ = resolve(h, w, kernel_size, stride, padding, dilation, ceil)
            if dy.shape[2:] != (oh, ow):
                raise ValueError(message)

        fits = jitable(check_shape)

    def implementation(
        dy,
        x,
        indices,
        kernel_size=None,
        stride=None,
        padding=0,
        dilation=1,
        ceil_mode=False,
        out=None,
    ):
        if dy.shape[0] != x.shape[0] or dy.shape[1] != x.shape[1] or dy.shape != indices.shape:
            raise ValueError("max_pool2d_backward: dy, x and indices do not fit together")
        fits(x, dy, kernel_size, stride, padding, dilation, ceil_mode)
        places = as_places(indices)
        if outside(places, x.shape[2] * x.shape[3]):
            raise ValueError("max_pool2d_backward: indices holds one outside the plane")
        a = prepare(dy)
        dx = make(out, x.shape)
        check(dx, dy)
        check(dx, x)
        check(dx, indices)
        kernel(a, places, 0, x.shape[0] * x.shape[1], dx)
        return dx

    return implementation


def _register_global(name, run):
    @overloads(getattr(public, name))
    def global_pool(x, out=None):
        array_of(name, "x", x, 4)
        dtype = same_dtype(name, x=x)
        prepare, make = contiguous(x, dtype), output(name, out, dtype, 4)
        check = separate(name, out)

        check_plane = _plane(name)

        def implementation(x, out=None):
            check_plane(x.shape[2], x.shape[3])
            a = prepare(x)
            y = make(out, (x.shape[0], x.shape[1], 1, 1))
            check(y, x)
            run(a, y)
            return y

        return implementation


_register_global("global_avg_pool2d", linked(whole.global_avg_pool2d))
_register_global("global_max_pool2d", linked(whole.global_max_pool2d))


def _is_real_dtype(dtype):
    value = dtype.value if isinstance(dtype, types.Omitted) else dtype
    if isinstance(value, (types.DType, types.NumberClass)):
        return value.dtype in (types.float32, types.float64)
    return value in (np.float32, np.float64)


@overloads(public.average_filter)
def average_filter(size, channels=1, dtype=np.float64):
    op = "average_filter"
    pair, whole = pair_of(op, "size", size, 1), integer(op, "channels", channels, 1)
    if not _is_real_dtype(dtype):
        raise TypingError(f"{op}: dtype is {dtype}; accepted: float32 or float64")

    def implementation(size, channels=1, dtype=np.float64):
        kh, kw = pair(size)
        return np.full((whole(channels), 1, kh, kw), 1 / (kh * kw), dtype)

    return implementation
