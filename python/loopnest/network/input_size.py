"""The size of images that a network takes, where its first dense layer tells it."""

from __future__ import annotations

from typing import Any, NoReturn

from loopnest.network.lowering import Lowering
from loopnest.network.program import Value

LARGEST = 1024  # pixels of a side: beyond it a search would take long, and users know the size
SHOWN = 8  # sizes that a message lists


class _Reached(Exception):
    """The first dense layer: its inputs as they would be, and as its weight has them."""

    def __init__(self, given: int, wanted: int) -> None:
        self.given, self.wanted = given, wanted


class _UpToDense(Lowering):
    """Lowers a network up to its first dense layer."""

    def linear(self, x: Value, weight: Value, bias: Value | None) -> NoReturn:
        raise _Reached(x.shape[-1] if x.ndim else 0, weight.shape[0])


def square_sizes(network: Any) -> list[int]:
    """Heights of the square images that its first dense layer fits, up to `SHOWN`; none if unknown.

    The layer sees all numbers of an image, so larger images give it more inputs, and few sizes fit.
    Where more than `SHOWN` fit the answer is none.
    """
    spec = network.inputs[0]
    if len(network.inputs) != 1 or len(spec.shape) != 4 or spec.shape[1] is None:
        return []
    if spec.shape[2:] != (None, None):
        return []
    found: list[int] = []
    for size in range(1, LARGEST + 1):
        builder = _UpToDense(network.dtype, network._limit)
        try:
            network.lower_into(builder, [(spec.shape[0] or 1, spec.shape[1], size, size)])
        except _Reached as layer:
            if layer.given == layer.wanted:
                found.append(size)
            if layer.given > layer.wanted:
                return found
            if len(found) > SHOWN:  # pooling of whole planes: any size fits
                return []
        except ValueError:
            continue  # smaller than a window, or branches whose sizes differ
        else:
            return []  # no dense layer
    return found
