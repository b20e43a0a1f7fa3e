/* winograd.c: 2D convolution with 3x3 filters, stride 1, by Winograd's F(2x2, 3x3); the twin is
 * kernels/winograd.py, where the algorithm and how the work is cut are told.
 *
 * `strip` tiles are worked on at a time: V (16, c, strip) and M (16, filters, strip), each of the
 * 16 positions a vector more apart than that. */

#ifndef LN_WINOGRAD_H
#define LN_WINOGRAD_H
#define FILTERS 16 /* of a block of U: of every vector a multiple */
#define POSITIONS 16
#define STRIP_VECTORS 3 /* of a register tile */
#define STRIP_BYTES (1 << 20) /* of V and M: half of L2 */
#define MOST_STRIP_BYTES (8 << 20) /* of V or M where they take more */
#define PART_BYTES (5 << 20) /* of U of a part */
#define MOST_COLUMNS 256 /* tiles: the copy of their input rows stays in L1 */

/* Numbers of the input rows under a strip of s tiles. It lies in at most r = (s - 1)/w + 2 rows of w tiles,
 * which read 2 r + 2 lines of 2 w + 2 numbers: at most 8 s + 12 w + 12. A last vector reads what lies after
 * them. The same in each instruction set. */
static int64_t winograd_lines(int64_t strip, int64_t columns, int64_t lanes)
{
    return ceil_div(8 * strip + 12 * columns + 12, lanes) * lanes + 4 * lanes;
}
#endif

#define WIDEST_LANES (WIDEST_VECTOR / REAL_BYTES)

/* Strips are of whole vectors of the widest kind, so that a plan holds in each instruction set. */
void OP(winograd_plan)(const ln_conv2d_shape *d, ln_winograd_plan *p)
{
    int64_t inputs = d->c / d->groups, deep = ceil_div(d->k / d->groups, FILTERS);
    int64_t down = ceil_div(d->oh, 2), across = ceil_div(d->ow, 2);
    int64_t columns = ceil_div(across, ceil_div(across, MOST_COLUMNS));
    int64_t depth = POSITIONS * WIDEST_VECTOR; /* bytes, a channel or filter and vector */
    int64_t filters = POSITIONS * inputs * FILTERS;
    int64_t part = most(PART_BYTES / (most(filters, 1) * REAL_BYTES), 1);
    if (part < deep)
        part = ceil_div(deep, ceil_div(deep, part));
    else if (deep)
        part = part / deep * deep;
    int64_t rows = least(part, deep) * FILTERS;
    int64_t vectors = STRIP_BYTES / most((inputs + rows) * depth, 1) / STRIP_VECTORS * STRIP_VECTORS;
    int64_t fewest = least(STRIP_VECTORS, MOST_STRIP_BYTES / (most(most(inputs, rows), 1) * depth));
    vectors = most(most(vectors, fewest), 1);
    int64_t strip = least(vectors, ceil_div(down * columns, WIDEST_LANES)) * WIDEST_LANES;
    p->strip = strip;
    p->columns = columns;
    p->part = part;
    p->tasks = d->n * ceil_div(across, columns) * ceil_div(down * columns, strip);
    p->filters = filters;
    p->work = winograd_lines(strip, columns, WIDEST_LANES)
              + POSITIONS * ((inputs + rows) * strip + 2 * WIDEST_LANES);
}

PIECE void F(load_four)(const real *p, int64_t step, F(vec) v[4])
{
    UNROLL for (int i = 0; i < 4; i++) v[i] = F(load)(p + i * step);
}

PIECE void F(store_four)(real *p, int64_t step, const F(vec) v[4])
{
    UNROLL for (int i = 0; i < 4; i++) F(store)(p + i * step, v[i]);
}

/* G (a, b, c) */
PIECE void F(filter_transform)(F(vec) a, F(vec) b, F(vec) c, F(vec) t[4])
{
    F(vec) half = F(splat)((real)0.5), outer = a + c;
    t[0] = a;
    t[1] = (outer + b) * half;
    t[2] = (outer - b) * half;
    t[3] = c;
}

/* B^T (a, b, c, d) */
PIECE void F(input_transform)(F(vec) a, F(vec) b, F(vec) c, F(vec) d, F(vec) t[4])
{
    t[0] = a - c;
    t[1] = b + c;
    t[2] = c - b;
    t[3] = b - d;
}

/* A^T (a, b, c, d) */
PIECE void F(output_transform)(const F(vec) v[4], F(vec) t[2])
{
    t[0] = v[0] + v[1] + v[2];
    t[1] = v[1] - v[2] - v[3];
}

/* Filters of one channel, lane by lane: nine vectors in, 16 out, `step` apart. */
static void F(transform_filter)(const real *source, real *target, int64_t step)
{
    F(vec) rows[3][4], column[4];
    UNROLL for (int i = 0; i < 3; i++)
    {
        const real *row = source + 3 * i * LANES;
        F(filter_transform)(F(load)(row), F(load)(row + LANES), F(load)(row + 2 * LANES), rows[i]);
    }
    UNROLL for (int j = 0; j < 4; j++)
    {
        F(filter_transform)(rows[0][j], rows[1][j], rows[2][j], column);
        F(store_four)(target + j * step, 4 * step, column);
    }
}

void OP(winograd_filters)(const real *weight, const ln_conv2d_shape *d, int64_t first,
                          int64_t last, real *work, real *u)
{
    int64_t channels = d->c / d->groups, k = d->k / d->groups, terms = 9 * channels;
    int64_t deep = ceil_div(k, FILTERS), position = channels * FILTERS;
    for (int64_t number = first; number < last; number++) {
        int64_t group = number / deep, part = number % deep;
        for (int64_t lane = 0; lane < FILTERS; lane += LANES) {
            int64_t at = part * FILTERS + lane, count = least(most(k - at, 0), LANES);
            const real *source = weight + (group * k + at) * terms;
            for (int64_t t = 0; t < terms; t += LANES) {
                F(vec) v[LANES];
                UNROLL for (int64_t i = 0; i < LANES; i++)
                    v[i] = i < count ? F(load_first)(source + i * terms + t, terms - t) : (F(vec)){0};
                F(transpose)(v);
                UNROLL for (int64_t i = 0; i < LANES; i++)
                    if (t + i < terms)
                        F(store)(work + (t + i) * LANES, v[i]);
            }
            for (int64_t c = 0; c < channels; c++)
                F(transform_filter)(work + 9 * c * LANES, u + c * FILTERS + lane, position);
        }
        u += POSITIONS * position;
    }
}

/* `rows` lines of `columns` numbers of a plane, the first at (-top, -left): zeros outside. */
static void F(copy_padded)(const real *x, const ln_conv2d_shape *d, int64_t top, int64_t left,
                           int64_t rows, int64_t columns, real *lines)
{
    int64_t low = least(most(left, 0), columns);
    int64_t count = most(least(columns - left, d->w) - (low - left), 0);
    int64_t first = most(top, 0), last = least(rows, top + d->h);
    F(clear)(lines, rows * columns);
    if (count > 0)
        for (int64_t i = first; i < last; i++)
            F(copy_numbers)(x + (i - top) * d->w + low - left, count, lines + i * columns + low);
}

/* A vector of 4x4 tiles, two columns apart, of four rows: 16 vectors out, `step` apart. */
static inline void F(transform_input)(const real *source, int64_t line, real *target, int64_t step)
{
    F(vec) rows[4][4], column[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        const real *row = source + i * line;
        F(vec) a = F(load)(row), b = F(load)(row + LANES);
        F(vec) c = F(load)(row + 2), e = F(load)(row + 2 + LANES);
        F(input_transform)(F(even)(a, b), F(odd)(a, b), F(even)(c, e), F(odd)(c, e), rows[i]);
    }
    UNROLL for (int j = 0; j < 4; j++)
    {
        F(input_transform)(rows[0][j], rows[1][j], rows[2][j], rows[3][j], column);
        F(store_four)(target + j * step, 4 * step, column);
    }
}

/* V of tiles [begin, end) of rows of `columns`, the first of which reads at (-top, -left). The
 * input rows are copied into zero-padded lines first. */
static void F(transform_inputs)(const real *x, const ln_conv2d_shape *d, int64_t channels,
                                int64_t left, int64_t columns, int64_t begin, int64_t end,
                                int64_t strip, int64_t step, real *lines, real *v)
{
    int64_t first = begin / columns, last = ceil_div(end, columns);
    int64_t rows = 2 * (last - first) + 2, line = 2 * columns + 2, ragged = (end - begin) % LANES;
    F(clear)(lines + rows * line, 4 * LANES);
    for (int64_t c = 0; c < channels; c++) {
        real *lane = v + c * strip;
        F(copy_padded)(x + c * d->h * d->w, d, d->top - 2 * first, left, rows, line, lines);
        if (ragged)
            for (int i = 0; i < POSITIONS; i++)
                F(store)(lane + i * step + end - begin - ragged, (F(vec)){0});
        for (int64_t row = first; row < last; row++) {
            int64_t low = most(begin, row * columns), high = least(end, (row + 1) * columns);
            const real *source = lines + 2 * (row - first) * line - 2 * row * columns;
            for (int64_t tile = low; tile < high; tile += LANES)
                F(transform_input)(source + 2 * tile, line, lane + tile - begin, step);
        }
    }
}

PIECE void F(product)(const real *u, const real *v, int64_t step, int64_t channels, real *m, int nv)
{
    F(vec) acc[MOST_VECTORS] = {{0}};
    for (int64_t c = 0; c < channels; c++)
        F(multiply_add)(acc, u + c * FILTERS, 1, v + c * step, CHANNEL_ROWS, nv);
    UNROLL for (int i = 0; i < CHANNEL_ROWS; i++)
    {
        UNROLL for (int j = 0; j < nv; j++) F(store)(m + i * step + j * LANES, acc[i * nv + j]);
    }
}

#define PRODUCT(name, nv) \
    static void F(name)(const real *u, const real *v, int64_t step, int64_t channels, real *m) \
    { \
        F(product)(u, v, step, channels, m, nv); \
    }
PRODUCT(product_1, 1)
PRODUCT(product_2, 2)
PRODUCT(product_3, 3)
#undef PRODUCT

/* M of so many filters, in blocks of U one after the other, and tiles of a strip. */
static void F(multiply)(const real *u, const real *v, real *m, int64_t channels, int64_t filters,
                        int64_t tiles, int64_t strip, int64_t v_step, int64_t m_step)
{
    for (int64_t number = 0; number < filters; number += FILTERS)
        for (int position = 0; position < POSITIONS; position++) {
            for (int64_t i = 0; i < least(FILTERS, filters - number); i += CHANNEL_ROWS)
                for (int64_t t = 0; t < tiles; t += STRIP_VECTORS * LANES) {
                    const real *from = v + position * v_step + t;
                    real *to = m + position * m_step + (number + i) * strip + t;
                    if (tiles - t > 2 * LANES)
                        F(product_3)(u + i, from, strip, channels, to);
                    else if (tiles - t > LANES)
                        F(product_2)(u + i, from, strip, channels, to);
                    else
                        F(product_1)(u + i, from, strip, channels, to);
                }
            u += channels * FILTERS;
        }
}

/* Two rows of `width` numbers, even columns and odd ones. */
PIECE void F(write_zipped)(real *y, F(vec) even, F(vec) odd, int64_t width)
{
    F(store_first)(y, F(zip_low)(even, odd), width);
    if (width > LANES)
        F(store_first)(y + LANES, F(zip_high)(even, odd), width - LANES);
}

/* A vector of tiles: 16 vectors in, two rows of y (or one) of `width` numbers out. */
static inline void F(transform_output)(const real *m, int64_t step, real bias, real *y,
                                       int64_t line, int64_t rows, int64_t width)
{
    F(vec) half[4][2], left[2], right[2], more = F(splat)(bias), v[4];
    UNROLL for (int i = 0; i < 4; i++)
    {
        F(load_four)(m + 4 * i * step, step, v);
        F(output_transform)(v, half[i]);
    }
    F(output_transform)((F(vec)[]){half[0][0], half[1][0], half[2][0], half[3][0]}, left);
    F(output_transform)((F(vec)[]){half[0][1], half[1][1], half[2][1], half[3][1]}, right);
    F(write_zipped)(y, left[0] + more, right[0] + more, width);
    if (rows > 1)
        F(write_zipped)(y + line, left[1] + more, right[1] + more, width);
}

/* `filters` planes at y, of tiles [begin, end); `left` is the column of the first of a row. */
static void F(transform_outputs)(const real *m, int64_t step, int64_t strip, const real *bias,
                                 int64_t filters, real *y, const ln_conv2d_shape *d,
                                 int64_t columns, int64_t begin, int64_t end, int64_t left)
{
    for (int64_t i = 0; i < filters; i++)
        for (int64_t row = begin / columns; row < ceil_div(end, columns); row++) {
            int64_t low = most(begin, row * columns), high = least(end, (row + 1) * columns);
            for (int64_t tile = low; tile < high; tile += LANES) {
                int64_t column = left + 2 * (tile - row * columns);
                F(transform_output)(m + i * strip + tile - begin, step, bias ? bias[i] : 0,
                                    y + (i * d->oh + 2 * row) * d->ow + column, d->ow,
                                    d->oh - 2 * row, least(2 * (high - tile), d->ow - column));
            }
        }
}

void OP(winograd)(const real *x, const real *u, const real *bias, const ln_conv2d_shape *d,
                  const ln_winograd_plan *p, int64_t first_block, int64_t blocks, int64_t first,
                  int64_t last, real *work, real *y)
{
    int64_t channels = d->c / d->groups, k = d->k / d->groups, deep = ceil_div(k, FILTERS);
    int64_t down = ceil_div(d->oh, 2), all_columns = ceil_div(d->ow, 2);
    int64_t across = ceil_div(all_columns, p->columns), strip = p->strip;
    int64_t strips = ceil_div(down * p->columns, strip);
    int64_t per = least(blocks, deep); /* of a task */
    int64_t v_step = channels * strip + WIDEST_LANES, m_step = per * FILTERS * strip + WIDEST_LANES;
    real *v = work + winograd_lines(strip, p->columns, WIDEST_LANES);
    real *m = v + POSITIONS * v_step;
    for (int64_t task = first; task < last; task++) {
        int64_t number = task % strips, rest = task / strips;
        int64_t column = rest % across * p->columns, places = blocks / per;
        int64_t part = rest / across % places, image = rest / across / places;
        int64_t block = first_block + part * per, group = block / deep, offset = block % deep;
        int64_t wide = least(p->columns, all_columns - column);
        int64_t begin = number * strip, end = least(begin + strip, down * wide);
        if (begin >= end)
            continue;
        F(transform_inputs)(x + (image * d->c + group * channels) * d->h * d->w, d, channels,
                            d->left - 2 * column, wide, begin, end, strip, v_step, work, v);
        int64_t filters = least(per * FILTERS, k - offset * FILTERS), at = group * k + offset * FILTERS;
        F(multiply)(u + part * per * p->filters, v, m, channels, filters, end - begin, strip, v_step,
                    m_step);
        F(transform_outputs)(m, m_step, strip, bias ? bias + at : NULL, filters,
                             y + (image * d->k + at) * d->oh * d->ow, d, wide, begin, end, 2 * column);
    }
}
#undef WIDEST_LANES
