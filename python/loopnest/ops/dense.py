"""Dense (fully connected) layers and their gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from loopnest.ops import activation as activations
from loopnest.ops import packing
from loopnest.runtime import backend, checks, replay, threads

_LINEAR, _LINEAR_BACKWARD = replay.Op("rrrro"), replay.Op("rrrooo")
_NEW = None, None, None  # gradients to make


def _operands(op: str, x: Any, weight: Any) -> tuple[np.ndarray, np.ndarray]:
    """x and weight, checked against each other."""
    x, weight = checks.array(op, "x", x), checks.array(op, "weight", weight, 2)
    if x.ndim < 1:
        raise ValueError(f"{op}: x has 0 dimensions; accepted: shape (..., inputs)")
    if x.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"{op}: x has {x.shape[-1]} inputs, shape {x.shape}; "
            f"accepted: {weight.shape[0]}, weight is (inputs, outputs) {weight.shape}"
        )
    return x, weight


def _rows(array: np.ndarray) -> np.ndarray:
    """The same memory as (rows, last axis)."""
    if array.ndim == 2:
        return array
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def linear(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    activation: str | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Dense layer, x @ weight + bias.

    Parameters
    ----------
    x : array_like, shape (..., I)
        float32 or float64, as all arrays of the call.
    weight : array_like or PackedWeight, shape (I, O)
        One column an output (PyTorch's is the transpose); a handle of `pack_weight` saves
        bringing it into order in each call.
    bias : array_like, shape (O,), optional
        Added to each row.
    activation : str, optional
        Name of an activation of this library, applied to the result.
    out : ndarray, shape (..., O), optional
        Where to write; it must not overlap an input.

    Returns
    -------
    ndarray, shape (..., O)

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, before anything is written.

    Notes
    -----
    Each output is one sum of fused multiply-adds in the order of the inputs.

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> ln.linear(np.array([1.0, 2.0]), np.array([[0.5], [0.25]]), np.array([1.0]))
    array([2.])
    """
    kernels = backend.kernels  # written out: a tuple would cost a tenth of a small call
    known = _LINEAR.call(x, weight, None, bias, out, activation, kernels, threads.SERIAL_BELOW)
    if known is not None:
        return known
    packed = None
    if type(weight) is packing.PackedWeight and weight.ndim == 2:
        weight, packed = weight._weight, weight.packed()
        known = _LINEAR.call(
            x, weight, packed, bias, out, activation, kernels, threads.SERIAL_BELOW
        )
        if known is not None:
            return known
    given = x, weight, packed, bias
    op = "linear"
    weight, _ = packing.unpack(op, weight, 2)
    x, weight = _operands(op, x, weight)
    if bias is not None:
        bias = checks.array(op, "bias", bias, 1)
        checks.same_shape(op, "bias", bias, weight.shape[1:])
    dtype = checks.same_dtype(op, x=x, weight=weight, bias=bias)
    activate = activations.in_place(op, activation)
    y = checks.output(op, out, (*x.shape[:-1], weight.shape[1]), dtype, (*given, x, weight, bias))
    none = np.empty(0, dtype)
    bias = none if bias is None else bias
    calls = [_multiply(_rows(x), weight, none if packed is None else packed, bias, _rows(y))]
    if activate is not None:
        calls.append(activate(y))
    options = activation, backend.kernels, threads.SERIAL_BELOW
    _LINEAR.keep((*given, out, *options), y, *calls)
    return y


def _multiply(
    x: np.ndarray,
    weight: np.ndarray,
    packed: np.ndarray,
    bias: np.ndarray,
    y: np.ndarray,
) -> replay.Call | None:
    """y = x @ weight + bias on rows, by the kernel that serves these sizes; that call."""
    (samples, inputs), outputs = x.shape, weight.shape[1]
    multiply_adds, tiled = samples * inputs * outputs, backend.kernels.dense_tiled
    form = tiled.FORWARD
    tasks, work_size = tiled.prepare(form, samples, inputs, outputs, x.itemsize)
    if not tasks:
        plain = backend.kernels.dense.linear
        rows = replay.Items(samples)
        return replay.split(multiply_adds, plain, x, weight, bias, rows, y)
    operands = (
        x,
        weight,
        bias,
        packed,
        form,
        replay.Items(tasks),
        replay.Space(work_size, x.dtype),
        y,
    )
    return replay.split(multiply_adds / 16, tiled.linear_tiled, *operands)


def linear_backward(
    dy: Any, x: Any, weight: Any, *, gradients: Any = None, needs_dx: bool = True
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Gradients of `linear` by its input, its weight and its bias.

    Parameters
    ----------
    dy : array_like, shape (..., O)
        Gradient by the output (before any fused activation).
    x : array_like, shape (..., I)
    weight : array_like, shape (I, O)
        As in the forward call.
    gradients : (ndarray, ndarray, ndarray), optional
        Where to write dx, dweight and dbias; None among them for a new array. They must overlap
        neither an input nor one another.
    needs_dx : bool
        False where dx is of no use, as in the first layer of a network: None in its place.

    Returns
    -------
    dx : ndarray, shape (..., I)
        dy @ weight.T, summed over the outputs in order.
    dweight : ndarray, shape (I, O)
        x.T @ dy, summed over the rows in order.
    dbias : ndarray, shape (O,)
        The sum of dy over the rows, in order; of more than 2048 rows in runs, as `softmax` sums.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, before anything is written.
    """
    targets = _NEW if gradients is None else gradients
    given = dy, x, weight
    kept = type(targets) is tuple and len(targets) == 3
    if kept:
        known = _LINEAR_BACKWARD.call(
            dy, x, weight, *targets, needs_dx, backend.kernels, threads.SERIAL_BELOW
        )
        if known is not None:
            return known
    op = "linear_backward"
    needs_dx = checks.flag(op, "needs_dx", needs_dx)
    x, weight = _operands(op, x, weight)
    dy = checks.array(op, "dy", dy)
    dtype = checks.same_dtype(op, dy=dy, x=x, weight=weight)
    checks.same_shape(op, "dy", dy, (*x.shape[:-1], weight.shape[1]))
    shapes = x.shape, weight.shape, weight.shape[1:]
    inputs = given[0], dy, given[1], x, given[2], weight
    dx, dweight, dbias = checks.gradients(op, gradients, shapes, dtype, inputs, needs_dx)
    made = dx if needs_dx else None, dweight, dbias
    kernels, tiled = backend.kernels.dense, backend.kernels.dense_tiled
    rows_dy, rows_x, calls = _rows(dy), _rows(x), []
    if needs_dx:
        plain = kernels.linear_backward_input
        calls.append(
            _gradient(plain, tiled.BACKWARD_INPUT, rows_dy, weight, weight.shape, _rows(dx))
        )
    plain = kernels.linear_backward_weight
    calls.append(_gradient(plain, tiled.BACKWARD_WEIGHT, rows_x, rows_dy, weight.shape, dweight))
    calls.append(replay.serial(dy.size, kernels.linear_backward_bias, rows_dy, dbias))
    if kept:
        options = needs_dx, backend.kernels, threads.SERIAL_BELOW
        _LINEAR_BACKWARD.keep((*given, *targets, *options), made, *calls)
    return made


def _gradient(
    plain: Any, form: int, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...], out: np.ndarray
) -> replay.Call | None:
    """The product of ``form`` for a weight of this shape, by the kernel that serves these sizes."""
    tiled, none, multiply_adds = (
        backend.kernels.dense_tiled,
        np.empty(0, out.dtype),
        len(a) * math.prod(shape),
    )
    tasks, work_size = tiled.prepare(form, len(a), *shape, out.itemsize)
    if not tasks:
        return replay.split(multiply_adds, plain, a, b, replay.Items(len(out)), out)
    space, items = replay.Space(work_size, out.dtype), replay.Items(tasks)
    operands = a, b, none, none, form, items, space, out
    return replay.split(multiply_adds / 16, tiled.linear_tiled, *operands)
