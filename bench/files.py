"""The files of a run beside its JSON: Markdown, pictures, one HTML page.

python bench/files.py out/bench/20251125-120000    # anew, from a stored run
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import page
import report
import results


def write(data: dict[str, Any], folder: Path) -> list[Path]:
    """Everything but the JSON, into the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "table.md"
    table.write_text(report.markdown(data), encoding="utf-8")
    drawn: list[Path] = []
    try:
        import pictures
    except ImportError as error:
        print(f"no pictures: {error}; pip install matplotlib", file=sys.stderr)
    else:
        drawn = pictures.draw(data, folder)
    html = folder / "index.html"
    html.write_text(page.html(data, drawn), encoding="utf-8")
    return [table, *drawn, html]


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path = path / "run.json" if path.is_dir() else path
    for made in write(results.load(path), path.parent):
        print(made)
