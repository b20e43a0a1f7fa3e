"""Our side of rows that are more than one public function: networks of gates and of layers.

A job is a case whose op is a name here (`tests/cases.py`, `_jobs`). ``prepare(case, arguments)``
makes the call that is timed; NotImplementedError where the installed loopnest lacks what it
needs. Peers have a method of the op's name, as for every op; the reference is the function
of that name in `tests/reference_jobs.py` or `reference_network.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import network_jobs
import numpy as np
import reference_jobs
from cases import Case
from timing import Prepared


def logic_step(case: Case, arguments: tuple) -> Prepared:
    """Loss and gradient by the logits of one batch, forward and backward."""
    from loopnest.logic import training

    net = reference_jobs.logic_network()
    engine = training.Engine(net)
    bits, labels = arguments
    return Prepared(
        engine.gradient, (bits, labels),
        result=lambda loss: (np.float64(loss / len(bits)), engine.shares),
    )  # fmt: skip


def logic_predict(case: Case, arguments: tuple) -> Prepared:
    """Classes of 512 samples by the packed network, packing the samples included."""
    return Prepared(reference_jobs.logic_network().pack(simplify=False).predict, arguments)


JOBS: dict[str, Callable[[Case, tuple], Prepared]] = {
    "logic_step": logic_step,
    "logic_predict": logic_predict,
    "network_forward": network_jobs.network_forward,
    "network_step": network_jobs.network_step,
}
# Those that have a form inside @njit.
COMPILED = {"network_forward": network_jobs.compiled_forward}


def prepare(case: Case, arguments: tuple, compiled: bool = False) -> Any:
    """The job's call, on the backend in use, or inside @njit."""
    try:
        return (COMPILED if compiled else JOBS)[case.op](case, arguments)
    except (ImportError, AttributeError) as error:  # what it needs is not there (yet)
        raise NotImplementedError(f"{case.op}: {error}") from error
