"""Errors of the float64 activations at random inputs, against references in 80-bit arithmetic.

`exhaustive.py` takes 10^7 inputs a function, the default tests a part. The references compute with
NumPy's longdouble (64 bits of mantissa on x86), arguments of exponentials in two words, so they are
good to a thousandth of an ulp; test_activation.py compares them with mpmath.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
from scan import BINS, Errors

Long = np.longdouble
AVAILABLE = np.finfo(Long).nmant == 63
BLOCK = 1 << 16


def _words(value) -> tuple[np.longdouble, np.longdouble]:
    """An mpmath number in two words."""
    high = Long(mpmath.nstr(value, 25))
    back = mpmath.mpf(float(high)) + mpmath.mpf(float(high - Long(float(high))))
    return high, Long(mpmath.nstr(value - back, 25))


with mpmath.workdps(60):
    K = _words(mpmath.mpf("1.702"))
    C1 = _words(2 * mpmath.sqrt(2 / mpmath.pi))
    C3 = _words(mpmath.mpf("0.044715") * 2 * mpmath.sqrt(2 / mpmath.pi))
    PHI0 = Long(mpmath.nstr(1 / mpmath.sqrt(2 * mpmath.pi), 25))
_SPLIT = Long(2) ** 32 + 1


def _product(a, b):
    """a b in two words (Dekker)."""
    a, b = np.broadcast_arrays(Long(a), Long(b))
    p = a * b
    a_high, b_high = _SPLIT * a, _SPLIT * b
    a_high, b_high = a_high - (a_high - a), b_high - (b_high - b)
    a_low, b_low = a - a_high, b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def _times(x, factor):
    """x times a number in two words, in two words."""
    high, low = _product(x, factor[0])
    return high, low + x * factor[1]


def _exp(z):
    """exp(z) - more than 1 where z is positive - of a number in two words."""
    return np.exp(z[0]) * (1 + z[1])


def _tail(z):
    """sigmoid(-z) for z >= 0 in two words."""
    e = _exp((-z[0], -z[1]))
    return e / (1 + e)


def _swish(x, z):
    """x sigmoid(z sign(x)), z >= 0 in two words."""
    q = _tail(z)
    return np.where(x < 0, x * q, x * (1 - q))


def _swish_slope(x, z, slope):
    """Slope of `_swish`; ``slope`` is |x| z'."""
    q = _tail(z)
    y = q * ((1 - slope) + slope * q)
    return np.where(x < 0, y, 1 - y)


def _one(x):
    return x, Long(0) * x


def _tanh_argument(a):
    square = _product(a, a)
    high, low = _times(square[0], C3)
    high, more = C1[0] + high, high - ((C1[0] + high) - C1[0])
    w = high, more + low + C1[1] + C3[0] * square[1]
    z = _product(a, w[0])
    return (z[0], z[1] + a * w[1]), a * (w[0] + 2 * C3[0] * square[0])


def _erfcx_table(count=40):
    """Chebyshev coefficients of (a + 4) erfcx(a/sqrt 2)/2 in (a - 4)/(a + 4), 0 <= a."""
    with mpmath.workdps(40):
        angles = [mpmath.pi * (2 * k + 1) / (2 * count) for k in range(count)]
        values = []
        for t in (mpmath.cos(angle) for angle in angles):
            a = 4 * (1 + t) / (1 - t)
            values.append((a + 4) * mpmath.erfc(a / mpmath.sqrt(2)) * mpmath.exp(a * a / 2) / 2)
        table = []
        for j in range(count):
            pairs = zip(values, angles, strict=True)
            table.append(2 * sum(v * mpmath.cos(j * angle) for v, angle in pairs) / count)
        table[0] /= 2
        return [Long(mpmath.nstr(c, 25)) for c in table]


_ERFCX: list[np.longdouble] = []


def _mills(a):
    """Phi(-a) exp(a^2/2) for a >= 0, by Clenshaw's sum."""
    _ERFCX.extend([] if _ERFCX else _erfcx_table())
    t, b, c = (a - 4) / (a + 4), Long(0), Long(0)
    for coefficient in _ERFCX[:0:-1]:
        b, c = 2 * t * b - c + coefficient, b
    return (t * b - c + _ERFCX[0]) / (a + 4)


def _bell(a):
    """exp(-a^2/2)"""
    square = _product(a, a)
    return _exp((-square[0] / 2, -square[1] / 2))


def _gelu_erf(x):
    a = np.abs(x)
    tail = _mills(a) * _bell(a)
    return np.where(x < 0, x * tail, x * (1 - tail))


def _gelu_erf_slope(x):
    a = np.abs(x)
    y = (_mills(a) - a * PHI0) * _bell(a)
    return np.where(x < 0, y, 1 - y)


def _bump(z):
    q = _tail(z)
    return q * (1 - q)


# kernel: (exact values at longdouble x, limit in ulp, zero of the slope)
FUNCTIONS: dict[str, tuple[Callable, float, float | None]] = {
    "exp": (np.exp, 2, None),
    "sigmoid": (lambda x: np.where(x < 0, _tail(_one(-x)), 1 - _tail(_one(x))), 2, None),
    "tanh": (np.tanh, 2, None),
    "silu": (lambda x: _swish(x, _one(np.abs(x))), 2, None),
    "gelu": (lambda x: _swish(x, _times(np.abs(x), K)), 2, None),
    "gelu_tanh": (lambda x: _swish(x, _tanh_argument(np.abs(x))[0]), 4, None),
    "gelu_erf": (_gelu_erf, 4, None),
    "exp_backward": (np.exp, 4, None),
    "sigmoid_backward": (lambda x: _bump(_one(np.abs(x))), 4, None),
    "tanh_backward": (lambda x: 4 * _bump(_one(2 * np.abs(x))), 4, None),
    "silu_backward": (lambda x: _swish_slope(x, _one(np.abs(x)), np.abs(x)), 4, -1.2784645),
    "gelu_backward": (
        lambda x: _swish_slope(x, _times(np.abs(x), K), np.abs(x) * K[0]),
        4,
        -0.7511543,
    ),
    "gelu_tanh_backward": (lambda x: _swish_slope(x, *_tanh_argument(np.abs(x))), 4, -0.7524614),
    "gelu_erf_backward": (_gelu_erf_slope, 4, -0.7517915),
}
NEAR_ZERO = 0.02  # next to the zero of a slope the reference has not digits enough


def inputs(rng: np.random.Generator, count: int) -> np.ndarray:
    """Random float64 numbers: spread over all exponents, over the middle ones, over +-750."""
    bits = rng.integers(0, 2**64, count, np.uint64, endpoint=False)
    all_exponents = bits.view(np.float64)
    middle = rng.choice([-1.0, 1.0], count) * 2.0 ** rng.uniform(-40, 10, count)
    even = rng.uniform(-750, 750, count)
    x = np.choose(rng.integers(0, 3, count), [all_exponents, middle, even])
    return x[np.isfinite(x)]


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """Exact values in longdouble; far out those of the end, where the reference would overflow."""
    with np.errstate(all="ignore"):
        return FUNCTIONS[name][0](np.clip(x, -1e4, 1e4).astype(Long))


def run(kernels, name: str, x: np.ndarray) -> np.ndarray:
    """Result of a backend's kernel; the slope for a backward one."""
    y = np.empty_like(x)
    arguments = (np.ones_like(x), x) if name.endswith("_backward") else (x,)
    getattr(kernels.activation, name)(*arguments, y)
    return y


def errors_of(name: str, x: np.ndarray, y: np.ndarray) -> Errors:
    """Errors of results y in units of the last place of the exact values."""
    zero, grows = FUNCTIONS[name][2], name in ("silu", "gelu", "gelu_tanh", "gelu_erf")
    expected = np.where((x > 1e4) & grows, x.astype(Long), exact(name, x))
    with np.errstate(all="ignore"):
        rounded = expected.astype(np.float64)
        error = np.abs(y.astype(Long) - expected) / np.spacing(np.abs(rounded))
    error = np.where(np.isinf(rounded), np.where(y == rounded, 0, np.inf), error)
    if zero is not None:
        error[np.abs(x - zero) < NEAR_ZERO] = 0
    worst = int(np.argmax(error))
    bins = np.histogram(error, [0, *BINS, np.inf])[0]
    return Errors(float(error[worst]), float(x[worst]), bins)


def scan(name: str, count: int, seed: int, *kernels) -> tuple[Errors, int]:
    """Errors at ``count`` random inputs, and how many of them backends disagree on."""
    rng, errors, different = np.random.default_rng(seed), Errors(), 0
    for first in range(0, count, BLOCK):
        x = inputs(rng, min(BLOCK, count - first))
        results = [run(k, name, x) for k in kernels]
        errors.add(errors_of(name, x, results[0]))
        for other in results[1:]:
            different += int(np.count_nonzero(results[0].view("u8") != other.view("u8")))
    return errors, different
