/* convolution_pointwise.c: 2D convolution with 1x1 filters, stride 1, no padding: the product of
 * the matrix of filters with that of planes. The twin is kernels/convolution_pointwise.py.
 *
 * The work is a range of tasks: for each (image, group, strip of pixels) one for each block of
 * filters. The sums of a task go by slices of channels, so that a slice of the strip stays in L1 for
 * all filters. It is read where it is if planes begin where vectors do, or if the filters are few and
 * the strip is whole, else through a copy. */

/* All filters of a task over a slice of channels: x are `channels` runs of `pixels`, x_step apart,
 * and readable for whole vectors; weights of a filter are terms apart. y is NULL but for the last
 * slice; the strip `ahead` numbers further is asked for. */
static void F(pointwise_slice)(const real *x, int64_t x_step, int64_t ahead, int64_t channels,
                               int64_t pixels, const real *weight, int64_t terms, int64_t filters,
                               int starts, const real *bias, const real *more, int rectify, real *y,
                               int64_t y_step, real *sums, real *own)
{
    for (int64_t k = 0; k < filters; k += CHANNEL_ROWS) {
        const real *a = weight + k * terms, *b = bias ? bias + k : NULL;
        int64_t a_step = terms, count = least(filters - k, CHANNEL_ROWS);
        if (count < CHANNEL_ROWS) { /* tiles have more rows: they read a copy */
            a = own;
            a_step = channels;
            F(clear)(own, CHANNEL_ROWS * (channels + 1));
            F(copy_rows)(weight + k * terms, terms, 1, own, channels, count, channels);
            if (bias) {
                F(copy_numbers)(b, count, own + CHANNEL_ROWS * channels);
                b = own + CHANNEL_ROWS * channels;
            }
        }
        for (int64_t j = 0, step; j < pixels; j += step) {
            int64_t at = k * y_step + j, left = pixels - j, next = k ? 0 : ahead;
            const real *add = more ? more + at : NULL;
            real *to = y ? y + at : NULL, *waiting = sums + k * POINTWISE_PIXELS + j * CHANNEL_ROWS;
            if (left > 2 * LANES) {
                F(many_planes)
                (a, a_step, x + j, x_step, channels, next, waiting, starts, b, add, rectify, to,
                 y_step, count, left);
                step = 3 * LANES;
            } else {
                F(many_planes_narrow)
                (a, a_step, x + j, x_step, channels, next, waiting, starts, b, add, rectify, to,
                 y_step, count, left);
                step = LANES;
            }
        }
    }
}

static void F(conv2d_pointwise)(const real *x, const real *weight, const real *bias,
                                const ln_conv2d_shape *d, const real *more, int rectify,
                                int64_t first, int64_t last, real *work, real *y)
{
    int64_t channels = d->c / d->groups, k = d->k / d->groups, plane = d->oh * d->ow;
    int64_t strip = F(pointwise_pixels)(channels, k), strips = ceil_div(plane, strip);
    int64_t deep = ceil_div(k, POINTWISE_FILTERS);
    int aligned = plane % LANES == 0;
    real *sums = work, *copy = sums + POINTWISE_FILTERS * POINTWISE_PIXELS;
    real *own = copy + POINTWISE_CHANNELS * POINTWISE_PIXELS;
    if (!aligned) /* what is not used must not be slow subnormals */
        F(clear)(copy, POINTWISE_CHANNELS * POINTWISE_PIXELS);
    for (int64_t task = first; task < last; task++) {
        int64_t part = task % deep, place = task / deep, group = place / strips % d->groups;
        int64_t image = place / strips / d->groups, start = place % strips * strip;
        int64_t pixels = least(strip, plane - start);
        int in_place = aligned || (k <= UNALIGNED_FILTERS && pixels == strip);
        int64_t filter = group * k + part * POINTWISE_FILTERS;
        int64_t filters = least(POINTWISE_FILTERS, k - part * POINTWISE_FILTERS);
        int64_t at = (image * d->k + filter) * plane + start;
        for (int64_t c = 0; c < channels; c += POINTWISE_CHANNELS) {
            int64_t count = least(POINTWISE_CHANNELS, channels - c), step = plane;
            const real *from = x + (image * d->c + group * channels + c) * plane + start;
            if (!in_place) {
                F(copy_rows)(from, plane, 1, copy, strip, count, pixels);
                from = copy;
                step = strip;
            }
            F(pointwise_slice)(from, step, in_place ? strip : 0, count, pixels,
                               weight + filter * channels + c, channels, filters, c == 0,
                               bias ? bias + filter : NULL, more ? more + at : NULL, rectify,
                               c + count == channels ? y + at : NULL, plane, sums, own);
        }
    }
}
