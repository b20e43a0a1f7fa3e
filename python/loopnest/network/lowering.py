"""What the functions that lower operators work with: a node, and the builder of a program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from loopnest.network.builder import Builder
from loopnest.network.program import Value


@dataclass(frozen=True)
class Node:
    """An operator with its attributes, and the names of the values it takes and makes."""

    op: str
    inputs: tuple[str, ...]  # "" for one that is left out
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    opset: int = 21

    @property
    def label(self) -> str:
        """How messages call it."""
        return f"node {self.name or self.outputs[0]!r} ({self.op})"


class Lowering(Builder):
    """A builder that also notes whether rows of axis 0 stay independent."""

    mixes_rows = False
    fixed = False  # whether weights never change: then what follows from them is computed once

    def numbers(self, value: Value | None, what: str) -> np.ndarray:
        """The numbers of an input that must be known beforehand."""
        if value is None or value.constant is None:
            raise self.fail(f"{what} is computed by the network; accepted: a constant")
        return value.constant

    def axis(self, value: int, ndim: int) -> int:
        """An axis from 0 up."""
        if not -ndim <= value < ndim:
            raise self.fail(f"axis is {value} for {ndim} dimensions")
        return value % ndim
