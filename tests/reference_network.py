"""The networks of the benchmark's rows, and their references in float64 by reference.py."""

import functools

import numpy as np
import reference

ADAMW = {"step": 10, "lr": 1e-3, "weight_decay": 0.05}  # state as after some steps
BETAS, EPS = (0.9, 0.999), 1e-8


def make(name):
    """A new network: all competitors take its weights."""
    import loopnest as ln

    if not hasattr(ln, "Sequential"):
        raise NotImplementedError("this loopnest has no networks")
    if name.startswith("lenet"):
        return ln.Sequential(
            *(ln.Conv2d(1, 6, 5, padding=2), ln.ReLU(), ln.MaxPool2d(2)),
            *(ln.Conv2d(6, 16, 5), ln.ReLU(), ln.MaxPool2d(2), ln.Flatten()),
            *(ln.Linear(400, 120), ln.ReLU(), ln.Linear(120, 84), ln.ReLU(), ln.Linear(84, 10)),
            input_shape=(1, 28, 28), seed=0,
        )  # fmt: skip
    return ln.Sequential(
        *(ln.Linear(64, 64), ln.Tanh(), ln.Linear(64, 2), ln.Tanh()), input_shape=(64,), seed=0
    )


network = functools.cache(make)
trainable = make  # its weights change


def adamw_state(net):
    """First and second moments as after some steps: far from 0, where a step jumps in sign."""
    return np.zeros_like(net.vector), np.full_like(net.vector, 0.5)


def weights_of(net):
    """(weight, bias) of each layer, in float64."""
    values = [v.astype(float) for v in net.parameters.values()]
    return list(zip(values[::2], values[1::2], strict=True))


def _lenet(weights, x):
    """Logits, and what the backward pass needs."""
    (w1, b1), (w2, b2), *dense = weights
    a1 = reference.conv2d(x, w1, b1, padding=2)
    p1, i1 = reference.max_pool2d(np.maximum(a1, 0), 2, return_indices=True)
    a2 = reference.conv2d(p1, w2, b2)
    p2, i2 = reference.max_pool2d(np.maximum(a2, 0), 2, return_indices=True)
    inputs, h = [], p2.reshape(len(x), -1)
    for i, (w, b) in enumerate(dense):
        inputs.append(h)
        h = h @ w + b
        h = np.maximum(h, 0) if i < len(dense) - 1 else h
    return h, (a1, p1, i1, a2, p2, i2, inputs)


def _lenet_gradients(weights, x, dy, tape):
    """Gradients by each (weight, bias)."""
    a1, p1, i1, a2, p2, i2, inputs = tape
    found = []
    for i in range(len(inputs) - 1, -1, -1):
        dx, dw, db = reference.linear_backward(dy, inputs[i], weights[2 + i][0])
        found[:0] = [(dw, db)]
        dy = dx * (inputs[i] > 0) if i else dx
    dy = reference.max_pool2d_backward(dy.reshape(p2.shape), a2, i2, 2) * (a2 > 0)
    dx, dw2, db2 = reference.conv2d_backward(dy, p1, weights[1][0])
    dy = reference.max_pool2d_backward(dx, a1, i1, 2) * (a1 > 0)
    _, dw1, db1 = reference.conv2d_backward(dy, x, weights[0][0], padding=2)
    return [(dw1, db1), (dw2, db2), *found]


def network_forward(name, x):
    """Outputs of the network of this name."""
    weights, x = weights_of(network(name)), x.astype(float)
    if name.startswith("lenet"):
        return _lenet(weights, x)[0]
    for w, b in weights:
        x = np.tanh(x @ w + b)
    return x


def network_step(name, x, target):
    """Loss of a batch, and the weights after one AdamW step from `adamw_state`."""
    net = make(name)
    weights, x = weights_of(net), x.astype(float)
    logits, tape = _lenet(weights, x)
    loss = reference.cross_entropy(logits, target)
    gradients = _lenet_gradients(weights, x, reference.cross_entropy_backward(logits, target), tape)
    slope = np.concatenate([g.reshape(-1) for pair in gradients for g in pair])
    (m, v), (b1, b2), t = (s.astype(float) for s in adamw_state(net)), BETAS, ADAMW["step"]
    m, v = b1 * m + (1 - b1) * slope, b2 * v + (1 - b2) * slope**2
    after = net.vector.astype(float) * (1 - ADAMW["lr"] * ADAMW["weight_decay"])
    root = np.sqrt(v / (1 - b2**t)) + EPS
    return loss, after - ADAMW["lr"] * (m / (1 - b1**t)) / root
