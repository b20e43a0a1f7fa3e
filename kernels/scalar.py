"""Scalar functions that every kernel builds on, for float32 and float64; no branches, no calls.

Each is written once, inside `define`, in terms of the constants of one dtype; the twin
is csrc/scalar.h, operation for operation, so that the bits agree. Polynomials are minimax
fits of our own (Remez exchange in 50 digits, relative error); all literals are typed, for
Numba takes a bare 2 or 0.5 as 64-bit and widens the whole expression.

exp(x) = 2^n (1 + t), n = round(x / ln 2), t = expm1(r) = r + r^2 Q(r), |r| <= ln(2)/2.
Arguments that were multiplied (1.702 x, x^2/2) come in two words, hi + lo: one word of
float32 would leave 25 ulp in the tails. 2^n goes in last, in two factors, so that results
in the subnormal range are rounded once.
"""

from types import SimpleNamespace

import numpy as np

from loopnest.kernels.jit import by_dtype, scalar
from loopnest.kernels.simd import bits_of, float_of, fma, horner, select

FLOAT32 = SimpleNamespace(
    real=np.float32,
    bits=np.int32,
    mantissa_bits=23,
    magic=1.5 * 2.0**23,  # adding it rounds to an integer
    exponent_magic=2.0**23 + 127,  # adding it puts n + bias into the low bits
    log2e=1.442695e00,
    ln2=(6.931472e-01, -1.9046542e-09),
    gelu_k=(1.702e00, -2.193451e-08),  # the decimal 1.702 in two words
    tanh_c1=(1.5957692e00, -4.534068e-08),  # 2 sqrt(2/pi)
    tanh_c3=(7.1354814e-02, 2.3988325e-09),  # 0.044715 times that
    tanh_c3x3=2.1406445e-01,
    phi0=3.989423e-01,  # 1/sqrt(2 pi)
    # Q on |r| <= 0.3473, relative error 1.3e-7 (of exp: 8e-9)
    q=(5.0e-01, 1.6666576e-01, 4.1666854e-02, 8.363261e-03, 1.3901339e-03),
    # (a + 4) erfcx(a/sqrt 2)/2 as a polynomial in (a - 4)/(a + 4), 0 <= a <= 15, 9e-9
    erfcx=(7.5528514e-01, -6.0789657e-01, 3.871369e-01, -1.8652366e-01, 6.040349e-02)
    + (-7.524004e-03, -3.510212e-03, 1.5684079e-03, 1.7466042e-04, -1.341956e-04),
    # (Phi(x) - 1/2)/x in x^2, |x| <= 1/2, relative error 8.6e-9
    phi_small=(3.989423e-01, -6.648994e-02, 9.96483e-03, -1.1311086e-03),
    # (log((1 + s)/(1 - s)) - 2s)/s^3 in s^2, s <= 3 - 2 sqrt 2, relative error 2.7e-9 of log
    log=(6.6666687e-01, 3.9988717e-01, 2.9582587e-01),
    sqrt_half=0.70710677,
    # where each function has reached its limit
    exp_low=-105.0,
    exp_high=89.0,
    tanh_end=10.0,
    silu_end=120.0,
    gelu_end=70.0,
    gelu_tanh_end=12.0,
    gelu_erf_end=15.0,
)

FLOAT64 = SimpleNamespace(
    real=np.float64,
    bits=np.int64,
    mantissa_bits=52,
    magic=1.5 * 2.0**52,
    exponent_magic=2.0**52 + 1023,
    log2e=1.4426950408889634,
    ln2=(0.6931471805599453, 2.3190468138462996e-17),
    gelu_k=(1.702, 4.263256414560601e-17),
    tanh_c1=(1.5957691216057308, -9.96930880911092e-17),
    tanh_c3=(0.07135481627260025, -6.175149918155315e-19),
    tanh_c3x3=0.21406444881780073,
    phi0=0.3989422804014327,
    # relative error 2.1e-16 (of exp: 1.3e-17)
    q=(0.5000000000000001, 0.16666666666666644, 0.041666666666623664, 0.00833333333335654)
    + (0.0013888888917461492, 0.00019841269784042704, 2.4801520894323147e-05)
    + (2.7557355760093055e-06, 2.762028527217723e-07, 2.5068237761638294e-08),
    # 0 <= a <= 40, relative error 2.1e-17
    erfcx=(0.7552851304157515, -0.6078966419718921, 0.3871374007422197, -0.1865218579596636)
    + (0.06039657489065381, -0.007540188966493371, -0.0034796923613647775)
    + (0.0016308184541487009, 0.0001333442461965294, -0.00023109491095412297)
    + (-1.907831546934212e-06, 3.514460635448414e-05, 7.149372829872551e-07)
    + (-5.920128820565385e-06, -6.251636260565301e-07, 1.0220964805293101e-06)
    + (2.6411001345340233e-07, -1.568917702697577e-07, -7.72371268241219e-08)
    + (1.6279675402239237e-08, 1.4681932378554431e-08, -4.0240380602339925e-10)
    + (-1.2257244874171324e-09,),
    # relative error 8.0e-21, before rounding
    phi_small=(0.3989422804014327, -0.06649038006690544, 0.009973557010035598)
    + (-0.0011873282154714858, 0.00011543468743184123, -9.444654129892108e-06)
    + (6.659548796874147e-07, -4.116923145198312e-08, 2.1499416448639738e-09),
    # relative error 4.5e-18 of log
    log=(0.666666666666667, 0.3999999999989794, 0.2857142862666583, 0.22222211024622043)
    + (0.18182897004075005, 0.15331463785027824, 0.14619593948936563),
    sqrt_half=0.7071067811865476,
    exp_low=-746.0,
    exp_high=710.0,
    tanh_end=20.0,
    silu_end=760.0,
    gelu_end=450.0,
    gelu_tanh_end=24.0,
    gelu_erf_end=40.0,
)


def define(c):
    """The functions in the dtype whose constants are ``c``."""
    real, bits = c.real, c.bits
    ZERO, HALF, ONE, TWO, FOUR = real(0), real(0.5), real(1), real(2), real(4)
    MANTISSA_BITS = bits(c.mantissa_bits)
    MAGIC, EXPONENT_MAGIC = real(c.magic), real(c.exponent_magic)
    LOG2E, LN2_HI, LN2_LO = real(c.log2e), real(c.ln2[0]), real(c.ln2[1])
    K_HI, K_LO = real(c.gelu_k[0]), real(c.gelu_k[1])
    C1_HI, C1_LO = real(c.tanh_c1[0]), real(c.tanh_c1[1])
    C3_HI, C3_LO, C3X3 = real(c.tanh_c3[0]), real(c.tanh_c3[1]), real(c.tanh_c3x3)
    PHI0, SQRT_HALF, INF = real(c.phi0), real(c.sqrt_half), real(np.inf)
    Q = tuple(real(v) for v in c.q)
    PHI_SMALL = tuple(real(v) for v in c.phi_small)
    LOG = tuple(real(v) for v in c.log)
    ERFCX = tuple(real(v) for v in c.erfcx)
    EXP_LOW, EXP_HIGH, TANH_END = real(c.exp_low), real(c.exp_high), real(c.tanh_end)
    SILU_END, GELU_END = real(c.silu_end), real(c.gelu_end)
    GELU_TANH_END, GELU_ERF_END = real(c.gelu_tanh_end), real(c.gelu_erf_end)

    # ---- building blocks ----

    @scalar
    def clamp(x, low, high):
        """x within [low, high]; NaN stays NaN."""
        y = select(x < low, low, x)
        return select(y > high, high, y)

    @scalar
    def pow2(n):
        """2^n for a whole n in the exponent range."""
        return float_of(bits(bits_of(n + EXPONENT_MAGIC) << MANTISSA_BITS))

    @scalar
    def halves(n):
        """Two factors whose product is 2^n, also where 2^n itself is subnormal or infinite."""
        first = fma(n, HALF, MAGIC) - MAGIC
        return pow2(first), pow2(n - first)

    @scalar
    def reduce(hi, lo):
        """(t, n) with exp(hi + lo) = 2^n (1 + t)."""
        n = fma(hi, LOG2E, MAGIC) - MAGIC
        r = fma(-n, LN2_LO, fma(-n, LN2_HI, hi)) + lo
        return fma(r * r, horner(r, Q), r), n

    @scalar
    def decay(zh, zl):
        """exp(-|z|) as (p, pl, s1, s2): (p + pl) s1 s2, z = zh + zl."""
        positive = zh > ZERO
        t, n = reduce(select(positive, -zh, zh), select(positive, -zl, zl))
        p = ONE + t
        s1, s2 = halves(n)
        return p, t - (p - ONE), s1, s2

    @scalar
    def times_sigmoid(f, zh, zl):
        """f sigmoid(z), z = zh + zl: with e = exp(-|z|), f/(1 + e) or f e/(1 + e).

        The sum, the quotient and the products are all carried in two words.
        """
        p, pl, s1, s2 = decay(zh, zl)
        e = p * s1 * s2
        d = ONE + e
        dl = (e - (d - ONE)) + pl * s1 * s2
        r = ONE / d
        rl = r * (fma(-d, r, ONE) - dl * r)
        negative = zh < ZERO
        m = select(negative, p, ONE)
        g = f * m
        gl = fma(f, m, -g) + f * select(negative, pl, ZERO)
        y = fma(g, r, fma(gl, r, g * rl))
        return y * select(negative, s1, ONE) * select(negative, s2, ONE)

    @scalar
    def sigmoid_slope(zh, zl, g):
        """s (1 + g (1 - s)) with s = sigmoid(z): the slope of x sigmoid(z(x)), g = x z'(x).

        With e = exp(-|z|): (1 + e + g e)/(1 + e)^2 for z >= 0, e (1 + e + g)/(1 + e)^2 else.
        """
        p, pl, s1, s2 = decay(zh, zl)
        e = p * s1 * s2
        d = ONE + e
        dl = (e - (d - ONE)) + pl * s1 * s2
        r = ONE / d
        negative = zh < ZERO
        top = select(negative, (d + g) + (dl + zl), fma(g, e, d))
        y = top * select(negative, p, ONE) * r * r
        return y * select(negative, s1, ONE) * select(negative, s2, ONE)

    @scalar
    def logistic_bump(z):
        """sigmoid(z) (1 - sigmoid(z)) = e/(1 + e)^2."""
        p, pl, s1, s2 = decay(z, ZERO)
        r = ONE / (ONE + p * s1 * s2)
        return p * r * r * s1 * s2

    @scalar
    def gelu_argument(x):
        """1.702 x in two words, x within the range where the sigmoid has not ended."""
        hi = x * K_HI
        return hi, fma(x, K_HI, -hi) + x * K_LO

    @scalar
    def gelu_tanh_argument(x):
        """2 sqrt(2/pi) (x + 0.044715 x^3) in two words."""
        xx = x * x
        a = C3_HI * xx
        a_lo = fma(C3_HI, xx, -a) + fma(C3_HI, fma(x, x, -xx), C3_LO * xx)
        w = C1_HI + a
        b = w - C1_HI  # Knuth's TwoSum: w + (rest) = C1_HI + a exactly
        w_lo = (C1_HI - (w - b)) + (a - b) + (a_lo + C1_LO)
        hi = x * w
        return hi, fma(x, w, -hi) + x * w_lo

    @scalar
    def mills(a):
        """Phi(-a)/exp(-a^2/2) for 0 <= a: half the scaled complementary error function."""
        s = ONE / (a + FOUR)
        return horner((a - FOUR) * s, ERFCX) * s

    # ---- functions and slopes ----

    @scalar
    def exp(x):
        t, n = reduce(clamp(x, EXP_LOW, EXP_HIGH), ZERO)
        s1, s2 = halves(n)
        return (ONE + t) * s1 * s2

    @scalar
    def log(x):
        """Natural logarithm of a positive normal number (a row's sum), infinity or NaN.

        x = 2^n m with m in [sqrt(1/2), sqrt 2), s = (m - 1)/(m + 1): n ln 2 + 2 atanh(s).
        """
        whole = bits_of(x) - bits_of(SQRT_HALF) >> MANTISSA_BITS
        n = real(whole)
        f = float_of(bits(bits_of(x) - (whole << MANTISSA_BITS))) - ONE
        s = f / (f + TWO)
        ss = s * s
        y = fma(n, LN2_HI, fma(n, LN2_LO, fma(s * ss, horner(ss, LOG), s + s)))
        return select(x < INF, y, x)

    @scalar
    def sigmoid(x):
        return times_sigmoid(ONE, clamp(x, -SILU_END, SILU_END), ZERO)

    @scalar
    def sigmoid_derivative(x):
        return logistic_bump(clamp(x, -SILU_END, SILU_END))

    @scalar
    def tanh(x):
        """-m/(m + 2) with m = expm1(-2|x|) = 2^n t + (2^n - 1)."""
        a = clamp(abs(x), ZERO, TANH_END)
        t, n = reduce(-(a + a), ZERO)
        s = pow2(n)
        m = fma(s, t, s - ONE)
        y = -m / (m + TWO)
        return select(x == ZERO, x, select(x < ZERO, -y, y))

    @scalar
    def tanh_derivative(x):
        a = clamp(x, -HALF * SILU_END, HALF * SILU_END)
        return FOUR * logistic_bump(a + a)

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
        f = clamp(x, -SILU_END, SILU_END)
        y = times_sigmoid(f, f, ZERO)
        return select((x == ZERO) | (x > SILU_END), x, y)

    @scalar
    def silu_derivative(x):
        z = clamp(x, -SILU_END, SILU_END)
        return sigmoid_slope(z, ZERO, z)

    @scalar
    def gelu(x):
        """x sigmoid(1.702 x)"""
        f = clamp(x, -GELU_END, GELU_END)
        hi, lo = gelu_argument(f)
        y = times_sigmoid(f, hi, lo)
        return select((x == ZERO) | (x > GELU_END), x, y)

    @scalar
    def gelu_derivative(x):
        hi, lo = gelu_argument(clamp(x, -GELU_END, GELU_END))
        return sigmoid_slope(hi, lo, hi)

    @scalar
    def gelu_tanh(x):
        """x/2 (1 + tanh(u)) = x sigmoid(2u)"""
        f = clamp(x, -GELU_TANH_END, GELU_TANH_END)
        hi, lo = gelu_tanh_argument(f)
        y = times_sigmoid(f, hi, lo)
        return select((x == ZERO) | (x > GELU_TANH_END), x, y)

    @scalar
    def gelu_tanh_derivative(x):
        f = clamp(x, -GELU_TANH_END, GELU_TANH_END)
        hi, lo = gelu_tanh_argument(f)
        return sigmoid_slope(hi, lo, f * fma(C3X3, f * f, C1_HI))

    @scalar
    def gelu_erf(x):
        """x Phi(x), from the tail Phi(-|x|), near 0 from Phi(x) - 1/2"""
        a = clamp(abs(x), ZERO, GELU_ERF_END)
        h = a * a
        t, n = reduce(-HALF * h, -HALF * fma(a, a, -h))
        s1, s2 = halves(n)
        m = mills(a)
        tail = a * fma(m, t, m) * s1 * s2
        y = select(x > ZERO, x - tail, -tail)
        y = select(a < HALF, x * fma(x, horner(h, PHI_SMALL), HALF), y)
        return select(x == ZERO, x, y)

    @scalar
    def gelu_erf_derivative(x):
        """Phi(x) + x phi(x), from the tail"""
        a = clamp(abs(x), ZERO, GELU_ERF_END)
        h = a * a
        t, n = reduce(-HALF * h, -HALF * fma(a, a, -h))
        s1, s2 = halves(n)
        m = fma(-a, PHI0, mills(a))
        tail = fma(m, t, m) * s1 * s2
        return select(x > ZERO, ONE - tail, tail)

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


exp = _both("exp")
log = _both("log")
sigmoid = _both("sigmoid")
tanh = _both("tanh")
relu = _both("relu")
leaky_relu = _both("leaky_relu")
silu = _both("silu")
gelu = _both("gelu")
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
