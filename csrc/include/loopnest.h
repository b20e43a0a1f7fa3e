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
/* the same bits, fast too where results are subnormal: for sums, which may be large */
void ln_silu_wide_f32(const float *x, int64_t n, float *y);
void ln_silu_wide_f64(const double *x, int64_t n, double *y);
void ln_gelu_wide_f32(const float *x, int64_t n, float *y);
void ln_gelu_wide_f64(const double *x, int64_t n, double *y);
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

/* ---- convolution_tiled.c: the same bits, fast, given work space ----
 * Make a plan; then each thread calls ln_conv2d_tiled on a range of plan.tasks, with work space
 * of its own: plan.work numbers (best aligned to 64 bytes) and plan.taps integers. A packed
 * weight, made once, saves packing it in each call whose method is LN_PIXELS; or it is NULL. */
enum { LN_PLAIN, LN_PIXELS, LN_CHANNELS, LN_STACKED, LN_POINTWISE }; /* the kernel: told in kernels/convolution_plan.py */
typedef struct {
    int64_t method, flat, block_h, block_w; /* how the work is cut */
    int64_t tasks, work, taps;
} ln_conv2d_plan;

/* reads all of shape but top and left */
void ln_conv2d_plan_f32(const ln_conv2d_shape *shape, ln_conv2d_plan *plan);
void ln_conv2d_plan_f64(const ln_conv2d_shape *shape, ln_conv2d_plan *plan);
/* items: the plan's tasks. more (or NULL), of y's shape, is added to the sums with their bias; then
 * max(0, .) if rectify */
void ln_conv2d_tiled_f32(const float *x, const float *weight, const float *bias, const ln_conv2d_shape *shape, const ln_conv2d_plan *plan, const float *packed, const float *more, int64_t rectify, int64_t first, int64_t last, float *work, int64_t *taps, float *y);
void ln_conv2d_tiled_f64(const double *x, const double *weight, const double *bias, const ln_conv2d_shape *shape, const ln_conv2d_plan *plan, const double *packed, const double *more, int64_t rectify, int64_t first, int64_t last, double *work, int64_t *taps, double *y);
/* size: numbers of the packed weight; reads c, k, r, s and groups of shape */
void ln_pack_conv2d_size_f32(const ln_conv2d_shape *shape, int64_t *size);
void ln_pack_conv2d_size_f64(const ln_conv2d_shape *shape, int64_t *size);
void ln_pack_conv2d_f32(const float *weight, const ln_conv2d_shape *shape, float *packed);
void ln_pack_conv2d_f64(const double *weight, const ln_conv2d_shape *shape, double *packed);
/* the gradient by the weight; a plan with 0 tasks: ln_conv2d_backward_weight is best */
typedef struct {
    int64_t flat, block_h, block_c; /* how the work is cut */
    int64_t tasks, work, taps;
} ln_conv2d_weight_plan;

void ln_conv2d_weight_plan_f32(const ln_conv2d_shape *shape, ln_conv2d_weight_plan *plan);
void ln_conv2d_weight_plan_f64(const ln_conv2d_shape *shape, ln_conv2d_weight_plan *plan);
/* items: the plan's tasks */
void ln_conv2d_backward_weight_tiled_f32(const float *x, const float *dy, const ln_conv2d_shape *shape, const ln_conv2d_weight_plan *plan, int64_t first, int64_t last, float *work, int64_t *taps, float *dweight);
void ln_conv2d_backward_weight_tiled_f64(const double *x, const double *dy, const ln_conv2d_shape *shape, const ln_conv2d_weight_plan *plan, int64_t first, int64_t last, double *work, int64_t *taps, double *dweight);

/* ---- winograd.c: 3x3 filters, stride 1, dilation 1, with fewer multiplications ----
 * Not the bits of the above; the bound of the error is told in help(loopnest.conv2d). Make a
 * plan, and transform the filters, 16 at a time (a block; the last one of a group may hold
 * fewer), into u, plan.filters numbers a block. Then, for every plan.part blocks (whole groups,
 * or part of one: no call may reach from part of a group into the next), each thread calls
 * ln_winograd on a range of tasks with plan.work numbers of work space of its own. */
typedef struct {
    int64_t strip, columns; /* how the work is cut */
    int64_t part;           /* blocks that work space is for */
    int64_t tasks;          /* of each group */
    int64_t filters, work;
} ln_winograd_plan;

/* reads n, c, k, oh, ow and groups of shape */
void ln_winograd_plan_f32(const ln_conv2d_shape *shape, ln_winograd_plan *plan);
void ln_winograd_plan_f64(const ln_conv2d_shape *shape, ln_winograd_plan *plan);
/* items: the blocks; work: 9 c/groups times 64 bytes */
void ln_winograd_filters_f32(const float *weight, const ln_conv2d_shape *shape, int64_t first, int64_t last, float *work, float *u);
void ln_winograd_filters_f64(const double *weight, const ln_conv2d_shape *shape, int64_t first, int64_t last, double *work, double *u);
/* u: of the given blocks; items: the plan's tasks for each of their groups (or part of one) */
void ln_winograd_f32(const float *x, const float *u, const float *bias, const ln_conv2d_shape *shape, const ln_winograd_plan *plan, int64_t first_block, int64_t blocks, int64_t first, int64_t last, float *work, float *y);
void ln_winograd_f64(const double *x, const double *u, const double *bias, const ln_conv2d_shape *shape, const ln_winograd_plan *plan, int64_t first_block, int64_t blocks, int64_t first, int64_t last, double *work, double *y);

/* ---- pooling.c: NCHW arrays, seen as planes = n*c images of h x w ----
 * Padding holds no values; windows are clipped to the input. */
typedef struct {
    int64_t h, w, oh, ow, kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    int64_t dilation_h, dilation_w; /* max_pool2d only */
} ln_pool2d_shape;

/* items: the planes*oh rows of y; divisor 0: the window's size, with padding or without;
 * work: 2 w + 256 elements of work space */
void ln_avg_pool2d_f32(const float *x, const ln_pool2d_shape *shape, int64_t include_pad, int64_t divisor, float *work, int64_t first, int64_t last, float *y);
void ln_avg_pool2d_f64(const double *x, const ln_pool2d_shape *shape, int64_t include_pad, int64_t divisor, double *work, int64_t first, int64_t last, double *y);
/* items: the planes of dx; work: ow + 2 w + 320 elements */
void ln_avg_pool2d_backward_f32(const float *dy, const ln_pool2d_shape *shape, int64_t include_pad, int64_t divisor, float *work, int64_t first, int64_t last, float *dx);
void ln_avg_pool2d_backward_f64(const double *dy, const ln_pool2d_shape *shape, int64_t include_pad, int64_t divisor, double *work, int64_t first, int64_t last, double *dx);
/* elements of work space that ln_max_pool2d takes */
int64_t ln_max_pool2d_work(const ln_pool2d_shape *shape);
/* items: the planes*oh rows of y */
void ln_max_pool2d_f32(const float *x, const ln_pool2d_shape *shape, float *work, int64_t first, int64_t last, float *y);
void ln_max_pool2d_f64(const double *x, const ln_pool2d_shape *shape, double *work, int64_t first, int64_t last, double *y);
/* the same, and the position of each maximum within its plane, -1 for an empty window */
void ln_max_pool2d_indices_f32(const float *x, const ln_pool2d_shape *shape, int64_t first, int64_t last, int64_t *indices, float *y);
void ln_max_pool2d_indices_f64(const double *x, const ln_pool2d_shape *shape, int64_t first, int64_t last, int64_t *indices, double *y);
/* *outside: 1 if one of `count` indices is not from -1 to plane_size - 1, else 0 */
void ln_indices_outside_u64(const int64_t *indices, int64_t count, int64_t plane_size, int64_t *outside);
/* items: the planes of dx, plane_size = h*w; out_size = oh*ow; no index may be outside */
void ln_max_pool2d_backward_f32(const float *dy, const int64_t *indices, int64_t plane_size, int64_t out_size, int64_t first, int64_t last, float *dx);
void ln_max_pool2d_backward_f64(const double *dy, const int64_t *indices, int64_t plane_size, int64_t out_size, int64_t first, int64_t last, double *dx);
/* items: the planes, size = h*w elements each */
void ln_global_avg_pool2d_f32(const float *x, int64_t size, int64_t first, int64_t last, float *y);
void ln_global_avg_pool2d_f64(const double *x, int64_t size, int64_t first, int64_t last, double *y);
/* work: 256 elements */
void ln_global_max_pool2d_f32(const float *x, int64_t size, float *work, int64_t first, int64_t last, float *y);
void ln_global_max_pool2d_f64(const double *x, int64_t size, double *work, int64_t first, int64_t last, double *y);

/* ---- gates.c: n elements each; y may be a or b itself (in place) ----
 * y = sigmoid of a neuron, weights (wa, wb, bias); with hidden = 1 of a 2-2-1 network, weights
 * of 9: two hidden neurons with ReLU, then the output neuron. */
void ln_gate_forward_f32(const float *a, const float *b, int64_t n, const float *weights, int64_t hidden, float *y);
void ln_gate_forward_f64(const double *a, const double *b, int64_t n, const double *weights, int64_t hidden, double *y);

/* ---- logic.c: logic-gate networks in training ----
 * Layers lie one behind the other: neuron n of all `starts[layers]` has inputs left[n], right[n],
 * two different rows of the layer before (of x for the first); starts (layers + 1) says where a
 * layer's neurons begin. Values are rows of 32 samples a neuron (or feature of x).
 * y = c[0] + c[1] a + c[2] b + c[3] a b with the neuron's 4 coefficients. */
/* logits and shares (16, neurons), coefficients (neurons, 4): shares = softmax over the 16 gates,
 * coefficients those of the mixture; items: the neurons. Gate k is 1 at (a, b) where bit
 * 3 - 2a - b of k is set. */
void ln_logic_coefficients_f32(const float *logits, int64_t neurons, int64_t first, int64_t last, float *shares, float *coefficients);
void ln_logic_coefficients_f64(const double *logits, int64_t neurons, int64_t first, int64_t last, double *shares, double *coefficients);
/* y: the values of all neurons */
void ln_logic_forward_f32(const float *x, const int32_t *left, const int32_t *right, const float *coefficients, const int64_t *starts, int64_t layers, float *y);
void ln_logic_forward_f64(const double *x, const int32_t *left, const int32_t *right, const double *coefficients, const int64_t *starts, int64_t layers, double *y);
/* dy: gradient by the last layer's values; dy and dx: work space for the widest layer, used up;
 * dcoefficients (neurons, 4) = sums over the 32 samples */
void ln_logic_backward_f32(const float *x, const float *y, const int32_t *left, const int32_t *right, const float *coefficients, const int64_t *starts, int64_t layers, float *dy, float *dx, float *dcoefficients);
void ln_logic_backward_f64(const double *x, const double *y, const int32_t *left, const int32_t *right, const double *coefficients, const int64_t *starts, int64_t layers, double *dy, double *dx, double *dcoefficients);
/* scores (32, classes) = scale times the sum of `group` rows a class, the first is row `start` of y */
void ln_logic_scores_f32(const float *y, int64_t start, int64_t group, double scale, int64_t classes, float *scores);
void ln_logic_scores_f64(const double *y, int64_t start, int64_t group, double scale, int64_t classes, double *scores);
/* dy: classes*group rows */
void ln_logic_scores_backward_f32(const float *dscores, int64_t group, double scale, int64_t classes, float *dy);
void ln_logic_scores_backward_f64(const double *dscores, int64_t group, double scale, int64_t classes, double *dy);
/* dcoefficients (chunks, neurons, 4) are added up; shares (16, neurons) become the gradient by
 * the logits; items: the neurons */
void ln_logic_coefficients_backward_f32(const float *dcoefficients, int64_t chunks, int64_t neurons, const float *coefficients, int64_t first, int64_t last, float *shares);
void ln_logic_coefficients_backward_f64(const double *dcoefficients, int64_t chunks, int64_t neurons, const double *coefficients, int64_t first, int64_t last, double *shares);

/* ---- logic_bits.c: hard logic networks on bits, 512 samples at a time ----
 * state: rows of 8 words (512 samples), bit s % 64 of word s / 64 is sample s. Row 0 is all zeros,
 * row 1 all ones, row 2 + f feature f; the rest are for gates. */
/* Pack samples first .. first + 511 of x (rows, features), bytes 0 or 1; those beyond `rows` count
 * as 0. bits: work space of 8*features bytes; seen[0] collects the bits of all values: above 1 if
 * one was neither 0 nor 1 */
void ln_logic_pack_u64(const uint8_t *x, int64_t rows, int64_t features, int64_t first, uint8_t *bits, uint8_t *seen, uint64_t *state);
/* gates: rows (left, right, out) of each; run i has function i % 16 (bit 3 - 2a - b of it is the
 * value at a, b) and goes to gate ends[i] */
void ln_logic_run_u64(const int32_t *gates, const int64_t *ends, int64_t runs, uint64_t *state);
/* scores (samples, classes), written for samples first .. first + 511: the ones among the rows of
 * each class; outputs (classes, rows), rows a multiple of 8, filled up with row 0 */
void ln_logic_count_u64(const uint64_t *state, const int32_t *outputs, int64_t rows, int64_t samples, int64_t classes, int64_t first, int32_t *scores);
/* the class of the largest score, the first of equal ones; items: the samples */
void ln_logic_label_u64(const int32_t *scores, int64_t classes, int64_t first, int64_t last, int64_t *labels);

/* ---- dense.c: x (rows, inputs), weight (inputs, outputs), bias (outputs) or NULL ---- */
/* y = x weight + bias; items: the rows of y */
void ln_linear_f32(const float *x, const float *weight, const float *bias, int64_t inputs, int64_t outputs, int64_t first, int64_t last, float *y);
void ln_linear_f64(const double *x, const double *weight, const double *bias, int64_t inputs, int64_t outputs, int64_t first, int64_t last, double *y);
/* dx = dy weight^T; items: the rows of dx */
void ln_linear_backward_input_f32(const float *dy, const float *weight, int64_t inputs, int64_t outputs, int64_t first, int64_t last, float *dx);
void ln_linear_backward_input_f64(const double *dy, const double *weight, int64_t inputs, int64_t outputs, int64_t first, int64_t last, double *dx);
/* dweight = x^T dy; items: the `inputs` rows of dweight */
void ln_linear_backward_weight_f32(const float *x, const float *dy, int64_t rows, int64_t inputs, int64_t outputs, int64_t first, int64_t last, float *dweight);
void ln_linear_backward_weight_f64(const double *x, const double *dy, int64_t rows, int64_t inputs, int64_t outputs, int64_t first, int64_t last, double *dweight);
/* dbias = sum of dy over the rows */
void ln_linear_backward_bias_f32(const float *dy, int64_t rows, int64_t outputs, float *dbias);
void ln_linear_backward_bias_f64(const double *dy, int64_t rows, int64_t outputs, double *dbias);

/* ---- dense_tiled.c: the bits of dense.c, fast, given work space; as for convolution above ---- */
/* The product that `form` names, of a and b: y = x weight + bias of x and weight; dx = dy weight^T of
 * dy and weight; dweight = x^T dy of x and dy. */
enum { LN_LINEAR, LN_LINEAR_BACKWARD_INPUT, LN_LINEAR_BACKWARD_WEIGHT };
typedef struct {
    int64_t tasks, work; /* tasks is 0 where the loops of dense.c are best */
} ln_linear_plan;

void ln_linear_plan_f32(int64_t form, int64_t rows, int64_t inputs, int64_t outputs, ln_linear_plan *plan);
void ln_linear_plan_f64(int64_t form, int64_t rows, int64_t inputs, int64_t outputs, ln_linear_plan *plan);
/* items: the plan's tasks; bias and packed may be NULL, and are for LN_LINEAR */
void ln_linear_tiled_f32(int64_t form, const float *a, const float *b, const float *bias, const float *packed, int64_t rows, int64_t inputs, int64_t outputs, int64_t first, int64_t last, float *work, float *y);
void ln_linear_tiled_f64(int64_t form, const double *a, const double *b, const double *bias, const double *packed, int64_t rows, int64_t inputs, int64_t outputs, int64_t first, int64_t last, double *work, double *y);
void ln_pack_linear_size_f32(int64_t inputs, int64_t outputs, int64_t *size);
void ln_pack_linear_size_f64(int64_t inputs, int64_t outputs, int64_t *size);
void ln_pack_linear_f32(const float *weight, int64_t inputs, int64_t outputs, float *packed);
void ln_pack_linear_f64(const double *weight, int64_t inputs, int64_t outputs, double *packed);

/* ---- loss.c: rows of `classes` numbers; items: the rows ---- */
/* y may be x (in place) */
void ln_softmax_f32(const float *x, int64_t classes, int64_t first, int64_t last, float *y);
void ln_softmax_f64(const double *x, int64_t classes, int64_t first, int64_t last, double *y);
void ln_log_softmax_f32(const float *x, int64_t classes, int64_t first, int64_t last, float *y);
void ln_log_softmax_f64(const double *x, int64_t classes, int64_t first, int64_t last, double *y);
/* Loss and gradient of each row in one pass. target: class indices, each in [0, classes) or
 * ignore_index (loss and gradient 0); weight: one a class, or NULL; dlogits = gradient times
 * scale[row]; losses or dlogits may be NULL (not wanted), scale too if dlogits is */
void ln_cross_entropy_f32(const float *logits, const int64_t *target, const float *weight, int64_t classes, int64_t ignore_index, float smoothing, const float *scale, int64_t first, int64_t last, float *losses, float *dlogits);
void ln_cross_entropy_f64(const double *logits, const int64_t *target, const double *weight, int64_t classes, int64_t ignore_index, double smoothing, const double *scale, int64_t first, int64_t last, double *losses, double *dlogits);
/* target: probabilities, as logits */
void ln_cross_entropy_probabilities_f32(const float *logits, const float *target, const float *weight, int64_t classes, float smoothing, const float *scale, int64_t first, int64_t last, float *losses, float *dlogits);
void ln_cross_entropy_probabilities_f64(const double *logits, const double *target, const double *weight, int64_t classes, double smoothing, const double *scale, int64_t first, int64_t last, double *losses, double *dlogits);
/* result[0] = sum of n values, in runs of 2048 */
void ln_total_f32(const float *values, int64_t n, float *result);
void ln_total_f64(const double *values, int64_t n, double *result);

/* ---- optimizer.c: n elements each, in place; arrays that a flag switches off may be NULL ---- */
/* buffer is used if use_buffer is set: buffer = first ? g : momentum buffer + (1 - dampening) g */
void ln_sgd_step_f32(const float *grad, int64_t n, double lr, double momentum, double dampening, double weight_decay, int64_t use_buffer, int64_t nesterov, int64_t first, float *buffer, float *param);
void ln_sgd_step_f64(const double *grad, int64_t n, double lr, double momentum, double dampening, double weight_decay, int64_t use_buffer, int64_t nesterov, int64_t first, double *buffer, double *param);
/* correction1 = 1 - beta1^t, correction2 = 1 - beta2^t; decoupled: AdamW's decay; amsgrad: max_v
 * is used */
void ln_adam_step_f32(const float *grad, int64_t n, double lr, double beta1, double beta2, double correction1, double correction2, double eps, double weight_decay, int64_t decoupled, int64_t amsgrad, float *m, float *v, float *max_v, float *param);
void ln_adam_step_f64(const double *grad, int64_t n, double lr, double beta1, double beta2, double correction1, double correction2, double eps, double weight_decay, int64_t decoupled, int64_t amsgrad, double *m, double *v, double *max_v, double *param);
/* use_buffer: momentum, with buffer; centered: grad_average is used */
void ln_rmsprop_step_f32(const float *grad, int64_t n, double lr, double alpha, double eps, double weight_decay, double momentum, int64_t use_buffer, int64_t centered, float *v, float *buffer, float *grad_average, float *param);
void ln_rmsprop_step_f64(const double *grad, int64_t n, double lr, double alpha, double eps, double weight_decay, double momentum, int64_t use_buffer, int64_t centered, double *v, double *buffer, double *grad_average, double *param);
/* lr as decayed by the caller */
void ln_adagrad_step_f32(const float *grad, int64_t n, double lr, double eps, double weight_decay, float *state_sum, float *param);
void ln_adagrad_step_f64(const double *grad, int64_t n, double lr, double eps, double weight_decay, double *state_sum, double *param);
void ln_lion_step_f32(const float *grad, int64_t n, double lr, double beta1, double beta2, double weight_decay, float *m, float *param);
void ln_lion_step_f64(const double *grad, int64_t n, double lr, double beta1, double beta2, double weight_decay, double *m, double *param);

/* ---- descent.c: whole descents on an activation ---- */
/* objective and method: the constants below; rows: of the schedule; every: points are kept before
 * every so many steps, 0: never; beta2 is RMSprop's alpha; a negative tol never stops; stop is
 * NULL, or a number that ends the call soon after another thread has made it other than 0; the outputs
 * are not whole then */
typedef struct {
    int64_t objective, method, steps, rows, every;
    double beta1, beta2, eps, weight_decay, tol;
    int64_t *stop;
} ln_descend_options;
enum {
    LN_EXP, LN_SIGMOID, LN_TANH, LN_RELU, LN_LEAKY_RELU, LN_SILU, LN_GELU, LN_GELU_TANH,
    LN_GELU_ERF
};
enum {
    LN_GD, LN_EMA, LN_HEAVY_BALL, LN_LOOKBACK, LN_NESTEROV, LN_RMSPROP, LN_ADAGRAD, LN_ADAM,
    LN_ADAMW, LN_LION
};
/* items: the problems, each with its start, lr and momentum. schedule (rows, 3): what the rate, eps
 * and the rate in AdamW's and Lion's weight decay are multiplied by in step t, the last row
 * serves all later steps; Adam: f r/(1 - beta1^t), r = sqrt(1 - beta2^t) and f for the
 * schedule's f, others: f, 1 and f. taken: steps made; converged: |grad| <= tol; a problem that
 * meets NaN stops, too. trajectory (steps/every + 1, problems) or, with every 0, NULL */
void ln_descend_f32(const ln_descend_options *options, const float *start, const float *lr, const float *momentum, const double *schedule, int64_t problems, int64_t first, int64_t last, float *x, float *fun, float *grad, int64_t *taken, uint8_t *converged, float *trajectory);
void ln_descend_f64(const ln_descend_options *options, const double *start, const double *lr, const double *momentum, const double *schedule, int64_t problems, int64_t first, int64_t last, double *x, double *fun, double *grad, int64_t *taken, uint8_t *converged, double *trajectory);

/* cffi: end */

#ifdef __cplusplus
}
#endif

#endif
