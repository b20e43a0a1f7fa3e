"""What all tests share."""

from __future__ import annotations

import numpy as np
import pytest
import skips

import loopnest as ln
from loopnest.runtime import threads


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    skips.refuse_others(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    skips.refuse_others(report)
    return report


@pytest.fixture(params=["numba", "c"])
def backend(request):
    """Run the test on each backend."""
    with ln.use_backend(request.param):
        yield request.param


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """Run the test in each dtype."""
    return np.dtype(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)


@pytest.fixture
def two_threads(monkeypatch):
    """Split every call over two threads, however small."""
    monkeypatch.setattr(threads, "SERIAL_BELOW", 0)
    before = ln.get_num_threads()
    ln.set_num_threads(2)
    yield
    ln.set_num_threads(before)
