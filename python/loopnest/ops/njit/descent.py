"""`descend` inside ``@njit``: activations, or a pair of njit functions.

x0 is an array or a number; lr and momentum are numbers or arrays of its shape, betas and alpha
numbers. Strings and flags are constants; ``record`` may be a number of steps, ``schedule`` an
array. The result is a `DescentTuple` with the fields of `Descent` but for ``path``.
"""

import math
from collections import namedtuple

import numpy as np
from numba import types
from numba.core.errors import TypingError

from loopnest.descent import descent as public
from loopnest.descent import schedule as schedules
from loopnest.kernels import descent as kernels
from loopnest.kernels.jit import jitable
from loopnest.kernels.objective import build
from loopnest.ops.njit.common import (
    at_least,
    beta,
    both_numbers,
    contiguous,
    flag,
    integer,
    is_none,
    literal,
    numbers,
    overloads,
    promoted,
)
from loopnest.ops.optimizer import LAST_STEP

DescentTuple = namedtuple(
    "DescentTuple", ["x", "fun", "grad", "steps", "converged", "trajectory", "diverged"]
)

_rows = jitable(schedules.correction_rows)


@jitable
def _table(factors, is_adam, beta1, beta2, steps):
    """The table of `loopnest.descent.schedule`, with its bits."""
    rows = max(_rows(beta1, beta2, steps), factors.size) if is_adam else factors.size
    table = np.empty((rows, 3))
    power1, power2 = 1.0, 1.0
    for t in range(rows):
        factor = factors[min(t, factors.size - 1)]
        table[t, 0], table[t, 1], table[t, 2] = factor, 1.0, factor
        if is_adam:
            power1 *= beta1
            power2 *= beta2
            root = math.sqrt(1.0 - power2)
            table[t, 0], table[t, 1] = factor * (root / (1.0 - power1)), root
    return table


def _factors(schedule):
    """Compiled function that checks the schedule and makes an array of it."""
    constant = getattr(schedule, "literal_value", getattr(schedule, "value", schedule))
    if is_none(schedule) or constant == "constant":
        return jitable(lambda schedule, steps: np.ones(1))
    if not (isinstance(schedule, types.Array) and schedule.ndim == 1):
        raise TypingError(
            f"descend: schedule is {schedule}; accepted inside @njit: 'constant' or an array of "
            "one factor for each step"
        )
    promoted("descend", "schedule", schedule.dtype)

    def take(schedule, steps):
        if schedule.size < max(steps, 1):
            raise ValueError("descend: schedule has not a factor for each step")
        table = schedule[: max(steps, 1)].astype(np.float64)
        for factor in table:
            if not (factor >= 0 and factor < math.inf):
                raise ValueError("descend: schedule is out of range; accepted: 0 or more")
        return table

    return jitable(take)


def _every(record):
    """Whether points are kept, and the compiled function that gives the steps between them."""
    if isinstance(record, types.Integer) and not isinstance(record, types.BooleanLiteral):
        return True, integer("descend", "record", record, 1, LAST_STEP)
    recorded = flag("descend", "record", record)
    steps = int(recorded)
    return recorded, jitable(lambda record: steps)


def _kernel(objective, method):
    """The compiled loop for an objective."""
    decays = method not in (kernels.ADAMW, kernels.LION)  # whatever the weight decay will be
    if isinstance(objective, types.BaseTuple) and len(objective) == 2:
        functions = [getattr(part, "dispatcher", None) for part in objective]
        if all(functions):
            return _loop(*functions, method, decays)
    if isinstance(objective, types.StringLiteral):
        name = literal("descend", "objective", objective, public.OBJECTIVES)
        return kernels.loop(public.OBJECTIVES.index(name), method, decays)
    if isinstance(objective, types.Function):
        number = public.objective_number(objective.typing_key)
        if number is not None:
            return kernels.loop(number, method, decays)
    raise TypingError(
        f"descend: objective is {objective}; accepted inside @njit: an activation "
        f"({', '.join(public.OBJECTIVES)}) as a constant name or the function, "
        "or a pair of njit functions"
    )


def _loop(f, df, method, decays):
    """The kernel around (f, df), which are compiled with the caller."""
    kernel, _ = build(f, df, 0.0, False, method, decays, False)
    return kernel


def _per_problem(name, argument, x0, dtype):
    """Compiled function ``(value, start)``: a checked number or array as a flat array."""
    real = np.float32 if dtype == types.float32 else np.float64
    message = f"descend: {name} is out of range; accepted: finite numbers of at least 0"
    wrong_shape = f"descend: {name} has not the shape of x0"

    @jitable
    def checked(values):
        for value in values:
            if not (value >= 0 and value < math.inf):
                raise ValueError(message)
        return values

    if isinstance(argument, types.Array):
        promoted("descend", name, argument.dtype)
        if not isinstance(x0, types.Array) or argument.ndim != x0.ndim:
            raise TypingError(
                f"descend: {name} is {argument}; accepted: a number, or the shape of x0"
            )
        convert = contiguous(argument, dtype)

        def take(value, start):
            if value.shape != start.shape:
                raise ValueError(wrong_shape)
            return checked(convert(value).reshape(value.size))

    else:
        number = argument.value if isinstance(argument, types.Omitted) else argument
        if not isinstance(number, (int, float)):
            promoted("descend", name, types.unliteral(number))

        def take(value, start):
            one = checked(np.full(1, real(value)))  # a start without elements hides no wrong number
            return np.full(start.size, one[0])

    return jitable(take)


def _start(x0):
    """(dtype, compiled function that makes a contiguous array of x0)."""
    if isinstance(x0, types.Array):
        dtype = promoted("descend", "x0", x0.dtype)
        return dtype, contiguous(x0, dtype)
    dtype = promoted("descend", "x0", types.unliteral(x0))
    real = np.float32 if dtype == types.float32 else np.float64
    return dtype, jitable(lambda x0: np.full(1, real(x0)))


def _finish(x0, record):
    """Compiled function that shapes the flat outputs like x0."""
    if isinstance(x0, types.Array):
        if record:
            path = jitable(lambda path, shape: path.reshape((path.shape[0], *shape)))
        else:
            path = jitable(lambda path, shape: None)

        def finish(shape, x, fun, grad, taken, converged, trajectory):
            values = x.reshape(shape), fun.reshape(shape), grad.reshape(shape)
            stopped = (converged != 0).reshape(shape)
            diverged = (~(np.isfinite(x) & np.isfinite(grad))).reshape(shape)
            kept = path(trajectory, shape)
            return DescentTuple(*values, taken.reshape(shape), stopped, kept, diverged)

    else:
        path = jitable((lambda p: p.reshape(p.size)) if record else (lambda p: None))

        def finish(shape, x, fun, grad, taken, converged, trajectory):
            diverged = not (math.isfinite(x[0]) and math.isfinite(grad[0]))
            kept = path(trajectory)
            return DescentTuple(x[0], fun[0], grad[0], taken[0], converged[0] != 0, kept, diverged)

    return jitable(finish)


@overloads(public.descend)
def descend(
    objective,
    x0,
    method="gd",
    lr=None,
    steps=None,
    momentum=0.0,
    convention="ema",
    record=False,
    tol=None,
    gradient=None,
    betas=(0.9, 0.999),
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    h=None,
    schedule="constant",
):
    op = "descend"
    numbers(op, alpha=alpha, eps=eps, weight_decay=weight_decay)
    if not is_none(tol):
        numbers(op, tol=tol)
    both = both_numbers(op, "betas", betas)
    if is_none(lr) or not isinstance(steps, (types.Integer, types.IntegerLiteral)):
        raise TypingError(f"{op}: lr is {lr}, steps is {steps}; accepted: rates and an integer")
    number_of_steps = integer(op, "steps", steps, 0, LAST_STEP)
    if not (is_none(gradient) and is_none(h)):
        raise TypingError(f"{op}: gradient and h are not to be had inside @njit; pass (f, df)")
    method_name = literal(op, "method", method, public.METHOD_NAMES)
    convention_name = literal(op, "convention", convention, public.CONVENTIONS)
    kind = public.method_number(op, method_name, convention_name)
    recorded, every = _every(record)
    kernel, factors = _kernel(objective, kind), _factors(schedule)
    dtype, prepare = _start(x0)
    rates, momenta = (
        _per_problem("lr", lr, x0, dtype),
        _per_problem("momentum", momentum, x0, dtype),
    )
    finish, never_stops = _finish(x0, recorded), is_none(tol)
    positive, enough = at_least(op, "eps or weight_decay"), at_least(op, "tol")
    beta1, beta2, keep = beta(op, "betas[0]"), beta(op, "betas[1]"), beta(op, "alpha")
    is_adam, is_rmsprop = method_name in ("adam", "adamw"), method_name == "rmsprop"
    if never_stops:
        enough = jitable(lambda tol: -1.0)
    real = np.float32 if dtype == types.float32 else np.float64

    def implementation(
        objective,
        x0,
        method="gd",
        lr=None,
        steps=None,
        momentum=0.0,
        convention="ema",
        record=False,
        tol=None,
        gradient=None,
        betas=(0.9, 0.999),
        alpha=0.99,
        eps=1e-8,
        weight_decay=0.0,
        h=None,
        schedule="constant",
    ):
        count = number_of_steps(steps)
        decays = both(betas)
        b1, b2, a = beta1(decays[0]), beta2(decays[1]), keep(alpha)
        options = positive(eps), positive(weight_decay), enough(tol)
        array = prepare(x0)
        rate, mu = rates(lr, array), momenta(momentum, array)
        start = array.reshape(array.size)
        second = a if is_rmsprop else b2
        table = _table(factors(schedule, count), is_adam, b1, second, count)
        x, fun, grad = np.empty(start.size, real), np.empty(start.size, real), np.empty_like(start)
        taken, converged = np.empty(start.size, np.int64), np.empty(start.size, np.uint8)
        kept = every(record)
        trajectory = np.empty((count // kept + 1 if recorded else 0, start.size), real)
        kernel(
            start, rate, mu, count, table, b1, second, *options, kept,
            np.zeros(1, np.int64), 0, start.size, x, fun, grad, taken, converged, trajectory,
        )  # fmt: skip
        return finish(array.shape, x, fun, grad, taken, converged, trajectory)

    return implementation
