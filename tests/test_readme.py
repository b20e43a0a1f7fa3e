"""The README's examples run, and print what the comments beside them say."""

import contextlib
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import loopnest as ln

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_python_examples():
    source = "\n".join(blocks("python"))
    expected = re.findall(r"print\(.*\)  # (.*)", source)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "README.md", "exec"), {"__name__": "readme"})
    assert printed.getvalue().splitlines() == expected
    assert len(expected) >= 5


def test_c_example(tmp_path):
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler")
    if "c" not in ln.available_backends():
        pytest.skip("installed without the C extension")
    (source,) = blocks("c")
    (tmp_path / "main.c").write_text(source, encoding="utf-8")
    subprocess.run(
        [compiler, "main.c", f"-I{ln.get_include()}", f"-L{ln.get_library_dir()}"]
        + ["-lloopnest", "-lm", "-o", "main"],
        check=True,
        cwd=tmp_path,
    )
    done = subprocess.run([tmp_path / "main"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == re.search(r"printf.*/\* (.*) \*/", source).group(1)


def test_every_public_name_is_told():
    told = set(re.findall(r"\w+", README))
    public = {
        n for n in dir(ln) if n.islower() and not n.startswith("_") and callable(getattr(ln, n))
    }
    assert {n for n in public if not n.endswith("_backward")} <= told
