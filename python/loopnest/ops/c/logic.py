"""C twins of ``loopnest.kernels.logic``."""

from __future__ import annotations

from loopnest.ops.c.call import by_dtype, pointer

CHUNK = 32
_coefficients = by_dtype("logic_coefficients")
_forward = by_dtype("logic_forward")
_backward = by_dtype("logic_backward")
_scores = by_dtype("logic_scores")
_scores_backward = by_dtype("logic_scores_backward")
_coefficients_backward = by_dtype("logic_coefficients_backward")


def logic_coefficients(logits, first, last, shares, coefficients):
    _coefficients[logits.dtype](
        pointer(logits), logits.shape[1], first, last, pointer(shares), pointer(coefficients)
    )


def logic_forward(x, left, right, coefficients, starts, y):
    _forward[x.dtype](
        pointer(x), pointer(left), pointer(right), pointer(coefficients), pointer(starts),
        starts.size - 1, pointer(y),
    )  # fmt: skip


def logic_backward(x, y, left, right, coefficients, starts, dy, dx, dcoefficients):
    _backward[x.dtype](
        pointer(x), pointer(y), pointer(left), pointer(right), pointer(coefficients),
        pointer(starts), starts.size - 1, pointer(dy), pointer(dx), pointer(dcoefficients),
    )  # fmt: skip


def logic_scores(y, start, group, scale, scores):
    _scores[y.dtype](pointer(y), start, group, scale, scores.shape[1], pointer(scores))


def logic_scores_backward(dscores, group, scale, dy):
    _scores_backward[dy.dtype](pointer(dscores), group, scale, dscores.shape[1], pointer(dy))


def logic_coefficients_backward(dcoefficients, coefficients, first, last, shares):
    _coefficients_backward[shares.dtype](
        pointer(dcoefficients), dcoefficients.shape[0], shares.shape[1], pointer(coefficients),
        first, last, pointer(shares),
    )  # fmt: skip
