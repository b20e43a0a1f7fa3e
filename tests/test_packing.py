"""Packed weights: the same bits as plain ones, from either backend and inside @njit."""

import tracemalloc

import numba
import numpy as np
import pytest
from helpers import assert_same_bits

import loopnest as ln


def arrays(rng, dtype, x, weight):
    return (rng.standard_normal(shape).astype(dtype) for shape in (x, weight, weight[:1]))


@pytest.mark.parametrize(
    ("x", "weight", "groups"),
    [
        ((2, 16, 9, 11), (33, 16, 3, 3), 1),
        ((1, 32, 8, 8), (70, 16, 3, 3), 2),
        ((1, 3, 9, 9), (5, 3, 3, 3), 1),  # kernels that have no use for the packed form
        ((1, 1, 4, 4), (1, 1, 3, 3), 1),
        ((0, 2, 4, 4), (3, 2, 3, 3), 1),
    ],
)
def test_convolution(rng, dtype, backend, x, weight, groups):
    x, weight, bias = arrays(rng, dtype, x, weight)
    handle = ln.pack_weight(weight, groups=groups)
    expected = ln.conv2d(x, weight, bias, padding=1, groups=groups)
    kept = weight.copy()
    weight[...] = np.nan  # the handle has a copy
    actual = ln.conv2d(x, handle, bias, padding=1, groups=groups)
    assert_same_bits(actual, expected)
    other = "c" if backend == "numba" else "numba"
    with ln.use_backend(other):  # packed for one backend, used by the other
        assert_same_bits(ln.conv2d(x, handle, bias, padding=1, groups=groups), expected)
    assert handle.shape == kept.shape and handle.dtype == dtype and handle.groups == groups
    assert str(kept.shape) in repr(handle)


@pytest.mark.parametrize("rows", [1, 4, 9, 64])
def test_dense(rng, dtype, backend, rows):
    x, weight, bias = (rng.standard_normal(s).astype(dtype) for s in ((rows, 31), (31, 97), (97,)))
    handle = ln.pack_weight(weight)
    assert_same_bits(ln.linear(x, handle, bias), ln.linear(x, weight, bias))
    assert_same_bits(ln.linear(x[0], handle), ln.linear(x[0], weight))


@numba.njit
def both(x, filters, bias, rows, weight):
    return ln.conv2d(x, filters, bias, padding=1), ln.linear(rows, weight)


def test_inside_njit(rng):
    x, filters, bias = arrays(rng, np.float32, (1, 16, 9, 9), (20, 16, 3, 3))
    rows, weight = rng.standard_normal((2, 33, 33)).astype(np.float32)
    handles = ln.pack_weight(filters), ln.pack_weight(weight)
    expected = ln.conv2d(x, filters, bias, padding=1), ln.linear(rows, weight)
    assert_same_bits(both(x, handles[0], bias, rows, handles[1]), expected)
    with pytest.raises(ValueError, match="groups"):
        both(x, ln.pack_weight(filters, groups=2), bias, rows, handles[1])


def test_bad_handles(rng):
    x, filters, _ = arrays(rng, np.float32, (1, 4, 5, 5), (6, 4, 3, 3))
    handle = ln.pack_weight(filters)
    for call, words in (
        (lambda: ln.conv2d(x, ln.pack_weight(filters, groups=2)), "conv2d: weight is packed for"),
        (
            lambda: ln.conv2d(x, ln.pack_weight(filters[:, :, 0, 0])),
            "conv2d: weight is packed from",
        ),
        (lambda: ln.linear(x, handle), "linear: weight is packed from"),
        (lambda: ln.conv2d(x[:, :3], handle), "conv2d: weight has 4 channels"),
        (lambda: ln.pack_weight(filters, groups=4), "pack_weight: groups is 4"),
        (lambda: ln.pack_weight(filters[0]), "pack_weight: weight has 3 dimensions"),
        (lambda: ln.pack_weight(filters[:, :, 0, 0], groups=2), "pack_weight: groups is 2"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(TypeError, match="conv2d"):
        ln.conv2d(x.astype(np.float64), handle)
    with pytest.raises(TypeError, match="pack_weight"):
        ln.pack_weight(filters.astype(complex))


def test_memory_of_a_convolution_is_bounded(rng, backend):
    """Input, weights and output, and work space of at most 16 MB a thread."""
    x, weight, _ = arrays(rng, np.float32, (1, 48, 256, 256), (48, 48, 3, 3))
    ln.conv2d(x[:, :, :20, :20], weight, padding=1)  # compiled
    before = ln.get_num_threads()
    ln.set_num_threads(1)
    tracemalloc.start()
    y = ln.conv2d(x, weight, padding=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    ln.set_num_threads(before)
    assert peak <= y.nbytes + weight.nbytes + (16 << 20)
