"""A network as a list of steps on arrays of known shapes.

A `Program` is what a network becomes once the shapes of its inputs are known: steps, each of
which calls one kernel (or moves numbers about), on inputs, constants, outputs and work space.
It is the one form that everything else is made from: `execute` runs it with NumPy and this
library's functions, `compile` turns it into an ``@njit`` function, `export_c` into C,
`gradient` into another program. So all of them compute the same, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Shape = tuple[int, ...]

# Activations of `unary` steps; those in activations.FUSED can be part of conv2d and linear.
UNARY = (
    *("exp", "gelu", "gelu_erf", "gelu_tanh", "leaky_relu", "relu", "sigmoid", "silu"),
    *("sqrt", "tanh"),
)
BINARY = ("add", "sub", "mul", "div")

MAX_DIMS = 5  # of a `move`, once axes that lie together are one
MOST_MOVES = 64  # steps that stand for one over more axes


@dataclass(eq=False)
class Storage:
    """One contiguous array: an input, a constant, an output or work space."""

    kind: str  # "input", "constant", "work" or "output"
    size: int
    index: int = -1  # which input or output
    data: np.ndarray | None = None  # of a constant
    name: str = ""  # of a constant: the parameter's
    integer: bool = False  # int64, else the program's dtype


@dataclass(frozen=True, eq=False)
class Value:
    """A contiguous array within a storage."""

    storage: Storage
    shape: Shape
    offset: int = 0

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def constant(self) -> np.ndarray | None:
        """The numbers of a constant, None for what is computed."""
        data = self.storage.data
        if data is None:
            return None
        return data.reshape(-1)[self.offset : self.offset + self.size].reshape(self.shape)

    def reshaped(self, *shape: int) -> Value:
        """The same memory in another shape."""
        assert math.prod(shape) == self.size, (self.shape, shape)
        return replace(self, shape=shape)


def is_constant(value: Value | None) -> bool:
    """Whether a value, or one that is left out, is known beforehand."""
    return value is None or value.constant is not None


@dataclass(eq=False)
class Step:
    """One kernel call: ``kind(inputs, options) -> outputs``; `Builder` tells what kinds there are.

    Options are numbers, strings and tuples of them.
    """

    kind: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> Iterator[Value]:
        yield from (v for v in self.inputs if v is not None)
        yield from self.outputs


@dataclass(eq=False)
class Program:
    """Steps from inputs to outputs, for one dtype."""

    dtype: np.dtype
    inputs: list[Value]
    outputs: list[Value]
    steps: list[Step]
    separable: bool  # whether rows of axis 0 of all inputs and outputs are independent
    limit: int  # of its work space, in bytes
    frozen: bool = False  # whether constants never change, so that they may be packed

    def constants(self) -> list[Storage]:
        """Every constant that a step reads, once, in the order of use."""
        return _unique(self.steps, "constant")

    def work(self) -> list[Storage]:
        """Every work array, once."""
        return _unique(self.steps, "work")


def _unique(steps: Iterable[Step], kind: str) -> list[Storage]:
    found = (v.storage for step in steps for v in step.values if v.storage.kind == kind)
    return list(dict.fromkeys(found))


def row_strides(shape: Sequence[int]) -> Shape:
    """Strides, in elements, of a contiguous array."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)
