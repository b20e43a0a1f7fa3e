"""Networks written out as C: compiled with all warnings as errors, the same bits, no leftovers."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_bits
from test_network import INPUTS, branches, lenet, policy

import loopnest as ln

COMPILER = shutil.which("gcc") or shutil.which("cc")
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wmissing-prototypes")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")


def compiled(source: Path, *flags: str) -> ctypes.CDLL:
    library = source.with_suffix(f".{abs(hash(flags))}.so")
    command = [COMPILER, *WARNINGS, *flags, "-shared", "-fPIC", source, "-o", library, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def run(library: ctypes.CDLL, name: str, x: np.ndarray, like: np.ndarray) -> np.ndarray:
    y = np.full_like(like, np.nan)
    getattr(library, name + "_forward")(
        *(a.ctypes.data_as(ctypes.c_void_p) for a in (np.ascontiguousarray(x), y))
    )
    return y


@needs_compiler
@pytest.mark.parametrize("make", list(INPUTS), ids=lambda f: f.__name__)
def test_same_bits(make, dtype, tmp_path, rng):
    net = make(dtype)
    x = rng.standard_normal((3, *INPUTS[make])).astype(dtype)
    path = net.to_c(tmp_path / "net.c", batch=3)
    for flags in (
        ("-O2", "-march=native"),
        ("-O1",),
        ("-O3", "-march=native", "-ffp-contract=fast"),
    ):
        assert_same_bits(run(compiled(path, *flags), "net", x, net(x)), net(x), str(flags))


@needs_compiler
def test_special_numbers(tmp_path):
    """NaN, infinities, zeros of both signs and subnormal numbers as weights."""
    net = ln.Sequential(ln.Linear(2, 8))
    net.parameters["0.weight"][0] = [np.nan, np.inf, -np.inf, -0.0, 1e-45, 3.4e38, 0.1, 1e-38]
    net.parameters["0.weight"][1] = 0
    net.parameters["0.bias"][:] = -0.0
    x = np.array([[1, -0.0]], np.float32)
    path = net.to_c(tmp_path / "net.c")
    assert_same_bits(run(compiled(path), "net", x, net(x)), net(x))


@needs_compiler
def test_clean_under_sanitizers(tmp_path, rng):
    net = branches()
    net.to_c(tmp_path / "net.c", batch=2)
    (tmp_path / "main.c").write_text(
        "#include <stdio.h>\n#include <stdlib.h>\nvoid net_forward(const float *x, float *y);\n"
        "int main(void)\n{\n    float *x = calloc(2 * 2 * 11 * 13, 4), *y = malloc(2 * 18 * 4);\n"
        '    net_forward(x, y);\n    net_forward(x, y);\n    printf("%.9g\\n", y[35]);\n'
        "    free(x);\n    free(y);\n    return 0;\n}\n"
    )
    command = [COMPILER, *WARNINGS[:4], "-g", "-O1", "-fsanitize=address,undefined"]
    command += ["-fno-sanitize-recover=all", "main.c", "net.c", "-o", "main", "-lm"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if done.returncode and "cannot find" in done.stderr:
        pytest.skip("no sanitizers here")
    assert done.returncode == 0, done.stderr
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    expected = net(np.zeros((2, 2, 11, 13), np.float32))
    assert np.float32(done.stdout) == expected[1, 17]


def test_file_is_whole_or_not_there(tmp_path, monkeypatch):
    net = policy()
    target = tmp_path / "net.c"
    target.write_text("before")
    monkeypatch.setattr("loopnest.network.export_c.headers", lambda real: iter([1]))
    with pytest.raises(TypeError):
        net.to_c(target)
    assert target.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["net.c"]


def test_wrong_arguments(tmp_path):
    net = policy()
    for name in ("1st", "a b", "int", "", 'x"; system("'):
        with pytest.raises(ValueError, match="name"):
            net.to_c(tmp_path / "net.c", name=name)
    with pytest.raises(ValueError, match="input_shape"):
        ln.Sequential(ln.Conv2d(1, 1, 3)).to_c(tmp_path / "net.c")
    with pytest.raises(ValueError, match="batch|shape"):
        net.to_c(tmp_path / "net.c", batch=-1)
    assert not list(tmp_path.iterdir())
    assert net.to_c(tmp_path / "1-odd name.c").exists()
    assert (
        "void n1_odd_name_forward(const float *x, float *y);"
        in (tmp_path / "1-odd name.c").read_text()
    )


def test_title_cannot_leave_its_comment(tmp_path):
    net = ln.Sequential(ln.Linear(1, 1), name="*/ int evil; /*")
    text = net.to_c(tmp_path / "net.c").read_text()
    assert "int evil; /*" not in text.replace("__ int evil_ __", "")
    assert lenet(name="x").name == "x"
