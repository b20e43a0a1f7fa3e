/* optimizer.c: optimizer steps over n contiguous elements, in place; the twin is
 * kernels/optimizer.py, operation for operation. Optional arrays that a flag switches off are
 * not touched. */

/* ---- updates of one element; descent.c iterates them ---- */

static inline real F(decayed)(real grad, real param, real decay, int decays)
{
    return decays ? FMA(decay, param, grad) : grad;
}

static inline real F(average)(real old, real fresh, real keep, real take)
{
    return FMA(keep, old, take * fresh);
}

static inline real F(average_square)(real old, real fresh, real keep, real take)
{
    return FMA(take * fresh, fresh, keep * old);
}

/* The mean of squares less the square of the mean, which rounding may bring below 0. */
static inline real F(variance)(real square, real mean)
{
    real v = FMA(-mean, mean, square);
    return v < 0 ? 0 : v;
}

static inline real F(scaled)(real grad, real square, real eps)
{
    return grad / (SQRT(square) + eps);
}

static inline real F(moved)(real param, real direction, real lr)
{
    return FMA(-lr, direction, param);
}

/* Move by lr against the sign of the blend; 0 does not move, NaN makes NaN. */
static inline real F(lion_update)(real param, real blend, real lr)
{
    return param - (blend > 0 ? lr : (blend < 0 ? -lr : blend));
}

/* Maximum that is NaN if either is. */
static inline real F(larger)(real a, real b) { return a >= b || a != a ? a : b; }

/* ---- steps ---- */

void OP(sgd_step)(const real *grad, int64_t n, double lr, double momentum, double dampening,
                  double weight_decay, int64_t use_buffer, int64_t nesterov, int64_t first,
                  real *buffer, real *param)
{
    real rate = (real)lr, keep = (real)momentum, take = (real)(1.0 - dampening);
    real decay = (real)weight_decay;
    int decays = weight_decay != 0.0;
    if (!use_buffer) {
        INDEPENDENT for (int64_t i = 0; i < n; i++)
            param[i] = F(moved)(param[i], F(decayed)(grad[i], param[i], decay, decays), rate);
        return;
    }
    INDEPENDENT for (int64_t i = 0; i < n; i++) {
        real g = F(decayed)(grad[i], param[i], decay, decays);
        real b = first ? g : F(average)(buffer[i], g, keep, take);
        buffer[i] = b;
        param[i] = F(moved)(param[i], nesterov ? FMA(keep, b, g) : b, rate);
    }
}

/* What all elements share, in the arrays' type. */
typedef struct {
    real rate, eps, keep1, take1, keep2, take2, shrink, decay;
} F(adam_options);

/* Called with constant flags: gcc does not vectorise the loop while it holds the branches. */
static inline void F(adam_loop)(const real *grad, int64_t n, F(adam_options) o, int decays,
                                int amsgrad, real *m, real *v, real *max_v, real *param)
{
    INDEPENDENT for (int64_t i = 0; i < n; i++) {
        real p = param[i] * o.shrink;
        real g = F(decayed)(grad[i], p, o.decay, decays);
        real mean = F(average)(m[i], g, o.keep1, o.take1);
        real square = F(average_square)(v[i], g, o.keep2, o.take2);
        m[i] = mean;
        v[i] = square;
        if (amsgrad) {
            square = F(larger)(max_v[i], square);
            max_v[i] = square;
        }
        param[i] = F(moved)(p, F(scaled)(mean, square, o.eps), o.rate);
    }
}

void OP(adam_step)(const real *grad, int64_t n, double lr, double beta1, double beta2,
                   double correction1, double correction2, double eps, double weight_decay,
                   int64_t decoupled, int64_t amsgrad, real *m, real *v, real *max_v, real *param)
{
    const double root = sqrt(correction2);
    const F(adam_options) o = {
        .rate = (real)(root * (lr / correction1)), .eps = (real)(root * eps),
        .keep1 = (real)beta1, .take1 = (real)(1.0 - beta1),
        .keep2 = (real)beta2, .take2 = (real)(1.0 - beta2),
        .shrink = decoupled ? (real)(1.0 - lr * weight_decay) : 1, .decay = (real)weight_decay};
    const int decays = weight_decay != 0.0 && !decoupled;
    if (amsgrad && decays)
        F(adam_loop)(grad, n, o, 1, 1, m, v, max_v, param);
    else if (amsgrad)
        F(adam_loop)(grad, n, o, 0, 1, m, v, max_v, param);
    else if (decays)
        F(adam_loop)(grad, n, o, 1, 0, m, v, max_v, param);
    else
        F(adam_loop)(grad, n, o, 0, 0, m, v, max_v, param);
}

typedef struct {
    real rate, keep, take, eps, decay, mu;
} F(rmsprop_options);

/* Called with constant flags, as `adam_loop` is. */
static inline void F(rmsprop_loop)(const real *grad, int64_t n, F(rmsprop_options) o, int decays,
                                   int use_buffer, int centered, real *v, real *buffer,
                                   real *grad_average, real *param)
{
    INDEPENDENT for (int64_t i = 0; i < n; i++) {
        real g = F(decayed)(grad[i], param[i], o.decay, decays);
        real square = F(average_square)(v[i], g, o.keep, o.take);
        v[i] = square;
        if (centered) {
            real mean = F(average)(grad_average[i], g, o.keep, o.take);
            grad_average[i] = mean;
            square = F(variance)(square, mean);
        }
        real direction = F(scaled)(g, square, o.eps);
        if (use_buffer) {
            direction = FMA(o.mu, buffer[i], direction);
            buffer[i] = direction;
        }
        param[i] = F(moved)(param[i], direction, o.rate);
    }
}

void OP(rmsprop_step)(const real *grad, int64_t n, double lr, double alpha, double eps,
                      double weight_decay, double momentum, int64_t use_buffer, int64_t centered,
                      real *v, real *buffer, real *grad_average, real *param)
{
    const F(rmsprop_options) o = {
        .rate = (real)lr, .keep = (real)alpha, .take = (real)(1.0 - alpha), .eps = (real)eps,
        .decay = (real)weight_decay, .mu = (real)momentum};
    const int decays = weight_decay != 0.0;
    if (centered && use_buffer)
        F(rmsprop_loop)(grad, n, o, decays, 1, 1, v, buffer, grad_average, param);
    else if (centered)
        F(rmsprop_loop)(grad, n, o, decays, 0, 1, v, buffer, grad_average, param);
    else if (use_buffer)
        F(rmsprop_loop)(grad, n, o, decays, 1, 0, v, buffer, grad_average, param);
    else
        F(rmsprop_loop)(grad, n, o, decays, 0, 0, v, buffer, grad_average, param);
}

void OP(adagrad_step)(const real *grad, int64_t n, double lr, double eps, double weight_decay,
                      real *state_sum, real *param)
{
    real rate = (real)lr, epsilon = (real)eps, decay = (real)weight_decay;
    int decays = weight_decay != 0.0;
    INDEPENDENT for (int64_t i = 0; i < n; i++) {
        real g = F(decayed)(grad[i], param[i], decay, decays);
        real total = FMA(g, g, state_sum[i]);
        state_sum[i] = total;
        param[i] = F(moved)(param[i], F(scaled)(g, total, epsilon), rate);
    }
}

void OP(lion_step)(const real *grad, int64_t n, double lr, double beta1, double beta2,
                   double weight_decay, real *m, real *param)
{
    real rate = (real)lr, shrink = (real)(1.0 - lr * weight_decay);
    real keep1 = (real)beta1, take1 = (real)(1.0 - beta1);
    real keep2 = (real)beta2, take2 = (real)(1.0 - beta2);
    INDEPENDENT for (int64_t i = 0; i < n; i++) {
        real g = grad[i], old = m[i];
        m[i] = F(average)(old, g, keep2, take2);
        param[i] = F(lion_update)(param[i] * shrink, F(average)(old, g, keep1, take1), rate);
    }
}
