"""Descents on scalar functions, many problems at once: `descend`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from loopnest.descent import objective_nd, python_loop
from loopnest.descent import schedule as _schedule
from loopnest.objectives import Objective
from loopnest.ops import activation
from loopnest.ops.optimizer import LAST_STEP
from loopnest.runtime import backend, checks, threads
from loopnest.runtime.copies import Copied

# Activations by the numbers that kernels know them by.
OBJECTIVES = (
    *("exp", "sigmoid", "tanh", "relu", "leaky_relu", "silu"),
    *("gelu", "gelu_tanh", "gelu_erf"),
)
# Methods likewise; "momentum" is the number of its convention.
CONVENTIONS = python_loop.CONVENTIONS
METHODS = ("gd", *CONVENTIONS, "rmsprop", "adagrad", "adam", "adamw", "lion")
METHOD_NAMES = ("gd", "momentum", *METHODS[4:])

# Work of one step in the units of threads.split: some 30 ns, for the next step waits for it.
_WORK = 250


class Path(str):
    """How the objective was computed: "built-in", "vector", "scalar" or "numpy".

    Attributes
    ----------
    reason : str
        Why it was this way and not a faster one.
    """

    reason: str

    def __new__(cls, name: str, reason: str) -> Path:
        path = super().__new__(cls, name)
        path.reason = reason
        return path

    def __reduce__(self) -> tuple:
        return Path, (str(self), self.reason)


@dataclass(frozen=True, eq=False)
class Descent(Copied):
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
        With ``record``, the points before steps 0, record, 2 record, ..., shape
        (steps // record + 1, ...); a problem that has stopped stays where it is.
    diverged : ndarray of bool or bool
        Whether the problem ended at a point or a slope that is NaN or infinite.
    path : Path
        How the objective was computed, a str: "built-in" (an activation), "vector" (the caller's
        formula, many problems in each instruction), "scalar" (the formula compiled number by
        number) or "numpy" (called from Python with up to 16,384 points); ``path.reason`` says
        why.
    """

    x: Any
    fun: Any
    grad: Any
    steps: Any
    converged: Any
    trajectory: Any
    diverged: Any
    path: Path


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


def _flat(array: np.ndarray, shape: tuple) -> np.ndarray:
    """One number for each problem; a copy, for Numba must not see a broadcast view's flags."""
    return np.array(np.broadcast_to(array, shape), order="C").reshape(-1)


def _rates(op: str, name: str, value: Any, dtype: np.dtype) -> np.ndarray:
    """Rates or momenta in the dtype of x0: finite, at least 0."""
    given = checks.array(op, name, value)
    with np.errstate(all="ignore"):
        cast = given.astype(dtype)
    _within(op, name, given, (cast >= 0) & (cast < np.inf), "finite numbers of at least 0")
    return cast


def _betas(op: str, name: str, value: Any) -> np.ndarray:
    """Decay rates, float64, from 0 to below 1."""
    given = checks.array(op, name, value).astype(np.float64)
    _within(op, name, given, (given >= 0) & (given < 1), "numbers from 0 to below 1")
    return given


def _within(op: str, name: str, given: np.ndarray, good: np.ndarray, accepted: str) -> None:
    if not good.all():
        wrong = np.asarray(given)[~good].flat[0]
        raise ValueError(f"{op}: {name} is or has {wrong}; accepted: {accepted}")


def _both_betas(op: str, value: Any) -> dict[str, np.ndarray]:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{op}: betas is {value!r}; accepted: two numbers or arrays, 0 to below 1")
    if len(value) != 2:
        raise ValueError(f"{op}: betas has {len(value)} parts; accepted: two numbers or arrays")
    return {f"betas[{i}]": _betas(op, f"betas[{i}]", value[i]) for i in range(2)}


def _common_shape(op: str, arrays: dict[str, np.ndarray]) -> tuple:
    try:
        return np.broadcast_shapes(*(a.shape for a in arrays.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise ValueError(
            f"{op}: shapes {shapes}; accepted: shapes that broadcast against each other"
        ) from None


def _every(op: str, record: Any) -> int:
    """Steps between the points that are kept, 0 for none."""
    if isinstance(record, (bool, np.bool_)):
        return int(record)
    try:
        return checks.integer(op, "record", record, 1, LAST_STEP)
    except TypeError:
        raise TypeError(
            f"{op}: record is {record!r}; accepted: True, False or a number of steps"
        ) from None


def _width(op: str, h: Any, dtype: np.dtype) -> tuple[float, bool]:
    """Step of the central differences, and whether it is relative to max(1, |x|)."""
    if h is None:
        return float(np.finfo(dtype).eps) ** (1 / 3), True
    width = checks.number(op, "h", h)
    if not width > 0.0 or not 0.0 < float(dtype.type(width)) < math.inf:
        raise ValueError(f"{op}: h is {h}; accepted: a finite number above 0")
    return width, False


def _user_loop(
    f: Any, df: Any, width: float, relative: bool, kind: int, decays: bool, arguments: tuple
) -> tuple[Any, Path]:
    """The function that runs the caller's objective, and what it is."""
    reason = "backend 'c' compiles no functions"
    if backend.get_backend() == "numba":
        from loopnest.kernels import objective

        run, name, reason = objective.loop(f, df, width, relative, kind, decays, arguments)
        if run is not None:
            return run, Path(name, reason)
    return partial(python_loop.loop(f, df, width, relative), 0, kind), Path("numpy", reason)


def descend(
    objective: Any,
    x0: Any,
    *,
    method: str = "gd",
    lr: Any,
    steps: int,
    momentum: Any = 0.0,
    convention: str = "ema",
    record: bool | int = False,
    tol: float | None = None,
    gradient: str | None = None,
    betas: tuple[Any, Any] = (0.9, 0.999),
    alpha: Any = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    h: float | None = None,
    schedule: Any = "constant",
) -> Descent:
    """Minimise a function by descent, for many starts and rates at once.

    Parameters
    ----------
    objective : str, function, pair of functions or Objective
        For functions of one variable: an activation of this library, by name ("gelu",
        "gelu_tanh" and "gelu_erf" are the forms of GELU) or as the function; a pair (f, df),
        plain Python or compiled by ``numba.njit``, of one number each; or f alone, with
        ``gradient``. For functions of n variables: a `loopnest.objectives.Objective`.
    x0 : array_like or number
        Starts. The work is in float32 if they are, else in float64. For an `Objective` the last
        axis is the point.
    method : str
        "gd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw" or "lion"; the last
        five as in `rmsprop_step` and so on.
    lr, momentum : array_like or number
        Learning rates and momenta b, finite and not negative; x0, lr, momentum, betas and alpha
        broadcast against each other (for an `Objective`, against x0 without its last axis),
        and each element of the result is a problem of its own. Momentum is used by
        "momentum", "nesterov" and "rmsprop".
    steps : int
        Number of steps; 0 gives back the start.
    convention : str
        What "momentum" means, g being the slope at x and v starting at 0:
        "ema": v = b v + (1 - b) g, x -= lr v;
        "heavy-ball" (PyTorch's): v = b v + g, x -= lr v;
        "lookback": v starts as the slope at x0; x -= lr v, then v = b v + (1 - b) g with g
        at the old x;
        "nesterov": v = b v + g, x -= lr (g + b v). Method "nesterov" always means this one.
    record : bool or int
        Keep the points in ``.trajectory``: True those of every step, k those of every k-th.
    tol : float, optional
        A problem stops where \\|slope\\| <= tol (of n variables: the largest of the slopes).
    gradient : {None, "central"}
        "central": slopes of f by central differences.
    betas : (float or array_like, float or array_like)
        Decay rates of "adam", "adamw" and "lion", each from 0 to below 1.
    alpha : float or array_like
        Decay rate of "rmsprop", from 0 to below 1.
    eps : float
        Added to the root in "rmsprop", "adagrad", "adam" and "adamw".
    weight_decay : float
        weight_decay * x is added to the slope; in "adamw" and "lion" x shrinks by
        1 - lr * weight_decay instead.
    h : float, optional
        Step of the central differences; by default the cube root of the dtype's epsilon times
        max(1, \\|x\\|).
    schedule : str, tuple or array_like
        What lr is multiplied by in step t = 0, 1, ...: "constant"; ("step", size, gamma):
        gamma^(t // size); ("exponential", gamma): gamma^t; "cosine" or ("cosine", end): from 1
        to end (0) along half a cosine over all steps; an array: its t-th element.

    Returns
    -------
    Descent
        With ``x``, ``fun``, ``grad``, ``steps``, ``converged``, ``trajectory``, ``diverged`` and
        ``path``. Its memory grows with the number of problems; with steps only if recorded.

    Raises
    ------
    TypeError, ValueError
        For unknown names, numbers out of range, an objective that is no function or gives no
        number, shapes that do not broadcast. An exception raised by the objective reaches the
        caller.

    Notes
    -----
    A problem that meets a NaN slope stops there, the others go on; ``diverged`` tells. On backend
    "numba" the formulas of plain functions are compiled, for vectors if they consist of
    arithmetic, comparisons and common functions, else number by number (``path`` tells;
    divisions by zero give inf, as in NumPy). Where that fails, and on backend "c", they are called
    with whole arrays or, if they do not take these, number by number. They must not depend
    on the order of the calls. In the vector form float32 stays float32; in the scalar form
    Python constants are float64. Slopes of "gelu" and "silu" are good to a few ulp, those of
    `gelu_derivative` to 2.

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
    is_points = isinstance(objective, Objective)
    number = None if is_points else objective_number(objective)
    checks.choice(op, "gradient", gradient, (None, "central"))
    kind = method_number(op, method, convention)
    start = checks.array(op, "x0", x0)
    if is_points:
        objective.check_start(op, start)
    arrays = {"x0": start[..., 0] if is_points else start}
    arrays |= {k: _rates(op, k, v, start.dtype) for k, v in (("lr", lr), ("momentum", momentum))}
    steps = checks.integer(op, "steps", steps, 0, LAST_STEP)
    every = _every(op, record)
    enough = -1.0 if tol is None else checks.number(op, "tol", tol, 0.0)
    arrays |= _both_betas(op, betas) | {"alpha": _betas(op, "alpha", alpha)}
    eps = checks.number(op, "eps", eps, 0.0)
    weight_decay = checks.number(op, "weight_decay", weight_decay, 0.0)
    factors = _schedule.factors(op, schedule, steps)
    width, relative = _width(op, h, start.dtype)
    f: Any = None
    df: Any = None
    if is_points:
        f, df = objective.functions(op, gradient)
    elif number is None:
        f, df = _functions(op, objective, gradient)
    else:
        _no_gradient(op, gradient)

    shape = _common_shape(op, arrays)
    size = math.prod(shape)
    rates = [_flat(arrays[k], shape) for k in ("lr", "momentum")]
    decoupled = method in ("adamw", "lion")
    decays = weight_decay != 0.0 and not decoupled
    dimension = start.shape[-1] if is_points else 0
    if is_points:
        starts = _flat(start, (*shape, dimension)).reshape(size, dimension)
    else:
        starts = _flat(start, shape)

    def run(problems: list[np.ndarray], beta1: float, beta2: float, outputs: tuple) -> Path:
        """All problems of one pair of decay rates."""
        is_adam = method in ("adam", "adamw")
        table = _schedule.table(factors, (beta1, beta2) if is_adam else None, steps)
        stop = np.zeros(1, np.int64)
        options = (steps, table, beta1, beta2, eps, weight_decay, enough, every, stop)

        def arguments(first: int, last: int) -> tuple:
            return (*problems, *options, first, last, *outputs)

        if is_points:
            call, *names = objective_nd.loop(
                f, df, width, relative, kind, decoupled, arguments(0, 0)
            )
            path = Path(*names)
        elif number is None:
            call, path = _user_loop(f, df, width, relative, kind, decays, arguments(0, 0))
        else:
            call = partial(backend.kernels.descent.descend, number, kind)
            path = Path("built-in", "an activation of this library")
        count = problems[0].shape[0]
        work = float(count) * (steps + 1) * max(dimension, 1) * _WORK
        # Whole runs of problems to each thread: the loops look at `stop`, and need no pieces for it.
        compute = partial(
            threads.split, lambda *piece: call(*arguments(*piece)), count, piece_work=math.inf
        )
        # A function of the caller may take any time; the loops of this library are known.
        long = threads.PIECE_WORK if path == "built-in" else threads.SERIAL_BELOW
        if path == "numpy":
            compute(work=0)
        elif work < long:
            compute(work=work)
        else:
            call(*arguments(0, 0))  # compiles here: a thread that does could not be stopped
            threads.interruptible(partial(compute, work=work), stop)
        return path

    rows = steps // every + 1 if every else 0
    outputs = _outputs(starts, rows)
    keep = "alpha" if method == "rmsprop" else "betas[1]"
    groups = _groups(arrays["betas[0]"], arrays[keep], shape)
    for beta1, beta2, chosen in groups:
        if chosen is None:
            path = run([starts, *rates], beta1, beta2, outputs)
            continue
        part = _outputs(starts[chosen], rows)
        path = run([a[chosen] for a in (starts, *rates)], beta1, beta2, part)
        for whole, piece in zip(outputs[:-1], part[:-1], strict=True):
            whole[chosen] = piece
        outputs[-1][:, chosen] = part[-1]
    return _result(shape, outputs, path, bool(every))


def _groups(
    beta1: np.ndarray, beta2: np.ndarray, shape: tuple
) -> list[tuple[float, float, np.ndarray | None]]:
    """Pairs of decay rates, each with the indices of its problems, None for all."""
    if beta1.size == beta2.size == 1:
        return [(beta1.item(), beta2.item(), None)]
    beta1, beta2 = _flat(beta1, shape), _flat(beta2, shape)
    if beta1.size == 0:
        return [(0.0, 0.0, None)]
    pairs, which = np.unique(np.stack([beta1, beta2]), axis=1, return_inverse=True)
    if pairs.shape[1] == 1:
        return [(float(pairs[0, 0]), float(pairs[1, 0]), None)]
    order = np.argsort(which.reshape(-1), kind="stable")
    counts = np.bincount(which.reshape(-1))
    pieces = np.split(order, np.cumsum(counts)[:-1])
    return [(float(a), float(b), piece) for (a, b), piece in zip(pairs.T, pieces, strict=True)]


def _outputs(starts: np.ndarray, rows: int) -> tuple[np.ndarray, ...]:
    """x, fun, grad, taken, converged and trajectory."""
    size = starts.shape[0]
    counts = np.zeros(size, np.int64), np.zeros(size, np.uint8)
    path = checks.output("descend", None, (rows, *starts.shape), starts.dtype)
    return (
        np.empty_like(starts),
        np.empty(size, starts.dtype),
        np.empty_like(starts),
        *counts,
        path,
    )


def _result(shape: tuple, outputs: tuple[np.ndarray, ...], path: Path, record: bool) -> Descent:
    x, fun, grad, taken, stopped, trajectory = outputs
    point = x.shape[1:]
    finite = np.isfinite(x) & np.isfinite(grad)
    diverged = ~(finite.all(axis=-1) if point else finite).reshape(shape)
    kept = trajectory.reshape((trajectory.shape[0], *shape, *point)) if record else None
    x, grad = (a.reshape((*shape, *point)) for a in (x, grad))
    fun, taken, converged = (a.reshape(shape) for a in (fun, taken, stopped.view(np.bool_)))
    if shape == ():
        first = (x, fun[()], grad) if point else (x[()], fun[()], grad[()])
        return Descent(*first, int(taken), bool(converged), kept, bool(diverged), path)
    return Descent(x, fun, grad, taken, converged, kept, diverged, path)
