"""Dense layers in register tiles: blocks of samples by panels of outputs.

x (M,I), weight (I,O), y (M,O). A panel is as many columns of the weight as a tile has,
[input][column]. The work is a range of tasks, for each panel one for each block of samples.
A panel is used by many blocks, so it goes by in slices that stay in L1; in between, each
block's sums are kept in memory, which leaves the bits as they are. The twin is csrc/dense_tiled.c.
"""

import numpy as np
from numba.extending import register_jitable

from loopnest.kernels import tiles
from loopnest.kernels.convolution_plan import ceil_div
from loopnest.kernels.jit import block, kernel
from loopnest.kernels.simd_tiles import VECTOR_BYTES, copy_lanes, copy_transposed, size_of
from loopnest.kernels.tiles import CHANNEL_ROWS, SAMPLE_VECTORS

_U = np.uint64
_PANEL_ROW = _U(SAMPLE_VECTORS * VECTOR_BYTES)

# Below: the plain loops; nothing to prepare, and a few samples are a matter of memory.
FEWEST_SAMPLES = 4
PLAIN_BELOW = 4096  # multiply-adds

# Multiply-adds of a gradient below which transposing does not pay.
SMALL_GRADIENT = 1 << 14

# Samples from which it pays to copy each slice, so that it is aligned and in one piece.
COPY_FROM = 32

SLICE = 128  # inputs: 24 KB, half of L1
MOST_BLOCKS = 128  # whose sums are kept: 192 KB


@register_jitable
def prepare(samples, inputs, outputs, itemsize):
    """(tasks, work): as `linear_tiled` counts them; no tasks where the plain loop serves."""
    if samples < FEWEST_SAMPLES or samples * inputs * outputs < PLAIN_BELOW:
        return 0, 0
    columns = SAMPLE_VECTORS * VECTOR_BYTES // itemsize
    tasks = ceil_div(samples, CHANNEL_ROWS) * ceil_div(outputs, columns)
    return tasks, work_size(samples, inputs, itemsize)


@register_jitable
def work_size(samples, inputs, itemsize):
    """A slice, the sums of blocks, the last samples as a whole block, the bias of a panel."""
    columns = SAMPLE_VECTORS * VECTOR_BYTES // itemsize
    blocks = min(ceil_div(samples, CHANNEL_ROWS), MOST_BLOCKS)
    lines = min(inputs, SLICE) + blocks * CHANNEL_ROWS + 1
    return lines * columns + CHANNEL_ROWS * inputs


@register_jitable
def packed_size(inputs, outputs, itemsize):
    """Numbers in the packed form of a weight."""
    columns = SAMPLE_VECTORS * VECTOR_BYTES // itemsize
    return ceil_div(outputs, columns) * inputs * columns


@block
def copy_matrix(zero, source, source_step, rows, columns, target, target_step):
    """target[i][j] = source[i][j]; addresses, steps in bytes."""
    size, lanes = _U(size_of(zero)), VECTOR_BYTES // size_of(zero)
    for _ in range(rows):
        for j in range(0, columns, lanes):
            copy_lanes(zero, source + _U(j) * size, target + _U(j) * size, columns - j)
        source += source_step
        target += target_step


@kernel
def linear_tiled(x, weight, bias, packed, first, last, work, y):
    """work as `prepare` counts it."""
    samples, (inputs, outputs) = x.shape[0], weight.shape
    zero = x.dtype.type(0)
    size, columns = _U(x.itemsize), SAMPLE_VECTORS * VECTOR_BYTES // x.itemsize
    x_step, y_step, tile = _U(inputs) * size, _U(outputs) * size, _U(CHANNEL_ROWS) * _PANEL_ROW
    deep, terms = ceil_div(samples, CHANNEL_ROWS), min(inputs, SLICE)
    own = _U(work.ctypes.data)
    sums = own + _U(terms) * _PANEL_ROW
    more = sums + _U(min(deep, MOST_BLOCKS)) * tile  # bias of a panel, padded
    rest = more + _PANEL_ROW  # the last samples, as a whole block
    has_rest = False
    copies = packed.size == 0 and samples >= COPY_FROM
    task = first
    while task < last:
        panel, part = divmod(task, deep)
        blocks = min(min(last - task, deep - part), MOST_BLOCKS)
        task += blocks
        column = panel * columns
        width = min(columns, outputs - column)
        b, step = _U(weight.ctypes.data) + _U(column) * size, y_step
        if packed.size:
            step = _PANEL_ROW
            b = _U(packed.ctypes.data) + _U(panel) * _U(inputs) * step
        copied = copies or (packed.size == 0 and width < columns)
        if copied and width < columns:
            work[: terms * columns] = 0  # garbage may be slow subnormal numbers
        offset = _U(0)
        if bias.size:
            offset = more
            at = _U(bias.ctypes.data) + _U(column) * size
            copy_matrix(zero, at, _U(0), 1, width, more, _U(0))
        for start in range(0, inputs, SLICE):
            count = min(SLICE, inputs - start)
            slice_at = b + _U(start) * step
            if copied:
                copy_matrix(zero, slice_at, step, count, width, own, _PANEL_ROW)
                slice_at = own
            for number in range(blocks):
                row = (part + number) * CHANNEL_ROWS
                a, height = _U(x.ctypes.data) + _U(row) * x_step, min(CHANNEL_ROWS, samples - row)
                if height < CHANNEL_ROWS:
                    if not has_rest:
                        work[work.size - CHANNEL_ROWS * inputs :] = 0
                        copy_matrix(zero, a, x_step, height, inputs, rest, x_step)
                        has_rest = True
                    a = rest
                target = _U(y.ctypes.data) + _U(row) * y_step + _U(column) * size
                tiles.samples(
                    zero, a + _U(start) * size, x_step, slice_at, _PANEL_ROW if copied else step, count,
                    sums + _U(number) * tile, start == 0, start + count == inputs,
                    offset, target, y_step, height, width,
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
            weight.dtype.type(0), source, _U(outputs) * size, inputs, width, target, _PANEL_ROW
        )
        target += _U(inputs) * _PANEL_ROW


@kernel
def transpose(matrix, first, last, out):
    """Rows [first, last) of ``out``, the transpose of a matrix."""
    zero, (rows, columns) = matrix.dtype.type(0), matrix.shape
    size, lanes = _U(matrix.itemsize), VECTOR_BYTES // matrix.itemsize
    step, out_step = _U(columns) * size, _U(rows) * size
    source, target = _U(matrix.ctypes.data), _U(out.ctypes.data)
    for j in range(first, last, lanes):
        for i in range(0, rows, lanes):
            at, to = source + _U(i) * step + _U(j) * size, target + _U(j) * out_step + _U(i) * size
            copy_transposed(zero, at, step, to, out_step, rows - i, min(lanes, last - j), rows - i)
