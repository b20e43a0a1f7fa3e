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

/* t with exp(x) = 2^n (1 + t). */
SCALAR real F(reduce)(real x, real *n)
{
    real m = FMA(x, F(log2e), F(magic)) - F(magic);
    real r = FMA(-m, F(ln2_lo), FMA(-m, F(ln2_hi), x));
    *n = m;
    return FMA(r * r, HORNER(r, q), r);
}

/* t with exp(hi + lo) = 2^n (1 + t). */
SCALAR real F(reduce_sum)(real hi, real lo, real *n)
{
    real m = FMA(hi, F(log2e), F(magic)) - F(magic);
    real r = FMA(-m, F(ln2_hi), hi) + FMA(-m, F(ln2_lo), lo);
    *n = m;
    return FMA(r * r, HORNER(r, q), r);
}

/* f/(1 + E) with E = 2^n (1 + t). */
SCALAR real F(over_one_plus)(real f, real t, real n)
{
    real s = F(pow2)(n, QUARTER), d = F(pow2)(n, -THREE_QUARTERS);
    real top = s + d;
    real rest = d - (top - s);
    return f / (top + FMA(t, s, rest)) * d;
}

/* (d + s (1 + t))^2, the sum in two words. */
SCALAR real F(squared_sum)(real t, real s, real d)
{
    real top = s + d;
    real w = FMA(t, s, top);
    real rest = FMA(t, s, top - w) + (d - (top - s));
    return FMA(w, w, (w + w) * rest);
}

/* (1 + E h)/(1 + E)^2, E as above: the slope of x sigmoid(z(x)), h = 1 + x z'(x). */
SCALAR real F(slope_over)(real h, real t, real n)
{
    real s = F(pow2)(n, QUARTER), d = F(pow2)(n, -THREE_QUARTERS);
    real e = FMA(t, s, s);
    real rest = FMA(t, s, s - e);
    return FMA(e, h, FMA(rest, h, d)) / F(squared_sum)(t, s, d) * d;
}

/* slope_over of h + h_lo. */
SCALAR real F(slope_over_sum)(real h, real h_lo, real t, real n)
{
    real s = F(pow2)(n, QUARTER), d = F(pow2)(n, -THREE_QUARTERS);
    real e = FMA(t, s, s);
    real rest = FMA(t, s, s - e);
    return FMA(e, h, FMA(rest, h, FMA(e, h_lo, d))) / F(squared_sum)(t, s, d) * d;
}

/* scale sigmoid(a) (1 - sigmoid(a)) = scale E/(1 + E)^2, E = exp(a), a >= 0 in range. */
SCALAR real F(logistic_bump)(real a, real scale)
{
    real n, t = F(reduce)(a, &n);
    real s = F(pow2)(n, QUARTER), d = F(pow2)(n, -THREE_QUARTERS);
    real e = s * scale;
    return FMA(t, e, e) / F(squared_sum)(t, s, d) * d;
}

/* 1.702 x in two words. */
SCALAR real F(gelu_argument)(real x, real *lo)
{
    real hi = x * F(gelu_k_hi);
    *lo = FMA(x, F(gelu_k_lo), FMA(x, F(gelu_k_hi), -hi));
    return hi;
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
    real s = 1 / b;
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
    real n, t = F(reduce)(F(at_most)(F(at_least)(x, F(exp_low)), F(exp_high)), &n);
    real s = F(pow2)(n, THREE_QUARTERS);
    return FMA(t, s, s) * F(pow2)(n, QUARTER);
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
    real n, t = F(reduce)(-F(at_most)(F(at_least)(x, F(sigmoid_low)), F(sigmoid_high)), &n);
    return F(over_one_plus)(1, t, n);
}

SCALAR real F(sigmoid_derivative)(real x)
{
    return F(logistic_bump)(F(at_most)(F(absolute)(x), -F(sigmoid_low)), 1);
}

/* 1 - 2/(1 + exp(2|x|)), near 0 a polynomial */
SCALAR real F(tanh)(real x)
{
    real a = F(at_most)(F(absolute)(x), F(tanh_end));
    real n, t = F(reduce)(a + a, &n);
    real s = F(pow2)(n, 1);
    real y = 1 - 2 / FMA(t, s, s + 1);
    y = x < 0 ? -y : y;
    real h = x * x;
    return a < (real)0.63 ? x * FMA(h, HORNER(h, tanh_small), (real)1) : y;
}

SCALAR real F(tanh_derivative)(real x)
{
    real a = F(at_most)(F(absolute)(x), (real)-0.5 * F(sigmoid_low));
    return F(logistic_bump)(a + a, 4);
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
    real n, t = F(reduce)(-F(at_most)(f, F(sigmoid_high)), &n);
    return F(over_one_plus)(f, t, n);
}

SCALAR real F(silu_derivative)(real x)
{
    real z = F(at_most)(F(at_least)(x, F(sigmoid_low)), F(sigmoid_high));
    real n, t = F(reduce)(-z, &n);
    real y = F(slope_over)(1 + z, t, n);
    real w = (z - F(silu_zero)) - F(silu_zero_lo);
    return F(absolute)(w) < (real)0.5 ? w * HORNER(w, silu_slope) : y;
}

/* x sigmoid(1.702 x) */
SCALAR real F(gelu)(real x)
{
    real f = F(at_least)(x, F(gelu_low));
    real lo, hi = F(gelu_argument)(F(at_most)(f, F(gelu_high)), &lo);
    real n, t = F(reduce_sum)(-hi, -lo, &n);
    return F(over_one_plus)(f, t, n);
}

SCALAR real F(gelu_derivative)(real x)
{
    real f = F(at_most)(F(at_least)(x, F(gelu_low)), F(gelu_high));
    real lo, hi = F(gelu_argument)(f, &lo);
    real n, t = F(reduce_sum)(-hi, -lo, &n);
    real y = F(slope_over)(FMA(f, F(gelu_k_hi), (real)1), t, n);
    real w = (hi - F(silu_zero)) + (lo - F(silu_zero_lo));
    return F(absolute)(w) < (real)0.5 ? w * HORNER(w, silu_slope) : y;
}

/* x/2 (1 + tanh(u)) = x sigmoid(2u) */
SCALAR real F(gelu_tanh)(real x)
{
    real f = F(at_least)(x, F(gelu_tanh_low)), z = F(at_most)(f, F(gelu_tanh_high));
    real w_lo, v, v_lo, w = F(gelu_tanh_factor)(z, &w_lo, &v, &v_lo);
    real lo, hi = F(times_factor)(z, w, w_lo, &lo);
    real n, t = F(reduce_sum)(-hi, -lo, &n);
    return F(over_one_plus)(f, t, n);
}

SCALAR real F(gelu_tanh_derivative)(real x)
{
    real f = F(at_most)(F(at_least)(x, F(gelu_tanh_low)), F(gelu_tanh_high));
    real w_lo, v, v_lo, w = F(gelu_tanh_factor)(f, &w_lo, &v, &v_lo);
    real lo, hi = F(times_factor)(f, w, w_lo, &lo);
    real n, t = F(reduce_sum)(-hi, -lo, &n);
    real h = FMA(f, v, (real)1);
    real y = F(slope_over_sum)(h, FMA(f, v_lo, FMA(f, v, 1 - h)), t, n);
    real d = (f - F(gelu_tanh_zero)) - F(gelu_tanh_zero_lo);
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
