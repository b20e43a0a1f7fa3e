/* activation.c: element-wise functions over n contiguous elements, in place allowed.
 * The scalar functions are in scalar.h; the twin is kernels/activation.py. */

#define UNARY(name) \
    void OP(name)(const real *x, int64_t n, real *y) \
    { \
        INDEPENDENT for (int64_t i = 0; i < n; i++) y[i] = F(name)(x[i]); \
    }

UNARY(exp)
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
    INDEPENDENT for (int64_t i = 0; i < n; i++) y[i] = F(leaky_relu)(x[i], negative_slope);
}

#define UNARY_BACKWARD(name) \
    void OP(name##_backward)(const real *dy, const real *x, int64_t n, real *dx) \
    { \
        INDEPENDENT for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * F(name##_derivative)(x[i]); \
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
    INDEPENDENT for (int64_t i = 0; i < n; i++) dx[i] = F(relu_backward)(dy[i], x[i]);
}

void OP(leaky_relu_backward)(const real *dy, const real *x, int64_t n, real negative_slope,
                             real *dx)
{
    INDEPENDENT for (int64_t i = 0; i < n; i++)
        dx[i] = F(leaky_relu_backward)(dy[i], x[i], negative_slope);
}

#undef UNARY
#undef UNARY_BACKWARD
