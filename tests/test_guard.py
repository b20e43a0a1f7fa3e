"""No kernel touches a byte outside its arrays: all small cases beside protected pages."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith(("linux", "darwin")), reason="no mprotect here"
)

HERE = Path(__file__).parent


def run(*command):
    return subprocess.run(
        [sys.executable, *command], cwd=HERE, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("side", ["end", "start"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["numba", "c"])
def test_every_small_case(name, dtype, side):
    done = run("guard.py", name, dtype, side)
    last = (done.stdout.splitlines() or ["nothing"])[-1]
    assert done.returncode == 0 and last == "all", f"{last}: {done.returncode}\n{done.stderr}"


@pytest.mark.parametrize(("side", "offset"), [("end", 8), ("start", -1)])
@pytest.mark.parametrize("write", [False, True])
def test_the_pages_are_protected(side, offset, write):
    code = f"""
import ctypes
from guard import guarded
array = guarded(8, "uint8", {side!r})
array[:] = 1
print(array.sum(), flush=True)
byte = ctypes.c_char.from_address(array.ctypes.data + {offset})
{"byte.value = 1" if write else "byte.value"}
print("survived")
"""
    done = run("-c", code)
    assert done.stdout == "8\n"
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGBUS)
