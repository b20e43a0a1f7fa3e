"""Gradients of networks: finite differences, PyTorch step by step, and inside @njit."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from helpers import assert_same_bits
from test_network import INPUTS, branches, lenet, policy

import loopnest as ln


@pytest.mark.parametrize("make", list(INPUTS), ids=lambda f: f.__name__)
def test_finite_differences(make, rng):
    net = make(np.float64)
    x = rng.standard_normal((2, *INPUTS[make]))
    y, tape = net.forward(x)
    assert_same_bits(y, net(x))
    dy = rng.standard_normal(y.shape)
    dx, gradients = net.backward(dy, tape)
    assert set(gradients) == set(net.parameters)
    for values, slopes in ((net.vector, gradients.vector), (x.reshape(-1), dx.reshape(-1))):
        for i in rng.choice(values.size, min(25, values.size), replace=False):
            middle, results = values[i], []
            for step in (1e-6, -1e-6):
                values[i] = middle + step
                results.append(float((net(x) * dy).sum()))
            values[i] = middle
            expected = (results[0] - results[1]) / 2e-6
            assert abs(expected - slopes[i]) < 1e-5 * (1 + abs(expected))


def test_both_backends_give_the_same_bits(dtype, rng):
    net = branches(dtype)
    x, dy = rng.standard_normal((3, 2, 11, 13)).astype(dtype), rng.standard_normal((3, 18))
    with ln.use_backend("numba"):
        dx, expected = net.backward(dy.astype(dtype), x)
    with ln.use_backend("c"):
        other, found = net.backward(dy.astype(dtype), x)
    assert_same_bits((other, found.vector), (dx, expected.vector))


def test_gradient_for_training_is_that_of_backward(backend, rng):
    """Without the gradient by the input, and from tapes that are used again."""
    net = lenet()
    for n in (5, 3, 5, 5):
        x, target = rng.standard_normal((n, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, n)
        loss, gradients = net.gradient(x, target)
        y, tape = net.forward(x)
        expected, dy = ln.cross_entropy_with_grad(y, target)
        assert loss == expected
        assert_same_bits(gradients.vector, net.backward(dy, tape)[1].vector)
    with pytest.raises(ValueError, match="gradient: x has shape.*a batch"):
        net.gradient(x[0], target[:1])
    with pytest.raises(ValueError, match="target"):
        net.gradient(x, target[1:])
    assert net.gradient(x, target)[0] == loss


def test_one_sample_without_a_batch_axis(rng):
    net = policy()
    x = rng.standard_normal(7).astype(np.float32)
    y, tape = net.forward(x)
    dx, gradients = net.backward(np.ones(2, np.float32), tape)
    wide_dx, wide = net.backward(np.ones((1, 2), np.float32), x[None])
    assert y.shape == (2,) and dx.shape == (7,)
    assert_same_bits((dx, gradients.vector), (wide_dx[0], wide.vector))


def test_lenet_trains_step_by_step_as_in_pytorch(rng):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    net = lenet()
    theirs = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    theirs.load_state_dict({k: torch.tensor(v) for k, v in net.state_dict().items()})
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    x = rng.standard_normal((16, 1, 28, 28)).astype(np.float32)
    target = rng.integers(0, 10, 16)
    buffer = np.zeros_like(net.vector)
    for _ in range(5):
        y, tape = net.forward(x)
        loss = ln.cross_entropy(y, target)
        _, gradients = net.backward(ln.cross_entropy_backward(y, target), tape)
        optimizer.zero_grad()
        expected = nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(target))
        expected.backward()
        assert abs(loss - expected.item()) < 1e-5
        for name, parameter in theirs.named_parameters():
            found = gradients[name].T if gradients[name].ndim == 2 else gradients[name]
            np.testing.assert_allclose(found, parameter.grad, rtol=1e-3, atol=1e-6, err_msg=name)
        ln.sgd_step(net.vector, gradients.vector, buffer, lr=0.05, momentum=0.9)
        optimizer.step()
        for name, value in theirs.state_dict().items():
            np.testing.assert_allclose(net.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_inside_njit(rng):
    """The same loss, gradient and weights as from NumPy, for several batch sizes."""
    net, twin = (
        ln.Sequential(
            ln.Conv2d(1, 3, 3), ln.ReLU(), ln.MaxPool2d(2), ln.Flatten(), ln.Linear(27, 4),
            input_shape=(1, 8, 8),
        )
        for _ in range(2)
    )  # fmt: skip
    gradient = net.njit_gradient(batch=8)

    @numba.njit
    def train(weights, images, targets, slope, buffer):
        loss = np.float32(0)
        for start in range(0, len(images), 8):
            loss = gradient(images[start : start + 8], targets[start : start + 8], slope)
            ln.sgd_step(weights, slope, buffer, lr=0.1, momentum=0.9)
        return loss

    images = rng.standard_normal((19, 1, 8, 8)).astype(np.float32)
    targets = rng.integers(0, 4, 19)
    loss = train(net.vector, images, targets, np.empty_like(net.vector), np.zeros_like(net.vector))
    buffer = np.zeros_like(twin.vector)
    for start in range(0, 19, 8):
        x, t = images[start : start + 8], targets[start : start + 8]
        y, tape = twin.forward(x)
        _, gradients = twin.backward(ln.cross_entropy_backward(y, t), tape)
        ln.sgd_step(twin.vector, gradients.vector, buffer, lr=0.1, momentum=0.9)
    assert_same_bits(net.vector, twin.vector)
    assert np.float32(loss) == ln.cross_entropy(y, t)
    slope = np.empty_like(net.vector)
    for x, t, out, message in (
        (images[:9], targets[:9], slope, "x has the wrong shape"),
        (images[:4, :, 1:], targets[:4], slope, "x has the wrong shape"),
        (images[:4], targets[:3], slope, "target"),
        (images[:4], targets[:4], slope[1:], "out must have"),
    ):
        with pytest.raises(ValueError, match=message):
            gradient(x, t, out)


def test_wrong_arguments(rng):
    net = policy()
    x = np.zeros((3, 7), np.float32)
    _, tape = net.forward(x)
    with pytest.raises(ValueError, match="dy has shape"):
        net.backward(np.zeros((2, 2), np.float32), tape)
    with pytest.raises(TypeError, match="dtype float64"):
        net.backward(np.zeros((3, 2)), tape)
    with pytest.raises(ValueError, match="another network"):
        policy().backward(np.zeros((3, 2), np.float32), tape)
    with pytest.raises(ValueError, match="batch"):
        net.njit_gradient(batch=0)
    with pytest.raises(ValueError, match="logits"):
        ln.Sequential(ln.ReLU(), input_shape=(2, 3)).njit_gradient(batch=4)
