"""The gradient of a network as an ``@njit`` function: forward, loss and backward in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from loopnest.kernels import activation, arrange, convolution, dense, pooling, whole
from loopnest.kernels.jit import OPTIONS, PART, jitable
from loopnest.network.compile_steps import WRITERS, Group, Rows, Writer, average, clear_of_weights
from loopnest.network.gradient import Differentiated, differentiate
from loopnest.network.program import Program, Shape
from loopnest.network.workspace import Workspace, aligned
from loopnest.ops.njit.common import contiguous, separate
from loopnest.runtime import checks
from loopnest.runtime.memory import bound, keep


def _conv2d_backward(w: Writer, g: Group) -> None:
    dy, x, weight = (g.shaped(i) for i in range(3))
    options, groups, (dx, dweight, dbias) = g.convolution, g.number("groups"), _targets(w, g)
    if dx:
        w.call(whole.conv2d_backward_input, dy, weight, options, groups, dx)
    w.call(whole.conv2d_backward_weight, x, dy, options, groups, dweight)
    w.call(convolution.conv2d_backward_bias, dy, "0", f"{dbias}.size", dbias)


def _linear_backward(w: Writer, g: Group) -> None:
    dy, x = (w.rows_of(g.inputs(i)) for i in range(2))
    dx, dweight, dbias = _targets(w, g)
    if dx:
        w.call(whole.linear_backward_input, dy, g.shaped(2), w.rows_of(g.outputs()))
    w.call(whole.linear_backward_weight, x, dy, dweight)
    w.call(dense.linear_backward_bias, dy, dbias)


def _targets(w: Writer, g: Group) -> list[str]:
    """Where the gradients go: dx is left out of the step's outputs if nothing depends on it."""
    names = [w.shaped(g.outputs(i)) for i in range(len(g.steps[0].outputs))]
    return names if len(names) == 3 else ["", *names]


def _matmul_backward(w: Writer, g: Group) -> None:
    dy, a, b = (f"{g.shaped(i)}[i]" for i in range(3))
    da, db = (f"{w.shaped(g.outputs(i))}[i]" for i in range(2))
    w.write(f"for i in range({g.shaped(0)}.shape[0]):")
    w.call(whole.linear_backward_input, dy, b, da, before="    ")
    w.call(whole.linear_backward_weight, a, dy, db, before="    ")


def _max_pool2d_backward(w: Writer, g: Group) -> None:
    planes = f"{g.y}.shape[0] * {g.y}.shape[1]"
    w.call(pooling.max_pool2d_backward, g.shaped(0), g.shaped(2), "0", planes, g.y)


def _avg_pool2d_backward(w: Writer, g: Group) -> None:
    w.call(whole.avg_pool2d_backward, g.shaped(0), *average(g), g.y)


def _unary_backward(w: Writer, g: Group) -> None:
    name = g.options["name"]
    more = [repr(float(g.options["slope"]))] if name == "leaky_relu" else []
    w.call(getattr(activation, name + "_backward"), g.flat(0), g.flat(1), *more, g.flat_y)


def _softmax_backward(w: Writer, g: Group) -> None:
    classes = w.number([s.outputs[0].shape[1] for s in g.steps])
    log = str(g.options["log"])
    w.call(arrange.softmax_backward, g.flat(0), g.flat(1), classes, log, g.flat_y)


BACKWARD: dict[str, Callable[[Writer, Group], None]] = {
    "conv2d_backward": _conv2d_backward,
    "linear_backward": _linear_backward,
    "matmul_backward": _matmul_backward,
    "max_pool2d_backward": _max_pool2d_backward,
    "avg_pool2d_backward": _avg_pool2d_backward,
    "unary_backward": _unary_backward,
    "softmax_backward": _softmax_backward,
}


def compile_gradient(network: Any, input_shape: Any, batch: int) -> Any:
    """See `Network.njit_gradient`."""
    op = "njit_gradient"
    most = checks.integer(op, "batch", batch, 1)
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise ValueError(f"{op}: {network.name} has several inputs or outputs; accepted: one each")
    made = [
        differentiate(network, network.shapes(op, n, input_shape), dx=False)
        for n in (*Rows.SIZES, max(2, most))
    ]
    if not made[1].program.separable or len(made[0].y[0].shape) != 2:
        raise ValueError(
            f"{op}: the outputs have shape {made[0].y[0].shape}; accepted: one row of logits for "
            "each row of the input"
        )
    rows = Rows([m.program for m in made[:3]])
    writer = Writer(rows, _plan(made[0].program, made[3].program))
    writer.scope.update(np=np, real=network.dtype.type)
    _write(writer, made)
    work = aligned(max(1, writer.plan.size), network.dtype)
    function = writer.compiled(
        "gradient_rows",
        "n, start, work, input0, target, output1",
        before="loss = np.empty(1, real)",
        after="return loss[0]",
    )
    return _wrap(network, made[0], most, keep(work), function)


def _plan(first: Program, full: Program) -> Workspace:
    """Places of the arrays of the largest batch, on the storages of the first program."""
    plan = Workspace(full, keep=True)
    # The outputs of the network are work space here, and so is the gradient by them.
    pairs = {
        mine.storage: other.storage
        for a, b in zip(first.steps, full.steps, strict=True)
        for mine, other in zip(a.values, b.values, strict=True)
    }
    offsets = {mine: plan.offsets[other] for mine, other in pairs.items() if other in plan.offsets}
    for mine, other in pairs.items():
        inside = (mine.kind == "input" and mine.index == 1) or (
            mine.kind == "output" and not mine.index
        )
        if inside or mine.integer:
            words = other.size * (8 // first.dtype.itemsize if mine.integer else 1)
            offsets[mine] = plan.size
            plan.size += -(-words // plan.unit) * plan.unit
    plan.offsets = offsets
    return plan


def _write(writer: Writer, made: list[Differentiated]) -> None:
    """Forward steps, loss, backward steps."""
    first = made[0]
    for value in (first.y[0], first.dy[0]):
        value.storage.kind = "work"
    groups = list(zip(*[p.steps for p in writer.rows.programs], strict=True))
    for at, steps in enumerate(groups):
        if at == first.forward_steps:
            logits = writer.shaped([m.y[0] for m in made[:3]])
            slopes = writer.shaped([m.dy[0] for m in made[:3]])
            writer.call(whole.cross_entropy, logits, "target", "loss", slopes)
        kind = steps[0].kind
        (BACKWARD.get(kind) or WRITERS[kind])(writer, Group(writer, steps))


@jitable
def _as_int64(target: Any) -> Any:
    return np.ascontiguousarray(target).astype(np.int64)


def _wrap(network: Any, made: Differentiated, most: int, work: int, rows: Any) -> Any:
    op, shape = "gradient", made.x[0].shape
    size, dtype = made.vector.size, numba.from_dtype(network.dtype)
    wrong_x = f"{op}: x has the wrong shape; accepted: (up to {most}, *{shape[1:]})"
    wrong_target = f"{op}: target must have one class for each row of x"
    wrong_out = f"{op}: out must have {size} elements, one for each weight"
    inner: Shape = shape[1:]

    def call(x: Any, target: Any, out: Any) -> Any:
        raise NotImplementedError("for compiled code")

    def implement(x: Any, target: Any, out: Any) -> Any:
        if not (isinstance(x, types.Array) and x.dtype == dtype and x.ndim == len(shape)):
            raise TypingError(f"{op}: x is {x}; accepted: {len(shape)} dimensions, {dtype}")
        if not (isinstance(target, types.Array) and target.ndim == 1):
            raise TypingError(f"{op}: target is {target}; accepted: a vector of class indices")
        if not isinstance(target.dtype, types.Integer):
            raise TypingError(f"{op}: target has dtype {target.dtype}; accepted: integers")
        fits = isinstance(out, types.Array) and out.dtype == dtype and out.ndim == 1
        if not (fits and out.layout == "C" and out.mutable):
            raise TypingError(f"{op}: out is {out}; accepted: a writable vector of {dtype}")
        prepare, classes = contiguous(x, dtype), _as_int64
        apart, clear = separate(op, out), clear_of_weights(op, network)

        def implementation(x: Any, target: Any, out: Any) -> Any:
            n = x.shape[0]
            if n < 1 or n > most or x.shape[1:] != inner:
                raise ValueError(wrong_x)
            if target.size != n:
                raise ValueError(wrong_target)
            if out.size != size:
                raise ValueError(wrong_out)
            apart(out, x)
            apart(out, target)
            clear(out)
            a, t = prepare(x), classes(target)
            return rows(n, 0, bound(work), a, t, out)  # type: ignore[call-arg]

        return implementation

    overload(call, strict=False, jit_options=PART)(implement)

    def gradient(x: Any, target: Any, out: Any) -> Any:
        return call(x, target, out)

    gradient.__doc__ = f"Loss and gradient of {network.name!r}: see `Network.njit_gradient`."
    return numba.njit(**OPTIONS)(gradient)
