/* tiles.h: micro-kernels, one register tile over a whole sum of products; the twin of
 * kernels/tiles.py, where the two kinds are told.
 *
 *     y[i][j] = sum over t of A[i][t] B[t][j], in the order of t, each step fused
 *
 * A tile has `mr` rows and `nv` vectors of columns, which stay in registers from the first
 * term to the last. taps[t] tells where term t begins, in numbers. */

/* Rows of the tiles, so that accumulators, vectors of B and one of A fit the registers. */
#if LN_REGISTERS == 32
#define PIXEL_ROWS 14 /* by two vectors or one */
#define FEW_PIXEL_ROWS 7
#define CHANNEL_ROWS 8 /* by three vectors or one */
#define FEW_CHANNEL_ROWS 4 /* by four; single rows by eight */
#define STACKED_ROWS 8 /* by two */
#define TAP_ROWS 8 /* by two or one; their addresses fit the integer registers */
#else
#define PIXEL_ROWS 6
#define FEW_PIXEL_ROWS 3
#define CHANNEL_ROWS 4
#define FEW_CHANNEL_ROWS 2
#define STACKED_ROWS 4
#define TAP_ROWS 5
#endif
#define MOST_ROWS 8 /* of the last three, in any set */
/* Of a dense layer's tile: by four vectors (32 registers) or two, by one; the last rows. */
#define SAMPLE_ROWS 6
#define NARROW_SAMPLE_ROWS 12
#define FEW_SAMPLE_ROWS 4
#define WIDE_SAMPLES (LN_REGISTERS == 32 ? 4 : 2)
#define SAMPLE_VECTORS 4
#define SAMPLES_AHEAD 8 /* terms, asked for early where each lies in a line of its own */
/* Filters of a panel of packed weights: the same in each set that can be chosen at run time. */
#if LN_X86
#define WIDEST_VECTOR 64
#else
#define WIDEST_VECTOR LN_VECTOR_BYTES
#endif
#define PANEL (2 * WIDEST_VECTOR / REAL_BYTES)
#define MOST_VECTORS 28 /* of a tile */
#define AHEAD 16 /* weights come from beyond L1: asked for so many terms early */
/* Runs of the image, each in a page of its own, are asked for so many taps early: a table of taps
 * is longer by as many. */
#define TAPS_AHEAD 8

/* acc[i][j] += A[i] B[j], A numbers a_step apart, B vectors b_pitch apart */
PIECE void F(multiply_add_apart)(F(vec) acc[], const real *a, int64_t a_step, const real *b,
                                 int64_t b_pitch, int mr, int nv)
{
    F(vec) bs[8];
    UNROLL for (int j = 0; j < nv; j++) bs[j] = F(load)(b + j * b_pitch);
    UNROLL for (int i = 0; i < mr; i++)
    {
        F(vec) x = F(splat)(a[i * a_step]);
        UNROLL for (int j = 0; j < nv; j++) acc[i * nv + j] = F(fma)(x, bs[j], acc[i * nv + j]);
    }
}

PIECE void F(multiply_add)(F(vec) acc[], const real *a, int64_t a_step, const real *b, int mr, int nv)
{
    F(multiply_add_apart)(acc, a, a_step, b, LANES, mr, nv);
}

/* The same with number i of A at a[offsets[i]]. */
PIECE void F(multiply_add_gathered)(F(vec) acc[], const real *a, const int64_t *offsets,
                                    const real *b, int mr, int nv)
{
    F(vec) bs[2];
    UNROLL for (int j = 0; j < nv; j++) bs[j] = F(load)(b + j * LANES);
    UNROLL for (int i = 0; i < mr; i++)
    {
        F(vec) x = F(splat)(a[offsets[i]]);
        UNROLL for (int j = 0; j < nv; j++) acc[i * nv + j] = F(fma)(x, bs[j], acc[i * nv + j]);
    }
}

#ifndef LN_TILES_H
#define LN_TILES_H
/* The rows and columns that lie in the image of those that a tile reads; they are counted from its
 * first. */
struct seen {
    int64_t top, bottom, left, right;
};
#endif

/* Stand for rows of a stacked tile outside the image. */
static const real F(zeros)[3 * LANES + 8];

/* A whole size x size filter over mr + size - 1 rows of x, `line` apart. Row i of the tile gets
 * input rows i, i+1, ... in this order, each from the left. What is loaded once serves all rows
 * that see it. At an edge only what is `seen` is read, and zeros stand around it. Left alone, the
 * compiler keeps each of the filter's numbers in a vector, beyond the registers. */
PIECE void F(multiply_add_stacked)(F(vec) acc[], const real *x, int64_t line, const real *weight,
                                   int mr, int nv, int size, int edge, struct seen seen)
{
    F(span) columns = F(span_of)(seen.left, seen.right);
    UNROLL for (int j = 0; j < mr + size - 1; j++)
    {
        const real *row = edge && (j < seen.top || j >= seen.bottom) ? F(zeros) : x;
        UNKNOWN(weight);
        UNROLL for (int t = 0; t < size; t++)
        {
            F(vec) pixels[3];
            UNROLL for (int v = 0; v < nv; v++)
            {
                int at = t + v * LANES;
                pixels[v] = edge ? F(load_within)(row, at, columns) : F(load)(row + at);
                IN_REGISTER(pixels[v]);
            }
            UNROLL for (int i = 0; i < mr; i++)
            {
                if (i <= j && j - i < size) {
                    F(vec) w = F(splat)(weight[(j - i) * size + t]);
                    UNROLL for (int v = 0; v < nv; v++)
                        acc[i * nv + v] = F(fma)(w, pixels[v], acc[i * nv + v]);
                }
            }
        }
        x += line;
    }
}

PIECE void F(add_to_rows)(F(vec) acc[], const real *bias, int mr, int nv)
{
    UNROLL for (int j = 0; j < nv; j++)
    {
        F(vec) more = F(load)(bias + j * LANES);
        UNROLL for (int i = 0; i < mr; i++) acc[i * nv + j] += more;
    }
}

PIECE void F(add_to_columns)(F(vec) acc[], const real *bias, int mr, int nv)
{
    UNROLL for (int i = 0; i < mr; i++)
    {
        F(vec) more = F(splat)(bias[i]);
        UNROLL for (int j = 0; j < nv; j++) acc[i * nv + j] += more;
    }
}

/* Zeros in place of numbers that are not above zero; NaN stays. */
PIECE void F(rectify)(F(vec) acc[], int mr, int nv)
{
    UNROLL for (int i = 0; i < mr * nv; i++)
        acc[i] = (F(vec))((F(lanes))acc[i] & ~(acc[i] <= (F(vec)){0}));
}

/* The lanes that vectors of a row fill: `each` of them, `width` in all. */
PIECE void F(lanes_of)(F(mask) some[], int64_t each, int64_t width, int nv)
{
    UNROLL for (int j = 0; j < nv; j++)
    {
        int64_t left = width - j * each;
        some[j] = F(first_lanes)(left < each ? left : each);
    }
}

/* Add the numbers at `more` to the part of the tile that store_rows would write there. */
PIECE void F(add_rows)(F(vec) acc[], const real *more, int64_t step, int64_t height, int64_t width,
                       int64_t each, int mr, int nv)
{
    F(mask) some[8];
    F(lanes_of)(some, each, width, nv);
    UNROLL for (int i = 0; i < mr; i++)
    {
        if (i < height) {
            UNROLL for (int j = 0; j < nv; j++)
                acc[i * nv + j] += F(load_some)(more + j * each, some[j]);
        }
        more += step;
    }
}

/* The first `width` numbers of the first `height` rows, y_step apart; `each` of a vector count. */
PIECE void F(store_rows)(F(vec) acc[], real *y, int64_t y_step, int64_t height, int64_t width,
                         int64_t each, int mr, int nv)
{
    F(mask) some[8];
    F(lanes_of)(some, each, width, nv);
    UNROLL for (int i = 0; i < mr; i++)
    {
        if (i < height) {
            UNROLL for (int j = 0; j < nv; j++)
                F(store_some)(y + j * each, acc[i * nv + j], some[j]);
        }
        y += y_step;
    }
}

/* The tile transposed: y[j][i] = acc[i][j] for j < height, i < width; what is added, if not NULL,
 * lies as y does, then max(0, y) if asked for. */
PIECE void F(store_columns)(F(vec) acc[], const real *more, int rectify, real *y, int64_t y_step,
                            int64_t height, int64_t width, int mr, int nv)
{
    UNROLL for (int first = 0; first < mr; first += LANES)
    {
        F(mask) some = F(first_lanes)((width < mr ? width : mr) - first);
        UNROLL for (int j = 0; j < nv; j++)
        {
            F(vec) v[LANES];
            UNROLL for (int i = 0; i < LANES; i++)
                v[i] = first + i < mr ? acc[(first + i) * nv + j] : (F(vec)){0};
            F(transpose)(v);
            UNROLL for (int i = 0; i < LANES; i++)
                if (j * LANES + i < height) {
                    int64_t at = (j * LANES + i) * y_step + first;
                    if (more)
                        v[i] += F(load_some)(more + at, some);
                    if (rectify)
                        F(rectify)(v + i, 1, 1);
                    F(store_some)(y + at, v[i], some);
                }
        }
    }
}

/* A is the image, its numbers side by side; B packed weights, PANEL numbers a term. The tile begins in
 * `sums`, or at zero if it `starts`, and is left there. What lies at `later` is asked for into L2,
 * later_step bytes a term. */
PIECE void F(pixel_rows)(const real *x, const int64_t *taps, int64_t count, const real *weight,
                         uintptr_t later, uintptr_t later_step, real *sums, int starts, int mr, int nv)
{
    F(vec) acc[MOST_VECTORS] = {{0}};
    if (!starts) {
        UNROLL for (int i = 0; i < mr * nv; i++) acc[i] = F(load)(sums + i * LANES);
    }
    for (int64_t t = 0; t < count; t++) {
        F(multiply_add)(acc, x + taps[t], 1, weight, mr, nv);
        __builtin_prefetch((const void *)((uintptr_t)weight + AHEAD * PANEL * sizeof(real)), 0, 3);
        if (nv * LN_VECTOR_BYTES > 64)
            __builtin_prefetch((const void *)((uintptr_t)weight + AHEAD * PANEL * sizeof(real) + 64), 0, 3);
        __builtin_prefetch((const void *)later, 0, 2);
        later += later_step;
        weight += PANEL;
    }
    UNROLL for (int i = 0; i < mr * nv; i++) F(store)(sums + i * LANES, acc[i]);
}

/* y, (channels, pixels), from a tile of pixel rows in `sums`, `row` numbers apart. Up to PIXEL_ROWS
 * pixels: that many are read. bias holds as many numbers as the tile has columns, or is NULL; what is
 * added to y, if not NULL, lies as y does; max(0, y) is written if asked for. */
static void F(finish_pixel_rows)(const real *sums, int64_t row, const real *bias, const real *more,
                                 int rectify, real *y, int64_t y_step, int64_t channels,
                                 int64_t pixels)
{
    for (int64_t k = 0; k < channels; k += LANES) {
        F(vec) acc[PIXEL_ROWS];
        UNROLL for (int i = 0; i < PIXEL_ROWS; i++) acc[i] = F(load)(sums + k + i * row);
        if (bias)
            F(add_to_rows)(acc, bias + k, PIXEL_ROWS, 1);
        F(store_columns)(acc, more ? more + k * y_step : NULL, rectify, y + k * y_step, y_step,
                         channels - k, pixels, PIXEL_ROWS, 1);
    }
}

/* Add to a tile whose rows are channels what is asked for, and write it. */
PIECE void F(finish_rows)(F(vec) acc[], const real *bias, const real *more, int rectify, real *y,
                          int64_t y_step, int64_t height, int64_t width, int64_t each, int mr,
                          int nv)
{
    if (bias)
        F(add_to_columns)(acc, bias, mr, nv);
    if (more)
        F(add_rows)(acc, more, y_step, height, width, each, mr, nv);
    if (rectify)
        F(rectify)(acc, mr, nv);
    F(store_rows)(acc, y, y_step, height, width, each, mr, nv);
}

/* Ask for what a tile of `nv` vectors will write. */
PIECE void F(ask_rows)(real *y, int64_t y_step, int64_t height, int nv)
{
    for (int64_t i = 0; i < height; i++)
        UNROLL for (int line = 0; line < nv * LN_VECTOR_BYTES; line += 64)
            __builtin_prefetch((const void *)((uintptr_t)(y + i * y_step) + line), 1, 3);
}

/* A are rows of numbers, a_step apart, B runs of the image: its vectors are `pitch` apart,
 * `each` numbers of one count. y is (height, width); bias holds a number for each row. */
PIECE void F(channel_rows)(const real *a, int64_t a_step, const real *b, const int64_t *taps,
                           int64_t count, const real *bias, const real *more, int rectify, real *y,
                           int64_t y_step, int64_t height, int64_t width, int64_t pitch,
                           int64_t each, int mr, int nv)
{
    F(vec) acc[MOST_VECTORS] = {{0}};
    uintptr_t rows = (uintptr_t)(a + mr * a_step); /* those of the next tile */
    F(ask_rows)(y, y_step, height, nv);
    for (int64_t t = 0; t < count; t++) {
        F(multiply_add_apart)(acc, a, a_step, b + taps[t], pitch, mr, nv);
        __builtin_prefetch((const void *)(rows + t * mr * sizeof(real)), 0, 3);
        uintptr_t later = (uintptr_t)b + (uintptr_t)taps[t + TAPS_AHEAD] * sizeof(real);
        UNROLL for (int line = 0; line < nv * LN_VECTOR_BYTES; line += 64)
            __builtin_prefetch((const void *)(later + line), 0, 3);
        a++;
        UNKNOWN(a); /* else each row gets a pointer of its own, and additions stand in the way */
    }
    F(finish_rows)(acc, bias, more, rectify, y, y_step, height, width, each, mr, nv);
}

/* For 1x1 filters: A are rows of weights, a_step apart, B planes, b_step apart. The tile begins in
 * `sums`, or at zero if it `starts`, and is left there where y is NULL. What lies `ahead` numbers
 * after B is asked for. */
PIECE void F(plane_rows)(const real *a, int64_t a_step, const real *b, int64_t b_step,
                         int64_t count, int64_t ahead, real *sums, int starts, const real *bias,
                         const real *more, int rectify, real *y, int64_t y_step, int64_t height,
                         int64_t width, int mr, int nv)
{
    F(vec) acc[MOST_VECTORS] = {{0}};
    if (!starts) {
        UNROLL for (int i = 0; i < mr * nv; i++) acc[i] = F(load)(sums + i * LANES);
    }
    if (y)
        F(ask_rows)(y, y_step, height, nv);
    for (int64_t t = 0; t < count; t++) {
        F(multiply_add)(acc, a, a_step, b, mr, nv);
        uintptr_t later = (uintptr_t)b + (uintptr_t)ahead * sizeof(real);
        UNROLL for (int line = 0; line < nv * LN_VECTOR_BYTES; line += 64)
            __builtin_prefetch((const void *)(later + line), 0, 3);
        b += b_step;
        a++;
        UNKNOWN(a);
    }
    if (!y) {
        UNROLL for (int i = 0; i < mr * nv; i++) F(store)(sums + i * LANES, acc[i]);
        return;
    }
    F(finish_rows)(acc, bias, more, rectify, y, y_step, height, width, LANES, mr, nv);
}

/* For dense layers, some of the terms at a time: numbers of A are a_step apart, terms of it a_term, B's
 * b_step. Between first and last call the tile is in `sums`; the last one adds a bias along the
 * columns and writes y, or leaves the tile there where y is NULL. The number at `ahead`, ahead_step
 * further with each term, is asked for; or, if `copy` is not NULL, what is read of B is copied there
 * in one piece, and B is asked for SAMPLES_AHEAD terms early. */
PIECE void F(sample_rows)(const real *a, int64_t a_step, int64_t a_term, const real *b, int64_t b_step,
                          int64_t count, const real *ahead, int64_t ahead_step, real *sums,
                          int starts, const real *bias, real *y, int64_t y_step, int64_t height,
                          int64_t width, real *copy, int mr, int nv)
{
    F(vec) acc[MOST_VECTORS] = {{0}};
    if (!starts) {
        UNROLL for (int i = 0; i < mr * nv; i++) acc[i] = F(load)(sums + i * LANES);
    }
    for (int64_t t = 0; t < count; t++) {
        F(multiply_add)(acc, a, a_step, b, mr, nv);
        if (copy) {
            UNROLL for (int j = 0; j < nv; j++)
            {
                F(store)(copy + j * LANES, F(load)(b + j * LANES));
                __builtin_prefetch((const char *)b + SAMPLES_AHEAD * (uintptr_t)b_step * sizeof *b + j * LN_VECTOR_BYTES, 0, 3);
            }
            copy += nv * LANES;
        } else {
            __builtin_prefetch(ahead, 0, 2);
        }
        a += a_term;
        b += b_step;
        ahead = (const real *)((uintptr_t)ahead + (uintptr_t)ahead_step * sizeof(real));
    }
    if (!y) {
        UNROLL for (int i = 0; i < mr * nv; i++) F(store)(sums + i * LANES, acc[i]);
        return;
    }
    if (bias)
        F(add_to_rows)(acc, bias, mr, nv);
    F(store_rows)(acc, y, y_step, height, width, LANES, mr, nv);
}

/* For the weight's gradient: the rows are taps, the terms `runs` runs of `run` pixels; runs of
 * the image x are `line` apart, dy is packed, PANEL numbers a term. `sums` holds the tile before
 * and after. */
PIECE void F(tap_rows)(const real *x, int64_t line, const int64_t *taps, const real *dy,
                       int64_t runs, int64_t run, real *sums, int nv)
{
    F(vec) acc[2 * MOST_ROWS];
    UNROLL for (int i = 0; i < TAP_ROWS * nv; i++) acc[i] = F(load)(sums + i * LANES);
    for (int64_t i = 0; i < runs; i++)
        for (int64_t j = 0; j < run; j++) {
            F(multiply_add_gathered)(acc, x + i * line + j, taps, dy, TAP_ROWS, nv);
            dy += PANEL;
        }
    UNROLL for (int i = 0; i < TAP_ROWS * nv; i++) F(store)(sums + i * LANES, acc[i]);
}

/* The finished tile, transposed: dweight is (filters, taps). */
PIECE void F(write_taps)(const real *sums, real *dweight, int64_t step, int64_t filters,
                         int64_t taps, int nv)
{
    F(vec) acc[2 * MOST_ROWS];
    UNROLL for (int i = 0; i < TAP_ROWS * nv; i++) acc[i] = F(load)(sums + i * LANES);
    F(store_columns)(acc, NULL, 0, dweight, step, filters, taps, TAP_ROWS, nv);
}

/* For one channel and a size x size filter: the rows are output rows, x is the image, of which the
 * tile reads what is `seen`. A tile that is no edge is read and written whole. */
PIECE void F(stacked_rows)(const real *x, int64_t line, int edge, struct seen seen,
                           const real *weight, const real *bias, real *y, int64_t y_step,
                           int64_t height, int64_t width, int nv, int size)
{
    F(vec) acc[3 * MOST_ROWS] = {{0}};
    if (!edge) { /* what is written next */
        UNROLL for (int i = 0; i < STACKED_ROWS; i++)
            UNROLL for (int v = nv; v < 2 * nv; v++)
                __builtin_prefetch((const void *)((uintptr_t)(y + i * y_step) + v * LN_VECTOR_BYTES), 1, 3);
    }
    F(multiply_add_stacked)(acc, x, line, weight, STACKED_ROWS, nv, size, edge, seen);
    if (bias) {
        F(vec) more = F(splat)(*bias);
        UNROLL for (int i = 0; i < STACKED_ROWS * nv; i++) acc[i] += more;
    }
    if (edge) {
        F(store_rows)(acc, y, y_step, height, width, LANES, STACKED_ROWS, nv);
        return;
    }
    UNROLL for (int i = 0; i < STACKED_ROWS; i++)
    {
        UNROLL for (int v = 0; v < nv; v++) F(store)(y + v * LANES, acc[i * nv + v]);
        y += y_step;
    }
}

#define PIXEL_TILE(name, mr, nv) \
    static void F(name)(const real *x, const int64_t *taps, int64_t count, const real *weight, \
                        uintptr_t later, uintptr_t later_step, real *sums, int starts) \
    { \
        F(pixel_rows)(x, taps, count, weight, later, later_step, sums, starts, mr, nv); \
    }
PIXEL_TILE(many_pixels_wide, PIXEL_ROWS, 2)
PIXEL_TILE(many_pixels_narrow, PIXEL_ROWS, 1)
PIXEL_TILE(few_pixels_wide, FEW_PIXEL_ROWS, 2)
#undef PIXEL_TILE

#define CHANNEL_TILE(name, mr, nv) \
    static void F(name)(const real *a, int64_t a_step, const real *b, const int64_t *taps, \
                        int64_t count, const real *bias, const real *more, int rectify, real *y, \
                        int64_t y_step, int64_t height, int64_t width, int64_t pitch, int64_t each) \
    { \
        F(channel_rows)(a, a_step, b, taps, count, bias, more, rectify, y, y_step, height, width, \
                        pitch, each, mr, nv); \
    }
CHANNEL_TILE(many_channels, CHANNEL_ROWS, 3)
CHANNEL_TILE(many_channels_narrow, CHANNEL_ROWS, 1)
CHANNEL_TILE(few_channels, FEW_CHANNEL_ROWS, 4)
CHANNEL_TILE(one_channel, 1, 8)
#undef CHANNEL_TILE

#define PLANE_TILE(name, mr, nv) \
    static void F(name)(const real *a, int64_t a_step, const real *b, int64_t b_step, \
                        int64_t count, int64_t ahead, real *sums, int starts, const real *bias, \
                        const real *more, int rectify, real *y, int64_t y_step, int64_t height, \
                        int64_t width) \
    { \
        F(plane_rows)(a, a_step, b, b_step, count, ahead, sums, starts, bias, more, rectify, y, \
                      y_step, height, width, mr, nv); \
    }
PLANE_TILE(many_planes, CHANNEL_ROWS, 3)
PLANE_TILE(many_planes_narrow, CHANNEL_ROWS, 1)
#undef PLANE_TILE

#define TAP_TILE(width, nv) \
    static void F(taps_##width)(const real *x, int64_t line, const int64_t *taps, const real *dy, \
                                int64_t runs, int64_t run, real *sums) \
    { \
        F(tap_rows)(x, line, taps, dy, runs, run, sums, nv); \
    } \
    static void F(write_taps_##width)(const real *sums, real *dweight, int64_t step, \
                                      int64_t filters, int64_t taps) \
    { \
        F(write_taps)(sums, dweight, step, filters, taps, nv); \
    }
TAP_TILE(wide, 2)
TAP_TILE(narrow, 1)
#undef TAP_TILE

#define SAMPLE_TILE(name, mr, nv) \
    static void F(samples_##name)(const real *a, int64_t a_step, int64_t a_term, const real *b, \
                                       int64_t b_step, int64_t count, const real *ahead, \
                                       int64_t ahead_step, real *sums, int starts, \
                                       const real *bias, real *y, int64_t y_step, int64_t height, \
                                       int64_t width) \
    { \
        F(sample_rows)(a, a_step, a_term, b, b_step, count, ahead, ahead_step, sums, starts, bias, \
                       y, y_step, height, width, NULL, mr, nv); \
    }
SAMPLE_TILE(wide, SAMPLE_ROWS, WIDE_SAMPLES)
SAMPLE_TILE(wide_few, FEW_SAMPLE_ROWS, WIDE_SAMPLES)
SAMPLE_TILE(narrow, NARROW_SAMPLE_ROWS, 1)
SAMPLE_TILE(narrow_few, FEW_SAMPLE_ROWS, 1)
SAMPLE_TILE(single, 1, WIDE_SAMPLES)
static void F(samples_wide_copying)(const real *a, int64_t a_step, int64_t a_term, const real *b,
                                    int64_t b_step, int64_t count, real *copy, real *sums, int starts,
                                    const real *bias, real *y, int64_t y_step, int64_t height, int64_t width)
{
    F(sample_rows)(a, a_step, a_term, b, b_step, count, NULL, 0, sums, starts, bias, y, y_step, height,
                   width, copy, SAMPLE_ROWS, WIDE_SAMPLES);
}
#undef SAMPLE_TILE
