/* sums.h: long sums, the twin of kernels/sums.py, where the rule and its reasons are told.
 *
 * A sum is an array of numbers, for `width` sums side by side: its 16 lanes, then a tree, which is
 * the total in hand and LN_LEVELS levels; each of these parts has `width` numbers. */

#ifndef LN_SUMS
#define LN_SUMS
#define LN_RUN 2048 /* terms */
#define LN_LEVELS 32 /* of the tree: 2^32 runs are more than memory holds */
#ifndef LN_COLUMNS
#define LN_COLUMNS (1024 / REAL_BYTES) /* that are summed together: lanes and levels take 49 KB of stack */
#endif
#define LN_SUM_SIZE (16 + 1 + LN_LEVELS)
/* Once in a run: not inlined, so that what goes on all the time stays small. */
#if defined(__GNUC__)
#define SELDOM static __attribute__((noinline, unused))
#else
#define SELDOM static
#endif
#endif

/* Add x[0 .. count) to the lanes: lane l takes elements l, l+16, ... */
static inline void F(add_lanes)(real lanes[16], const real *x, int64_t count)
{
    real sums[16]; /* x and lanes could overlap, for all the compiler knows */
    int64_t i = 0;
    for (int lane = 0; lane < 16; lane++) sums[lane] = lanes[lane];
    for (; i + 16 <= count; i += 16)
        for (int lane = 0; lane < 16; lane++) sums[lane] += x[i + lane];
    for (int lane = 0; lane < 16; lane++) lanes[lane] = sums[lane];
    for (int lane = 0; i + lane < count; lane++) lanes[lane] += x[i + lane];
}

/* Totals of the lanes, folded 8, 4, 2, 1, in the first one; they are used up. */
static inline void F(fold)(real *lanes, int64_t width)
{
    for (int64_t half = 8 * width; half >= width; half /= 2)
        for (int64_t i = 0; i < half; i++) lanes[i] += lanes[i + half];
}

/* Take the total in hand, of a run, into a tree of `runs` others. Bit k of the number of runs tells
 * whether level k holds a total, of 2^k runs: one run more is counted, and a carry is an addition. */
static inline void F(take_run)(real *tree, int64_t runs, int64_t width)
{
    real *level = tree + width;
    for (; runs & 1; runs >>= 1, level += width)
        for (int64_t i = 0; i < width; i++) tree[i] = level[i] + tree[i];
    for (int64_t i = 0; i < width; i++) level[i] = tree[i];
}

/* The total of a tree, in hand: that of the latest runs, and then what is on higher levels. */
static inline void F(tree_total)(real *tree, int64_t runs, int64_t width)
{
    const real *level = tree + width;
    for (; runs && !(runs & 1); runs >>= 1) level += width;
    for (int64_t i = 0; i < width; i++) tree[i] = runs ? level[i] : 0;
    for (runs >>= 1, level += width; runs; runs >>= 1, level += width)
        if (runs & 1)
            for (int64_t i = 0; i < width; i++) tree[i] = level[i] + tree[i];
}

/* Sums without a term. */
static inline void F(start_sum)(real *sum, int64_t width)
{
    for (int64_t i = 0; i < 16 * width; i++) sum[i] = 0;
}

/* The run in the lanes has come to its end; `runs` others came before. */
static inline void F(end_run)(real *sum, int64_t runs, int64_t width)
{
    F(fold)(sum, width);
    for (int64_t i = 0; i < width; i++) sum[16 * width + i] = sum[i];
    F(take_run)(sum + 16 * width, runs, width);
    F(start_sum)(sum, width);
}

/* Two runs whole, side by side: neither waits for itself then. The lanes hold zeros; `runs` others came
 * before. */
static inline void F(two_runs)(real *sum, int64_t runs, const real *x)
{
    real a[16] = {0}, b[16] = {0};
    for (int64_t i = 0; i < LN_RUN; i += 16) {
        for (int lane = 0; lane < 16; lane++) a[lane] += x[i + lane];
        for (int lane = 0; lane < 16; lane++) b[lane] += x[LN_RUN + i + lane];
    }
    for (int lane = 0; lane < 16; lane++) sum[lane] = a[lane];
    F(end_run)(sum, runs, 1);
    for (int lane = 0; lane < 16; lane++) sum[lane] = b[lane];
    F(end_run)(sum, runs + 1, 1);
}

/* Add x[0 .. count), from lane 0 on, to a sum of `terms`; the number of terms then. */
static inline int64_t F(add_to_sum)(real *sum, int64_t terms, const real *x, int64_t count)
{
    while (terms % LN_RUN + count >= LN_RUN) {
        int64_t now = LN_RUN - terms % LN_RUN;
        if (now == LN_RUN && count >= 2 * LN_RUN) {
            F(two_runs)(sum, terms / LN_RUN, x);
            now = 2 * LN_RUN;
        } else {
            F(add_lanes)(sum, x, now);
            F(end_run)(sum, terms / LN_RUN, 1);
        }
        terms += now, x += now, count -= now;
    }
    F(add_lanes)(sum, x, count);
    return terms + count;
}

/* Totals of sums of so many terms; the sums are used up. */
static inline const real *F(sum_total)(real *sum, int64_t terms, int64_t width)
{
    if (terms < LN_RUN) {
        F(fold)(sum, width);
        return sum;
    }
    if (terms % LN_RUN)
        F(end_run)(sum, terms / LN_RUN, width);
    F(tree_total)(sum + 16 * width, (terms + LN_RUN - 1) / LN_RUN, width);
    return sum + 16 * width;
}

/* Sum of x[0 .. count). */
static inline real F(sum_of)(const real *x, int64_t count)
{
    real sum[LN_SUM_SIZE];
    F(start_sum)(sum, 1);
    return *F(sum_total)(sum, F(add_to_sum)(sum, 0, x, count), 1);
}

/* Add 64 rows to the lanes, `pitch` apart: each lane is loaded and stored once for its four. */
static inline void F(add_64_rows)(real *lanes, const real *x, int64_t pitch, int64_t width)
{
    for (int64_t l = 0; l < 16; l++) {
        real *lane = lanes + l * width;
        const real *a = x + l * pitch, *b = a + 16 * pitch, *c = b + 16 * pitch, *d = c + 16 * pitch;
        INDEPENDENT for (int64_t i = 0; i < width; i++)
            lane[i] = (((lane[i] + a[i]) + b[i]) + c[i]) + d[i];
    }
}

/* Sums down each of `columns` columns of `rows` numbers, `pitch` apart: row r is in lane r % 16. */
static inline void F(sum_columns)(const real *x, int64_t pitch, int64_t rows, int64_t columns, real *y)
{
    real sum[LN_SUM_SIZE * LN_COLUMNS];
    for (int64_t first = 0; first < columns; first += LN_COLUMNS) {
        const int64_t width = columns - first < LN_COLUMNS ? columns - first : LN_COLUMNS;
        int64_t r = 0;
        F(start_sum)(sum, width);
        while (r + 64 <= rows) {
            F(add_64_rows)(sum, x + r * pitch + first, pitch, width);
            r += 64;
            if (r % LN_RUN == 0)
                F(end_run)(sum, r / LN_RUN - 1, width);
        }
        for (; r < rows; r++)
            for (int64_t i = 0; i < width; i++) sum[r % 16 * width + i] += x[r * pitch + first + i];
        const real *totals = F(sum_total)(sum, rows, width);
        for (int64_t i = 0; i < width; i++) y[first + i] = totals[i];
    }
}
