/* convolution_blocks.h: the padded copy of a block of the input, and packed filters: what the
 * tiled kernels of convolution share. How blocks look is told in kernels/convolution_plan.py. */

static inline void F(clear)(real *p, int64_t count)
{
    for (int64_t j = 0; j < count; j++) p[j] = 0;
}

/* to[i line + j] = x[i by + j stride] for i < rows, j < count; rows are many and may be short */
static void F(copy_rows)(const real *x, int64_t by, int64_t stride, real *to, int64_t line,
                         int64_t rows, int64_t count)
{
    int64_t rest = count > 0 ? (count - 1) % LANES + 1 : 0, whole = count - rest;
    F(mask) some = F(first_lanes)(rest); /* of a row's last vector */
    if (stride == 1 && !whole) {
        for (int64_t i = 0; i < rows; i++, x += by, to += line)
            F(store_some)(to, F(load_some)(x, some), some);
    } else if (stride == 1) {
        for (int64_t i = 0; i < rows; i++, x += by, to += line) {
            for (int64_t j = 0; j < whole; j += LANES) F(store)(to + j, F(load)(x + j));
            F(store_some)(to + whole, F(load_some)(x + whole, some), some);
        }
    } else if (stride == 2) {
        F(mask) low = F(first_lanes)(2 * rest - 1), high = F(first_lanes)(2 * rest - 1 - LANES);
        for (int64_t i = 0; i < rows; i++, x += by, to += line) {
            for (int64_t j = 0; j < whole; j += LANES)
                F(store)(to + j, F(even)(F(load)(x + 2 * j), F(load)(x + 2 * j + LANES)));
            const real *last = x + 2 * whole;
            F(vec) a = F(load_some)(last, low), b = F(load_some)(last + LANES, high);
            F(store_some)(to + whole, F(even)(a, b), some);
        }
    } else {
        for (int64_t i = 0; i < rows; i++, x += by, to += line)
            for (int64_t j = 0; j < count; j++) to[j] = x[j * stride];
    }
}

static void F(copy_numbers)(const real *from, int64_t count, real *to)
{
    F(copy_rows)(from, 0, 1, to, 0, 1, count);
}

/* y[i] += more[i] where there is more, then max(0, y[i]) if asked for: tiles do so themselves. */
static void F(finish)(const real *more, int64_t rectify, real *y, int64_t first, int64_t last)
{
    if (more)
        INDEPENDENT for (int64_t i = first; i < last; i++) y[i] += more[i];
    if (rectify)
        INDEPENDENT for (int64_t i = first; i < last; i++) y[i] = F(relu)(y[i]);
}

#ifndef LN_CONVOLUTION_BLOCKS_H
#define LN_CONVOLUTION_BLOCKS_H
/* A convolution as it is cut, of one group. */
struct cut {
    struct lines lines;
    int64_t channels, k, terms;
    int64_t filters; /* of a task */
    int64_t line, line_rows, copy_size;
    int64_t down, across, deep; /* blocks of rows, of columns, of filters */
};

static struct cut cut_of(const ln_conv2d_shape *d, const ln_conv2d_plan *p, int64_t filters)
{
    struct cut cut = {.lines = lines_of(d, p->flat), .filters = filters};
    cut.channels = d->c / d->groups;
    cut.k = d->k / d->groups;
    cut.terms = cut.channels * d->r * d->s;
    cut.line = p->block_w + cut.lines.more_w;
    cut.line_rows = p->block_h + cut.lines.more_h;
    cut.copy_size = cut.channels * cut.lines.variants * cut.lines.phases * cut.line_rows * cut.line;
    cut.down = ceil_div(d->oh, p->block_h);
    cut.across = ceil_div(d->ow, p->block_w);
    cut.deep = ceil_div(cut.k, filters);
    return cut;
}

/* The i in [low, high) of range(count) for which start + i stride lies in [0, size). */
static void inside(int64_t size, int64_t count, int64_t start, int64_t stride, int64_t *low,
                   int64_t *high)
{
    *low = least(most(0, ceil_div(-start, stride)), count);
    *high = least(most(*low, ceil_div(size - start, stride)), count);
}

/* Where in the lines each tap (c, r, s) begins. */
static void tap_table(const ln_conv2d_shape *d, const struct cut *cut, int64_t flat,
                      int64_t channels, int64_t *taps)
{
    int64_t variants = cut->lines.variants, phases = cut->lines.phases, rows = cut->line_rows;
    int64_t filter = d->r * d->s, plane = variants * phases * rows * cut->line;
    for (int64_t i = 0; i < d->r; i++) {
        int64_t at = i * d->dilation_h;
        int64_t row = at % d->stride_h * rows + at / d->stride_h;
        for (int64_t j = 0; j < d->s; j++) {
            int64_t variant = flat ? j : j * d->dilation_w % d->stride_w;
            int64_t shift = flat ? 0 : j * d->dilation_w / d->stride_w;
            taps[i * d->s + j] = (variant * phases * rows + row) * cut->line + shift;
        }
    }
    for (int64_t t = filter; t < channels * filter; t++) taps[t] = taps[t - filter] + plane;
}

/* What tiles ask for ahead of the last tap: what they have. */
static void extend_taps(int64_t *taps, int64_t count)
{
    for (int64_t t = count; t < count + TAPS_AHEAD; t++) taps[t] = taps[count - 1];
}
#endif

/* Lines of some channels of a block of output, `rows` x `columns`, whose first output reads the
 * input at row -top, column -left. Columns over padding stay as they are: zeros from the start. */
static void F(copy_block)(const real *x, const ln_conv2d_shape *d, const struct cut *cut,
                          int64_t channels, int64_t flat, int64_t top, int64_t left, int64_t rows,
                          int64_t columns, real *work)
{
    int64_t variants = cut->lines.variants, phases = cut->lines.phases, line = cut->line;
    int64_t step = flat ? d->dilation_w : 1, first, last, low, high;
    rows += cut->lines.more_h;
    columns += cut->lines.more_w;
    for (int64_t phase = 0; phase < phases; phase++) {
        inside(d->h, rows, phase - top, d->stride_h, &first, &last);
        for (int64_t v = 0; v < variants; v++) {
            inside(d->w, columns, v * step - left, d->stride_w, &low, &high);
            int64_t source = (phase - top + first * d->stride_h) * d->w + v * step - left
                             + low * d->stride_w;
            for (int64_t c = 0; c < channels; c++) {
                real *target = work + ((c * variants + v) * phases + phase) * cut->line_rows * line;
                F(clear)(target, first * line);
                F(clear)(target + last * line, (rows - last) * line);
                if (last > first && high > low)
                    F(copy_rows)(x + c * d->h * d->w + source, d->stride_h * d->w, d->stride_w,
                                 target + first * line + low, line, last - first, high - low);
            }
        }
    }
}

/* Up to PANEL rows of `terms` numbers, `step` apart, as [term][PANEL], zeros after them. */
static void F(pack_panel)(const real *rows, int64_t step, int64_t count, int64_t terms, real *target)
{
    for (int64_t k = 0; k < PANEL; k += LANES)
        for (int64_t t = 0; t < terms; t += LANES) {
            F(vec) v[LANES];
            UNROLL for (int64_t i = 0; i < LANES; i++)
                v[i] = k + i < count ? F(load_first)(rows + (k + i) * step + t, terms - t)
                                     : (F(vec)){0};
            F(transpose)(v);
            UNROLL for (int64_t i = 0; i < LANES; i++)
                if (t + i < terms)
                    F(store)(target + (t + i) * PANEL + k, v[i]);
        }
}
