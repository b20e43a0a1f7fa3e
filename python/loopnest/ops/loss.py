"""Softmax and cross-entropy, with gradients."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from loopnest.runtime import backend, checks, replay, threads

REDUCTIONS = ("mean", "sum", "none")
RUN = 2048  # terms that are added in lanes; the totals of runs are added pairwise (csrc/sums.h)
_WORK = 8  # of one element, in the units of threads.split

_PLANS = {"softmax": replay.Op("ri"), "log_softmax": replay.Op("ri")}


def _softmax(op: str, x: Any, axis: Any, out: np.ndarray | None) -> np.ndarray:
    plans, given = _PLANS[op], (x, out, axis, backend.kernels, threads.SERIAL_BELOW)
    known = plans.call(*given)
    if known is not None:
        return known
    x = checks.array(op, "x", x)
    try:
        if isinstance(axis, (bool, np.bool_)):
            raise TypeError
        checks.refuse_meaning(op, "axis", axis)
        axis = operator.index(axis)
    except TypeError:
        raise TypeError(f"{op}: axis is {axis!r}; accepted: an integer") from None
    axes = max(x.ndim, 1)  # a number is one class, as PyTorch has it
    if not -axes <= axis < axes:
        raise ValueError(
            f"{op}: axis is {axis} for shape {x.shape}; accepted: {-axes} to {axes - 1}"
        )
    y = checks.output(op, out, x.shape, x.dtype, (given[0], x), in_place=True)
    if y.size == 0:
        return y
    if x.ndim == 0:
        y.reshape(1)[:] = _softmax(op, x.reshape(1), 0, None)
        return y if out is not None else y[()]
    moved = np.moveaxis(x, axis, -1)
    rows = np.ascontiguousarray(moved).reshape(-1, moved.shape[-1])
    last_axis = moved.shape == x.shape and np.shares_memory(rows, x)
    result = y.reshape(rows.shape) if last_axis else np.empty_like(rows)
    kernel, work = getattr(backend.kernels.loss, op), x.size * _WORK
    call = replay.split(work, kernel, rows, replay.Items(len(rows)), result)
    if last_axis:
        plans.keep(given, y, call)
    else:
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
    The sum is added in runs of 2048 terms: each in 16 interleaved partial sums, folded 8, 4, 2, 1,
    and the totals of the runs pairwise, in a tree whose shape depends on their number alone.
    """
    return _softmax("softmax", x, axis, out)


def log_softmax(x: Any, axis: int = -1, out: np.ndarray | None = None) -> np.ndarray:
    """Logarithm of `softmax`, as (x - max) - log(sum of exp(x - max)).

    Parameters, returns and errors are those of `softmax`.

    Notes
    -----
    Where the largest number m of a row has most of the sum, log(1 + r) serves, r the sum of the others:
    the result for m keeps a relative error of a few units in the last place, and what rounding
    x - m brings with it.
    """
    return _softmax("log_softmax", x, axis, out)


class _Problem:
    """Arguments of a cross-entropy, checked and laid out as rows of classes."""

    def __init__(
        self,
        op: str,
        logits: Any,
        target: Any,
        weight: Any,
        reduction: Any,
        smoothing: Any,
        ignore_index: Any,
    ) -> None:
        self.inputs = [logits, target, weight]  # as they came: a copy overlaps nothing
        logits = checks.array(op, "logits", logits)
        self.op, self.dtype, self.given = op, logits.dtype, logits
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
        self.rows = len(self.logits)
        self.weight = self._weight(op, weight, logits)
        self.ignore_index = checks.integer(op, "ignore_index", ignore_index, -(2**62), 2**62)
        target = checks.plain(op, "target", target)
        self.by_index = target.dtype.kind in "iu" and (
            target.shape == self.shape or target.shape != logits.shape
        )
        self.target = (
            self._indices(op, target) if self.by_index else self._shares(op, target, logits)
        )

    def _weight(self, op: str, weight: Any, logits: np.ndarray) -> np.ndarray:
        """Weight of each class; empty for none."""
        if weight is None:
            return np.empty(0, logits.dtype)
        weight = checks.array(op, "weight", weight)
        checks.same_shape(op, "weight", weight, (self.classes,))
        checks.same_dtype(op, logits=logits, weight=weight)
        return weight

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

    def divisor(self) -> Any:
        """What a mean divides by: the rows that count, or their classes' weights."""
        if not self.by_index:
            return self.dtype.type(self.rows)
        counted = self.target[self.target != self.ignore_index]
        if not self.weight.size:
            return self.dtype.type(counted.size)
        return self.dtype.type(total(self.weight[counted]))

    def scale(self, dy: Any) -> np.ndarray:
        """Factor of each row's gradient: dy, over the mean's divisor."""
        scale, dy = np.empty(self.rows, self.dtype), checks.array(self.op, "dy", dy)
        if dy.ndim == 0:
            scale[:] = dy
        elif self.reduction == "none":
            checks.same_shape(self.op, "dy", dy, self.shape)
            scale[:] = dy.reshape(-1)
        else:
            raise ValueError(
                f"{self.op}: dy has shape {dy.shape} with reduction {self.reduction!r}; "
                "accepted: a number"
            )
        if self.reduction == "mean":
            divisor = self.divisor()
            if divisor != 0:
                scale /= divisor
        return scale

    def run(self, losses: np.ndarray, scale: np.ndarray, dlogits: np.ndarray) -> None:
        """Compute losses and gradients; either array may be empty for not wanted."""
        name = "cross_entropy" if self.by_index else "cross_entropy_probabilities"
        kernel = getattr(backend.kernels.loss, name)
        ignore = (self.ignore_index,) if self.by_index else ()
        given = (self.logits, self.target, self.weight, *ignore, self.smoothing, scale)
        rows = replay.Items(self.rows)
        replay.split(self.logits.size * _WORK, kernel, *given, rows, losses, dlogits)

    def reduced(self, losses: np.ndarray) -> Any:
        """The loss from those of the rows."""
        if self.reduction == "none":
            return losses.reshape(self.shape)[()]
        loss = total(losses)
        if self.reduction == "sum":
            return loss
        divisor = self.divisor()
        return loss / divisor if divisor != 0 else self.dtype.type(math.nan)

    def gradient(self, losses: np.ndarray, dy: Any, out: Any) -> np.ndarray:
        """Gradients in the logits' shape; losses too unless that array is empty."""
        inputs = (*self.inputs, dy, self.given, self.target)
        y = checks.output(self.op, out, self.given.shape, self.dtype, inputs)
        straight = self.axis == y.ndim - 1  # shapes tell nothing: (N, C, C) moved is (N, C, C)
        rows = y.reshape(self.logits.shape) if straight else np.empty_like(self.logits)
        self.run(losses, self.scale(dy), rows)
        if not straight:
            y[...] = np.moveaxis(rows.reshape(self.moved_shape), -1, self.axis)
        return y


def total(values: np.ndarray) -> Any:
    """Sum of numbers, in runs of RUN."""
    result = np.empty(1, values.dtype)
    backend.kernels.loss.total(np.ascontiguousarray(values), result)
    return result[0]


def cross_entropy(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Any:
    """Cross-entropy between softmax(logits) and a target, -sum of w q log softmax(logits).

    Parameters
    ----------
    logits : array_like, shape (C,), (N, C) or (N, C, ...)
        Unnormalised scores, float32 or float64.
    target : array_like
        Class indices (integers; shape of logits without C), or probabilities (shape and
        dtype of logits).
    weight : array_like, shape (C,), optional
        Weight w of each class, dtype of logits; 1 if left out.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of rows that are not ignored; for class indices
        with weights by the sum of the weights of those rows' classes (as PyTorch does).
    label_smoothing : float
        From 0 to 1: this share of each target is spread evenly over all classes.
    ignore_index : int
        Rows with this class count nothing (class indices only).

    Returns
    -------
    float32 or float64 number, or for "none" an ndarray of the target rows' shape
        The mean over no rows is NaN. A class whose share or weight is 0 counts nothing, with a
        logit of -inf too.

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
    p = _Problem("cross_entropy", logits, target, weight, reduction, label_smoothing, ignore_index)
    losses, nothing = np.empty(p.rows, p.dtype), np.empty(0, p.dtype)
    p.run(losses, nothing, nothing.reshape(0, p.classes))
    return p.reduced(losses)


def cross_entropy_backward(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    dy: Any = 1.0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Gradient of `cross_entropy` by the logits.

    For one-hot targets and reduction "sum" this is softmax(logits) - target.

    Parameters
    ----------
    logits, target, weight, reduction, label_smoothing, ignore_index
        As in the forward call.
    dy : float or array_like
        Gradient by the loss: a number, or for reduction "none" also an array of its shape.
    out : ndarray, optional
        Where to write; shape and dtype of logits, C-contiguous, apart from the inputs.

    Returns
    -------
    ndarray, shape of logits

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.
    """
    op = "cross_entropy_backward"
    p = _Problem(op, logits, target, weight, reduction, label_smoothing, ignore_index)
    return p.gradient(np.empty(0, p.dtype), dy, out)


def cross_entropy_with_grad(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    out: np.ndarray | None = None,
) -> tuple[Any, np.ndarray]:
    """Loss and its gradient by the logits in one pass, for a training step.

    The bits are those of `cross_entropy` and `cross_entropy_backward`; each row's exponentials
    are computed once instead of twice.

    Parameters
    ----------
    logits, target, weight, reduction, label_smoothing, ignore_index
        As for `cross_entropy`.
    out : ndarray, optional
        Where to write dlogits; C-contiguous, apart from the inputs.

    Returns
    -------
    loss : number or ndarray
        As `cross_entropy` returns it.
    dlogits : ndarray, shape of logits
        For reduction "none" each row's own gradient.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> loss, dlogits = ln.cross_entropy_with_grad(np.zeros((1, 2)), np.array([1]))
    >>> dlogits.tolist()
    [[0.5, -0.5]]
    """
    op = "cross_entropy_with_grad"
    p = _Problem(op, logits, target, weight, reduction, label_smoothing, ignore_index)
    losses = np.empty(p.rows, p.dtype)
    dlogits = p.gradient(losses, 1.0, out)
    return p.reduced(losses), dlogits
