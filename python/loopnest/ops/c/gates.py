"""C twins of ``loopnest.kernels.gates``."""

from __future__ import annotations

from loopnest.ops.c.call import by_dtype, pointer

_gate_forward = by_dtype("gate_forward")


def gate_forward(a, b, weights, y):
    hidden = weights.size == 9
    _gate_forward[a.dtype](pointer(a), pointer(b), a.size, pointer(weights), hidden, pointer(y))
