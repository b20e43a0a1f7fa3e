"""Descents on scalar functions, many problems at once: `descend`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from loopnest import activation, backend, checks, numpy_descent, threads
from loopnest.optimizer import LAST_STEP, beta, both_betas

# Activations by the numbers that kernels know them by.
OBJECTIVES = (
    *("exp", "sigmoid", "tanh", "relu", "leaky_relu", "silu"),
    *("gelu", "gelu_tanh", "gelu_erf"),
)
# Methods likewise; "momentum" is the number of its convention.
CONVENTIONS = numpy_descent.CONVENTIONS
METHODS = ("gd", *CONVENTIONS, "rmsprop", "adagrad", "adam", "adamw", "lion")
METHOD_NAMES = ("gd", "momentum", *METHODS[4:])

# Work of one step in the units of threads.split: some 30 ns, for the next step waits for it.
_WORK = 250


@dataclass(frozen=True, eq=False)
class Descent:
    """What `descend` found, in arrays of the problems' broadcast shape (numbers for numbers).

    Attributes
    ----------
    x, fun, grad : ndarray or number
        The last points, and value and slope of the objective there.
    steps : ndarray of int64 or int
        Steps made.
    converged : ndarray of bool or bool
        Whether \\|grad\\| <= tol; False without a tol.
    trajectory : ndarray or None
        With ``record``, all points, shape (steps + 1, ...); a problem that has stopped stays.
    """

    x: Any
    fun: Any
    grad: Any
    steps: Any
    converged: Any
    trajectory: Any


def method_number(op: str, method: Any, convention: Any) -> int:
    """The number that kernels know the method by."""
    checks.choice(op, "method", method, METHOD_NAMES)
    checks.choice(op, "convention", convention, CONVENTIONS)
    return METHODS.index(convention if method == "momentum" else method)


def objective_number(objective: Any) -> int | None:
    """The number of an activation given by function or by name, None for other objectives."""
    for number, name in enumerate(OBJECTIVES):
        if callable(objective) and objective is getattr(activation, name, None):
            return number
    if not isinstance(objective, str):
        return None
    return OBJECTIVES.index(checks.choice("descend", "objective", objective, OBJECTIVES))


_ACCEPTED = (
    f"an activation ({', '.join(OBJECTIVES)}) by name or as the function, "
    "a pair (f, df) of functions, or a function with gradient='central'"
)


def _functions(op: str, objective: Any, gradient: Any) -> tuple[Callable, Callable | None]:
    """(f, df) of an objective that is no activation; df None for central differences."""
    if isinstance(objective, (tuple, list)):
        if len(objective) != 2:
            raise ValueError(f"{op}: objective has {len(objective)} parts; accepted: {_ACCEPTED}")
        if not all(map(callable, objective)):
            raise TypeError(f"{op}: objective is {objective!r}; accepted: {_ACCEPTED}")
        _no_gradient(op, gradient)
        return objective[0], objective[1]
    if not callable(objective):
        raise TypeError(f"{op}: objective is {objective!r}; accepted: {_ACCEPTED}")
    if gradient is None:
        raise ValueError(f"{op}: objective is a function without derivative; accepted: {_ACCEPTED}")
    return objective, None


def _no_gradient(op: str, gradient: Any) -> None:
    if gradient is not None:
        raise ValueError(
            f"{op}: gradient is {gradient!r} and the objective has a derivative; accepted: None"
        )


def _real(op: str, name: str, value: Any, dtype: np.dtype) -> np.ndarray:
    """Rates or momenta in the dtype of x0: finite, at least 0."""
    given = checks.array(op, name, value)
    with np.errstate(all="ignore"):
        cast = given.astype(dtype)
    wrong = ~((cast >= 0) & (cast < np.inf))
    if wrong.any():
        raise ValueError(
            f"{op}: {name} is or has {given[wrong].flat[0]}; accepted: finite numbers of at least 0"
        )
    return cast


def _problems(op: str, x0: Any, lr: Any, momentum: Any) -> tuple[tuple, list[np.ndarray]]:
    """The broadcast shape, and start, rate and momentum of each problem, flat."""
    start = checks.array(op, "x0", x0)
    arrays = [
        start,
        *(_real(op, k, v, start.dtype) for k, v in (("lr", lr), ("momentum", momentum))),
    ]
    try:
        arrays = np.broadcast_arrays(*arrays)  # type: ignore[assignment]
    except ValueError:
        shapes = ", ".join(
            f"{k} {a.shape}" for k, a in zip(("x0", "lr", "momentum"), arrays, strict=True)
        )
        raise ValueError(
            f"{op}: shapes {shapes}; accepted: shapes that broadcast against each other"
        ) from None
    # Copies: NumPy warns about broadcast views whose flags Numba reads.
    return arrays[0].shape, [np.array(a, order="C").reshape(-1) for a in arrays]


def correction_rows(beta1: float, beta2: float, steps: int) -> int:
    """Steps after which both 1 - beta^t round to 1, or all; compiled for ``@njit`` too."""
    largest = max(beta1, beta2)
    if largest == 0.0:
        return min(steps, 1)
    needed = math.log(2.0**-54) / math.log(largest) + 2.0
    return int(needed) if needed < steps else steps


def _corrections(beta1: float, beta2: float, steps: int) -> np.ndarray:
    """Rows r/(1 - beta1^t), r = sqrt(1 - beta2^t), the powers by repeated multiplication."""
    rows = correction_rows(beta1, beta2, steps)
    powers = np.multiply.accumulate(np.tile([beta1, beta2], (rows, 1)), axis=0)
    table = 1.0 - powers
    table[:, 1] = np.sqrt(table[:, 1])
    table[:, 0] = table[:, 1] / table[:, 0]
    return table


def _width(op: str, h: Any, dtype: np.dtype) -> tuple[float, bool]:
    """Step of the central differences, and whether it is relative to max(1, |x|)."""
    if h is None:
        return float(np.finfo(dtype).eps) ** (1 / 3), True
    width = checks.number(op, "h", h)
    if not width > 0.0 or not 0.0 < float(dtype.type(width)) < math.inf:
        raise ValueError(f"{op}: h is {h}; accepted: a finite number above 0")
    return width, False


def _user_loop(f: Any, df: Any, width: float, relative: bool, arguments: tuple) -> Any:
    """The function that runs the caller's objective, and whether it may run on threads."""
    if backend.get_backend() == "numba":
        from loopnest.kernels import objective

        compiled = objective.loop(f, df, width, relative, arguments)
        if compiled is not None:
            return compiled, True
    return numpy_descent.loop(f, df, width, relative), False


def descend(
    objective: Any,
    x0: Any,
    *,
    method: str = "gd",
    lr: Any,
    steps: int,
    momentum: Any = 0.0,
    convention: str = "ema",
    record: bool = False,
    tol: float | None = None,
    gradient: str | None = None,
    betas: tuple[float, float] = (0.9, 0.999),
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    h: float | None = None,
) -> Descent:
    """Minimise a function of one variable by descent, for many starts and rates at once.

    Parameters
    ----------
    objective : str, function or pair of functions
        An activation of this library, by name ("gelu", "gelu_tanh" and "gelu_erf" are the
        forms of GELU) or as the function; a pair (f, df), plain Python or compiled by
        ``numba.njit``, of one number each; or f alone, with ``gradient``.
    x0 : array_like or number
        Starts. The work is in float32 if they are, else in float64.
    method : str
        "gd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw" or "lion"; the last
        five as in `rmsprop_step` and so on.
    lr, momentum : array_like or number
        Learning rates and momenta b, finite and not negative; x0, lr and momentum broadcast
        against each other, and each element of the result is a problem of its own. Momentum
        is used by "momentum", "nesterov" and "rmsprop".
    steps : int
        Number of steps; 0 gives back the start.
    convention : str
        What "momentum" means, g being the slope at x and v starting at 0:
        "ema": v = b v + (1 - b) g, x -= lr v;
        "heavy-ball" (PyTorch's): v = b v + g, x -= lr v;
        "lookback": v starts as the slope at x0; x -= lr v, then v = b v + (1 - b) g with g
        at the old x;
        "nesterov": v = b v + g, x -= lr (g + b v). Method "nesterov" always means this one.
    record : bool
        Keep all points in ``.trajectory``.
    tol : float, optional
        A problem stops where \\|slope\\| <= tol.
    gradient : {None, "central"}
        "central": slopes of f by central differences.
    betas : (float, float)
        Decay rates of "adam", "adamw" and "lion", each from 0 to below 1.
    alpha : float
        Decay rate of "rmsprop", from 0 to below 1.
    eps : float
        Added to the root in "rmsprop", "adagrad", "adam" and "adamw".
    weight_decay : float
        weight_decay * x is added to the slope; in "adamw" and "lion" x shrinks by
        1 - lr * weight_decay instead.
    h : float, optional
        Step of the central differences; by default the cube root of the dtype's epsilon times
        max(1, \\|x\\|).

    Returns
    -------
    Descent
        With ``x``, ``fun``, ``grad``, ``steps``, ``converged`` and ``trajectory``.

    Raises
    ------
    TypeError, ValueError
        For unknown names, numbers out of range, an objective that is no function, shapes that
        do not broadcast. An exception raised by the objective reaches the caller.

    Notes
    -----
    On backend "numba" plain functions are compiled (divisions by zero then give inf, as in
    NumPy); where that fails, and on backend "c", they are called with whole arrays or, if they
    do not take these, number by number. They must not depend on the order of the calls.

    Heavy ball: Polyak, 1964; Nesterov, 1983, in the form of Sutskever et al., ICML 2013; the
    others are named at their step functions.

    Examples
    --------
    >>> import loopnest as ln
    >>> found = ln.descend("gelu", 0.0, lr=1.0, steps=3, record=True)
    >>> [round(float(x), 5) for x in found.trajectory]
    [0.0, -0.5, -0.62078, -0.6765]
    """
    op = "descend"
    number = objective_number(objective)
    checks.choice(op, "gradient", gradient, (None, "central"))
    kind = method_number(op, method, convention)
    shape, problems = _problems(op, x0, lr, momentum)
    steps = checks.integer(op, "steps", steps, 0, LAST_STEP)
    if not isinstance(record, (bool, np.bool_)):
        raise TypeError(f"{op}: record is {record!r}; accepted: True or False")
    enough = -1.0 if tol is None else checks.number(op, "tol", tol, 0.0)
    beta1, beta2 = both_betas(op, betas)
    alpha = beta(op, "alpha", alpha)
    eps = checks.number(op, "eps", eps, 0.0)
    weight_decay = checks.number(op, "weight_decay", weight_decay, 0.0)
    dtype = problems[0].dtype
    width, relative = _width(op, h, dtype)
    f = df = None
    if number is None:
        f, df = _functions(op, objective, gradient)
    else:
        _no_gradient(op, gradient)

    is_adam = method in ("adam", "adamw")
    corrections = _corrections(beta1, beta2, steps if is_adam else 0)
    beta2 = alpha if method == "rmsprop" else beta2
    options = (steps, corrections, beta1, beta2, eps, weight_decay, enough, int(record))
    outputs = _outputs(problems[0].size, steps if record else -1, dtype)

    def arguments(first: int, last: int) -> tuple:
        return (number or 0, kind, *problems, *options, first, last, *outputs)

    run, threaded = backend.kernels.descent.descend, True
    if number is None:
        run, threaded = _user_loop(f, df, width, relative, arguments(0, 0))
    work = float(problems[0].size) * (steps + 1) * _WORK if threaded else 0.0
    threads.split(lambda *piece: run(*arguments(*piece)), problems[0].size, work)
    return _result(shape, outputs, bool(record))


def _outputs(size: int, steps: int, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """x, fun, grad, taken, converged and trajectory (no rows for steps -1)."""
    values = [np.empty(size, dtype) for _ in range(3)]
    counts = np.zeros(size, np.int64), np.zeros(size, np.uint8)
    return (*values, *counts, np.empty((steps + 1, size), dtype))


def _result(shape: tuple, outputs: tuple[np.ndarray, ...], record: bool) -> Descent:
    *columns, stopped, trajectory = outputs
    path = trajectory.reshape(trajectory.shape[0], *shape) if record else None
    arrays = (a.reshape(shape) for a in (*columns, stopped.view(np.bool_)))
    x, fun, grad, taken, converged = arrays
    if shape == ():
        return Descent(x[()], fun[()], grad[()], int(taken), bool(converged), path)
    return Descent(x, fun, grad, taken, converged, path)
