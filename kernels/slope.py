"""Slopes of x sigmoid(k x) for descents: half the work of those in scalar.py.

s (1 + z (1 - s)) with z = k x, e = exp(-z), s = 1/(1 + e) and 1 - s = e s. Good to a few ulp but near
its zero (-0.75 for GELU), where the error is that many ulp of s instead; there it moves the
zero by one ulp of x. The functions of scalar.py are good to 2 ulp there too, which an
iteration has no use for. exp(-z) = 2^(n + r), r within 1/2, from k log2(e) in two words.
"""

from types import SimpleNamespace

import numpy as np

from loopnest.kernels.jit import by_dtype, scalar
from loopnest.kernels.scalar import reciprocal
from loopnest.kernels.simd import fma, horner, select, shifted_to_exponent

FLOAT32 = SimpleNamespace(
    real=np.float32,
    magic=1.5 * 2.0**23 + 127,  # adding it puts n + bias into the low bits
    last=120.0,  # n up to here: 2^n and 2^-n are normal numbers, and `reciprocal` can do it
    # k and, in two words, k log2(e)
    gelu=(1.702, 2.455467, -2.6109499e-08),
    silu=(1.0, 1.442695, 1.925963e-08),
    # 2^r = 1 + r q(r), relative error 2.6e-9
    q=(0.69314722, 0.24022653, 0.055503106, 0.009617693, 0.0013406644, 0.00015594677),
)
FLOAT64 = SimpleNamespace(
    real=np.float64,
    magic=1.5 * 2.0**52 + 1023,
    last=1016.0,
    gelu=(1.702, 2.4554669595930156, 7.816541847237075e-17),
    silu=(1.0, 1.4426950408889634, 2.0355273740931033e-17),
    # relative error 1.8e-17
    q=(0.6931471805599457, 0.24022650695910098, 0.0555041086647904, 0.009618129107607003)
    + (0.001333355815343997, 0.0001540353044157185, 1.525272738518978e-05)
    + (1.3215442675452855e-06, 1.0180647660573069e-07, 7.0725703945408e-09)
    + (4.0780717860928704e-10,),
)


def define(c, k, k_log2e):
    """The slope in the dtype whose constants are ``c``."""
    real = c.real
    ONE, MAGIC, K = real(1), real(c.magic), real(k)
    HI, LO = real(k_log2e[0]), real(k_log2e[1])
    HIGH = real(c.last / k_log2e[0])
    LOW = -HIGH
    Q = tuple(real(v) for v in c.q)

    @scalar
    def slope(x):
        x = select(x < LOW, LOW, x)
        x = select(x > HIGH, HIGH, x)
        m = fma(-x, HI, MAGIC)
        r = fma(-x, LO, fma(-x, HI, -(m - MAGIC)))
        power, scale = fma(r, horner(r, Q), ONE), shifted_to_exponent(m)
        s = reciprocal(fma(power, scale, ONE))
        return s * fma(x * K, power * scale * s, ONE)

    return slope


def _both(name):
    versions = ((c, *getattr(c, name)) for c in (FLOAT32, FLOAT64))
    return by_dtype(*(define(c, k, (high, low)) for c, k, high, low in versions))


gelu_slope = _both("gelu")
silu_slope = _both("silu")
