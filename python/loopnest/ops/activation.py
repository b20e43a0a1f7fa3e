"""Activations: element-wise functions of any shape, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from loopnest.runtime import backend, checks, replay, threads

# Forms of GELU and the kernel that computes each.
GELU_KERNELS = {"sigmoid": "gelu", "tanh": "gelu_tanh", "none": "gelu_erf"}

# Activations that conv2d and linear apply to their result, by name.
FUSED = ("exp", "gelu", "leaky_relu", "relu", "sigmoid", "silu", "tanh")
# Kernels for sums of many products, which are of any size: they do not slow down where results
# are subnormal.
WIDE = {"gelu": "gelu_wide", "silu": "silu_wide"}

# Work of one element in the units of threads.split: an exp and a division, in vectors.
_WORK = 4


def _run(
    kernel: Any, inputs: tuple[np.ndarray, ...], parameters: tuple, y: np.ndarray
) -> replay.Call | None:
    """Call ``kernel(*inputs, *parameters, y)`` on flat pieces; that call if it was small."""
    if y.ndim != 1:
        inputs, y = tuple(a.reshape(-1) for a in inputs), y.reshape(-1)
    if replay.small(y.size * _WORK):
        return replay.serial(y.size * _WORK, kernel, *inputs, *parameters, y)

    def piece(first: int, last: int) -> None:
        kernel(*[a[first:last] for a in inputs], *parameters, y[first:last])

    threads.split(piece, y.size, y.size * _WORK)
    return None


# Plans by the kernel's name.
_NAMES = (*(name for name in FUSED if name != "gelu"), *GELU_KERNELS.values())
_FORWARD = {
    name: replay.Op("ri") for name in (*_NAMES, *(f"{n}_derivative" for n in GELU_KERNELS.values()))
}
_BACKWARD = {f"{name}_backward": replay.Op("rri") for name in _NAMES}


def _forward(op: str, kernel: str, x: Any, out: Any, *parameters: float, where: Any = True) -> Any:
    if where is not True:
        raise TypeError(
            f"{op}: where is not supported; accepted: where left out, and np.where(mask, "
            f"{op}(x), x) or np.copyto(out, {op}(x), where=mask) in its place"
        )
    plans = _FORWARD[kernel]
    known = plans.call(x, out, *parameters, backend.kernels, threads.SERIAL_BELOW)
    if known is not None:
        return known
    given = x
    x = checks.array(op, "x", x)
    y = checks.output(op, out, x.shape, x.dtype, (given, x), in_place=True)
    call = _run(getattr(backend.kernels.activation, kernel), (x,), parameters, y)
    if x.ndim == 0:
        return y if out is not None else _scalar(given, y)
    plans.keep((given, out, *parameters, backend.kernels, threads.SERIAL_BELOW), y, call)
    return y


def _backward(op: str, kernel: str, dy: Any, x: Any, out: Any, *parameters: float) -> Any:
    plans = _BACKWARD[kernel]
    known = plans.call(dy, x, out, *parameters, backend.kernels, threads.SERIAL_BELOW)
    if known is not None:
        return known
    given = dy, x
    dy, x = checks.array(op, "dy", dy), checks.array(op, "x", x)
    dtype = checks.same_dtype(op, dy=dy, x=x)
    checks.same_shape(op, "dy", dy, x.shape)
    dx = checks.output(op, out, x.shape, dtype, (*given, dy, x), in_place=True)
    call = _run(getattr(backend.kernels.activation, kernel), (dy, x), parameters, dx)
    if x.ndim == 0:
        return dx if out is not None else _scalar(given[1], dx)
    plans.keep((*given, out, *parameters, backend.kernels, threads.SERIAL_BELOW), dx, call)
    return dx


def _scalar(given: Any, y: np.ndarray) -> Any:
    """A Python number gives a Python float, a NumPy scalar or 0-d array a NumPy scalar."""
    return y[()] if isinstance(given, (np.generic, np.ndarray)) else float(y[()])


def _gelu_kernel(op: str, approximate: Any) -> str:
    if type(approximate) is str and approximate in GELU_KERNELS:
        return GELU_KERNELS[approximate]
    return GELU_KERNELS[checks.choice(op, "approximate", approximate, GELU_KERNELS)]


def in_place(op: str, name: str | None) -> Callable[[np.ndarray], replay.Call | None] | None:
    """Function that applies the activation ``name`` to an array, None for None."""
    if name is None:
        return None
    checks.choice(op, "activation", name, (None, *FUSED))
    kernel = getattr(backend.kernels.activation, WIDE.get(name, name))
    parameters = (0.01,) if name == "leaky_relu" else ()
    return lambda y: _run(kernel, (y,), parameters, y)


def exp(x: Any, out: np.ndarray | None = None, *, where: Any = True) -> Any:
    """Exponential function, e to the power of x.

    Parameters
    ----------
    x : array_like or number
        Any shape, float32 or float64; integers and booleans are taken as float64.
    out : ndarray, optional
        Where to write: shape and dtype of x, C-contiguous; x itself is allowed.
    where
        Not supported (a TypeError that says what to write), unlike in NumPy's functions.

    Returns
    -------
    ndarray or number
        ``out`` or a new array; a number for a number.

    Raises
    ------
    TypeError, ValueError
        For other dtypes, or an ``out`` that does not fit.
    """
    return _forward("exp", "exp", x, out, where=where)


def sigmoid(x: Any, out: np.ndarray | None = None, *, where: Any = True) -> Any:
    """Logistic function, 1 / (1 + exp(-x)); sigmoid(0) is exactly 0.5.

    Parameters, returns and errors are those of `exp`.

    Examples
    --------
    >>> import loopnest as ln
    >>> ln.sigmoid(0.0)
    0.5
    """
    return _forward("sigmoid", "sigmoid", x, out, where=where)


def tanh(x: Any, out: np.ndarray | None = None, *, where: Any = True) -> Any:
    """Hyperbolic tangent.

    Parameters, returns and errors are those of `exp`.
    """
    return _forward("tanh", "tanh", x, out, where=where)


def relu(x: Any, out: np.ndarray | None = None, *, where: Any = True) -> Any:
    """Rectifier, max(x, 0); NaN stays NaN.

    Parameters, returns and errors are those of `exp`.
    """
    return _forward("relu", "relu", x, out, where=where)


def leaky_relu(
    x: Any, negative_slope: float = 0.01, out: np.ndarray | None = None, *, where: Any = True
) -> Any:
    """Leaky rectifier: x where x > 0, else ``negative_slope`` * x.

    Parameters
    ----------
    x, out
        As for `exp`.
    negative_slope : float
        A finite number.
    """
    if type(negative_slope) is not float or not -math.inf < negative_slope < math.inf:
        negative_slope = checks.number("leaky_relu", "negative_slope", negative_slope)
    return _forward("leaky_relu", "leaky_relu", x, out, negative_slope, where=where)


def silu(x: Any, out: np.ndarray | None = None, *, where: Any = True) -> Any:
    """Sigmoid linear unit (swish), x * sigmoid(x).

    Parameters, returns and errors are those of `exp`.
    """
    return _forward("silu", "silu", x, out, where=where)


def gelu(
    x: Any, approximate: str = "sigmoid", out: np.ndarray | None = None, *, where: Any = True
) -> Any:
    """Gaussian error linear unit (Hendrycks and Gimpel, arXiv:1606.08415).

    Parameters
    ----------
    x, out
        As for `exp`.
    approximate : {"sigmoid", "tanh", "none"}
        "sigmoid": x * sigmoid(1.702 x), the default here (PyTorch's is "none");
        "tanh": x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)));
        "none": x * Phi(x) with the normal distribution function Phi.
    """
    return _forward("gelu", _gelu_kernel("gelu", approximate), x, out, where=where)


def gelu_derivative(
    x: Any, approximate: str = "sigmoid", out: np.ndarray | None = None, *, where: Any = True
) -> Any:
    """Slope of `gelu` at x.

    Parameters are those of `gelu`. For the sigmoid form it is
    s * (1 + 1.702 x (1 - s)) with s = sigmoid(1.702 x).
    """
    kernel = _gelu_kernel("gelu_derivative", approximate) + "_derivative"
    return _forward("gelu_derivative", kernel, x, out, where=where)


def exp_backward(dy: Any, x: Any, out: np.ndarray | None = None) -> Any:
    """Gradient through `exp`: dy times the slope at x.

    Parameters
    ----------
    dy : array_like or number
        Gradient by the output; shape and dtype of x.
    x : array_like or number
        The input of the forward call.
    out : ndarray, optional
        Where to write; dy or x itself is allowed.

    Returns
    -------
    ndarray or number
        Gradient by x.

    Raises
    ------
    TypeError, ValueError
        For other dtypes, different shapes, or an ``out`` that does not fit.
    """
    return _backward("exp_backward", "exp_backward", dy, x, out)


def sigmoid_backward(dy: Any, x: Any, out: np.ndarray | None = None) -> Any:
    """Gradient through `sigmoid`. Parameters are those of `exp_backward`."""
    return _backward("sigmoid_backward", "sigmoid_backward", dy, x, out)


def tanh_backward(dy: Any, x: Any, out: np.ndarray | None = None) -> Any:
    """Gradient through `tanh`. Parameters are those of `exp_backward`."""
    return _backward("tanh_backward", "tanh_backward", dy, x, out)


def relu_backward(dy: Any, x: Any, out: np.ndarray | None = None) -> Any:
    """Gradient through `relu`, with slope 0 at 0. Parameters are those of `exp_backward`."""
    return _backward("relu_backward", "relu_backward", dy, x, out)


def leaky_relu_backward(
    dy: Any, x: Any, out: np.ndarray | None = None, negative_slope: float = 0.01
) -> Any:
    """Gradient through `leaky_relu`, with slope ``negative_slope`` at 0.

    Parameters are those of `exp_backward`.
    """
    if type(negative_slope) is not float or not -math.inf < negative_slope < math.inf:
        negative_slope = checks.number("leaky_relu_backward", "negative_slope", negative_slope)
    return _backward("leaky_relu_backward", "leaky_relu_backward", dy, x, out, negative_slope)


def silu_backward(dy: Any, x: Any, out: np.ndarray | None = None) -> Any:
    """Gradient through `silu`. Parameters are those of `exp_backward`."""
    return _backward("silu_backward", "silu_backward", dy, x, out)


def gelu_backward(
    dy: Any, x: Any, out: np.ndarray | None = None, approximate: str = "sigmoid"
) -> Any:
    """Gradient through `gelu`. Parameters are those of `exp_backward` and `gelu`."""
    kernel = _gelu_kernel("gelu_backward", approximate) + "_backward"
    return _backward("gelu_backward", kernel, dy, x, out)
