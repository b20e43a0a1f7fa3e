"""Long sums: the bits of the rule at all boundaries, and the error that it is there for."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import reference_sums
from helpers import assert_same_bits, njit_call
from reference_sums import COUNTS, RUN
from test_export_c import compiled, run
from test_logic import KERNELS as LOGIC

import loopnest as ln
from loopnest.kernels import arrange
from loopnest.ops import loss
from loopnest.runtime import threads


@pytest.fixture
def any_threads(monkeypatch):
    """Call ``f`` with each number of threads; the results have equal bits."""
    monkeypatch.setattr(threads, "SERIAL_BELOW", 0)
    before = ln.get_num_threads()

    def call(f):
        found = []
        for count in (1, 2, 3):
            ln.set_num_threads(count)
            found.append(f())
        for other in found[1:]:
            assert_same_bits(other, found[0])
        return found[0]

    yield call
    ln.set_num_threads(before)


def everywhere(op, arguments, options, call):
    """The result on this backend with any number of threads, which is that inside @njit."""
    result = call(lambda: getattr(ln, op)(*arguments, **options))
    assert_same_bits(njit_call(op, arguments, options), result)
    return result


# ---- bits ----


@pytest.mark.parametrize("count", COUNTS)
def test_total(count, backend, dtype, rng):
    x = rng.standard_normal(count).astype(dtype)
    assert_same_bits(loss.total(x), reference_sums.total(x))
    assert loss.total(x[:0]) == 0


@pytest.mark.parametrize("count", COUNTS)
def test_mean_of_planes(count, backend, dtype, rng, any_threads):
    x = rng.random((2, 3, count, 1)).astype(dtype)
    y = everywhere("global_avg_pool2d", (x,), {}, any_threads)
    expected = reference_sums.total(np.moveaxis(x[..., 0], -1, 0)) / dtype.type(count)
    assert_same_bits(y[..., 0, 0], expected)


@pytest.mark.parametrize("count", COUNTS[2:])
def test_rows_of_exponentials(count, backend, dtype, rng, any_threads):
    for rows in (1, 7):
        x = rng.standard_normal((rows, count)).astype(dtype)
        e = ln.exp(x - x.max(1, keepdims=True))
        total = reference_sums.total(e.T)[:, None]
        y = everywhere("softmax", (x,), {}, any_threads)
        assert_same_bits(y, e * (1 / total))
        logs = everywhere("log_softmax", (x,), {}, any_threads)
        rest = np.log(total.astype(np.float64))
        np.testing.assert_allclose(
            logs, x - x.max(1, keepdims=True) - rest, rtol=4 * np.finfo(dtype).eps
        )
        target = rng.integers(0, count, rows)
        losses = everywhere("cross_entropy", (x, target), {"reduction": "none"}, any_threads)
        assert_same_bits(losses, -logs[np.arange(rows), target])
        both = {"reduction": "none"}
        again, gradient = everywhere("cross_entropy_with_grad", (x, target), both, any_threads)
        assert_same_bits(again, losses)
        assert_same_bits(gradient, y - (np.arange(count) == target[:, None]).astype(dtype))


@pytest.mark.parametrize("count", [17, 2048, 2049, 3 * RUN + 5])
def test_weighted_shares_of_rows(count, backend, dtype, rng, any_threads):
    x, q = rng.standard_normal((3, count)).astype(dtype), rng.random((3, count)).astype(dtype)
    weight = rng.random(count).astype(dtype)
    logs = ln.log_softmax(x)
    options = {"weight": weight, "reduction": "none"}
    losses = everywhere("cross_entropy", (x, q), options, any_threads)
    shares = q * weight
    assert_same_bits(losses, -reference_sums.total((shares * logs).T))
    gradient = everywhere("cross_entropy_backward", (x, q), options, any_threads)
    factor = reference_sums.total(shares.T)[:, None]
    assert_same_bits(gradient, ln.softmax(x) * factor - shares)
    target = rng.integers(0, count, 3)
    options["label_smoothing"] = 0.25
    losses = everywhere("cross_entropy", (x, target), options, any_threads)
    hit = -logs[np.arange(3), target] * weight[target]
    spread = dtype.type(0.25) / dtype.type(count)
    every = reference_sums.total((logs * weight).T)
    assert_same_bits(losses, dtype.type(0.75) * hit - spread * every)


@pytest.mark.parametrize(
    "shape", [(3, 40, 1), (41, 7, 7), (42, 7, 7), (1, 64, 32), (2, 53, 41), (90, 10, 10)]
)
def test_bias_of_convolution(shape, backend, dtype, rng, any_threads):
    n, h, w = shape
    dy = rng.standard_normal((n, 2, h, w)).astype(dtype)
    given = dy, np.zeros((n, 1, h, w), dtype), np.zeros((2, 1, 1, 1), dtype)
    _, _, dbias = everywhere("conv2d_backward", given, {}, any_threads)
    expected = [reference_sums.total_of_pieces(dy[:, k].reshape(n, -1)) for k in range(2)]
    assert_same_bits(dbias, np.array(expected, dtype))


@pytest.mark.parametrize("rows", COUNTS[2:])
@pytest.mark.parametrize("outputs", [1, 300])
def test_bias_of_dense_layer(outputs, rows, backend, dtype, rng, any_threads):
    dy = rng.standard_normal((rows, outputs)).astype(dtype)
    given = dy, np.zeros((rows, 1), dtype), np.zeros((1, outputs), dtype)
    _, _, dbias = everywhere("linear_backward", given, {}, any_threads)
    assert_same_bits(dbias, reference_sums.total_in_order(dy))


def window_mean(x, rows, columns):
    """The mean of one window, its terms in the order of the contract."""
    part = x[rows, columns]
    if part.size > RUN:
        total = reference_sums.total(reference_sums.total(part))
    else:
        total = reference_sums.in_order(reference_sums.in_order(part))
    return total / x.dtype.type(part.size)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(32, 64), (32, 65), (45, 46), (2049, 1), (1, 2049), (1, 2048)])
def test_windows(kernel, stride, backend, dtype, rng, any_threads):
    """With padding: some windows of a row have more terms than a run, others have not."""
    (kh, kw), padding = kernel, (kernel[0] // 2, kernel[1] // 2)
    x = rng.random((1, 1, kh + 3, kw + 4)).astype(dtype)
    options = {"stride": stride, "padding": padding, "count_include_pad": False}
    y = everywhere("avg_pool2d", (x, kernel), options, any_threads)[0, 0]
    places = {
        (0, 0),
        (y.shape[0] // 2, 0),
        (0, y.shape[1] // 2),
        (y.shape[0] // 2, y.shape[1] // 2),
    }
    for i, j in places | {(y.shape[0] - 1, y.shape[1] - 1)}:
        top, left = i * stride - padding[0], j * stride - padding[1]
        rows, columns = slice(max(top, 0), top + kh), slice(max(left, 0), left + kw)
        assert_same_bits(y[i, j], window_mean(x[0, 0], rows, columns), str((i, j)))


@pytest.mark.parametrize("classes", [5, 2048, 2049, 5000])
@pytest.mark.parametrize("log", [False, True])
def test_gradient_of_softmax_in_networks(log, classes, backend, dtype, rng):
    net = ln.Sequential(
        ln.LogSoftmax() if log else ln.Softmax(), dtype=dtype, input_shape=(classes,)
    )
    x, dy = (rng.standard_normal((2, classes)).astype(dtype) for _ in range(2))
    y, tape = net.forward(x)
    dx, _ = net.backward(dy, tape)
    total = reference_sums.total_in_order((dy if log else dy * y).T)[:, None]
    assert_same_bits(dx, dy - ln.exp(y) * total if log else y * (dy - total))
    inside = np.empty(x.size, dtype)
    arrange.softmax_backward(dy.reshape(-1), y.reshape(-1), classes, log, inside)
    assert_same_bits(inside.reshape(x.shape), dx)


@pytest.mark.parametrize("kernels", LOGIC, ids=lambda k: k.__name__.split(".")[1])
def test_sums_of_logic_networks(kernels, dtype, rng):
    """Scores of more than a run of neurons, gradients of more chunks than a run of samples."""
    for group in (5, 2048, 2049):
        y = rng.random((2 * group, 32)).astype(dtype)
        scores = np.empty((32, 2), dtype)
        kernels.logic_scores(y.reshape(-1), 0, group, 0.5, scores)
        halves = [reference_sums.total_in_order(y[k * group : (k + 1) * group]) for k in (0, 1)]
        assert_same_bits(scores, dtype.type(0.5) * np.stack(halves, 1))
    for chunks in (1, 64, 65, 300):
        d = rng.standard_normal((chunks, 4 * 70)).astype(dtype)
        shares = [rng.random((16, 70)).astype(dtype)]
        shares.append(shares[0].copy())
        coefficients = rng.random(4 * 70).astype(dtype)
        kernels.logic_coefficients_backward(d, coefficients, 0, 70, shares[0])
        runs = [reference_sums.in_order(d[at : at + 64]) for at in range(0, chunks, 64)]
        whole = reference_sums.pairwise(runs)[None]
        kernels.logic_coefficients_backward(whole, coefficients, 0, 70, shares[1])
        assert_same_bits(*shares)


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler")
def test_exported_c(dtype, tmp_path, rng):
    """Written out as C: rows of classes, planes and windows longer than a run."""
    layers = (
        (ln.LogSoftmax(), (5000,)),
        (ln.Softmax(), (2049,)),
        (ln.GlobalAvgPool2d(), (2, 70, 80)),
        (ln.AvgPool2d((45, 50), 3), (2, 70, 80)),
    )
    for number, (layer, shape) in enumerate(layers):
        net = ln.Sequential(layer, dtype=dtype, input_shape=shape)
        x = rng.standard_normal((2, *shape)).astype(dtype)
        x[1].flat[7] += 30
        path = net.to_c(tmp_path / f"net{number}.c", batch=2)
        for flags in (("-O2",), ("-O3", "-march=native", "-ffp-contract=fast")):
            assert_same_bits(run(compiled(path, *flags), "net" + str(number), x, net(x)), net(x))


# ---- error ----


@pytest.mark.parametrize("shape", [(512, 512), (1024, 1024), (4096, 5000)])
def test_error_of_means(shape, backend, dtype, rng):
    """CASES: 3.4e-6, 1.1e-5 and 5.8e-3 with 16 partial sums for a whole plane."""
    x = rng.random((1, 1, *shape), np.float32).astype(dtype)
    exact = math.fsum(x.sum(axis=3, dtype=np.longdouble).reshape(-1)) / x.size
    bound = 1e-6 if dtype == np.float32 else 1e-14
    for y in (
        ln.global_avg_pool2d(x),
        ln.avg_pool2d(x, shape),
        njit_call("global_avg_pool2d", (x,), {}),
        njit_call("avg_pool2d", (x, shape), {}),
    ):
        assert abs(float(y[0, 0, 0, 0]) / exact - 1) < bound


def test_error_of_losses(backend, dtype):
    """Two million equal rows: 0.693082 in float32 before."""
    logits, target = np.zeros((2_000_000, 2), dtype), np.zeros(2_000_000, np.int64)
    bound = 1e-6 if dtype == np.float32 else 1e-13
    weight = np.full(2, 0.7, dtype)
    for options in ({}, {"weight": weight}):
        loss = ln.cross_entropy(logits, target, **options)
        assert abs(loss / math.log(2) - 1) < 2 * bound
        assert_same_bits(njit_call("cross_entropy", (logits, target), options), loss)
    assert (
        abs(ln.cross_entropy(logits, target, reduction="sum") / math.log(2) / 2e6 - 1) < 2 * bound
    )


def test_error_of_biases(backend, dtype, rng):
    bound = 1e-6 if dtype == np.float32 else 1e-14
    dy = rng.random((1_000_000, 3), np.float32).astype(dtype)
    exact = dy.sum(axis=0, dtype=np.longdouble)
    _, _, dbias = ln.linear_backward(dy, dy[:, :1].copy(), np.zeros((1, 3), dtype))
    assert (abs(dbias / exact - 1) < bound).all()
    planes = np.ascontiguousarray(dy.T).reshape(1, 3, 1000, 1000)
    _, _, dbias = ln.conv2d_backward(planes, planes[:, :1], np.zeros((3, 1, 1, 1), dtype))
    assert (abs(dbias / exact - 1) < bound).all()


def test_a_count_beyond_the_exact_integers_of_float32(backend):
    """What a mean divides by is the nearest float32 of the count of rows, not a float32 counter."""
    rows = (1 << 24) + (1 << 22) + 3
    logits, target = np.zeros((rows, 1), np.float32), np.zeros(rows, np.int64)
    problem = loss._Problem("cross_entropy", logits, target, None, "mean", 0.0, -100)
    assert problem.divisor() == np.float32(rows)
    scale = np.float32(1) / np.float32(rows)
    shares = np.full((rows, 1), 3, np.float32)  # of which the gradient is 0, and the loss is too
    assert ln.cross_entropy(logits, shares) == 0
    assert (
        loss._Problem("cross_entropy", logits, shares, None, "mean", 0.0, 0).scale(1.0)[0] == scale
    )
