/* loss.c: softmax and cross-entropy on the rows of x (n, classes); the twin is
 * kernels/loss.py. Sums over a row run in 16 lanes (lanes.h). */
#define LANES 16
#define ROWS 64

/* Largest of a row, NaN left out. */
static inline real F(row_max)(const real *x, int64_t count)
{
    real best[LANES];
    int64_t i = 0;
    for (int lane = 0; lane < LANES; lane++) best[lane] = -(real)INFINITY;
    for (; i + LANES <= count; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            best[lane] = x[i + lane] > best[lane] ? x[i + lane] : best[lane];
    for (int lane = 0; i + lane < count; lane++)
        best[lane] = x[i + lane] > best[lane] ? x[i + lane] : best[lane];
    for (int half = LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++)
            best[lane] = best[lane] > best[lane + half] ? best[lane] : best[lane + half];
    return best[0];
}

/* y = exp(x - max) on a row; returns the sum of y. */
static inline real F(exponentials)(const real *x, int64_t count, real *y, real *top)
{
    real lanes[LANES] = {0}, best = F(row_max)(x, count);
    *top = best;
    INDEPENDENT for (int64_t i = 0; i < count; i++) y[i] = F(exp)(x[i] - best);
    F(add_lanes)(lanes, y, count);
    return F(fold)(lanes);
}

/* Log of the sum of exp(x - max) of a row. */
static inline real F(log_sum)(const real *x, int64_t count, real *top)
{
    real lanes[LANES] = {0}, e[LANES * 16], best = F(row_max)(x, count);
    *top = best;
    for (int64_t i = 0; i < count; i += LANES * 16) {
        int64_t left = count - i < LANES * 16 ? count - i : LANES * 16;
        INDEPENDENT for (int64_t k = 0; k < left; k++) e[k] = F(exp)(x[i + k] - best);
        F(add_lanes)(lanes, e, left);
    }
    return F(log)(F(fold)(lanes));
}

/* ---- rows of up to 16 classes, in blocks of 64 rows: a lane is a row, and the folds become
 * sums of whole vectors in the same order (kernels/few_classes.py) ---- */

typedef struct {
    real columns[LANES][ROWS], e[LANES][ROWS], part[8][ROWS], top[ROWS], total[ROWS];
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

static inline void F(block_exponentials)(F(row_block) *b, int64_t classes)
{
    for (int r = 0; r < ROWS; r++) b->top[r] = b->columns[0][r];
    for (int64_t c = 1; c < classes; c++)
        for (int r = 0; r < ROWS; r++)
            b->top[r] = b->columns[c][r] > b->top[r] ? b->columns[c][r] : b->top[r];
    for (int64_t c = 0; c < classes; c++)
        for (int r = 0; r < ROWS; r++) b->e[c][r] = F(exp)(b->columns[c][r] - b->top[r]);
    int64_t count = classes < 8 ? classes : 8;
    for (int64_t c = 0; c < count; c++) {
        if (c + 8 < classes)
            for (int r = 0; r < ROWS; r++) b->part[c][r] = b->e[c][r] + b->e[c + 8][r];
        else
            for (int r = 0; r < ROWS; r++) b->part[c][r] = b->e[c][r];
    }
    for (int64_t half = 4; half; half /= 2) {
        for (int64_t c = 0; c + half < count; c++)
            for (int r = 0; r < ROWS; r++) b->part[c][r] += b->part[c + half][r];
        count = count < half ? count : half;
    }
    for (int r = 0; r < ROWS; r++) b->total[r] = b->part[0][r];
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
    for (int r = 0; r < ROWS; r++) b.total[r] = F(log)(b.total[r]);
    for (int64_t c = 0; c < classes; c++)
        for (int r = 0; r < ROWS; r++)
            b.columns[c][r] = (b.columns[c][r] - b.top[r]) - b.total[r];
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
        for (int r = 0; r < ROWS; r++) b.part[0][r] = F(log)(b.total[r]);
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

/* ---- the ops ---- */

void OP(softmax)(const real *x, int64_t classes, int64_t first, int64_t last, real *y)
{
    if (classes <= LANES) {
        for (int64_t n = first; n < last; n += ROWS)
            F(few_softmax)(x + n * classes, classes, last - n < ROWS ? last - n : ROWS,
                           y + n * classes);
        return;
    }
    for (int64_t n = first; n < last; n++) {
        real top, *out = y + n * classes;
        real factor = 1 / F(exponentials)(x + n * classes, classes, out, &top);
        INDEPENDENT for (int64_t i = 0; i < classes; i++) out[i] *= factor;
    }
}

void OP(log_softmax)(const real *x, int64_t classes, int64_t first, int64_t last, real *y)
{
    if (classes <= LANES) {
        for (int64_t n = first; n < last; n += ROWS)
            F(few_log_softmax)(x + n * classes, classes, last - n < ROWS ? last - n : ROWS,
                               y + n * classes);
        return;
    }
    for (int64_t n = first; n < last; n++) {
        const real *row = x + n * classes;
        real top, rest = F(log_sum)(row, classes, &top);
        INDEPENDENT for (int64_t i = 0; i < classes; i++) y[n * classes + i] = (row[i] - top) - rest;
    }
}

/* Sum over a row of the log-probabilities, times the classes' weights if there are any. */
static real F(log_probability_sum)(const real *x, int64_t count, real top, real rest,
                                   const real *weight)
{
    real lanes[LANES] = {0};
    for (int64_t i = 0; i < count; i++) {
        real v = (x[i] - top) - rest;
        lanes[i % LANES] += weight ? v * weight[i] : v;
    }
    return F(fold)(lanes);
}

/* From exponentials in d to the gradient for a target of one class; `weights` is the sum of
 * all class weights. */
static inline void F(one_class_gradient)(real *d, int64_t classes, int64_t hit, real keep,
                                         real spread, real total, const real *weight,
                                         real weights, real scale)
{
    real inverse = 1 / total, e = d[hit];
    if (!weight) {
        INDEPENDENT for (int64_t c = 0; c < classes; c++) d[c] = (d[c] * inverse - spread) * scale;
        d[hit] = (e * inverse - (keep + spread)) * scale;
        return;
    }
    real wanted = keep * weight[hit], factor = wanted + spread * weights;
    INDEPENDENT for (int64_t c = 0; c < classes; c++)
        d[c] = (d[c] * inverse * factor - spread * weight[c]) * scale;
    d[hit] = (e * inverse * factor - (wanted + spread * weight[hit])) * scale;
}

void OP(cross_entropy)(const real *logits, const int64_t *target, const real *weight,
                       int64_t classes, int64_t ignore_index, real smoothing, const real *scale,
                       int64_t first, int64_t last, real *losses, real *dlogits)
{
    real keep = 1 - smoothing, spread = smoothing / (real)classes, lanes[LANES] = {0};
    if (classes <= LANES && smoothing == 0 && !weight) {
        for (int64_t n = first; n < last; n += ROWS)
            F(few_cross_entropy)(logits + n * classes, target + n, classes, ignore_index,
                                 scale ? scale + n : NULL, last - n < ROWS ? last - n : ROWS,
                                 losses ? losses + n : NULL, dlogits ? dlogits + n * classes : NULL);
        return;
    }
    if (weight)
        F(add_lanes)(lanes, weight, classes);
    real weights = F(fold)(lanes);
    for (int64_t n = first; n < last; n++) {
        const real *row = logits + n * classes;
        real *d = dlogits ? dlogits + n * classes : NULL, top, rest;
        int64_t hit = target[n];
        if (hit == ignore_index) {
            if (losses)
                losses[n] = 0;
            for (int64_t c = 0; d && c < classes; c++) d[c] = 0;
            continue;
        }
        if (d) {
            real total = F(exponentials)(row, classes, d, &top);
            rest = F(log)(total);
            F(one_class_gradient)(d, classes, hit, keep, spread, total, weight, weights, scale[n]);
        } else
            rest = F(log_sum)(row, classes, &top);
        if (losses) {
            real loss = rest - (row[hit] - top);
            if (weight)
                loss = loss * weight[hit];
            if (smoothing != 0)
                loss = keep * loss
                       - spread * F(log_probability_sum)(row, classes, top, rest, weight);
            losses[n] = loss;
        }
    }
}

void OP(cross_entropy_probabilities)(const real *logits, const real *target, const real *weight,
                                     int64_t classes, real smoothing, const real *scale,
                                     int64_t first, int64_t last, real *losses, real *dlogits)
{
    real keep = 1 - smoothing, spread = smoothing / (real)classes;
    for (int64_t n = first; n < last; n++) {
        const real *row = logits + n * classes, *wanted = target + n * classes;
        real *d = dlogits ? dlogits + n * classes : NULL, top, rest, total = 1;
        if (d) {
            total = F(exponentials)(row, classes, d, &top);
            rest = F(log)(total);
        } else
            rest = F(log_sum)(row, classes, &top);
        real loss[LANES] = {0}, share[LANES] = {0};
        for (int64_t i = 0; i < classes; i++) {
            real q = keep * wanted[i] + spread;
            if (weight)
                q = q * weight[i];
            loss[i % LANES] += q * ((row[i] - top) - rest);
            share[i % LANES] += q;
        }
        if (losses)
            losses[n] = -F(fold)(loss);
        if (!d)
            continue;
        real inverse = 1 / total, factor = F(fold)(share);
        for (int64_t i = 0; i < classes; i++) {
            real q = keep * wanted[i] + spread;
            if (weight)
                q = q * weight[i];
            d[i] = (d[i] * inverse * factor - q) * scale[n];
        }
    }
}

void OP(total)(const real *values, int64_t n, real *result)
{
    real lanes[LANES] = {0};
    F(add_lanes)(lanes, values, n);
    result[0] = F(fold)(lanes);
}

#undef LANES
#undef ROWS
