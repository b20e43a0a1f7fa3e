/* activation.c: element-wise functions over n contiguous elements, in place allowed.
 * The scalar functions are in scalar.h; the twin is kernels/activation.py. */

/* A loop over 0 <= i < n, block by block; each asks ahead for the cache lines of a later one (why:
 * kernels/simd_lanes.py). `fetch` prefetches what lies at `at`. */
#ifndef EACH_BLOCK
enum { EACH_SIZE = 64, EACH_AHEAD = 1024, EACH_LINE = 64 }; /* elements; bytes */
#define FETCH(array, write) __builtin_prefetch((const void *)((uintptr_t)((array) + i) + at), write, 3)
#define EACH_BLOCK(fetch, compute) \
    int64_t begin = 0; \
    for (; begin + EACH_SIZE <= n; begin += EACH_SIZE) { \
        for (uintptr_t at = EACH_AHEAD, i = (uintptr_t)begin; at < EACH_AHEAD + EACH_SIZE * sizeof(real); at += EACH_LINE) { \
            fetch; \
        } \
        INDEPENDENT for (int64_t i = begin; i < begin + EACH_SIZE; i++) compute; \
    } \
    INDEPENDENT for (int64_t i = begin; i < n; i++) compute;
#define EACH_OF_1(compute) EACH_BLOCK(FETCH(x, 0); FETCH(y, 1), compute)
#define EACH_OF_2(compute) EACH_BLOCK(FETCH(dy, 0); FETCH(x, 0); FETCH(dx, 1), compute)
#endif

#define UNARY(name) \
    void OP(name)(const real *x, int64_t n, real *y) \
    { \
        EACH_OF_1(y[i] = F(name)(x[i])) \
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
UNARY(gelu)
UNARY(gelu_tanh)
UNARY(gelu_erf)
UNARY(gelu_derivative)
UNARY(gelu_tanh_derivative)
UNARY(gelu_erf_derivative)

void OP(leaky_relu)(const real *x, int64_t n, real negative_slope, real *y)
{
    EACH_OF_1(y[i] = F(leaky_relu)(x[i], negative_slope))
}

#define UNARY_BACKWARD(name) \
    void OP(name##_backward)(const real *dy, const real *x, int64_t n, real *dx) \
    { \
        EACH_OF_2(dx[i] = dy[i] * F(name##_derivative)(x[i])) \
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
    EACH_OF_2(dx[i] = F(relu_backward)(dy[i], x[i]))
}

void OP(leaky_relu_backward)(const real *dy, const real *x, int64_t n, real negative_slope,
                             real *dx)
{
    EACH_OF_2(dx[i] = F(leaky_relu_backward)(dy[i], x[i], negative_slope))
}

#undef UNARY
#undef UNARY_BACKWARD
