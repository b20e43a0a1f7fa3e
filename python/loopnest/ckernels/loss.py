"""C twins of ``loopnest.kernels.loss``."""

from __future__ import annotations

from loopnest._c import ffi
from loopnest.ckernels.call import by_dtype, kernel, pointer

_indices = by_dtype("cross_entropy")
_probabilities = by_dtype("cross_entropy_probabilities")
_total = by_dtype("total")


@kernel("softmax")
def softmax(x, first, last, y):
    return x, x.shape[1], first, last, y


@kernel("log_softmax")
def log_softmax(x, first, last, y):
    return x, x.shape[1], first, last, y


def _or_null(array):
    """An empty array stands for one that is not wanted."""
    return pointer(array) if array.size else ffi.NULL


def cross_entropy(
    logits, target, weight, ignore_index, smoothing, scale, first, last, losses, dlogits
):
    _indices[logits.dtype](
        pointer(logits), pointer(target), _or_null(weight), logits.shape[1], ignore_index,
        smoothing, _or_null(scale), first, last, _or_null(losses), _or_null(dlogits),
    )  # fmt: skip


def cross_entropy_probabilities(
    logits, target, weight, smoothing, scale, first, last, losses, dlogits
):
    _probabilities[logits.dtype](
        pointer(logits), pointer(target), _or_null(weight), logits.shape[1], smoothing,
        _or_null(scale), first, last, _or_null(losses), _or_null(dlogits),
    )  # fmt: skip


def total(values, result):
    _total[values.dtype](pointer(values), values.size, pointer(result))
