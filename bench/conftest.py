"""Makes the board that every benchmark of a pytest session reports to."""

import sys
from pathlib import Path

import pytest

# pytest reads `pythonpath` after this file; the modules below are needed now.
for folder in (Path(__file__).parent, Path(__file__).parent.parent / "tests"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import harness  # noqa: E402
import session  # noqa: E402


def pytest_configure(config):
    if harness.CURRENT:
        config.stash[harness.BOARD] = harness.CURRENT[0]
        return
    try:
        config.stash[harness.BOARD] = session.board(harness.settings_from())
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_unconfigure(config):
    board = config.stash.get(harness.BOARD, None)
    if board is not None and not harness.CURRENT:
        session.close(board)
