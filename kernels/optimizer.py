"""Optimizer steps over contiguous 1-D arrays, in place; PyTorch's formulas.

The twin is csrc/optimizer.c, operation for operation. Options come as float64; what is
derived from them (1 - beta, lr/correction) is computed in float64 and then rounded to the
type of the arrays. Flags say which optional arrays are in use, the others have no elements.
The update functions are generic in the type; descent.py iterates them.
"""

import math

import numpy as np

from loopnest.kernels.jit import kernel, scalar
from loopnest.kernels.simd import fma, select
from loopnest.kernels.simd_lanes import to_cache_line

_U = np.uint64  # an index that cannot be negative: those that can stop vectors

# ---- updates of one element ----


@scalar
def decayed(grad, param, decay, decays):
    """Gradient with L2 decay; without decay an infinite param must not make 0*inf of it."""
    return select(decays, fma(decay, param, grad), grad)


@scalar
def average(old, new, keep, take):
    """keep*old + take*new"""
    return fma(keep, old, take * new)


@scalar
def average_square(old, new, keep, take):
    """keep*old + take*new^2"""
    return fma(take * new, new, keep * old)


@scalar
def variance(square, mean, zero):
    """The mean of squares less the square of the mean, which rounding may bring below 0."""
    v = fma(-mean, mean, square)
    return select(v < zero, zero, v)


@scalar
def scaled(grad, square, eps):
    """Gradient over the root of its squares: the direction of Adam, RMSprop and Adagrad.

    Adam's bias corrections are in the numbers around it: with r = sqrt(1 - beta2^t) its
    step lr/(1 - beta1^t) m/(sqrt(v)/r + eps) is r lr/(1 - beta1^t) m/(sqrt(v) + r eps), which
    has one division less (the last remark of section 2 of arXiv:1412.6980).
    """
    return grad / (math.sqrt(square) + eps)


@scalar
def moved(param, direction, lr):
    return fma(-lr, direction, param)


@scalar
def lion_update(param, blend, lr, zero):
    """Move by lr against the sign of the blend; 0 does not move, NaN makes NaN."""
    return param - select(blend > zero, lr, select(blend < zero, -lr, blend))


@scalar
def larger(a, b):
    """Maximum that is NaN if either is."""
    return select((a >= b) | (a != a), a, b)


# ---- steps ----


@kernel
def sgd_step(
    grad, lr, momentum, dampening, weight_decay, use_buffer, nesterov, first, buffer, param
):
    real = param.dtype.type
    rate, keep, take = real(lr), real(momentum), real(1.0 - dampening)
    decay, decays = real(weight_decay), weight_decay != 0.0
    head = to_cache_line(param)
    if not use_buffer:
        for begin, end in ((0, head), (head, param.size)):
            for i in range(_U(begin), _U(end)):
                param[i] = moved(param[i], decayed(grad[i], param[i], decay, decays), rate)
        return
    is_first, looks_ahead = first != 0, nesterov != 0
    for begin, end in ((0, head), (head, param.size)):
        for i in range(_U(begin), _U(end)):
            g = decayed(grad[i], param[i], decay, decays)
            b = select(is_first, g, average(buffer[i], g, keep, take))
            buffer[i] = b
            param[i] = moved(param[i], select(looks_ahead, fma(keep, b, g), b), rate)


@kernel
def adam_step(
    grad,
    lr,
    beta1,
    beta2,
    correction1,
    correction2,
    eps,
    weight_decay,
    decoupled,
    amsgrad,
    m,
    v,
    max_v,
    param,
):
    real = param.dtype.type
    root = math.sqrt(correction2)
    rate, epsilon = real(root * (lr / correction1)), real(root * eps)
    keep1, take1 = real(beta1), real(1.0 - beta1)
    keep2, take2 = real(beta2), real(1.0 - beta2)
    shrink = real(1.0 - lr * weight_decay) if decoupled else real(1)
    decay, decays = real(weight_decay), weight_decay != 0.0 and not decoupled
    for i in range(param.size):
        p = param[i] * shrink
        g = decayed(grad[i], p, decay, decays)
        m[i] = average(m[i], g, keep1, take1)
        square = average_square(v[i], g, keep2, take2)
        v[i] = square
        if amsgrad:
            square = larger(max_v[i], square)
            max_v[i] = square
        param[i] = moved(p, scaled(m[i], square, epsilon), rate)


@kernel
def rmsprop_step(
    grad,
    lr,
    alpha,
    eps,
    weight_decay,
    momentum,
    use_buffer,
    centered,
    v,
    buffer,
    grad_average,
    param,
):
    real = param.dtype.type
    rate, keep, take, epsilon = real(lr), real(alpha), real(1.0 - alpha), real(eps)
    decay, decays, mu = real(weight_decay), weight_decay != 0.0, real(momentum)
    zero = real(0)
    for i in range(param.size):
        g = decayed(grad[i], param[i], decay, decays)
        square = average_square(v[i], g, keep, take)
        v[i] = square
        if centered:
            mean = average(grad_average[i], g, keep, take)
            grad_average[i] = mean
            square = variance(square, mean, zero)
        direction = scaled(g, square, epsilon)
        if use_buffer:
            direction = fma(mu, buffer[i], direction)
            buffer[i] = direction
        param[i] = moved(param[i], direction, rate)


@kernel
def adagrad_step(grad, lr, eps, weight_decay, state_sum, param):
    real = param.dtype.type
    rate, epsilon = real(lr), real(eps)
    decay, decays = real(weight_decay), weight_decay != 0.0
    for i in range(param.size):
        g = decayed(grad[i], param[i], decay, decays)
        total = fma(g, g, state_sum[i])
        state_sum[i] = total
        param[i] = moved(param[i], scaled(g, total, epsilon), rate)


@kernel
def lion_step(grad, lr, beta1, beta2, weight_decay, m, param):
    real = param.dtype.type
    rate, shrink, zero = real(lr), real(1.0 - lr * weight_decay), real(0)
    keep1, take1 = real(beta1), real(1.0 - beta1)
    keep2, take2 = real(beta2), real(1.0 - beta2)
    for i in range(param.size):
        g, old = grad[i], m[i]
        m[i] = average(old, g, keep2, take2)
        param[i] = lion_update(param[i] * shrink, average(old, g, keep1, take1), rate, zero)
