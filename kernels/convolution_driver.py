"""The one driver of 2D convolution: a range of tasks, by the kernel that the plan names.

`prepare` (convolution_plan.py) tells method, blocks, number of tasks and sizes of work space;
`conv2d_tasks` computes any range of the tasks, with all that is fused into a convolution. Python
splits the tasks over its threads, compiled code (whole.py) runs them all. The twin is
``ln_conv2d_tiled`` in csrc/convolution_tiled.c.
"""

from loopnest.kernels import (
    convolution,
    convolution_pointwise,
    convolution_stacked,
    convolution_tiled,
    scalar,
)
from loopnest.kernels.convolution_plan import PIXELS, PLAIN, POINTWISE, STACKED, ceil_div, prepare
from loopnest.kernels.jit import block, kernel
from loopnest.kernels.linking import linked

__all__ = ["conv2d_tasks", "prepare"]

_plain = linked(convolution.conv2d)
_pixels = linked(convolution_tiled.conv2d_pixels)
_channels = linked(convolution_tiled.conv2d_channels)
_pointwise = linked(convolution_pointwise.conv2d_pointwise)
_stacked = linked(convolution_stacked.conv2d_stacked)


@block
def finish(more, rectify, y, first, last):
    """y[first:last] = max(0, y + more) of flat arrays; an empty ``more`` adds nothing."""
    if more.size:
        for i in range(first, last):
            y[i] += more[i]
    if rectify:
        for i in range(first, last):
            y[i] = scalar.relu(y[i])


@kernel
def conv2d_tasks(
    x, weight, packed, bias, stride_h, stride_w, top, left, dilation_h, dilation_w, groups,
    method, flat, block_h, block_w, first, last, more, rectify, work, taps, y,
):  # fmt: skip
    """y = x * weight + bias + more, where these are not empty; then max(0, y) if asked for.

    ``packed`` is a weight as `pack_weight` makes it, or empty; only PIXELS has a use for it.
    """
    if method == PLAIN:
        _plain(
            x, weight, bias, stride_h, stride_w, top, left, dilation_h, dilation_w, groups,
            first, last, y,
        )  # fmt: skip
        width = y.shape[3]
        finish(more, rectify, y.reshape(y.size), first * width, last * width)
    elif method == STACKED:
        _stacked(x, weight, bias, top, left, groups, block_h, first, last, work, y)
        if more.size or rectify:
            finish_stacked(weight.shape[0], groups, block_h, first, last, more, rectify, y)
    elif method == POINTWISE:
        _pointwise(x, weight, bias, groups, first, last, more, rectify, work, y)
    elif method == PIXELS:
        _pixels(
            x, weight, bias, stride_h, stride_w, top, left, dilation_h, dilation_w, groups,
            flat, block_h, block_w, first, last, packed, more, rectify, work, taps, y,
        )  # fmt: skip
    else:
        _channels(
            x, weight, bias, stride_h, stride_w, top, left, dilation_h, dilation_w, groups,
            flat, block_h, block_w, first, last, packed[:0], more, rectify, work, taps, y,
        )  # fmt: skip


@block
def finish_stacked(filters, groups, block_h, first, last, more, rectify, y):
    """`finish` of what tasks of the stacked kernel wrote: blocks of whole output rows."""
    out_h, out_w = y.shape[2], y.shape[3]
    k, down, flat = filters // groups, ceil_div(out_h, block_h), y.reshape(y.size)
    for task in range(first, last):
        place, part = divmod(task, k)
        plane, number = divmod(place, down)
        image, group = divmod(plane, groups)
        start = ((image * filters + group * k + part) * out_h + number * block_h) * out_w
        rows = min(block_h, out_h - number * block_h)
        finish(more, rectify, flat, start, start + rows * out_w)
