"""Convolution and pooling of ONNX as steps: see operators.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loopnest.network.lowering import Lowering, Node
from loopnest.network.program import Shape, Value, is_constant, row_strides
from loopnest.ops import window_rules as rules

MAX_KERNEL = 1 << 20  # taps of one window, where they are steps of their own


@dataclass
class Window:
    """Sizes of a window along each spatial axis, and the padding before and after."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    before: list[int]
    after: list[int]
    output: list[int]


def window_of(b: Lowering, node: Node, spatial: Shape, kernel: Sequence[int]) -> Window:
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
        reach = rules.extent(kernel[i], dilation[i])
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            out = -(-size // stride[i])
            total = max((out - 1) * stride[i] + reach - size, 0)
            low, high = total // 2, total - total // 2
            before[i], after[i] = (low, high) if auto == "SAME_UPPER" else (high, low)
        else:
            if auto == "VALID":
                before[i] = after[i] = 0
            out = rules.window_count(
                size, kernel[i], stride[i], before[i], after[i], dilation[i], bool(ceil)
            )
            if out == rules.WINDOW_TOO_LARGE:
                raise b.fail(
                    f"a window of {reach} is larger than the padded input, "
                    f"{size} + {before[i]} + {after[i]}"
                )
        output.append(out)
    return Window(list(kernel), stride, dilation, before, after, output)


def _spatial(b: Lowering, x: Value, least: int = 1) -> Shape:
    if x.ndim < 2 + least or x.ndim > 5:
        raise b.fail(f"x has shape {x.shape}; accepted: (N, C, {'D, ' * (least - 1)}...) "
                     "with one to three spatial axes")  # fmt: skip
    return x.shape[2:]


def conv(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, weight, bias = (inputs + [None])[:3]
    spatial = _spatial(b, x)
    if weight.ndim != x.ndim:
        raise b.fail(f"weight has shape {weight.shape} for x of shape {x.shape}")
    kernel = weight.shape[2:]
    if tuple(node.attributes.get("kernel_shape") or kernel) != kernel:
        raise b.fail(f"kernel_shape is {node.attributes['kernel_shape']}, weight's is {kernel}")
    if not (is_constant(weight) and is_constant(bias)):
        b.mixes_rows = True
    w = window_of(b, node, spatial, kernel)
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


def max_pool(b: Lowering, node: Node, inputs: list) -> list[Value]:
    (x,), rank = inputs, len(_spatial(b, inputs[0]))
    if len(node.outputs) > 1:
        raise b.fail("its second output, Indices, is for NumPy calls only")
    w = window_of(b, node, x.shape[2:], node.attributes["kernel_shape"])
    even = w.before == w.after and all(map(rules.padding_fits, w.before, w.kernel))
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


def average_pool(b: Lowering, node: Node, inputs: list) -> list[Value]:
    (x,), spatial = inputs, _spatial(b, inputs[0])
    w = window_of(b, node, spatial, node.attributes["kernel_shape"])
    include = bool(node.attributes.get("count_include_pad", 0))
    ceil = bool(node.attributes.get("ceil_mode", 0))
    n, c = x.shape[:2]
    plain = w.before == w.after and set(w.dilation) == {1} and node.opset >= 7
    plain = plain and all(map(rules.padding_fits, w.before, w.kernel))
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
        x = window_sum(b, x, 2 + i, w, i)
        starts = np.arange(w.output[i]) * w.stride[i] - w.before[i]
        low, high = (-w.before[i], size + w.after[i]) if include else (0, size)
        # Taps before `edge` are those below (edge - start) / dilation, rounded up.
        taps = [
            np.clip(-((starts - edge) // w.dilation[i]), 0, w.kernel[i]) for edge in (low, high)
        ]
        counts = np.multiply.outer(counts, taps[1] - taps[0])
    divisor = b.constant(np.maximum(counts, 1).reshape(1, 1, *counts.shape))
    return [b.binary("div", x, divisor)]


def window_sum(b: Lowering, x: Value, axis: int, w: Window, i: int) -> Value:
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


def global_pool(kind: str) -> Callable:
    def lower(b: Lowering, node: Node, inputs: list) -> list[Value]:
        (x,), spatial = inputs, _spatial(b, inputs[0])
        plane = x.reshaped(*x.shape[:2], 1, math.prod(spatial))
        y = b.global_pool2d(kind, plane)
        return [y.reshaped(*x.shape[:2], *[1] * len(spatial))]

    return lower
