"""Gradient of a convolution by its weight, in register tiles. The twin is csrc/convolution_weight.h.

dweight[k][t] sums x_t[p] dy[k][p] over the pixels p of (n, oh, ow), in that order; x_t is
the image as tap t sees it. The lanes are filters, the rows of a tile are taps, and the input is copied
into lines as in convolution_tiled.py. Tiles that are not in work wait in memory.

The work is a range of tasks: for each group and block of filters one for each block of
input channels. A task goes through all images.
"""

from loopnest.kernels import tiles
from loopnest.kernels.convolution_plan import BLOCK_BYTES, MOST_BYTES, PLAIN_BELOW, ceil_div, lines
from loopnest.kernels.convolution_tiled import clear, copy_block, pack_block, tap_table
from loopnest.kernels.jit import jitable, kernel
from loopnest.kernels.simd_tiles import VECTOR_BYTES, address_of
from loopnest.kernels.tiles import TAP_ROWS

__all__ = ["backward_weight", "prepare_weight"]


FEWEST_TERMS = 512  # taps of a task from which packing dy for it does not show
SHORT_ROW = 32  # below it, rows follow each other in one run


@jitable
def prepare_weight(
    n, channels, k, groups, r, s, out_h, out_w, stride_h, stride_w, dilation_h, dilation_w, itemsize
):
    """(flat, block_h, block_c, tasks, work, taps): rows and channels of a block; tasks 0: plain."""
    inputs, outputs = channels // groups, k // groups
    lanes = VECTOR_BYTES // itemsize
    if n * k * out_h * out_w * inputs * r * s < PLAIN_BELOW:
        return 0, 0, 0, 0, 0, 0
    flat = 1 if out_w < SHORT_ROW else 0
    variants, phases, more_h, more_w = lines(s, r, stride_h, stride_w, dilation_h, dilation_w, flat)
    line = variants * phases * (out_w + more_w) * itemsize  # bytes a channel and row
    block_c = min(inputs, ceil_div(FEWEST_TERMS, r * s))
    block_h = min(out_h, max(1, BLOCK_BYTES // (line * block_c) - more_h))
    block_c = min(block_c, max(1, MOST_BYTES // (line * (block_h + more_h))))
    if line * (block_h + more_h) * block_c > MOST_BYTES:
        return 0, 0, 0, 0, 0, 0
    terms = block_c * r * s
    copy = block_c * variants * phases * (block_h + more_h) * (out_w + more_w)
    packed = block_h * out_w * 2 * lanes
    sums = ceil_div(terms, TAP_ROWS) * TAP_ROWS * 2 * lanes
    tasks = groups * ceil_div(outputs, 2 * lanes) * ceil_div(inputs, block_c)
    return flat, block_h, block_c, tasks, copy + packed + sums + 4 * lanes, terms + TAP_ROWS


@kernel
def backward_weight(
    x, dy, stride_h, stride_w, top, left, dilation_h, dilation_w, groups,
    flat, block_h, block_c, first, last, work, taps, dweight,
):  # fmt: skip
    n, all_channels, height, width = x.shape
    all_k, inputs, r, s = dweight.shape
    out_h, out_w = dy.shape[2], dy.shape[3]
    k = all_k // groups
    zero = x.dtype.type(0)
    size, lanes = x.itemsize, VECTOR_BYTES // x.itemsize
    variants, phases, more_h, more_w = lines(s, r, stride_h, stride_w, dilation_h, dilation_w, flat)
    line_rows, line = block_h + more_h, out_w + more_w
    copy_size = block_c * variants * phases * line_rows * line
    tap_table(
        block_c, r, s, stride_h, stride_w, dilation_h, dilation_w, flat, variants, phases,
        line, line_rows, x.itemsize, taps,
    )  # fmt: skip
    for t in range(block_c * r * s, taps.size):
        taps[t] = 0  # rows of the last tile that are not used
    copy, table = address_of(work), address_of(taps)
    begin = ceil_div(copy_size, lanes) * lanes
    packed = copy + begin * size
    sums_at = begin + block_h * out_w * 2 * lanes
    sums = copy + sums_at * size
    row = (all_channels // groups * r * s) * size  # of dweight
    plane = out_h * out_w * size
    deep, chunks = ceil_div(k, 2 * lanes), ceil_div(inputs, block_c)
    tile_bytes = TAP_ROWS * 2 * VECTOR_BYTES
    clear(zero, copy, copy_size)
    for task in range(first, last):
        rest, chunk = divmod(task, chunks)
        group, part = divmod(rest, deep)
        channel = chunk * block_c
        channels = min(block_c, inputs - channel)
        terms = channels * r * s
        at, count = group * k + part * 2 * lanes, min(2 * lanes, k - part * 2 * lanes)
        wide = count > lanes
        clear(zero, sums, ceil_div(terms, TAP_ROWS) * TAP_ROWS * 2 * lanes)
        for image in range(n):
            for oh in range(0, out_h, block_h):
                rows = min(block_h, out_h - oh)
                copy_block(
                    x, image * all_channels + group * inputs + channel, channels, height, width,
                    top - oh * stride_h, left, stride_h, stride_w, phases, variants,
                    dilation_w if flat else 1, rows + more_h, out_w + more_w,
                    line, line_rows, work,
                )  # fmt: skip
                source = address_of(dy) + (image * all_k + at) * plane + oh * out_w * size
                pack_block(zero, source, plane, count, rows * out_w, packed)
                runs, run = (1, rows * out_w) if flat else (rows, out_w)
                for t in range(0, terms, TAP_ROWS):
                    tile = sums + (t // TAP_ROWS) * tile_bytes
                    tap = table + t * 8
                    if wide:
                        tiles.taps_wide(zero, copy, line * size, tap, packed, runs, run, tile)
                    else:
                        tiles.taps_narrow(zero, copy, line * size, tap, packed, runs, run, tile)
        target = address_of(dweight) + at * row + channel * r * s * size
        for t in range(0, terms, TAP_ROWS):
            tile = sums + (t // TAP_ROWS) * tile_bytes
            to = target + t * size
            if wide:
                tiles.write_taps_wide(zero, tile, to, row, count, terms - t)
            else:
                tiles.write_taps_narrow(zero, tile, to, row, count, terms - t)
