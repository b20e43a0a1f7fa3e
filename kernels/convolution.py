"""2D convolution (cross-correlation) over NCHW arrays: plain loops, the reference kernels.

x (N,C,H,W), weight (K,C/groups,R,S), bias (K) or empty, y (N,K,OH,OW). The contract: one
accumulator per output, taps in the order (c, r, s), every multiply-add fused, padding read
as zeros, bias added last. It fixes the bits, whatever the blocking. The twin is
csrc/convolution.c.

Small images are what these loops serve, where 60 ns count: with stride 1 the outputs of a vector
stay in a register over all taps, and loads leave out what is beyond the image.

All indices into flat arrays are unsigned: Numba tests signed ones for wraparound, and the
test stops LLVM from vectorising.
"""

import numpy as np

from loopnest.kernels.jit import block, fragment, kernel
from loopnest.kernels.simd import fma
from loopnest.kernels.simd_lanes import flattened
from loopnest.kernels.simd_tiles import VECTOR_BYTES, size_of
from loopnest.kernels.simd_vector import fuse, load_number, load_within, spread, store_first
from loopnest.kernels.sums import LANES, SIZE, add_to_sum, sum_total

_U = np.uint64
_ONE = _U(1)
SPAN = 64  # columns of a row that one word has a bit for


@block
def valid_range(size, out_size, stride, offset):
    """Outputs [low, high) whose input ``out*stride + offset`` lies in [0, size)."""
    low = min(max(0, (-offset + stride - 1) // stride), out_size)
    high = min(max(low, (size - 1 - offset) // stride + 1), out_size)
    return low, high


@block
def multiply_row(y, start, count, x, x_start, x_step, w):
    """y[start + j] += x[x_start + j x_step] w for j < count"""
    y0, x0, step, n = _U(start), _U(x_start), _U(x_step), _U(count)
    if step == _ONE:
        for j in range(n):
            y[y0 + j] = fma(x[x0 + j], w, y[y0 + j])
    else:
        for j in range(n):
            y[y0 + j] = fma(x[x0 + j * step], w, y[y0 + j])


@block
def multiply_zeros(y, start, step, count, w):
    """y[start + j step] += 0 w: a tap on padding (it matters where w is inf or NaN)."""
    zero = y.dtype.type(0)
    y0, by, n = _U(start), _U(step), _U(count)
    for j in range(n):
        y[y0 + j * by] = fma(zero, w, y[y0 + j * by])


@fragment
def bits_below(end):
    """The first ``end`` bits, none below 1, all from 64 on."""
    end = min(max(end, 0), SPAN)
    return (_ONE << _U(end)) - _ONE if end < SPAN else ~_U(0)


@fragment
def near_rows(
    zero, x, channels, height, width, weight, r, s, offset, stride_h, top, left,
    dilation_h, dilation_w, first, last, y, out_w,
):  # fmt: skip
    """Rows [first, last) of an output plane, stride 1, a vector of outputs in a register at a time.

    x is the address of the first plane of the group, outside of which is zero; y that of the output's
    plane, offset of the bias, if not 0. All taps of a row are within SPAN columns.
    """
    size = size_of(zero)
    for j in range(0, out_w, VECTOR_BYTES // size):
        start = j - left
        inside = bits_below(width - start) & ~bits_below(-start)
        for row in range(first, last):
            total, tap = spread(zero), weight
            for c in range(channels):
                for i in range(r):
                    h = row * stride_h - top + i * dilation_h
                    span = inside if 0 <= h < height else _U(0)
                    source = x + _U(((c * height + h) * width + start) * size)
                    for t in range(s):
                        pixels = load_within(zero, source, _U(t * dilation_w), span)
                        total = fuse(pixels, spread(load_number(zero, tap)), total)
                        tap += _U(size)
            if offset:
                total = total + spread(load_number(zero, offset))
            store_first(total, y + _U((row * out_w + j) * size), out_w - j)


@fragment
def strided_row(
    x, plane, channels, height, width, weight, tap, r, s, stride_w, left, dilation_h, dilation_w,
    top_h, y, start, out_w,
):  # fmt: skip
    """A row of an output plane, tap by tap; top_h is the input row of its first tap."""
    for j in range(_U(out_w)):
        y[_U(start) + j] = 0
    for c in range(plane, plane + channels):
        for i in range(r):
            h = top_h + i * dilation_h
            for j in range(s):
                w = weight[tap]
                tap += 1
                if h < 0 or h >= height:
                    multiply_zeros(y, start, 1, out_w, w)
                    continue
                offset = j * dilation_w - left
                low, high = valid_range(width, out_w, stride_w, offset)
                multiply_zeros(y, start, 1, low, w)
                source = (c * height + h) * width + low * stride_w + offset
                multiply_row(y, start + low, high - low, x, source, stride_w, w)
                multiply_zeros(y, start + high, 1, out_w - high, w)


@kernel
def conv2d(
    x, weight, bias, stride_h, stride_w, top, left, dilation_h, dilation_w, groups, first, last, y
):
    """Output rows [first, last) of the N*K*OH rows of y."""
    channels, height, width = x.shape[1:]
    k, group_channels, r, s = weight.shape
    out_h, out_w = y.shape[2:]
    group_k, taps = k // groups, group_channels * r * s
    x1, weight1, y1 = flattened(x), flattened(weight), flattened(y)
    x0, weight0, y0 = _U(x.ctypes.data), _U(weight.ctypes.data), _U(y.ctypes.data)
    zero, size = x.dtype.type(0), x.itemsize
    near = stride_w == 1 and (s - 1) * dilation_w + VECTOR_BYTES // size <= SPAN
    row = first
    while row < last:  # the rows of a plane of y at a time
        plane = row // out_h
        image, out_channel = divmod(plane, k)
        oh = row - plane * out_h
        end = min(out_h, oh + last - row)
        row += end - oh
        source = image * channels + out_channel // group_k * group_channels
        tap = out_channel * taps
        if near:
            offset = _U(bias.ctypes.data) + _U(out_channel * size) if bias.size else _U(0)
            near_rows(
                zero, x0 + _U(source * height * width * size), group_channels, height, width,
                weight0 + _U(tap * size), r, s, offset, stride_h, top, left, dilation_h, dilation_w,
                oh, end, y0 + _U(plane * out_h * out_w * size), out_w,
            )  # fmt: skip
            continue
        for i in range(oh, end):
            start = (plane * out_h + i) * out_w
            strided_row(
                x1, source, group_channels, height, width, weight1, tap, r, s, stride_w, left,
                dilation_h, dilation_w, i * stride_h - top, y1, start, out_w,
            )  # fmt: skip
            if bias.size:
                for j in range(_U(out_w)):
                    y1[_U(start) + j] += bias[out_channel]


@block
def scatter_row(dx, start, step, count, dy, dy_start, w):
    """dx[start + j step] += dy[dy_start + j] w for j < count"""
    x0, by, y0, n = _U(start), _U(step), _U(dy_start), _U(count)
    if by == _ONE:
        for j in range(n):
            dx[x0 + j] = fma(dy[y0 + j], w, dx[x0 + j])
    else:
        for j in range(n):
            dx[x0 + j * by] = fma(dy[y0 + j], w, dx[x0 + j * by])


@kernel
def conv2d_backward_input(
    dy, weight, stride_h, stride_w, top, left, dilation_h, dilation_w, groups, first, last, dx
):
    """Rows [first, last) of the N*C*H rows of dx: terms (k, oh, ow) of the stride's phase.

    In the order of dy's pixels, so the taps run backwards: it is the forward convolution of
    dy with the flipped filters. Beyond its border dy counts as zeros.
    """
    n, channels, height, width = dx.shape
    k, group_channels, r, s = weight.shape
    out_h, out_w = dy.shape[2], dy.shape[3]
    group_k = k // groups
    dy1, weight1, dx1 = flattened(dy), flattened(weight), flattened(dx)
    for row in range(first, last):
        image, rest = divmod(row, channels * height)
        channel, h = divmod(rest, height)
        group, c = divmod(channel, group_channels)
        start = row * width
        for j in range(_U(width)):
            dx1[_U(start) + j] = 0
        for out_channel in range(group * group_k, (group + 1) * group_k):
            for i in range(r - 1, -1, -1):
                oh, phase = divmod(h + top - i * dilation_h, stride_h)
                if phase != 0:
                    continue
                for j in range(s - 1, -1, -1):
                    w = weight1[((out_channel * group_channels + c) * r + i) * s + j]
                    # Positions at = begin + m stride_w get dy at column base + m.
                    begin = (j * dilation_w - left) % stride_w
                    base = (begin + left - j * dilation_w) // stride_w
                    count = max(0, (width - begin + stride_w - 1) // stride_w)
                    if oh < 0 or oh >= out_h:
                        multiply_zeros(dx1, start + begin, stride_w, count, w)
                        continue
                    low = min(max(0, -base), count)
                    high = min(max(low, out_w - base), count)
                    multiply_zeros(dx1, start + begin, stride_w, low, w)
                    source = ((image * k + out_channel) * out_h + oh) * out_w + base + low
                    at = start + begin + low * stride_w
                    scatter_row(dx1, at, stride_w, high - low, dy1, source, w)
                    at = start + begin + high * stride_w
                    multiply_zeros(dx1, at, stride_w, count - high, w)


@kernel
def conv2d_backward_weight(
    x, dy, stride_h, stride_w, top, left, dilation_h, dilation_w, groups, first, last, dweight
):
    """Filters [first, last) of dweight; each entry sums over (n, oh, ow) in that order."""
    n, channels, height, width = x.shape
    k, group_channels, r, s = dweight.shape
    out_h, out_w = dy.shape[2], dy.shape[3]
    group_k = k // groups
    x1, dy1, dw1 = flattened(x), flattened(dy), flattened(dweight)
    zero = x1.dtype.type(0)
    for out_channel in range(first, last):
        taps = out_channel * group_channels * r * s
        for t in range(group_channels * r * s):
            dw1[taps + t] = 0
        for image in range(n):
            for oh in range(out_h):
                slopes = ((image * k + out_channel) * out_h + oh) * out_w
                for c in range(group_channels):
                    plane = (
                        image * channels + out_channel // group_k * group_channels + c
                    ) * height
                    for i in range(r):
                        h = oh * stride_h - top + i * dilation_h
                        inside = 0 <= h < height
                        for j in range(s):
                            total = dw1[taps + (c * r + i) * s + j]
                            for ow in range(out_w):
                                w = ow * stride_w - left + j * dilation_w
                                value = zero
                                if inside and 0 <= w < width:
                                    value = x1[(plane + h) * width + w]
                                total = fma(dy1[slopes + ow], value, total)
                            dw1[taps + (c * r + i) * s + j] = total


@kernel
def conv2d_backward_bias(dy, first, last, dbias):
    """Sums of dy over (n, oh, ow), as sums.py tells; each image's plane begins in lane 0."""
    n, k = dy.shape[0], dy.shape[1]
    plane = dy.shape[2] * dy.shape[3]
    dy1 = flattened(dy)
    total = np.empty(SIZE, dy.dtype)
    for out_channel in range(first, last):
        total[:LANES], terms = 0, 0
        for image in range(n):
            terms = add_to_sum(total, terms, dy1, (image * k + out_channel) * plane, plane)
        dbias[out_channel] = total[sum_total(total, terms, 1)]
