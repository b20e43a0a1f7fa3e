"""Splitting one call over threads.

Kernels work on a range of independent items (elements, rows, planes) and give the same
bits however that range is cut, so threads need no more than a cut. The caller's thread
takes the first piece. Nothing starts before the first call that is large enough.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

# Handing work to a thread costs 60-75 us (measured, DESIGN section 4): below this much
# work, in elementary operations of very roughly a nanosecond for eight, it cannot pay.
SERIAL_BELOW = 4_000_000

_count: int | None = None
_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _positive(source: str, value: object) -> int:
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{source}: n is {value!r}; accepted: an integer of at least 1") from None
    if isinstance(value, bool) or count < 1:
        raise ValueError(f"{source}: n is {value!r}; accepted: an integer of at least 1")
    return count


def set_num_threads(n: int) -> None:
    """Use up to ``n`` threads in one call (large calls only). Results do not depend on it.

    The first value is the environment variable LOOPNEST_NUM_THREADS, else the number of
    cores this process may use.

    Raises
    ------
    TypeError, ValueError
        ``n`` is no integer, or below 1.
    """
    global _count
    _count = _positive("set_num_threads", n)


def get_num_threads() -> int:
    """Number of threads that one call may use."""
    global _count
    if _count is None:
        text = os.environ.get("LOOPNEST_NUM_THREADS", "")
        try:
            value = int(text) if text else _usable_cores()
        except ValueError:
            raise ValueError(
                f"LOOPNEST_NUM_THREADS: n is {text!r}; accepted: an integer of at least 1"
            ) from None
        _count = _positive("LOOPNEST_NUM_THREADS", value)
    return _count


def _forget_pool() -> None:
    """In a forked child the pool's threads do not exist: make a new pool when needed."""
    global _pool, _pool_size
    _pool, _pool_size = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _get_pool(helpers: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < helpers:
        _pool = ThreadPoolExecutor(max_workers=helpers, thread_name_prefix="loopnest")
        _pool_size = helpers
    return _pool


def split(function: Callable[[int, int], object], items: int, work: float) -> None:
    """Call ``function(first, last)`` on pieces that together cover ``range(items)``.

    ``work`` is the number of elementary operations of the whole call; small calls, and
    those made while the interpreter shuts down, run in one piece.
    """
    if work < SERIAL_BELOW or items < 2 or get_num_threads() == 1:
        function(0, items)
        return
    pieces = min(get_num_threads(), items)
    cuts = [items * i // pieces for i in range(pieces + 1)]
    try:
        pool = _get_pool(pieces - 1)
        futures = [pool.submit(function, cuts[i], cuts[i + 1]) for i in range(1, pieces)]
    except RuntimeError:  # no threads to be had
        function(0, items)
        return
    try:
        function(cuts[0], cuts[1])
    finally:
        for future in futures:
            future.exception()  # wait for every piece, also when ours failed
    for future in futures:
        future.result()
