"""A 2-2-1 network that learns a gate by gradient descent, on the library's own kernels."""

from __future__ import annotations

import numpy as np

from loopnest.ops import activation, dense, optimizer

_ROWS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
_CONFIDENT = 0.05  # loss at which a start counts as learned
_RESTARTS = 50


def learned_layers(truth: np.ndarray, seed: int, lr: float, steps: int):
    """Layers of a network (ReLU hidden, sigmoid output) with this truth table.

    Descent with Adam on the mean cross-entropy of the four rows. Two ReLU neurons can start dead, or
    end in a plateau; such a start is given up for the next one of the seed.

    Raises
    ------
    RuntimeError
        No start has learned the table.
    """
    rng = np.random.default_rng(seed)
    for _ in range(_RESTARTS):
        layers = [
            [rng.uniform(-1, 1, (2, 2)), rng.uniform(-1, 1, 2)],
            [rng.uniform(-1, 1, (2, 1)), rng.uniform(-1, 1, 1)],
        ]
        loss = _descend(layers, truth.astype(np.float64).reshape(4, 1), lr, steps)
        if loss < _CONFIDENT:
            return layers
    raise RuntimeError(f"Gate.train: no start of {_RESTARTS} has learned in {steps} steps")


def _descend(layers: list, truth: np.ndarray, lr: float, steps: int) -> float:
    """Train in place; returns the last loss."""
    (w1, b1), (w2, b2) = layers
    params = [w1, b1, w2, b2]
    states = [(np.zeros_like(p), np.zeros_like(p)) for p in params]
    loss = np.inf
    for step in range(1, steps + 1):
        z = dense.linear(_ROWS, w1, b1)
        hidden = activation.relu(z)
        p = activation.sigmoid(dense.linear(hidden, w2, b2))
        with np.errstate(divide="ignore"):
            loss = float(-np.mean(np.log(np.where(truth == 1, p, 1 - p))))
        if loss < _CONFIDENT / 2:
            break
        dout = (p - truth) / len(truth)  # by the output's pre-activation
        dhidden, dw2, db2 = dense.linear_backward(dout, hidden, w2)
        _, dw1, db1 = dense.linear_backward(activation.relu_backward(dhidden, z), _ROWS, w1)
        for param, grad, (m, v) in zip(params, (dw1, db1, dw2, db2), states, strict=True):
            optimizer.adam_step(param, grad, m, v, step=step, lr=lr)
    return loss
