"""The main job: the four worked problems on every backend, beside their printed values.

Three things are compared. A backend with plain Python floats: a difference means that the
backend is wrong. The backends with each other: every bit must agree, in float64 and float32.
What was computed with what the sheet shows: a difference there is the sheet's, and is told.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loopnest.app import worked_sheet as sheet
from loopnest.app.worked_problems import INSTANCE, PROBLEMS, Problem, Values
from loopnest.runtime import backend as backends
from loopnest.runtime import files, terminal

AGREES, SHEET, RIGHT, WRONG = "agrees", "sheet", "right", "wrong"
_STYLES = {AGREES: "green", SHEET: "yellow", RIGHT: "green", WRONG: "bold red"}
_NAMES = {"numba": "Numba", "c": "C"}


@dataclass(frozen=True)
class Row:
    """One quantity: what the sheet shows, what each backend computes, what that means."""

    quantity: str
    printed: tuple[str, ...]  # empty: the sheet does not show it
    expected: tuple[float, ...]
    values: dict[str, tuple[float, ...]]
    bits_equal: bool
    status: str
    verdict: str


@dataclass(frozen=True)
class Table:
    """All quantities of one problem."""

    problem: Problem
    rows: list[Row]
    remarks: tuple[str, ...]


@dataclass
class Report:
    """What `reproduce` found."""

    backends: list[str]
    tables: list[Table] = field(default_factory=list)
    compared: int = 0  # numbers whose bits were compared between backends

    def count(self, status: str) -> int:
        """Number of quantities with this status."""
        return sum(row.status == status for table in self.tables for row in table.rows)

    @property
    def passed(self) -> bool:
        """Whether every backend is right and all agree in every bit."""
        return self.count(WRONG) == 0


# ---- comparing ----


def _flat(values: Values) -> dict[str, np.ndarray]:
    return {name: np.asarray(value).reshape(-1) for name, value in values.items()}


def _compute(problem: Problem, names: Iterable[str], dtype: Any) -> dict[str, dict[str, Any]]:
    results = {}
    for name in names:
        with backends.use_backend(name):
            results[name] = _flat(problem.compute(np.dtype(dtype)))
    return results


def _same_bits(results: dict[str, dict[str, np.ndarray]], quantity: str) -> bool:
    bits = {
        (found.dtype.str, found.tobytes()) if found is not None else None
        for found in (values.get(quantity) for values in results.values())
    }
    return len(bits) == 1


def _close(value: float, expected: float, problem: Problem, quantity: str, single: bool) -> bool:
    if single:
        tolerance = problem.tolerance32 * max(abs(expected), 1.0)
    else:
        tolerance = problem.tolerances.get(quantity, problem.tolerance * max(abs(expected), 0.01))
    return value == expected or abs(value - expected) <= tolerance


def _mistakes(
    problem: Problem, quantity: str, expected: Any, values: dict[str, Any], single: bool
) -> list[str]:
    """Each backend that differs from plain Python, in words."""
    found = []
    for name, given in values.items():
        who = _NAMES[name] + " in float32" * single
        if len(given) != len(expected):
            found.append(f"{who} gives {len(given)} numbers instead of {len(expected)}")
            continue
        off = [
            f"{v!r} instead of {e!r}"
            for v, e in zip(given, expected, strict=True)
            if not _close(v, e, problem, quantity, single)
        ]
        if off:
            found.append(f"{who} has {', '.join(off)}")
    return found


def judge_number(printed: str, value: float) -> str | None:
    """What is off about a printed number, or None if its digits are those of ``value``.

    A number whose last digits were dropped is told from one that was rounded wrongly.
    """
    digits = len(printed.partition(".")[2])
    unit, shown = 10.0**-digits, float(printed)
    if abs(value - shown) <= 0.5 * unit * (1 + 1e-9):
        return None
    rounded = f"{value:.{digits}f}"
    if math.trunc(value / unit) == round(shown / unit):
        return f"{printed} is cut, not rounded ({rounded})"
    units = abs(value - shown) / unit
    if units <= 2:
        return f"{printed} was rounded by hand, {units:.1f} units of its last digit off ({rounded})"
    return f"{printed} is off, reason unknown ({rounded})"


def _judge(problem: str, quantity: str, printed: tuple[str, ...], values: Any) -> tuple[str, str]:
    """Status and verdict of a printed quantity whose computed values are right."""
    slip = sheet.SLIPS.get((problem, quantity))
    reasons = [slip.reason] if slip and slip.printed is None else []
    for text, value in zip(printed, values if printed else (), strict=True):
        reason = judge_number(text, value)
        if reason and slip and slip.printed == text:
            reason = slip.reason
        if reason and reason not in reasons:
            reasons.append(reason)
    return (SHEET, "sheet: " + "; ".join(reasons)) if reasons else (AGREES, "agrees")


def _floats(results: dict[str, dict[str, np.ndarray]], quantity: str) -> dict[str, tuple]:
    return {name: tuple(map(float, found.get(quantity, ()))) for name, found in results.items()}


def _row(problem: Problem, quantity: str, expected: Any, wide: Any, narrow: Any) -> Row:
    """Judge a quantity from all backends' results in float64 and in float32."""
    printed = tuple(sheet.PRINTED.get(problem.key, {}).get(quantity, "").split())
    values = _floats(wide, quantity)
    wrong = _mistakes(problem, quantity, expected, values, single=False)
    if any(quantity in found for found in narrow.values()):
        wrong += _mistakes(problem, quantity, expected, _floats(narrow, quantity), single=True)
    bits_equal = _same_bits(wide, quantity) and _same_bits(narrow, quantity)
    if not bits_equal:
        wrong.append("the backends differ in bits")
    if wrong:
        status, verdict = WRONG, "WRONG: " + "; ".join(wrong)
    elif printed or (problem.key, quantity) in sheet.SLIPS:
        status, verdict = _judge(problem.key, quantity, printed, next(iter(values.values())))
    else:
        status, verdict = RIGHT, "right"
    return Row(quantity, printed, expected, values, bits_equal, status, verdict)


def _solve(problem: Problem, report: Report) -> Table:
    """Compute one problem on each backend and judge every quantity."""
    wide = _compute(problem, report.backends, np.float64)
    narrow = _compute(problem, report.backends, np.float32)
    rows = []
    wanted = {name: tuple(map(float, v)) for name, v in _flat(problem.expected()).items()}
    for quantity, expected in wanted.items():
        rows.append(_row(problem, quantity, expected, wide, narrow))
        for results in (wide, narrow):
            if len(results) > 1:
                report.compared += next(iter(results.values())).get(quantity, np.empty(0)).size
    remarks = sheet.REMARKS.get(problem.key, ())
    return Table(problem, rows, (*INSTANCE, *remarks) if problem.key == "3" else remarks)


def reproduce(names: Iterable[str] | None = None) -> Report:
    """Compute the four worked problems and compare.

    Parameters
    ----------
    names : iterable of {"numba", "c"}, optional
        The backends; by default all that can be used here.

    Returns
    -------
    Report
        Tables of rows; ``.passed`` is false if a backend is wrong or backends differ.

    Raises
    ------
    ImportError
        A backend that was asked for is not installed, or there is none.
    """
    chosen = list(names) if names is not None else backends.available_backends()
    if not chosen:
        raise ImportError("reproduce: no backend is installed; accepted: numba or c")
    report = Report(chosen)
    for problem in PROBLEMS:
        report.tables.append(_solve(problem, report))
    return report


# ---- showing ----


def _number(value: float, digits: int) -> str:
    if value == math.inf:
        return "never"
    return f"{value:.0f}" if value == int(value) else f"{value:.{digits}g}"


def _numbers(values: Iterable[float], digits: int) -> str:
    return ", ".join(
        _number(v, digits) if math.isfinite(v) or v == math.inf else str(v) for v in values
    )


def show(report: Report) -> None:
    """Print one table a problem, and what it comes to."""
    columns = ["quantity", "printed", *(_NAMES[name] for name in report.backends), "verdict"]
    for table in report.tables:
        problem = table.problem
        title = problem.title + (f" ({problem.columns})" if problem.columns else "")
        rows = [
            [
                (row.quantity, ""),
                (", ".join(row.printed), ""),
                *((_numbers(row.values[name], problem.digits), "") for name in report.backends),
                (row.verdict, _STYLES[row.status]),
            ]
            for row in table.rows
        ]
        terminal.show_table(title, columns, rows)
        for remark in table.remarks:
            terminal.show(remark, "italic")
        terminal.show("")
    for line, status in _summary(report):
        terminal.show(line, _STYLES[status])


def _summary(report: Report) -> list[tuple[str, str]]:
    names = " and ".join(_NAMES[name] for name in report.backends)
    total = sum(len(table.rows) for table in report.tables)
    lines = []
    if report.count(WRONG):
        lines.append((f"{report.count(WRONG)} of {total} quantities are WRONG.", WRONG))
    else:
        lines.append((f"All {total} quantities are right on {names}.", RIGHT))
    if len(report.backends) == 1:
        lines.append(("One backend only: no bits to compare.", SHEET))
    elif all(row.bits_equal for table in report.tables for row in table.rows):
        bits = f"{names} agree in every bit of {report.compared} numbers, float64 and float32."
        lines.append((bits, RIGHT))
    sheet_off = report.count(SHEET)
    agree = f"The sheet agrees in {report.count(AGREES)}, is off in {sheet_off}, "
    return [*lines, (agree + f"shows nothing for {report.count(RIGHT)}.", SHEET)]


# ---- JSON ----


def _plain(values: Iterable[float]) -> list[Any]:
    """JSON has no infinity and no NaN: those become text."""
    return [v if math.isfinite(v) else str(v) for v in values]


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain data: every quantity with printed values, values, verdict."""
    return {
        "passed": report.passed,
        "backends": report.backends,
        "numbers_compared_bit_for_bit": report.compared,
        "problems": [
            {
                "problem": table.problem.key,
                "title": table.problem.title,
                "remarks": list(table.remarks),
                "quantities": [
                    {
                        "quantity": row.quantity,
                        "printed": list(row.printed) or None,
                        "expected": _plain(row.expected),
                        "values": {name: _plain(v) for name, v in row.values.items()},
                        "bits_equal": row.bits_equal,
                        "status": row.status,
                        "verdict": row.verdict,
                    }
                    for row in table.rows
                ],
            }
            for table in report.tables
        ],
    }


def write_json(report: Report, path: str | os.PathLike[str]) -> None:
    """Write the report; the file appears whole or not at all."""
    with files.replacing(path, "w", encoding="utf-8") as file:
        json.dump(as_json(report), file, indent=1, allow_nan=False)
        file.write("\n")
