/* convolution_weight.c: gradient of a convolution by its weight, in register tiles; the twin is
 * kernels/convolution_weight.py.
 *
 * dweight[k][t] sums x_t[p] dy[k][p] over the pixels p of (n, oh, ow), in that order; x_t is the
 * image as tap t sees it. The lanes are filters, the rows of a tile are taps. Tiles that are not
 * in work wait in memory.
 *
 * The work is a range of tasks: for each group and panel of filters one for each block of input
 * channels. A task goes through all images. */

#define FEWEST_TERMS 512 /* taps of a task from which packing dy for it does not show */
#define SHORT_ROW 32 /* below it, rows follow each other in one run */

void OP(conv2d_weight_plan)(const ln_conv2d_shape *d, ln_conv2d_weight_plan *p)
{
    int64_t inputs = d->c / d->groups, filter = d->r * d->s;
    double work = (double)(d->n * d->k) * (double)(d->oh * d->ow) * (double)(inputs * filter);
    *p = (ln_conv2d_weight_plan){0};
    if (work < PLAIN_BELOW || !LN_FAST_FMA)
        return;
    ln_conv2d_weight_plan tiled = {.flat = d->ow < SHORT_ROW};
    struct lines l = lines_of(d, tiled.flat);
    double row = F(line_bytes)(1, l) * (double)(d->ow + l.more_w); /* of a channel */
    int64_t channels = least(inputs, ceil_div(FEWEST_TERMS, filter));
    tiled.block_h = (int64_t)(BLOCK_BYTES / (row * (double)channels)) - l.more_h;
    tiled.block_h = least(d->oh, most(1, tiled.block_h));
    double bytes = row * (double)(tiled.block_h + l.more_h);
    tiled.block_c = least(channels, most(1, (int64_t)(MOST_BYTES / bytes)));
    if (bytes > MOST_BYTES)
        return;
    int64_t terms = tiled.block_c * filter;
    tiled.work = tiled.block_c * l.variants * l.phases * (tiled.block_h + l.more_h) * (d->ow + l.more_w)
                 + tiled.block_h * d->ow * PANEL + (terms + MOST_ROWS) * PANEL;
    tiled.taps = terms + MOST_ROWS;
    tiled.tasks = d->groups * ceil_div(d->k / d->groups, PANEL) * ceil_div(inputs, tiled.block_c);
    *p = tiled;
}

/* Add a block to the sums of each (vectors of filters, taps). */
static void F(add_block)(const real *copy, int64_t line, const int64_t *taps, const real *packed,
                         int64_t runs, int64_t run, int64_t terms, int64_t filters, real *sums)
{
    for (int64_t k = 0; k < filters; k += 2 * LANES)
        for (int64_t t = 0; t < terms; t += TAP_ROWS) {
            if (filters - k > LANES)
                F(taps_wide)(copy, line, taps + t, packed + k, runs, run, sums);
            else
                F(taps_narrow)(copy, line, taps + t, packed + k, runs, run, sums);
            sums += TAP_ROWS * 2 * LANES;
        }
}

static void F(write_sums)(const real *sums, int64_t terms, int64_t filters, real *dweight,
                          int64_t step)
{
    for (int64_t k = 0; k < filters; k += 2 * LANES)
        for (int64_t t = 0; t < terms; t += TAP_ROWS) {
            real *to = dweight + k * step + t;
            if (filters - k > LANES)
                F(write_taps_wide)(sums, to, step, filters - k, terms - t);
            else
                F(write_taps_narrow)(sums, to, step, filters - k, terms - t);
            sums += TAP_ROWS * 2 * LANES;
        }
}

void OP(conv2d_backward_weight_tiled)(const real *x, const real *dy, const ln_conv2d_shape *d,
                                      const ln_conv2d_weight_plan *p, int64_t first, int64_t last,
                                      real *work, int64_t *taps, real *dweight)
{
    ln_conv2d_plan blocks = {.flat = p->flat, .block_h = p->block_h, .block_w = d->ow};
    struct cut cut = cut_of(d, &blocks, PANEL);
    int64_t filter = d->r * d->s, copy_size = cut.copy_size / cut.channels * p->block_c;
    int64_t chunks = ceil_div(cut.channels, p->block_c), plane = d->oh * d->ow;
    real *packed = work, *sums = packed + p->block_h * d->ow * PANEL;
    real *copy = sums + (p->block_c * filter + MOST_ROWS) * PANEL;
    tap_table(d, &cut, p->flat, p->block_c, taps);
    for (int64_t t = 0; t < MOST_ROWS; t++) taps[p->block_c * filter + t] = 0; /* not used */
    F(clear)(copy, copy_size);
    for (int64_t task = first; task < last; task++) {
        int64_t part = task / chunks % cut.deep, group = task / chunks / cut.deep;
        int64_t channel = task % chunks * p->block_c;
        int64_t channels = least(p->block_c, cut.channels - channel), terms = channels * filter;
        int64_t count = least(PANEL, cut.k - part * PANEL), k = group * cut.k + part * PANEL;
        F(clear)(sums, (terms + MOST_ROWS) * PANEL);
        for (int64_t image = 0; image < d->n; image++)
            for (int64_t oh = 0; oh < d->oh; oh += p->block_h) {
                int64_t rows = least(p->block_h, d->oh - oh);
                const real *planes = x + (image * d->c + group * cut.channels + channel) * d->h * d->w;
                F(copy_block)(planes, d, &cut, channels, p->flat, d->top - oh * d->stride_h, d->left,
                              rows, d->ow, copy);
                F(pack_panel)(dy + (image * d->k + k) * plane + oh * d->ow, plane, count,
                              rows * d->ow, packed);
                int64_t runs = p->flat ? 1 : rows, run = p->flat ? rows * d->ow : d->ow;
                F(add_block)(copy, cut.line, taps, packed, runs, run, terms, count, sums);
            }
        F(write_sums)(sums, terms, count, dweight + k * cut.terms + channel * filter, cut.terms);
    }
}
