/* loopnest.h: the C interface of loopnest, neural-network kernels for the CPU.
 *
 * Every function ends in _f32 or _f64 for float or double. Inputs come first, then
 * sizes and options, outputs last. Arrays are contiguous, row-major, and sized as the
 * comment says; nothing is checked and nothing is allocated for the caller to free.
 * Outputs must not overlap inputs unless the comment says "in place".
 *
 * Results are the bits that NumPy and @njit callers of the Python package get, given
 * FMA hardware (x86-64-v3 or later, aarch64); without it fma is done in software, with
 * the same bits but slowly. All functions may be called from many threads at once. */
#ifndef LOOPNEST_H
#define LOOPNEST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cffi: begin */

/* The instruction set in use: "base", "avx2" or "avx512". */
const char *ln_isa(void);
/* Use another ("best" for the default); -1 if this CPU or this build does not have it. */
int ln_select_isa(const char *name);

/* ---- activation.c: n elements each; y or dx may be x or dy itself (in place) ---- */

void ln_exp_f32(const float *x, int64_t n, float *y);
void ln_exp_f64(const double *x, int64_t n, double *y);
void ln_sigmoid_f32(const float *x, int64_t n, float *y);
void ln_sigmoid_f64(const double *x, int64_t n, double *y);
void ln_tanh_f32(const float *x, int64_t n, float *y);
void ln_tanh_f64(const double *x, int64_t n, double *y);
void ln_relu_f32(const float *x, int64_t n, float *y);
void ln_relu_f64(const double *x, int64_t n, double *y);
void ln_silu_f32(const float *x, int64_t n, float *y);
void ln_silu_f64(const double *x, int64_t n, double *y);
void ln_gelu_f32(const float *x, int64_t n, float *y);
void ln_gelu_f64(const double *x, int64_t n, double *y);
void ln_gelu_tanh_f32(const float *x, int64_t n, float *y);
void ln_gelu_tanh_f64(const double *x, int64_t n, double *y);
void ln_gelu_erf_f32(const float *x, int64_t n, float *y);
void ln_gelu_erf_f64(const double *x, int64_t n, double *y);
void ln_gelu_derivative_f32(const float *x, int64_t n, float *y);
void ln_gelu_derivative_f64(const double *x, int64_t n, double *y);
void ln_gelu_tanh_derivative_f32(const float *x, int64_t n, float *y);
void ln_gelu_tanh_derivative_f64(const double *x, int64_t n, double *y);
void ln_gelu_erf_derivative_f32(const float *x, int64_t n, float *y);
void ln_gelu_erf_derivative_f64(const double *x, int64_t n, double *y);
void ln_leaky_relu_f32(const float *x, int64_t n, float negative_slope, float *y);
void ln_leaky_relu_f64(const double *x, int64_t n, double negative_slope, double *y);

/* dx = dy times the slope at x */
void ln_exp_backward_f32(const float *dy, const float *x, int64_t n, float *dx);
void ln_exp_backward_f64(const double *dy, const double *x, int64_t n, double *dx);
void ln_sigmoid_backward_f32(const float *dy, const float *x, int64_t n, float *dx);
void ln_sigmoid_backward_f64(const double *dy, const double *x, int64_t n, double *dx);
void ln_tanh_backward_f32(const float *dy, const float *x, int64_t n, float *dx);
void ln_tanh_backward_f64(const double *dy, const double *x, int64_t n, double *dx);
void ln_relu_backward_f32(const float *dy, const float *x, int64_t n, float *dx);
void ln_relu_backward_f64(const double *dy, const double *x, int64_t n, double *dx);
void ln_silu_backward_f32(const float *dy, const float *x, int64_t n, float *dx);
void ln_silu_backward_f64(const double *dy, const double *x, int64_t n, double *dx);
void ln_gelu_backward_f32(const float *dy, const float *x, int64_t n, float *dx);
void ln_gelu_backward_f64(const double *dy, const double *x, int64_t n, double *dx);
void ln_gelu_tanh_backward_f32(const float *dy, const float *x, int64_t n, float *dx);
void ln_gelu_tanh_backward_f64(const double *dy, const double *x, int64_t n, double *dx);
void ln_gelu_erf_backward_f32(const float *dy, const float *x, int64_t n, float *dx);
void ln_gelu_erf_backward_f64(const double *dy, const double *x, int64_t n, double *dx);
void ln_leaky_relu_backward_f32(const float *dy, const float *x, int64_t n, float negative_slope, float *dx);
void ln_leaky_relu_backward_f64(const double *dy, const double *x, int64_t n, double negative_slope, double *dx);

/* ---- convolution.c: NCHW arrays, cross-correlation ----
 * x (n,c,h,w), weight (k,c/groups,r,s), bias (k) or NULL, y (n,k,oh,ow). The input is read as
 * if padded with zeros, `top` rows above and `left` columns to the left (and as many below and
 * to the right as oh and ow need). The work is a range of items, so that threads can share
 * it: the whole is first = 0, last = the number of items. */
typedef struct {
    int64_t n, c, h, w, k, r, s, oh, ow;
    int64_t stride_h, stride_w, top, left, dilation_h, dilation_w, groups;
} ln_conv2d_shape;

/* items: the n*k*oh rows of y */
void ln_conv2d_f32(const float *x, const float *weight, const float *bias, const ln_conv2d_shape *shape, int64_t first, int64_t last, float *y);
void ln_conv2d_f64(const double *x, const double *weight, const double *bias, const ln_conv2d_shape *shape, int64_t first, int64_t last, double *y);
/* items: the n*c*h rows of dx */
void ln_conv2d_backward_input_f32(const float *dy, const float *weight, const ln_conv2d_shape *shape, int64_t first, int64_t last, float *dx);
void ln_conv2d_backward_input_f64(const double *dy, const double *weight, const ln_conv2d_shape *shape, int64_t first, int64_t last, double *dx);
/* items: the k filters */
void ln_conv2d_backward_weight_f32(const float *x, const float *dy, const ln_conv2d_shape *shape, int64_t first, int64_t last, float *dweight);
void ln_conv2d_backward_weight_f64(const double *x, const double *dy, const ln_conv2d_shape *shape, int64_t first, int64_t last, double *dweight);
/* items: the k channels */
void ln_conv2d_backward_bias_f32(const float *dy, const ln_conv2d_shape *shape, int64_t first, int64_t last, float *dbias);
void ln_conv2d_backward_bias_f64(const double *dy, const ln_conv2d_shape *shape, int64_t first, int64_t last, double *dbias);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif
