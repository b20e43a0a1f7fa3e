"""Children of fork: no lock is held in them, and what their parent's threads did is no matter."""

import os
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def run(code, seconds=120):
    """Run code in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=seconds, check=False,
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
