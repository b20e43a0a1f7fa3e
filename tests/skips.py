"""The skips that are allowed, each with its reason: any other skip fails the run.

A test that is skipped in silence proves nothing. `make` installs all that the tests need from
PyPI, so a skip is allowed only for what a machine, its user or its operating system lacks.
"""

from __future__ import annotations

import re

import pytest

# Beginning of the words that the skip gives (a regular expression), and why it may be.
ALLOWED = {
    r"could not import 'torch'": "PyTorch takes 1 GB of disk; `make test-full` installs it",
    r"this CPU has no \w+$": "an instruction set that the machine lacks",
    r"Icarus Verilog is not installed": "a simulator that is a package of Debian, not of PyPI",
    r"this user writes where permissions forbid it": "root, on whom permissions have no effect",
    r"long double is no wider than float64 here": "an operating system without 80-bit floats",
    r"no mprotect here|kills a process|no affinity here|no fork here|sends SIGINT":
        "an operating system other than Linux and macOS",
    r"the benchmark is not part of the installed package": "tests of a package without a clone",
}  # fmt: skip


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """The words that a skip gave."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def refuse_others(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip that is not in the list into a failure."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = reason_of(report)
    if not any(re.match(allowed, reason) for allowed in ALLOWED):
        report.outcome = "failed"
        report.longrepr = f"skipped: {reason!r}; skips that are allowed stand in tests/skips.py"
