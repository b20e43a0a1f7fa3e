"""Softmax and cross-entropy, with gradients."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from loopnest import backend, checks, threads

REDUCTIONS = ("mean", "sum", "none")
_WORK = 8  # of one element, in the units of threads.split


def _softmax(op: str, x: Any, axis: Any, out: np.ndarray | None) -> np.ndarray:
    given, x = x, checks.array(op, "x", x)
    if x.ndim < 1:
        raise ValueError(f"{op}: x has 0 dimensions; accepted: at least 1")
    try:
        axis = operator.index(axis)
    except TypeError:
        raise TypeError(f"{op}: axis is {axis!r}; accepted: an integer") from None
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{op}: axis is {axis} for shape {x.shape}; accepted: {-x.ndim} to {x.ndim - 1}"
        )
    y = checks.output(op, out, x.shape, x.dtype, (given, x), in_place=True)
    if y.size == 0:
        return y
    moved = np.moveaxis(x, axis, -1)
    rows = np.ascontiguousarray(moved).reshape(-1, moved.shape[-1])
    last_axis = moved.shape == x.shape and np.shares_memory(rows, x)
    result = y.reshape(rows.shape) if last_axis else np.empty_like(rows)
    kernel = getattr(backend.kernels.loss, op)
    threads.split(lambda a, b: kernel(rows, a, b, result), len(rows), x.size * _WORK)
    if not last_axis:
        np.moveaxis(y, axis, -1)[...] = result.reshape(moved.shape)
    return y


def softmax(x: Any, axis: int = -1, out: np.ndarray | None = None) -> np.ndarray:
    """Softmax along an axis: exp(x - max) / sum of exp(x - max).

    Parameters
    ----------
    x : array_like
        At least one dimension, float32 or float64.
    axis : int
        The axis that sums to 1.
    out : ndarray, optional
        Where to write; x itself is allowed.

    Returns
    -------
    ndarray, shape of x
        NaN along a row that holds NaN or +inf, or nothing but -inf.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, before anything is written.

    Notes
    -----
    The sum runs in 16 interleaved partial sums, folded 8, 4, 2, 1.
    """
    return _softmax("softmax", x, axis, out)


def log_softmax(x: Any, axis: int = -1, out: np.ndarray | None = None) -> np.ndarray:
    """Logarithm of `softmax`, as (x - max) - log(sum of exp(x - max)).

    Parameters, returns and errors are those of `softmax`.
    """
    return _softmax("log_softmax", x, axis, out)


class _Problem:
    """Arguments of a cross-entropy, checked and laid out as rows of classes."""

    def __init__(
        self, op: str, logits: Any, target: Any, reduction: Any, smoothing: Any, ignore_index: Any
    ) -> None:
        logits = checks.array(op, "logits", logits)
        self.reduction = checks.choice(op, "reduction", reduction, REDUCTIONS)
        self.smoothing = checks.number(op, "label_smoothing", smoothing, 0.0, 1.0)
        if logits.ndim < 1:
            raise ValueError(f"{op}: logits has 0 dimensions; accepted: (C,), (N, C), (N, C, ...)")
        self.axis = 0 if logits.ndim == 1 else 1
        self.classes = logits.shape[self.axis]
        if self.classes < 1:
            raise ValueError(f"{op}: logits has shape {logits.shape}; accepted: at least 1 class")
        # Class axis last; the other axes number the rows.
        moved = np.moveaxis(logits, self.axis, -1)
        self.moved_shape, self.shape = moved.shape, moved.shape[:-1]
        self.logits = np.ascontiguousarray(moved).reshape(-1, self.classes)
        self.ignore_index = checks.integer(op, "ignore_index", ignore_index, -(2**62), 2**62)
        target = np.asarray(target)
        self.by_index = target.dtype.kind in "iu" and (
            target.shape == self.shape or target.shape != logits.shape
        )
        self.target = (
            self._indices(op, target) if self.by_index else self._shares(op, target, logits)
        )
        self.rows = len(self.logits)

    def _indices(self, op: str, target: np.ndarray) -> np.ndarray:
        checks.same_shape(op, "target", target, self.shape)
        target = checks.integer_array(op, "target", target).reshape(-1)
        wrong = (target != self.ignore_index) & ((target < 0) | (target >= self.classes))
        if wrong.any():
            raise ValueError(
                f"{op}: target holds class {target[wrong][0]}; accepted: 0 to "
                f"{self.classes - 1}, or ignore_index {self.ignore_index}"
            )
        return target

    def _shares(self, op: str, target: Any, logits: np.ndarray) -> np.ndarray:
        target = checks.array(op, "target", target)
        checks.same_shape(op, "target", target, logits.shape)
        checks.same_dtype(op, logits=logits, target=target)
        return np.ascontiguousarray(np.moveaxis(target, self.axis, -1)).reshape(-1, self.classes)

    @property
    def count(self) -> int:
        """Rows that a mean divides by."""
        if self.by_index:
            return int(np.count_nonzero(self.target != self.ignore_index))
        return self.rows

    def arguments(self) -> tuple:
        """Leading arguments of the kernels."""
        ignore = (self.ignore_index,) if self.by_index else ()
        return (self.logits, self.target, *ignore, self.smoothing)

    def kernel(self, backward: bool) -> Any:
        """The kernel for this kind of target."""
        name = "cross_entropy" if self.by_index else "cross_entropy_probabilities"
        return getattr(backend.kernels.loss, name + ("_backward" if backward else ""))


def cross_entropy(
    logits: Any,
    target: Any,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Any:
    """Cross-entropy between softmax(logits) and a target, -sum of q log softmax(logits).

    Parameters
    ----------
    logits : array_like, shape (C,), (N, C) or (N, C, ...)
        Unnormalised scores, float32 or float64.
    target : array_like
        Class indices (integers; shape of logits without C), or probabilities (shape and
        dtype of logits).
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of rows that are not ignored.
    label_smoothing : float
        From 0 to 1: this share of each target is spread evenly over all classes.
    ignore_index : int
        Rows with this class count nothing (class indices only).

    Returns
    -------
    float32 or float64 number, or for "none" an ndarray of the target rows' shape
        The mean over no rows is NaN.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, among them a class out of range.

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> round(float(ln.cross_entropy(np.array([[0.0, 0.0]]), np.array([1]))), 6)
    0.693147
    """
    op = "cross_entropy"
    p = _Problem(op, logits, target, reduction, label_smoothing, ignore_index)
    dtype = p.logits.dtype
    losses = np.empty(p.rows, dtype)
    kernel, arguments = p.kernel(backward=False), p.arguments()
    threads.split(lambda a, b: kernel(*arguments, a, b, losses), p.rows, p.logits.size * _WORK)
    if p.reduction == "none":
        return losses.reshape(p.shape)[()]
    result = np.empty(1, dtype)
    backend.kernels.loss.total(losses, result)
    if p.reduction == "mean":
        return result[0] / dtype.type(p.count) if p.count else dtype.type(math.nan)
    return result[0]


def cross_entropy_backward(
    logits: Any,
    target: Any,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    dy: Any = 1.0,
) -> np.ndarray:
    """Gradient of `cross_entropy` by the logits.

    For one-hot targets and reduction "sum" this is softmax(logits) - target.

    Parameters
    ----------
    logits, target, reduction, label_smoothing, ignore_index
        As in the forward call.
    dy : float or array_like
        Gradient by the loss: a number, or for reduction "none" also an array of its shape.

    Returns
    -------
    ndarray, shape of logits

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.
    """
    op = "cross_entropy_backward"
    p = _Problem(op, logits, target, reduction, label_smoothing, ignore_index)
    dtype = p.logits.dtype
    scale = np.empty(p.rows, dtype)
    dy = checks.array(op, "dy", dy)
    if dy.ndim == 0:
        scale[:] = dy
    elif p.reduction == "none":
        checks.same_shape(op, "dy", dy, p.shape)
        scale[:] = dy.reshape(-1)
    else:
        raise ValueError(
            f"{op}: dy has shape {dy.shape} with reduction {p.reduction!r}; accepted: a number"
        )
    if p.reduction == "mean" and p.count:
        scale /= dtype.type(p.count)
    rows = np.empty_like(p.logits)
    kernel, arguments = p.kernel(backward=True), p.arguments()
    threads.split(lambda a, b: kernel(*arguments, scale, a, b, rows), p.rows, rows.size * _WORK)
    return np.ascontiguousarray(np.moveaxis(rows.reshape(p.moved_shape), -1, p.axis))
