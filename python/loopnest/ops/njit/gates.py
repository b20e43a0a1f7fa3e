"""Gates inside ``@njit``: arrays that broadcast, or numbers."""

import numpy as np
from numba import types
from numba.core.errors import TypingError

from loopnest.kernels import gates as kernels
from loopnest.kernels import scalar
from loopnest.kernels.jit import jitable
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


def _fits(op, a, b):
    """Compiled function ``(a, b)`` that refuses shapes that do not broadcast."""
    axes = min(a.ndim, b.ndim)
    message = op + ": a and b have shapes that do not broadcast against each other"
    if axes == 0:
        return jitable(lambda a, b: None)

    def check(a, b):
        for axis in range(1, axes + 1):
            m, n = a.shape[-axis], b.shape[-axis]
            if m != n and m != 1 and n != 1:
                raise ValueError(message)

    return jitable(check)


def _as_array(op, name, value, other):
    """Type of an operand as an array, and the compiled function that makes it one.

    A number takes the dtype of the other operand, an array, as in Python.
    """
    if isinstance(value, types.Array):
        return value, jitable(lambda v: v)
    dtype = promoted(op, name, types.unliteral(value))
    if dtype == types.float64:
        dtype = promoted(op, "a", other.dtype)
    real = np.float32 if dtype == types.float32 else np.float64
    return types.Array(dtype, 0, "C"), jitable(lambda v: np.array(real(v)))


@overloads(public.gate_forward)
def gate_forward(gate, a, b, out=None):
    op = "gate_forward"
    name = literal(op, "gate", gate, _EITHER_CASE).lower()
    if not (isinstance(a, types.Array) or isinstance(b, types.Array)):
        no_output(op, out)
        return _numbers(name, a, b)
    (a, array_a), (b, array_b) = _as_array(op, "a", a, b), _as_array(op, "b", b, a)
    dtype = same_dtype(op, a=a, b=b)
    weights = public.packed_weights(name, np.float32 if dtype == types.float32 else np.float64)
    prepare_a, prepare_b, fits = contiguous(a, dtype), contiguous(b, dtype), _fits(op, a, b)
    ndim = max(a.ndim, b.ndim)
    make, check = output(op, out, dtype, ndim), separate(op, out, in_place=True)
    compute = linked(kernels.gate_forward)
    spread = contiguous(types.Array(dtype, ndim, "A", readonly=True), dtype)

    def forward(gate, a, b, out=None):
        given_a, given_b = array_a(a), array_b(b)
        fits(given_a, given_b)
        shape = np.broadcast_shapes(given_a.shape, given_b.shape)
        left, right = prepare_a(given_a), prepare_b(given_b)
        y = make(out, shape)
        check(y, given_a)
        check(y, given_b)
        if left.size == y.size and right.size == y.size:
            compute(left.reshape(left.size), right.reshape(right.size), weights, y.reshape(y.size))
        else:
            wide_a = spread(np.broadcast_to(left, shape))
            wide_b = spread(np.broadcast_to(right, shape))
            compute(wide_a.reshape(y.size), wide_b.reshape(y.size), weights, y.reshape(y.size))
        return y

    return forward
