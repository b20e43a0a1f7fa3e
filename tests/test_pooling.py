"""Pooling: worked values, drawn windows against the reference, ties, gradients, bad input."""

import numpy as np
import pytest
import reference
from helpers import assert_close, assert_same_bits, njit_call
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from test_convolution import MAPPED

import loopnest as ln
from loopnest.ops import pooling


def test_worked_pooling(backend, dtype):
    x = np.array(MAPPED, dtype)[None, None]
    assert ln.avg_pool2d(x, 2)[0, 0].tolist() == [[17.75, 16.75], [2, 3.5]]
    by_filter = ln.conv2d(x, ln.average_filter(2, dtype=dtype), stride=2)
    assert_same_bits(by_filter, ln.avg_pool2d(x, 2, 2))


@st.composite
def windows(draw):
    """A shape and a pooling's options that have an output."""
    kernel = tuple(draw(st.integers(1, 4)) for _ in "hw")
    stride = draw(st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = tuple(draw(st.integers(1, 3)) for _ in "hw")
    size = [
        max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 8))
        for k, p, d in zip(kernel, padding, dilation, strict=True)
    ]
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *size)
    window = {"kernel_size": kernel, "stride": stride, "padding": padding}
    return shape, window, dilation, draw(st.booleans()), draw(st.booleans())


@settings(max_examples=80, deadline=None)
@given(windows(), st.none() | st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_drawn_windows_against_the_reference(drawn, divisor, seed):
    shape, window, dilation, ceil_mode, include = drawn
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, shape).astype(float)
    x[rng.random(shape) < 0.05] = np.nan
    average = {
        **window, "ceil_mode": ceil_mode, "count_include_pad": include, "divisor_override": divisor
    }  # fmt: skip
    maximum = {**window, "dilation": dilation, "ceil_mode": ceil_mode}
    y, indices = reference.max_pool2d(x, **maximum, return_indices=True)
    dy = rng.standard_normal(y.shape)
    means = reference.avg_pool2d(x, **average)
    dmeans = rng.standard_normal(means.shape)
    for name in ("numba", "c"):
        with ln.use_backend(name):
            assert_close(ln.avg_pool2d(x, **average), means, 1e-12)
            expected = reference.avg_pool2d_backward(dmeans, x, **average)
            assert_close(ln.avg_pool2d_backward(dmeans, x, **average), expected, 1e-12)
            assert_same_bits(ln.max_pool2d(x, **maximum, return_indices=True), (y, indices))
            expected = reference.max_pool2d_backward(dy, x, indices)
            assert_close(ln.max_pool2d_backward(dy, x, indices, **maximum), expected, 1e-12)


def test_against_scipy(backend, rng):
    x = rng.standard_normal((12, 13))
    expected = ndimage.maximum_filter(x, 3, mode="constant", cval=-np.inf)
    assert_same_bits(ln.max_pool2d(x[None, None], 3, 1, 1)[0, 0], expected)
    expected = ndimage.uniform_filter(x, 3, mode="constant")
    np.testing.assert_allclose(ln.avg_pool2d(x[None, None], 3, 1, 1)[0, 0], expected, atol=1e-12)


def test_ceil_mode_count_of_pytorch_issue_183528(backend, dtype):
    """The last window hangs over the padded edge: only what lies in the padded input counts."""
    x = np.ones((1, 1, 6, 6), dtype)
    y = ln.avg_pool2d(x, 3, 2, 1, ceil_mode=True)
    # Rows: window 0 covers padding and 2 rows, the last (start 5) 1 row and 1 of padding.
    shares = np.array([2 / 3, 1, 1, 1 / 2])
    np.testing.assert_allclose(y[0, 0], np.outer(shares, shares), rtol=1e-6)
    assert ln.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False).tolist() == [
        [[[1] * 4] * 4]
    ]


def test_against_torch_when_there(backend, rng):
    torch = pytest.importorskip("torch")
    pool = torch.nn.functional
    x = rng.integers(-2, 3, (2, 3, 9, 8)).astype(np.float32)
    x[0, 0, 3, 3] = np.nan
    for options in ({}, {"ceil_mode": True}):
        for kernel, stride, padding in ((3, 2, 1), (2, 2, 0), ((3, 2), (1, 3), (1, 1)), (5, 1, 2)):
            y, indices = ln.max_pool2d(x, kernel, stride, padding, return_indices=True, **options)
            expected = pool.max_pool2d(
                torch.tensor(x), kernel, stride, padding, return_indices=True, **options
            )
            assert_same_bits((y, indices), tuple(e.numpy() for e in expected))
            for include in (True, False):
                average = {"count_include_pad": include, **options}
                expected = pool.avg_pool2d(torch.tensor(x), kernel, stride, padding, **average)
                actual = ln.avg_pool2d(x, kernel, stride, padding, **average)
                np.testing.assert_allclose(actual, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_ties_nan_and_infinities(backend, dtype):
    x = np.array([[1, 1, -np.inf, -np.inf], [1, 0, -np.inf, -np.inf]], dtype)[None, None]
    y, indices = ln.max_pool2d(x, 2, return_indices=True)
    assert y.ravel().tolist() == [1, -np.inf] and indices.ravel().tolist() == [0, 2]
    x[0, 0, 0, 1] = x[0, 0, 1, 0] = np.nan
    y, indices = ln.max_pool2d(x, 2, return_indices=True)
    assert np.isnan(y[0, 0, 0, 0]) and indices[0, 0, 0, 0] == 4
    assert np.isnan(ln.global_max_pool2d(x)).all()


def test_window_without_a_value(backend, dtype):
    y, indices = ln.max_pool2d(
        np.ones((1, 1, 1, 1), dtype), 2, 1, 1, dilation=2, return_indices=True
    )
    assert y.ravel().tolist() == [-np.inf] and indices.ravel().tolist() == [-1]
    dx = ln.max_pool2d_backward(np.ones_like(y), np.ones((1, 1, 1, 1), dtype), indices)
    assert dx.ravel().tolist() == [0]


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 5), (51, 51), (1, 40), (40, 1)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_wide_and_large_windows(kernel, stride, backend, rng):
    """Several batches of rows, rows longer than a batch, windows larger than the plane."""
    padding = tuple(k // 2 for k in kernel)
    for shape in ((2, 1, 37, 70), (1, 1, 3, 4099)):
        x = rng.integers(-9, 10, shape).astype(np.float32)
        expected = reference.max_pool2d(x, kernel, stride, padding).astype(x.dtype)
        assert_same_bits(ln.max_pool2d(x, kernel, stride, padding), expected)
        expected = reference.avg_pool2d(x, kernel, stride, padding)
        assert_close(ln.avg_pool2d(x, kernel, stride, padding), expected, 1e-4)


def test_first_of_equal_zeros_wins(backend, dtype):
    x = np.array([[-0.0, 0.0], [0.0, -0.0]], dtype)[None, None]
    assert np.signbit(ln.max_pool2d(x, 2)).all()
    assert not np.signbit(ln.max_pool2d(-x, 2)).any()
    assert not np.signbit(ln.avg_pool2d(np.full_like(x, -0.0), 2)).any()


def test_huge_windows_end_at_once(backend):
    """Taps outside the input cost nothing, and sizes do not overflow."""
    x, huge = np.arange(12.0).reshape(1, 1, 3, 4), 2**31 - 1
    assert ln.max_pool2d(x, huge, huge, huge // 2).tolist() == [[[[11]]]]
    assert ln.max_pool2d(x, huge, huge, huge // 2, return_indices=True)[1].tolist() == [[[[11]]]]
    mean = ln.avg_pool2d(x, huge, huge, huge // 2, count_include_pad=False)
    assert mean.tolist() == [[[[5.5]]]]


def test_work_space_of_the_c_interface():
    _c = pytest.importorskip("loopnest._c")
    for hw, kernel, stride in (((5, 7), 2, 1), ((112, 112), 3, 2), ((3, 5000), 3, 1)):
        g = pooling.resolve("max_pool2d", hw, kernel, stride, 1, 1, False)
        shape = _c.ffi.new("ln_pool2d_shape *", (*hw, *g.output, *g.dilated))
        assert _c.lib.ln_max_pool2d_work(shape) == g.space


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_backward_by_finite_differences(pool, backend, rng):
    x = rng.permutation(2 * 7 * 6).reshape(1, 2, 7, 6).astype(float)
    options = {"kernel_size": (3, 2), "stride": 2, "padding": (1, 1), "ceil_mode": True}
    forward = getattr(ln, f"{pool}_pool2d")
    dy = rng.standard_normal(forward(x, **options).shape)
    if pool == "avg":
        dx = ln.avg_pool2d_backward(dy, x, **options)
    else:
        _, indices = ln.max_pool2d(x, **options, return_indices=True)
        dx = ln.max_pool2d_backward(dy, x, indices, **options)
    expected = reference.numerical_gradient(lambda v: np.sum(dy * forward(v, **options)), x)
    np.testing.assert_allclose(dx, expected, atol=1e-6)


def test_global_average_is_the_mean_in_16_lanes(backend, rng):
    x = rng.standard_normal((2, 3, 5, 7)).astype(np.float32)
    padded = np.zeros((2, 3, 48), np.float32)
    padded[..., :35] = x.reshape(2, 3, 35)
    lanes = padded.reshape(2, 3, 3, 16)
    lanes = (lanes[:, :, 0] + lanes[:, :, 1]) + lanes[:, :, 2]
    for half in (8, 4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half : 2 * half]
    assert_same_bits(ln.global_avg_pool2d(x), (lanes / np.float32(35))[..., None])


def test_average_filter_of_channels(backend, rng):
    x = rng.standard_normal((2, 3, 6, 6))
    y = ln.conv2d(x, ln.average_filter((2, 3), 3), stride=(2, 3), groups=3)
    np.testing.assert_allclose(y, ln.avg_pool2d(x, (2, 3)), atol=1e-14)
    assert_same_bits(njit_call("average_filter", ((2, 3), 3), {}), ln.average_filter((2, 3), 3))


def test_out(backend, dtype, rng):
    x = rng.standard_normal((1, 2, 4, 4)).astype(dtype)
    for op in ("avg_pool2d", "max_pool2d"):
        expected = getattr(ln, op)(x, 2)
        out = np.empty_like(expected)
        assert getattr(ln, op)(x, 2, out=out) is out
        assert_same_bits(out, expected)
        with pytest.raises(ValueError, match="overlaps"):
            getattr(ln, op)(x, 1, out=x)


X, Y = np.zeros((1, 2, 5, 5)), np.zeros((1, 2, 2, 2))
I = np.zeros((1, 2, 2, 2), np.int64)  # noqa: E741
BAD = [
    (ValueError, "x has 3 dimensions", lambda: ln.avg_pool2d(X[0], 2)),
    (ValueError, "kernel_size is 0", lambda: ln.avg_pool2d(X, 0)),
    (ValueError, "kernel_size is -2", lambda: ln.max_pool2d(X, (2, -2))),
    (TypeError, "kernel_size is 2.0", lambda: ln.max_pool2d(X, 2.0)),
    (ValueError, "stride is 0", lambda: ln.avg_pool2d(X, 2, 0)),
    (ValueError, "padding is 2 for kernel_size 3", lambda: ln.avg_pool2d(X, 3, 1, 2)),
    (ValueError, "padding is 1 for kernel_size 1", lambda: ln.max_pool2d(X, 1, 1, 1, dilation=3)),
    (ValueError, "padding is -1", lambda: ln.max_pool2d(X, 3, 1, -1)),
    (ValueError, "dilation is 0", lambda: ln.max_pool2d(X, 3, dilation=0)),
    (ValueError, "larger than the padded input", lambda: ln.max_pool2d(X, 6)),
    (ValueError, "divisor_override is 0", lambda: ln.avg_pool2d(X, 2, divisor_override=0)),
    (TypeError, "divisor_override is 0.5", lambda: ln.avg_pool2d(X, 2, divisor_override=0.5)),
    (TypeError, "ceil_mode is 'yes'", lambda: ln.avg_pool2d(X, 2, ceil_mode="yes")),
    (TypeError, "float16", lambda: ln.max_pool2d(X.astype(np.float16), 2)),
    (ValueError, "height and width", lambda: ln.max_pool2d(X[:, :, :0], 2)),
    (ValueError, "out has shape", lambda: ln.avg_pool2d(X, 2, out=X)),
    (ValueError, "dy has shape", lambda: ln.avg_pool2d_backward(X, X, 2)),
    (TypeError, "dtypes", lambda: ln.avg_pool2d_backward(Y.astype(np.float32), X, 2)),
    (ValueError, "indices has shape", lambda: ln.max_pool2d_backward(Y, X, I[:, :1])),
    (ValueError, "indices holds 25", lambda: ln.max_pool2d_backward(Y, X, I + 25)),
    (ValueError, "indices holds -2", lambda: ln.max_pool2d_backward(Y, X, I - 2)),
    (TypeError, "indices has dtype", lambda: ln.max_pool2d_backward(Y, X, I.astype(float))),
    (ValueError, "dy has shape", lambda: ln.max_pool2d_backward(Y, X, I, 3, 1)),
    (ValueError, "size is 0", lambda: ln.average_filter(0)),
    (TypeError, "dtype is int64", lambda: ln.average_filter(2, dtype=int)),
    (ValueError, "height and width", lambda: ln.global_avg_pool2d(X[:, :, :0])),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD)
def test_bad_input(error, message, call, backend):
    with pytest.raises(error, match=message):
        call()


def test_windows_far_wider_than_the_input(backend, rng):
    """Time goes with the input's size, not with the window's."""
    x, huge = rng.standard_normal((1, 2, 9, 8)), 2**31 - 1
    for kernel_size in (huge, (3, huge), (huge, 3)):
        padding = tuple(k // 2 for k in np.broadcast_to(kernel_size, 2))
        shares = np.divide(*[np.broadcast_to(k, 2) * 1.0 for k in (1, kernel_size)]).prod()
        y = ln.avg_pool2d(x, kernel_size, 1, padding)
        if kernel_size == huge:
            np.testing.assert_allclose(y[..., 4, 4], x.sum((2, 3)) * shares, rtol=1e-12)
        dx = ln.avg_pool2d_backward(np.ones_like(y), x, kernel_size, 1, padding)
        assert_close(np.sum(dx * x), np.sum(y), 1e-12)
        inside = njit_call("avg_pool2d", (x, kernel_size, 1, padding), {})
        assert_same_bits(inside, y)


def test_strides_without_sense(backend):
    x, huge = np.arange(72.0).reshape(1, 1, 9, 8), 2**31 - 1
    for op in ("avg_pool2d", "max_pool2d"):
        function = getattr(ln, op)
        assert_same_bits(function(x, 3, huge), function(x[:, :, :3, :3], 3))
        assert_same_bits(njit_call(op, (x, 3, huge), {}), function(x, 3, huge))
        for arguments, name in (
            ((3, 2**62), "stride"),
            ((2**63 - 1,), "kernel_size"),
            ((3, 1, 2**62), "padding"),
        ):
            with pytest.raises(ValueError, match=name):
                function(x, *arguments)
            with pytest.raises(ValueError, match=name):
                njit_call(op, (x, *arguments), {})


def test_bad_input_inside_njit():
    x = np.zeros((1, 1, 4, 4))
    for arguments, message in (((x, 0), "kernel_size"), ((x, 2, 0), "stride"), ((x, 5), "larger")):
        with pytest.raises(ValueError, match=message):
            njit_call("avg_pool2d", arguments, {})
    with pytest.raises(ValueError, match="outside"):
        njit_call("max_pool2d_backward", (x, x, np.full(x.shape, 16)), {})


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, 767, 769, 1100, 3136])
def test_global_maximum_finds_every_place(backend, dtype, size, rng):
    """The maximum, a NaN or a lone number among -inf, wherever in the plane it lies."""
    places = np.unique(np.r_[0, size // 2, size - 1, rng.integers(0, size, 8)])
    x = np.tile(rng.standard_normal(size), (len(places), 1)).astype(dtype)
    x[np.arange(len(places)), places] = 9
    y = ln.global_max_pool2d(x[:, None, None])
    assert (y == 9).all()
    x[np.arange(len(places)), places] = np.nan
    assert np.isnan(ln.global_max_pool2d(x[:, None, None])).all()
    x[...] = -np.inf
    assert (ln.global_max_pool2d(x[:, None, None]) == -np.inf).all()
    x[np.arange(len(places)), places] = -5
    assert (ln.global_max_pool2d(x[:, None, None]) == -5).all()


def test_global_maximum_of_zeros_has_equal_bits(rng):
    zeros = np.where(rng.random((40, 1, 31, 37)) < 0.5, np.float32(-0.0), np.float32(0))
    found = []
    for name in ("numba", "c"):
        with ln.use_backend(name):
            found.append(ln.global_max_pool2d(zeros))
    assert_same_bits(*found)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backend", ln.available_backends())
def test_large_gradients_of_2x2_averages_go_past_the_caches(backend, dtype):
    """Cache lines are written whole where the output begins and ends anywhere among them."""
    rng = np.random.default_rng(11)
    for h, w, planes in ((113, 112, 180), (64, 45, 800), (2, 3, 400_000), (2000, 1101, 1)):
        dy = rng.standard_normal((1, planes, h // 2, w // 2)).astype(dtype)
        dy[:, 0, 0, 0] = -0.0
        expected = np.zeros((1, planes, h, w), dtype)
        for i, j in np.ndindex(2, 2):
            expected[:, :, i : 2 * (h // 2) : 2, j : 2 * (w // 2) : 2] = dy / 4 + 0
        for offset in (0, 1, 5):
            memory = np.full(expected.size + 64, 7, dtype)
            out = memory[offset : offset + expected.size].reshape(expected.shape)
            with ln.use_backend(backend):
                ln.avg_pool2d_backward(dy, np.broadcast_to(dtype(0), out.shape), 2, out=out)
            assert_same_bits(out, expected)
            assert (memory[:offset] == 7).all() and (memory[offset + out.size :] == 7).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backend", ln.available_backends())
def test_large_2x2_averages_go_past_the_caches(backend, dtype):
    """Parts of the rows by turns, lines written whole wherever a part begins and ends among them."""
    rng = np.random.default_rng(12)
    for h, w, planes in ((113, 112, 700), (64, 45, 3001), (2, 3, 2_100_001), (4000, 2301, 1)):
        x = rng.standard_normal((1, planes, h, w)).astype(dtype)
        x[:, :, :2, :2] = -0.0
        even, odd = x[:, :, : h // 2 * 2 : 2], x[:, :, 1::2]
        columns = (even + dtype(0)) + odd
        sums = (columns[..., : w // 2 * 2 : 2] + dtype(0)) + columns[..., 1::2]
        for offset, divisor in ((0, None), (1, 3), (5, None)):
            memory = np.full(sums.size + 64, 7, dtype)
            out = memory[offset : offset + sums.size].reshape(sums.shape)
            with ln.use_backend(backend):
                ln.avg_pool2d(x, 2, divisor_override=divisor, out=out)
            assert_same_bits(out, sums / dtype(divisor or 4))
            assert (memory[:offset] == 7).all() and (memory[offset + out.size :] == 7).all()
