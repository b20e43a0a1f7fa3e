"""Hard logic networks as C11 and Verilog source."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from loopnest.runtime import files
from loopnest.runtime.keywords import WORDS_OF_C, WORDS_OF_VERILOG

if TYPE_CHECKING:
    from loopnest.logic.packed import PackedLogic

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_LONGEST_NAME = 200
_PER_LINE = 6


def write(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole: to a temporary name beside it, then renamed."""
    with files.replacing(path) as file:
        file.write(text.encode("ascii"))


def identifier(op: str, name: object, keywords: frozenset[str], what: str = "name") -> str:
    """``name`` if the language with these keywords takes it."""
    if not isinstance(name, str):
        raise TypeError(f"{op}: {what} is {name!r}; accepted: an identifier")
    if not _IDENTIFIER.fullmatch(name) or len(name) > _LONGEST_NAME or name in keywords:
        raise ValueError(
            f"{op}: {what} is {name!r}; accepted: letters, digits and _, a letter first, no keyword"
        )
    return name


def check_ports(op: str, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """ValueError unless all names can be ports of one Verilog module."""
    seen: set[str] = set()
    both: list[str] = []
    for port in (*inputs, *outputs):
        identifier(op, port, WORDS_OF_VERILOG)
        both += [port] if port in seen else []
        seen.add(port)
    if both:
        shown = ", ".join(both[:8]) + (", ..." if len(both) > 8 else "")
        raise ValueError(f"{op}: {shown} is input and output; accepted: outputs of another name")


def _rows(values: Iterable[object]) -> str:
    """Numbers separated by commas, a few a line."""
    texts = list(map(str, values))
    lines = (", ".join(texts[i : i + _PER_LINE]) for i in range(0, len(texts), _PER_LINE))
    return ",\n".join("    " + line for line in lines)


# ---- C ----

_C_EVALUATE = """\
/* {title}
 *
 * Written by loopnest; needs no other file. Samples are rows of {inputs} bytes, each 0 or 1.
 *
 *   {name}_evaluate(x, n, y)       y: {outputs} bytes a sample, the output bits
{more} */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {{
    {upper}_INPUTS = {inputs}, {upper}_OUTPUTS = {outputs}, {upper}_GATES = {gates},
    {upper}_ROWS = {rows}, {upper}_RUNS = {runs}, {upper}_WORDS = 8
}};

/* A row holds one signal for 512 samples. Row 0 is all zeros, row 1 all ones, then come the
 * inputs; a gate reads rows [0] and [1] and writes row [2]. Run i has function i % 16, whose bit
 * 3 - 2a - b is its value at (a, b), and goes up to gate {name}_ends[i]. */
static const {row} {name}_gates[{gate_rows}][3] = {{
{gate_table}
}};
static const uint32_t {name}_ends[{runs}] = {{
{end_table}
}};
static const {row} {name}_outputs[{outputs}] = {{
{output_table}
}};

static void {name}_pack(const uint8_t *x, size_t samples, uint64_t state[][{upper}_WORDS])
{{
    memset(state, 0, {upper}_ROWS * sizeof state[0]);
    memset(state[1], 0xff, sizeof state[1]);
    for (size_t s = 0; s < samples; s++)
        for (size_t i = 0; i < {upper}_INPUTS; i++)
            state[2 + i][s / 64] |= (uint64_t)(x[s * {upper}_INPUTS + i] & 1) << s % 64;
}}

static void {name}_run(uint64_t state[][{upper}_WORDS])
{{
    size_t g = 0;
    for (size_t run = 0; run < {upper}_RUNS; run++) {{
        uint64_t f00 = run >> 3 & 1, f01 = run >> 2 & 1, f10 = run >> 1 & 1, f11 = run & 1;
        uint64_t m0 = 0 - f00, m1 = 0 - (f00 ^ f10), m2 = 0 - (f00 ^ f01);
        uint64_t m3 = 0 - (f00 ^ f01 ^ f10 ^ f11);
        for (; g < {name}_ends[run]; g++) {{
            const uint64_t *a = state[{name}_gates[g][0]], *b = state[{name}_gates[g][1]];
            uint64_t *y = state[{name}_gates[g][2]], v[{upper}_WORDS];
            for (int i = 0; i < {upper}_WORDS; i++)
                v[i] = (m0 ^ (m1 & a[i])) ^ ((m2 ^ (m3 & a[i])) & b[i]);
            memcpy(y, v, sizeof v);
        }}
    }}
}}

void {name}_evaluate(const uint8_t *x, size_t n, uint8_t *y);
void {name}_evaluate(const uint8_t *x, size_t n, uint8_t *y)
{{
    static _Thread_local uint64_t state[{upper}_ROWS][{upper}_WORDS];
    for (size_t first = 0; first < n; first += 512) {{
        size_t samples = n - first < 512 ? n - first : 512;
        {name}_pack(x + first * {upper}_INPUTS, samples, state);
        {name}_run(state);
        for (size_t s = 0; s < samples; s++)
            for (size_t k = 0; k < {upper}_OUTPUTS; k++)
                y[(first + s) * {upper}_OUTPUTS + k] =
                    (uint8_t)(state[{name}_outputs[k]][s / 64] >> s % 64 & 1);
    }}
}}
"""

_C_PREDICT = """
void {name}_predict(const uint8_t *x, size_t n, int32_t *scores, int32_t *labels);
void {name}_predict(const uint8_t *x, size_t n, int32_t *scores, int32_t *labels)
{{
    enum {{ CLASSES = {classes}, GROUP = {upper}_OUTPUTS / CLASSES }};
    static _Thread_local uint64_t state[{upper}_ROWS][{upper}_WORDS];
    for (size_t first = 0; first < n; first += 512) {{
        size_t samples = n - first < 512 ? n - first : 512;
        {name}_pack(x + first * {upper}_INPUTS, samples, state);
        {name}_run(state);
        for (size_t s = 0; s < samples; s++) {{
            int32_t best = -1, label = 0;
            for (int32_t k = 0; k < CLASSES; k++) {{
                int32_t score = 0;
                for (size_t i = 0; i < GROUP; i++)
                    score += (int32_t)(state[{name}_outputs[(size_t)k * GROUP + i]][s / 64]
                                       >> s % 64 & 1);
                if (scores)
                    scores[(first + s) * CLASSES + (size_t)k] = score;
                if (score > best) {{
                    best = score;
                    label = k;
                }}
            }}
            if (labels)
                labels[first + s] = label;
        }}
    }}
}}
"""

_C_PREDICT_TOLD = """\
 *   {name}_predict(x, n, scores, labels)
 *                                scores: {classes} numbers a sample, the ones among each class's
 *                                outputs; labels: the class of the largest. Either may be NULL.
"""


def c_source(packed: PackedLogic, name: str) -> str:
    """The network as one C11 file."""
    name = identifier("to_c", name, WORDS_OF_C)
    program = packed._program
    gates = program.gates.reshape(-1, 3)
    ends = program.ends.tolist() or [0]  # C has no arrays of no elements
    names = {"name": name, "upper": name.upper(), "classes": packed.classes}
    text = _C_EVALUATE.format(
        **names,
        title=f"{packed!r}",
        inputs=packed.inputs,
        outputs=packed.outputs,
        gates=len(gates),
        rows=program.rows,
        runs=len(ends),
        row="uint16_t" if program.rows <= 1 << 16 else "uint32_t",
        gate_rows=max(1, len(gates)),
        gate_table=_rows(f"{{{a}, {b}, {y}}}" for a, b, y in gates.tolist()) or "    {0, 0, 0}",
        end_table=_rows(ends),
        output_table=_rows(program.outputs.tolist()),
        more=_C_PREDICT_TOLD.format(**names) if packed.classes else "",
    )
    return text + (_C_PREDICT.format(**names) if packed.classes else "")


# ---- Verilog ----

_VERILOG = {
    0: "1'b0", 1: "{a} & {b}", 2: "{a} & ~{b}", 3: "{a}", 4: "~{a} & {b}", 5: "{b}",
    6: "{a} ^ {b}", 7: "{a} | {b}", 8: "~({a} | {b})", 9: "~({a} ^ {b})", 10: "~{b}",
    11: "{a} | ~{b}", 12: "~{a}", 13: "~{a} | {b}", 14: "~({a} & {b})", 15: "1'b1",
}  # fmt: skip


def verilog_source(packed: PackedLogic, name: str) -> str:
    """The network as one combinational module."""
    name = identifier("to_verilog", name, WORDS_OF_VERILOG)
    net = packed.netlist
    if packed.names is None:
        inputs = [f"x[{i}]" for i in range(packed.inputs)]
        outputs = [f"y[{i}]" for i in range(packed.outputs)]
        ports = [f"input wire [{packed.inputs - 1}:0] x", f"output wire [{packed.outputs - 1}:0] y"]
    else:
        inputs, outputs = (list(names) for names in packed.names)
        check_ports("to_verilog", inputs, outputs)
        ports = [f"input wire {p}" for p in inputs] + [f"output wire {p}" for p in outputs]
    head, tail = _verilog_head(packed) if packed.classes else ([], "")
    ports_used = {*inputs, *outputs}
    signals = inputs + [_wire(i, ports_used) for i in range(net.gates)]
    lines = [f"// {packed!r}; written by loopnest", f"module {name} ("]
    lines += ["    " + ",\n    ".join(ports + head), ");"]
    columns = (net.op.tolist(), net.left.tolist(), net.right.tolist())
    for i, (op, a, b) in enumerate(zip(*columns, strict=True)):
        value = _VERILOG[op].format(a=signals[a], b=signals[b])
        lines.append(f"    wire {signals[net.inputs + i]} = {value};")
    for port, signal in zip(outputs, net.outputs.tolist(), strict=True):
        lines.append(f"    assign {port} = {signals[signal]};")
    return "\n".join(lines) + "\n" + tail + "endmodule\n"


def _wire(i: int, ports: set[str]) -> str:
    """Name of gate i's wire that no port has."""
    name = f"g{i}"
    while name in ports:
        name += "_"
    return name


def _verilog_head(packed: PackedLogic) -> tuple[list[str], str]:
    """Ports and body that count the ones of each class and choose the largest."""
    assert packed.classes is not None
    group = packed.outputs // packed.classes
    width = group.bit_length()
    label = max(1, (packed.classes - 1).bit_length())
    ports = [
        f"output reg [{packed.classes * width - 1}:0] scores",
        f"output reg [{label - 1}:0] label",
    ]
    body = f"""\
    // scores: {width} bits a class, class 0 lowest; label: the first class of the largest score
    integer k, i;
    reg [{width - 1}:0] count, best;
    always @* begin
        best = 0;
        label = 0;
        scores = 0;
        for (k = 0; k < {packed.classes}; k = k + 1) begin
            count = 0;
            for (i = 0; i < {group}; i = i + 1)
                count = count + {{{{{width - 1}{{1'b0}}}}, y[k * {group} + i]}};
            scores[k * {width} +: {width}] = count;
            if (count > best) begin
                best = count;
                label = k[{label - 1}:0];
            end
        end
    end
"""
    if width == 1:  # a repetition of no bits is no Verilog
        body = body.replace("{{0{1'b0}}, y[k * 1 + i]}", "y[k * 1 + i]")
    return ports, body
