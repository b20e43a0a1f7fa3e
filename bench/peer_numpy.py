"""NumPy and SciPy: what people write today without any other library.

Intermediate results go to arrays made once, wherever a function takes ``out``.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import reference
from cases import Case
from peers import Peer, after
from timing import Prepared


def act(y: np.ndarray, name: str | None) -> np.ndarray:
    """Apply an activation in place."""
    if name == "relu":
        return np.maximum(y, 0, out=y)
    if name == "gelu":
        with np.errstate(over="ignore"):
            e = np.exp(-1.702 * y)
        e += 1
        return np.divide(y, e, out=y)
    if name is not None:
        raise NotImplementedError(f"activation {name!r}")
    return y


class _Blas(Peer):
    """What NumPy and SciPy share: their BLAS's threads are set by threadpoolctl."""

    def set_threads(self, count: int) -> None:
        super().set_threads(count)
        with contextlib.suppress(ImportError):
            import threadpoolctl

            threadpoolctl.threadpool_limits(count)


class NumPy(_Blas):
    name = "numpy"

    def settings(self) -> str:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"out= where there is one; {blas.get('name')} {blas.get('version')}"

    def supports(self, case: Case, dtype: np.dtype) -> bool:
        # A call of the large descents takes ten seconds and more: never the fastest peer.
        endless = case.op == "descend" and case.flops > 1e9
        return super().supports(case, dtype) and not endless

    # -- element-wise --

    def exp(self, case: Case, x):
        return Prepared(np.exp, (x,), {"out": np.empty_like(x)})

    def tanh(self, case: Case, x):
        return Prepared(np.tanh, (x,), {"out": np.empty_like(x)})

    def relu(self, case: Case, x):
        return Prepared(np.maximum, (x, x.dtype.type(0)), {"out": np.empty_like(x)})

    def leaky_relu(self, case: Case, x):
        slope, y = x.dtype.type(case.options.get("negative_slope", 0.01)), np.empty_like(x)
        return Prepared(lambda: np.maximum(np.multiply(x, slope, out=y), x, out=y))

    def sigmoid(self, case: Case, x):
        return Prepared(_sigmoid, (x, x.dtype.type(-1), np.empty_like(x)))

    def silu(self, case: Case, x):
        y = np.empty_like(x)
        return Prepared(lambda: np.multiply(_sigmoid(x, x.dtype.type(-1), y), x, out=y))

    def gelu(self, case: Case, x):
        y, number = np.empty_like(x), x.dtype.type
        form = case.options.get("approximate", "sigmoid")
        if form == "sigmoid":
            return Prepared(lambda: np.multiply(_sigmoid(x, number(-1.702), y), x, out=y))
        if form == "none":
            raise NotImplementedError("NumPy has no erf")

        def tanh_form():
            np.multiply(x, x, out=y)
            np.multiply(y, number(0.044715), out=y)
            np.add(y, number(1), out=y)
            np.multiply(y, x, out=y)
            np.multiply(y, number(math.sqrt(2 / math.pi)), out=y)
            np.tanh(y, out=y)
            np.add(y, number(1), out=y)
            np.multiply(y, x, out=y)
            return np.multiply(y, number(0.5), out=y)

        return Prepared(tanh_form)

    def gelu_backward(self, case: Case, dy, x):
        if case.options.get("approximate", "sigmoid") != "sigmoid":
            raise NotImplementedError("only the sigmoid form is written out")
        s, t, number = np.empty_like(x), np.empty_like(x), x.dtype.type

        def slope():  # s + 1.702 x s (1 - s)
            _sigmoid(x, number(-1.702), s)
            np.subtract(number(1), s, out=t)
            np.multiply(t, x, out=t)
            np.multiply(t, number(1.702), out=t)
            np.add(t, number(1), out=t)
            np.multiply(t, s, out=t)
            return np.multiply(t, dy, out=t)

        return Prepared(slope)

    def relu_backward(self, case: Case, dy, x):
        dx = np.empty_like(x)
        return Prepared(lambda: np.multiply(dy, x > 0, out=dx))

    # -- convolution and pooling --

    def conv2d(self, case: Case, x, weight, bias=None):
        options = dict(case.options)
        name = options.pop("activation", None)
        options.pop("algorithm", None)
        if options.get("groups", 1) == 1:
            return Prepared(_windows_conv, (x, weight, bias, name), options)
        return Prepared(_depthwise, (x, weight, bias, name), options)

    def avg_pool2d(self, case: Case, x, **more):
        if case.options["padding"] or case.options.get("ceil_mode"):
            raise NotImplementedError("only without padding")
        area = np.prod(reference._pair(case.options["kernel_size"]))
        scale = x.dtype.type(1 / area)

        def mean(y):
            return np.multiply(y, scale, out=y)

        return Prepared(_pool(case, x, np.add, 0, mean))

    def max_pool2d(self, case: Case, x):
        if case.options.get("return_indices") or case.options.get("ceil_mode"):
            raise NotImplementedError("values only, whole windows only")
        return Prepared(_pool(case, x, np.maximum, -np.inf, lambda y: y))

    def global_avg_pool2d(self, case: Case, x):
        return Prepared(np.mean, (x,), {"axis": (2, 3), "keepdims": True})

    def global_max_pool2d(self, case: Case, x):
        return Prepared(np.max, (x,), {"axis": (2, 3), "keepdims": True})

    # -- dense and loss --

    def softmax(self, case: Case, x):
        y, axis = np.empty_like(x), case.options["axis"]

        def normalised():
            np.subtract(x, x.max(axis=axis, keepdims=True), out=y)
            np.exp(y, out=y)
            return np.divide(y, y.sum(axis=axis, keepdims=True), out=y)

        return Prepared(normalised)

    # -- optimizers and gates --

    def sgd_step(self, case: Case, param, grad, buffer):
        lr, momentum = (param.dtype.type(case.options[k]) for k in ("lr", "momentum"))
        scratch = np.empty_like(param)

        def step():
            np.multiply(buffer, momentum, out=buffer)
            np.add(buffer, grad, out=buffer)
            np.multiply(buffer, lr, out=scratch)
            np.subtract(param, scratch, out=param)

        return Prepared(step, result=after(case, (param, grad, buffer)))

    def adam_step(self, case: Case, param, grad, m, v):
        number, t = param.dtype.type, case.options["step"]
        b1, b2, lr, eps = (number(x) for x in (0.9, 0.999, 1e-3, 1e-8))
        rate, root = number(1e-3 / (1 - 0.9**t)), number(1 / math.sqrt(1 - 0.999**t))
        scratch = np.empty_like(param)

        def step():
            np.multiply(m, b1, out=m)
            np.multiply(grad, number(1) - b1, out=scratch)
            np.add(m, scratch, out=m)
            np.multiply(v, b2, out=v)
            np.multiply(grad, grad, out=scratch)
            np.multiply(scratch, number(1) - b2, out=scratch)
            np.add(v, scratch, out=v)
            np.sqrt(v, out=scratch)
            np.multiply(scratch, root, out=scratch)
            np.add(scratch, eps, out=scratch)
            np.divide(m, scratch, out=scratch)
            np.multiply(scratch, rate, out=scratch)
            np.subtract(param, scratch, out=param)

        return Prepared(step, result=after(case, (param, grad, m, v)))

    def descend(self, case: Case, objective, x0):
        o, number = case.options, x0.dtype.type
        lr, b, keep = number(o["lr"]), number(o["momentum"]), number(1 - o["momentum"])
        x, v, s, t = (np.empty_like(x0) for _ in range(4))

        def loop():
            x[...], v[...] = x0, 0
            for _ in range(o["steps"]):
                _sigmoid(x, number(-1.702), s)
                np.subtract(number(1), s, out=t)
                np.multiply(t, x, out=t)
                np.multiply(t, number(1.702), out=t)
                np.add(t, number(1), out=t)
                np.multiply(t, s, out=t)
                if b:
                    np.multiply(v, b, out=v)
                    np.multiply(t, keep, out=t)
                    np.add(v, t, out=v)
                np.multiply(v if b else t, lr, out=s)
                np.subtract(x, s, out=x)
            return x

        return Prepared(loop)

    def gate_forward(self, case: Case, name, a, b):
        import loopnest as ln

        *hidden, (weight, bias) = [
            (w.astype(a.dtype), c.astype(a.dtype)) for w, c in ln.gate(name).layers
        ]
        y = np.empty_like(a)

        def network():
            columns = [a, b]
            for w, c in hidden:
                columns = [
                    np.maximum(columns[0] * w[0, j] + columns[1] * w[1, j] + c[j], 0)
                    for j in range(w.shape[1])
                ]
            z = columns[0] * weight[0, 0] + columns[1] * weight[1, 0] + bias[0]
            return _sigmoid(z, a.dtype.type(-1), y)

        return Prepared(network)

    def linear(self, case: Case, x, weight, bias):
        y = np.empty((*x.shape[:-1], weight.shape[1]), x.dtype)
        name = case.options.get("activation")

        def product():
            np.matmul(x, weight, out=y)
            np.add(y, bias, out=y)
            return act(y, name)

        return Prepared(product)

    def linear_backward(self, case: Case, dy, x, weight):
        dx, dw = np.empty_like(x), np.empty_like(weight)

        def products():
            return np.matmul(dy, weight.T, out=dx), np.matmul(x.T, dy, out=dw), dy.sum(axis=0)

        return Prepared(products)

    def cross_entropy(self, case: Case, logits, target):
        rows = np.arange(len(logits))

        def mean_loss():
            shifted = logits - logits.max(axis=1, keepdims=True)
            total = np.log(np.exp(shifted).sum(axis=1))
            if target.ndim == 1:
                return (total - shifted[rows, target]).mean()
            return (total * target.sum(axis=1) - (target * shifted).sum(axis=1)).mean()

        return Prepared(mean_loss)

    def cross_entropy_with_grad(self, case: Case, logits, target):
        """Loss and gradient from one softmax."""
        rows, y = np.arange(len(logits)), np.empty_like(logits)
        scale = logits.dtype.type(1 / len(logits))

        def both():
            shifted = logits - logits.max(axis=1, keepdims=True)
            np.exp(shifted, out=y)
            sums = y.sum(axis=1, keepdims=True)
            total = np.log(sums[:, 0])
            if target.ndim == 1:
                loss = (total - shifted[rows, target]).mean()
                np.divide(y, sums, out=y)
                y[rows, target] -= 1
            else:
                share = target.sum(axis=1)
                loss = (total * share - (target * shifted).sum(axis=1)).mean()
                np.multiply(y, (share / sums[:, 0])[:, None], out=y)
                np.subtract(y, target, out=y)
            return loss, np.multiply(y, scale, out=y)

        return Prepared(both)

    def cross_entropy_backward(self, case: Case, logits, target):
        rows, y = np.arange(len(logits)), np.empty_like(logits)
        scale = logits.dtype.type(1 / len(logits))

        def gradient():
            np.subtract(logits, logits.max(axis=1, keepdims=True), out=y)
            np.exp(y, out=y)
            sums = y.sum(axis=1, keepdims=True)
            if target.ndim == 1:
                np.divide(y, sums, out=y)
                y[rows, target] -= 1
            else:
                np.multiply(y, target.sum(axis=1, keepdims=True) / sums, out=y)
                np.subtract(y, target, out=y)
            return np.multiply(y, scale, out=y)

        return Prepared(gradient)


def _sigmoid(x, minus, y):
    """1 / (1 + exp(minus x)) in place of y."""
    np.multiply(x, minus, out=y)
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    np.add(y, y.dtype.type(1), out=y)
    return np.reciprocal(y, out=y)


def _padded(x, weight, stride, padding, dilation, value=0):
    pads = reference.resolve_padding(padding, x.shape[2:], weight, stride, dilation)
    return np.pad(x, ((0, 0), (0, 0), *pads), constant_values=value)


def _windows_conv(x, weight, bias, name, stride=1, padding=0, dilation=1, groups=1):
    """im2col by strides, then one matrix product: NumPy's usual convolution."""
    (sh, sw), (dh, dw) = reference._pair(stride), reference._pair(dilation)
    _, _, r, s = weight.shape
    padded = _padded(x, (r, s), stride, padding, dilation)
    extent = (dh * (r - 1) + 1, dw * (s - 1) + 1)
    view = np.lib.stride_tricks.sliding_window_view(padded, extent, axis=(2, 3))
    view = view[:, :, ::sh, ::sw, ::dh, ::dw]
    y = np.tensordot(view, weight, axes=((1, 4, 5), (1, 2, 3)))
    if bias is not None:
        y += bias
    return np.ascontiguousarray(act(y, name).transpose(0, 3, 1, 2))


def _depthwise(x, weight, bias, name, stride=1, padding=0, dilation=1, groups=1):
    """Tap by tap; one filter for each channel."""
    if groups != x.shape[1] or len(weight) != groups:
        raise NotImplementedError("groups of one channel only")
    padded = _padded(x, weight.shape[2:], stride, padding, dilation)
    hw = reference.conv2d_output_shape(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    y = np.zeros((*x.shape[:2], *hw), x.dtype)
    for r in range(weight.shape[2]):
        for s in range(weight.shape[3]):
            seen = reference._tap(padded, r, s, hw, stride, dilation)
            y += seen * weight[None, :, 0, r, s, None, None]
    if bias is not None:
        y += bias[None, :, None, None]
    return act(y, name)


def _pool(case: Case, x, combine: Any, start: float, finish: Any):
    """Function that folds the shifted views of a padded input with a ufunc."""
    kernel = reference._pair(case.options["kernel_size"])
    stride = reference._pair(case.options["stride"] or kernel)
    padding, dilation = case.options["padding"], case.options.get("dilation", 1)
    hw = reference.pool2d_output_shape(x.shape[2:], kernel, stride, padding, dilation)
    y = np.empty((*x.shape[:2], *hw), x.dtype)

    def fold():
        padded = _padded(x, kernel, stride, padding, dilation, start) if padding else x
        y.fill(start)
        for r in range(kernel[0]):
            for s in range(kernel[1]):
                combine(y, reference._tap(padded, r, s, hw, stride, dilation), out=y)
        return finish(y)

    return fold


class SciPy(_Blas):
    name = "scipy"
    requires = ("scipy.special", "scipy.ndimage", "scipy.signal")

    def settings(self) -> str:
        return "special, ndimage, signal"

    def supports(self, case: Case, dtype: np.dtype) -> bool:
        if case.op == "conv2d":  # one plane by one filter is all that SciPy has
            plain = not case.options.get("activation")
            same = case.options.get("padding") == "same" or case.cell == "seed"
            return plain and same and case.cell in ("image", "seed")
        if case.op == "max_pool2d":
            options = case.options
            kernel, indices = options["kernel_size"], options.get("return_indices")
            centred = isinstance(kernel, int) and options["padding"] == kernel // 2
            return options["stride"] == 1 and kernel % 2 == 1 and centred and not indices
        return super().supports(case, dtype)

    def sigmoid(self, case: Case, x):
        import scipy.special

        return Prepared(scipy.special.expit, (x,), {"out": np.empty_like(x)})

    def gelu(self, case: Case, x):
        from scipy.special import erf, expit

        y, form = np.empty_like(x), case.options.get("approximate", "sigmoid")
        number = x.dtype.type
        if form == "sigmoid":
            return Prepared(lambda: np.multiply(
                expit(np.multiply(x, number(1.702), out=y), out=y), x, out=y))  # fmt: skip
        if form == "tanh":
            raise NotImplementedError("the same as NumPy's")

        def exact():
            np.multiply(x, number(math.sqrt(0.5)), out=y)
            erf(y, out=y)
            np.add(y, number(1), out=y)
            np.multiply(y, x, out=y)
            return np.multiply(y, number(0.5), out=y)

        return Prepared(exact)

    def conv2d(self, case: Case, x, weight, bias=None):
        import scipy.ndimage

        y = np.empty_like(x[0, 0])

        def correlate():
            scipy.ndimage.correlate(x[0, 0], weight[0, 0], output=y, mode="constant")
            return y if bias is None else np.add(y, bias[0], out=y)

        return Prepared(correlate, result=lambda raw: raw[None, None])

    def max_pool2d(self, case: Case, x):
        import scipy.ndimage

        size = (1, 1, case.options["kernel_size"], case.options["kernel_size"])
        options = {"size": size, "output": np.empty_like(x), "mode": "constant", "cval": -np.inf}
        return Prepared(
            scipy.ndimage.maximum_filter, (x,), options, result=lambda raw: options["output"]
        )

    def softmax(self, case: Case, x):
        import scipy.special

        return Prepared(scipy.special.softmax, (x,), {"axis": case.options["axis"]})


PEERS = (NumPy, SciPy)
