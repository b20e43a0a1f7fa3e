"""Learning-rate schedules of `descend`, as the table that its kernels read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from loopnest.runtime import checks

NAMES = ("constant", "step", "exponential", "cosine")
_ACCEPTED = (
    '"constant", ("step", size, gamma), ("exponential", gamma), "cosine", ("cosine", end), '
    "or an array of one factor for each step"
)
_LONGEST = 100_000_000  # rows of a table that still fit into memory


def factors(op: str, schedule: Any, steps: int) -> np.ndarray:
    """What the learning rate is multiplied by in each step; the last one serves all later steps.

    The formulas are those of torch.optim.lr_scheduler: StepLR, ExponentialLR, CosineAnnealingLR.
    """
    if schedule is None or (isinstance(schedule, str) and schedule == "constant"):
        return np.ones(1)
    if isinstance(schedule, np.ndarray) or (
        isinstance(schedule, (list, tuple)) and not (schedule and isinstance(schedule[0], str))
    ):
        return _given(op, schedule, steps)
    name, *numbers = schedule if isinstance(schedule, (list, tuple)) else (schedule,)
    counts = {"constant": (0,), "step": (2,), "exponential": (1,), "cosine": (0, 1)}
    if not isinstance(name, str):
        raise TypeError(f"{op}: schedule is {schedule!r}; accepted: {_ACCEPTED}")
    if name not in counts or len(numbers) not in counts[name]:
        raise ValueError(f"{op}: schedule is {schedule!r}; accepted: {_ACCEPTED}")
    if name == "constant":
        return np.ones(1)
    if steps > _LONGEST:
        raise ValueError(f"{op}: steps is {steps}; accepted: at most {_LONGEST} with a schedule")
    t = np.arange(max(steps, 1))
    if name == "step":
        size = checks.integer(op, "schedule's size", numbers[0], 1)
        return _gamma(op, numbers[1]) ** (t // size)
    if name == "exponential":
        return _gamma(op, numbers[0]) ** t
    end = checks.number(op, "schedule's end", numbers[0] if numbers else 0.0, 0.0)
    return end + (1.0 - end) * (1.0 + np.cos(np.pi * t / max(steps, 1))) / 2.0


def _gamma(op: str, value: Any) -> float:
    return checks.number(op, "schedule's gamma", value, 0.0)


def _given(op: str, schedule: Any, steps: int) -> np.ndarray:
    table = checks.array(op, "schedule", schedule).astype(np.float64)
    if table.ndim != 1 or table.size < max(steps, 1):
        raise ValueError(
            f"{op}: schedule has shape {table.shape}; accepted: one factor for each of the "
            f"{steps} steps"
        )
    if not ((table >= 0) & (table < math.inf)).all():
        wrong = table[~((table >= 0) & (table < math.inf))][0]
        raise ValueError(f"{op}: schedule has {wrong}; accepted: finite numbers of at least 0")
    return table[: max(steps, 1)]


def correction_rows(beta1: float, beta2: float, steps: int) -> int:
    """Steps after which both 1 - beta^t round to 1, or all; compiled for ``@njit`` too."""
    largest = max(beta1, beta2)
    if largest == 0.0:
        return max(min(steps, 1), 1)
    needed = math.log(2.0**-54) / math.log(largest) + 2.0
    return max(int(needed) if needed < steps else steps, 1)


def table(factors: np.ndarray, betas: tuple[float, float] | None, steps: int) -> np.ndarray:
    """What rate, eps and the rate in a decoupled decay are multiplied by, a row for each step.

    With r = sqrt(1 - beta2^t): Adam's bias correction in the form of `loopnest.kernels.optimizer`,
    f r/(1 - beta1^t), r and f; without betas f, 1 and f. Powers by repeated multiplication.
    """
    if betas is None:
        return np.stack([factors, np.ones_like(factors), factors], axis=1)
    rows = max(correction_rows(*betas, steps), factors.size)
    powers = np.multiply.accumulate(np.tile(betas, (rows, 1)), axis=0)
    given = np.pad(factors, (0, rows - factors.size), mode="edge")
    root = np.sqrt(1.0 - powers[:, 1])
    return np.stack([given * (root / (1.0 - powers[:, 0])), root, given], axis=1)
