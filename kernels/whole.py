"""Whole convolutions and dense layers on one thread, with work space of their own: what callers
inside compiled code use. The package cuts the same kernels into pieces for its threads.
"""

import numpy as np

from loopnest.kernels import (
    convolution,
    convolution_tiled,
    convolution_weight,
    dense,
    dense_tiled,
    winograd,
)
from loopnest.kernels.convolution_plan import PLAIN, SMALL_GRADIENT
from loopnest.kernels.jit import block, kernel


@block
def scratch(like, size):
    """Work space: ``size`` numbers of the dtype of ``like`` from a cache line on."""
    lanes = 64 // like.itemsize
    raw = np.empty(size + lanes, like.dtype)
    start = np.int64(-(raw.ctypes.data // np.uint64(like.itemsize)) % np.uint64(lanes))
    return raw[start : start + size]


@kernel
def conv2d(x, weight, bias, options, groups, y):
    """y = x * weight + bias; one tiled kernel, that of all shapes: Numba compiles what a caller
    could need into each caller."""
    sh, sw, top, left, dh, dw = options
    (n, c, h, w), (k, _, r, s), (_, _, oh, ow) = x.shape, weight.shape, y.shape
    if r == s == sh == sw == 1 and top == left == 0 and oh == h and ow == w:
        h, w, oh, ow = 1, h * w, 1, oh * ow  # nothing tells rows apart
    rows, out = x.reshape((n, c, h, w)), y.reshape((n, k, oh, ow))
    method, flat, block_h, block_w, tasks, work_size, taps_size = convolution_tiled.prepare(
        n, c, k, groups, r, s, oh, ow, sh, sw, dh, dw, x.itemsize, True
    )
    if method == PLAIN:
        convolution.conv2d(rows, weight, bias, sh, sw, top, left, dh, dw, groups, 0, tasks, out)
        return
    work, taps = scratch(x, work_size), np.empty(taps_size, np.int64)
    convolution_tiled.conv2d_channels(
        rows, weight, bias, sh, sw, top, left, dh, dw, groups,
        flat, block_h, block_w, 0, tasks, bias[:0], work, taps, out,
    )  # fmt: skip


@kernel
def conv2d_winograd(x, weight, bias, options, groups, y):
    """The same with F(2x2, 3x3)."""
    (n, channels, _, _), k = x.shape, weight.shape[0]
    strip, columns, part, tasks, size, work_size = winograd.prepare_winograd(
        n, channels, k, groups, y.shape[2], y.shape[3], x.itemsize
    )
    deep = -(-(k // groups) // winograd.FILTERS)
    span = deep if part < deep else groups * deep
    work = scratch(x, max(work_size, weight.shape[1] * 9 * 64 // x.itemsize))
    u = scratch(x, min(part, groups * deep) * size)
    first = 0
    while first < groups * deep:
        blocks = min(part, (first // span + 1) * span - first)
        winograd.transform_filters(weight, groups, first, first + blocks, work, u)
        winograd.conv2d_winograd(
            x, u, bias, options[2], options[3], groups, strip, columns, first, blocks,
            0, tasks * max(blocks // deep, 1), work, y,
        )  # fmt: skip
        first += blocks


@kernel
def conv2d_backward_input(dy, weight, options, groups, dx):
    """dx, the forward convolution of dy with the flipped filters; strides by the plain loops."""
    sh, sw, top, left, dh, dw = options
    n, channels, height, width = dx.shape
    r, s = weight.shape[2:]
    sums = dy.size * weight.shape[1] * r * s
    if sums < SMALL_GRADIENT or sh > 1 or sw > 1:
        rows = n * channels * height
        convolution.conv2d_backward_input(
            dy, weight, sh, sw, top, left, dh, dw, groups, 0, rows, dx
        )
        return
    back = (1, 1, (r - 1) * dh - top, (s - 1) * dw - left, dh, dw)
    none = np.empty(0, dy.dtype)
    conv2d(dy, flipped(weight, groups), none, back, groups, dx)


@block
def flipped(weight, groups):
    """(K, C/groups, R, S) as the filters (C, K/groups, R, S) of the convolution backwards."""
    k, channels, r, s = weight.shape
    part = k // groups
    filters = np.empty((groups * channels, part, r, s), weight.dtype)
    for group in range(groups):
        for c in range(channels):
            for i in range(part):
                filters[group * channels + c, i] = weight[group * part + i, c, ::-1, ::-1]
    return filters


@kernel
def conv2d_backward_weight(x, dy, options, groups, dweight):
    """dweight by the kernel that serves these sizes."""
    sh, sw, top, left, dh, dw = options
    (n, channels), (k, _, r, s), (oh, ow) = x.shape[:2], dweight.shape, dy.shape[2:]
    flat, block_h, block_c, tasks, work_size, taps_size = convolution_weight.prepare_weight(
        n, channels, k, groups, r, s, oh, ow, sh, sw, dh, dw, x.itemsize
    )
    if tasks == 0:
        convolution.conv2d_backward_weight(x, dy, sh, sw, top, left, dh, dw, groups, 0, k, dweight)
        return
    work, taps = scratch(x, work_size), np.empty(taps_size, np.int64)
    convolution_weight.backward_weight(
        x, dy, sh, sw, top, left, dh, dw, groups, flat, block_h, block_c, 0, tasks, work, taps,
        dweight,
    )  # fmt: skip


@kernel
def linear(x, weight, packed, bias, y):
    """y = x @ weight + bias on rows, by the kernel that serves these sizes."""
    samples, (inputs, outputs), form = x.shape[0], weight.shape, dense_tiled.FORWARD
    tasks, work_size = dense_tiled.prepare(form, samples, inputs, outputs, x.itemsize)
    if tasks == 0:
        dense.linear(x, weight, bias, 0, samples, y)
    else:
        work = scratch(x, work_size)
        dense_tiled.linear_tiled(x, weight, bias, packed, form, 0, tasks, work, y)


@kernel
def linear_backward_input(dy, weight, dx):
    """dx likewise."""
    samples, (inputs, outputs), form = dy.shape[0], weight.shape, dense_tiled.BACKWARD_INPUT
    tasks, work_size = dense_tiled.prepare(form, samples, inputs, outputs, dy.itemsize)
    if tasks == 0:
        dense.linear_backward_input(dy, weight, 0, samples, dx)
    else:
        none, work = dy.reshape(dy.size)[:0], scratch(dy, work_size)
        dense_tiled.linear_tiled(dy, weight, none, none, form, 0, tasks, work, dx)


@kernel
def linear_backward_weight(x, dy, dweight):
    """dweight likewise."""
    samples, (inputs, outputs), form = x.shape[0], dweight.shape, dense_tiled.BACKWARD_WEIGHT
    tasks, work_size = dense_tiled.prepare(form, samples, inputs, outputs, x.itemsize)
    if tasks == 0:
        dense.linear_backward_weight(x, dy, 0, inputs, dweight)
    else:
        none, work = x.reshape(x.size)[:0], scratch(x, work_size)
        dense_tiled.linear_tiled(x, dy, none, none, form, 0, tasks, work, dweight)
