"""A network as an ``@njit`` function.

From a program comes the text of one Python function: a line a step, each a call of a kernel
through its address (kernels/linking.py), on arrays at fixed places of a work space. Lowering has
checked all shapes. Numbers and names in the text are the generator's own; nothing of a file or a
caller is in it.
Batches go through it in pieces of so many rows that the work space stays in the cache, so any
batch will do with the same work space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from loopnest.activation import WIDE
from loopnest.bound import array_at, bound, keep, release, stack_block, take
from loopnest.kernels import activation, arrange, loss, whole
from loopnest.kernels.jit import OPTIONS, PART
from loopnest.kernels.linking import linked
from loopnest.overloads.common import contiguous, is_none, output, separate
from loopnest.packing import pack_weight
from loopnest.program import MAX_DIMS, Program, Shape, Storage, Value
from loopnest.workspace import Workspace, aligned

STACK_BYTES = 16 << 10  # a work space of up to this is on the stack
CACHE_BYTES = 1 << 20  # half of a second-level cache
MOST_ROWS = 64  # of one piece: more gain nothing

_HOW = {"set": 0, "add": 1}


class Rows:
    """A program for a number of rows ``n``: every size is a constant or grows with n.

    Made of the programs for 2, 3 and 4 rows (one row is special: it need not be broadcast),
    which must agree in all but such sizes. A program whose rows are not independent has one
    size of batch, and constants only.
    """

    SIZES = (2, 3, 4)

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = programs
        self.first = programs[0]
        if len({len(p.steps) for p in programs}) != 1:
            raise ValueError("the steps depend on the size of the batch")

    def expression(self, numbers: Sequence[int], n: str = "n") -> tuple[int, int]:
        """(constant, slope) of a size that is known for each program."""
        if len(self.programs) == 1:
            return numbers[0], 0
        two, three, four = numbers
        slope = three - two
        constant = two - 2 * slope
        if constant + 4 * slope != four:
            raise ValueError("a size does not grow evenly with the batch")
        return constant, slope


def sized(network: Any, op: str, input_shape: Any, batch: int | None) -> tuple[Rows, bool]:
    """The network's program for any batch, or (False) for one size of it."""
    fixed = any(i.shape and i.shape[0] is not None for i in network.inputs)
    if not fixed and batch is None:
        programs = [network.lower(network.shapes(op, n, input_shape)) for n in Rows.SIZES]
        if all(p.separable for p in programs):
            return Rows(programs), True
        raise ValueError(
            f"{op}: {network.name} mixes the rows of a batch; accepted: with batch, the one size "
            "to compile for"
        )
    return Rows([network.lower(network.shapes(op, batch, input_shape))]), False


class Writer:
    """Writes the function ``rows(n, start, work, <inputs>, <outputs>)``."""

    def __init__(self, rows: Rows, plan: Workspace, prefix: str = "") -> None:
        self.rows, self.plan = rows, plan
        self.dtype = rows.first.dtype
        self.lines: list[str] = []
        self.options: list[int] = []
        self._arrays: dict[tuple, str] = {}
        self._bound: dict[Storage, int] = {}
        self.scope: dict[str, Any] = {
            "array_at": array_at,
            "bound": bound,
            "zero": self.dtype.type(0),
            "whole": np.int64(0),
        }
        self._kernels: dict[Any, str] = {}

    def number(self, numbers: Sequence[int]) -> str:
        """Expression for an option of a kernel: read from a table, for one compilation of the
        kernel must serve all steps, and constants would each ask for their own."""
        constant, slope = self.rows.expression(numbers)
        text = self._option(constant)
        return f"{text} + n * {self._option(slope)}" if slope else text

    def _option(self, value: int) -> str:
        if value not in self.options:
            self.options.append(value)
        return f"options[{self.options.index(value)}]"

    def tuple_of(self, numbers: Sequence[Sequence[int]]) -> str:
        """Expression for a tuple of options, given for each program."""
        return "(" + ", ".join(self.number(v) for v in zip(*numbers, strict=True)) + ",)"

    def size(self, numbers: Sequence[int]) -> str:
        """Expression for the size of an array."""
        constant, slope = self.rows.expression(numbers)
        if not slope:
            return str(constant)
        grown = "n" if slope == 1 else f"n * {slope}"
        return f"{constant} + {grown}" if constant else grown

    def array(self, values: Sequence[Value], shapes: Sequence[Shape]) -> str:
        """Name of the array of a value (given for each program), with these shapes."""
        storage = values[0].storage
        sizes = tuple(self.size(v) for v in zip(*shapes, strict=True))
        key = (storage, values[0].offset, sizes)
        if key not in self._arrays:
            name = self._arrays[key] = f"v{len(self._arrays)}"
            text = ", ".join(sizes) + ("," if len(sizes) == 1 else "")
            zero = "whole" if storage.integer else "zero"
            self.lines.append(f"{name} = array_at({self.address(values)}, ({text}), {zero})")
        return self._arrays[key]

    def address(self, values: Sequence[Value]) -> str:
        storage, item = values[0].storage, self.dtype.itemsize
        if storage.kind == "work":
            return f"work + {self.plan.offsets[storage] * item}"
        if storage.kind == "constant":
            if storage not in self._bound:
                assert storage.data is not None
                self._bound[storage] = keep(storage.data)
            return f"bound({self._bound[storage] + values[0].offset * item})"
        _, slope = self.rows.expression([v.storage.size for v in values])
        return f"{storage.kind}{storage.index}.ctypes.data + start * {slope * item}"

    def flat(self, values: Sequence[Value]) -> str:
        return self.array(values, [(v.size,) for v in values])

    def shaped(self, values: Sequence[Value]) -> str:
        return self.array(values, [v.shape for v in values])

    def rows_of(self, values: Sequence[Value]) -> str:
        """The array as rows of its last axis."""
        return self.array(values, [(math.prod(v.shape[:-1]), v.shape[-1]) for v in values])

    def call(self, kernel: Any, *arguments: str, before: str = "") -> None:
        """Write a call of a kernel."""
        if kernel not in self._kernels:
            name = self._kernels[kernel] = f"kernel{len(self._kernels)}"
            self.scope[name] = linked(kernel)
        self.lines.append(f"{before}{self._kernels[kernel]}({', '.join(arguments)})")

    def write(self, line: str) -> None:
        self.lines.append(line)

    def steps(self) -> None:
        for steps in zip(*[p.steps for p in self.rows.programs], strict=True):
            if len({s.kind for s in steps}) != 1:
                raise ValueError("the steps depend on the size of the batch")
            WRITERS[steps[0].kind](self, Group(self, steps))

    def compiled(self, name: str, parameters: str, before: str = "", after: str = "") -> Any:
        """The function, compiled when first called."""
        table = np.array(self.options or [0], np.int64)
        head = f"options = array_at(bound({keep(table)}), ({table.size},), whole)"
        nothing = f"nothing = array_at(bound({keep(np.empty(1))}), (0,), zero)"
        body = [head, nothing, *before.splitlines(), *self.lines, *after.splitlines()]
        source = f"def {name}({parameters}):\n    " + "\n    ".join(body) + "\n"
        exec(compile(source, f"<loopnest {name}>", "exec"), self.scope)
        return numba.njit(**PART)(self.scope[name])


class Group:
    """One step, as it is in each of the programs."""

    def __init__(self, writer: Writer, steps: Sequence[Any]) -> None:
        self.writer, self.steps, self.options = writer, steps, steps[0].options

    def has(self, i: int) -> bool:
        return self.steps[0].inputs[i] is not None

    def inputs(self, i: int) -> list[Value]:
        return [s.inputs[i] for s in self.steps]

    def outputs(self, i: int = 0) -> list[Value]:
        return [s.outputs[i] for s in self.steps]

    def shaped(self, i: int) -> str:
        return self.writer.shaped(self.inputs(i)) if self.has(i) else "nothing"

    def flat(self, i: int) -> str:
        return self.writer.flat(self.inputs(i))

    @property
    def y(self) -> str:
        return self.writer.shaped(self.outputs())

    @property
    def flat_y(self) -> str:
        return self.writer.flat(self.outputs())

    def numbers(self, *names: str) -> str:
        """Tuple of the pairs of these names, one after the other."""
        return self.writer.tuple_of([sum((s.options[n] for n in names), ()) for s in self.steps])

    @property
    def convolution(self) -> str:
        """Options of a convolution's kernels: stride, padding before, dilation."""
        rows = []
        for o in (s.options for s in self.steps):
            (top, _), (left, _) = o["padding"]
            rows.append((*o["stride"], top, left, *o["dilation"]))
        return self.writer.tuple_of(rows)

    def number(self, name: str) -> str:
        return self.writer.number([s.options[name] for s in self.steps])


def _conv2d(w: Writer, g: Group) -> None:
    x, weight, bias, groups = g.shaped(0), g.shaped(1), g.shaped(2), g.number("groups")
    w.call(whole.conv2d, x, weight, _packed(w, g), bias, g.convolution, groups, g.y)
    _activate(w, g)


def _packed(w: Writer, g: Group) -> str:
    """A weight that never changes in the order of the kernels."""
    weight = g.inputs(1)[0]
    if not w.rows.first.frozen or weight.constant is None:
        return "nothing"
    packed = pack_weight(weight.constant, groups=g.options["groups"]).numba_packed
    return f"array_at(bound({keep(packed)}), ({packed.size},), zero)"


def _linear(w: Writer, g: Group) -> None:
    x, y = w.rows_of(g.inputs(0)), w.rows_of(g.outputs())
    w.call(whole.linear, x, g.shaped(1), "nothing", g.shaped(2), y)
    _activate(w, g)


def _activate(w: Writer, g: Group) -> None:
    name = g.options["activation"]
    if name is not None:
        more = ["0.01"] if name == "leaky_relu" else []  # the slope of the fused one
        w.call(getattr(activation, WIDE.get(name, name)), g.flat_y, *more, g.flat_y)


def _matmul(w: Writer, g: Group) -> None:
    a, b, y = g.shaped(0), g.shaped(1), g.y
    w.write(f"for i in range({y}.shape[0]):")
    w.call(whole.linear, f"{a}[i]", f"{b}[i]", "nothing", "nothing", f"{y}[i]", before="    ")


def _max_pool2d(w: Writer, g: Group) -> None:
    x, options = g.shaped(0), g.numbers("kernel", "stride", "padding", "dilation")
    if len(g.steps[0].outputs) == 1:
        w.call(whole.max_pool2d, x, options, g.y)
    else:
        w.call(whole.max_pool2d_indices, x, options, w.shaped(g.outputs(1)), g.y)


def _avg_pool2d(w: Writer, g: Group) -> None:
    w.call(whole.avg_pool2d, g.shaped(0), *average(g), g.y)


def average(g: Group) -> tuple[str, str, str]:
    """Options of the kernels of average pooling."""
    include = str(int(g.options["count_include_pad"]))
    return g.numbers("kernel", "stride", "padding"), include, "0"


def _global_pool(kernel: Any) -> Callable[[Writer, Group], None]:
    return lambda w, g: w.call(kernel, g.shaped(0), g.y)


def _softmax(kernel: Any) -> Callable[[Writer, Group], None]:
    return lambda w, g: w.call(kernel, g.shaped(0), "0", f"{g.y}.shape[0]", g.y)


def _unary(w: Writer, g: Group) -> None:
    name, x, y = g.options["name"], g.flat(0), g.flat_y
    if name == "leaky_relu":
        w.call(activation.leaky_relu, x, repr(float(g.options["slope"])), y)
    else:
        w.call(arrange.square_root if name == "sqrt" else getattr(activation, name), x, y)


def _binary(w: Writer, g: Group) -> None:
    name = g.options["name"] + ("_relu" if g.options["activation"] else "")
    w.call(getattr(arrange, name), g.flat(0), g.flat(1), g.flat_y)


def _affine(w: Writer, g: Group) -> None:
    scale, shift = g.options["scale"], g.options["shift"]
    w.call(arrange.affine, g.flat(0), _real(scale), _real(shift), g.flat_y)


def _fill(w: Writer, g: Group) -> None:
    w.call(arrange.fill, _real(g.options["value"]), g.flat_y)


def _real(value: float) -> str:
    return f"float({str(float(value))!r})" if not np.isfinite(value) else repr(float(value))


def _move(w: Writer, g: Group) -> None:
    def axes(name: str, fill: int) -> str:
        return w.tuple_of(
            [(fill,) * (MAX_DIMS - len(s.options[name])) + s.options[name] for s in g.steps]
        )

    source = g.flat(0), g.number("x_offset"), axes("x_strides", 0)
    target = g.flat_y, g.number("y_offset"), axes("y_strides", 0)
    w.call(arrange.move, *source, *target, axes("shape", 1), str(_HOW[g.options["how"]]))


WRITERS: dict[str, Callable[[Writer, Group], None]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "global_avg_pool2d": _global_pool(whole.global_avg_pool2d),
    "global_max_pool2d": _global_pool(whole.global_max_pool2d),
    "softmax": _softmax(loss.softmax),
    "log_softmax": _softmax(loss.log_softmax),
    "unary": _unary,
    "binary": _binary,
    "affine": _affine,
    "fill": _fill,
    "move": _move,
}


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
        lines += [f"    apart{i}({name}, a{j})" for j in range(len(args))]
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
