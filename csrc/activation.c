/* activation.c: element-wise functions over n contiguous elements, in place allowed.
 * The functions are in scalar_functions.h, on vectors by vector_functions.h; the twin is
 * kernels/activation.py.
 *
 * Loops take a few vectors side by side, and ask ahead for the cache lines of later ones (why:
 * kernels/simd_lanes.py). The last ones go by one, in part at the end and before the first. */

#ifndef EACH_OF_1
enum { EACH_AHEAD = 1024, EACH_LINE = 64 }; /* bytes */
#define FETCH(array, write) \
    for (uintptr_t line = 0; line < SIDE_BY_SIDE * LN_VECTOR_BYTES; line += EACH_LINE) \
        __builtin_prefetch((const void *)((uintptr_t)(array) + EACH_AHEAD + line), write, 3)

/* Numbers of y before its first whole vector in memory; 0 for short ones. NumPy's large arrays all
 * begin 16 bytes behind a cache line, and vectors across two lines cost twice the time. */
#define BEFORE_VECTORS(y) \
    (n < 8 * SIDE_BY_SIDE * LANES \
         ? 0 : (int64_t)(-(uintptr_t)(y) % LN_VECTOR_BYTES / sizeof(real)))

/* y = expression of each vector v of x */
#define EACH_OF_1(expression) \
    int64_t i = BEFORE_VECTORS(y); \
    if (i) { \
        F(vec) v = F(load_first)(x, i); \
        F(store_first)(y, expression, i); \
    } \
    for (; i + SIDE_BY_SIDE * LANES <= n; i += SIDE_BY_SIDE * LANES) { \
        F(vec) each[SIDE_BY_SIDE]; \
        FETCH(x + i, 0); \
        FETCH(y + i, 1); \
        UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) each[k] = F(load)(x + i + k * LANES); \
        UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) { F(vec) v = each[k]; each[k] = expression; } \
        UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) F(store)(y + i + k * LANES, each[k]); \
    } \
    for (; i < n; i += LANES) { \
        F(vec) v = F(load_first)(x + i, n - i); \
        F(store_first)(y + i, expression, n - i); \
    }

/* dx = expression of each vector d of dy and v of x */
#define EACH_OF_2(expression) \
    int64_t i = BEFORE_VECTORS(dx); \
    if (i) { \
        F(vec) v = F(load_first)(x, i), d = F(load_first)(dy, i); \
        F(store_first)(dx, expression, i); \
    } \
    for (; i + SIDE_BY_SIDE * LANES <= n; i += SIDE_BY_SIDE * LANES) { \
        F(vec) each[SIDE_BY_SIDE]; \
        FETCH(dy + i, 0); \
        FETCH(x + i, 0); \
        FETCH(dx + i, 1); \
        UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) each[k] = F(load)(x + i + k * LANES); \
        UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) { \
            F(vec) v = each[k], d = F(load)(dy + i + k * LANES); \
            each[k] = expression; \
        } \
        UNROLL for (int k = 0; k < SIDE_BY_SIDE; k++) F(store)(dx + i + k * LANES, each[k]); \
    } \
    for (; i < n; i += LANES) { \
        F(vec) v = F(load_first)(x + i, n - i), d = F(load_first)(dy + i, n - i); \
        F(store_first)(dx + i, expression, n - i); \
    }
#endif

#define UNARY(name) \
    INTERLEAVED void OP(name)(const real *x, int64_t n, real *y) \
    { \
        EACH_OF_1(F(name##_lanes)(v)) \
    }

UNARY(exp)
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

INTERLEAVED void OP(leaky_relu)(const real *x, int64_t n, real negative_slope, real *y)
{
    EACH_OF_1(F(leaky_relu_lanes)(v, negative_slope))
}

#define UNARY_BACKWARD(name) \
    INTERLEAVED void OP(name##_backward)(const real *dy, const real *x, int64_t n, real *dx) \
    { \
        EACH_OF_2(d * F(name##_derivative_lanes)(v)) \
    }

UNARY_BACKWARD(exp)
UNARY_BACKWARD(sigmoid)
UNARY_BACKWARD(tanh)
UNARY_BACKWARD(silu)
UNARY_BACKWARD(gelu)
UNARY_BACKWARD(gelu_tanh)
UNARY_BACKWARD(gelu_erf)

INTERLEAVED void OP(relu_backward)(const real *dy, const real *x, int64_t n, real *dx)
{
    EACH_OF_2(F(relu_backward_lanes)(d, v))
}

INTERLEAVED void OP(leaky_relu_backward)(const real *dy, const real *x, int64_t n, real negative_slope,
                             real *dx)
{
    EACH_OF_2(F(leaky_relu_backward_lanes)(d, v, negative_slope))
}

#undef UNARY
#undef UNARY_BACKWARD
