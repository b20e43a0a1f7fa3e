"""Whole descents, one problem after the other, all steps with the state in registers.

The twin is csrc/descent.c, operation for operation. Objectives and methods are numbers;
objective.py compiles the same loop around functions of the caller, which it puts in the
place of `value` and `slope`. The updates of one step are those of optimizer.py.
"""

from loopnest.kernels import scalar as functions
from loopnest.kernels.jit import kernel, scalar
from loopnest.kernels.optimizer import (
    average,
    average_square,
    decayed,
    lion_update,
    moved,
    scaled,
)
from loopnest.kernels.simd import fma, select

# The numbers of loopnest.descent.OBJECTIVES, in that order
EXP, SIGMOID, TANH, RELU, LEAKY_RELU, SILU, GELU, GELU_TANH, GELU_ERF = range(9)
# and of loopnest.descent.METHODS; momentum has one number for each convention.
GD, EMA, HEAVY_BALL, LOOKBACK, NESTEROV, RMSPROP, ADAGRAD, ADAM, ADAMW, LION = range(10)

NEGATIVE_SLOPE = 0.01  # leaky_relu's default


@scalar
def value(objective, x, real):
    """The activation with this number."""
    if objective == EXP:
        return functions.exp(x)
    if objective == SIGMOID:
        return functions.sigmoid(x)
    if objective == TANH:
        return functions.tanh(x)
    if objective == RELU:
        return functions.relu(x)
    if objective == LEAKY_RELU:
        return functions.leaky_relu(x, real(NEGATIVE_SLOPE))
    if objective == SILU:
        return functions.silu(x)
    if objective == GELU:
        return functions.gelu(x)
    if objective == GELU_TANH:
        return functions.gelu_tanh(x)
    return functions.gelu_erf(x)


@scalar
def slope(objective, x, real):
    """Its derivative; 0 has the slope of negative numbers, NaN the slope NaN."""
    if objective == EXP:
        return functions.exp(x)
    if objective == SIGMOID:
        return functions.sigmoid_derivative(x)
    if objective == TANH:
        return functions.tanh_derivative(x)
    if objective == RELU:
        return select(x > real(0), real(1), select(x <= real(0), real(0), x))
    if objective == LEAKY_RELU:
        negative = select(x <= real(0), real(NEGATIVE_SLOPE), x)
        return select(x > real(0), real(1), negative)
    if objective == SILU:
        return functions.silu_derivative(x)
    if objective == GELU:
        return functions.gelu_derivative(x)
    if objective == GELU_TANH:
        return functions.gelu_tanh_derivative(x)
    return functions.gelu_erf_derivative(x)


@kernel
def descend(
    objective,
    method,
    start,
    lr,
    momentum,
    steps,
    corrections,
    beta1,
    beta2,
    eps,
    weight_decay,
    tol,
    record,
    first,
    last,
    x,
    fun,
    grad,
    taken,
    converged,
    trajectory,
):
    """Problems first to last of an activation.

    corrections (rows, 2), float64, for Adam: r/(1 - beta1^t) and r = sqrt(1 - beta2^t) of step t; the
    last row serves all later steps too. A problem stops where |slope| <= tol; a negative tol
    never stops. taken int64, converged uint8; trajectory (steps + 1, problems) is written if
    record is set.
    """
    real = start.dtype.type
    zero, one, epsilon, enough = real(0), real(1), real(eps), real(tol)
    keep1, take1 = real(beta1), real(1.0 - beta1)
    keep2, take2 = real(beta2), real(1.0 - beta2)
    decoupled = method in (ADAMW, LION)
    decay, decays = real(weight_decay), weight_decay != 0.0 and not decoupled
    end = corrections.shape[0] - 1
    for i in range(first, last):
        p, rate, mu, a, b = start[i], lr[i], momentum[i], zero, zero
        rest = one - mu
        shrink = one - rate * decay
        t = 0
        while True:
            if record:
                trajectory[t, i] = p
            raw = slope(objective, p, real)
            if abs(raw) <= enough or t == steps:
                break
            g = decayed(raw, p, decay, decays)
            if method == GD:
                p = moved(p, g, rate)
            elif method == EMA:
                a = average(a, g, mu, rest)
                p = moved(p, a, rate)
            elif method == HEAVY_BALL:
                a = fma(mu, a, g)
                p = moved(p, a, rate)
            elif method == LOOKBACK:
                if t == 0:
                    a = g
                p = moved(p, a, rate)
                a = average(a, g, mu, rest)
            elif method == NESTEROV:
                a = fma(mu, a, g)
                p = moved(p, fma(mu, a, g), rate)
            elif method == RMSPROP:
                b = average_square(b, g, keep2, take2)
                a = fma(mu, a, scaled(g, b, epsilon))
                p = moved(p, a, rate)
            elif method == ADAGRAD:
                b = fma(g, g, b)
                p = moved(p, scaled(g, b, epsilon), rate)
            elif method == LION:
                blend = average(a, g, keep1, take1)
                a = average(a, g, keep2, take2)
                p = lion_update(p * shrink, blend, rate, zero)
            else:
                if decoupled:
                    p = p * shrink
                a = average(a, g, keep1, take1)
                b = average_square(b, g, keep2, take2)
                row = min(t, end)
                scale, root = real(corrections[row, 0]), real(corrections[row, 1])
                p = moved(p, scaled(a, b, epsilon * root), rate * scale)
            t += 1
        x[i], fun[i], grad[i] = p, value(objective, p, real), raw
        taken[i], converged[i] = t, abs(raw) <= enough
        if record:
            for rest_of_run in range(t + 1, steps + 1):
                trajectory[rest_of_run, i] = p
