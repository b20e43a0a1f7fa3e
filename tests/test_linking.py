"""Kernels called by address from compiled code (kernels/linking.py)."""

import subprocess
import sys
import threading

import numba
import numpy as np
import pytest

import loopnest as ln
from loopnest.kernels import activation, linking, whole
from loopnest.kernels.linking import KernelAddress, linked


def caller(kernel):
    call = linked(kernel)

    @numba.njit
    def run(x, y):
        call(x, y)

    return run


def test_a_kernel_is_compiled_once_for_all_callers(rng):
    x = rng.standard_normal(33).astype(np.float32)
    frozen, y = x.copy(), np.empty_like(x)
    frozen.setflags(write=False)
    caller(activation.silu)(x, y)
    compiled = len(activation.silu.overloads)
    again = np.empty_like(y)
    caller(activation.silu)(frozen, again)
    assert len(activation.silu.overloads) == compiled
    assert np.array_equal(y, ln.silu(x)) and np.array_equal(again, y)


def test_threads_that_ask_at_once(rng):
    x, found = rng.standard_normal(100), []
    run = numba.njit(nogil=True)(caller(activation.gelu_erf).py_func)
    run.compile((numba.float64[::1],) * 2)

    def work():
        y = np.empty_like(x)
        run(x, y)
        found.append(y)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(y, ln.gelu(x, approximate="none")) for y in found)


def test_a_kernels_error_reaches_the_caller():
    call = linked(whole.cross_entropy)

    @numba.njit
    def run(logits, target, loss, slopes):
        call(logits, target, loss, slopes)

    logits = np.zeros((2, 3))
    with pytest.raises(ValueError, match="class out of range"):
        run(logits, np.array([0, 3]), np.empty(1), np.empty_like(logits))


def test_a_kernel_that_has_changed_is_refused(monkeypatch):
    run, x, y = caller(activation.tanh), np.ones(3), np.empty(3)
    with monkeypatch.context() as m:
        m.setattr(linking, "_parameters", lambda kernel: ["x", "old", "y"])
        run.compile((numba.float64[::1],) * 2)
    with pytest.raises(RuntimeError, match=r"calls tanh\(x, old, y\), which this version"):
        run(x, y)


def test_a_kernel_that_is_gone_is_refused():
    finder = KernelAddress(activation.exp, (numba.float64[::1],) * 2)
    finder.name = "gone"
    with pytest.raises(RuntimeError, match="calls gone"):
        finder()


def test_a_cached_caller_finds_its_kernels_in_a_new_process(tmp_path):
    (tmp_path / "user.py").write_text(
        "import numba, numpy as np, loopnest as ln\n"
        "@numba.njit(cache=True)\n"
        "def run(x):\n    return ln.softmax(ln.relu(x))\n"
        "x = np.linspace(-1, 1, 30, dtype=np.float32).reshape(3, 10)\n"
        "assert np.array_equal(run(x), ln.softmax(ln.relu(x)))\n"
        "print(sum(run.stats.cache_hits.values()), sum(run.stats.cache_misses.values()))\n"
    )
    command = [sys.executable, "user.py"]
    counts = [
        subprocess.run(
            command, cwd=tmp_path, capture_output=True, check=True, text=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert counts == [["0", "1"], ["1", "0"]]
