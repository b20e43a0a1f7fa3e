"""Micro-kernels: one register tile over a whole sum of products.

    y[i][j] = sum over t of A[i][t] B[t][j], in the order of t, each step fused

A tile has MR rows and NV vectors of columns, all in registers from the first term to the
last, so each output keeps the one accumulator that the contract asks for. B[t] is
contiguous, MR numbers of A are broadcast a term. Where term t lies, in bytes from a start, is looked
up in a table of taps: that hides a convolution's size, stride, dilation and padding.

``pixel rows``    A is the image, B packed weights: the lanes are output channels, and the
                  tile is written transposed. Aligned loads whatever the image's width.
``channel rows``  A is the weights as they are, B the image: the lanes are pixels. Dense
                  layers use it with A the samples and B the weights.
``stacked rows``  for one channel and a square filter of usual size: the rows are output rows,
                  what is loaded of an input row serves all output rows that see it.
``tap rows``      for the weight's gradient: the terms are pixels, A the image as each tap
                  sees it, B the packed gradients of the output.

Tiles of convolutions may finish what they computed before they write it: ``finish`` is ADD, RECTIFY, both
or 0. What is added lies ``more`` bytes from where the tile is written.

The twin is csrc/tiles.h.
"""

from loopnest.kernels.jit import fragment, inlined
from loopnest.kernels.simd_columns import finish_columns, store_columns
from loopnest.kernels.simd_prefetch import prefetch, prefetch_row, prefetch_to_l2
from loopnest.kernels.simd_tiles import (
    REGISTERS,
    VECTOR_BYTES,
    add_number,
    add_rows,
    add_to_columns,
    add_to_rows,
    integer_at,
    load_column,
    load_tile,
    multiply_add,
    multiply_add_gathered,
    multiply_add_stacked,
    rectified,
    size_of,
    store_rows,
    store_tile,
    unknown,
    zero_tile,
)

_TAP = 8
_PACKED = 2 * VECTOR_BYTES
_AHEAD = 16 * 2 * VECTOR_BYTES  # weights come from beyond L1: asked for 16 terms early
# Runs of the image, each in a page of its own, are asked for so many taps early: a table of
# taps is longer by as many.
TAPS_AHEAD = 8
_LATER = 8 * TAPS_AHEAD

ADD, RECTIFY = 1, 2  # ``finish``: numbers are added, then max(0, .)

# Rows of a tile of two vectors: accumulators, two of B and one of A fit 32 or 16 registers.
PIXEL_ROWS = 14 if REGISTERS == 32 else 6
FEW_PIXEL_ROWS = PIXEL_ROWS // 2
# Rows of a tile of three vectors; tiles of half as many rows have four, of one row eight.
CHANNEL_ROWS = 8 if REGISTERS == 32 else 4
FEW_CHANNEL_ROWS = CHANNEL_ROWS // 2
# Of a dense layer's tile: by four vectors (32 registers) or two, by one; the last rows.
SAMPLE_ROWS, NARROW_SAMPLE_ROWS, FEW_SAMPLE_ROWS = 6, 12, 4
WIDE_SAMPLES = 4 if REGISTERS == 32 else 2
SAMPLE_VECTORS = 4  # of a panel
SAMPLES_AHEAD = 8  # terms, asked for early where each lies in a line of its own
# Rows of a tile of output rows of one image, two vectors wide.
STACKED_ROWS = 8 if REGISTERS == 32 else 4
# Rows of a tile whose rows lie anywhere: their addresses fit the integer registers.
TAP_ROWS = 8 if REGISTERS == 32 else 5


def _pixel_rows(mr, nv):
    """Tile maker; the tile begins in ``sums``, or at zero if it ``starts``, and is left there.

    What lies at ``later`` is asked for into L2, ``later_step`` bytes a term.
    """

    @inlined
    def tile(zero, x, x_step, taps, count, weight, later, later_step, sums, starts):
        acc = zero_tile(zero, mr, nv)
        if not starts:
            acc = load_tile(zero, sums, mr, nv)
        for _ in range(count):
            acc = multiply_add(acc, x + integer_at(taps), x_step, weight, VECTOR_BYTES, mr, nv)
            prefetch_row(weight + _AHEAD, 0, nv)
            prefetch_to_l2(later)
            later += later_step
            taps += _TAP
            weight += _PACKED
        store_tile(acc, sums)

    return tile


many_pixels_wide = _pixel_rows(PIXEL_ROWS, 2)
many_pixels_narrow = _pixel_rows(PIXEL_ROWS, 1)
few_pixels_wide = _pixel_rows(FEW_PIXEL_ROWS, 2)


@fragment
def finish_pixel_rows(
    zero, sums, row, bias, y, y_step, channels, pixels, more, finish
):  # fmt: skip
    """y, (channels, pixels), from a tile of pixel rows in ``sums``, whose rows are ``row`` bytes.

    Up to PIXEL_ROWS pixels: that many are read. bias holds as many numbers as the tile has columns,
    or is 0. One function for all tiles, as transposing takes long to compile.
    """
    add, rectify, lanes = finish & ADD, finish & RECTIFY, VECTOR_BYTES // size_of(zero)
    for first in range(0, channels, lanes):
        acc = load_column(zero, sums, row, PIXEL_ROWS)
        if bias:
            acc = add_to_rows(acc, bias, PIXEL_ROWS, 1)
            bias += VECTOR_BYTES
        finish_columns(acc, y, y_step, channels - first, pixels, more, add, rectify, PIXEL_ROWS, 1)
        sums += VECTOR_BYTES
        y += lanes * y_step


def _row_finisher(mr, nv):
    """What adds to a tile whose rows are channels what is asked for, and writes it."""

    @inlined
    def finish_rows(acc, bias, y, y_step, height, width, more, finish, each):
        if bias:
            acc = add_to_columns(acc, bias, mr, nv)
        if finish & ADD:
            acc = add_rows(acc, y + more, y_step, height, width, each, mr, nv)
        if finish & RECTIFY:
            acc = rectified(acc)
        store_rows(acc, y, y_step, height, width, each, mr, nv)

    return finish_rows


def _channel_rows(mr, nv):
    """Tile maker; a, b, y and bias are the matrices of the product and what is added to its rows.

    The tile is written down to ``height`` and across to ``width``; bias 0 means none. Vectors of b
    are ``pitch`` bytes apart, ``each`` numbers of one count.
    """
    finish_rows = _row_finisher(mr, nv)

    @inlined
    def tile(
        zero, a, a_step, b, taps, count, bias, y, y_step, height, width, more, finish, pitch, each
    ):  # fmt: skip
        acc = zero_tile(zero, mr, nv)
        rows = a + mr * a_step  # those of the next tile
        size = size_of(zero)
        for i in range(height):
            prefetch_row(y + i * y_step, 1, nv)
        for _ in range(count):
            acc = multiply_add(acc, a, a_step, b + integer_at(taps), pitch, mr, nv)
            prefetch_row(b + integer_at(taps + _LATER), 0, nv)
            prefetch(rows, 0)
            rows += mr * size
            taps += _TAP
            a = unknown(a + size)
        finish_rows(acc, bias, y, y_step, height, width, more, finish, each)

    return tile


many_channels = _channel_rows(CHANNEL_ROWS, 3)
many_channels_narrow = _channel_rows(CHANNEL_ROWS, 1)
few_channels = _channel_rows(FEW_CHANNEL_ROWS, 4)
one_channel = _channel_rows(1, 8)


def _plane_rows(mr, nv):
    """Tile maker for 1x1 filters: a are rows of weights, b planes, b_step apart.

    The tile begins in ``sums``, or at zero if it ``starts``, and is left there where y is 0. What lies
    ``ahead`` bytes after b is asked for.
    """
    finish_rows = _row_finisher(mr, nv)

    @inlined
    def tile(
        zero, a, a_step, b, b_step, count, ahead, sums, starts, bias, y, y_step, height, width,
        more, finish,
    ):  # fmt: skip
        acc = zero_tile(zero, mr, nv)
        if not starts:
            acc = load_tile(zero, sums, mr, nv)
        if y:
            for i in range(height):
                prefetch_row(y + i * y_step, 1, nv)
        for _ in range(count):
            acc = multiply_add(acc, a, a_step, b, VECTOR_BYTES, mr, nv)
            prefetch_row(b + ahead, 0, nv)
            b += b_step
            a = unknown(a + size_of(zero))
        if y:
            lanes = VECTOR_BYTES // size_of(zero)
            finish_rows(acc, bias, y, y_step, height, width, more, finish, lanes)
        else:
            store_tile(acc, sums)

    return tile


many_planes = _plane_rows(CHANNEL_ROWS, 3)
many_planes_narrow = _plane_rows(CHANNEL_ROWS, 1)


def _sample_rows(mr, nv):
    """Tile maker for dense layers, some of the terms at a time; between parts the tile is in ``sums``.

    Numbers of A are a_step apart, terms of it a_term. The last part adds a bias along the lanes
    and writes y, or leaves the tile in ``sums`` where y is 0. A cache line at ``ahead``, with each
    term ahead_step further, is asked for.
    """

    @fragment
    def tile(
        zero, a, a_step, a_term, b, b_step, count, ahead, ahead_step, sums, starts, bias, y, y_step,
        height, width,
    ):  # fmt: skip
        acc = zero_tile(zero, mr, nv)
        if not starts:
            acc = load_tile(zero, sums, mr, nv)
        for _ in range(count):
            acc = multiply_add(acc, a, a_step, b, VECTOR_BYTES, mr, nv)
            prefetch(ahead, 0)
            a += a_term
            b += b_step
            ahead += ahead_step
        if y:
            if bias:
                acc = add_to_rows(acc, bias, mr, nv)
            lanes = VECTOR_BYTES // size_of(zero)
            store_rows(acc, y, y_step, height, width, lanes, mr, nv)
        else:
            store_tile(acc, sums)

    return tile


def _copying_sample_rows(mr, nv):
    """The same for tiles that copy what they read of B to ``copy``, in one piece."""

    @fragment
    def tile(
        zero, a, a_step, a_term, b, b_step, count, copy, sums, starts, bias, y, y_step, height, width
    ):  # fmt: skip
        acc = zero_tile(zero, mr, nv)
        if not starts:
            acc = load_tile(zero, sums, mr, nv)
        for _ in range(count):
            acc = multiply_add(acc, a, a_step, b, VECTOR_BYTES, mr, nv)
            store_tile(load_tile(zero, b, 1, nv), copy)
            later = b + SAMPLES_AHEAD * b_step
            for j in range(nv):
                prefetch(later + j * VECTOR_BYTES, 0)
            a += a_term
            b += b_step
            copy += nv * VECTOR_BYTES
        if y:
            if bias:
                acc = add_to_rows(acc, bias, mr, nv)
            lanes = VECTOR_BYTES // size_of(zero)
            store_rows(acc, y, y_step, height, width, lanes, mr, nv)
        else:
            store_tile(acc, sums)

    return tile


samples_wide = _sample_rows(SAMPLE_ROWS, WIDE_SAMPLES)
samples_wide_copying = _copying_sample_rows(SAMPLE_ROWS, WIDE_SAMPLES)
samples_wide_few = _sample_rows(FEW_SAMPLE_ROWS, WIDE_SAMPLES)
samples_narrow = _sample_rows(NARROW_SAMPLE_ROWS, 1)
samples_narrow_few = _sample_rows(FEW_SAMPLE_ROWS, 1)
sample_single = _sample_rows(1, WIDE_SAMPLES)


def _tap_rows(mr, nv):
    """Tile maker; ``sums`` holds the tile before and after, the taps are those of its rows.

    The terms are ``runs`` runs of ``run`` pixels; runs of the image are ``line`` bytes apart.
    """

    @inlined
    def tile(zero, x, line, taps, dy, runs, run, sums):
        acc = load_tile(zero, sums, mr, nv)
        for _ in range(runs):
            a = x
            for _ in range(run):
                acc = multiply_add_gathered(acc, a, taps, dy, mr, nv)
                a += size_of(zero)
                dy += _PACKED
            x += line
        store_tile(acc, sums)

    return tile


def _write_taps(mr, nv):
    @inlined
    def write(zero, sums, dweight, step, channels, taps):
        store_columns(load_tile(zero, sums, mr, nv), dweight, step, channels, taps, mr, nv)

    return write


taps_wide = _tap_rows(TAP_ROWS, 2)
taps_narrow = _tap_rows(TAP_ROWS, 1)
write_taps_wide = _write_taps(TAP_ROWS, 2)
write_taps_narrow = _write_taps(TAP_ROWS, 1)


def _stacked_rows(size, nv):
    """Tile maker for filters of size x size at address ``weight``; x is lines of one channel."""

    @inlined
    def tile(zero, x, line, weight, bias, y, y_step, height, width):
        acc, next_y = zero_tile(zero, STACKED_ROWS, nv), y + nv * VECTOR_BYTES
        for _ in range(STACKED_ROWS):  # what is written next
            prefetch_row(next_y, 1, nv)
            next_y += y_step
        acc = multiply_add_stacked(acc, x, line, weight, STACKED_ROWS, nv, size, size)
        if bias:
            acc = add_number(acc, bias)
        lanes = VECTOR_BYTES // size_of(zero)
        store_rows(acc, y, y_step, height, width, lanes, STACKED_ROWS, nv)

    return tile


stacked_3 = _stacked_rows(3, 2)  # two vectors: wider tiles leave more lanes idle
stacked_5 = _stacked_rows(5, 2)
stacked_7 = _stacked_rows(7, 2)
