/* descent.c: whole descents, blocks of problems side by side; the twin of kernels/descent.py,
 * operation for operation, where the way of working is told. Here a step is several short
 * loops over the block, one for the slopes of each objective and one for each method. */

#ifndef LN_DESCENT_BLOCK
#define LN_DESCENT_BLOCK
enum { WIDTH = 512, CHUNK = 64 };
#endif

/* Problems side by side; the first n are in use. */
typedef struct {
    _Alignas(64) real p[WIDTH];
    real raw[WIDTH], decayed[WIDTH], a[WIDTH], b[WIDTH];
    real lr[WIDTH], rate[WIDTH], mu[WIDTH], rest[WIDTH], shrink[WIDTH];
    real saved_p[WIDTH], saved_a[WIDTH], saved_b[WIDTH];
    int64_t id[WIDTH];
} F(descent_block);

/* Where the results go. */
typedef struct {
    real *x, *grad, *trajectory;
    int64_t *taken, problems, rows;
    uint8_t *converged;
} F(descent_output);

/* ---- objectives ---- */

static inline real F(descent_slope)(real x, const real constants[4])
{
    const real k = constants[0], high = constants[1], low = constants[2], end = constants[3];
    x = x < -end ? -end : x;
    x = x > end ? end : x;
    const real m = FMA(-x, high, F(exponent_magic));
    const real r = FMA(-x, low, FMA(-x, high, -(m - F(exponent_magic))));
    const int terms = sizeof F(power) / sizeof F(power)[0];
    const real power = FMA(r, F(horner)(r, F(power), terms), (real)1);
    const real scale = F(float_of)(F(bits_of)(m) << MANTISSA_BITS);
    const real s = F(reciprocal)(FMA(power, scale, (real)1));
    return s * FMA(x * k, power * scale * s, (real)1);
}

/* 0 has the slope of negative numbers, NaN the slope NaN. */
static inline real F(piece_slope)(real x, real negative)
{
    const real other = x <= 0 ? negative : x;
    return x > 0 ? 1 : other;
}

#define EACH(statement) \
    INDEPENDENT for (int64_t i = 0; i < n; i++) statement; \
    break

static void F(slopes)(int64_t objective, const real *x, int64_t n, real *y)
{
    switch (objective) {
    case LN_EXP: EACH(y[i] = F(exp)(x[i]));
    case LN_SIGMOID: EACH(y[i] = F(sigmoid_derivative)(x[i]));
    case LN_TANH: EACH(y[i] = F(tanh_derivative)(x[i]));
    case LN_RELU: EACH(y[i] = F(piece_slope)(x[i], 0));
    case LN_LEAKY_RELU: EACH(y[i] = F(piece_slope)(x[i], (real)0.01));
    case LN_SILU: EACH(y[i] = F(descent_slope)(x[i], F(swish_silu)));
    case LN_GELU: EACH(y[i] = F(descent_slope)(x[i], F(swish_gelu)));
    case LN_GELU_TANH: EACH(y[i] = F(gelu_tanh_derivative)(x[i]));
    default: EACH(y[i] = F(gelu_erf_derivative)(x[i]));
    }
}

static void F(values)(int64_t objective, const real *x, int64_t n, real *y)
{
    switch (objective) {
    case LN_EXP: EACH(y[i] = F(exp)(x[i]));
    case LN_SIGMOID: EACH(y[i] = F(sigmoid)(x[i]));
    case LN_TANH: EACH(y[i] = F(tanh)(x[i]));
    case LN_RELU: EACH(y[i] = F(relu)(x[i]));
    case LN_LEAKY_RELU: EACH(y[i] = F(leaky_relu)(x[i], (real)0.01));
    case LN_SILU: EACH(y[i] = F(silu)(x[i]));
    case LN_GELU: EACH(y[i] = F(gelu)(x[i]));
    case LN_GELU_TANH: EACH(y[i] = F(gelu_tanh)(x[i]));
    default: EACH(y[i] = F(gelu_erf)(x[i]));
    }
}

/* ---- one step of a block ---- */

static void F(advance)(int64_t method, F(descent_block) *restrict s, int64_t n,
                       const real *restrict g, real keep1, real take1, real keep2, real take2,
                       real eps)
{
    real *restrict p = s->p, *restrict a = s->a, *restrict b = s->b;
    const real *restrict rate = s->rate, *restrict mu = s->mu, *restrict rest = s->rest;
    const real *restrict shrink = s->shrink;
    switch (method) {
    case LN_GD: EACH(p[i] = F(moved)(p[i], g[i], rate[i]));
    case LN_EMA: EACH({
        a[i] = F(average)(a[i], g[i], mu[i], rest[i]);
        p[i] = F(moved)(p[i], a[i], rate[i]);
    });
    case LN_HEAVY_BALL: EACH({
        a[i] = FMA(mu[i], a[i], g[i]);
        p[i] = F(moved)(p[i], a[i], rate[i]);
    });
    case LN_LOOKBACK: EACH({
        p[i] = F(moved)(p[i], a[i], rate[i]);
        a[i] = F(average)(a[i], g[i], mu[i], rest[i]);
    });
    case LN_NESTEROV: EACH({
        a[i] = FMA(mu[i], a[i], g[i]);
        p[i] = F(moved)(p[i], FMA(mu[i], a[i], g[i]), rate[i]);
    });
    case LN_RMSPROP: EACH({
        b[i] = F(average_square)(b[i], g[i], keep2, take2);
        a[i] = FMA(mu[i], a[i], F(scaled)(g[i], b[i], eps));
        p[i] = F(moved)(p[i], a[i], rate[i]);
    });
    case LN_ADAGRAD: EACH({
        b[i] = FMA(g[i], g[i], b[i]);
        p[i] = F(moved)(p[i], F(scaled)(g[i], b[i], eps), rate[i]);
    });
    case LN_LION: EACH({
        real blend = F(average)(a[i], g[i], keep1, take1);
        p[i] = F(lion_update)(p[i] * shrink[i], blend, rate[i]);
        a[i] = F(average)(a[i], g[i], keep2, take2);
    });
    case LN_ADAMW: EACH({
        a[i] = F(average)(a[i], g[i], keep1, take1);
        b[i] = F(average_square)(b[i], g[i], keep2, take2);
        p[i] = F(moved)(p[i] * shrink[i], F(scaled)(a[i], b[i], eps), rate[i]);
    });
    default: EACH({ /* LN_ADAM */
        a[i] = F(average)(a[i], g[i], keep1, take1);
        b[i] = F(average_square)(b[i], g[i], keep2, take2);
        p[i] = F(moved)(p[i], F(scaled)(a[i], b[i], eps), rate[i]);
    });
    }
}

/* Whether any |y| is at most tol, or NaN: floats, as integers, are in the order of their size. */
static int F(any_ends)(const real *y, int64_t n, real tol)
{
    const signed_bits infinite = (signed_bits)F(bits_of)((real)INFINITY);
    signed_bits least = infinite, largest = infinite;
    for (int64_t i = 0; i < n; i++) {
        const signed_bits size = (signed_bits)F(bits_of)(F(absolute)(y[i]));
        least = size < least ? size : least;
        largest = size > largest ? size : largest;
    }
    return least <= (signed_bits)F(bits_of)(tol) || largest > infinite;
}

/* ---- the state of a block ---- */

static void F(enter)(F(descent_block) *s, const real *start, const real *lr, const real *momentum,
                     int64_t first, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        s->p[i] = start[first + i];
        s->lr[i] = lr[first + i];
        s->mu[i] = momentum[first + i];
        s->rest[i] = 1 - momentum[first + i];
        s->a[i] = s->b[i] = 0;
        s->id[i] = first + i;
    }
}

static void F(set_rates)(F(descent_block) *s, int64_t n, real factor, real decay_factor)
{
    for (int64_t i = 0; i < n; i++) {
        s->rate[i] = s->lr[i] * factor;
        s->shrink[i] = FMA(-s->lr[i], decay_factor, (real)1);
    }
}

static void F(note)(const F(descent_block) *s, int64_t n, int64_t row, const F(descent_output) *out)
{
    for (int64_t i = 0; i < n; i++) out->trajectory[row * out->problems + s->id[i]] = s->p[i];
}

/* Write the result of place i of the block, which stops at step t, before row of the trajectory. */
static void F(leave)(const F(descent_block) *s, int64_t i, int64_t t, int64_t row, real tol,
                     const F(descent_output) *out)
{
    const int64_t problem = s->id[i];
    out->x[problem] = s->p[i];
    out->grad[problem] = s->raw[i];
    out->taken[problem] = t;
    out->converged[problem] = F(absolute)(s->raw[i]) <= tol;
    for (; row < out->rows; row++) out->trajectory[row * out->problems + problem] = s->p[i];
}

/* Take the problems that stop at step t out of the block; the number of those left. */
static int64_t F(leave_where_stopped)(F(descent_block) *s, int64_t n, int64_t t, int64_t row,
                                      real tol, const F(descent_output) *out)
{
    for (int64_t i = n - 1; i >= 0; i--) {
        if (F(absolute)(s->raw[i]) > tol)
            continue;
        F(leave)(s, i, t, row, tol, out);
        n--;
        s->p[i] = s->p[n];
        s->raw[i] = s->raw[n];
        s->a[i] = s->a[n];
        s->b[i] = s->b[n];
        s->lr[i] = s->lr[n];
        s->rate[i] = s->rate[n];
        s->mu[i] = s->mu[n];
        s->rest[i] = s->rest[n];
        s->shrink[i] = s->shrink[n];
        s->id[i] = s->id[n];
    }
    return n;
}

static void F(copy)(const real *from, int64_t n, real *to) { memcpy(to, from, (size_t)n * sizeof *to); }

void OP(descend)(const ln_descend_options *options, const real *start, const real *lr,
                 const real *momentum, const double *schedule, int64_t problems, int64_t first,
                 int64_t last, real *x, real *fun, real *grad, int64_t *taken,
                 uint8_t *converged, real *trajectory)
{
    const int64_t objective = options->objective, method = options->method;
    const int64_t steps = options->steps, every = options->every;
    const real tol = (real)options->tol, decay = (real)options->weight_decay;
    const real keep1 = (real)options->beta1, take1 = (real)(1.0 - options->beta1);
    const real keep2 = (real)options->beta2, take2 = (real)(1.0 - options->beta2);
    const int decays = options->weight_decay != 0.0 && method != LN_ADAMW && method != LN_LION;
    const F(descent_output) out = {.x = x, .grad = grad, .trajectory = trajectory, .taken = taken,
                                   .problems = problems, .rows = every ? steps / every + 1 : 0,
                                   .converged = converged};
    F(descent_block) block, *s = &block;
    for (int64_t at = first; at < last; at += WIDTH) {
        int64_t n = last - at < WIDTH ? last - at : WIDTH, t = 0, since = 0, until = 0;
        real eps = (real)options->eps;
        int looks = 0;
        F(enter)(s, start, lr, momentum, at, n);
        if (method == LN_LOOKBACK && steps > 0) {
            F(slopes)(objective, s->p, n, s->a);
            for (int64_t i = 0; i < n; i++) s->a[i] = F(decayed)(s->a[i], s->p[i], decay, decays);
        }
        while (t < steps && n > 0) {
            if (t == until) {
                since = t;
                until = steps - t < CHUNK ? steps : t + CHUNK;
                looks = options->tol >= 0;
                F(copy)(s->p, n, s->saved_p);
                F(copy)(s->a, n, s->saved_a);
                F(copy)(s->b, n, s->saved_b);
            }
            if (every && t % every == 0)
                F(note)(s, n, t / every, &out);
            if (t < options->rows) {
                const double *row = schedule + 3 * t;
                F(set_rates)(s, n, (real)row[0], (real)(options->weight_decay * row[2]));
                eps = (real)(options->eps * row[1]);
            }
            F(slopes)(objective, s->p, n, s->raw);
            if (looks && F(any_ends)(s->raw, n, tol))
                n = F(leave_where_stopped)(s, n, t, every ? t / every + 1 : 0, tol, &out);
            if (decays)
                for (int64_t i = 0; i < n; i++)
                    s->decayed[i] = F(decayed)(s->raw[i], s->p[i], decay, 1);
            F(advance)(method, s, n, decays ? s->decayed : s->raw, keep1, take1, keep2, take2, eps);
            t++;
            if (t == until && !looks && (F(any_ends)(s->p, n, -1) || F(any_ends)(s->a, n, -1))) {
                F(copy)(s->saved_p, n, s->p);
                F(copy)(s->saved_a, n, s->a);
                F(copy)(s->saved_b, n, s->b);
                t = since;
                looks = 1;
            }
        }
        if (every && t % every == 0 && n > 0)
            F(note)(s, n, t / every, &out);
        F(slopes)(objective, s->p, n, s->raw);
        for (int64_t i = 0; i < n; i++) F(leave)(s, i, t, out.rows, tol, &out);
    }
    F(values)(objective, x + first, last - first, fun + first);
}

#undef EACH
