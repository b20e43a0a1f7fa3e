/* convolution_stacked.c: 2D convolution of one channel at a time with 3x3, 5x5 or 7x7 filters,
 * stride and dilation 1: images, depthwise layers. The twin is kernels/convolution_stacked.py.
 *
 * The work is a range of tasks, for each (image, group, block of output rows) one for each
 * filter. */

static void F(conv2d_stacked)(const real *x, const real *weight, const real *bias,
                              const ln_conv2d_shape *d, const ln_conv2d_plan *p, const real *more,
                              int64_t rectify, int64_t first, int64_t last, real *work, real *y)
{
    struct cut cut = cut_of(d, p, 1);
    int64_t columns = (d->r == 3 ? 2 : 3) * LANES, current = -1;
    F(clear)(work, p->work); /* what is computed beyond the edges must not be slow subnormals */
    for (int64_t task = first; task < last; task++) {
        int64_t place = task / cut.k, part = task % cut.k;
        int64_t plane = place / cut.down, oh = place % cut.down * p->block_h;
        int64_t rows = least(p->block_h, d->oh - oh);
        if (place != current) {
            current = place;
            F(copy_block)(x + plane * d->h * d->w, d, &cut, 1, 0, d->top - oh, d->left, rows, d->ow,
                          work);
        }
        int64_t k = plane % d->groups * cut.k + part;
        const real *filter = weight + k * cut.terms, *b = bias ? bias + k : NULL;
        int64_t at = ((plane / d->groups * d->k + k) * d->oh + oh) * d->ow;
        real *target = y + at;
        for (int64_t i = 0; i < rows; i += STACKED_ROWS)
            for (int64_t j = 0; j < d->ow; j += columns) {
                const real *from = work + i * cut.line + j;
                real *to = target + i * d->ow + j;
                if (d->r == 3)
                    F(stacked_3)(from, cut.line, filter, b, to, d->ow, rows - i, d->ow - j);
                else if (d->r == 5)
                    F(stacked_5)(from, cut.line, filter, b, to, d->ow, rows - i, d->ow - j);
                else
                    F(stacked_7)(from, cut.line, filter, b, to, d->ow, rows - i, d->ow - j);
            }
        F(finish)(more, rectify, y, at, at + rows * d->ow);
    }
}
