"""Dense layers in register tiles: blocks of samples by panels of outputs.

x (M,I), weight (I,O), y (M,O). A panel is as many columns of the weight as a tile has,
[input][column]. The work is a range of tasks, for each panel one for each block of samples.
The twin is csrc/dense_tiled.h.
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

# Samples from which it pays to copy each panel, so that it is aligned and in one piece.
COPY_FROM = 32


@register_jitable
def prepare(samples, inputs, outputs, itemsize):
    """(tasks, work, taps): as `linear_tiled` counts them; no tasks where the plain loop serves."""
    if samples < FEWEST_SAMPLES or samples * inputs * outputs < PLAIN_BELOW:
        return 0, 0, 0
    columns = SAMPLE_VECTORS * VECTOR_BYTES // itemsize
    tasks = ceil_div(samples, CHANNEL_ROWS) * ceil_div(outputs, columns)
    return tasks, inputs * (columns + CHANNEL_ROWS) + columns, inputs


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
def linear_tiled(x, weight, bias, packed, first, last, work, taps, y):
    """work holds a panel and a block of samples, taps I numbers."""
    samples, (inputs, outputs) = x.shape[0], weight.shape
    zero = x.dtype.type(0)
    size, columns = _U(x.itemsize), SAMPLE_VECTORS * VECTOR_BYTES // x.itemsize
    x_step, y_step = _U(inputs) * size, _U(outputs) * size
    own, table = _U(work.ctypes.data), _U(taps.ctypes.data)
    rest = own + _U(inputs) * _PANEL_ROW  # the last samples, as a whole block
    more = rest + _U(CHANNEL_ROWS) * x_step  # bias of a panel, padded
    deep = ceil_div(samples, CHANNEL_ROWS)
    current, has_rest = -1, False
    for task in range(first, last):
        panel, part = divmod(task, deep)
        column = panel * columns
        width = min(columns, outputs - column)
        if panel != current:
            current = panel
            b, step = _U(weight.ctypes.data) + _U(column) * size, y_step
            if packed.size:
                step = _PANEL_ROW
                b = _U(packed.ctypes.data) + _U(panel) * _U(inputs) * step
            elif width < columns or samples >= COPY_FROM:
                step = _PANEL_ROW
                if width < columns:
                    work[: inputs * columns] = 0  # garbage may be slow subnormal numbers
                copy_matrix(zero, b, y_step, inputs, width, own, step)
                b = own
            for i in range(_U(inputs)):
                taps[i] = i * step
            offset = _U(0)
            if bias.size:
                offset = more
                at = _U(bias.ctypes.data) + _U(column) * size
                copy_matrix(zero, at, _U(0), 1, width, more, _U(0))
        a = _U(x.ctypes.data) + _U(part * CHANNEL_ROWS) * x_step
        height = min(CHANNEL_ROWS, samples - part * CHANNEL_ROWS)
        if height < CHANNEL_ROWS:
            if not has_rest:
                work[inputs * columns : inputs * (columns + CHANNEL_ROWS)] = 0
                copy_matrix(zero, a, x_step, height, inputs, rest, x_step)
                has_rest = True
            a = rest
        target = _U(y.ctypes.data) + _U(part * CHANNEL_ROWS) * y_step + _U(column) * size
        tiles.samples(zero, a, x_step, b, table, inputs, offset, target, y_step, height, width)


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
