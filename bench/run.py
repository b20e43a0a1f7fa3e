"""The benchmark's command: `make bench`, `make bench-full`, `make bench ONLY=conv`.

Checks the selection, runs the rows on pytest-benchmark with a progress bar, prints the
table and writes the files. Exit code 0, 1 if something of ours is wrong, 2 for bad input,
130 if it was interrupted; what was measured until then is kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--full", action="store_true", help="every case, sweeps and large cells included")
    add("--only", default="", help="ops, cases, cells or rows, by commas: conv,gelu-1000000")
    add("--peers", default="", help="competitors, by commas; all that are installed if not given")
    add("--rounds", default="", help="rounds, 9 or more (default 9; more where it is noisy)")
    add("--batch-ms", default="", help="milliseconds of one sample (default 6)")
    add("--threads", default="", help="threads, by commas; all means every core (default 1); if "
        "several, those above 1 for rows with work for them")  # fmt: skip
    add("--dtypes", default="", help="float32, float64, by commas (default float32)")
    add("--cold", action="store_true", help="empty the caches before every call")
    add("--out", default="", help="folder of the results (default out/bench/<date>)")
    add("--note", default="", help="a remark that goes on the page")
    add(
        "--no-startup",
        action="store_true",
        help="leave out compile and load times, import and call overhead",
    )
    add("--no-limits", action="store_true", help="leave out the machine's limits")
    return parser.parse_args(given)


def to_environment(options: argparse.Namespace) -> None:
    """Options as the variables that `harness.settings_from` reads."""
    words = ("only", "peers", "rounds", "batch_ms", "threads", "dtypes", "out")
    values = {name: getattr(options, name) for name in words}
    values |= {"full": "1" if options.full else "", "cold": "1" if options.cold else ""}
    values["limits"] = "0" if options.no_limits else "1"
    for name, value in values.items():
        if value:
            os.environ[f"LOOPNEST_BENCH_{name.upper()}"] = value


class Progress:
    """A bar over the rows; the last result stands next to it."""

    def __init__(self, console: Any, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(),
            TimeElapsedColumn(), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, words: str) -> None:
        self._bar.update(self._task, description=words)

    def started(self, row: Any) -> None:
        self.say("limits of this machine" if row is None else str(row))

    def finished(self, record: dict[str, Any]) -> None:
        self._bar.advance(self._task)
        if not self._console.is_terminal:  # a log shows progress by lines
            import report

            line = report._summary_line(record)
            print("  ".join(word for word in line if word), file=sys.stderr, flush=True)


class Quiet:
    """A pytest plugin: pytest collects and runs, our bar and table do the talking."""

    @staticmethod
    def pytest_report_teststatus(report: Any, config: Any) -> tuple[str, str, str] | None:
        return (report.outcome, "", "") if report.when == "call" or report.skipped else None


def run_rows(board: Any) -> int:
    import pytest

    command = [
        "-c", str(HERE / "pytest.ini"), "--rootdir", str(HERE), str(HERE), "-qqq", "--no-header",
        "--no-summary", "-p", "no:warnings", "--benchmark-quiet",
        f"--benchmark-json={board.run.path.with_name('pytest-benchmark.json')}",
    ]  # fmt: skip
    board.run.path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.devnull, "w") as nowhere:
        kept, sys.stdout = sys.stdout, nowhere
        try:
            return int(pytest.main(command, plugins=[Quiet()]))
        finally:
            sys.stdout = kept


def startup_cases(settings: Any) -> list[Any]:
    """Cases whose ops' first calls are measured: in the quick set one op of each row."""
    import loopnest as ln

    cases = [row.case for row in settings.rows() if hasattr(ln, row.case.op)]
    if settings.full or settings.only:
        return cases
    return list({case.row: case for case in reversed(cases)}.values())[::-1]


def measure_startup(board: Any, say: Any) -> None:
    import startup

    say("first calls: compile, load, C")
    backends = [name for name in ("numba", "c") if name in board.competitors]
    try:
        board.run.data["startup"] = startup.measure(startup_cases(board.settings), backends)
    except Exception as error:
        print(f"first calls could not be measured: {error}", file=sys.stderr)
    say("what a call costs beyond its kernel")
    try:
        import overhead

        board.run.data["overhead"] = overhead.measure(backends)
    except Exception as error:
        print(f"the cost of a call could not be measured: {error}", file=sys.stderr)


def measure_rest(board: Any, options: argparse.Namespace, say: Any) -> None:
    """What is not a row: first calls, and the limits once more."""
    import machine
    import results

    machine.keep_to(machine.usable_cores())
    if not options.no_startup:
        measure_startup(board, say)
    if board.run.data["limits"]:
        import limits

        say("limits of this machine, once more")
        again = limits.measure()
        results.use_limits(board.run.data, results.better_limits(board.run.data["limits"], again))


def finish(board: Any, code: int) -> int:
    """Write and show everything; the exit code."""
    import files
    import report
    import session
    from rich.console import Console

    session.close(board)
    data = board.run.data
    if not data["rows"]:
        print("nothing was measured", file=sys.stderr)
        return 130 if code == 2 else 1
    report.show(data, Console(highlight=False))
    written = files.write(data, board.run.path.parent)
    print(f"\n{board.run.path}")
    for path in written:
        print(path)
    if data["status"] != "complete":
        print(f"{data['status']}: {len(data['rows'])} rows were kept", file=sys.stderr)
        return 130
    return 1 if any(p.startswith("ERROR") for p in report.text.problems(data)) else 0


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(given: list[str] | None = None) -> int:
    options = arguments(given)
    to_environment(options)
    signal.signal(signal.SIGTERM, interrupt)  # a stopped job keeps its rows as Ctrl-C does
    import harness
    import session
    from rich.console import Console

    try:
        board = session.board(harness.settings_from())
    except ValueError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    board.run.data["note"] = options.note
    harness.CURRENT[:] = [board]
    console = Console(stderr=True, width=shutil.get_terminal_size((120, 24)).columns)
    code = 2
    with Progress(console, len(board.settings.rows())) as progress:
        board.started, board.finished = progress.started, progress.finished
        try:
            code = run_rows(board)
            if code != 2:
                measure_rest(board, options, progress.say)
        except KeyboardInterrupt:
            pass
    return finish(board, code)


if __name__ == "__main__":
    # A console that lacks a character shows another instead of failing.
    sys.stdout.reconfigure(errors="replace")
    sys.exit(main())
