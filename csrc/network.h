/* network.h: the kernels of a network that is written out as one C file (Network.to_c).
 *
 * Not compiled into the library: python/loopnest/network/export_c.py copies from here the pieces that a
 * network needs, each from its mark to the next, with the headers that hold the scalar functions.
 * Plain loops that keep the contract of the kernels proper: one accumulator for each output,
 * terms in the order (c, r, s), multiply-adds fused, padding multiplied as zeros, bias last. */

/* @conv2d */
typedef struct {
    int64_t n, c, h, w, k, r, s, oh, ow;
    int64_t stride_h, stride_w, top, left, dilation_h, dilation_w, groups;
} conv2d_shape;

static int64_t range_end(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* y[j] += x[j stride] w for the outputs [low, high), 0 w for the others */
static void multiply_row(real *y, int64_t count, int64_t low, int64_t high, const real *x,
                         int64_t stride, real w)
{
    for (int64_t j = 0; j < low; j++) y[j] = FMA((real)0, w, y[j]);
    if (stride == 1)
        for (int64_t j = low; j < high; j++) y[j] = FMA(x[j - low], w, y[j]);
    else
        for (int64_t j = low; j < high; j++) y[j] = FMA(x[(j - low) * stride], w, y[j]);
    for (int64_t j = high; j < count; j++) y[j] = FMA((real)0, w, y[j]);
}

static void conv2d(const real *x, const real *weight, const real *bias, conv2d_shape d, real *y)
{
    int64_t group_c = d.c / d.groups, group_k = d.k / d.groups;
    for (int64_t row = 0; row < d.n * d.k * d.oh; row++) {
        int64_t image = row / (d.k * d.oh), k = row / d.oh % d.k, oh = row % d.oh;
        real *out = y + row * d.ow;
        const real *tap = weight + k * group_c * d.r * d.s;
        for (int64_t j = 0; j < d.ow; j++) out[j] = 0;
        for (int64_t c = 0; c < group_c; c++) {
            const real *plane = x + (image * d.c + k / group_k * group_c + c) * d.h * d.w;
            for (int64_t i = 0; i < d.r; i++) {
                int64_t h = oh * d.stride_h - d.top + i * d.dilation_h;
                for (int64_t j = 0; j < d.s; j++) {
                    int64_t offset = j * d.dilation_w - d.left, low, high;
                    /* Outputs whose input oh stride + offset lies in the row. */
                    low = offset >= 0 ? 0 : (-offset + d.stride_w - 1) / d.stride_w;
                    high = d.w - 1 - offset < 0 ? 0 : (d.w - 1 - offset) / d.stride_w + 1;
                    low = range_end(low, 0, d.ow);
                    high = h < 0 || h >= d.h ? low : range_end(high, low, d.ow);
                    multiply_row(out, d.ow, low, high,
                                 high > low ? plane + h * d.w + low * d.stride_w + offset : plane,
                                 d.stride_w, *tap++);
                }
            }
        }
        if (bias)
            for (int64_t j = 0; j < d.ow; j++) out[j] += bias[k];
    }
}

/* @linear */
static void linear(const real *x, const real *weight, const real *bias, int64_t rows,
                   int64_t inputs, int64_t outputs, real *y)
{
    for (int64_t m = 0; m < rows; m++) {
        real *out = y + m * outputs;
        for (int64_t o = 0; o < outputs; o++) out[o] = 0;
        for (int64_t i = 0; i < inputs; i++) {
            const real value = x[m * inputs + i], *row = weight + i * outputs;
            for (int64_t o = 0; o < outputs; o++) out[o] = FMA(value, row[o], out[o]);
        }
        if (bias)
            for (int64_t o = 0; o < outputs; o++) out[o] += bias[o];
    }
}

/* @pool2d */
typedef struct {
    int64_t planes, h, w, oh, ow, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    int64_t dilation_h, dilation_w, include_pad;
} pool2d_shape;

/* @max_pool2d: of equal values the first, of NaNs the last; minus infinity over nothing */
static void max_pool2d(const real *x, pool2d_shape d, real *y)
{
    for (int64_t row = 0; row < d.planes * d.oh; row++)
        for (int64_t ow = 0; ow < d.ow; ow++) {
            const real *plane = x + row / d.oh * d.h * d.w;
            real best = (real)-INFINITY;
            int found = 0;
            for (int64_t i = 0; i < d.kernel_h; i++) {
                int64_t h = row % d.oh * d.stride_h - d.pad_h + i * d.dilation_h;
                if (h < 0 || h >= d.h)
                    continue;
                for (int64_t j = 0; j < d.kernel_w; j++) {
                    int64_t w = ow * d.stride_w - d.pad_w + j * d.dilation_w;
                    if (w < 0 || w >= d.w)
                        continue;
                    real value = plane[h * d.w + w];
                    if (value > best || value != value || !found)
                        best = value;
                    found = 1;
                }
            }
            y[row * d.ow + ow] = best;
        }
}

/* @avg_pool2d */
/* Sum over rows [top, bottom) and columns [left, right) of a plane, of more terms than a run. */
static real long_window(const real *plane, int64_t width, int64_t top, int64_t bottom, int64_t left,
                        int64_t right)
{
    real sum[LN_SUM_SIZE], columns[LN_COLUMNS];
    int64_t terms = 0;
    F(start_sum)(sum, 1);
    for (int64_t w = left, count; w < right; w += count) {
        count = right - w < LN_COLUMNS ? right - w : LN_COLUMNS;
        F(sum_columns)(plane + top * width + w, width, bottom - top, count, columns);
        terms = F(add_to_sum)(sum, terms, columns, count);
    }
    return *F(sum_total)(sum, terms, 1);
}

/* Each column of a window from the top, then the columns from the left. */
static void avg_pool2d(const real *x, pool2d_shape d, real *y)
{
    for (int64_t row = 0; row < d.planes * d.oh; row++)
        for (int64_t ow = 0; ow < d.ow; ow++) {
            const real *plane = x + row / d.oh * d.h * d.w;
            int64_t top = row % d.oh * d.stride_h - d.pad_h, left = ow * d.stride_w - d.pad_w;
            int64_t bottom = top + d.kernel_h, right = left + d.kernel_w, count;
            bottom = bottom < d.h + d.pad_h ? bottom : d.h + d.pad_h;
            right = right < d.w + d.pad_w ? right : d.w + d.pad_w;
            count = (bottom - top) * (right - left);
            top = top > 0 ? top : 0;
            left = left > 0 ? left : 0;
            bottom = bottom < d.h ? bottom : d.h;
            right = right < d.w ? right : d.w;
            if (!d.include_pad)
                count = (bottom - top) * (right - left);
            const int is_long = (bottom - top) * (right - left) > LN_RUN;
            real total = is_long ? long_window(plane, d.w, top, bottom, left, right) : 0;
            for (int64_t w = left; w < right && !is_long; w++) {
                real column = 0;
                for (int64_t h = top; h < bottom; h++) column += plane[h * d.w + w];
                total += column;
            }
            y[row * d.ow + ow] = total / (real)(count > 1 ? count : 1);
        }
}

/* @global_avg_pool2d */
static void global_avg_pool2d(const real *x, int64_t planes, int64_t size, real *y)
{
    for (int64_t plane = 0; plane < planes; plane++)
        y[plane] = F(sum_of)(x + plane * size, size) / (real)size;
}

/* @global_max_pool2d: 256 columns, folded by halves: which of 0 and -0 comes out depends on it */
static void global_max_pool2d(const real *x, int64_t planes, int64_t size, real *y)
{
    for (int64_t plane = 0; plane < planes; plane++) {
        real best[256];
        for (int j = 0; j < 256; j++) best[j] = (real)-INFINITY;
        for (int64_t i = 0; i < size; i++) {
            real v = x[plane * size + i];
            if (v > best[i % 256] || v != v)
                best[i % 256] = v;
        }
        for (int half = 128; half; half /= 2)
            for (int j = 0; j < half; j++)
                if (best[j + half] > best[j] || best[j + half] != best[j + half])
                    best[j] = best[j + half];
        y[plane] = best[0];
    }
}

/* @row_max */
static real row_max(const real *x, int64_t count)
{
    real best = x[0];
    for (int64_t i = 0; i < count; i++)
        if (x[i] > best || x[i] != x[i])
            best = x[i];
    return best;
}

/* @softmax */
static void softmax(const real *x, int64_t rows, int64_t classes, real *y)
{
    for (int64_t n = 0; n < rows; n++, x += classes, y += classes) {
        real top = row_max(x, classes);
        for (int64_t i = 0; i < classes; i++) y[i] = F(exp)(x[i] - top);
        real factor = 1 / F(sum_of)(y, classes);
        for (int64_t i = 0; i < classes; i++) y[i] *= factor;
    }
}

/* @log_softmax */
/* Sum of exp(x - top), with or without that of the top itself. */
static real sum_of_exponentials(const real *x, int64_t count, real top, int all)
{
    real sum[LN_SUM_SIZE];
    int64_t terms = 0;
    F(start_sum)(sum, 1);
    for (int64_t i = 0; i < count; i++) {
        real term = all || x[i] != top ? F(exp)(x[i] - top) : 0;
        sum[i % 16] += term;
        if (++terms % LN_RUN == 0)
            F(end_run)(sum, terms / LN_RUN - 1, 1);
    }
    return *F(sum_total)(sum, terms, 1);
}

static void log_softmax(const real *x, int64_t rows, int64_t classes, real *y)
{
    for (int64_t n = 0; n < rows; n++, x += classes, y += classes) {
        real top = row_max(x, classes), total = sum_of_exponentials(x, classes, top, 1);
        real rest = total < F(small_sum)
                        ? F(log_one_plus)(sum_of_exponentials(x, classes, top, 0)) : F(log)(total);
        for (int64_t i = 0; i < classes; i++) y[i] = (x[i] - top) - rest;
    }
}

/* @affine: x scale + shift, rounded twice */
static void affine(const real *x, int64_t n, real scale, real shift, real *y)
{
    if (shift == 0)
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale;
    else
        for (int64_t i = 0; i < n; i++) y[i] = x[i] * scale + shift;
}

/* @fill */
static void fill(real value, int64_t n, real *y)
{
    for (int64_t i = 0; i < n; i++) y[i] = value;
}

/* @move: y[at] = x[at], or with `how` 1 y[at] += x[at], over strided elements */
static void move(const real *x, const int64_t a[5], real *y, const int64_t b[5],
                 const int64_t shape[5], int how)
{
    for (int64_t i0 = 0; i0 < shape[0]; i0++)
        for (int64_t i1 = 0; i1 < shape[1]; i1++)
            for (int64_t i2 = 0; i2 < shape[2]; i2++)
                for (int64_t i3 = 0; i3 < shape[3]; i3++) {
                    const real *p = x + i0 * a[0] + i1 * a[1] + i2 * a[2] + i3 * a[3];
                    real *q = y + i0 * b[0] + i1 * b[1] + i2 * b[2] + i3 * b[3];
                    for (int64_t i = 0; i < shape[4]; i++) {
                        if (how == 0)
                            q[i * b[4]] = p[i * a[4]];
                        else
                            q[i * b[4]] += p[i * a[4]];
                    }
                }
}
/* @end */
