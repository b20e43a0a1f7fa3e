/* convolution_stacked.c: 2D convolution of one channel at a time with 3x3, 5x5 or 7x7 filters,
 * stride and dilation 1: images, depthwise layers. The twin is kernels/convolution_stacked.py.
 *
 * The image is read where it is (a padded copy would cost as much as the work); tiles at its edges
 * read zeros around it. The work is a range of tasks, for each (image, group, block of output
 * rows) one for each filter. */

/* Output rows [oh, end) of one plane: x is the input's plane, y and what follows are the filter's. */
PIECE void F(stack_block)(const real *x, const ln_conv2d_shape *d, int64_t oh, int64_t end,
                          const real *filter, const real *bias, real *y, int nv, int size)
{
    int tile_h = STACKED_ROWS + size - 1, columns = nv * LANES, tile_w = columns + size - 1;
    for (int64_t i = oh; i < end; i += STACKED_ROWS)
        for (int64_t j = 0; j < d->ow; j += columns) {
            int64_t h = i - d->top, w = j - d->left, height = end - i, width = d->ow - j;
            uintptr_t from = (uintptr_t)x + (uintptr_t)(h * d->w + w) * sizeof *x;
            struct seen seen = {-h, d->h - h, -w, d->w - w};
            int whole = height >= STACKED_ROWS && width >= columns;
            if (whole && h >= 0 && w >= 0 && seen.bottom >= tile_h && seen.right >= tile_w)
                F(stacked_rows)((const real *)from, d->w, 0, seen, filter, bias, y + i * d->ow + j,
                                d->ow, height, width, nv, size);
            else
                F(stacked_rows)((const real *)from, d->w, 1, seen, filter, bias, y + i * d->ow + j,
                                d->ow, height, width, nv, size);
        }
}

#define STACK(size, nv) \
    static void F(stack_##size)(const real *x, const ln_conv2d_shape *d, int64_t oh, int64_t end, \
                                const real *filter, const real *bias, real *y) \
    { \
        F(stack_block)(x, d, oh, end, filter, bias, y, nv, size); \
    }
STACK(3, 2) /* two vectors: wider tiles leave more lanes idle */
STACK(5, 2)
STACK(7, 2)
#undef STACK

static void F(conv2d_stacked)(const real *x, const real *weight, const real *bias,
                              const ln_conv2d_shape *d, const ln_conv2d_plan *p, const real *more,
                              int64_t rectify, int64_t first, int64_t last, real *y)
{
    int64_t k = d->k / d->groups, down = ceil_div(d->oh, p->block_h), plane = d->oh * d->ow;
    for (int64_t task = first; task < last; task++) {
        int64_t place = task / k, input = place / down, oh = place % down * p->block_h;
        int64_t end = least(oh + p->block_h, d->oh), filter = input % d->groups * k + task % k;
        int64_t at = (input / d->groups * d->k + filter) * plane;
        const real *from = x + input * d->h * d->w, *w = weight + filter * d->r * d->s;
        const real *b = bias ? bias + filter : NULL;
        if (d->r == 3)
            F(stack_3)(from, d, oh, end, w, b, y + at);
        else if (d->r == 5)
            F(stack_5)(from, d, oh, end, w, b, y + at);
        else
            F(stack_7)(from, d, oh, end, w, b, y + at);
        F(finish)(more, rectify, y, at + oh * d->ow, at + end * d->ow);
    }
}
