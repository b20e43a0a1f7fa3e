"""The steps of a program as the text of a Python function for Numba.

A line a step, each a call of a kernel through its address (kernels/linking.py), on arrays at
fixed places of a work space. Lowering has checked all shapes. Numbers and names in the text are
the generator's own; nothing of a file or a caller is in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

from loopnest.kernels import activation, arrange, loss, whole
from loopnest.kernels.jit import PART, jitable
from loopnest.kernels.linking import linked
from loopnest.network.program import MAX_DIMS, Program, Shape, Storage, Value
from loopnest.network.workspace import Workspace
from loopnest.ops.activation import WIDE
from loopnest.ops.packing import pack_weight
from loopnest.runtime.memory import array_at, bound, keep

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


def clear_of_weights(op: str, network: Any) -> Any:
    """Compiled function that refuses a contiguous array within the network's weights."""
    memory = network.weight_memory
    count, whole_number = len(memory.firsts), np.int64(0)
    firsts, ends = (keep(np.array(v or [0], np.int64)) for v in (memory.firsts, memory.ends))
    message = op + ": out overlaps the network's weights in memory"

    def check(y: Any) -> None:
        first = np.int64(y.ctypes.data)
        begins: Any = array_at(bound(firsts), (count,), whole_number)  # type: ignore[call-arg]
        stops: Any = array_at(bound(ends), (count,), whole_number)
        low, high = 0, count  # the first range that ends behind ``first``, by bisection
        while low < high:
            middle = (low + high) // 2
            if stops[middle] <= first:
                low = middle + 1
            else:
                high = middle
        if low < count and begins[low] < first + y.size * y.itemsize:
            raise ValueError(message)

    return jitable(check)


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
    more = g.flat(3) if len(g.steps[0].inputs) > 3 else "nothing"
    rectify = int(g.options["activation"] == "relu")
    operands = x, weight, _packed(w, g), bias, g.convolution, groups, more, str(rectify)
    w.call(whole.conv2d, *operands, g.y)
    if not rectify:
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


def _batch_norm(w: Writer, g: Group) -> None:
    factors = (w.flat(g.outputs(i)) for i in range(2))
    parameters = (g.flat(i) for i in range(4))
    w.call(arrange.batch_norm, *parameters, _real(g.options["epsilon"]), *factors)


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
    "batch_norm": _batch_norm,
    "fill": _fill,
    "move": _move,
}
