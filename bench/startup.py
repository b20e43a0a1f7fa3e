"""First calls: compiling, loading from Numba's cache, and C, each in a process of its own.

Numba's own start (import, first compilation of anything) comes first and is not counted:
it is paid once a process, whoever uses Numba.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

HERE = Path(__file__).resolve().parent
TIMEOUT = 300


def _first_calls(backend: str, names: list[str]) -> dict[str, float]:
    """Seconds of the first call of each op, in this process."""
    sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]
    import numpy as np
    from cases import BENCH_CASES, CASES

    import loopnest as ln

    if backend == "numba":
        import numba

        numba.njit(lambda x: x + 1)(1.0)
    ln.set_num_threads(1)
    ln.use_backend(backend)
    seconds = {}
    for name in names:
        case = next(c for c in [*CASES, *BENCH_CASES] if str(c) == name)
        arguments = case.arguments(np.dtype("float32"))
        begin = perf_counter()
        case.call(ln, arguments)
        first = perf_counter() - begin
        begin = perf_counter()
        case.call(ln, arguments)
        seconds[case.op] = max(first - (perf_counter() - begin), 0.0)  # the work itself is left out
    return seconds


def _process(backend: str, names: list[str], cache: str) -> dict[str, float]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, __file__, backend, *names],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"first calls on {backend}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(cases: list[Any], backends: list[str]) -> dict[str, dict[str, float]]:
    """Milliseconds by op: "compile", "load from cache" and "c", as far as they are there."""
    from cases import BENCH_CASES, CASES

    ops = {case.op for case in cases}
    smallest: dict[str, Any] = {}  # the work itself should take no time
    for case in [*CASES, *BENCH_CASES]:
        least = smallest.get(case.op)
        if case.op in ops and case.elements and (not least or case.elements < least.elements):
            smallest[case.op] = case
    names = [str(case) for case in smallest.values()]
    found: dict[str, dict[str, float]] = {op: {} for op in smallest}

    def note(what: str, seconds: dict[str, float]) -> None:
        for op, value in seconds.items():
            found[op][what] = 1e3 * value

    with tempfile.TemporaryDirectory() as cache:
        if "numba" in backends:
            note("compile", _process("numba", names, cache))
            note("load from cache", _process("numba", names, cache))
        if "c" in backends:
            note("c", _process("c", names, cache))
    return found


if __name__ == "__main__":
    print(json.dumps(_first_calls(sys.argv[1], sys.argv[2:])))
