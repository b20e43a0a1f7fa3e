/* scalar_functions.h: the functions of scalar.h, for a `value`: a number of type `real`, or a
 * vector of them where vector_functions.h has said so. Names and order are those of
 * kernels/scalar.py. F(name) is a constant, N(name) a function; operators, FMA,
 * FROM and REPEAT take a number in a vector's place. */

/* ---- building blocks ---- */

#ifndef VALUES_ARE_VECTORS
#define value real
#define N(name) F(name)
#define REPEAT(number) (number)
#define FROM(c, a, b) FMA(-(a), b, c) /* c - a*b */
#define SELECT(a, relation, b, yes, no) ((a) relation (b) ? (yes) : (no))
#define LESS <
#define LESS_EQUAL <=
#define EQUAL ==
#define TIMES_POW2(x, n) F(times_pow2)(x, n)

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

SCALAR real F(absolute)(real x)
{
    return sizeof(real) == 4 ? (real)fabsf((float)x) : (real)fabs((double)x);
}

SCALAR real F(with_sign)(real size, real sign)
{
    return sizeof(real) == 4 ? (real)copysignf((float)size, (float)sign)
                             : (real)copysign((double)size, (double)sign);
}

/* The larger; NaN stays NaN. */
SCALAR real F(at_least)(real x, real low) { return x < low ? low : x; }

/* The smaller; NaN stays NaN. */
SCALAR real F(at_most)(real x, real high) { return x > high ? high : x; }
#endif

#define QUARTER ((real)0.25)
#define THREE_QUARTERS ((real)0.75)

/* Polynomial with `count` coefficients, lowest power first. */
SCALAR value N(horner)(value x, const real *coefficients, int count)
{
    value y = REPEAT(coefficients[count - 1]);
#pragma GCC unroll 32
    for (int i = count - 2; i >= 0; i--) y = FMA(y, x, coefficients[i]);
    return y;
}
#define HORNER(x, table) N(horner)(x, F(table), (int)(sizeof F(table) / sizeof F(table)[0]))

/* 2 to the power of n * share, rounded to a whole number in the exponent range. */
SCALAR value N(pow2)(value n, real share)
{
    return N(float_of)(N(bits_of)(FMA(n, share, F(exponent_magic))) << MANTISSA_BITS);
}

/* t with exp(hi + lo) = 2^n (1 + t). */
SCALAR value N(reduce_sum)(value hi, value lo, value *n)
{
    value m = FMA(hi, F(log2e), F(magic)) - F(magic);
    value r = FMA(-m, F(ln2_hi), hi) + FMA(-m, F(ln2_lo), lo);
    *n = m;
    return FMA(r * r, HORNER(r, q), r);
}

/* x 2^n, rounded once where it is subnormal; x near 1. */
SCALAR value N(times_pow2)(value x, value n)
{
    return x * N(pow2)(n, THREE_QUARTERS) * N(pow2)(n, QUARTER);
}

/* 1/d from y near it: with e = 1 - d y the error is e^3. */
SCALAR value N(nearer)(value y, value d)
{
    value e = FROM((real)1, d, y);
    return FMA(y, FMA(e, e, e), y);
}

/* 1/d to 1.3e-4, double to 2.2e-12; d positive and normal, 1/d too. */
SCALAR value N(near_reciprocal)(value d)
{
    value y = N(nearer)(N(float_of)(F(reciprocal_bits) - N(bits_of)(d)), d);
    return sizeof(real) == 4 ? y : N(nearer)(y, d);
}

/* t and s with 2^(x (hi + lo)) = 2^n (1 + t), s = scale 2^n. */
SCALAR value N(power_of)(value x, real hi, real lo, value *s)
{
    value m = FMA(x, hi, F(scaled_magic));
    value r = FMA(x, lo, FMA(x, hi, -(m - F(scaled_magic))));
    *s = N(float_of)(N(bits_of)(m) << MANTISSA_BITS);
    return r * HORNER(r, power);
}

SCALAR value N(scale_times_pow2)(value n)
{
    return N(float_of)(N(bits_of)(n + F(scaled_magic)) << MANTISSA_BITS);
}

/* f/(more + less) with y near the reciprocal of the sum, of which it loses nothing. */
SCALAR value N(quotient)(value f, value more, value less, value y)
{
    value q = f * y;
    value rest = FMA(q, less, FMA(q, more, -f)); /* of opposite sign, so that -0 stays -0 */
    return FMA(rest, -y, q);
}

/* f/(1 + E)/scale with scale E = s (1 + t). */
SCALAR value N(large_over_one_plus)(value f, value t, value s)
{
    value more = N(at_least)(s, F(scale)), less = FMA(s, t, N(at_most)(s, F(scale)));
    return N(quotient)(f, more, less, N(near_reciprocal)(more + less));
}

SCALAR value N(over_one_plus)(value f, value t, value s)
{
    return N(large_over_one_plus)(f, t, s) * F(scale);
}

/* q scale, rounded once; where that is subnormal, for x below `low`, q is negative. Arithmetic with a subnormal result
 * takes a CPU a hundred times as long as other. Next to the least normal number, numbers are as far
 * apart as subnormal ones, and bits make the difference. */
SCALAR value N(negative_times_scale)(value q, value x, real low)
{
    value y = FMA(q, F(scale), SELECT(x, LESS, low, -F(least_normal), (real)-0.0));
    value less = N(float_of)(N(bits_of)(y) & ~((bits)1 << MANTISSA_BITS));
    return SELECT(x, LESS, low, less, y);
}

/* 1/(1 + E)/scale, E as above, but at least 1. */
SCALAR value N(sigmoid_tail)(value t, value s)
{
    value less = FMA(s, t, F(scale));
    return N(quotient)(REPEAT((real)1), s, less, N(near_reciprocal)(s + less));
}

/* k sigmoid(z) (1 - sigmoid(z)) with 2^(x (hi + lo)) = exp(z) at least 1. */
SCALAR value N(logistic_bump)(value x, real hi, real lo, real k)
{
    value s, t = N(power_of)(x, hi, lo, &s);
    value q = N(sigmoid_tail)(t, s);
    value y = q * (F(scale) * k);
    return FMA(-y, q * F(scale), y);
}

/* Slope of x sigmoid(z(x)), z odd, from E = exp(|z|); xz = |x| z'(|x|), h = 1 - xz. */
SCALAR value N(swish_slope)(value x, value xz, value h, value t, value s)
{
    value q = N(sigmoid_tail)(t, s);
    value y = q * FMA(xz, q * F(scale), h) * F(scale);
    return SELECT(x, LESS, (real)0, y, (real)1 - y);
}

/* The slope at w = z - silu_zero from its polynomial, or y where that does not hold. */
SCALAR value N(near_silu_zero)(value w, real slope_zero, value y)
{
    value near = FMA(w, HORNER(w, silu_slope), slope_zero);
    return SELECT(N(absolute)(w), LESS, QUARTER, near, y);
}

/* 1/d, a few times 1e-8 (1e-16) off. */
SCALAR value N(reciprocal)(value d)
{
    value y = N(near_reciprocal)(d);
    return FMA(y, FROM((real)1, d, y), y);
}

/* w + w_lo = c1 + c3 x^2 and v + v_lo = c1 + 3 c3 x^2 with c1 = 2 sqrt(2/pi); returns w. */
SCALAR value N(gelu_tanh_factor)(value x, value *w_lo, value *v, value *v_lo)
{
    value xx = x * x;
    value a = F(tanh_c3_hi) * xx;
    value a_lo = FMA(F(tanh_c3_hi), xx, -a) + FMA(F(tanh_c3_hi), FMA(x, x, -xx), F(tanh_c3_lo) * xx);
    value w = F(tanh_c1_hi) + a;
    value b = w - F(tanh_c1_hi); /* Knuth's TwoSum */
    *w_lo = (F(tanh_c1_hi) - (w - b)) + (a - b) + (a_lo + F(tanh_c1_lo));
    value more = FMA((real)2, a, FMA((real)2, a_lo, *w_lo));
    *v = w + more;
    *v_lo = (w - *v) + more;
    return w;
}

/* x (w + w_lo) in two words. */
SCALAR value N(times_factor)(value x, value w, value w_lo, value *lo)
{
    value hi = x * w;
    *lo = FMA(x, w_lo, FMA(x, w, -hi));
    return hi;
}

/* Phi(-a)/exp(-a^2/2) for 0 <= a, in two words. */
SCALAR value N(mills)(value a, value *lo)
{
    value b = a + 4;
    value s = N(reciprocal)(b);
    value s_lo = FMA(-b, s, (real)1) * s + ((b - 4) - a) * s * s; /* what both roundings took */
    value p = HORNER((a - 4) * s, erfcx);
    value m = p * s;
    *lo = FMA(p, s_lo, FMA(p, s, -m));
    return m;
}

/* (m + m_lo) exp(-a^2/2), 0 <= a, but for the factor `scale`. */
SCALAR value N(normal_tail)(value a, value m, value m_lo, value *scale)
{
    value h = a * a;
    value n, t = N(reduce_sum)((real)-0.5 * h, (real)-0.5 * FMA(a, a, -h), &n);
    *scale = N(pow2)(n, QUARTER);
    return (m + FMA(m, t, m_lo)) * N(pow2)(n, THREE_QUARTERS);
}

/* ---- functions and slopes ---- */

SCALAR value N(exp)(value x)
{
    x = N(at_most)(N(at_least)(x, F(exp_low)), F(exp_high));
    value n = FMA(x, F(log2e), F(magic)) - F(magic);
    value r = FMA(x, F(log2e_lo), FMA(x, F(log2e), -n));
    return TIMES_POW2(FMA(r, HORNER(r, power), (real)1), n);
}

SCALAR value N(exp_derivative)(value x) { return N(exp)(x); }

#ifndef VALUES_ARE_VECTORS
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

/* log(1 + x) for x from 0 to 0.4, relatively as exact as x is. */
SCALAR real F(log_one_plus)(real x)
{
    real s = x / (x + 2);
    real ss = s * s;
    return FMA(s * ss, HORNER(ss, log_table), s + s);
}
#endif

SCALAR value N(sigmoid)(value x)
{
    x = N(at_most)(N(at_least)(x, F(sigmoid_low)), F(sigmoid_high));
    value s, t = N(power_of)(x, -F(log2e), -F(log2e_lo), &s);
    return N(over_one_plus)(REPEAT((real)1), t, s);
}

SCALAR value N(sigmoid_derivative)(value x)
{
    value a = N(at_most)(N(absolute)(x), -F(sigmoid_low));
    return N(logistic_bump)(a, F(log2e), F(log2e_lo), 1);
}

/* h/(h + 1) with h = expm1(2|x|)/2, the sign of x. */
SCALAR value N(tanh)(value x)
{
    const real half = (real)0.5;
    value a = N(at_most)(N(absolute)(x), F(tanh_end));
    value m = FMA(a, 2 * F(log2e), F(exponent_magic));
    value n = m - F(exponent_magic), s = N(float_of)(N(bits_of)(m) << MANTISSA_BITS);
    value r = FMA(-n, half * F(ln2_hi), a);
    value t = FMA(r * r, HORNER(r, q2), n * (-half * F(ln2_lo))); /* expm1(2 r)/2 is r + t */
    value h = FMA(s, t, FMA(s, r, FMA(s, half, -half)));
    value y = N(near_reciprocal)(h + 1);
    value q = h * y;
    value rest = FMA(q, h, q - h); /* q (h + 1) - h */
    return N(with_sign)(FMA(rest, -y, q), x);
}

SCALAR value N(tanh_derivative)(value x)
{
    value a = N(at_most)(N(absolute)(x), (real)-0.5 * F(sigmoid_low));
    return N(logistic_bump)(a, 2 * F(log2e), 2 * F(log2e_lo), 4);
}

SCALAR value N(relu)(value x) { return SELECT(x, LESS_EQUAL, (real)0, (real)0, x); }

SCALAR value N(relu_backward)(value dy, value x) { return SELECT(x, LESS_EQUAL, (real)0, (real)0, dy); }

SCALAR value N(leaky_relu)(value x, real slope)
{
    return SELECT((real)0, LESS, x, x, x * slope);
}

SCALAR value N(leaky_relu_backward)(value dy, value x, real slope)
{
    return SELECT((real)0, LESS, x, dy, dy * slope);
}

SCALAR value N(silu)(value x)
{
    value f = N(at_least)(x, F(sigmoid_low));
    value s, t = N(power_of)(f, -F(log2e), -F(log2e_lo), &s);
    value y = N(over_one_plus)(f, t, s);
    return SELECT(F(sigmoid_high), LESS, x, x, y);
}

/* The same bits, as fast where the result is subnormal (and a fifth slower elsewhere). */
SCALAR value N(silu_wide)(value x)
{
    value f = N(at_most)(N(at_least)(x, F(sigmoid_low)), F(sigmoid_high));
    value s, t = N(power_of)(f, -F(log2e), -F(log2e_lo), &s);
    value y = N(negative_times_scale)(N(large_over_one_plus)(f, t, s), x, F(silu_subnormal));
    return SELECT(F(sigmoid_high), LESS, x, x, y);
}

SCALAR value N(silu_derivative)(value x)
{
    value a = N(at_most)(N(absolute)(x), -F(sigmoid_low));
    value s, t = N(power_of)(a, F(log2e), F(log2e_lo), &s);
    value y = N(swish_slope)(x, a, (real)1 - a, t, s);
    return N(near_silu_zero)(x - F(silu_zero), F(silu_slope_zero), y);
}

/* x sigmoid(1.702 x) */
SCALAR value N(gelu)(value x)
{
    value f = N(at_least)(x, F(gelu_low));
    value s, t = N(power_of)(f, -F(gelu_k_log2e), -F(gelu_k_log2e_lo), &s);
    value y = N(over_one_plus)(f, t, s);
    return SELECT(F(gelu_high), LESS, x, x, y);
}

/* The same bits, as fast where the result is subnormal. */
SCALAR value N(gelu_wide)(value x)
{
    value f = N(at_most)(N(at_least)(x, F(gelu_low)), F(gelu_high));
    value s, t = N(power_of)(f, -F(gelu_k_log2e), -F(gelu_k_log2e_lo), &s);
    value y = N(negative_times_scale)(N(large_over_one_plus)(f, t, s), x, F(gelu_subnormal));
    return SELECT(F(gelu_high), LESS, x, x, y);
}

SCALAR value N(gelu_derivative)(value x)
{
    value a = N(at_most)(N(absolute)(x), -F(gelu_low));
    value s, t = N(power_of)(a, F(gelu_k_log2e), F(gelu_k_log2e_lo), &s);
    value y = N(swish_slope)(x, a * F(gelu_k), FMA(-a, F(gelu_k), (real)1), t, s);
    return N(near_silu_zero)(FMA(x, F(gelu_k), -F(silu_zero)), F(gelu_slope_zero), y);
}

/* x/2 (1 + tanh(u)) = x sigmoid(2u) */
SCALAR value N(gelu_tanh)(value x)
{
    value f = N(at_least)(x, F(gelu_tanh_low));
    value w_lo, v, v_lo, w = N(gelu_tanh_factor)(f, &w_lo, &v, &v_lo);
    value lo, hi = N(times_factor)(f, w, w_lo, &lo);
    value n, t = N(reduce_sum)(-hi, -lo, &n);
    value y = N(over_one_plus)(f, t, N(scale_times_pow2)(n));
    return SELECT(F(gelu_tanh_high), LESS, x, x, y);
}

SCALAR value N(gelu_tanh_derivative)(value x)
{
    value a = N(at_most)(N(absolute)(x), -F(gelu_tanh_low));
    value w_lo, v, v_lo, w = N(gelu_tanh_factor)(a, &w_lo, &v, &v_lo);
    value lo, hi = N(times_factor)(a, w, w_lo, &lo);
    value n, t = N(reduce_sum)(hi, lo, &n);
    value h = FMA(-a, v, (real)1);
    h = h + FMA(-a, v_lo, FMA(-a, v, (real)1 - h));
    value y = N(swish_slope)(x, a * v, h, t, N(scale_times_pow2)(n));
    value d = (x - F(gelu_tanh_zero)) - F(gelu_tanh_zero_lo);
    return SELECT(N(absolute)(d), LESS, (real)0.625, d * HORNER(d, gelu_tanh_slope), y);
}

/* x Phi(x), from the tail Phi(-|x|), near 0 from Phi(x) - 1/2 */
SCALAR value N(gelu_erf)(value x)
{
    value a = N(at_most)(N(absolute)(x), F(gelu_erf_end));
    value m_lo, m = N(mills)(a, &m_lo), g = a * m;
    value scale, tail = N(normal_tail)(a, g, FMA(a, m_lo, FMA(a, m, -g)), &scale);
    tail = tail * scale;
    value y = SELECT((real)0, LESS, x, x - tail, -tail);
    value near = x * FMA(x, HORNER(a * a, phi_small), (real)0.5);
    return SELECT(a, LESS, (real)0.5, near, y);
}

/* Phi(x) + x phi(x), from the tail */
SCALAR value N(gelu_erf_derivative)(value x)
{
    value a = N(at_most)(N(absolute)(x), F(gelu_erf_end));
    value m_lo, m = N(mills)(a, &m_lo), g = a * F(phi0);
    value g_lo = FMA(a, F(phi0_lo), FMA(a, F(phi0), -g));
    value q = m - g;
    value q_lo = (m - (q + g)) + (m_lo - g_lo);
    value scale, tail = N(normal_tail)(a, q, q_lo, &scale);
    tail = tail * scale;
    value y = SELECT((real)0, LESS, x, (real)1 - tail, tail);
    value w = (x - F(gelu_erf_zero)) - F(gelu_erf_zero_lo);
    value near = w * HORNER(w, gelu_erf_slope);
    y = SELECT(N(absolute)(w - (real)0.125), LESS, (real)0.725, near, y);
    return SELECT(x, EQUAL, (real)0, (real)0.5, y);
}

#undef HORNER
#undef QUARTER
#undef THREE_QUARTERS
#undef value
#undef N
#undef REPEAT
#undef FROM
#undef SELECT
#undef LESS
#undef LESS_EQUAL
#undef EQUAL
#undef TIMES_POW2
