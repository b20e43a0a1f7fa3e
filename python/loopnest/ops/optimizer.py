"""Optimizer steps: one update of a parameter array and its state, in place.

The formulas are PyTorch's (torch.optim), element by element; state arrays are the
caller's, zeros before the first step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from loopnest.runtime import backend, checks, replay, threads

# Work of one element in the units of threads.split: several arrays pass through memory.
_WORK = 4

LAST_STEP = 2**62
_INF = math.inf

_EMPTY = {dtype: np.empty(0, dtype) for dtype in (checks.F32, checks.F64)}

# By kernel: the gradient is read, states and parameters are written; how many numbers it takes.
_PLANS = {
    "sgd_step": replay.Op("rww", live=4),
    "adam_step": replay.Op("rwwww", live=7),
    "rmsprop_step": replay.Op("rwwww", live=5),
    "adagrad_step": replay.Op("rww", live=3),
    "lion_step": replay.Op("rww", live=4),
}


def power(base: float, exponent: int) -> float:
    """base^exponent by squaring; the same bits in Python and, compiled, in ``@njit``."""
    result = 1.0
    while exponent > 0:
        if exponent % 2 == 1:
            result *= base
        base *= base
        exponent //= 2
    return result


def beta(op: str, name: str, value: Any) -> float:
    """``value`` as a decay rate within [0, 1)."""
    if type(value) is float and 0.0 <= value < 1.0:
        return value
    if checks.number(op, name, value, 0.0, 1.0) == 1.0:
        raise ValueError(f"{op}: {name} is {value}; accepted: a number from 0 to below 1")
    return float(value)


def both_betas(op: str, value: Any) -> tuple[float, float]:
    """``value`` as two decay rates."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{op}: betas is {value!r}; accepted: two numbers from 0 to below 1")
    if len(value) != 2:
        raise ValueError(f"{op}: betas is {value!r}; accepted: two numbers from 0 to below 1")
    return beta(op, "betas[0]", value[0]), beta(op, "betas[1]", value[1])


def _rate(op: str, name: str, value: Any) -> float:
    if type(value) is float and 0.0 <= value < _INF:
        return value
    return checks.number(op, name, value, 0.0)


def _checked(op: str, param: Any, grad: Any, states: dict[str, Any]) -> list[Any]:
    """grad, states and param, or an error that tells what is wrong with them."""
    if not isinstance(param, np.ndarray):
        raise TypeError(f"{op}: param is a {type(param).__name__}; accepted: a NumPy array")
    if param.dtype not in (checks.F32, checks.F64):
        raise TypeError(f"{op}: param has dtype {param.dtype}; accepted: float32 or float64")
    given = grad
    grad = checks.array(op, "grad", grad)
    checks.same_dtype(op, param=param, grad=grad)
    checks.same_shape(op, "grad", grad, param.shape)
    seen: list[np.ndarray] = [given] if given is grad else [given, grad]
    for name, array in {"param": param, **states}.items():
        if array is not None:
            checks.output(op, array, param.shape, param.dtype, seen, name=name)
            seen.append(array)
    return [None if a is None else np.asarray(a) for a in (grad, *states.values(), param)]


def _need(op: str, name: str, array: Any, reason: str = "") -> None:
    if array is None:
        raise TypeError(f"{op}: {name} is None; accepted: an array like param{reason}")


def _run(kernel: Callable, options: tuple, arrays: list[np.ndarray]) -> replay.Call | None:
    """Call ``kernel(grad, *options, *states, param)`` on pieces; that call if it was small."""
    size = arrays[-1].size
    if replay.small(size * _WORK):
        return replay.serial(size * _WORK, kernel, arrays[0], *options, *arrays[1:])

    def piece(first: int, last: int) -> None:
        grad, *others = [a[first:last] for a in arrays]
        kernel(grad, *options, *others)

    threads.split(piece, size, size * _WORK)
    return None


def _update(
    op: str, kernel: str, param: Any, grad: Any, states: dict[str, Any],
    numbers: tuple[float, ...], flags: tuple[int, ...] = (),
) -> None:  # fmt: skip
    """Check the arrays and call ``kernel(grad, *numbers, *flags, *states, param)``."""
    plans, values = _PLANS[kernel], states.values()
    given = grad, *values, param, *flags, backend.kernels, threads.SERIAL_BELOW, *numbers
    if plans.call(*given):
        return
    checked = _checked(op, param, grad, states)
    empty = _EMPTY[checked[-1].dtype]
    arrays = [empty if a is None else a.reshape(-1) for a in checked]
    call = _run(getattr(backend.kernels.optimizer, kernel), (*numbers, *flags), arrays)
    plans.keep(given, None, call)


def sgd_step(
    param: np.ndarray,
    grad: Any,
    momentum_buffer: np.ndarray | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    first: bool = False,
) -> None:
    """One step of stochastic gradient descent, with or without momentum, in place.

    Parameters
    ----------
    param : ndarray
        Any shape, float32 or float64, C-contiguous; overwritten.
    grad : array_like
        Gradient by param, of its shape and dtype.
    momentum_buffer : ndarray, optional
        As param, needed if ``momentum`` is not 0; overwritten.
    lr : float
        Learning rate, at least 0.
    momentum, dampening : float
        buffer = momentum * buffer + (1 - dampening) * grad; param -= lr * buffer.
    weight_decay : float
        L2 penalty: weight_decay * param is added to the gradient first.
    nesterov : bool
        param -= lr * (grad + momentum * buffer); needs momentum above 0 and dampening 0.
    first : bool
        The first step as PyTorch takes it: the buffer becomes the gradient.

    Raises
    ------
    TypeError, ValueError
        For arrays of other dtypes or shapes, not contiguous, read-only or overlapping, and
        numbers out of range; nothing has been overwritten then.

    Notes
    -----
    Formulas of torch.optim.SGD; Nesterov's form from Sutskever et al., ICML 2013.

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> weights = np.array([1.0, 2.0])
    >>> ln.sgd_step(weights, np.array([0.5, -0.5]), lr=0.5)
    >>> weights
    array([0.75, 2.25])
    """
    op = "sgd_step"
    lr, momentum = _rate(op, "lr", lr), _rate(op, "momentum", momentum)
    if type(dampening) is not float or not -_INF < dampening < _INF:
        dampening = checks.number(op, "dampening", dampening)
    weight_decay = _rate(op, "weight_decay", weight_decay)
    nesterov, first = checks.flag(op, "nesterov", nesterov), checks.flag(op, "first", first)
    if nesterov and (momentum == 0.0 or dampening != 0.0):
        raise ValueError(
            f"{op}: nesterov is True with momentum {momentum} and dampening {dampening}; "
            "accepted: momentum above 0 and dampening 0"
        )
    if momentum != 0.0:
        _need(op, "momentum_buffer", momentum_buffer, " (momentum is not 0)")
    flags = int(momentum != 0.0), int(nesterov), int(first)
    states, numbers = {"momentum_buffer": momentum_buffer}, (lr, momentum, dampening, weight_decay)
    _update(op, "sgd_step", param, grad, states, numbers, flags)


def _adam(
    op: str, decoupled: bool, param: Any, grad: Any, states: tuple[Any, Any, Any], step: Any,
    lr: Any, betas: Any, eps: Any, weight_decay: Any,
) -> None:  # fmt: skip
    m, v, max_v = states
    step, lr = checks.integer(op, "step", step, 1, LAST_STEP), _rate(op, "lr", lr)
    beta1, beta2 = both_betas(op, betas)
    eps, weight_decay = _rate(op, "eps", eps), _rate(op, "weight_decay", weight_decay)
    _need(op, "m", m)
    _need(op, "v", v)
    corrections = 1.0 - power(beta1, step), 1.0 - power(beta2, step)
    flags = int(decoupled), int(max_v is not None)
    numbers = lr, beta1, beta2, *corrections, eps, weight_decay
    _update(op, "adam_step", param, grad, {"m": m, "v": v, "max_v": max_v}, numbers, flags)


def adam_step(
    param: np.ndarray,
    grad: Any,
    m: np.ndarray,
    v: np.ndarray,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    max_v: np.ndarray | None = None,
) -> None:
    """One step of Adam, in place.

    Parameters
    ----------
    param, grad, lr, weight_decay
        As for `sgd_step`.
    m, v : ndarray
        Running means of the gradient and of its square, as param; overwritten.
    step : int
        Number of this step, from 1.
    betas : (float, float)
        Decay of m and of v, each from 0 to below 1.
    eps : float
        Added to the root of v.
    max_v : ndarray, optional
        Largest v so far, as param, zeros at first; overwritten. Makes it AMSGrad.

    Raises
    ------
    TypeError, ValueError
        As for `sgd_step`.

    Notes
    -----
    Kingma and Ba, arXiv:1412.6980; AMSGrad: Reddi et al., ICLR 2018. Formulas of
    torch.optim.Adam: param -= lr/(1 - beta1^t) * m / (sqrt(v)/sqrt(1 - beta2^t) + eps).
    """
    _adam("adam_step", False, param, grad, (m, v, max_v), step, lr, betas, eps, weight_decay)


def adamw_step(
    param: np.ndarray,
    grad: Any,
    m: np.ndarray,
    v: np.ndarray,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
    max_v: np.ndarray | None = None,
) -> None:
    """One step of AdamW, in place: param *= 1 - lr * weight_decay, then Adam without decay.

    Parameters and errors are those of `adam_step`.

    Notes
    -----
    Loshchilov and Hutter, arXiv:1711.05101; formulas of torch.optim.AdamW.
    """
    _adam("adamw_step", True, param, grad, (m, v, max_v), step, lr, betas, eps, weight_decay)


def rmsprop_step(
    param: np.ndarray,
    grad: Any,
    v: np.ndarray,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    momentum_buffer: np.ndarray | None = None,
    grad_average: np.ndarray | None = None,
) -> None:
    """One step of RMSprop, in place.

    Parameters
    ----------
    param, grad, lr, weight_decay
        As for `sgd_step`.
    v : ndarray
        Running mean of the squared gradient, as param; overwritten.
    alpha : float
        Decay of v (and of ``grad_average``), from 0 to 1.
    eps : float
        Added to the root of v.
    momentum : float
        buffer = momentum * buffer + grad / (sqrt(v) + eps); param -= lr * buffer.
    momentum_buffer : ndarray, optional
        As param, needed if ``momentum`` is not 0; overwritten.
    grad_average : ndarray, optional
        Running mean of the gradient, as param; overwritten. Makes the centered form: v less
        the square of this mean, but at least 0, takes the place of v.

    Raises
    ------
    TypeError, ValueError
        As for `sgd_step`.

    Notes
    -----
    Tieleman and Hinton, lecture 6.5 of "Neural networks for machine learning", 2012; centered:
    Graves, arXiv:1308.0850. Formulas of torch.optim.RMSprop.
    """
    op = "rmsprop_step"
    lr, alpha = _rate(op, "lr", lr), checks.number(op, "alpha", alpha, 0.0, 1.0)
    eps, weight_decay = _rate(op, "eps", eps), _rate(op, "weight_decay", weight_decay)
    momentum = _rate(op, "momentum", momentum)
    _need(op, "v", v)
    if momentum != 0.0:
        _need(op, "momentum_buffer", momentum_buffer, " (momentum is not 0)")
    flags = int(momentum != 0.0), int(grad_average is not None)
    states = {"v": v, "momentum_buffer": momentum_buffer, "grad_average": grad_average}
    numbers = lr, alpha, eps, weight_decay, momentum
    _update(op, "rmsprop_step", param, grad, states, numbers, flags)


def adagrad_step(
    param: np.ndarray,
    grad: Any,
    state_sum: np.ndarray,
    *,
    step: int,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
) -> None:
    """One step of Adagrad, in place.

    Parameters
    ----------
    param, grad, lr, weight_decay
        As for `sgd_step`.
    state_sum : ndarray
        Sum of the squared gradients, as param; overwritten.
    step : int
        Number of this step, from 1.
    lr_decay : float
        The rate is lr / (1 + (step - 1) * lr_decay).
    eps : float
        Added to the root of the sum.

    Raises
    ------
    TypeError, ValueError
        As for `sgd_step`.

    Notes
    -----
    Duchi, Hazan and Singer, JMLR 12, 2011; formulas of torch.optim.Adagrad.
    """
    op = "adagrad_step"
    step, lr = checks.integer(op, "step", step, 1, LAST_STEP), _rate(op, "lr", lr)
    lr_decay, eps = _rate(op, "lr_decay", lr_decay), _rate(op, "eps", eps)
    weight_decay = _rate(op, "weight_decay", weight_decay)
    _need(op, "state_sum", state_sum)
    rate = lr / (1.0 + (step - 1) * lr_decay)
    numbers = rate, eps, weight_decay
    _update(op, "adagrad_step", param, grad, {"state_sum": state_sum}, numbers)


def lion_step(
    param: np.ndarray,
    grad: Any,
    m: np.ndarray,
    *,
    lr: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.0,
) -> None:
    """One step of Lion, in place: every element moves by lr, or not at all where the sign is 0.

    param *= 1 - lr * weight_decay; param -= lr * sign(beta1 * m + (1 - beta1) * grad);
    m = beta2 * m + (1 - beta2) * grad.

    Parameters
    ----------
    param, grad, lr
        As for `sgd_step`.
    m : ndarray
        Running mean of the gradient, as param; overwritten.
    betas : (float, float)
        Weights of m in the sign and in m's own decay, each from 0 to below 1.
    weight_decay : float
        Decoupled, as in AdamW.

    Raises
    ------
    TypeError, ValueError
        As for `sgd_step`.

    Notes
    -----
    Chen et al., arXiv:2302.06675.
    """
    op = "lion_step"
    lr, weight_decay = _rate(op, "lr", lr), _rate(op, "weight_decay", weight_decay)
    beta1, beta2 = both_betas(op, betas)
    _need(op, "m", m)
    _update(op, "lion_step", param, grad, {"m": m}, (lr, beta1, beta2, weight_decay))
