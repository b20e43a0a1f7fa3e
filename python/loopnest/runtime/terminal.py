"""Tables and a progress bar in the terminal: rich where it is installed, else plain text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

try:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Table
    from rich.text import Text
except ImportError:  # installed with --no-deps
    RICH = False
else:
    RICH = True

# Width where there is no terminal to ask, as in a CI log.
_WIDTH = 120


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH)


def show(text: str, style: str = "") -> None:
    """Print a line, wrapped to the terminal."""
    if RICH:
        _console().print(Text(text, style=style))
    else:
        print(text)


def show_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[tuple[str, str]]]
) -> None:
    """Print a table of cells ``(text, style)``."""
    rows = list(rows)
    if not RICH:
        _show_plainly(title, columns, rows)
        return
    named = any(columns)
    table = Table(title=title, title_justify="left", title_style="bold", show_header=named)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(text, style=style) for text, style in row))
    _console().print(table)


def _show_plainly(title: str, columns: Sequence[str], rows: list) -> None:
    lines = [list(columns)] + [[text for text, _ in row] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    print(title)
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  " + "  ".join(cells).rstrip())


def progress(names: Sequence[str], label: str) -> Iterator[str]:
    """Yield the names one by one, showing how far it got."""
    if not RICH:
        for i, name in enumerate(names, start=1):
            print(f"{label} {i}/{len(names)} {name}")
            yield name
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    with Progress(*columns, console=_console()) as bar:
        task = bar.add_task(label, total=len(names))
        for name in names:
            bar.update(task, description=f"{label} {name}")
            yield name
            bar.advance(task)
        bar.update(task, description=label)


class Bar:
    """A progress bar with a note, for work whose steps are the caller's own loop."""

    def __init__(self, label: str, total: int, shown: bool = True) -> None:
        self._label, self._total, self._shown = label, total, shown
        self._bar: Progress | None = None
        if shown and RICH:
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
            self._bar = Progress(*columns, console=_console())
            self._task = self._bar.add_task(label, total=total)

    def __enter__(self) -> Bar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def to(self, done: int, note: str = "") -> None:
        """Show that so many steps are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, description=f"{self._label}  {note}")
        elif self._shown and note:
            print(f"{self._label} {done}/{self._total}  {note}")
