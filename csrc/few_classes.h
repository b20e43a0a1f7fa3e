/* few_classes.h: softmax and cross-entropy of rows of up to 16 classes, part of loss.c; the twin of
 * kernels/few_classes.py. In blocks of 64 rows: a lane is a row, and the folds become sums of whole vectors
 * in the same order. */

typedef struct {
    real columns[SUMS][ROWS], e[SUMS][ROWS], part[8][ROWS], top[ROWS], total[ROWS];
} F(row_block);

static inline void F(to_columns)(const real *x, int64_t rows, int64_t classes, real columns[][ROWS])
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < classes; c++) columns[c][r] = x[r * classes + c];
    for (int64_t c = 0; c < classes; c++)
        for (int64_t r = rows; r < ROWS; r++) columns[c][r] = 0;
}

static inline void F(from_columns)(real columns[][ROWS], int64_t rows, int64_t classes, real *y)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < classes; c++) y[r * classes + c] = columns[c][r];
}

/* The sums of the first `count` parts, folded, in part[0]. */
static inline void F(block_fold)(F(row_block) *b, int64_t count)
{
    for (int64_t half = 4; half; half /= 2) {
        for (int64_t c = 0; c + half < count; c++)
            for (int r = 0; r < ROWS; r++) b->part[c][r] += b->part[c + half][r];
        count = count < half ? count : half;
    }
}

INTERLEAVED static void F(block_exponentials)(F(row_block) *b, int64_t classes)
{
    for (int r = 0; r < ROWS; r++) b->top[r] = b->columns[0][r];
    for (int64_t c = 1; c < classes; c++)
        for (int r = 0; r < ROWS; r++)
            b->top[r] = b->columns[c][r] > b->top[r] ? b->columns[c][r] : b->top[r];
    for (int64_t c = 0; c < classes; c++)
        for (int r = 0; r < ROWS; r += SIDE_BY_SIDE * LANES) {
            F(vec) v[SIDE_BY_SIDE];
            UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++)
                v[k] = F(load)(b->columns[c] + r + k * LANES) - F(load)(b->top + r + k * LANES);
            F(exp_each)(v, SIDE_BY_SIDE);
            UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++)
                F(store)(b->e[c] + r + k * LANES, v[k]);
        }
    int64_t count = classes < 8 ? classes : 8;
    for (int64_t c = 0; c < count; c++) {
        if (c + 8 < classes)
            for (int r = 0; r < ROWS; r++) b->part[c][r] = b->e[c][r] + b->e[c + 8][r];
        else
            for (int r = 0; r < ROWS; r++) b->part[c][r] = b->e[c][r];
    }
    F(block_fold)(b, count);
    for (int r = 0; r < ROWS; r++) b->total[r] = b->part[0][r];
}

/* Logarithms of the sums, in part[0]; columns and e are as `block_exponentials` left them. */
static void F(block_logs)(F(row_block) *b, int64_t classes)
{
    int small = 0;
    for (int r = 0; r < ROWS; r++) small |= b->total[r] < F(small_sum);
    if (!small) {
        for (int r = 0; r < ROWS; r++) b->part[0][r] = F(log)(b->total[r]);
        return;
    }
    int64_t count = classes < 8 ? classes : 8;
    for (int64_t c = 0; c < count; c++)
        for (int r = 0; r < ROWS; r += LANES) {
            const F(vec) top = F(load)(b->top + r), v = F(load)(b->columns[c] + r);
            F(vec) others = F(without_top)(v, top, F(load)(b->e[c] + r));
            if (c + 8 < classes) {
                const F(vec) w = F(load)(b->columns[c + 8] + r);
                others += F(without_top)(w, top, F(load)(b->e[c + 8] + r));
            }
            F(store)(b->part[c] + r, others);
        }
    F(block_fold)(b, count);
    for (int r = 0; r < ROWS; r++) {
        real all = F(log)(b->total[r]), few = F(log_one_plus)(b->part[0][r]);
        b->part[0][r] = b->total[r] < F(small_sum) ? few : all;
    }
}

static void F(few_softmax)(const real *x, int64_t classes, int64_t rows, real *y)
{
    F(row_block) b;
    F(to_columns)(x, rows, classes, b.columns);
    F(block_exponentials)(&b, classes);
    for (int r = 0; r < ROWS; r++) b.total[r] = 1 / b.total[r];
    for (int64_t c = 0; c < classes; c++)
        for (int r = 0; r < ROWS; r++) b.e[c][r] *= b.total[r];
    F(from_columns)(b.e, rows, classes, y);
}

static void F(few_log_softmax)(const real *x, int64_t classes, int64_t rows, real *y)
{
    F(row_block) b;
    F(to_columns)(x, rows, classes, b.columns);
    F(block_exponentials)(&b, classes);
    F(block_logs)(&b, classes);
    for (int64_t c = 0; c < classes; c++)
        for (int r = 0; r < ROWS; r++)
            b.columns[c][r] = (b.columns[c][r] - b.top[r]) - b.part[0][r];
    F(from_columns)(b.columns, rows, classes, y);
}

static void F(few_cross_entropy)(const real *x, const int64_t *target, int64_t classes,
                                 int64_t ignore_index, const real *scale, int64_t rows,
                                 real *losses, real *d)
{
    F(row_block) b;
    F(to_columns)(x, rows, classes, b.columns);
    F(block_exponentials)(&b, classes);
    if (losses) {
        F(block_logs)(&b, classes);
        for (int64_t r = 0; r < rows; r++)
            losses[r] = target[r] == ignore_index
                            ? 0 : b.part[0][r] - (b.columns[target[r]][r] - b.top[r]);
    }
    if (!d)
        return;
    for (int64_t r = 0; r < ROWS; r++)
        b.top[r] = r < rows && target[r] != ignore_index ? scale[r] : 0;
    for (int r = 0; r < ROWS; r++) b.total[r] = 1 / b.total[r];
    for (int64_t c = 0; c < classes; c++)
        for (int r = 0; r < ROWS; r++)
            b.columns[c][r] = (b.e[c][r] * b.total[r] - 0) * b.top[r];
    for (int64_t r = 0; r < rows; r++)
        if (target[r] != ignore_index)
            b.columns[target[r]][r] = (b.e[target[r]][r] * b.total[r] - 1) * b.top[r];
    F(from_columns)(b.columns, rows, classes, d);
    for (int64_t r = 0; r < rows; r++)
        if (target[r] == ignore_index) /* 0 even where the row holds NaN */
            for (int64_t c = 0; c < classes; c++) d[r * classes + c] = 0;
}
