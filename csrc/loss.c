/* loss.c: softmax and cross-entropy on the rows of x (n, classes); the twin is
 * kernels/loss.py. Sums over a row run in 16 lanes (lanes.h). */

/* Largest of a row; NaN if there is one. */
static inline real F(row_max)(const real *x, int64_t count)
{
    real best = x[0];
    for (int64_t i = 0; i < count; i++)
        if (x[i] > best || x[i] != x[i])
            best = x[i];
    return best;
}

/* y = exp(x - max) on a row; returns the sum of y. */
static inline real F(exponentials)(const real *x, int64_t count, real *y)
{
    real lanes[16] = {0}, top = F(row_max)(x, count);
    INDEPENDENT for (int64_t i = 0; i < count; i++) y[i] = F(exp)(x[i] - top);
    F(add_lanes)(lanes, y, count);
    return F(fold)(lanes);
}

/* Log of the sum of exp(x - max) of a row. */
static inline real F(log_sum)(const real *x, int64_t count, real *top)
{
    real lanes[16] = {0};
    *top = F(row_max)(x, count);
    for (int64_t i = 0; i < count; i++) lanes[i % 16] += F(exp)(x[i] - *top);
    return F(log)(F(fold)(lanes));
}

void OP(softmax)(const real *x, int64_t classes, int64_t first, int64_t last, real *y)
{
    for (int64_t n = first; n < last; n++) {
        real *out = y + n * classes, total = F(exponentials)(x + n * classes, classes, out);
        INDEPENDENT for (int64_t i = 0; i < classes; i++) out[i] /= total;
    }
}

void OP(log_softmax)(const real *x, int64_t classes, int64_t first, int64_t last, real *y)
{
    for (int64_t n = first; n < last; n++) {
        const real *row = x + n * classes;
        real top, rest = F(log_sum)(row, classes, &top);
        INDEPENDENT for (int64_t i = 0; i < classes; i++) y[n * classes + i] = (row[i] - top) - rest;
    }
}

void OP(cross_entropy)(const real *logits, const int64_t *target, int64_t classes,
                       int64_t ignore_index, real smoothing, int64_t first, int64_t last,
                       real *losses)
{
    real keep = 1 - smoothing, spread = smoothing / (real)classes;
    for (int64_t n = first; n < last; n++) {
        if (target[n] == ignore_index) {
            losses[n] = 0;
            continue;
        }
        const real *row = logits + n * classes;
        real top, rest = F(log_sum)(row, classes, &top);
        real loss = rest - (row[target[n]] - top);
        if (smoothing != 0) {
            real lanes[16] = {0};
            for (int64_t i = 0; i < classes; i++) lanes[i % 16] += (row[i] - top) - rest;
            loss = keep * loss - spread * F(fold)(lanes);
        }
        losses[n] = loss;
    }
}

void OP(cross_entropy_probabilities)(const real *logits, const real *target, int64_t classes,
                                     real smoothing, int64_t first, int64_t last, real *losses)
{
    real keep = 1 - smoothing, spread = smoothing / (real)classes;
    for (int64_t n = first; n < last; n++) {
        const real *row = logits + n * classes;
        real top, rest = F(log_sum)(row, classes, &top), lanes[16] = {0};
        for (int64_t i = 0; i < classes; i++) {
            real q = keep * target[n * classes + i] + spread;
            lanes[i % 16] += q * ((row[i] - top) - rest);
        }
        losses[n] = -F(fold)(lanes);
    }
}

void OP(cross_entropy_backward)(const real *logits, const int64_t *target, int64_t classes,
                                int64_t ignore_index, real smoothing, const real *scale,
                                int64_t first, int64_t last, real *dlogits)
{
    real keep = 1 - smoothing, spread = smoothing / (real)classes;
    for (int64_t n = first; n < last; n++) {
        real *out = dlogits + n * classes;
        if (target[n] == ignore_index) {
            for (int64_t i = 0; i < classes; i++) out[i] = 0;
            continue;
        }
        real total = F(exponentials)(logits + n * classes, classes, out);
        for (int64_t i = 0; i < classes; i++) {
            real q = i == target[n] ? keep + spread : spread;
            out[i] = (out[i] / total - q) * scale[n];
        }
    }
}

void OP(cross_entropy_probabilities_backward)(const real *logits, const real *target,
                                              int64_t classes, real smoothing, const real *scale,
                                              int64_t first, int64_t last, real *dlogits)
{
    real keep = 1 - smoothing, spread = smoothing / (real)classes;
    for (int64_t n = first; n < last; n++) {
        real *out = dlogits + n * classes, lanes[16] = {0};
        const real *wanted = target + n * classes;
        real total = F(exponentials)(logits + n * classes, classes, out);
        for (int64_t i = 0; i < classes; i++) lanes[i % 16] += keep * wanted[i] + spread;
        real weight = F(fold)(lanes);
        for (int64_t i = 0; i < classes; i++) {
            real q = keep * wanted[i] + spread;
            out[i] = (out[i] / total * weight - q) * scale[n];
        }
    }
}

void OP(total)(const real *values, int64_t n, real *result)
{
    real lanes[16] = {0};
    F(add_lanes)(lanes, values, n);
    result[0] = F(fold)(lanes);
}
