"""`descend`: formulas, the worked problem, broadcasting, backends, threads, @njit, bad input."""

import math

import numba
import numpy as np
import pytest
from helpers import assert_same_bits

import loopnest as ln
from loopnest.descent import descent, python_loop
from loopnest.kernels import descent as kernels
from loopnest.runtime import threads

CASES = {
    "gd": {},
    "momentum-ema": {"momentum": 0.9},
    "momentum-heavy-ball": {"momentum": 0.9, "convention": "heavy-ball"},
    "momentum-lookback": {"momentum": 0.9, "convention": "lookback"},
    "momentum-nesterov": {"momentum": 0.9, "convention": "nesterov"},
    "nesterov": {"momentum": 0.8},
    "rmsprop": {"alpha": 0.9},
    "rmsprop-momentum": {"momentum": 0.5},
    "adagrad": {"eps": 1e-10},
    "adam": {"betas": (0.8, 0.99)},
    "adamw": {"eps": 1e-6},
    "lion": {"betas": (0.9, 0.99)},
}


def _plain(df, x0, lr, steps, kind, decay=0.0, **options):
    """All points, by loops over Python floats."""
    method, _, convention = kind.partition("-")
    convention = "nesterov" if method == "nesterov" else options.get("convention", "ema")
    b = options.get("momentum", 0.0)
    b1, b2 = options.get("betas", (0.9, 0.999))
    eps, alpha = options.get("eps", 1e-8), options.get("alpha", 0.99)
    x, v, s = float(x0), 0.0, 0.0
    points = [x]
    for t in range(1, steps + 1):
        g = float(df(x))
        if method in ("adamw", "lion"):
            shrunk = x * (1 - lr * decay)
        else:
            g, shrunk = g + decay * x, x
        if method == "gd":
            x -= lr * g
        elif method in ("momentum", "nesterov"):
            if convention == "lookback":
                v = g if t == 1 else v
                x -= lr * v
                v = b * v + (1 - b) * g
            elif convention == "ema":
                v = b * v + (1 - b) * g
                x -= lr * v
            else:
                v = b * v + g
                x -= lr * (v if convention == "heavy-ball" else g + b * v)
        elif method == "rmsprop":
            s = alpha * s + (1 - alpha) * g**2
            v = b * v + g / (math.sqrt(s) + eps)
            x -= lr * v
        elif method == "adagrad":
            s += g**2
            x -= lr * g / (math.sqrt(s) + eps)
        elif method == "lion":
            blend = b1 * v + (1 - b1) * g
            v = b2 * v + (1 - b2) * g
            x = shrunk - lr * ((blend > 0) - (blend < 0))
        else:
            v, s = b1 * v + (1 - b1) * g, b2 * s + (1 - b2) * g**2
            x = shrunk - lr * (v / (1 - b1**t)) / (math.sqrt(s / (1 - b2**t)) + eps)
        points.append(x)
    return np.array(points)


def _square(x):
    return (x - 1.5) * (x - 1.5)


def _square_slope(x):
    return 2 * (x - 1.5)


@pytest.mark.parametrize("kind", CASES)
def test_every_method_against_a_plain_loop(kind, backend):
    options, method = CASES[kind], kind.split("-")[0]
    starts = np.array([-2.0, 0.25, 1.0])
    pair = (_square, _square_slope)
    for objective, df, decay in (("gelu", ln.gelu_derivative, 0.125), (pair, _square_slope, 0.0)):
        arguments = {"method": method, "lr": 0.1, "steps": 25, "record": True}
        arguments["weight_decay"] = decay
        found = ln.descend(objective, starts, **arguments, **options)
        for i, x0 in enumerate(starts):
            expected = _plain(df, x0, 0.1, 25, kind, decay, **options)
            np.testing.assert_allclose(found.trajectory[:, i], expected, rtol=1e-11, atol=1e-13)
        assert_same_bits(found.x, found.trajectory[-1])
        np.testing.assert_allclose(found.grad, df(found.x), rtol=1e-13, atol=1e-15)
        assert found.steps.tolist() == [25] * 3 and not found.converged.any()


SLOPES = {
    "exp": ln.exp_backward, "sigmoid": ln.sigmoid_backward, "tanh": ln.tanh_backward,
    "relu": ln.relu_backward, "leaky_relu": ln.leaky_relu_backward, "silu": ln.silu_backward,
    "gelu": ln.gelu_backward,
    "gelu_tanh": lambda dy, x: ln.gelu_backward(dy, x, approximate="tanh"),
    "gelu_erf": lambda dy, x: ln.gelu_backward(dy, x, approximate="none"),
}  # fmt: skip
VALUES = {
    "gelu_tanh": lambda x: ln.gelu(x, approximate="tanh"),
    "gelu_erf": lambda x: ln.gelu(x, approximate="none"),
}


@pytest.mark.parametrize("name", SLOPES)
def test_every_activation(name, backend, dtype):
    x = np.linspace(-4, 4, 41).astype(dtype)
    value = VALUES.get(name, getattr(ln, name, None))
    found = ln.descend(name, x, lr=0.25, steps=0)
    assert_same_bits((found.x, found.fun), (x, value(x)))
    slopes = SLOPES[name](np.ones_like(x), x)
    if name in ("gelu", "silu"):  # their own form: a few ulp, near the zero of the slope of s
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(found.grad, slopes, rtol=6 * eps, atol=eps)
    else:
        assert_same_bits(found.grad, slopes)
    if name not in VALUES:
        same = ln.descend(value, x, lr=0.25, steps=3)
        assert_same_bits(same.x, ln.descend(name, x, lr=0.25, steps=3).x)
    one = ln.descend(name, x, lr=0.25, steps=1)
    np.testing.assert_allclose(one.x, x - dtype.type(0.25) * found.grad, rtol=1e-6)


def test_worked_problem(backend):
    def check(printed, digits, values):
        assert [round(float(v), d) for v, d in zip(values, digits, strict=True)] == printed

    def check_slopes(printed, digits, points):
        # The sheet cut some of these and worked from rounded points: 1 in the last digit.
        for value, p, d in zip(ln.gelu_derivative(points[:3]), printed, digits, strict=True):
            assert abs(value - p) < 1.001 * 10.0**-d

    found = ln.descend(ln.gelu, 0.0, lr=0.1, steps=3, record=True)
    check([-0.05, -0.09575, -0.13764], [5, 5, 5], found.trajectory[1:])
    check_slopes([0.5, 0.4575, 0.418875], [6, 4, 6], found.trajectory)
    check([0.0, -0.02394, -0.04398, -0.06079], [5] * 4, ln.gelu(found.trajectory))
    assert round(found.fun, 5) == -0.06079
    found = ln.descend(ln.gelu, 0.0, lr=1.0, steps=3, record=True)
    check([-0.5, -0.62078, -0.6765], [5, 5, 4], found.trajectory[1:])
    check_slopes([0.5, 0.120778, 0.055719], [6, 6, 6], found.trajectory)
    check([0.0, -0.14961, -0.16014, -0.16252], [5] * 4, ln.gelu(found.trajectory))
    found = ln.descend(ln.gelu, -3.0, lr=0.1, steps=3, record=True)
    check([-2.99755, -2.99508, -2.99261], [5] * 3, found.trajectory[1:])
    check_slopes([-0.02455, -0.02462, -0.0247], [5, 5, 4], found.trajectory)
    check([-0.01807, -0.01813, -0.01819, -0.01825], [5] * 4, ln.gelu(found.trajectory))
    found = ln.descend(
        ln.gelu, -3.0, method="momentum", momentum=0.9, convention="lookback", lr=0.1, steps=3,
        record=True,
    )  # fmt: skip
    check([-2.99755, -2.99509, -2.99263], [5] * 3, found.trajectory[1:])
    check([-0.01813, -0.01819, -0.01825], [5] * 3, ln.gelu(found.trajectory[1:]))
    velocities = -np.diff(found.trajectory) / 0.1
    check([-0.02455, -0.02455, -0.02456], [5] * 3, velocities)


def test_broadcasting_is_one_problem_each(backend):
    x0 = np.array([-1.0, 0.0, 2.0])
    lr, momentum = np.array([[0.1], [0.5]]), np.array([0.5, 0.9]).reshape(2, 1, 1)
    options = {"method": "momentum", "convention": "heavy-ball", "steps": 7, "record": True}
    found = ln.descend("silu", x0, lr=lr, momentum=momentum, **options)
    assert found.x.shape == (2, 2, 3) and found.trajectory.shape == (8, 2, 2, 3)
    for k, i, j in np.ndindex(2, 2, 3):
        alone = ln.descend("silu", x0[j], lr=lr[i, 0], momentum=momentum[k, 0, 0], **options)
        assert_same_bits(found.trajectory[:, k, i, j], alone.trajectory)
        assert_same_bits(found.x[k, i, j], alone.x)


def test_numbers_give_numbers(backend):
    found = ln.descend("tanh", 1, lr=1, steps=2)
    assert type(found.x) is np.float64 and type(found.fun) is np.float64
    assert type(found.steps) is int and found.converged is False and found.trajectory is None
    assert ln.descend("tanh", np.float32(1), lr=0.1, steps=2).x.dtype == np.float32
    assert ln.descend("tanh", [1, 2], lr=0.1, steps=2).x.dtype == np.float64
    x32 = ln.descend("tanh", np.ones(2, np.float32), lr=np.full(2, 0.1), steps=2, record=True)
    assert x32.trajectory.dtype == np.float32 and x32.steps.dtype == np.int64


OBJECTIVES = [
    "gelu",
    (_square, _square_slope),
    (lambda x: math.pow(x - 1.5, 2), lambda x: 2 * (x - 1.5) if x > -99 else math.inf),
]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["activation", "pair", "branches"])
def test_tol_stops_each_problem(objective, backend):
    x0 = np.array([-0.75, -0.1, 1.4, -5.0, np.nan])
    options = {"lr": 0.1, "steps": 40}
    found = ln.descend(objective, x0, tol=0.05, record=True, **options)
    free = ln.descend(objective, x0, record=True, **options)
    for i, count in enumerate(found.steps):
        assert_same_bits(found.trajectory[: count + 1, i], free.trajectory[: count + 1, i])
        assert (found.trajectory[count:, i] == found.x[i]).all() or np.isnan(x0[i])
        assert found.converged[i] == (abs(found.grad[i]) <= 0.05)
        assert found.converged[i] or count == 40 or np.isnan(x0[i])
    assert found.converged.dtype == bool and found.converged.any() and not found.converged.all()
    assert not free.converged.any()
    assert free.steps[:4].tolist() == [40] * 4
    if objective is not OBJECTIVES[2]:  # whose slope is infinite, not NaN, at NaN
        assert free.steps[4] == 0
    assert found.diverged.tolist() == free.diverged.tolist() == [False] * 4 + [True]


def test_already_there_and_no_steps(backend):
    found = ln.descend((_square, _square_slope), 1.5, lr=0.1, steps=9, tol=0.0)
    assert (found.x, found.steps, found.converged) == (1.5, 0, True)
    found = ln.descend("gelu", np.array([0.5]), lr=0.1, steps=0, record=True, method="adam")
    assert found.trajectory.tolist() == [[0.5]] and found.x.tolist() == [0.5]
    assert ln.descend("gelu", np.empty((0, 2)), lr=0.1, steps=3).x.shape == (0, 2)


@pytest.mark.parametrize("kind", CASES)
def test_backends_threads_and_njit_give_the_same_bits(kind, dtype, rng, monkeypatch):
    method, options = kind.split("-")[0], CASES[kind]
    x0 = (3 * rng.standard_normal(101)).astype(dtype)
    x0[:4] = np.nan, np.inf, -np.inf, 0
    lr = np.linspace(0, 2, 101)
    # njit_call writes options into the source, so that strings are constants
    written = {"method": method, "steps": 60, "record": True, "weight_decay": 0.01, "tol": 1e-3}
    written |= options
    for name in ("gelu",):
        with ln.use_backend("numba"):
            expected = ln.descend(name, x0, lr=lr, **written)
        with ln.use_backend("c"), np.errstate(all="raise"):
            _same(ln.descend(name, x0, lr=lr, **written), expected)
        with monkeypatch.context() as patch:
            patch.setattr(threads, "SERIAL_BELOW", 0)
            patch.setattr(threads, "_count", 2)
            for backend in ("c", "numba"):
                with ln.use_backend(backend):
                    _same(ln.descend(name, x0, lr=lr, **written), expected)
    if kind in NJIT_KINDS and dtype == np.float32:
        _same(_njit("ln.gelu", written)(x0, lr), expected)


NJIT_KINDS = ("gd", "momentum-lookback", "rmsprop-momentum", "adamw")
FIELDS = ("x", "fun", "grad", "steps", "converged", "diverged", "trajectory")


def _same(actual, expected):
    for name in FIELDS:
        assert_same_bits(getattr(actual, name), getattr(expected, name), name)


def _njit(objective, options):
    """@njit function ``(x0, lr)`` that calls `descend`."""
    scope = {"ln": ln, "f": numba.njit(_square), "df": numba.njit(_square_slope)}
    keywords = ", ".join(f"{k}={v!r}" for k, v in options.items())
    exec(f"def run(x0, lr):\n    return ln.descend({objective}, x0, lr=lr, {keywords})\n", scope)
    return numba.njit(scope["run"])


# Numba says so of every tuple of functions in compiled code.
@pytest.mark.filterwarnings("ignore:First-class function type")
def test_njit_forms():
    with ln.use_backend("numba"):
        options = {"steps": 5, "method": "momentum", "momentum": 0.5}
        x0 = np.linspace(-1, 1, 6).reshape(2, 3)
        _same_without_path(
            _njit("'gelu_erf'", options)(x0, 0.1), ln.descend("gelu_erf", x0, lr=0.1, **options)
        )
        _same_without_path(
            _njit("ln.silu", options)(x0[:, ::2], 0.1),
            ln.descend("silu", x0[:, ::2], lr=0.1, **options),
        )
        found = _njit("ln.gelu", {"steps": 3, "record": True})(0.0, 1.0)
        assert_same_bits(
            found.trajectory, ln.descend("gelu", 0.0, lr=1.0, steps=3, record=True).trajectory
        )
        assert isinstance(found.x, float) and found.steps == 3 and not found.converged
        pair = _njit("(f, df)", {"steps": 50, "tol": 1e-3})(x0, 0.1)
        _same_without_path(
            pair, ln.descend((_square, _square_slope), x0, lr=0.1, steps=50, tol=1e-3)
        )
    with pytest.raises(ValueError, match="descend: lr"):
        _njit("ln.gelu", {"steps": 3})(x0, math.nan)
    with pytest.raises(ValueError, match="descend: steps"):
        _njit("ln.gelu", {"steps": -1})(x0, 0.1)
    for objective, bad in (("'cosh'", {}), ("ln.gelu", {"method": "newton"}), ("3", {})):
        with pytest.raises(numba.TypingError, match="accepted"):
            _njit(objective, {"steps": 3, **bad})(x0, 0.1)


def _same_without_path(actual, expected):
    assert actual.trajectory is None and expected.trajectory is None
    for name in FIELDS[:-1]:
        assert_same_bits(getattr(actual, name), getattr(expected, name), name)


# ---- objectives of the caller ----


def test_njit_pairs_and_kinds_of_functions(backend):
    expected = ln.descend((_square, _square_slope), np.array([-1.0, 3.0]), lr=0.1, steps=9).x
    pairs = [
        (numba.njit(_square), numba.njit(_square_slope)),
        [_square, numba.njit(_square_slope)],
        (lambda x: math.pow(x - 1.5, 2), lambda x: 2 * (float(x) - 1.5)),  # numbers only
        (_Call(_square), _Call(_square_slope)),  # nothing that Numba compiles
    ]
    for pair in pairs:
        found = ln.descend(pair, np.array([-1.0, 3.0]), lr=0.1, steps=9)
        np.testing.assert_allclose(found.x, expected, rtol=1e-14)
        np.testing.assert_allclose(found.fun, _square(found.x), rtol=1e-12)
    found = ln.descend((np.cosh, np.sinh), np.array([1.0, -2.0]), lr=0.5, steps=60)
    np.testing.assert_allclose(found.x, 0, atol=1e-12)
    found = ln.descend((ln.gelu, ln.gelu_derivative), np.array([0.0, -3.0]), lr=1.0, steps=9)
    np.testing.assert_allclose(found.x, ln.descend("gelu", [0.0, -3.0], lr=1.0, steps=9).x)
    constant = ln.descend((lambda x: 3, lambda x: 1), np.zeros(2), lr=0.5, steps=4)
    assert constant.x.tolist() == [-2, -2] and constant.fun.tolist() == [3, 3]


class _Call:
    def __init__(self, function):
        self.function = function

    def __call__(self, x):
        return self.function(x)


SCALE = 1.0


def test_changed_globals_and_closures_are_seen(backend):
    global SCALE
    pair = (lambda x: SCALE * x, lambda x: SCALE)
    shifts = [lambda x, k=k: k for k in (1.0, 2.0)]
    try:
        for SCALE in (1.0, 2.0):
            assert ln.descend(pair, 0.0, lr=1.0, steps=1).x == -SCALE
    finally:
        SCALE = 1.0
    for k, slope in enumerate(shifts, 1):
        assert ln.descend((slope, slope), 0.0, lr=1.0, steps=1).x == -k
    box = [1.0]
    mutable = (lambda x: box[0] * x, lambda x: box[0] + 0 * x)
    for box[0] in (1.0, 2.0):
        assert ln.descend(mutable, 0.0, lr=1.0, steps=1).x == -box[0]


def test_central_differences(backend, dtype):
    x0 = np.linspace(-2, 3, 7).astype(dtype)
    exact = ln.descend((_square, _square_slope), x0, lr=0.1, steps=30)
    for h in (None, 2.0**-6):
        found = ln.descend(_square, x0, lr=0.1, steps=30, gradient="central", h=h)
        np.testing.assert_allclose(found.x, exact.x, atol=2e-4 if dtype == np.float32 else 1e-9)
        assert found.x.dtype == dtype


class _Odd(Exception):
    pass


def _raises(x):
    if x < 0.5:
        raise _Odd("too small")
    return 1.0


def test_exceptions_of_the_objective_arrive(backend):
    for x0 in (1.0, np.array([1.0, 2.0])):
        with pytest.raises(_Odd, match=r"^too small$"):
            ln.descend((_square, _raises), x0, lr=0.3, steps=9)
        with pytest.raises(_Odd, match=r"^too small$"):
            ln.descend(_raises, x0 - 1, lr=0.3, steps=9, gradient="central")
        assert np.all(ln.descend((_square, _raises), x0, lr=0.3, steps=0).x == x0)
    with pytest.raises(TypeError, match="objective gave None"):
        ln.descend((_square, lambda x: None), 1.0, lr=0.3, steps=1)
    with pytest.raises(TypeError, match="positional argument"):
        ln.descend((_square, lambda: 1.0), 1.0, lr=0.3, steps=1)


def test_poles_are_data(backend):
    pair = (lambda x: 1 / x, lambda x: -1 / (x * x))
    found = ln.descend(pair, np.array([0.0, 1.0]), lr=0.5, steps=1)
    assert found.x.tolist() == [np.inf, 1.5]


def test_numbers_of_kernels_and_package_agree():
    for number, name in enumerate(descent.OBJECTIVES):
        assert getattr(kernels, name.upper()) == number
    for number, name in enumerate(descent.METHODS):
        assert getattr(kernels, name.upper().replace("-", "_")) == number
    from loopnest._c import lib

    for name in (*descent.OBJECTIVES, *descent.METHODS):
        plain = name.upper().replace("-", "_")
        assert getattr(lib, "LN_" + plain) == getattr(kernels, plain)
    assert descent.METHODS[python_loop._LION] == "lion"


BAD = [
    (ValueError, "objective is 'cosh'", ("cosh", 0.0), {}),
    (TypeError, "objective is 3", (3, 0.0), {}),
    (TypeError, "objective is None", (None, 0.0), {}),
    (TypeError, "objective is", ((math.cos, 3), 0.0), {}),
    (ValueError, "objective has 1 parts", ((math.cos,), 0.0), {}),
    (ValueError, "without derivative.*central", (math.cos, 0.0), {}),
    (ValueError, "gradient is 'forward'", (math.cos, 0.0), {"gradient": "forward"}),
    (ValueError, "gradient is 'central'", ("gelu", 0.0), {"gradient": "central"}),
    (ValueError, "h is 0", (math.cos, 0.0), {"gradient": "central", "h": 0}),
    (ValueError, "method is 'newton'.*'lion'", ("gelu", 0.0), {"method": "newton"}),
    (TypeError, "method is 3", ("gelu", 0.0), {"method": 3}),
    (ValueError, "convention is 'polyak'", ("gelu", 0.0), {"convention": "polyak"}),
    (ValueError, "lr is or has nan", ("gelu", 0.0), {"lr": math.nan}),
    (ValueError, "lr is or has -1", ("gelu", 0.0), {"lr": [0.1, -1.0]}),
    (ValueError, "lr is or has 1e", ("gelu", np.float32(0)), {"lr": 1e300}),
    (TypeError, "lr has dtype <U", ("gelu", 0.0), {"lr": "fast"}),
    (ValueError, "momentum is or has inf", ("gelu", 0.0), {"momentum": math.inf}),
    (ValueError, "steps is -1", ("gelu", 0.0), {"steps": -1}),
    (TypeError, "steps is 3.0", ("gelu", 0.0), {"steps": 3.0}),
    (TypeError, "record is 1.5", ("gelu", 0.0), {"record": 1.5}),
    (ValueError, "record is 0", ("gelu", 0.0), {"record": 0}),
    (TypeError, "record is 'all'", ("gelu", 0.0), {"record": "all"}),
    (ValueError, r"betas\[1\] is or has 1.5", ("gelu", 0.0), {"betas": (0.9, [0.5, 1.5])}),
    (ValueError, "betas has 3 parts", ("gelu", 0.0), {"betas": (0.9, 0.9, 0.9)}),
    (TypeError, "betas is 0.9", ("gelu", 0.0), {"betas": 0.9}),
    (ValueError, r"betas\[0\] \(4,\).*broadcast", ("gelu", [0.0] * 3), {"betas": ([0.1] * 4, 0.9)}),
    (ValueError, "schedule is 'linear'", ("gelu", 0.0), {"schedule": "linear"}),
    (ValueError, "schedule is 'step'.*size", ("gelu", 0.0), {"schedule": "step"}),
    (ValueError, "schedule's size is 0", ("gelu", 0.0), {"schedule": ("step", 0, 0.5)}),
    (ValueError, "schedule's gamma is -1", ("gelu", 0.0), {"schedule": ("exponential", -1)}),
    (ValueError, r"schedule has shape \(1,\)", ("gelu", 0.0), {"schedule": [0.5]}),
    (ValueError, "schedule has nan", ("gelu", 0.0), {"schedule": [0.5, math.nan]}),
    (TypeError, "schedule is 3", ("gelu", 0.0), {"schedule": 3}),
    (ValueError, "tol is -1", ("gelu", 0.0), {"tol": -1}),
    (ValueError, "tol is nan", ("gelu", 0.0), {"tol": math.nan}),
    (ValueError, r"betas\[0\] is or has 1", ("gelu", 0.0), {"betas": (1.0, 0.9)}),
    (ValueError, "alpha is or has 1", ("gelu", 0.0), {"alpha": 1.0}),
    (ValueError, "eps is -1", ("gelu", 0.0), {"eps": -1.0}),
    (ValueError, "weight_decay is inf", ("gelu", 0.0), {"weight_decay": math.inf}),
    (ValueError, r"lr \(2,\).*broadcast", ("gelu", [0.0] * 3), {"lr": [0.1] * 2}),
    (TypeError, "x0 has dtype complex128", ("gelu", 1j), {}),
]


@pytest.mark.parametrize(("error", "message", "arguments", "options"), BAD)
def test_bad_input(error, message, arguments, options, backend):
    with pytest.raises(error, match="descend: .*" + message):
        ln.descend(*arguments, **{"lr": 0.1, "steps": 2, **options})


def test_one_start_broadcasts(backend):
    found = ln.descend(ln.gelu, np.zeros(1), lr=0.1, steps=1)
    assert found.x.tolist() == [-0.05]
