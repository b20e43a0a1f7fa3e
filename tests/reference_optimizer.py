"""The optimizers' part of the float64 reference: steps and `descend`, in plain NumPy."""

import types

import numpy as np


def _f64(value):
    return np.asarray(value, dtype=np.float64)


# Optimizers ----------------------------------------------------------------------------------
# Each takes parameter, gradient and state, and returns the new parameter and state in that order.
# A state of None is the state before the first step. `step` counts from 1.


def _state(array, like):
    """Return the array as float64, or zeros for None."""
    return np.zeros_like(like) if array is None else _f64(array)


def sgd_step(
    param, grad, momentum_buffer=None, *, lr, momentum=0.0, dampening=0.0,
    weight_decay=0.0, nesterov=False, step=None
):  # fmt: skip
    """Return (param, momentum_buffer); at step 1 or without a buffer the buffer is the gradient."""
    param = _f64(param)
    g = _f64(grad) + weight_decay * param
    if momentum == 0:
        return param - lr * g, momentum_buffer
    if momentum_buffer is None or step == 1:
        buffer = g.copy()
    else:
        buffer = momentum * _f64(momentum_buffer) + (1.0 - dampening) * g
    return param - lr * (g + momentum * buffer if nesterov else buffer), buffer


def adam_step(
    param, grad, m=None, v=None, max_v=None, *, step, lr=1e-3, betas=(0.9, 0.999),
    eps=1e-8, weight_decay=0.0, amsgrad=False
):  # fmt: skip
    """Return (param, m, v, max_v); max_v changes only with amsgrad."""
    param = _f64(param)
    g = _f64(grad) + weight_decay * param
    m = betas[0] * _state(m, param) + (1.0 - betas[0]) * g
    v = betas[1] * _state(v, param) + (1.0 - betas[1]) * g * g
    if amsgrad:
        max_v = np.maximum(_state(max_v, param), v)
    m_hat = m / (1.0 - betas[0] ** step)
    v_hat = (max_v if amsgrad else v) / (1.0 - betas[1] ** step)
    return param - lr * m_hat / (np.sqrt(v_hat) + eps), m, v, max_v


def adamw_step(
    param, grad, m=None, v=None, max_v=None, *, step, lr=1e-3, weight_decay=0.01, **options
):
    """Return (param, m, v, max_v): Adam on a parameter first shrunk by 1 - lr * weight_decay."""
    shrunk = _f64(param) * (1.0 - lr * weight_decay)
    return adam_step(shrunk, grad, m, v, max_v, step=step, lr=lr, **options)


def rmsprop_step(
    param, grad, square_avg=None, momentum_buffer=None, grad_avg=None, *, lr=0.01,
    alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False
):  # fmt: skip
    """Return (param, square_avg, momentum_buffer, grad_avg); unused state comes back as it was."""
    param = _f64(param)
    g = _f64(grad) + weight_decay * param
    square_avg = alpha * _state(square_avg, param) + (1.0 - alpha) * g * g
    variance = square_avg
    if centered:
        grad_avg = alpha * _state(grad_avg, param) + (1.0 - alpha) * g
        variance = np.maximum(square_avg - grad_avg * grad_avg, 0.0)
    update = g / (np.sqrt(variance) + eps)
    if np.any(np.asarray(momentum) > 0):
        momentum_buffer = update = momentum * _state(momentum_buffer, param) + update
    return param - lr * update, square_avg, momentum_buffer, grad_avg


def adagrad_step(
    param, grad, state_sum=None, *, step, lr=0.01, lr_decay=0.0, weight_decay=0.0, eps=1e-10
):
    """Return (param, state_sum)."""
    param = _f64(param)
    g = _f64(grad) + weight_decay * param
    state_sum = _state(state_sum, param) + g * g
    return param - lr / (1.0 + (step - 1) * lr_decay) * g / (np.sqrt(state_sum) + eps), state_sum


def lion_step(param, grad, m=None, *, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
    """Return (param, m): a step of fixed length against the sign, decay decoupled."""
    param, g = _f64(param), _f64(grad)
    m = _state(m, param)
    direction = np.sign(betas[0] * m + (1.0 - betas[0]) * g)
    new = param * (1.0 - lr * weight_decay) - lr * direction
    return new, betas[1] * m + (1.0 - betas[1]) * g


def _momentum_step(x, v, g, lr, b, convention):
    """Return the next (x, v) of descent with momentum b, g being the slope at x."""
    if convention == "lookback":  # x first moves by the previous v
        return x - lr * v, b * v + (1.0 - b) * g
    v = b * v + ((1.0 - b) * g if convention == "ema" else g)
    return x - lr * (g + b * v if convention == "nesterov" else v), v


def descend(
    f, df, x0, *, method="gd", lr, steps, momentum=0.0, convention="ema",
    betas=None, alpha=0.99, eps=None, weight_decay=0.0
):  # fmt: skip
    """Return the trajectory (steps+1, ...) from x0 down the slope df; f itself is not needed.

    x0, lr and momentum broadcast. weight_decay is added to the slope, but decoupled in adamw, lion.
    """
    x, lr, b = (np.array(a) for a in np.broadcast_arrays(_f64(x0), _f64(lr), _f64(momentum)))
    coupled = 0.0 if method in ("adamw", "lion") else weight_decay
    eps = (1e-10 if method == "adagrad" else 1e-8) if eps is None else eps
    betas = ((0.9, 0.99) if method == "lion" else (0.9, 0.999)) if betas is None else betas
    convention = "nesterov" if method == "nesterov" else convention
    if convention not in ("ema", "heavy-ball", "lookback", "nesterov"):
        raise ValueError(f"descend: convention={convention!r}")

    v, s = np.zeros_like(x), np.zeros_like(x)  # what each method remembers, 0 at the start
    if method == "momentum" and convention == "lookback":
        v = _f64(df(x)) + coupled * x
    trajectory = [x]
    for step in range(1, steps + 1):
        g = _f64(df(x)) + coupled * x
        if method == "gd":
            x = x - lr * g
        elif method in ("momentum", "nesterov"):
            x, v = _momentum_step(x, v, g, lr, b, convention)
        elif method == "rmsprop":
            x, s, v, _ = rmsprop_step(x, g, s, v, lr=lr, alpha=alpha, eps=eps, momentum=b)
        elif method == "adagrad":
            x, s = adagrad_step(x, g, s, step=step, lr=lr, eps=eps)
        elif method == "adam":
            x, v, s, _ = adam_step(x, g, v, s, step=step, lr=lr, betas=betas, eps=eps)
        elif method == "adamw":
            options = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
            x, v, s, _ = adamw_step(x, g, v, s, step=step, lr=lr, **options)
        elif method == "lion":
            x, v = lion_step(x, g, v, lr=lr, betas=betas, weight_decay=weight_decay)
        else:
            raise ValueError(f"descend: method={method!r}")
        trajectory.append(x)
    return np.stack(trajectory)


# Overflow and NaN go through every function above in silence.
for _name, _function in list(globals().items()):
    if isinstance(_function, types.FunctionType):
        globals()[_name] = np.errstate(all="ignore")(_function)
