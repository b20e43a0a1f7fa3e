"""C twins of ``loopnest.kernels.loss``."""

from __future__ import annotations

from loopnest.ckernels.call import by_dtype, pointer

_softmax = by_dtype("softmax")
_log_softmax = by_dtype("log_softmax")
_indices = by_dtype("cross_entropy")
_probabilities = by_dtype("cross_entropy_probabilities")
_indices_backward = by_dtype("cross_entropy_backward")
_probabilities_backward = by_dtype("cross_entropy_probabilities_backward")
_total = by_dtype("total")


def softmax(x, first, last, y):
    _softmax[x.dtype](pointer(x), x.shape[1], first, last, pointer(y))


def log_softmax(x, first, last, y):
    _log_softmax[x.dtype](pointer(x), x.shape[1], first, last, pointer(y))


def cross_entropy(logits, target, ignore_index, smoothing, first, last, losses):
    _indices[logits.dtype](
        pointer(logits), pointer(target), logits.shape[1], ignore_index, smoothing, first, last,
        pointer(losses),
    )  # fmt: skip


def cross_entropy_probabilities(logits, target, smoothing, first, last, losses):
    _probabilities[logits.dtype](
        pointer(logits), pointer(target), logits.shape[1], smoothing, first, last, pointer(losses)
    )


def cross_entropy_backward(logits, target, ignore_index, smoothing, scale, first, last, dlogits):
    _indices_backward[logits.dtype](
        pointer(logits), pointer(target), logits.shape[1], ignore_index, smoothing,
        pointer(scale), first, last, pointer(dlogits),
    )  # fmt: skip


def cross_entropy_probabilities_backward(logits, target, smoothing, scale, first, last, dlogits):
    _probabilities_backward[logits.dtype](
        pointer(logits), pointer(target), logits.shape[1], smoothing, pointer(scale), first, last,
        pointer(dlogits),
    )  # fmt: skip


def total(values, result):
    _total[values.dtype](pointer(values), values.size, pointer(result))
