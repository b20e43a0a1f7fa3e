"""Convolution inside ``@njit``."""

from numba import types
from numba.core.errors import TypingError

from loopnest.kernels import convolution as kernels
from loopnest.kernels import whole
from loopnest.kernels.jit import jitable
from loopnest.kernels.linking import linked
from loopnest.ops import convolution as public
from loopnest.ops import shapes
from loopnest.ops import window_rules as rules
from loopnest.ops.activation import FUSED
from loopnest.ops.njit.common import (
    activate,
    array_of,
    contiguous,
    gradient_arrays,
    integer,
    literal,
    optional,
    optional_dx,
    output,
    overloads,
    pair_of,
    same_dtype,
    separate,
)
from loopnest.ops.njit.packing import array_in, unpack, weight_of


def _padding(op, padding):
    """Compiled function ``(padding, kernel, stride, dilation)``, pairs of numbers -> two pairs."""
    if isinstance(padding, (str, types.StringLiteral)):
        if literal(op, "padding", padding, ("same", "valid")) == "valid":
            return jitable(lambda padding, kernel, stride, dilation: ((0, 0), (0, 0)))

        message = op + ": padding is 'same'; accepted: stride 1"

        def same(padding, kernel, stride, dilation):
            if stride != (1, 1):
                raise ValueError(message)
            return rules.same_padding(kernel[0], dilation[0]), rules.same_padding(
                kernel[1], dilation[1]
            )

        return jitable(same)
    nested = isinstance(padding, types.BaseTuple) and all(
        isinstance(side, types.BaseTuple) for side in padding
    )
    if nested and len(padding) == 2:
        rows, columns = (pair_of(op, "padding", side, 0) for side in padding)

        def sides(padding, kernel, stride, dilation):
            return rows(padding[0]), columns(padding[1])

        return jitable(sides)
    pair = pair_of(op, "padding", padding, 0)

    def symmetric(padding, kernel, stride, dilation):
        h, w = pair(padding)
        return (h, h), (w, w)

    return jitable(symmetric)


def _resolve(op, stride, padding, dilation):
    """Compiled function that checks the options and gives output size and kernel options."""
    strides, dilations = pair_of(op, "stride", stride, 1), pair_of(op, "dilation", dilation, 1)
    sides = _padding(op, padding)

    message = op + ": kernel is larger than the padded input"

    def resolve(height, width, r, s, stride, padding, dilation):
        step, gap = strides(stride), dilations(dilation)
        (top, bottom), (left, right) = sides(padding, (r, s), step, gap)
        oh = rules.window_count(height, r, step[0], top, bottom, gap[0], False)
        ow = rules.window_count(width, s, step[1], left, right, gap[1], False)
        if oh == rules.WINDOW_TOO_LARGE or ow == rules.WINDOW_TOO_LARGE:
            raise ValueError(message)
        return oh, ow, (step[0], step[1], top, left, gap[0], gap[1])

    return jitable(resolve)


def _check_channels(op):
    """Compiled function that checks groups and channels of x and weight."""

    wrong_groups = op + ": groups must divide the channels of x and the filters"
    wrong_channels = op + ": weight's channels a filter are not those of x over groups"
    wrong_kernel = op + ": weight has a kernel size of 0; accepted: at least 1"

    def check(x, weight, groups):
        fault = rules.channels_fault(x.shape[1], weight.shape[0], weight.shape[1], groups)
        if fault == rules.GROUPS_DO_NOT_DIVIDE:
            raise ValueError(wrong_groups)
        if fault == rules.OTHER_CHANNELS:
            raise ValueError(wrong_channels)
        if weight.shape[2] < 1 or weight.shape[3] < 1:
            raise ValueError(wrong_kernel)

    return jitable(check)


@jitable
def _check_winograd(r, s, options):
    """As `loopnest.ops.winograd.check`."""
    stride_h, stride_w, _, _, dilation_h, dilation_w = options
    if not rules.is_winograd(r, s, stride_h, stride_w, dilation_h, dilation_w):
        raise ValueError(
            "conv2d: algorithm is 'winograd'; accepted with it: kernel (3, 3), stride 1, dilation 1"
        )


@overloads(shapes.conv2d_output_shape)
def conv2d_output_shape(input_hw, kernel_hw, stride=1, padding=0, dilation=1):
    op = "conv2d_output_shape"
    sizes, windows = pair_of(op, "input_hw", input_hw, 1), pair_of(op, "kernel_hw", kernel_hw, 1)
    resolve = _resolve(op, stride, padding, dilation)

    def shape(input_hw, kernel_hw, stride=1, padding=0, dilation=1):
        height, width = sizes(input_hw)
        r, s = windows(kernel_hw)
        oh, ow, _ = resolve(height, width, r, s, stride, padding, dilation)
        return oh, ow

    return shape


@overloads(public.conv2d)
def conv2d(
    x,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    activation=None,
    algorithm="direct",
    out=None,
):
    op = "conv2d"
    array_of(op, "x", x, 4)
    array_of(op, "weight", weight_of(weight), 4)
    algorithm = literal(op, "algorithm", algorithm, ("direct", "winograd"))
    dtype = same_dtype(op, x=x, weight=weight_of(weight), bias=bias)
    resolve, check_channels = _resolve(op, stride, padding, dilation), _check_channels(op)
    whole_groups = integer(op, "groups", groups, 1)
    prepare_x, prepare_weight = contiguous(x, dtype), unpack(op, weight, dtype)
    prepare_bias, has_bias = (
        optional(op, "bias", bias, dtype),
        bias is not None and bias != types.none,
    )
    make, check_memory = output(op, out, dtype, 4), separate(op, out)
    finish, multiply = activate(op, activation), linked(whole.conv2d)
    rectify = literal(op, "activation", activation, (None, *FUSED)) == "relu"
    if rectify:
        finish = jitable(lambda y: None)  # the driver does it
    check_algorithm = jitable(lambda r, s, options: None)
    if algorithm == "winograd":
        check_algorithm, multiply = _check_winograd, linked(whole.conv2d_winograd)

    def implementation(
        x,
        weight,
        bias=None,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        activation=None,
        algorithm="direct",
        out=None,
    ):
        parts = whole_groups(groups)
        b, packed = prepare_weight(weight, parts)
        check_channels(x, b, parts)
        n, k, r, s = x.shape[0], b.shape[0], b.shape[2], b.shape[3]
        oh, ow, options = resolve(x.shape[2], x.shape[3], r, s, stride, padding, dilation)
        check_algorithm(r, s, options)
        a, c = prepare_x(x), prepare_bias(bias)
        if has_bias and c.size != k:
            raise ValueError("conv2d: bias must have one entry for each filter of weight")
        y = make(out, (n, k, oh, ow))
        check_memory(y, x)
        check_memory(y, array_in(weight))
        check_memory(y, bias)
        multiply(a, b, packed, c, options, parts, packed[:0], int(rectify), y)
        finish(y.reshape(y.size))
        return y

    return implementation


@overloads(public.conv2d_backward)
def conv2d_backward(
    dy, x, weight, stride=1, padding=0, dilation=1, groups=1, gradients=None, needs_dx=True
):
    op = "conv2d_backward"
    for name, array in (("dy", dy), ("x", x), ("weight", weight)):
        array_of(op, name, array, 4)
    dtype = same_dtype(op, dy=dy, x=x, weight=weight)
    resolve, check_channels = _resolve(op, stride, padding, dilation), _check_channels(op)
    whole_groups = integer(op, "groups", groups, 1)
    prepare_dy, prepare_x = contiguous(dy, dtype), contiguous(x, dtype)
    prepare_weight = contiguous(weight, dtype)
    by_weight = linked(whole.conv2d_backward_weight)
    by_bias = linked(kernels.conv2d_backward_bias)
    make, check = gradient_arrays(op, gradients, dtype, (4, 4, 1), needs_dx)
    by_input, shape_of_dx, given_back = optional_dx(
        op, needs_dx, 4, linked(whole.conv2d_backward_input)
    )

    def implementation(
        dy, x, weight, stride=1, padding=0, dilation=1, groups=1, gradients=None, needs_dx=True
    ):
        parts = whole_groups(groups)
        check_channels(x, weight, parts)
        n, k, r, s = x.shape[0], weight.shape[0], weight.shape[2], weight.shape[3]
        oh, ow, options = resolve(x.shape[2], x.shape[3], r, s, stride, padding, dilation)
        if dy.shape != (n, k, oh, ow):
            raise ValueError("conv2d_backward: dy has not the shape of the output")
        a, b, c = prepare_dy(dy), prepare_x(x), prepare_weight(weight)
        dx, dweight, dbias = made = make(gradients, shape_of_dx(b.shape), c.shape, (k,))
        check(made, (dy, x, weight))
        by_input(a, c, options, parts, dx)
        by_weight(b, a, options, parts, dweight)
        by_bias(a, 0, k, dbias)
        return given_back(dx), dweight, dbias

    return implementation


@overloads(shapes.conv2d_paddings_for)
def conv2d_paddings_for(input_hw, output_hw, kernel_hw, stride=None, dilation=1, max_padding=None):
    raise TypingError("conv2d_paddings_for makes a list of choices; call it outside @njit")
