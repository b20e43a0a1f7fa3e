"""Functions of n variables with known minima, for `descend`: examples, tests, benchmarks.

An `Objective` holds a function and its gradient, plain Python that Numba compiles where it is
there. The ready ones are `rosenbrock`, `beale`, `himmelblau`; `quadratic` and
`logistic_regression` make one of given data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from loopnest.runtime import checks


@dataclass(frozen=True, eq=False)
class Objective:
    """A function of n variables, to minimise with `descend`.

    Attributes
    ----------
    f : callable
        f(x) -> number; x is an array of n numbers. Plain Python or compiled by ``numba.njit``.
    gradient : callable or None
        gradient(x) -> n numbers (tuple or array), or gradient(x, out), which writes them. None:
        `descend` takes ``gradient="central"``.
    dimension : int or None
        n; None for any.
    minima : tuple of tuple of float
        Known points of least value.
    minimum : float or None
        The value there.
    name : str
        For messages.

    Notes
    -----
    What the functions refer to must not change: they are compiled once.

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> from loopnest.objectives import Objective
    >>> bowl = Objective(lambda x: x[0] ** 2 + x[1] ** 2, lambda x: (2 * x[0], 2 * x[1]))
    >>> found = ln.descend(bowl, np.array([[1.0, 2.0]]), lr=0.25, steps=50)
    >>> bool(np.abs(found.x).max() < 1e-12)
    True
    """

    f: Callable[..., Any]
    gradient: Callable[..., Any] | None = None
    dimension: int | None = None
    minima: tuple[tuple[float, ...], ...] = ()
    minimum: float | None = None
    name: str = "objective"

    def __post_init__(self) -> None:
        if not callable(self.f) or not (self.gradient is None or callable(self.gradient)):
            raise TypeError(
                f"Objective: f is {self.f!r}, gradient is {self.gradient!r}; accepted: functions"
            )

    def check_start(self, op: str, start: np.ndarray) -> None:
        """Starts must have a last axis of n numbers."""
        wanted = self.dimension if self.dimension is not None else "n >= 1"
        if (
            start.ndim == 0
            or start.shape[-1] == 0
            or (self.dimension is not None and start.shape[-1] != self.dimension)
        ):
            raise ValueError(
                f"{op}: x0 has shape {start.shape}; accepted for {self.name}: (..., {wanted})"
            )

    def functions(self, op: str, gradient: Any) -> tuple[Callable, Callable | None]:
        """f and its gradient, None for central differences."""
        if gradient == "central":
            return self.f, None
        if self.gradient is None:
            raise ValueError(
                f"{op}: {self.name} has no gradient; accepted: one, or gradient='central'"
            )
        return self.f, self.gradient


def _rosenbrock(x):
    total = 0.0 * x[0]
    for i in range(x.size - 1):
        total += 100.0 * (x[i + 1] - x[i] * x[i]) ** 2 + (1.0 - x[i]) ** 2
    return total


def _rosenbrock_gradient(x, out):
    out[:] = 0.0
    for i in range(x.size - 1):
        slope = 200.0 * (x[i + 1] - x[i] * x[i])
        out[i] += -2.0 * x[i] * slope - 2.0 * (1.0 - x[i])
        out[i + 1] += slope


def _beale(x):
    a, b = x[0], x[1]
    first = 1.5 - a + a * b
    second = 2.25 - a + a * b**2
    third = 2.625 - a + a * b**3
    return first**2 + second**2 + third**2


def _beale_gradient(x):
    a, b = x[0], x[1]
    first, second, third = 1.5 - a + a * b, 2.25 - a + a * b**2, 2.625 - a + a * b**3
    by_a = 2.0 * (first * (b - 1.0) + second * (b**2 - 1.0) + third * (b**3 - 1.0))
    by_b = 2.0 * a * (first + 2.0 * b * second + 3.0 * b**2 * third)
    return by_a, by_b


def _himmelblau(x):
    a, b = x[0], x[1]
    return (a * a + b - 11.0) ** 2 + (a + b * b - 7.0) ** 2


def _himmelblau_gradient(x):
    a, b = x[0], x[1]
    first, second = a * a + b - 11.0, a + b * b - 7.0
    return 4.0 * a * first + 2.0 * second, 2.0 * first + 4.0 * b * second


#: Rosenbrock, Computer Journal 3, 1960: a curved valley; n >= 2, least at (1, ..., 1).
rosenbrock = Objective(_rosenbrock, _rosenbrock_gradient, None, ((1.0, 1.0),), 0.0, "rosenbrock")
#: Beale, 1958: steep walls around flat ground; least at (3, 1/2).
beale = Objective(_beale, _beale_gradient, 2, ((3.0, 0.5),), 0.0, "beale")
#: Himmelblau, 1972: four equal minima.
himmelblau = Objective(
    _himmelblau,
    _himmelblau_gradient,
    2,
    (
        (3.0, 2.0),
        (-2.8051180869527448, 3.1313125182505730),
        (-3.7793102533777469, -3.2831859912861694),
        (3.5844283403304917, -1.8481265269644034),
    ),
    0.0,
    "himmelblau",
)


def quadratic(a: Any, b: Any = None) -> Objective:
    """x A x / 2 - b x for a symmetric positive definite matrix A; least where A x = b.

    Parameters
    ----------
    a : array_like, (n, n)
    b : array_like, (n,), optional
        Zeros by default.

    Raises
    ------
    ValueError
        For other shapes, and matrices that are not symmetric and positive definite.
    """
    op = "quadratic"
    matrix = checks.array(op, "a", a, 2).astype(np.float64)
    n = matrix.shape[0]
    vector = np.zeros(n) if b is None else checks.array(op, "b", b, 1).astype(np.float64)
    if matrix.shape != (n, n) or n == 0 or vector.shape != (n,):
        raise ValueError(
            f"{op}: a has shape {matrix.shape}, b {vector.shape}; accepted: (n, n) and (n,)"
        )
    try:
        if not np.allclose(matrix, matrix.T):
            raise np.linalg.LinAlgError
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        raise ValueError(
            f"{op}: a is not symmetric and positive definite; accepted: a matrix that is"
        ) from None

    def f(x):
        total = 0.0
        for i in range(n):
            row = 0.0
            for j in range(n):
                row += matrix[i, j] * x[j]
            total += (0.5 * row - vector[i]) * x[i]
        return total

    def gradient(x, out):
        for i in range(n):
            row = -vector[i]
            for j in range(n):
                row += matrix[i, j] * x[j]
            out[i] = row

    best = np.linalg.solve(matrix, vector)
    point = tuple(float(v) for v in best)
    return Objective(f, gradient, n, (point,), float(-0.5 * vector @ best), "quadratic")


def logistic_regression(features: Any, labels: Any, penalty: float = 1e-2) -> Objective:
    """Mean logistic loss plus penalty |w|^2/2, over the weights w.

    Parameters
    ----------
    features : array_like, (samples, n)
    labels : array_like of 0 and 1, (samples,)
    penalty : float
        Above 0, so that there is one minimum; it is found by Newton's method, to float64's end.

    Raises
    ------
    ValueError
        For other shapes, labels or penalties.
    """
    op = "logistic_regression"
    rows = checks.array(op, "features", features, 2).astype(np.float64)
    sign = 2.0 * checks.array(op, "labels", labels, 1).astype(np.float64) - 1.0
    samples, n = rows.shape
    if sign.shape != (samples,) or not rows.size:
        raise ValueError(
            f"{op}: features has shape {rows.shape}, labels {sign.shape}; "
            "accepted: (samples, n) and (samples,)"
        )
    if not (np.abs(sign) == 1.0).all():
        raise ValueError(
            f"{op}: labels has {(sign[np.abs(sign) != 1.0][0] + 1) / 2}; accepted: 0, 1"
        )
    penalty = checks.number(op, "penalty", penalty, 0.0)
    if penalty == 0.0:
        raise ValueError(f"{op}: penalty is 0; accepted: a number above 0")

    def f(w):
        total = 0.0
        for k in range(samples):
            margin = 0.0
            for i in range(n):
                margin += rows[k, i] * w[i]
            margin *= sign[k]
            # log(1 + exp(-m)) without overflow
            total += math.log1p(math.exp(-abs(margin))) + max(-margin, 0.0)
        size = 0.0
        for i in range(n):
            size += w[i] * w[i]
        return total / samples + 0.5 * penalty * size

    def gradient(w, out):
        for i in range(n):
            out[i] = penalty * w[i]
        for k in range(samples):
            margin = 0.0
            for i in range(n):
                margin += rows[k, i] * w[i]
            small = math.exp(-abs(margin))
            wrong = 1.0 / (1.0 + small) if margin * sign[k] < 0.0 else small / (1.0 + small)
            for i in range(n):
                out[i] -= sign[k] * wrong * rows[k, i] / samples

    best = _newton(rows, sign, penalty)
    point = tuple(float(v) for v in best)
    return Objective(f, gradient, n, (point,), float(f(best)), "logistic_regression")


def _newton(rows: np.ndarray, sign: np.ndarray, penalty: float) -> np.ndarray:
    """The weights of least loss."""
    w = np.zeros(rows.shape[1])

    def loss(w: np.ndarray) -> float:
        return float(np.logaddexp(0, -sign * (rows @ w)).mean() + 0.5 * penalty * w @ w)

    for _ in range(100):
        margin = sign * (rows @ w)
        wrong = np.exp(-np.logaddexp(0, margin))
        slope = penalty * w - rows.T @ (sign * wrong) / sign.size
        curvature = (rows.T * (wrong * (1.0 - wrong))) @ rows / sign.size
        step = np.linalg.solve(curvature + penalty * np.eye(w.size), slope)
        scale = 1.0
        while loss(w - scale * step) > loss(w) and scale > 1e-10:
            scale /= 2
        w = w - scale * step
        if np.abs(step).max() <= 1e-15 * (1.0 + np.abs(w).max()):
            break
    return w
