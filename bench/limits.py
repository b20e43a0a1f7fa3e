"""What this machine can do at most: multiply-adds, and bytes from each level of memory.

The multiply-add loop is written in LLVM IR: vectors that never leave their registers,
each a chain of fused multiply-adds. Bandwidth comes from plain Numba loops over
arrays of half a cache's size. Every figure is the best of several tries.
"""

from __future__ import annotations

import platform
import threading
from time import perf_counter
from typing import Any

import numpy as np
from llvmlite import binding, ir
from machine import caches, keep_to, usable_cores
from numba import njit, types
from numba.extending import intrinsic

SECONDS = 0.02  # one try
TRIES = 5
PEAK_TRIES = 20  # the clock of busy vector units wanders more


def _vector_bytes() -> int:
    """Width of this CPU's widest vectors."""
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx") else 16


def chain_count(vector_bytes: int, machine: str) -> int:
    """Chains that keep the multiply-add units busy and stay in registers.

    Units that begin two multiply-adds a cycle, each of four cycles, need 8 chains; those of
    large ARM cores begin four, and need 16. The factors a and b take two registers more, so
    that 16 chains would be spilled to memory on CPUs with 16 vector registers: x86 without
    AVX-512 has 16, x86 with it and ARM have 32.
    """
    return 16 if vector_bytes == 64 or machine in ("aarch64", "arm64") else 10


CHAINS = chain_count(_vector_bytes(), platform.machine())


def _chains(context, builder, number: ir.Type, times: ir.Value) -> ir.Value:
    """Loop of ``times`` rounds over CHAINS vectors, x = fma(x, a, b); the sum of a lane."""
    lanes = _vector_bytes() * 8 // (32 if isinstance(number, ir.FloatType) else 64)
    vector = ir.VectorType(number, lanes)
    suffix = "f32" if isinstance(number, ir.FloatType) else "f64"
    kind = ir.FunctionType(vector, [vector] * 3)
    name = f"llvm.fma.v{lanes}{suffix}"
    fma = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    a, b = (ir.Constant(vector, [value] * lanes) for value in (0.999, 0.001))
    before = builder.block
    body, after = builder.append_basic_block("fma"), builder.append_basic_block("done")
    builder.branch(body)
    builder.position_at_end(body)
    count = builder.phi(times.type)
    values = [builder.phi(vector) for _ in range(CHAINS)]
    count.add_incoming(ir.Constant(times.type, 0), before)
    for i, value in enumerate(values):
        value.add_incoming(ir.Constant(vector, [1.0 + i / CHAINS] * lanes), before)
    following = [builder.call(fma, [value, a, b]) for value in values]
    more = builder.add(count, ir.Constant(times.type, 1))
    count.add_incoming(more, body)
    for value, new in zip(values, following, strict=True):
        value.add_incoming(new, body)
    builder.cbranch(builder.icmp_signed("<", more, times), body, after)
    builder.position_at_end(after)
    total = following[0]
    for value in following[1:]:
        total = builder.fadd(total, value)
    return builder.extract_element(total, ir.Constant(ir.IntType(32), 0))


@intrinsic
def _chains32(typing_context, times):
    def generate(context, builder, signature, arguments):
        return _chains(context, builder, ir.FloatType(), arguments[0])

    return types.float32(types.int64), generate


@intrinsic
def _chains64(typing_context, times):
    def generate(context, builder, signature, arguments):
        return _chains(context, builder, ir.DoubleType(), arguments[0])

    return types.float64(types.int64), generate


@njit(nogil=True)
def _multiply_adds32(times):
    return _chains32(np.int64(times))


@njit(nogil=True)
def _multiply_adds64(times):
    return _chains64(np.int64(times))


@njit(nogil=True)
def _read(times, a, b, c):
    total = np.int64(0)
    for _ in range(times):
        for i in range(a.size):
            total += a[i]
        a[0] = total  # the next pass cannot be left out
    return total


@njit(nogil=True)
def _copy(times, a, b, c):
    for _ in range(times):
        for i in range(a.size):
            a[i] = b[i]
        b[0] += 1
    return a[0]


@njit(nogil=True)
def _triad(times, a, b, c):
    for _ in range(times):
        for i in range(a.size):
            a[i] = b[i] + 3.0 * c[i]
        b[0] += 1.0
    return a[0]


@njit(nogil=True)
def _update(times, a, b, c):
    for _ in range(times):
        for i in range(a.size):
            a[i] = a[i] * 0.5 + b[i]
        b[0] += 1.0
    return a[0]


# Loop, dtype, how many of the arrays it goes over, and how often an element of one moves on average.
BANDWIDTH = {
    "read": (_read, np.int64, 1, 1.0),
    "copy": (_copy, np.int64, 2, 1.0),
    "triad": (_triad, np.float64, 3, 1.0),
    "update": (_update, np.float64, 2, 1.5),  # in place, as optimizer steps: one array moves twice
}


def _together(workers: list[Any]) -> float:
    """Seconds until all workers, started at once, are done."""
    if len(workers) == 1:
        begin = perf_counter()
        workers[0]()
        return perf_counter() - begin
    gate = threading.Barrier(len(workers) + 1)

    def run(work: Any) -> None:
        gate.wait()
        work()

    running = [threading.Thread(target=run, args=(work,)) for work in workers]
    for thread in running:
        thread.start()
    gate.wait()
    begin = perf_counter()
    for thread in running:
        thread.join()
    return perf_counter() - begin


def _rate(make: Any, threads: int, per_pass: float, tries: int = TRIES) -> float:
    """Best rate of ``make(times)`` workers, in units of ``per_pass`` a nanosecond."""
    make(1)()
    times = 1
    while _together([make(times)] * 1) < SECONDS / 4:
        times *= 2
    times *= 4
    best = min(_together([make(times, i) for i in range(threads)]) for _ in range(tries))
    return threads * times * per_pass / best * 1e-9


def peak(dtype: str, threads: int) -> float:
    """GFLOP/s of fused multiply-adds, two operations each."""
    function = _multiply_adds32 if dtype == "float32" else _multiply_adds64
    per_pass = 2.0 * CHAINS * _vector_bytes() / np.dtype(dtype).itemsize
    return _rate(lambda times, _=0: lambda: function(times), threads, per_pass, PEAK_TRIES)


def bandwidth(name: str, total: int, threads: int) -> float:
    """GB/s of a loop whose arrays together take ``total`` bytes in each thread."""
    function, dtype, count, moves = BANDWIDTH[name]
    size = max(total // count // 8, 64)
    sets = [[np.ones(size if j < count else 1, dtype) for j in range(3)] for _ in range(threads)]

    def make(times: int, thread: int = 0) -> Any:
        return lambda: function(times, *sets[thread])

    return _rate(make, threads, moves * count * size * 8)


def levels(threads: int) -> list[tuple[str, int]]:
    """Name of each level, and the bytes that each thread uses to measure it."""
    found = caches()
    sizes = [(c["name"], c["bytes"] // 2 // min(threads, c["shared_by"])) for c in found]
    return [*sizes, ("memory", max(4 * found[-1]["bytes"], 64 << 20) // threads)]


def measure_with(threads: int) -> dict[str, Any]:
    """All limits on so many threads."""
    keep_to(threads)
    return {
        "threads": threads,
        "gflops": {dtype: peak(dtype, threads) for dtype in ("float32", "float64")},
        "gbs": {
            level: {name: bandwidth(name, size, threads) for name in BANDWIDTH}
            for level, size in levels(threads)
        },
    }


def measure() -> dict[str, Any]:
    """Limits of one thread and of all."""
    single = measure_with(1)
    cores = usable_cores()
    return {"single": single, "all": measure_with(cores) if cores > 1 else single}


if __name__ == "__main__":
    import json

    print(json.dumps(measure(), indent=1))
