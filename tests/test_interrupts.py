"""SIGINT ends calls that would take minutes; times are bounds for a busy machine, not claims."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")

CODE = """
import os, signal, sys, threading, time
import numpy as np
import loopnest as ln

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been ignored at the start
ln.use_backend("{backend}")
ln.set_num_threads({threads})
{before}
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
begin = time.monotonic()
try:
    {call}
except KeyboardInterrupt:
    print("interrupted", time.monotonic() - begin)
{after}
print(ln.gelu(np.zeros(3)).tolist(), len([t for t in threading.enumerate() if "long" in t.name]))
"""
IMAGES = """
x, w = np.ones((64, 64, 56, 56), np.float32), np.ones((256, 64, 3, 3), np.float32)
ln.conv2d(x[:1], w)
"""
FOREVER = "steps=10**15"

CALLS = {
    "one built-in": ("ln.gelu(0.0)", f'ln.descend("gelu", 0.5, lr=0.1, {FOREVER})'),
    "many built-in": (
        "ln.gelu(0.0)", f'ln.descend("gelu", np.linspace(-3, 3, 5000), lr=0.1, {FOREVER})'
    ),
    "recorded": (
        "ln.gelu(0.0)", f'ln.descend("gelu", np.ones(3), lr=0.1, method="adam", {FOREVER}, tol=0.0)'
    ),
    "two variables": (
        "ln.gelu(0.0)",
        f"ln.descend(ln.objectives.rosenbrock, np.full(2, 0.1), lr=1e-9, {FOREVER})",
    ),
    "user's": (
        "f = lambda x: x * x, lambda x: 2 * x",
        f"ln.descend(f, 0.5, lr=1e-12, {FOREVER})",
    ),
    "convolution": (IMAGES, "[ln.conv2d(x, w) for _ in range(10**9)]"),
}  # fmt: skip


def run(backend, threads, call, after="", **more):
    before, line = CALLS[call]
    # Compile first: an interrupt that meets the compiler at a bad moment is lost there.
    before += "\n" + line.replace(FOREVER, "steps=1").replace("10**9", "1")
    code = CODE.format(backend=backend, threads=threads, before=before, call=line, after=after)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True,
        timeout=120, check=False, **more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("call", "threads"), [*((call, 2) for call in CALLS), ("one built-in", 1), ("convolution", 1)]
)
def test_ends_soon(call, threads, backend):
    first, last = run(backend, threads, call)
    assert first.startswith("interrupted") and float(first.split()[1]) < 30
    assert last == "[0.0, 0.0, 0.0] 0"


def test_where_interrupts_were_ignored_at_the_start():
    """As under nohup, or of a background job: a handler that is set later serves."""
    first, _ = run(
        "c", 1, "one built-in", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)
    )
    assert first.startswith("interrupted")


def test_from_another_thread(backend):
    """Signals go to the main thread; a call of another thread just runs."""
    code = f"""
    import threading
    import loopnest as ln

    found = []
    ln.use_backend({backend!r})
    work = lambda: found.append(ln.descend("gelu", 0.5, lr=0.1, steps=3_000_000).x)
    other = threading.Thread(target=work)
    other.start()
    other.join()
    work()
    print(found[0] == found[1])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_an_error_of_a_long_call_reaches_the_caller():
    """Through the thread that runs it."""
    code = """
    import numpy as np
    from loopnest.runtime import threads

    def fail():
        raise ZeroDivisionError("of the function")

    try:
        threads.interruptible(fail, np.zeros(1, np.int64))
    except ZeroDivisionError as error:
        print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "of the function\n" and os.name
