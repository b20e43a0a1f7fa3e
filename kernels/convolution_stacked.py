"""2D convolution of one channel at a time with 3x3, 5x5 or 7x7 filters, stride and dilation 1:
images, depthwise layers. The twin is csrc/convolution_stacked.c.

Wide images are read where they are, and only what tiles at their edges see is copied, with zeros
around it. Narrow ones are copied in blocks of whole rows as told in convolution_plan.py. The tiles
are stacked rows (tiles.py). The work is a range of tasks, for each (image, group, block of
output rows) one for each filter.
"""

from loopnest.kernels import tiles
from loopnest.kernels.convolution_plan import ceil_div
from loopnest.kernels.convolution_tiled import clear, copy_block
from loopnest.kernels.jit import kernel
from loopnest.kernels.simd_tiles import VECTOR_BYTES, address_of
from loopnest.kernels.tiles import STACKED_ROWS

WIDE = 4  # tiles: from here on few of a row are at its ends


@kernel
def conv2d_stacked(x, weight, bias, top, left, groups, block_h, first, last, work, y):
    """work holds the lines of a block, as convolution_plan.py counts them."""
    n, _, height, width = x.shape
    all_k, _, r, s = weight.shape
    out_h, out_w = y.shape[2], y.shape[3]
    k = all_k // groups
    zero, size = x.dtype.type(0), x.itemsize
    columns = 2 * VECTOR_BYTES // x.itemsize
    line_rows, line = block_h + r - 1, out_w + s - 1
    copy, y_step = address_of(work), out_w * size
    filter_step = r * s * size
    down = ceil_div(out_h, block_h)
    in_place = out_w >= WIDE * columns
    tile_h, tile_w = STACKED_ROWS + r - 1, columns + s - 1
    if not in_place:
        clear(zero, copy, work.size)  # tiles compute beyond the edges: no slow subnormals
    current = -1
    for task in range(first, last):
        place, part = divmod(task, k)
        plane, block = divmod(place, down)
        oh = block * block_h
        rows = min(block_h, out_h - oh)
        if place != current and not in_place:
            current = place
            copy_block(
                x, plane, 1, height, width, top - oh, left, 1, 1, 1, 1, 1,
                rows + r - 1, line, line, line_rows, work,
            )  # fmt: skip
        image, group = divmod(plane, groups)
        at = group * k + part
        filter_ = address_of(weight) + at * filter_step
        offset = address_of(bias) + at * size if bias.size else 0
        target = address_of(y) + ((image * all_k + at) * out_h + oh) * y_step
        for i in range(0, rows, STACKED_ROWS):
            for j in range(0, out_w, columns):
                source, step = copy + (i * line + j) * size, line * size
                if in_place:
                    h, w = oh + i - top, j - left
                    source = address_of(x) + ((plane * height + h) * width + w) * size
                    step = width * size
                    if h < 0 or w < 0 or h + tile_h > height or w + tile_w > width:
                        clear(zero, copy, tile_h * tile_w)
                        copy_block(
                            x, plane, 1, height, width, -h, -w, 1, 1, 1, 1, 1,
                            tile_h, tile_w, tile_w, tile_h, work,
                        )  # fmt: skip
                        source, step = copy, tile_w * size
                to, down_left, right = target + (i * out_w + j) * size, rows - i, out_w - j
                if r == 3:
                    tiles.stacked_3(
                        zero, source, step, filter_, offset, to, y_step, down_left, right
                    )
                elif r == 5:
                    tiles.stacked_5(
                        zero, source, step, filter_, offset, to, y_step, down_left, right
                    )
                else:
                    tiles.stacked_7(
                        zero, source, step, filter_, offset, to, y_step, down_left, right
                    )
