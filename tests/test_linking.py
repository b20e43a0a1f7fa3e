"""Kernels called by address from compiled code (kernels/linking.py)."""

import subprocess
import sys
import threading

import numba
import numpy as np
import pytest

import loopnest as ln
from loopnest.kernels import activation, linking, whole
from loopnest.kernels.jit import own_name
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


def run_python(folder, source):
    command = [sys.executable, "-c", source]
    return subprocess.run(command, cwd=folder, capture_output=True, check=True, text=True).stdout


def cached_module(folder, op):
    (folder / f"cached_{op}.py").write_text(
        f"import numba, loopnest as ln\n@numba.njit(cache=True)\ndef run(x):\n    return ln.{op}(x)\n"
    )


MAIN = """
import importlib, sys, numpy as np, loopnest as ln
x = np.linspace(-1, 1, 30, dtype=np.float32).reshape(3, 10)
for op in {ops}:
    run = importlib.import_module("cached_" + op).run
    assert np.array_equal(run(x), getattr(ln, op)(x)), op
    print(op, sum(run.stats.cache_hits.values()))
"""


def test_cached_callers_of_different_processes_do_not_mix(tmp_path):
    """Numba's symbols of cached code are names counted anew in each process (see `own_name`)."""
    ops = ["softmax", "log_softmax", "sigmoid", "tanh"]
    for op in ops:
        cached_module(tmp_path, op)
        assert run_python(tmp_path, MAIN.format(ops=[op])).split() == [op, "0"]
    found = run_python(tmp_path, MAIN.format(ops=ops)).split()
    assert found == [word for op in ops for word in (op, "1")]


def test_own_names():
    def made(number, inner=None):
        def function(x):
            return x + number if inner is None else inner(x)

        return own_name(function).__qualname__

    assert made(1) == made(1) != made(2)
    assert made(1, np.sin) != made(1, np.cos)
    assert made(1, lambda x: x) != made(1, lambda x: -x)
    assert own_name(run_python).__qualname__ == "run_python"


def test_own_names_are_the_same_in_every_process(tmp_path):
    source = (
        "from loopnest.ops.njit import common\n"
        "print(common.activate('conv2d', 'gelu').__qualname__)\n"
        "print(common.pair_of('conv2d', 'stride', 1, 1).__qualname__)\n"
    )
    first = run_python(tmp_path, source)
    assert first == run_python(tmp_path, source)
