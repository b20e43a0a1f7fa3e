/* activation.c: element-wise functions over n contiguous elements, in place allowed.
 * The scalar functions are in scalar.h; the twin is kernels/activation.py.
 *
 * Loops go block by block, and ask ahead for the cache lines of a later one (why:
 * kernels/simd_lanes.py). The last, partial block is computed in a buffer: so each function has
 * one loop only, all of it vectors. */

#ifndef EACH_OF_1
enum { EACH_SIZE = 64, EACH_AHEAD = 1024, EACH_LINE = 64 }; /* elements; bytes */
#define FETCH(array, write) \
    for (uintptr_t line = 0; line < EACH_SIZE * sizeof(real); line += EACH_LINE) \
        __builtin_prefetch((const void *)((uintptr_t)(array) + EACH_AHEAD + line), write, 3)

/* y = expression of each v in x */
#define EACH_OF_1(expression) \
    real rest[EACH_SIZE] = {0}; \
    for (int64_t begin = 0; begin < n; begin += EACH_SIZE) { \
        size_t left = (size_t)(n - begin) * sizeof(real); \
        const real *from = x + begin; \
        real *to = y + begin; \
        FETCH(from, 0); \
        FETCH(to, 1); \
        if (left < sizeof rest) from = to = memcpy(rest, from, left); \
        INDEPENDENT for (int i = 0; i < EACH_SIZE; i++) { real v = from[i]; to[i] = expression; } \
        if (left < sizeof rest) memcpy(y + begin, rest, left); \
    }

/* dx = expression of each d in dy and v in x */
#define EACH_OF_2(expression) \
    real rest[EACH_SIZE] = {0}, rest_d[EACH_SIZE] = {0}; \
    for (int64_t begin = 0; begin < n; begin += EACH_SIZE) { \
        size_t left = (size_t)(n - begin) * sizeof(real); \
        const real *from = x + begin, *from_d = dy + begin; \
        real *to = dx + begin; \
        FETCH(from_d, 0); \
        FETCH(from, 0); \
        FETCH(to, 1); \
        if (left < sizeof rest) { \
            from = to = memcpy(rest, from, left); \
            from_d = memcpy(rest_d, from_d, left); \
        } \
        INDEPENDENT for (int i = 0; i < EACH_SIZE; i++) { \
            real v = from[i], d = from_d[i]; \
            to[i] = expression; \
        } \
        if (left < sizeof rest) memcpy(dx + begin, rest, left); \
    }
#endif

#define UNARY(name) \
    void OP(name)(const real *x, int64_t n, real *y) \
    { \
        EACH_OF_1(F(name)(v)) \
    }
void OP(exp)(const real *x, int64_t n, real *y)
{
    int64_t i = 0;
    for (; i + SIDE_BY_SIDE * LANES <= n; i += SIDE_BY_SIDE * LANES) {
        F(vec) v[SIDE_BY_SIDE];
        UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) v[k] = F(load)(x + i + k * LANES);
        F(exp_lanes)(v, SIDE_BY_SIDE);
        UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) F(store)(y + i + k * LANES, v[k]);
    }
    for (; i < n; i += LANES) {
        F(vec) v = F(load_first)(x + i, n - i);
        F(exp_lanes)(&v, 1);
        F(store_first)(y + i, v, n - i);
    }
}

UNARY(sigmoid)
UNARY(tanh)
UNARY(relu)
UNARY(silu)
UNARY(silu_wide)
UNARY(gelu)
UNARY(gelu_wide)
UNARY(gelu_tanh)
UNARY(gelu_erf)
UNARY(gelu_derivative)
UNARY(gelu_tanh_derivative)
UNARY(gelu_erf_derivative)

void OP(leaky_relu)(const real *x, int64_t n, real negative_slope, real *y)
{
    EACH_OF_1(F(leaky_relu)(v, negative_slope))
}

#define UNARY_BACKWARD(name) \
    void OP(name##_backward)(const real *dy, const real *x, int64_t n, real *dx) \
    { \
        EACH_OF_2(d * F(name##_derivative)(v)) \
    }

UNARY_BACKWARD(exp)
UNARY_BACKWARD(sigmoid)
UNARY_BACKWARD(tanh)
UNARY_BACKWARD(silu)
UNARY_BACKWARD(gelu)
UNARY_BACKWARD(gelu_tanh)
UNARY_BACKWARD(gelu_erf)

void OP(relu_backward)(const real *dy, const real *x, int64_t n, real *dx)
{
    EACH_OF_2(F(relu_backward)(d, v))
}

void OP(leaky_relu_backward)(const real *dy, const real *x, int64_t n, real negative_slope,
                             real *dx)
{
    EACH_OF_2(F(leaky_relu_backward)(d, v, negative_slope))
}

#undef UNARY
#undef UNARY_BACKWARD
