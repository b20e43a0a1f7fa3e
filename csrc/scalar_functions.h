/* scalar_functions.h: the functions of scalar.h for the type `real`.
 * Names and order are those of kernels/scalar.py. */

/* ---- building blocks ---- */

#define QUARTER ((real)0.25)
#define THREE_QUARTERS ((real)0.75)

SCALAR real F(float_of)(bits b)
{
    real x;
    memcpy(&x, &b, sizeof x);
    return x;
}

SCALAR bits F(bits_of)(real x)
{
    bits b;
    memcpy(&b, &x, sizeof b);
    return b;
}

SCALAR real F(absolute)(real x) { return sizeof(real) == 4 ? (real)fabsf((float)x) : (real)fabs((double)x); }

SCALAR real F(with_sign)(real size, real sign)
{
    return sizeof(real) == 4 ? (real)copysignf((float)size, (float)sign)
                             : (real)copysign((double)size, (double)sign);
}

/* Polynomial with `count` coefficients, lowest power first. */
SCALAR real F(horner)(real x, const real *coefficients, int count)
{
    real y = coefficients[count - 1];
#pragma GCC unroll 32
    for (int i = count - 2; i >= 0; i--) y = FMA(y, x, coefficients[i]);
    return y;
}
#define HORNER(x, table) F(horner)(x, F(table), (int)(sizeof F(table) / sizeof F(table)[0]))

/* The larger; NaN stays NaN. */
SCALAR real F(at_least)(real x, real low) { return x < low ? low : x; }

/* The smaller; NaN stays NaN. */
SCALAR real F(at_most)(real x, real high) { return x > high ? high : x; }

/* 2 to the power of n * share, rounded to a whole number in the exponent range. */
SCALAR real F(pow2)(real n, real share)
{
    return F(float_of)(F(bits_of)(FMA(n, share, F(exponent_magic))) << MANTISSA_BITS);
}

/* t with exp(hi + lo) = 2^n (1 + t). */
SCALAR real F(reduce_sum)(real hi, real lo, real *n)
{
    real m = FMA(hi, F(log2e), F(magic)) - F(magic);
    real r = FMA(-m, F(ln2_hi), hi) + FMA(-m, F(ln2_lo), lo);
    *n = m;
    return FMA(r * r, HORNER(r, q), r);
}

/* x 2^n, rounded once where it is subnormal; x near 1. */
SCALAR real F(times_pow2)(real x, real n)
{
    return x * F(pow2)(n, THREE_QUARTERS) * F(pow2)(n, QUARTER);
}

/* 1/d from y near it: with e = 1 - d y the error is e^3. */
SCALAR real F(nearer)(real y, real d)
{
    real e = FMA(-d, y, (real)1);
    return FMA(y, FMA(e, e, e), y);
}

/* 1/d to 1.3e-4, double to 2.2e-12; d positive and normal, 1/d too. */
SCALAR real F(near_reciprocal)(real d)
{
    real y = F(nearer)(F(float_of)(F(reciprocal_bits) - F(bits_of)(d)), d);
    return sizeof(real) == 4 ? y : F(nearer)(y, d);
}

/* t and s with 2^(x (hi + lo)) = 2^n (1 + t), s = scale 2^n. */
SCALAR real F(power_of)(real x, real hi, real lo, real *s)
{
    real m = FMA(x, hi, F(scaled_magic));
    real r = FMA(x, lo, FMA(x, hi, -(m - F(scaled_magic))));
    *s = F(float_of)(F(bits_of)(m) << MANTISSA_BITS);
    return r * HORNER(r, power);
}

SCALAR real F(scale_times_pow2)(real n)
{
    return F(float_of)(F(bits_of)(n + F(scaled_magic)) << MANTISSA_BITS);
}

/* f/(more + less) with y near the reciprocal of the sum, of which it loses nothing. */
SCALAR real F(quotient)(real f, real more, real less, real y)
{
    real q = f * y;
    real rest = FMA(q, less, FMA(q, more, -f)); /* of opposite sign, so that -0 stays -0 */
    return FMA(rest, -y, q);
}

/* f/(1 + E)/scale with scale E = s (1 + t). */
SCALAR real F(large_over_one_plus)(real f, real t, real s)
{
    real more = F(at_least)(s, F(scale)), less = FMA(s, t, F(at_most)(s, F(scale)));
    return F(quotient)(f, more, less, F(near_reciprocal)(more + less));
}

SCALAR real F(over_one_plus)(real f, real t, real s) { return F(large_over_one_plus)(f, t, s) * F(scale); }

/* q scale, rounded once; where it is subnormal, q is negative. Arithmetic with a subnormal result
 * takes a CPU a hundred times as long as other. Next to the least normal number, numbers are as far
 * apart as subnormal ones, and bits make the difference. */
SCALAR real F(negative_times_scale)(real q, int subnormal)
{
    real y = FMA(q, F(scale), subnormal ? -F(least_normal) : (real)-0.0);
    real less = F(float_of)(F(bits_of)(y) & ~((bits)1 << MANTISSA_BITS));
    return subnormal ? less : y;
}

/* 1/(1 + E)/scale, E as above, but at least 1. */
SCALAR real F(sigmoid_tail)(real t, real s)
{
    real less = FMA(s, t, F(scale));
    return F(quotient)(1, s, less, F(near_reciprocal)(s + less));
}

/* k sigmoid(z) (1 - sigmoid(z)) with 2^(x (hi + lo)) = exp(z) at least 1. */
SCALAR real F(logistic_bump)(real x, real hi, real lo, real k)
{
    real s, t = F(power_of)(x, hi, lo, &s);
    real q = F(sigmoid_tail)(t, s);
    real y = q * (F(scale) * k);
    return FMA(-y, q * F(scale), y);
}

/* Slope of x sigmoid(z(x)), z odd, from E = exp(|z|); xz = |x| z'(|x|), h = 1 - xz. */
SCALAR real F(swish_slope)(real x, real xz, real h, real t, real s)
{
    real q = F(sigmoid_tail)(t, s);
    real y = q * FMA(xz, q * F(scale), h) * F(scale);
    return x < 0 ? y : 1 - y;
}

/* The slope at w = z - silu_zero from its polynomial, or y where that does not hold. */
SCALAR real F(near_silu_zero)(real w, real slope_zero, real y)
{
    return F(absolute)(w) < QUARTER ? FMA(w, HORNER(w, silu_slope), slope_zero) : y;
}

/* 1/d, a few times 1e-8 (1e-16) off. */
SCALAR real F(reciprocal)(real d)
{
    real y = F(near_reciprocal)(d);
    return FMA(y, FMA(-d, y, (real)1), y);
}

/* w + w_lo = c1 + c3 x^2 and v + v_lo = c1 + 3 c3 x^2 with c1 = 2 sqrt(2/pi); returns w. */
SCALAR real F(gelu_tanh_factor)(real x, real *w_lo, real *v, real *v_lo)
{
    real xx = x * x;
    real a = F(tanh_c3_hi) * xx;
    real a_lo = FMA(F(tanh_c3_hi), xx, -a) + FMA(F(tanh_c3_hi), FMA(x, x, -xx), F(tanh_c3_lo) * xx);
    real w = F(tanh_c1_hi) + a;
    real b = w - F(tanh_c1_hi); /* Knuth's TwoSum */
    *w_lo = (F(tanh_c1_hi) - (w - b)) + (a - b) + (a_lo + F(tanh_c1_lo));
    real more = FMA((real)2, a, FMA((real)2, a_lo, *w_lo));
    *v = w + more;
    *v_lo = (w - *v) + more;
    return w;
}

/* x (w + w_lo) in two words. */
SCALAR real F(times_factor)(real x, real w, real w_lo, real *lo)
{
    real hi = x * w;
    *lo = FMA(x, w_lo, FMA(x, w, -hi));
    return hi;
}

/* Phi(-a)/exp(-a^2/2) for 0 <= a, in two words. */
SCALAR real F(mills)(real a, real *lo)
{
    real b = a + 4;
    real s = F(reciprocal)(b);
    real s_lo = FMA(-b, s, (real)1) * s + ((b - 4) - a) * s * s; /* what both roundings took */
    real p = HORNER((a - 4) * s, erfcx);
    real m = p * s;
    *lo = FMA(p, s_lo, FMA(p, s, -m));
    return m;
}

/* (m + m_lo) exp(-a^2/2), 0 <= a, but for the factor `scale`. */
SCALAR real F(normal_tail)(real a, real m, real m_lo, real *scale)
{
    real h = a * a;
    real n, t = F(reduce_sum)((real)-0.5 * h, (real)-0.5 * FMA(a, a, -h), &n);
    *scale = F(pow2)(n, QUARTER);
    return (m + FMA(m, t, m_lo)) * F(pow2)(n, THREE_QUARTERS);
}

/* ---- functions and slopes ---- */

SCALAR real F(exp)(real x)
{
    x = F(at_most)(F(at_least)(x, F(exp_low)), F(exp_high));
    real n = FMA(x, F(log2e), F(magic)) - F(magic);
    real r = FMA(x, F(log2e_lo), FMA(x, F(log2e), -n));
    return F(times_pow2)(FMA(r, HORNER(r, power), (real)1), n);
}

SCALAR real F(exp_derivative)(real x) { return F(exp)(x); }

/* Natural logarithm of a positive normal number (a row's sum), infinity or NaN. */
SCALAR real F(log)(real x)
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

SCALAR real F(sigmoid)(real x)
{
    x = F(at_most)(F(at_least)(x, F(sigmoid_low)), F(sigmoid_high));
    real s, t = F(power_of)(x, -F(log2e), -F(log2e_lo), &s);
    return F(over_one_plus)(1, t, s);
}

SCALAR real F(sigmoid_derivative)(real x)
{
    real a = F(at_most)(F(absolute)(x), -F(sigmoid_low));
    return F(logistic_bump)(a, F(log2e), F(log2e_lo), 1);
}

/* h/(h + 1) with h = expm1(2|x|)/2, the sign of x. */
SCALAR real F(tanh)(real x)
{
    const real half = (real)0.5;
    real a = F(at_most)(F(absolute)(x), F(tanh_end));
    real m = FMA(a, 2 * F(log2e), F(exponent_magic));
    real n = m - F(exponent_magic), s = F(float_of)(F(bits_of)(m) << MANTISSA_BITS);
    real r = FMA(-n, half * F(ln2_hi), a);
    real t = FMA(r * r, HORNER(r, q2), n * (-half * F(ln2_lo))); /* expm1(2 r)/2 is r + t */
    real h = FMA(s, t, FMA(s, r, FMA(s, half, -half)));
    real y = F(near_reciprocal)(h + 1);
    real q = h * y;
    real rest = FMA(q, h, q - h); /* q (h + 1) - h */
    return F(with_sign)(FMA(rest, -y, q), x);
}

SCALAR real F(tanh_derivative)(real x)
{
    real a = F(at_most)(F(absolute)(x), (real)-0.5 * F(sigmoid_low));
    return F(logistic_bump)(a, 2 * F(log2e), 2 * F(log2e_lo), 4);
}

SCALAR real F(relu)(real x) { return x <= 0 ? 0 : x; }

SCALAR real F(relu_backward)(real dy, real x) { return x <= 0 ? 0 : dy; }

SCALAR real F(leaky_relu)(real x, real slope) { return x > 0 ? x : x * slope; }

SCALAR real F(leaky_relu_backward)(real dy, real x, real slope)
{
    return x > 0 ? dy : dy * slope;
}

SCALAR real F(silu)(real x)
{
    real f = F(at_least)(x, F(sigmoid_low));
    real s, t = F(power_of)(f, -F(log2e), -F(log2e_lo), &s);
    real y = F(over_one_plus)(f, t, s);
    return x > F(sigmoid_high) ? x : y;
}

/* The same bits, as fast where the result is subnormal (and a fifth slower elsewhere). */
SCALAR real F(silu_wide)(real x)
{
    real f = F(at_most)(F(at_least)(x, F(sigmoid_low)), F(sigmoid_high));
    real s, t = F(power_of)(f, -F(log2e), -F(log2e_lo), &s);
    real y = F(negative_times_scale)(F(large_over_one_plus)(f, t, s), x < F(silu_subnormal));
    return x > F(sigmoid_high) ? x : y;
}

SCALAR real F(silu_derivative)(real x)
{
    real a = F(at_most)(F(absolute)(x), -F(sigmoid_low));
    real s, t = F(power_of)(a, F(log2e), F(log2e_lo), &s);
    real y = F(swish_slope)(x, a, 1 - a, t, s);
    return F(near_silu_zero)(x - F(silu_zero), F(silu_slope_zero), y);
}

/* x sigmoid(1.702 x) */
SCALAR real F(gelu)(real x)
{
    real f = F(at_least)(x, F(gelu_low));
    real s, t = F(power_of)(f, -F(gelu_k_log2e), -F(gelu_k_log2e_lo), &s);
    real y = F(over_one_plus)(f, t, s);
    return x > F(gelu_high) ? x : y;
}

/* The same bits, as fast where the result is subnormal. */
SCALAR real F(gelu_wide)(real x)
{
    real f = F(at_most)(F(at_least)(x, F(gelu_low)), F(gelu_high));
    real s, t = F(power_of)(f, -F(gelu_k_log2e), -F(gelu_k_log2e_lo), &s);
    real y = F(negative_times_scale)(F(large_over_one_plus)(f, t, s), x < F(gelu_subnormal));
    return x > F(gelu_high) ? x : y;
}

SCALAR real F(gelu_derivative)(real x)
{
    real a = F(at_most)(F(absolute)(x), -F(gelu_low));
    real s, t = F(power_of)(a, F(gelu_k_log2e), F(gelu_k_log2e_lo), &s);
    real y = F(swish_slope)(x, a * F(gelu_k), FMA(-a, F(gelu_k), (real)1), t, s);
    return F(near_silu_zero)(FMA(x, F(gelu_k), -F(silu_zero)), F(gelu_slope_zero), y);
}

/* x/2 (1 + tanh(u)) = x sigmoid(2u) */
SCALAR real F(gelu_tanh)(real x)
{
    real f = F(at_least)(x, F(gelu_tanh_low));
    real w_lo, v, v_lo, w = F(gelu_tanh_factor)(f, &w_lo, &v, &v_lo);
    real lo, hi = F(times_factor)(f, w, w_lo, &lo);
    real n, t = F(reduce_sum)(-hi, -lo, &n);
    real y = F(over_one_plus)(f, t, F(scale_times_pow2)(n));
    return x > F(gelu_tanh_high) ? x : y;
}

SCALAR real F(gelu_tanh_derivative)(real x)
{
    real a = F(at_most)(F(absolute)(x), -F(gelu_tanh_low));
    real w_lo, v, v_lo, w = F(gelu_tanh_factor)(a, &w_lo, &v, &v_lo);
    real lo, hi = F(times_factor)(a, w, w_lo, &lo);
    real n, t = F(reduce_sum)(hi, lo, &n);
    real h = FMA(-a, v, (real)1);
    h = h + FMA(-a, v_lo, FMA(-a, v, 1 - h));
    real y = F(swish_slope)(x, a * v, h, t, F(scale_times_pow2)(n));
    real d = (x - F(gelu_tanh_zero)) - F(gelu_tanh_zero_lo);
    return F(absolute)(d) < (real)0.625 ? d * HORNER(d, gelu_tanh_slope) : y;
}

/* x Phi(x), from the tail Phi(-|x|), near 0 from Phi(x) - 1/2 */
SCALAR real F(gelu_erf)(real x)
{
    real a = F(at_most)(F(absolute)(x), F(gelu_erf_end));
    real m_lo, m = F(mills)(a, &m_lo), g = a * m;
    real scale, tail = F(normal_tail)(a, g, FMA(a, m_lo, FMA(a, m, -g)), &scale);
    tail = tail * scale;
    real y = x > 0 ? x - tail : -tail;
    return a < (real)0.5 ? x * FMA(x, HORNER(a * a, phi_small), (real)0.5) : y;
}

/* Phi(x) + x phi(x), from the tail */
SCALAR real F(gelu_erf_derivative)(real x)
{
    real a = F(at_most)(F(absolute)(x), F(gelu_erf_end));
    real m_lo, m = F(mills)(a, &m_lo), g = a * F(phi0);
    real g_lo = FMA(a, F(phi0_lo), FMA(a, F(phi0), -g));
    real q = m - g;
    real q_lo = (m - (q + g)) + (m_lo - g_lo);
    real scale, tail = F(normal_tail)(a, q, q_lo, &scale);
    tail = tail * scale;
    real y = x > 0 ? 1 - tail : tail;
    real w = (x - F(gelu_erf_zero)) - F(gelu_erf_zero_lo);
    y = F(absolute)(w - (real)0.125) < (real)0.725 ? w * HORNER(w, gelu_erf_slope) : y;
    return x == 0 ? (real)0.5 : y;
}

#undef HORNER
#undef QUARTER
#undef THREE_QUARTERS
