"""Splitting calls over threads: cover, errors, callers side by side, forks, shutdown."""

import concurrent.futures
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
from helpers import assert_same_bits
from test_backend import run_python

import loopnest as ln
from loopnest.runtime import threads


@pytest.fixture(params=["spin", "plain"])
def semaphores(request, monkeypatch, two_threads):
    """Helpers of their own, with the extension's semaphores or with Python's."""
    if request.param == "plain":
        monkeypatch.setattr(threads, "_semaphore", lambda: threads._PlainSemaphore(0))
    monkeypatch.setattr(threads, "_helpers", None)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [0, 1, 2, 3, 7, 100])
def test_each_item_once(items, count, semaphores):
    ln.set_num_threads(count)
    for _ in range(20):
        seen = np.zeros(items, int)

        def piece(first, last, seen=seen):
            seen[first:last] += 1

        threads.split(piece, items, 1e9)
        assert (seen == 1).all()


def test_helpers_take_part(semaphores):
    both = threading.Barrier(2, timeout=30)
    names = set()

    def piece(first, last):
        names.add(threading.current_thread().name)
        both.wait()

    threads.split(piece, 2, 1e9)
    assert len(names) == 2 and "loopnest-1" in names


@pytest.mark.parametrize("guilty", range(4))
def test_an_error_comes_when_all_pieces_have_ended(guilty, semaphores):
    ln.set_num_threads(3)  # two would get one piece each
    ended = []

    def piece(first, last):
        if first == guilty:
            raise ZeroDivisionError(first)
        time.sleep(0.01)
        ended.append(first)

    for _ in range(3):
        ended.clear()
        with pytest.raises(ZeroDivisionError):
            threads.split(piece, 4, 1e9)
        assert sorted(ended) == [i for i in range(4) if i != guilty]
    threads.split(lambda first, last: None, 4, 1e9)


def test_memory_error_in_a_piece(semaphores):
    def piece(first, last):
        np.empty(1 << 62, np.uint8)

    with pytest.raises(MemoryError):
        threads.split(piece, 4, 1e9)


def test_calls_within_calls(semaphores):
    total = np.zeros((4, 100), int)

    def outer(first, last):
        for row in range(first, last):

            def inner(a, b, row=row):
                total[row, a:b] += 1

            threads.split(inner, 100, 1e9)

    threads.split(outer, 4, 1e9)
    assert (total == 1).all()


def test_many_callers(semaphores):
    wrong = []

    def caller(number):
        for _ in range(50):
            seen = np.zeros(101, int)

            def piece(first, last, seen=seen):
                seen[first:last] += 1

            threads.split(piece, 101, 1e9)
            if (seen != 1).any():
                wrong.append(number)

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(16)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert not wrong


@pytest.fixture
def split_call(monkeypatch, two_threads):
    """csrc/spin.c's `ln_split` with Python functions as pieces, and one helper for it."""
    native = pytest.importorskip("loopnest._c")
    monkeypatch.setattr(threads, "_helpers", None)
    threads.split(lambda first, last: None, 2, 1e9)  # starts the helper
    semaphore = threads._helpers.jobs.semaphore
    if not hasattr(semaphore, "addresses"):
        pytest.skip("no semaphores of ours here")

    def split(piece, items, pieces, helpers=1):
        given = native.ffi.callback("ln_piece", lambda call, *which: piece(*which))
        native.lib.ln_split(
            semaphore._semaphore, given, native.ffi.NULL, items, pieces, helpers, 1000
        )

    return split


@pytest.mark.parametrize("helpers", [0, 1, 3])
def test_each_item_once_without_python(helpers, split_call):
    for items, pieces in ((1, 1), (2, 2), (7, 3), (100, 8)):
        for _ in range(50):
            seen = np.zeros(items, int)

            def piece(runner, first, last, seen=seen):
                seen[first:last] += 1

            split_call(piece, items, pieces, helpers)
            assert (seen == 1).all()


def test_helpers_take_part_without_python(split_call):
    both = threading.Barrier(2, timeout=30)
    runners = set()

    def piece(runner, first, last):
        runners.add((runner, first, threading.current_thread() is threading.main_thread()))
        both.wait()

    split_call(piece, 2, 2)
    assert runners == {(0, 0, True), (1, 1, False)}


def test_a_call_ends_with_its_last_helper(split_call):
    ended = []

    def piece(runner, first, last):
        if runner:
            time.sleep(0.1)  # the caller has gone to sleep by now
        ended.append(first)

    for _ in range(3):
        ended.clear()
        split_call(piece, 2, 2)
        assert sorted(ended) == [0, 1]
    # Both ways at once, one within the other.
    total = np.zeros((4, 100), int)

    def outer(first, last):
        for row in range(first, last):

            def inner(runner, a, b, row=row):
                total[row, a:b] += 1

            split_call(inner, 100, 4)

    threads.split(outer, 4, 1e9)
    assert (total == 1).all()


def test_no_thread_to_be_had(semaphores, monkeypatch):
    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    seen = []
    threads.split(lambda first, last: seen.extend(range(first, last)), 10, 1e9)
    assert seen == list(range(10))


def test_arrays_of_a_call_are_let_go(semaphores):
    import weakref

    array = np.zeros(10)
    gone = weakref.ref(array)
    threads.split(lambda first, last, array=array: array[first:last].sum(), 10, 1e9)
    del array
    for _ in range(100):
        if gone() is None:
            break
        time.sleep(0.01)
    assert gone() is None


def test_an_interrupt_leaves_no_helper_at_work():
    code = """
import os, signal, threading, time
import loopnest as ln
from loopnest.runtime import threads
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under nohup
threads.SERIAL_BELOW = 0
ln.set_num_threads(2)
inside = []
def piece(first, last):
    if threading.current_thread() is not threading.main_thread():
        inside.append(first)
        time.sleep(0.3)
        inside.pop()
    else:
        while not inside: time.sleep(0.001)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    threads.split(piece, 2, 1)
except KeyboardInterrupt:
    print("interrupted", inside)
threads.split(lambda first, last: None, 2, 1)
"""
    assert run_python(code) == "interrupted []"


def test_nothing_starts_at_import_or_for_small_calls():
    code = """
import threading
import loopnest as ln
ln.set_num_threads(2)
for name in ("numba", "c"):
    with ln.use_backend(name):
        ln.gelu([1.0, 2.0])
print(threading.active_count())
"""
    assert run_python(code) == "1"


_LARGE = """
import atexit, functools, os, threading
import numpy as np, loopnest as ln
from loopnest.runtime import threads
if {plain}: threads._semaphore = functools.partial(threads._PlainSemaphore, 0)
threads.SERIAL_BELOW = 0
ln.set_num_threads(4)
ln.use_backend("c")
x = np.linspace(-3, 3, 1000)
rows = x.reshape(25, 40)
def both():  # the second is repeated without Python
    return ln.gelu(x).tobytes() + ln.softmax(rows).tobytes()
expected = both()
for _ in range(3): both()
"""


@pytest.mark.parametrize("plain", [False, True])
def test_while_the_interpreter_shuts_down(plain):
    code = (
        _LARGE.format(plain=plain)
        + """
class Late:
    def __init__(self):
        self.gelu, self.softmax, self.x, self.rows = ln.gelu, ln.softmax, x, rows
        self.print, self.say = os.write, expected
    def __del__(self):
        now = self.gelu(self.x).tobytes() + self.softmax(self.rows).tobytes()
        self.print(1, b"late %d " % (now == self.say))
late = Late()  # goes when modules are emptied
atexit.register(lambda: os.write(1, b"exit %d " % (both() == expected)))
"""
    )
    assert run_python(code) == "exit 1 late 1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("plain", [False, True])
def test_in_forked_children_of_many_threads(plain):
    code = (
        _LARGE.format(plain=plain)
        + """
stop = False
def busy():
    while not stop: both()
workers = [threading.Thread(target=busy) for _ in range(3)]
for w in workers: w.start()
codes = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        fine = all(both() == expected for _ in range(5))
        os._exit(0 if fine else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop = True
for w in workers: w.join()
print(set(codes))
"""
    )
    assert run_python(code, PYTHONWARNINGS="ignore") == "{0}"


def _large(seed):
    threads.SERIAL_BELOW = 0
    ln.set_num_threads(2)
    x = np.random.default_rng(seed).standard_normal((4, 3, 32, 32)).astype(np.float32)
    return ln.max_pool2d(x, 3, 1, 1)


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_process_pool(method, two_threads):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    expected = [_large(seed) for seed in range(4)]
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        for actual, e in zip(pool.map(_large, range(4)), expected, strict=True):
            assert_same_bits(actual, e)


def test_threads_and_a_signal_handler(semaphores):
    """A signal while the caller waits wakes nobody too early."""
    if not hasattr(signal, "setitimer"):
        pytest.skip("no interval timer here")
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        ended = []

        def piece(first, last):
            if threading.current_thread() is not threading.main_thread():
                time.sleep(0.05)
            ended.append(first)

        threads.split(piece, 2, 1e9)
        assert sorted(ended) == [0, 1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("error", ["SystemExit(3)", "KeyboardInterrupt()", "ZeroDivisionError()"])
def test_an_error_of_any_kind_in_a_helper_reaches_the_caller(error):
    """It must not end the helper's thread, for which the caller would wait for ever."""
    code = f"""
import threading, time
import loopnest as ln
from loopnest.runtime import threads
threads.SERIAL_BELOW = 0
ln.set_num_threads(2)
raised = []
def piece(first, last):
    if threading.current_thread() is not threading.main_thread():
        raised.append(1)
        raise {error}
    while not raised: time.sleep(0.001)
for _ in range(2):
    raised.clear()
    try:
        threads.split(piece, 2, 1)
    except BaseException as error:
        print(type(error).__name__, end=" ")
"""
    name = error.partition("(")[0]
    assert run_python(code).split() == [name, name]


def test_signals_go_to_threads_of_the_program():
    code = """
import signal, threading, time
import loopnest as ln
from loopnest.runtime import threads
threads.SERIAL_BELOW = 0
ln.set_num_threads(2)
masks = []
def piece(first, last):
    if threading.current_thread() is not threading.main_thread():
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
    while not masks: time.sleep(0.001)
threads.split(piece, 2, 1)
print(signal.SIGINT in masks[0], signal.SIGSEGV in masks[0])
"""
    assert run_python(code) == "True False"
