"""Dense layers: reference, order of the sum, gradients, bad input."""

import numba
import numpy as np
import pytest
import reference
from helpers import assert_close, assert_same_bits, njit_call
from hypothesis import given, settings
from hypothesis import strategies as st

import loopnest as ln


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 5), max_size=2), st.integers(0, 40), st.integers(0, 40), st.integers(0)
)
def test_drawn_shapes_against_the_reference(leading, inputs, outputs, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((*leading, inputs)), rng.standard_normal((inputs, outputs))
    b, dy = rng.standard_normal(outputs), rng.standard_normal((*leading, outputs))
    for name in ("numba", "c"):
        with ln.use_backend(name):
            assert_close(ln.linear(x, w, b), reference.linear(x, w, b), 1e-12)
            expected = reference.linear_backward(dy, x, w)
            assert_close(ln.linear_backward(dy, x, w), expected, 1e-12)


def test_is_the_convolution_of_one_pixel(backend, dtype, rng):
    x = rng.standard_normal((5, 33)).astype(dtype)
    w = rng.standard_normal((33, 7)).astype(dtype)
    b = rng.standard_normal(7).astype(dtype)
    pixels = ln.conv2d(x[:, :, None, None], w.T[:, :, None, None], b, activation="silu")
    assert_same_bits(ln.linear(x, w, b, activation="silu"), pixels[:, :, 0, 0])


@pytest.mark.parametrize("activation", ["gelu", "silu"])
def test_fused_activations_of_large_sums(activation, backend, dtype, rng):
    """The fused forms that are fast where results are subnormal have the bits of the others."""
    ends = {"gelu": (18, 64, 450), "silu": (30, 109, 760)}[activation]
    x = np.concatenate([rng.uniform(-1.1, 1.1, 3000) * end for end in ends])
    x = np.concatenate(
        [x, rng.uniform(-1, 1, 99), [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -1e-40]]
    )
    x = x.astype(dtype)[:, None]
    assert_same_bits(
        ln.linear(x, np.ones((1, 1), dtype), activation=activation), getattr(ln, activation)(x + 0)
    )


def test_gradients_by_finite_differences(backend, rng):
    x, w, b = rng.standard_normal((2, 3, 4)), rng.standard_normal((4, 5)), rng.standard_normal(5)
    dy = rng.standard_normal((2, 3, 5))
    dx, dw, db = ln.linear_backward(dy, x, w)
    for actual, function, at in (
        (dx, lambda v: np.sum(dy * ln.linear(v, w, b)), x),
        (dw, lambda v: np.sum(dy * ln.linear(x, v, b)), w),
        (db, lambda v: np.sum(dy * ln.linear(x, w, v)), b),
    ):
        np.testing.assert_allclose(actual, reference.numerical_gradient(function, at), atol=1e-7)


def test_out(backend, dtype, rng):
    x, w = rng.standard_normal((3, 4)).astype(dtype), rng.standard_normal((4, 4)).astype(dtype)
    expected, out = ln.linear(x, w), np.empty((3, 4), dtype)
    assert ln.linear(x, w, out=out) is out
    assert_same_bits(out, expected)
    for overlapping in (x, w[:3]):
        with pytest.raises(ValueError, match="overlaps"):
            ln.linear(x, w, out=overlapping)


X, W = np.zeros((2, 3)), np.zeros((3, 4))
BAD = [
    (ValueError, "x has 4 inputs", lambda: ln.linear(np.zeros((2, 4)), W)),
    (ValueError, "x has 0 dimensions", lambda: ln.linear(1.0, W)),
    (ValueError, "weight has 1 dimensions", lambda: ln.linear(X, W[0])),
    (ValueError, "bias has shape", lambda: ln.linear(X, W, np.zeros(3))),
    (TypeError, "dtypes", lambda: ln.linear(X, W.astype(np.float32))),
    (TypeError, "float16", lambda: ln.linear(X, W, np.zeros(4, np.float16))),
    (ValueError, "activation is 'softmax'", lambda: ln.linear(X, W, activation="softmax")),
    (ValueError, "out has shape", lambda: ln.linear(X, W, out=np.zeros((4, 2)))),
    (ValueError, "dy has shape", lambda: ln.linear_backward(X, X, W)),
    (ValueError, "x has 4 inputs", lambda: ln.linear_backward(X, np.zeros((2, 4)), W)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), BAD)
def test_bad_input(error, message, call, backend):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "linear" in str(caught.value)


def test_bad_input_inside_njit():
    with pytest.raises(ValueError, match="inputs"):
        njit_call("linear", (np.zeros((2, 4)), W), {})
    with pytest.raises(ValueError, match="bias"):
        njit_call("linear", (X, W, np.zeros(3)), {})


GRADIENTS = {
    "linear_backward": ((3, 5), (3, 4), (4, 5)),
    "conv2d_backward": ((2, 3, 4, 4), (2, 2, 6, 6), (3, 2, 3, 3)),
}


@pytest.mark.parametrize("op", GRADIENTS)
def test_gradients_are_written_where_told(op, backend):
    function, rng = getattr(ln, op), np.random.default_rng(1)
    given = [rng.standard_normal(shape).astype(np.float32) for shape in GRADIENTS[op]]
    expected = function(*given)
    out = tuple(np.full_like(e, np.nan) for e in expected)
    found = function(*given, gradients=out)
    assert all(
        f is o and np.array_equal(f, e) for f, o, e in zip(found, out, expected, strict=True)
    )
    some = function(*given, gradients=(None, out[1], None))
    assert some[1] is out[1] and np.array_equal(some[0], expected[0])
    marked = [np.full_like(e, 7) for e in expected]
    for message, wrong, kind in (
        (r"gradients has 2 entries", tuple(marked[:2]), ValueError),
        (r"gradients is a ndarray", marked[0], TypeError),
        (r"gradients\[2\] has shape", (marked[0], marked[1], marked[0]), ValueError),
        (r"gradients\[0\] has dtype float64", (marked[0].astype(float), *marked[1:]), TypeError),
        (r"gradients\[0\] overlaps an input", (given[1], *marked[1:]), ValueError),
        (r"gradients\[1\] overlaps an input", (marked[0], given[2], marked[2]), ValueError),
    ):
        with pytest.raises(kind, match=f"{op}: {message}"):
            function(*given, gradients=wrong)
    square, marked[0] = [np.ones((4, 4), np.float32)] * 3, np.full((4, 4), 7, np.float32)
    with pytest.raises(ValueError, match=r"gradients\[1\] overlaps"):
        ln.linear_backward(*square, gradients=(marked[0], marked[0], None))
    assert all((m == 7).all() for m in marked)


@pytest.mark.parametrize("op", GRADIENTS)
def test_gradients_are_written_where_told_inside_njit(op):
    numba = pytest.importorskip("numba")
    function, rng = getattr(ln, op), np.random.default_rng(1)
    given = [rng.standard_normal(shape).astype(np.float32) for shape in GRADIENTS[op]]
    expected = function(*given)
    out = tuple(np.full_like(e, np.nan) for e in expected)

    @numba.njit
    def run(dy, x, weight, out):
        return function(dy, x, weight, gradients=out)

    run(*given, out)
    assert all(np.array_equal(o, e) for o, e in zip(out, expected, strict=True))
    with pytest.raises(ValueError, match="overlaps"):
        run(*given, (out[0], given[2], out[2]))


@pytest.mark.parametrize("op", ["linear_backward", "conv2d_backward"])
def test_dx_that_is_not_needed(op, backend, dtype, rng):
    """None in its place, the others as ever; inside @njit too."""
    if op == "linear_backward":
        arrays = [rng.standard_normal(s).astype(dtype) for s in ((9, 40), (9, 50), (50, 40))]
    else:
        shapes = (2, 5, 7, 7), (2, 3, 9, 9), (5, 3, 3, 3)
        arrays = [rng.standard_normal(s).astype(dtype) for s in shapes]
    function = getattr(ln, op)
    _, *expected = function(*arrays)
    dx, *found = function(*arrays, needs_dx=False)
    assert dx is None
    assert_same_bits(tuple(found), tuple(expected))
    if backend == "numba" and dtype == np.float32:
        dx, *found = numba.njit(lambda dy, x, w: function(dy, x, w, needs_dx=False))(*arrays)
        assert dx is None
        assert_same_bits(tuple(found), tuple(expected))
