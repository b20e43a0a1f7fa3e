/* convolution_plan.h: which kernel serves a convolution, and in what blocks; the twin of
 * kernels/convolution_plan.py, where the methods are told.
 *
 * The instruction set has a say in the choice, but a plan made in one holds in all: panels
 * and tasks have one size, a tile covers a part of them. */

#ifndef LN_CONVOLUTION_PLAN_H
#define LN_CONVOLUTION_PLAN_H

#define SLACK (8 * WIDEST_VECTOR / REAL_BYTES) /* tiles read so far beyond the last line */
#define TASK_CHANNELS 8 /* filters of a task where the lanes are pixels */

#define PLAIN_BELOW 4096 /* multiply-adds */
#define LONG_SUM 128 /* terms from which transposing a tile does not show */
#define BLOCK_BYTES (320 << 10) /* of the padded copy */
#define LARGE_BLOCK_BYTES (768 << 10) /* where L2 cannot keep the filters, read once a block */
#define LOW_BLOCK 16 /* output rows of one that fits L1 nearly: where the lanes are pixels */
#define LOW_BLOCK_BYTES (128 << 10)
#define SPLIT_COST 8 /* loads that span two cache lines cost one in so many multiply-adds */
#define TERMS_IN_L1 160 /* of a panel: 20 KB */
#define STRIP_TILES 16 /* over which they stay there */
#define POINTWISE_FILTERS 64 /* of a task */
#define POINTWISE_CHANNELS 64 /* of a slice of its sums */
#define POINTWISE_PIXELS (6 * WIDEST_VECTOR / REAL_BYTES) /* of a task: 24 KB of a whole slice */
#define UNALIGNED_FILTERS 24 /* up to which a copy of pixels costs more than loads that span lines */
#define POINTWISE_STRIPS 8 /* as many times that at most, if the sums are short */
/* Its sums, a slice of its input, the last filters of the slice and their bias. */
#define POINTWISE_WORK \
    ((POINTWISE_FILTERS + POINTWISE_CHANNELS) * POINTWISE_PIXELS + TASK_CHANNELS * (POINTWISE_CHANNELS + 1))
#define STACKED_BYTES (256 << 10) /* of that of one channel */
#define KEEP_BYTES (640 << 10) /* of packed filters that are kept from block to block */
#define MOST_BYTES (8 << 20) /* of one that cannot be cut smaller: beyond, the plain kernel */
#define FILL_COST 24 /* copying one number, in multiply-adds */
#define LOW_FILL_COST 5 /* the same in a low block */
#define HALF_TILE_COST 4 /* of one with lanes of channels, over its share, in pixels */

static inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

/* Whether this is a product with a matrix of filters: no pixel sees another. */
static inline int pointwise(const ln_conv2d_shape *d)
{
    return d->r * d->s * d->stride_h * d->stride_w == 1 && d->h == d->oh && d->w == d->ow;
}

/* Lines of the padded copy, for each channel: variants and row phases, and how many rows and
 * columns more than the output has. */
struct lines {
    int64_t variants, phases, more_h, more_w;
};

static inline struct lines lines_of(const ln_conv2d_shape *d, int64_t flat)
{
    int64_t reach_h = (d->r - 1) * d->dilation_h, reach_w = (d->s - 1) * d->dilation_w;
    int64_t phases = least(d->stride_h, reach_h + 1);
    if (flat)
        return (struct lines){d->s, phases, reach_h / d->stride_h, 0};
    return (struct lines){least(d->stride_w, reach_w + 1), phases, reach_h / d->stride_h,
                          reach_w / d->stride_w};
}
#endif

/* Whether lanes along pixels suit: planes of some vectors, that begin where vectors do. */
static int F(by_planes)(const ln_conv2d_shape *d)
{
    int64_t pixels = d->oh * d->ow;
    return pointwise(d) && pixels >= 3 * LANES && pixels % LANES == 0;
}

/* The method where input is copied as such, and the unit of pixels that its tiles compute. */
static int64_t F(method_of)(const ln_conv2d_shape *d, int64_t k, int64_t terms, int64_t *unit)
{
    if (k > LANES && terms >= LONG_SUM && !F(by_planes)(d)) {
        *unit = FEW_PIXEL_ROWS;
        return LN_PIXELS;
    }
    *unit = (k >= CHANNEL_ROWS || k > FEW_CHANNEL_ROWS ? 1 : k > 1 ? 4 : 8) * LANES;
    return pointwise(d) ? LN_POINTWISE : LN_CHANNELS;
}

/* The cheaper form of the copy: idle lanes at the ends of runs, and half tiles, for which filters
 * are read as for whole ones, against more copying. Sizes here and below are doubles: they are
 * no array's, and may be beyond any integer. */
static int64_t F(cheaper_form)(const ln_conv2d_shape *d, int64_t k, int64_t unit)
{
    double cost[2];
    for (int form = 0; form < 2; form++) {
        struct lines l = lines_of(d, form);
        int64_t pixels = form ? d->oh * d->ow : d->ow;
        int64_t units = ceil_div(pixels, unit);
        double run = (double)(units * unit) + (unit == FEW_PIXEL_ROWS ? units % 2 * HALF_TILE_COST : 0);
        double computed = run * (double)(form ? 1 : d->oh);
        int fill = unit == FEW_PIXEL_ROWS ? FILL_COST : LOW_FILL_COST;
        int split = unit != FEW_PIXEL_ROWS && d->s > 1 && (!form || d->ow % LANES);
        if (split)
            computed += computed / SPLIT_COST;
        double copied = (double)l.variants * (double)l.phases * (double)(d->oh + l.more_h)
                        * (double)(d->ow + l.more_w);
        cost[form] = computed * (double)(d->r * d->s * k) + fill * copied;
    }
    return cost[1] < cost[0];
}

/* Bytes of a row and column of all lines of some channels. */
static double F(line_bytes)(int64_t channels, struct lines l)
{
    return (double)channels * (double)l.variants * (double)l.phases * REAL_BYTES;
}

/* Whether the plan is to go over one channel with stacked tiles; sets its block. */
static int F(stack)(const ln_conv2d_shape *d, ln_conv2d_plan *p)
{
    int usual = d->r == d->s && (d->r == 3 || d->r == 5 || d->r == 7);
    if (d->c > d->groups || !usual || d->stride_h > 1 || d->stride_w > 1 || d->dilation_h > 1
        || d->dilation_w > 1)
        return 0;
    int64_t rows = STACKED_BYTES / ((d->ow + d->s - 1) * REAL_BYTES) - (d->r - 1);
    *p = (ln_conv2d_plan){.method = LN_STACKED, .block_w = d->ow};
    p->block_h = least(most(floor_div(rows, STACKED_ROWS), 1) * STACKED_ROWS, d->oh);
    double bytes = (double)(p->block_h + MOST_ROWS + d->r) * (double)(d->ow + d->s) * REAL_BYTES;
    if (bytes > MOST_BYTES)
        return 0;
    p->tasks = d->n * d->k * ceil_div(d->oh, p->block_h);
    p->work = (ceil_div(p->block_h, MOST_ROWS) * MOST_ROWS + d->r - 1) * (d->ow + d->s - 1)
              + 3 * WIDEST_VECTOR / REAL_BYTES; /* tiles read rows and columns beyond the block */
    return 1;
}

/* Set the block of a plan whose form is the better one; 0 if none is small enough. */
static int F(cut)(const ln_conv2d_shape *d, int64_t unit, ln_conv2d_plan *p)
{
    double filters = (double)(d->k / d->groups * (d->c / d->groups) * d->r * d->s) * REAL_BYTES;
    int64_t room = filters > LARGE_BLOCK_BYTES ? LARGE_BLOCK_BYTES : BLOCK_BYTES;
    for (; p->flat >= 0; p->flat--) { /* whole output rows */
        struct lines l = lines_of(d, p->flat);
        double row = F(line_bytes)(d->c / d->groups, l) * (double)(d->ow + l.more_w);
        int64_t rows = (int64_t)((double)room / row) - l.more_h;
        if (p->method == LN_CHANNELS)
            rows = least(rows, most((int64_t)(LOW_BLOCK_BYTES / row) - l.more_h, LOW_BLOCK));
        if (rows >= 1) {
            p->block_h = ceil_div(d->oh, ceil_div(d->oh, least(rows, d->oh)));
            p->block_w = d->ow;
            return 1;
        }
    }
    p->flat = 0; /* parts of one */
    struct lines l = lines_of(d, 0);
    double column = F(line_bytes)(d->c / d->groups, l) * (double)(1 + l.more_h);
    int64_t step = p->method == LN_CHANNELS ? 3 * unit : unit;
    int64_t columns = floor_div((int64_t)((double)room / column) - l.more_w, step) * step;
    p->block_h = 1;
    p->block_w = least(most(columns, 3 * LANES), d->ow);
    return column * (double)(p->block_w + l.more_w) <= MOST_BYTES;
}

/* Pixels of a task of 1x1 filters: as many as leave the slice of the input in L1, if the output is
 * the larger part: long runs of it. */
static int64_t F(pointwise_pixels)(int64_t channels, int64_t k)
{
    int64_t strips = k < channels ? 1 : least(POINTWISE_CHANNELS / channels, POINTWISE_STRIPS);
    return POINTWISE_PIXELS * most(strips, 1);
}

/* Whether a thread packs all filters of a group at once, and not those of each task anew. */
static int F(keeps_packed)(int64_t method, int64_t deep, int64_t terms)
{
    return method == LN_PIXELS && deep * terms * PANEL * REAL_BYTES <= KEEP_BYTES;
}

/* Numbers of work space for filters and the bias of a task: whole panels, so that what follows
 * is aligned too. */
static int64_t F(own_size)(int64_t method, int64_t deep, int64_t terms)
{
    int64_t filters = method == LN_PIXELS ? PANEL : TASK_CHANNELS;
    int64_t kept = F(keeps_packed)(method, deep, terms) ? deep : 1;
    return ceil_div((terms * kept + 1) * filters, PANEL) * PANEL;
}

void OP(conv2d_plan)(const ln_conv2d_shape *d, ln_conv2d_plan *p)
{
    int64_t k = d->k / d->groups, terms = d->c / d->groups * d->r * d->s, unit;
    *p = (ln_conv2d_plan){.method = LN_PLAIN, .tasks = d->n * d->k * d->oh};
    double work = (double)(d->n * d->k) * (double)(d->oh * d->ow) * (double)terms;
    if (work < PLAIN_BELOW || !LN_FAST_FMA)
        return;
    ln_conv2d_plan tiled;
    if (F(stack)(d, &tiled)) {
        *p = tiled;
        return;
    }
    tiled = (ln_conv2d_plan){.method = F(method_of)(d, k, terms, &unit)};
    if (tiled.method == LN_POINTWISE) {
        tiled.tasks = d->n * d->groups * ceil_div(d->oh * d->ow, F(pointwise_pixels)(d->c / d->groups, k))
                      * ceil_div(k, POINTWISE_FILTERS);
        tiled.work = POINTWISE_WORK;
        *p = tiled;
        return;
    }
    tiled.flat = F(cheaper_form)(d, k, unit);
    if (!F(cut)(d, unit, &tiled))
        return;
    struct lines l = lines_of(d, tiled.flat);
    int64_t filters = tiled.method == LN_PIXELS ? PANEL : TASK_CHANNELS, deep = ceil_div(k, filters);
    int64_t copy = d->c / d->groups * l.variants * l.phases * (tiled.block_h + l.more_h)
                   * (tiled.block_w + l.more_w);
    tiled.tasks = d->n * d->groups * ceil_div(d->oh, tiled.block_h) * ceil_div(d->ow, tiled.block_w)
                  * deep;
    tiled.work = F(own_size)(tiled.method, deep, terms) + ceil_div(copy + SLACK, PANEL) * PANEL;
    tiled.taps = terms * (pointwise(d) ? 2 : 1) + TAPS_AHEAD;
    if (tiled.method == LN_PIXELS)
        tiled.work += STRIP_TILES * MOST_VECTORS * WIDEST_VECTOR / REAL_BYTES;
    *p = tiled;
}
