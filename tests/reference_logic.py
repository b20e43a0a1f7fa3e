"""Logic networks in float64 and plain loops: the 16 functions written out, nothing clever."""

import numpy as np

FUNCTIONS = (
    lambda a, b: 0 * a,
    lambda a, b: a * b,
    lambda a, b: a - a * b,
    lambda a, b: a + 0 * b,
    lambda a, b: b - a * b,
    lambda a, b: b + 0 * a,
    lambda a, b: a + b - 2 * a * b,
    lambda a, b: a + b - a * b,
    lambda a, b: 1 - (a + b - a * b),
    lambda a, b: 1 - (a + b - 2 * a * b),
    lambda a, b: 1 - b + 0 * a,
    lambda a, b: 1 - b + a * b,
    lambda a, b: 1 - a + 0 * b,
    lambda a, b: 1 - a + a * b,
    lambda a, b: 1 - a * b,
    lambda a, b: 1 + 0 * a,
)


def shares(logits):
    """Softmax over the 16 functions of each neuron."""
    w = np.asarray(logits, np.float64)
    e = np.exp(w - w.max(axis=0))
    return e / e.sum(axis=0)


def soft_values(x, logits, left, right, starts):
    """Values of all layers, (features or neurons, samples) each."""
    p = shares(logits)
    values = [np.asarray(x, np.float64).T]
    for layer in range(len(starts) - 1):
        rows = []
        for n in range(starts[layer], starts[layer + 1]):
            a, b = values[-1][left[n]], values[-1][right[n]]
            rows.append(sum(p[k, n] * FUNCTIONS[k](a, b) for k in range(16)))
        values.append(np.stack(rows))
    return values


def soft_scores(net, x, logits=None):
    """Scores of a LogicNetwork as training sees them."""
    logits = net.logits if logits is None else logits
    last = soft_values(x, logits, net.left, net.right, net.starts)[-1]
    return last.reshape(net.classes, -1, len(x)).sum(axis=1).T / net.tau


def mean_loss(net, x, y, logits=None):
    """Mean cross-entropy of the soft network."""
    scores = soft_scores(net, x, logits)
    top = scores.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(scores - top).sum(axis=1)) + top[:, 0]
    return np.mean(log_sum - scores[np.arange(len(y)), y])


def outputs(netlist, x):
    """Output bits (samples, outputs) of a netlist, gate by gate."""
    signals = [column.astype(int) for column in np.asarray(x).T]
    for op, a, b in zip(netlist.op, netlist.left, netlist.right, strict=True):
        signals.append(int(op) >> (3 - 2 * signals[a] - signals[b]) & 1)
    return np.stack([signals[i] for i in netlist.outputs], axis=1).astype(np.uint8)
