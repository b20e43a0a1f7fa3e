"""Two stored runs side by side: `make bench-compare A=... B=...`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import peers  # noqa: E402
import results  # noqa: E402
import text  # noqa: E402
import timing  # noqa: E402

PLACES = (HERE.parent / "out" / "bench", HERE / "results")


def stored() -> dict[str, Path]:
    """Runs on disk by name."""
    paths = (path for place in PLACES for path in sorted(place.glob("*/run.json")))
    return {path.parent.name: path for path in paths}


def find(name: str) -> Path:
    """A run by file, folder or name; ValueError with the nearest names."""
    path = Path(name)
    for candidate in (path, path / "run.json"):
        if candidate.is_file():
            return candidate
    runs = stored()
    if name in runs:
        return runs[name]
    near = peers.nearest(path.name, runs) if runs else "there are no stored runs yet"
    raise ValueError(f"run: {name!r} is no file, folder or stored run; {near}")


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """For each row and competitor of both runs: times, A's over B's, whether it is chance."""
    rows = {record["id"]: record for record in b["rows"]}
    found = []
    for record in a["rows"]:
        if record["id"] not in rows:
            continue
        other = results.timed(rows[record["id"]])
        for name, samples in results.timed(record).items():
            if name not in other:
                continue
            best = min(samples), min(other[name])
            chance = timing.rank_test(samples, other[name]) >= timing.SIGNIFICANT
            found.append({
                "id": record["id"], "competitor": name, "a": best[0], "b": best[1],
                "ratio": best[0] / best[1], "differs": not chance,
            })  # fmt: skip
    return found


def changed_sides(a: dict[str, Any], b: dict[str, Any], margin: float = 0.1) -> list[str]:
    """Rows that lie on other sides of 1.0 in the two runs, further than the margin from it."""
    rows = {record["id"]: record for record in b["rows"]}
    found = []
    for record in a["rows"]:
        for own in ("numba", "c"):
            pair = [text.against_fastest(r, own) for r in (record, rows.get(record["id"])) if r]
            if len(pair) < 2 or not all(pair):
                continue
            one, two = (entry["ratio"] for entry in pair)
            far = max(abs(one - 1), abs(two - 1)) > margin
            if (one > 1) != (two > 1) and far:
                found.append(f"{record['id']} {text.name_of(own)}: {one:.2f}x, {two:.2f}x")
    return found


def warnings(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Why the two runs may not be comparable."""
    found = []
    for key in ("cpu", "python", "packages"):
        if a["machine"][key] != b["machine"][key]:
            found.append(f"{key} differs: {a['machine'][key]} and {b['machine'][key]}")
    if a["settings"]["cold"] != b["settings"]["cold"]:
        found.append("one run has cold caches, the other warm ones")
    for name, run in (("A", a), ("B", b)):
        if run["status"] != "complete":
            found.append(f"{name} is {run['status']}")
    return found


def show(a: dict[str, Any], b: dict[str, Any], every: bool) -> None:
    import report
    from rich.console import Console
    from rich.table import Table

    console = report.wide(Console(highlight=False))
    for name, run in (("A", a), ("B", b)):
        console.print(f"{name}: {text.date_of(run)}, commit {run['machine']['commit'][:10]}")
    for warning in warnings(a, b):
        console.print(f"note: {warning}", style="yellow", markup=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for i, heading in enumerate(("row", "competitor", "A", "B", "B is", "")):
        table.add_column(heading, justify="left" if i in (0, 1, 5) else "right", no_wrap=True)
    for line in differences(a, b):
        if every or line["competitor"] in text.OURS:
            colour = "green" if line["ratio"] > 1 else "red"
            words = "faster" if line["ratio"] > 1 else "slower"
            verdict = f"[{colour}]{words}[/]" if line["differs"] else "no significant difference"
            table.add_row(
                line["id"], text.name_of(line["competitor"]), text.time_of(line["a"]),
                text.time_of(line["b"]), f"{text.digits(line['ratio'])}x", verdict,
            )  # fmt: skip
    console.print(table)
    for line in changed_sides(a, b):
        console.print(f"other side of 1.0 against the fastest peer: {line}", markup=False)


def main(given: list[str]) -> int:
    every = "--all" in given
    names = [word for word in given if word != "--all"]
    if len(names) != 2:
        print("bench-compare: two runs are needed: make bench-compare A=... B=...", file=sys.stderr)
        return 2
    try:
        a, b = (results.load(find(name)) for name in names)
    except ValueError as error:
        print(f"bench-compare: {error}", file=sys.stderr)
        return 2
    show(a, b, every)
    return 0


if __name__ == "__main__":
    # A console that lacks a character shows another instead of failing.
    sys.stdout.reconfigure(errors="replace")
    sys.exit(main(sys.argv[1:]))
