"""Softmax and cross-entropy: SciPy, PyTorch's rules, extremes, gradients, bad input."""

import math

import mpmath
import numpy as np
import pytest
import reference
from helpers import assert_close, assert_same_bits, njit_call
from scipy import special

import loopnest as ln


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 17), (2, 3, 5), (4, 1), (2, 0), (0, 3)])
def test_softmax_against_scipy(shape, backend, rng):
    x = 5 * rng.standard_normal(shape)
    for axis in range(-len(shape), len(shape)):
        if x.shape[axis] == 0:
            assert ln.softmax(x, axis).shape == shape
            continue
        np.testing.assert_allclose(ln.softmax(x, axis), special.softmax(x, axis), rtol=1e-13)
        expected = special.log_softmax(x, axis)
        np.testing.assert_allclose(ln.log_softmax(x, axis), expected, rtol=1e-12, atol=1e-14)


def test_softmax_of_extremes(backend, dtype):
    big = dtype.type(1e4)
    x = np.array([[big, -big, 0], [-big, -big, -big], [1, -np.inf, 1]], dtype)
    assert ln.softmax(x).tolist() == [[1, 0, 0], [dtype.type(1) / 3] * 3, [0.5, 0, 0.5]]
    assert ln.log_softmax(x)[0].tolist() == [0, -2 * big, -big]
    hopeless = np.array([[-np.inf] * 3, [np.nan, 0, 1], [np.inf, 0, 1]], dtype)
    assert np.isnan(ln.softmax(hopeless)[:2]).all() and np.isnan(ln.softmax(hopeless)[2, 0])
    assert np.isnan(ln.log_softmax(hopeless)[0]).all()


def test_softmax_in_place_and_out(backend, dtype, rng):
    x = rng.standard_normal((4, 5)).astype(dtype)
    for axis in (0, 1):
        expected = ln.softmax(x, axis)
        out = np.empty_like(x)
        assert ln.softmax(x, axis, out) is out
        assert_same_bits(out, expected)
        copy = x.copy()
        assert_same_bits(ln.softmax(copy, axis, out=copy), expected)


def test_row_sum_runs_in_16_lanes(backend, rng):
    x = rng.standard_normal((1, 40)).astype(np.float32)
    e = ln.exp(x - x.max())
    lanes = np.zeros((3, 16), np.float32)
    lanes.reshape(-1)[:40] = e[0]
    total = (lanes[0] + lanes[1]) + lanes[2]
    for half in (8, 4, 2, 1):
        total = total[:half] + total[half : 2 * half]
    assert_same_bits(ln.softmax(x), e * (1 / total))


def test_cross_entropy_by_hand(backend):
    logits = np.log(np.array([[1.0, 2.0, 5.0], [3.0, 3.0, 2.0]]))
    target = np.array([2, 0])
    each = [math.log(8 / 5), math.log(8 / 3)]
    np.testing.assert_allclose(ln.cross_entropy(logits, target, reduction="none"), each, rtol=1e-14)
    assert ln.cross_entropy(logits, target) == pytest.approx(sum(each) / 2, rel=1e-14)
    assert ln.cross_entropy(logits, target, reduction="sum") == pytest.approx(sum(each), rel=1e-14)
    target[0] = -100
    assert ln.cross_entropy(logits, target) == pytest.approx(each[1], rel=1e-14)
    assert ln.cross_entropy(logits, target + 100, ignore_index=100, reduction="none")[1] == 0
    smooth = ln.cross_entropy(logits[1], 0, label_smoothing=0.3)
    by_hand = 0.7 * each[1] + 0.1 * (2 * each[1] + math.log(8 / 2))
    assert smooth == pytest.approx(by_hand, rel=1e-14)


def test_gradient_is_softmax_minus_one_hot(backend, dtype, rng):
    """WORKED_PROBLEMS 3(a): dE/df2 = o - y."""
    logits, target = rng.standard_normal((5, 7)).astype(dtype), rng.integers(0, 7, 5)
    o, y = ln.softmax(logits), np.eye(7, dtype=dtype)[target]
    assert_same_bits(ln.cross_entropy_backward(logits, target, reduction="sum"), o - y)
    one_hot = ln.cross_entropy_backward(logits, y, reduction="sum")
    assert_close(one_hot, o - y, 4 * np.finfo(dtype).eps)


def _weights(rng, dtype=np.float64):
    return (0.1 + rng.random(6)).astype(dtype)


@pytest.mark.parametrize("shape", [(6,), (4, 6), (3, 6, 2)])
def test_against_torch_when_there(shape, backend, rng):
    torch = pytest.importorskip("torch")
    entropy = torch.nn.functional.cross_entropy
    x = 3 * rng.standard_normal(shape)
    rows = () if len(shape) == 1 else (shape[0], *shape[2:])
    indices, shares = rng.integers(0, 6, rows), rng.random(shape)
    if rows:
        indices.flat[0] = -100
    for target in (indices, shares):
        for options in ({}, {"reduction": "sum"}, {"reduction": "none"}):
            for e in (0.0, 0.1):
                for weight in (None, _weights(rng)):
                    leaf = torch.tensor(x, requires_grad=True)
                    kind = dict(options, label_smoothing=e)
                    given = None if weight is None else torch.tensor(weight)
                    loss = entropy(leaf, torch.tensor(target), weight=given, **kind)
                    loss.sum().backward()
                    kind["weight"] = weight
                    assert_close(ln.cross_entropy(x, target, **kind), loss.detach().numpy(), 1e-13)
                    actual = ln.cross_entropy_backward(x, target, **kind)
                    assert_close(actual, leaf.grad.numpy(), 1e-13)


@pytest.mark.parametrize("classes", [6, 16, 17, 40])
def test_loss_and_gradient_together_have_the_bits_of_each(classes, backend, dtype, rng):
    x = 3 * rng.standard_normal((70, classes)).astype(dtype)
    indices, shares = rng.integers(0, classes, 70), rng.random((70, classes)).astype(dtype)
    indices[5] = -100
    weight = (0.1 + rng.random(classes)).astype(dtype)
    for target in (indices, shares):
        for options in ({}, {"reduction": "none"}, {"label_smoothing": 0.1, "reduction": "sum"}):
            for w in (None, weight):
                loss, dlogits = ln.cross_entropy_with_grad(x, target, weight=w, **options)
                assert_same_bits(loss, ln.cross_entropy(x, target, weight=w, **options))
                assert_same_bits(dlogits, ln.cross_entropy_backward(x, target, weight=w, **options))


def test_gradients_into_out(backend, dtype, rng):
    for shape in ((9, 20), (3, 5, 4)):
        x = rng.standard_normal(shape).astype(dtype)
        target = rng.integers(0, shape[1], (shape[0], *shape[2:]))
        out = np.empty_like(x)
        loss, dlogits = ln.cross_entropy_with_grad(x, target, out=out)
        assert dlogits is out
        assert_same_bits((loss, out), ln.cross_entropy_with_grad(x, target))
        again = np.empty_like(x)
        assert ln.cross_entropy_backward(x, target, out=again) is again
        assert_same_bits(again, out)
        inside = np.empty_like(x)
        njit_call("cross_entropy_backward", (x, target), {"out": inside})
        assert_same_bits(inside, out)
        with pytest.raises(ValueError, match="overlaps"):
            ln.cross_entropy_backward(x, target, out=x)


def test_unit_weights_change_nothing(backend, dtype, rng):
    for classes in (6, 20):
        x = rng.standard_normal((9, classes)).astype(dtype)
        target, ones = rng.integers(0, classes, 9), np.ones(classes, dtype)
        plain = ln.cross_entropy_with_grad(x, target)
        assert_same_bits(ln.cross_entropy_with_grad(x, target, weight=ones), plain)


@pytest.mark.parametrize("target", ["indices", "shares"])
def test_weights_inside_njit_and_on_both_backends(target, dtype, rng):
    x, weight = rng.standard_normal((5, 6)).astype(dtype), _weights(rng, dtype)
    t = rng.integers(0, 6, 5) if target == "indices" else rng.random((5, 6)).astype(dtype)
    options = {"weight": weight, "label_smoothing": 0.25}
    with ln.use_backend("numba"):
        expected = ln.cross_entropy_with_grad(x, t, **options)
    with ln.use_backend("c"):
        assert_same_bits(ln.cross_entropy_with_grad(x, t, **options), expected)
    assert_same_bits(njit_call("cross_entropy_with_grad", (x, t), options), expected)
    assert_same_bits(njit_call("cross_entropy", (x, t), options), expected[0])


def test_blocks_of_rows_have_the_bits_of_single_rows(backend, dtype, rng):
    """Few classes are worked on in blocks of rows; NaN, infinities and ignored rows among them."""
    x = 4 * rng.standard_normal((131, 10)).astype(dtype)
    x[3, 2], x[70, 4], x[90], x[91, 0], x[7, 5] = np.nan, np.inf, -np.inf, -np.inf, np.nan
    target = rng.integers(0, 10, 131)
    target[[7, 64, 130]] = -100
    losses, dlogits = ln.cross_entropy_with_grad(x, target, reduction="none")
    assert losses[7] == 0 and not dlogits[[7, 64, 130]].any()
    for n in range(0, 131, 5):
        loss, row = ln.cross_entropy_with_grad(x[n : n + 1], target[n : n + 1], reduction="none")
        assert_same_bits((losses[n : n + 1], dlogits[n : n + 1]), (loss, row))
        assert_same_bits(ln.softmax(x)[n], ln.softmax(x[n]))
        assert_same_bits(ln.log_softmax(x)[n], ln.log_softmax(x[n]))


@pytest.mark.parametrize("classes", [3, 16, 17, 40, 2500])
def test_classes_without_a_share_at_minus_infinity(classes, backend, dtype, rng):
    """0 times -inf counts 0: in shares, weights and smoothing; other terms stay infinite."""
    x = rng.standard_normal((5, classes)).astype(dtype)
    x[:, 1] = -np.inf
    q = rng.random((5, classes)).astype(dtype)
    q[:, 1] = 0
    weight = (0.1 + rng.random(classes)).astype(dtype)
    none_for_1 = weight.copy()
    none_for_1[1] = 0
    indices, at_1 = rng.integers(2, classes, 5), np.ones(5, np.int64)
    calls = (
        (q, {}, True),
        (q, {"weight": weight}, True),
        (q + 1, {"weight": none_for_1}, True),
        (q, {"weight": none_for_1, "label_smoothing": 0.3}, True),
        (q, {"label_smoothing": 1.0, "weight": none_for_1}, True),
        (indices, {}, True),
        (indices, {"weight": none_for_1, "label_smoothing": 0.3}, True),
        (at_1, {"weight": none_for_1}, True),
        (at_1, {"weight": none_for_1, "label_smoothing": 0.3}, True),
        (at_1, {"weight": none_for_1, "label_smoothing": 1.0}, True),
        (at_1, {}, False),
        (q, {"label_smoothing": 0.3}, False),
        (q + 1, {}, False),
    )
    tolerance = 2e-6 if dtype == np.float32 else 1e-14
    for target, options, finite in calls:
        options = {"reduction": "none", **options}
        losses = ln.cross_entropy(x, target, **options)
        assert np.isfinite(losses).all() == finite and not np.isnan(losses).any(), options
        expected = reference.cross_entropy(x, target, **options)
        np.testing.assert_allclose(losses, expected, rtol=tolerance, atol=tolerance)
        assert_same_bits(ln.cross_entropy_with_grad(x, target, **options)[0], losses)
        assert np.isfinite(ln.cross_entropy_backward(x, target, **options)).all()
        if classes == 40 and options.get("label_smoothing") != 1.0 and "weight" in options:
            assert_same_bits(njit_call("cross_entropy", (x, target), options), losses)


def test_what_is_no_number_stays_none(backend, dtype):
    """Rows of nothing but -inf, of NaN and of +inf, whatever their shares."""
    x = np.array([[-np.inf] * 3, [np.nan, 0, 1], [np.inf, 0, 1]], dtype)
    for q in (np.zeros_like(x), np.full_like(x, 0.5)):
        assert np.isnan(ln.cross_entropy(x, q, reduction="none")[:2]).all()
    assert np.isnan(ln.cross_entropy(x, np.full_like(x, 0.5), reduction="none")).all()
    assert np.isnan(ln.cross_entropy(x, np.zeros(3, int), reduction="none")).all()


@pytest.mark.parametrize("classes", [2, 5, 16, 17, 40, 1000, 5000])
def test_relative_error_next_to_the_certain_class(classes, backend, dtype):
    """-log(1 + r) where the others' sum r is small: log_softmax([20, 0])[0] is -2.06e-9, not 0."""
    mp = mpmath.mp.clone()
    mp.prec = 120
    for top in (0.5, 1, 3, 8, 20, 40, 80):
        x = np.full((1, classes), -2.0, dtype)
        x[0, ::3] = 0
        x[0, classes // 2] = top + math.log2(classes)
        others = [
            (v, n)
            for v, n in zip(*np.unique(np.delete(x, classes // 2), return_counts=True), strict=True)
        ]
        best = mp.mpf(float(x[0, classes // 2]))
        exact = mp.log1p(mp.fsum(int(n) * mp.exp(mp.mpf(float(v)) - best) for v, n in others))
        target = np.array([classes // 2])
        found = [
            -ln.log_softmax(x)[0, classes // 2],
            ln.cross_entropy(x, target),
            ln.cross_entropy_with_grad(x, target)[0],
            ln.cross_entropy(x, np.eye(classes, dtype=dtype)[target]),
            ln.cross_entropy_with_grad(x, np.eye(classes, dtype=dtype)[target])[0],
        ]
        if backend == "numba" and classes in (2, 40):
            found.append(-njit_call("log_softmax", (x,), {})[0, classes // 2])
            found.append(njit_call("cross_entropy", (x, target), {}))
        # What remains is the rounding of x - max, which the exponential multiplies.
        bound = (8 + float(best)) * np.finfo(dtype).eps
        for value in found:
            assert abs(mp.mpf(float(value)) / exact - 1) < bound, (top, value, exact)


def test_a_sum_beside_the_largest_number_does_not_change_softmax(backend, dtype):
    x = np.array([[20, 0, -1], [0.2, 0.1, 0.3]], dtype)
    e = ln.exp(x - x.max(1, keepdims=True))
    assert_same_bits(ln.softmax(x), e * (1 / ((e[:, 0] + e[:, 2]) + e[:, 1]))[:, None])


def test_nan_in_a_row_stays_in_its_row(backend, dtype, rng):
    for classes in (5, 40):
        x = rng.standard_normal((4, classes)).astype(dtype)
        x[1, classes // 2] = np.nan
        for f in (ln.softmax, ln.log_softmax):
            assert np.isnan(f(x)).all(axis=1).tolist() == [False, True, False, False]


def test_upstream_gradient(backend, rng):
    x, t, dy = rng.standard_normal((4, 3)), np.array([0, 1, 2, 1]), rng.standard_normal(4)
    rows = ln.cross_entropy_backward(x, t, reduction="none")
    expected = rows * dy[:, None]
    assert_close(ln.cross_entropy_backward(x, t, reduction="none", dy=dy), expected, 1e-15)
    assert_close(ln.cross_entropy_backward(x, t, reduction="sum", dy=2.0), 2 * rows, 1e-15)


def test_nothing_to_average(backend):
    empty = np.zeros((0, 3)), np.zeros(0, int)
    assert math.isnan(ln.cross_entropy(*empty)) and ln.cross_entropy(*empty, reduction="sum") == 0
    ignored = np.zeros((2, 3)), np.full(2, -100)
    assert math.isnan(ln.cross_entropy(*ignored))
    assert not ln.cross_entropy_backward(*ignored).any()
    assert math.isnan(njit_call("cross_entropy", ignored, {}))


def test_backward_by_finite_differences(backend, rng):
    x, shares = rng.standard_normal((3, 4)), rng.random((3, 4))
    for target in (np.array([1, 3, 0]), shares):
        expected = reference.numerical_gradient(
            lambda v, t=target: ln.cross_entropy(v, t, label_smoothing=0.2), x
        )
        actual = ln.cross_entropy_backward(x, target, label_smoothing=0.2)
        np.testing.assert_allclose(actual, expected, atol=1e-8)


X, T = np.zeros((2, 3)), np.zeros(2, int)
BAD = [
    (ValueError, "axis is 2", lambda: ln.softmax(X, 2)),
    (TypeError, "axis is 0.5", lambda: ln.log_softmax(X, 0.5)),
    (ValueError, "axis is 1", lambda: ln.softmax(np.float64(1), 1)),
    (ValueError, "target holds class 3", lambda: ln.cross_entropy(X, T + 3)),
    (ValueError, "target holds class -1", lambda: ln.cross_entropy_backward(X, T - 1)),
    (ValueError, "target has shape", lambda: ln.cross_entropy(X, T[:1])),
    (ValueError, "target has shape", lambda: ln.cross_entropy(X, np.zeros((3, 2)))),
    (TypeError, "dtypes", lambda: ln.cross_entropy(X, np.zeros((2, 3), np.float32))),
    (ValueError, "reduction is 'avg'", lambda: ln.cross_entropy(X, T, reduction="avg")),
    (ValueError, "smoothing is 1.5", lambda: ln.cross_entropy(X, T, label_smoothing=1.5)),
    (ValueError, "smoothing is nan", lambda: ln.cross_entropy(X, T, label_smoothing=math.nan)),
    (TypeError, "ignore_index is 0.5", lambda: ln.cross_entropy(X, T, ignore_index=0.5)),
    (ValueError, "at least 1 class", lambda: ln.cross_entropy(np.zeros((2, 0)), T)),
    (ValueError, "logits has 0 dimensions", lambda: ln.cross_entropy(1.0, 0)),
    (ValueError, "dy has shape", lambda: ln.cross_entropy_backward(X, T, dy=np.ones(2))),
    (ValueError, "weight has shape", lambda: ln.cross_entropy(X, T, weight=np.ones(2))),
    (TypeError, "dtypes", lambda: ln.cross_entropy(X, T, weight=np.ones(3, np.float32))),
    (ValueError, "cross_entropy_with_grad: target", lambda: ln.cross_entropy_with_grad(X, T + 3)),
    (TypeError, "float16", lambda: ln.softmax(X.astype(np.float16))),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), BAD)
def test_bad_input(error, message, call, backend):
    with pytest.raises(error, match=message):
        call()


def test_bad_input_inside_njit():
    with pytest.raises(ValueError, match="class out of range"):
        njit_call("cross_entropy", (X, T + 3), {})
    with pytest.raises(ValueError, match="weight has not one value a class"):
        njit_call("cross_entropy", (X, T), {"weight": np.ones(2)})
    with pytest.raises(ValueError, match="axis"):
        njit_call("softmax", (X,), {"axis": 2})
