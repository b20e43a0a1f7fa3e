"""conv2d with algorithm="winograd": error bound, tails, padding, groups, handles, special values."""

import numpy as np
import pytest
import reference
from guarded import at_page_end, at_page_start
from helpers import assert_close, assert_same_bits, njit_call
from hypothesis import given, settings
from hypothesis import strategies as st
from test_tiles import backends, lanes_of

import loopnest as ln
from loopnest.kernels import winograd as kernel_module
from loopnest.ops import winograd


def bound(x, weight):
    """The error bound that conv2d's docstring states."""
    eps, terms = float(np.finfo(x.dtype).eps), weight.shape[1]
    size = float(np.abs(x).max(initial=0)) * float(np.abs(weight).max(initial=0))
    return 32 * eps * terms * (terms + 11) * size


def problem(rng, dtype, x, weight, **options):
    return (
        rng.standard_normal(x).astype(dtype),
        rng.standard_normal(weight).astype(dtype),
        rng.standard_normal(weight[0]).astype(dtype),
        options,
    )


SHAPES = [
    ((1, 1, 4, 4), (1, 1, 3, 3), {"padding": 1}),
    ((2, 3, 3, 3), (5, 3, 3, 3), {}),
    ((2, 5, 8, 9), (17, 5, 3, 3), {"padding": ((2, 0), (1, 3))}),
    ((1, 4, 1, 1), (3, 4, 3, 3), {"padding": "same"}),
    ((1, 2, 5, 700), (3, 2, 3, 3), {"padding": 1}),  # wider than a block of columns
    ((1, 2, 300, 1), (3, 2, 3, 3), {"padding": 1}),
    ((1, 6, 13, 31), (9, 2, 3, 3), {"padding": 1, "groups": 3}),
    ((2, 4, 6, 7), (8, 1, 3, 3), {"padding": 5, "groups": 4}),
    ((1, 33, 15, 34), (40, 33, 3, 3), {"padding": 1}),
    ((0, 3, 6, 6), (4, 3, 3, 3), {}),
    ((1, 700, 5, 4), (300, 700, 3, 3), {"padding": 1}),  # filters in parts
]


@pytest.mark.parametrize(("x", "weight", "options"), SHAPES)
def test_within_the_bound_and_the_same_bits_everywhere(x, weight, options, dtype, two_threads, rng):
    x, weight, bias, options = problem(rng, dtype, x, weight, **options)
    expected = reference.conv2d(x, weight, bias, **options)
    given = {**options, "algorithm": "winograd"}
    results = []
    for name in ("numba", "c"):
        with ln.use_backend(name):
            for threads in (1, 2):
                ln.set_num_threads(threads)
                handle = ln.pack_weight(weight, groups=options.get("groups", 1))
                for filters in (weight, handle, handle):
                    out = np.full(expected.shape, np.nan, dtype)
                    assert ln.conv2d(x, filters, bias, out=out, **given) is out
                    results.append(out)
    for y in results[1:]:
        assert_same_bits(y, results[0])
    if y.size:
        rounding = 2 * np.finfo(dtype).eps * np.abs(expected).max()
        assert np.abs(y - expected).max() <= bound(x, weight) + rounding


@pytest.mark.parametrize(("x", "weight", "options"), [SHAPES[2], SHAPES[6], SHAPES[-1]])
def test_inside_njit(x, weight, options, rng):
    x, weight, bias, options = problem(rng, np.float32, x, weight, **options)
    options = {**options, "algorithm": "winograd", "activation": "relu"}
    assert_same_bits(njit_call("conv2d", (x, weight, bias), options),
                     ln.conv2d(x, weight, bias, **options))  # fmt: skip
    handle = ln.pack_weight(weight, groups=options.get("groups", 1))
    assert_same_bits(
        njit_call("conv2d", (x, handle, bias), options), ln.conv2d(x, weight, bias, **options)
    )


@pytest.mark.parametrize("channels", [1, 16, 64, 256, 1024])
def test_error_beside_that_of_the_direct_sum(channels, backend, dtype, rng):
    x, weight, _, _ = problem(rng, dtype, (1, channels, 9, 12), (16, channels, 3, 3))
    expected = reference.conv2d(x, weight, padding=1)

    def deviation(algorithm):
        error = ln.conv2d(x, weight, padding=1, algorithm=algorithm) - expected
        return float(np.sqrt(np.mean(error**2))), float(np.abs(error).max())

    (rms, worst), (direct_rms, _) = deviation("winograd"), deviation("direct")
    assert rms <= (1 if channels >= 64 else 6) * direct_rms
    assert worst <= bound(x, weight)
    # What direct sums are held to (tests/cases.py), for data of size 1.
    assert worst <= 8 * np.finfo(dtype).eps * max(9 * channels, 4)


def test_bound_where_all_terms_add_up(backend, dtype):
    # The worst case of the bound's derivation: constant magnitudes, signs of one row of B and G.
    channels = 512
    signs = np.array([1, 1, -1, -1.0])
    patch = np.outer(signs, signs)
    values = np.float32(1 + 2.0**-23) if dtype == np.float32 else 1 + 2.0**-52
    x = np.broadcast_to(patch, (1, channels, 4, 4)).astype(dtype) * values
    weight = np.full((1, channels, 3, 3), values / 3, dtype)
    for sign in (1, -1):
        w = weight * np.array([1, sign, 1], dtype)
        y = ln.conv2d(x, w, algorithm="winograd")
        error = np.abs(y - reference.conv2d(x, w)).max()
        assert 0 < error <= bound(x, w)


def test_large_values_need_room_for_sums(backend):
    # Documented: sums of 4 numbers of x and of 9 of a filter must not overflow.
    x = np.full((1, 1, 4, 4), np.finfo(np.float32).max / 8, np.float32)
    w = np.full((1, 1, 3, 3), 2.0**-10, np.float32)
    y = ln.conv2d(x, w, algorithm="winograd")
    np.testing.assert_allclose(y, reference.conv2d(x, w), rtol=1e-6)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_values_stay_in_their_tiles(special, backend, dtype, rng):
    x, w, _, _ = problem(rng, dtype, (1, 3, 12, 12), (4, 3, 3, 3))
    expected = ln.conv2d(x, w, algorithm="winograd")
    x[0, 1, 5, 6] = special
    direct, y = ln.conv2d(x, w), ln.conv2d(x, w, algorithm="winograd")
    assert not np.isfinite(y[~np.isfinite(direct)]).any()
    # Tiles whose 4x4 input holds row 5: those of output rows 2..5; column 6: of 4..7.
    untouched = np.ones(y.shape, bool)
    untouched[:, :, 2:6, 4:8] = False
    assert_same_bits(y[untouched], expected[untouched])
    x[0, 1, 5, 6], w[2, 0, 1, 1] = 0, special
    y = ln.conv2d(x, w, algorithm="winograd")
    assert not np.isfinite(y[0, 2]).any()
    assert np.isfinite(np.delete(y, 2, axis=1)).all()


BAD = [
    ((2, 2), {}, "kernel"),
    ((5, 5), {}, "kernel"),
    ((3, 1), {}, "kernel"),
    ((3, 3), {"stride": 2}, "stride"),
    ((3, 3), {"stride": (1, 2)}, "stride"),
    ((3, 3), {"dilation": 2}, "dilation"),
]


@pytest.mark.parametrize(("kernel", "options", "what"), BAD)
def test_refuses_other_convolutions(kernel, options, what, backend):
    x, w = np.zeros((1, 2, 9, 9)), np.zeros((3, 2, *kernel))
    out = np.full(ln.conv2d(x, w, **options).shape, 7.0)
    with pytest.raises(ValueError, match=rf"conv2d: algorithm .*{what}.*accepted.*\(3, 3\)"):
        ln.conv2d(x, w, algorithm="winograd", out=out, **options)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("kernel", "options"), [((2, 2), {}), ((3, 1), {}), ((3, 3), {"stride": 2})]
)
def test_refuses_them_inside_njit(kernel, options):
    x, w = np.zeros((1, 2, 9, 9)), np.zeros((3, 2, *kernel))
    with pytest.raises(ValueError, match="conv2d: algorithm"):
        njit_call("conv2d", (x, w), {"algorithm": "winograd", **options})


def test_handle_keeps_what_it_made(backend, rng):
    x, w, bias, _ = problem(rng, np.float32, (1, 20, 9, 9), (24, 20, 3, 3))
    handle = ln.pack_weight(w)
    first = ln.conv2d(x, handle, bias, algorithm="winograd")
    kept = [id(a) for a in handle._packed.values()]
    assert_same_bits(ln.conv2d(x, handle, bias, algorithm="winograd"), first)
    assert [id(a) for a in handle._packed.values()] == kept
    assert_same_bits(ln.conv2d(x, handle, bias), ln.conv2d(x, w, bias))


def test_fused_activation(backend, dtype, rng):
    x, w, bias, _ = problem(rng, dtype, (1, 3, 7, 7), (4, 3, 3, 3))
    y = ln.conv2d(x, w, bias, algorithm="winograd", activation="gelu")
    assert_same_bits(y, ln.gelu(ln.conv2d(x, w, bias, algorithm="winograd")))
    assert_close(y, reference.conv2d(x, w, bias, activation="gelu"), 1e3 * np.finfo(dtype).eps)


@given(st.integers(0, 6), st.integers(1, 6), st.integers(1, 40))
def test_parts_cover_all_blocks_and_keep_groups_apart(groups, deep, part):
    part = part if part < deep else part // deep * deep
    found = list(winograd.parts(groups * deep, deep, part))
    assert [b for first, count in found for b in range(first, first + count)] == list(
        range(groups * deep)
    )
    for first, count in found:
        assert count <= part
        whole = first % deep == 0 and count % deep == 0
        assert whole or first // deep == (first + count - 1) // deep


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("channels", "k", "width"), [(160, 160, 201), (400, 48, 130), (64, 64, 510)]
)
def test_strips_shorter_than_a_row_of_tiles(channels, k, width, dtype):
    """Many channels, wide images: a strip ends within one row and goes on in the next."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, channels, 5, width)).astype(dtype)
    weight = rng.standard_normal((k, channels, 3, 3)).astype(dtype)
    expected = ln.conv2d(x, weight, padding=1, algorithm="direct")
    tolerance = 400 * np.finfo(dtype).eps * np.abs(expected).max()
    results = []
    for backend in ("numba", "c"):
        with ln.use_backend(backend):
            results.append(ln.conv2d(x, weight, padding=1, algorithm="winograd"))
        assert np.abs(results[-1] - expected).max() < tolerance
    assert_same_bits(*results)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 2), st.integers(1, 4), st.sampled_from([1, 7, 16, 17, 35]),
    st.tuples(st.integers(1, 9), st.integers(1, 40)), st.tuples(*[st.integers(0, 3)] * 4),
    st.integers(1, 4), st.integers(1, 21), st.integers(1, 4), st.booleans(),
    st.sampled_from([np.float32, np.float64]), st.sampled_from([at_page_end, at_page_start]),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_small_strips_between_protected_pages(
    n, groups, channels, k, size, padding, vectors, columns, part, has_bias, dtype, side, seed
):
    rng = np.random.default_rng(seed)
    top, bottom, left, right = padding
    out_h, out_w = size[0] + top + bottom - 2, size[1] + left + right - 2
    if out_h < 1 or out_w < 1:
        return

    def array(*shape, fill=None):
        made = side(shape, dtype)
        made[...] = rng.standard_normal(shape) if fill is None else fill
        return made

    x, weight = array(n, groups * channels, *size), array(groups * k, channels, 3, 3)
    bias = array(groups * k) if has_bias else np.empty(0, dtype)
    expected = reference.conv2d(
        x, weight, bias if has_bias else None, padding=((top, bottom), (left, right)), groups=groups
    )
    columns, deep = min(columns, -(-out_w // 2)), -(-k // 16)
    part = part if part < deep else part // deep * deep
    results = []
    for name, module in backends():
        lanes, kernels = lanes_of(module, x.itemsize), module.winograd
        strip, down = vectors * lanes, -(-out_h // 2)
        across = -(-out_w // 2)
        tasks = n * -(-across // columns) * -(-down * columns // strip)
        y = array(*expected.shape, fill=np.nan)
        for first_block, blocks in winograd.parts(groups * deep, deep, part):
            rows = 16 * min(blocks, deep)
            u = array(blocks * 256 * channels, fill=np.nan)
            own = array(9 * channels * lanes, fill=np.nan)
            kernels.transform_filters(weight, groups, first_block, first_block + blocks, own, u)
            lines = kernel_module.lines_size(strip, columns, lanes)
            work = array(lines + 16 * ((channels + rows) * strip + 2 * lanes), fill=np.nan)
            cut = top, left, groups, strip, columns, first_block, blocks
            total = tasks * max(blocks // deep, 1)
            for first, last in ((total // 2, total), (0, total // 2)):
                kernels.conv2d_winograd(x, u, bias, *cut, first, last, work, y)
        tolerance = bound(x, weight) + 2 * np.finfo(dtype).eps * np.abs(expected).max()
        assert np.abs(y - expected).max() <= tolerance, name
        results.append(y)
    for y in results[1:]:
        assert_same_bits(y, results[0])
