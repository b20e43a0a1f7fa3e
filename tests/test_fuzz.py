"""The fuzzer's short form, and that it can find what it looks for."""

import argparse
import subprocess
import sys
import types
from pathlib import Path

import fuzz
import numpy as np
import pytest
from fuzz_table import TABLE

import loopnest as ln

HERE = Path(__file__).parent
# Ops of which a function is compiled as well; a second or two each.
COMPILED = "gelu,conv2d,max_pool2d,linear,cross_entropy_backward#indices,adam_step,softmax"


def options(**more):
    return argparse.Namespace(**{"seed": 1, "ops": "", "calls": 500, "skip": 0, **more})


def run(module=None, signatures=0, **more):
    """The findings of a run in this process."""
    before = ln.get_backend()
    fuzzer = fuzz.Fuzzer(signatures, module)
    try:
        with np.errstate(all="ignore"):
            fuzz.run_families(fuzzer, options(**more))
    finally:
        ln.use_backend(before)
    return fuzzer.findings


def supervised(*arguments):
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz.py"), *arguments],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_all_ops_from_python():
    status, output = supervised("--calls", "7000", "--signatures", "0", "--seed", "20261201")
    assert status == 0, output
    assert all(f"  {key} " in output for key in TABLE)


def test_some_ops_inside_njit():
    status, output = supervised(
        "--calls", "2500", "--signatures", "1", "--seed", "20261201", "--ops", COMPILED
    )  # fmt: skip
    assert status == 0, output


def altered(name, change):
    """loopnest, with one function changed."""
    module = types.SimpleNamespace(**vars(ln))
    setattr(module, name, change)
    return module


def test_one_wrong_bit_on_one_backend_is_found():
    def tanh(x, out=None):
        y = ln.tanh(x, out=out)
        if ln.get_backend() == "c" and np.ndim(y) and y.size > 3:
            y.reshape(-1).view(np.uint8)[0] ^= 1
        return y

    findings = run(altered("tanh", tanh), ops="tanh")
    assert findings and {f["kind"] for f in findings} == {"bits of c"}


def test_a_wrong_value_on_both_backends_is_found():
    def linear(x, weight, bias=None, **more):
        y = ln.linear(x, weight, bias, **more)
        y *= 1 + 1e-3
        return y

    findings = run(altered("linear", linear), ops="linear")
    assert "reference" in {f["kind"] for f in findings}


def test_one_lax_check_is_found():
    def softmax(x, axis=-1, out=None):
        return ln.softmax(x, axis % np.ndim(x) if np.ndim(x) else axis, out=out)

    findings = run(altered("softmax", softmax), ops="softmax")
    assert "taken by all" in {f["kind"] for f in findings}


def test_writing_before_a_refusal_is_found():
    def relu(x, out=None):
        if out is not None and out.flags.writeable and out.size:
            out.flat[0] = 1
        return ln.relu(x, out=out)

    findings = run(altered("relu", relu), ops="relu")
    assert "memory" in {f["kind"] for f in findings}


@pytest.mark.parametrize("backend", ["numba", "c"])
def test_a_crash_is_told_with_its_call(backend, tmp_path):
    script = tmp_path / "crashes.py"
    script.write_text(f"""
import ctypes, sys, types
sys.path.insert(0, {str(HERE)!r})
import fuzz
import loopnest as ln
def exp(x, out=None):
    if ln.get_backend() == {backend!r} and getattr(x, "dtype", None) == "float64":
        ctypes.string_at(0)
    return ln.exp(x, out=out)
module = types.SimpleNamespace(**vars(ln))
module.exp = exp
options = fuzz.parsed()
fuzz.child(fuzz.Fuzzer(0, module), options)
""")
    wanted = fuzz.parsed(["--calls", "400", "--ops", "exp", "--signatures", "0"])
    findings = fuzz.supervise(wanted, str(script))
    assert findings and {f["kind"] for f in findings} == {"crash"}
    assert all(f["call"] == f"on {backend}" and "SIGSEGV" in f["told"] for f in findings)
