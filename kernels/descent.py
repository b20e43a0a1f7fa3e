"""Whole descents: blocks of problems side by side, all steps while a block is in the L1 cache.

The twin is csrc/descent.c, operation for operation. `advance` goes once over a block: slope
and update of one step, which LLVM turns into vectors. A kernel is made for one objective and
one method (`loop`): with all of them inside, compiling would take half a minute. objective.py
makes the same kernel around functions of the caller. The updates are those of optimizer.py.

A problem stops where |slope| <= tol, or at a NaN. Without a tol only a NaN can stop one, which
is rare: then steps are taken in runs of CHUNK without looking, and a run that met a NaN
is taken back and done again with a look at every step.
"""

from functools import cache

import numpy as np
from numba.extending import overload

from loopnest.kernels import scalar as functions
from loopnest.kernels.jit import OPTIONS, block, by_dtype, kernel, own_name, scalar
from loopnest.kernels.optimizer import (
    average,
    average_square,
    decayed,
    lion_update,
    moved,
    scaled,
)
from loopnest.kernels.simd import bits_of, fma, peek, prefer_wide, select
from loopnest.kernels.simd_lanes import BLOCK, load_block, store
from loopnest.kernels.slope import gelu_slope, silu_slope

# The numbers of loopnest.descent.descent.OBJECTIVES, in that order
EXP, SIGMOID, TANH, RELU, LEAKY_RELU, SILU, GELU, GELU_TANH, GELU_ERF = range(9)
# and of loopnest.descent.descent.METHODS; momentum has one number for each convention.
GD, EMA, HEAVY_BALL, LOOKBACK, NESTEROV, RMSPROP, ADAGRAD, ADAM, ADAMW, LION = range(10)

WIDTH = 512  # a multiple of BLOCK
CHUNK = 64  # steps without a look

# The state of a block is one flat array of rows: of rows that were arrays of their own LLVM
# could not tell that they do not overlap. Unsigned: an index that may be negative costs a test.
_U = np.uint64
ROWS = 13
P, OLD, RAW, A, B, LR, RATE, MU, REST, SHRINK, SAVED_P, SAVED_A, SAVED_B = (
    _U(row * WIDTH) for row in range(ROWS)
)

# ---- objectives ----


def _pieces(real):
    """Slopes of the piecewise linear ones; 0 has that of negative numbers, NaN the slope NaN."""
    zero, one, low = real(0), real(1), real(0.01)  # leaky_relu's default

    @scalar
    def relu(x):
        return select(x > zero, one, select(x <= zero, zero, x))

    @scalar
    def leaky_relu_slope(x):
        return select(x > zero, one, select(x <= zero, low, x))

    @scalar
    def leaky_relu(x):
        return functions.leaky_relu(x, low)

    return relu, leaky_relu_slope, leaky_relu


_PIECES = list(zip(_pieces(np.float32), _pieces(np.float64), strict=True))
_relu_slope, _leaky_relu_slope, _leaky_relu = (by_dtype(*pair) for pair in _PIECES)

VALUES = (
    *(functions.exp, functions.sigmoid, functions.tanh, functions.relu, _leaky_relu),
    *(functions.silu, functions.gelu, functions.gelu_tanh, functions.gelu_erf),
)
SLOPES = (
    *(functions.exp, functions.sigmoid_derivative, functions.tanh_derivative, _relu_slope),
    *(_leaky_relu_slope, silu_slope, gelu_slope),
    *(functions.gelu_tanh_derivative, functions.gelu_erf_derivative),
)


# ---- one step of a block ----


@scalar
def update(method, p, g, a, b, rate, mu, rest, shrink, keep1, take1, keep2, take2, eps, zero):
    """The next (p, a, b) of one problem; ``method`` is a constant."""
    if method == GD:
        p = moved(p, g, rate)
    elif method == EMA:
        a = average(a, g, mu, rest)
        p = moved(p, a, rate)
    elif method == HEAVY_BALL:
        a = fma(mu, a, g)
        p = moved(p, a, rate)
    elif method == LOOKBACK:
        p = moved(p, a, rate)
        a = average(a, g, mu, rest)
    elif method == NESTEROV:
        a = fma(mu, a, g)
        p = moved(p, fma(mu, a, g), rate)
    elif method == RMSPROP:
        b = average_square(b, g, keep2, take2)
        a = fma(mu, a, scaled(g, b, eps))
        p = moved(p, a, rate)
    elif method == ADAGRAD:
        b = fma(g, g, b)
        p = moved(p, scaled(g, b, eps), rate)
    elif method == LION:
        p = lion_update(p * shrink, average(a, g, keep1, take1), rate, zero)
        a = average(a, g, keep2, take2)
    else:
        if method == ADAMW:
            p = p * shrink
        a = average(a, g, keep1, take1)
        b = average_square(b, g, keep2, take2)
        p = moved(p, scaled(a, b, eps), rate)
    return p, a, b


def make_advance(slope, METHOD, DECAYS, LOOKS):
    """Loop of one step over the n problems of a block; its first arguments are for `_chosen`.

    With LOOKS it also keeps the points and slopes before the step, and tells whether any
    problem has to stop there: floats, as integers, are in the order of their size, NaN last.
    """

    def advance(objective, method, decays, s, n, options):
        prefer_wide()
        tol, decay, keep1, take1, keep2, take2, eps = options
        zero, infinite = s.dtype.type(0), bits_of(s.dtype.type(np.inf))
        least, largest, decaying = infinite, infinite, decay != zero
        for i in range(_U(n)):
            p = s[P + i]
            raw = slope(p)
            if LOOKS:
                s[OLD + i] = p
                s[RAW + i] = raw
                size = bits_of(abs(raw))
                least = select(size < least, size, least)
                largest = select(size > largest, size, largest)
            g = decayed(raw, p, decay, decaying) if DECAYS else raw
            s[P + i], s[A + i], s[B + i] = update(
                *(METHOD, p, g, s[A + i], s[B + i], s[RATE + i], s[MU + i], s[REST + i]),
                *(s[SHRINK + i], keep1, take1, keep2, take2, eps, zero),
            )
        return least <= bits_of(tol) or largest > infinite

    return advance


def make_block_advance(slope, METHOD):
    """The loop of `make_advance` that neither decays nor looks, on Lanes: for our own slopes.

    It goes on to the end of the last BLOCK, over problems that are not in use.
    """

    def advance(objective, method, decays, s, n, options):
        _, _, keep1, take1, keep2, take2, eps = options
        zero = s.dtype.type(0)
        for i in range(0, n, BLOCK):
            p = load_block(s, P + i)
            p, a, b = update(
                *(METHOD, p, slope(p), load_block(s, A + i), load_block(s, B + i)),
                *(load_block(s, RATE + i), load_block(s, MU + i), load_block(s, REST + i)),
                *(load_block(s, SHRINK + i), keep1, take1, keep2, take2, eps, zero),
            )
            store(s, P + i, p)
            store(s, A + i, a)
            store(s, B + i, b)
        return False

    return advance


def make_values(value):
    """Loop that puts the values at x[first:last] into fun."""

    def values(objective, x, first, last, fun):
        prefer_wide()
        for i in range(_U(first), _U(last)):
            fun[i] = value(x[i])

    return values


def _chosen(make, constants):
    """Name for the loops that ``make(*numbers)`` gives: the first arguments of a call pick one.

    They must be constants there. Only what is called is compiled, and with its caller.
    """

    def name(*args):
        raise TypeError("for compiled code")

    def pick(*args):
        numbers = [getattr(argument, "literal_value", None) for argument in args[:constants]]
        return None if None in numbers else own_name(make(*numbers))

    overload(name, strict=False, prefer_literal=True, jit_options=OPTIONS)(pick)
    return name


def _advance(objective, method, decays):
    if not decays:
        return make_block_advance(SLOPES[objective], method)
    return make_advance(SLOPES[objective], method, decays, False)


advance = _chosen(_advance, 3)
advance_looking = _chosen(
    lambda o, method, decays: make_advance(SLOPES[o], method, decays, True), 3
)
values = _chosen(lambda objective: make_values(VALUES[objective]), 1)

# ---- the state of a block ----


@block
def aligned(memory):
    """From the first cache line on: vectors of 64 bytes across two lines cost twice the time."""
    return memory[-(memory.ctypes.data // memory.itemsize) % (64 // memory.itemsize) :]


@block
def enter(s, ids, start, lr, momentum, first, last):
    """Put problems first to last into the block; their number."""
    one = s.dtype.type(1)
    for i in range(_U(last - first)):
        k = _U(first) + i
        s[P + i], s[LR + i], s[MU + i], s[REST + i] = (
            start[k],
            lr[k],
            momentum[k],
            one - momentum[k],
        )
        s[A + i] = s[B + i] = s[RAW + i] = s.dtype.type(0)
        ids[i] = k
    return last - first


@block
def set_rates(s, n, factor, decay_factor):
    """RATE and SHRINK of a step; see the schedule of `descend`."""
    prefer_wide()
    one = s.dtype.type(1)
    for i in range(_U(n)):
        s[RATE + i] = s[LR + i] * factor
        s[SHRINK + i] = fma(-s[LR + i], decay_factor, one)


@block
def start_with_slopes(s, n, decay):
    """Go back to before a step that looked; A becomes the slopes there, as LOOKBACK has it."""
    for i in range(_U(n)):
        s[P + i] = s[OLD + i]
        s[A + i] = decayed(s[RAW + i], s[OLD + i], decay, decay != s.dtype.type(0))


@block
def keep(s, n):
    """Save what a run changes."""
    for i in range(_U(n)):
        s[SAVED_P + i], s[SAVED_A + i], s[SAVED_B + i] = s[P + i], s[A + i], s[B + i]


@block
def take_back(s, n):
    """Undo the run since `keep`."""
    for i in range(_U(n)):
        s[P + i], s[A + i], s[B + i] = s[SAVED_P + i], s[SAVED_A + i], s[SAVED_B + i]


@block
def met_nan(s, n):
    """Whether the point or the average of any problem is NaN."""
    prefer_wide()
    infinite = bits_of(s.dtype.type(np.inf))
    largest = infinite
    for i in range(_U(n)):
        p, a = bits_of(abs(s[P + i])), bits_of(abs(s[A + i]))
        largest = select(p > largest, p, largest)
        largest = select(a > largest, a, largest)
    return largest > infinite


@block
def note(s, ids, n, row, trajectory):
    """Write the points into a row of the trajectory."""
    for i in range(_U(n)):
        trajectory[row, ids[i]] = s[P + i]


@block
def leave(s, ids, i, t, row, tol, outputs):
    """Write the result of place i of the block, which stops at step t, where the loop looked."""
    x, grad, taken, converged, trajectory = outputs
    problem, p, raw = ids[i], s[OLD + i], s[RAW + i]
    x[problem], grad[problem], taken[problem] = p, raw, t
    converged[problem] = abs(raw) <= tol
    for later in range(row, trajectory.shape[0]):
        trajectory[later, problem] = p


@block
def leave_where_stopped(s, ids, n, t, row, tol, outputs):
    """Take the problems that stop at step t out of the block; the number of those left."""
    count = n
    for place in range(count):
        i = _U(count - 1 - place)
        if not abs(s[RAW + i]) > tol:
            leave(s, ids, i, t, row, tol, outputs)
            n -= 1
            ids[i] = ids[_U(n)]
            for at in range(_U(0), _U(ROWS * WIDTH), _U(WIDTH)):
                s[at + i] = s[at + _U(n)]
    return n


def make(OBJECTIVE, METHOD, DECAYS, compiler):
    """The kernel of one objective and method; DECAYS: weight decay is added to slopes."""

    @compiler
    def descend(
        start,
        lr,
        momentum,
        steps,
        schedule,
        beta1,
        beta2,
        eps,
        weight_decay,
        tol,
        every,
        stop,
        first,
        last,
        x,
        fun,
        grad,
        taken,
        converged,
        trajectory,
    ):
        """Problems first to last.

        schedule (rows, 3), float64: what the rate, eps and the rate in a decoupled weight decay
        are multiplied by in step t; the last row serves all later steps too. A negative tol
        never stops. A number in stop other than 0, whoever writes it meanwhile, ends the call:
        the outputs are not whole then. taken int64, converged uint8; trajectory gets the
        points before every ``every``-th step, or has no rows.
        """
        real = start.dtype.type
        enough, decay = real(tol), real(weight_decay)
        keep1, take1, keep2, take2 = real(beta1), real(1.0 - beta1), real(beta2), real(1.0 - beta2)
        outputs = x, grad, taken, converged, trajectory
        s, ids = aligned(np.zeros((ROWS + 1) * WIDTH, start.dtype)), np.empty(WIDTH, np.uint64)
        for block_start in range(first, last, WIDTH):
            if peek(stop) != 0:
                return
            block_end = min(block_start + WIDTH, last)
            n = enter(s, ids, start, lr, momentum, block_start, block_end)
            options = enough, decay, keep1, take1, keep2, take2, real(eps)
            if METHOD == LOOKBACK:
                advance_looking(OBJECTIVE, METHOD, DECAYS, s, n, options)
                start_with_slopes(s, n, decay)
            t, until, looks = 0, 0, False
            while t < steps and n > 0:
                if peek(stop) != 0:  # at each step: a function of the caller may be slow
                    return
                if t == until:
                    since, until, looks = t, min(t + CHUNK, steps), tol >= 0.0
                    if not looks:
                        keep(s, n)
                if every > 0 and t % every == 0:
                    note(s, ids, n, t // every, trajectory)
                if t < schedule.shape[0]:
                    set_rates(s, n, real(schedule[t, 0]), real(weight_decay * schedule[t, 2]))
                    epsilon = real(eps * schedule[t, 1])
                    options = enough, decay, keep1, take1, keep2, take2, epsilon
                if not looks:
                    advance(OBJECTIVE, METHOD, DECAYS, s, n, options)
                elif advance_looking(OBJECTIVE, METHOD, DECAYS, s, n, options):
                    row = t // every + 1 if every > 0 else 0
                    n = leave_where_stopped(s, ids, n, t, row, enough, outputs)
                t += 1
                if t == until and not looks and met_nan(s, n):
                    take_back(s, n)
                    t, looks = since, True
            if every > 0 and t % every == 0 and n > 0:
                note(s, ids, n, t // every, trajectory)
            advance_looking(OBJECTIVE, METHOD, DECAYS, s, n, options)  # for the slopes at the end
            for i in range(_U(n)):
                leave(s, ids, i, t, trajectory.shape[0], enough, outputs)
            values(OBJECTIVE, x, block_start, block_end, fun)

    return descend


@cache
def loop(objective, method, decays):
    """The kernel of an activation and a method, by their numbers; cached on disk."""
    return make(objective, method, bool(decays), kernel)


def descend(objective, method, start, lr, momentum, steps, schedule, *rest):
    """Run the kernel for these numbers, see `make`."""
    weight_decay = rest[3]
    decays = weight_decay != 0.0 and method not in (ADAMW, LION)
    loop(objective, method, decays)(start, lr, momentum, steps, schedule, *rest)
