"""Convolution: worked values, drawn shapes against reference and SciPy, gradients, bad input."""

import numpy as np
import pytest
import reference
from helpers import assert_close, assert_same_bits, njit_call
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

import loopnest as ln

# WORKED_PROBLEMS 4
F = np.array([[3, 5, 2, 3], [9, 1, 8, 4], [6, 4, 3, 7], [7, 0, 2, 4]], float)[None, None]
FILTER = np.array([[-1, 0.5, -2], [2, 0, 1], [0, 1, 1.5]])[None, None]
MAPPED = [[15.5, 21, 27, 8], [4.5, 30, 9.5, 22.5], [13.5, -6.5, 18, 4], [-5, 6, -12.5, 4.5]]


def test_worked_feature_map(backend, dtype):
    y = ln.conv2d(F.astype(dtype), FILTER.astype(dtype), padding=1)
    assert y.dtype == dtype
    assert y[0, 0].tolist() == MAPPED


def test_worked_output_sizes():
    assert ln.conv2d_output_shape((4, 4), (3, 3), padding=1) == (4, 4)
    assert ln.conv2d_output_shape(4, 2, padding=1) == (5, 5)
    assert ln.conv2d_output_shape(4, 2, stride=2, padding=1) == (3, 3)
    reaches = ln.conv2d_paddings_for(4, 4, 2)
    assert reaches[0] == (2, 2) and reaches[0].symmetric
    assert all(r.stride == 1 and not r.symmetric for r in reaches[1:]) and len(reaches) == 5


@st.composite
def problems(draw):
    """Shapes and options of a convolution that has an output."""
    n, groups = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    group_channels, group_k = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 4)) for _ in "hw"]
    dilation = tuple(draw(st.integers(1, 3)) for _ in "hw")
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in "hw")
    stride = tuple(draw(st.integers(1, 3)) for _ in "hw")
    size = [
        max(1, d * (k - 1) + 1 - sum(p)) + draw(st.integers(0, 9))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    x, weight = (n, groups * group_channels, *size), (groups * group_k, group_channels, *kernel)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return x, weight, options, draw(st.integers(0, 2**32 - 1))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_drawn_shapes_against_the_reference(problem):
    x_shape, weight_shape, options, seed = problem
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal(x_shape), rng.standard_normal(weight_shape)
    bias = rng.standard_normal(weight_shape[0])
    expected = reference.conv2d(x, weight, bias, **options)
    dy = rng.standard_normal(expected.shape)
    expected_gradients = reference.conv2d_backward(dy, x, weight, **options)
    for name in ("numba", "c"):
        with ln.use_backend(name):
            assert_close(ln.conv2d(x, weight, bias, **options), expected, 1e-12)
            assert_close(ln.conv2d_backward(dy, x, weight, **options), expected_gradients, 1e-12)


@pytest.mark.parametrize(("mode", "padding"), [("valid", "valid"), ("same", "same")])
def test_against_scipy(mode, padding, backend, rng):
    for size, kernel in (((9, 8), (3, 5)), ((7, 7), (1, 1)), ((6, 9), (5, 3))):
        x, w = rng.standard_normal(size), rng.standard_normal(kernel)
        expected = signal.correlate2d(x, w, mode=mode)
        y = ln.conv2d(x[None, None], w[None, None], padding=padding)[0, 0]
        np.testing.assert_allclose(y, expected, atol=1e-12)


def test_backward_by_finite_differences(backend, rng):
    x, w, b = rng.standard_normal((2, 4, 5, 6)), rng.standard_normal((6, 2, 3, 2)), np.zeros(6)
    options = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "groups": 2, "dilation": (1, 2)}
    dy = rng.standard_normal(ln.conv2d(x, w, b, **options).shape)

    def loss(x=x, w=w, b=b):
        return np.sum(dy * ln.conv2d(x, w, b, **options))

    dx, dw, db = ln.conv2d_backward(dy, x, w, **options)
    np.testing.assert_allclose(dx, reference.numerical_gradient(lambda v: loss(x=v), x), atol=1e-7)
    np.testing.assert_allclose(dw, reference.numerical_gradient(lambda v: loss(w=v), w), atol=1e-7)
    np.testing.assert_allclose(db, reference.numerical_gradient(lambda v: loss(b=v), b), atol=1e-7)


def test_backward_is_the_adjoint(backend, rng):
    # <conv(x, w), dy> = <x, dx> = <w, dw>: exact in whole numbers.
    x = rng.integers(-3, 4, (2, 3, 7, 8)).astype(float)
    w = rng.integers(-3, 4, (4, 3, 3, 2)).astype(float)
    y = ln.conv2d(x, w, stride=2, padding=1)
    dy = rng.integers(-3, 4, y.shape).astype(float)
    dx, dw, db = ln.conv2d_backward(dy, x, w, stride=2, padding=1)
    assert np.sum(y * dy) == np.sum(x * dx) == np.sum(w * dw)
    assert_same_bits(db, dy.sum((0, 2, 3)))


def test_sum_is_sequential_and_fused(backend):
    # (1 + e)^2 - (1 + 2e) keeps e^2 only if the second product is added unrounded.
    e = np.float32(2.0**-12)
    x = np.array([-(1 + 2 * e), 1 + e], np.float32).reshape(1, 2, 1, 1)
    w = np.array([1, 1 + e], np.float32).reshape(1, 2, 1, 1)
    assert ln.conv2d(x, w).item() == e * e


def test_out_and_empty(backend, dtype, rng):
    x, w = rng.standard_normal((2, 3, 5, 5)).astype(dtype), rng.standard_normal((4, 3, 3, 3))
    w = w.astype(dtype)
    expected = ln.conv2d(x, w)
    out = np.full_like(expected, np.nan)
    assert ln.conv2d(x, w, out=out) is out
    assert_same_bits(out, expected)
    assert ln.conv2d(x[:0], w).shape == (0, 4, 3, 3)
    dx, dw, db = ln.conv2d_backward(expected[:0], x[:0], w)
    assert dx.shape == (0, 3, 5, 5) and not dw.any() and not db.any()
    assert ln.conv2d(x, w[:0]).shape == (2, 0, 3, 3)


def test_nan_and_infinity_are_data(backend, dtype):
    x = np.ones((1, 1, 3, 5), dtype)
    x[0, 0, 1, 2] = np.nan
    y = ln.conv2d(x, np.ones((1, 1, 1, 3), dtype))
    assert np.isnan(y[0, 0, 1]).all() and np.isfinite(y[0, 0, 0]).all()
    x[0, 0, 1, 2] = np.inf
    assert np.isposinf(ln.conv2d(x, np.ones((1, 1, 1, 3), dtype))[0, 0, 1]).all()


@pytest.mark.parametrize("padding", [1, (1, 2), ((1, 0), (2, 1)), "same", "valid", [1, 1]])
def test_every_form_of_padding(padding, backend, rng):
    x, w = rng.standard_normal((1, 2, 6, 7)), rng.standard_normal((2, 2, 3, 4))
    form = tuple(padding) if isinstance(padding, list) else padding
    expected = reference.conv2d(x, w, padding=form)
    assert_close(ln.conv2d(x, w, padding=padding), expected, 1e-12)
    sides = reference.resolve_padding(form, (6, 7), (3, 4), 1, 1)
    assert expected.shape[2:] == ln.conv2d_output_shape((6, 7), (3, 4), padding=sides)
    if not isinstance(padding, list):
        compiled = njit_call("conv2d", (x, w), {"padding": padding})
        assert_same_bits(compiled, ln.conv2d(x, w, padding=padding))


@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4)
)
def test_paddings_for_is_complete_and_right(size, target, kernel, dilation, stride):
    found = ln.conv2d_paddings_for(size, target, kernel, stride=stride, dilation=dilation)
    extent = dilation * (kernel - 1) + 1
    for reach in found:
        shape = ln.conv2d_output_shape(size, kernel, reach.stride, reach.padding, dilation)
        assert shape == (target, target)
    total = sum(
        size + a + b >= extent and (size + a + b - extent) // stride + 1 == target
        for a in range(extent + 1)
        for b in range(extent + 1)
    )
    assert len(found) == total**2


def test_paddings_for_bounds():
    assert ln.conv2d_paddings_for(4, 9, 2) == []
    assert [r.padding for r in ln.conv2d_paddings_for(4, 9, 2, stride=1, max_padding=3)] == [3]
    one = ln.conv2d_paddings_for((4, 5), (4, 5), (3, 3), stride=[1], max_padding=1)
    assert one == [(1, 1)]


X, W = np.zeros((1, 4, 5, 5)), np.zeros((6, 4, 3, 3))
BAD = [
    (ValueError, "x has 3 dimensions", lambda: ln.conv2d(X[0], W)),
    (ValueError, "weight has 2 dimensions", lambda: ln.conv2d(X, W[0, 0])),
    (ValueError, "weight has 3 channels a filter", lambda: ln.conv2d(X, W[:, :3])),
    (ValueError, "groups is 3", lambda: ln.conv2d(X, W, groups=3)),
    (ValueError, "groups is 0", lambda: ln.conv2d(X, W, groups=0)),
    (TypeError, "groups is 1.0", lambda: ln.conv2d(X, W, groups=1.0)),
    (ValueError, "stride is 0", lambda: ln.conv2d(X, W, stride=0)),
    (ValueError, "stride is -1", lambda: ln.conv2d(X, W, stride=(1, -1))),
    (TypeError, "stride is 1.5", lambda: ln.conv2d(X, W, stride=1.5)),
    (TypeError, "stride is True", lambda: ln.conv2d(X, W, stride=True)),
    (ValueError, r"stride is \(1, 1, 1\)", lambda: ln.conv2d(X, W, stride=(1, 1, 1))),
    (ValueError, "dilation is 0", lambda: ln.conv2d(X, W, dilation=0)),
    (ValueError, "dilation .* larger than the padded", lambda: ln.conv2d(X, W, dilation=3)),
    (ValueError, "padding is -1", lambda: ln.conv2d(X, W, padding=-1)),
    (ValueError, "padding is 'full'", lambda: ln.conv2d(X, W, padding="full")),
    (ValueError, r"padding is \(1, 1, 1, 1\)", lambda: ln.conv2d(X, W, padding=(1, 1, 1, 1))),
    (ValueError, "'same' with stride", lambda: ln.conv2d(X, W, padding="same", stride=2)),
    (ValueError, "larger than the padded input", lambda: ln.conv2d(X[:, :, :2], W)),
    (ValueError, "kernel size", lambda: ln.conv2d(X, W[:, :, :0])),
    (ValueError, "conv2d: the result's shape", lambda: ln.conv2d(X, W, padding=2**30)),
    (ValueError, "padding is 4611686018427387904", lambda: ln.conv2d(X, W, padding=2**62)),
    (ValueError, r"bias has shape \(4,\)", lambda: ln.conv2d(X, W, np.zeros(4))),
    (ValueError, "bias has 2 dimensions", lambda: ln.conv2d(X, W, np.zeros((1, 6)))),
    (TypeError, "x float64, weight float32", lambda: ln.conv2d(X, W.astype(np.float32))),
    (TypeError, "float16", lambda: ln.conv2d(X.astype(np.float16), W)),
    (TypeError, "complex", lambda: ln.conv2d(X.astype(complex), W)),
    (TypeError, "object", lambda: ln.conv2d(X.astype(object), W)),
    (ValueError, "activation is 'swish'", lambda: ln.conv2d(X, W, activation="swish")),
    (ValueError, "algorithm is 'fft'", lambda: ln.conv2d(X, W, algorithm="fft")),
    (ValueError, "out has shape", lambda: ln.conv2d(X, W, out=np.zeros((1, 6, 3, 4)))),
    (TypeError, "out has dtype", lambda: ln.conv2d(X, W, out=np.zeros((1, 6, 3, 3), np.float32))),
    (ValueError, "contiguous", lambda: ln.conv2d(X, W, out=np.zeros((3, 3, 6, 1)).T)),
    (ValueError, "dy has shape", lambda: ln.conv2d_backward(np.zeros((1, 6, 3, 4)), X, W)),
    (ValueError, "kernel_hw is 0", lambda: ln.conv2d_output_shape(4, 0)),
    (ValueError, "input_hw is -4", lambda: ln.conv2d_output_shape(-4, 1)),
    (TypeError, "output_hw is 'a'", lambda: ln.conv2d_paddings_for(4, "a", 2)),
    (ValueError, "max_padding is -1", lambda: ln.conv2d_paddings_for(4, 4, 2, max_padding=-1)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), BAD)
def test_bad_input(error, message, call, backend):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "conv2d" in str(caught.value)


def test_out_may_not_overlap(backend):
    buffer = np.zeros(1 * 1 * 5 * 5 + 3)
    x, w = buffer[:25].reshape(1, 1, 5, 5), np.ones((1, 1, 3, 3))
    for out in (x, buffer[3:].reshape(1, 1, 5, 5)):
        with pytest.raises(ValueError, match="overlaps"):
            ln.conv2d(x, w, padding=1, out=out)


def test_bad_input_inside_njit():
    x, w = np.zeros((1, 4, 5, 5)), np.zeros((6, 4, 3, 3))
    for options, message in (
        ({"stride": 0}, "stride"),
        ({"groups": 3}, "groups"),
        ({"dilation": 3}, "larger"),
        ({"padding": -1}, "padding"),
    ):
        with pytest.raises(ValueError, match=message):
            njit_call("conv2d", (x, w), options)
    with pytest.raises(ValueError, match="bias"):
        njit_call("conv2d", (x, w, np.zeros(2)), {})


@pytest.mark.parametrize("size", [3, 7, 14, 17])
@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise_of_few_and_of_many_pixels(size, stride, dtype, rng):
    """1x1 on both sides of where the plan changes the lanes, packed and not: the same bits."""
    x = rng.standard_normal((2, 2 * 130, size, size)).astype(dtype)
    weight = rng.standard_normal((2 * 35, 130, 1, 1)).astype(dtype)
    bias = rng.standard_normal(len(weight)).astype(dtype)
    found = []
    for name in ("numba", "c"):
        with ln.use_backend(name):
            for filters in (weight, ln.pack_weight(weight, groups=2)):
                found.append(ln.conv2d(x, filters, bias, stride=stride, groups=2))
    expected = reference.conv2d(x, weight, bias, stride=stride, groups=2)
    assert_close(found[0], expected, 1e-4 if dtype == np.float32 else 1e-12)
    for other in found[1:]:
        assert_same_bits(other, found[0])
