"""Pooling rows of the case table, every competitor a parameter."""

import harness
import pytest

pytest_generate_tests = harness.parametrize("pooling")


@pytest.mark.benchmark(timer=harness.REPLAY)
def bench_pooling(benchmark, request, row, competitor):
    harness.hand_over(benchmark, request, row, competitor)
