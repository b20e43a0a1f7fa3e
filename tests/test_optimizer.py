"""Optimizer steps: formulas, PyTorch, backends, threads, @njit, bad input."""

import functools
import math

import numba
import numpy as np
import pytest
import reference_optimizer as reference
from helpers import assert_same_bits

import loopnest as ln
from loopnest.runtime import threads

# What a step is called with beside param and grad: names of states, options.
STEPS = {
    "sgd": ("sgd_step", (), {"lr": 0.1, "weight_decay": 0.01}),
    "sgd-momentum": (
        "sgd_step",
        ("momentum_buffer",),
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.02},
    ),
    "sgd-nesterov": (
        "sgd_step",
        ("momentum_buffer",),
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    ),
    "adam": ("adam_step", ("m", "v"), {"lr": 0.02, "weight_decay": 0.1}),
    "amsgrad": ("adam_step", ("m", "v", "max_v"), {"lr": 0.02, "betas": (0.8, 0.9)}),
    "adamw": ("adamw_step", ("m", "v"), {"lr": 0.02}),
    "adamw-amsgrad": ("adamw_step", ("m", "v", "max_v"), {"weight_decay": 0.2, "eps": 1e-3}),
    "rmsprop": ("rmsprop_step", ("v",), {"weight_decay": 0.1}),
    "rmsprop-momentum": ("rmsprop_step", ("v", "momentum_buffer"), {"momentum": 0.8}),
    "rmsprop-centered": (
        "rmsprop_step",
        ("v", "momentum_buffer", "grad_average"),
        {"momentum": 0.5, "alpha": 0.9, "lr": 0.05},
    ),
    "adagrad": ("adagrad_step", ("state_sum",), {"lr_decay": 0.1, "weight_decay": 0.1}),
    "lion": ("lion_step", ("m",), {"lr": 0.01, "weight_decay": 0.1}),
}
COUNTED = ("adam_step", "adamw_step", "adagrad_step")


def _options(name, options, t):
    options = dict(options)
    if name in COUNTED:
        options["step"] = t
    return options


def _run(kind, param, grads):
    """Param and states after one step for each gradient."""
    name, states, options = STEPS[kind]
    param = param.copy()
    arrays = {k: np.zeros_like(param) for k in states}
    for t, grad in enumerate(grads, 1):
        more = _options(name, options, t)
        if name == "sgd_step":
            more["first"] = t == 1
        getattr(ln, name)(param, grad, **arrays, **more)
    return (param, *arrays.values())


def _run_reference(kind, param, grads):
    name, states, options = STEPS[kind]
    function = getattr(reference, name)
    renamed = {"m": "m", "v": "square_avg" if name == "rmsprop_step" else "v"}
    renamed["grad_average"] = "grad_avg"
    extra = {"amsgrad": True} if "max_v" in states else {}
    extra |= {"centered": True} if "grad_average" in states else {}
    kept = {renamed.get(k, k): None for k in states}
    order = {
        "rmsprop_step": ("square_avg", "momentum_buffer", "grad_avg"),
        "adagrad_step": ("state_sum",),
        "lion_step": ("m",),
        "sgd_step": ("momentum_buffer",),
    }.get(name, ("m", "v", "max_v"))
    for t, grad in enumerate(grads, 1):
        param, *news = function(param, grad, **kept, **_options(name, options, t), **extra)
        news = dict(zip(order, news, strict=True))
        kept = {k: news[k] for k in kept}
    return (param, *kept.values())


def _data(rng, dtype, steps=7, shape=(3, 5)):
    return (
        rng.standard_normal(shape).astype(dtype),
        rng.standard_normal((steps, *shape)).astype(dtype),
    )


@pytest.mark.parametrize("kind", STEPS)
def test_against_reference(kind, backend, dtype, rng):
    param, grads = _data(rng, dtype)
    rtol = 1e-4 if dtype == np.float32 else 1e-12
    for actual, expected in zip(
        _run(kind, param, grads), _run_reference(kind, param, grads), strict=True
    ):
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_variance_is_not_below_zero(momentum, backend, dtype):
    """Centred RMSprop with a constant gradient: v less the mean's square was -1.7e-18, and its root NaN."""
    grad = np.array([0.1, -0.3, 1e-3, 7.0, 1 / 3], dtype)
    arrays = [np.zeros(5, dtype) for _ in range(4)]
    inside = [a.copy() for a in arrays]
    run = _njit_rmsprop()
    for _ in range(6000):
        param, v, buffer, average = arrays
        ln.rmsprop_step(
            param, grad, v, lr=1e-3, momentum=momentum, momentum_buffer=buffer, grad_average=average
        )
    assert all(np.isfinite(a).all() for a in arrays)
    run(6000, grad, momentum, *inside)
    assert_same_bits(tuple(inside), tuple(arrays))
    # NaN in a gradient is still told.
    param, v, buffer, average = arrays
    ln.rmsprop_step(param, grad * np.nan, v, grad_average=average)
    assert np.isnan(param).all()


@functools.cache
def _njit_rmsprop():
    @numba.njit
    def run(steps, grad, momentum, param, v, buffer, average):
        for _ in range(steps):
            ln.rmsprop_step(
                param, grad, v, lr=1e-3, momentum=momentum, momentum_buffer=buffer,
                grad_average=average,
            )  # fmt: skip

    return run


TORCH = {
    "sgd": ("SGD", {}),
    "sgd-momentum": ("SGD", {}),
    "sgd-nesterov": ("SGD", {}),
    "adam": ("Adam", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "adamw": ("AdamW", {}),
    "adamw-amsgrad": ("AdamW", {"amsgrad": True}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop-momentum": ("RMSprop", {}),
    "rmsprop-centered": ("RMSprop", {"centered": True}),
    "adagrad": ("Adagrad", {}),
}


@pytest.mark.parametrize("kind", TORCH)
def test_against_torch(kind, backend, rng):
    torch = pytest.importorskip("torch")
    name, extra = TORCH[kind]
    param, grads = _data(rng, np.float64, steps=100)
    theirs = torch.tensor(param.copy(), requires_grad=True)
    optimizer = getattr(torch.optim, name)([theirs], **STEPS[kind][2], **extra)
    for grad in grads:
        theirs.grad = torch.tensor(grad)
        optimizer.step()
    np.testing.assert_allclose(
        _run(kind, param, grads)[0], theirs.detach().numpy(), rtol=1e-11, atol=1e-12
    )


def test_hand_written_values(backend):
    # Powers of two: exact, so bits can be told.
    param, grad, m = np.array([1.0, -2.0]), np.array([0.5, 0.25]), np.array([0.0, -8.0])
    ln.lion_step(param, grad, m, lr=0.25, betas=(0.5, 0.75), weight_decay=0.5)
    assert param.tolist() == [0.875 - 0.25, -1.75 + 0.25]
    assert m.tolist() == [0.125, -5.9375]
    param, buffer = np.array([1.0]), np.array([2.0])
    ln.sgd_step(param, np.array([4.0]), buffer, lr=0.5, momentum=0.5, dampening=0.75)
    assert buffer.tolist() == [2.0] and param.tolist() == [0.0]
    ln.sgd_step(param, np.array([4.0]), buffer, lr=0.5, momentum=0.5, nesterov=True, first=True)
    assert buffer.tolist() == [4.0] and param.tolist() == [-3.0]
    param, total = np.array([1.0]), np.array([9.0])
    ln.adagrad_step(param, np.array([4.0]), total, step=3, lr=1.0, lr_decay=0.5, eps=0.0)
    assert total.tolist() == [25.0] and param.tolist() == [1.0 - 0.5 * (4.0 / 5.0)]
    param, v = np.array([1.0]), np.array([0.0])
    ln.rmsprop_step(param, np.array([4.0]), v, lr=0.5, alpha=0.75, eps=2.0)
    assert v.tolist() == [4.0] and param.tolist() == [0.5]
    param, m, v = np.array([1.0]), np.array([0.0]), np.array([0.0])
    ln.adam_step(param, np.array([4.0]), m, v, step=1, lr=0.5, betas=(0.5, 0.75), eps=0.0)
    assert (m[0], v[0], param[0]) == (2.0, 4.0, 0.5)


@pytest.mark.parametrize("kind", STEPS)
def test_backends_threads_and_njit_give_the_same_bits(kind, dtype, rng, monkeypatch):
    param, grads = _data(rng, dtype, steps=3, shape=(1001,))
    grads[0, :5] = np.nan, np.inf, -np.inf, 0, 1e-30
    with ln.use_backend("numba"):
        expected = _run(kind, param, grads)
        monkeypatch.setattr(threads, "SERIAL_BELOW", 0)
        before = ln.get_num_threads()
        try:
            ln.set_num_threads(2)
            assert_same_bits(_run(kind, param, grads), expected, "2 threads")
            with ln.use_backend("c"):
                assert_same_bits(_run(kind, param, grads), expected, "c, 2 threads")
                ln.set_num_threads(1)
                assert_same_bits(_run(kind, param, grads), expected, "c")
        finally:
            ln.set_num_threads(before)
    assert_same_bits(_njit(kind)(param.copy(), grads), expected, "njit")


def _njit(kind):
    """@njit function ``(param, grads)`` that does what `_run` does."""
    name, states, options = STEPS[kind]
    keywords = [f"{k}={k}" for k in states] + [f"{k}={v!r}" for k, v in options.items()]
    if name in COUNTED:
        keywords.append("step=t + 1")
    if name == "sgd_step":
        keywords.append("first=t == 0")
    lines = [
        "def run(param, grads):",
        *[f"    {k} = np.zeros_like(param)" for k in states],
        "    for t in range(grads.shape[0]):",
        f"        ln.{name}(param, grads[t], {', '.join(keywords)})",
        f"    return ({', '.join(['param', *states])},)",
    ]
    scope = {"ln": ln, "np": np}
    exec("\n".join(lines), scope)
    return numba.njit(scope["run"])


def test_no_decay_leaves_infinite_parameters_alone(backend):
    param = np.array([np.inf, 1.0])
    ln.sgd_step(param, np.zeros(2), lr=0.1)
    assert param.tolist() == [np.inf, 1.0]


def test_lion_does_not_move_on_zero(backend, dtype):
    param, m = np.array([1, 1, 1], dtype), np.zeros(3, dtype)
    ln.lion_step(param, np.array([0, np.nan, -3], dtype), m, lr=0.5)
    assert param[0] == 1 and np.isnan(param[1]) and param[2] == 1.5


def test_any_shape_returns_none_and_strided_gradients(backend):
    param, grad = np.ones((2, 3, 4)), np.ones((2, 3, 8))[..., ::2]
    assert ln.sgd_step(param, grad, lr=0.5) is None
    assert (param == 0.5).all()
    zero_dimensional = np.array(1.0)
    ln.sgd_step(zero_dimensional, np.array(1.0), lr=0.5)
    assert zero_dimensional == 0.5
    ln.sgd_step(np.ones((0, 3)), np.ones((0, 3)), lr=0.5)


Z = np.zeros
_SHARED = Z(4)
BAD = [
    (TypeError, "sgd_step: param is a list", lambda: ln.sgd_step([1.0], Z(1), lr=1)),
    (TypeError, "param has dtype int64", lambda: ln.sgd_step(Z(2, int), Z(2), lr=1)),
    (TypeError, "param has dtype >f4", lambda: ln.sgd_step(Z(2, ">f4"), Z(2), lr=1)),
    (TypeError, "different dtypes", lambda: ln.sgd_step(Z(2), Z(2, np.float32), lr=1)),
    (ValueError, r"grad has shape \(3,\)", lambda: ln.sgd_step(Z(2), Z(3), lr=1)),
    (ValueError, "lr is nan", lambda: ln.sgd_step(Z(2), Z(2), lr=math.nan)),
    (ValueError, "lr is -1", lambda: ln.sgd_step(Z(2), Z(2), lr=-1)),
    (TypeError, "lr is '1'", lambda: ln.sgd_step(Z(2), Z(2), lr="1")),
    (TypeError, "momentum_buffer is None", lambda: ln.sgd_step(Z(2), Z(2), lr=1, momentum=0.5)),
    (ValueError, "nesterov is True", lambda: ln.sgd_step(Z(2), Z(2), Z(2), lr=1, nesterov=True)),
    (TypeError, "nesterov is 1", lambda: ln.sgd_step(Z(2), Z(2), lr=1, nesterov=1)),
    (ValueError, "not C-contiguous", lambda: ln.sgd_step(Z(4)[::2], Z(2), lr=1)),
    (ValueError, "param overlaps", lambda: ln.sgd_step(_SHARED, _SHARED, lr=1)),
    (
        ValueError,
        "v overlaps",
        lambda: ln.adam_step(Z(2), Z(2), _SHARED[:2], _SHARED[1:3], step=1),
    ),
    (TypeError, "m is None", lambda: ln.adam_step(Z(2), Z(2), None, Z(2), step=1)),
    (ValueError, r"m has shape \(3,\)", lambda: ln.adam_step(Z(2), Z(2), Z(3), Z(2), step=1)),
    (ValueError, "step is 0", lambda: ln.adam_step(Z(2), Z(2), Z(2), Z(2), step=0)),
    (TypeError, "step is 1.0", lambda: ln.adamw_step(Z(2), Z(2), Z(2), Z(2), step=1.0)),
    (
        ValueError,
        r"adamw_step: betas\[1\] is 1.0",
        lambda: ln.adamw_step(Z(2), Z(2), Z(2), Z(2), step=1, betas=(0.9, 1.0)),
    ),
    (ValueError, "betas is", lambda: ln.lion_step(Z(2), Z(2), Z(2), betas=(0.9,))),
    (TypeError, "betas is 0.9", lambda: ln.lion_step(Z(2), Z(2), Z(2), betas=0.9)),
    (ValueError, "alpha is 1.5", lambda: ln.rmsprop_step(Z(2), Z(2), Z(2), alpha=1.5)),
    (TypeError, "momentum_buffer", lambda: ln.rmsprop_step(Z(2), Z(2), Z(2), momentum=0.5)),
    (ValueError, "eps is -1", lambda: ln.adagrad_step(Z(2), Z(2), Z(2), step=1, eps=-1)),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD)
def test_bad_input(error, message, call, backend):
    with pytest.raises(error, match=message):
        call()


def test_read_only_state_is_refused_before_anything_is_written(backend):
    param, m, v = np.ones(3), Z(3), Z(3)
    v.setflags(write=False)
    with pytest.raises(ValueError, match="v is read-only"):
        ln.adam_step(param, np.ones(3), m, v, step=1)
    assert param.tolist() == [1, 1, 1] and not m.any()


def test_njit_checks_values():
    @numba.njit
    def step(param, grad, m, lr):
        ln.lion_step(param, grad, m, lr=lr)

    with pytest.raises(ValueError, match="lion_step: lr"):
        step(Z(2), Z(2), Z(2), -1.0)
    with pytest.raises(ValueError, match="lion_step: grad has not the shape"):
        step(Z(2), Z(3), Z(2), 1.0)
    with pytest.raises(ValueError, match="lion_step: m overlaps"):
        step(_SHARED, Z(4), _SHARED, 1.0)
