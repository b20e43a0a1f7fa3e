"""What a call costs beyond its kernel, and what `import loopnest` costs.

The kernel calls that a public call makes are recorded and then made alone, with the same
arguments: the difference is checking, making the output, and Python.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
from cases import CASES, Case
from peers import after, compiled_loop, fixed, takes_out
from timing import Prepared, interleave

NAMES = ("relu-16", "sigmoid-16", "conv2d-seed", "linear-1x64x64")
ROUNDS, BATCH_NS = 15, 3e6
IMPORT = (
    "from time import perf_counter as now\nimport numpy\nbegin = now()\nimport loopnest\n"
    "print(now() - begin)"
)


class Recorder:
    """Stands for the kernels of a backend and notes the calls made of them."""

    def __init__(self, kernels: Any, calls: list[tuple[Any, tuple]]) -> None:
        self._kernels, self._calls = kernels, calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._kernels, name)
        if isinstance(found, ModuleType):
            return Recorder(found, self._calls)
        if not callable(found):
            return found

        def call(*arguments: Any) -> Any:
            self._calls.append((found, arguments))
            return found(*arguments)

        return call


def kernel_calls(function: Any, arguments: tuple, options: dict[str, Any]) -> list:
    """(kernel, arguments) of every kernel call that a public call makes."""
    from loopnest.runtime import backend

    calls: list[tuple[Any, tuple]] = []
    kernels = backend.kernels
    backend.kernels = Recorder(kernels, calls)
    try:
        function(*arguments, **options)
    finally:
        backend.kernels = kernels
    return calls


def of_case(case: Case, name: str) -> dict[str, float]:
    """Nanoseconds of the checked call, of its kernels alone, and inside @njit."""
    import loopnest as ln

    function, arguments = getattr(ln, case.op), case.arguments(np.dtype(np.float32))
    options = dict(case.options)
    with ln.use_backend(name):
        if takes_out(function, case):
            options["out"] = function(*arguments, **options)
        function(*arguments, **options)  # decides the backend and compiles
        calls = kernel_calls(function, arguments, options)
        entries = {"checked": Prepared(function, arguments, options)}
        if len(calls) == 1:
            entries["kernel"] = Prepared(*calls[0])
        taken = interleave(entries, ROUNDS, BATCH_NS)
    found = {kind: samples.best for kind, samples in taken.items()}
    if name == "numba":
        found["njit"] = _inside_njit(case, arguments, options)
    return found


def _inside_njit(case: Case, arguments: tuple, options: dict[str, Any]) -> float:
    many = compiled_loop(case.op, len(arguments), options)
    changing = [v for v in options.values() if not fixed(v)]
    entry = Prepared(functools.partial(many, 1000, *arguments, *changing),
                     result=after(case, arguments))  # fmt: skip
    return interleave({"njit": entry}, ROUNDS, BATCH_NS)["njit"].best / 1000


def import_ms(tries: int = 7) -> float:
    """Milliseconds of `import loopnest` in a process that has numpy: the best of some."""
    command = [sys.executable, "-c", IMPORT]
    runs = (subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
            for _ in range(tries))  # fmt: skip
    return 1e3 * min(float(done.stdout) for done in runs)


def measure(backends: list[str]) -> dict[str, Any]:
    """Everything: {"import_ms": ..., "calls": {case: {backend: {kind: ns}}}}."""
    import loopnest as ln

    ln.set_num_threads(1)
    small = {str(case): case for case in CASES}
    chosen = [small[name] for name in NAMES if name in small]
    calls = {str(case): {name: of_case(case, name) for name in backends} for case in chosen}
    return {"import_ms": import_ms(), "calls": calls}


if __name__ == "__main__":
    import json

    print(json.dumps(measure(["numba", "c"]), indent=1))
