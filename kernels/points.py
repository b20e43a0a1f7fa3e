"""Descents on functions of n variables: one problem after the other, on functions of the caller.

The updates are those of descent.py, coordinate by coordinate. Functions take a point, an array
of n numbers; a gradient gives n numbers, or writes them into its second argument.
"""

import warnings

import numpy as np
from numba import njit, typeof
from numba.core.dispatcher import Dispatcher

from loopnest.kernels.descent import LOOKBACK, update
from loopnest.kernels.jit import OPTIONS, own_name
from loopnest.kernels.optimizer import decayed
from loopnest.kernels.simd import peek
from loopnest.kernels.vector import like

_U = np.uint64


def _compiled(function):
    return function if isinstance(function, Dispatcher) else njit(**OPTIONS)(function)


def _writing(gradient, writes):
    """The gradient as a function that writes it."""
    gradient = _compiled(gradient)
    if writes:
        return gradient

    @njit(**OPTIONS)
    @own_name
    def write(x, out):
        slopes = gradient(x)
        if len(slopes) != out.size:
            raise ValueError("descend: gradient gave another number of slopes than x has numbers")
        for i in range(out.size):
            out[i] = slopes[i]

    return write


def _central(f, width, relative):
    """Gradient of f by central differences."""

    @njit(**OPTIONS)
    @own_name
    def write(x, out):
        for i in range(x.size):
            middle = x[i]
            h = like(width, middle)
            if relative:
                h *= max(like(1.0, middle), abs(middle))
            up, down = middle + h, middle - h
            x[i] = up
            high = like(f(x), middle)
            x[i] = down
            out[i] = (high - like(f(x), middle)) / (up - down)
            x[i] = middle

    return write


@njit(**OPTIONS)
def _largest(slopes):
    """The largest size of a slope, NaN if any is NaN."""
    largest = abs(slopes[_U(0)])
    for i in range(_U(slopes.size)):
        size = abs(slopes[i])
        if largest == largest and not size <= largest:
            largest = size
    return largest


def _make(f, gradient, METHOD, decoupled):
    @njit(**OPTIONS)
    @own_name
    def descend(
        starts, lr, momentum, steps, schedule, beta1, beta2, eps, weight_decay, tol, every,
        stop, first, last, x, fun, grad, taken, converged, trajectory,
    ):  # fmt: skip
        """Problems first to last; arguments as in descent.py, x and so on with rows of n numbers."""
        n, real = _U(starts.shape[1]), starts.dtype.type
        zero, one = real(0), real(1)
        keep1, take1, keep2, take2 = real(beta1), real(1.0 - beta1), real(beta2), real(1.0 - beta2)
        decay = real(0.0 if decoupled else weight_decay)
        a, b, point, slopes = np.empty((4, starts.shape[1]), starts.dtype)
        for problem in range(first, last):
            t, rate, mu = 0, lr[problem], momentum[problem]
            factor, shrink, epsilon, size = one, one, zero, zero
            point[:], a[:], b[:] = starts[problem], zero, zero
            while True:
                if every > 0 and t % every == 0:
                    trajectory[t // every, problem] = point
                gradient(point, slopes)
                size = _largest(slopes)
                if peek(stop) != 0:
                    return
                if not size > tol or t == steps:
                    break
                if t < schedule.shape[0]:
                    factor, epsilon = real(schedule[t, 0]), real(eps * schedule[t, 1])
                    shrink = one - rate * real(weight_decay * schedule[t, 2])
                for i in range(n):
                    g = decayed(slopes[i], point[i], decay, decay != zero)
                    if METHOD == LOOKBACK and t == 0:
                        a[i] = g
                    point[i], a[i], b[i] = update(
                        *(METHOD, point[i], g, a[i], b[i], rate * factor, mu, one - mu),
                        *(shrink, keep1, take1, keep2, take2, epsilon, zero),
                    )
                t += 1
            x[problem], grad[problem], taken[problem] = point, slopes, t
            converged[problem] = size <= tol
            fun[problem] = f(point)
            if every > 0:
                for row in range(t // every + 1, trajectory.shape[0]):
                    trajectory[row, problem] = point

    return descend


def loop(f, gradient, writes, width, relative, method, decoupled, arguments):
    """The compiled kernel, or None and why not; gradient None: central differences.

    ``arguments`` are those of the call to come.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Numba, on code that is not its user's
            f = _compiled(f)
            slopes = (
                _central(f, width, relative) if gradient is None else _writing(gradient, writes)
            )
            kernel = _make(f, slopes, method, decoupled)
            kernel.compile(tuple(typeof(a) for a in arguments))
    except Exception as error:  # Numba raises many kinds for code it cannot compile
        return None, str(error).strip().splitlines()[0]
    return kernel, ""
