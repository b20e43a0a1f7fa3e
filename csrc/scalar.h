/* scalar.h: scalar functions that every kernel builds on; no branches, no calls.
 *
 * The twin of kernels/scalar.py, operation for operation, so that the bits agree; the
 * method and the origin of the constants are told there. The constants of both types come
 * first; the functions are in scalar_functions.h, compiled for each type. */
#ifndef LN_SCALAR_H
#define LN_SCALAR_H

#include "simd.h"

/* A loop around a call is not vectorised, and gcc stops inlining where files grow large. */
#if defined(__GNUC__)
#define SCALAR static inline __attribute__((always_inline))
#else
#define SCALAR static inline
#endif

static const float magic_f32 = 1.2582912e+07f; /* adding it rounds to an integer */
static const float exponent_magic_f32 = 1.2583039e+07f; /* adding it puts n + bias into the low bits */
static const float scaled_magic_f32 = 1.2582999e+07f; /* puts n - 40 + bias there */
static const float scale_f32 = 0x1p-40f;
static const uint32_t reciprocal_bits_f32 = 0x7EF30FF0; /* less the bits of x: 1/x to 5.05% */
static const float log2e_f32 = 1.442695f;
static const float log2e_lo_f32 = 1.925963e-08f;
static const float ln2_hi_f32 = 0.6931472f;
static const float ln2_lo_f32 = -1.9046542e-09f;
static const float gelu_k_f32 = 1.702f;
static const float gelu_k_log2e_f32 = 2.455467f;
static const float gelu_k_log2e_lo_f32 = -2.6109499e-08f;
/* (2^r - 1)/r */
static const float power_f32[] = {
    0.69314722f, 0.24022653f, 0.055503106f, 0.009617693f, 0.0013406644f, 0.00015594677f};
static const float tanh_c1_hi_f32 = 1.5957692f;
static const float tanh_c1_lo_f32 = -4.534068e-08f;
static const float tanh_c3_hi_f32 = 0.071354814f;
static const float tanh_c3_lo_f32 = 2.3988325e-09f;
static const float phi0_f32 = 0.3989423f; /* 1/sqrt(2 pi) */
static const float phi0_lo_f32 = -1.133517e-08f;
/* (expm1(r) - r)/r^2 */
static const float q_f32[] = {
    0.5f, 0.16666576f, 0.041666854f, 0.008363261f, 0.0013901339f};
/* 2 Q(2r) */
static const float q2_f32[] = {
    1.0f, 0.66666305f, 0.33333483f, 0.13381217f, 0.044484284f};
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
static const float small_sum_f32 = 1.375f; /* below, log(1 + x) serves for log of a sum of 1 and x */
static const float silu_zero_f32 = -1.2784646f; /* where the slope of x sigmoid(x) is nearly 0 */
static const float silu_slope_zero_f32 = -2.8270397e-09f; /* the slope there */
static const float gelu_slope_zero_f32 = 7.616695e-10f; /* the same for 1.702 x */
/* the slope less that, over w = x - zero, in w */
static const float silu_slope_f32[] = {
    0.21781172f, 0.1466488f, 0.018873068f, -0.015223057f, -0.0065319985f, 0.00014384245f};
static const float gelu_tanh_zero_f32 = -0.75246143f; /* where the slope is 0 */
static const float gelu_tanh_zero_lo_f32 = 1.1339628e-08f;
/* the slope over w = x - zero, in w */
static const float gelu_tanh_slope_f32[] = {
    0.4304001f, 0.38751844f, -0.015782855f, -0.11394434f, -0.01661926f, 0.019680185f,
    0.005260072f, -0.00241009f, -0.00092157815f, 0.000230345f, 0.00010874221f};
static const float gelu_erf_zero_f32 = -0.75179154f; /* where the slope is 0 */
static const float gelu_erf_zero_lo_f32 = 1.211445e-08f;
/* the slope over w = x - zero, in w */
static const float gelu_erf_slope_f32[] = {
    0.431494f, 0.38828495f, -0.01819969f, -0.11400763f, -0.014771129f, 0.019416953f, 0.004536159f,
    -0.00222447f, -0.00073497853f, 0.00016513834f, 7.21093e-05f};
static const float sqrt_half_f32 = 0.70710677f;
static const float exp_low_f32 = -105.0f;
static const float exp_high_f32 = 89.0f;
static const float tanh_end_f32 = 10.0f;
static const float sigmoid_low_f32 = -108.8f;
static const float sigmoid_high_f32 = 30.0f;
static const float silu_subnormal_f32 = -91.87f; /* below, |silu| is less than least_normal */
static const float gelu_low_f32 = -63.95f;
static const float gelu_high_f32 = 18.0f;
static const float gelu_subnormal_f32 = -53.66f;
static const float least_normal_f32 = 0x1p-126f;
static const float gelu_tanh_low_f32 = -10.9f;
static const float gelu_tanh_high_f32 = 6.0f;
static const float gelu_erf_end_f32 = 15.0f;

static const double magic_f64 = 6755399441055744.0; /* adding it rounds to an integer */
static const double exponent_magic_f64 = 6755399441056767.0; /* adding it puts n + bias into the low bits */
static const double scaled_magic_f64 = 6755399441056667.0;
static const double scale_f64 = 0x1p-100;
static const uint64_t reciprocal_bits_f64 = 0x7FDE61FE00000000;
static const double log2e_f64 = 1.4426950408889634;
static const double log2e_lo_f64 = 2.0355273740931033e-17;
static const double ln2_hi_f64 = 0.6931471805599453;
static const double ln2_lo_f64 = 2.3190468138462996e-17;
static const double gelu_k_f64 = 1.702;
static const double gelu_k_log2e_f64 = 2.4554669595930156;
static const double gelu_k_log2e_lo_f64 = 7.816541847237075e-17;
static const double power_f64[] = {
    0.6931471805599457, 0.24022650695910098, 0.0555041086647904, 0.009618129107607003,
    0.001333355815343997, 0.0001540353044157185, 1.525272738518978e-05, 1.3215442675452855e-06,
    1.0180647660573069e-07, 7.0725703945408e-09, 4.0780717860928704e-10};
static const double tanh_c1_hi_f64 = 1.5957691216057308;
static const double tanh_c1_lo_f64 = -9.96930880911092e-17;
static const double tanh_c3_hi_f64 = 0.07135481627260025;
static const double tanh_c3_lo_f64 = -6.175149918155315e-19;
static const double phi0_f64 = 0.3989422804014327; /* 1/sqrt(2 pi) */
static const double phi0_lo_f64 = -2.49232720227773e-17;
/* (expm1(r) - r)/r^2 */
static const double q_f64[] = {
    0.5000000000000001, 0.16666666666666644, 0.041666666666623664, 0.00833333333335654,
    0.0013888888917461492, 0.00019841269784042704, 2.4801520894323147e-05, 2.7557355760093055e-06,
    2.762028527217723e-07, 2.5068237761638294e-08};
static const double q2_f64[] = {
    1.0000000000000002, 0.6666666666666657, 0.3333333333329893, 0.13333333333370465,
    0.04444444453587677, 0.01269841266178733, 0.0031745946744733628, 0.0007054683074583822,
    0.00014141586059354742, 2.5669875467917613e-05};
static const double erfcx_f64[] = {
    0.7552851304157515, -0.6078966419718921, 0.3871374007422197, -0.1865218579596636,
    0.06039657489065381, -0.007540188966493371, -0.0034796923613647775, 0.0016308184541487009,
    0.0001333442461965294, -0.00023109491095412297, -1.907831546934212e-06, 3.514460635448414e-05,
    7.149372829872551e-07, -5.920128820565385e-06, -6.251636260565301e-07, 1.0220964805293101e-06,
    2.6411001345340233e-07, -1.568917702697577e-07, -7.72371268241219e-08, 1.6279675402239237e-08,
    1.4681932378554431e-08, -4.0240380602339925e-10, -1.2257244874171324e-09};
static const double phi_small_f64[] = {
    0.3989422804014327, -0.06649038006690544, 0.009973557010035598, -0.0011873282154714858,
    0.00011543468743184123, -9.444654129892108e-06, 6.659548796874147e-07, -4.116923145198312e-08,
    2.1499416448639738e-09};
static const double log_table_f64[] = {
    0.666666666666667, 0.3999999999989794, 0.2857142862666583, 0.22222211024622043,
    0.18182897004075005, 0.15331463785027824, 0.14619593948936563};
static const double small_sum_f64 = 1.375;
static const double silu_zero_f64 = -1.2784645427610737;
static const double silu_slope_zero_f64 = 2.3843834755243115e-17;
static const double gelu_slope_zero_f64 = 1.6868712850696507e-17;
static const double silu_slope_f64[] = {
    0.2178117057198001, 0.1466487969969469, 0.018874814223782378, -0.015222655223188018,
    -0.006606589138373429, 0.00012662741007778936, 0.0007985218834466932, 0.00018570724393212546,
    -4.09054158750973e-05, -2.9733556880109773e-05, -2.940905252487355e-06,
    2.3463749857869384e-06, 8.398336188897549e-07, -3.4557842798071035e-08};
static const double gelu_tanh_zero_f64 = -0.7524614220710163;
static const double gelu_tanh_zero_lo_f64 = 3.635560509207687e-17;
static const double gelu_tanh_slope_f64[] = {
    0.4304000910248585, 0.38751844613578895, -0.01578285352184803, -0.11394448308095899,
    -0.01661932834305254, 0.019682309459833115, 0.005261059254920764, -0.0024227318458750107,
    -0.0009274420229921384, 0.0002639276405246704, 0.00012425227761107875, -3.495617166317814e-05,
    -1.5950893016414696e-05, 5.918611421150815e-06, 2.433528023693102e-06, -9.898630038532474e-07,
    -4.3092802112356276e-07, 1.4156833057312612e-07, 7.494358137751969e-08,
    -1.6958580694208197e-08, -1.1500111758795e-08, 1.7296919575303604e-09, 1.2663410609745163e-09,
    -1.3611666184982165e-10};
static const double gelu_erf_zero_f64 = -0.7517915246935645;
static const double gelu_erf_zero_lo_f64 = 1.4956759177009883e-17;
static const double gelu_erf_slope_f64[] = {
    0.4314939923140469, 0.388284982990552, -0.0181996763986711, -0.1140082332972217,
    -0.014771522148243541, 0.01942167983818918, 0.004539228379108192, -0.0022395380680759326,
    -0.0007448268384836506, 0.0001863397462593602, 8.615947737428236e-05, -1.1214380363527385e-05,
    -7.748456309183773e-06, 4.328457707966572e-07, 5.702635076190363e-07, -1.6062700603368233e-09,
    -3.5438114634768105e-08, -1.3938481293559583e-09, 1.8804526423407187e-09,
    1.41816234632064e-10, -7.586760843462438e-11, -7.98839812719462e-12};
static const double sqrt_half_f64 = 0.7071067811865476;
static const double exp_low_f64 = -746.0;
static const double exp_high_f64 = 710.0;
static const double tanh_end_f64 = 20.0;
static const double sigmoid_low_f64 = -760.0;
static const double sigmoid_high_f64 = 50.0;
static const double silu_subnormal_f64 = -714.98;
static const double gelu_low_f64 = -450.0;
static const double gelu_high_f64 = 30.0;
static const double gelu_subnormal_f64 = -419.77;
static const double least_normal_f64 = 0x1p-1022;
static const double gelu_tanh_low_f64 = -21.7;
static const double gelu_tanh_high_f64 = 9.0;
static const double gelu_erf_end_f64 = 40.0;

#endif
