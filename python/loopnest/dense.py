"""Dense (fully connected) layers and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from loopnest import activation as activations
from loopnest import backend, checks, threads


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
    return array.reshape(int(np.prod(array.shape[:-1])), array.shape[-1])


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
    weight : array_like, shape (I, O)
        One column an output (PyTorch's is the transpose).
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
    op = "linear"
    given = x, weight, bias
    x, weight = _operands(op, x, weight)
    if bias is not None:
        bias = checks.array(op, "bias", bias, 1)
        checks.same_shape(op, "bias", bias, weight.shape[1:])
    dtype = checks.same_dtype(op, x=x, weight=weight, bias=bias)
    activate = activations.in_place(op, activation)
    y = checks.output(op, out, (*x.shape[:-1], weight.shape[1]), dtype, (*given, x, weight, bias))
    if bias is None:
        bias = np.empty(0, dtype)
    kernel, rows_x, rows_y = backend.kernels.dense.linear, _rows(x), _rows(y)

    def piece(first: int, last: int) -> None:
        kernel(rows_x, weight, bias, first, last, rows_y)
        if activate is not None:
            activate(rows_y[first:last].reshape(-1))

    threads.split(piece, len(rows_y), y.size * len(weight))
    return y


def linear_backward(dy: Any, x: Any, weight: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `linear` by its input, its weight and its bias.

    Parameters
    ----------
    dy : array_like, shape (..., O)
        Gradient by the output (before any fused activation).
    x : array_like, shape (..., I)
    weight : array_like, shape (I, O)
        As in the forward call.

    Returns
    -------
    dx : ndarray, shape (..., I)
        dy @ weight.T, summed over the outputs in order.
    dweight : ndarray, shape (I, O)
        x.T @ dy, summed over the rows in order.
    dbias : ndarray, shape (O,)
        The sum of dy over the rows, in order.

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.
    """
    op = "linear_backward"
    x, weight = _operands(op, x, weight)
    dy = checks.array(op, "dy", dy)
    dtype = checks.same_dtype(op, dy=dy, x=x, weight=weight)
    checks.same_shape(op, "dy", dy, (*x.shape[:-1], weight.shape[1]))
    dx, dweight = np.empty(x.shape, dtype), np.empty(weight.shape, dtype)
    dbias = np.empty(weight.shape[1], dtype)
    kernels, rows_dy, rows_x, rows_dx = backend.kernels.dense, _rows(dy), _rows(x), _rows(dx)
    work = dy.size * len(weight)
    threads.split(
        lambda a, b: kernels.linear_backward_input(rows_dy, weight, a, b, rows_dx),
        len(rows_x),
        work,
    )
    threads.split(
        lambda a, b: kernels.linear_backward_weight(rows_x, rows_dy, a, b, dweight),
        len(weight),
        work,
    )
    kernels.linear_backward_bias(rows_dy, dbias)
    return dx, dweight, dbias
