"""Dense layers and their gradients in register tiles: blocks of rows by panels of columns.

One product serves all three: out[r][c] = sum over t of A[r][t] B[t][c], in the order of t.

| product                | rows    | terms   | columns | A        | B        |
|------------------------|---------|---------|---------|----------|----------|
| y = x weight + bias    | samples | inputs  | outputs | x        | weight   |
| dx^T = weight dy^T     | inputs  | outputs | samples | weight   | dy^T     |
| dweight = x^T dy       | inputs  | samples | outputs | x^T      | dy       |

A tile reads A number by number, so A may lie in any order and is used as it is: a weight, the
largest of the matrices, is never transposed. B's columns are the lanes. A panel is 64 columns of B,
[term][column]; those of dy^T are samples, so most batches read the weight once. The work is a range
of tasks, for each panel one for each block of rows. A panel is used by many blocks, so it goes by
in slices that stay in L1; in between, each block's sums are kept in memory, which leaves the bits
as they are. The twin is csrc/dense_tiled.c.
"""

import numpy as np

from loopnest.kernels import tiles
from loopnest.kernels.convolution_plan import ceil_div
from loopnest.kernels.jit import block, jitable, kernel
from loopnest.kernels.simd_copies import copy_padded, copy_transposed
from loopnest.kernels.simd_tiles import (
    REGISTERS,
    VECTOR_BYTES,
    load_tile,
    size_of,
    store_tile,
)
from loopnest.kernels.tiles import FEW_SAMPLE_ROWS, SAMPLE_ROWS, SAMPLE_VECTORS

_U = np.uint64
_PANEL_ROW = _U(SAMPLE_VECTORS * VECTOR_BYTES)
# Plain constants would be types of their own, for which Numba compiles what they are passed to anew.
_ROWS, _ONE = np.int64(SAMPLE_ROWS), np.int64(1)

# Below: the plain loops; nothing to prepare, and a few rows are a matter of memory.
FEWEST_ROWS = 4
PLAIN_BELOW = 4096  # multiply-adds

# Rows from which it pays to copy each slice, so that it is aligned and in one piece.
COPY_FROM = 32

SLICE = 132  # terms, at most: 33 KB of 48
MOST_BLOCKS = 128  # whose sums are kept: 192 KB


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
def prepare(form, samples, inputs, outputs, itemsize):
    """(tasks, work): as `linear_tiled` counts them; no tasks where the plain loop serves."""
    rows, terms, columns = _sizes(form, samples, inputs, outputs)
    if rows < FEWEST_ROWS or rows * terms * columns < PLAIN_BELOW:
        return 0, 0
    panel = SAMPLE_VECTORS * VECTOR_BYTES // itemsize
    deep = ceil_div(rows, SAMPLE_ROWS)
    # A slice, the sums of blocks, the bias of a panel; the last rows as a whole block.
    lines = _slice(terms) + min(deep, MOST_BLOCKS) * SAMPLE_ROWS + 1
    return deep * ceil_div(columns, panel), lines * panel + SAMPLE_ROWS * terms


@jitable
def _slice(terms):
    """Terms of a slice: they are of one length, but for the last."""
    return ceil_div(terms, max(1, ceil_div(terms, SLICE)))


@jitable
def packed_size(inputs, outputs, itemsize):
    """Numbers in the packed form of a weight."""
    columns = SAMPLE_VECTORS * VECTOR_BYTES // itemsize
    return ceil_div(outputs, columns) * inputs * columns


@block
def copy_matrix(zero, source, source_step, rows, columns, target, target_step, written):
    """target[i][j] = source[i][j], zeros from j = columns up to ``written``.

    Addresses; steps in bytes.
    """
    size, lanes = _U(size_of(zero)), VECTOR_BYTES // size_of(zero)
    whole = columns - columns % lanes
    for _ in range(rows):
        for j in range(0, whole, lanes):
            store_tile(load_tile(zero, source + _U(j) * size, 1, 1), target + _U(j) * size)
        for j in range(whole, written, lanes):
            at, to = source + _U(j) * size, target + _U(j) * size
            copy_padded(zero, at, to, columns - j, written - j)
        source += source_step
        target += target_step


@block
def transpose(zero, source, source_step, rows, columns, target, target_step, written):
    """target[j][i] = source[i][j] for i < written, zeros where i >= rows; likewise."""
    size, lanes = _U(size_of(zero)), VECTOR_BYTES // size_of(zero)
    for i in range(0, written, lanes):
        for j in range(0, columns, lanes):
            copy_transposed(
                zero, source + _U(i) * source_step + _U(j) * size, source_step,
                target + _U(j) * target_step + _U(i) * size, target_step,
                rows - i, columns - j, written - i,
            )  # fmt: skip


@block
def _tiles(
    zero, a, a_step, a_term, b, b_step, count, ahead, ahead_step, sums, starts, bias, y, y_step,
    height, width, turned,
):  # fmt: skip
    """A block of rows by a panel: the widest tiles that keep the registers busy.

    y is 0 until the last slice. ``turned``: the rows of the tile are columns of y.
    """
    lanes, size = VECTOR_BYTES // size_of(zero), _U(size_of(zero))
    first, few = 0, height <= FEW_SAMPLE_ROWS
    while first < width:
        wide, along = width - first, _U(first) * size
        nv = 2 if wide > lanes else 1
        if REGISTERS == 32 and wide > 3 * lanes:
            nv = 4
        at, more = b + along, bias + along if bias else bias
        to = _U(0) if turned or not y else y + along
        if nv == 4 and few:
            tiles.samples_4x4(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        elif nv == 4:
            tiles.samples_6x4(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        elif nv == 2 and few:
            tiles.samples_4x2(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        elif nv == 2:
            tiles.samples_6x2(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        elif few:
            tiles.samples_4x1(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        else:
            tiles.samples_6x1(
                zero, a, a_step, a_term, at, b_step, count, ahead, ahead_step, sums, starts, more, to,
                y_step, height, wide,
            )  # fmt: skip
        row = _U(nv * VECTOR_BYTES)
        if turned and y:
            to = y + _U(first) * y_step
            transpose(zero, sums, row, height, min(wide, nv * lanes), to, y_step, height)
        sums += _U(SAMPLE_ROWS) * row
        first += nv * lanes


@kernel
def linear_tiled(a, b, bias, packed, form, first, last, work, y):
    """Tasks [first, last) of a product of the table, from x and weight, dy and weight, or x and dy.

    One kernel for all, for it takes a while to compile. work as `prepare` counts it.
    """
    samples, (inputs, outputs) = a.shape[0], y.shape if form == BACKWARD_WEIGHT else b.shape
    rows, terms, columns = _sizes(form, samples, inputs, outputs)
    turned = form == BACKWARD_INPUT  # out is y's transpose, B that of `b`
    zero, none, size, panel_row = a.dtype.type(0), _U(0), _U(a.itemsize), _PANEL_ROW
    from_a, a_step, a_term, from_b = _U(a.ctypes.data), _U(terms) * size, size, _U(b.ctypes.data)
    if turned:
        from_a, from_b = from_b, from_a
    elif form == BACKWARD_WEIGHT:
        a_step, a_term = size, _U(rows) * size
    b_step, y_step = _U(terms if turned else columns) * size, _U(rows if turned else columns) * size
    panel, block_row, space = (
        np.int64(panel_row // size),
        _U(SAMPLE_ROWS) * size,
        _U(work.ctypes.data),
    )
    deep, slice_terms = ceil_div(rows, _ROWS), _slice(terms)
    sums = space + _U(slice_terms) * panel_row
    own_bias = sums + _U(min(deep, MOST_BLOCKS) * SAMPLE_ROWS) * panel_row
    rest = own_bias + panel_row  # the last rows as a whole block, [term][row]
    has_rest = False
    task = first
    while task < last:
        number, part = divmod(task, deep)
        blocks = min(min(last - task, deep - part), MOST_BLOCKS)
        task += blocks
        column = number * panel
        width, along = min(panel, columns - column), _U(column) * size
        copied = not packed.size and (turned or width < panel or rows >= COPY_FROM)
        offset = none
        if bias.size:
            offset = own_bias
            at = _U(bias.ctypes.data) + along
            copy_matrix(zero, at, none, _ONE, width, offset, none, panel)
        for start in range(0, terms, slice_terms):
            count = min(slice_terms, terms - start)
            part_of_b, step, following = space, panel_row, none
            if packed.size:
                part_of_b = _U(packed.ctypes.data) + _U(number * terms + start) * panel_row
            elif turned:
                at = from_b + _U(column) * b_step + _U(start) * size
                transpose(zero, at, b_step, width, count, space, panel_row, panel)
            else:
                at = from_b + _U(start) * b_step + along
                if copied:
                    copy_matrix(zero, at, b_step, count, width, space, panel_row, panel)
                    if start + count < terms:
                        following = at + _U(count) * b_step
                else:
                    part_of_b, step = at, b_step
            for block_number in range(blocks):
                row = (part + block_number) * SAMPLE_ROWS
                height = min(SAMPLE_ROWS, rows - row)
                at, row_step, term_step = from_a + _U(row) * a_step, a_step, a_term
                if height < SAMPLE_ROWS and height != FEW_SAMPLE_ROWS:
                    if not has_rest and a_term == size:
                        transpose(zero, at, a_step, height, terms, rest, block_row, _ROWS)
                    elif not has_rest:
                        copy_matrix(zero, at, a_term, terms, height, rest, block_row, _ROWS)
                    has_rest = True
                    at, row_step, term_step = rest, size, block_row
                at += _U(start) * term_step
                ahead, ahead_step = at, none
                if following and block_number < SAMPLE_VECTORS:
                    ahead, ahead_step = following + _U(block_number * VECTOR_BYTES), b_step
                to = none
                if start + count == terms:
                    to = _U(y.ctypes.data) + _U(row) * (size if turned else y_step)
                    to += _U(column) * (y_step if turned else size)
                _tiles(
                    zero, at, row_step, term_step, part_of_b, step, count, ahead, ahead_step,
                    sums + _U(block_number * SAMPLE_ROWS) * panel_row, start == 0, offset, to, y_step,
                    height, width, turned,
                )  # fmt: skip


@kernel
def pack_linear(weight, packed):
    """Every panel of a weight as `linear_tiled` copies it."""
    inputs, outputs = weight.shape
    size, columns = _U(weight.itemsize), SAMPLE_VECTORS * VECTOR_BYTES // weight.itemsize
    target = _U(packed.ctypes.data)
    for column in range(0, outputs, columns):
        source = _U(weight.ctypes.data) + _U(column) * size
        width = min(columns, outputs - column)
        copy_matrix(
            weight.dtype.type(0), source, _U(outputs) * size, inputs, width, target, _PANEL_ROW,
            columns,
        )  # fmt: skip
        target += _U(inputs) * _PANEL_ROW
