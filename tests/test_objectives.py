"""`loopnest.objectives` and `descend` on functions of n variables."""

import numba
import numpy as np
import pytest
from helpers import assert_same_bits
from test_descent import CASES, _plain

import loopnest as ln
from loopnest import objectives
from loopnest.objectives import Objective


def _all(rng):
    features = rng.standard_normal((50, 3))
    labels = (features @ [1.0, -2.0, 0.5] + rng.standard_normal(50) > 0).astype(int)
    matrix = rng.standard_normal((4, 4))
    return [
        objectives.rosenbrock,
        objectives.beale,
        objectives.himmelblau,
        objectives.quadratic(matrix @ matrix.T / 8 + np.eye(4), rng.standard_normal(4)),
        objectives.logistic_regression(features, labels),
    ]


def test_minima_and_gradients(rng):
    for objective in _all(rng):
        slopes = _gradient(objective)
        for point in objective.minima:
            x = np.array(point)
            assert abs(objective.f(x) - objective.minimum) < 1e-14, objective.name
            assert np.abs(slopes(x)).max() < 1e-12, objective.name
        n = objective.dimension or 5
        for x in rng.standard_normal((6, n)):
            for i in range(n):
                h = np.zeros(n)
                h[i] = 1e-6
                central = (objective.f(x + h) - objective.f(x - h)) / 2e-6
                np.testing.assert_allclose(slopes(x)[i], central, rtol=1e-6, atol=1e-6)


def _gradient(objective):
    def call(x):
        out = np.empty_like(x)
        try:
            objective.gradient(x, out)
        except TypeError:
            out[:] = objective.gradient(x)
        return out

    return call


@pytest.mark.parametrize(
    ("name", "lr", "starts"),
    [
        ("rosenbrock", 2e-3, [[-1.0, 1.0], [0.0, 0.0]]),
        ("beale", 2e-3, [[2.0, 0.0], [3.5, 0.6]]),
        ("himmelblau", 2e-3, [[3.0, 1.0], [-3.0, 3.0], [-3.0, -3.0], [3.0, -2.0]]),
    ],
)
def test_known_minima_are_found(name, lr, starts):
    objective = getattr(objectives, name)
    options = {"method": "momentum", "convention": "heavy-ball", "momentum": 0.9, "tol": 1e-10}
    with ln.use_backend("numba"):
        found = ln.descend(objective, np.array(starts), lr=lr, steps=30_000, **options)
    assert found.converged.all() and not found.diverged.any()
    for i, x in enumerate(found.x):
        nearest = min(objective.minima, key=lambda m, x=x: np.abs(x - m).max())
        np.testing.assert_allclose(x, nearest, atol=1e-7)
        assert name != "himmelblau" or nearest == objective.minima[i]
    assert found.path == "scalar"


def test_made_objectives_are_minimised(rng, backend):
    for objective in _all(rng)[3:]:
        starts = rng.standard_normal((2, objective.dimension))
        steps = 400 if backend == "numba" else 60
        found = ln.descend(objective, starts, lr=0.2, steps=steps, method="nesterov", momentum=0.5)
        atol = 1e-3 if backend == "numba" else 1.0
        np.testing.assert_allclose(found.x, np.tile(objective.minima, (2, 1)), atol=atol)


def _bowl(x):
    return (x[0] - 1.5) ** 2 + 2 * (x[1] - 1.5) ** 2


def _bowl_gradient(x):
    return 2 * (x[0] - 1.5), 4 * (x[1] - 1.5)


@pytest.mark.parametrize("kind", ["gd", "momentum-lookback", "adam", "adamw", "lion"])
def test_each_coordinate_is_a_problem_of_its_own(kind, backend):
    options, method = CASES[kind], kind.split("-")[0]
    objective = Objective(_bowl, _bowl_gradient, 2, name="bowl")
    starts = np.array([[-2.0, 0.25], [1.0, 4.0]])
    common = {"method": method, "steps": 20, "weight_decay": 0.125, **options}
    found = ln.descend(objective, starts, lr=0.1, record=5, **common)
    assert found.trajectory.shape == (5, 2, 2)
    for i, start in enumerate(starts):
        for j, scale in enumerate((2, 4)):
            points = _plain(
                lambda x, s=scale: s * (x - 1.5), start[j], 0.1, 20, kind, 0.125, **options
            )
            np.testing.assert_allclose(found.trajectory[:, i, j], points[::5], rtol=1e-11)
    np.testing.assert_allclose(found.fun, [_bowl(x) for x in found.x], rtol=1e-13)
    np.testing.assert_allclose(found.grad, [_bowl_gradient(x) for x in found.x], rtol=1e-13)


def test_shapes_tol_nan_and_central(backend):
    objective = Objective(_bowl, _bowl_gradient, 2)
    starts = np.array([[0.0, 0.0], [np.nan, 0.0], [1.5, 1.5]])
    lr = np.array([[0.1], [0.2]])
    found = ln.descend(objective, starts, lr=lr, steps=300, tol=1e-6)
    assert found.x.shape == found.grad.shape == (2, 3, 2) and found.fun.shape == (2, 3)
    assert found.converged.tolist() == [[True, False, True]] * 2
    assert found.diverged.tolist() == [[False, True, False]] * 2
    assert found.steps[0, 1] == 0 and found.steps[0, 2] == 0 and found.steps[0, 0] > 10
    assert found.steps[0, 0] > found.steps[1, 0]
    one = ln.descend(objective, starts[0], lr=0.1, steps=300, tol=1e-6)
    assert one.x.shape == (2,) and one.steps == found.steps[0, 0] and one.converged is True
    assert_same_bits(one.x, found.x[0, 0])
    central = ln.descend(
        Objective(_bowl), starts[0], lr=0.1, steps=300, tol=1e-6, gradient="central"
    )
    np.testing.assert_allclose(central.x, 1.5, atol=1e-6)


def test_plain_and_compiled_functions(backend):
    pairs = [(_bowl, _bowl_gradient), (numba.njit(_bowl), numba.njit(_bowl_gradient))]
    pairs.append((_bowl, lambda x: [2 * (x[0] - 1.5), 4 * (x[1] - 1.5)]))
    for f, gradient in pairs:
        found = ln.descend(Objective(f, gradient), [0.0, 1.0], lr=0.1, steps=200)
        np.testing.assert_allclose(found.x, 1.5, atol=1e-10)


def test_bad_input(backend):
    bowl = Objective(_bowl, _bowl_gradient, 2, name="bowl")
    three = Objective(_bowl, lambda x: (1.0, 2.0, 3.0))
    for x0 in (1.0, [1.0, 2.0, 3.0], np.empty((3, 0))):
        with pytest.raises(ValueError, match=r"descend: x0 has shape .* for bowl: \(\.\.\., 2\)"):
            ln.descend(bowl, x0, lr=0.1, steps=1)
    with pytest.raises(ValueError, match=r"lr \(3,\).*broadcast"):
        ln.descend(bowl, np.ones((2, 2)), lr=[0.1] * 3, steps=1)
    with pytest.raises(ValueError, match="gradient gave"):
        ln.descend(three, [1.0, 2.0], lr=0.1, steps=1)
    with pytest.raises(ValueError, match="no gradient"):
        ln.descend(Objective(_bowl), [1.0, 2.0], lr=0.1, steps=1)
    with pytest.raises(TypeError, match="Objective: f is 3"):
        Objective(3)
    with pytest.raises(TypeError, match="objective gave"):
        ln.descend(Objective(lambda x: "no", _bowl_gradient), [1.0, 2.0], lr=0.1, steps=1)
    for arguments, message in (
        (([[1.0, 2.0], [2.0, 1.0]],), "positive definite"),
        (([[1.0, 2.0]],), "a has shape"),
        ((np.eye(2), [1.0]), "b"),
    ):
        with pytest.raises(ValueError, match=f"quadratic: .*{message}"):
            objectives.quadratic(*arguments)
    for arguments, message in (
        (([[1.0]], [2]), "labels has 2"),
        (([[1.0]], [0, 1]), "labels"),
        (([[1.0]], [1], 0.0), "penalty is 0"),
    ):
        with pytest.raises(ValueError, match=f"logistic_regression: .*{message}"):
            objectives.logistic_regression(*arguments)
