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
#else
#define PIXEL_ROWS 6
#define FEW_PIXEL_ROWS 3
#define CHANNEL_ROWS 4
#define FEW_CHANNEL_ROWS 2
#endif
#define SAMPLE_VECTORS 3
/* Filters of a panel of packed weights: the same in each set that can be chosen at run time. */
#if LN_X86
#define WIDEST_VECTOR 64
#else
#define WIDEST_VECTOR LN_VECTOR_BYTES
#endif
#define PANEL (2 * WIDEST_VECTOR / REAL_BYTES)
#define MOST_VECTORS 28 /* of a tile */
#define AHEAD 16 /* weights come from beyond L1: asked for so many terms early */

/* acc[i][j] += A[i] B[j], A numbers a_step apart */
PIECE void F(multiply_add)(F(vec) acc[], const real *a, int64_t a_step, const real *b, int mr, int nv)
{
    F(vec) bs[8];
    UNROLL for (int j = 0; j < nv; j++) bs[j] = F(load)(b + j * LANES);
    UNROLL for (int i = 0; i < mr; i++)
    {
        F(vec) x = F(splat)(a[i * a_step]);
        UNROLL for (int j = 0; j < nv; j++) acc[i * nv + j] = F(fma)(x, bs[j], acc[i * nv + j]);
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

/* The first `width` numbers of the first `height` rows, y_step apart. */
PIECE void F(store_rows)(F(vec) acc[], real *y, int64_t y_step, int64_t height, int64_t width,
                         int mr, int nv)
{
    UNROLL for (int i = 0; i < mr; i++)
    {
        if (i < height) {
            UNROLL for (int j = 0; j < nv; j++)
                F(store_first)(y + i * y_step + j * LANES, acc[i * nv + j], width - j * LANES);
        }
    }
}

/* The tile transposed: y[j][i] = acc[i][j] for j < height, i < width. */
PIECE void F(store_columns)(F(vec) acc[], real *y, int64_t y_step, int64_t height, int64_t width,
                            int mr, int nv)
{
    UNROLL for (int first = 0; first < mr; first += LANES)
    {
        UNROLL for (int j = 0; j < nv; j++)
        {
            F(vec) v[LANES];
            UNROLL for (int i = 0; i < LANES; i++)
                v[i] = first + i < mr ? acc[(first + i) * nv + j] : (F(vec)){0};
            F(transpose)(v);
            UNROLL for (int i = 0; i < LANES; i++)
                if (j * LANES + i < height)
                    F(store_first)(y + (j * LANES + i) * y_step + first, v[i], width - first);
        }
    }
}

/* A is the image, its numbers side by side; B packed weights, PANEL numbers a term. y is
 * (channels, pixels), bias as many numbers as the tile has columns, or NULL. */
PIECE void F(pixel_rows)(const real *x, const int64_t *taps, int64_t count, const real *weight,
                         const real *bias, real *y, int64_t y_step, int64_t channels,
                         int64_t pixels, int mr, int nv)
{
    F(vec) acc[MOST_VECTORS] = {{0}};
    for (int64_t t = 0; t < count; t++) {
        F(multiply_add)(acc, x + taps[t], 1, weight, mr, nv);
        __builtin_prefetch((const void *)((uintptr_t)weight + AHEAD * PANEL * sizeof(real)), 0, 3);
        if (nv * LN_VECTOR_BYTES > 64)
            __builtin_prefetch((const void *)((uintptr_t)weight + AHEAD * PANEL * sizeof(real) + 64), 0, 3);
        weight += PANEL;
    }
    if (bias)
        F(add_to_rows)(acc, bias, mr, nv);
    F(store_columns)(acc, y, y_step, channels, pixels, mr, nv);
}

/* A are rows of numbers, a_step apart, B runs of the image or a panel of weights. y is
 * (height, width); bias holds a number for each row, or `along` for each column. */
PIECE void F(channel_rows)(const real *a, int64_t a_step, const real *b, const int64_t *taps,
                           int64_t count, const real *bias, real *y, int64_t y_step,
                           int64_t height, int64_t width, int mr, int nv, int along)
{
    F(vec) acc[MOST_VECTORS] = {{0}};
    for (int64_t t = 0; t < count; t++) F(multiply_add)(acc, a + t, a_step, b + taps[t], mr, nv);
    if (bias && along)
        F(add_to_rows)(acc, bias, mr, nv);
    else if (bias)
        F(add_to_columns)(acc, bias, mr, nv);
    F(store_rows)(acc, y, y_step, height, width, mr, nv);
}

#define PIXEL_TILE(name, mr, nv) \
    static void F(name)(const real *x, const int64_t *taps, int64_t count, const real *weight, \
                        const real *bias, real *y, int64_t y_step, int64_t channels, \
                        int64_t pixels) \
    { \
        F(pixel_rows)(x, taps, count, weight, bias, y, y_step, channels, pixels, mr, nv); \
    }
PIXEL_TILE(many_pixels_wide, PIXEL_ROWS, 2)
PIXEL_TILE(many_pixels_narrow, PIXEL_ROWS, 1)
PIXEL_TILE(few_pixels_wide, FEW_PIXEL_ROWS, 2)
PIXEL_TILE(few_pixels_narrow, FEW_PIXEL_ROWS, 1)
#undef PIXEL_TILE

#define CHANNEL_TILE(name, mr, nv, along) \
    static void F(name)(const real *a, int64_t a_step, const real *b, const int64_t *taps, \
                        int64_t count, const real *bias, real *y, int64_t y_step, \
                        int64_t height, int64_t width) \
    { \
        F(channel_rows)(a, a_step, b, taps, count, bias, y, y_step, height, width, mr, nv, along); \
    }
CHANNEL_TILE(many_channels, CHANNEL_ROWS, 3, 0)
CHANNEL_TILE(many_channels_narrow, CHANNEL_ROWS, 1, 0)
CHANNEL_TILE(few_channels, FEW_CHANNEL_ROWS, 4, 0)
CHANNEL_TILE(one_channel, 1, 8, 0)
CHANNEL_TILE(samples, CHANNEL_ROWS, SAMPLE_VECTORS, 1)
#undef CHANNEL_TILE
