/* convolution_tiled.c: 2D convolution in register tiles over blocks of the input; how blocks
 * look is told in kernels/convolution_plan.py, the tiles are in tiles.h. The twin is
 * kernels/convolution_tiled.py.
 *
 * The work is a range of tasks, for each (image, group, block of output) one for each block
 * of filters, in this order: whoever computes a range copies each block of input once. */

/* One run of pixels by a panel of channels; x is readable for a whole number of tiles. */
static void F(pixel_row_run)(const real *x, const int64_t *taps, int64_t terms, const real *panel,
                             const real *bias, const real *more, int rectify, real *y,
                             int64_t y_step, int64_t channels, int64_t pixels)
{
    for (int64_t k = 0; k < channels; k += 2 * LANES) {
        const real *w = panel + k, *b = bias ? bias + k : NULL;
        int64_t some = least(channels - k, 2 * LANES), done = 0;
        while (done < pixels) {
            const real *from = x + done, *add = more ? more + k * y_step + done : NULL;
            real *to = y + k * y_step + done;
            int64_t left = pixels - done;
            if (some <= LANES) {
                F(many_pixels_narrow)
                (from, taps, terms, w, b, add, rectify, to, y_step, some, left);
                done += PIXEL_ROWS;
            } else if (left > FEW_PIXEL_ROWS) {
                F(many_pixels_wide)(from, taps, terms, w, b, add, rectify, to, y_step, some, left);
                done += PIXEL_ROWS;
            } else {
                F(few_pixels_wide)(from, taps, terms, w, b, add, rectify, to, y_step, some, left);
                done += FEW_PIXEL_ROWS;
            }
        }
    }
}

/* One run of pixels by up to TASK_CHANNELS channels; weight and bias are readable for as many,
 * unless there is but one; x for `beyond` numbers more than the run, which is a whole number of
 * vectors if that is 0. */
static void F(channel_row_run)(const real *weight, const int64_t *taps, int64_t terms,
                               const real *x, int64_t beyond, const real *bias, const real *more,
                               int rectify, real *y, int64_t y_step, int64_t channels,
                               int64_t pixels)
{
    for (int64_t k = 0; k < channels; k += CHANNEL_ROWS) {
        const real *w = weight + k * terms, *b = bias ? bias + k : NULL;
        int64_t some = least(channels - k, CHANNEL_ROWS), done = 0;
        while (done < pixels) {
            const real *from = x + done, *add = more ? more + k * y_step + done : NULL;
            real *to = y + k * y_step + done;
            int64_t left = pixels - done;
            if (some == 1 && left + beyond >= 8 * LANES) {
                F(one_channel)
                (w, terms, from, taps, terms, b, add, rectify, to, y_step, some, left);
                done += 8 * LANES;
            } else if (1 < some && some <= FEW_CHANNEL_ROWS && left + beyond >= 4 * LANES) {
                F(few_channels)
                (w, terms, from, taps, terms, b, add, rectify, to, y_step, some, left);
                done += 4 * LANES;
            } else if (some > FEW_CHANNEL_ROWS && left > 2 * LANES) {
                F(many_channels)
                (w, terms, from, taps, terms, b, add, rectify, to, y_step, some, left);
                done += 3 * LANES;
            } else {
                F(many_channels_narrow)
                (w, terms, from, taps, terms, b, add, rectify, to, y_step, some, left);
                done += LANES;
            }
        }
    }
}

/* Filters [first, first + k) in panels, one after the other. */
static void F(pack_group)(const real *weight, int64_t first, int64_t k, int64_t terms, real *target)
{
    for (int64_t part = 0; part < k; part += PANEL)
        F(pack_panel)(weight + (first + part) * terms, terms, least(PANEL, k - part), terms,
                      target + part * terms);
}

void OP(conv2d_tiled)(const real *x, const real *weight, const real *bias,
                      const ln_conv2d_shape *d, const ln_conv2d_plan *p, const real *packed,
                      const real *more, int64_t rectify, int64_t first, int64_t last, real *work,
                      int64_t *taps, real *y)
{
    if (p->method == LN_PLAIN) {
        OP(conv2d)(x, weight, bias, d, first, last, y);
        F(finish)(more, rectify, y, first * d->ow, last * d->ow);
        return;
    }
    if (p->method == LN_STACKED) {
        F(conv2d_stacked)(x, weight, bias, d, p, more, rectify, first, last, y);
        return;
    }
    int pixels = p->method == LN_PIXELS;
    struct cut cut = cut_of(d, p, pixels ? PANEL : TASK_CHANNELS);
    /* A 1x1 of whole planes reads the image where it is, as far as tiles reach; what is left of a
     * block, less than a tile, is copied. */
    int in_place = d->r * d->s * d->stride_h * d->stride_w == 1 && d->h == 1 && d->w == d->ow
                   && d->left == 0;
    int64_t unit = pixels ? PIXEL_ROWS : LANES, *plane_taps = taps + cut.terms + TAPS_AHEAD;
    if (in_place) {
        cut.line = least(unit, p->block_w);
        cut.copy_size = cut.channels * cut.line;
        for (int64_t c = 0; c < cut.channels; c++) plane_taps[c] = c * d->w;
        extend_taps(plane_taps, cut.channels);
    }
    int kept = F(keeps_packed)(p->method, cut.deep, cut.terms);
    real *own = work; /* filters of a task, or those that are kept; then its bias */
    real *own_bias = own + cut.filters * cut.terms * (kept ? cut.deep : 1);
    real *copy = own + F(own_size)(p->method, cut.deep, cut.terms);
    int64_t plane = d->oh * d->ow, current = -1, packed_group = -1;
    tap_table(d, &cut, p->flat, cut.channels, taps);
    extend_taps(taps, cut.terms);
    for (int64_t task = first; task < last; task++) {
        int64_t place = task / cut.deep, part = task % cut.deep;
        int64_t block_x = place % cut.across, rest = place / cut.across;
        int64_t block_y = rest % cut.down, image = rest / cut.down / d->groups;
        int64_t group = rest / cut.down % d->groups;
        int64_t oh = block_y * p->block_h, ow = block_x * p->block_w;
        int64_t rows = least(p->block_h, d->oh - oh), columns = least(p->block_w, d->ow - ow);
        const real *planes = x + (image * d->c + group * cut.channels) * d->h * d->w;
        int64_t whole = columns / unit * unit;
        if (place != current) {
            if (current < 0 || (cut.across > 1 && !in_place))
                F(clear)(copy, cut.copy_size + SLACK);
            current = place;
            if (in_place)
                F(copy_rows)(planes + ow + whole, d->w, 1, copy, cut.line, cut.channels,
                             columns - whole);
            else
                F(copy_block)(planes, d, &cut, cut.channels, p->flat, d->top - oh * d->stride_h,
                              d->left - ow * d->stride_w, rows, columns, copy);
        }
        int64_t k = group * cut.k + part * cut.filters;
        int64_t count = least(cut.filters, cut.k - part * cut.filters);
        const real *filters = weight + k * cut.terms, *b = bias ? bias + k : NULL;
        if (pixels && packed) {
            filters = packed + (group * cut.deep + part) * cut.terms * PANEL;
        } else if (pixels && kept) {
            if (group != packed_group)
                F(pack_group)(weight, group * cut.k, cut.k, cut.terms, own);
            packed_group = group;
            filters = own + part * cut.terms * PANEL;
        } else if (pixels) {
            F(pack_panel)(filters, cut.terms, count, cut.terms, own);
            filters = own;
        } else if ((count > 1 || in_place) && count < TASK_CHANNELS) { /* tiles have more rows: they read a copy */
            F(copy_numbers)(filters, count * cut.terms, own);
            F(clear)(own + count * cut.terms, (TASK_CHANNELS - count) * cut.terms);
            filters = own;
        }
        if (bias) {
            F(copy_numbers)(b, count, own_bias);
            F(clear)(own_bias + count, cut.filters - count);
            b = own_bias;
        }
        int64_t runs = p->flat ? 1 : rows, run = p->flat ? rows * columns : columns;
        int64_t at = (image * d->k + k) * plane + oh * d->ow + ow;
        for (int64_t i = 0; i < (in_place ? 2 : runs); i++) {
            const real *from = copy + i * cut.line;
            const int64_t *table = taps;
            int64_t start = i * d->ow, beyond = SLACK;
            if (in_place && i == 0) {
                from = planes + ow;
                table = plane_taps;
                run = whole;
                beyond = 0;
            } else if (in_place) {
                from = copy;
                start = whole;
                run = columns - whole;
            }
            real *to = y + at + start;
            const real *add = more ? more + at + start : NULL;
            if (pixels)
                F(pixel_row_run)(from, table, cut.terms, filters, b, add, rectify != 0, to, plane,
                                 count, run);
            else
                F(channel_row_run)(filters, table, cut.terms, from, beyond, b, add, rectify != 0, to,
                                   plane, count, run);
        }
    }
}

void OP(pack_conv2d_size)(const ln_conv2d_shape *d, int64_t *size)
{
    *size = d->groups * ceil_div(d->k / d->groups, PANEL) * (d->c / d->groups * d->r * d->s) * PANEL;
}

void OP(pack_conv2d)(const real *weight, const ln_conv2d_shape *d, real *packed)
{
    int64_t k = d->k / d->groups, terms = d->c / d->groups * d->r * d->s;
    for (int64_t group = 0; group < d->groups; group++)
        F(pack_group)(weight, group * k, k, terms, packed + group * ceil_div(k, PANEL) * terms * PANEL);
}
