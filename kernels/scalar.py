"""Scalar functions that every kernel builds on, for float32 and float64; no branches, no calls.

Each is written once, inside `define`, in terms of the constants of one dtype; the twin
is csrc/scalar.h, operation for operation, so that the bits agree. Polynomials are minimax
fits of our own (Remez exchange in 50 digits, relative error); all literals are typed, for
Numba takes a bare 2 or 0.5 as 64-bit and widens the whole expression.

They take numbers and, for kernels, `Lanes` of 16 of them (simd_lanes.py) in a number's place.

exp(x) = 2^n (1 + t), n = round(x / ln 2), t = expm1(r) = r + r^2 Q(r), |r| <= ln(2)/2.
Arguments that were multiplied (1.702 x, x^2/2) come in two words, hi + lo: one word of
float32 would leave 25 ulp in the tails. 2^n goes in last, in two factors, so that results
in the subnormal range are rounded once. A sigmoid is f/(1 + E) with E = exp(-z), numerator and
denominator times 2^(-3n/4): so neither overflows, and no sign of z needs a case of its own.
Slopes that cross zero are w P(w) near the crossing, w the distance to it in two words.
"""

from types import SimpleNamespace

import numpy as np

from loopnest.kernels.jit import by_dtype, inlined_overload, scalar
from loopnest.kernels.simd import (
    copysign,
    fma,
    horner,
    reciprocal_seed,
    scalef,
    select,
    shifted_to_exponent,
    split_exponent,
)
from loopnest.kernels.simd_lanes import Lanes, has_scalef

FLOAT32 = SimpleNamespace(
    real=np.float32,
    magic=1.5 * 2.0**23,  # adding it rounds to an integer
    exponent_magic=1.5 * 2.0**23 + 127,  # adding it puts n + bias into the low bits
    scaled_magic=1.5 * 2.0**23 + 127 - 40,  # puts n - 40 + bias there
    scale=2.0**-40,
    log2e=(1.442695e00, 1.925963e-08),
    ln2=(6.931472e-01, -1.9046542e-09),
    gelu_k=(1.702e00, -2.193451e-08),  # the decimal 1.702 in two words
    gelu_k_log2e=(2.455467e00, -2.6109499e-08),
    # (2^r - 1)/r, |r| <= 1/2, relative error of 2^r 2.6e-9
    power=(0.69314722, 0.24022653, 0.055503106, 0.009617693, 0.0013406644, 0.00015594677),
    tanh_c1=(1.5957692e00, -4.534068e-08),  # 2 sqrt(2/pi)
    tanh_c3=(7.1354814e-02, 2.3988325e-09),  # 0.044715 times that
    phi0=(3.989423e-01, -1.133517e-08),  # 1/sqrt(2 pi)
    # Q on |r| <= 0.3473, relative error 1.3e-7 (of exp: 8e-9)
    q=(5.0e-01, 1.6666576e-01, 4.1666854e-02, 8.363261e-03, 1.3901339e-03),
    # (a + 4) erfcx(a/sqrt 2)/2 as a polynomial in (a - 4)/(a + 4), 0 <= a <= 15, 9e-9
    erfcx=(7.5528514e-01, -6.0789657e-01, 3.871369e-01, -1.8652366e-01, 6.040349e-02)
    + (-7.524004e-03, -3.510212e-03, 1.5684079e-03, 1.7466042e-04, -1.341956e-04),
    # (Phi(x) - 1/2)/x in x^2, |x| <= 1/2, relative error 8.6e-9
    phi_small=(3.989423e-01, -6.648994e-02, 9.96483e-03, -1.1311086e-03),
    # (log((1 + s)/(1 - s)) - 2s)/s^3 in s^2, s <= 3 - 2 sqrt 2, relative error 2.7e-9 of log
    log=(6.6666687e-01, 3.9988717e-01, 2.9582587e-01),
    # (tanh(x) - x)/x^3 in x^2, |x| <= 0.63, relative error 1.4e-7 (of tanh: 2e-8)
    tanh_small=(-3.3333328e-01, 1.3332736e-01, -5.3845823e-02, 2.0973234e-02, -6.062148e-03),
    # where the slope of x sigmoid(x) is 0; the slope there, for x and for 1.702 x; less that,
    # over w = x - silu_zero, |w| <= 1/4, 3e-8
    silu_zero=-1.2784646,
    silu_slope_zero=(-2.8270397e-09, 7.616695e-10),
    silu_slope=(0.21781172, 0.1466488, 0.018873068, -0.015223057, -0.0065319985, 0.00014384245),
    # the same for the tanh form of GELU, |w| <= 5/8, 5e-10
    gelu_tanh_zero=(-7.5246143e-01, 1.1339628e-08),
    gelu_tanh_slope=(4.304001e-01, 3.8751844e-01, -1.5782855e-02, -1.1394434e-01)
    + (-1.661926e-02, 1.9680185e-02, 5.260072e-03, -2.41009e-03, -9.2157815e-04)
    + (2.30345e-04, 1.0874221e-04),
    # the same for x Phi(x), -0.6 <= w <= 0.85, 5e-9
    gelu_erf_zero=(-7.5179154e-01, 1.211445e-08),
    gelu_erf_slope=(4.31494e-01, 3.8828495e-01, -1.819969e-02, -1.1400763e-01, -1.4771129e-02)
    + (1.9416953e-02, 4.536159e-03, -2.22447e-03, -7.3497853e-04, 1.6513834e-04, 7.21093e-05),
    sqrt_half=0.70710677,
    # where each function has reached its limit
    exp_low=-105.0,
    exp_high=89.0,
    tanh_end=10.0,
    sigmoid_low=-108.8,
    sigmoid_high=30.0,
    gelu_low=-63.95,
    gelu_high=18.0,
    gelu_tanh_low=-10.9,
    gelu_tanh_high=6.0,
    gelu_erf_end=15.0,
)

FLOAT64 = SimpleNamespace(
    real=np.float64,
    magic=1.5 * 2.0**52,
    exponent_magic=1.5 * 2.0**52 + 1023,
    scaled_magic=1.5 * 2.0**52 + 1023 - 100,
    scale=2.0**-100,
    log2e=(1.4426950408889634, 2.0355273740931033e-17),
    ln2=(0.6931471805599453, 2.3190468138462996e-17),
    gelu_k=(1.702, 4.263256414560601e-17),
    gelu_k_log2e=(2.4554669595930156, 7.816541847237075e-17),
    # relative error 1.8e-17
    power=(0.6931471805599457, 0.24022650695910098, 0.0555041086647904, 0.009618129107607003)
    + (0.001333355815343997, 0.0001540353044157185, 1.525272738518978e-05)
    + (1.3215442675452855e-06, 1.0180647660573069e-07, 7.0725703945408e-09)
    + (4.0780717860928704e-10,),
    tanh_c1=(1.5957691216057308, -9.96930880911092e-17),
    tanh_c3=(0.07135481627260025, -6.175149918155315e-19),
    phi0=(0.3989422804014327, -2.49232720227773e-17),
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
    # relative error 5e-19
    tanh_small=(-0.3333333333333333, 0.1333333333333332, -0.05396825396823275)
    + (0.021869488534974113, -0.008863235495662057, 0.0035921274442678127)
    + (-0.0014558277875939337, 0.0005899779307331993, -0.00023887304169216485)
    + (9.599544477439188e-05, -3.7000688791700405e-05, 1.212876418174637e-05)
    + (-2.4030435460377534e-06,),
    # relative error 2e-19
    silu_zero=-1.2784645427610737,
    silu_slope_zero=(2.3843834755243115e-17, 1.6868712850696507e-17),
    silu_slope=(0.2178117057198001, 0.1466487969969469, 0.018874814223782378)
    + (-0.015222655223188018, -0.006606589138373429, 0.00012662741007778936)
    + (0.0007985218834466932, 0.00018570724393212546, -4.09054158750973e-05)
    + (-2.9733556880109773e-05, -2.940905252487355e-06, 2.3463749857869384e-06)
    + (8.398336188897549e-07, -3.4557842798071035e-08),
    # relative error 1e-20
    gelu_tanh_zero=(-0.7524614220710163, 3.635560509207687e-17),
    gelu_tanh_slope=(0.4304000910248585, 0.38751844613578895, -0.01578285352184803)
    + (-0.11394448308095899, -0.01661932834305254, 0.019682309459833115)
    + (0.005261059254920764, -0.0024227318458750107, -0.0009274420229921384)
    + (0.0002639276405246704, 0.00012425227761107875, -3.495617166317814e-05)
    + (-1.5950893016414696e-05, 5.918611421150815e-06, 2.433528023693102e-06)
    + (-9.898630038532474e-07, -4.3092802112356276e-07, 1.4156833057312612e-07)
    + (7.494358137751969e-08, -1.6958580694208197e-08, -1.1500111758795e-08)
    + (1.7296919575303604e-09, 1.2663410609745163e-09, -1.3611666184982165e-10),
    # relative error 2.6e-19
    gelu_erf_zero=(-0.7517915246935645, 1.4956759177009883e-17),
    gelu_erf_slope=(0.4314939923140469, 0.388284982990552, -0.0181996763986711)
    + (-0.1140082332972217, -0.014771522148243541, 0.01942167983818918)
    + (0.004539228379108192, -0.0022395380680759326, -0.0007448268384836506)
    + (0.0001863397462593602, 8.615947737428236e-05, -1.1214380363527385e-05)
    + (-7.748456309183773e-06, 4.328457707966572e-07, 5.702635076190363e-07)
    + (-1.6062700603368233e-09, -3.5438114634768105e-08, -1.3938481293559583e-09)
    + (1.8804526423407187e-09, 1.41816234632064e-10, -7.586760843462438e-11)
    + (-7.98839812719462e-12,),
    sqrt_half=0.7071067811865476,
    exp_low=-746.0,
    exp_high=710.0,
    tanh_end=20.0,
    sigmoid_low=-760.0,
    sigmoid_high=50.0,
    gelu_low=-450.0,
    gelu_high=30.0,
    gelu_tanh_low=-21.7,
    gelu_tanh_high=9.0,
    gelu_erf_end=40.0,
)


def define(c):
    """The functions in the dtype whose constants are ``c``."""
    real = c.real
    ZERO, HALF, ONE, TWO, FOUR = real(0), real(0.5), real(1), real(2), real(4)
    QUARTER, THREE_QUARTERS = real(0.25), real(0.75)
    MAGIC, EXPONENT_MAGIC = real(c.magic), real(c.exponent_magic)
    SCALED_MAGIC, SCALE, UNSCALE = real(c.scaled_magic), real(c.scale), real(1 / c.scale)
    LOG2E, LOG2E_LO = real(c.log2e[0]), real(c.log2e[1])
    LN2_HI, LN2_LO = real(c.ln2[0]), real(c.ln2[1])
    K_LOG2E, K_LOG2E_LO = real(c.gelu_k_log2e[0]), real(c.gelu_k_log2e[1])
    POWER = tuple(real(v) for v in c.power)
    K_HI, K_LO = real(c.gelu_k[0]), real(c.gelu_k[1])
    C1_HI, C1_LO = real(c.tanh_c1[0]), real(c.tanh_c1[1])
    C3_HI, C3_LO = real(c.tanh_c3[0]), real(c.tanh_c3[1])
    PHI0, PHI0_LO = real(c.phi0[0]), real(c.phi0[1])
    SQRT_HALF, INF = real(c.sqrt_half), real(np.inf)
    SILU_ZERO = real(c.silu_zero)
    SILU_SLOPE_ZERO, GELU_SLOPE_ZERO = real(c.silu_slope_zero[0]), real(c.silu_slope_zero[1])
    GELU_TANH_ZERO, GELU_TANH_ZERO_LO = real(c.gelu_tanh_zero[0]), real(c.gelu_tanh_zero[1])
    GELU_ERF_ZERO, GELU_ERF_ZERO_LO = real(c.gelu_erf_zero[0]), real(c.gelu_erf_zero[1])
    TANH_SMALL_END, GELU_TANH_NEAR = real(0.63), real(0.625)
    GELU_ERF_MIDDLE, GELU_ERF_NEAR = real(0.125), real(0.725)
    Q = tuple(real(v) for v in c.q)
    Q2 = tuple(real(v * 2.0 ** (k + 1)) for k, v in enumerate(c.q))  # 2 Q(2r)
    PHI_SMALL = tuple(real(v) for v in c.phi_small)
    LOG = tuple(real(v) for v in c.log)
    ERFCX = tuple(real(v) for v in c.erfcx)
    TANH_SMALL = tuple(real(v) for v in c.tanh_small)
    SILU_SLOPE = tuple(real(v) for v in c.silu_slope)
    GELU_TANH_SLOPE = tuple(real(v) for v in c.gelu_tanh_slope)
    GELU_ERF_SLOPE = tuple(real(v) for v in c.gelu_erf_slope)
    EXP_LOW, EXP_HIGH, TANH_END = real(c.exp_low), real(c.exp_high), real(c.tanh_end)
    SIGMOID_LOW, SIGMOID_HIGH = real(c.sigmoid_low), real(c.sigmoid_high)
    GELU_LOW, GELU_HIGH = real(c.gelu_low), real(c.gelu_high)
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
    def reduce(x):
        """(t, n) with exp(x) = 2^n (1 + t)."""
        n = fma(x, LOG2E, MAGIC) - MAGIC
        r = fma(-n, LN2_LO, fma(-n, LN2_HI, x))
        return fma(r * r, horner(r, Q), r), n

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
    def over_one_plus(f, t, s):
        """f/(1 + E) with SCALE E = s (1 + t)."""
        more, less = at_least(s, SCALE), fma(s, t, at_most(s, SCALE))
        return quotient(f, more, less, near_reciprocal(more + less)) * SCALE

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
    def gelu_argument(x):
        """1.702 x in two words, x within the range where the sigmoid has not ended."""
        hi = x * K_HI
        return hi, fma(x, K_LO, fma(x, K_HI, -hi))

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
