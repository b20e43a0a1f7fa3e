"""Timing: one loop for every competitor, interleaved rounds, and honest comparison.

A sample is the time of one batch of calls, divided by their number. In each round every
competitor gives one sample, in another order each time, so that a drifting clock, a busy
neighbour, and what the one before left in the caches, hit all of them alike.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import repeat
from time import perf_counter_ns, process_time_ns
from typing import Any

import numpy as np

ROUNDS = 9  # at least; the rank test has little to say with fewer
NOISY = 1.08  # median over best: above this a row gets more rounds,
MORE_ROUNDS = 3  # up to so many times as many,
MORE_SECONDS = 2.0  # if they fit into this time
SIGNIFICANT = 0.01  # probability below which two competitors count as different


def _nothing() -> None:
    pass


def make_loop(function: Callable[..., Any], args: tuple, kwargs: dict[str, Any]):
    """Function ``loop(count)``: nanoseconds that ``count`` calls take.

    The call is written out with its arguments as a user would write it. A closure with
    ``**kwargs``, or functools.partial, would cost 50 to 100 ns more in each call.
    """
    names = [f"a{i}" for i in range(len(args))] + [f"k{i}" for i in range(len(kwargs))]
    keywords = [f"{name}=k{i}" for i, name in enumerate(kwargs)]
    call = ", ".join([*names[: len(args)], *keywords])
    source = (
        f"def make({', '.join(['function', *names])}):\n"
        "    def loop(count):\n"
        "        times = repeat(None, count)\n"
        "        begin = clock()\n"
        "        for _ in times:\n"
        f"            function({call})\n"
        "        return clock() - begin\n"
        "    return loop\n"
    )
    scope: dict[str, Any] = {"repeat": repeat, "clock": perf_counter_ns}
    exec(source, scope)
    return scope["make"](function, *args, *kwargs.values())


def overhead_ns() -> float:
    """What the loop itself costs in each call, the call of an empty function included."""
    loop = make_loop(_nothing, (), {})
    return min(loop(20_000) / 20_000 for _ in range(25))


@dataclass
class Prepared:
    """One competitor's way to do one case.

    ``function(*args, **kwargs)`` is the call that is timed; ``result`` makes NumPy arrays
    of what it returns, in the reference's order; ``before`` runs ahead of each batch,
    outside the clock; ``stands_for`` names the op of the reference that this computes,
    where the peer has nothing but a close relative of the case's own.
    """

    function: Callable[..., Any]
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    result: Callable[[Any], Any] = lambda raw: raw
    before: Callable[[], None] = _nothing
    stands_for: str | None = None
    loop: Callable[[int], int] | None = None  # set where the loop itself is compiled

    def __post_init__(self) -> None:
        if self.loop is None:
            self.loop = make_loop(self.function, self.args, self.kwargs)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Call once; the results as arrays of their own."""
        self.before()
        value = self.result(self.function(*self.args, **self.kwargs))
        values = value if isinstance(value, tuple) else (value,)
        return tuple(np.array(v) for v in values)


class Flusher:
    """Evicts all data from the caches by going over a buffer larger than the last of them."""

    def __init__(self, size: int) -> None:
        self._buffer = np.zeros(size // 8)

    def __call__(self) -> None:
        self._buffer += 1.0


@dataclass
class Samples:
    """Nanoseconds a call, one figure a round, and the calls in each."""

    calls: int
    ns: list[float] = field(default_factory=list)
    wall_ns: int = 0  # of all rounds together,
    processor_ns: int = 0  # and what all threads of the process took in that time

    @property
    def best(self) -> float:
        return min(self.ns)

    @property
    def median(self) -> float:
        return statistics.median(self.ns)

    @property
    def cores(self) -> float:
        """Cores that were busy on average."""
        return self.processor_ns / max(self.wall_ns, 1)


def calls_for(entry: Prepared, batch_ns: float) -> int:
    """Calls that fill a batch of ``batch_ns``, at least one."""
    entry.before()
    entry.loop(1)
    calls = 1
    while True:
        taken = max(entry.loop(calls), 1)
        if taken * 4 >= batch_ns or calls >= 10_000_000:
            return max(1, round(calls * batch_ns / taken))
        calls = max(calls + 1, min(calls * 8, round(calls * batch_ns / taken)))


def quick_look(entry: Prepared, batch_ns: float = 2e6) -> float:
    """Nanoseconds of a call, roughly: chooses between a peer's variants."""
    calls = calls_for(entry, batch_ns)
    return min(entry.loop(calls) for _ in range(3)) / calls


def interleave(
    entries: dict[str, Prepared],
    rounds: int,
    batch_ns: float,
    flush: Callable[[], None] | None = None,
    failed: Callable[[str, Exception], None] = lambda name, error: None,
) -> dict[str, Samples]:
    """Samples of all competitors, taken in rounds; one that raises is dropped.

    With ``flush`` (cold caches) a batch is one call, and ``flush`` runs before it.
    """
    alive: dict[str, Samples] = {}
    for name, entry in entries.items():
        try:
            alive[name] = Samples(1 if flush else calls_for(entry, batch_ns))
        except Exception as error:
            failed(name, error)
    collecting = gc.isenabled()
    gc.disable()
    begin = perf_counter_ns()
    try:
        number = 0
        while number < rounds or _wants_more(alive, number, rounds, begin):
            order = list(alive)
            random.Random(number).shuffle(order)
            number += 1
            for name in order:
                try:
                    _sample(entries[name], alive[name], flush)
                except Exception as error:
                    failed(name, error)
                    del alive[name]
    finally:
        if collecting:
            gc.enable()
    return alive


def _wants_more(alive: dict[str, Samples], done: int, rounds: int, begin: int) -> bool:
    """Whether the machine was noisy, and there is time for another round."""
    if done >= MORE_ROUNDS * rounds or (perf_counter_ns() - begin) > MORE_SECONDS * 1e9:
        return False
    return any(taken.median > NOISY * taken.best for taken in alive.values())


LONG_NS = 5e7  # filling the caches again is no part worth mentioning of such a call


def _sample(entry: Prepared, taken: Samples, flush: Callable[[], None] | None) -> None:
    """Add one round to what was taken."""
    entry.before()
    if flush:
        flush()
    elif not taken.ns or taken.ns[-1] < LONG_NS:
        entry.loop(1)  # its data comes back into the caches that the previous one filled
    begin, processor = perf_counter_ns(), process_time_ns()
    taken.ns.append(entry.loop(taken.calls) / taken.calls)
    taken.processor_ns += process_time_ns() - processor
    taken.wall_ns += perf_counter_ns() - begin


# ---- comparison ----


def paired_ratio(peer: list[float], ours: list[float]) -> float:
    """Peer time over our time: the median of the rounds' own ratios.

    The two samples of a round lie close in time, so that a slow spell cancels out.
    """
    return statistics.median(p / o for p, o in zip(peer, ours, strict=True))


def rank_test(a: list[float], b: list[float]) -> float:
    """Two-sided p of the Mann-Whitney test, by its normal approximation with ties."""
    values = np.array([*a, *b])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m, size = len(a), len(b), len(values)
    u = ranks[:n].sum() - n * (n + 1) / 2
    ties = (counts**3 - counts).sum() / (size * (size - 1))
    sigma = math.sqrt(n * m / 12 * (size + 1 - ties))
    if sigma == 0:
        return 1.0
    z = max(abs(u - n * m / 2) - 0.5, 0) / sigma
    return math.erfc(z / math.sqrt(2))


def differ(peer: list[float], ours: list[float]) -> bool:
    """Whether two competitors differ beyond chance: by rank, best and rounds agreeing."""
    side = paired_ratio(peer, ours) > 1
    return rank_test(peer, ours) < SIGNIFICANT and (min(peer) / min(ours) > 1) == side
