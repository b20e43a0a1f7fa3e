"""Operators of a network as steps of a program: one function an operator.

The operators are ONNX's, from opset 6 on, in its names and attributes; ``Linear`` is this
library's (weight of shape (inputs, outputs)). `lower` makes the steps of one node from the values of its
inputs. Where a kernel of this library does the job it is called as it is: 2D convolution,
pooling with symmetric padding, dense layers, activations, softmax. The rest is arranged around
these: 1D data is 2D data of height 1, a 3D convolution is a 2D one whose channels are (channel,
depth tap), uneven padding is written out, and what else there is moves or adds numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loopnest.program import Builder, Shape, Value, row_strides

MAX_KERNEL = 1 << 20  # taps of one window, where they are steps of their own


@dataclass(frozen=True)
class Node:
    """An operator with its attributes, and the names of the values it takes and makes."""

    op: str
    inputs: tuple[str, ...]  # "" for one that is left out
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    opset: int = 21

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"node {self.name or self.outputs[0]!r} ({self.op})"


class Lowering(Builder):
    """A builder that also notes whether rows of axis 0 stay independent."""

    mixes_rows = False

    def lower(self, node: Node, inputs: Sequence[Value | None]) -> list[Value]:
        """The values of a node's outputs."""
        self.where = node.label
        outputs = OPERATORS[node.op](self, node, list(inputs))
        rows = {v.shape[0] if v.ndim else None for v in self.inputs}
        if len(rows) != 1 or any(not v.ndim or v.shape[0] not in rows for v in outputs):
            self.mixes_rows = True
        return outputs

    def numbers(self, value: Value | None, what: str) -> np.ndarray:
        """The numbers of an input that must be known beforehand."""
        if value is None or value.constant is None:
            raise self.fail(f"{what} is computed by the network; accepted: a constant")
        return value.constant

    def axis(self, value: int, ndim: int) -> int:
        """An axis from 0 up."""
        if not -ndim <= value < ndim:
            raise self.fail(f"axis is {value} for {ndim} dimensions")
        return value % ndim


def _is_constant(value: Value | None) -> bool:
    return value is None or value.constant is not None


# ---- windows: convolution and pooling ----


@dataclass
class Window:
    """Sizes of a window along each spatial axis, and the padding before and after."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    before: list[int]
    after: list[int]
    output: list[int]


def _window(b: Lowering, node: Node, spatial: Shape, kernel: Sequence[int]) -> Window:
    a, rank = node.attributes, len(spatial)
    stride = list(a.get("strides") or [1] * rank)
    dilation = list(a.get("dilations") or [1] * rank)
    pads = list(a.get("pads") or [0] * 2 * rank)
    auto = a.get("auto_pad", "NOTSET")
    for name, values, length, low in (
        ("kernel_shape", kernel, rank, 1),
        ("strides", stride, rank, 1),
        ("dilations", dilation, rank, 1),
        ("pads", pads, 2 * rank, 0),
    ):
        if len(values) != length or min(values, default=low) < low or max(values) >= 2**31:
            raise b.fail(f"{name} is {list(values)}; accepted: {length} integers of at least {low}")
    before, after, output = pads[:rank], pads[rank:], []
    ceil = a.get("ceil_mode", 0)
    for i, size in enumerate(spatial):
        extent = dilation[i] * (kernel[i] - 1) + 1
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            out = -(-size // stride[i])
            total = max((out - 1) * stride[i] + extent - size, 0)
            low, high = total // 2, total - total // 2
            before[i], after[i] = (low, high) if auto == "SAME_UPPER" else (high, low)
        else:
            if auto == "VALID":
                before[i] = after[i] = 0
            room = size + before[i] + after[i] - extent
            if room < 0:
                raise b.fail(
                    f"a window of {extent} is larger than the padded input, "
                    f"{size} + {before[i]} + {after[i]}"
                )
            out = (-(-room // stride[i]) if ceil else room // stride[i]) + 1
            if ceil and (out - 1) * stride[i] >= size + before[i]:
                out -= 1  # the last window must begin inside the input or the padding before it
        output.append(out)
    return Window(list(kernel), stride, dilation, before, after, output)


def _spatial(b: Lowering, x: Value, least: int = 1) -> Shape:
    if x.ndim < 2 + least or x.ndim > 5:
        raise b.fail(f"x has shape {x.shape}; accepted: (N, C, {'D, ' * (least - 1)}...) "
                     "with one to three spatial axes")  # fmt: skip
    return x.shape[2:]


def _conv(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, weight, bias = (inputs + [None])[:3]
    spatial = _spatial(b, x)
    if weight.ndim != x.ndim:
        raise b.fail(f"weight has shape {weight.shape} for x of shape {x.shape}")
    kernel = weight.shape[2:]
    if tuple(node.attributes.get("kernel_shape") or kernel) != kernel:
        raise b.fail(f"kernel_shape is {node.attributes['kernel_shape']}, weight's is {kernel}")
    if not (_is_constant(weight) and _is_constant(bias)):
        b.mixes_rows = True
    w = _window(b, node, spatial, kernel)
    groups = node.attributes.get("group", 1)
    n, c = x.shape[:2]
    k, group_channels = weight.shape[:2]
    if len(spatial) == 1:
        y = b.conv2d(
            x.reshaped(n, c, 1, *spatial),
            weight.reshaped(k, group_channels, 1, *kernel),
            bias,
            (1, w.stride[0]),
            ((0, 0), (w.before[0], w.after[0])),
            (1, w.dilation[0]),
            groups,
        )
        return [y.reshaped(n, y.shape[1], y.shape[3])]
    if len(spatial) == 2:
        sides = ((w.before[0], w.after[0]), (w.before[1], w.after[1]))
        return [b.conv2d(x, weight, bias, tuple(w.stride), sides, tuple(w.dilation), groups)]
    # Images of the planes that a depth tap sees, (n, od, c, tap): channels in the order (c, tap).
    taps, out = kernel[0], w.output[0]
    x = b.padded(x, [(0, 0), (0, 0), (w.before[0], w.after[0]), (0, 0), (0, 0)], 0.0)
    plane = spatial[1] * spatial[2]
    s = row_strides(x.shape)
    shape = (n, out, c, taps, plane)
    strides = (s[0], w.stride[0] * s[2], s[1], w.dilation[0] * s[2], 1)
    images = b.move(x, b.work(shape), shape, strides, row_strides(shape))
    y = b.conv2d(
        images.reshaped(n * out, c * taps, *spatial[1:]),
        weight.reshaped(k, group_channels * taps, *kernel[1:]),
        bias,
        tuple(w.stride[1:]),
        ((w.before[1], w.after[1]), (w.before[2], w.after[2])),
        tuple(w.dilation[1:]),
        groups,
    )
    y = y.reshaped(n, out, *y.shape[1:])
    return [b.transposed(y, (0, 2, 1, 3, 4))]


def _max_pool(b: Lowering, node: Node, inputs: list) -> list[Value]:
    (x,), rank = inputs, len(_spatial(b, inputs[0]))
    if len(node.outputs) > 1:
        raise b.fail("its second output, Indices, is for NumPy calls only")
    w = _window(b, node, x.shape[2:], node.attributes["kernel_shape"])
    even = w.before == w.after and all(2 * p <= k for p, k in zip(w.before, w.kernel, strict=True))
    ceil = bool(node.attributes.get("ceil_mode", 0))
    if not even:
        # Minus infinity around, as far as windows reach; then there is nothing left to pad.
        reach = [
            (o - 1) * s + d * (k - 1) + 1
            for o, s, d, k in zip(w.output, w.stride, w.dilation, w.kernel, strict=True)
        ]
        pads = [
            (before, r - size - before)
            for before, r, size in zip(w.before, reach, x.shape[2:], strict=True)
        ]
        x = b.padded(x, [(0, 0), (0, 0), *pads], -math.inf)
        w.before, ceil = [0] * rank, False
    n, c, *spatial = x.shape

    def pool(x: Value, axes: Sequence[int]) -> Value:
        """Over two axes (a last window that hangs over the edge is cut by ceil_mode alone)."""
        pick = lambda values: tuple(values[a] for a in axes)  # noqa: E731
        return b.pool2d("max_pool2d", x, pick(w.kernel), pick(w.stride), pick(w.before), ceil,
                        dilation=pick(w.dilation))  # fmt: skip

    if rank == 2:
        return [pool(x, (0, 1))]
    w_one = ([1], [1], [1], [0])
    for values, one in zip((w.kernel, w.stride, w.dilation, w.before), w_one, strict=True):
        values += one  # axis -1: nothing to pool
    if rank == 1:
        y = pool(x.reshaped(n, c, *spatial, 1), (0, 1))
        return [y.reshaped(n, c, y.shape[2])]
    y = pool(x.reshaped(n, c * spatial[0], *spatial[1:]), (1, 2))
    oh, ow = y.shape[2:]
    y = pool(y.reshaped(n, c, spatial[0], oh * ow), (0, 3))
    return [y.reshaped(n, c, y.shape[2], oh, ow)]


def _average_pool(b: Lowering, node: Node, inputs: list) -> list[Value]:
    (x,), spatial = inputs, _spatial(b, inputs[0])
    w = _window(b, node, spatial, node.attributes["kernel_shape"])
    include = bool(node.attributes.get("count_include_pad", 0))
    ceil = bool(node.attributes.get("ceil_mode", 0))
    n, c = x.shape[:2]
    plain = w.before == w.after and set(w.dilation) == {1} and node.opset >= 7
    plain = plain and all(2 * p <= k for p, k in zip(w.before, w.kernel, strict=True))
    if plain and len(spatial) < 3:
        flat = len(spatial) == 1
        one = [1] * flat
        y = b.pool2d(
            "avg_pool2d",
            x.reshaped(n, c, *one, *spatial),
            (*one, *w.kernel),
            (*one, *w.stride),
            (*([0] * flat), *w.before),
            ceil,
            count_include_pad=include,
        )
        return [y.reshaped(n, c, y.shape[3]) if flat else y]
    counts = np.ones(())
    for i, size in enumerate(spatial):
        x = _window_sum(b, x, 2 + i, w, i)
        starts = np.arange(w.output[i]) * w.stride[i] - w.before[i]
        at = starts[:, None] + w.dilation[i] * np.arange(w.kernel[i])
        low, high = (-w.before[i], size + w.after[i]) if include else (0, size)
        counts = np.multiply.outer(counts, ((at >= low) & (at < high)).sum(1))
    divisor = b.constant(np.maximum(counts, 1).reshape(1, 1, *counts.shape))
    return [b.binary("div", x, divisor)]


def _window_sum(b: Lowering, x: Value, axis: int, w: Window, i: int) -> Value:
    """Sums over windows along one axis, tap by tap; padding adds nothing."""
    shape = list(x.shape)
    size, shape[axis] = x.shape[axis], w.output[i]
    y = b.work(shape)
    if w.kernel[i] > MAX_KERNEL:
        raise b.fail(f"kernel_shape is {w.kernel}; accepted: at most {MAX_KERNEL}")
    b.fill(y, 0.0)
    x_strides, y_strides = list(row_strides(x.shape)), row_strides(shape)
    for tap in range(w.kernel[i]):
        offset = tap * w.dilation[i] - w.before[i]
        low = max(0, -(offset // w.stride[i]))
        high = min(w.output[i], (size - 1 - offset) // w.stride[i] + 1)
        if high <= low:
            continue
        block, strides = list(shape), list(x_strides)
        block[axis], strides[axis] = high - low, w.stride[i] * x_strides[axis]
        x_offset = (low * w.stride[i] + offset) * x_strides[axis]
        b.move(x, y, block, strides, y_strides, x_offset, low * y_strides[axis], "add")
    return y


def _global_pool(kind: str) -> Callable:
    def lower(b: Lowering, node: Node, inputs: list) -> list[Value]:
        (x,), spatial = inputs, _spatial(b, inputs[0])
        plane = x.reshaped(*x.shape[:2], 1, math.prod(spatial))
        y = b.global_pool2d(kind, plane)
        return [y.reshaped(*x.shape[:2], *[1] * len(spatial))]

    return lower


# ---- element by element ----


def _unary(name: str) -> Callable:
    return lambda b, node, inputs: [b.unary(name, inputs[0])]


def _leaky_relu(b: Lowering, node: Node, inputs: list) -> list[Value]:
    return [b.unary("leaky_relu", inputs[0], float(node.attributes.get("alpha", 0.01)))]


def _gelu(b: Lowering, node: Node, inputs: list) -> list[Value]:
    forms = {"none": "gelu_erf", "tanh": "gelu_tanh", "sigmoid": "gelu"}
    return [b.unary(forms[node.attributes.get("approximate", "none")], inputs[0])]


def _swish(b: Lowering, node: Node, inputs: list) -> list[Value]:
    (x,), alpha = inputs, float(node.attributes.get("alpha", 1.0))
    if alpha == 1:
        return [b.unary("silu", x)]
    return [b.binary("mul", x, b.unary("sigmoid", b.affine(x, alpha)))]


def _binary(name: str) -> Callable:
    def lower(b: Lowering, node: Node, inputs: list) -> list[Value]:
        first, second = inputs
        if node.opset < 7 and node.attributes.get("broadcast"):
            # The old form: the second operand's axes begin at a given axis of the first.
            axis = node.attributes.get("axis", first.ndim - second.ndim)
            after = first.ndim - axis - second.ndim
            if after < 0:
                raise b.fail(f"axis is {axis} for shapes {first.shape} and {second.shape}")
            second = second.reshaped(*second.shape, *[1] * after)
        return [_broadcast(b, name, first, second)]

    return lower


def _broadcast(b: Lowering, name: str, first: Value, second: Value) -> Value:
    if not _is_constant(first) and not _is_constant(second) and first.ndim != second.ndim:
        b.mixes_rows = True
    return b.binary(name, first, second)


def _sum(b: Lowering, node: Node, inputs: list) -> list[Value]:
    total = inputs[0]
    for value in inputs[1:]:
        total = _broadcast(b, "add", total, value)
    return [total]


def _lrn(b: Lowering, node: Node, inputs: list) -> list[Value]:
    """x / (bias + alpha/size sum of x^2 over neighbouring channels)^beta"""
    (x,), a = inputs, node.attributes
    if x.ndim < 2:
        raise b.fail(f"x has shape {x.shape}; accepted: (N, C, ...)")
    size, channels = a["size"], x.shape[1]
    if not 1 <= size <= MAX_KERNEL:
        raise b.fail(f"size is {size}; accepted: 1 to {MAX_KERNEL}")
    alpha, beta, bias = a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)
    w = Window([size], [1], [1], [(size - 1) // 2], [size - 1 - (size - 1) // 2], [channels])
    squares = _window_sum(b, b.binary("mul", x, x), 1, w, 0)
    return [b.binary("div", x, _power(b, b.affine(squares, alpha / size, bias), beta))]


def _power(b: Lowering, x: Value, exponent: float) -> Value:
    """x^exponent by multiplications and square roots: the binary digits of the exponent.

    These are rounded alike everywhere, unlike a library's pow. The exponent is taken to 30
    binary places, 52 for float64.
    """
    if not 0 <= exponent <= 64:
        raise b.fail(f"beta is {exponent}; accepted: 0 to 64")
    places = 30 if b.dtype == np.float32 else 52
    digits = round(exponent * 2**places)
    factors, root = [x] * (digits >> places), x
    for place in range(places - 1, -1, -1):
        if not digits & (2 ** (place + 1) - 1):
            break
        root = b.unary("sqrt", root)
        if digits >> place & 1:
            factors.append(root)
    if not factors:
        one = b.work(x.shape)
        return b.fill(one, 1.0)
    total = factors[0]
    for factor in factors[1:]:
        total = b.binary("mul", total, factor)
    return total


def _batch_normalization(b: Lowering, node: Node, inputs: list) -> list[Value]:
    """A convolution of 1x1 and its own channel: x scale + shift, rounded twice."""
    x, *parameters = inputs
    if node.attributes.get("training_mode", 0) or len(node.outputs) > 1:
        raise b.fail("training_mode and its outputs are for NumPy calls only")
    gamma, beta, mean, variance = (b.numbers(p, "a parameter") for p in parameters)
    epsilon = node.attributes.get("epsilon", 1e-5)
    scale, shift = batch_norm_factors(gamma, beta, mean, variance, epsilon)
    channels = x.shape[1] if x.ndim > 1 else 1
    if x.ndim < 2 or scale.shape != (channels,):
        raise b.fail(f"x has shape {x.shape}, the parameters {scale.shape}")
    plane = x.reshaped(*x.shape[:2], 1, math.prod(x.shape[2:]))
    weight = b.constant(scale.reshape(channels, 1, 1, 1))
    if not plane.size:
        return [x]
    y = b.conv2d(plane, weight, b.constant(shift), groups=channels)
    return [y.reshaped(*x.shape)]


def batch_norm_factors(
    scale: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift) in float64 that a batch normalisation with fixed statistics amounts to."""
    with np.errstate(all="ignore"):
        factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        return factor, bias.astype(np.float64) - mean.astype(np.float64) * factor


def _softmax(kind: str) -> Callable:
    def lower(b: Lowering, node: Node, inputs: list) -> list[Value]:
        (x,) = inputs
        old = node.opset < 13
        if not x.ndim:
            raise b.fail("x has no axes")
        axis = b.axis(node.attributes.get("axis", 1 if old and x.ndim > 1 else -1), x.ndim)
        if axis == 0:
            b.mixes_rows = True
        if old:  # the axes from this one on are one
            classes = math.prod(x.shape[axis:])
            rows = x.reshaped(math.prod(x.shape[:axis]), classes)
            return [b.softmax(kind, rows).reshaped(*x.shape)]
        order = [a for a in range(x.ndim) if a != axis] + [axis]
        moved = b.transposed(x, order)
        rows = moved.reshaped(math.prod(moved.shape[:-1]), moved.shape[-1])
        y = b.softmax(kind, rows).reshaped(*moved.shape)
        return [b.transposed(y, [order.index(a) for a in range(x.ndim)])]

    return lower


# ---- matrices ----


def _gemm(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, weight, bias = (inputs + [None])[:3]
    a = node.attributes
    alpha, beta = float(a.get("alpha", 1.0)), float(a.get("beta", 1.0))
    if x.ndim != 2 or weight.ndim != 2:
        raise b.fail(f"matrices have shapes {x.shape} and {weight.shape}; accepted: 2 axes each")
    if a.get("transA", 0) or not _is_constant(weight):
        b.mixes_rows = True
    x = b.transposed(x, (1, 0)) if a.get("transA", 0) else x
    if weight.constant is not None:
        w = weight.constant.T if a.get("transB", 0) else weight.constant
        if a.get("transB", 0) or alpha != 1:
            weight = b.constant(w * b.dtype.type(alpha) if alpha != 1 else w)
        alpha = 1.0
    elif a.get("transB", 0):
        weight = b.transposed(weight, (1, 0))
    row = bias is not None and bias.constant is not None and alpha == 1
    if row and math.prod(bias.shape) in (1, weight.shape[1]) and bias.shape[:-1] in ((), (1,)):
        values = np.broadcast_to(bias.constant.reshape(-1), weight.shape[1:])
        values = values * b.dtype.type(beta) if beta != 1 else values
        return [b.linear(x, weight, b.constant(values))]
    y = b.affine(b.linear(x, weight, None), alpha)
    if bias is None or beta == 0:
        return [y]
    if np.broadcast_shapes(bias.shape, y.shape) != y.shape:
        raise b.fail(f"C has shape {bias.shape}; accepted: one that broadcasts to {y.shape}")
    return [_broadcast(b, "add", y, b.affine(bias, beta))]


def _matmul(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, y = inputs
    if not x.ndim or not y.ndim:
        raise b.fail("an operand has no axes")
    if not _is_constant(y) and (_is_constant(x) or x.ndim != y.ndim or x.ndim < 3):
        b.mixes_rows = True
    first = x.reshaped(1, *x.shape) if x.ndim == 1 else x
    second = y.reshaped(*y.shape, 1) if y.ndim == 1 else y
    if first.shape[-1] != second.shape[-2]:
        raise b.fail(f"shapes {x.shape} and {y.shape} do not fit")
    if second.ndim == 2:
        result = b.linear(first, second, None)
    else:
        try:
            batch = np.broadcast_shapes(first.shape[:-2], second.shape[:-2])
        except ValueError:
            raise b.fail(f"shapes {x.shape} and {y.shape} do not broadcast") from None
        first = b.expanded(first, (*batch, *first.shape[-2:]))
        second = b.expanded(second, (*batch, *second.shape[-2:]))
        count = math.prod(batch)
        product = b.matmul(
            first.reshaped(count, *first.shape[-2:]), second.reshaped(count, *second.shape[-2:])
        )
        result = product.reshaped(*batch, *product.shape[1:])
    shape = list(result.shape)
    if y.ndim == 1:
        del shape[-1]
    if x.ndim == 1:
        del shape[-1 if y.ndim == 1 else -2]
    return [result.reshaped(*shape)]


def _linear(b: Lowering, node: Node, inputs: list) -> list[Value]:
    return [b.linear(*(inputs + [None])[:3])]


# ---- shapes ----


def _identity(b: Lowering, node: Node, inputs: list) -> list[Value]:
    if len(node.outputs) > 1 or (len(inputs) > 2 and inputs[2] is not None):
        raise b.fail("its mask and its training mode are for NumPy calls only")
    return [inputs[0]]


def _flatten(b: Lowering, node: Node, inputs: list) -> list[Value]:
    (x,), axis = inputs, node.attributes.get("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise b.fail(f"axis is {axis} for {x.ndim} dimensions")
    axis = axis + x.ndim if axis < 0 else axis
    b.mixes_rows |= axis == 0
    return [x.reshaped(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))]


def whole(b: Lowering, value: Value | None, attribute: Any, what: str) -> list[int] | None:
    """Integers from a constant input, or from the attribute of older opsets."""
    if value is not None:
        numbers = b.numbers(value, what).reshape(-1)
        return [int(v) for v in numbers]
    return None if attribute is None else [int(v) for v in attribute]


def _reshape(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, given = (inputs + [None])[:2]
    shape = whole(b, given, node.attributes.get("shape"), "shape")
    if shape is None:
        raise b.fail("shape is missing")
    return [x.reshaped(*resolve_shape(b, x.shape, shape, node.attributes.get("allowzero", 0)))]


def resolve_shape(b: Lowering, old: Shape, shape: list[int], allow_zero: int) -> list[int]:
    """Reshape's target: 0 keeps an axis, -1 is what is left."""
    if not allow_zero:
        if any(s == 0 and i >= len(old) for i, s in enumerate(shape)):
            raise b.fail(f"shape is {shape} for x of shape {old}")
        shape = [old[i] if s == 0 else s for i, s in enumerate(shape)]
    size, known = math.prod(old), math.prod(s for s in shape if s != -1)
    if shape.count(-1) > 1 or min(shape, default=0) < -1:
        raise b.fail(f"shape is {shape}; accepted: at most one -1")
    if -1 in shape:
        if known == 0 or size % known:
            raise b.fail(f"x of shape {old} does not fit shape {shape}")
        shape = [size // known if s == -1 else s for s in shape]
    if math.prod(shape) != size:
        raise b.fail(f"x of shape {old} does not fit shape {shape}")
    return shape


def _squeeze(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, given = (inputs + [None])[:2]
    axes = whole(b, given, node.attributes.get("axes"), "axes")
    if axes is None:
        axes = [a for a, size in enumerate(x.shape) if size == 1]
    axes = [b.axis(a, x.ndim) for a in axes]
    if any(x.shape[a] != 1 for a in axes):
        raise b.fail(f"axes are {axes} for shape {x.shape}; accepted: axes of size 1")
    b.mixes_rows |= 0 in axes
    return [x.reshaped(*[s for a, s in enumerate(x.shape) if a not in axes])]


def _unsqueeze(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, given = (inputs + [None])[:2]
    axes = whole(b, given, node.attributes.get("axes"), "axes") or []
    ndim = x.ndim + len(axes)
    axes = [b.axis(a, ndim) for a in axes]
    if len(set(axes)) != len(axes):
        raise b.fail(f"axes are {axes}; accepted: each once")
    b.mixes_rows |= 0 in axes
    sizes = iter(x.shape)
    return [x.reshaped(*[1 if a in axes else next(sizes) for a in range(ndim)])]


def _transpose(b: Lowering, node: Node, inputs: list) -> list[Value]:
    (x,) = inputs
    axes = list(node.attributes.get("perm") or range(x.ndim - 1, -1, -1))
    if sorted(axes) != list(range(x.ndim)):
        raise b.fail(f"perm is {axes} for shape {x.shape}")
    b.mixes_rows |= bool(axes) and axes[0] != 0
    return [b.transposed(x, axes)]


def _concat(b: Lowering, node: Node, inputs: list) -> list[Value]:
    axis = b.axis(node.attributes.get("axis", 1), inputs[0].ndim)
    shapes = [[s for a, s in enumerate(v.shape) if a != axis] for v in inputs]
    if any(s != shapes[0] for s in shapes):
        raise b.fail(f"shapes {[v.shape for v in inputs]} differ beside axis {axis}")
    b.mixes_rows |= axis == 0
    shape = list(inputs[0].shape)
    shape[axis] = sum(v.shape[axis] for v in inputs)
    y, strides, at = b.work(shape), row_strides(shape), 0
    if not any(not _is_constant(v) for v in inputs):
        b.mixes_rows = True
    for value in inputs:
        # Axes before and after the joined one are contiguous in both: three axes do.
        before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        block = (before, value.shape[axis] * after)
        b.move(value, y, block, (block[1], 1), (shape[axis] * after, 1), 0, at * strides[axis])
        at += value.shape[axis]
    return [y]


def _pad(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, given, value, axes_given = (inputs + [None] * 3)[:4]
    a = node.attributes
    pads = whole(b, given, a.get("pads", a.get("paddings")), "pads")
    fill = float(b.numbers(value, "constant_value").reshape(())) if value else a.get("value", 0.0)
    axes = whole(b, axes_given, None, "axes")
    axes = list(range(x.ndim)) if axes is None else [b.axis(v, x.ndim) for v in axes]
    if pads is None or len(pads) != 2 * len(axes) or len(set(axes)) != len(axes):
        raise b.fail(f"pads are {pads} for axes {axes}")
    sides = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        sides[axis] = (pads[i], pads[i + len(axes)])
    if x.ndim and any(sides[0]):
        b.mixes_rows = True
    if any(s + min(p, 0) + min(q, 0) < 0 for s, (p, q) in zip(x.shape, sides, strict=True)):
        raise b.fail(f"pads are {pads} for shape {x.shape}: they crop more than there is")
    mode = a.get("mode", "constant")
    if mode == "constant":
        return [b.padded(x, sides, fill)]
    x = b.padded(x, [(min(p, 0), min(q, 0)) for p, q in sides], 0.0)
    for axis, (before, after) in enumerate(sides):
        x = _repeat(b, x, axis, max(before, 0), max(after, 0), mode)
    return [x]


def _repeat(b: Lowering, x: Value, axis: int, before: int, after: int, mode: str) -> Value:
    """x continued along one axis by "edge", "reflect" or "wrap"."""
    if not before and not after:
        return x
    size, room = x.shape[axis], {"edge": 2**31, "reflect": x.shape[axis] - 1}
    if max(before, after) > room.get(mode, size) or not size:
        raise b.fail(f"pads are {(before, after)} for {size} elements in mode {mode!r}")
    shape = list(x.shape)
    shape[axis] += before + after
    y, x_strides, y_strides = b.work(shape), row_strides(x.shape), row_strides(shape)

    def part(at: int, count: int, first: int, step: int) -> None:
        if count:
            block, strides = list(shape), list(x_strides)
            block[axis], strides[axis] = count, step * x_strides[axis]
            offset = first * x_strides[axis]
            b.move(x, y, block, strides, y_strides, offset, at * y_strides[axis])

    first, last = {
        "edge": ((0, 0), (size - 1, 0)),
        "reflect": ((before, -1), (size - 2, -1)),
        "wrap": ((size - before, 1), (0, 1)),
    }[mode]
    part(0, before, *first)
    part(before, size, 0, 1)
    part(before + size, after, *last)
    return y


OPERATORS: dict[str, Callable[[Lowering, Node, list], list[Value]]] = {
    "Add": _binary("add"),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _binary("div"),
    "Dropout": _identity,
    "Exp": _unary("exp"),
    "Flatten": _flatten,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool("global_avg_pool2d"),
    "GlobalMaxPool": _global_pool("global_max_pool2d"),
    "Identity": _identity,
    "LRN": _lrn,
    "LeakyRelu": _leaky_relu,
    "Linear": _linear,
    "LogSoftmax": _softmax("log_softmax"),
    "MatMul": _matmul,
    "MaxPool": _max_pool,
    "Mul": _binary("mul"),
    "Pad": _pad,
    "Relu": _unary("relu"),
    "Reshape": _reshape,
    "Sigmoid": _unary("sigmoid"),
    "Softmax": _softmax("softmax"),
    "Squeeze": _squeeze,
    "Sub": _binary("sub"),
    "Sum": _sum,
    "Swish": _swish,
    "Tanh": _unary("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
