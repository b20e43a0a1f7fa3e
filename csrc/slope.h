/* slope.h: constants of the slopes of x sigmoid(k x) for descents; the twin of kernels/slope.py,
 * where the method is told. */
#ifndef LN_SLOPE_H
#define LN_SLOPE_H

/* k; k log2(e) in two words; |x| from where the slope keeps its value */
static const float swish_gelu_f32[] = {1.702f, 2.455467f, -2.6109499e-08f, 126 / 2.455467};
static const float swish_silu_f32[] = {1.0f, 1.442695f, 1.925963e-08f, 126 / 1.442695};
static const double swish_gelu_f64[] = {
    1.702, 2.4554669595930156, 7.816541847237075e-17, 1022 / 2.4554669595930156};
static const double swish_silu_f64[] = {
    1.0, 1.4426950408889634, 2.0355273740931033e-17, 1022 / 1.4426950408889634};
/* (2^r - 1)/r */
static const float power_f32[] = {
    0.69314722f, 0.24022653f, 0.055503106f, 0.009617693f, 0.0013406644f, 0.00015594677f};
static const double power_f64[] = {
    0.6931471805599457, 0.24022650695910098, 0.0555041086647904, 0.009618129107607003,
    0.001333355815343997, 0.0001540353044157185, 1.525272738518978e-05, 1.3215442675452855e-06,
    1.0180647660573069e-07, 7.0725703945408e-09, 4.0780717860928704e-10};
static const float slope_magic_f32 = 12582912.0f; /* adding it rounds to an integer */
static const double slope_magic_f64 = 6755399441055744.0;

#endif
