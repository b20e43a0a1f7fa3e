"""Optimizer rows of the case table, every competitor a parameter."""

import harness
import pytest

pytest_generate_tests = harness.parametrize("optimizer")


@pytest.mark.benchmark(timer=harness.REPLAY)
def bench_optimizer(benchmark, request, row, competitor):
    harness.hand_over(benchmark, request, row, competitor)
