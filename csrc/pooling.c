/* pooling.c: pooling over NCHW arrays; the twin is kernels/pooling.py, where the method and the
 * order of sums are told. */

#include "pooling_rows.h"

/* The usual pooling of more than caches hold: streamed, and PARTS of the rows by turns, for memory
 * gives more where several of its pages are read at a time. */
static void F(avg_by_parts)(const real *x, const ln_pool2d_shape *d, int64_t divisor, real *work,
                            int64_t first, int64_t last, real *y)
{
    int64_t width = d->w, rows = (last - first + LN_PARTS - 1) / LN_PARTS;
    int64_t end_of_x = ((last - 1) / d->oh + 1) * d->h * width;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t part = 0; part < LN_PARTS && first + part * rows + i < last; part++) {
            int64_t row = first + part * rows + i, start = (row / d->oh * d->h + row % d->oh * 2) * width;
            real *to = y + row * d->ow, *buffer = work + part * (d->ow + LN_SLACK);
            int64_t held = ((uintptr_t)to & 63) / sizeof *to; /* of a line that this part began */
            held = held <= i * d->ow ? held : 0;
            int64_t count = pool_min(rounded(d->ow, width), (end_of_x - start - width) >> 1);
            F(row_fetch)(x + start, 2 * width);
            F(row_mean_of_2_by_2)(x + start, x + start + width, buffer + held, count, divisor);
            if (i + 1 == rows || row + 1 == last) {
                F(row_put)(buffer, to - held, held + d->ow);
                continue;
            }
            int64_t written = F(row_stream)(buffer, to - held, held + d->ow);
            memmove(buffer, buffer + written, 64); /* what is left fills no line */
        }
    STREAM_FENCE();
}

/* Where a window of row `h` has more terms than a run, its columns are summed as sums.h tells, and then
 * what came of the columns. work: w elements. */
static void F(avg_long)(const real *x, const ln_pool2d_shape *d, window h, int64_t include_pad,
                        int64_t divisor, real *work, real *y)
{
    F(sum_columns)(x + h.first * d->w, d->w, h.last - h.first, d->w, work);
    for (int64_t ow = 0; ow < d->ow; ow++) {
        window w = pool_window(ow, d->stride_w, d->pad_w, d->w, d->kernel_w);
        if (pool_is_long(h, w))
            y[ow] = F(sum_of)(work + w.first, w.last - w.first)
                  / (real)pool_count(h, w, include_pad, divisor);
    }
}

void OP(avg_pool2d)(const real *x, const ln_pool2d_shape *d, int64_t include_pad, int64_t divisor,
                    real *work, int64_t first, int64_t last, real *y)
{
    int64_t height = d->h, width = d->w;
    range inner = pool_inner(d->stride_w, d->pad_w, width, d->kernel_w, d->ow);
    int64_t inner_count = inner.last - inner.first, begin = inner.first * d->stride_w - d->pad_w;
    int64_t half = d->stride_w == 2 ? width / 2 + LN_SLACK : 0;
    real *used = half ? work + width + LN_SLACK : work; /* the row as it is used */
    int usual = d->stride_w == 2 && d->kernel_w == 2 && d->kernel_h == 2 && inner_count == d->ow;
    int64_t end_of_x = ((last - 1) / d->oh + 1) * height * width;
    if (pool_halves(d) && (last - first) * d->ow * REAL_BYTES >= LN_STREAM_FROM) {
        F(avg_by_parts)(x, d, divisor ? divisor : 4, work, first, last, y);
        return;
    }
    for (int64_t row = first; row < last; row++) {
        int64_t plane = row / d->oh;
        window h = pool_window(row % d->oh, d->stride_h, d->pad_h, height, d->kernel_h);
        int64_t start = (plane * height + h.first) * width, to = row * d->ow;
        F(row_fetch)(x + start, d->stride_h * width);
        int long_ones = (h.last - h.first) * pool_min(d->kernel_w, width) > LN_RUN;
        if (long_ones && pool_is_long(h, pool_window(0, d->stride_w, d->pad_w, width, d->kernel_w))
            && pool_is_long(h, pool_window(d->ow - 1, d->stride_w, d->pad_w, width, d->kernel_w))) {
            F(avg_long)(x + plane * height * width, d, h, include_pad, divisor, work, y + to);
            continue; /* the first and the last window are the shortest ones of a row */
        }
        if (usual && h.last - h.first == 2) {
            int64_t count = pool_min(rounded(d->ow, last * d->ow - to), (end_of_x - start - width) >> 1);
            F(row_mean_of_2_by_2)(x + start, x + start + width, y + to, count, divisor ? divisor : 4);
            continue;
        }
        int64_t end = (plane * height + h.last) * width, count = rounded(width, end_of_x - end + width);
        if (h.last - h.first == 1)
            F(row_first_sum)(x + start, work, count);
        else if (h.last > h.first)
            F(row_first_sum_of_2)(x + start, x + start + width, work, count);
        else
            F(row_fill)(work, width, 0);
        for (int64_t i = start + 2 * width; i < end; i += width) F(row_add)(x + i, work, count);
        if (half)
            F(row_split)(work, used, used + half, rounded((width + 1) >> 1, width));
        real *here = y + to + inner.first;
        count = inner_count ? rounded(inner_count, last * d->ow - to - inner.first) : 0;
        if (d->stride_w > 2) {
            for (int64_t i = 0; i < inner_count; i++)
                here[i] = F(sum_of_few)(work + begin + i * d->stride_w, d->kernel_w);
        } else if (count) { /* a window may be far wider than the input */
            if (d->kernel_w == 1)
                F(row_first_sum)(used + pool_element(begin, half), here, count);
            else
                F(row_first_sum_of_2)(used + pool_element(begin, half),
                                      used + pool_element(begin + 1, half), here, count);
            for (int64_t w = begin + 2; w < begin + d->kernel_w; w++)
                F(row_add)(used + pool_element(w, half), here, count);
        }
        window whole = {0, d->kernel_w, d->kernel_w};
        F(row_divide)(here, count, pool_count(h, whole, include_pad, divisor));
        for (int side = 0; side < 2; side++)
            for (int64_t ow = side ? inner.last : 0; ow < (side ? d->ow : inner.first); ow++) {
                window w = pool_window(ow, d->stride_w, d->pad_w, width, d->kernel_w);
                real total = F(sum_of_few)(work + w.first, w.last - w.first);
                y[to + ow] = total / (real)pool_count(h, w, include_pad, divisor);
            }
        if (long_ones)
            F(avg_long)(x + plane * height * width, d, h, include_pad, divisor, work, y + to);
    }
}

/* The usual pooling's: each share, divided, to 2 x 2 numbers of dx. */
static void F(avg_backward_2_by_2)(const real *dy, const ln_pool2d_shape *d, int64_t divisor,
                                   real *work, int64_t first, int64_t last, real *dx)
{
    int64_t width = d->w, held = 0, written;
    real *to = dx + first * d->h * width, *buffer = work + d->ow + LN_SLACK; /* of what is written next */
    int streams = (last - first) * d->h * width * REAL_BYTES >= LN_STREAM_FROM;
    for (int64_t row = first * d->h; row < last * d->h; row++) {
        int64_t h = row % d->h, given = (row / d->h * d->oh + h / 2) * d->ow;
        if (h / 2 >= d->oh) { /* an odd row has no window */
            F(row_fill)(buffer + held, width, 0);
        } else {
            if (h % 2 == 0) {
                F(row_fetch)(dy + given, d->ow);
                memcpy(work, dy + given, (size_t)d->ow * sizeof *work);
                F(row_divide)(work, d->ow, divisor);
            }
            F(row_twice)(work, buffer + held, d->ow);
            F(row_fill)(buffer + held + 2 * d->ow, width - 2 * d->ow, 0);
        }
        held += width;
        written = streams ? F(row_stream)(buffer, to, held) : F(row_put)(buffer, to, held);
        to += written, held -= written;
        memmove(buffer, buffer + written, (size_t)held * sizeof *buffer);
    }
    memcpy(to, buffer, (size_t)held * sizeof *to);
    if (streams)
        STREAM_FENCE();
}

void OP(avg_pool2d_backward)(const real *dy, const ln_pool2d_shape *d, int64_t include_pad,
                             int64_t divisor, real *work, int64_t first, int64_t last, real *dx)
{
    int64_t height = d->h, width = d->w;
    range inner = pool_inner(d->stride_w, d->pad_w, width, d->kernel_w, d->ow);
    int64_t inner_count = inner.last - inner.first, begin = inner.first * d->stride_w - d->pad_w;
    int64_t half = width / 2 + LN_SLACK;
    real *row = work + d->ow + LN_SLACK; /* sums along a row */
    real *halves = row + width + LN_SLACK;
    window whole = {0, d->kernel_w, d->kernel_w};
    if (pool_halves(d)) {
        F(avg_backward_2_by_2)(dy, d, divisor ? divisor : 4, work, first, last, dx);
        return;
    }
    for (int64_t plane = first; plane < last; plane++) {
        real *out = dx + plane * height * width;
        int64_t fresh = 0; /* rows of dx from here on hold nothing yet */
        for (int64_t oh = 0; oh < d->oh; oh++) {
            window h = pool_window(oh, d->stride_h, d->pad_h, height, d->kernel_h);
            const real *given = dy + (plane * d->oh + oh) * d->ow;
            memcpy(work, given + inner.first, (size_t)inner_count * sizeof *work);
            F(row_divide)(work, inner_count, pool_count(h, whole, include_pad, divisor));
            F(row_fill)(row, width, 0);
            for (int side = 0; side < 2; side++) {
                if (side && d->stride_w == 1) {
                    for (int64_t j = d->kernel_w - 1; inner_count && j >= 0; j--)
                        F(row_add)(work, row + begin + j, inner_count);
                } else if (side && d->stride_w == 2 && inner_count) {
                    F(row_split)(row, halves, halves + half, (width + 1) >> 1);
                    for (int64_t j = d->kernel_w - 1; j >= 0; j--)
                        F(row_add)(work, halves + pool_element(begin + j, half), inner_count);
                    F(row_merge)(halves, halves + half, row, (width + 1) >> 1);
                } else if (side) {
                    for (int64_t i = 0; i < inner_count; i++)
                        for (int64_t j = 0; j < d->kernel_w; j++)
                            row[begin + i * d->stride_w + j] += work[i];
                }
                for (int64_t ow = side ? inner.last : 0; ow < (side ? d->ow : inner.first); ow++) {
                    window w = pool_window(ow, d->stride_w, d->pad_w, width, d->kernel_w);
                    real share = given[ow] / (real)pool_count(h, w, include_pad, divisor);
                    for (int64_t j = w.first; j < w.last; j++) row[j] += share;
                }
            }
            if (h.first > fresh) {
                F(row_fill)(out + fresh * width, (h.first - fresh) * width, 0);
                fresh = h.first;
            }
            for (int64_t i = h.first; i < h.last; i++) {
                if (i < fresh)
                    F(row_add)(row, out + i * width, width);
                else
                    memcpy(out + i * width, row, (size_t)width * sizeof *row);
            }
            fresh = pool_max(fresh, h.last);
        }
        F(row_fill)(out + fresh * width, (height - fresh) * width, 0);
    }
}

/* y[i] = maximum of elements a + i, a + step + i, ... last + i. What is an element: one of a row
 * (pitch 1), one of a row that is split (half is not 0), or a row (pitch is its length). */
static inline void F(maxima)(const real *x, int64_t a, int64_t step, int64_t last, int64_t pitch,
                             int64_t half, real *y, int64_t count, int nan)
{
    int64_t b = pool_min(a + step, last), c = pool_min(b + step, last);
    F(row_best_of_3)(x + pool_element(a, half) * pitch, x + pool_element(b, half) * pitch,
                     x + pool_element(c, half) * pitch, y, count, nan);
    while (c < last) {
        b = c + step;
        c = pool_min(b + step, last);
        F(row_better_of_2)(x + pool_element(b, half) * pitch, x + pool_element(c, half) * pitch, y, count, nan);
    }
}

void OP(max_pool2d)(const real *x, const ln_pool2d_shape *d, real *work, int64_t first, int64_t last, real *y)
{
    int64_t height = d->h, width = d->w, rows = pool_batch(width);
    int64_t extent_h = (d->kernel_h - 1) * d->dilation_h, extent_w = (d->kernel_w - 1) * d->dilation_w;
    range inner = pool_inner(d->stride_w, d->pad_w, width, extent_w + 1, d->ow);
    int64_t inner_count = inner.last - inner.first, begin = inner.first * d->stride_w - d->pad_w;
    int64_t half = (rows * width + 1) / 2 + LN_SLACK;
    real *kept = work + 2 * half;
    /* Windows along all rows of a batch in one go, where the rows' outputs do not overlap. */
    int flat = d->stride_w <= 2 && width % d->stride_w == 0 && d->ow <= width / d->stride_w;
    int64_t pitch = flat ? width / d->stride_w : d->ow + LN_SLACK;
    int64_t at = -1, base = 0, done = 0, last_nan = -1; /* rows base to done of this plane are kept */
    int64_t end_of_x = ((last - 1) / d->oh + 1) * height * width;
    for (int64_t item = first; item < last;) {
        int64_t plane = item / d->oh, from_h = item % d->oh;
        int64_t to_h = pool_min(pool_min(from_h + rows, d->oh), from_h + last - item);
        if (plane != at) {
            at = plane;
            base = done = 0;
            last_nan = -1;
        }
        int64_t top = pool_max(from_h * d->stride_h - d->pad_h, 0);
        int64_t bottom = pool_min((to_h - 1) * d->stride_h - d->pad_h + extent_h + 1, height);
        if (done > top)
            memmove(kept, kept + (top - base) * pitch, (size_t)((done - top) * pitch) * sizeof *kept);
        base = top;
        int64_t h0 = pool_max(top, done);
        done = pool_max(done, bottom);
        while (h0 < bottom) {
            int64_t h1 = pool_min(h0 + rows, bottom), size = (h1 - h0) * width;
            int64_t start = (plane * height + h0) * width;
            const real *source = x + start;
            F(row_fetch)(source, size);
            int nan = F(has_nan)(source, size);
            if (nan)
                last_nan = h1 - 1;
            if (d->stride_w == 2) {
                F(row_split)(source, work, work + half, size >> 1);
                if (size & 1)
                    work[size >> 1] = source[size - 1];
            }
            for (int64_t h = h0; inner_count && h < (flat ? h0 + 1 : h1); h++) {
                real *to = kept + (h - base) * pitch + inner.first;
                int64_t w = (h - h0) * width + begin, end = w + extent_w;
                int64_t count = flat ? (h1 - h0 - 1) * pitch + inner_count
                                     : rounded(inner_count, end_of_x - start - end);
                if (d->stride_w == 1)
                    F(maxima)(source, w, d->dilation_w, end, 1, 0, to, count, nan);
                else if (d->stride_w == 2)
                    F(maxima)(work, w, d->dilation_w, end, 1, half, to, count, nan);
                else
                    for (int64_t i = 0; i < inner_count; i++)
                        to[i] = F(max_of_few)(source + w + i * d->stride_w, d->dilation_w, d->kernel_w, nan);
            }
            for (int side = 0; side < 2; side++)
                for (int64_t ow = side ? inner.last : 0; ow < (side ? d->ow : inner.first); ow++) {
                    int64_t w = ow * d->stride_w - d->pad_w;
                    range taps = pool_taps(w, width, d->kernel_w, d->dilation_w);
                    real *to = kept + (h0 - base) * pitch + ow;
                    for (int64_t h = 0; h < h1 - h0; h++)
                        to[h * pitch] = taps.first < taps.last
                            ? F(max_of_few)(source + h * width + w + taps.first * d->dilation_w,
                                            d->dilation_w, taps.last - taps.first, nan)
                            : (real)-INFINITY;
                }
            h0 = h1;
        }
        for (int64_t oh = from_h, n; oh < to_h; oh += n) {
            int64_t to = (plane * d->oh + oh) * d->ow, h = oh * d->stride_h - d->pad_h;
            range taps = pool_taps(h, height, d->kernel_h, d->dilation_h);
            n = 1;
            if (taps.first == taps.last) {
                F(row_fill)(y + to, d->ow, (real)-INFINITY);
                continue;
            }
            int64_t count = rounded(d->ow, last * d->ow - to);
            if (d->stride_h == 1 && pitch == d->ow && h >= 0 && h + extent_h < height) {
                n = pool_min(to_h - oh, height - h - extent_h);
                count = n * d->ow;
            }
            F(maxima)(kept, h - base + taps.first * d->dilation_h, d->dilation_h,
                      h - base + (taps.last - 1) * d->dilation_h, pitch, 0, y + to, count, last_nan >= h);
        }
        item += to_h - from_h;
    }
}

/* Maximum of one window, the first tap at (h0, w0) of the plane, and its place there; no branch on
 * the values. */
static inline int64_t F(max_of_window)(const real *plane, const ln_pool2d_shape *d, int64_t h0, int64_t w0,
                                       range rows, real *y)
{
    range columns = pool_taps(w0, d->w, d->kernel_w, d->dilation_w);
    real best = (real)-INFINITY;
    int64_t place = -1;
    for (int64_t i = rows.first; i < rows.last; i++)
        for (int64_t j = columns.first; j < columns.last; j++) {
            int64_t at = (h0 + i * d->dilation_h) * d->w + w0 + j * d->dilation_w;
            int take = (plane[at] > best) | (plane[at] != plane[at]) | (place < 0);
            best = take ? plane[at] : best;
            place = take ? at : place;
        }
    *y = best;
    return place;
}

/* The same, and where each maximum is in its plane. */
void OP(max_pool2d_indices)(const real *x, const ln_pool2d_shape *d, int64_t first, int64_t last,
                            int64_t *indices, real *y)
{
    int64_t plane_size = d->h * d->w, pitch = d->dilation_h * d->w;
    int64_t reach = (d->kernel_w - 1) * d->dilation_w + 1;
    range inner = pool_inner(d->stride_w, d->pad_w, d->w, reach, d->ow);
    /* In vectors: other strides one by one, and planes of which 32 bits do not hold each place. */
    int in_vectors = d->stride_w <= 2 && plane_size < INT64_C(1) << 31;
    for (int64_t row = first; row < last; row++) {
        int64_t to = row * d->ow, here = to + inner.first, base = row / d->oh * plane_size;
        const real *plane = x + base;
        int64_t h0 = row % d->oh * d->stride_h - d->pad_h;
        range taps = pool_taps(h0, d->h, d->kernel_h, d->dilation_h);
        int64_t rows = taps.last - taps.first;
        int64_t inner_count = rows && in_vectors ? inner.last - inner.first : 0;
        int64_t start = (h0 + taps.first * d->dilation_h) * d->w + inner.first * d->stride_w - d->pad_w;
        if (inner_count) {
            F(row_fetch)(plane + start, d->stride_h * d->w);
            F(places_of_row)(plane + start, start, d->stride_w, d->dilation_w, d->kernel_w, pitch, rows,
                             y + here, indices + here, inner_count);
        }
        for (int side = 0; side < 2; side++)
            for (int64_t ow = side ? inner.first + inner_count : 0; ow < (side ? d->ow : inner.first); ow++)
                indices[to + ow] = F(max_of_window)(plane, d, h0, ow * d->stride_w - d->pad_w, taps, y + to + ow);
    }
}

void OP(max_pool2d_backward)(const real *dy, const int64_t *indices, int64_t plane_size,
                             int64_t out_size, int64_t first, int64_t last, real *dx)
{
    for (int64_t plane = first; plane < last; plane++) {
        real *out = dx + plane * plane_size;
        F(row_fill)(out, plane_size, 0);
        for (int64_t i = plane * out_size; i < (plane + 1) * out_size; i++)
            if (indices[i] >= 0)
                out[indices[i]] += dy[i];
    }
}

void OP(global_avg_pool2d)(const real *x, int64_t size, int64_t first, int64_t last, real *y)
{
    for (int64_t plane = first; plane < last; plane++)
        y[plane] = F(sum_of)(x + plane * size, size) / (real)size;
}

/* Each plane is folded into 256 columns, those by halves into one. */
void OP(global_max_pool2d)(const real *x, int64_t size, real *work, int64_t first, int64_t last, real *y)
{
    for (int64_t plane = first; plane < last; plane++) {
        const real *values = x + plane * size;
        int64_t whole = size - size % 512;
        F(row_fill)(work, 256, (real)-INFINITY);
        for (int64_t at = 0; at < whole; at += 512)
            F(row_better_of_2)(values + at, values + at + 256, work, 256, 1);
        for (int64_t at = whole; at < size; at += 256)
            F(row_better_or_nan)(values + at, work, pool_min(256, size - at));
        for (int64_t half = 128; half; half /= 2)
            F(row_better_or_nan)(work + half, work, half);
        y[plane] = work[0];
    }
}
