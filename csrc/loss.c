/* loss.c: softmax and cross-entropy on the rows of x (n, classes); the twin is
 * kernels/loss.py. Sums over a row run in 16 lanes (lanes.h). */
#define SUMS 16
#define PARTS (SUMS / LANES)
#define LONG 4096 /* classes: 16 such rows take 256 KB */
#define ROWS 64

/* Combine 16 lanes with those 8, then 4, 2, 1 above; the result in lane 0 of the first vector. */
#define FLIPPED(i, by) ((i) ^ ((by) & (LANES - 1)))
#define FOLD(part, combine) \
    UNROLL for (int half = PARTS / 2; half; half /= 2) \
        UNROLL for (int p = 0; p < half; p++) part[p] = combine(part[p], part[p + half]); \
    if (LANES > 8) part[0] = combine(part[0], SHUFFLE(part[0], part[0], EACH_LANE(FLIPPED, 8))); \
    if (LANES > 4) part[0] = combine(part[0], SHUFFLE(part[0], part[0], EACH_LANE(FLIPPED, 4))); \
    if (LANES > 2) part[0] = combine(part[0], SHUFFLE(part[0], part[0], EACH_LANE(FLIPPED, 2))); \
    part[0] = combine(part[0], SHUFFLE(part[0], part[0], EACH_LANE(FLIPPED, 1)));
#define ADD(a, b) ((a) + (b))

/* Largest of a row, NaN left out. */
PIECE real F(row_max)(const real *x, int64_t count)
{
    F(vec) part[PARTS];
    int64_t i = 0;
    UNROLL for (int p = 0; p < PARTS; p++) part[p] = F(splat)(-(real)INFINITY);
    for (; i + SUMS <= count; i += SUMS)
        UNROLL for (int p = 0; p < PARTS; p++)
            part[p] = F(larger_lanes)(F(load)(x + i + p * LANES), part[p]);
    if (i < count) {
        real last[SUMS];
        for (int lane = 0; lane < SUMS; lane++) last[lane] = -(real)INFINITY;
        memcpy(last, x + i, (size_t)(count - i) * sizeof *x);
        UNROLL for (int p = 0; p < PARTS; p++)
            part[p] = F(larger_lanes)(F(load)(last + p * LANES), part[p]);
    }
    FOLD(part, F(larger_lanes))
    return part[0][0];
}

enum F(written) { F(EXPONENTIAL), F(DIFFERENCE), F(NOTHING) };

/* y = exp(x - top), or x - top, or not touched, for `count` vectors from x on (a constant, whole
 * sums of 16); the exponentials are added to the lanes. Meanwhile come the bytes `next_x` behind x,
 * of the next set of rows, and those `next_y` behind y, of the next row: what the CPU fetches by
 * itself is late. */
PIECE void F(exp_block)(const real *x, uintptr_t next_x, real top, int count, enum F(written) what,
                        real *y, uintptr_t next_y, F(vec) lanes[PARTS])
{
    F(vec) v[8];
    UNROLL for (int k = 0; k < count; k++)
    {
        const uintptr_t at = (uintptr_t)(k * LANES) * sizeof(real);
        __builtin_prefetch((const void *)((uintptr_t)x + next_x + at), 0, 3);
        if (what != F(NOTHING))
            __builtin_prefetch((const void *)((uintptr_t)y + next_y + at), 1, 3);
    }
    UNROLL for (int k = 0; k < count; k++) v[k] = F(load)(x + k * LANES) - F(splat)(top);
    if (what == F(DIFFERENCE))
        UNROLL for (int k = 0; k < count; k++) F(store)(y + k * LANES, v[k]);
    F(exp_each)(v, count);
    if (what == F(EXPONENTIAL))
        UNROLL for (int k = 0; k < count; k++) F(store)(y + k * LANES, v[k]);
    UNROLL for (int k = 0; k < count; k++) lanes[k % PARTS] += v[k];
}

/* Sum of exp(x - top) over a row; see `exp_block`. */
PIECE real F(exp_row)(const real *x, int64_t count, real top, enum F(written) what, real *y)
{
    const uintptr_t next_y = (uintptr_t)count * sizeof *x;
    const uintptr_t next_x = next_y * (count <= LONG ? SUMS : 1);
    const int most = PARTS < SIDE_BY_SIDE ? SIDE_BY_SIDE / PARTS * PARTS : PARTS;
    F(vec) part[PARTS];
    int64_t i = 0;
    UNROLL for (int p = 0; p < PARTS; p++) part[p] = F(splat)(0);
    for (; i + most * LANES <= count; i += most * LANES)
        F(exp_block)(x + i, next_x, top, most, what, y + i, next_y, part);
    for (; i + SUMS <= count; i += SUMS)
        F(exp_block)(x + i, next_x, top, PARTS, what, y + i, next_y, part);
    for (int p = 0; i < count; p++, i += LANES) {
        F(vec) v = F(load_first)(x + i, count - i) - F(splat)(top);
        real last[LANES] = {0};
        if (what == F(DIFFERENCE))
            F(store_first)(y + i, v, count - i);
        v = F(exp_lanes)(v);
        if (what == F(EXPONENTIAL))
            F(store_first)(y + i, v, count - i);
        F(store_first)(last, v, count - i);
        part[p] += F(load)(last);
    }
    FOLD(part, ADD)
    return part[0][0];
}

/* y = exp(x - top) on a row; returns the sum of y. */
INTERLEAVED static real F(exponentials)(const real *x, int64_t count, real top, real *y)
{
    return F(exp_row)(x, count, top, F(EXPONENTIAL), y);
}

/* Sum of exp(x - top) of a row; x - top goes to y, if there is one. */
INTERLEAVED static real F(sum)(const real *x, int64_t count, real top, real *y)
{
    return y ? F(exp_row)(x, count, top, F(DIFFERENCE), y)
             : F(exp_row)(x, count, top, F(NOTHING), (real *)x);
}

/* Rows are worked on in sets, one step for all of them and then the next: the steps of a single
 * row, a maximum, a sum, each a chain of folds, would wait for each other. */
typedef struct {
    real top[SUMS], total[SUMS];
} F(row_set);

static inline int64_t F(set_size)(int64_t rows, int64_t classes)
{
    int64_t most = classes <= LONG ? SUMS : 1;
    return rows < most ? rows : most;
}

/* Maxima and sums of a set; y gets the exponentials, or with `logs` x - top, or may be NULL. */
static void F(set_sums)(const real *x, int64_t rows, int64_t classes, int logs, real *y,
                        F(row_set) *set)
{
    for (int r = 0; r < SUMS; r++) set->total[r] = 1;
    for (int64_t r = 0; r < rows; r++) set->top[r] = F(row_max)(x + r * classes, classes);
    for (int64_t r = 0; r < rows; r++) {
        const real *row = x + r * classes;
        real *out = y ? y + r * classes : NULL;
        set->total[r] = y && !logs ? F(exponentials)(row, classes, set->top[r], out)
                                   : F(sum)(row, classes, set->top[r], out);
    }
}

/* ---- rows of up to 16 classes, in blocks of 64 rows: a lane is a row, and the folds become
 * sums of whole vectors in the same order (kernels/few_classes.py) ---- */

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
    if (classes <= SUMS) {
        for (int64_t n = first; n < last; n += ROWS)
            F(few_softmax)(x + n * classes, classes, last - n < ROWS ? last - n : ROWS,
                           y + n * classes);
        return;
    }
    F(row_set) set;
    for (int64_t n = first, rows; n < last; n += rows) {
        rows = F(set_size)(last - n, classes);
        F(set_sums)(x + n * classes, rows, classes, 0, y + n * classes, &set);
        for (int r = 0; r < SUMS; r++) set.total[r] = 1 / set.total[r];
        for (int64_t r = 0; r < rows; r++) {
            real factor = set.total[r], *out = y + (n + r) * classes;
            INDEPENDENT for (int64_t i = 0; i < classes; i++) out[i] *= factor;
        }
    }
}

void OP(log_softmax)(const real *x, int64_t classes, int64_t first, int64_t last, real *y)
{
    if (classes <= SUMS) {
        for (int64_t n = first; n < last; n += ROWS)
            F(few_log_softmax)(x + n * classes, classes, last - n < ROWS ? last - n : ROWS,
                               y + n * classes);
        return;
    }
    F(row_set) set;
    for (int64_t n = first, rows; n < last; n += rows) {
        rows = F(set_size)(last - n, classes);
        F(set_sums)(x + n * classes, rows, classes, 1, y + n * classes, &set);
        for (int r = 0; r < SUMS; r++) set.total[r] = F(log)(set.total[r]);
        for (int64_t r = 0; r < rows; r++) {
            real rest = set.total[r], *out = y + (n + r) * classes;
            INDEPENDENT for (int64_t i = 0; i < classes; i++) out[i] -= rest;
        }
    }
}

/* Sum over a row of the log-probabilities, times the classes' weights if there are any. */
static real F(log_probability_sum)(const real *x, int64_t count, real top, real rest,
                                   const real *weight)
{
    real lanes[SUMS] = {0};
    for (int64_t i = 0; i < count; i++) {
        real v = (x[i] - top) - rest;
        lanes[i % SUMS] += weight ? v * weight[i] : v;
    }
    return F(fold)(lanes);
}

/* From exponentials in d to the gradient for a target of one class; `weights` is the sum of
 * all class weights. */
static inline void F(one_class_gradient)(real *d, int64_t classes, int64_t hit, real keep,
                                         real spread, real inverse, const real *weight,
                                         real weights, real scale)
{
    real e = d[hit];
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
    real keep = 1 - smoothing, spread = smoothing / (real)classes, lanes[SUMS] = {0};
    if (classes <= SUMS && smoothing == 0 && !weight) {
        for (int64_t n = first; n < last; n += ROWS)
            F(few_cross_entropy)(logits + n * classes, target + n, classes, ignore_index,
                                 scale ? scale + n : NULL, last - n < ROWS ? last - n : ROWS,
                                 losses ? losses + n : NULL, dlogits ? dlogits + n * classes : NULL);
        return;
    }
    if (weight)
        F(add_lanes)(lanes, weight, classes);
    real weights = F(fold)(lanes);
    F(row_set) set;
    for (int64_t n = first, rows; n < last; n += rows) {
        real rest[SUMS], inverse[SUMS];
        rows = F(set_size)(last - n, classes);
        F(set_sums)(logits + n * classes, rows, classes, 0, dlogits ? dlogits + n * classes : NULL,
                    &set);
        for (int r = 0; r < SUMS; r++) rest[r] = F(log)(set.total[r]);
        for (int r = 0; r < SUMS; r++) inverse[r] = 1 / set.total[r];
        for (int64_t r = 0; r < rows; r++) {
            const real *row = logits + (n + r) * classes;
            real *d = dlogits ? dlogits + (n + r) * classes : NULL;
            int64_t hit = target[n + r];
            if (hit == ignore_index) {
                if (losses)
                    losses[n + r] = 0;
                for (int64_t c = 0; d && c < classes; c++) d[c] = 0;
                continue;
            }
            if (d)
                F(one_class_gradient)(d, classes, hit, keep, spread, inverse[r], weight, weights,
                                      scale[n + r]);
            if (losses) {
                real loss = rest[r] - (row[hit] - set.top[r]);
                if (weight)
                    loss = loss * weight[hit];
                if (smoothing != 0)
                    loss = keep * loss - spread * F(log_probability_sum)(row, classes, set.top[r],
                                                                         rest[r], weight);
                losses[n + r] = loss;
            }
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
        real *d = dlogits ? dlogits + n * classes : NULL, top = F(row_max)(row, classes);
        real total = d ? F(exponentials)(row, classes, top, d) : F(sum)(row, classes, top, NULL);
        real rest = F(log)(total);
        real loss[SUMS] = {0}, share[SUMS] = {0};
        for (int64_t i = 0; i < classes; i++) {
            real q = keep * wanted[i] + spread;
            if (weight)
                q = q * weight[i];
            loss[i % SUMS] += q * ((row[i] - top) - rest);
            share[i % SUMS] += q;
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
    real lanes[SUMS] = {0};
    F(add_lanes)(lanes, values, n);
    result[0] = F(fold)(lanes);
}

#undef FLIPPED
#undef FOLD
#undef ADD
#undef SUMS
#undef PARTS
#undef LONG
#undef ROWS
