"""Optimizer steps inside ``@njit``: C-contiguous arrays of one dtype, in place."""

import math

import numpy as np
from numba import types
from numba.core.errors import TypingError

from loopnest.kernels import optimizer as kernels
from loopnest.kernels.jit import jitable
from loopnest.kernels.linking import linked
from loopnest.ops import optimizer as public
from loopnest.ops.njit.common import (
    at_least,
    beta,
    both_numbers,
    contiguous,
    flags,
    float_array,
    integer,
    is_none,
    misaligned,
    numbers,
    overlaps,
    overloads,
)

power = jitable(public.power)


def _arrays(op, param, grad, **states):
    """Compiled functions ``prepare_grad(grad, param)`` and ``check(state, param, grad)`` each.

    Types are checked here, shapes and overlap where the functions run.
    """
    dtype = float_array(op, "param", param)
    for name, array in {"param": param, **states}.items():
        if is_none(array):
            continue
        fits = isinstance(array, types.Array) and array.dtype == dtype and array.ndim == param.ndim
        if not (fits and array.layout == "C" and array.mutable and array.aligned):
            raise TypingError(
                f"{op}: {name} is {array}; accepted: a writable C-contiguous {dtype} array, "
                f"{param.ndim} dimensions"
            )
    if float_array(op, "grad", grad) != dtype:
        raise TypingError(f"{op}: arrays of different dtypes: param {dtype}, grad {grad.dtype}")
    if grad.ndim != param.ndim:
        raise TypingError(f"{op}: grad has {grad.ndim} dimensions; accepted: {param.ndim}")
    return _prepare_grad(op, grad, dtype), {k: _state(op, k, v, dtype) for k, v in states.items()}


def _prepare_grad(op, grad, dtype):
    convert = contiguous(grad, dtype)
    wrong_shape = op + ": grad has not the shape of param"
    shared = op + ": param overlaps grad in memory"
    wrong_place = op + ": param is not aligned in memory; accepted: a C-contiguous array"

    def prepare(grad, param):
        if grad.shape != param.shape:
            raise ValueError(wrong_shape)
        if misaligned(param):
            raise ValueError(wrong_place)
        if overlaps(param, grad):
            raise ValueError(shared)
        values = convert(grad)
        return values.reshape(values.size)

    return jitable(prepare)


def _state(op, name, array, dtype):
    """Compiled function ``(state, param, grad)``: the flat state, no elements for None."""
    if is_none(array):
        real = np.float32 if dtype == types.float32 else np.float64
        return jitable(lambda state, param, grad: np.empty(0, real))
    wrong_shape = f"{op}: {name} has not the shape of param"
    shared = f"{op}: {name} overlaps param or grad in memory"
    wrong_place = f"{op}: {name} is not aligned in memory; accepted: a C-contiguous array"

    def check(state, param, grad):
        if state.shape != param.shape:
            raise ValueError(wrong_shape)
        if misaligned(state):
            raise ValueError(wrong_place)
        if overlaps(state, param) or overlaps(state, grad):
            raise ValueError(shared)
        return state.reshape(state.size)

    return jitable(check)


def _separate(op):
    """Compiled function that refuses two flat states that share memory."""
    message = op + ": two state arrays overlap in memory"

    def check(a, b):
        if a.size and b.size and overlaps(a, b):
            raise ValueError(message)

    return jitable(check)


def _need(op, name, array, reason=""):
    if is_none(array):
        raise TypingError(f"{op}: {name} is None; accepted: an array like param{reason}")


def _step(op, step):
    """Compiled function that checks the number of a step."""
    if is_none(step):
        raise TypingError(f"{op}: step is missing; accepted: an integer of at least 1")
    return integer(op, "step", step, 1, public.LAST_STEP)


@overloads(public.sgd_step)
def sgd_step(
    param,
    grad,
    momentum_buffer=None,
    lr=None,
    momentum=0.0,
    dampening=0.0,
    weight_decay=0.0,
    nesterov=False,
    first=False,
):
    op = "sgd_step"
    _need_number(op, "lr", lr)
    numbers(op, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
    flags(op, nesterov=nesterov, first=first)
    prepare, states = _arrays(op, param, grad, momentum_buffer=momentum_buffer)
    prepare_buffer, has_buffer = states["momentum_buffer"], not is_none(momentum_buffer)
    rate, mu, decay = (at_least(op, k) for k in ("lr", "momentum", "weight_decay"))
    finite = at_least(op, "dampening", -math.inf)
    kernel = linked(kernels.sgd_step)

    def implementation(
        param,
        grad,
        momentum_buffer=None,
        lr=None,
        momentum=0.0,
        dampening=0.0,
        weight_decay=0.0,
        nesterov=False,
        first=False,
    ):
        options = rate(lr), mu(momentum), finite(dampening), decay(weight_decay)
        if options[1] != 0.0 and not has_buffer:
            raise TypeError("sgd_step: momentum_buffer is None with momentum")
        if nesterov and (options[1] == 0.0 or options[2] != 0.0):
            raise ValueError("sgd_step: nesterov needs momentum above 0 and dampening 0")
        g = prepare(grad, param)
        buffer = prepare_buffer(momentum_buffer, param, grad)
        used = int(options[1] != 0.0)
        kernel(g, *options, used, int(nesterov), int(first), buffer, param.reshape(param.size))

    return implementation


def _need_number(op, name, argument):
    if is_none(argument):
        raise TypingError(f"{op}: {name} is missing; accepted: a number")


def _adam(op, param, grad, m, v, step, max_v, decoupled, betas, **options):
    """Compiled function of all arguments of `adam_step`, in order."""
    _need(op, "m", m)
    _need(op, "v", v)
    numbers(op, **options)
    checked_step, both = _step(op, step), both_numbers(op, "betas", betas)
    prepare, states = _arrays(op, param, grad, m=m, v=v, max_v=max_v)
    prepare_m, prepare_v, prepare_max = (states[k] for k in ("m", "v", "max_v"))
    rate, epsilon, decay = (at_least(op, k) for k in ("lr", "eps", "weight_decay"))
    beta1, beta2, separate = beta(op, "betas[0]"), beta(op, "betas[1]"), _separate(op)
    amsgrad, decoupled = int(not is_none(max_v)), int(decoupled)
    kernel = linked(kernels.adam_step)

    def run(param, grad, m, v, step, lr, betas, eps, weight_decay, max_v):
        number, decays = checked_step(step), both(betas)
        b1, b2 = beta1(decays[0]), beta2(decays[1])
        rates = rate(lr), epsilon(eps), decay(weight_decay)
        c1, c2 = 1.0 - power(b1, number), 1.0 - power(b2, number)
        g = prepare(grad, param)
        a, b = prepare_m(m, param, grad), prepare_v(v, param, grad)
        c = prepare_max(max_v, param, grad)
        separate(a, b)
        separate(a, c)
        separate(b, c)
        flat = param.reshape(param.size)
        kernel(g, rates[0], b1, b2, c1, c2, rates[1], rates[2], decoupled, amsgrad, a, b, c, flat)

    return jitable(run)


@overloads(public.adam_step)
def adam_step(
    param,
    grad,
    m,
    v,
    step=None,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    max_v=None,
):
    options = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
    run = _adam("adam_step", param, grad, m, v, step, max_v, False, betas, **options)

    def implementation(
        param,
        grad,
        m,
        v,
        step=None,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.0,
        max_v=None,
    ):
        run(param, grad, m, v, step, lr, betas, eps, weight_decay, max_v)

    return implementation


@overloads(public.adamw_step)
def adamw_step(
    param,
    grad,
    m,
    v,
    step=None,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.01,
    max_v=None,
):
    options = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
    run = _adam("adamw_step", param, grad, m, v, step, max_v, True, betas, **options)

    def implementation(
        param,
        grad,
        m,
        v,
        step=None,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.01,
        max_v=None,
    ):
        run(param, grad, m, v, step, lr, betas, eps, weight_decay, max_v)

    return implementation


@overloads(public.rmsprop_step)
def rmsprop_step(
    param,
    grad,
    v,
    lr=1e-2,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    momentum=0.0,
    momentum_buffer=None,
    grad_average=None,
):
    op = "rmsprop_step"
    _need(op, "v", v)
    numbers(op, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
    prepare, states = _arrays(
        op, param, grad, v=v, momentum_buffer=momentum_buffer, grad_average=grad_average
    )
    prepare_v, prepare_buffer = states["v"], states["momentum_buffer"]
    prepare_mean, has_buffer = states["grad_average"], not is_none(momentum_buffer)
    centered, separate = int(not is_none(grad_average)), _separate(op)
    number, keep = (
        at_least(op, "lr, eps, weight_decay or momentum"),
        at_least(op, "alpha", 0.0, 1.0),
    )
    kernel = linked(kernels.rmsprop_step)

    def implementation(
        param,
        grad,
        v,
        lr=1e-2,
        alpha=0.99,
        eps=1e-8,
        weight_decay=0.0,
        momentum=0.0,
        momentum_buffer=None,
        grad_average=None,
    ):
        options = number(lr), keep(alpha), number(eps), number(weight_decay), number(momentum)
        if options[4] != 0.0 and not has_buffer:
            raise TypeError("rmsprop_step: momentum_buffer is None with momentum")
        g = prepare(grad, param)
        a, b = prepare_v(v, param, grad), prepare_buffer(momentum_buffer, param, grad)
        c = prepare_mean(grad_average, param, grad)
        separate(a, b)
        separate(a, c)
        separate(b, c)
        used = int(options[4] != 0.0)
        kernel(g, *options, used, centered, a, b, c, param.reshape(param.size))

    return implementation


@overloads(public.adagrad_step)
def adagrad_step(
    param, grad, state_sum, step=None, lr=1e-2, lr_decay=0.0, weight_decay=0.0, eps=1e-10
):
    op = "adagrad_step"
    _need(op, "state_sum", state_sum)
    numbers(op, lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps)
    checked_step = _step(op, step)
    prepare, states = _arrays(op, param, grad, state_sum=state_sum)
    prepare_sum, number = states["state_sum"], at_least(op, "lr, lr_decay, weight_decay or eps")
    kernel = linked(kernels.adagrad_step)

    def implementation(
        param, grad, state_sum, step=None, lr=1e-2, lr_decay=0.0, weight_decay=0.0, eps=1e-10
    ):
        rate = number(lr) / (1.0 + (checked_step(step) - 1) * number(lr_decay))
        decay, epsilon = number(weight_decay), number(eps)
        g = prepare(grad, param)
        total = prepare_sum(state_sum, param, grad)
        kernel(g, rate, epsilon, decay, total, param.reshape(param.size))

    return implementation


@overloads(public.lion_step)
def lion_step(param, grad, m, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
    op = "lion_step"
    _need(op, "m", m)
    numbers(op, lr=lr, weight_decay=weight_decay)
    both = both_numbers(op, "betas", betas)
    prepare, states = _arrays(op, param, grad, m=m)
    prepare_m, number = states["m"], at_least(op, "lr or weight_decay")
    beta1, beta2, kernel = beta(op, "betas[0]"), beta(op, "betas[1]"), linked(kernels.lion_step)

    def implementation(param, grad, m, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        rate, decay = number(lr), number(weight_decay)
        decays = both(betas)
        b1, b2 = beta1(decays[0]), beta2(decays[1])
        g = prepare(grad, param)
        mean = prepare_m(m, param, grad)
        kernel(g, rate, b1, b2, decay, mean, param.reshape(param.size))

    return implementation
