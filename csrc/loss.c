/* loss.c: softmax and cross-entropy on the rows of x (n, classes); the twin is
 * kernels/loss.py, where the method is told. Sums over a row are those of sums.h. */
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

/* 0 where v is the largest of its row, else e. */
PIECE F(vec) F(without_top)(F(vec) v, F(vec) top, F(vec) e)
{
    return (F(vec))((F(lanes))e & (F(lanes))(v != top));
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

/* Sum of exp(x - top) over a run; see `exp_block`. */
PIECE real F(exp_run)(const real *x, uintptr_t next_x, int64_t count, real top,
                      enum F(written) what, real *y, uintptr_t next_y)
{
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

/* `exp_run` for each that may be written, of a row's bytes: the next row is the next one of y, and of x
 * that of the next set. */
INTERLEAVED static real F(exponentials_of_run)(const real *x, int64_t count, real top, real *y,
                                               uintptr_t bytes, uintptr_t set)
{
    return F(exp_run)(x, set, count, top, F(EXPONENTIAL), y, bytes);
}

INTERLEAVED static real F(sum_of_run)(const real *x, int64_t count, real top, real *y,
                                      uintptr_t bytes, uintptr_t set)
{
    return y ? F(exp_run)(x, set, count, top, F(DIFFERENCE), y, bytes)
             : F(exp_run)(x, set, count, top, F(NOTHING), (real *)x, bytes);
}

/* Sum of exp(x - top) of a row. Without `logs` the exponentials go to y; with them x - top does, if there
 * is a y. */
static real F(exp_row)(const real *x, int64_t count, real top, int logs, real *y)
{
    const uintptr_t bytes = (uintptr_t)count * sizeof *x, set = bytes * (count <= LONG ? SUMS : 1);
    if (count <= LN_RUN)
        return logs ? F(sum_of_run)(x, count, top, y, bytes, set)
                    : F(exponentials_of_run)(x, count, top, y, bytes, set);
    real tree[1 + LN_LEVELS];
    int64_t runs = 0;
    for (int64_t i = 0; i < count; i += LN_RUN) {
        int64_t now = count - i < LN_RUN ? count - i : LN_RUN;
        tree[0] = logs ? F(sum_of_run)(x + i, now, top, y ? y + i : NULL, bytes, set)
                       : F(exponentials_of_run)(x + i, now, top, y + i, bytes, set);
        F(take_run)(tree, runs++, 1);
    }
    F(tree_total)(tree, runs, 1);
    return tree[0];
}

/* Add exp(x - top), or what is given in its place, to the lanes, but for those that are 1, the largest. */
PIECE void F(other_block)(const real *x, real top, int count, const real *given, F(vec) lanes[PARTS])
{
    F(vec) v[8], e[8];
    UNROLL for (int k = 0; k < count; k++) v[k] = F(load)(x + k * LANES);
    UNROLL for (int k = 0; k < count; k++)
        e[k] = given ? F(load)(given + k * LANES) : v[k] - F(splat)(top);
    if (!given)
        F(exp_each)(e, count);
    UNROLL for (int k = 0; k < count; k++)
        lanes[k % PARTS] += F(without_top)(v[k], F(splat)(top), e[k]);
}

PIECE real F(other_run)(const real *x, int64_t count, real top, const real *given)
{
    const int most = PARTS < SIDE_BY_SIDE ? SIDE_BY_SIDE / PARTS * PARTS : PARTS;
    F(vec) part[PARTS];
    int64_t i = 0;
    UNROLL for (int p = 0; p < PARTS; p++) part[p] = F(splat)(0);
    for (; i + most * LANES <= count; i += most * LANES)
        F(other_block)(x + i, top, most, given ? given + i : NULL, part);
    for (; i + SUMS <= count; i += SUMS)
        F(other_block)(x + i, top, PARTS, given ? given + i : NULL, part);
    if (i < count) { /* the top counts nothing */
        real last[SUMS], last_given[SUMS];
        for (int lane = 0; lane < SUMS; lane++) last[lane] = last_given[lane] = top;
        memcpy(last, x + i, (size_t)(count - i) * sizeof *x);
        if (given)
            memcpy(last_given, given + i, (size_t)(count - i) * sizeof *x);
        F(other_block)(last, top, PARTS, given ? last_given : NULL, part);
    }
    FOLD(part, ADD)
    return part[0][0];
}

PIECE real F(other_row)(const real *x, int64_t count, real top, const real *given)
{
    real tree[1 + LN_LEVELS];
    int64_t runs = 0;
    for (int64_t first = 0; first < count; first += LN_RUN) {
        int64_t now = count - first < LN_RUN ? count - first : LN_RUN;
        tree[0] = F(other_run)(x + first, now, top, given ? given + first : NULL);
        F(take_run)(tree, runs++, 1);
    }
    F(tree_total)(tree, runs, 1);
    return tree[0];
}

/* Sum of exp(x - top) over a row without those that are 1, the largest. The exponentials may be
 * given, or NULL. */
INTERLEAVED static real F(sum_of_others)(const real *x, int64_t count, real top, const real *given)
{
    return given ? F(other_row)(x, count, top, given) : F(other_row)(x, count, top, NULL);
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
        set->total[r] = F(exp_row)(row, classes, set->top[r], logs || !y, out);
    }
}

/* Logarithms of a set's sums; y holds what `set_sums` wrote, with `logs` x is not read. */
static inline void F(set_logs)(const real *x, int64_t rows, int64_t classes, int logs, const real *y,
                        const F(row_set) *set, real rest[SUMS])
{
    INDEPENDENT for (int r = 0; r < SUMS; r++) rest[r] = F(log)(set->total[r]);
    for (int64_t r = 0; r < rows; r++)
        if (set->total[r] < F(small_sum)) {
            const real *row = (logs ? y : x) + r * classes, *e = y && !logs ? y + r * classes : NULL;
            rest[r] = F(log_one_plus)(F(sum_of_others)(row, classes, logs ? 0 : set->top[r], e));
        }
}

#include "few_classes.h"

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
    real logs[SUMS];
    for (int64_t n = first, rows; n < last; n += rows) {
        rows = F(set_size)(last - n, classes);
        F(set_sums)(x + n * classes, rows, classes, 1, y + n * classes, &set);
        F(set_logs)(NULL, rows, classes, 1, y + n * classes, &set, logs);
        for (int64_t r = 0; r < rows; r++) {
            real rest = logs[r], *out = y + (n + r) * classes;
            INDEPENDENT for (int64_t i = 0; i < classes; i++) out[i] -= rest;
        }
    }
}

/* q v for a share q and a logarithm v. A class without a share does not count: 0 times -infinity is 0. */
static inline real F(share_of)(real q, real v)
{
    return q == 0 && v == -(real)INFINITY ? (real)-0.0 : q * v;
}

PIECE F(vec) F(shares_of)(F(vec) q, F(vec) v)
{
    return (F(vec))((F(lanes))(q * v) & ~((q == 0) & (v == F(splat)(-(real)INFINITY))));
}

/* What the sums of log-probabilities are made of: a row and its target (or NULL for all classes alike),
 * the weights of classes (or NULL), and log p = (x - top) - rest. */
typedef struct {
    const real *x, *wanted, *weight;
    real top, rest, keep, spread;
} F(log_terms);

/* Add the q and q log p of a vector of classes from i on to a lane each. */
PIECE void F(add_shares)(const F(log_terms) *t, int64_t i, F(vec) *loss, F(vec) *share)
{
    F(vec) v = (F(load)(t->x + i) - F(splat)(t->top)) - F(splat)(t->rest), q = {0};
    if (t->wanted)
        q = F(splat)(t->keep) * F(load)(t->wanted + i) + F(splat)(t->spread);
    if (t->weight)
        q = t->wanted ? q * F(load)(t->weight + i) : F(load)(t->weight + i);
    *loss += t->wanted || t->weight ? F(shares_of)(q, v) : v;
    *share += q;
}

/* Sums of q log p and of q over the classes [i, end) of a row, a run. */
PIECE void F(shares_of_run)(const F(log_terms) *t, int64_t i, int64_t end, real *loss, real *share)
{
    F(vec) losses[PARTS], shares[PARTS];
    UNROLL for (int p = 0; p < PARTS; p++) losses[p] = shares[p] = F(splat)(0);
    for (; i + SUMS <= end; i += SUMS)
        UNROLL for (int p = 0; p < PARTS; p++)
            F(add_shares)(t, i + p * LANES, &losses[p], &shares[p]);
    real last[2][SUMS] = {{0}};
    for (int lane = 0; i < end; lane++, i++) {
        real v = (t->x[i] - t->top) - t->rest, q = t->wanted ? t->keep * t->wanted[i] + t->spread : 0;
        if (t->weight)
            q = t->wanted ? q * t->weight[i] : t->weight[i];
        last[0][lane] = t->wanted || t->weight ? F(share_of)(q, v) : v;
        last[1][lane] = q;
    }
    UNROLL for (int p = 0; p < PARTS; p++) losses[p] += F(load)(last[0] + p * LANES);
    UNROLL for (int p = 0; p < PARTS; p++) shares[p] += F(load)(last[1] + p * LANES);
    FOLD(losses, ADD)
    FOLD(shares, ADD)
    *loss = losses[0][0];
    *share = shares[0][0];
}

/* The same over a row. */
PIECE real F(shares_of_row)(F(log_terms) t, int64_t count, real *share)
{
    real losses[1 + LN_LEVELS], shares[1 + LN_LEVELS];
    int64_t runs = 0;
    for (int64_t i = 0; i < count; i += LN_RUN) {
        F(shares_of_run)(&t, i, count - i < LN_RUN ? count : i + LN_RUN, losses, shares);
        if (count > LN_RUN) {
            F(take_run)(losses, runs, 1);
            F(take_run)(shares, runs++, 1);
        }
    }
    if (runs) {
        F(tree_total)(losses, runs, 1);
        F(tree_total)(shares, runs, 1);
    }
    *share = shares[0];
    return losses[0];
}

/* Sum over a row of the log-probabilities, times the classes' weights if there are any. */
SELDOM real F(log_probability_sum)(const real *x, int64_t count, real top, real rest,
                                   const real *weight)
{
    real none;
    const F(log_terms) t = {x, NULL, weight, top, rest, 0, 0};
    return weight ? F(shares_of_row)(t, count, &none)
                  : F(shares_of_row)((F(log_terms)){x, NULL, NULL, top, rest, 0, 0}, count, &none);
}

/* Sum of q log p over a row, and that of q, for target probabilities. */
SELDOM real F(target_sum)(F(log_terms) t, int64_t count, real *share)
{
    if (t.weight)
        return F(shares_of_row)(t, count, share);
    t.weight = NULL;
    return F(shares_of_row)(t, count, share);
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
    real keep = 1 - smoothing, spread = smoothing / (real)classes;
    if (classes <= SUMS && smoothing == 0 && !weight) {
        for (int64_t n = first; n < last; n += ROWS)
            F(few_cross_entropy)(logits + n * classes, target + n, classes, ignore_index,
                                 scale ? scale + n : NULL, last - n < ROWS ? last - n : ROWS,
                                 losses ? losses + n : NULL, dlogits ? dlogits + n * classes : NULL);
        return;
    }
    real weights = weight ? F(sum_of)(weight, classes) : 0;
    F(row_set) set;
    for (int64_t n = first, rows; n < last; n += rows) {
        real rest[SUMS], inverse[SUMS];
        rows = F(set_size)(last - n, classes);
        F(set_sums)(logits + n * classes, rows, classes, 0, dlogits ? dlogits + n * classes : NULL,
                    &set);
        F(set_logs)(logits + n * classes, rows, classes, 0, dlogits ? dlogits + n * classes : NULL,
                    &set, rest);
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
                    loss = -F(share_of)(weight[hit], -loss);
                if (smoothing != 0)
                    loss = -F(share_of)(keep, -loss)
                         - F(share_of)(spread, F(log_probability_sum)(row, classes, set.top[r],
                                                                      rest[r], weight));
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
        real total = F(exp_row)(row, classes, top, !d, d);
        real rest = total < F(small_sum)
                        ? F(log_one_plus)(F(sum_of_others)(row, classes, top, d)) : F(log)(total);
        real factor, loss = F(target_sum)((F(log_terms)){row, wanted, weight, top, rest, keep, spread},
                                          classes, &factor);
        if (losses)
            losses[n] = -loss;
        if (!d)
            continue;
        real inverse = 1 / total;
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
    result[0] = F(sum_of)(values, n);
}

#undef FLIPPED
#undef FOLD
#undef ADD
#undef SUMS
#undef PARTS
#undef LONG
#undef ROWS
