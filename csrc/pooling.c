/* pooling.c: pooling over NCHW arrays: plain loops, the reference kernels; the twin is
 * kernels/pooling.py, where the order of sums is told. */

#ifndef LN_POOLING_HELPERS
#define LN_POOLING_HELPERS
/* A window clipped to the input, and its length with padding. */
typedef struct {
    int64_t first, last, padded;
} window;

static inline window pool_window(int64_t out, int64_t stride, int64_t pad, int64_t size, int64_t kernel)
{
    int64_t start = out * stride - pad, end = least(start + kernel, size + pad);
    return (window){most(start, 0), least(end, size), end - start};
}

/* What an average divides by. */
static inline int64_t pool_count(window h, window w, int64_t include_pad,
                                 int64_t divisor)
{

    if (divisor)
        return divisor;
    return most(1, include_pad ? h.padded * w.padded : (h.last - h.first) * (w.last - w.first));
}
#endif

void OP(avg_pool2d)(const real *x, const ln_pool2d_shape *d, int64_t include_pad, int64_t divisor,
                    real *column_sums, int64_t first, int64_t last, real *y)
{
    for (int64_t row = first; row < last; row++) {
        int64_t plane = row / d->oh;
        window h = pool_window(row % d->oh, d->stride_h, d->pad_h, d->h, d->kernel_h);
        for (int64_t w = 0; w < d->w; w++) column_sums[w] = 0;
        for (int64_t i = h.first; i < h.last; i++) {
            const real *source = x + (plane * d->h + i) * d->w;
            INDEPENDENT for (int64_t w = 0; w < d->w; w++) column_sums[w] += source[w];
        }
        for (int64_t ow = 0; ow < d->ow; ow++) {
            window w = pool_window(ow, d->stride_w, d->pad_w, d->w, d->kernel_w);
            real total = 0;
            for (int64_t j = w.first; j < w.last; j++) total += column_sums[j];
            y[row * d->ow + ow] = total / (real)pool_count(h, w, include_pad, divisor);
        }
    }
}

void OP(avg_pool2d_backward)(const real *dy, const ln_pool2d_shape *d, int64_t include_pad,
                             int64_t divisor, int64_t first, int64_t last, real *dx)
{
    for (int64_t plane = first; plane < last; plane++) {
        real *out = dx + plane * d->h * d->w;
        for (int64_t i = 0; i < d->h * d->w; i++) out[i] = 0;
        for (int64_t oh = 0; oh < d->oh; oh++) {
            window h = pool_window(oh, d->stride_h, d->pad_h, d->h, d->kernel_h);
            for (int64_t ow = 0; ow < d->ow; ow++) {
                window w = pool_window(ow, d->stride_w, d->pad_w, d->w, d->kernel_w);
                real share = dy[(plane * d->oh + oh) * d->ow + ow];
                share /= (real)pool_count(h, w, include_pad, divisor);
                for (int64_t i = h.first; i < h.last; i++)
                    for (int64_t j = w.first; j < w.last; j++) out[i * d->w + j] += share;
            }
        }
    }
}

void OP(max_pool2d)(const real *x, const ln_pool2d_shape *d, int64_t first, int64_t last,
                    int64_t *indices, real *y)
{
    for (int64_t row = first; row < last; row++) {
        const real *plane = x + row / d->oh * d->h * d->w;
        int64_t oh = row % d->oh;
        for (int64_t ow = 0; ow < d->ow; ow++) {
            real best = (real)-INFINITY;
            int64_t best_index = -1;
            for (int64_t i = 0; i < d->kernel_h; i++) {
                int64_t h = oh * d->stride_h - d->pad_h + i * d->dilation_h;
                if (h < 0 || h >= d->h)
                    continue;
                for (int64_t j = 0; j < d->kernel_w; j++) {
                    int64_t w = ow * d->stride_w - d->pad_w + j * d->dilation_w;
                    if (w < 0 || w >= d->w)
                        continue;
                    real value = plane[h * d->w + w];
                    if (value > best || value != value || best_index < 0) {
                        best = value;
                        best_index = h * d->w + w;
                    }
                }
            }
            y[row * d->ow + ow] = best;
            if (indices)
                indices[row * d->ow + ow] = best_index;
        }
    }
}

void OP(max_pool2d_backward)(const real *dy, const int64_t *indices, int64_t plane_size,
                             int64_t out_size, int64_t first, int64_t last, real *dx)
{
    for (int64_t plane = first; plane < last; plane++) {
        real *out = dx + plane * plane_size;
        for (int64_t i = 0; i < plane_size; i++) out[i] = 0;
        for (int64_t i = plane * out_size; i < (plane + 1) * out_size; i++)
            if (indices[i] >= 0)
                out[indices[i]] += dy[i];
    }
}

void OP(global_avg_pool2d)(const real *x, int64_t size, int64_t first, int64_t last, real *y)
{
    for (int64_t plane = first; plane < last; plane++) {
        real lanes[16] = {0};
        F(add_lanes)(lanes, x + plane * size, size);
        y[plane] = F(fold)(lanes) / (real)size;
    }
}

void OP(global_max_pool2d)(const real *x, int64_t size, int64_t first, int64_t last, real *y)
{
    for (int64_t plane = first; plane < last; plane++) {
        const real *values = x + plane * size;
        real best = values[0];
        for (int64_t i = 0; i < size; i++)
            if (values[i] > best || values[i] != values[i])
                best = values[i];
        y[plane] = best;
    }
}
