"""C twins of ``loopnest.kernels.loss``."""

from __future__ import annotations

from loopnest.ops.c.call import by_dtype, kernel, or_null, pointer

_total = by_dtype("total")


@kernel("softmax")
def softmax(x, first, last, y):
    return x, x.shape[1], first, last, y


@kernel("log_softmax")
def log_softmax(x, first, last, y):
    return x, x.shape[1], first, last, y


@kernel("cross_entropy")
def cross_entropy(
    logits, target, weight, ignore_index, smoothing, scale, first, last, losses, dlogits
):
    classes, gradients = logits.shape[1], (or_null(losses), or_null(dlogits))
    options = or_null(weight), classes, ignore_index, smoothing, or_null(scale)
    return logits, target, *options, first, last, *gradients


@kernel("cross_entropy_probabilities")
def cross_entropy_probabilities(
    logits, target, weight, smoothing, scale, first, last, losses, dlogits
):
    classes, gradients = logits.shape[1], (or_null(losses), or_null(dlogits))
    options = or_null(weight), classes, smoothing, or_null(scale)
    return logits, target, *options, first, last, *gradients


def total(values, result):
    _total[values.dtype](pointer(values), values.size, pointer(result))
