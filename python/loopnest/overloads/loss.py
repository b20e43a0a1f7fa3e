"""Softmax and cross-entropy inside ``@njit``."""

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import register_jitable

from loopnest import loss as public
from loopnest.kernels import loss as kernels
from loopnest.overloads.common import (
    contiguous,
    float_array,
    literal,
    output,
    overloads,
    same_dtype,
    separate,
)


@register_jitable
def _split_shape(shape, axis):
    """(outer, size, inner) of a shape around an axis."""
    outer, inner = 1, 1
    for i in range(len(shape)):
        if i < axis:
            outer *= shape[i]
        elif i > axis:
            inner *= shape[i]
    return outer, shape[axis], inner


@register_jitable
def _to_rows(x, axis):
    """Contiguous x as rows (outer*inner, size of the axis): a view for the last axis."""
    outer, size, inner = _split_shape(x.shape, axis)
    if inner == 1:
        return x.reshape((outer, size))
    cube = x.reshape((outer, size, inner))
    rows = np.empty((outer * inner, size), x.dtype)
    for o in range(outer):
        for i in range(inner):
            for c in range(size):
                rows[o * inner + i, c] = cube[o, c, i]
    return rows


@register_jitable
def _from_rows(rows, axis, y):
    """Write rows made by `_to_rows` to contiguous y."""
    outer, size, inner = _split_shape(y.shape, axis)
    cube = y.reshape((outer, size, inner))
    for o in range(outer):
        for i in range(inner):
            for c in range(size):
                cube[o, c, i] = rows[o * inner + i, c]


def _register_softmax(name):
    kernel = getattr(kernels, name)

    @overloads(getattr(public, name))
    def softmax(x, axis=-1, out=None):
        dtype, ndim = same_dtype(name, x=x), x.ndim
        if ndim < 1:
            raise TypingError(f"{name}: x has 0 dimensions; accepted: at least 1")
        prepare, make = contiguous(x, dtype), output(name, out, dtype, ndim)
        check = separate(name, out, in_place=True)

        message = name + ": axis is out of range"

        def implementation(x, axis=-1, out=None):
            if axis < -ndim or axis >= ndim:
                raise ValueError(message)
            at = axis % ndim
            a = prepare(x)
            y = make(out, x.shape)
            check(y, a)
            if a.size:
                rows = _to_rows(a, at)
                result = np.empty_like(rows)
                kernel(rows, 0, rows.shape[0], result)
                _from_rows(result, at, y)
            return y

        return implementation


_register_softmax("softmax")
_register_softmax("log_softmax")


def _is_index(logits, target):
    """Whether a target holds class indices (else probabilities)."""
    if isinstance(target, (types.Integer, types.IntegerLiteral)):
        return True
    return (
        isinstance(target, types.Array)
        and isinstance(target.dtype, types.Integer)
        and target.ndim == logits.ndim - 1
    )


def _target_rows(op, logits, target, dtype):
    """Compiled function ``(logits, target, axis, classes, ignore_index)`` -> checked rows."""
    if isinstance(target, (types.Integer, types.IntegerLiteral)):
        flat = register_jitable(lambda target: np.full(1, target, np.int64))
    else:
        flat = register_jitable(
            lambda target: np.ascontiguousarray(target).reshape(target.size).astype(np.int64)
        )
    if _is_index(logits, target):
        wrong_shape = op + ": target has not the shape of logits without classes"
        wrong_class = op + ": target holds a class out of range"

        def indices(logits, target, axis, classes, ignore_index):
            given = flat(target)
            if given.size * classes != logits.size:
                raise ValueError(wrong_shape)
            for index in given:
                if index != ignore_index and (index < 0 or index >= classes):
                    raise ValueError(wrong_class)
            return given

        return register_jitable(indices)
    float_array(op, "target", target)
    if target.ndim != logits.ndim:
        raise TypingError(f"{op}: target is {target}; accepted: class indices or probabilities")
    prepare = contiguous(target, dtype)

    message = op + ": target has not the shape of logits"

    def shares(logits, target, axis, classes, ignore_index):
        if target.shape != logits.shape:
            raise ValueError(message)
        return _to_rows(prepare(target), axis)

    return register_jitable(shares)


def _problem(op, logits, target):
    """(dtype, class axis, function for logits, function for target)."""
    float_array(op, "logits", logits)
    dtype = same_dtype(op, logits=logits)
    if not _is_index(logits, target):
        dtype = same_dtype(op, logits=logits, target=target)
    prepare, axis = contiguous(logits, dtype), min(logits.ndim - 1, 1)
    target_rows = _target_rows(op, logits, target, dtype)

    wrong_smoothing = op + ": label_smoothing is out of range; accepted: 0 to 1"
    no_classes = op + ": logits must have at least 1 class"

    def rows(logits, target, label_smoothing, ignore_index):
        if not 0 <= label_smoothing <= 1:
            raise ValueError(wrong_smoothing)
        classes = logits.shape[axis]
        if classes < 1:
            raise ValueError(no_classes)
        a = prepare(logits)
        return _to_rows(a, axis), target_rows(a, target, axis, classes, ignore_index)

    return axis, register_jitable(rows)


def _counted(logits, target):
    """Compiled function: the number of rows that a mean divides by."""
    if not _is_index(logits, target):
        return register_jitable(lambda target, ignore_index: len(target))
    return register_jitable(lambda target, ignore_index: np.sum(target != ignore_index))


def _kernel(logits, target, backward):
    """Compiled function that calls the kernel for this kind of target on all rows."""
    if _is_index(logits, target):
        kernel = kernels.cross_entropy_backward if backward else kernels.cross_entropy
        if backward:
            return register_jitable(
                lambda x, t, ignore, e, scale, y: kernel(x, t, ignore, e, scale, 0, len(x), y)
            )
        return register_jitable(lambda x, t, ignore, e, y: kernel(x, t, ignore, e, 0, len(x), y))
    if backward:
        kernel = kernels.cross_entropy_probabilities_backward
        return register_jitable(
            lambda x, t, ignore, e, scale, y: kernel(x, t, e, scale, 0, len(x), y)
        )
    kernel = kernels.cross_entropy_probabilities
    return register_jitable(lambda x, t, ignore, e, y: kernel(x, t, e, 0, len(x), y))


@overloads(public.cross_entropy)
def cross_entropy(logits, target, reduction="mean", label_smoothing=0.0, ignore_index=-100):
    op = "cross_entropy"
    reduction_name = literal(op, "reduction", reduction, public.REDUCTIONS)
    axis, prepare = _problem(op, logits, target)
    run, count = _kernel(logits, target, backward=False), _counted(logits, target)
    total, mean = kernels.total, reduction_name == "mean"

    def reduced(logits, target, reduction="mean", label_smoothing=0.0, ignore_index=-100):
        rows, t = prepare(logits, target, label_smoothing, ignore_index)
        losses, result = np.empty(len(rows), rows.dtype), np.empty(1, rows.dtype)
        run(rows, t, ignore_index, float(label_smoothing), losses)
        total(losses, result)
        if mean:
            result[0] /= rows.dtype.type(count(t, ignore_index))
        return result[0]

    def each(logits, target, reduction="mean", label_smoothing=0.0, ignore_index=-100):
        rows, t = prepare(logits, target, label_smoothing, ignore_index)
        losses = np.empty(len(rows), rows.dtype)
        run(rows, t, ignore_index, float(label_smoothing), losses)
        return shaped(losses, logits)

    if reduction_name != "none":
        return reduced
    if logits.ndim == 1:
        shaped = register_jitable(lambda losses, logits: losses[0])
    elif logits.ndim == 2:
        shaped = register_jitable(lambda losses, logits: losses)
    else:
        shaped = register_jitable(
            lambda losses, logits: losses.reshape((logits.shape[0], *logits.shape[2:]))
        )
    return each


@overloads(public.cross_entropy_backward)
def cross_entropy_backward(
    logits, target, reduction="mean", label_smoothing=0.0, ignore_index=-100, dy=1.0
):
    op = "cross_entropy_backward"
    reduction_name = literal(op, "reduction", reduction, public.REDUCTIONS)
    axis, prepare = _problem(op, logits, target)
    run, count = _kernel(logits, target, backward=True), _counted(logits, target)
    mean = reduction_name == "mean"
    if isinstance(dy, types.Array):
        if reduction_name != "none":
            raise TypingError(f"{op}: dy is an array; accepted with {reduction_name!r}: a number")

        message = op + ": dy has not the shape of the losses"

        def fill(scale, dy):
            if dy.size != scale.size:
                raise ValueError(message)
            scale[:] = np.ascontiguousarray(dy).reshape(dy.size)

    else:

        def fill(scale, dy):
            scale[:] = dy

    fill = register_jitable(fill)

    def implementation(
        logits, target, reduction="mean", label_smoothing=0.0, ignore_index=-100, dy=1.0
    ):
        rows, t = prepare(logits, target, label_smoothing, ignore_index)
        scale, result = np.empty(len(rows), rows.dtype), np.empty_like(rows)
        fill(scale, dy)
        if mean:
            counted = count(t, ignore_index)
            if counted:
                scale /= rows.dtype.type(counted)
        run(rows, t, ignore_index, float(label_smoothing), scale, result)
        dlogits = np.empty(logits.shape, rows.dtype)
        _from_rows(result, axis, dlogits)
        return dlogits

    return implementation
