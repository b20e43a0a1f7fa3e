"""Scalar functions that every kernel builds on, for float32 and float64; no branches, no calls.

Each is written once, inside `define`, in terms of the constants of one dtype
(scalar_constants.py); the twin is csrc/scalar.h, operation for operation, so that the bits agree.
Polynomials are minimax fits of our own (Remez exchange in 50 digits, relative error); all literals
are typed, for Numba takes a bare 2 or 0.5 as 64-bit and widens the whole expression.

They take numbers and, for kernels, `Lanes` of 16 of them (simd_lanes.py) in a number's place.

exp(x) = 2^n 2^r, n = round(x log2(e)), r within 1/2, from log2(e) in two words; 1.702 x goes the
same way. Arguments that are no multiple of x come in two words, hi + lo: one word of float32 would
leave 25 ulp in the tails. 2^n goes in last, so that results in the subnormal range are rounded once.

A sigmoid is f/(1 + E), E = exp(-z) = 2^n (1 + t). Its numerator and denominator times SCALE, 2^-40,
neither overflow nor end before f E does. A vector's division takes a core 16 cycles, a dozen
multiply-adds 6: so the reciprocal starts from the bits of the denominator, which gives it to 5%, one
step of Halley's leaves 1.3e-4, and the quotient q is put right by what f - q d is, d in two
words. The bits are those of these operations on every machine (those of its own
reciprocal instructions would not be), and `quotient` is more exact than a division by a rounded sum.

Slopes that cross zero are w P(w) near the crossing, w the distance to it in two words.
"""

from types import SimpleNamespace

import numpy as np

from loopnest.kernels.jit import by_dtype, inlined_overload, scalar
from loopnest.kernels.scalar_constants import FLOAT32, FLOAT64
from loopnest.kernels.simd import (
    copysign,
    fma,
    horner,
    less_least_normal,
    reciprocal_seed,
    scalef,
    select,
    shifted_to_exponent,
    split_exponent,
)
from loopnest.kernels.simd_lanes import Lanes, has_scalef


def define(c):
    """The functions in the dtype whose constants are ``c``."""
    real = c.real
    ZERO, HALF, ONE, TWO, FOUR = real(0), real(0.5), real(1), real(2), real(4)
    QUARTER, THREE_QUARTERS = real(0.25), real(0.75)
    MAGIC, EXPONENT_MAGIC = real(c.magic), real(c.exponent_magic)
    SCALED_MAGIC, SCALE = real(c.scaled_magic), real(c.scale)
    LOG2E, LOG2E_LO = real(c.log2e[0]), real(c.log2e[1])
    LN2_HI, LN2_LO = real(c.ln2[0]), real(c.ln2[1])
    K_LOG2E, K_LOG2E_LO = real(c.gelu_k_log2e[0]), real(c.gelu_k_log2e[1])
    POWER = tuple(real(v) for v in c.power)
    K_HI, K_LO = real(c.gelu_k[0]), real(c.gelu_k[1])
    C1_HI, C1_LO = real(c.tanh_c1[0]), real(c.tanh_c1[1])
    C3_HI, C3_LO = real(c.tanh_c3[0]), real(c.tanh_c3[1])
    PHI0, PHI0_LO = real(c.phi0[0]), real(c.phi0[1])
    SQRT_HALF, INF = real(c.sqrt_half), real(np.inf)
    SMALL_SUM = real(c.small_sum)
    SILU_ZERO = real(c.silu_zero)
    SILU_SLOPE_ZERO, GELU_SLOPE_ZERO = real(c.silu_slope_zero[0]), real(c.silu_slope_zero[1])
    GELU_TANH_ZERO, GELU_TANH_ZERO_LO = real(c.gelu_tanh_zero[0]), real(c.gelu_tanh_zero[1])
    GELU_ERF_ZERO, GELU_ERF_ZERO_LO = real(c.gelu_erf_zero[0]), real(c.gelu_erf_zero[1])
    GELU_TANH_NEAR = real(0.625)
    GELU_ERF_MIDDLE, GELU_ERF_NEAR = real(0.125), real(0.725)
    Q = tuple(real(v) for v in c.q)
    Q2 = tuple(real(v * 2.0 ** (k + 1)) for k, v in enumerate(c.q))  # 2 Q(2r)
    PHI_SMALL = tuple(real(v) for v in c.phi_small)
    LOG = tuple(real(v) for v in c.log)
    ERFCX = tuple(real(v) for v in c.erfcx)
    SILU_SLOPE = tuple(real(v) for v in c.silu_slope)
    GELU_TANH_SLOPE = tuple(real(v) for v in c.gelu_tanh_slope)
    GELU_ERF_SLOPE = tuple(real(v) for v in c.gelu_erf_slope)
    EXP_LOW, EXP_HIGH, TANH_END = real(c.exp_low), real(c.exp_high), real(c.tanh_end)
    SIGMOID_LOW, SIGMOID_HIGH = real(c.sigmoid_low), real(c.sigmoid_high)
    SILU_SUBNORMAL = real(c.silu_subnormal)
    GELU_LOW, GELU_HIGH = real(c.gelu_low), real(c.gelu_high)
    GELU_SUBNORMAL, LEAST_NORMAL = real(c.gelu_subnormal), real(c.least_normal)
    GELU_TANH_LOW, GELU_TANH_HIGH = real(c.gelu_tanh_low), real(c.gelu_tanh_high)
    GELU_ERF_END = real(c.gelu_erf_end)

    # ---- building blocks ----

    @scalar
    def at_least(x, low):
        """The larger; NaN stays NaN."""
        return select(x < low, low, x)

    @scalar
    def at_most(x, high):
        """The smaller; NaN stays NaN."""
        return select(x > high, high, x)

    @scalar
    def pow2(n, share):
        """2 to the power of n * share, rounded to a whole number in the exponent range."""
        return shifted_to_exponent(fma(n, share, EXPONENT_MAGIC))

    @scalar
    def by_two_factors(x, n):
        return x * pow2(n, THREE_QUARTERS) * pow2(n, QUARTER)

    def times_pow2(x, n):
        raise TypeError("for compiled code")

    @inlined_overload(times_pow2)
    def pick_times_pow2(x, n):
        """x 2^n, rounded once where it is subnormal; x near 1."""
        if isinstance(x, Lanes) and has_scalef:
            return lambda x, n: scalef(x, n)
        return by_two_factors.py_func

    @scalar
    def reduce_sum(hi, lo):
        """(t, n) with exp(hi + lo) = 2^n (1 + t)."""
        n = fma(hi, LOG2E, MAGIC) - MAGIC
        r = fma(-n, LN2_HI, hi) + fma(-n, LN2_LO, lo)
        return fma(r * r, horner(r, Q), r), n

    @scalar
    def nearer(y, d):
        """1/d from y near it: Halley's step, with e = 1 - d y the error is e^3."""
        e = fma(-d, y, ONE)
        return fma(y, fma(e, e, e), y)

    if real is np.float32:

        @scalar
        def near_reciprocal(d):
            """1/d to 1.3e-4."""
            return nearer(reciprocal_seed(d), d)
    else:

        @scalar
        def near_reciprocal(d):
            """1/d to 2.2e-12."""
            return nearer(nearer(reciprocal_seed(d), d), d)

    @scalar
    def power_of(x, hi, lo):
        """(t, s) with 2^(x (hi + lo)) = 2^n (1 + t), s = SCALE 2^n."""
        m = fma(x, hi, SCALED_MAGIC)
        r = fma(x, lo, fma(x, hi, -(m - SCALED_MAGIC)))
        return r * horner(r, POWER), shifted_to_exponent(m)

    @scalar
    def quotient(f, more, less, y):
        """f/(more + less) with y near the reciprocal of the sum, of which it loses nothing."""
        q = f * y
        rest = fma(q, less, fma(q, more, -f))  # of opposite sign, so that -0 stays -0
        return fma(rest, -y, q)

    @scalar
    def large_over_one_plus(f, t, s):
        """f/(1 + E)/SCALE with SCALE E = s (1 + t)."""
        more, less = at_least(s, SCALE), fma(s, t, at_most(s, SCALE))
        return quotient(f, more, less, near_reciprocal(more + less))

    @scalar
    def over_one_plus(f, t, s):
        return large_over_one_plus(f, t, s) * SCALE

    @scalar
    def negative_times_scale(q, subnormal):
        """q SCALE, rounded once; where it is ``subnormal``, q is negative.

        Arithmetic with a subnormal result takes a CPU a hundred times as long as other. Next to the
        least normal number, numbers are as far apart as subnormal ones.
        """
        y = fma(q, SCALE, select(subnormal, -LEAST_NORMAL, -ZERO))
        return select(subnormal, less_least_normal(y), y)

    @scalar
    def sigmoid_tail(t, s):
        """1/(1 + E)/SCALE, E as above, but at least 1."""
        less = fma(s, t, SCALE)
        return quotient(ONE, s, less, near_reciprocal(s + less))

    @scalar
    def logistic_bump(x, hi, lo, scale):
        """scale sigmoid(z) (1 - sigmoid(z)) with 2^(x (hi + lo)) = exp(z) at least 1."""
        t, s = power_of(x, hi, lo)
        q = sigmoid_tail(t, s)
        y = q * (SCALE * scale)
        return fma(-y, q * SCALE, y)

    @scalar
    def swish_slope(x, xz, h, t, s):
        """Slope of x sigmoid(z(x)), z odd, from E = exp(|z|); xz = |x| z'(|x|), h = 1 - xz.

        With q = sigmoid(-|z|) it is q (h + q xz) for negative x, one less that for positive.
        """
        q = sigmoid_tail(t, s)
        y = q * fma(xz, q * SCALE, h) * SCALE
        return select(x < ZERO, y, ONE - y)

    @scalar
    def reciprocal(d):
        """1/d, a few times 1e-8 (1e-16) off."""
        y = near_reciprocal(d)
        return fma(y, fma(-d, y, ONE), y)

    @scalar
    def gelu_tanh_factor(x):
        """(w, w_lo, v, v_lo): w + w_lo = c1 + c3 x^2, v + v_lo = c1 + 3 c3 x^2."""
        xx = x * x
        a = C3_HI * xx
        a_lo = fma(C3_HI, xx, -a) + fma(C3_HI, fma(x, x, -xx), C3_LO * xx)
        w = C1_HI + a
        b = w - C1_HI  # Knuth's TwoSum: w + (rest) = C1_HI + a exactly
        w_lo = (C1_HI - (w - b)) + (a - b) + (a_lo + C1_LO)
        more = fma(TWO, a, fma(TWO, a_lo, w_lo))
        v = w + more
        return w, w_lo, v, (w - v) + more

    @scalar
    def times_factor(x, w, w_lo):
        """x (w + w_lo) in two words."""
        hi = x * w
        return hi, fma(x, w_lo, fma(x, w, -hi))

    @scalar
    def mills(a):
        """Phi(-a)/exp(-a^2/2) for 0 <= a, half the scaled complementary erf, in two words."""
        b = a + FOUR
        s = reciprocal(b)
        s_lo = fma(-b, s, ONE) * s + ((b - FOUR) - a) * s * s  # what both roundings took
        p = horner((a - FOUR) * s, ERFCX)
        m = p * s
        return m, fma(p, s_lo, fma(p, s, -m))

    @scalar
    def normal_tail(a, m, m_lo):
        """(m + m_lo) exp(-a^2/2), 0 <= a, but for a factor that is the second result."""
        h = a * a
        t, n = reduce_sum(-HALF * h, -HALF * fma(a, a, -h))
        return (m + fma(m, t, m_lo)) * pow2(n, THREE_QUARTERS), pow2(n, QUARTER)

    # ---- functions and slopes ----

    @scalar
    def exp(x):
        x = at_most(at_least(x, EXP_LOW), EXP_HIGH)
        n = fma(x, LOG2E, MAGIC) - MAGIC
        r = fma(x, LOG2E_LO, fma(x, LOG2E, -n))
        return times_pow2(fma(r, horner(r, POWER), ONE), n)

    @scalar
    def share_of(q, v):
        """q v for shares q and logarithms v.

        A class without a share does not count: 0 times -inf is -0, as 0 times another logarithm is.
        """
        return select(q == ZERO, select(v == -INF, -ZERO, q * v), q * v)

    @scalar
    def log(x):
        """Natural logarithm of a positive normal number (a row's sum), infinity or NaN.

        x = 2^n m with m in [sqrt(1/2), sqrt 2), s = (m - 1)/(m + 1): n ln 2 + 2 atanh(s).
        """
        n, m = split_exponent(x, SQRT_HALF)
        f = m - ONE
        s = f / (f + TWO)
        ss = s * s
        y = fma(n, LN2_HI, fma(n, LN2_LO, fma(s * ss, horner(ss, LOG), s + s)))
        return select(x < INF, y, x)

    @scalar
    def log_one_plus(x):
        """log(1 + x) for x from 0 to 0.4, relatively as exact as x is."""
        s = x / (x + TWO)
        ss = s * s
        return fma(s * ss, horner(ss, LOG), s + s)

    @scalar
    def is_small_sum(total):
        """Whether `log_one_plus` of the others serves for the log of a sum of 1 and others."""
        return total < SMALL_SUM

    @scalar
    def sigmoid(x):
        t, s = power_of(at_most(at_least(x, SIGMOID_LOW), SIGMOID_HIGH), -LOG2E, -LOG2E_LO)
        return over_one_plus(ONE, t, s)

    @scalar
    def sigmoid_derivative(x):
        return logistic_bump(at_most(abs(x), -SIGMOID_LOW), LOG2E, LOG2E_LO, ONE)

    @scalar
    def tanh(x):
        """h/(h + 1) with h = expm1(2|x|)/2, the sign of x."""
        a = at_most(abs(x), TANH_END)
        m = fma(a, TWO * LOG2E, EXPONENT_MAGIC)
        n, s = m - EXPONENT_MAGIC, shifted_to_exponent(m)
        r = fma(-n, HALF * LN2_HI, a)
        t = fma(r * r, horner(r, Q2), n * (-HALF * LN2_LO))  # expm1(2 r)/2 is r + t
        h = fma(s, t, fma(s, r, fma(s, HALF, -HALF)))
        y = near_reciprocal(h + ONE)
        q = h * y
        rest = fma(q, h, q - h)  # q (h + 1) - h
        return copysign(fma(rest, -y, q), x)

    @scalar
    def tanh_derivative(x):
        a = at_most(abs(x), -HALF * SIGMOID_LOW)
        return logistic_bump(a, TWO * LOG2E, TWO * LOG2E_LO, FOUR)

    @scalar
    def relu(x):
        return select(x <= ZERO, ZERO, x)

    @scalar
    def relu_backward(dy, x):
        return select(x <= ZERO, ZERO, dy)

    @scalar
    def leaky_relu(x, slope):
        return select(x > ZERO, x, x * slope)

    @scalar
    def leaky_relu_backward(dy, x, slope):
        return select(x > ZERO, dy, dy * slope)

    @scalar
    def silu(x):
        f = at_least(x, SIGMOID_LOW)
        t, s = power_of(f, -LOG2E, -LOG2E_LO)
        return select(x > SIGMOID_HIGH, x, over_one_plus(f, t, s))

    @scalar
    def silu_wide(x):
        """The same bits, as fast where the result is subnormal (and a fifth slower elsewhere)."""
        f = at_most(at_least(x, SIGMOID_LOW), SIGMOID_HIGH)
        t, s = power_of(f, -LOG2E, -LOG2E_LO)
        y = negative_times_scale(large_over_one_plus(f, t, s), x < SILU_SUBNORMAL)
        return select(x > SIGMOID_HIGH, x, y)

    @scalar
    def near_silu_zero(w, slope_zero, y):
        """The slope at w = z - SILU_ZERO from its polynomial, or y where that does not hold."""
        return select(abs(w) < QUARTER, fma(w, horner(w, SILU_SLOPE), slope_zero), y)

    @scalar
    def silu_derivative(x):
        a = at_most(abs(x), -SIGMOID_LOW)
        t, s = power_of(a, LOG2E, LOG2E_LO)
        y = swish_slope(x, a, ONE - a, t, s)
        return near_silu_zero(x - SILU_ZERO, SILU_SLOPE_ZERO, y)

    @scalar
    def gelu(x):
        """x sigmoid(1.702 x)"""
        f = at_least(x, GELU_LOW)
        t, s = power_of(f, -K_LOG2E, -K_LOG2E_LO)
        return select(x > GELU_HIGH, x, over_one_plus(f, t, s))

    @scalar
    def gelu_wide(x):
        """The same bits, as fast where the result is subnormal."""
        f = at_most(at_least(x, GELU_LOW), GELU_HIGH)
        t, s = power_of(f, -K_LOG2E, -K_LOG2E_LO)
        y = negative_times_scale(large_over_one_plus(f, t, s), x < GELU_SUBNORMAL)
        return select(x > GELU_HIGH, x, y)

    @scalar
    def gelu_derivative(x):
        a = at_most(abs(x), -GELU_LOW)
        t, s = power_of(a, K_LOG2E, K_LOG2E_LO)
        y = swish_slope(x, a * K_HI, fma(-a, K_HI, ONE), t, s)
        return near_silu_zero(fma(x, K_HI, -SILU_ZERO), GELU_SLOPE_ZERO, y)

    @scalar
    def gelu_tanh(x):
        """x/2 (1 + tanh(u)) = x sigmoid(2u)"""
        f = at_least(x, GELU_TANH_LOW)
        w, w_lo, _, _ = gelu_tanh_factor(f)
        hi, lo = times_factor(f, w, w_lo)
        t, n = reduce_sum(-hi, -lo)
        y = over_one_plus(f, t, shifted_to_exponent(n + SCALED_MAGIC))
        return select(x > GELU_TANH_HIGH, x, y)

    @scalar
    def gelu_tanh_derivative(x):
        a = at_most(abs(x), -GELU_TANH_LOW)
        w, w_lo, v, v_lo = gelu_tanh_factor(a)
        hi, lo = times_factor(a, w, w_lo)
        t, n = reduce_sum(hi, lo)
        h = fma(-a, v, ONE)
        h = h + fma(-a, v_lo, fma(-a, v, ONE - h))
        y = swish_slope(x, a * v, h, t, shifted_to_exponent(n + SCALED_MAGIC))
        d = (x - GELU_TANH_ZERO) - GELU_TANH_ZERO_LO
        return select(abs(d) < GELU_TANH_NEAR, d * horner(d, GELU_TANH_SLOPE), y)

    @scalar
    def gelu_erf(x):
        """x Phi(x), from the tail Phi(-|x|), near 0 from Phi(x) - 1/2"""
        a = at_most(abs(x), GELU_ERF_END)
        m, m_lo = mills(a)
        g = a * m
        tail, scale = normal_tail(a, g, fma(a, m_lo, fma(a, m, -g)))
        tail = tail * scale
        y = select(x > ZERO, x - tail, -tail)
        return select(a < HALF, x * fma(x, horner(a * a, PHI_SMALL), HALF), y)

    @scalar
    def gelu_erf_derivative(x):
        """Phi(x) + x phi(x), from the tail"""
        a = at_most(abs(x), GELU_ERF_END)
        m, m_lo = mills(a)
        g = a * PHI0
        g_lo = fma(a, PHI0_LO, fma(a, PHI0, -g))
        q = m - g
        q_lo = (m - (q + g)) + (m_lo - g_lo)
        tail, scale = normal_tail(a, q, q_lo)
        tail = tail * scale
        y = select(x > ZERO, ONE - tail, tail)
        w = (x - GELU_ERF_ZERO) - GELU_ERF_ZERO_LO
        y = select(abs(w - GELU_ERF_MIDDLE) < GELU_ERF_NEAR, w * horner(w, GELU_ERF_SLOPE), y)
        return select(x == ZERO, HALF, y)

    def times_slope(derivative):
        """dy times the slope at x."""

        @scalar
        def backward(dy, x):
            return dy * derivative(x)

        return backward

    exp_backward = times_slope(exp)
    sigmoid_backward = times_slope(sigmoid_derivative)
    tanh_backward = times_slope(tanh_derivative)
    silu_backward = times_slope(silu_derivative)
    gelu_backward = times_slope(gelu_derivative)
    gelu_tanh_backward = times_slope(gelu_tanh_derivative)
    gelu_erf_backward = times_slope(gelu_erf_derivative)

    return SimpleNamespace(**{k: v for k, v in locals().items() if hasattr(v, "py_func")})


_F32, _F64 = define(FLOAT32), define(FLOAT64)


def _both(name):
    return by_dtype(getattr(_F32, name), getattr(_F64, name))


reciprocal = _both("reciprocal")
exp = _both("exp")
log = _both("log")
log_one_plus = _both("log_one_plus")
is_small_sum = _both("is_small_sum")
share_of = _both("share_of")
sigmoid = _both("sigmoid")
tanh = _both("tanh")
relu = _both("relu")
leaky_relu = _both("leaky_relu")
silu = _both("silu")
silu_wide = _both("silu_wide")
gelu = _both("gelu")
gelu_wide = _both("gelu_wide")
gelu_tanh = _both("gelu_tanh")
gelu_erf = _both("gelu_erf")
exp_backward = _both("exp_backward")
sigmoid_backward = _both("sigmoid_backward")
tanh_backward = _both("tanh_backward")
relu_backward = _both("relu_backward")
leaky_relu_backward = _both("leaky_relu_backward")
silu_backward = _both("silu_backward")
gelu_backward = _both("gelu_backward")
gelu_tanh_backward = _both("gelu_tanh_backward")
gelu_erf_backward = _both("gelu_erf_backward")
sigmoid_derivative = _both("sigmoid_derivative")
tanh_derivative = _both("tanh_derivative")
silu_derivative = _both("silu_derivative")
gelu_derivative = _both("gelu_derivative")
gelu_tanh_derivative = _both("gelu_tanh_derivative")
gelu_erf_derivative = _both("gelu_erf_derivative")
