"""The float64 NumPy reference that the Numba and C kernels are tested against.

Obvious loops, no cleverness: every function converts its input to float64, computes there, and
returns float64 (indices, shapes and truth tables are integers). Names and keywords are those of
`loopnest`; steps that the library does in place return new arrays here. No function warns.

The rounding of 1.702*x alone costs up to |x| ulp of float64 in gelu's far negative tail. That
is ample to judge float32; judge float64 to the last ulp with np.longdouble or mpmath instead.
"""

import math
import operator
import types

import numpy as np
from reference_optimizer import (  # noqa: F401
    adagrad_step,
    adam_step,
    adamw_step,
    descend,
    lion_step,
    rmsprop_step,
    sgd_step,
)


def _f64(array):
    """Return the array as float64; long double, for checks of float64 results, stays."""
    array = np.asarray(array)
    return array if array.dtype == np.longdouble else array.astype(np.float64, copy=False)


def _pair(value):
    """Return (v, v) for an integer, (a, b) for a pair of integers."""
    if np.ndim(value) == 0:
        return operator.index(value), operator.index(value)
    first, second = value
    return operator.index(first), operator.index(second)


# Activations ---------------------------------------------------------------------------------


def exp(x):
    """Return e**x."""
    return np.exp(_f64(x))


def sigmoid(x):
    """Return 1 / (1 + e**-x), precise in both tails."""
    x = _f64(x)
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def relu(x):
    """Return max(x, 0); NaN stays NaN."""
    return np.maximum(_f64(x), 0.0)


def leaky_relu(x, negative_slope=0.01):
    """Return x where x > 0, else negative_slope * x."""
    x = _f64(x)
    return np.where(x > 0, x, negative_slope * x)


def tanh(x):
    """Return the hyperbolic tangent."""
    return np.tanh(_f64(x))


def silu(x):
    """Return x * sigmoid(x); -inf gives the limit, -0."""
    x = np.maximum(_f64(x), -1e4)  # sigmoid(-1e4) is already 0; keeps -inf * 0 away
    return x * sigmoid(x)


try:  # the quicker one; both are the C library's or Cephes' in double
    from scipy.special import erfc as _erfc
except ImportError:
    _erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _gelu_argument(x, approximate):
    """Return (u, du/dx) such that the approximate gelu is x * sigmoid(u)."""
    number = x.dtype.type  # of decimal text, for long double has more digits than a literal
    if approximate == "sigmoid":
        return number("1.702") * x, number("1.702")
    if approximate == "tanh":  # (1 + tanh z) / 2 is sigmoid(2z), which does not cancel
        scale = number("1.5957691216057307117597842397375275")  # 2 sqrt(2/pi)
        cubic = number("0.044715")
        return scale * (x + cubic * x**3), scale * (1 + 3 * cubic * x**2)
    raise ValueError(f"gelu: approximate={approximate!r}")


def gelu(x, approximate="sigmoid"):
    """Return x * Phi(x): "none" exactly, "sigmoid" and "tanh" approximately; -inf gives -0."""
    x = np.maximum(_f64(x), -1e4)
    if approximate == "none":  # (1 + erf z) / 2 is erfc(-z) / 2, which does not cancel
        return x * (0.5 * _erfc(-x / math.sqrt(2.0)))
    return x * sigmoid(_gelu_argument(x, approximate)[0])


def gelu_derivative(x, approximate="sigmoid"):
    """Return the slope of gelu at x."""
    x = np.clip(_f64(x), -1e4, 1e4)  # the slope is exactly 0 or 1 out there, also at infinity
    if approximate == "none":
        density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
        return 0.5 * _erfc(-x / math.sqrt(2.0)) + x * density
    u, du = _gelu_argument(x, approximate)
    return sigmoid(u) + x * du * sigmoid(u) * sigmoid(-u)  # sigmoid' = s (1 - s)


def exp_backward(dy, x):
    """Return dy * e**x."""
    return _f64(dy) * exp(x)


def sigmoid_backward(dy, x):
    """Return dy * s (1 - s) with s = sigmoid(x)."""
    return _f64(dy) * (sigmoid(x) * sigmoid(-_f64(x)))


def relu_backward(dy, x):
    """Return 0 where x <= 0, else dy (PyTorch's rule: dy where x is NaN)."""
    return np.where(_f64(x) <= 0, 0.0, _f64(dy))


def leaky_relu_backward(dy, x, negative_slope=0.01):
    """Return dy where x > 0, else negative_slope * dy (PyTorch's rule, also where x is NaN)."""
    dy = _f64(dy)
    return np.where(_f64(x) > 0, dy, negative_slope * dy)


def tanh_backward(dy, x):
    """Return dy * (1 - tanh(x)**2), written as 4 s (1 - s) with s = sigmoid(2x)."""
    x = _f64(x)
    return _f64(dy) * (4.0 * sigmoid(2.0 * x) * sigmoid(-2.0 * x))


def silu_backward(dy, x):
    """Return dy * (s + x s (1 - s)) with s = sigmoid(x)."""
    x = np.clip(_f64(x), -1e4, 1e4)
    return _f64(dy) * (sigmoid(x) + x * sigmoid(x) * sigmoid(-x))


def gelu_backward(dy, x, approximate="sigmoid"):
    """Return dy * gelu_derivative(x)."""
    return _f64(dy) * gelu_derivative(x, approximate)


ACTIVATIONS = ("exp", "sigmoid", "relu", "leaky_relu", "tanh", "silu", "gelu")


def _activate(y, activation):
    """Return y through the named activation with its default options; None leaves it as it is."""
    return y if activation is None else globals()[activation](y)


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


def conv2d_paddings_for(
    input_hw, output_hw, kernel_hw, *, stride=range(1, 5), dilation=1, max_padding=None
):
    """Return every (stride, padding) that reaches output_hw, symmetric first, by trying them all.

    Both are in the simplest form that conv2d takes. max_padding defaults to the kernel's reach.
    """
    symmetric, asymmetric = [], []
    for pair in map(_pair, [stride] if isinstance(stride, (int, tuple)) else stride):
        sides = []
        for axis in (0, 1):
            reach = _pair(dilation)[axis] * (_pair(kernel_hw)[axis] - 1) + 1
            most = reach if max_padding is None else max_padding
            sides.append([])
            for before, after in np.ndindex(most + 1, most + 1):
                last = _pair(input_hw)[axis] + before + after - reach
                if len(range(0, last + 1, pair[axis])) == _pair(output_hw)[axis]:  # window starts
                    sides[axis].append((before, after))
        steps = pair[0] if pair[0] == pair[1] else pair
        for rows in sides[0]:
            for columns in sides[1]:
                if rows[0] != rows[1] or columns[0] != columns[1]:
                    asymmetric.append((steps, (rows, columns)))
                else:
                    both = rows[0] if rows == columns else (rows[0], columns[0])
                    symmetric.append((steps, both))
    return symmetric + asymmetric


def _pad(x, pads, value=0.0):
    """Return x with its last two axes padded by ((top, bottom), (left, right))."""
    return np.pad(x, ((0, 0), (0, 0), *pads), constant_values=value)


def _tap(padded, r, s, output_hw, stride, dilation):
    """Return the view of a padded input that tap (r, s) sees, one element per output."""
    (oh, ow), (sh, sw), (dh, dw) = output_hw, _pair(stride), _pair(dilation)
    rows = slice(r * dh, r * dh + (oh - 1) * sh + 1, sh)
    columns = slice(s * dw, s * dw + (ow - 1) * sw + 1, sw)
    return padded[:, :, rows, columns]


def conv2d(
    x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None,
    algorithm="direct",
):  # fmt: skip
    """Return the cross-correlation of x (N,C,H,W) with weight (K,C/groups,R,S).

    However the library computes it, the result is this one: algorithm plays no role.
    """
    x, weight = _f64(x), _f64(weight)
    n, _, *hw = x.shape
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


def pool2d_output_shape(input_hw, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
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


def _pool_frame(hw, kernel_size, stride, padding, dilation, ceil_mode):
    """Return (kernel, stride, padding, output shape, np.pad's pads that hold every window)."""
    kernel, padding, dilation = _pair(kernel_size), _pair(padding), _pair(dilation)
    stride = kernel if stride is None else _pair(stride)
    out = pool2d_output_shape(hw, kernel, stride, padding, dilation, ceil_mode)
    pads = []
    for size, k, s, p, d, o in zip(hw, kernel, stride, padding, dilation, out, strict=True):
        reach = (o - 1) * s + d * (k - 1) + 1
        pads.append((p, max(p, reach - size - p)))
    return kernel, stride, padding, out, pads


def _avg_pool_frame(
    hw, kernel_size, stride, padding,
    ceil_mode=False, count_include_pad=True, divisor_override=None
):  # fmt: skip
    """Return _pool_frame's values and what to divide each window's sum by, shape (oh, ow)."""
    frame = _pool_frame(hw, kernel_size, stride, padding, 1, ceil_mode)
    counts = []
    for size, k, s, p, o in zip(hw, *frame[:4], strict=True):
        starts = np.arange(o) * s - p
        stops = np.minimum(starts + k, size + p)  # the window clipped to the padded input
        if not count_include_pad:
            starts, stops = np.maximum(starts, 0), np.minimum(stops, size)
        counts.append(stops - starts)
    area = np.outer(*counts) if divisor_override is None else np.full(frame[3], divisor_override)
    return *frame, area.astype(np.float64)


def avg_pool2d(x, kernel_size, stride=None, padding=0, **options):
    """Return the mean of each window; options ceil_mode, count_include_pad, divisor_override."""
    x = _f64(x)
    frame = _avg_pool_frame(x.shape[2:], kernel_size, stride, padding, **options)
    (kh, kw), stride, _, out, pads, divisor = frame
    padded, y = _pad(x, pads), np.zeros(x.shape[:2] + out)
    for r in range(kh):
        for s in range(kw):
            y += _tap(padded, r, s, out, stride, 1)
    return y / divisor


def avg_pool2d_backward(dy, x, kernel_size, stride=None, padding=0, **options):
    """Return dx of avg_pool2d; of x only the shape matters."""
    h, w = np.shape(x)[2:]
    frame = _avg_pool_frame((h, w), kernel_size, stride, padding, **options)
    (kh, kw), stride, (top, left), out, pads, divisor = frame
    share, dpadded = _f64(dy) / divisor, _pad(np.zeros(np.shape(x)), pads)
    for r in range(kh):
        for s in range(kw):
            dseen = _tap(dpadded, r, s, out, stride, 1)  # a view
            dseen += share
    return dpadded[:, :, top : top + h, left : left + w].copy()


def max_pool2d(
    x, kernel_size, stride=None, padding=0, *, dilation=1, ceil_mode=False, return_indices=False
):
    """Return each window's maximum (and its index h*W+w): first of ties, last of NaNs.

    A dilated window can lie in the padding altogether: it gives -inf and index -1.
    """
    x = _f64(x)
    h, w = x.shape[2:]
    frame = _pool_frame((h, w), kernel_size, stride, padding, dilation, ceil_mode)
    (kh, kw), stride, _, out, pads = frame
    padded = _pad(x, pads, -np.inf)
    places = _pad(np.arange(h * w).reshape(1, 1, h, w), pads, -1)  # -1 marks padding
    best = np.full(x.shape[:2] + out, -np.inf)
    index = np.full(best.shape, -1, dtype=np.int64)
    for r in range(kh):
        for s in range(kw):
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


def linear(x, weight, bias=None, *, activation=None):
    """Return x @ weight + bias for x (..., in) and weight (in, out)."""
    y = _f64(x) @ _f64(weight)
    return _activate(y if bias is None else y + _f64(bias), activation)


def linear_backward(dy, x, weight):
    """Return (dx, dweight, dbias) of linear without activation."""
    dy, x, weight = _f64(dy), _f64(x), _f64(weight)
    rows = int(np.prod(x.shape[:-1]))
    rows_in, rows_out = x.reshape(rows, weight.shape[0]), dy.reshape(rows, weight.shape[1])
    return dy @ weight.T, rows_in.T @ rows_out, rows_out.sum(axis=0)


def log_softmax(x, axis=-1):
    """Return log(softmax(x)) without forming the softmax."""
    x = _f64(x)
    z = x - x.max(axis=axis, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=axis, keepdims=True))


def softmax(x, axis=-1):
    """Return e**x divided by its sum along axis."""
    x = _f64(x)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _class_rows(logits, target, ignore_index):
    """Return (logits, target probabilities, which rows count, is by class), rows of classes."""
    logits, target = _f64(logits), np.asarray(target)
    axis = min(logits.ndim - 1, 1)
    rows = np.moveaxis(logits, axis, -1).reshape(-1, logits.shape[axis])
    if target.dtype.kind == "f":
        shares = np.moveaxis(target.astype(np.float64), axis, -1).reshape(rows.shape)
        return rows, shares, np.ones(len(rows), dtype=bool), False
    labels = target.reshape(len(rows))
    counts = labels != ignore_index
    if np.any(counts & ((labels < 0) | (labels >= rows.shape[1]))):
        raise ValueError("cross_entropy: a class index is out of range")
    hot = (labels[:, None] == np.arange(rows.shape[1])) & counts[:, None]
    return rows, hot.astype(np.float64), counts, True


def _shares_and_divisor(y, counts, by_class, weight, label_smoothing):
    """Return (w q of each row and class, what a mean divides by) for target probabilities y."""
    weight = np.ones(y.shape[1]) if weight is None else _f64(weight)
    shares = weight * ((1.0 - label_smoothing) * y + label_smoothing / y.shape[1])
    return shares, np.float64((y @ weight)[counts].sum() if by_class else counts.sum())


def cross_entropy(
    logits, target, *, weight=None, reduction="mean", label_smoothing=0.0, ignore_index=-100
):
    """Return -sum(w q log softmax(logits)) per row, or its sum or mean over rows that count."""
    rows, y, counts, by_class = _class_rows(logits, target, ignore_index)
    shares, divisor = _shares_and_divisor(y, counts, by_class, weight, label_smoothing)
    logp = log_softmax(rows)
    # A class without a share adds no 0 * -inf.
    with np.errstate(invalid="ignore"):
        terms = np.where((shares == 0) & (logp == -np.inf), 0.0, shares * logp)
    loss = np.where(counts, -terms.sum(axis=1), 0.0)
    if reduction == "none":
        shape = np.shape(logits)
        return loss.reshape(shape[:-1] if len(shape) == 1 else (shape[0], *shape[2:]))
    return loss.sum() / (divisor if reduction == "mean" else 1.0)


def cross_entropy_backward(
    logits, target, *, weight=None, reduction="mean", label_smoothing=0.0, ignore_index=-100
):
    """Return the gradient by logits of cross_entropy; "none" gives each row's own, as "sum"."""
    rows, y, counts, by_class = _class_rows(logits, target, ignore_index)
    shares, divisor = _shares_and_divisor(y, counts, by_class, weight, label_smoothing)
    grad = softmax(rows) * shares.sum(axis=1, keepdims=True) - shares
    grad = np.where(counts[:, None], grad, 0.0)
    if reduction == "mean" and divisor != 0:
        grad = grad / divisor
    axis, shape = min(np.ndim(logits) - 1, 1), list(np.shape(logits))
    shape.append(shape.pop(axis))
    return np.moveaxis(grad.reshape(shape), -1, axis)


def cross_entropy_with_grad(logits, target, **options):
    """Return (cross_entropy, cross_entropy_backward)."""
    loss = cross_entropy(logits, target, **options)
    return loss, cross_entropy_backward(logits, target, **options)


# Gates and measures --------------------------------------------------------------------------

_GATES = "false and a_and_not_b a not_a_and_b b xor or"
_GATES += " nor xnor not_b a_or_not_b not_a not_a_or_b nand true"
GATE_NAMES = tuple(_GATES.split())


def truth(name):
    """Return the gate's values at (a, b) = 00, 01, 10, 11: the four bits of its index."""
    return np.array([int(bit) for bit in f"{GATE_NAMES.index(name):04b}"])


def ulp_distance(value, exact, dtype):
    """Return |value - exact| in units of dtype's spacing at exact; inf if just one is NaN.

    The spacing is constant below the smallest normal number. Infinity counts as the number one
    spacing above the largest finite one, and what lies beyond that as infinity.
    """
    value, exact, info = _f64(value), _f64(exact), np.finfo(dtype)
    exponent = np.frexp(exact)[1] - 1  # |exact| is in [2**exponent, 2**(exponent + 1))
    exponent = np.where(np.isinf(exact), info.maxexp, exponent)
    exponent = np.where(exact == 0, info.minexp, exponent)
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


# Infinities, NaN and overflow go through every function above in silence.
for _name, _function in list(globals().items()):
    if isinstance(_function, types.FunctionType):
        globals()[_name] = np.errstate(all="ignore")(_function)
