"""The C library as its own Makefile builds it: static, shared, installed, under sanitizers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import loopnest as ln

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("filter", "train")
COMPILER = shutil.which("gcc") or shutil.which("cc")
WARNINGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-O1")

pytestmark = pytest.mark.skipif(
    not (COMPILER and shutil.which("make")), reason="no C compiler or no make"
)


def call(*command: object, **options) -> str:
    done = subprocess.run([str(c) for c in command], text=True, capture_output=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def build(folder: Path, *variables: str) -> Path:
    """Build and install; the prefix."""
    prefix = folder / "prefix"
    call("make", "-C", ROOT / "csrc", f"OUT={folder / 'out'}", f"PREFIX={prefix}", "install",
         *variables, env={**os.environ, "CC": str(COMPILER)})  # fmt: skip
    return prefix


@pytest.fixture(scope="session")
def prefix(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


def test_installed_files(prefix):
    names = {p.name for p in (prefix / "lib").iterdir()}
    assert {"libloopnest.a", "libloopnest.so", "pkgconfig"} <= names
    header = (prefix / "include" / "loopnest.h").read_text()
    assert header == (Path(ln.get_include()) / "loopnest.h").read_text()
    exported = call("nm", "-D", "--defined-only", prefix / "lib" / "libloopnest.so").split()[2::3]
    assert all(name.startswith("ln_") for name in exported), exported
    declared = set(re.findall(r"\b(ln_\w+)\(", header))
    assert declared <= set(exported)


@pytest.mark.parametrize("kind", ["static", "shared"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, kind, prefix, tmp_path):
    source, program = ROOT / "examples" / "c" / f"{name}.c", tmp_path / name
    if kind == "static":
        rest = [prefix / "lib" / "libloopnest.a", "-lm", "-pthread"]
    else:
        rest = [f"-L{prefix / 'lib'}", "-lloopnest", f"-Wl,-rpath,{prefix / 'lib'}", "-lm"]
    call(COMPILER, *WARNINGS, source, f"-I{prefix / 'include'}", *rest, "-o", program)
    check(name, call(program))


def check(name: str, said: str) -> None:
    if name == "train":
        answers = [float(v) for v in re.findall(r"xor \d = ([\d.]+)", said)]
        assert [round(v) for v in answers] == [0, 1, 1, 0]
    else:
        assert said.count("\n") == 17 and "sum 122" in said


def test_pkg_config(prefix, tmp_path):
    """With the system's pkg-config, else the one of the package pkgconf beside the interpreter."""
    folder = tmp_path / "c"
    shutil.copytree(ROOT / "examples" / "c", folder, ignore=lambda *_: EXAMPLES)
    programs = os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)])
    found = {
        **os.environ, "PATH": programs, "PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")
    }  # fmt: skip
    assert call("pkg-config", "--modversion", "loopnest", env=found).strip() == ln.__version__
    call("make", "-C", folder, env=found)
    check("train", call(folder / "train", env={**found, "LD_LIBRARY_PATH": str(prefix / "lib")}))


def test_uninstall(prefix, tmp_path):
    copy = tmp_path / "prefix"
    shutil.copytree(prefix, copy, symlinks=True)
    call("make", "-C", ROOT / "csrc", "uninstall", f"PREFIX={copy}")
    assert not [p for p in copy.rglob("*") if not p.is_dir()]


def test_examples_are_clean_under_sanitizers(tmp_path):
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
    if subprocess.run(
        [COMPILER, *flags, probe, "-o", tmp_path / "probe"], capture_output=True
    ).returncode:
        pytest.skip("no sanitizers here")
    prefix = build(tmp_path, "EXTRA=" + " ".join(flags))
    for name in EXAMPLES:
        program = tmp_path / name
        call(COMPILER, *WARNINGS, *flags, ROOT / "examples" / "c" / f"{name}.c",
             f"-I{prefix / 'include'}", prefix / "lib" / "libloopnest.a", "-lm", "-pthread",
             "-o", program)  # fmt: skip
        check(name, call(program))
