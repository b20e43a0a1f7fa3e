"""Dense layers and their gradients in register tiles: blocks of rows by panels of columns.

One product serves all three: out[r][c] = sum over t of A[r][t] B[t][c], in the order of t.

| product                | rows    | terms   | columns | A        | B        |
|------------------------|---------|---------|---------|----------|----------|
| y = x weight + bias    | samples | inputs  | outputs | x        | weight   |
| dx^T = weight dy^T     | inputs  | outputs | samples | weight   | dy^T     |
| dweight = x^T dy       | inputs  | samples | outputs | x^T      | dy       |

A tile reads A number by number, so A may lie in any order and is used as it is: a weight, the
largest of the matrices, is never transposed. B's columns are the lanes. A panel is four vectors of
columns, [term][column]; those of dy^T are samples, so most batches read the weight once. The work is
a range of tasks, for each panel one for each block of rows.

Work goes by slices of the terms; in between, each block's sums are kept in memory, which leaves the
bits as they are. Many blocks use a slice of a panel, so it stays in L1, copied there by the first of
them: aligned and in one piece. And the same slice goes across many panels before the next one, so
that B, often the largest of all and far away, is read in long runs as it lies. With few rows all is
a matter of reading B: a single block uses it where it is, slices are shorter and thus runs longer.
Packed weights lie in the order of panels, and are used so.

The twin is csrc/dense_tiled.c.
"""

import numpy as np

from loopnest.kernels import tiles
from loopnest.kernels.convolution_plan import ceil_div
from loopnest.kernels.jit import fragment, jitable, kernel
from loopnest.kernels.simd_copies import copy_padded, copy_transposed
from loopnest.kernels.simd_tiles import (
    VECTOR_BYTES,
    address_of,
    load_tile,
    size_of,
    store_tile,
)
from loopnest.kernels.tiles import (
    FEW_SAMPLE_ROWS,
    NARROW_SAMPLE_ROWS,
    SAMPLE_ROWS,
    SAMPLE_VECTORS,
    SAMPLES_AHEAD,
    WIDE_SAMPLES,
)

_PANEL_ROW = SAMPLE_VECTORS * VECTOR_BYTES
# Plain constants would be types of their own, for which Numba compiles what they are passed to anew.
_ONE = np.int64(1)

PLAIN_BELOW = 4096  # multiply-adds: the plain loops; nothing to prepare

SLICE, SHORT_SLICE = 132, 48  # terms, at most: 33 KB of 48; of few rows
MANY_ROWS = 40
FAR_ROWS, FAR_BYTES = 100, 16 << 20  # the same where B is larger
MOST_BLOCKS = 128  # whose sums are kept: 192 KB
MOST_PANELS = 16  # in one go: a page of float32, of each row of B


FORWARD, BACKWARD_INPUT, BACKWARD_WEIGHT = 0, 1, 2  # the products of the table


@jitable
def _sizes(form, samples, inputs, outputs):
    """(rows, terms, columns)."""
    if form == BACKWARD_INPUT:
        return inputs, outputs, samples
    if form == BACKWARD_WEIGHT:
        return inputs, samples, outputs
    return samples, inputs, outputs


@jitable
def _blocks(rows, columns, lanes):
    """(rows of a block, blocks, how many of them are of `FEW_SAMPLE_ROWS`): the last ones.

    Rows that the last block lacks are better taken from it in this way.
    """
    tall = NARROW_SAMPLE_ROWS if columns <= 2 * lanes else SAMPLE_ROWS
    deep = ceil_div(rows, tall)
    return tall, deep, min(deep, (deep * tall - rows) // (tall - FEW_SAMPLE_ROWS))


@jitable
def _part(form, rows, terms, panels, deep, packed):
    """(terms, panels, blocks) that are worked on in one go; slices but for the last are of one length."""
    most, most_panels = SLICE, 1
    if form != BACKWARD_INPUT and not packed:
        most_panels = max(1, min(panels, min(MOST_PANELS, MOST_BLOCKS // max(1, deep))))
        if rows < (FAR_ROWS if terms * panels * _PANEL_ROW > FAR_BYTES else MANY_ROWS):
            most = SHORT_SLICE
    return ceil_div(terms, max(1, ceil_div(terms, most))), most_panels, min(deep, MOST_BLOCKS)


@jitable
def prepare(form, samples, inputs, outputs, itemsize):
    """(tasks, work): as `linear_tiled` counts them; no tasks where the plain loop serves."""
    rows, terms, columns = _sizes(form, samples, inputs, outputs)
    if rows * terms * columns < PLAIN_BELOW:
        return 0, 0
    lanes = VECTOR_BYTES // itemsize
    panel = SAMPLE_VECTORS * lanes
    tall, deep, _ = _blocks(rows, columns, lanes)
    panels = ceil_div(columns, panel)
    slice_terms, most_panels, most_blocks = _part(form, rows, terms, panels, deep, False)
    # A slice, for each panel the bias and the sums of blocks; the last rows as a whole block.
    lines = slice_terms + most_panels * (1 + most_blocks * tall)
    return deep * panels, lines * panel + tall * terms


@jitable
def packed_size(inputs, outputs, itemsize):
    """Numbers in the packed form of a weight."""
    columns = SAMPLE_VECTORS * VECTOR_BYTES // itemsize
    return ceil_div(outputs, columns) * inputs * columns


@fragment
def copy_matrix(zero, source, source_step, rows, columns, target, target_step, written):
    """target[i][j] = source[i][j], zeros from j = columns up to ``written``.

    Addresses; steps in bytes.
    """
    size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
    whole = columns - columns % lanes
    for _ in range(rows):
        for j in range(0, whole, lanes):
            store_tile(load_tile(zero, source + j * size, 1, 1), target + j * size)
        for j in range(whole, written, lanes):
            at, to = source + j * size, target + j * size
            copy_padded(zero, at, to, columns - j, written - j)
        source += source_step
        target += target_step


@fragment
def transpose(zero, source, source_step, rows, columns, target, target_step, written):
    """target[j][i] = source[i][j] for i < written, zeros where i >= rows; likewise."""
    size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
    for i in range(0, written, lanes):
        for j in range(0, columns, lanes):
            copy_transposed(
                zero, source + i * source_step + j * size, source_step,
                target + j * target_step + i * size, target_step,
                rows - i, columns - j, written - i,
            )  # fmt: skip


@fragment
def _tiles(
    zero, a, a_step, a_term, b, b_step, count, copy, ahead, ahead_step, sums, starts, bias, y, y_step,
    height, width, tall, turned,
):  # fmt: skip
    """A block of rows by a panel: wide tiles, or narrow ones where columns are few.

    y is 0 until the last slice. ``turned``: the rows of the tile are columns of y.
    """
    lanes, size = VECTOR_BYTES // size_of(zero), size_of(zero)
    first, few, narrow = 0, height <= FEW_SAMPLE_ROWS, tall == NARROW_SAMPLE_ROWS
    while first < width:
        wide, along = width - first, first * size
        nv = 1 if narrow else WIDE_SAMPLES
        at, more = b + along, bias + along if bias else bias
        to = 0 if turned or not y else y + along
        if narrow and few:
            tiles.samples_narrow_few(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        elif narrow:
            tiles.samples_narrow(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        elif copy:
            tiles.samples_wide_copying(
                zero, a, a_step, a_term, at, b_step, count, copy, sums, starts, more, to, y_step, height,
                wide,
            )  # fmt: skip
        elif height == 1:
            tiles.sample_single(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        elif few:
            tiles.samples_wide_few(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        else:
            tiles.samples_wide(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        row = nv * VECTOR_BYTES
        if turned and y:
            to = y + first * y_step
            transpose(zero, sums, row, height, min(wide, nv * lanes), to, y_step, height)
        sums += tall * row
        first += nv * lanes


@kernel
def linear_tiled(a, b, bias, packed, form, first, last, work, y):
    """Tasks [first, last) of a product of the table, from x and weight, dy and weight, or x and dy.

    One kernel for all, for it takes a while to compile. work as `prepare` counts it.
    """
    samples, (inputs, outputs) = a.shape[0], y.shape if form == BACKWARD_WEIGHT else b.shape
    rows, terms, columns = _sizes(form, samples, inputs, outputs)
    turned = form == BACKWARD_INPUT  # out is y's transpose, B that of `b`
    zero, none, size, panel_row = a.dtype.type(0), np.int64(0), a.itemsize, _PANEL_ROW
    from_a, a_step, a_term, from_b = address_of(a), terms * size, size, address_of(b)
    if turned:
        from_a, from_b = from_b, from_a
    elif form == BACKWARD_WEIGHT:
        a_step, a_term = size, rows * size
    b_step, y_step = (terms if turned else columns) * size, (rows if turned else columns) * size
    panel = np.int64(panel_row // size)
    tall, deep, fours = _blocks(rows, columns, panel // SAMPLE_VECTORS)
    slice_terms, most_panels, most_blocks = _part(
        form, rows, terms, ceil_div(columns, panel), deep, packed.size > 0
    )
    own_b, has_rest = address_of(work), False
    lanes = panel // SAMPLE_VECTORS
    row_size = panel  # of a copied panel
    if tall == NARROW_SAMPLE_ROWS:
        row_size = ceil_div(columns, lanes) * lanes
    own_step = row_size * size
    own_bias = own_b + (0 if packed.size else slice_terms) * panel_row
    sums = own_bias + most_panels * panel_row
    rest = sums + most_panels * most_blocks * tall * panel_row  # a whole block, [term][row]
    task = first
    while task < last:
        number, part, panels = task // deep, task % deep, 1
        blocks = min(min(last - task, deep - part), most_blocks)
        if blocks == deep:
            panels = min((last - task) // deep, most_panels)
        task += panels * blocks
        offset = none
        if bias.size:
            offset = own_bias
            at, width = address_of(bias) + number * panel_row, panels * panel
            width_here = min(width, columns - number * panel)
            copy_matrix(zero, at, none, _ONE, width_here, offset, none, width)
        for start in range(0, terms, slice_terms):
            count = min(slice_terms, terms - start)
            for k in range(panels):
                column = (number + k) * panel
                width, along = min(panel, columns - column), column * size
                part_of_b, step, following = own_b, own_step, none
                copying = False  # as the first block reads it
                from_here = from_b + start * b_step + along
                if packed.size:
                    step, part_of_b = (
                        panel_row,
                        (address_of(packed) + ((number + k) * terms + start) * panel_row),
                    )
                    following = part_of_b + count * panel_row
                elif turned:
                    at = from_b + column * b_step + start * size
                    transpose(zero, at, b_step, width, count, own_b, own_step, row_size)
                else:
                    copying = (
                        WIDE_SAMPLES == SAMPLE_VECTORS
                        and width == panel
                        and blocks > 1
                        and part < deep - fours
                    )
                    if rows < MANY_ROWS and width == panel and not copying:
                        part_of_b, step = from_here, b_step
                    else:
                        if k + 1 < panels:
                            following = from_here + panel_row
                        elif start + count < terms:
                            following = from_here + count * b_step - k * panel_row
                        if not copying:
                            copy_matrix(
                                zero, from_here, b_step, count, width, own_b, own_step, row_size
                            )
                for j in range(blocks):
                    smaller = part + j - (deep - fours)  # blocks, before this one
                    row = (part + j) * tall - max(0, smaller) * (tall - FEW_SAMPLE_ROWS)
                    usual = tall if smaller < 0 else FEW_SAMPLE_ROWS
                    height = min(usual, rows - row)
                    at, row_step, term_step = from_a + row * a_step, a_step, a_term
                    if height == 1:
                        row_step = none
                    elif height < usual:
                        block_row = usual * size
                        if not has_rest and a_term == size:
                            transpose(zero, at, a_step, height, terms, rest, block_row, usual)
                        elif not has_rest:
                            copy_matrix(zero, at, a_term, terms, height, rest, block_row, usual)
                        has_rest = True
                        at, row_step, term_step = rest, size, block_row
                    at += start * term_step
                    ahead, ahead_step = at, none
                    if term_step != size:  # each term in a line of its own
                        ahead, ahead_step = at + SAMPLES_AHEAD * term_step, term_step
                    line = j - copying
                    if following and 0 <= line < SAMPLE_VECTORS:
                        ahead = following + line * VECTOR_BYTES
                        ahead_step = panel_row if packed.size else b_step
                    to = none
                    if start + count == terms:
                        to = address_of(y) + row * (size if turned else y_step)
                        to += column * (y_step if turned else size)
                    copies = copying and j == 0
                    _tiles(
                        zero, at, row_step, term_step, from_here if copies else part_of_b,
                        b_step if copies else step, count, own_b if copies else none, ahead, ahead_step,
                        sums + (k * blocks + j) * tall * panel_row, start == 0,
                        offset + k * panel_row if offset else offset, to, y_step, height, width,
                        tall, turned,
                    )  # fmt: skip


@kernel
def pack_linear(weight, packed):
    """Every panel of a weight as `linear_tiled` copies it."""
    inputs, outputs = weight.shape
    size, columns = weight.itemsize, SAMPLE_VECTORS * VECTOR_BYTES // weight.itemsize
    target = address_of(packed)
    for column in range(0, outputs, columns):
        source = address_of(weight) + column * size
        width = min(columns, outputs - column)
        copy_matrix(
            weight.dtype.type(0), source, outputs * size, inputs, width, target, _PANEL_ROW,
            columns,
        )  # fmt: skip
        target += inputs * _PANEL_ROW
