/* scalar.h: scalar functions that every kernel builds on; no branches, no calls.
 *
 * The twin of kernels/scalar.py, operation for operation, so that the bits agree; the
 * method and the origin of the constants are told there. The constants of both types come
 * first; the functions are in scalar_functions.h, compiled for each type. */
#ifndef LN_SCALAR_H
#define LN_SCALAR_H

#include "simd.h"

static const float magic_f32 = 12582912.0f; /* adding it rounds to an integer */
static const float exponent_magic_f32 = 8388735.0f; /* adding it puts n + bias into the low bits */
static const float log2e_f32 = 1.442695f;
static const float ln2_hi_f32 = 0.6931472f;
static const float ln2_lo_f32 = -1.9046542e-09f;
static const float gelu_k_hi_f32 = 1.702f;
static const float gelu_k_lo_f32 = -2.193451e-08f;
static const float tanh_c1_hi_f32 = 1.5957692f;
static const float tanh_c1_lo_f32 = -4.534068e-08f;
static const float tanh_c3_hi_f32 = 0.071354814f;
static const float tanh_c3_lo_f32 = 2.3988325e-09f;
static const float tanh_c3x3_f32 = 0.21406445f;
static const float phi0_f32 = 0.3989423f; /* 1/sqrt(2 pi) */
/* (expm1(r) - r)/r^2 */
static const float q_f32[] = {
    0.5f, 0.16666576f, 0.041666854f, 0.008363261f, 0.0013901339f};
/* (a + 4) erfcx(a/sqrt 2)/2 as a polynomial in (a - 4)/(a + 4) */
static const float erfcx_f32[] = {
    0.75528514f, -0.60789657f, 0.3871369f, -0.18652366f, 0.06040349f, -0.007524004f,
    -0.003510212f, 0.0015684079f, 0.00017466042f, -0.0001341956f};
/* (Phi(x) - 1/2)/x in x^2 */
static const float phi_small_f32[] = {
    0.3989423f, -0.06648994f, 0.00996483f, -0.0011311086f};
/* (log((1 + s)/(1 - s)) - 2s)/s^3 in s^2 */
static const float log_table_f32[] = {
    0.66666687f, 0.39988717f, 0.29582587f};
static const float sqrt_half_f32 = 0.70710677f;
static const float exp_low_f32 = -105.0f;
static const float exp_high_f32 = 89.0f;
static const float tanh_end_f32 = 10.0f;
static const float silu_end_f32 = 120.0f;
static const float gelu_end_f32 = 70.0f;
static const float gelu_tanh_end_f32 = 12.0f;
static const float gelu_erf_end_f32 = 15.0f;

static const double magic_f64 = 6755399441055744.0; /* adding it rounds to an integer */
static const double exponent_magic_f64 = 4503599627371519.0; /* adding it puts n + bias into the low bits */
static const double log2e_f64 = 1.4426950408889634;
static const double ln2_hi_f64 = 0.6931471805599453;
static const double ln2_lo_f64 = 2.3190468138462996e-17;
static const double gelu_k_hi_f64 = 1.702;
static const double gelu_k_lo_f64 = 4.263256414560601e-17;
static const double tanh_c1_hi_f64 = 1.5957691216057308;
static const double tanh_c1_lo_f64 = -9.96930880911092e-17;
static const double tanh_c3_hi_f64 = 0.07135481627260025;
static const double tanh_c3_lo_f64 = -6.175149918155315e-19;
static const double tanh_c3x3_f64 = 0.21406444881780073;
static const double phi0_f64 = 0.3989422804014327; /* 1/sqrt(2 pi) */
/* (expm1(r) - r)/r^2 */
static const double q_f64[] = {
    0.5000000000000001, 0.16666666666666644, 0.041666666666623664, 0.00833333333335654,
    0.0013888888917461492, 0.00019841269784042704, 2.4801520894323147e-05,
    2.7557355760093055e-06, 2.762028527217723e-07, 2.5068237761638294e-08};
/* (a + 4) erfcx(a/sqrt 2)/2 as a polynomial in (a - 4)/(a + 4) */
static const double erfcx_f64[] = {
    0.7552851304157515, -0.6078966419718921, 0.3871374007422197, -0.1865218579596636,
    0.06039657489065381, -0.007540188966493371, -0.0034796923613647775, 0.0016308184541487009,
    0.0001333442461965294, -0.00023109491095412297, -1.907831546934212e-06,
    3.514460635448414e-05, 7.149372829872551e-07, -5.920128820565385e-06,
    -6.251636260565301e-07, 1.0220964805293101e-06, 2.6411001345340233e-07,
    -1.568917702697577e-07, -7.72371268241219e-08, 1.6279675402239237e-08,
    1.4681932378554431e-08, -4.0240380602339925e-10, -1.2257244874171324e-09};
static const double phi_small_f64[] = {
    0.3989422804014327, -0.06649038006690544, 0.009973557010035598, -0.0011873282154714858,
    0.00011543468743184123, -9.444654129892108e-06, 6.659548796874147e-07,
    -4.116923145198312e-08, 2.1499416448639738e-09};
static const double log_table_f64[] = {
    0.666666666666667, 0.3999999999989794, 0.2857142862666583, 0.22222211024622043,
    0.18182897004075005, 0.15331463785027824, 0.14619593948936563};
static const double sqrt_half_f64 = 0.7071067811865476;
static const double exp_low_f64 = -746.0;
static const double exp_high_f64 = 710.0;
static const double tanh_end_f64 = 20.0;
static const double silu_end_f64 = 760.0;
static const double gelu_end_f64 = 450.0;
static const double gelu_tanh_end_f64 = 24.0;
static const double gelu_erf_end_f64 = 40.0;

#endif
