"""`loopnest sweep`: the map, its file, its picture, interrupting and resuming, bad input."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_same_bits, hear_interrupts

import loopnest as ln
from loopnest.app import cli, sweep

SMALL = ["--lr", "0.1:10:7", "--start", "-3:2:9", "--steps", "200", "--backend", "c"]


def _run(*arguments):
    return cli.main(["sweep", *arguments])


def _map(path):
    with np.load(path) as file:
        return dict(file)


def test_the_map_is_that_of_descend(tmp_path, capsys):
    out = tmp_path / "map.npz"
    assert _run(*SMALL, "--out", str(out)) == 0
    found = _map(out)
    lr, start = np.geomspace(0.1, 10, 7), np.linspace(-3, 2, 9)
    assert_same_bits((found["lr"], found["start"]), (lr, start))
    with ln.use_backend("c"):
        expected = ln.descend("gelu", start, lr=lr[:, None], steps=200, tol=1e-6)
    for name in ("x", "fun", "steps", "converged", "diverged"):
        assert_same_bits(found[name], getattr(expected, name), name)
    assert found["done"].all()
    assert "63 problems" in capsys.readouterr().out
    assert [p.name for p in tmp_path.iterdir()] == ["map.npz"]


def test_over_momentum_in_float32(tmp_path):
    out = tmp_path / "map.npz"
    options = ["--method", "momentum", "--convention", "heavy-ball", "--dtype", "float32"]
    arguments = [*SMALL[:2], *SMALL[4:], "--start", "-1.5", "--momentum", "0:0.9:4", *options]
    assert _run("silu", *arguments, "--out", str(out)) == 0
    found = _map(out)
    with ln.use_backend("c"):
        expected = ln.descend(
            "silu", np.float32(-1.5), lr=np.geomspace(0.1, 10, 7)[:, None],
            momentum=np.linspace(0, 0.9, 4), method="momentum", convention="heavy-ball",
            steps=200, tol=1e-6,
        )  # fmt: skip
    assert found["x"].dtype == np.float32 and found["x"].shape == (7, 4)
    assert_same_bits(found["x"], expected.x)


FUNCTIONS = """
def f(x):
    return (x - 1) ** 2

def df(x):
    return 2 * (x - 1)
"""


@pytest.mark.parametrize("names", ["f", "f,df"])
def test_functions_from_a_file(names, tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTIONS, encoding="utf-8")
    out = tmp_path / "map.npz"
    assert _run(f"{tmp_path}/mine.py:{names}", *SMALL, "--out", str(out)) == 0
    found = _map(out)
    slow = found["lr"] < 0.9  # |1 - 2 lr| < 1
    np.testing.assert_allclose(found["x"][slow], 1, atol=1e-5)
    assert found["converged"][slow].all()
    start = np.linspace(-3, 2, 9)
    assert (np.abs(found["x"][~slow] - 1) >= 0.999 * np.abs(start - 1)).all()


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "map.png"
    arguments = ["--lr", "0.1:1e3:6", "--start", "-2:2:5", "--steps", "50", "--backend", "c"]
    (tmp_path / "mine.py").write_text(FUNCTIONS, encoding="utf-8")
    objective = f"{tmp_path}/mine.py:f,df"
    out = str(tmp_path / "map.npz")
    assert _run(objective, *arguments, "--out", out, "--plot", str(picture)) == 0
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.npz", "map.png", "mine.py"] or (
        (tmp_path / "__pycache__").exists()
    )


SLOW = """
import pathlib
import time

calls = 0

def f(x):
    return (x - 1) ** 2

def df(x):
    global calls
    calls += 1
    if calls == 40:  # a few rows of the map are done; the others take long
        pathlib.Path("begun").touch()
    time.sleep(0.002 if calls < 40 else 0.05)
    return 2 * (x - 1)
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_interrupt_keeps_what_is_done_and_resume_goes_on(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW, encoding="utf-8")
    arguments = ["slow.py:f,df", "--lr", "0.1:0.9:40", "--start", "-3:2:5", "--steps", "30"]
    arguments += ["--backend", "c"]
    command = [sys.executable, "-m", "loopnest.app.cli", "sweep", *arguments, "--out", "map.npz"]
    code = "import sys; from loopnest.app import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *command[3:]]
    child = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists() and child.poll() is None:
        time.sleep(0.02)
    while child.poll() is None and time.monotonic() < deadline:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(1)
        except subprocess.TimeoutExpired:
            continue
    output = child.communicate()[0]
    assert child.returncode == 130 and "--resume" in output
    done = _map(tmp_path / "map.npz")["done"]
    assert not done.all()

    fast = SLOW.replace("time.sleep(0.002 if calls < 40 else 0.05)", "pass")
    (tmp_path / "slow.py").write_text(fast, encoding="utf-8")
    before = _map(tmp_path / "map.npz")
    subprocess.run([*command, "--resume"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    whole = [*command[:-1], "whole.npz"]
    subprocess.run(whole, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    resumed, expected = _map(tmp_path / "map.npz"), _map(tmp_path / "whole.npz")
    for name, array in expected.items():
        assert_same_bits(resumed[name], array, name)
    assert_same_bits(resumed["x"][done], before["x"][done])


def test_an_interrupted_call_saves_its_rows(tmp_path, monkeypatch):
    settings = sweep.Settings("gelu", (0.1, 1, 6), "start", (-1, 1, 4), 0.0, steps=20)
    path, calls = tmp_path / "map.npz", []
    compute = sweep.Map.compute_rows

    def interrupted(self, first, last, objective):
        if first >= 2:
            raise KeyboardInterrupt
        calls.append((first, last))
        compute(self, first, min(last, 2), objective)

    with ln.use_backend("c"):
        monkeypatch.setattr(sweep.Map, "compute_rows", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep.run(settings, path)
        monkeypatch.setattr(sweep.Map, "compute_rows", compute)
        assert 0 < _map(path)["done"].sum() < 6
        resumed = sweep.run(settings, path, resume=True)
        expected = sweep.run(settings, tmp_path / "whole.npz")
    assert resumed.done.all()
    for name, array in expected.arrays.items():
        assert_same_bits(resumed.arrays[name], array, name)


def test_resume_refuses_another_map(tmp_path, capsys):
    out = tmp_path / "map.npz"
    assert _run(*SMALL, "--out", str(out)) == 0
    with pytest.raises(SystemExit):
        _run(*SMALL, "--tol", "1e-3", "--out", str(out), "--resume")
    assert "holds another map" in capsys.readouterr().err
    out.write_bytes(b"no NPZ")
    with pytest.raises(SystemExit):
        _run(*SMALL, "--out", str(out), "--resume")
    assert "is no map" in capsys.readouterr().err
    assert out.read_bytes() == b"no NPZ"


BAD = {
    "cosh": "objective is 'cosh'",
    "nowhere.py:f": "cannot be loaded",
    "math:f,g,h": "accepted: FILE.py:f",
    "math:nothing": "accepted: FILE.py:f",
    "--lr 0:1:5": "accepted: a number above 0",
    "--lr 1:0.1:5": "accepted: from <= to",
    "--lr 1:2": "FROM:TO:COUNT",
    "--start 1": "must be a range",
    "--start x": "a number or FROM:TO:COUNT",
    "--momentum 0:1:3": "must be a range",
    "--steps -1": "steps is -1",
    "--tol -1": "tol is -1",
    "--momentum -1": "momentum is or has -1",
    "--out /nowhere/map.npz": "a file in a folder that exists",
    "--plot /nowhere/map.png": "a file in a folder that exists",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_input(text, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        _run(*text.split(), "--backend", "c")
    assert stopped.value.code == 2
    assert BAD[text] in " ".join(capsys.readouterr().err.split())
    assert not list(Path(tmp_path).iterdir())
