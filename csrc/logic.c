/* logic.c: logic-gate networks in training; the twin is kernels/logic.py, where layout, formulas
 * and the order of every sum are told. */

enum { F(CHUNK) = 32, F(GATES) = 16, F(BLOCK) = 64, F(RUN) = LN_RUN / F(CHUNK) };

/* Softmax of the logits of `count` neurons, with the sums of shares at each corner. */
static inline void F(mix)(const real *w, int64_t neurons, int64_t count, real *p, real corners[4][64])
{
    real top[64], total[64];
    for (int64_t n = 0; n < count; n++) top[n] = w[n];
    for (int k = 1; k < F(GATES); k++)
        for (int64_t n = 0; n < count; n++)
            top[n] = w[k * neurons + n] > top[n] ? w[k * neurons + n] : top[n];
    for (int64_t n = 0; n < count; n++) total[n] = 0;
    for (int k = 0; k < F(GATES); k++)
        for (int64_t n = 0; n < count; n++) {
            real e = F(exp)(w[k * neurons + n] - top[n]);
            p[k * neurons + n] = e;
            total[n] += e;
        }
    memset(corners, 0, 4 * 64 * sizeof(real));
    for (int k = 0; k < F(GATES); k++) {
        for (int64_t n = 0; n < count; n++) p[k * neurons + n] /= total[n];
        for (int corner = 0; corner < 4; corner++)
            if (k >> (3 - corner) & 1)
                for (int64_t n = 0; n < count; n++) corners[corner][n] += p[k * neurons + n];
    }
}

void OP(logic_coefficients)(const real *logits, int64_t neurons, int64_t first, int64_t last,
                            real *shares, real *coefficients)
{
    real corners[4][64];
    for (int64_t begin = first; begin < last; begin += F(BLOCK)) {
        int64_t count = last - begin < F(BLOCK) ? last - begin : F(BLOCK);
        F(mix)(logits + begin, neurons, count, shares + begin, corners);
        for (int64_t n = 0; n < count; n++) {
            real *c = coefficients + 4 * (begin + n);
            real f00 = corners[0][n], f01 = corners[1][n], f10 = corners[2][n], f11 = corners[3][n];
            c[0] = f00;
            c[1] = f10 - f00;
            c[2] = f01 - f00;
            c[3] = (f11 - f10) - (f01 - f00);
        }
    }
}

void OP(logic_forward)(const real *x, const int32_t *left, const int32_t *right,
                       const real *coefficients, const int64_t *starts, int64_t layers, real *y)
{
    for (int64_t layer = 0; layer < layers; layer++) {
        const real *source = layer ? y + starts[layer - 1] * F(CHUNK) : x;
        for (int64_t n = starts[layer]; n < starts[layer + 1]; n++) {
            const real *a = source + (int64_t)left[n] * F(CHUNK);
            const real *b = source + (int64_t)right[n] * F(CHUNK);
            const real *c = coefficients + 4 * n;
            real *restrict out = y + n * F(CHUNK);
            real c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3];
            INDEPENDENT for (int i = 0; i < F(CHUNK); i++)
                out[i] = FMA(b[i], FMA(c3, a[i], c2), FMA(c1, a[i], c0));
        }
    }
}

/* Sums of dy, dy a, dy b, dy a b over the chunk, in 16 lanes. */
static inline void F(logic_sums)(const real *g, const real *a, const real *b, real sums[4])
{
    real lanes[4][16] = {{0}};
    for (int i = 0; i < F(CHUNK); i += 16)
        for (int l = 0; l < 16; l++) {
            real ga = g[i + l] * a[i + l];
            lanes[0][l] += g[i + l];
            lanes[1][l] = FMA(g[i + l], a[i + l], lanes[1][l]);
            lanes[2][l] = FMA(g[i + l], b[i + l], lanes[2][l]);
            lanes[3][l] = FMA(ga, b[i + l], lanes[3][l]);
        }
    /* Folded side by side: four separate folds of 16 lanes take longer than all the rest. */
    real eight[4][8], four[4][4], two[4][2];
    for (int k = 0; k < 4; k++)
        for (int l = 0; l < 8; l++) eight[k][l] = lanes[k][l] + lanes[k][l + 8];
    for (int k = 0; k < 4; k++)
        for (int l = 0; l < 4; l++) four[k][l] = eight[k][l] + eight[k][l + 4];
    for (int k = 0; k < 4; k++)
        for (int l = 0; l < 2; l++) two[k][l] = four[k][l] + four[k][l + 2];
    for (int k = 0; k < 4; k++) sums[k] = two[k][0] + two[k][1];
}

void OP(logic_backward)(const real *x, const real *y, const int32_t *left, const int32_t *right,
                        const real *coefficients, const int64_t *starts, int64_t layers, real *dy,
                        real *dx, real *dcoefficients)
{
    for (int64_t layer = layers - 1; layer >= 0; layer--) {
        const real *source = layer ? y + starts[layer - 1] * F(CHUNK) : x;
        if (layer)
            memset(dx, 0, (starts[layer] - starts[layer - 1]) * F(CHUNK) * sizeof(real));
        for (int64_t n = starts[layer]; n < starts[layer + 1]; n++) {
            int64_t row_a = (int64_t)left[n] * F(CHUNK), row_b = (int64_t)right[n] * F(CHUNK);
            const real *a = source + row_a, *b = source + row_b;
            const real *g = dy + (n - starts[layer]) * F(CHUNK), *c = coefficients + 4 * n;
            F(logic_sums)(g, a, b, dcoefficients + 4 * n);
            if (!layer)
                continue;
            real c1 = c[1], c2 = c[2], c3 = c[3];
            real *da = dx + row_a, *db = dx + row_b; /* two rows: a neuron's inputs differ */
            INDEPENDENT for (int i = 0; i < F(CHUNK); i++) {
                real slope_a = FMA(c3, b[i], c1), slope_b = FMA(c3, a[i], c2);
                da[i] = FMA(g[i], slope_a, da[i]);
                db[i] = FMA(g[i], slope_b, db[i]);
            }
        }
        real *swap = dy;
        dy = dx;
        dx = swap;
    }
}

void OP(logic_scores)(const real *y, int64_t start, int64_t group, double scale, int64_t classes,
                      real *scores)
{
    for (int64_t k = 0; k < classes; k++) {
        const real *row = y + (start + k * group) * F(CHUNK);
        real total[F(CHUNK)] = {0};
        if (group > LN_RUN)
            F(sum_columns)(row, F(CHUNK), group, F(CHUNK), total);
        else
            for (int64_t n = 0; n < group; n++)
                for (int i = 0; i < F(CHUNK); i++) total[i] += row[n * F(CHUNK) + i];
        for (int i = 0; i < F(CHUNK); i++) scores[i * classes + k] = (real)scale * total[i];
    }
}

void OP(logic_scores_backward)(const real *dscores, int64_t group, double scale, int64_t classes,
                               real *dy)
{
    for (int64_t k = 0; k < classes; k++) {
        real row[F(CHUNK)];
        for (int i = 0; i < F(CHUNK); i++) row[i] = (real)scale * dscores[i * classes + k];
        for (int64_t n = k * group; n < (k + 1) * group; n++)
            memcpy(dy + n * F(CHUNK), row, sizeof row);
    }
}

void OP(logic_coefficients_backward)(const real *dcoefficients, int64_t chunks, int64_t neurons,
                                     const real *coefficients, int64_t first, int64_t last,
                                     real *shares)
{
    real parts[8][64] = {{0}}, mean[64]; /* parts 0 and 4 stay 0 */
    for (int64_t begin = first; begin < last; begin += F(BLOCK)) {
        int64_t count = last - begin < F(BLOCK) ? last - begin : F(BLOCK);
        for (int64_t n = 0; n < count; n++) {
            const real *c = coefficients + 4 * (begin + n), *at = dcoefficients + 4 * (begin + n);
            real tree[4 * (1 + LN_LEVELS)];
            int64_t runs = 0;
            for (int64_t chunk = 0; chunk < chunks; runs++) {
                real t0 = at[0], t1 = at[1], t2 = at[2], t3 = at[3];
                int64_t end = chunks - chunk < F(RUN) ? chunks : chunk + F(RUN);
                for (at += 4 * neurons, chunk++; chunk < end; chunk++, at += 4 * neurons) {
                    t0 += at[0];
                    t1 += at[1];
                    t2 += at[2];
                    t3 += at[3];
                }
                tree[0] = t0, tree[1] = t1, tree[2] = t2, tree[3] = t3;
                if (chunks > F(RUN))
                    F(take_run)(tree, runs, 4);
            }
            if (chunks > F(RUN))
                F(tree_total)(tree, runs, 4);
            real d0 = tree[0], d1 = tree[1], d2 = tree[2], d3 = tree[3];
            mean[n] = FMA(c[3], d3, FMA(c[2], d2, FMA(c[1], d1, c[0] * d0)));
            real e01 = d2 - d3, e10 = d1 - d3, e11 = d3, e00 = (d0 - d1) - e01;
            parts[1][n] = e01;
            parts[2][n] = e00;
            parts[3][n] = e00 + e01;
            parts[5][n] = e11;
            parts[6][n] = e10;
            parts[7][n] = e10 + e11;
        }
        for (int k = 0; k < F(GATES); k++) {
            const real *high = parts[k >> 2], *low = parts[4 + (k & 3)];
            real *p = shares + k * neurons + begin;
            for (int64_t n = 0; n < count; n++) p[n] *= (high[n] + low[n]) - mean[n];
        }
    }
}
