"""Two-input gates as small networks, element-wise over contiguous 1-D arrays; y may be a or b.

``weights`` holds a neuron as (wa, wb, bias), so 3 numbers for a single neuron; 9 for a 2-2-1
network: two hidden neurons with ReLU, then the output neuron. A neuron sums in the order a, b,
fused, and adds its bias last, as `linear` does. The twin is csrc/gates.c.
"""

from loopnest.kernels import scalar
from loopnest.kernels.jit import kernel
from loopnest.kernels.jit import scalar as inlined
from loopnest.kernels.simd import fma


@inlined
def neuron(a, b, wa, wb, bias):
    """Pre-activation of one neuron."""
    return fma(b, wb, a * wa) + bias


@kernel
def gate_forward(a, b, weights, y):
    if weights.size == 3:
        wa, wb, bias = weights[0], weights[1], weights[2]
        for i in range(a.size):
            y[i] = scalar.sigmoid(neuron(a[i], b[i], wa, wb, bias))
        return
    wa1, wb1, bias1 = weights[0], weights[1], weights[2]
    wa2, wb2, bias2 = weights[3], weights[4], weights[5]
    v1, v2, bias3 = weights[6], weights[7], weights[8]
    for i in range(a.size):
        h1 = scalar.relu(neuron(a[i], b[i], wa1, wb1, bias1))
        h2 = scalar.relu(neuron(a[i], b[i], wa2, wb2, bias2))
        y[i] = scalar.sigmoid(neuron(h1, h2, v1, v2, bias3))
