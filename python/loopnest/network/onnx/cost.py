"""What the nodes of a graph cost, told from shapes alone: for files that ask for too much."""

from __future__ import annotations

import math
from dataclasses import dataclass

from loopnest.network.program import Program, Step

# Work that a node, and a step of a program, costs beside its arithmetic: 25 and 5 us of Python, in
# multiply-adds of 1 ns.
NODE, _STEP = 25_000, 5_000
# Multiply-adds that one element of an element-wise function, or of a softmax, is worth.
_ELEMENT = 4


@dataclass
class Budget:
    """Bytes that one more result may have, and multiply-adds that are left."""

    bytes: int
    work: float

    def spend(self, where: str, work: float) -> None:
        """Take the work of a node from the budget; ValueError if it is more than there is."""
        self.work -= work
        if self.work < 0:
            raise ValueError(
                f"{where}: computing the constants up to here takes more multiply-adds than "
                "max_work; accepted: fewer, or a larger max_work"
            )


def program_cost(program: Program) -> int:
    """Multiply-adds of a program, all kinds of steps counted as such."""
    return sum(_STEP + step_cost(step) for step in program.steps)


def step_cost(step: Step) -> int:
    """Multiply-adds of a step."""
    size = step.outputs[0].size
    if step.kind == "conv2d":
        weight = step.inputs[1]
        assert weight is not None
        return size * math.prod(weight.shape[1:])
    if step.kind in ("linear", "matmul"):
        x = step.inputs[0]
        assert x is not None
        return size * x.shape[-1]
    if step.kind in ("max_pool2d", "avg_pool2d"):
        return size * math.prod(step.options["kernel"])
    if step.kind == "move":
        return math.prod(step.options["shape"])
    return _ELEMENT * sum(value.size for value in step.values)
