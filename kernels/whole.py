"""Whole operations on one thread, with work space of their own: what compiled code calls. The
package cuts the same kernels into pieces for its threads.
"""

import numpy as np

from loopnest.kernels import (
    convolution,
    convolution_driver,
    convolution_weight,
    dense,
    dense_tiled,
    loss,
    pooling,
    winograd,
)
from loopnest.kernels.convolution_phase import phase
from loopnest.kernels.convolution_plan import SMALL_GRADIENT, ceil_div
from loopnest.kernels.jit import block, jitable, kernel
from loopnest.kernels.linking import linked

jitable(phase)

IGNORED = -100  # the class of a row that does not count, as PyTorch has it

_conv2d_tasks = linked(convolution_driver.conv2d_tasks)
_transform_filters = linked(winograd.transform_filters)
_conv2d_winograd = linked(winograd.conv2d_winograd)
_backward_input_plain = linked(convolution.conv2d_backward_input)
_backward_weight_plain = linked(convolution.conv2d_backward_weight)
_backward_weight = linked(convolution_weight.backward_weight)
_linear_plain = linked(dense.linear)
_linear_tiled = linked(dense_tiled.linear_tiled)
_linear_backward_input = linked(dense.linear_backward_input)
_linear_backward_weight = linked(dense.linear_backward_weight)
_cross_entropy, _total = linked(loss.cross_entropy), linked(loss.total)
_max_pool2d = linked(pooling.max_pool2d)
_max_pool2d_indices = linked(pooling.max_pool2d_indices)
_avg_pool2d = linked(pooling.avg_pool2d)
_avg_pool2d_backward = linked(pooling.avg_pool2d_backward)
_global_avg_pool2d = linked(pooling.global_avg_pool2d)
_global_max_pool2d = linked(pooling.global_max_pool2d)


@block
def scratch(like, size):
    """Work space: ``size`` numbers of the dtype of ``like`` from a cache line on."""
    lanes = 64 // like.itemsize
    raw = np.empty(size + lanes, like.dtype)
    start = np.int64(-(raw.ctypes.data // np.uint64(like.itemsize)) % np.uint64(lanes))
    return raw[start : start + size]


@kernel
def conv2d(x, weight, packed, bias, options, groups, more, rectify, y):
    """y = x * weight + bias + more by the kernel that serves these sizes; packed, bias and more may
    be empty; then max(0, y) if ``rectify``."""
    sh, sw, top, left, dh, dw = options
    (n, c, h, w), (k, _, r, s), (_, _, oh, ow) = x.shape, weight.shape, y.shape
    if r == s == sh == sw == 1 and top == left == 0 and oh == h and ow == w:
        h, w, oh, ow = 1, h * w, 1, oh * ow  # nothing tells rows apart
    rows, out = x.reshape((n, c, h, w)), y.reshape((n, k, oh, ow))
    method, flat, block_h, block_w, tasks, work_size, taps_size = convolution_driver.prepare(
        n, c, h, w, k, groups, r, s, oh, ow, sh, sw, dh, dw, x.itemsize
    )
    work, taps = scratch(x, work_size), np.empty(taps_size, np.int64)
    _conv2d_tasks(
        rows, weight, packed, bias, sh, sw, top, left, dh, dw, groups, method, flat, block_h,
        block_w, 0, tasks, more, rectify, work, taps, out,
    )  # fmt: skip


_conv2d = linked(conv2d)


@kernel
def conv2d_winograd(x, weight, packed, bias, options, groups, more, rectify, y):
    """The same with F(2x2, 3x3), which has no use for packed."""
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
        _transform_filters(weight, groups, first, first + blocks, work, u)
        _conv2d_winograd(
            x, u, bias, options[2], options[3], groups, strip, columns, first, blocks,
            0, tasks * max(blocks // deep, 1), work, y,
        )  # fmt: skip
        first += blocks
    convolution_driver.finish(more, rectify, y.reshape(y.size), 0, y.size)


@kernel
def conv2d_backward_input(dy, weight, options, groups, dx):
    """dx, the forward convolution of dy with the flipped filters, for each phase of the stride."""
    sh, sw, top, left, dh, dw = options
    n, channels, height, width = dx.shape
    r, s = weight.shape[2], weight.shape[3]
    if dy.size * weight.shape[1] * r * s < SMALL_GRADIENT:
        rows = n * channels * height
        _backward_input_plain(dy, weight, sh, sw, top, left, dh, dw, groups, 0, rows, dx)
        return
    none = np.empty(0, dy.dtype)
    for row in range(min(sh, height)):
        taps_h = phase(row, r, sh, top, dh)
        for column in range(min(sw, width)):
            taps_w = phase(column, s, sw, left, dw)
            if not taps_h[2] * taps_w[2]:
                dx[:, :, row::sh, column::sw] = 0
                continue
            shape = n, channels, ceil_div(height - row, sh), ceil_div(width - column, sw)
            y = dx if sh * sw == 1 else np.empty(shape, dx.dtype)
            options_of_phase = (1, 1, taps_h[4], taps_w[4], taps_h[3], taps_w[3])
            filters = flipped(weight, groups, taps_h, taps_w)
            _conv2d(dy, filters, none, none, options_of_phase, groups, none, 0, y)
            if sh * sw > 1:
                dx[:, :, row::sh, column::sw] = y


@block
def flipped(weight, groups, taps_h, taps_w):
    """(K, C/groups, R, S) as the filters (C, K/groups, ., .) of a phase of the convolution backwards."""
    k, channels = weight.shape[0], weight.shape[1]
    part, (i0, by_i, r, _, _), (j0, by_j, s, _, _) = k // groups, taps_h, taps_w
    filters = np.empty((groups * channels, part, r, s), weight.dtype)
    for group in range(groups):
        for c in range(channels):
            for i in range(part):
                for a in range(r):
                    for b in range(s):
                        at = i0 + (r - 1 - a) * by_i, j0 + (s - 1 - b) * by_j
                        number = weight[group * part + i, c, at[0], at[1]]
                        filters[group * channels + c, i, a, b] = number
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
        _backward_weight_plain(x, dy, sh, sw, top, left, dh, dw, groups, 0, k, dweight)
        return
    work, taps = scratch(x, work_size), np.empty(taps_size, np.int64)
    _backward_weight(
        x, dy, sh, sw, top, left, dh, dw, groups, flat, block_h, block_c, 0, tasks, work, taps,
        dweight,
    )  # fmt: skip


@kernel
def linear(x, weight, packed, bias, y):
    """y = x @ weight + bias on rows, by the kernel that serves these sizes."""
    samples, (inputs, outputs), form = x.shape[0], weight.shape, dense_tiled.FORWARD
    tasks, work_size = dense_tiled.prepare(form, samples, inputs, outputs, x.itemsize)
    if tasks == 0:
        _linear_plain(x, weight, bias, 0, samples, y)
    else:
        work = scratch(x, work_size)
        _linear_tiled(x, weight, bias, packed, form, 0, tasks, work, y)


@kernel
def linear_backward_input(dy, weight, dx):
    """dx likewise."""
    samples, (inputs, outputs), form = dy.shape[0], weight.shape, dense_tiled.BACKWARD_INPUT
    tasks, work_size = dense_tiled.prepare(form, samples, inputs, outputs, dy.itemsize)
    if tasks == 0:
        _linear_backward_input(dy, weight, 0, samples, dx)
    else:
        none, work = dy.reshape(dy.size)[:0], scratch(dy, work_size)
        _linear_tiled(dy, weight, none, none, form, 0, tasks, work, dx)


@kernel
def linear_backward_weight(x, dy, dweight):
    """dweight likewise."""
    samples, (inputs, outputs), form = x.shape[0], dweight.shape, dense_tiled.BACKWARD_WEIGHT
    tasks, work_size = dense_tiled.prepare(form, samples, inputs, outputs, x.itemsize)
    if tasks == 0:
        _linear_backward_weight(x, dy, 0, inputs, dweight)
    else:
        none, work = x.reshape(x.size)[:0], scratch(x, work_size)
        _linear_tiled(x, dy, none, none, form, 0, tasks, work, dweight)


@kernel
def max_pool2d(x, options, y):
    """Maxima of windows; options are kernel, stride, padding and dilation, each (h, w)."""
    kh, kw, sh, sw, ph, pw, dh, dw = options
    height, width = x.shape[2], x.shape[3]
    # The size is that of pooling.Geometry.space.
    rows = max(1, min(8, 4096 // width))
    kept = min((rows - 1) * sh + (kh - 1) * dh + 1, height)
    work = np.empty(rows * width + 256 + kept * (max(width, y.shape[3]) + 64), x.dtype)
    items = y.shape[0] * y.shape[1] * y.shape[2]
    _max_pool2d(x, kh, kw, sh, sw, ph, pw, dh, dw, work, 0, items, y)


@kernel
def max_pool2d_indices(x, options, indices, y):
    """The same, and where each maximum is in its plane."""
    kh, kw, sh, sw, ph, pw, dh, dw = options
    items = y.shape[0] * y.shape[1] * y.shape[2]
    _max_pool2d_indices(x, kh, kw, sh, sw, ph, pw, dh, dw, 0, items, indices, y)


@kernel
def avg_pool2d(x, options, include, by, y):
    """Means of windows, over padding too with ``include``; a ``by`` other than 0 divides."""
    kh, kw, sh, sw, ph, pw = options
    work = np.empty(2 * x.shape[3] + 256, x.dtype)
    items = y.shape[0] * y.shape[1] * y.shape[2]
    _avg_pool2d(x, kh, kw, sh, sw, ph, pw, include, by, work, 0, items, y)


@kernel
def avg_pool2d_backward(dy, options, include, by, dx):
    kh, kw, sh, sw, ph, pw = options
    work = np.empty(dy.shape[3] + 2 * dx.shape[3] + 320, dy.dtype)
    planes = dx.shape[0] * dx.shape[1]
    _avg_pool2d_backward(dy, kh, kw, sh, sw, ph, pw, include, by, work, 0, planes, dx)


@kernel
def global_avg_pool2d(x, y):
    _global_avg_pool2d(x, 0, y.size, y)


@kernel
def global_max_pool2d(x, y):
    _global_max_pool2d(x, np.empty(512, x.dtype), 0, y.size, y)


@kernel
def cross_entropy(logits, target, result, dlogits):
    """Mean loss of the rows that count, and its gradient, for class indices."""
    n, classes, none = logits.shape[0], logits.shape[1], np.empty(0, logits.dtype)
    count = 0
    for index in target:
        if index != IGNORED:
            if index < 0 or index >= classes:
                raise ValueError("cross_entropy: target holds a class out of range")
            count += 1
    losses, scale = np.empty(n, logits.dtype), np.ones(n, logits.dtype)
    if count:
        scale /= logits.dtype.type(count)
    _cross_entropy(logits, target, none, IGNORED, 0.0, scale, 0, n, losses, dlogits)
    _total(losses, result)
    result[0] = result[0] / logits.dtype.type(count) if count else logits.dtype.type(np.nan)
