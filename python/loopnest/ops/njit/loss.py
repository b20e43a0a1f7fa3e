"""Softmax and cross-entropy inside ``@njit``."""

import numpy as np
from numba import types
from numba.core.errors import TypingError

from loopnest.kernels import loss as kernels
from loopnest.kernels.jit import jitable
from loopnest.kernels.linking import linked
from loopnest.ops import loss as public
from loopnest.ops.njit.common import (
    contiguous,
    float_array,
    integer,
    is_none,
    literal,
    numbers,
    output,
    overloads,
    same_dtype,
    separate,
)


@jitable
def _split_shape(shape, axis):
    """(outer, size, inner) of a shape around an axis."""
    outer, inner = 1, 1
    for i in range(len(shape)):
        if i < axis:
            outer *= shape[i]
        elif i > axis:
            inner *= shape[i]
    return outer, shape[axis], inner


@jitable
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


@jitable
def _from_rows(rows, axis, y):
    """Write rows made by `_to_rows` to contiguous y."""
    outer, size, inner = _split_shape(y.shape, axis)
    cube = y.reshape((outer, size, inner))
    for o in range(outer):
        for i in range(inner):
            for c in range(size):
                cube[o, c, i] = rows[o * inner + i, c]


LARGEST = 2**63 - 1
MAX_AXES = 64  # of a NumPy array: larger numbers are no axis


def _of_one_number(name, dtype, out):
    """Implementation for an array without axes, as PyTorch has it: one class, of probability 1."""
    make, zero = output(name, out, dtype, 0), name == "log_softmax"
    message = name + ": axis is out of range"

    def implementation(x, axis=-1, out=None):
        if axis != 0 and axis != -1:
            raise ValueError(message)
        y = make(out, x.shape)
        value = x[()] - x[()]  # 0; NaN for what is not finite
        y[()] = value if zero else value + 1
        return y

    return implementation


def _register_softmax(name):
    kernel = linked(getattr(kernels, name))

    @overloads(getattr(public, name))
    def softmax(x, axis=-1, out=None):
        dtype, ndim = same_dtype(name, x=x), x.ndim
        whole = integer(name, "axis", axis, -MAX_AXES, MAX_AXES)
        if ndim < 1:
            return _of_one_number(name, dtype, out)
        prepare, make = contiguous(x, dtype), output(name, out, dtype, ndim)
        check = separate(name, out, in_place=True)

        message = name + ": axis is out of range"

        def implementation(x, axis=-1, out=None):
            at = whole(axis)
            if at < -ndim or at >= ndim:
                raise ValueError(message)
            at = at % ndim
            a = prepare(x)
            y = make(out, x.shape)
            check(y, x)
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
        return logits.ndim == 1
    return (
        isinstance(target, types.Array)
        and isinstance(target.dtype, types.Integer)
        and target.ndim == logits.ndim - 1
    )


def _indices(op, target):
    """Compiled function ``(target, logits)`` -> class indices, flat, of the right number and shape."""
    too_large = op + ": target holds a class out of range; accepted: at most 2^63 - 1"
    if not isinstance(target, types.Array):

        def number(target, logits):
            if target > LARGEST:
                raise ValueError(too_large)
            return np.full(1, target, np.int64)

        return jitable(number)
    wrong_shape = op + ": target has not the shape of logits without classes"

    def flat(target, logits):
        if target.shape != logits.shape[:1][: target.ndim] + logits.shape[2:]:
            raise ValueError(wrong_shape)
        for index in target.flat:
            if index > LARGEST:  # unsigned: it would turn negative, perhaps into ignore_index
                raise ValueError(too_large)
        return np.ascontiguousarray(target).reshape(target.size).astype(np.int64)

    return jitable(flat)


def _target_rows(op, logits, target, dtype):
    """Compiled function ``(logits, target, axis, classes, ignore_index)`` -> checked rows."""
    if _is_index(logits, target):
        flat, wrong_class = _indices(op, target), op + ": target holds a class out of range"

        def indices(logits, target, axis, classes, ignore_index):
            given = flat(target, logits)
            for index in given:
                if index != ignore_index and (index < 0 or index >= classes):
                    raise ValueError(wrong_class)
            return given

        return jitable(indices)
    float_array(op, "target", target)
    if target.ndim != logits.ndim:
        raise TypingError(f"{op}: target is {target}; accepted: class indices or probabilities")
    prepare = contiguous(target, dtype)

    message = op + ": target has not the shape of logits"

    def shares(logits, target, axis, classes, ignore_index):
        if target.shape != logits.shape:
            raise ValueError(message)
        return _to_rows(prepare(target), axis)

    return jitable(shares)


def _weights(op, weight, dtype):
    """Compiled function ``(weight, classes) -> array``, empty for no weights."""
    if is_none(weight):
        real = np.float32 if dtype == types.float32 else np.float64
        return jitable(lambda weight, classes: np.empty(0, real))
    same_dtype(op, logits=types.Array(dtype, 2, "C"), weight=weight)
    if weight.ndim != 1:
        raise TypingError(f"{op}: weight has {weight.ndim} dimensions; accepted: 1")
    prepare = contiguous(weight, dtype)
    message = op + ": weight has not one value a class"

    def weights(weight, classes):
        if weight.size != classes:
            raise ValueError(message)
        return prepare(weight)

    return jitable(weights)


def _problem(op, logits, target, weight, label_smoothing, ignore_index):
    """(class axis, compiled function that checks and gives rows of logits, target, weights)."""
    float_array(op, "logits", logits)
    if logits.ndim < 1:
        raise TypingError(f"{op}: logits has 0 dimensions; accepted: (C,), (N, C), (N, C, ...)")
    numbers(op, label_smoothing=label_smoothing)
    ignored = integer(op, "ignore_index", ignore_index, -(2**62), 2**62)
    dtype = same_dtype(op, logits=logits)
    if not _is_index(logits, target):
        dtype = same_dtype(op, logits=logits, target=target)
    prepare, axis = contiguous(logits, dtype), min(logits.ndim - 1, 1)
    target_rows = _target_rows(op, logits, target, dtype)
    weights = _weights(op, weight, dtype)

    wrong_smoothing = op + ": label_smoothing is out of range; accepted: 0 to 1"
    no_classes = op + ": logits must have at least 1 class"

    def rows(logits, target, weight, label_smoothing, ignore_index):
        if not 0 <= label_smoothing <= 1:
            raise ValueError(wrong_smoothing)
        ignored(ignore_index)
        classes = logits.shape[axis]
        if classes < 1:
            raise ValueError(no_classes)
        a = prepare(logits)
        t = target_rows(a, target, axis, classes, ignore_index)
        return _to_rows(a, axis), t, weights(weight, classes)

    return axis, jitable(rows)


def _divisor(logits, target, weight):
    """Compiled function: what a mean divides by."""
    if not _is_index(logits, target):
        return jitable(lambda target, weight, ignore_index: weight.dtype.type(len(target)))
    if is_none(weight):
        return jitable(
            lambda target, weight, ignore_index: weight.dtype.type(np.sum(target != ignore_index))
        )
    total = linked(kernels.total)

    def weights(target, weight, ignore_index):
        counted, result = weight[target[target != ignore_index]], np.empty(1, weight.dtype)
        total(counted, result)
        return result[0]

    return jitable(weights)


def _run(logits, target):
    """Compiled function that calls the kernel for this kind of target on all rows."""
    if _is_index(logits, target):
        kernel = linked(kernels.cross_entropy)
        return jitable(
            lambda x, t, w, ignore, e, scale, losses, d: kernel(
                x, t, w, ignore, e, scale, 0, len(x), losses, d
            )
        )
    kernel = linked(kernels.cross_entropy_probabilities)
    return jitable(
        lambda x, t, w, ignore, e, scale, losses, d: kernel(x, t, w, e, scale, 0, len(x), losses, d)
    )


def _reduced(logits, target, weight, reduction):
    """Compiled function ``(losses, rows' target, weights, ignore_index, logits)`` -> the loss."""
    if reduction != "none":
        total, mean, divisor = (
            linked(kernels.total),
            reduction == "mean",
            _divisor(logits, target, weight),
        )

        def reduced(losses, t, w, ignore_index, logits):
            result = np.empty(1, losses.dtype)
            total(losses, result)
            if mean:
                count = divisor(t, w, ignore_index)
                result[0] = result[0] / count if count != 0 else losses.dtype.type(np.nan)
            return result[0]

    elif logits.ndim == 1:

        def reduced(losses, t, w, ignore_index, logits):
            return losses[0]

    elif logits.ndim == 2:

        def reduced(losses, t, w, ignore_index, logits):
            return losses

    else:

        def reduced(losses, t, w, ignore_index, logits):
            return losses.reshape((logits.shape[0], *logits.shape[2:]))

    return jitable(reduced)


def _scaled(logits, target, weight, reduction):
    """Compiled function: divides the rows' factors by the mean's divisor, if it is a mean."""
    if reduction != "mean":
        return jitable(lambda scale, t, w, ignore_index: None)
    divisor = _divisor(logits, target, weight)

    def scaled(scale, t, w, ignore_index):
        count = divisor(t, w, ignore_index)
        if count != 0:
            scale /= count

    return jitable(scaled)


@overloads(public.cross_entropy)
def cross_entropy(
    logits, target, weight=None, reduction="mean", label_smoothing=0.0, ignore_index=-100
):
    op = "cross_entropy"
    reduction_name = literal(op, "reduction", reduction, public.REDUCTIONS)
    _, prepare = _problem(op, logits, target, weight, label_smoothing, ignore_index)
    run, reduced = _run(logits, target), _reduced(logits, target, weight, reduction_name)

    def implementation(
        logits, target, weight=None, reduction="mean", label_smoothing=0.0, ignore_index=-100
    ):
        rows, t, w = prepare(logits, target, weight, label_smoothing, ignore_index)
        losses, nothing = np.empty(len(rows), rows.dtype), np.empty(0, rows.dtype)
        none = np.empty((0, rows.shape[1]), rows.dtype)
        run(rows, t, w, ignore_index, float(label_smoothing), nothing, losses, none)
        return reduced(losses, t, w, ignore_index, logits)

    return implementation


def _gradient(op, logits, out):
    """Compiled function ``(out, logits, target, weight, dy)`` -> the array to write gradients to."""
    dtype = same_dtype(op, logits=logits)
    make, check = output(op, out, dtype, logits.ndim), separate(op, out)

    def gradient(out, logits, target, weight, dy):
        y = make(out, logits.shape)
        check(y, logits)
        check(y, target)
        check(y, weight)
        check(y, dy)
        return y

    return jitable(gradient)


def _upstream(op, logits, dy, reduction):
    """Compiled function ``(scale, dy, logits)`` that writes each row's gradient by its loss."""
    if not isinstance(dy, types.Array):
        if not isinstance(dy, (bool, types.Boolean)):
            numbers(op, dy=dy)
        return jitable(lambda scale, dy, logits: _fill_with(scale, dy))
    float_array(op, "dy", dy)
    if dy.ndim == 0:
        return jitable(lambda scale, dy, logits: _fill_with(scale, dy[()]))
    if reduction != "none":
        raise TypingError(f"{op}: dy is an array; accepted with {reduction!r}: a number")
    if dy.ndim != logits.ndim - 1:
        raise TypingError(f"{op}: dy has {dy.ndim} dimensions; accepted: {logits.ndim - 1}")
    message = op + ": dy has not the shape of the losses"

    def fill(scale, dy, logits):
        if dy.shape != logits.shape[:1] + logits.shape[2:]:
            raise ValueError(message)
        scale[:] = np.ascontiguousarray(dy).reshape(dy.size)

    return jitable(fill)


@jitable
def _fill_with(scale, value):
    scale[:] = value


@overloads(public.cross_entropy_backward)
def cross_entropy_backward(
    logits,
    target,
    weight=None,
    reduction="mean",
    label_smoothing=0.0,
    ignore_index=-100,
    dy=1.0,
    out=None,
):
    op = "cross_entropy_backward"
    reduction_name = literal(op, "reduction", reduction, public.REDUCTIONS)
    axis, prepare = _problem(op, logits, target, weight, label_smoothing, ignore_index)
    gradient = _gradient(op, logits, out)
    run, scaled = _run(logits, target), _scaled(logits, target, weight, reduction_name)
    fill = _upstream(op, logits, dy, reduction_name)

    def implementation(
        logits,
        target,
        weight=None,
        reduction="mean",
        label_smoothing=0.0,
        ignore_index=-100,
        dy=1.0,
        out=None,
    ):
        rows, t, w = prepare(logits, target, weight, label_smoothing, ignore_index)
        dlogits = gradient(out, logits, target, weight, dy)
        scale, result = np.empty(len(rows), rows.dtype), np.empty_like(rows)
        fill(scale, dy, logits)
        scaled(scale, t, w, ignore_index)
        nothing = np.empty(0, rows.dtype)
        run(rows, t, w, ignore_index, float(label_smoothing), scale, nothing, result)
        _from_rows(result, axis, dlogits)
        return dlogits

    return implementation


@overloads(public.cross_entropy_with_grad)
def cross_entropy_with_grad(
    logits,
    target,
    weight=None,
    reduction="mean",
    label_smoothing=0.0,
    ignore_index=-100,
    out=None,
):
    op = "cross_entropy_with_grad"
    reduction_name = literal(op, "reduction", reduction, public.REDUCTIONS)
    axis, prepare = _problem(op, logits, target, weight, label_smoothing, ignore_index)
    gradient = _gradient(op, logits, out)
    run, scaled = _run(logits, target), _scaled(logits, target, weight, reduction_name)
    reduced = _reduced(logits, target, weight, reduction_name)

    def implementation(
        logits,
        target,
        weight=None,
        reduction="mean",
        label_smoothing=0.0,
        ignore_index=-100,
        out=None,
    ):
        rows, t, w = prepare(logits, target, weight, label_smoothing, ignore_index)
        dlogits = gradient(out, logits, target, weight, None)
        losses, scale = np.empty(len(rows), rows.dtype), np.ones(len(rows), rows.dtype)
        result = np.empty_like(rows)
        scaled(scale, t, w, ignore_index)
        run(rows, t, w, ignore_index, float(label_smoothing), scale, losses, result)
        _from_rows(result, axis, dlogits)
        return reduced(losses, t, w, ignore_index, logits), dlogits

    return implementation
