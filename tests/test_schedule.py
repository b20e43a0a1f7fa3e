"""`descend`: schedules, every k-th step, decay rates of each problem, paths of the caller's functions."""

import math
import pickle

import numba
import numpy as np
import pytest
from helpers import assert_same_bits

import loopnest as ln

STEPS = 12
SCHEDULES = {
    "constant": ("constant", lambda t: 1.0),
    "step": (("step", 5, 0.5), lambda t: 0.5 ** (t // 5)),
    "exponential": (("exponential", 0.8), lambda t: 0.8**t),
    "cosine": ("cosine", lambda t: (1 + math.cos(math.pi * t / STEPS)) / 2),
    "cosine to a tenth": (("cosine", 0.1), lambda t: 0.55 + 0.45 * math.cos(math.pi * t / STEPS)),
    "array": (np.linspace(2, 0, STEPS), lambda t: 2 - 2 * t / (STEPS - 1)),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("objective", ["gelu", "pair"])
def test_schedules(name, objective):
    schedule, factor = SCHEDULES[name]
    pair = (lambda x: x * x, lambda x: 2 * x)
    slope = ln.gelu_derivative if objective == "gelu" else pair[1]
    with ln.use_backend("c"):
        for decay in (0.0, 0.25):
            found = ln.descend(
                "gelu" if objective == "gelu" else pair, 1.5, lr=0.3, steps=STEPS, method="adamw",
                schedule=schedule, weight_decay=decay, record=True,
            )  # fmt: skip
            x, m, v = 1.5, 0.0, 0.0
            for t in range(STEPS):
                g, lr = float(slope(x)), 0.3 * factor(t)
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                step = m / (1 - 0.9 ** (t + 1)) / (math.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
                x = x * (1 - lr * decay) - lr * step
                np.testing.assert_allclose(found.trajectory[t + 1], x, rtol=1e-9)


def test_schedules_are_pytorchs():
    torch = pytest.importorskip("torch")
    made = {
        ("step", 4, 0.3): lambda o: torch.optim.lr_scheduler.StepLR(o, 4, 0.3),
        ("exponential", 0.9): lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        ("cosine", 0.0): lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, STEPS),
    }
    from loopnest.descent.schedule import factors

    for schedule, make in made.items():
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        scheduler, rates = make(optimizer), []
        for _ in range(STEPS):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        np.testing.assert_allclose(factors("descend", schedule, STEPS), rates, atol=1e-12)


@pytest.mark.parametrize("every", [1, 3, 7, 50])
def test_every_kth_point(every, backend, dtype):
    x0 = np.array([-2.0, 0.5, np.nan, 0.7], dtype)
    options = {"lr": 0.3, "steps": 20, "tol": 1e-2}
    whole = ln.descend("gelu", x0, record=True, **options)
    some = ln.descend("gelu", x0, record=every, **options)
    assert some.trajectory.shape == (20 // every + 1, 4)
    assert_same_bits(some.trajectory, whole.trajectory[::every])
    assert_same_bits(some.x, whole.x)


@pytest.mark.parametrize("method", ["adam", "lion", "rmsprop"])
def test_decay_rates_of_each_problem(method):
    x0 = np.linspace(-2, 2, 5)
    beta1, beta2 = np.array([0.5, 0.9, 0.5, 0.0, 0.9]), np.array([[0.9], [0.99]])
    options = {"method": method, "lr": 0.1, "steps": 15, "record": 5}
    with ln.use_backend("c"):
        found = ln.descend("silu", x0, betas=(beta1, beta2), alpha=beta2, **options)
        assert found.x.shape == (2, 5) and found.trajectory.shape == (4, 2, 5)
        for i, j in np.ndindex(2, 5):
            rates = {"betas": (beta1[j], beta2[i, 0]), "alpha": beta2[i, 0]}
            alone = ln.descend("silu", x0[j], **rates, **options)
            assert_same_bits(found.trajectory[:, i, j], alone.trajectory)
            assert_same_bits(found.fun[i, j], alone.fun)


def test_nan_stops_one_problem_only(backend):
    """1/x^2 has its NaN at the pole: inf - inf; the neighbours go on for many runs of steps."""
    slope = (lambda x: -1 / x, lambda x: 1 / x - 1 / x)  # NaN where x is 0, else 0
    found = ln.descend(slope, np.array([0.0, 1.0, -3.0]), lr=0.1, steps=200)
    assert found.steps.tolist() == [0, 200, 200]
    assert found.diverged.tolist() == [True, False, False]
    assert found.x.tolist() == [0.0, 1.0, -3.0]


def test_paths():
    x0 = np.linspace(-1, 1, 40)
    with ln.use_backend("numba"):
        vector = ln.descend(
            (lambda x: math.exp(x) + x**2 - x, lambda x: math.exp(x) + 2 * x - 1),
            x0,
            lr=0.1,
            steps=9,
        )
        assert vector.path == "vector"
        branch = ln.descend(
            (lambda x: x if x > 0 else -0.5 * x, lambda x: 1.0 if x > 0 else -0.5),
            x0,
            lr=0.1,
            steps=9,
        )
        assert branch.path == "vector"
        scalar = ln.descend((lambda x: math.sin(x), math.cos), x0, lr=0.1, steps=9)
        assert scalar.path == "scalar" and "vectors" in scalar.path.reason
        odd = ln.descend(
            (lambda x: float(f"{x}") ** 2, lambda x: float(f"{x}") * 2), x0, lr=0.1, steps=9
        )
        assert odd.path == "numpy" and "Numba" in odd.path.reason
    with ln.use_backend("c"):
        plain = ln.descend(
            (lambda x: np.exp(x) + x**2 - x, lambda x: np.exp(x) + 2 * x - 1), x0, lr=0.1, steps=9
        )
        assert plain.path == "numpy" and ln.descend("gelu", 0.0, lr=1, steps=1).path == "built-in"
    np.testing.assert_allclose(vector.x, plain.x, rtol=1e-13)
    path = pickle.loads(pickle.dumps(vector.path))
    assert path == "vector" and path.reason == vector.path.reason


def test_a_formula_on_float32_vectors():
    """Constants do not widen float32; whole powers, comparisons and functions are there."""

    def f(x):
        y = abs(x) ** 3 + math.sqrt(x * x + 1.5) - math.log(2.0 + math.tanh(x)) + 1 / (3 + x**-2)
        return max(y, 0.1) if -9 < x <= 9 else min(x, 1)

    x = np.linspace(-8, 8, 101).astype(np.float32)
    x[50] = 0.25
    with ln.use_backend("numba"):
        found = ln.descend((numba.njit(f), lambda x: 0 * x), x, lr=0.1, steps=1)
    assert found.path == "vector" and found.fun.dtype == np.float32
    np.testing.assert_allclose(found.fun, [f(float(v)) for v in x], rtol=2e-6)


def test_njit_schedules_and_kth_points():
    factors = np.linspace(1, 0.1, 20)

    @numba.njit
    def run(x0, factors):
        return ln.descend(
            ln.gelu, x0, lr=0.5, steps=20, method="lion", schedule=factors, record=6,
            weight_decay=0.01,
        )  # fmt: skip

    x0 = np.array([-1.0, 2.0, np.nan])
    with ln.use_backend("numba"):
        found = run(x0, factors)
        expected = ln.descend(
            "gelu", x0, lr=0.5, steps=20, method="lion", schedule=factors, record=6,
            weight_decay=0.01,
        )  # fmt: skip
    for name in ("x", "steps", "trajectory", "diverged"):
        assert_same_bits(getattr(found, name), getattr(expected, name), name)
