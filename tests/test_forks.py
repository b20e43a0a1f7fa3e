"""Children of fork: no lock is held in them, and what their parent's threads did is no matter."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def run(code, seconds=120, **more):
    """Run code in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=seconds, check=False, **more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


CHILD = """
import os, signal, sys, threading, time
import numpy as np
import loopnest as ln

x = np.linspace(-2, 2, 40).astype(np.float32)
expected = ln.gelu(x).tobytes()
large = np.ones((8, 64, 64, 64), np.float32)


def child(work):
    '''Whether a forked child ends well and soon.'''
    pid = os.fork()
    if not pid:
        signal.alarm(30)  # a child that hangs dies of it
        try:
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def every_operation():
    for name in ("c", "numba"):
        with ln.use_backend(name):
            assert ln.get_backend() == name
            assert ln.gelu(x).tobytes() == expected
            ln.global_avg_pool2d(large)
    ln.set_num_threads(2)
    net = ln.Sequential(ln.Linear(40, 3), ln.ReLU())
    assert net(x).shape == (3,)
    assert child(lambda: ln.use_backend("c").__enter__())  # a fork of a fork
"""


def test_while_threads_switch_backends():
    """A fork comes while another thread holds the lock, or is inside a block."""
    code = (
        CHILD
        + """
ended = threading.Event()


def switch(name):
    while not ended.is_set():
        with ln.use_backend(name):
            ln.relu(x)


for name in ("c", "numba"):
    with ln.use_backend(name):
        every_operation()
for name in ("c", "numba", "c", "numba"):
    threading.Thread(target=switch, args=(name,), daemon=True).start()
print(*[child(every_operation) for _ in range(12)])
ended.set()
"""
    )
    assert run(code) == ["True"] * 12


def test_while_the_lock_is_held():
    code = (
        CHILD
        + """
from loopnest.runtime import backend

held, go = threading.Event(), threading.Event()


def hold():
    with backend._lock:
        held.set()
        go.wait(60)


threading.Thread(target=hold, daemon=True).start()
held.wait()
print(child(every_operation))
go.set()
"""
    )
    assert run(code) == ["True"]


def test_blocks_of_other_threads_end_in_the_child():
    """Else the child would stay for ever in the backend of a thread that it does not have."""
    code = (
        CHILD
        + """
ln.use_backend("c")
inside, go = threading.Event(), threading.Event()


def block():
    with ln.use_backend("numba"):
        inside.set()
        go.wait(60)


threading.Thread(target=block, daemon=True).start()
inside.wait()


def check():
    assert ln.get_backend() == "c"


print(ln.get_backend(), child(check))
go.set()
"""
    )
    assert run(code) == ["numba", "True"]


SLOW_MODULE = """
import threading, time
begun = threading.main_thread().begun
begun.set()
time.sleep(1.0)
whole = True
"""


def test_while_a_thread_imports(tmp_path):
    """The fork waits: the child would wait for ever for a module that nobody goes on importing."""
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE)
    code = f"""
    import os, signal, sys, threading
    import loopnest as ln

    ln.use_backend("numba")
    sys.path.insert(0, {str(tmp_path)!r})
    begun = threading.main_thread().begun = threading.Event()
    threading.Thread(target=__import__, args=("slow_module",), daemon=True).start()
    begun.wait()
    if not os.fork():
        signal.alarm(30)
        import slow_module

        os._exit(0 if slow_module.whole else 1)
    print(os.wait()[1])
    """
    assert run(code) == ["0"]


def test_while_a_thread_compiles():
    """Numba's lock is free in the child."""
    code = """
    import os, signal, threading
    import numpy as np
    import loopnest as ln
    from numba.core.compiler_lock import global_compiler_lock

    ln.use_backend("numba")
    ln.relu(0.5)
    held, go = threading.Event(), threading.Event()

    def compiles():
        with global_compiler_lock:
            held.set()
            go.wait(0.5)

    threading.Thread(target=compiles, daemon=True).start()
    held.wait()
    if not os.fork():
        signal.alarm(100)
        import numba

        os._exit(0 if numba.njit(lambda a: ln.relu(a))(0.5) == 0.5 else 1)
    print(os.wait()[1])
    """
    assert run(code) == ["0"]


def test_pools_of_forked_workers():
    """While other threads of the parent compute and switch backends."""
    code = (
        CHILD
        + """
import multiprocessing

ended = threading.Event()


def compute(name):
    while not ended.is_set():
        with ln.use_backend(name):
            ln.relu(x)
            ln.global_avg_pool2d(large)


def one(number):
    every_operation()
    return number


for name in ("c", "numba"):
    with ln.use_backend(name):
        every_operation()
    threading.Thread(target=compute, args=(name,), daemon=True).start()
context = multiprocessing.get_context("fork")
for _ in range(3):
    with context.Pool(3) as pool:
        print(*pool.map_async(one, range(6)).get(60))
ended.set()
"""
    )
    assert run(code) == 3 * ["0", "1", "2", "3", "4", "5"]


def test_locks_that_stay_held_are_new_in_the_child():
    """That of another thread after some patience; that of the forking thread stays its own."""
    code = """
    import os, signal, threading, types
    from loopnest.runtime import forks

    locks = types.SimpleNamespace(theirs=threading.RLock(), mine=threading.RLock())
    forks.guard(locks, "theirs", patience=0.1)
    forks.guard(locks, "mine", patience=0.1)
    forks.wait_at_forks()
    held, go = threading.Event(), threading.Event()

    def hold():
        with locks.theirs:
            held.set()
            go.wait(60)

    def fork():
        if not os.fork():
            signal.alarm(30)
            with locks.theirs, locks.mine:
                os._exit(0)
        os.write(1, f"{os.wait()[1]}\\n".encode())

    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    fork()
    go.set()
    with locks.mine:
        if not os.fork():
            signal.alarm(30)
            locks.mine.release()
            free = []
            other = threading.Thread(target=lambda: free.append(locks.mine.acquire(timeout=20)))
            other.start()
            other.join()
            os._exit(0 if free == [True] else 1)
        os.write(1, f"{os.wait()[1]}\\n".encode())
    for thread in [threading.Thread(target=fork) for _ in range(4)]:
        thread.start()
    """
    assert run(code) == ["0"] * 6
