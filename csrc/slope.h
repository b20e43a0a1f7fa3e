/* slope.h: constants of the slopes of x sigmoid(k x) for descents; the twin of kernels/slope.py,
 * where the method is told. */
#ifndef LN_SLOPE_H
#define LN_SLOPE_H

/* k; k log2(e) in two words; |x| from where the slope keeps its value */
static const float swish_gelu_f32[] = {1.702f, 2.455467f, -2.6109499e-08f, 120 / 2.455467};
static const float swish_silu_f32[] = {1.0f, 1.442695f, 1.925963e-08f, 120 / 1.442695};
static const double swish_gelu_f64[] = {
    1.702, 2.4554669595930156, 7.816541847237075e-17, 1016 / 2.4554669595930156};
static const double swish_silu_f64[] = {
    1.0, 1.4426950408889634, 2.0355273740931033e-17, 1016 / 1.4426950408889634};

#endif
