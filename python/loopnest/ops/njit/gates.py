"""Gates inside ``@njit``: arrays of one shape, or numbers."""

import numpy as np
from numba import types
from numba.core.errors import TypingError

from loopnest.kernels import gates as kernels
from loopnest.kernels import scalar
from loopnest.kernels.linking import linked
from loopnest.ops import gates as public
from loopnest.ops.njit.common import (
    contiguous,
    literal,
    no_output,
    output,
    overloads,
    promoted,
    same_dtype,
    separate,
)

_EITHER_CASE = public.GATE_NAMES + tuple(name.upper() for name in public.GATE_NAMES)


def _numbers(name, a, b):
    """Implementation for two numbers."""
    dtypes = [promoted("gate_forward", k, types.unliteral(v)) for k, v in (("a", a), ("b", b))]
    if dtypes[0] != dtypes[1]:
        raise TypingError(f"gate_forward: a and b are of different types: {a}, {b}")
    real = np.float32 if dtypes[0] == types.float32 else np.float64
    weights = tuple(real(w) for w in public.packed_weights(name, real))
    neuron, relu, sigmoid = kernels.neuron, scalar.relu, scalar.sigmoid
    if len(weights) == 3:
        wa, wb, bias = weights
        return lambda gate, a, b, out=None: sigmoid(neuron(real(a), real(b), wa, wb, bias))
    wa1, wb1, bias1, wa2, wb2, bias2, v1, v2, bias3 = weights

    def forward(gate, a, b, out=None):
        h1 = relu(neuron(real(a), real(b), wa1, wb1, bias1))
        h2 = relu(neuron(real(a), real(b), wa2, wb2, bias2))
        return sigmoid(neuron(h1, h2, v1, v2, bias3))

    return forward


@overloads(public.gate_forward)
def gate_forward(gate, a, b, out=None):
    op = "gate_forward"
    name = literal(op, "gate", gate, _EITHER_CASE).lower()
    if not (isinstance(a, types.Array) or isinstance(b, types.Array)):
        no_output(op, out)
        return _numbers(name, a, b)
    dtype = same_dtype(op, a=a, b=b)
    if a.ndim != b.ndim:
        raise TypingError(f"{op}: a has {a.ndim} dimensions, b {b.ndim}; accepted: the same")
    weights = public.packed_weights(name, np.float32 if dtype == types.float32 else np.float64)
    prepare_a, prepare_b = contiguous(a, dtype), contiguous(b, dtype)
    make, check = output(op, out, dtype, a.ndim), separate(op, out, in_place=True)
    kernel = linked(kernels.gate_forward)

    def forward(gate, a, b, out=None):
        if a.shape != b.shape:
            raise ValueError("gate_forward: a and b differ in shape")
        left, right = prepare_a(a), prepare_b(b)
        y = make(out, a.shape)
        check(y, a)
        check(y, b)
        kernel(left.reshape(left.size), right.reshape(right.size), weights, y.reshape(y.size))
        return y

    return forward
