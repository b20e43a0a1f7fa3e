"""Straight-line C: what logic-network tools generate, one statement a gate, compiled by gcc.

Gates work on 512-bit vectors, rows of state in place, as many statements a function as gcc
compiles in bearable time. Packing and counting are the plain loops that such tools write. Compiling
takes the better part of a minute, which is not timed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import reference_jobs
from cases import Case
from peers import Peer
from timing import Prepared

_FORMS = (
    "zero", "{a} & {b}", "{a} & ~{b}", "{a}", "~{a} & {b}", "{b}", "{a} ^ {b}", "{a} | {b}",
    "~({a} | {b})", "~({a} ^ {b})", "~{b}", "{a} | ~{b}", "~{a}", "~{a} | {b}", "~({a} & {b})",
    "~zero",
)  # fmt: skip
_PER_FUNCTION = 1000

_FRAME = """
#include <stdint.h>
#include <string.h>
enum {{ INPUTS = {inputs}, CLASSES = {classes}, GROUP = {group}, LAST = {last}, PLANES = 16 }};
typedef uint64_t word __attribute__((vector_size(64)));
static const word zero;
{functions}
void run(word *s)
{{
{calls}
}}
static void pack(const uint8_t *x, uint64_t *bits)
{{
    for (int w = 0; w < 8; w++) {{
        uint64_t column[INPUTS] = {{0}};
        for (int n = 0; n < 64; n++)
            for (int i = 0; i < INPUTS; i++)
                column[i] |= (uint64_t)x[(64 * w + n) * INPUTS + i] << n;
        for (int i = 0; i < INPUTS; i++) bits[8 * i + w] = column[i];
    }}
}}
void predict(const uint8_t *x, word *s, int64_t *labels)
{{
    uint64_t best[512] = {{0}};
    memset(labels, 0, sizeof best);
    pack(x, (uint64_t *)s);
    run(s);
    for (int k = 0; k < CLASSES; k++) {{
        word planes[PLANES] = {{0}};
        for (int r = 0; r < GROUP; r++) {{
            word carry = s[LAST + k * GROUP + r];
            for (int j = 0, top = r + 1; top; j++, top >>= 1) {{
                word both = planes[j] & carry;
                planes[j] ^= carry;
                carry = both;
            }}
        }}
        uint64_t counts[512] = {{0}};
        for (int j = 0; GROUP >> j; j++)
            for (int w = 0; w < 8; w++)
                for (uint64_t n = 0; n < 64; n++)
                    counts[64 * w + n] += (planes[j][w] >> n & 1) << j;
        for (int n = 0; n < 512; n++) {{
            labels[n] = counts[n] > best[n] ? k : labels[n];
            best[n] = counts[n] > best[n] ? counts[n] : best[n];
        }}
    }}
}}
"""


def source(left, right, op, starts, inputs: int, classes: int) -> tuple[str, int]:
    """C source, and the rows of its state: inputs, then two layers in turn."""
    widest = int(np.diff(starts).max())
    bases = [inputs + widest * (layer % 2) for layer in range(len(starts) - 1)]
    lines = []
    for layer, base in enumerate(bases):
        before = bases[layer - 1] if layer else 0
        for n in range(starts[layer], starts[layer + 1]):
            form = _FORMS[op[n]].format(a=f"s[{before + left[n]}]", b=f"s[{before + right[n]}]")
            lines.append(f"    s[{base + n - starts[layer]}] = {form};")
    parts = [lines[i : i + _PER_FUNCTION] for i in range(0, len(lines), _PER_FUNCTION)]
    functions = "\n".join(
        f"static __attribute__((noinline)) void part{i}(word *s)\n{{\n" + "\n".join(part) + "\n}"
        for i, part in enumerate(parts)
    )
    calls = "\n".join(f"    part{i}(s);" for i in range(len(parts)))
    group = int(np.diff(starts)[-1]) // classes
    text = _FRAME.format(
        inputs=inputs,
        classes=classes,
        group=group,
        last=bases[-1],
        functions=functions,
        calls=calls,
    )
    return text, inputs + 2 * widest


def compiled(text: str) -> ctypes.CDLL:
    """The library of this source; kept in the temporary folder by its digest."""
    folder = Path(tempfile.gettempdir()) / f"loopnest-bench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.so"
    if not library.exists():
        file = library.with_suffix(".c")
        file.write_text(text, encoding="ascii")
        command = ["gcc", "-O2", "-march=native", "-shared", "-fPIC", str(file), "-o"]
        subprocess.run([*command, f"{library}.new"], check=True)
        os.replace(f"{library}.new", library)
    return ctypes.CDLL(str(library))


class StraightC(Peer):
    name = "straight-c"

    def load(self) -> None:
        if not shutil.which("gcc"):
            raise ImportError("no gcc")

    def version(self) -> str:
        done = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True)
        return done.stdout.strip()

    def settings(self) -> str:
        return "one statement a gate on 512-bit vectors, gcc -O2 -march=native; not threaded"

    def logic_predict(self, case: Case, bits):
        net = reference_jobs.logic_network()
        text, rows = source(
            net.left, net.right, net.functions, net.starts, *bits.shape[1:], net.classes
        )
        kept = bits, aligned(8 * rows), np.empty(len(bits), np.int64)  # pointers keep no arrays
        predict = compiled(text).predict
        return Prepared(predict, tuple(map(pointer, kept)), result=lambda raw: kept[2])


def aligned(words: int) -> np.ndarray:
    """Words from the start of a cache line."""
    raw = np.zeros(words + 8, np.uint64)
    start = -raw.ctypes.data // 8 % 8
    return raw[start : start + words]


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


PEERS = (StraightC,)
