/* ops.h: the list of kernels, one LN_OP(name, parameters, arguments) each.
 *
 * dispatch.c makes from it the declarations per instruction set and the public
 * functions, for float and for double; `real` stands for either. The same functions,
 * with their contracts, are declared for users in include/loopnest.h. */

/* activation.c */
#define LN_UNARY(name) LN_OP(name, (const real *x, int64_t n, real *y), (x, n, y))
#define LN_UNARY_BACKWARD(name) \
    LN_OP(name, (const real *dy, const real *x, int64_t n, real *dx), (dy, x, n, dx))
LN_UNARY(exp)
LN_UNARY(sigmoid)
LN_UNARY(tanh)
LN_UNARY(relu)
LN_UNARY(silu)
LN_UNARY(silu_wide)
LN_UNARY(gelu)
LN_UNARY(gelu_wide)
LN_UNARY(gelu_tanh)
LN_UNARY(gelu_erf)
LN_UNARY(gelu_derivative)
LN_UNARY(gelu_tanh_derivative)
LN_UNARY(gelu_erf_derivative)
LN_OP(leaky_relu, (const real *x, int64_t n, real negative_slope, real *y), (x, n, negative_slope, y))
LN_UNARY_BACKWARD(exp_backward)
LN_UNARY_BACKWARD(sigmoid_backward)
LN_UNARY_BACKWARD(tanh_backward)
LN_UNARY_BACKWARD(relu_backward)
LN_UNARY_BACKWARD(silu_backward)
LN_UNARY_BACKWARD(gelu_backward)
LN_UNARY_BACKWARD(gelu_tanh_backward)
LN_UNARY_BACKWARD(gelu_erf_backward)
LN_OP(leaky_relu_backward,
      (const real *dy, const real *x, int64_t n, real negative_slope, real *dx),
      (dy, x, n, negative_slope, dx))
#undef LN_UNARY
#undef LN_UNARY_BACKWARD

/* convolution.c */
LN_OP(conv2d,
      (const real *x, const real *weight, const real *bias, const ln_conv2d_shape *shape,
       int64_t first, int64_t last, real *y),
      (x, weight, bias, shape, first, last, y))
LN_OP(conv2d_backward_input,
      (const real *dy, const real *weight, const ln_conv2d_shape *shape, int64_t first,
       int64_t last, real *dx),
      (dy, weight, shape, first, last, dx))
LN_OP(conv2d_backward_weight,
      (const real *x, const real *dy, const ln_conv2d_shape *shape, int64_t first, int64_t last,
       real *dweight),
      (x, dy, shape, first, last, dweight))
LN_OP(conv2d_backward_bias,
      (const real *dy, const ln_conv2d_shape *shape, int64_t first, int64_t last, real *dbias),
      (dy, shape, first, last, dbias))

/* convolution_plan.h, convolution_tiled.c, convolution_stacked.c, convolution_weight.c */
LN_OP(conv2d_plan, (const ln_conv2d_shape *shape, ln_conv2d_plan *plan), (shape, plan))
LN_OP(conv2d_tiled,
      (const real *x, const real *weight, const real *bias, const ln_conv2d_shape *shape,
       const ln_conv2d_plan *plan, const real *packed, const real *more, int64_t rectify,
       int64_t first, int64_t last, real *work, int64_t *taps, real *y),
      (x, weight, bias, shape, plan, packed, more, rectify, first, last, work, taps, y))
LN_OP(pack_conv2d_size, (const ln_conv2d_shape *shape, int64_t *size), (shape, size))
LN_OP(pack_conv2d,
      (const real *weight, const ln_conv2d_shape *shape, real *packed),
      (weight, shape, packed))
LN_OP(conv2d_weight_plan,
      (const ln_conv2d_shape *shape, ln_conv2d_weight_plan *plan),
      (shape, plan))
LN_OP(conv2d_backward_weight_tiled,
      (const real *x, const real *dy, const ln_conv2d_shape *shape,
       const ln_conv2d_weight_plan *plan, int64_t first, int64_t last, real *work, int64_t *taps,
       real *dweight),
      (x, dy, shape, plan, first, last, work, taps, dweight))

/* winograd.c */
LN_OP(winograd_plan, (const ln_conv2d_shape *shape, ln_winograd_plan *plan), (shape, plan))
LN_OP(winograd_filters,
      (const real *weight, const ln_conv2d_shape *shape, int64_t first, int64_t last, real *work,
       real *u),
      (weight, shape, first, last, work, u))
LN_OP(winograd,
      (const real *x, const real *u, const real *bias, const ln_conv2d_shape *shape,
       const ln_winograd_plan *plan, int64_t first_block, int64_t blocks, int64_t first,
       int64_t last, real *work, real *y),
      (x, u, bias, shape, plan, first_block, blocks, first, last, work, y))

/* pooling.c */
LN_OP(avg_pool2d,
      (const real *x, const ln_pool2d_shape *shape, int64_t include_pad, int64_t divisor,
       real *work, int64_t first, int64_t last, real *y),
      (x, shape, include_pad, divisor, work, first, last, y))
LN_OP(avg_pool2d_backward,
      (const real *dy, const ln_pool2d_shape *shape, int64_t include_pad, int64_t divisor,
       real *work, int64_t first, int64_t last, real *dx),
      (dy, shape, include_pad, divisor, work, first, last, dx))
LN_OP(max_pool2d,
      (const real *x, const ln_pool2d_shape *shape, real *work, int64_t first, int64_t last,
       real *y),
      (x, shape, work, first, last, y))
LN_OP(max_pool2d_indices,
      (const real *x, const ln_pool2d_shape *shape, int64_t first, int64_t last,
       int64_t *indices, real *y),
      (x, shape, first, last, indices, y))
LN_OP(max_pool2d_backward,
      (const real *dy, const int64_t *indices, int64_t plane_size, int64_t out_size,
       int64_t first, int64_t last, real *dx),
      (dy, indices, plane_size, out_size, first, last, dx))
LN_OP(global_avg_pool2d,
      (const real *x, int64_t size, int64_t first, int64_t last, real *y),
      (x, size, first, last, y))
LN_OP(global_max_pool2d,
      (const real *x, int64_t size, real *work, int64_t first, int64_t last, real *y),
      (x, size, work, first, last, y))

/* gates.c */
LN_OP(gate_forward,
      (const real *a, const real *b, int64_t n, const real *weights, int64_t hidden, real *y),
      (a, b, n, weights, hidden, y))

/* logic.c */
LN_OP(logic_coefficients,
      (const real *logits, int64_t neurons, int64_t first, int64_t last, real *shares,
       real *coefficients),
      (logits, neurons, first, last, shares, coefficients))
LN_OP(logic_forward,
      (const real *x, const int32_t *left, const int32_t *right, const real *coefficients,
       const int64_t *starts, int64_t layers, real *y),
      (x, left, right, coefficients, starts, layers, y))
LN_OP(logic_backward,
      (const real *x, const real *y, const int32_t *left, const int32_t *right,
       const real *coefficients, const int64_t *starts, int64_t layers, real *dy, real *dx,
       real *dcoefficients),
      (x, y, left, right, coefficients, starts, layers, dy, dx, dcoefficients))

LN_OP(logic_scores,
      (const real *y, int64_t start, int64_t group, double scale, int64_t classes, real *scores),
      (y, start, group, scale, classes, scores))
LN_OP(logic_scores_backward,
      (const real *dscores, int64_t group, double scale, int64_t classes, real *dy),
      (dscores, group, scale, classes, dy))
LN_OP(logic_coefficients_backward,
      (const real *dcoefficients, int64_t chunks, int64_t neurons, const real *coefficients,
       int64_t first, int64_t last, real *shares),
      (dcoefficients, chunks, neurons, coefficients, first, last, shares))

/* dense.c */
LN_OP(linear,
      (const real *x, const real *weight, const real *bias, int64_t inputs, int64_t outputs,
       int64_t first, int64_t last, real *y),
      (x, weight, bias, inputs, outputs, first, last, y))
LN_OP(linear_backward_input,
      (const real *dy, const real *weight, int64_t inputs, int64_t outputs, int64_t first,
       int64_t last, real *dx),
      (dy, weight, inputs, outputs, first, last, dx))
LN_OP(linear_backward_weight,
      (const real *x, const real *dy, int64_t rows, int64_t inputs, int64_t outputs, int64_t
       first, int64_t last, real *dweight),
      (x, dy, rows, inputs, outputs, first, last, dweight))
LN_OP(linear_backward_bias,
      (const real *dy, int64_t rows, int64_t outputs, real *dbias),
      (dy, rows, outputs, dbias))

/* dense_tiled.c */
LN_OP(linear_plan,
      (int64_t form, int64_t samples, int64_t inputs, int64_t outputs, ln_linear_plan *plan),
      (form, samples, inputs, outputs, plan))
LN_OP(linear_tiled,
      (int64_t form, const real *a, const real *b, const real *bias, const real *packed,
       int64_t samples, int64_t inputs, int64_t outputs, int64_t first, int64_t last, real *work,
       real *y),
      (form, a, b, bias, packed, samples, inputs, outputs, first, last, work, y))
LN_OP(pack_linear_size,
      (int64_t inputs, int64_t outputs, int64_t *size),
      (inputs, outputs, size))
LN_OP(pack_linear,
      (const real *weight, int64_t inputs, int64_t outputs, real *packed),
      (weight, inputs, outputs, packed))
/* loss.c */
LN_OP(softmax,
      (const real *x, int64_t classes, int64_t first, int64_t last, real *y),
      (x, classes, first, last, y))
LN_OP(log_softmax,
      (const real *x, int64_t classes, int64_t first, int64_t last, real *y),
      (x, classes, first, last, y))
LN_OP(cross_entropy,
      (const real *logits, const int64_t *target, const real *weight, int64_t classes, int64_t
       ignore_index, real smoothing, const real *scale, int64_t first, int64_t last, real *losses,
       real *dlogits),
      (logits, target, weight, classes, ignore_index, smoothing, scale, first, last, losses,
       dlogits))
LN_OP(cross_entropy_probabilities,
      (const real *logits, const real *target, const real *weight, int64_t classes, real smoothing,
       const real *scale, int64_t first, int64_t last, real *losses, real *dlogits),
      (logits, target, weight, classes, smoothing, scale, first, last, losses, dlogits))
LN_OP(total,
      (const real *values, int64_t n, real *result),
      (values, n, result))

/* optimizer.c, descent.c */
LN_OP(sgd_step,
      (const real *grad, int64_t n, double lr, double momentum, double dampening, double
       weight_decay, int64_t use_buffer, int64_t nesterov, int64_t first, real *buffer, real
       *param),
      (grad, n, lr, momentum, dampening, weight_decay, use_buffer, nesterov, first, buffer, param))
LN_OP(adam_step,
      (const real *grad, int64_t n, double lr, double beta1, double beta2, double correction1,
       double correction2, double eps, double weight_decay, int64_t decoupled, int64_t amsgrad,
       real *m, real *v, real *max_v, real *param),
      (grad, n, lr, beta1, beta2, correction1, correction2, eps, weight_decay, decoupled, amsgrad,
       m, v, max_v, param))
LN_OP(rmsprop_step,
      (const real *grad, int64_t n, double lr, double alpha, double eps, double weight_decay,
       double momentum, int64_t use_buffer, int64_t centered, real *v, real *buffer, real
       *grad_average, real *param),
      (grad, n, lr, alpha, eps, weight_decay, momentum, use_buffer, centered, v, buffer,
       grad_average, param))
LN_OP(adagrad_step,
      (const real *grad, int64_t n, double lr, double eps, double weight_decay, real *state_sum,
       real *param),
      (grad, n, lr, eps, weight_decay, state_sum, param))
LN_OP(lion_step,
      (const real *grad, int64_t n, double lr, double beta1, double beta2, double weight_decay,
       real *m, real *param),
      (grad, n, lr, beta1, beta2, weight_decay, m, param))
LN_OP(descend,
      (const ln_descend_options *options, const real *start, const real *lr, const real *momentum,
       const double *schedule, int64_t problems, int64_t first, int64_t last, real *x, real
       *fun, real *grad, int64_t *taken, uint8_t *converged, real *trajectory),
      (options, start, lr, momentum, schedule, problems, first, last, x, fun, grad, taken,
       converged, trajectory))
