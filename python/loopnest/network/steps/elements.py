"""What is computed element by element or along one axis, as steps: see operators.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from loopnest.network.lowering import Lowering, Node
from loopnest.network.program import Value, is_constant
from loopnest.network.steps.windows import MAX_KERNEL, Window, window_sum


def unary(name: str) -> Callable:
    return lambda b, node, inputs: [b.unary(name, inputs[0])]


def leaky_relu(b: Lowering, node: Node, inputs: list) -> list[Value]:
    return [b.unary("leaky_relu", inputs[0], float(node.attributes.get("alpha", 0.01)))]


def gelu(b: Lowering, node: Node, inputs: list) -> list[Value]:
    forms = {"none": "gelu_erf", "tanh": "gelu_tanh", "sigmoid": "gelu"}
    return [b.unary(forms[node.attributes.get("approximate", "none")], inputs[0])]


def swish(b: Lowering, node: Node, inputs: list) -> list[Value]:
    (x,), alpha = inputs, float(node.attributes.get("alpha", 1.0))
    if alpha == 1:
        return [b.unary("silu", x)]
    return [b.binary("mul", x, b.unary("sigmoid", b.affine(x, alpha)))]


def binary(name: str) -> Callable:
    def lower(b: Lowering, node: Node, inputs: list) -> list[Value]:
        first, second = inputs
        if node.opset < 7 and node.attributes.get("broadcast"):
            # The old form: the second operand's axes begin at a given axis of the first.
            axis = node.attributes.get("axis", first.ndim - second.ndim)
            after = first.ndim - axis - second.ndim
            if after < 0:
                raise b.fail(f"axis is {axis} for shapes {first.shape} and {second.shape}")
            second = second.reshaped(*second.shape, *[1] * after)
        return [broadcast(b, name, first, second)]

    return lower


def broadcast(b: Lowering, name: str, first: Value, second: Value) -> Value:
    if not is_constant(first) and not is_constant(second) and first.ndim != second.ndim:
        b.mixes_rows = True
    return b.binary(name, first, second)


def sum_(b: Lowering, node: Node, inputs: list) -> list[Value]:
    total = inputs[0]
    for value in inputs[1:]:
        total = broadcast(b, "add", total, value)
    return [total]


def lrn(b: Lowering, node: Node, inputs: list) -> list[Value]:
    """x / (bias + alpha/size sum of x^2 over neighbouring channels)^beta"""
    (x,), a = inputs, node.attributes
    if x.ndim < 2:
        raise b.fail(f"x has shape {x.shape}; accepted: (N, C, ...)")
    size, channels = a["size"], x.shape[1]
    if not 1 <= size <= MAX_KERNEL:
        raise b.fail(f"size is {size}; accepted: 1 to {MAX_KERNEL}")
    alpha, beta, bias = a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)
    w = Window([size], [1], [1], [(size - 1) // 2], [size - 1 - (size - 1) // 2], [channels])
    squares = window_sum(b, b.binary("mul", x, x), 1, w, 0)
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


def batch_normalization(b: Lowering, node: Node, inputs: list) -> list[Value]:
    """A convolution of 1x1 and its own channel: x scale + shift, rounded twice."""
    x, *parameters = inputs
    if node.attributes.get("training_mode", 0) or len(node.outputs) > 1:
        raise b.fail("training_mode and its outputs are for NumPy calls only")
    numbers = [b.numbers(p, "a parameter") for p in parameters]
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    channels = x.shape[1] if x.ndim > 1 else 1
    if x.ndim < 2 or any(array.shape != (channels,) for array in numbers):
        raise b.fail(f"x has shape {x.shape}, the parameters {[n.shape for n in numbers]}")
    plane = x.reshaped(*x.shape[:2], 1, math.prod(x.shape[2:]))
    if not plane.size:
        return [x]
    if b.fixed or any(array.dtype != b.dtype for array in numbers):
        scale, shift = batch_norm_factors(numbers, epsilon)
        factors = b.constant(scale.reshape(channels, 1, 1, 1)), b.constant(shift)
    else:
        factors = b.batch_norm(parameters, epsilon)
    y = b.conv2d(plane, *factors, groups=channels)
    return [y.reshaped(*x.shape)]


def batch_norm_factors(
    parameters: Sequence[np.ndarray], epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift) in float64 that a batch normalisation with fixed statistics amounts to.

    Its parameters are (weight, bias, mean, variance). The same operations as in kernels/arrange.py.
    """
    scale, bias, mean, variance = parameters
    with np.errstate(all="ignore"):
        factor = scale.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
        return factor, bias.astype(np.float64) - mean.astype(np.float64) * factor


def softmax(kind: str) -> Callable:
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
