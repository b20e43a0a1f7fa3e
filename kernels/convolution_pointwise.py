"""2D convolution with 1x1 filters, stride 1, no padding: the product of the matrix of filters with
that of planes. The twin is csrc/convolution_pointwise.c.

The work is a range of tasks: for each (image, group, strip of pixels) one for each block of filters.
The sums of a task go by slices of channels, so that a slice of the strip stays in L1 for all
filters. It is read where it is if planes begin where vectors do, or if the filters are few and the
strip is whole, else through a copy.
"""

from loopnest.kernels import tiles
from loopnest.kernels.convolution_plan import (
    POINTWISE_CHANNELS,
    POINTWISE_FILTERS,
    POINTWISE_VECTORS,
    UNALIGNED_FILTERS,
    ceil_div,
    pointwise_pixels,
)
from loopnest.kernels.convolution_tiled import clear, copy_numbers, copy_rows
from loopnest.kernels.jit import fragment, kernel
from loopnest.kernels.simd_tiles import VECTOR_BYTES, address_of, size_of
from loopnest.kernels.tiles import ADD, CHANNEL_ROWS, RECTIFY


@fragment
def pointwise_tiles(
    zero, a, a_step, x, x_step, ahead, channels, pixels, sums, starts, bias, y, y_step, filters,
    more, finish,
):  # fmt: skip
    """Up to CHANNEL_ROWS filters at a, bytes a_step apart, over a slice of channels at x.

    x is readable for whole vectors; a and bias for CHANNEL_ROWS filters. y is 0 but for the last
    slice; the input ``ahead`` bytes further is asked for.
    """
    size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
    j = 0
    while j < pixels:
        at, own = j * size, sums + j * CHANNEL_ROWS * size
        to, left = y + at if y else y, pixels - j
        if left > 2 * lanes:
            tiles.many_planes(
                zero, a, a_step, x + at, x_step, channels, ahead, own, starts, bias, to, y_step,
                filters, left, more, finish,
            )  # fmt: skip
            j += 3 * lanes
        else:
            tiles.many_planes_narrow(
                zero, a, a_step, x + at, x_step, channels, ahead, own, starts, bias, to, y_step,
                filters, left, more, finish,
            )  # fmt: skip
            j += lanes


@kernel
def conv2d_pointwise(x, weight, bias, groups, first, last, more, rectify, work, y):
    """y = x * weight + bias + more, where these are not empty; then max(0, y) if asked for."""
    n, all_channels, height, width = x.shape
    all_k, terms = weight.shape[0], weight.shape[1]
    k, plane = all_k // groups, height * width
    zero, size, lanes = x.dtype.type(0), x.itemsize, VECTOR_BYTES // x.itemsize
    strip = pointwise_pixels(terms, k, lanes)
    strips, deep = ceil_div(plane, strip), ceil_div(k, POINTWISE_FILTERS)
    aligned = plane % lanes == 0
    image_step = plane * size
    sums = address_of(work)
    copy = sums + POINTWISE_FILTERS * POINTWISE_VECTORS * VECTOR_BYTES
    own = copy + POINTWISE_CHANNELS * POINTWISE_VECTORS * VECTOR_BYTES
    own_bias = own + CHANNEL_ROWS * POINTWISE_CHANNELS * size
    finish = (ADD if more.size else 0) + (RECTIFY if rectify else 0)
    addend = address_of(more) - address_of(y)
    if not aligned:  # what is not used must not be slow subnormals
        clear(zero, copy, POINTWISE_CHANNELS * POINTWISE_VECTORS * lanes)
    for task in range(first, last):
        place, part = divmod(task, deep)
        rest, column = divmod(place, strips)
        image, group = divmod(rest, groups)
        start, pixels = column * strip, min(strip, plane - column * strip)
        in_place = aligned or (k <= UNALIGNED_FILTERS and pixels == strip)
        filter_ = group * k + part * POINTWISE_FILTERS
        filters = min(POINTWISE_FILTERS, k - part * POINTWISE_FILTERS)
        target = address_of(y) + ((image * all_k + filter_) * plane + start) * size
        for c in range(0, terms, POINTWISE_CHANNELS):
            count = min(POINTWISE_CHANNELS, terms - c)
            at = (image * all_channels + group * terms + c) * plane + start
            source, step = address_of(x) + at * size, image_step
            if not in_place:
                copy_rows(zero, source, plane, 1, copy, strip, count, pixels)
                source, step = copy, strip * size
            for i in range(0, filters, CHANNEL_ROWS):
                a = address_of(weight) + ((filter_ + i) * terms + c) * size
                offset = address_of(bias) + (filter_ + i) * size if bias.size else 0
                a_step, rows = terms * size, min(filters - i, CHANNEL_ROWS)
                if rows < CHANNEL_ROWS:  # tiles have more: they read a copy
                    clear(zero, own, CHANNEL_ROWS * (POINTWISE_CHANNELS + 1))
                    for row in range(rows):
                        to = own + row * POINTWISE_CHANNELS * size
                        copy_numbers(zero, a + row * a_step, to, count)
                    a, a_step = own, POINTWISE_CHANNELS * size
                    if offset:
                        copy_numbers(zero, offset, own_bias, rows)
                        offset = own_bias
                pointwise_tiles(
                    zero, a, a_step, source, step, 0 if i or not in_place else strip * size, count,
                    pixels, sums + i * strip * size, c == 0, offset,
                    target + i * plane * size if c + count == terms else 0, image_step,
                    rows, addend, finish,
                )  # fmt: skip
