"""References of the benchmark's jobs (bench/jobs.py), in float64."""

import functools

import numpy as np

LOGIC = {"inputs": 784, "layers": (8000,) * 6, "classes": 10, "seed": 1}
# Value of each of the 16 functions at 00, 01, 10, 11: the bits of its number.
CORNERS = np.array([[k >> (3 - c) & 1 for c in range(4)] for k in range(16)], float)
# Function = c0 + c1 a + c2 b + c3 a b.
BILINEAR = CORNERS @ np.array([[1, -1, -1, 1], [0, 0, 1, -1], [0, 1, 0, -1], [0, 0, 0, 1]], float)


@functools.cache
def logic_network():
    """The network of the logic rows: connections and logits for all competitors."""
    import loopnest as ln

    if not hasattr(ln, "LogicNetwork"):
        raise NotImplementedError("this loopnest has no LogicNetwork")
    return ln.LogicNetwork(**LOGIC, init="random")


def logic_layers(net):
    """First and last neuron, and inputs of each layer."""
    return [(a, b, net.left[a:b], net.right[a:b])
            for a, b in zip(net.starts[:-1], net.starts[1:], strict=True)]  # fmt: skip


def logic_step(bits, labels):
    """Mean loss of a batch, and its gradient by the logits."""
    net = logic_network()
    shares = np.exp(net.logits.astype(float))
    shares /= shares.sum(axis=0)
    c0, c1, c2, c3 = BILINEAR.T @ shares
    values = [bits.T.astype(float)]
    for a, b, left, right in logic_layers(net):
        x, y = values[-1][left], values[-1][right]
        k = (slice(a, b), None)
        values.append(c0[k] + c1[k] * x + c2[k] * y + c3[k] * x * y)
    scores = values[-1].reshape(net.classes, -1, len(bits)).sum(axis=1).T / net.tau
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(len(bits))
    loss = -np.log(p[rows, labels]).mean()
    p[rows, labels] -= 1
    dy = np.repeat(p.T / net.tau / len(bits), net.layers[-1] // net.classes, axis=0)
    dcoefficients = np.empty((4, net.neurons))
    for (a, b, left, right), below in zip(logic_layers(net)[::-1], values[-2::-1], strict=True):
        x, y = below[left], below[right]
        dcoefficients[:, a:b] = [(dy * v).sum(axis=1) for v in (1, x, y, x * y)]
        dx = np.zeros_like(below)
        k = (slice(a, b), None)
        np.add.at(dx, left, dy * (c1[k] + c3[k] * y))
        np.add.at(dx, right, dy * (c2[k] + c3[k] * x))
        dy = dx
    dshares = BILINEAR @ dcoefficients
    return loss, shares * (dshares - (shares * dshares).sum(axis=0))


def logic_predict(bits):
    """Classes by the most probable function of each neuron, on whole numbers."""
    net = logic_network()
    values = bits.T.astype(np.int64)
    for a, b, left, right in logic_layers(net):
        corner = 2 * values[left] + values[right]
        values = net.functions[a:b, None] >> (3 - corner) & 1
    return values.reshape(net.classes, -1, len(bits)).sum(axis=1).argmax(axis=0)
