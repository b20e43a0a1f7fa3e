"""2D convolution in register tiles over blocks of the input; how blocks look is told in
convolution_plan.py, the tiles are in tiles.py. The twin is csrc/convolution_tiled.h.

The work is a range of tasks, for each (image, group, block of output) one for each block of
filters, in this order: whoever computes a range copies each block of input once.
"""

from loopnest.kernels import tiles
from loopnest.kernels.convolution_plan import (
    CHANNELS,
    PIXELS,
    STRIP_TILES,
    TERMS_IN_L1,
    ceil_div,
    keeps_packed,
    lines,
    packed_size,
)
from loopnest.kernels.jit import fragment, kernel
from loopnest.kernels.simd_copies import (
    copy_alternate,
    copy_lanes,
    copy_padded,
    copy_transposed,
)
from loopnest.kernels.simd_prefetch import prefetch
from loopnest.kernels.simd_tiles import VECTOR_BYTES, address_of, size_of
from loopnest.kernels.tiles import (
    ADD,
    CHANNEL_ROWS,
    FEW_CHANNEL_ROWS,
    FEW_PIXEL_ROWS,
    PIXEL_ROWS,
    RECTIFY,
    TAPS_AHEAD,
)

__all__ = ["pack_conv2d", "packed_size"]  # the kernels are the driver's


@fragment
def copy_rows(zero, source, by, stride, target, line, rows, count):
    """target[i line + j] = source[i by + j stride] for i < rows, j < count; addresses."""
    size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
    rest = (count - 1) % lanes + 1 if count > 0 else 0  # of a row's last vector
    whole, by, line = (count - rest) * size, by * size, line * size
    if stride == 1 and whole == 0:  # short rows are many
        for _ in range(rows):
            copy_lanes(zero, source, target, rest)
            source += by
            target += line
        return
    for _ in range(rows):
        if stride == 1:
            for j in range(0, whole, VECTOR_BYTES):
                copy_lanes(zero, source + j, target + j, lanes)
            copy_lanes(zero, source + whole, target + whole, rest)
        elif stride == 2:
            for j in range(0, whole, VECTOR_BYTES):
                copy_alternate(zero, source + 2 * j, target + j, lanes)
            copy_alternate(zero, source + 2 * whole, target + whole, rest)
        else:
            for j in range(count):
                copy_lanes(zero, source + j * stride * size, target + j * size, 1)
        source += by
        target += line


@fragment
def copy_numbers(zero, source, target, count):
    """target[i] = source[i] for i < count; addresses."""
    size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
    for i in range(0, count, lanes):
        copy_lanes(zero, source + i * size, target + i * size, count - i)


@fragment
def extend_taps(taps, count):
    """What tiles ask for ahead of the last tap: what they have."""
    for t in range(count, count + TAPS_AHEAD):
        taps[t] = taps[count - 1]


@fragment
def clear(zero, target, count):
    """target[i] = 0 for i < count; an address."""
    for i in range(0, count, VECTOR_BYTES // size_of(zero)):
        copy_padded(zero, target, target, 0, count - i)
        target += VECTOR_BYTES


@fragment
def inside(size, count, start, stride):
    """The i in [low, high) of range(count) for which start + i stride lies in [0, size)."""
    low = min(max(0, ceil_div(-start, stride)), count)
    return low, min(max(low, ceil_div(size - start, stride)), count)


@fragment
def copy_block(
    x, first_plane, channels, height, width, top, left, stride_h, stride_w, phases, variants,
    variant_step, rows, columns, line, line_rows, work,
):  # fmt: skip
    """Lines of a block whose first output row and column read the input at (-top, -left).

    ``rows`` of each phase and ``columns`` are in use, of ``line_rows`` and ``line``. Columns
    over padding stay as they are: zeros from the start.
    """
    zero, size = x.dtype.type(0), x.itemsize
    planes, lines_ = address_of(x), address_of(work)
    for phase in range(phases):
        first, last = inside(height, rows, phase - top, stride_h)
        for v in range(variants):
            low, high = inside(width, columns, v * variant_step - left, stride_w)
            source = (phase - top + first * stride_h) * width
            source += v * variant_step - left + low * stride_w
            for c in range(channels):
                at = planes + ((first_plane + c) * height * width + source) * size
                to = lines_ + ((c * variants + v) * phases + phase) * line_rows * line * size
                end = to + last * line * size
                clear(zero, to, first * line)
                copy_rows(
                    zero, at, stride_h * width, stride_w, to + (first * line + low) * size, line,
                    last - first, high - low,
                )  # fmt: skip
                clear(zero, end, (rows - last) * line)


@fragment
def tap_table(
    channels, r, s, stride_h, stride_w, dilation_h, dilation_w, flat, variants, phases,
    line, line_rows, itemsize, taps,
):  # fmt: skip
    """Where in the lines each tap (c, r, s) begins, in bytes."""
    at = 0
    for c in range(channels):
        for i in range(r):
            row = (i * dilation_h) % stride_h * line_rows + i * dilation_h // stride_h
            for j in range(s):
                variant, shift = j, 0
                if not flat:
                    variant, shift = j * dilation_w % stride_w, j * dilation_w // stride_w
                start = ((c * variants + variant) * phases * line_rows + row) * line + shift
                taps[at] = start * itemsize
                at += 1


@fragment
def pack_block(zero, source, step, channels, terms, target):
    """``channels`` rows of ``terms`` numbers, ``step`` bytes apart, as [term][two vectors].

    Zeros stand for channels that are not there.
    """
    size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
    for v in range(2):
        height = min(max(channels - v * lanes, 0), lanes)
        for t in range(0, terms, lanes):
            rows = source + v * lanes * step + t * size
            to = target + (t * 2 + v) * VECTOR_BYTES
            copy_transposed(zero, rows, step, to, 2 * VECTOR_BYTES, height, terms - t, lanes)


@fragment
def pack_group(zero, weight, first, k, terms, target):
    """Filters [first, first + k) in blocks of two vectors, one block after the other."""
    size, lanes = size_of(zero), VECTOR_BYTES // size_of(zero)
    step = terms * size
    for part in range(0, k, 2 * lanes):
        source = address_of(weight) + (first + part) * step
        pack_block(zero, source, step, min(2 * lanes, k - part), terms, target)
        target += 2 * terms * VECTOR_BYTES


@fragment
def pixel_row_runs(
    zero, x, line, runs, run, taps, terms, weight, bias, y, y_step, y_line, channels, more, finish,
    sums,
):  # fmt: skip
    """Runs of pixels, ``line`` numbers apart, by up to two vectors of channels; addresses and counts.

    x is readable for a whole number of tiles. Long sums go by slices of terms: the weights of one
    stay in L1 over a strip of tiles, whose sums wait in ``sums``.
    """
    size = size_of(zero)
    wide = channels > VECTOR_BYTES // size_of(zero)
    row = (2 if wide else 1) * VECTOR_BYTES
    in_run = ceil_div(run, PIXEL_ROWS)
    tiles_ = runs * in_run
    part = ceil_div(terms, ceil_div(terms, TERMS_IN_L1))
    for strip in range(0, tiles_, STRIP_TILES):
        for t in range(0, terms, part):
            count = min(part, terms - t)
            table, filters = taps + 8 * t, weight + 2 * t * VECTOR_BYTES
            # The weights of the next slice, each tile its share.
            later = filters + 2 * count * VECTOR_BYTES
            step = 2 * VECTOR_BYTES // min(STRIP_TILES, tiles_ - strip)
            for tile in range(strip, min(strip + STRIP_TILES, tiles_)):
                i, j = tile // in_run, tile % in_run * PIXEL_ROWS
                at, left = x + (i * line + j) * size, run - j
                own = sums + (tile - strip) * PIXEL_ROWS * 2 * VECTOR_BYTES
                to, last = y + (i * y_line + j) * size, t + count == terms
                if last:
                    for channel in range(channels):
                        prefetch(to + channel * y_step, 1)
                if not wide:
                    tiles.many_pixels_narrow(
                        zero, at, size, table, count, filters, later, step, own, t == 0
                    )
                elif left > FEW_PIXEL_ROWS:
                    tiles.many_pixels_wide(
                        zero, at, size, table, count, filters, later, step, own, t == 0
                    )
                else:
                    tiles.few_pixels_wide(
                        zero, at, size, table, count, filters, later, step, own, t == 0
                    )
                later += count * step
                if last:
                    tiles.finish_pixel_rows(
                        zero, own, row, bias, to, y_step, channels, left, more, finish
                    )


@fragment
def channel_row_run(
    zero, weight, taps, terms, x, bias, y, y_step, channels, pixels, more, finish, pitch, each
):  # fmt: skip
    """One run of pixels by up to CHANNEL_ROWS channels; all are addresses and counts.

    Vectors of x are ``pitch`` bytes apart, ``each`` pixels of one count. weight and bias are
    readable for as many rows as the tile that serves has, x for 8 vectors more than the run.
    """
    size = size_of(zero)
    step = terms * size
    done = 0
    while done < pixels:
        b, to, left = x + done // each * pitch, y + done * size, pixels - done
        if channels == 1:
            tiles.one_channel(
                zero, weight, step, b, taps, terms, bias, to, y_step, 1, left, more, finish,
                pitch, each,
            )  # fmt: skip
            done += 8 * each
        elif channels <= FEW_CHANNEL_ROWS:
            tiles.few_channels(
                zero, weight, step, b, taps, terms, bias, to, y_step, channels, left, more, finish,
                pitch, each,
            )  # fmt: skip
            done += 4 * each
        elif left > 2 * each:
            tiles.many_channels(
                zero, weight, step, b, taps, terms, bias, to, y_step, channels, left, more, finish,
                pitch, each,
            )  # fmt: skip
            done += 3 * each
        else:
            tiles.many_channels_narrow(
                zero, weight, step, b, taps, terms, bias, to, y_step, channels, left, more, finish,
                pitch, each,
            )  # fmt: skip
            done += each


@fragment
def place_of(task, groups, down, across, deep):
    """(image, group, row of blocks, column of blocks, block of filters) of a task."""
    place, part = divmod(task, deep)
    rest, block_x = divmod(place, across)
    rest, block_y = divmod(rest, down)
    image, group = divmod(rest, groups)
    return image, group, block_y, block_x, part


@fragment
def readable_filters(zero, filters, bias, count, terms, work, own, more):
    """(filters, bias), or copies that tiles may read CHANNEL_ROWS rows of; addresses.

    The copies go to work[own:] and to work[more:]; one filter needs none.
    """
    if count == 1 or count == CHANNEL_ROWS:
        return filters, bias
    start, size = address_of(work), work.itemsize
    copy_numbers(zero, filters, start + own * size, count * terms)
    clear(zero, start + (own + count * terms) * size, (CHANNEL_ROWS - count) * terms)
    if bias:
        copy_numbers(zero, bias, start + more * size, count)
        bias = start + more * size
    return start + own * size, bias


@fragment
def plane_taps(channels, plane, itemsize, taps, first):
    """Table for a 1x1: where the planes begin, in bytes, from taps[first] on."""
    for c in range(channels):
        taps[first + c] = c * plane * itemsize


def _tiled(pixel_rows):
    """Kernel maker: the same walk over the tasks for both kinds of tiles."""

    def conv2d(
        x, weight, bias, stride_h, stride_w, top, left, dilation_h, dilation_w, groups,
        flat, block_h, block_w, first, last, packed, more, rectify, work, taps, y,
    ):  # fmt: skip
        """y = x * weight + bias + more, where these are not empty; then max(0, y) if asked for."""
        n, all_channels, height, width = x.shape
        all_k, channels, r, s = weight.shape
        out_h, out_w = y.shape[2], y.shape[3]
        k, terms = all_k // groups, channels * r * s
        zero = x.dtype.type(0)
        size, lanes = x.itemsize, VECTOR_BYTES // x.itemsize
        variants, phases, more_h, more_w = lines(
            s, r, stride_h, stride_w, dilation_h, dilation_w, flat
        )
        line_rows, line = block_h + more_h, block_w + more_w
        copy_size = channels * variants * phases * line_rows * line
        # A 1x1 of whole planes reads the image where it is, as far as tiles reach; what is left of
        # a block, less than a tile, is copied.
        in_place = False
        if pixel_rows:
            in_place = r * s * stride_h * stride_w == 1 and height == out_h == 1 and width == out_w
            if in_place:
                line = min(PIXEL_ROWS, block_w)
                copy_size = channels * line
                plane_taps(channels, width, x.itemsize, taps, terms)
        tap_table(
            channels, r, s, stride_h, stride_w, dilation_h, dilation_w, flat, variants, phases,
            line, line_rows, x.itemsize, taps,
        )  # fmt: skip
        if not pixel_rows:
            extend_taps(taps, terms)
        filters = 2 * lanes if pixel_rows else CHANNEL_ROWS  # of one task
        down, across, deep = (
            ceil_div(out_h, block_h),
            ceil_div(out_w, block_w),
            ceil_div(k, filters),
        )
        copy = address_of(work)
        own_at = ceil_div(copy_size, lanes) * lanes + 8 * lanes
        own = copy + own_at * size  # filters of a task
        block_size = terms * 2 * VECTOR_BYTES
        kept = keeps_packed(PIXELS if pixel_rows else CHANNELS, deep, terms, x.itemsize)
        own_bias = own + filters * terms * (deep if kept else 1) * size
        sums = own_bias + filters * size
        y_step = out_h * out_w * size
        finish = (ADD if more.size else 0) + (RECTIFY if rectify else 0)
        addend = address_of(more) - address_of(y)
        current, packed_group = -1, -1
        for task in range(first, last):
            image, group, block_y, block_x, part = place_of(task, groups, down, across, deep)
            place = task // deep
            oh, ow = block_y * block_h, block_x * block_w
            rows, columns = min(block_h, out_h - oh), min(block_w, out_w - ow)
            plane = image * all_channels + group * channels
            whole = columns // PIXEL_ROWS * PIXEL_ROWS
            if place != current:
                if current < 0 or (across > 1 and not in_place):
                    clear(zero, copy, copy_size + 8 * lanes)
                current = place
                if not in_place:
                    copy_block(
                        x, plane, channels, height, width, top - oh * stride_h,
                        left - ow * stride_w, stride_h, stride_w, phases, variants,
                        dilation_w if flat else 1, rows + more_h, columns + more_w,
                        line, line_rows, work,
                    )  # fmt: skip
                elif pixel_rows:
                    copy_rows(
                        zero, address_of(x) + (plane * width + ow + whole) * size, width,
                        stride_w, copy, line, channels, columns - whole,
                    )  # fmt: skip
            at = group * k + part * filters
            count = min(filters, k - part * filters)
            target = address_of(y) + (((image * all_k + at) * out_h + oh) * out_w + ow) * size
            offset = address_of(bias) + at * size if bias.size else 0
            if pixel_rows:
                filter_ = own
                if packed.size:
                    filter_ = address_of(packed) + (group * deep + part) * block_size
                elif not kept:
                    rows_at = address_of(weight) + at * terms * size
                    pack_block(zero, rows_at, terms * size, count, terms, own)
                else:
                    if group != packed_group:
                        pack_group(zero, weight, group * k, k, terms, own)
                        packed_group = group
                    filter_ = own + part * block_size
                if offset:
                    copy_numbers(zero, offset, own_bias, count)
                    offset = own_bias
            else:
                filter_ = address_of(weight) + at * terms * size
                filter_, offset = readable_filters(
                    zero, filter_, offset, count, terms, work, own_at, own_at + filters * terms
                )
            runs, run = (1, rows * out_w) if flat else (rows, columns)
            if pixel_rows:
                source, table, start = copy, 0, 0
                if in_place:  # first what is read where it is, then the rest
                    source, table = address_of(x) + (plane * width + ow) * size, terms
                    run = whole
                for _ in range(2 if in_place else 1):
                    pixel_row_runs(
                        zero, source, line, runs, run, address_of(taps) + 8 * table, terms,
                        filter_, offset, target + start * size, y_step, out_w, count, addend,
                        finish, sums,
                    )  # fmt: skip
                    source, table, start, run = copy, 0, whole, columns - whole
            else:
                pitch, each = VECTOR_BYTES, lanes
                if count > FEW_CHANNEL_ROWS and run <= lanes and run == out_w:
                    # Runs of a vector or less that follow each other in y: a tile takes three.
                    pitch, each, runs, run = line * size, run, 1, runs * run
                for i in range(runs):
                    channel_row_run(
                        zero, filter_, address_of(taps), terms, copy + i * line * size, offset,
                        target + i * out_w * size, y_step, count, run, addend, finish, pitch, each,
                    )  # fmt: skip

    return conv2d


conv2d_pixels = kernel(_tiled(True))
conv2d_channels = kernel(_tiled(False))


@kernel
def pack_conv2d(weight, groups, packed):
    """Every block of filters as `conv2d_pixels` packs it, group after group."""
    all_k, channels, r, s = weight.shape
    k, terms, lanes = all_k // groups, channels * r * s, VECTOR_BYTES // weight.itemsize
    target, zero = address_of(packed), weight.dtype.type(0)
    for group in range(groups):
        pack_group(zero, weight, group * k, k, terms, target)
        target += ceil_div(k, 2 * lanes) * 2 * terms * VECTOR_BYTES
