/* scalar_functions.h: the functions of scalar.h for the type `real`.
 * Names and order are those of kernels/scalar.py. */

/* ---- building blocks ---- */

static inline real F(float_of)(bits b)
{
    real x;
    memcpy(&x, &b, sizeof x);
    return x;
}

static inline bits F(bits_of)(real x)
{
    bits b;
    memcpy(&b, &x, sizeof b);
    return b;
}

static inline real F(absolute)(real x) { return sizeof(real) == 4 ? (real)fabsf((float)x) : (real)fabs((double)x); }

/* Polynomial with `count` coefficients, lowest power first. */
static inline real F(horner)(real x, const real *coefficients, int count)
{
    real y = coefficients[count - 1];
#pragma GCC unroll 32
    for (int i = count - 2; i >= 0; i--) y = FMA(y, x, coefficients[i]);
    return y;
}
#define HORNER(x, table) F(horner)(x, F(table), (int)(sizeof F(table) / sizeof F(table)[0]))

/* x within [low, high]; NaN stays NaN. */
static inline real F(clamp)(real x, real low, real high)
{
    real y = x < low ? low : x;
    return y > high ? high : y;
}

/* 2^n for a whole n in the exponent range. */
static inline real F(pow2)(real n)
{
    return F(float_of)(F(bits_of)(n + F(exponent_magic)) << MANTISSA_BITS);
}

/* Two factors whose product is 2^n, also where 2^n itself is subnormal or infinite. */
static inline void F(halves)(real n, real *s1, real *s2)
{
    real first = FMA(n, (real)0.5, F(magic)) - F(magic);
    *s1 = F(pow2)(first);
    *s2 = F(pow2)(n - first);
}

/* t with exp(hi + lo) = 2^n (1 + t). */
static inline real F(reduce)(real hi, real lo, real *n)
{
    real m = FMA(hi, F(log2e), F(magic)) - F(magic);
    real r = FMA(-m, F(ln2_lo), FMA(-m, F(ln2_hi), hi)) + lo;
    *n = m;
    return FMA(r * r, HORNER(r, q), r);
}

/* exp(-|z|) = (p + pl) s1 s2, z = zh + zl; returns p. */
static inline real F(decay)(real zh, real zl, real *pl, real *s1, real *s2)
{
    int positive = zh > 0;
    real n, t = F(reduce)(positive ? -zh : zh, positive ? -zl : zl, &n);
    real p = 1 + t;
    F(halves)(n, s1, s2);
    *pl = t - (p - 1);
    return p;
}

/* f sigmoid(z), z = zh + zl: with e = exp(-|z|), f/(1 + e) or f e/(1 + e). */
static inline real F(times_sigmoid)(real f, real zh, real zl)
{
    real pl, s1, s2, p = F(decay)(zh, zl, &pl, &s1, &s2);
    real e = p * s1 * s2;
    real d = 1 + e;
    real dl = (e - (d - 1)) + pl * s1 * s2;
    real r = 1 / d;
    real rl = r * (FMA(-d, r, (real)1) - dl * r);
    int negative = zh < 0;
    real m = negative ? p : 1;
    real g = f * m;
    real gl = FMA(f, m, -g) + f * (negative ? pl : 0);
    real y = FMA(g, r, FMA(gl, r, g * rl));
    return y * (negative ? s1 : 1) * (negative ? s2 : 1);
}

/* s (1 + g (1 - s)) with s = sigmoid(z): the slope of x sigmoid(z(x)), g = x z'(x). */
static inline real F(sigmoid_slope)(real zh, real zl, real g)
{
    real pl, s1, s2, p = F(decay)(zh, zl, &pl, &s1, &s2);
    real e = p * s1 * s2;
    real d = 1 + e;
    real dl = (e - (d - 1)) + pl * s1 * s2;
    real r = 1 / d;
    int negative = zh < 0;
    real top = negative ? (d + g) + (dl + zl) : FMA(g, e, d);
    real y = top * (negative ? p : 1) * r * r;
    return y * (negative ? s1 : 1) * (negative ? s2 : 1);
}

/* sigmoid(z) (1 - sigmoid(z)) = e/(1 + e)^2. */
static inline real F(logistic_bump)(real z)
{
    real pl, s1, s2, p = F(decay)(z, 0, &pl, &s1, &s2);
    real r = 1 / (1 + p * s1 * s2);
    return p * r * r * s1 * s2;
}

/* 1.702 x in two words. */
static inline real F(gelu_argument)(real x, real *lo)
{
    real hi = x * F(gelu_k_hi);
    *lo = FMA(x, F(gelu_k_hi), -hi) + x * F(gelu_k_lo);
    return hi;
}

/* 2 sqrt(2/pi) (x + 0.044715 x^3) in two words. */
static inline real F(gelu_tanh_argument)(real x, real *lo)
{
    real xx = x * x;
    real a = F(tanh_c3_hi) * xx;
    real a_lo = FMA(F(tanh_c3_hi), xx, -a) + FMA(F(tanh_c3_hi), FMA(x, x, -xx), F(tanh_c3_lo) * xx);
    real w = F(tanh_c1_hi) + a;
    real b = w - F(tanh_c1_hi); /* Knuth's TwoSum */
    real w_lo = (F(tanh_c1_hi) - (w - b)) + (a - b) + (a_lo + F(tanh_c1_lo));
    real hi = x * w;
    *lo = FMA(x, w, -hi) + x * w_lo;
    return hi;
}

/* Phi(-a)/exp(-a^2/2) for 0 <= a. */
static inline real F(mills)(real a)
{
    real s = 1 / (a + 4);
    return HORNER((a - 4) * s, erfcx) * s;
}

/* ---- functions and slopes ---- */

static inline real F(exp)(real x)
{
    real s1, s2, n, t = F(reduce)(F(clamp)(x, F(exp_low), F(exp_high)), 0, &n);
    F(halves)(n, &s1, &s2);
    return (1 + t) * s1 * s2;
}

static inline real F(exp_derivative)(real x) { return F(exp)(x); }

/* Natural logarithm of a positive normal number (a row's sum), infinity or NaN. */
static inline real F(log)(real x)
{
    signed_bits whole =
        (signed_bits)(F(bits_of)(x) - F(bits_of)(F(sqrt_half))) >> MANTISSA_BITS;
    real n = (real)whole;
    real f = F(float_of)(F(bits_of)(x) - ((bits)whole << MANTISSA_BITS)) - 1;
    real s = f / (f + 2);
    real ss = s * s;
    real y = FMA(n, F(ln2_hi), FMA(n, F(ln2_lo), FMA(s * ss, HORNER(ss, log_table), s + s)));
    return x < (real)INFINITY ? y : x;
}

static inline real F(sigmoid)(real x)
{
    return F(times_sigmoid)(1, F(clamp)(x, -F(silu_end), F(silu_end)), 0);
}

static inline real F(sigmoid_derivative)(real x)
{
    return F(logistic_bump)(F(clamp)(x, -F(silu_end), F(silu_end)));
}

/* -m/(m + 2) with m = expm1(-2|x|) = 2^n t + (2^n - 1). */
static inline real F(tanh)(real x)
{
    real a = F(absolute)(x) > F(tanh_end) ? F(tanh_end) : F(absolute)(x);
    real n, t = F(reduce)(-(a + a), 0, &n);
    real s = F(pow2)(n);
    real m = FMA(s, t, s - 1);
    real y = -m / (m + 2);
    y = x < 0 ? -y : y;
    return x == 0 ? x : y;
}

static inline real F(tanh_derivative)(real x)
{
    real end = (real)0.5 * F(silu_end);
    real a = F(clamp)(x, -end, end);
    return 4 * F(logistic_bump)(a + a);
}

static inline real F(relu)(real x) { return x <= 0 ? 0 : x; }

static inline real F(relu_backward)(real dy, real x) { return x <= 0 ? 0 : dy; }

static inline real F(leaky_relu)(real x, real slope) { return x > 0 ? x : x * slope; }

static inline real F(leaky_relu_backward)(real dy, real x, real slope)
{
    return x > 0 ? dy : dy * slope;
}

static inline real F(silu)(real x)
{
    real f = F(clamp)(x, -F(silu_end), F(silu_end));
    real y = F(times_sigmoid)(f, f, 0);
    return x == 0 || x > F(silu_end) ? x : y;
}

static inline real F(silu_derivative)(real x)
{
    real z = F(clamp)(x, -F(silu_end), F(silu_end));
    return F(sigmoid_slope)(z, 0, z);
}

/* x sigmoid(1.702 x) */
static inline real F(gelu)(real x)
{
    real f = F(clamp)(x, -F(gelu_end), F(gelu_end));
    real lo, hi = F(gelu_argument)(f, &lo);
    real y = F(times_sigmoid)(f, hi, lo);
    return x == 0 || x > F(gelu_end) ? x : y;
}

static inline real F(gelu_derivative)(real x)
{
    real lo, hi = F(gelu_argument)(F(clamp)(x, -F(gelu_end), F(gelu_end)), &lo);
    return F(sigmoid_slope)(hi, lo, hi);
}

/* x/2 (1 + tanh(u)) = x sigmoid(2u) */
static inline real F(gelu_tanh)(real x)
{
    real f = F(clamp)(x, -F(gelu_tanh_end), F(gelu_tanh_end));
    real lo, hi = F(gelu_tanh_argument)(f, &lo);
    real y = F(times_sigmoid)(f, hi, lo);
    return x == 0 || x > F(gelu_tanh_end) ? x : y;
}

static inline real F(gelu_tanh_derivative)(real x)
{
    real f = F(clamp)(x, -F(gelu_tanh_end), F(gelu_tanh_end));
    real lo, hi = F(gelu_tanh_argument)(f, &lo);
    return F(sigmoid_slope)(hi, lo, f * FMA(F(tanh_c3x3), f * f, F(tanh_c1_hi)));
}

/* x Phi(x), from the tail Phi(-|x|), near 0 from Phi(x) - 1/2 */
static inline real F(gelu_erf)(real x)
{
    real a = F(absolute)(x) > F(gelu_erf_end) ? F(gelu_erf_end) : F(absolute)(x);
    real h = a * a;
    real s1, s2, n, t = F(reduce)((real)-0.5 * h, (real)-0.5 * FMA(a, a, -h), &n);
    F(halves)(n, &s1, &s2);
    real m = F(mills)(a);
    real tail = a * FMA(m, t, m) * s1 * s2;
    real y = x > 0 ? x - tail : -tail;
    y = a < (real)0.5 ? x * FMA(x, HORNER(h, phi_small), (real)0.5) : y;
    return x == 0 ? x : y;
}

/* Phi(x) + x phi(x), from the tail */
static inline real F(gelu_erf_derivative)(real x)
{
    real a = F(absolute)(x) > F(gelu_erf_end) ? F(gelu_erf_end) : F(absolute)(x);
    real h = a * a;
    real s1, s2, n, t = F(reduce)((real)-0.5 * h, (real)-0.5 * FMA(a, a, -h), &n);
    F(halves)(n, &s1, &s2);
    real m = FMA(-a, F(phi0), F(mills)(a));
    real tail = FMA(m, t, m) * s1 * s2;
    return x > 0 ? 1 - tail : tail;
}

#undef HORNER
