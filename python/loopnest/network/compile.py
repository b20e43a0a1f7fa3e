"""A network as an ``@njit`` function: the steps of its program (compile_steps.py), and around them
what users call.

Batches go through it in pieces of so many rows that the work space stays in the cache, so any
batch will do with the same work space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from loopnest.kernels.jit import OPTIONS, PART
from loopnest.network.compile_steps import Rows, Writer, clear_of_weights, sized
from loopnest.network.program import Program, Shape
from loopnest.network.workspace import Workspace, aligned
from loopnest.ops.njit.common import contiguous, is_none, output, overlaps, separate
from loopnest.runtime.memory import bound, keep, release, stack_block, take

STACK_BYTES = 16 << 10  # a work space of up to this is on the stack
CACHE_BYTES = 1 << 20  # half of a second-level cache
_TWO_OVERLAP = ": out has two arrays that overlap in memory"
MOST_ROWS = 64  # of one piece: more gain nothing


def _at_rows(network: Any, op: str, input_shape: Any, n: int) -> Program:
    return network.lower(network.shapes(op, n, input_shape))


def compile_forward(network: Any, input_shape: Any, batch: int | None) -> Any:
    """See `Network.njit`."""
    op = "njit"
    rows, any_batch = sized(network, op, input_shape, batch)
    item = network.dtype.itemsize
    piece, plan = 1, Workspace(rows.first)
    if any_batch:
        row_bytes = Workspace(_at_rows(network, op, input_shape, 1)).size * item
        room = STACK_BYTES if row_bytes <= STACK_BYTES else CACHE_BYTES
        piece = max(1, min(MOST_ROWS, room // max(1, row_bytes)))
        # The plan of `piece` rows, on the storages of the first program.
        full = _at_rows(network, op, input_shape, max(2, piece))
        wide = Workspace(full)
        plan.size = wide.size
        plan.offsets = {
            mine.storage: wide.offsets[other.storage]
            for a, b in zip(rows.first.steps, full.steps, strict=True)
            for mine, other in zip(a.values, b.values, strict=True)
            if mine.storage in plan.offsets
        }
    writer = Writer(rows, plan)
    writer.steps()
    given = [f"input{i}" for i in range(len(network.inputs))]
    made = [f"output{i}" for i in range(len(network.outputs))]
    run_rows = writer.compiled("rows", ", ".join(["n", "start", "work", *given, *made]))
    return _wrap(network, rows, any_batch, piece, max(1, plan.size) * item, run_rows)


def _wrap(
    network: Any, rows: Rows, any_batch: bool, piece: int, work_bytes: int, run_rows: Any
) -> Any:
    """The function that users call: checks, makes outputs, goes through the batch in pieces."""
    first = rows.first
    names = [spec.name for spec in network.inputs]
    args = [f"x{i}" for i in range(len(names))]
    made = [f"y{i}" for i in range(len(first.outputs))]
    shapes = [v.shape for v in first.inputs]
    scope: dict[str, Any] = {"rows": run_rows, "stack_block": stack_block, "bound": bound}
    scope.update(take=take, release=release, np=np, ValueError=ValueError)
    arrays = ", ".join([*args, *made])
    lines = [f"def run(n, work, {arrays}):"]
    if any_batch:
        lines += [
            f"    for start in range(0, n, {piece}):",
            f"        rows(min({piece}, n - start), start, work, {arrays})",
        ]
    else:
        lines.append(f"    rows(n, 0, work, {arrays})")
    _define(scope, "run", lines)
    lines = [f"def with_work(n, {arrays}):"]
    if work_bytes <= STACK_BYTES:
        lines.append(f"    run(n, stack_block({work_bytes}), {arrays})")
    else:
        # One work space is always there; who finds it taken by another thread makes one.
        block, flag = aligned(work_bytes, np.dtype(np.uint8)), np.zeros(1, np.int64)
        lines += [
            f"    if take(bound({keep(flag)})):",
            f"        run(n, bound({keep(block)}), {arrays})",
            f"        release(bound({flag.ctypes.data}))",
            "    else:",
            f"        spare = np.empty({work_bytes + 64}, np.uint8)",
            f"        run(n, (spare.ctypes.data + 63) // 64 * 64, {arrays})",
            "        spare[0] = 0  # alive until here",
        ]
    _define(scope, "with_work", lines)
    with_work = scope["with_work"]

    def implement(*given: Any) -> Any:
        return _typed(network, first, any_batch, shapes, given, with_work, args, made)

    # Numba wants the parameters by name.
    signature = ", ".join([*args, "out=None"])
    public: dict[str, Any] = {"implement": implement}
    plain = ", ".join([*args, "out"])
    exec(f"def call({signature}): return 0\n"
         f"def typed({signature}): return implement({plain})\n", public)  # fmt: skip
    overload(public["call"], strict=False, jit_options=PART)(public["typed"])
    exec(f"def forward({signature}): return call({plain})\n", public)
    forward = public["forward"]
    forward.__doc__ = f"The network {network.name!r}: see `Network.njit`."
    return numba.njit(**OPTIONS)(forward)


def _define(scope: dict[str, Any], name: str, lines: list[str]) -> None:
    exec(compile("\n".join(lines) + "\n", f"<loopnest {name}>", "exec"), scope)
    scope[name] = numba.njit(**PART)(scope[name])


def _typed(
    network: Any,
    program: Program,
    any_batch: bool,
    shapes: Sequence[Shape],
    given: Sequence[Any],
    with_work: Any,
    args: Sequence[str],
    made: Sequence[str],
) -> Any:
    """Implementation of ``forward`` for these argument types."""
    *arrays, out = given
    op, dtype = network.name, numba.from_dtype(network.dtype)
    single = False
    scope: dict[str, Any] = {"with_work": with_work, "np": np, "ValueError": ValueError}
    scope["overlaps"] = overlaps
    for i, (array, spec, shape) in enumerate(zip(arrays, network.inputs, shapes, strict=True)):
        if not isinstance(array, types.Array) or array.dtype != dtype:
            raise TypingError(f"{op}: {spec.name} is {array}; accepted: a {network.dtype} array")
        lacks = array.ndim == len(shape) - 1 and len(arrays) == 1
        if array.ndim != len(shape) and not (lacks and (any_batch or shape[0] == 1)):
            raise TypingError(
                f"{op}: {spec.name} has {array.ndim} dimensions; accepted: {len(shape)}"
            )
        single = array.ndim != len(shape)
        scope[f"prepare{i}"] = contiguous(array, dtype)
    start = 1 if any_batch or single else 0
    lines = [f"def implementation({', '.join(args)}, out=None):"]
    for i, (arg, shape) in enumerate(zip(args, shapes, strict=True)):
        at = 0 if single else start
        wanted = shape[start:]
        for j, size in enumerate(wanted):
            lines.append(f"    if {arg}.shape[{at + j}] != {size}:")
            lines.append(f"        raise ValueError({_wrong(op, network, i, shape, any_batch)!r})")
        lines.append(f"    a{i} = prepare{i}({arg})")
    lines.append("    n = " + ("1" if single or not any_batch else f"{args[0]}.shape[0]"))
    if any_batch:
        for arg in args[1:]:
            lines.append(f"    if {arg}.shape[0] != n:")
            lines.append(f"        raise ValueError({op + ': batches differ in size'!r})")
    outs = _outs(op, out, made)
    for i, (name, value) in enumerate(zip(made, program.outputs, strict=True)):
        rest = value.shape[1:] if single or any_batch else value.shape
        shape_text = ", ".join(map(str, rest)) + ("," if len(rest) == 1 else "")
        if not single and any_batch:
            shape_text = f"n, {shape_text}"
        scope[f"make{i}"] = output(op, outs[i], dtype, len(rest) + (not single and any_batch))
        scope[f"apart{i}"] = separate(op, outs[i])
        target = "out" if len(made) == 1 else ("out" if is_none(out) else f"out[{i}]")
        lines.append(f"    {name} = make{i}({target}, ({shape_text}))")
        lines += [f"    apart{i}({name}, {arg})" for arg in args]
        if not is_none(outs[i]):
            scope["clear"] = clear_of_weights(op, network)
            lines.append(f"    clear({name})")
            for other in made[:i]:
                lines.append(f"    if overlaps({name}, {other}):")
                lines.append(f"        raise ValueError({op + _TWO_OVERLAP!r})")
    values = ", ".join([*[f"a{i}" for i in range(len(args))], *made])
    lines.append(f"    with_work(n, {values})")
    lines.append("    return " + ", ".join(made))
    exec(compile("\n".join(lines) + "\n", "<loopnest forward>", "exec"), scope)
    return scope["implementation"]


def _wrong(op: str, network: Any, i: int, shape: Shape, any_batch: bool) -> str:
    wanted = ", ".join(map(str, ("any", *shape[1:]) if any_batch else shape))
    return f"{op}: {network.inputs[i].name} has the wrong shape; accepted: ({wanted})"


def _outs(op: str, out: Any, made: Sequence[str]) -> list[Any]:
    if len(made) == 1:
        return [out]
    if is_none(out):
        return [out] * len(made)
    if not isinstance(out, types.BaseTuple) or len(out) != len(made):
        raise TypingError(f"{op}: out is {out}; accepted: {len(made)} arrays in a tuple")
    return [*out]  # type: ignore[misc]
