"""Products of matrices as steps: see operators.py."""

from __future__ import annotations

import math

import numpy as np

from loopnest.network.lowering import Lowering, Node
from loopnest.network.program import Shape, Value, is_constant
from loopnest.network.steps.elements import broadcast


def gemm(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, weight, bias = (inputs + [None])[:3]
    a = node.attributes
    alpha, beta = float(a.get("alpha", 1.0)), float(a.get("beta", 1.0))
    if x.ndim != 2 or weight.ndim != 2:
        raise b.fail(f"matrices have shapes {x.shape} and {weight.shape}; accepted: 2 axes each")
    if a.get("transA", 0) or not is_constant(weight):
        b.mixes_rows = True
    x = b.transposed(x, (1, 0)) if a.get("transA", 0) else x
    if weight.constant is not None and not b.fixed:
        # Steps, not numbers: they follow the weights, and gradients go back through them.
        weight = b.transposed(weight, (1, 0)) if a.get("transB", 0) else weight
        weight, alpha = b.affine(weight, alpha), 1.0
    elif weight.constant is not None:
        w = weight.constant.T if a.get("transB", 0) else weight.constant
        if a.get("transB", 0) or alpha != 1:
            with np.errstate(all="ignore"):
                weight = b.constant(w * b.dtype.type(alpha) if alpha != 1 else w)
        alpha = 1.0
    elif a.get("transB", 0):
        weight = b.transposed(weight, (1, 0))
    row = bias is not None and bias.constant is not None and alpha == 1
    if row and math.prod(bias.shape) in (1, weight.shape[1]) and bias.shape[:-1] in ((), (1,)):
        if not b.fixed:
            one_row = b.affine(bias, beta).reshaped(math.prod(bias.shape))
            return [b.linear(x, weight, b.expanded(one_row, weight.shape[1:]))]
        values = np.broadcast_to(bias.constant.reshape(-1), weight.shape[1:])
        values = values * b.dtype.type(beta) if beta != 1 else values
        return [b.linear(x, weight, b.constant(values))]
    y = b.affine(b.linear(x, weight, None), alpha)
    if bias is None or beta == 0:
        return [y]
    if not _broadcasts_to(bias.shape, y.shape):
        raise b.fail(f"C has shape {bias.shape}; accepted: one that broadcasts to {y.shape}")
    return [broadcast(b, "add", y, b.affine(bias, beta))]


def _broadcasts_to(shape: Shape, wanted: Shape) -> bool:
    """Whether an array of a shape can be added to one of the wanted shape without enlarging it."""
    return len(shape) <= len(wanted) and all(
        size in (1, want) for size, want in zip(shape[::-1], wanted[::-1], strict=False)
    )


def matmul(b: Lowering, node: Node, inputs: list) -> list[Value]:
    x, y = inputs
    if not x.ndim or not y.ndim:
        raise b.fail("an operand has no axes")
    if not is_constant(y) and (is_constant(x) or x.ndim != y.ndim or x.ndim < 3):
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


def linear(b: Lowering, node: Node, inputs: list) -> list[Value]:
    return [b.linear(*(inputs + [None])[:3])]
