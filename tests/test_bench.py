"""The benchmark's harness: what it refuses, keeps, verifies and writes. No test looks at times."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from cases import PACKED, ROW_OF, STEPS, WINOGRAD, bench_cases
from helpers import hear_interrupts
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import loopnest as ln

BENCH = Path(__file__).resolve().parent.parent / "bench"
if not BENCH.is_dir():
    pytest.skip("the benchmark is not part of the installed package", allow_module_level=True)
sys.path.insert(0, str(BENCH))

compare = pytest.importorskip("compare")
harness = pytest.importorskip("harness")
jobs = pytest.importorskip("jobs")
machine = pytest.importorskip("machine")
peers = pytest.importorskip("peers")
results = pytest.importorskip("results")
targets = pytest.importorskip("targets")
text = pytest.importorskip("text")
timing = pytest.importorskip("timing")


@pytest.fixture(autouse=True)
def all_cores():
    """A measured row keeps the whole process to one core; the next test has all of them."""
    yield
    machine.keep_to(machine.usable_cores())


def case_named(name):
    return next(case for case in bench_cases() if str(case) == name)


def row_named(name, threads=1):
    return harness.Row(case_named(name), np.dtype(np.float32), threads)


def board(tmp_path, **competitors):
    """A board that measures little and quickly."""
    settings = harness.Settings(batch_ms=0.01, limits=False)
    run = results.Run(tmp_path / "run.json", limits=None, machine={}, settings={})
    return harness.Board(settings, run, competitors)


class Relu(peers.Peer):
    """A peer made for a test: correct, unless told otherwise."""

    name = "made up"

    def __init__(self, ours=False, change=lambda y: y, prepare_error=None):
        super().__init__()
        self.ours, self._change, self._prepare_error = ours, change, prepare_error

    def relu(self, case, x):
        if self._prepare_error:
            raise self._prepare_error
        return timing.Prepared(lambda: self._change(np.maximum(x, 0)))


def measured(tmp_path, **competitors):
    return board(tmp_path, **competitors).record(row_named("relu-65536"))["competitors"]


# ---- the table ----


def test_names_are_unique_and_the_quick_set_has_every_op():
    names = [str(case) for case in bench_cases()]
    assert len(names) == len(set(names))
    assert set(targets.QUICK) <= set(names)
    quick = {case_named(name).op for name in targets.QUICK}
    assert quick == {*ROW_OF, *STEPS, "descend", "gate_forward", "network_step", "network_forward"}


def test_targets_and_what_only_our_call_gets():
    cases = {str(case): case for case in bench_cases()}
    assert set(targets.TARGETS) <= set(cases)
    assert all(cases[f"{name}-packed"].packed for name in PACKED)
    assert all(cases[f"{name}-winograd"].own for name in WINOGRAD)
    # Neither peers nor the reference see our own options.
    assert all("algorithm" not in case.options for case in cases.values())


def test_jobs_have_a_reference_and_are_verified(tmp_path):
    for op in jobs.JOBS:
        assert callable(getattr(harness.REFERENCE, op))
    if not hasattr(ln, "LogicNetwork"):
        with pytest.raises(NotImplementedError, match="no LogicNetwork"):
            jobs.prepare(case_named("logic_predict-512x6x8000"), ())
        return
    row = row_named("logic_predict-512x6x8000")
    columns = board(tmp_path, numba=peers.Numba(), c=peers.C()).record(row)["competitors"]
    assert {name: c["state"] for name, c in columns.items()} == {"numba": "ok", "c": "ok"}


def test_counts_of_threads_above_one_are_for_rows_with_work():
    settings = harness.Settings(only=("conv2d-seed", "conv2d-r56"), threads=(1, 2))
    assert list(map(str, settings.rows())) == [
        "conv2d-seed", "conv2d-r56", "conv2d-r56-2threads"
    ]  # fmt: skip
    assert len(harness.Settings(only=("conv2d-seed",), threads=(2,)).rows()) == 1


def test_cost_of_a_call_is_that_beyond_its_kernels():
    overhead = pytest.importorskip("overhead")
    x, y = np.ones(16, np.float32), np.empty(16, np.float32)
    calls = overhead.kernel_calls(ln.relu, (x,), {"out": y})
    ((kernel, arguments),) = calls
    y[:] = 7
    kernel(*arguments)
    assert (y == 1).all()


def test_every_row_has_a_file():
    for case in bench_cases():
        assert (BENCH / f"bench_{case.row}.py").is_file()
        assert case.bytes(np.float32) > 0


@pytest.mark.parametrize(
    ("word", "op"), [("conv", "conv2d"), ("dw", "conv2d"), ("sweep gelu", "gelu"), ("Gates", None)]
)
def test_selection_by_op_name_or_cell(word, op):
    chosen = harness.select((word,), full=False)
    assert chosen
    assert op is None or op in {case.op for case in chosen}


def test_selection_takes_the_quick_cases_first():
    assert {str(c) for c in harness.select(("conv2d",), False)} <= set(targets.QUICK)
    assert len(harness.select(("conv2d",), True)) > len(harness.select(("conv2d",), False))


# ---- bad input ----


def test_unknown_case_names_the_nearest():
    with pytest.raises(ValueError, match="'conv2d-r65' names no op.*conv2d-r56"):
        harness.select(("conv2d-r65",), False)


def test_unknown_peer_names_the_nearest():
    with pytest.raises(ValueError, match="'pytorch' is not known; nearest: .*torch"):
        peers.choose(["pytorch"])


def test_unknown_file_names_the_nearest(tmp_path, monkeypatch):
    (tmp_path / "20240607-101112").mkdir()
    (tmp_path / "20240607-101112" / "run.json").write_text("{}")
    monkeypatch.setattr(compare, "PLACES", (tmp_path,))
    with pytest.raises(ValueError, match="no file, folder or stored run; nearest: 20240607"):
        compare.find("20240607-101113")
    with pytest.raises(ValueError, match="no run of this benchmark"):
        results.load(compare.find("20240607-101112"))


@pytest.mark.parametrize(
    "setting", [{"ROUNDS": "3"}, {"ROUNDS": "x"}, {"THREADS": "0"}, {"DTYPES": "float16"}]
)
def test_bad_settings(setting):
    with pytest.raises(ValueError, match="accepted"):
        harness.settings_from({f"LOOPNEST_BENCH_{k}": v for k, v in setting.items()})


# ---- what a competitor can do to a run ----


def test_a_wrong_result_is_an_error_and_not_a_number(tmp_path):
    columns = measured(tmp_path, numba=Relu(True, lambda y: y + 0.01), peer=Relu())
    assert columns["numba"]["state"] == "wrong"
    assert "differ from the reference" in columns["numba"]["error"]
    assert "samples_ns" not in columns["numba"] and "best_ns" not in columns["numba"]
    assert columns["peer"]["state"] == "ok"


def test_a_wrong_shape_is_an_error(tmp_path):
    columns = measured(tmp_path, numba=Relu(True, lambda y: y[1:]))
    assert columns["numba"]["state"] == "wrong" and "shape" in columns["numba"]["error"]


def test_a_crash_costs_one_column(tmp_path):
    calls = []

    def later(y):
        calls.append(1)
        if len(calls) > 3:
            raise MemoryError("too much")
        return y

    columns = measured(
        tmp_path, numba=Relu(True), early=Relu(prepare_error=OSError("broken")),
        late=Relu(change=later), unable=Relu(prepare_error=NotImplementedError()),
    )  # fmt: skip
    assert columns["numba"]["state"] == "ok"
    assert columns["early"] == {"state": "failed", "error": "OSError: broken"}
    assert columns["late"]["state"] == "failed" and "too much" in columns["late"]["error"]
    assert "unable" not in columns


def test_a_missing_peer_is_named(monkeypatch):
    class Missing(peers.Peer):
        name = "missing"
        requires = ("no_such_module_anywhere",)

    monkeypatch.setattr(peers, "known", lambda: {"missing": Missing, "made up": Relu})
    usable, missing = peers.choose(None)
    assert list(usable) == ["made up"]
    assert "no_such_module_anywhere" in missing["missing"]


@pytest.mark.parametrize("name", sorted(n for n, p in peers.known().items() if p.requires))
def test_each_peer_may_be_missing(name):
    """In a process of its own, for peers keep what they have imported."""
    module = peers.known()[name].requires[0].partition(".")[0]
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        f"sys.path[:0] = {[str(BENCH), str(BENCH.parent / 'tests')]!r}\n"
        "import peers, session\n"
        f"usable, missing = peers.choose([{name!r}])\n"
        "print(session.describe(usable, missing))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'state': 'missing'" in done.stdout and "ModuleNotFoundError" in done.stdout


def test_steps_are_verified_by_what_they_change(tmp_path):
    record = board(tmp_path, numba=peers.Numba(), c=peers.C()).record(row_named("sgd_step-100000"))
    assert {c["state"] for c in record["competitors"].values()} == {"ok"}
    assert record["footprint"] < record["bytes"]


# ---- what is kept ----


def test_every_row_is_written_at_once_and_whole(tmp_path):
    measuring = board(tmp_path, numba=Relu(True), peer=Relu())
    measuring.record(row_named("relu-65536"))
    stored = results.load(tmp_path / "run.json")
    assert stored["status"] == "interrupted"  # until the run says that it is complete
    (record,) = stored["rows"]
    column = record["competitors"]["numba"]
    assert len(column["samples_ns"]) >= timing.ROUNDS
    assert column["best_ns"] == min(column["samples_ns"])
    assert record["ratios"]["numba"]["peer"].keys() == {"ratio", "paired_ratio", "differs"}
    assert not list(tmp_path.glob("*.tmp"))


def run(*words, **more):
    # Settings come as arguments; variables of an outer run would mix in, and pytest-benchmark
    # measures nothing where it finds those of an xdist worker.
    outer = ("LOOPNEST_BENCH", "PYTEST_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
    command = [sys.executable, str(BENCH / "run.py"), "--no-limits", "--no-startup", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment, **more)  # fmt: skip


def test_a_whole_run(tmp_path):
    process = run("--only", "relu-65536,conv2d-seed", "--peers", "numba,c,numpy", "--batch-ms",
                  "0.1", "--out", str(tmp_path), "--note", "a <b> note")  # fmt: skip
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    data = results.load(tmp_path / "run.json")
    assert data["status"] == "complete"
    assert {r["id"] for r in data["rows"]} == {"relu-65536", "conv2d-seed"}
    assert data["machine"].keys() >= {"cpu", "cpu_flags", "cores", "governor", "commit", "dirty"}
    assert data["harness"]["overhead_ns"] > 0
    for record in data["rows"]:
        assert {"numba", "c", "numpy"} <= record["competitors"].keys()
        assert record["id"] in out
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "a &lt;b&gt; note" in page and "<img" not in page and "src=" not in page
    assert "relu-65536" in (tmp_path / "table.md").read_text(encoding="utf-8")
    plain = json.loads((tmp_path / "pytest-benchmark.json").read_text(encoding="utf-8"))
    assert len(plain["benchmarks"]) == 6 and plain["machine_info"]
    for line in compare.differences(data, data):
        assert line["ratio"] == 1 and not line["differs"]
    assert not compare.changed_sides(data, data)


def test_a_row_that_nobody_can_do_does_not_make_a_run_incomplete(tmp_path):
    session = pytest.importorskip("session")
    measuring = board(tmp_path, peer=Relu())
    measuring.settings.only = ("relu-65536", "adamw_step-100000")
    measuring.record(row_named("relu-65536"))
    session.close(measuring)
    assert measuring.run.data["status"] == "complete"
    measuring.settings.only = ("relu-65536", "relu_backward-65536")
    measuring.competitors["other"] = peers.Numba()
    session.close(measuring)
    assert measuring.run.data["status"] == "interrupted"


def test_an_interrupted_run_keeps_what_it_measured(tmp_path):
    where = "--out", str(tmp_path)
    process = run(
        "--only", "activation", "--peers", "numba,numpy", *where, preexec_fn=hear_interrupts
    )
    stored = tmp_path / "run.json"
    deadline = time.monotonic() + 100
    while not stored.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    data = results.load(stored)
    assert data["status"] == "interrupted" and data["rows"]
    assert "rows were kept" in err and data["rows"][0]["id"] in out
    assert (tmp_path / "index.html").exists()


def test_an_unknown_name_ends_the_command_with_a_message(tmp_path):
    process = run("--only", "convolutoin", "--out", str(tmp_path / "none"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "nearest: convolution" in err and "Traceback" not in err
    assert not (tmp_path / "none").exists()


def test_publishing_a_run(tmp_path, monkeypatch):
    publish = pytest.importorskip("publish")
    measuring = board(tmp_path / "run", numba=Relu(True), peer=Relu())
    measuring.run.path = tmp_path / "run" / "run.json"
    measuring.record(row_named("relu-65536"))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmark -->\nold\n<!-- /benchmark -->\nafter\n")
    monkeypatch.setattr(publish, "README", readme)
    monkeypatch.setattr(publish, "HERE", tmp_path)
    monkeypatch.setattr(publish.files, "write", lambda data, folder: [])
    with pytest.raises(ValueError, match="is interrupted; accepted: a complete run"):
        publish.publish(str(tmp_path / "run"))
    assert "old" in readme.read_text()
    measuring.run.data["machine"] = {"cpu": "a CPU", "cores": 2}
    measuring.run.finish("complete")
    folder = publish.publish(str(tmp_path / "run"))
    text_now = readme.read_text()
    assert text_now.startswith("before") and text_now.endswith("after\n") and "old" not in text_now
    assert f"({folder.relative_to(tmp_path)}/ratios.png)" in text_now and "a CPU" in text_now
    (stored,) = results.load(folder / "run.json")["rows"]
    kept = stored["competitors"]["numba"]["samples_ns"]
    raw = measuring.run.data["rows"][0]["competitors"]["numba"]["samples_ns"]
    assert kept == pytest.approx(raw, rel=1e-4)


# ---- figures ----


def test_rank_test_is_mann_whitney():
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.5, 3.0):
        a, b = rng.normal(size=9).round(1), (rng.normal(size=12) + shift).round(1)
        expected = stats.mannwhitneyu(a, b, method="asymptotic").pvalue
        assert timing.rank_test(list(a), list(b)) == pytest.approx(expected, rel=1e-9)
    assert timing.rank_test([1.0] * 9, [1.0] * 9) == 1.0


def test_the_compiled_loop_calls_as_a_user_would():
    seen = []
    loop = timing.make_loop(lambda *a, **k: seen.append((a, k)), (1, 2), {"out": 3})
    loop(2)
    assert seen == [((1, 2), {"out": 3})] * 2


def test_limit_is_the_longer_of_arithmetic_and_data():
    levels = [{"name": "L1", "bytes": 1000}]
    limits = {"single": {"gflops": {"float32": 10.0},
                         "gbs": {"L1": {"read": 5.0}, "memory": {"read": 1.0}}}}  # fmt: skip
    record = {"dtype": "float32", "threads": 1, "flops": 100, "bytes": 500, "footprint": 500}
    assert results.limit_of(record, limits, levels) == {"ns": 100.0, "by": "L1", "level": "L1"}
    record |= {"flops": 20000, "footprint": 5000}
    assert results.limit_of(record, limits, levels)["by"] == "arithmetic"
    # Half of the data fits into L1, half is fetched from memory: 500 / 5 + 500 / 1 ns.
    record |= {"flops": 1, "footprint": 2000, "bytes": 1000}
    assert results.limit_of(record, limits, levels) == {"ns": 600.0, "by": "memory",
                                                        "level": "memory"}  # fmt: skip
    record |= {"flops": 36_000, "fewest_flops": 16_000}
    assert results.limit_of(record, limits, levels)["ns"] == 1600.0
    assert results.better_limits({"a": {"b": 1}}, {"a": {"b": 2}}) == {"a": {"b": 2}}


@pytest.mark.parametrize(
    ("ns", "words"), [(12.34, "12.3 ns"), (999.0, "999 ns"), (1500.0, "1.50 us"), (2e9, "2.00 s")]
)
def test_times_as_people_read_them(ns, words):
    assert text.time_of(ns) == words


class Spinning(Relu):
    """A right peer that keeps a second thread busy while the clock runs."""

    def relu(self, case, x):
        def run(a):
            other = threading.Thread(target=lambda: stats.norm.rvs(size=200_000, random_state=1))
            other.start()
            y = np.maximum(stats.norm.rvs(size=200_000, random_state=1)[:1] * 0, a)
            other.join()
            return y

        return timing.Prepared(run, (x,))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_one_thread_is_one_core(tmp_path):
    made = board(tmp_path, spinning=Spinning())
    record = made.record(row_named("relu-65536"))
    cores = record["competitors"]["spinning"]["cores"]
    assert 0 < cores <= 1 + harness.CLOCKS_AGREE
    seen = []
    other = threading.Thread(target=lambda: seen.append(len(os.sched_getaffinity(0))))
    other.start()
    other.join()
    assert seen == [1] and len(os.sched_getaffinity(0)) == 1


def test_more_processor_time_than_wall_time_is_an_error():
    assert harness.refused_cores(1.0, 1) == {} == harness.refused_cores(1.99, 2)
    assert harness.refused_cores(1.94, 1)["state"] == "failed"
    assert "1.94 cores busy on 1 threads" in harness.refused_cores(1.94, 1)["error"]


def test_chains_of_multiply_adds_fit_the_registers():
    limits = pytest.importorskip("limits")
    for vector_bytes, machine_name, registers in (
        (64, "x86_64", 32), (32, "x86_64", 16), (16, "x86_64", 16), (16, "aarch64", 32)
    ):  # fmt: skip
        assert 8 <= limits.chain_count(vector_bytes, machine_name) <= registers - 2


@given(st.integers(1, 10**8), st.integers(1, 10**8), st.integers(1, 3))
def test_no_share_of_the_limit_is_above_all(size, moved, count):
    """A machine that serves each byte from the nearest cache with room is never beaten."""
    levels = [{"name": f"L{i + 1}", "bytes": 30_000 * 20**i} for i in range(count)]
    names = [level["name"] for level in levels] + ["memory"]
    gbs = {name: {"read": 100.0 / 3**i, "copy": 90.0 / 3**i} for i, name in enumerate(names)}
    least = results.data_ns(moved, size, levels, gbs)
    assert moved / 100.0 * (1 - 1e-9) <= least <= moved / min(gbs["memory"].values())
    larger = results.data_ns(moved, size + 1000, levels, gbs)
    assert larger >= least * (1 - 1e-9)  # more data takes no less time: no jump at a cache's size


def test_cores_that_share_a_cache():
    assert machine._count("0-3,8") == 5
    assert machine._bytes("48K") == 48 << 10
