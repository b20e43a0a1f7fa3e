"""Network rows of the case table, every competitor a parameter."""

import harness
import pytest

pytest_generate_tests = harness.parametrize("network")


@pytest.mark.benchmark(timer=harness.REPLAY)
def bench_network(benchmark, request, row, competitor):
    harness.hand_over(benchmark, request, row, competitor)
