"""Keep a run in the repository and show it in the README: `make bench-publish A=run`.

The run's folder goes to results/<date>/, without pytest-benchmark's own file, and the
README's picture and figures, between two marks, become those of this run.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import compare  # noqa: E402
import files  # noqa: E402
import results  # noqa: E402
import text  # noqa: E402

README = HERE.parent / "README.md"
MARKS = ("<!-- benchmark -->", "<!-- /benchmark -->")
LARGEST = 1_000_000  # bytes of a run.json that goes into the repository


def slim(data: dict[str, Any]) -> dict[str, Any]:
    """All raw samples, to a hundredth of a per cent: a clock tells no more."""
    for record in data["rows"]:
        for column in record["competitors"].values():
            if "samples_ns" in column:
                column["samples_ns"] = [float(f"{ns:.5g}") for ns in column["samples_ns"]]
    return data


def paragraph(data: dict[str, Any], folder: str) -> str:
    """What the README says of the run."""
    machine = data["machine"]
    counts = []
    for own in ("numba", "c"):
        rows = [r for r in data["rows"] if r["threads"] == 1]
        entries = [e for r in rows if (e := text.against_fastest(r, own))]
        faster = sum(e["ratio"] > 1 for e in entries)
        counts.append(f"{text.name_of(own)} is faster in {faster} of {len(entries)} rows")
    return (
        f"![Ratio of the fastest peer's time to loopnest's, row by row]({folder}/ratios.png)\n\n"
        f"One machine ({machine['cpu']}, {machine['cores']} cores), one thread, float32, on "
        f"{text.date_of(data)[:10]}: against the fastest of PyTorch, ONNX Runtime, OpenCV, JAX, "
        f"SciPy and NumPy, {counts[0]}, {counts[1]}. All rows and competitors: "
        f"[table]({folder}/table.md); `make bench` measures on yours.\n"
    )


def publish(name: str) -> Path:
    """Copy the run and change the README; the folder in the repository."""
    source = compare.find(name)
    data = slim(results.load(source))
    if data["status"] != "complete":
        raise ValueError(f"run: {name!r} is {data['status']}; accepted: a complete run")
    target = HERE / "results" / data["started"][:10]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    run = results.Run(target / "run.json")
    run.data = data
    run.write()
    size = run.path.stat().st_size
    if size > LARGEST:
        raise ValueError(f"run: {name!r} takes {size} bytes; accepted: at most {LARGEST}")
    files.write(data, target)
    old = README.read_text(encoding="utf-8")
    inner = paragraph(data, target.relative_to(README.parent).as_posix())
    between = f"{MARKS[0]}\n{inner}{MARKS[1]}"
    pattern = re.compile(f"{re.escape(MARKS[0])}.*?{re.escape(MARKS[1])}", re.DOTALL)
    new, found = pattern.subn(lambda _: between, old)
    if not found:
        raise ValueError(f"README.md has no {MARKS[0]} ... {MARKS[1]}")
    draft = README.with_suffix(".tmp")
    draft.write_text(new, encoding="utf-8")
    draft.replace(README)
    return target


def main(given: list[str]) -> int:
    names = given or list(compare.stored())[-1:]
    try:
        if len(names) != 1:
            raise ValueError("run: one stored run is needed: make bench-publish A=...")
        print(publish(names[0]))
    except ValueError as error:
        print(f"bench-publish: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
