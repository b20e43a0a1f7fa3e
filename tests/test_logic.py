"""Training kernels of logic networks: values, gradients, equal bits."""

import importlib

import numpy as np
import pytest
import reference_logic as reference

import loopnest as ln
from loopnest.logic import training
from loopnest.runtime import threads

KERNELS = [
    importlib.import_module(f"loopnest.{package}.logic")
    for package, name in (("kernels", "numba"), ("ops.c", "c"))
    if name in ln.available_backends()
]


def network(dtype, seed=3, **options):
    net = ln.LogicNetwork(9, [20, 31, 12], 3, seed=seed, tau=1.7, dtype=dtype, **options)
    rng = np.random.default_rng(seed)
    net.logits = rng.standard_normal(net.logits.shape).astype(dtype)
    return net


def problem(count, inputs=9, classes=3):
    rng = np.random.default_rng(11)
    return rng.integers(0, 2, (count, inputs)).astype(np.uint8), rng.integers(0, classes, count)


def test_the_kernels_agree_on_the_layout():
    assert {(k.CHUNK) for k in KERNELS} == {32}


@pytest.mark.parametrize("neurons", [1, 15, 63, 64, 65, 130])
def test_coefficients(neurons, dtype):
    rng = np.random.default_rng(neurons)
    logits = (3 * rng.standard_normal((16, neurons))).astype(dtype)
    results = []
    for kernels in KERNELS:
        shares, c = np.empty_like(logits), np.empty(4 * neurons, dtype)
        kernels.logic_coefficients(logits, 0, neurons, shares, c)
        results.append((shares.tobytes(), c.tobytes()))
    assert len(set(results)) == 1
    eps = np.finfo(dtype).eps
    p = reference.shares(logits)
    np.testing.assert_allclose(shares, p, rtol=40 * eps)
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1), (0.3, 0.8)):
        mixed = sum(
            p[k] * f(np.float64(a), np.float64(b)) for k, f in enumerate(reference.FUNCTIONS)
        )
        c0, c1, c2, c3 = c.reshape(-1, 4).T.astype(np.float64)
        np.testing.assert_allclose(c0 + c1 * a + c2 * b + c3 * a * b, mixed, atol=40 * eps)


def test_huge_and_equal_logits(dtype):
    logits = np.zeros((16, 3), dtype)
    logits[6, 1], logits[:, 2] = 3e4, -3e4
    for kernels in KERNELS:
        shares, c = np.empty_like(logits), np.empty(12, dtype)
        kernels.logic_coefficients(logits, 0, 3, shares, c)
        assert np.all(shares[:, 0] == 1 / 16) and np.all(shares[:, 2] == 1 / 16)
        assert c[4:8].tolist() == [0, 1, 1, -2]  # xor
        assert c[:4].tolist() == [0.5, 0, 0, 0]


@pytest.mark.parametrize("count", [1, 31, 32, 33, 70])
def test_soft_scores(count, dtype, backend):
    net, (x, _) = network(dtype), problem(count)
    found = net.scores(x, soft=True)
    assert found.dtype == dtype and found.shape == (count, 3)
    tolerance = 200 * np.finfo(dtype).eps
    np.testing.assert_allclose(found, reference.soft_scores(net, x), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("count", [1, 33, 70])
def test_gradient_against_finite_differences(count, backend):
    net, (x, y) = network(np.float64), problem(count)
    engine = training.Engine(net)
    total = engine.gradient(x, y)
    assert np.isclose(total / count, reference.mean_loss(net, x, y), rtol=1e-12)
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = rng.standard_normal(net.logits.shape)
        step = 1e-5 * direction
        slope = (
            reference.mean_loss(net, x, y, net.logits + step)
            - reference.mean_loss(net, x, y, net.logits - step)
        ) / 2e-5
        assert np.isclose((engine.shares * direction).sum(), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("neuron", [0, 25, 51, 62])
def test_each_logit_of_a_neuron(neuron):
    net, (x, y) = network(np.float64), problem(40)
    engine = training.Engine(net)
    engine.gradient(x, y)
    for k in range(16):
        up, down = net.logits.copy(), net.logits.copy()
        up[k, neuron] += 1e-5
        down[k, neuron] -= 1e-5
        slope = (reference.mean_loss(net, x, y, up) - reference.mean_loss(net, x, y, down)) / 2e-5
        assert np.isclose(engine.shares[k, neuron], slope, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("count", [1, 45, 200])
def test_bits_do_not_depend_on_backend_or_threads(count, dtype, monkeypatch):
    monkeypatch.setattr(threads, "SERIAL_BELOW", 0)
    net, (x, y) = network(dtype), problem(count)
    results = []
    for name in ln.available_backends():
        for workers in (1, 2, 3):
            monkeypatch.setattr(threads, "_count", workers)
            with ln.use_backend(name):
                engine = training.Engine(net)
                loss = engine.gradient(x, y)
                scores = net.scores(x, soft=True)
            results.append((loss, engine.shares.tobytes(), scores.tobytes()))
    assert len(set(results)) == 1


def test_instruction_sets_give_the_same_bits():
    _c = pytest.importorskip("loopnest._c")
    net, (x, y) = network(np.float32), problem(70)
    found = set()
    try:
        for isa in ("base", "avx2", "avx512"):
            if _c.lib.ln_select_isa(isa.encode()) == 0:
                with ln.use_backend("c"):
                    engine = training.Engine(net)
                    engine.gradient(x, y)
                    packed = net.pack()
                    found.add((engine.shares.tobytes(), packed.scores(x).tobytes()))
    finally:
        _c.lib.ln_select_isa(b"best")
    assert len(found) == 1


def test_the_order_of_the_sums():
    """The contract of kernels/logic.py, step by step in float32."""
    rng = np.random.default_rng(4)
    g, a, b = rng.standard_normal((3, 32)).astype(np.float32)
    x = np.stack([a, b]).reshape(-1)
    left, right = np.array([0], np.int32), np.array([1], np.int32)
    c, starts = np.zeros(4, np.float32), np.array([0, 1])
    for kernels in KERNELS:
        y, dy, dc = np.empty(32, np.float32), g.copy(), np.empty(4, np.float32)
        kernels.logic_forward(x, left, right, c, starts, y)
        kernels.logic_backward(x, y, left, right, c, starts, dy, np.empty(32, np.float32), dc)
        lanes = np.zeros(16, np.float32)
        for i in (0, 16):
            lanes = lanes + g[i : i + 16]
        for half in (8, 4, 2, 1):
            lanes = lanes[:half] + lanes[half : 2 * half]
        assert dc[0] == lanes[0]
