"""A network as one C11 file: its weights, the kernels it needs, and ``<name>_forward``.

The scalar functions are copied from this library's own C headers and the loops keep the
kernels' order of operations, so the bits are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from loopnest.network.program import MAX_DIMS, Program, Step, Storage, Value
from loopnest.network.workspace import Workspace
from loopnest.runtime import files
from loopnest.runtime.keywords import WORDS_OF_C
from loopnest.runtime.paths import kernel_source

_HOW = {"set": 0, "add": 1}
_OPERATOR = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
# What each kernel of network.h is made of.
_PIECES = {
    "max_pool2d": ("pool2d", "max_pool2d"),
    "avg_pool2d": ("pool2d", "avg_pool2d"),
    "softmax": ("row_max", "softmax"),
    "log_softmax": ("row_max", "log_softmax"),
    "matmul": ("linear",),
    "unary": (),
    "binary": (),
}

_HEAD = """\
/* {name}.c: the network {title}, written by loopnest {version}.
 *
 *   void {name}_forward({signature});
 *
 * {shapes}
 * No memory is allocated and no library is needed but the C library's mathematics (-lm).
 * {name}_forward works in a static buffer, so one thread at a time may call it;
 * {name}_forward_in takes a buffer of {name}_WORK numbers and may run in many at once.
 * Outputs must not overlap inputs. With FMA instructions (x86-64-v3, aarch64) it is fast;
 * without them it gives the same bits slowly.
 */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* multiply-adds are fused where written, only there */
#endif
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-const-variable"
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#endif

"""
_END_OF_HEADERS = """
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

"""


def write_c(
    network: Any, path: Path, name: str | None, batch: int | None, input_shape: Any
) -> Path:
    """See `Network.to_c`."""
    op = "to_c"
    if name is None:
        name = re.sub(r"\W", "_", path.stem, flags=re.ASCII) or "network"
        name = "n" + name if name[0].isdigit() else name
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise ValueError(f"{op}: name is {name!r}; accepted: a C identifier")
    if name in WORDS_OF_C:
        raise ValueError(f"{op}: name is {name!r}, a word of C; accepted: a C identifier")
    shapes = network.shapes(op, batch, input_shape)
    if batch is not None and any(s[0] != batch for s in shapes):
        raise ValueError(f"{op}: batch is {batch}; accepted: {shapes[0][0]}, the network's own")
    program = network.lower(shapes, fixed=True)
    with files.replacing(path, "w", encoding="ascii") as file:
        _Writer(network, program, name, file).write()
    return path


class _Writer:
    def __init__(self, network: Any, program: Program, name: str, file: IO[str]) -> None:
        self.network, self.program, self.name, self.file = network, program, name, file
        self.plan = Workspace(program)
        self.real = "float" if program.dtype == np.float32 else "double"
        self.constants = {s: f"{name}_w{i}" for i, s in enumerate(program.constants())}

    def write(self) -> None:
        from loopnest import __version__

        put, name, program = self.file.write, self.name, self.program
        inputs = [f"const {self.real} *{v}" for v in self._names("x", program.inputs)]
        outputs = [f"{self.real} *{v}" for v in self._names("y", program.outputs)]
        signature = ", ".join([*inputs, *outputs])
        shapes = ", ".join(
            f"{n} {v.shape}".replace(",)", ")")
            for n, v in zip(
                self._names("x", program.inputs) + self._names("y", program.outputs),
                program.inputs + program.outputs,
                strict=True,
            )
        )
        title = re.sub(r"[^\w .-]", "_", self.network.name, flags=re.ASCII)
        put(_HEAD.format(name=name, title=title, version=__version__, signature=signature,
                         shapes=shapes))  # fmt: skip
        for line in headers(self.real):
            put(line)
        put(_END_OF_HEADERS)
        pieces = kernel_pieces()
        for piece in dict.fromkeys(
            p for s in program.steps for p in _PIECES.get(s.kind, (s.kind,))
        ):
            put(pieces[piece] + "\n")
        for storage, constant in self.constants.items():
            self._numbers(storage, constant)
        size = max(1, self.plan.size)
        put(f"enum {{ {name}_WORK = {size} }};\n\n")
        put(f"void {name}_forward_in({signature}, {self.real} *work);\n")
        put(f"void {name}_forward({signature});\n\n")
        put(f"void {name}_forward_in({signature}, {self.real} *work)\n{{\n    (void)work;\n")
        for step in program.steps:
            put("    " + STEPS[step.kind](self, step) + "\n")
        names = self._names("x", program.inputs) + self._names("y", program.outputs)
        put(f"}}\n\nvoid {name}_forward({signature})\n{{\n")
        put(f"    static {self.real} work[{name}_WORK];\n")
        put(f"    {name}_forward_in({', '.join(names)}, work);\n}}\n")

    @staticmethod
    def _names(letter: str, values: Sequence[Value]) -> list[str]:
        return [letter] if len(values) == 1 else [f"{letter}{i}" for i in range(len(values))]

    def _numbers(self, storage: Storage, name: str) -> None:
        assert storage.data is not None
        data = storage.data.reshape(-1)
        digits, suffix = (".8e", "f") if self.real == "float" else (".16e", "")
        self.file.write(f"static const {self.real} {name}[{max(1, data.size)}] = {{\n")
        for start in range(0, data.size, 4096):  # as text, piece by piece
            piece = data[start : start + 4096]
            words = [
                f"{v:{digits}}{suffix}" if np.isfinite(v) else _special(v) for v in piece.tolist()
            ]
            lines = (", ".join(words[i : i + 8]) for i in range(0, len(words), 8))
            self.file.write("".join(f"    {line},\n" for line in lines))
        self.file.write(("" if data.size else "    0\n") + "};\n\n")

    # ---- expressions ----

    def at(self, value: Value | None, more: int = 0) -> str:
        """Address of a value."""
        if value is None:
            return "NULL"
        storage, offset = value.storage, value.offset + more
        if storage.kind == "constant":
            base = self.constants[storage]
        elif storage.kind == "work":
            base, offset = "work", self.plan.offsets[storage] + offset
        else:
            values = self.program.inputs if storage.kind == "input" else self.program.outputs
            base = self._names("x" if storage.kind == "input" else "y", values)[storage.index]
        return f"{base} + {offset}" if offset else base

    def number(self, value: float) -> str:
        value = float(self.program.dtype.type(value))
        if not np.isfinite(value):
            return _special(value)
        return f"{value:.8e}f" if self.real == "float" else f"{value:.16e}"

    def apply(self, name: str | None, target: Value, source: Value | None = None) -> str:
        """Loop that applies an activation."""
        if name is None:
            return ""
        y, x = self.at(target), self.at(source or target)
        call = f"F({name})(x_[i])"
        return (
            f"{{ const real *x_ = {x}; real *y_ = {y}; "
            f"for (int64_t i = 0; i < {target.size}; i++) y_[i] = {call}; }}"
        )


def _special(value: float) -> str:
    if np.isnan(value):
        return "(real)NAN"
    return "(real)INFINITY" if value > 0 else "(real)-INFINITY"


def _fields(**values: Any) -> str:
    return ", ".join(f".{name} = {value}" for name, value in values.items())


def _slope(w: _Writer, name: str, target: Value, source: Value, slope: float) -> str:
    if name == "leaky_relu":
        return w.apply(name, target, source).replace("(x_[i])", f"(x_[i], {w.number(slope)})")
    if name == "sqrt":
        return w.apply(name, target, source).replace("F(sqrt)", "SQRT")
    return w.apply(name, target, source)


def _conv2d(w: _Writer, step: Step) -> str:
    (x, weight, bias), (y,), o = step.inputs, step.outputs, step.options
    assert x is not None and weight is not None
    shape = _fields(
        **dict(zip("nchw", x.shape, strict=True)),
        **dict(zip("krs", (weight.shape[0], *weight.shape[2:]), strict=True)),
        oh=y.shape[2],
        ow=y.shape[3],
        stride_h=o["stride"][0],
        stride_w=o["stride"][1],
        top=o["padding"][0][0],
        left=o["padding"][1][0],
        dilation_h=o["dilation"][0],
        dilation_w=o["dilation"][1],
        groups=o["groups"],
    )
    call = f"conv2d({w.at(x)}, {w.at(weight)}, {w.at(bias)}, (conv2d_shape){{{shape}}}, {w.at(y)});"
    return call + _fused(w, step)


def _fused(w: _Writer, step: Step) -> str:
    name, y = step.options["activation"], step.outputs[0]
    return "" if name is None else "\n    " + _slope(w, name, y, y, 0.01)


def _linear(w: _Writer, step: Step) -> str:
    (x, weight, bias), (y,) = step.inputs, step.outputs
    assert x is not None and weight is not None
    sizes = f"{x.shape[0]}, {weight.shape[0]}, {weight.shape[1]}"
    return f"linear({w.at(x)}, {w.at(weight)}, {w.at(bias)}, {sizes}, {w.at(y)});" + _fused(w, step)


def _matmul(w: _Writer, step: Step) -> str:
    a, b = step.inputs
    (y,) = step.outputs
    assert a is not None and b is not None
    m, k, n = a.shape[1], a.shape[2], b.shape[2]
    return (
        f"for (int64_t i = 0; i < {a.shape[0]}; i++) linear({w.at(a)} + i * {m * k}, "
        f"{w.at(b)} + i * {k * n}, NULL, {m}, {k}, {n}, {w.at(y)} + i * {m * n});"
    )


def _pool2d(w: _Writer, step: Step) -> str:
    (x,), (y,), o = step.inputs, step.outputs, step.options
    assert x is not None
    dilation = o.get("dilation", (1, 1))
    shape = _fields(
        planes=x.shape[0] * x.shape[1],
        h=x.shape[2],
        w=x.shape[3],
        oh=y.shape[2],
        ow=y.shape[3],
        kernel_h=o["kernel"][0],
        kernel_w=o["kernel"][1],
        stride_h=o["stride"][0],
        stride_w=o["stride"][1],
        pad_h=o["padding"][0],
        pad_w=o["padding"][1],
        dilation_h=dilation[0],
        dilation_w=dilation[1],
        include_pad=int(o.get("count_include_pad", 0)),
    )
    return f"{step.kind}({w.at(x)}, (pool2d_shape){{{shape}}}, {w.at(y)});"


def _global_pool2d(w: _Writer, step: Step) -> str:
    (x,), (y,) = step.inputs, step.outputs
    assert x is not None
    planes, size = x.shape[0] * x.shape[1], x.shape[2] * x.shape[3]
    return f"{step.kind}({w.at(x)}, {planes}, {size}, {w.at(y)});"


def _softmax(w: _Writer, step: Step) -> str:
    (x,), (y,) = step.inputs, step.outputs
    return f"{step.kind}({w.at(x)}, {y.shape[0]}, {y.shape[1]}, {w.at(y)});" if y.size else ";"


def _unary(w: _Writer, step: Step) -> str:
    (x,), (y,) = step.inputs, step.outputs
    assert x is not None
    return _slope(w, step.options["name"], y, x, step.options["slope"])


def _binary(w: _Writer, step: Step) -> str:
    (a, b), (y,) = step.inputs, step.outputs
    value = f"a_[i] {_OPERATOR[step.options['name']]} b_[i]"
    if step.options["activation"]:
        value = f"F({step.options['activation']})({value})"
    return (
        f"{{ const real *a_ = {w.at(a)}, *b_ = {w.at(b)}; real *y_ = {w.at(y)}; "
        f"for (int64_t i = 0; i < {y.size}; i++) y_[i] = {value}; }}"
    )


def _affine(w: _Writer, step: Step) -> str:
    (x,), (y,), o = step.inputs, step.outputs, step.options
    return (
        f"affine({w.at(x)}, {y.size}, {w.number(o['scale'])}, {w.number(o['shift'])}, {w.at(y)});"
    )


def _fill(w: _Writer, step: Step) -> str:
    (y,) = step.outputs
    return f"fill({w.number(step.options['value'])}, {y.size}, {w.at(y)});"


def _move(w: _Writer, step: Step) -> str:
    (x,), (y,), o = step.inputs, step.outputs, step.options

    def axes(name: str, fill: int) -> str:
        values = (fill,) * (MAX_DIMS - len(o[name])) + o[name]
        return "(const int64_t[5]){" + ", ".join(map(str, values)) + "}"

    return (
        f"move({w.at(x, o['x_offset'])}, {axes('x_strides', 0)}, {w.at(y, o['y_offset'])}, "
        f"{axes('y_strides', 0)}, {axes('shape', 1)}, {_HOW[o['how']]});"
    )


STEPS: dict[str, Callable[[_Writer, Step], str]] = {
    "conv2d": _conv2d,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool2d": _pool2d,
    "avg_pool2d": _pool2d,
    "global_avg_pool2d": _global_pool2d,
    "global_max_pool2d": _global_pool2d,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "unary": _unary,
    "binary": _binary,
    "affine": _affine,
    "fill": _fill,
    "move": _move,
}


# ---- the library's own C text ----


def headers(real: str) -> Iterator[str]:
    """The scalar functions, for one type: the text of the headers that hold them."""
    rows = kernel_source("rows.h")
    # The macros of this type stand in rows.h between its #define and the list of rows.
    section = re.search(rf"#define real {real}\n.*?(?=#include \"row_list\.h\")", rows, re.DOTALL)
    assert section, "rows.h has lost its sections"
    seen: set[str] = set()
    yield from _inlined("simd.h", seen)
    yield from _inlined("scalar.h", seen)
    yield section.group(0)
    yield "#define LN_COLUMNS 32\n"  # of sums.h: 13 KB of stack, for small machines
    yield from _inlined("sums.h", seen)
    yield from _inlined("scalar_functions.h", seen)


def _inlined(name: str, seen: set[str]) -> Iterator[str]:
    """Text of a header, with its own #include "..." in place, each once."""
    if name in seen:
        return
    seen.add(name)
    for line in kernel_source(name).splitlines(keepends=True):
        found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if found:
            yield from _inlined(found.group(1), seen)
        else:
            yield line


def kernel_pieces() -> dict[str, str]:
    """The pieces of network.h by name."""
    parts = re.split(r"/\* @(\w+)(?::([^*]*))? ?\*/\n", kernel_source("network.h"))
    found = {}
    for name, comment, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        found[name] = (f"/*{comment.rstrip()} */\n" if comment else "") + text.rstrip() + "\n"
    return found
