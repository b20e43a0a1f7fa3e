/* convolution.c: 2D convolution (cross-correlation) over NCHW arrays: plain loops, the
 * reference kernels; the twin is kernels/convolution.py.
 *
 * One accumulator per output, taps in the order (c, r, s), every multiply-add fused,
 * padding read as zeros, bias added last. Small images are what these loops serve: with stride 1
 * the outputs of a vector stay in a register over all taps. */

#ifndef LN_CONVOLUTION_HELPERS
#define LN_CONVOLUTION_HELPERS
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

enum { SPAN = 64 }; /* columns of a row that F(span) tells about */

/* Division that rounds down, for a positive divisor. */
static inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

/* Outputs [low, high) whose input out*stride + offset lies in [0, size). */
static inline void valid_range(int64_t size, int64_t out_size, int64_t stride, int64_t offset,
                               int64_t *low, int64_t *high)
{
    *low = least(most(0, floor_div(-offset + stride - 1, stride)), out_size);
    *high = least(most(*low, floor_div(size - 1 - offset, stride) + 1), out_size);
}
#endif

/* y[j y_step] += x[j x_step] w */
static inline void F(multiply_row)(real *y, int64_t y_step, int64_t count, const real *x,
                                   int64_t x_step, real w)
{
    if (y_step == 1 && x_step == 1) {
        INDEPENDENT for (int64_t j = 0; j < count; j++) y[j] = FMA(x[j], w, y[j]);
    } else {
        INDEPENDENT for (int64_t j = 0; j < count; j++)
            y[j * y_step] = FMA(x[j * x_step], w, y[j * y_step]);
    }
}

/* y[j step] += 0 w: a tap on padding (it matters where w is inf or NaN). */
static inline void F(multiply_zeros)(real *y, int64_t step, int64_t count, real w)
{
    INDEPENDENT for (int64_t j = 0; j < count; j++) y[j * step] = FMA((real)0, w, y[j * step]);
}

/* Rows [oh, end) of an output plane, stride 1, a vector of outputs in a register at a time. x is
 * the first plane of the group, outside of which is zero. All taps of a row are within SPAN columns. */
static void F(conv2d_near)(const real *x, const real *weight, const real *bias,
                           const ln_conv2d_shape *d, int64_t oh, int64_t end, real *y)
{
    int64_t channels = d->c / d->groups, height = d->h, width = d->w;
    int64_t r = d->r, s = d->s, dilation_h = d->dilation_h, dilation_w = d->dilation_w;
    for (int64_t j = 0; j < d->ow; j += LANES) {
        int64_t left = j - d->left;
        F(span) inside = F(span_of)(-left, width - left), outside = F(span_of)(0, 0);
        F(mask) some = F(first_lanes)(d->ow - j);
        for (int64_t row = oh; row < end; row++) {
            const real *tap = weight;
            F(vec) total = {0};
            for (int64_t c = 0; c < channels; c++)
                for (int64_t i = 0; i < r; i++) {
                    int64_t h = row * d->stride_h - d->top + i * dilation_h;
                    F(span) span = 0 <= h && h < height ? inside : outside;
                    uint64_t start = (uint64_t)((c * height + h) * width + left);
                    const real *from = (const real *)((uintptr_t)x + start * sizeof *x);
                    for (int64_t t = 0; t < s; t++) {
                        F(vec) pixels = F(load_within)(from, (int)(t * dilation_w), span);
                        total = F(fma)(pixels, F(splat)(*tap++), total);
                    }
                }
            if (bias) total += F(splat)(*bias);
            F(store_some)(y + row * d->ow + j, total, some);
        }
    }
}

/* Row oh of an output plane, tap by tap. */
static void F(conv2d_row)(const real *x, const real *tap, const real *bias,
                          const ln_conv2d_shape *d, int64_t oh, real *y)
{
    for (int64_t j = 0; j < d->ow; j++) y[j] = 0;
    for (int64_t c = 0; c < d->c / d->groups; c++, x += d->h * d->w)
        for (int64_t i = 0; i < d->r; i++) {
            int64_t h = oh * d->stride_h - d->top + i * d->dilation_h;
            for (int64_t j = 0; j < d->s; j++) {
                real w = *tap++;
                if (h < 0 || h >= d->h) {
                    F(multiply_zeros)(y, 1, d->ow, w);
                    continue;
                }
                int64_t low, high, offset = j * d->dilation_w - d->left;
                valid_range(d->w, d->ow, d->stride_w, offset, &low, &high);
                F(multiply_zeros)(y, 1, low, w);
                if (high > low)
                    F(multiply_row)(y + low, 1, high - low,
                                    x + h * d->w + low * d->stride_w + offset, d->stride_w, w);
                F(multiply_zeros)(y + high, 1, d->ow - high, w);
            }
        }
    if (bias)
        for (int64_t j = 0; j < d->ow; j++) y[j] += *bias;
}

void OP(conv2d)(const real *x, const real *weight, const real *bias, const ln_conv2d_shape *d,
                int64_t first, int64_t last, real *y)
{
    int64_t group_channels = d->c / d->groups, group_k = d->k / d->groups;
    int near = d->stride_w == 1 && (d->s - 1) * d->dilation_w + LANES <= SPAN;
    for (int64_t row = first; row < last;) { /* the rows of a plane of y at a time */
        int64_t plane = row / d->oh, image = plane / d->k, k = plane % d->k;
        int64_t oh = row - plane * d->oh, end = least(d->oh, oh + last - row);
        const real *from = x + (image * d->c + k / group_k * group_channels) * d->h * d->w;
        const real *taps = weight + k * group_channels * d->r * d->s, *b = bias ? bias + k : NULL;
        real *out = y + plane * d->oh * d->ow;
        row += end - oh;
        if (near)
            F(conv2d_near)(from, taps, b, d, oh, end, out);
        else
            for (; oh < end; oh++) F(conv2d_row)(from, taps, b, d, oh, out + oh * d->ow);
    }
}

void OP(conv2d_backward_input)(const real *dy, const real *weight, const ln_conv2d_shape *d,
                               int64_t first, int64_t last, real *dx)
{
    int64_t group_channels = d->c / d->groups, group_k = d->k / d->groups;
    for (int64_t row = first; row < last; row++) {
        int64_t image = row / (d->c * d->h), rest = row % (d->c * d->h);
        int64_t channel = rest / d->h, h = rest % d->h;
        int64_t group = channel / group_channels, c = channel % group_channels;
        real *out = dx + row * d->w;
        for (int64_t j = 0; j < d->w; j++) out[j] = 0;
        for (int64_t k = group * group_k; k < (group + 1) * group_k; k++) {
            for (int64_t i = d->r - 1; i >= 0; i--) { /* in the order of dy's pixels */
                int64_t from = h + d->top - i * d->dilation_h;
                int64_t oh = floor_div(from, d->stride_h);
                if (oh * d->stride_h != from)
                    continue;
                for (int64_t j = d->s - 1; j >= 0; j--) {
                    real w = weight[((k * group_channels + c) * d->r + i) * d->s + j];
                    /* Positions begin + m stride_w get dy at column base + m. */
                    int64_t offset = j * d->dilation_w - d->left;
                    int64_t begin = offset - floor_div(offset, d->stride_w) * d->stride_w;
                    int64_t base = floor_div(begin - offset, d->stride_w);
                    int64_t count = most(0, floor_div(d->w - begin + d->stride_w - 1, d->stride_w));
                    if (oh < 0 || oh >= d->oh) {
                        F(multiply_zeros)(out + begin, d->stride_w, count, w);
                        continue;
                    }
                    int64_t low = least(most(0, -base), count);
                    int64_t high = least(most(low, d->ow - base), count);
                    F(multiply_zeros)(out + begin, d->stride_w, low, w);
                    if (high > low)
                        F(multiply_row)(out + begin + low * d->stride_w, d->stride_w, high - low,
                                        dy + ((image * d->k + k) * d->oh + oh) * d->ow + base + low,
                                        1, w);
                    if (count > high)
                        F(multiply_zeros)(out + begin + high * d->stride_w, d->stride_w,
                                          count - high, w);
                }
            }
        }
    }
}

void OP(conv2d_backward_weight)(const real *x, const real *dy, const ln_conv2d_shape *d,
                                int64_t first, int64_t last, real *dweight)
{
    int64_t group_channels = d->c / d->groups, group_k = d->k / d->groups;
    for (int64_t k = first; k < last; k++) {
        real *taps = dweight + k * group_channels * d->r * d->s;
        for (int64_t t = 0; t < group_channels * d->r * d->s; t++) taps[t] = 0;
        for (int64_t image = 0; image < d->n; image++)
            for (int64_t oh = 0; oh < d->oh; oh++) {
                const real *slopes = dy + ((image * d->k + k) * d->oh + oh) * d->ow;
                for (int64_t t = 0; t < group_channels * d->r * d->s; t++) {
                    int64_t c = t / (d->r * d->s), i = t / d->s % d->r, j = t % d->s;
                    int64_t h = oh * d->stride_h - d->top + i * d->dilation_h;
                    int inside = 0 <= h && h < d->h;
                    const real *plane =
                        x + (image * d->c + k / group_k * group_channels + c) * d->h * d->w;
                    real total = taps[t];
                    for (int64_t ow = 0; ow < d->ow; ow++) {
                        int64_t w = ow * d->stride_w - d->left + j * d->dilation_w;
                        real value = inside && 0 <= w && w < d->w ? plane[h * d->w + w] : 0;
                        total = FMA(slopes[ow], value, total);
                    }
                    taps[t] = total;
                }
            }
    }
}

void OP(conv2d_backward_bias)(const real *dy, const ln_conv2d_shape *d, int64_t first,
                              int64_t last, real *dbias)
{
    int64_t plane = d->oh * d->ow;
    for (int64_t k = first; k < last; k++) {
        real sum[LN_SUM_SIZE];
        int64_t terms = 0;
        F(start_sum)(sum, 1);
        for (int64_t image = 0; image < d->n; image++)
            terms = F(add_to_sum)(sum, terms, dy + (image * d->k + k) * plane, plane);
        dbias[k] = *F(sum_total)(sum, terms, 1);
    }
}
