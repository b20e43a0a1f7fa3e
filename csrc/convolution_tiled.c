/* convolution_tiled.c: 2D convolution in register tiles over blocks of the input; how blocks
 * look is told in kernels/convolution_plan.py, the tiles are in tiles.h. The twin is
 * kernels/convolution_tiled.py.
 *
 * The work is a range of tasks, for each (image, group, block of output) one for each block
 * of filters, in this order: whoever computes a range copies each block of input once. */

static inline void F(clear)(real *p, int64_t count)
{
    for (int64_t j = 0; j < count; j++) p[j] = 0;
}

/* to[i line + j] = x[i by + j stride] for i < rows, j < count */
static void F(copy_rows)(const real *x, int64_t by, int64_t stride, real *to, int64_t line,
                         int64_t rows, int64_t count)
{
    for (int64_t i = 0; i < rows; i++) {
        const real *from = x + i * by;
        real *target = to + i * line;
        if (stride == 1) {
            for (int64_t j = 0; j < count; j += LANES)
                F(store_first)(target + j, F(load_first)(from + j, count - j), count - j);
        } else if (stride == 2) {
            for (int64_t j = 0; j < count; j += LANES) {
                int64_t left = 2 * (count - j) - 1;
                F(vec) low = F(load_first)(from + 2 * j, left);
                F(vec) high = left > LANES ? F(load_first)(from + 2 * j + LANES, left - LANES) : low;
                F(store_first)(target + j, F(even)(low, high), count - j);
            }
        } else {
            for (int64_t j = 0; j < count; j++) target[j] = from[j * stride];
        }
    }
}

#ifndef LN_CONVOLUTION_TILED_HELPERS
#define LN_CONVOLUTION_TILED_HELPERS
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
static void tap_table(const ln_conv2d_shape *d, const struct cut *cut, int64_t flat, int64_t *taps)
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
    for (int64_t t = filter; t < cut->terms; t++) taps[t] = taps[t - filter] + plane;
}
#endif

/* Lines of a block of output, `rows` x `columns`, whose first output reads the input at row
 * -top, column -left. Columns over padding stay as they are: zeros from the start. */
static void F(copy_block)(const real *x, const ln_conv2d_shape *d, const struct cut *cut,
                          int64_t flat, int64_t top, int64_t left, int64_t rows, int64_t columns,
                          real *work)
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
            for (int64_t c = 0; c < cut->channels; c++) {
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

/* Up to PANEL filters of weight (filters, terms) as [term][PANEL], zeros after them. */
static void F(pack_panel)(const real *weight, int64_t filters, int64_t terms, real *target)
{
    for (int64_t k = 0; k < PANEL; k += LANES)
        for (int64_t t = 0; t < terms; t += LANES) {
            F(vec) v[LANES];
            UNROLL for (int64_t i = 0; i < LANES; i++)
                v[i] = k + i < filters ? F(load_first)(weight + (k + i) * terms + t, terms - t)
                                       : (F(vec)){0};
            F(transpose)(v);
            UNROLL for (int64_t i = 0; i < LANES; i++)
                if (t + i < terms)
                    F(store)(target + (t + i) * PANEL + k, v[i]);
        }
}

/* One run of pixels by a panel of channels. */
static void F(pixel_row_run)(const real *x, const int64_t *taps, int64_t terms, const real *panel,
                             const real *bias, real *y, int64_t y_step, int64_t channels,
                             int64_t pixels)
{
    for (int64_t k = 0; k < channels; k += 2 * LANES) {
        const real *w = panel + k, *b = bias ? bias + k : NULL;
        int64_t some = least(channels - k, 2 * LANES), done = 0;
        while (done < pixels) {
            const real *from = x + done;
            real *to = y + k * y_step + done;
            int64_t left = pixels - done;
            if (left > FEW_PIXEL_ROWS) {
                if (some > LANES)
                    F(many_pixels_wide)(from, taps, terms, w, b, to, y_step, some, left);
                else
                    F(many_pixels_narrow)(from, taps, terms, w, b, to, y_step, some, left);
                done += PIXEL_ROWS;
            } else {
                if (some > LANES)
                    F(few_pixels_wide)(from, taps, terms, w, b, to, y_step, some, left);
                else
                    F(few_pixels_narrow)(from, taps, terms, w, b, to, y_step, some, left);
                done += FEW_PIXEL_ROWS;
            }
        }
    }
}

/* One run of pixels by some channels. */
static void F(channel_row_run)(const real *weight, const int64_t *taps, int64_t terms,
                               const real *x, const real *bias, real *y, int64_t y_step,
                               int64_t channels, int64_t pixels)
{
    int64_t rows;
    for (; channels; channels -= rows) {
        rows = channels >= CHANNEL_ROWS ? CHANNEL_ROWS : channels >= FEW_CHANNEL_ROWS ? FEW_CHANNEL_ROWS : 1;
        for (int64_t done = 0; done < pixels;) {
            const real *from = x + done;
            real *to = y + done;
            int64_t left = pixels - done;
            if (rows == CHANNEL_ROWS && left > LANES) {
                F(many_channels)(weight, terms, from, taps, terms, bias, to, y_step, rows, left);
                done += 3 * LANES;
            } else if (rows == CHANNEL_ROWS) {
                F(many_channels_narrow)(weight, terms, from, taps, terms, bias, to, y_step, rows, left);
                done += LANES;
            } else if (rows == FEW_CHANNEL_ROWS) {
                F(few_channels)(weight, terms, from, taps, terms, bias, to, y_step, rows, left);
                done += 4 * LANES;
            } else {
                F(one_channel)(weight, terms, from, taps, terms, bias, to, y_step, rows, left);
                done += 8 * LANES;
            }
        }
        weight += rows * terms;
        bias = bias ? bias + rows : NULL;
        y += rows * y_step;
    }
}

void OP(conv2d_tiled)(const real *x, const real *weight, const real *bias,
                      const ln_conv2d_shape *d, const ln_conv2d_plan *p, const real *packed,
                      int64_t first, int64_t last, real *work, int64_t *taps, real *y)
{
    if (p->method == LN_PLAIN) {
        OP(conv2d)(x, weight, bias, d, first, last, y);
        return;
    }
    int pixels = p->method == LN_PIXELS;
    struct cut cut = cut_of(d, p, pixels ? PANEL : TASK_CHANNELS);
    real *own = work, *own_bias = work, *copy = work;
    if (pixels) { /* a panel of filters and its bias, padded */
        own_bias += cut.terms * PANEL;
        copy = own_bias + PANEL;
    }
    int64_t plane = d->oh * d->ow, current = -1;
    tap_table(d, &cut, p->flat, taps);
    for (int64_t task = first; task < last; task++) {
        int64_t place = task / cut.deep, part = task % cut.deep;
        int64_t block_x = place % cut.across, rest = place / cut.across;
        int64_t block_y = rest % cut.down, image = rest / cut.down / d->groups;
        int64_t group = rest / cut.down % d->groups;
        int64_t oh = block_y * p->block_h, ow = block_x * p->block_w;
        int64_t rows = least(p->block_h, d->oh - oh), columns = least(p->block_w, d->ow - ow);
        if (place != current) {
            if (current < 0 || cut.across > 1)
                F(clear)(copy, cut.copy_size);
            current = place;
            F(copy_block)(x + (image * d->c + group * cut.channels) * d->h * d->w, d, &cut,
                          p->flat, d->top - oh * d->stride_h, d->left - ow * d->stride_w, rows,
                          columns, copy);
        }
        int64_t k = group * cut.k + part * cut.filters;
        int64_t count = least(cut.filters, cut.k - part * cut.filters);
        const real *filters = weight + k * cut.terms, *b = bias ? bias + k : NULL;
        if (pixels) {
            if (packed) {
                filters = packed + (group * cut.deep + part) * cut.terms * PANEL;
            } else {
                F(pack_panel)(filters, count, cut.terms, own);
                filters = own;
            }
            if (bias) {
                for (int64_t j = 0; j < PANEL; j++) own_bias[j] = j < count ? b[j] : 0;
                b = own_bias;
            }
        }
        int64_t runs = p->flat ? 1 : rows, run = p->flat ? rows * columns : columns;
        real *target = y + (image * d->k + k) * plane + oh * d->ow + ow;
        for (int64_t i = 0; i < runs; i++) {
            const real *from = copy + i * cut.line;
            real *to = target + i * d->ow;
            if (pixels)
                F(pixel_row_run)(from, taps, cut.terms, filters, b, to, plane, count, run);
            else
                F(channel_row_run)(filters, taps, cut.terms, from, b, to, plane, count, run);
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
        for (int64_t first = 0; first < k; first += PANEL) {
            F(pack_panel)(weight + (group * k + first) * terms, least(PANEL, k - first), terms, packed);
            packed += terms * PANEL;
        }
}
