"""Running a program from Python: each step a call of this library, arrays made beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import loopnest
from loopnest.network.fusion import fused
from loopnest.network.program import Program, Step, Storage, Value
from loopnest.network.steps.elements import batch_norm_factors
from loopnest.network.workspace import Workspace, aligned
from loopnest.ops import activation, convolution, dense, loss, pooling
from loopnest.runtime import checks

Call = Callable[[], object]
_UFUNC = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
_GELU = {"gelu": "sigmoid", "gelu_tanh": "tanh", "gelu_erf": "none"}
_BLOCK = 16_384  # elements of a fused pair of element-wise functions: what stays in L1
_COPIED = 4_096  # elements of inputs and outputs together that are cheaper copied than bound anew
# Steps by NumPy's functions, which would warn of infinities and NaN.
_BY_NUMPY = ("unary", "binary", "affine", "softmax_backward", "move", "batch_norm")


class Executor:
    """A program with its work space. One call at a time; `Pool` sees to that."""

    def __init__(self, program: Program, keep: bool = False) -> None:
        if not keep:
            program = fused(program)
        self.program = program
        plan = Workspace(program, keep)
        self._block = aligned(plan.size, program.dtype)
        self._arrays: dict[Storage, np.ndarray] = {}
        self._handles: dict[Any, Any] = {}
        for storage, offset in plan.offsets.items():
            self._arrays[storage] = self._block[offset : offset + storage.size]
        for storage in program.work():
            if storage.integer:
                self._arrays[storage] = np.empty(storage.size, np.int64)
        for storage in program.constants():
            assert storage.data is not None
            self._arrays[storage] = storage.data.reshape(-1)
        # Small inputs and outputs have arrays here and are copied; of others the steps on them get
        # the caller's arrays anew in each call.
        ends = list(dict.fromkeys(v.storage for v in (*program.inputs, *program.outputs)))
        self._copies = not keep and sum(storage.size for storage in ends) <= _COPIED
        if self._copies:
            for storage in ends:
                self._arrays[storage] = aligned(storage.size, program.dtype)
        self._ins = [self.array(v) for v in program.inputs] if self._copies else []
        self._outs = [self.array(v) for v in program.outputs] if self._copies else []
        self._quiet = any(step.kind in _BY_NUMPY for step in program.steps)
        self._steps: list[tuple[Step, Call | None]] = []
        for step in program.steps:
            ready = all(v.storage in self._arrays for v in step.values)
            self._steps.append((step, self._bind(step) if ready else None))

    def array(self, value: Value) -> np.ndarray:
        """The array of a value, as the last call left it."""
        flat = self._arrays[value.storage]
        if value.offset or value.size != flat.size:
            flat = flat[value.offset : value.offset + value.size]
        return flat.reshape(value.shape)

    def work_arrays(self) -> list[np.ndarray]:
        """All arrays between inputs and outputs, in the order of the program."""
        return [self._arrays[storage] for storage in self.program.work()]

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Run all steps; the arrays are contiguous and of the program's shapes."""
        if not self._copies:
            self.bind(inputs, outputs)
            self.run_steps(0, len(self._steps))
            for value in (*self.program.inputs, *self.program.outputs):
                self._arrays.pop(value.storage, None)  # the caller's memory is not kept alive
            return
        for own, given in zip(self._ins, inputs, strict=True):
            own[...] = given
        self.run_steps(0, len(self._steps))
        for own, given in zip(self._outs, outputs, strict=True):
            given[...] = own

    def bind(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        """Take the arrays that the next steps run on."""
        for value, given in zip(self.program.inputs, inputs, strict=True):
            self._arrays[value.storage] = given.reshape(-1)
        for value, given in zip(self.program.outputs, outputs, strict=True):
            self._arrays[value.storage] = given.reshape(-1)

    def run_steps(self, first: int, last: int) -> None:
        """Run the steps [first, last)."""
        if self._quiet:
            # What divides by zero gives infinity or NaN, as in the kernels.
            with np.errstate(all="ignore"):
                self._run(first, last)
        else:
            self._run(first, last)

    def _run(self, first: int, last: int) -> None:
        for step, call in self._steps[first:last]:
            (call or self._bind(step))()

    def _bind(self, step: Step) -> Call:
        inputs: list[Any] = [None if v is None else self.array(v) for v in step.inputs]
        if step.kind == "conv2d" and self.program.frozen:
            inputs[1] = self._packed(inputs[1], step)
        outputs = [self.array(v) for v in step.outputs]
        return BINDERS[step.kind](inputs, outputs, step.options)

    def _packed(self, weight: np.ndarray, step: Step) -> Any:
        """A frozen weight in the order of the kernels, once."""
        pack = getattr(loopnest, "pack_weight", None)
        value = step.inputs[1]
        assert value is not None
        if pack is None or value.constant is None:
            return weight
        key = (value.storage, value.shape, step.options["groups"])
        if key not in self._handles:
            self._handles[key] = pack(weight, groups=step.options["groups"])
        return self._handles[key]


class Pool:
    """Executors of one program, as many as there are threads that run it at once."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._idle: list[Executor] = []  # taking from and adding to a list is atomic

    def run(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
        try:
            executor = self._idle.pop()
        except IndexError:
            executor = Executor(self.program)
        executor.run(inputs, outputs)
        self._idle.append(executor)


# ---- one function a kind of step: (input arrays, output arrays, options) -> call ----


def _conv2d(inputs: list, outputs: list, options: dict) -> Call:
    return convolution.bound(*inputs, **options, out=outputs[0])


def _linear(inputs: list, outputs: list, options: dict) -> Call:
    (x, weight, bias), (y,) = inputs, outputs
    return partial(dense.linear, x, weight, bias, **options, out=y)


def _matmul(inputs: list, outputs: list, options: dict) -> Call:
    (a, b), (y,) = inputs, outputs

    def run() -> None:
        for i in range(len(y)):
            dense.linear(a[i], b[i], out=y[i])

    return run


def _max_pool2d(inputs: list, outputs: list, options: dict) -> Call:
    (x,), y = inputs, outputs[0]
    size, stride, padding, *rest = options.values()
    more = {k: options[k] for k in ("dilation", "ceil_mode")}
    if len(outputs) == 1:
        return lambda: pooling.max_pool2d(x, size, stride, padding, **more, out=y)
    places = outputs[1]

    def with_indices() -> None:
        _, found = pooling.max_pool2d(x, size, stride, padding, **more, return_indices=True, out=y)
        np.copyto(places, found)

    return with_indices


def _avg_pool2d(inputs: list, outputs: list, options: dict) -> Call:
    (x,), (y,) = inputs, outputs
    size, stride, padding, *rest = options.values()
    more = {k: options[k] for k in ("ceil_mode", "count_include_pad")}
    return lambda: pooling.avg_pool2d(x, size, stride, padding, **more, out=y)


def _global_avg_pool2d(inputs: list, outputs: list, options: dict) -> Call:
    (x,), (y,) = inputs, outputs
    return lambda: pooling.global_avg_pool2d(x, out=y)


def _global_max_pool2d(inputs: list, outputs: list, options: dict) -> Call:
    (x,), (y,) = inputs, outputs
    return lambda: pooling.global_max_pool2d(x, out=y)


def _unary(inputs: list, outputs: list, options: dict) -> Call:
    (x,), (y,) = inputs, outputs
    name = options["name"]
    if name in _GELU:
        return lambda: activation.gelu(x, approximate=_GELU[name], out=y)
    if name == "leaky_relu":
        return lambda: activation.leaky_relu(x, options["slope"], out=y)
    if name == "sqrt":
        return lambda: np.sqrt(x, out=y)
    function = getattr(activation, name)
    return partial(function, x, out=y)


def _softmax(inputs: list, outputs: list, options: dict) -> Call:
    (x,), (y,) = inputs, outputs
    return lambda: loss.softmax(x, out=y)


def _log_softmax(inputs: list, outputs: list, options: dict) -> Call:
    (x,), (y,) = inputs, outputs
    return lambda: loss.log_softmax(x, out=y)


def _binary(inputs: list, outputs: list, options: dict) -> Call:
    (a, b), (y,) = inputs, outputs
    function = _UFUNC[options["name"]]
    if options["activation"] is None:
        return lambda: function(a, b, out=y)
    activate = getattr(activation, options["activation"])
    flat = [v.reshape(-1) for v in (a, b, y)]
    blocks = [[v[i : i + _BLOCK] for v in flat] for i in range(0, y.size, _BLOCK)]

    def run() -> None:
        for p, q, r in blocks:
            function(p, q, out=r)
            activate(r, out=r)

    return run


def _affine(inputs: list, outputs: list, options: dict) -> Call:
    (x,), (y,) = inputs, outputs
    scale, shift = (y.dtype.type(options[k]) for k in ("scale", "shift"))

    def run() -> None:
        np.multiply(x, scale, out=y)
        if shift:
            np.add(y, shift, out=y)

    return run


def _batch_norm(inputs: list, outputs: list, options: dict) -> Call:
    scale, shift = outputs
    epsilon = options["epsilon"]

    def run() -> None:
        factor, shift[...] = batch_norm_factors(inputs, epsilon)
        scale[...] = factor.reshape(scale.shape)

    return run


def _fill(inputs: list, outputs: list, options: dict) -> Call:
    (y,) = outputs
    return lambda: y.fill(options["value"])


def strided(array: np.ndarray, shape: Any, strides: Any, offset: int) -> np.ndarray:
    """View of a contiguous array; NumPy itself checks that it stays inside."""
    item = array.itemsize
    return np.ndarray(
        shape, array.dtype, array.reshape(-1), offset * item, [s * item for s in strides]
    )


def _move(inputs: list, outputs: list, options: dict) -> Call:
    (x,), (y,) = inputs, outputs
    o = options
    if min(o["shape"], default=1) < 1:
        return lambda: None
    source = strided(x, o["shape"], o["x_strides"], o["x_offset"])
    target = strided(y, o["shape"], o["y_strides"], o["y_offset"])
    if o["how"] == "set":
        return lambda: np.copyto(target, source)
    # Where several elements go to the same place NumPy would keep the last: one by one, then.
    same = [i for i, stride in enumerate(o["y_strides"]) if stride == 0 and o["shape"][i] > 1]
    pairs = []
    for at in np.ndindex(*[o["shape"][i] for i in same]):
        index: list[Any] = [slice(None)] * len(o["shape"])
        for i, place in zip(same, at, strict=True):
            index[i] = place
        pairs.append((target[tuple(index)], source[tuple(index)]))

    def add() -> None:
        for p, q in pairs:
            np.add(p, q, out=p)

    return add


def _conv2d_backward(inputs: list, outputs: list, options: dict) -> Call:
    dy, x, weight = inputs
    return partial(convolution.conv2d_backward, dy, x, weight, **options, **_gradients(outputs))


def _linear_backward(inputs: list, outputs: list, options: dict) -> Call:
    dy, x, weight = inputs
    return partial(dense.linear_backward, dy, x, weight, **_gradients(outputs))


def _gradients(outputs: list) -> dict[str, Any]:
    """(dx, dweight, dbias), or without the first where nobody asks for it."""
    needs_dx = len(outputs) == 3
    return {"gradients": tuple(outputs if needs_dx else [None, *outputs]), "needs_dx": needs_dx}


def _matmul_backward(inputs: list, outputs: list, options: dict) -> Call:
    dy, a, b = inputs
    da, db = outputs

    def run() -> None:
        for i in range(len(dy)):
            dense.linear_backward(dy[i], a[i], b[i], gradients=(da[i], db[i], None))

    return run


def _max_pool2d_backward(inputs: list, outputs: list, options: dict) -> Call:
    (dy, x, places), (dx,) = inputs, outputs
    return lambda: pooling.max_pool2d_backward(dy, x, places, out=dx)


def _avg_pool2d_backward(inputs: list, outputs: list, options: dict) -> Call:
    (dy, x), (dx,) = inputs, outputs
    size, stride, padding, *rest = options.values()
    more = {k: options[k] for k in ("ceil_mode", "count_include_pad")}
    return lambda: pooling.avg_pool2d_backward(dy, x, size, stride, padding, **more, out=dx)


def _unary_backward(inputs: list, outputs: list, options: dict) -> Call:
    (dy, x), (dx,) = inputs, outputs
    name = options["name"]
    if name in _GELU:
        return lambda: activation.gelu_backward(dy, x, out=dx, approximate=_GELU[name])
    if name == "leaky_relu":
        slope = options["slope"]
        return lambda: activation.leaky_relu_backward(dy, x, out=dx, negative_slope=slope)
    function = getattr(activation, name + "_backward")
    return lambda: function(dy, x, out=dx)


def _softmax_backward(inputs: list, outputs: list, options: dict) -> Call:
    """y (dy - sum of dy y), or dy - exp(y) sum of dy; the sums are those of kernels/arrange.py."""
    (dy, y), (dx,) = inputs, outputs

    def run() -> None:
        if not y.size:
            return
        terms = dy if options["log"] else dy * y
        if terms.shape[1] > loss.RUN:
            total = np.stack([loss.total(row) for row in terms])[:, None]
        else:
            total = np.add.accumulate(terms, axis=1)[:, -1:]
        if options["log"]:
            np.subtract(dy, activation.exp(y) * total, out=dx)
        else:
            np.multiply(y, dy - total, out=dx)

    return run


BINDERS: dict[str, Callable[[list, list, dict], Call]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "global_avg_pool2d": _global_avg_pool2d,
    "global_max_pool2d": _global_max_pool2d,
    "unary": _unary,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "binary": _binary,
    "affine": _affine,
    "batch_norm": _batch_norm,
    "fill": _fill,
    "move": _move,
    "conv2d_backward": _conv2d_backward,
    "linear_backward": _linear_backward,
    "matmul_backward": _matmul_backward,
    "max_pool2d_backward": _max_pool2d_backward,
    "avg_pool2d_backward": _avg_pool2d_backward,
    "unary_backward": _unary_backward,
    "softmax_backward": _softmax_backward,
}


def output_arrays(op: str, program: Program, out: Any, inputs: Sequence[Any]) -> list[np.ndarray]:
    """Arrays for the outputs: new ones, or the caller's once they are proven fit."""
    given = [out] if len(program.outputs) == 1 else (out or [None] * len(program.outputs))
    if len(given) != len(program.outputs):
        raise ValueError(f"{op}: out has {len(given)} arrays; accepted: {len(program.outputs)}")
    return [
        checks.output(op, array, value.shape, program.dtype, inputs)
        for array, value in zip(given, program.outputs, strict=True)
    ]
