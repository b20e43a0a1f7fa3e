"""Compiling kernels ahead of time, by calling every public op on tiny arrays.

What Numba compiles is kept on disk, so one warm-up (say, when an image is built) serves
every later process.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import loopnest as ln
from loopnest.runtime import backend, terminal

Call = Callable[[Any], object]  # takes the dtype

_ELEMENTWISE = ("exp", "leaky_relu", "relu", "sigmoid", "silu", "tanh")
_GELU_FORMS = ("sigmoid", "tanh", "none")


def _image(dtype: Any) -> np.ndarray:
    return np.ones((1, 1, 4, 4), dtype)


def _matrix(dtype: Any) -> np.ndarray:
    return np.ones((2, 2), dtype)


def _forward(op: str) -> Call:
    return lambda t: getattr(ln, op)(np.ones(1, t))


def _backward(op: str) -> Call:
    return lambda t: getattr(ln, op)(np.ones(1, t), np.ones(1, t))


def _each_form(op: str, inputs: int) -> Call:
    def call(t: Any) -> None:
        for form in _GELU_FORMS:
            getattr(ln, op)(*[np.ones(1, t)] * inputs, approximate=form)

    return call


def _max_pool2d_backward(t: Any) -> object:
    y, indices = ln.max_pool2d(_image(t), 2, return_indices=True)
    return ln.max_pool2d_backward(y, _image(t), indices, 2)


_ACTIVATION: dict[str, Call] = {
    **{op: _forward(op) for op in _ELEMENTWISE},
    **{f"{op}_backward": _backward(f"{op}_backward") for op in _ELEMENTWISE},
    "gelu": _each_form("gelu", 1),
    "gelu_derivative": _each_form("gelu_derivative", 1),
    "gelu_backward": _each_form("gelu_backward", 2),
}


def _winograd(t: Any) -> object:
    return ln.conv2d(_image(t), np.ones((1, 1, 3, 3), t), algorithm="winograd")


def _layer(t: Any, channels: int, size: int, kernel: int) -> tuple[np.ndarray, np.ndarray]:
    """Input and weight of a layer of as many filters as channels."""
    return np.ones((1, channels, size, size), t), np.ones((channels, channels, kernel, kernel), t)


def _conv2d(t: Any) -> None:
    # One layer for each row of the table in kernels/convolution_plan.py.
    for channels, size, kernel in ((1, 4, 4), (1, 32, 3), (8, 16, 3), (32, 16, 3), (8, 16, 1)):
        ln.conv2d(*_layer(t, channels, size, kernel), np.ones(channels, t))
    _winograd(t)


def _conv2d_backward(t: Any) -> None:
    for channels, size in ((1, 4), (16, 16)):
        x, weight = _layer(t, channels, size, 3)
        ln.conv2d_backward(ln.conv2d(x, weight), x, weight)


def _squares(t: Any) -> list[np.ndarray]:
    """Matrices for the plain and for the tiled product."""
    return [np.ones((size, size), t) for size in (2, 64)]


_CONVOLUTION: dict[str, Call] = {"conv2d": _conv2d, "conv2d_backward": _conv2d_backward}
_POOLING: dict[str, Call] = {
    "avg_pool2d": lambda t: ln.avg_pool2d(_image(t), 2),
    "avg_pool2d_backward": lambda t: ln.avg_pool2d_backward(np.ones((1, 1, 2, 2), t), _image(t), 2),
    "max_pool2d": lambda t: ln.max_pool2d(_image(t), 2),
    "max_pool2d_backward": _max_pool2d_backward,
    "global_avg_pool2d": lambda t: ln.global_avg_pool2d(_image(t)),
    "global_max_pool2d": lambda t: ln.global_max_pool2d(_image(t)),
}
_DENSE: dict[str, Call] = {
    "linear": lambda t: [ln.linear(m, m, np.ones(len(m), t)) for m in _squares(t)],
    "linear_backward": lambda t: [ln.linear_backward(m, m, m) for m in _squares(t)],
}
_TARGETS = (np.zeros(2, np.int64), None)  # class indices; None: probabilities of the logits' dtype


def _loss(op: str) -> Call:
    def call(t: Any) -> None:
        for target in _TARGETS:
            getattr(ln, op)(_matrix(t), _matrix(t) / 2 if target is None else target)

    return call


_LOSS: dict[str, Call] = {
    "softmax": lambda t: ln.softmax(_matrix(t)),
    "log_softmax": lambda t: ln.log_softmax(_matrix(t)),
    "cross_entropy": _loss("cross_entropy"),
    "cross_entropy_backward": _loss("cross_entropy_backward"),
    "cross_entropy_with_grad": _loss("cross_entropy_with_grad"),
}


def _logic_network(t: Any) -> object:
    net = ln.LogicNetwork(3, [2], 2, dtype=t)
    net.fit(np.eye(2, 3, dtype=np.uint8), [0, 1], epochs=1, progress=False)
    return net.scores(np.zeros((1, 3)), soft=True)


def _network(t: Any) -> object:
    """A small network compiled for callers inside ``@njit``, with its gradient."""
    net = ln.Sequential(
        *(ln.Conv2d(1, 2, 3), ln.ReLU(), ln.MaxPool2d(2), ln.Flatten(), ln.Linear(2, 2)),
        dtype=t,
    )
    if "numba" not in ln.available_backends():
        return net(_image(t))
    gradient = net.njit_gradient((1, 4, 4), batch=2)
    gradient(_image(t), np.zeros(1, np.int64), np.empty(net.vector.size, t))
    return net.njit((1, 4, 4))(_image(t))


_NETWORK: dict[str, Call] = {"Network": _network}
_GATES: dict[str, Call] = {
    "gate_forward": lambda t: ln.gate_forward("xor", *[np.ones(1, t)] * 2),
    "LogicNetwork": _logic_network,
}


def _step(op: str, states: int, **options: Any) -> Call:
    """``states`` arrays follow the parameters and the gradient."""
    return lambda t: getattr(ln, op)(*[np.ones(1, t) for _ in range(2 + states)], **options)


_OPTIMIZER: dict[str, Call] = {
    "sgd_step": _step("sgd_step", 0, lr=0.1),
    "adam_step": _step("adam_step", 2, step=1),
    "adamw_step": _step("adamw_step", 2, step=1),
    "rmsprop_step": _step("rmsprop_step", 1),
    "adagrad_step": _step("adagrad_step", 1, step=1),
    "lion_step": _step("lion_step", 1),
}
_DESCENT: dict[str, Call] = {
    "descend": lambda t: ln.descend(ln.gelu, np.ones(1, t), lr=0.1, steps=1),
}

ROWS: dict[str, dict[str, Call]] = {
    "activation": _ACTIVATION,
    "convolution": _CONVOLUTION,
    "pooling": _POOLING,
    "dense": _DENSE,
    "loss": _LOSS,
    "optimizer": _OPTIMIZER,
    "descent": _DESCENT,
    "gates": _GATES,
    "network": _NETWORK,
}


def select(names: Iterable[str]) -> dict[str, Call]:
    """The ops that names of ops or rows stand for; all of them for no name.

    Raises
    ------
    ValueError
        A name is neither; the message has the nearest ones.
    """
    every = {op: call for row in ROWS.values() for op, call in row.items()}
    chosen: dict[str, Call] = {}
    for name in names:
        if name in ROWS:
            chosen |= ROWS[name]
        elif name in every:
            chosen[name] = every[name]
        else:
            near = difflib.get_close_matches(name, [*ROWS, *every], n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else ""
            rows = ", ".join(ROWS)
            raise ValueError(
                f"warmup: op is {name!r}; {hint or 'accepted: op names'}; rows: {rows}"
            )
    return chosen or every


def warm_up(ops: dict[str, Call], dtypes: Sequence[str]) -> None:
    """Compile each op for each dtype on the Numba backend, with a progress bar."""
    tasks = {f"{op} {dtype}": (op, dtype) for op in ops for dtype in dtypes}
    with backend.use_backend("numba"):
        for task in terminal.progress(list(tasks), "warmup"):
            op, dtype = tasks[task]
            ops[op](np.dtype(dtype))
