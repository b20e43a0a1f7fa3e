"""The loop of `descend` for functions that only Python can call: blocks of points, step by step."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

CONVENTIONS = ("ema", "heavy-ball", "lookback", "nesterov")

BLOCK = 16384  # points in one call of the objective: a few arrays of them fit into the L2 cache

_RMSPROP, _ADAGRAD, _ADAM, _ADAMW, _LION = range(5, 10)


def _number(value: Any) -> Any:
    """What the objective gave for one number."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if not isinstance(value, numbers.Real) and not isinstance(value, np.bool_):
        raise TypeError(f"descend: objective gave {value!r}; accepted: a real number")
    return value


def _elementwise(function: Callable) -> Callable[[np.ndarray], np.ndarray]:
    """Call with a 1-D array; one that does not take arrays is called number by number."""
    plain = getattr(function, "py_func", function)  # of an njit function
    takes_arrays = True

    def at_once(x: np.ndarray) -> np.ndarray | None:
        try:
            y = np.asarray(plain(x.copy()))
        except Exception:  # if it is not for the array, one number will raise it again
            return None
        return y if y.shape == x.shape and y.dtype.kind in "fiub" else None

    def call(x: np.ndarray) -> np.ndarray:
        nonlocal takes_arrays
        if takes_arrays and x.size > 1:
            y = at_once(x)
            if y is not None:
                return y.astype(x.dtype)
            takes_arrays = False
        return np.array([_number(function(v)) for v in x], x.dtype)

    return call


def _slope(f: Callable, df: Callable | None, width: float, relative: bool) -> Callable:
    if df is not None:
        return _elementwise(df)
    f = _elementwise(f)

    def central(x: np.ndarray) -> np.ndarray:
        h = x.dtype.type(width)
        step = h * np.maximum(x.dtype.type(1), np.abs(x)) if relative else h
        up, down = x + step, x - step
        return (f(up) - f(down)) / (up - down)

    return central


def _advance(method, t, g, state, lr, mu, betas, eps, shrink):
    """The next (x, a, b); the formulas of kernels/descent.py, in NumPy."""
    x, a, b = state
    beta1, beta2 = betas
    if method == 0:
        return x - lr * g, a, b
    if method <= len(CONVENTIONS):
        return _momentum(CONVENTIONS[method - 1], t, g, state, lr, mu)
    if method == _RMSPROP:
        b = beta2 * b + (1 - beta2) * g * g
        a = mu * a + g / (np.sqrt(b) + eps)
        return x - lr * a, a, b
    if method == _ADAGRAD:
        b = b + g * g
        return x - lr * (g / (np.sqrt(b) + eps)), a, b
    if method == _LION:
        blend = beta1 * a + (1 - beta1) * g
        return x * shrink - lr * np.sign(blend), beta2 * a + (1 - beta2) * g, b
    if method == _ADAMW:
        x = x * shrink
    a, b = beta1 * a + (1 - beta1) * g, beta2 * b + (1 - beta2) * g * g
    return x - lr * (a / (np.sqrt(b) + eps)), a, b


def _momentum(convention, t, g, state, lr, mu):
    x, v, b = state
    if convention == "lookback":
        v = g if t == 0 else v
        return x - lr * v, mu * v + (1 - mu) * g, b
    v = mu * v + ((1 - mu) * g if convention == "ema" else g)
    return x - lr * (g + mu * v if convention == "nesterov" else v), v, b


def _largest(slopes: np.ndarray) -> np.ndarray:
    """Size of the slope of each problem, NaN if any of its slopes is."""
    size = np.abs(slopes)
    return size.max(axis=1, initial=0) if size.ndim == 2 else size


def loop(f: Callable, df: Callable | None, width: float, relative: bool) -> Callable[..., None]:
    """Function with the arguments of kernels/descent.py's `descend`, on (f, df).

    df None: central differences, h = width or, if relative, width max(1, \\|x\\|).
    """
    return run_with(_elementwise(f), _slope(f, df, width, relative))


def run_with(value: Callable, slope: Callable) -> Callable[..., None]:
    """The same for functions of whole arrays: of points, or of rows that are points."""

    def block(method, start, lr, momentum, steps, table, options, outputs):
        beta1, beta2, eps, weight_decay, tol, every, _ = (
            options  # Python hears of interrupts itself
        )
        x, fun, grad, taken, converged, trajectory = outputs
        if start.ndim == 2:
            lr, momentum = lr[:, None], momentum[:, None]
        coupled = 0.0 if method in (_ADAMW, _LION) else weight_decay
        x[...] = start
        states = np.zeros_like(x), np.zeros_like(x)
        active = np.arange(x.shape[0])  # the problems that go on
        for t in range(steps + 1):
            if every and t % every == 0:
                trajectory[t // every] = x
            raw = grad[active] = slope(x[active])
            size = _largest(raw)
            taken[active], converged[active] = t, size <= tol
            goes_on = size > tol  # not where it is NaN
            active, raw = active[goes_on], raw[goes_on]
            if t == steps or not active.size:
                break
            factor, root, decay_factor = (float(v) for v in table[min(t, len(table) - 1)])
            state = x[active], states[0][active], states[1][active]
            g = raw + coupled * state[0] if coupled else raw
            x[active], states[0][active], states[1][active] = _advance(
                *(method, t, g, state, lr[active] * factor, momentum[active]),
                *((beta1, beta2), eps * root, 1 - lr[active] * (weight_decay * decay_factor)),
            )
        if every:
            trajectory[t // every + 1 :] = x
        fun[...] = value(x)

    def run(objective, method, start, lr, momentum, steps, table, *rest):
        *options, first, last = rest[:9]
        *columns, trajectory = rest[9:]
        with np.errstate(all="ignore"):
            for at in range(first, last, BLOCK):
                part = slice(at, min(at + BLOCK, last))
                outputs = (*(a[part] for a in columns), trajectory[:, part])
                block(method, start[part], lr[part], momentum[part], steps, table, options, outputs)

    return run
