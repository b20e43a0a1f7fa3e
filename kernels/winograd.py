"""2D convolution with 3x3 filters, stride 1, by Winograd's F(2x2, 3x3). The twin is
csrc/winograd.c.

A 2x2 tile of output needs 16 multiplications a channel and filter instead of 36 (Lavin, Gray:
Fast algorithms for convolutional neural networks, arXiv:1509.09308):

    Y = A^T [ sum over c of (G g_c G^T) * (B^T d_c B) ] A      d_c the 4x4 input under the tile

    V[16][c][tile]     input tiles transformed by B
    U[16][c][filter]   filters transformed by G
    M[16][filter][tile]  for each of the 16 positions the product U^T V, a register tile at a time

The tiles of an image are numbered row by row and cut into strips of whole vectors, so that V and
M of a strip stay in L2; where an image is very wide, in blocks of ``columns`` tiles first. Filters
are cut into blocks of FILTERS, and those into parts of which U takes few megabytes.

The work of a part is a range of tasks: for each (image, group, block of columns) one for each
strip.
"""

import numpy as np

from loopnest.kernels.convolution_plan import ceil_div
from loopnest.kernels.convolution_tiled import copy_numbers
from loopnest.kernels.jit import fragment, inlined, jitable, kernel
from loopnest.kernels.simd_copies import copy_transposed
from loopnest.kernels.simd_tiles import (
    VECTOR_BYTES,
    multiply_add,
    size_of,
    store_rows,
    zero_tile,
)
from loopnest.kernels.simd_vector import (
    even,
    load,
    load_number,
    odd,
    spread,
    store,
    store_first,
    zip_high,
    zip_low,
)
from loopnest.kernels.tiles import CHANNEL_ROWS

__all__ = ["conv2d_winograd", "prepare_winograd", "transform_filters"]

_U = np.uint64
_VECTOR = _U(VECTOR_BYTES)

FILTERS = 16  # of a block: of every vector a multiple
POSITIONS = 16  # of a transformed tile
PANEL = 3  # vectors of a register tile
STRIP_BYTES = 1 << 20  # of V and M: half of L2
MOST_BYTES = 8 << 20  # of V or M where they take more
PART_BYTES = 5 << 20  # of U of a part
MOST_COLUMNS = 256  # tiles: the copy of their input rows stays in L1


@jitable
def lines_size(strip, columns, lanes):
    """Numbers of the input rows under a strip of tiles in rows of up to ``columns``.

    A strip of s tiles lies in at most r = (s - 1)/w + 2 rows of w tiles, for it may begin and end
    within a row. They read 2 r + 2 lines of 2 w + 2 numbers: at most 8 s + 12 w + 12 for every w. The
    last vector of tiles reads what lies after them.
    """
    return ceil_div(8 * strip + 12 * columns + 12, lanes) * lanes + 4 * lanes


@jitable
def prepare_winograd(n, channels, k, groups, out_h, out_w, itemsize):
    """(strip, columns, part, tasks, filters, work): how the work is cut, and what it takes.

    strip and columns in tiles, part in blocks of filters, tasks those of one group; numbers of
    a block of transformed filters and of work space of one thread.
    """
    lanes = VECTOR_BYTES // itemsize
    inputs = channels // groups
    deep = ceil_div(k // groups, FILTERS)  # blocks of filters of a group
    down, across = ceil_div(out_h, 2), ceil_div(out_w, 2)
    columns = ceil_div(across, ceil_div(across, MOST_COLUMNS))
    filters = POSITIONS * inputs * FILTERS
    part = max(PART_BYTES // (max(filters, 1) * itemsize), 1)
    if part < deep:
        part = ceil_div(deep, ceil_div(deep, part))
    elif deep:
        part = part // deep * deep
    depth = POSITIONS * VECTOR_BYTES  # bytes of V or M, a channel or filter and vector
    rows = min(part, deep) * FILTERS
    vectors = STRIP_BYTES // (max(inputs + rows, 1) * depth)
    fewest = min(PANEL, MOST_BYTES // (max(inputs, rows, 1) * depth))
    vectors = max(vectors // PANEL * PANEL, fewest, 1)
    strip = min(vectors, ceil_div(down * columns, lanes)) * lanes
    tasks = n * ceil_div(across, columns) * ceil_div(down * columns, strip)
    work = lines_size(strip, columns, lanes) + POSITIONS * ((inputs + rows) * strip + 2 * lanes)
    return strip, columns, part, tasks, filters, work


@inlined
def filter_transform(a, b, c, half):
    """G (a, b, c)"""
    outer = a + c
    return a, (outer + b) * half, (outer - b) * half, c


@inlined
def input_transform(a, b, c, d):
    """B^T (a, b, c, d)"""
    return a - c, b + c, c - b, b - d


@inlined
def output_transform(a, b, c, d):
    """A^T (a, b, c, d)"""
    return a + b + c, b - c - d


@inlined
def store_four(values, target, step):
    store(values[0], target)
    store(values[1], target + step)
    store(values[2], target + _U(2) * step)
    store(values[3], target + _U(3) * step)


@inlined
def load_four(zero, source, step):
    return (
        load(zero, source),
        load(zero, source + step),
        load(zero, source + _U(2) * step),
        load(zero, source + _U(3) * step),
    )


@inlined
def filter_row(half, source):
    """One row of 3x3 filters, lane by lane, transformed along the row."""
    a, b = load(half, source), load(half, source + _VECTOR)
    return filter_transform(a, b, load(half, source + _U(2) * _VECTOR), spread(half))


@fragment
def transform_filter(half, source, target, step):
    """Filters of one channel, lane by lane: nine vectors in, 16 out, ``step`` bytes apart."""
    more, row, down = spread(half), _U(3) * _VECTOR, _U(4) * step
    a, b = filter_row(half, source), filter_row(half, source + row)
    c = filter_row(half, source + row + row)
    store_four(filter_transform(a[0], b[0], c[0], more), target, down)
    store_four(filter_transform(a[1], b[1], c[1], more), target + step, down)
    store_four(filter_transform(a[2], b[2], c[2], more), target + _U(2) * step, down)
    store_four(filter_transform(a[3], b[3], c[3], more), target + _U(3) * step, down)


@kernel
def transform_filters(weight, groups, first, last, work, u):
    """Blocks [first, last) of U, written one after the other; work is of 9 C/groups vectors."""
    all_k, channels = weight.shape[:2]
    k, terms = all_k // groups, channels * 9
    deep = ceil_div(k, FILTERS)
    zero, half = weight.dtype.type(0), weight.dtype.type(0.5)
    size, lanes = _U(weight.itemsize), VECTOR_BYTES // weight.itemsize
    step = _U(terms) * size
    position = _U(channels * FILTERS) * size
    target = _U(u.ctypes.data)
    for number in range(first, last):
        group, part = divmod(number, deep)
        for lane in range(0, FILTERS, lanes):
            at = part * FILTERS + lane
            count = min(max(k - at, 0), lanes)
            source = _U(weight.ctypes.data) + _U(group * k + at) * step
            columns = _U(work.ctypes.data)
            for t in range(0, terms, lanes):
                copy_transposed(
                    zero, source + _U(t) * size, step, columns + _U(t) * _VECTOR, _VECTOR,
                    count, terms - t, lanes,
                )  # fmt: skip
            for c in range(channels):
                to = target + _U(c * FILTERS + lane) * size
                transform_filter(half, columns + _U(9 * c) * _VECTOR, to, position)
        target += _U(POSITIONS) * position


@inlined
def input_row(zero, source):
    """One row of a vector of 4x4 tiles, two columns apart, transformed along the row."""
    step = _U(2 * size_of(zero))
    a, b = load(zero, source), load(zero, source + _VECTOR)
    c, d = load(zero, source + step), load(zero, source + step + _VECTOR)
    return input_transform(even(a, b), odd(a, b), even(c, d), odd(c, d))


@inlined
def transform_input(zero, source, line, target, step):
    """A vector of tiles: four rows of input in, 16 vectors out, ``step`` bytes apart."""
    a, b = input_row(zero, source), input_row(zero, source + line)
    c, d = input_row(zero, source + _U(2) * line), input_row(zero, source + _U(3) * line)
    down = _U(4) * step
    store_four(input_transform(a[0], b[0], c[0], d[0]), target, down)
    store_four(input_transform(a[1], b[1], c[1], d[1]), target + step, down)
    store_four(input_transform(a[2], b[2], c[2], d[2]), target + _U(2) * step, down)
    store_four(input_transform(a[3], b[3], c[3], d[3]), target + _U(3) * step, down)


@fragment
def clear_numbers(zero, target, count):
    lanes = VECTOR_BYTES // size_of(zero)
    for i in range(0, count, lanes):
        store_first(spread(zero), target + _U(i * size_of(zero)), count - i)


@fragment
def copy_padded(zero, x, height, width, top, left, rows, columns, lines):
    """``rows`` lines of ``columns`` numbers of a plane, the first at (-top, -left): zeros outside."""
    size = size_of(zero)
    low = min(max(left, 0), columns)
    count = max(min(columns - left, width) - (low - left), 0)
    source, target = x + _U((low - left) * size), lines + _U(low * size)
    clear_numbers(zero, lines, rows * columns)
    first, last = max(top, 0), min(rows, top + height)
    for i in range(first, last):
        from_ = source + _U((i - top) * width * size)
        copy_numbers(zero, from_, target + _U(i * columns * size), count)


@fragment
def transform_inputs(
    zero, x, channels, height, width, top, left, columns, begin, end, strip, lines, v
):
    """V of tiles [begin, end) of rows of ``columns``, the first of which reads at (-top, -left).

    The input rows are copied into zero-padded lines first.
    """
    size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
    step = _U((channels * strip + lanes) * size)
    first, last = begin // columns, ceil_div(end, columns)
    rows, line = 2 * (last - first) + 2, 2 * columns + 2
    clear_numbers(zero, lines + _U(rows * line * size), 4 * lanes)
    ragged = (end - begin) % lanes
    for c in range(channels):
        plane, lane = x + _U(c * height * width * size), v + _U(c * strip * size)
        copy_padded(zero, plane, height, width, top - 2 * first, left, rows, line, lines)
        if ragged:
            for i in range(POSITIONS):
                store(spread(zero), lane + _U(i) * step + _U((end - begin - ragged) * size))
        for row in range(first, last):
            low, high = max(begin, row * columns), min(end, (row + 1) * columns)
            start = 2 * (row - first) * line - 2 * row * columns
            for tile in range(low, high, lanes):
                source, target = (
                    lines + _U((start + 2 * tile) * size),
                    lane + _U((tile - begin) * size),
                )
                transform_input(zero, source, _U(line * size), target, step)


def _product(nv):
    """Tile maker: CHANNEL_ROWS filters by ``nv`` vectors of tiles, over all channels."""

    @inlined
    def product(zero, u, v, step, channels, m):
        size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
        acc = zero_tile(zero, CHANNEL_ROWS, nv)
        for _ in range(channels):
            acc = multiply_add(acc, u, _U(size), v, VECTOR_BYTES, CHANNEL_ROWS, nv)
            u += _U(FILTERS * size)
            v += step
        store_rows(acc, m, step, CHANNEL_ROWS, nv * lanes, lanes, CHANNEL_ROWS, nv)

    return product


product_1, product_2, product_3 = _product(1), _product(2), _product(3)


@fragment
def multiply(zero, u, v, m, channels, filters, tiles, strip, v_step, m_step):
    """M of so many filters, in blocks of U one after the other, and tiles of a strip."""
    size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
    row = _U(strip * size)
    for number in range(0, filters, FILTERS):
        for position in range(POSITIONS):
            for i in range(0, min(FILTERS, filters - number), CHANNEL_ROWS):
                at = u + _U(i * size)
                left, to = tiles, m + _U(position) * m_step + _U(number + i) * row
                source = v + _U(position) * v_step
                while left > 0:
                    if left > 2 * lanes:
                        product_3(zero, at, source, row, channels, to)
                    elif left > lanes:
                        product_2(zero, at, source, row, channels, to)
                    else:
                        product_1(zero, at, source, row, channels, to)
                    left -= PANEL * lanes
                    source += _U(PANEL) * _VECTOR
                    to += _U(PANEL) * _VECTOR
            u += _U(channels * FILTERS * size)


@fragment
def transform_output(zero, source, step, bias, y, y_line, rows, count):
    """A vector of tiles: 16 vectors in, two rows of y (or one) of ``count`` numbers out."""
    down = _U(4) * step
    a = output_transform(*load_four(zero, source, step))
    b = output_transform(*load_four(zero, source + down, step))
    c = output_transform(*load_four(zero, source + _U(2) * down, step))
    d = output_transform(*load_four(zero, source + _U(3) * down, step))
    left, right = (
        output_transform(a[0], b[0], c[0], d[0]),
        output_transform(a[1], b[1], c[1], d[1]),
    )
    lanes, more = VECTOR_BYTES // size_of(zero), spread(bias)
    p, q = left[0] + more, right[0] + more
    store_first(zip_low(p, q), y, count)
    store_first(zip_high(p, q), y + _VECTOR, count - lanes)
    if rows > 1:
        p, q = left[1] + more, right[1] + more
        store_first(zip_low(p, q), y + y_line, count)
        store_first(zip_high(p, q), y + y_line + _VECTOR, count - lanes)


@fragment
def transform_outputs(
    zero, m, step, strip, bias, filters, y, out_h, out_w, columns, begin, end, left
):
    """``filters`` planes at y, of tiles [begin, end); ``left`` is the column of the first of a row."""
    size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
    for i in range(filters):
        more = load_number(zero, bias + _U(i * size)) if bias else zero
        for row in range(begin // columns, ceil_div(end, columns)):
            low, high = max(begin, row * columns), min(end, (row + 1) * columns)
            start = (i * out_h + 2 * row) * out_w + left - 2 * row * columns
            for tile in range(low, high, lanes):
                source = m + _U((i * strip + tile - begin) * size)
                count = min(2 * (high - tile), out_w - left - 2 * (tile - row * columns))
                transform_output(
                    zero, source, step, more, y + _U((start + 2 * tile) * size),
                    _U(out_w * size), out_h - 2 * row, count,
                )  # fmt: skip


@kernel
def conv2d_winograd(
    x, u, bias, top, left, groups, strip, columns, first_block, blocks, first, last, work, y
):
    """Tasks [first, last) of y for ``blocks`` blocks of filters, which u holds.

    The blocks are whole groups or part of one.
    """
    all_channels, height, width = x.shape[1:]
    all_k, out_h, out_w = y.shape[1:]
    channels, k = all_channels // groups, all_k // groups
    deep = ceil_div(k, FILTERS)
    down, all_columns = ceil_div(out_h, 2), ceil_div(out_w, 2)
    across, strips = ceil_div(all_columns, columns), ceil_div(down * columns, strip)
    zero, size, lanes = x.dtype.type(0), x.itemsize, VECTOR_BYTES // x.itemsize
    per = min(blocks, deep)  # of a task
    u_step = _U(per * POSITIONS * channels * FILTERS * size)
    v_step = _U((channels * strip + lanes) * size)
    m_step = _U((per * FILTERS * strip + lanes) * size)
    lines = _U(work.ctypes.data)
    v = lines + _U(lines_size(strip, columns, lanes) * size)
    m = v + _U(POSITIONS) * v_step
    for task in range(first, last):
        rest, number = divmod(task, strips)
        rest, block_x = divmod(rest, across)
        image, part = divmod(rest, blocks // per)
        group, offset = divmod(first_block + part * per, deep)
        column = block_x * columns
        wide = min(columns, all_columns - column)
        begin, end = number * strip, min((number + 1) * strip, down * wide)
        if begin >= end:
            continue
        at = (image * all_channels + group * channels) * height * width
        transform_inputs(
            zero, _U(x.ctypes.data) + _U(at * size), channels, height, width,
            top, left - 2 * column, wide, begin, end, strip, lines, v,
        )  # fmt: skip
        filters, filter_ = min(per * FILTERS, k - offset * FILTERS), group * k + offset * FILTERS
        own = _U(u.ctypes.data) + _U(part) * u_step
        multiply(zero, own, v, m, channels, filters, end - begin, strip, v_step, m_step)
        at = (image * all_k + filter_) * out_h * out_w
        more = _U(bias.ctypes.data) + _U(filter_ * size) if bias.size else _U(0)
        transform_outputs(
            zero, m, m_step, strip, more, filters, _U(y.ctypes.data) + _U(at * size),
            out_h, out_w, wide, begin, end, 2 * column,
        )  # fmt: skip
