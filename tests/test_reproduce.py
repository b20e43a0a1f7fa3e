"""The main job and its neighbours, through the command line's own entry."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

import loopnest as ln
from loopnest.app import cli, info, reproduce, warmup, worked_problems, worked_sheet
from loopnest.ops import activation
from loopnest.runtime import backend, replay, terminal

BACKENDS = ln.available_backends()


@pytest.fixture(scope="module")
def report():
    return reproduce.reproduce()


def rows_of(report):
    return {(t.problem.key, row.quantity): row for t in report.tables for row in t.rows}


def test_every_backend_is_right_and_bits_agree(report):
    assert report.backends == BACKENDS
    assert report.passed
    assert report.count("wrong") == 0
    assert all(row.bits_equal for row in rows_of(report).values())


def test_every_printed_number_is_judged(report):
    judged = rows_of(report)
    for problem, quantities in worked_sheet.PRINTED.items():
        for quantity, text in quantities.items():
            row = judged[problem, quantity]
            assert row.printed == tuple(text.split())
            assert row.status in ("agrees", "sheet")
    assert set(worked_sheet.SLIPS) <= set(judged)


def test_where_the_sheet_is_off(report):
    off = {key: row.verdict for key, row in rows_of(report).items() if row.status == "sheet"}
    assert set(off) == {
        ("1a", "slope at x2"),
        ("1c", "GELU(x3)"),
        ("2", "AND sigmoid"),
        ("2", "OR sigmoid"),
        ("3", "(b) dE/dx"),
        ("4", "(b) ways to 4x4 in all"),
    }
    assert "0.418875 is cut, not rounded (0.418876)" in off["1a", "slope at x2"]
    assert "sigmoid(-0.5) is 0.3775" in off["2", "AND sigmoid"]
    assert "0.817 is cut, not rounded (0.818)" in off["2", "OR sigmoid"]
    assert "padding 1 only" in off["4", "(b) ways to 4x4 in all"]


def test_long_runs_reach_the_minimum(report):
    rows = rows_of(report)
    for name in ("plain descent", "momentum, ema", "momentum, heavy-ball", "momentum, lookback"):
        (x,) = rows["1c long", f"{name}: x"].values[BACKENDS[0]]
        assert abs(x - worked_problems.MINIMUM) < 1e-9
        (steps,) = rows["1c long", f"{name}: steps"].values[BACKENDS[0]]
        assert 0 < steps < 1000


def test_steps_to_minimum():
    m = worked_problems.MINIMUM
    assert worked_problems.steps_to_minimum([0, m, 1, m, m]) == 3
    assert worked_problems.steps_to_minimum([m, m]) == 0
    assert worked_problems.steps_to_minimum([m, 0]) == math.inf
    assert worked_problems.steps_to_minimum([m, math.nan, m]) == 2


@pytest.mark.parametrize(
    ("printed", "value", "expected"),
    [
        ("0.5", 0.5, None),
        ("0.123", 0.12349999, None),
        ("-0.0247", -0.024701, None),
        ("0.817", 0.8176, "cut, not rounded"),
        ("-0.12", -0.1051, "was rounded by hand, 1.5 units"),
        ("-0.12", -0.1251, "cut, not rounded (-0.13)"),
        ("0.13", 0.1201, "was rounded by hand, 1.0 units"),
        ("0.3", 0.9, "is off, reason unknown"),
    ],
)
def test_judge_number(printed, value, expected):
    reason = reproduce.judge_number(printed, value)
    assert reason is None if expected is None else expected in reason


@pytest.mark.parametrize("name", BACKENDS)
def test_command_on_one_backend(name, tmp_path, capsys):
    before = ln.get_backend()
    file = tmp_path / "report.json"
    assert cli.main(["reproduce", "--backend", name, "--json", str(file)]) == 0
    assert ln.get_backend() == before
    printed = capsys.readouterr().out
    assert "4 Convolution and pooling" in printed
    assert "sheet:" in printed
    assert "One backend only" in printed
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    assert json.loads(file.read_text())["backends"] == [name]


def test_json_content(report, tmp_path):
    file = tmp_path / "report.json"
    file.write_text("old")
    reproduce.write_json(report, file)
    data = json.loads(file.read_text())
    assert data["passed"] is True
    found = {
        (problem["problem"], quantity["quantity"]): quantity
        for problem in data["problems"]
        for quantity in problem["quantities"]
    }
    assert set(found) == set(rows_of(report))
    row = found["4", "(c) average pooling row 1"]
    assert row["printed"] == ["17.75", "16.75"]
    assert row["values"] == {name: [17.75, 16.75] for name in BACKENDS}
    assert row["verdict"] == row["status"] == "agrees"
    assert row["bits_equal"] is True
    assert found["3", "f1"]["printed"] is None
    assert len(data["problems"]) == len(worked_problems.PROBLEMS)


def wrong_gelu(monkeypatch, name, change):
    """Make the gelu of one backend wrong."""
    with ln.use_backend(name):
        row = backend.kernels.activation
    right = row.gelu

    def gelu(x, y):
        right(x, y)
        y[:] = change(y)

    monkeypatch.setattr(row, "gelu", gelu)
    # A call that came before is repeated with the kernel it had.
    for value in vars(activation).values():
        for op in value.values() if isinstance(value, dict) else [value]:
            if isinstance(op, replay.Op):
                monkeypatch.setattr(op, "call", replay._never)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_wrong_backend_is_found(name, monkeypatch, tmp_path, capsys):
    wrong_gelu(monkeypatch, name, lambda y: y * 1.001)
    file = tmp_path / "r.json"
    assert cli.main(["reproduce", "--json", str(file)]) == 1
    assert "WRONG" in capsys.readouterr().out
    data = json.loads(file.read_text())
    assert data["passed"] is False
    quantities = [q for p in data["problems"] for q in p["quantities"]]
    assert any({"numba": "Numba", "c": "C"}[name] in q["verdict"] for q in quantities)


def test_nan_is_wrong_and_still_json(monkeypatch, tmp_path):
    wrong_gelu(monkeypatch, BACKENDS[0], lambda y: y * np.nan)
    file = tmp_path / "r.json"
    assert cli.main(["reproduce", "--json", str(file)]) == 1
    assert "nan" in file.read_text()


@pytest.mark.skipif(len(BACKENDS) < 2, reason="one backend has nothing to differ from")
def test_one_bit_of_difference_is_found(monkeypatch):
    wrong_gelu(monkeypatch, "c", lambda y: np.nextafter(y, y.dtype.type(1)))
    report = reproduce.reproduce()
    assert not report.passed
    assert "the backends differ in bits" in rows_of(report)["1a", "GELU(x1)"].verdict


def test_plots(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "new" / "plots"
    assert cli.main(["reproduce", "--backend", BACKENDS[0], "--plots", str(folder)]) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert [name.split("_")[0] for name in names] == ["1", "1c", "2", "4"]
    for path in folder.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 10_000
    assert "Wrote" in capsys.readouterr().out


def test_plots_without_matplotlib(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["reproduce", "--plots", str(tmp_path)])
    assert stopped.value.code == 2
    assert "pip install matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["reproduce", "--backend", "cuda"], "invalid choice: 'cuda'"),
        (["reproduce", "--json", "/nonexistent/r.json"], "--json is '/nonexistent/r.json'"),
        (["warmup", "conv2"], "did you mean 'conv2d'"),
        (["warmup", "zzzzzz"], "rows: activation, convolution"),
        (["warmup", "--dtype", "float16"], "invalid choice: 'float16'"),
        (["repro"], "invalid choice: 'repro'"),
    ],
)
def test_bad_usage(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_backend_says_how_to_get_it(monkeypatch, capsys):
    def missing():
        raise ImportError("use_backend: backend 'c' cannot be had (gone)")

    monkeypatch.setattr(backend, "_load_c", missing)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["reproduce", "--backend", "c"])
    assert stopped.value.code == 2
    assert "backend 'c' cannot be had" in capsys.readouterr().err


def test_a_file_in_the_way_of_the_plots(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "file").write_text("")
    arguments = ["reproduce", "--backend", BACKENDS[0], "--plots", str(tmp_path / "file")]
    assert cli.main(arguments) == 2
    assert "loopnest: " in capsys.readouterr().err


def test_info(capsys):
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    for text in ("loopnest", "numpy", "cffi", "CPU features", "threads", "cache", ln.__version__):
        assert text in printed
    assert ", ".join(BACKENDS) in printed


def test_info_tells_of_wrong_settings(monkeypatch, capsys):
    def wrong():
        raise ValueError("LOOPNEST_BACKEND: name is 'cuda'")

    monkeypatch.setattr(info, "get_backend", wrong)
    assert cli.main(["info"]) == 0
    assert "error: LOOPNEST_BACKEND: name is 'cuda'" in capsys.readouterr().out


def test_version(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"loopnest {ln.__version__}\n"


@pytest.mark.skipif("numba" not in BACKENDS, reason="only numba is warmed up")
def test_warmup_runs(capsys):
    before = ln.get_backend()
    assert cli.main(["warmup", "gates", "sigmoid", "--dtype", "float32"]) == 0
    assert "3/3" in capsys.readouterr().out  # gates: the 16 functions, and logic networks
    assert ln.get_backend() == before


def test_warmup_without_numba(monkeypatch, capsys):
    monkeypatch.setattr(cli, "available_backends", lambda: ["c"])
    assert cli.main(["warmup"]) == 0
    assert "nothing to compile" in capsys.readouterr().out


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("op", warmup.select([]))
def test_every_warmup_call_is_valid(op, name):
    with ln.use_backend(name):
        for dtype in (np.float32, np.float64):
            warmup.select([op])[op](np.dtype(dtype))


def test_warmup_knows_every_kernel():
    """Every public function that computes can be warmed up."""
    every = set(warmup.select([])) - {"LogicNetwork", "Network"}
    public = {
        name
        for name in dir(ln)
        if callable(getattr(ln, name)) and not isinstance(getattr(ln, name), type)
    }
    not_kernels = {
        "gate",
        "load_onnx",
        "pack_weight",
        "conv2d_output_shape",
        "conv2d_paddings_for",
        "average_filter",
    }
    not_kernels |= {"available_backends", "get_backend", "use_backend", "get_num_threads"}
    not_kernels |= {"set_num_threads", "get_include", "get_library_dir"}
    assert public - not_kernels == every


def test_without_rich(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "RICH", False)
    terminal.show_table("title", ["a", "b"], [[("x", ""), ("long", "red")]])
    terminal.show("done")
    assert list(terminal.progress(["p"], "warmup")) == ["p"]
    assert capsys.readouterr().out.splitlines() == [
        *("title", "  a  b", "  x  long", "done", "warmup 1/1 p"),
    ]


def test_the_installed_command():
    found = subprocess.run(
        [sys.executable, "-m", "loopnest.app.cli", "info"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "backends available" in found.stdout
