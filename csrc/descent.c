/* descent.c: whole descents, one problem after the other, all steps with the state in
 * registers; the twin is kernels/descent.py, operation for operation. */

static inline real F(builtin_value)(int64_t objective, real x)
{
    switch (objective) {
    case LN_EXP: return F(exp)(x);
    case LN_SIGMOID: return F(sigmoid)(x);
    case LN_TANH: return F(tanh)(x);
    case LN_RELU: return F(relu)(x);
    case LN_LEAKY_RELU: return F(leaky_relu)(x, (real)0.01);
    case LN_SILU: return F(silu)(x);
    case LN_GELU: return F(gelu)(x);
    case LN_GELU_TANH: return F(gelu_tanh)(x);
    default: return F(gelu_erf)(x);
    }
}

/* 0 has the slope of negative numbers, NaN the slope NaN. */
static inline real F(builtin_slope)(int64_t objective, real x)
{
    switch (objective) {
    case LN_EXP: return F(exp)(x);
    case LN_SIGMOID: return F(sigmoid_derivative)(x);
    case LN_TANH: return F(tanh_derivative)(x);
    case LN_RELU: return x > 0 ? 1 : (x <= 0 ? 0 : x);
    case LN_LEAKY_RELU: return x > 0 ? 1 : (x <= 0 ? (real)0.01 : x);
    case LN_SILU: return F(silu_derivative)(x);
    case LN_GELU: return F(gelu_derivative)(x);
    case LN_GELU_TANH: return F(gelu_tanh_derivative)(x);
    default: return F(gelu_erf_derivative)(x);
    }
}

void OP(descend)(const ln_descend_options *options, const real *start, const real *lr,
                 const real *momentum, const double *corrections, int64_t problems,
                 int64_t first, int64_t last, real *x, real *fun, real *grad, int64_t *taken,
                 uint8_t *converged, real *trajectory)
{
    const int64_t objective = options->objective, method = options->method;
    const int64_t steps = options->steps, end = options->corrections - 1;
    const real eps = (real)options->eps, enough = (real)options->tol;
    const real keep1 = (real)options->beta1, take1 = (real)(1.0 - options->beta1);
    const real keep2 = (real)options->beta2, take2 = (real)(1.0 - options->beta2);
    const int decoupled = method == LN_ADAMW || method == LN_LION;
    const real decay = (real)options->weight_decay;
    const int decays = options->weight_decay != 0.0 && !decoupled;
    for (int64_t i = first; i < last; i++) {
        real p = start[i], rate = lr[i], mu = momentum[i], a = 0, b = 0, slope, blend;
        const real rest = 1 - mu, shrink = 1 - rate * decay;
        const double *row;
        int64_t t = 0;
        for (;; t++) {
            if (trajectory)
                trajectory[t * problems + i] = p;
            slope = F(builtin_slope)(objective, p);
            if (F(absolute)(slope) <= enough || t == steps)
                break;
            const real g = F(decayed)(slope, p, decay, decays);
            switch (method) {
            case LN_GD:
                p = F(moved)(p, g, rate);
                break;
            case LN_EMA:
                a = F(average)(a, g, mu, rest);
                p = F(moved)(p, a, rate);
                break;
            case LN_HEAVY_BALL:
                a = FMA(mu, a, g);
                p = F(moved)(p, a, rate);
                break;
            case LN_LOOKBACK:
                if (t == 0)
                    a = g;
                p = F(moved)(p, a, rate);
                a = F(average)(a, g, mu, rest);
                break;
            case LN_NESTEROV:
                a = FMA(mu, a, g);
                p = F(moved)(p, FMA(mu, a, g), rate);
                break;
            case LN_RMSPROP:
                b = F(average_square)(b, g, keep2, take2);
                a = FMA(mu, a, F(scaled)(g, b, eps));
                p = F(moved)(p, a, rate);
                break;
            case LN_ADAGRAD:
                b = FMA(g, g, b);
                p = F(moved)(p, F(scaled)(g, b, eps), rate);
                break;
            case LN_LION:
                blend = F(average)(a, g, keep1, take1);
                a = F(average)(a, g, keep2, take2);
                p = F(lion_update)(p * shrink, blend, rate);
                break;
            default: /* LN_ADAM, LN_ADAMW */
                if (decoupled)
                    p *= shrink;
                a = F(average)(a, g, keep1, take1);
                b = F(average_square)(b, g, keep2, take2);
                row = corrections + 2 * (t < end ? t : end);
                p = F(moved)(p, F(scaled)(a, b, eps * (real)row[1]), rate * (real)row[0]);
            }
        }
        x[i] = p;
        fun[i] = F(builtin_value)(objective, p);
        grad[i] = slope;
        taken[i] = t;
        converged[i] = F(absolute)(slope) <= enough;
        if (trajectory)
            for (int64_t later = t + 1; later <= steps; later++)
                trajectory[later * problems + i] = p;
    }
}
