/* descent.c: whole descents, blocks of problems side by side; the twin of kernels/descent.py,
 * operation for operation, where the way of working is told. Here a step is several short
 * loops over the block, one for the slopes of each objective and one for each method, or for the
 * quickest of them one loop (`run`). */

#ifndef LN_DESCENT_BLOCK
#define LN_DESCENT_BLOCK
enum { WIDTH = 512, CHUNK = 64 };
/* Another thread may write it. */
#define LN_PEEK(number) __atomic_load_n(number, __ATOMIC_RELAXED)
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

PIECE F(vec) F(descent_slope)(F(vec) x, const real constants[4])
{
    const real k = constants[0], high = constants[1], low = constants[2], end = constants[3];
    const F(vec) magic = F(splat)(F(exponent_magic)), one = F(splat)(1);
    const int terms = sizeof F(power) / sizeof F(power)[0];
    x = F(at_most_lanes)(F(at_least_lanes)(x, -end), end);
    const F(vec) m = F(fma)(x, F(splat)(-high), magic);
    const F(vec) r = F(fma)(x, F(splat)(-low), F(fma)(x, F(splat)(-high), -(m - magic)));
    const F(vec) power = F(fma)(r, F(horner_lanes)(r, F(power), terms), one);
    const F(vec) scale = (F(vec))((F(lanes))m << MANTISSA_BITS);
    const F(vec) s = F(reciprocal_lanes)(F(fma)(power, scale, one));
    return s * F(fma)(x * k, power * scale * s, one);
}

/* 0 has the slope of negative numbers, NaN the slope NaN. */
static void F(piece_slopes)(const real *x, real negative, int64_t n, real *y)
{
    for (int64_t i = 0; i < n; i++) {
        const real other = x[i] <= 0 ? negative : x[i];
        y[i] = x[i] > 0 ? 1 : other;
    }
}

#define SLOPES(name, slope) \
    INTERLEAVED static void F(name)(const real *x, int64_t n, real *y) { EACH_OF_1(slope) }
SLOPES(slopes_sigmoid, F(sigmoid_derivative_lanes)(v))
SLOPES(slopes_tanh, F(tanh_derivative_lanes)(v))
SLOPES(slopes_silu, F(descent_slope)(v, F(swish_silu)))
SLOPES(slopes_gelu, F(descent_slope)(v, F(swish_gelu)))
#undef SLOPES

static void F(slopes)(int64_t objective, const real *x, int64_t n, real *y)
{
    switch (objective) {
    case LN_EXP: OP(exp)(x, n, y); break;
    case LN_SIGMOID: F(slopes_sigmoid)(x, n, y); break;
    case LN_TANH: F(slopes_tanh)(x, n, y); break;
    case LN_RELU: F(piece_slopes)(x, 0, n, y); break;
    case LN_LEAKY_RELU: F(piece_slopes)(x, (real)0.01, n, y); break;
    case LN_SILU: F(slopes_silu)(x, n, y); break;
    case LN_GELU: F(slopes_gelu)(x, n, y); break;
    case LN_GELU_TANH: OP(gelu_tanh_derivative)(x, n, y); break;
    default: OP(gelu_erf_derivative)(x, n, y);
    }
}

static void F(values)(int64_t objective, const real *x, int64_t n, real *y)
{
    switch (objective) {
    case LN_EXP: OP(exp)(x, n, y); break;
    case LN_SIGMOID: OP(sigmoid)(x, n, y); break;
    case LN_TANH: OP(tanh)(x, n, y); break;
    case LN_RELU: OP(relu)(x, n, y); break;
    case LN_LEAKY_RELU: OP(leaky_relu)(x, n, (real)0.01, y); break;
    case LN_SILU: OP(silu)(x, n, y); break;
    case LN_GELU: OP(gelu)(x, n, y); break;
    case LN_GELU_TANH: OP(gelu_tanh)(x, n, y); break;
    default: OP(gelu_erf)(x, n, y);
    }
}

/* ---- many steps of a block ---- */

/* Steps of the methods that keep no squares, on x sigmoid(k x): slope and update at once, a few
 * vectors of problems side by side. A step of these is a chain of some 100 cycles, so they
 * go back to the L1 cache after it, and the next few get their turn: in registers for all steps they
 * took half as long again. Goes on to the end of the last vectors, over problems not in use. */
PIECE void F(run)(int64_t method, const real constants[4], F(descent_block) *s, int64_t n,
                  int64_t steps)
{
    for (int64_t t = 0; t < steps; t++)
        for (int64_t i = 0; i < n; i += SIDE_BY_SIDE * LANES) {
            F(vec) p[SIDE_BY_SIDE], a[SIDE_BY_SIDE];
            UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) p[k] = F(load)(s->p + i + k * LANES);
            UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) a[k] = F(load)(s->a + i + k * LANES);
            UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++)
            {
                const int64_t at = i + k * LANES;
                const F(vec) g = F(descent_slope)(p[k], constants);
                const F(vec) mu = F(load)(s->mu + at), old = a[k];
                F(vec) direction = g;
                if (method == LN_EMA || method == LN_LOOKBACK)
                    direction = a[k] = F(fma)(mu, a[k], F(load)(s->rest + at) * g);
                if (method == LN_HEAVY_BALL || method == LN_NESTEROV)
                    direction = a[k] = F(fma)(mu, a[k], g);
                if (method == LN_LOOKBACK)
                    direction = old;
                if (method == LN_NESTEROV)
                    direction = F(fma)(mu, a[k], g);
                p[k] = F(fma)(-F(load)(s->rate + at), direction, p[k]);
            }
            UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) F(store)(s->p + i + k * LANES, p[k]);
            if (method != LN_GD)
                UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) F(store)(s->a + i + k * LANES, a[k]);
        }
}

#define RUN(name, method) \
    INTERLEAVED static void F(name)(const real c[4], F(descent_block) *s, int64_t n, int64_t steps) \
    { \
        F(run)(method, c, s, n, steps); \
    }
RUN(run_gd, LN_GD)
RUN(run_ema, LN_EMA)
RUN(run_heavy_ball, LN_HEAVY_BALL)
RUN(run_lookback, LN_LOOKBACK)
RUN(run_nesterov, LN_NESTEROV)
#undef RUN

/* Take the steps if `run` can; whether it did. */
static int F(ran)(int64_t objective, int64_t method, F(descent_block) *s, int64_t n, int64_t steps)
{
    const real *constants = objective == LN_GELU ? F(swish_gelu) : F(swish_silu);
    if (objective != LN_GELU && objective != LN_SILU)
        return 0;
    switch (method) {
    case LN_GD: F(run_gd)(constants, s, n, steps); return 1;
    case LN_EMA: F(run_ema)(constants, s, n, steps); return 1;
    case LN_HEAVY_BALL: F(run_heavy_ball)(constants, s, n, steps); return 1;
    case LN_LOOKBACK: F(run_lookback)(constants, s, n, steps); return 1;
    case LN_NESTEROV: F(run_nesterov)(constants, s, n, steps); return 1;
    default: return 0;
    }
}

/* ---- one step of a block ---- */

#define EACH(statement) \
    INDEPENDENT for (int64_t i = 0; i < n; i++) statement; \
    break

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
    for (int64_t i = n; i < WIDTH && i % (SIDE_BY_SIDE * LANES); i++) /* what `run` goes on to */
        s->p[i] = s->a[i] = s->lr[i] = s->rate[i] = s->mu[i] = s->rest[i] = 0;
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
                if (options->stop && LN_PEEK(options->stop))
                    return; /* the outputs are not whole, and nobody will read them */
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
            if (!looks && !every && !decays && t + 1 >= options->rows
                && F(ran)(objective, method, s, n, until - t)) {
                t = until;
            } else {
                F(slopes)(objective, s->p, n, s->raw);
                if (looks && F(any_ends)(s->raw, n, tol))
                    n = F(leave_where_stopped)(s, n, t, every ? t / every + 1 : 0, tol, &out);
                if (decays)
                    for (int64_t i = 0; i < n; i++)
                        s->decayed[i] = F(decayed)(s->raw[i], s->p[i], decay, 1);
                F(advance)(method, s, n, decays ? s->decayed : s->raw, keep1, take1, keep2, take2,
                           eps);
                t++;
            }
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
