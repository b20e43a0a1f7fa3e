"""The float64 NumPy reference that the Numba and C kernels are tested against.

Obvious loops, no cleverness: every function converts its input to float64, computes there, and
returns float64 (indices, shapes and truth tables are integers). Names and keywords are those of
`loopnest`; steps that the library does in place return new arrays here. No function warns.

The rounding of 1.702*x alone costs |x| ulp of float64 in gelu's far negative tail: more than
enough to judge float32; judge float64 activations to the last ulp with mpmath instead.
"""

import math
import operator

import numpy as np

_ignore = np.errstate(all="ignore")  # as a decorator: infinities and NaN go through in silence


def _f64(array):
    """Return the array as float64."""
    return np.asarray(array, dtype=np.float64)


def _pair(value):
    """Return (v, v) for an integer, (a, b) for a pair of integers."""
    if np.ndim(value) == 0:
        return operator.index(value), operator.index(value)
    first, second = value
    return operator.index(first), operator.index(second)


# Activations ---------------------------------------------------------------------------------


@_ignore
def exp(x):
    """Return e**x."""
    return np.exp(_f64(x))


@_ignore
def sigmoid(x):
    """Return 1 / (1 + e**-x), precise in both tails."""
    x = _f64(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def relu(x):
    """Return max(x, 0); NaN stays NaN."""
    return np.maximum(_f64(x), 0.0)


@_ignore
def leaky_relu(x, negative_slope=0.01):
    """Return x where x > 0, else negative_slope * x."""
    x = _f64(x)
    return np.where(x > 0, x, negative_slope * x)


def tanh(x):
    """Return the hyperbolic tangent."""
    return np.tanh(_f64(x))


@_ignore
def silu(x):
    """Return x * sigmoid(x); -inf gives the limit, -0."""
    x = np.maximum(_f64(x), -1e4)  # sigmoid(-1e4) is already 0; keeps -inf * 0 away
    return x * sigmoid(x)


_erfc = np.vectorize(math.erfc, otypes=[np.float64])
GELU_SCALE = 1.702
_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)


@_ignore
def gelu(x, approximate="sigmoid"):
    """Return x * Phi(x): "none" exactly, "sigmoid" and "tanh" approximately; -inf gives -0."""
    x = np.maximum(_f64(x), -1e4)
    if approximate == "sigmoid":
        return x * sigmoid(GELU_SCALE * x)
    if approximate == "tanh":  # (1 + tanh u) / 2 is sigmoid(2u), which does not cancel
        return x * sigmoid(2.0 * _SQRT_2_OVER_PI * (x + 0.044715 * x**3))
    if approximate == "none":  # (1 + erf z) / 2 is erfc(-z) / 2, which does not cancel
        return x * (0.5 * _erfc(-x / math.sqrt(2.0)))
    raise ValueError(f"gelu: approximate={approximate!r}")


@_ignore
def gelu_derivative(x, approximate="sigmoid"):
    """Return the slope of gelu at x."""
    x = np.clip(_f64(x), -1e4, 1e4)  # the slope is exactly 0 or 1 out there, also at infinity
    if approximate == "sigmoid":
        u, du = GELU_SCALE * x, GELU_SCALE
    elif approximate == "tanh":
        u = 2.0 * _SQRT_2_OVER_PI * (x + 0.044715 * x**3)
        du = 2.0 * _SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044715 * x**2)
    elif approximate == "none":
        density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
        return 0.5 * _erfc(-x / math.sqrt(2.0)) + x * density
    else:
        raise ValueError(f"gelu_derivative: approximate={approximate!r}")
    return sigmoid(u) + x * du * sigmoid(u) * sigmoid(-u)  # sigmoid' = s (1 - s)


@_ignore
def exp_backward(dy, x):
    """Return dy * e**x."""
    return _f64(dy) * exp(x)


@_ignore
def sigmoid_backward(dy, x):
    """Return dy * s (1 - s) with s = sigmoid(x)."""
    return _f64(dy) * (sigmoid(x) * sigmoid(-_f64(x)))


def relu_backward(dy, x):
    """Return dy where x > 0, else 0 (at 0 too); NaN where x is NaN."""
    x = _f64(x)
    return np.where(np.isnan(x), x, np.where(x > 0, _f64(dy), 0.0))


@_ignore
def leaky_relu_backward(dy, x, negative_slope=0.01):
    """Return dy where x > 0, else negative_slope * dy (at 0 too); NaN where x is NaN."""
    dy, x = _f64(dy), _f64(x)
    return np.where(np.isnan(x), x, np.where(x > 0, dy, negative_slope * dy))


@_ignore
def tanh_backward(dy, x):
    """Return dy * (1 - tanh(x)**2), written as 4 s (1 - s) with s = sigmoid(2x)."""
    x = _f64(x)
    return _f64(dy) * (4.0 * sigmoid(2.0 * x) * sigmoid(-2.0 * x))


@_ignore
def silu_backward(dy, x):
    """Return dy * (s + x s (1 - s)) with s = sigmoid(x)."""
    x = np.clip(_f64(x), -1e4, 1e4)
    return _f64(dy) * (sigmoid(x) + x * sigmoid(x) * sigmoid(-x))


@_ignore
def gelu_backward(dy, x, approximate="sigmoid"):
    """Return dy * gelu_derivative(x)."""
    return _f64(dy) * gelu_derivative(x, approximate)


ACTIVATIONS = {
    "exp": exp,
    "sigmoid": sigmoid,
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "silu": silu,
    "gelu": gelu,
}
BACKWARDS = {
    "exp": exp_backward,
    "sigmoid": sigmoid_backward,
    "relu": relu_backward,
    "leaky_relu": leaky_relu_backward,
    "tanh": tanh_backward,
    "silu": silu_backward,
    "gelu": gelu_backward,
}


def _activate(y, activation):
    """Return y through the named activation; None leaves it as it is."""
    return y if activation is None else ACTIVATIONS[activation](y)


# Convolution ---------------------------------------------------------------------------------


def resolve_padding(padding, input_hw, kernel_hw, stride=1, dilation=1):
    """Return ((top, bottom), (left, right)) for any accepted spelling of padding."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":  # stride 1 only, so input_hw does not matter
        if _pair(stride) != (1, 1):
            raise ValueError("padding='same' needs stride 1")
        totals = [d * (k - 1) for k, d in zip(_pair(kernel_hw), _pair(dilation), strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    if np.ndim(padding) == 2:
        return tuple(_pair(sides) for sides in padding)
    return tuple((p, p) for p in _pair(padding))


def conv2d_output_shape(input_hw, kernel_hw, stride=1, padding=0, dilation=1):
    """Return (oh, ow); ValueError where the kernel does not fit the padded input."""
    pads = resolve_padding(padding, input_hw, kernel_hw, stride, dilation)
    shape = []
    for axis in (0, 1):
        reach = _pair(dilation)[axis] * (_pair(kernel_hw)[axis] - 1) + 1
        room = _pair(input_hw)[axis] + sum(pads[axis]) - reach
        if room < 0:
            raise ValueError("conv2d: the kernel does not fit the padded input")
        shape.append(room // _pair(stride)[axis] + 1)
    return tuple(shape)


def _pad(x, pads, value=0.0):
    """Return x with its last two axes padded by ((top, bottom), (left, right))."""
    return np.pad(x, ((0, 0), (0, 0), *pads), constant_values=value)


def _tap(padded, r, s, output_hw, stride, dilation):
    """Return the view of a padded input that tap (r, s) sees, one element per output."""
    (oh, ow), (sh, sw), (dh, dw) = output_hw, _pair(stride), _pair(dilation)
    rows = slice(r * dh, r * dh + (oh - 1) * sh + 1, sh)
    columns = slice(s * dw, s * dw + (ow - 1) * sw + 1, sw)
    return padded[:, :, rows, columns]


@_ignore
def conv2d(
    x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None
):
    """Return the cross-correlation of x (N,C,H,W) with weight (K,C/groups,R,S)."""
    x, weight = _f64(x), _f64(weight)
    n, c, *hw = x.shape
    k, cg, *rs = weight.shape
    oh, ow = conv2d_output_shape(hw, rs, stride, padding, dilation)
    padded = _pad(x, resolve_padding(padding, hw, rs, stride, dilation))
    w = weight.reshape(groups, k // groups, cg, *rs)
    y = np.zeros((n, groups, k // groups, oh * ow))
    for r in range(rs[0]):
        for s in range(rs[1]):
            seen = _tap(padded, r, s, (oh, ow), stride, dilation)
            y += w[:, :, :, r, s] @ seen.reshape(n, groups, cg, oh * ow)
    y = y.reshape(n, k, oh, ow)
    if bias is not None:
        y = y + _f64(bias).reshape(1, k, 1, 1)
    return _activate(y, activation)


@_ignore
def conv2d_backward(dy, x, weight, *, stride=1, padding=0, dilation=1, groups=1):
    """Return (dx, dweight, dbias) of conv2d without activation."""
    dy, x, weight = _f64(dy), _f64(x), _f64(weight)
    n, c, h, wd = x.shape
    k, cg, *rs = weight.shape
    oh, ow = dy.shape[2:]
    pads = resolve_padding(padding, (h, wd), rs, stride, dilation)
    padded = _pad(x, pads)
    w = weight.reshape(groups, k // groups, cg, *rs)
    g = dy.reshape(n, groups, k // groups, oh * ow)
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for r in range(rs[0]):
        for s in range(rs[1]):
            seen = _tap(padded, r, s, (oh, ow), stride, dilation).reshape(n, groups, cg, oh * ow)
            dw[..., r, s] = (g @ seen.swapaxes(2, 3)).sum(axis=0)
            dseen = _tap(dpadded, r, s, (oh, ow), stride, dilation)
            dseen += (w[..., r, s].swapaxes(1, 2) @ g).reshape(n, c, oh, ow)
    (top, _), (left, _) = pads
    dx = dpadded[:, :, top : top + h, left : left + wd].copy()
    return dx, dw.reshape(weight.shape), dy.sum(axis=(0, 2, 3))


# Pooling -------------------------------------------------------------------------------------


def pool2d_output_shape(
    input_hw, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False
):
    """Return (oh, ow); with ceil_mode the last window starts inside the input or left padding."""
    kernel, pads, dils = _pair(kernel_size), _pair(padding), _pair(dilation)
    strides = kernel if stride is None else _pair(stride)
    shape = []
    for size, k, s, p, d in zip(_pair(input_hw), kernel, strides, pads, dils, strict=True):
        if p < 0 or 2 * p > k:
            raise ValueError("pooling: padding must be at most half the kernel size")
        room = size + 2 * p - d * (k - 1) - 1
        out = (-(-room // s) if ceil_mode else room // s) + 1
        if ceil_mode and (out - 1) * s >= size + p:
            out -= 1
        if out < 1:
            raise ValueError("pooling: the kernel does not fit the padded input")
        shape.append(out)
    return tuple(shape)


def _pool_pads(input_hw, output_hw, kernel, stride, padding, dilation):
    """Return the padding that gives every tap of every window, also ceil_mode's, a place."""
    pads = []
    for axis in (0, 1):
        p = padding[axis]
        reach = (output_hw[axis] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        pads.append((p, max(p, reach - input_hw[axis] - p)))
    return pads


def _avg_pool_divisor(input_hw, output_hw, kernel, stride, padding, include_pad, override):
    """Return what each window's sum is divided by, shape (oh, ow)."""
    if override is not None:
        return np.full(output_hw, float(override))
    counts = []
    for axis in (0, 1):
        size, p = input_hw[axis], padding[axis]
        along = []
        for o in range(output_hw[axis]):
            start = o * stride[axis] - p
            stop = min(start + kernel[axis], size + p)  # the window clipped to the padded input
            if not include_pad:
                start, stop = max(start, 0), min(stop, size)
            along.append(float(stop - start))
        counts.append(along)
    return np.outer(*counts)


@_ignore
def avg_pool2d(
    x,
    kernel_size,
    stride=None,
    padding=0,
    *,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """Return the mean of each window, PyTorch's rules for what counts."""
    x = _f64(x)
    hw, kernel, padding = x.shape[2:], _pair(kernel_size), _pair(padding)
    stride = kernel if stride is None else _pair(stride)
    out = pool2d_output_shape(hw, kernel, stride, padding, 1, ceil_mode)
    padded = _pad(x, _pool_pads(hw, out, kernel, stride, padding, (1, 1)))
    y = np.zeros(x.shape[:2] + out)
    for r in range(kernel[0]):
        for s in range(kernel[1]):
            y += _tap(padded, r, s, out, stride, 1)
    return y / _avg_pool_divisor(
        hw, out, kernel, stride, padding, count_include_pad, divisor_override
    )


@_ignore
def avg_pool2d_backward(
    dy,
    x,
    kernel_size,
    stride=None,
    padding=0,
    *,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    """Return dx of avg_pool2d; of x only the shape matters."""
    dy, (n, c, h, w) = _f64(dy), np.shape(x)
    kernel, padding, out = _pair(kernel_size), _pair(padding), dy.shape[2:]
    stride = kernel if stride is None else _pair(stride)
    share = dy / _avg_pool_divisor(
        (h, w), out, kernel, stride, padding, count_include_pad, divisor_override
    )
    dpadded = _pad(np.zeros((n, c, h, w)), _pool_pads((h, w), out, kernel, stride, padding, (1, 1)))
    for r in range(kernel[0]):
        for s in range(kernel[1]):
            dseen = _tap(dpadded, r, s, out, stride, 1)
            dseen += share
    return dpadded[:, :, padding[0] : padding[0] + h, padding[1] : padding[1] + w].copy()


def max_pool2d(
    x,
    kernel_size,
    stride=None,
    padding=0,
    *,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
):
    """Return each window's maximum (and its index h*W+w): first of ties, last of NaNs.

    A dilated window can lie in the padding altogether: it gives -inf and index -1.
    """
    x = _f64(x)
    (h, w), kernel, padding = x.shape[2:], _pair(kernel_size), _pair(padding)
    stride = kernel if stride is None else _pair(stride)
    out = pool2d_output_shape((h, w), kernel, stride, padding, dilation, ceil_mode)
    pads = _pool_pads((h, w), out, kernel, stride, padding, _pair(dilation))
    padded = _pad(x, pads, -np.inf)
    places = _pad(np.arange(h * w).reshape(1, 1, h, w), pads, -1)  # -1 marks padding
    best = np.full(x.shape[:2] + out, -np.inf)
    index = np.full(best.shape, -1, dtype=np.int64)
    for r in range(kernel[0]):
        for s in range(kernel[1]):
            value = _tap(padded, r, s, out, stride, dilation)
            place = _tap(places, r, s, out, stride, dilation)
            better = (value > best) | np.isnan(value) | (index < 0)
            take = better & (place >= 0)
            best = np.where(take, value, best)
            index = np.where(take, place, index)
    return (best, index) if return_indices else best


def max_pool2d_backward(
    dy, x, indices, kernel_size=None, stride=None, padding=0, *, dilation=1, ceil_mode=False
):
    """Return dx of max_pool2d: each dy added at its index; the options change nothing."""
    dy, indices, (n, c, h, w) = _f64(dy), np.asarray(indices), np.shape(x)
    dx = np.zeros((n, c, h * w))
    for i in range(n):
        for j in range(c):
            real = indices[i, j] >= 0
            np.add.at(dx[i, j], indices[i, j][real], dy[i, j][real])
    return dx.reshape(n, c, h, w)


@_ignore
def global_avg_pool2d(x):
    """Return the mean of each plane, shape (N, C, 1, 1)."""
    return _f64(x).mean(axis=(2, 3), keepdims=True)


def global_max_pool2d(x):
    """Return the maximum of each plane, shape (N, C, 1, 1); NaN if it holds one."""
    return _f64(x).max(axis=(2, 3), keepdims=True)


def average_filter(size):
    """Return the (1, 1, kh, kw) weight whose convolution is average pooling."""
    kh, kw = _pair(size)
    return np.full((1, 1, kh, kw), 1.0 / (kh * kw))


# Dense and loss ------------------------------------------------------------------------------


@_ignore
def linear(x, weight, bias=None, *, activation=None):
    """Return x @ weight + bias for x (..., in) and weight (in, out)."""
    y = _f64(x) @ _f64(weight)
    return _activate(y if bias is None else y + _f64(bias), activation)


@_ignore
def linear_backward(dy, x, weight):
    """Return (dx, dweight, dbias) of linear without activation."""
    dy, x, weight = _f64(dy), _f64(x), _f64(weight)
    rows_in, rows_out = x.reshape(-1, weight.shape[0]), dy.reshape(-1, weight.shape[1])
    return dy @ weight.T, rows_in.T @ rows_out, rows_out.sum(axis=0)


@_ignore
def log_softmax(x, axis=-1):
    """Return log(softmax(x)) without forming the softmax."""
    x = _f64(x)
    z = x - x.max(axis=axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


@_ignore
def softmax(x, axis=-1):
    """Return e**x divided by its sum along axis."""
    x = _f64(x)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _target_rows(logits, target, ignore_index):
    """Return (target as probability rows, which rows count); integer targets are classes."""
    target = np.asarray(target)
    if target.dtype.kind == "f":
        return target.astype(np.float64).reshape(logits.shape), np.ones(len(logits), bool)
    rows, counts = np.zeros(logits.shape), target.reshape(len(logits)) != ignore_index
    for i, label in enumerate(target.reshape(len(logits))):
        if counts[i] and not 0 <= label < logits.shape[1]:
            raise ValueError(f"cross_entropy: class {label} of {logits.shape[1]}")
        if counts[i]:
            rows[i, label] = 1.0
    return rows, counts


@_ignore
def cross_entropy(
    logits, target, *, reduction="mean", label_smoothing=0.0, ignore_index=-100
):
    """Return -sum(y log softmax(logits)) per row, or its sum or mean over rows that count."""
    logits, single = np.atleast_2d(_f64(logits)), np.ndim(logits) == 1
    rows, counts = _target_rows(logits, target, ignore_index)
    logp = log_softmax(logits)
    terms = rows * logp
    if np.asarray(target).dtype.kind != "f":  # a class that is not the target adds no 0 * -inf
        terms = np.where(rows > 0, terms, 0.0)
    loss = -(1.0 - label_smoothing) * terms.sum(axis=1)
    if label_smoothing > 0:
        loss = loss - label_smoothing * logp.mean(axis=1)
    loss = np.where(counts, loss, 0.0)
    if reduction == "none":
        return loss[0] if single else loss
    if reduction not in ("mean", "sum"):
        raise ValueError(f"cross_entropy: reduction={reduction!r}")
    return loss.sum() / np.float64(counts.sum()) if reduction == "mean" else loss.sum()


@_ignore
def cross_entropy_backward(
    logits, target, *, reduction="mean", label_smoothing=0.0, ignore_index=-100
):
    """Return the gradient by logits of cross_entropy; "none" gives each row's own, as "sum"."""
    shape, logits = np.shape(logits), np.atleast_2d(_f64(logits))
    rows, counts = _target_rows(logits, target, ignore_index)
    y = (1.0 - label_smoothing) * rows + label_smoothing / logits.shape[1]
    grad = np.where(counts[:, None], softmax(logits) * y.sum(axis=1, keepdims=True) - y, 0.0)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy_backward: reduction={reduction!r}")
    return (grad / max(counts.sum(), 1) if reduction == "mean" else grad).reshape(shape)


# Optimizers ----------------------------------------------------------------------------------
# Each takes parameter, gradient and state, and returns the new parameter and state in that order.
# A state of None is the state before the first step. `step` counts from 1.


def _state(array, like):
    """Return the array as float64, or zeros for None."""
    return np.zeros_like(like) if array is None else _f64(array)


def sgd_step(
    param,
    grad,
    momentum_buffer=None,
    *,
    lr,
    momentum=0.0,
    dampening=0.0,
    weight_decay=0.0,
    nesterov=False,
    step=None,
):
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


@_ignore
def adam_step(
    param,
    grad,
    m=None,
    v=None,
    max_v=None,
    *,
    step,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
):
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


@_ignore
def rmsprop_step(
    param,
    grad,
    square_avg=None,
    momentum_buffer=None,
    grad_avg=None,
    *,
    lr=0.01,
    alpha=0.99,
    eps=1e-8,
    weight_decay=0.0,
    momentum=0.0,
    centered=False,
):
    """Return (param, square_avg, momentum_buffer, grad_avg); unused state comes back as it was."""
    param = _f64(param)
    g = _f64(grad) + weight_decay * param
    square_avg = alpha * _state(square_avg, param) + (1.0 - alpha) * g * g
    variance = square_avg
    if centered:
        grad_avg = alpha * _state(grad_avg, param) + (1.0 - alpha) * g
        variance = square_avg - grad_avg * grad_avg
    update = g / (np.sqrt(variance) + eps)
    if momentum > 0:
        momentum_buffer = update = momentum * _state(momentum_buffer, param) + update
    return param - lr * update, square_avg, momentum_buffer, grad_avg


@_ignore
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


def descend(
    f,
    df,
    x0,
    *,
    method="gd",
    lr,
    steps,
    momentum=0.0,
    convention="ema",
    betas=None,
    alpha=0.99,
    eps=None,
    weight_decay=0.0,
):
    """Return the trajectory (steps+1, ...) from x0 down the slope df; f itself is not needed.

    x0, lr and momentum broadcast. weight_decay is added to the slope, but decoupled in adamw, lion.
    """
    x, lr, b = (np.array(a) for a in np.broadcast_arrays(_f64(x0), _f64(lr), _f64(momentum)))
    convention = {"gd": "none", "nesterov": "nesterov"}.get(method, convention)
    eps = (1e-10 if method == "adagrad" else 1e-8) if eps is None else eps
    betas = ((0.9, 0.99) if method == "lion" else (0.9, 0.999)) if betas is None else betas

    def slope(at):
        decay = 0.0 if method in ("adamw", "lion") else weight_decay
        return _f64(df(at)) + decay * at

    v, s = np.zeros_like(x), np.zeros_like(x)
    if method == "momentum" and convention == "lookback":
        v = slope(x)
    trajectory = [x]
    for step in range(1, steps + 1):
        g = slope(x)
        if method in ("gd", "momentum", "nesterov"):
            if convention == "none":
                x = x - lr * g
            elif convention == "ema":
                v = b * v + (1.0 - b) * g
                x = x - lr * v
            elif convention == "heavy-ball":
                v = b * v + g
                x = x - lr * v
            elif convention == "lookback":  # x first moves by the previous v; g is at the old x
                x = x - lr * v
                v = b * v + (1.0 - b) * g
            elif convention == "nesterov":
                v = b * v + g
                x = x - lr * (g + b * v)
            else:
                raise ValueError(f"descend: convention={convention!r}")
        elif method == "rmsprop":
            s = alpha * s + (1.0 - alpha) * g * g
            v = b * v + g / (np.sqrt(s) + eps)
            x = x - lr * v
        elif method == "adagrad":
            x, s = adagrad_step(x, g, s, step=step, lr=lr, eps=eps)
        elif method in ("adam", "adamw"):
            decay = weight_decay if method == "adamw" else 0.0
            options = {"step": step, "lr": lr, "betas": betas, "eps": eps, "weight_decay": decay}
            x, v, s, _ = adamw_step(x, g, v, s, **options)
        elif method == "lion":
            x, v = lion_step(x, g, v, lr=lr, betas=betas, weight_decay=weight_decay)
        else:
            raise ValueError(f"descend: method={method!r}")
        trajectory.append(x)
    return np.stack(trajectory)


# Gates and measures --------------------------------------------------------------------------

GATE_NAMES = tuple(
    "false and a_and_not_b a not_a_and_b b xor or "
    "nor xnor not_b a_or_not_b not_a not_a_or_b nand true".split()
)


def truth(name):
    """Return the gate's values at (a, b) = 00, 01, 10, 11: the four bits of its index."""
    return np.array([int(bit) for bit in f"{GATE_NAMES.index(name):04b}"])


@_ignore
def ulp_distance(value, exact, dtype):
    """Return |value - exact| in units of dtype's spacing at exact; inf if just one is NaN.

    The spacing is constant below the smallest normal number. Infinity counts as the number one
    spacing above the largest finite one, and what lies beyond that as infinity.
    """
    value, exact, info = _f64(value), _f64(exact), np.finfo(dtype)
    exponent = np.frexp(exact)[1] - 1  # |exact| is in [2**exponent, 2**(exponent + 1))
    exponent = np.where(np.isinf(exact), info.maxexp - 1, exponent)
    unit = np.clip(exponent, info.minexp, info.maxexp - 1) - info.nmant
    infinity = np.ldexp(1.0, info.maxexp - unit)
    scaled = [np.clip(np.ldexp(a, -unit), -infinity, infinity) for a in (value, exact)]
    distance = np.abs(scaled[0] - scaled[1])
    one_nan = np.isnan(value) != np.isnan(exact)
    both_nan = np.isnan(value) & np.isnan(exact)
    return np.where(both_nan, 0.0, np.where(one_nan, np.inf, distance))


def numerical_gradient(f, x, eps=6e-6):
    """Return the gradient of the scalar function f at the array x by central differences."""
    x = np.array(x, dtype=np.float64)
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        h = eps * max(1.0, abs(x[i]))
        up[i] += h
        down[i] -= h
        gradient[i] = (float(f(up)) - float(f(down))) / (up[i] - down[i])
    return gradient
