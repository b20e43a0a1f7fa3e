"""The loop of `descend` for functions that only Python can call: whole arrays, step by step."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

CONVENTIONS = ("ema", "heavy-ball", "lookback", "nesterov")

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


def _advance(method, t, g, state, lr, mu, betas, eps, decay, corrections):
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
        return x * (1 - lr * decay) - lr * np.sign(blend), beta2 * a + (1 - beta2) * g, b
    if method == _ADAMW:
        x = x * (1 - lr * decay)
    a, b = beta1 * a + (1 - beta1) * g, beta2 * b + (1 - beta2) * g * g
    scale, root = (float(c) for c in corrections[min(t, len(corrections) - 1)])
    return x - lr * scale * (a / (np.sqrt(b) + eps * root)), a, b


def _momentum(convention, t, g, state, lr, mu):
    x, v, b = state
    if convention == "lookback":
        v = g if t == 0 else v
        return x - lr * v, mu * v + (1 - mu) * g, b
    v = mu * v + ((1 - mu) * g if convention == "ema" else g)
    return x - lr * (g + mu * v if convention == "nesterov" else v), v, b


def loop(f: Callable, df: Callable | None, width: float, relative: bool) -> Callable[..., None]:
    """Function with the arguments of kernels/descent.py's `descend`, on (f, df).

    df None: central differences, h = width or, if relative, width max(1, \\|x\\|).
    """
    value, slope = _elementwise(f), _slope(f, df, width, relative)

    def run(objective, method, start, lr, momentum, steps, corrections, *rest):
        beta1, beta2, eps, weight_decay, tol, record, _, _, *outputs = rest
        x, fun, grad, taken, converged, trajectory = outputs
        coupled = 0.0 if method in (_ADAMW, _LION) else weight_decay
        x[...] = start
        states = np.zeros_like(x), np.zeros_like(x)
        active = np.arange(x.size)  # the problems that go on
        for t in range(steps + 1):
            if record:
                trajectory[t] = x
            raw = grad[active] = slope(x[active])
            stops = np.abs(raw) <= tol
            taken[active], converged[active] = t, stops
            active, raw = active[~stops], raw[~stops]
            if t == steps or not active.size:
                break
            state = x[active], states[0][active], states[1][active]
            g = raw + coupled * state[0] if coupled else raw
            x[active], states[0][active], states[1][active] = _advance(
                *(method, t, g, state, lr[active], momentum[active]),
                *((beta1, beta2), eps, weight_decay, corrections),
            )
        if record:
            trajectory[t + 1 :] = x
        fun[...] = value(x)

    def quiet(*arguments):
        with np.errstate(all="ignore"):
            run(*arguments)

    return quiet
