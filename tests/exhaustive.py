"""Scan of all 2^32 float32 inputs of every activation, on both backends: `make exhaustive`.

Each result is compared with the float64 reference (scan.py), Numba's bits with C's. Prints a table
and writes it to docs/accuracy.md, beside the worst errors of NumPy, PyTorch and ONNX Runtime
where they are installed (those over every 256th input). Exits with 1 if an error is above the
limit or a bit differs. `--step 16` scans every 16th input, for a first look. After that, 10^7 random
float64 inputs of each function (double.py).
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import double
import exhaustive_peers
import numpy as np
import scan
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

BLOCK = 1 << 15  # inputs at a time: all arrays stay in the second cache
PIECES = 256  # of the 2^32 inputs, one task each: the values of one exponent or half of it
DENSE = range(60, 68)  # of the pieces of one sign, those with 2^-7 <= |x| < 2^9
PEER_STEP = 256
DOUBLE_PIECES = 20  # tasks of each function in float64


def scan_piece(name: str, piece: int, step: int) -> tuple[str, scan.Errors, int]:
    """(function, errors, inputs on which the backends differ in bits) of one piece."""
    import loopnest.kernels
    import loopnest.ops.c

    function, errors, different = scan.FUNCTIONS[name], scan.Errors(), 0
    size = scan.EVERY // PIECES
    for first in range(piece * size, (piece + 1) * size, BLOCK * step):
        x = scan.inputs(first, min(first + BLOCK * step, (piece + 1) * size), step)
        exact = scan.exact_values(function, x)
        numba_y, c_y = (function.run(k, x) for k in (loopnest.kernels, loopnest.ops.c))
        errors.add(scan.errors_of(numba_y, exact, x))
        if numba_y.tobytes() != c_y.tobytes():
            nan = np.isnan(numba_y) & np.isnan(c_y)
            different += int(np.count_nonzero((numba_y.view("u4") != c_y.view("u4")) & ~nan))
    return name, errors, different


def double_piece(name: str, count: int, seed: int) -> tuple[str, scan.Errors, int]:
    """The same of ``count`` random float64 inputs."""
    import loopnest.kernels
    import loopnest.ops.c

    return name, *double.scan(name, count, seed, loopnest.kernels, loopnest.ops.c)


def run_all(jobs: list[tuple], processes: int) -> dict[str, tuple[scan.Errors, int]]:
    """Errors and differing inputs of each function; a job is a function and its arguments."""
    results = {job[1]: (scan.Errors(), 0) for job in jobs}
    columns = ("{task.description}", BarColumn(), "{task.percentage:>3.0f}%")
    spawn = multiprocessing.get_context("spawn")
    with (
        Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn()) as progress,
        ProcessPoolExecutor(processes, mp_context=spawn) as pool,
    ):
        total = progress.add_task("all functions", total=len(jobs))
        for job in as_completed([pool.submit(*job) for job in jobs]):
            name, errors, different = job.result()
            results[name][0].add(errors)
            results[name] = (results[name][0], results[name][1] + different)
            progress.update(total, advance=1, description=name)
    return results


def peer_errors(names: list[str]) -> dict[str, dict[str, float]]:
    """Worst error of each peer's function over every PEER_STEP-th input, NaN if it has none."""
    table = {}
    for name in names:
        row = {}
        for peer, functions in exhaustive_peers.load().items():
            worst = float("nan")
            for piece in range(64) if name in functions else ():
                size = scan.EVERY // 64
                x = scan.inputs(piece * size + 17, (piece + 1) * size, PEER_STEP)
                with np.errstate(all="ignore"):
                    y = functions[name](x)
                worst = np.fmax(
                    worst, scan.errors_of(y, scan.exact_values(scan.FUNCTIONS[name], x), x).worst
                )
            row[peer] = worst
        table[name] = row
    return table


def rows(results, peers) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table."""
    peer_names = list(next(iter(peers.values()), {}))
    edges = ["0", *(f"{b:g}" for b in scan.BINS)]
    bins = [f"{lo} to {hi}" for lo, hi in itertools.pairwise(edges)]
    header = ["function", "worst ulp", "at x", "bits differ", *bins, *peer_names]
    lines = []
    for name, (errors, different) in results.items():
        shares = errors.bins[: len(scan.BINS)] / max(errors.bins.sum(), 1)
        spread = [f"{100 * s:.4g}%" if s else "0" for s in shares]
        other = [_ulp(peers.get(name, {}).get(p, float("nan"))) for p in peer_names]
        lines.append(
            [name, f"{errors.worst:.3f}", repr(errors.at), str(different), *spread, *other]
        )
    return header, lines


def _ulp(worst: float) -> str:
    if np.isnan(worst):
        return ""
    return f"{worst:.3g}" if worst < 1e6 else "wrong"


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    bars = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, bars, *lines))


def double_part(results: dict[str, tuple[scan.Errors, int]], count: int) -> str:
    """The section on float64 of docs/accuracy.md."""
    header, lines = rows(results, {})
    return f"""
## float64

{count:,} random inputs of each function: a third over all float64 numbers, a third with sizes of 2^-40 to
2^10, a third within +-750. The exact values are those of tests/double.py, which computes in 80 bits;
next to the zero of a slope (nearer than {double.NEAR_ZERO}) nothing is measured. Limits as above.

{markdown(header, lines)}
"""


def page(header, lines, step: int, dense: int, seconds: float) -> str:
    """docs/accuracy.md."""
    table = markdown(header, lines)
    every = "all 2^32 inputs" if step == 1 else f"every {step}th of the 2^32 inputs"
    if dense < step:
        middle = "all" if dense == 1 else f"every {dense}th"
        every += f" ({middle} of those\nwith 2^-7 <= |x| < 2^9, where all large errors lie)"
    return f"""# Accuracy of the activations

## float32

Made by `make exhaustive`: {every}, on both backends, in {seconds / 60:.0f} minutes on
{platform.machine()}, {os.cpu_count()} cores.

Errors are in units of the last place (ulp) of the exact result; subnormal results count in units of
their spacing, 2^-149, and infinity as 2^128. The exact values are those of the float64 reference
(tests/reference.py), which the tests compare with mpmath. The `_backward` rows are the slopes
(dy = 1). Limits: 2 ulp; 4 for GELU's tanh and erf forms and for slopes, next to their zero
crossings too. "bits differ" counts inputs on which Numba and C disagree. The ranges of ulp show
which share of the inputs fell there. At the right are the worst errors of others' functions, over every
{PEER_STEP}th input: "wrong" is above a million ulp (a tail that is cut to zero, say), empty means that
they have no such function. For gelu they compute x * sigmoid(1.702 x) in one precision, as users
write it (ONNX Runtime: its QuickGelu).

{table}
"""


def write(path: Path, text: str) -> None:
    """Write under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1, help="scan every STEP-th input")
    parser.add_argument("--functions", default=",".join(scan.FUNCTIONS), help="a,b,c")
    parser.add_argument("--dense", type=int, help="STEP where 2^-7 <= |x| < 2^9")
    parser.add_argument("--double", type=int, default=10**7, help="float64 inputs; 0 for none")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=Path("docs/accuracy.md"))
    given = parser.parse_args()
    names, console, start = given.functions.split(","), Console(), time.monotonic()
    unknown = set(names) - set(scan.FUNCTIONS)
    if (
        unknown
        or given.step < 1
        or (given.dense or 1) < 1
        or given.processes < 1
        or given.double < 0
    ):
        parser.error(
            f"functions: {', '.join(scan.FUNCTIONS)}; step, processes: at least 1; double: at least 0"
        )
    for name in names:  # compile once, before the processes start
        scan_piece(name, 0, scan.EVERY // PIECES)
    dense = min(given.dense or given.step, given.step)
    steps = [dense if k % (PIECES // 2) in DENSE else given.step for k in range(PIECES)]
    pieces = [(scan_piece, name, k, step) for name in names for k, step in enumerate(steps)]
    results = run_all(pieces, given.processes)
    seconds = time.monotonic() - start
    header, lines = rows(results, peer_errors(names))
    shown = [i for i, title in enumerate(header) if " to " not in title]  # what a terminal holds
    table = Table(*(header[i] for i in shown))
    for line in lines:
        table.add_row(*(line[i] for i in shown))
    console.print(table)
    text = page(header, lines, given.step, dense, seconds)
    failed = [n for n, (e, d) in results.items() if d or not e.worst <= scan.FUNCTIONS[n].limit]
    doubles = [n for n in names if n in double.FUNCTIONS]
    if double.AVAILABLE and given.double and doubles:
        share = -(-given.double // DOUBLE_PIECES)
        pieces = [(double_piece, n, share, k) for n in doubles for k in range(DOUBLE_PIECES)]
        found = run_all(pieces, given.processes)
        text += double_part(found, share * DOUBLE_PIECES)
        limits = {n: double.FUNCTIONS[n][1] for n in found}
        failed += [f"{n} float64" for n, (e, d) in found.items() if d or not e.worst <= limits[n]]
    write(given.out, text)
    console.print(
        f"{given.out}; " + (f"FAILED: {', '.join(failed)}" if failed else "within limits")
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
