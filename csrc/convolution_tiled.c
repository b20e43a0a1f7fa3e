/* convolution_tiled.c: 2D convolution in register tiles over blocks of the input; how blocks
 * look is told in kernels/convolution_plan.py, the tiles are in tiles.h. The twin is
 * kernels/convolution_tiled.py.
 *
 * The work is a range of tasks, for each (image, group, block of output) one for each block
 * of filters, in this order: whoever computes a range copies each block of input once. */

/* Runs of pixels, `line` apart, by a panel of channels; x is readable for a whole number of tiles.
 * Long sums go by slices of terms: the weights of one stay in L1 over a strip of tiles, whose sums
 * wait in `sums`. */
static void F(pixel_row_runs)(const real *x, int64_t line, int64_t runs, int64_t run,
                              const int64_t *taps, int64_t terms, const real *panel,
                              const real *bias, const real *more, int rectify, real *y,
                              int64_t y_step, int64_t y_line, int64_t channels, real *sums)
{
    int64_t in_run = ceil_div(run, PIXEL_ROWS), tiles = runs * in_run;
    int64_t slice = ceil_div(terms, ceil_div(terms, TERMS_IN_L1));
    int wide = channels > LANES;
    for (int64_t strip = 0; strip < tiles; strip += STRIP_TILES)
        for (int64_t t = 0; t < terms; t += slice)
            for (int64_t tile = strip; tile < least(strip + STRIP_TILES, tiles); tile++) {
                int64_t i = tile / in_run, j = tile % in_run * PIXEL_ROWS, left = run - j;
                int64_t at = i * y_line + j, count = least(slice, terms - t);
                int last = t + count == terms;
                const real *from = x + i * line + j, *weight = panel + t * PANEL;
                real *own = sums + (tile - strip) * PIXEL_ROWS * 2 * LANES;
                /* The weights of the next slice: each tile asks for its share. */
                uintptr_t step = PANEL * sizeof(real) / least(STRIP_TILES, tiles - strip);
                uintptr_t later = (uintptr_t)(weight + count * PANEL) + (tile - strip) * count * step;
                for (int64_t k = 0; last && k < channels; k++)
                    __builtin_prefetch(y + at + k * y_step, 1, 3);
                if (!wide)
                    F(many_pixels_narrow)(from, taps + t, count, weight, later, step, own, t == 0);
                else if (left > FEW_PIXEL_ROWS)
                    F(many_pixels_wide)(from, taps + t, count, weight, later, step, own, t == 0);
                else
                    F(few_pixels_wide)(from, taps + t, count, weight, later, step, own, t == 0);
                if (last)
                    F(finish_pixel_rows)(own, wide ? 2 * LANES : LANES, bias, more ? more + at : NULL,
                                         rectify, y + at, y_step, channels, left);
            }
}

/* The same by a whole panel, which may be more than a tile has columns. */
static void F(panel_runs)(const real *x, int64_t line, int64_t runs, int64_t run,
                          const int64_t *taps, int64_t terms, const real *panel, const real *bias,
                          const real *more, int rectify, real *y, int64_t y_step, int64_t y_line,
                          int64_t channels, real *sums)
{
    for (int64_t k = 0; k < channels; k += 2 * LANES)
        F(pixel_row_runs)(x, line, runs, run, taps, terms, panel + k, bias ? bias + k : NULL,
                          more ? more + k * y_step : NULL, rectify, y + k * y_step, y_step, y_line,
                          least(channels - k, 2 * LANES), sums);
}

/* Runs of pixels, `line` apart, by up to TASK_CHANNELS channels; weight and bias are readable for as
 * many, unless there is but one; x for SLACK numbers more than the runs. */
static void F(channel_row_runs)(const real *weight, const int64_t *taps, int64_t terms,
                                const real *x, int64_t line, int64_t runs, int64_t run,
                                const real *bias, const real *more, int rectify, real *y,
                                int64_t y_step, int64_t y_line, int64_t channels)
{
    for (int64_t k = 0; k < channels; k += CHANNEL_ROWS) {
        int64_t some = least(channels - k, CHANNEL_ROWS), pitch = LANES, each = LANES;
        int64_t parts = runs, part = run; /* Runs of a vector or less that follow each other in y: */
        if (some > FEW_CHANNEL_ROWS && run <= LANES && run == y_line) /* a tile takes three. */
            pitch = line, each = run, parts = 1, part = runs * run;
        const real *w = weight + k * terms, *b = bias ? bias + k : NULL;
        for (int64_t i = 0; i < parts; i++)
            for (int64_t j = 0, vectors; j < part; j += vectors * each) {
                int64_t left = part - j, at = k * y_step + i * y_line + j;
                const real *from = x + i * line + j / each * pitch, *add = more ? more + at : NULL;
                real *to = y + at;
                if (some == 1) {
                    F(one_channel)
                    (w, terms, from, taps, terms, b, add, rectify, to, y_step, some, left, pitch, each);
                    vectors = 8;
                } else if (some <= FEW_CHANNEL_ROWS) {
                    F(few_channels)
                    (w, terms, from, taps, terms, b, add, rectify, to, y_step, some, left, pitch, each);
                    vectors = 4;
                } else if (left > 2 * each) {
                    F(many_channels)
                    (w, terms, from, taps, terms, b, add, rectify, to, y_step, some, left, pitch, each);
                    vectors = 3;
                } else {
                    F(many_channels_narrow)
                    (w, terms, from, taps, terms, b, add, rectify, to, y_step, some, left, pitch, each);
                    vectors = 1;
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
    if (p->method == LN_POINTWISE) {
        F(conv2d_pointwise)(x, weight, bias, d, more, rectify != 0, first, last, work, y);
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
    int in_place = pixels && pointwise(d) && d->h == 1;
    int64_t *plane_taps = taps + cut.terms;
    if (in_place) {
        cut.line = least(PIXEL_ROWS, p->block_w);
        cut.copy_size = cut.channels * cut.line;
        for (int64_t c = 0; c < cut.channels; c++) plane_taps[c] = c * d->w;
    }
    int kept = F(keeps_packed)(p->method, cut.deep, cut.terms);
    real *own = work; /* filters of a task, or those that are kept; then its bias */
    real *own_bias = own + cut.filters * cut.terms * (kept ? cut.deep : 1);
    real *copy = own + F(own_size)(p->method, cut.deep, cut.terms);
    int64_t plane = d->oh * d->ow, current = -1, packed_group = -1;
    real *sums = copy + ceil_div(cut.copy_size + SLACK, PANEL) * PANEL;
    tap_table(d, &cut, p->flat, cut.channels, taps);
    if (!pixels)
        extend_taps(taps, cut.terms);
    for (int64_t task = first; task < last; task++) {
        int64_t place = task / cut.deep, part = task % cut.deep;
        int64_t block_x = place % cut.across, rest = place / cut.across;
        int64_t block_y = rest % cut.down, image = rest / cut.down / d->groups;
        int64_t group = rest / cut.down % d->groups;
        int64_t oh = block_y * p->block_h, ow = block_x * p->block_w;
        int64_t rows = least(p->block_h, d->oh - oh), columns = least(p->block_w, d->ow - ow);
        const real *planes = x + (image * d->c + group * cut.channels) * d->h * d->w;
        int64_t whole = columns / PIXEL_ROWS * PIXEL_ROWS;
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
        } else if (count > 1 && count < TASK_CHANNELS) { /* tiles have more rows: they read a copy */
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
        const real *add = more ? more + at : NULL;
        if (!pixels) {
            F(channel_row_runs)(filters, taps, cut.terms, copy, cut.line, runs, run, b, add,
                                rectify != 0, y + at, plane, d->ow, count);
        } else if (!in_place) {
            F(panel_runs)(copy, cut.line, runs, run, taps, cut.terms, filters, b, add, rectify != 0,
                          y + at, plane, d->ow, count, sums);
        } else {
            F(panel_runs)(planes + ow, 0, 1, whole, plane_taps, cut.terms, filters, b, add,
                          rectify != 0, y + at, plane, 0, count, sums);
            F(panel_runs)(copy, 0, 1, columns - whole, taps, cut.terms, filters, b,
                          add ? add + whole : NULL, rectify != 0, y + at + whole, plane, 0, count,
                          sums);
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
