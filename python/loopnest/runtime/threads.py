"""Splitting one call over threads.

Kernels work on a range of independent items (elements, rows, planes) and give the same
bits however that range is cut, so threads need no more than a cut. The caller's thread
takes pieces from the front, helpers take them from the back; so helpers may come late, or
not at all (no thread to be had, the interpreter shuts down), and the work gets done.

Helpers are Python threads that wait for jobs. Woken by Python's own locks they cost 45 us a
call, half of it until they start and half until the caller hears that they have ended; the
extension's semaphores (csrc/spin.h), which look for a while before they sleep, 5 us.
Nothing starts before the first call that is large enough.

A call that comes again is split without Python: csrc/direct.c hands the kernel itself to the same
helpers, who run it inside their wait. Above, a helper begins 40 us after the caller, for it takes
the GIL and arguments have to be made; so it begins at once.
"""

from __future__ import annotations

import itertools
import operator
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from loopnest.runtime import forks

try:
    from loopnest._direct import set_helpers as _set_helpers
    from loopnest._direct import set_threads as _set_threads
except ImportError:  # who else would want to know

    def _set_threads(count: int, /) -> None: ...
    def _set_helpers(*addresses_and_numbers: int) -> None: ...


# Below this much work, in elementary operations of very roughly a nanosecond for eight, a
# second thread cannot pay: it may take 50 us until it comes.
SERIAL_BELOW = 2_000_000

# Pieces for each thread, if they are more than two: so that who comes late or is held up has less to
# do; not many, for each may have to prepare something and takes some microseconds to enter. Of two
# threads each gets one piece, which was 5% faster (convolution) to 20% (pooling): it stays in
# its own part of the arrays.
_PIECES = 2

# Work of one piece at the most, in the units of SERIAL_BELOW: some 20 ms. Between pieces Python hears
# of signals, so that Ctrl-C ends a call of any length soon.
PIECE_WORK = 40_000_000

# How long who waits looks before it sleeps, in ns: some times what it costs to be woken.
_SPIN = 100_000

# How long a helper that did not sleep still waits, in ns: until the caller has entered its own
# piece and the GIL is free. One who finds it taken is put to sleep and woken, which is longer.
_PAUSE = 5_000

_count: int | None = None
_helpers: _Helpers | None = None


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
    _set_count(_positive("set_num_threads", n))


def get_num_threads() -> int:
    """Number of threads that one call may use."""
    if _count is None:
        text = os.environ.get("LOOPNEST_NUM_THREADS", "")
        try:
            value = int(text) if text else _usable_cores()
        except ValueError:
            raise ValueError(
                f"LOOPNEST_NUM_THREADS: n is {text!r}; accepted: an integer of at least 1"
            ) from None
        _set_count(_positive("LOOPNEST_NUM_THREADS", value))
    assert _count is not None
    return _count


def _set_count(count: int) -> None:
    global _count
    _count = count
    _set_threads(count)


def serial(work: float) -> bool:
    """Whether a call of so much work (see `split`) is left to one thread."""
    return work < SERIAL_BELOW or get_num_threads() == 1


class _PlainSemaphore(threading.Semaphore):
    """Semaphore that puts who waits to sleep at once."""

    def post_then_wait(self, waited: _PlainSemaphore) -> None:
        self.release()
        waited.acquire()


class _SpinSemaphore:
    """The extension's, which looks for a while before it sleeps; neither holds the GIL."""

    def __init__(self, ffi: Any, lib: Any) -> None:
        self._ffi, self._lib, semaphore = ffi, lib, lib.ln_semaphore_new()
        if not semaphore:
            raise OSError("loopnest: no semaphores here")
        self._semaphore = ffi.gc(semaphore, lib.ln_semaphore_free)

    def release(self) -> None:
        self._lib.ln_semaphore_post(self._semaphore)

    def acquire(self) -> None:
        self._lib.ln_semaphore_wait(self._semaphore, _SPIN)

    def addresses(self) -> tuple[int, int]:
        """Of what splits calls over those who wait here, and of the semaphore."""
        split = self._ffi.addressof(self._lib, "ln_split")
        return int(self._ffi.cast("intptr_t", split)), int(
            self._ffi.cast("intptr_t", self._semaphore)
        )

    def post_then_wait(self, waited: _SpinSemaphore) -> None:
        self._lib.ln_semaphore_post_then_wait(self._semaphore, waited._semaphore, _SPIN, _PAUSE)


def _semaphore() -> Any:
    """A semaphore of count 0."""
    try:
        from loopnest._c import ffi, lib

        return _SpinSemaphore(ffi, lib)
    except (ImportError, OSError):
        return _PlainSemaphore(0)


def _lend(semaphore: Any, count: int) -> None:
    """Let csrc/direct.c call in the ``count`` threads that wait for a semaphore."""
    if isinstance(semaphore, _SpinSemaphore):
        _set_helpers(*semaphore.addresses(), count, _SPIN)


class _Queue:
    """Items in order. The semaphore only wakes: whoever is interrupted loses no item."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self.semaphore = _semaphore()

    def put(self, item: Any) -> None:
        self._items.append(item)
        self.semaphore.release()

    def get(self) -> Any:
        while True:
            try:
                return self._items.popleft()
            except IndexError:
                self.semaphore.acquire()

    def answer_then_get(self, other: _Queue, item: Any) -> Any:
        """Put ``item`` into ``other``, then get the next item from here.

        In one step, for who is answered would else wait for the GIL, which we took again.
        """
        other._items.append(item)
        other.semaphore.post_then_wait(self.semaphore)
        return self.get()


def _block_signals() -> None:
    """Leave signals to threads of the program's own: its main thread has to be woken by them.

    Not those that tell of a fault in this very thread, and not a profiler's.
    """
    if hasattr(signal, "pthread_sigmask"):
        names = ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP", "SIGABRT", "SIGPROF")
        own = {getattr(signal, name) for name in names}
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - own)


class _Helpers:
    """Threads that take part in jobs; shared by all callers."""

    def __init__(self) -> None:
        self.jobs = _Queue()
        self.count = 0
        self._starting = threading.Lock()

    def invite(self, job: _Job, wanted: int) -> None:
        """Offer the job to ``wanted`` threads, those that exist or can be started."""
        if self.count < wanted:
            with self._starting:
                while self.count < wanted:
                    try:
                        name = f"loopnest-{self.count + 1}"
                        threading.Thread(target=self._help, name=name, daemon=True).start()
                    except RuntimeError:  # no more threads to be had
                        break
                    self.count += 1
                # They never end, and so neither does the semaphore.
                _lend(self.jobs.semaphore, self.count)
        for _ in range(min(wanted, self.count)):
            self.jobs.put(job)

    def _help(self) -> None:
        _block_signals()
        job = self.jobs.get()
        while True:
            report, reports = job.help(), job.reports
            del job  # its arrays are not ours to keep
            job = self.jobs.answer_then_get(reports, report) if report[0] else self.jobs.get()


class _Job:
    """One call: the pieces that nobody has taken yet, and where helpers report."""

    def __init__(self, function: Callable[[int, int], object], cuts: list[int]) -> None:
        self.function = function
        self.pieces = deque(itertools.pairwise(cuts))
        self._count = len(self.pieces)
        self.reports = _Queue()
        self.helpers_inside: list[None] = []

    def run(
        self, take: Callable[[], tuple[int, int]], caught: type[BaseException]
    ) -> tuple[int, BaseException | None]:
        """Work until no piece is left: how many it were, and the first error that is ``caught``."""
        done: int = 0
        failed: BaseException | None = None
        while self.pieces:
            try:
                first, last = take()
            except IndexError:  # another thread was quicker
                break
            done += 1
            try:
                self.function(first, last)
            except caught as error:
                failed = failed or error
        return done, failed

    def help(self) -> tuple[int, BaseException | None]:
        """Take part as a helper."""
        self.helpers_inside.append(None)
        try:
            # An error that passed a helper would end its thread, and the caller would wait for ever.
            return self.run(self.pieces.pop, BaseException)
        finally:
            self.helpers_inside.pop()

    def finish(self) -> None:
        """Take part as the caller; return when every piece has ended."""
        done, failed = self.run(self.pieces.popleft, Exception)  # an interrupt ends the job
        while done < self._count:
            others, error = self.reports.get()
            done += others
            failed = failed or error
        if failed is not None:
            raise failed

    def abandon(self) -> None:
        """Let no helper be at work on arrays that the caller gives up."""
        self.pieces.clear()
        while self.helpers_inside:
            time.sleep(1e-3)


def _forget_helpers() -> None:
    """In a forked child the helpers do not exist: make new ones when needed."""
    global _helpers
    _helpers = None
    _set_helpers(0, 0, 0, 0)


forks.in_child(_forget_helpers)


def _cuts(items: int, count: int) -> list[int]:
    """Where ``count`` pieces of so many items begin, and where the last one ends."""
    return [items * i // count for i in range(count + 1)]


def interruptible(function: Callable[[], None], stop: Any) -> None:
    """Call a function that runs long in one piece, so that the caller hears of signals meanwhile.

    The main thread is the one that Python tells of signals. It waits while another thread runs the
    function. What a signal's handler raises, KeyboardInterrupt for one, makes ``stop[0]`` 1, which
    the function looks at, and is raised here when the function has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        function()
        return
    failed: list[BaseException] = []
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        try:
            if not stop[0]:
                function()
        except BaseException as error:
            failed.append(error)
        finally:
            ended.set()

    worker = threading.Thread(target=run, name="loopnest-long", daemon=True)
    try:
        worker.start()
        ended.wait()
    except BaseException as error:  # in the midst of starting, too
        stop[0] = 1
        if begun.is_set():
            ended.wait()
        elif isinstance(error, RuntimeError) and worker.ident is None:  # no more threads to be had
            stop[0] = 0
            function()
            return
        raise
    if failed:
        raise failed[0]


def split(
    function: Callable[[int, int], object],
    items: int,
    work: float,
    piece_work: float = PIECE_WORK,
) -> None:
    """Call ``function(first, last)`` on pieces that together cover ``range(items)``.

    ``work`` is the number of elementary operations of the whole call, ``piece_work`` that of
    one piece at the most (infinity for what hears of interrupts in another way); small calls, and
    those made while the interpreter shuts down, run in one piece. All pieces have ended
    when this returns or raises; an error in one does not keep the others from running, an
    interrupt (KeyboardInterrupt) does.
    """
    global _helpers
    pieces = min(items, 1 + int(work // piece_work))
    if items < 2 or serial(work) or sys.is_finalizing():
        for first, last in itertools.pairwise(_cuts(items, max(pieces, 1))):
            function(first, last)
        return
    threads = min(get_num_threads(), items)
    count = min(max(threads * _PIECES if threads > 2 else threads, pieces), items)
    job = _Job(function, _cuts(items, count))
    if _helpers is None:
        _helpers = _Helpers()
    try:
        _helpers.invite(job, threads - 1)
        job.finish()
    except BaseException:  # an error of a piece, or an interrupt of ours
        job.abandon()
        raise
