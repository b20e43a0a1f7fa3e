"""Errors of the float32 activations over ranges of inputs, in units of the last place.

The exact values are those of reference.py in float64 (2^-53 against 2^-24), themselves compared with
mpmath in test_activation.py. `exhaustive.py` scans all 2^32 inputs with this, the default
tests a part of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numba
import numpy as np
import reference

EVERY = 2**32  # float32 values
# Upper ends of the histogram's bins, in ulp; the last bin is everything above.
BINS = (0.5, 0.75, 1.0, 1.5, 2.0, 4.0)


@dataclass(frozen=True)
class Function:
    """A float32 function: its kernel's name, exact values, and the error allowed in ulp."""

    kernel: str
    exact: Callable[[np.ndarray], np.ndarray]
    limit: float

    @property
    def backward(self) -> bool:
        return self.kernel.endswith("_backward")

    def run(self, kernels, x: np.ndarray) -> np.ndarray:
        """Result of a backend's kernel; the slope for a backward one."""
        y = np.empty_like(x)
        inputs = (np.ones_like(x), x) if self.backward else (x,)
        getattr(kernels.activation, self.kernel)(*inputs, *self._parameters(), y)
        return y

    def _parameters(self):
        return (0.125,) if self.kernel.startswith("leaky_relu") else ()


def _slope(op: str, **options) -> Callable[[np.ndarray], np.ndarray]:
    backward = getattr(reference, op + "_backward")
    return lambda x: backward(np.ones_like(x), x, **options)


FUNCTIONS = {
    f.kernel: f
    for f in (
        Function("exp", reference.exp, 2),
        Function("sigmoid", reference.sigmoid, 2),
        Function("tanh", reference.tanh, 2),
        Function("relu", reference.relu, 0),
        Function("leaky_relu", lambda x: np.where(x > 0, x, 0.125 * x), 0.5),
        Function("silu", reference.silu, 2),
        Function("gelu", reference.gelu, 2),
        Function("gelu_tanh", lambda x: reference.gelu(x, "tanh"), 4),
        Function("gelu_erf", lambda x: reference.gelu(x, "none"), 4),
        Function("exp_backward", _slope("exp"), 4),
        Function("sigmoid_backward", _slope("sigmoid"), 4),
        Function("tanh_backward", _slope("tanh"), 4),
        Function("silu_backward", _slope("silu"), 4),
        Function("gelu_backward", _slope("gelu"), 4),
        Function("gelu_tanh_backward", _slope("gelu", approximate="tanh"), 4),
        Function("gelu_erf_backward", _slope("gelu", approximate="none"), 4),
    )
}


@dataclass
class Errors:
    """Worst error and where, and how many inputs fell into each of `BINS`."""

    worst: float = 0.0
    at: float = 0.0
    bins: np.ndarray = field(default_factory=lambda: np.zeros(len(BINS) + 1, np.int64))

    def add(self, other: Errors) -> None:
        if other.worst > self.worst:
            self.worst, self.at = other.worst, other.at
        self.bins += other.bins


# One over float32's spacing at a float64 of each biased exponent: 2^149 for subnormal numbers and
# the first octave; infinity counts as 2^128.
PER_UNIT = 2.0 ** (23 - np.clip(np.arange(2048) - 1023, -126, 127))


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _measure(y, exact, exact_bits, per_unit, edges, bins):
    """(worst error, its index); adds to the bins."""
    end, worst, at = 2.0**128, -1.0, 0
    for i in range(y.size):
        a, b = np.float64(y[i]), exact[i]
        error = 0.0
        if not (a == b or (a != a and b != b)):
            a, b = min(max(a, -end), end), min(max(b, -end), end)
            error = abs(a - b) * per_unit[(exact_bits[i] >> 52) & 2047]
        if not error <= worst:
            worst, at = (error, i) if error == error else (np.inf, i)
        k = 0
        while k < edges.size and not error <= edges[k]:
            k += 1
        bins[k] += 1
    return worst, at


def errors_of(y: np.ndarray, exact: np.ndarray, x: np.ndarray) -> Errors:
    """Errors of float32 results y at inputs x, in units of the last place of the exact ones."""
    bins = np.zeros(len(BINS) + 1, np.int64)
    exact = np.ascontiguousarray(exact, np.float64)
    bits = exact.view(np.int64)
    worst, at = _measure(y, exact, bits, PER_UNIT, np.array(BINS), bins)
    return Errors(float(worst), float(x[at]), bins)


def exact_values(function: Function, x: np.ndarray) -> np.ndarray:
    """The reference's float64 values at float32 inputs of one sign, or of both."""
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        # Far out most functions are constant: half of all float32 numbers are above 128.
        if np.min(np.abs(wide)) > 128 and np.all(np.isfinite(wide)) and np.ptp(np.sign(wide)) == 0:
            ends = function.exact(np.copysign([129.0, 3.4e38], wide[0]))
            if ends[0] == ends[1]:
                return np.full(wide.shape, ends[1])
        return function.exact(wide)


def inputs(first: int, last: int, step: int = 1) -> np.ndarray:
    """Float32 values whose bits are ``range(first, last, step)``."""
    return np.arange(first, last, step, dtype=np.uint64).astype(np.uint32).view(np.float32)


# Inputs where something begins or ends: exp over- and underflows, the ranges of each function's
# formulas, the crossings of the slopes, powers of ln 2, the ends of the float32 numbers.
BORDERS = (
    *(-149 * 0.6931472, -126 * 0.6931472, -112, -110.6, -108.8, -104, -103.97, -88.38, -87.34),
    *(
        -63.95,
        -63.5,
        -54.4,
        -51.4,
        -24.3,
        -17.33,
        -16.64,
        -15,
        -13.2,
        -12,
        -10.9,
        -10.78,
        -10,
        -9.8,
        -5,
    ),
    *(-1.5285, -1.3775, -1.3518, -1.2785, -1.0285, -0.8981, -0.7525, -0.7518, -0.7511, -0.6043),
    *(-0.5, -0.1275, 0),
    *(0.098, 0.3466, 0.5, 0.63, 5, 6, 9, 10, 15, 16.64, 17.33, 18, 30, 44.36, 56, 88.72, 89, 112),
)


def border_inputs(each: int = 2000) -> np.ndarray:
    """``each`` consecutive float32 values around every border, its negative too, and the ends."""
    middle = np.array([*BORDERS, *(-b for b in BORDERS)], np.float32).view(np.uint32)
    around = (middle[:, None] + np.arange(-each // 2, each // 2)).astype(np.uint32)
    ends = [np.arange(lo, lo + each, dtype=np.int64) for lo in (0, 2**23 - each // 2)]
    top = 0x7F800000
    ends += [np.arange(top - each, top + each, dtype=np.int64)]  # to infinity, and NaNs
    bits = np.concatenate([around.reshape(-1), *(e.astype(np.uint32) for e in ends)])
    return np.concatenate([bits, bits ^ np.uint32(2**31)]).view(np.float32)
