"""Pooling over NCHW arrays. The twin is csrc/pooling.c.

x (N,C,H,W), y (N,C,OH,OW). Padding holds no values: windows are clipped to the input. The
order of sums is part of the contract: an average adds up each column of its window from
the top, then the columns from the left, and divides once; its gradient adds up the shares
of each output row from the left, then the rows from the top. The average of a window of more
than RUN terms adds up each column, and then what came of the columns, as sums.py tells.

Each kernel goes by rows: it reduces whole rows of the input in work space that stays in the
first cache, splits them where the stride is 2, so that the taps of neighbouring outputs are
neighbours, and goes through the taps with the loops of pooling_rows.py. Outputs whose
windows hang over the edge, one or two a row, are computed one by one, and so are all for
strides beyond 2.
"""

import numpy as np

from loopnest.kernels.jit import block, kernel, scalar
from loopnest.kernels.pooling_long import average_long
from loopnest.kernels.pooling_rows import (
    SLACK,
    STREAM_FROM,
    add,
    batch,
    best_of_3,
    better_of_2_or_nan,
    better_or_nan,
    copy,
    divide,
    element,
    fetch,
    fill,
    first_sum,
    first_sum_of_2,
    has_nan,
    inner,
    max_of_few,
    mean_of_2_by_2,
    merge,
    move,
    places_of_row,
    rounded,
    split,
    sum_of_few,
    taps,
    window,
)  # fmt: skip
from loopnest.kernels.pooling_usual import avg_by_parts, write_twice
from loopnest.kernels.simd import prefer_wide, select
from loopnest.kernels.simd_copies import stream_fence
from loopnest.kernels.simd_lanes import flattened
from loopnest.kernels.simd_tiles import address_of, size_of
from loopnest.kernels.sums import RUN, SIZE, sum_of

_U = np.uint64
_ONE, _NONE = np.int64(1), np.int64(0)  # of one type with variables: a literal has its own


@kernel
def avg_pool2d(
    x, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, include_pad, divisor,
    work, first, last, y,
):  # fmt: skip
    """Output rows [first, last) of the N*C*OH; divisor 0 means the window's size.

    work: 2 W + 256 elements of work space.
    """
    prefer_wide()
    height, width = x.shape[2], x.shape[3]
    out_h, out_w = y.shape[2], y.shape[3]
    x1, y1 = flattened(x), flattened(y)
    from_x, bytes_ = _U(x1.ctypes.data), _U(x1.itemsize)
    inner_first, inner_last = inner(stride_w, pad_w, width, kernel_w, out_w)
    begin = inner_first * stride_w - pad_w
    half = (width // 2 + SLACK) if stride_w == 2 else 0
    base = width + SLACK if half else 0  # where work holds the row as it is used
    end_of_x = ((last - 1) // out_h + 1) * height * width
    usual = stride_w == kernel_w == kernel_h == 2 and inner_last - inner_first == out_w
    large = (last - first) * out_w * size_of(x1.dtype.type(0)) >= STREAM_FROM
    if large and usual and stride_h == 2 and pad_h == pad_w == 0 and 2 * out_h <= height:
        zero, by = x1.dtype.type(0), divisor if divisor else 4
        avg_by_parts(zero, x1, height, width, out_h, out_w, by, work, first, last, y1)
        return
    for plane in range(first // out_h, (last - 1) // out_h + 1):
        for oh in range(max(first - plane * out_h, 0), min(last - plane * out_h, out_h)):
            top, bottom, padded_h = window(oh, stride_h, pad_h, height, kernel_h)
            start, end = (plane * height + top) * width, (plane * height + bottom) * width
            to = (plane * out_h + oh) * out_w
            fetch(from_x + _U(start) * bytes_, stride_h * width * x1.itemsize)
            long_ones = (bottom - top) * min(kernel_w, width) > RUN
            if long_ones:
                # The first and the last window are the shortest ones of a row.
                left, right, _ = window(0, stride_w, pad_w, width, kernel_w)
                shortest = right - left
                left, right, _ = window(out_w - 1, stride_w, pad_w, width, kernel_w)
                shortest = min(shortest, right - left)
                if (bottom - top) * shortest > RUN:
                    average_long(
                        x1, start, bottom - top, padded_h, width, kernel_w, stride_w, pad_w,
                        include_pad, divisor, out_w, work, y1, to,
                    )  # fmt: skip
                    continue
            if usual and bottom - top == 2:
                count = min(rounded(out_w, last * out_w - to), (end_of_x - start - width) >> 1)
                by = divisor if divisor else 4
                mean_of_2_by_2(x1, start, start + width, y1, to, count, by)
                continue
            count = rounded(width, end_of_x - end + width)
            if bottom - top == 1:
                first_sum(x1, start, work, 0, count)
            elif bottom > top:
                first_sum_of_2(x1, start, start + width, work, 0, count)
            else:
                fill(work, 0, width, x1.dtype.type(0))
            for h in range(start + 2 * width, end, width):
                add(x1, h, work, 0, count)
            if stride_w == 2:
                split(work, 0, work, base, base + half, rounded((width + 1) >> 1, width))
            here = to + inner_first
            count = rounded(inner_last - inner_first, last * out_w - here)
            if inner_first == inner_last:
                count = 0
            if stride_w > 2:
                for ow in range(inner_first, inner_last):
                    w = ow * stride_w - pad_w
                    y1[to + ow] = sum_of_few(work, w, w + kernel_w)
            elif count:  # a window may be far wider than the input
                if kernel_w == 1:
                    first_sum(work, base + element(begin, half), y1, here, count)
                else:
                    first_sum_of_2(
                        work,
                        base + element(begin, half),
                        base + element(begin + 1, half),
                        y1,
                        here,
                        count,
                    )
                for w in range(begin + 2, begin + kernel_w):
                    add(work, base + element(w, half), y1, here, count)
            size = padded_h * kernel_w if include_pad else max(1, (bottom - top) * kernel_w)
            divide(y1, here, count, divisor if divisor else size)
            for side in range(2):
                for ow in range(inner_last if side else 0, out_w if side else inner_first):
                    left, right, padded_w = window(ow, stride_w, pad_w, width, kernel_w)
                    size = (
                        padded_h * padded_w
                        if include_pad
                        else max(1, (bottom - top) * (right - left))
                    )
                    total = sum_of_few(work, left, max(left, right))
                    y1[to + ow] = total / x1.dtype.type(divisor if divisor else size)
            if long_ones:
                average_long(
                    x1, start, bottom - top, padded_h, width, kernel_w, stride_w, pad_w,
                    include_pad, divisor, out_w, work, y1, to,
                )  # fmt: skip


@kernel
def avg_pool2d_backward(
    dy, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, include_pad, divisor, work, first,
    last, dx,
):  # fmt: skip
    """Planes [first, last) of the N*C of dx.

    work: OW + 2 W + 320 elements of work space.
    """
    prefer_wide()
    height, width = dx.shape[2], dx.shape[3]
    out_h, out_w = dy.shape[2], dy.shape[3]
    dx1, dy1 = flattened(dx), flattened(dy)
    zero = dx1.dtype.type(0)
    from_dy, bytes_ = _U(dy1.ctypes.data), _U(dy1.itemsize)
    inner_first, inner_last = inner(stride_w, pad_w, width, kernel_w, out_w)
    inner_count = inner_last - inner_first
    begin = inner_first * stride_w - pad_w
    row = out_w + SLACK  # where work holds the sums along a row
    base = row + width + SLACK  # and its halves
    half = width // 2 + SLACK
    usual = kernel_h == kernel_w == stride_h == stride_w == 2 and pad_h == pad_w == 0
    usual = usual and 2 * out_h <= height and 2 * out_w <= width
    streams = usual and (last - first) * height * width * size_of(zero) >= STREAM_FROM
    for plane in range(first, last):
        fresh = 0  # rows of dx from here on hold nothing yet
        to, held = address_of(dx) + plane * height * width * size_of(zero), 0
        for oh in range(out_h):
            top, bottom, padded_h = window(oh, stride_h, pad_h, height, kernel_h)
            start = (plane * out_h + oh) * out_w
            fetch(from_dy + _U(start) * bytes_, out_w * dy1.itemsize)
            copy(dy1, start + inner_first, work, 0, inner_count)
            size = padded_h * kernel_w if include_pad else max(1, (bottom - top) * kernel_w)
            divide(work, 0, rounded(inner_count, out_w + SLACK), divisor if divisor else size)
            if usual:
                to, held = write_twice(zero, work, row, held, out_w, width, to, streams)
                fresh = bottom
                continue
            fill(work, row, width, zero)
            for side in range(2):
                if side and stride_w == 1 and inner_count:
                    for j in range(kernel_w - 1, -1, -1):
                        add(work, 0, work, row + begin + j, inner_count)
                elif side and stride_w == 2 and inner_count:
                    split(work, row, work, base, base + half, (width + 1) >> 1)
                    for j in range(kernel_w - 1, -1, -1):
                        add(work, 0, work, base + element(begin + j, half), inner_count)
                    merge(work, base, base + half, work, row, (width + 1) >> 1)
                elif side:
                    for i in range(inner_count):
                        for w in range(begin + i * stride_w, begin + i * stride_w + kernel_w):
                            work[row + w] += work[i]
                for ow in range(inner_last if side else 0, out_w if side else inner_first):
                    left, right, padded_w = window(ow, stride_w, pad_w, width, kernel_w)
                    size = (
                        padded_h * padded_w if include_pad
                        else max(1, (bottom - top) * (right - left))
                    )  # fmt: skip
                    share = dy1[start + ow] / dx1.dtype.type(divisor if divisor else size)
                    for w in range(left, right):
                        work[row + w] += share
            if top > fresh:
                fill(dx1, (plane * height + fresh) * width, (top - fresh) * width, zero)
                fresh = top
            for h in range(top, bottom):
                to = (plane * height + h) * width
                if h < fresh:
                    add(work, row, dx1, to, width)
                else:
                    copy(work, row, dx1, to, width)
            fresh = max(fresh, bottom)
        move(zero, address_of(work) + row * size_of(zero), to, held)
        fill(dx1, (plane * height + fresh) * width, (height - fresh) * width, zero)
    if streams:
        stream_fence()


@block
def maxima(zero, x, a, step, last, pitch, half, y, count, nan):
    """y[i] = maximum of elements a + i, a + step + i, ... last + i; x and y are addresses.

    What is an element: one of a row (pitch 1), one of a row that is split (half is not 0),
    or a row (pitch is its length).
    """
    size = _U(size_of(zero))
    b = min(a + step, last)
    c = min(b + step, last)
    from_a = x + _U(element(a, half) * pitch) * size
    while True:
        from_b = x + _U(element(b, half) * pitch) * size
        from_c = x + _U(element(c, half) * pitch) * size
        best_of_3(zero, from_a, from_b, from_c, y, count, nan)
        if c >= last:
            break
        from_a = y
        b = c + step
        c = min(b + step, last)


@kernel
def max_pool2d(
    x, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    work, first, last, y,
):  # fmt: skip
    """Output rows [first, last) of the N*C*OH. Windows along each row, then down the columns.

    The first of equal values wins, and NaN does (PyTorch's rule); -inf where dilation leaves a
    window without a value. work: `max_pool2d_work` elements of work space.
    """
    prefer_wide()
    height, width = x.shape[2], x.shape[3]
    out_h, out_w = y.shape[2], y.shape[3]
    x1, y1 = flattened(x), flattened(y)
    zero, bytes_ = x1.dtype.type(0), _U(x1.itemsize)
    from_x, to_y, space = _U(x1.ctypes.data), _U(y1.ctypes.data), _U(work.ctypes.data)
    extent_h, extent_w = (kernel_h - 1) * dilation_h, (kernel_w - 1) * dilation_w
    inner_first, inner_last = inner(stride_w, pad_w, width, extent_w + 1, out_w)
    inner_count = inner_last - inner_first
    begin = inner_first * stride_w - pad_w
    rows = batch(width)
    half = (rows * width + 1) // 2 + SLACK
    kept = 2 * half
    # Windows along all rows of a batch in one go, where the rows' outputs do not overlap.
    flat = stride_w <= 2 and width % stride_w == 0 and out_w <= width // stride_w
    pitch = width // stride_w if flat else out_w + SLACK
    end_of_x = ((last - 1) // out_h + 1) * height * width
    at, base, done, last_nan = -1, 0, 0, -1  # rows base to done of this plane are kept
    row = first
    while row < last:
        plane, from_h = row // out_h, row % out_h
        to_h = min(from_h + rows, out_h, from_h + last - row)
        if plane != at:
            at, base, done, last_nan = plane, 0, 0, -1
        top = max(from_h * stride_h - pad_h, 0)
        bottom = min((to_h - 1) * stride_h - pad_h + extent_h + 1, height)
        if done > top:
            copy(work, kept + (top - base) * pitch, work, kept, (done - top) * pitch)
        base = top
        h0 = max(top, done)
        done = max(done, bottom)
        while h0 < bottom:
            h1 = min(h0 + rows, bottom)
            start, size = (plane * height + h0) * width, (h1 - h0) * width
            fetch(from_x + _U(start) * bytes_, size * x1.itemsize)
            nan = has_nan(zero, from_x + _U(start) * bytes_, size)
            if nan:
                last_nan = h1 - 1
            if stride_w == 2:
                split(x1, start, work, 0, half, size >> 1)
                if size & 1:
                    work[size >> 1] = x1[start + size - 1]
            for h in range(h0, h0 if inner_count == 0 else h0 + 1 if flat else h1):
                to = kept + (h - base) * pitch + inner_first
                w = (h - h0) * width + begin
                end = w + extent_w
                if flat:
                    count = (h1 - h0 - 1) * pitch + inner_count
                else:
                    count = rounded(inner_count, end_of_x - start - end)
                target = space + _U(to) * bytes_
                if stride_w == 1:
                    source = from_x + _U(start) * bytes_
                    maxima(zero, source, w, dilation_w, end, _ONE, _NONE, target, count, nan)
                elif stride_w == 2:
                    maxima(zero, space, w, dilation_w, end, _ONE, half, target, count, nan)
                else:
                    for i in range(inner_count):
                        work[to + i] = max_of_few(
                            x1, start + w + i * stride_w, dilation_w, kernel_w
                        )
            for side in range(2):
                for ow in range(inner_last if side else 0, out_w if side else inner_first):
                    w = ow * stride_w - pad_w
                    j, end = taps(w, width, kernel_w, dilation_w)
                    w += start + j * dilation_w
                    to = kept + (h0 - base) * pitch + ow
                    for _ in range(h0, h1):
                        if j < end:
                            work[to] = max_of_few(x1, w, dilation_w, end - j)
                        else:
                            work[to] = -np.inf
                        w += width
                        to += pitch
            h0 = h1
        oh = from_h
        while oh < to_h:
            to = (plane * out_h + oh) * out_w
            h = oh * stride_h - pad_h
            i, end = taps(h, height, kernel_h, dilation_h)
            n = 1
            if i < end:
                count = rounded(out_w, last * out_w - to)
                if stride_h == 1 and pitch == out_w and h >= 0 and h + extent_h < height:
                    n = min(to_h - oh, height - h - extent_h)
                    count = n * out_w
                h -= base
                maxima(
                    zero, space + _U(kept) * bytes_, h + i * dilation_h, dilation_h,
                    h + (end - 1) * dilation_h, pitch, _NONE, to_y + _U(to) * bytes_, count,
                    last_nan >= h + base,
                )  # fmt: skip
            else:
                fill(y1, to, out_w, x1.dtype.type(-np.inf))
            oh += n
        row += to_h - from_h


@scalar
def max_of_window(x, plane, h0, w0, row_taps, column_taps, dilation_h, dilation_w, width):
    """(maximum, its place in the plane) of one window; no branch on the values."""
    best, best_index = x.dtype.type(-np.inf), np.int64(-1)
    for i in range(row_taps[0], row_taps[1]):
        start = (h0 + i * dilation_h) * width + w0
        for j in range(column_taps[0], column_taps[1]):
            at = start + j * dilation_w
            value = x[np.uint64(plane + at)]
            take = (value > best) | (value != value) | (best_index < 0)
            best, best_index = select(take, value, best), select(take, at, best_index)
    return best, best_index


@kernel
def max_pool2d_indices(
    x, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w,
    first, last, indices, y,
):  # fmt: skip
    """`max_pool2d`, and where each maximum is in its plane.

    Of equal values the first, of NaNs the last; -1 where a window has no value.
    """
    prefer_wide()
    height, width = x.shape[2], x.shape[3]
    out_h, out_w = y.shape[2], y.shape[3]
    x1, y1, indices1 = flattened(x), flattened(y), flattened(indices)
    zero, size = x1.dtype.type(0), _U(x1.itemsize)
    from_x, to_y, places = _U(x1.ctypes.data), _U(y1.ctypes.data), _U(indices1.ctypes.data)
    reach, pitch = (kernel_w - 1) * dilation_w + 1, dilation_h * width
    inner_first, inner_last = inner(stride_w, pad_w, width, reach, out_w)
    # In vectors: other strides one by one, and planes of which 32 bits do not hold each place.
    in_vectors = stride_w <= 2 and height * width < 1 << 31
    for row in range(first, last):
        plane, oh, to = row // out_h * height * width, row % out_h, row * out_w
        h0 = oh * stride_h - pad_h
        row_taps = taps(h0, height, kernel_h, dilation_h)
        rows = row_taps[1] - row_taps[0]
        inner_count = inner_last - inner_first if rows and in_vectors else 0
        if inner_count:
            at = (h0 + row_taps[0] * dilation_h) * width + inner_first * stride_w - pad_w
            fetch(from_x + _U(plane + at) * size, stride_h * width * x1.itemsize)
            here = _U(to + inner_first)
            places_of_row(
                zero, from_x + _U(plane + at) * size, at, stride_w, dilation_w, kernel_w, pitch,
                rows, to_y + here * size, places + here * _U(8), inner_count,
            )  # fmt: skip
        for side in range(2):
            begin = inner_first + inner_count if side else 0
            for ow in range(begin, out_w if side else inner_first):
                w0 = ow * stride_w - pad_w
                column_taps = taps(w0, width, kernel_w, dilation_w)
                y1[to + ow], indices1[to + ow] = max_of_window(
                    x1, plane, h0, w0, row_taps, column_taps, dilation_h, dilation_w, width
                )


@kernel
def indices_outside(indices, plane_size):
    """Whether an index is not from -1 to plane_size - 1.

    The sign bits of each index + 1 and of its distance from the last are gathered: that vectorises.
    """
    indices1, signs = flattened(indices), np.int64(0)
    for i in range(_U(indices1.size)):
        index = indices1[i]
        signs |= (index + 1) | (plane_size - 1 - index)
    return signs < 0


@kernel
def max_pool2d_backward(dy, indices, first, last, dx):
    """Planes [first, last) of the N*C of dx: each output in order gives to its maximum."""
    plane_size, out_size = dx.shape[2] * dx.shape[3], dy.shape[2] * dy.shape[3]
    dx1, dy1, indices1 = flattened(dx), flattened(dy), flattened(indices)
    for plane in range(first, last):
        start = plane * plane_size
        fill(dx1, start, plane_size, dx1.dtype.type(0))
        for out in range(_U(plane * out_size), _U((plane + 1) * out_size)):
            index = indices1[out]
            if index >= 0:
                dx1[_U(start + index)] += dy1[out]


@kernel
def global_avg_pool2d(x, first, last, y):
    """Means of planes [first, last), whose sums are those of sums.py."""
    size = x.shape[2] * x.shape[3]
    x1, y1 = flattened(x), flattened(y)
    space = np.empty(SIZE, x.dtype)
    for plane in range(first, last):
        y1[plane] = sum_of(x1, plane * size, size, space) / x1.dtype.type(size)


@kernel
def global_max_pool2d(x, work, first, last, y):
    """Maxima of planes [first, last); NaN if there is one.

    Each plane is folded into 256 columns, column j of elements j, j + 256, ..., then those by
    halves into one. work: 256 elements.
    """
    prefer_wide()
    size = x.shape[2] * x.shape[3]
    x1, y1 = flattened(x), flattened(y)
    for plane in range(first, last):
        start, end = plane * size, (plane + 1) * size
        fill(work, 0, 256, x1.dtype.type(-np.inf))
        whole = end - size % 512
        for at in range(start, whole, 512):
            better_of_2_or_nan(x1, at, at + 256, work, 0, 256)
        for at in range(whole, end, 256):
            better_or_nan(x1, at, work, 0, min(256, end - at))
        half = 128
        while half:
            better_or_nan(work, half, work, 0, half)
            half //= 2
        y1[plane] = work[0]
