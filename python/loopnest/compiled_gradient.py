"""The gradient of a network as an ``@njit`` function: forward, loss and backward in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

import loopnest
from loopnest import checks
from loopnest.bound import bound, keep
from loopnest.compiled import GELU, WRITERS, Group, Rows, Writer
from loopnest.gradient import Differentiated, differentiate
from loopnest.kernels.jit import OPTIONS
from loopnest.overloads.common import contiguous
from loopnest.program import Program, Shape
from loopnest.workspace import Workspace, aligned


def _conv2d_backward(w: Writer, g: Group) -> None:
    rows = w.tuple_of([s.options["padding"][0] for s in g.steps])
    columns = w.tuple_of([s.options["padding"][1] for s in g.steps])
    w.write(
        f"conv2d_backward({g.shaped(0)}, {g.shaped(1)}, {g.shaped(2)}, "
        f"stride={g.numbers('stride')}, padding=({rows}, {columns}), "
        f"dilation={g.numbers('dilation')}, groups={g.number('groups')}, {_targets(w, g)})"
    )


def _linear_backward(w: Writer, g: Group) -> None:
    w.write(f"linear_backward({g.shaped(0)}, {g.shaped(1)}, {g.shaped(2)}, {_targets(w, g)})")


def _targets(w: Writer, g: Group) -> str:
    """Where the gradients go: dx is left out of the step's outputs if nothing depends on it."""
    names = [w.shaped(g.outputs(i)) for i in range(len(g.steps[0].outputs))]
    needs_dx = len(names) == 3
    given = names if needs_dx else ["None", *names]
    return f"gradients=({', '.join(given)}), needs_dx={needs_dx}"


def _matmul_backward(w: Writer, g: Group) -> None:
    dy, a, b = (g.shaped(i) for i in range(3))
    da, db = (w.shaped(g.outputs(i)) for i in range(2))
    w.write(f"for i in range({dy}.shape[0]):")
    w.write(f"    dx, dweight, dbias = linear_backward({dy}[i], {a}[i], {b}[i])")
    w.write(f"    {da}[i] = dx")
    w.write(f"    {db}[i] = dweight")


def _max_pool2d_backward(w: Writer, g: Group) -> None:
    w.write(f"max_pool2d_backward({g.shaped(0)}, {g.shaped(1)}, {g.shaped(2)}, out={g.y})")


def _avg_pool2d_backward(w: Writer, g: Group) -> None:
    w.write(
        f"avg_pool2d_backward({g.shaped(0)}, {g.shaped(1)}, {g.numbers('kernel')}, "
        f"{g.numbers('stride')}, {g.numbers('padding')}, ceil_mode={g.options['ceil_mode']}, "
        f"count_include_pad={g.options['count_include_pad']}, out={g.y})"
    )


def _unary_backward(w: Writer, g: Group) -> None:
    name, more = g.options["name"], ""
    if name in GELU:
        name, more = "gelu", f", approximate={GELU[name]!r}"
    elif name == "leaky_relu":
        more = f", negative_slope={g.options['slope']!r}"
    w.write(f"{name}_backward({g.flat(0)}, {g.flat(1)}, out={g.flat_y}{more})")


def _softmax_backward(w: Writer, g: Group) -> None:
    classes = w.number([s.outputs[0].shape[1] for s in g.steps])
    w.write(
        f"arrange_softmax_backward({g.flat(0)}, {g.flat(1)}, {classes}, "
        f"{g.options['log']}, {g.flat_y})"
    )


BACKWARD: dict[str, Callable[[Writer, Group], None]] = {
    "conv2d_backward": _conv2d_backward,
    "linear_backward": _linear_backward,
    "matmul_backward": _matmul_backward,
    "max_pool2d_backward": _max_pool2d_backward,
    "avg_pool2d_backward": _avg_pool2d_backward,
    "unary_backward": _unary_backward,
    "softmax_backward": _softmax_backward,
}
_PUBLIC = (
    *("conv2d_backward", "linear_backward", "max_pool2d_backward", "avg_pool2d_backward"),
    *("exp_backward", "gelu_backward", "leaky_relu_backward", "relu_backward"),
    *("sigmoid_backward", "silu_backward", "tanh_backward"),
    *("cross_entropy", "cross_entropy_backward"),
)


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
    writer.scope.update({name: getattr(loopnest, name) for name in _PUBLIC})
    _write(writer, made)
    work = aligned(max(1, writer.plan.size), network.dtype)
    function = writer.compiled(
        "gradient_rows",
        "n, start, work, input0, target, output1",
        after="return loss",
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
            writer.write(f"loss = cross_entropy({logits}, target)")
            writer.write(f"{slopes}[:] = cross_entropy_backward({logits}, target)")
        kind = steps[0].kind
        (BACKWARD.get(kind) or WRITERS[kind])(writer, Group(writer, steps))


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
        prepare = contiguous(x, dtype)

        def implementation(x: Any, target: Any, out: Any) -> Any:
            n = x.shape[0]
            if n < 1 or n > most or x.shape[1:] != inner:
                raise ValueError(wrong_x)
            if target.size != n:
                raise ValueError(wrong_target)
            if out.size != size:
                raise ValueError(wrong_out)
            a = prepare(x)
            return rows(n, 0, bound(work), a, target, out)  # type: ignore[call-arg]

        return implementation

    overload(call, strict=False, jit_options=OPTIONS)(implement)

    def gradient(x: Any, target: Any, out: Any) -> Any:
        return call(x, target, out)

    gradient.__doc__ = f"Loss and gradient of {network.name!r}: see `Network.njit_gradient`."
    return numba.njit(**OPTIONS)(gradient)
