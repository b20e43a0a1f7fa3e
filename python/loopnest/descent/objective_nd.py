"""Functions of n variables in `descend`: which loop runs them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from loopnest.descent import python_loop
from loopnest.runtime import backend


def writes(gradient: Callable | None) -> bool:
    """Whether a gradient takes a second argument to write to."""
    if gradient is None:
        return False
    parameters = inspect.signature(getattr(gradient, "py_func", gradient)).parameters
    return len(parameters) == 2


def _number(value: Any) -> float:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise TypeError(f"descend: objective gave {value!r}; accepted: a real number")
    return array.reshape(-1)[0]


def _values(f: Callable) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: np.array([_number(f(point)) for point in x], x.dtype)


def _gradients(gradient: Callable) -> Callable[[np.ndarray], np.ndarray]:
    into = writes(gradient)

    def call(x: np.ndarray) -> np.ndarray:
        slopes = np.empty_like(x)
        for point, out in zip(x, slopes, strict=True):
            if into:
                gradient(point, out)
                continue
            found = np.asarray(gradient(point))
            if found.shape != out.shape:
                raise ValueError(
                    f"descend: gradient gave shape {found.shape}; accepted: {out.shape}"
                )
            out[...] = found
        return slopes

    return call


def _central(f: Callable, width: float, relative: bool) -> Callable[[np.ndarray], np.ndarray]:
    def slopes(point: np.ndarray) -> np.ndarray:
        result = np.empty_like(point)
        for i in range(point.size):
            h = point.dtype.type(width) * (max(1, abs(point[i])) if relative else 1)
            up, down = point.copy(), point.copy()
            up[i] += h
            down[i] -= h
            result[i] = (_number(f(up)) - _number(f(down))) / (up[i] - down[i])
        return result

    return lambda x: np.array([slopes(point) for point in x], x.dtype).reshape(x.shape)


# Compiled kernels by what went into them; emptied when full, for each holds machine code.
_KERNELS: dict = {}
_MOST_KERNELS = 64


def loop(
    f: Callable, gradient: Callable | None, width: float, relative: bool, method: int,
    decoupled: bool, arguments: tuple,
) -> tuple[Callable[..., None], str, str]:  # fmt: skip
    """The function to call with such arguments, the name of its form, and why it is that one."""
    reason = "backend 'c' compiles no functions"
    if backend.get_backend() == "numba":
        from loopnest.kernels import points

        key = (f, gradient, width, relative, method, decoupled, arguments[0].dtype)
        if key not in _KERNELS:
            if len(_KERNELS) >= _MOST_KERNELS:
                _KERNELS.clear()
            options = writes(gradient), width, relative, method, decoupled, arguments
            _KERNELS[key] = points.loop(f, gradient, *options)
        kernel, reason = _KERNELS[key]
        if kernel is not None:
            return kernel, "scalar", "functions of n variables run one problem after the other"
        reason = f"Numba does not compile it: {reason}"
    slopes = _central(f, width, relative) if gradient is None else _gradients(gradient)
    return partial(python_loop.run_with(_values(f), slopes), 0, method), "numpy", reason
