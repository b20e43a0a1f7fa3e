"""Which kernel serves a convolution, and in what blocks: the one place that decides.

Plain integer arithmetic, callable from Python and from compiled code; the twin is
csrc/convolution_plan.h. The choice never changes the bits.

| method   | serves                                         | why                              |
|----------|------------------------------------------------|----------------------------------|
| PLAIN    | a few thousand multiply-adds, or taps without  | nothing to prepare; no memory    |
|          | number: rows of y, no work space               |                                  |
| PIXELS   | many channels out, long sums: the lanes are    | aligned loads of packed weights, |
|          | output channels; 1x1 of few pixels (7x7)       | no width leaves lanes idle       |
| STACKED  | one channel a group, square filter of 3, 5 or  | each number loaded serves        |
|          | 7, stride 1: images, depthwise                 | several output rows              |
| CHANNELS | few channels out (up to a vector) or short     | nothing to pack or to transpose, |
|          | sums: the lanes are pixels                     | a weight loaded serves 3 vectors |
| POINTWISE| 1x1, stride 1, no padding, but what is said    | planes are read where they are,  |
|          | above: a product of matrices, lanes are pixels | a slice of them serves all rows  |

A 1x1 of few pixels reads whole planes where they are (PIXELS): a tap is the next plane, and what is
left beyond the last whole tile is copied. Else PIXELS and CHANNELS read the input through a padded
copy of a block of it, small enough for L2, cut into lines:

    [channel][variant][row phase][row][column]

so that the pixels of each tap are contiguous. "Rows": a line holds every stride_w-th column
(a variant for each phase), an output row is a run; of short ones, a vector or less, a tile takes
three (where there are so many filters that a tile has three vectors). "Flat": a line is an output
row as one column of the filter sees it (a variant for each column), lines of successive output
rows follow each other, and the whole block is one run: no lanes idle at the ends of short rows,
and vectors begin at cache lines if the width is a number of them.

Long sums go by slices of terms, between which tiles wait in memory: so that the weights (PIXELS) or
pixels (POINTWISE) of a slice are read from L1 but once.
"""

from loopnest.kernels.jit import jitable
from loopnest.kernels.simd_tiles import VECTOR_BYTES
from loopnest.kernels.tiles import (
    CHANNEL_ROWS,
    FEW_CHANNEL_ROWS,
    FEW_PIXEL_ROWS,
    PIXEL_ROWS,
    STACKED_ROWS,
    TAPS_AHEAD,
)

PLAIN, PIXELS, CHANNELS, STACKED, POINTWISE = 0, 1, 2, 3, 4

PLAIN_BELOW = 4096  # multiply-adds
LONG_SUM = 128  # terms from which transposing a tile does not show
BLOCK_BYTES = 320 << 10  # of the padded copy
LARGE_BLOCK_BYTES = 768 << 10  # where L2 cannot keep the filters, which are read once a block
LOW_BLOCK = 16  # output rows of one that fits L1 nearly: where the lanes are pixels
LOW_BLOCK_BYTES = 128 << 10
SPLIT_COST = 8  # loads that span two cache lines cost one in so many multiply-adds
TERMS_IN_L1 = 160  # of a panel of packed weights: 20 KB
STRIP_TILES = 16  # over which they stay there
POINTWISE_FILTERS = 64  # of a task
POINTWISE_CHANNELS = 64  # of a slice of its sums
POINTWISE_VECTORS = 6  # pixels of a task: 24 KB of a whole slice
UNALIGNED_FILTERS = 24  # up to which a copy of pixels costs more than loads that span lines
POINTWISE_STRIPS = 8  # as many times that at most, if the sums are short
STACKED_BYTES = 256 << 10  # of that of one channel
KEEP_BYTES = 640 << 10  # of packed filters that are kept from block to block
MOST_BYTES = 8 << 20  # of one that cannot be cut smaller: beyond, the plain kernel
FILL_COST = 24  # copying one number, in multiply-adds
LOW_FILL_COST = 5  # the same in a low block
HALF_TILE_COST = 4  # of one with lanes of channels, over its share, in pixels
# Multiply-adds of a gradient below which flipping filters does not pay.
SMALL_GRADIENT = 1 << 15


@jitable
def ceil_div(a, b):
    return -(-a // b)


@jitable
def lines(s, r, stride_h, stride_w, dilation_h, dilation_w, flat):
    """(variants, row phases, rows beyond the output's, columns beyond the output's)."""
    reach_h, reach_w = (r - 1) * dilation_h, (s - 1) * dilation_w
    phases = min(stride_h, reach_h + 1)
    if flat:
        return s, phases, reach_h // stride_h, 0
    return min(stride_w, reach_w + 1), phases, reach_h // stride_h, reach_w // stride_w


@jitable
def by_planes(pixels, pointwise, lanes):
    """Whether lanes along pixels suit: planes of some vectors, that begin where vectors do."""
    return pointwise and pixels >= 3 * lanes and pixels % lanes == 0


@jitable
def plan(
    channels, k, r, s, out_h, out_w, stride_h, stride_w, dilation_h, dilation_w, images, pointwise,
    itemsize,
):  # fmt: skip
    """(method, flat, block_h, block_w) for one group: ``channels`` in, ``k`` out."""
    lanes = VECTOR_BYTES // itemsize
    taps = channels * r * s
    if images * k * out_h * out_w * taps < PLAIN_BELOW:
        return PLAIN, 0, 0, 0
    usual = r == s and (r == 3 or r == 5 or r == 7)
    if channels == 1 and usual and stride_h * stride_w * dilation_h * dilation_w == 1:
        rows = STACKED_BYTES // ((out_w + s - 1) * itemsize) - (r - 1)
        rows = min(max(rows // STACKED_ROWS, 1) * STACKED_ROWS, out_h)
        if (rows + STACKED_ROWS + r) * (out_w + s) * itemsize <= MOST_BYTES:
            return STACKED, 0, rows, out_w
    if k > lanes and taps >= LONG_SUM and not by_planes(out_h * out_w, pointwise, lanes):
        method, unit = PIXELS, FEW_PIXEL_ROWS
    elif pointwise:
        return POINTWISE, 0, 0, 0
    elif k >= CHANNEL_ROWS:
        method, unit = CHANNELS, lanes
    else:
        method, unit = CHANNELS, (1 if k > FEW_CHANNEL_ROWS else 4 if k > 1 else 8) * lanes
    # The cheaper form of the copy: idle lanes at the ends of runs, and half tiles, for which
    # filters are read as for whole ones, against more copying.
    best, flat, fill = 0, 0, FILL_COST if method == PIXELS else LOW_FILL_COST
    for form in range(2):
        variants, phases, more_h, more_w = lines(
            s, r, stride_h, stride_w, dilation_h, dilation_w, form
        )
        pixels = out_h * out_w if form else out_w
        units = ceil_div(pixels, unit)
        run = units * unit + (units % 2 * HALF_TILE_COST if method == PIXELS else 0)
        computed = run * (1 if form else out_h)
        if method == CHANNELS and s > 1 and (not form or out_w % lanes):
            computed += computed / SPLIT_COST
        copied = variants * phases * (out_h + more_h) * (out_w + more_w)
        cost = computed * r * s * k + fill * copied
        if form == 0 or cost < best:
            best, flat = cost, form
    # Blocks of whole output rows, of parts of one where that is too much.
    room = LARGE_BLOCK_BYTES if k * taps * itemsize > LARGE_BLOCK_BYTES else BLOCK_BYTES
    for form in range(flat, -1, -1):
        variants, phases, more_h, more_w = lines(
            s, r, stride_h, stride_w, dilation_h, dilation_w, form
        )
        line = channels * variants * phases * itemsize  # bytes a row and column
        row = line * (out_w + more_w)
        rows = room // row - more_h
        if method == CHANNELS:
            rows = min(rows, max(LOW_BLOCK_BYTES // row - more_h, LOW_BLOCK))
        if rows >= 1:
            blocks = ceil_div(out_h, min(rows, out_h))
            return method, form, ceil_div(out_h, blocks), out_w
    step = 3 * unit if method == CHANNELS else unit
    columns = (room // (line * (1 + more_h)) - more_w) // step * step
    columns = min(max(columns, 3 * lanes), out_w)
    if line * (1 + more_h) * (columns + more_w) > MOST_BYTES:
        return PLAIN, 0, 0, 0
    return method, 0, 1, columns


@jitable
def pointwise_pixels(channels, k, lanes):
    """Pixels of a task of 1x1 filters: as many as leave the slice of the input in L1, if the output
    is the larger part: long runs of it."""
    strips = 1 if k < channels else min(POINTWISE_CHANNELS // channels, POINTWISE_STRIPS)
    return POINTWISE_VECTORS * lanes * max(strips, 1)


@jitable
def keeps_packed(method, deep, taps, itemsize):
    """Whether a thread packs all filters of a group at once, and not those of each task anew."""
    lanes = VECTOR_BYTES // itemsize
    return method == PIXELS and deep * taps * 2 * lanes * itemsize <= KEEP_BYTES


@jitable
def prepare(
    n, channels, height, width, k, groups, r, s, out_h, out_w, stride_h, stride_w, dilation_h,
    dilation_w, itemsize,
):  # fmt: skip
    """(method, flat, block_h, block_w, tasks, work, taps) of a whole convolution.

    The tasks are what `convolution_tiled` counts (rows of y for PLAIN), work and taps the
    numbers of work space of one thread.
    """
    inputs, outputs = channels // groups, k // groups
    pointwise = r * s * stride_h * stride_w == 1 and height == out_h and width == out_w
    method, flat, block_h, block_w = plan(
        inputs, outputs, r, s, out_h, out_w, stride_h, stride_w, dilation_h, dilation_w,
        n * groups, pointwise, itemsize,
    )  # fmt: skip
    if method == PLAIN:
        return method, flat, block_h, block_w, n * k * out_h, 0, 0
    lanes = VECTOR_BYTES // itemsize
    if method == POINTWISE:
        strips = ceil_div(out_h * out_w, pointwise_pixels(inputs, outputs, lanes))
        tasks = n * groups * strips * ceil_div(outputs, POINTWISE_FILTERS)
        # Sums, a slice of the input, the last filters of a slice and their bias.
        work = (POINTWISE_FILTERS + POINTWISE_CHANNELS) * POINTWISE_VECTORS * lanes
        return method, flat, 0, 0, tasks, work + CHANNEL_ROWS * (POINTWISE_CHANNELS + 1), 0
    if method == STACKED:
        tasks = n * groups * ceil_div(out_h, block_h) * outputs
        # Tiles read whole: rows and columns beyond the block.
        rows = ceil_div(block_h, STACKED_ROWS) * STACKED_ROWS + r - 1
        return method, flat, block_h, block_w, tasks, rows * (out_w + s - 1) + 3 * lanes, 0
    filters = 2 * lanes if method == PIXELS else CHANNEL_ROWS
    blocks = n * groups * ceil_div(out_h, block_h) * ceil_div(out_w, block_w)
    variants, phases, more_h, more_w = lines(s, r, stride_h, stride_w, dilation_h, dilation_w, flat)
    copy = inputs * variants * phases * (block_h + more_h) * (block_w + more_w)
    terms = inputs * r * s
    slack = 8 * lanes  # tiles read beyond the last line what they do not use
    deep = ceil_div(outputs, filters)
    own = terms * filters * (deep if keeps_packed(method, deep, terms, itemsize) else 1)
    own += filters  # bias of a task
    tasks = blocks * deep
    taps = terms * (2 if pointwise else 1) + TAPS_AHEAD
    work = copy + slack + own + 4 * lanes
    if method == PIXELS:
        work += STRIP_TILES * PIXEL_ROWS * 2 * lanes
    return method, flat, block_h, block_w, tasks, work, taps


@jitable
def packed_size(k, groups, terms, itemsize):
    """Numbers in the packed form of a weight."""
    lanes = VECTOR_BYTES // itemsize
    return groups * ceil_div(k // groups, 2 * lanes) * terms * 2 * lanes
