"""Gradients: a program for the outputs becomes one for the outputs and all slopes.

Reverse-mode differentiation, step by step: each kind of step has a function that adds the
steps which carry the gradient of its outputs to its inputs. The kernels are this library's
``*_backward`` functions, so the gradient has the bits of calling them by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loopnest.network.builder import Builder, needed
from loopnest.network.execute import Executor
from loopnest.network.program import Program, Shape, Step, Storage, Value
from loopnest.network.verify import verify
from loopnest.runtime import checks

_KEPT = 4  # programs with gradients, for as many batch sizes


@dataclass(eq=False)
class Differentiated:
    """A program of two parts: outputs from inputs, then slopes from those of the outputs.

    Inputs are those of the network and one for the gradient by each output; outputs
    are those of the network, the gradients by its inputs, and that by all parameters in a
    vector.
    """

    program: Program
    forward_steps: int
    x: list[Value]
    dy: list[Value]
    y: list[Value]
    dx: list[Value]
    vector: Value
    idle: list[Tape] = field(default_factory=list)  # to be used again; its ends are atomic


class Gradients(dict[str, np.ndarray]):
    """Gradients by name; ``vector`` is all of them in one array, laid out like the network's."""

    def __init__(self, vector: np.ndarray, parameters: dict[str, np.ndarray]) -> None:
        super().__init__()
        self._bind(vector, {name: value.shape for name, value in parameters.items()})

    def _bind(self, vector: np.ndarray, shapes: dict[str, Shape]) -> None:
        self.vector, at = vector, 0
        for name, shape in shapes.items():
            size = math.prod(shape)
            self[name] = vector[at : at + size].reshape(shape)
            at += size

    def __reduce__(self) -> tuple:
        return _gradients, (self.vector, {name: value.shape for name, value in self.items()})

    def __copy__(self) -> Gradients:
        return _gradients(self.vector.copy(), {name: value.shape for name, value in self.items()})


def _gradients(vector: np.ndarray, shapes: dict[str, Shape]) -> Gradients:
    """A copy or a pickle of `Gradients`: its arrays are pieces of its vector again."""
    made = Gradients(vector, {})
    made._bind(np.require(vector, None, ("C", "A", "W")), shapes)
    return made


class _Reverse(Builder):
    """Adds the reverse steps to a program's own."""

    def __init__(self, program: Program, limit: int) -> None:
        super().__init__(program.dtype, limit, fuse=False)
        self.where = "backward"
        self.slopes: dict[Storage, Value] = {}  # gradient by a whole storage, flat

    def slope(self, value: Value) -> Value | None:
        """Gradient by a value, None if nothing depends on it."""
        found = self.slopes.get(value.storage)
        return None if found is None else found.reshaped(*value.shape)

    def add(self, value: Value | None, contribution: Value | None) -> None:
        """Another way in which a value counts."""
        if value is None or contribution is None or not self.wanted(value):
            return
        flat, before = contribution.reshaped(contribution.size), self.slopes.get(value.storage)
        self.slopes[value.storage] = flat if before is None else self.binary("add", before, flat)

    def wanted(self, value: Value | None) -> bool:
        """Whether a gradient by it is of use: not by constants that are no parameters."""
        return value is not None and (value.storage.kind != "constant" or bool(value.storage.name))


def differentiate(network: Any, shapes: Sequence[Shape], dx: bool = True) -> Differentiated:
    """The network's program for these shapes, with gradients by parameters and (dx) inputs."""
    program = network.lower(shapes, fuse=False)
    b = _Reverse(program, network._limit)
    b.inputs = program.inputs
    steps = [_trainable(b, step) for step in program.steps]
    b.steps = list(steps)
    count = len(steps)
    dy = [b.input(value.shape) for value in program.outputs]
    for value, slope in zip(program.outputs, dy, strict=True):
        b.add(value, slope)
    for step in reversed(steps):
        if any(v.storage in b.slopes for v in step.outputs):
            if step.kind not in REVERSE:
                raise ValueError(f"backward: {network.name} has {step.kind}, without a gradient")
            REVERSE[step.kind](b, step)
    x = program.inputs[: len(network.inputs)]
    results = list(program.outputs)
    dx_values = [_result(b, b.slope(v), v.shape) for v in x] if dx else []
    vector = _vector(b, network.parameters, steps)
    for value in [*dx_values, vector]:
        value.storage.kind, value.storage.index = "output", len(results)
        results.append(value)
    reached = needed(b.steps, results)
    _drop_dx(reached, results)
    whole = Program(program.dtype, b.inputs, results, reached, program.separable, network._limit)
    verify(whole)
    kept = set(steps)
    forward = sum(step in kept for step in whole.steps)
    assert all(step in kept for step in whole.steps[:forward]) and forward <= count
    return Differentiated(whole, forward, x, dy, program.outputs, dx_values, vector)


def _drop_dx(steps: Sequence[Step], results: Sequence[Value]) -> None:
    """Leave dx out where nothing depends on it: in the first layer, if no dx is asked for."""
    used = {v.storage for v in results}
    used.update(v.storage for step in steps for v in step.inputs if v is not None)
    layers = ("conv2d_backward", "linear_backward")
    for step in steps:
        if step.kind in layers and step.outputs[0].storage not in used:
            step.outputs = step.outputs[1:]


def _result(b: _Reverse, slope: Value | None, shape: Shape) -> Value:
    """An array of its own for a gradient; zeros where nothing depends on the input."""
    y = b.work(shape)
    if slope is None:
        return b.fill(y, 0.0)
    flat = (slope.size,)
    b.move(slope.reshaped(*flat), y.reshaped(*flat), flat, (1,), (1,))
    return y


def _vector(b: _Reverse, parameters: dict[str, np.ndarray], steps: Sequence[Step]) -> Value:
    by_name = {
        v.storage.name: b.slopes.get(v.storage)
        for step in steps
        for v in step.values
        if v.storage.name
    }
    vector, at = b.work((sum(v.size for v in parameters.values()),)), 0
    if any(by_name.get(name) is None for name in parameters):
        b.fill(vector, 0.0)
    for name, array in parameters.items():
        slope = by_name.get(name)
        if slope is not None and array.size:
            b.move(slope, vector, (array.size,), (1,), (1,), 0, at)
        at += array.size
    return vector


def _trainable(b: _Reverse, step: Step) -> Step:
    """A step that also keeps what its gradient asks for: the places of maxima."""
    if step.kind == "global_max_pool2d":
        (x,), kernel = step.inputs, step.inputs[0].shape[2:]  # type: ignore[union-attr]
        options = {"kernel": kernel, "stride": kernel, "padding": (0, 0), "ceil_mode": False}
        step = Step("max_pool2d", (x,), step.outputs, {**options, "dilation": (1, 1)})
    if step.kind == "max_pool2d":
        places = b.work(step.outputs[0].shape, integer=True)
        return Step(step.kind, step.inputs, (*step.outputs, places), step.options)
    return step


# ---- one function a kind of step ----


def _products(kind: str) -> Callable[[_Reverse, Step], None]:
    """Convolution, dense layer, product of matrices: gradients by input, weight and bias."""

    def reverse(b: _Reverse, step: Step) -> None:
        x, weight, *rest = step.inputs
        assert x is not None and weight is not None
        bias = rest[0] if rest else None
        made = [b.work(x.shape), b.work(weight.shape)]
        if kind != "matmul_backward":
            made.append(b.work((step.outputs[0].shape[1],)))
        options = {k: v for k, v in step.options.items() if k != "activation"}
        b.step(kind, (b.slope(step.outputs[0]), x, weight), made, **options)
        b.add(x, made[0])
        b.add(weight, made[1])
        if bias is not None:
            b.add(bias, made[2])

    return reverse


def _max_pool2d(b: _Reverse, step: Step) -> None:
    (x,), (y, places) = step.inputs, step.outputs
    assert x is not None
    dx = b.work(x.shape)
    b.add(x, b.step("max_pool2d_backward", (b.slope(y), x, places), (dx,)))


def _avg_pool2d(b: _Reverse, step: Step) -> None:
    (x,), (y,) = step.inputs, step.outputs
    assert x is not None
    dx = b.work(x.shape)
    b.add(x, b.step("avg_pool2d_backward", (b.slope(y), x), (dx,), **step.options))


def _global_avg_pool2d(b: _Reverse, step: Step) -> None:
    (x,) = step.inputs
    slope = b.slope(step.outputs[0])
    assert x is not None and slope is not None
    b.add(x, b.affine(b.expanded(slope, x.shape), 1 / math.prod(x.shape[2:])))


def _unary(b: _Reverse, step: Step) -> None:
    (x,), (y,) = step.inputs, step.outputs
    slope = b.slope(y)
    assert x is not None and slope is not None
    if step.options["name"] == "sqrt":
        b.add(x, b.binary("div", slope, b.affine(y, 2.0)))
    else:
        b.add(x, b.step("unary_backward", (slope, x), (b.work(x.shape),), **step.options))


def _softmax(b: _Reverse, step: Step) -> None:
    (x,), (y,) = step.inputs, step.outputs
    log = step.kind == "log_softmax"
    b.add(x, b.step("softmax_backward", (b.slope(y), y), (b.work(y.shape),), log=log))


def _binary(b: _Reverse, step: Step) -> None:
    (p, q), name, y = step.inputs, step.options["name"], step.outputs[0]
    slope = b.slope(y)
    assert p is not None and q is not None and slope is not None
    if name in ("add", "sub"):
        b.add(p, slope)
        b.add(q, slope if name == "add" else b.affine(slope, -1.0))
    elif name == "mul":
        b.add(p, b.binary("mul", slope, q) if b.wanted(p) else None)
        b.add(q, b.binary("mul", slope, p) if b.wanted(q) else None)
    else:
        share = b.binary("div", slope, q)
        b.add(p, share)
        if b.wanted(q):
            b.add(q, b.affine(b.binary("mul", share, y), -1.0))


def _affine(b: _Reverse, step: Step) -> None:
    slope = b.slope(step.outputs[0])
    assert slope is not None
    b.add(step.inputs[0], b.affine(slope, step.options["scale"]))


def _nothing(b: _Reverse, step: Step) -> None:
    """A constant depends on nothing; statistics and factors of a normalisation are not trained."""


def _move(b: _Reverse, step: Step) -> None:
    """The gradient goes back where the numbers came from; those of one source add up."""
    (x,), (y,), o = step.inputs, step.outputs, step.options
    slope = b.slope(y)
    assert x is not None and slope is not None
    if not b.wanted(x):
        return
    dx = b.work((x.storage.size,))
    b.fill(dx, 0.0)
    b.move(slope, dx, o["shape"], o["y_strides"], o["x_strides"], o["y_offset"], o["x_offset"],
           "add")  # fmt: skip
    b.add(x, dx)


REVERSE: dict[str, Callable[[_Reverse, Step], None]] = {
    "conv2d": _products("conv2d_backward"),
    "linear": _products("linear_backward"),
    "matmul": _products("matmul_backward"),
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "global_avg_pool2d": _global_avg_pool2d,
    "unary": _unary,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "binary": _binary,
    "affine": _affine,
    "fill": _nothing,
    "batch_norm": _nothing,
    "move": _move,
}


class Tape:
    """What a forward pass left for the backward pass. Each has arrays of its own."""

    def __init__(
        self, network: Any, given: Sequence[np.ndarray], single: bool, dx: bool = True
    ) -> None:
        self.network, self._single = network, single
        self._made = _prepared(network, tuple(a.shape for a in given), dx)
        program = self._made.program
        self._executor = Executor(program, keep=True)
        # Inputs and outputs are copied: the backward pass needs them unchanged.
        self._inputs = [np.array(a) for a in given]
        self._inputs += [np.empty(v.shape, program.dtype) for v in self._made.dy]
        self._results = [np.empty(v.shape, program.dtype) for v in program.outputs]
        self._executor.bind(self._inputs, self._results)
        self._executor.run_steps(0, self._made.forward_steps)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "single": self._single,
            "dx": bool(self._made.dx),
            "inputs": self._inputs,
            "results": self._results,
            "work": self._executor.work_arrays(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.network, self._single = state["network"], state["single"]
        self._inputs, self._results = (
            [np.array(a) for a in state[name]] for name in ("inputs", "results")
        )
        count = len(self.network.inputs)
        shapes = tuple(a.shape for a in self._inputs[:count])
        self._made = _prepared(self.network, shapes, state["dx"])
        self._executor = Executor(self._made.program, keep=True)
        self._executor.bind(self._inputs, self._results)
        for own, array in zip(self._executor.work_arrays(), state["work"], strict=True):
            np.copyto(own, array)

    @classmethod
    def for_training(cls, network: Any, given: Sequence[np.ndarray]) -> Tape:
        """A tape without gradients by the inputs, used again once `rest` was called."""
        made = _prepared(network, tuple(a.shape for a in given), dx=False)
        try:
            tape = made.idle.pop()
        except IndexError:
            return cls(network, given, False, dx=False)
        for own, array in zip(tape._inputs, given, strict=False):
            np.copyto(own, array)
        tape._executor.run_steps(0, made.forward_steps)
        return tape

    def rest(self) -> None:
        """Nobody needs this tape any more."""
        self._made.idle.append(self)

    @property
    def outputs(self) -> Any:
        """Copies of the outputs."""
        made = [r.copy() for r in self._results[: len(self._made.y)]]
        made = [m.reshape(m.shape[1:]) for m in made] if self._single else made
        return made[0] if len(made) == 1 else tuple(made)

    def backward(self, dy: Any) -> tuple[Any, Gradients]:
        """See `Network.backward`."""
        op, made = "backward", self._made
        many = isinstance(dy, (tuple, list)) and len(made.dy) > 1
        slopes = list(dy) if many else [dy]
        if len(slopes) != len(made.dy):
            raise ValueError(f"{op}: {len(slopes)} gradients dy; accepted: {len(made.dy)}")
        checked = []
        for slope, value in zip(slopes, made.dy, strict=True):
            array = checks.array(op, "dy", slope)
            shape = value.shape[1:] if self._single else value.shape
            checks.same_shape(op, "dy", array, shape)
            if array.dtype != made.program.dtype:
                raise TypeError(f"{op}: dy has dtype {array.dtype}; accepted: {made.program.dtype}")
            checked.append(array.reshape(value.shape))
        for target, array in zip(self._inputs[len(made.x) :], checked, strict=True):
            np.copyto(target, array)
        self._executor.run_steps(made.forward_steps, len(made.program.steps))
        results = [r.copy() for r in self._results[len(made.y) :]]
        *dx, vector = results
        dx = [d.reshape(d.shape[1:]) for d in dx] if self._single else dx
        gradients = Gradients(vector, self.network.parameters)
        return (dx[0] if len(dx) == 1 else tuple(dx)), gradients


def _prepared(network: Any, shapes: tuple[Shape, ...], dx: bool) -> Differentiated:
    """The differentiated program for these shapes, made once."""
    kept, key = network._differentiated, (shapes, dx)
    if key not in kept:
        while len(kept) >= _KEPT:
            kept.pop(next(iter(kept)))
        kept[key] = differentiate(network, shapes, dx)
    return kept[key]
