"""Register tiles: the bits of the plain loops, in every form, block size and instruction set.

The kernels are called beneath the public functions, with blocks far smaller than a plan
would choose, so that all borders between blocks and tiles arise in small arrays. All
arrays end (or begin) at protected pages: a byte touched beyond them is a crash.
"""

import contextlib
import importlib
import itertools
import pkgutil

import numpy as np
import pytest
from guarded import at_page_end, at_page_start
from helpers import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import loopnest as ln
from loopnest import _c, kernels
from loopnest.kernels import convolution_plan
from loopnest.kernels.convolution_plan import (
    CHANNELS,
    PIXELS,
    PLAIN,
    POINTWISE,
    STACKED,
    ceil_div,
)
from loopnest.kernels.jit import _KernelCache
from loopnest.kernels.simd_tiles import VECTOR_BYTES
from loopnest.ops import c as ckernels

SETS = ("base", "avx2", "avx512")
SIDES = st.sampled_from([at_page_end, at_page_start])
DTYPES = st.sampled_from([np.float32, np.float64])


@contextlib.contextmanager
def instruction_set(name):
    """Let C compute in one of SETS; False where the CPU lacks it."""
    try:
        yield _c.lib.ln_select_isa(name.encode()) == 0
    finally:
        _c.lib.ln_select_isa(b"best")


def backends():
    """Name and kernels of all that can compute here."""
    yield "numba", kernels
    for name in SETS:
        with instruction_set(name) as available:
            if available:
                yield name, ckernels


class Arrays:
    """Maker of guarded arrays for one drawn problem."""

    def __init__(self, dtype, side, seed):
        self.dtype, self.side, self.rng = np.dtype(dtype), side, np.random.default_rng(seed)

    def normal(self, *shape):
        array = self.side(shape, self.dtype)
        array[...] = self.rng.standard_normal(shape)
        return array

    def spoilt(self, *shape, dtype=None):
        """What is not written stays NaN (or far off)."""
        array = self.side(shape, dtype or self.dtype)
        array.fill(np.nan if dtype is None else 1 << 60)
        return array

    def nothing(self):
        return np.empty(0, self.dtype)


def lanes_of(module, itemsize):
    """Lanes by which work is measured: in C those of the widest set, so that plans hold in all."""
    return (64 if module is ckernels else VECTOR_BYTES) // itemsize


def run(kernel, tasks, cut, *arguments):
    """All tasks, in two calls, the later ones first. arguments: before and after the range."""
    before, after = arguments
    at = int(cut * tasks)
    for first, last in ((at, tasks), (0, at)):
        kernel(*before, first, last, *after)


@st.composite
def convolutions(draw, most_channels=4, steps=4, widest=40):
    """Shapes and options of a convolution that has an output."""
    n, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2, 3]))
    c, k = draw(st.integers(1, most_channels)), draw(st.integers(1, 40))
    kernel = [draw(st.integers(1, 5)) for _ in "hw"]
    stride = [draw(st.integers(1, steps)) for _ in "hw"]
    dilation = [draw(st.integers(1, min(steps, 3))) for _ in "hw"]
    top, left = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    out = draw(st.integers(1, 9)), draw(st.integers(1, widest))
    size = [
        # up to the last row and column that are read, less what padding after may hold
        max(1, (o - 1) * s + (f - 1) * d + 1 - before - draw(st.integers(0, 2)))
        for o, s, f, d, before in zip(out, stride, kernel, dilation, (top, left), strict=True)
    ]
    x, weight, y = (n, groups * c, *size), (groups * k, c, *kernel), (n, groups * k, *out)
    return x, weight, y, (*stride, top, left, *dilation), groups


def plain(x, weight, bias, options, groups, shape):
    """conv2d by the plain loops, themselves tested in test_convolution.py."""
    y = np.empty(shape, x.dtype)
    rows = shape[0] * shape[1] * shape[2]
    ckernels.convolution.conv2d(x, weight, bias, *options, groups, 0, rows, y)
    return y


def lines_size(weight, options, flat, block_h, block_w):
    """Numbers of the padded copy, for each channel."""
    (_, _, r, s), (stride_h, stride_w, _, _, dilation_h, dilation_w) = weight.shape, options
    variants, phases, more_h, more_w = convolution_plan.lines(
        s, r, stride_h, stride_w, dilation_h, dilation_w, flat
    )
    return variants * phases * (block_h + more_h) * (block_w + more_w)


@settings(max_examples=60, deadline=None)
@given(
    convolutions(), st.sampled_from([PIXELS, CHANNELS]), st.booleans(), st.booleans(),
    st.floats(0, 1), DTYPES, SIDES, st.data(),
)  # fmt: skip
def test_blocks(problem, method, with_bias, with_packed, cut, dtype, side, data):
    x_shape, weight_shape, y_shape, options, groups = problem
    flat = data.draw(st.integers(0, 1))
    block_h = data.draw(st.integers(1, y_shape[2]))
    whole = flat or block_h > 1
    block_w = y_shape[3] if whole else data.draw(st.integers(1, y_shape[3]))
    arrays = Arrays(dtype, side, 1)
    x, weight = arrays.normal(*x_shape), arrays.normal(*weight_shape)
    bias = arrays.normal(len(weight)) if with_bias else arrays.nothing()
    expected = plain(x, weight, bias, options, groups, y_shape)
    more, rectify, expected = finished(arrays, expected, data)
    tiled_everywhere(
        arrays, method, (x, weight, bias, options, groups, y_shape), (flat, block_h, block_w),
        with_packed, more, rectify, cut, expected, data.draw(st.booleans()),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 20), st.integers(1, 40),
    st.integers(1, 200), st.booleans(), st.booleans(), st.floats(0, 1), DTYPES, SIDES, st.data(),
)  # fmt: skip
def test_pixels_of_planes_are_read_in_place(
    n, groups, c, k, pixels, with_bias, with_packed, cut, dtype, side, data
):
    """A 1x1 of whole planes: no byte beyond x is read, up to its very last number."""
    x_shape, y_shape = (n, groups * c, 1, pixels), (n, groups * k, 1, pixels)
    block_w, options = data.draw(st.integers(1, pixels)), (1, 1, 0, 0, 1, 1)
    arrays = Arrays(dtype, side, 6)
    x, weight = arrays.normal(*x_shape), arrays.normal(groups * k, c, 1, 1)
    bias = arrays.normal(len(weight)) if with_bias else arrays.nothing()
    expected = plain(x, weight, bias, options, groups, y_shape)
    more, rectify, expected = finished(arrays, expected, data)
    tiled_everywhere(
        arrays, PIXELS, (x, weight, bias, options, groups, y_shape), (0, 1, block_w), with_packed,
        more, rectify, cut, expected, data.draw(st.booleans()),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 3), st.sampled_from([1, 7, 63, 64, 65, 130]),
    st.sampled_from([1, 3, 8, 63, 64, 65, 77]), st.integers(1, 230), st.booleans(), st.floats(0, 1),
    DTYPES, SIDES, st.data(),
)  # fmt: skip
def test_pointwise(n, groups, c, k, pixels, with_bias, cut, dtype, side, data):
    """Tails of strips, of blocks of filters and of slices of channels; planes that are vectors' and not."""
    pixels = data.draw(st.sampled_from([pixels, pixels // 16 * 16 + 16]))
    y_shape, options = (n, groups * k, 1, pixels), (1, 1, 0, 0, 1, 1)
    arrays = Arrays(dtype, side, 7)
    x, weight = arrays.normal(n, groups * c, 1, pixels), arrays.normal(groups * k, c, 1, 1)
    bias = arrays.normal(len(weight)) if with_bias else arrays.nothing()
    more, rectify, expected = finished(
        arrays, plain(x, weight, bias, options, groups, y_shape), data
    )
    no_taps = arrays.spoilt(0, dtype=np.int64)
    plan, in_place = convolution_plan, data.draw(st.booleans())
    for name, module in backends():
        # C's plans hold in each instruction set, the widest decides
        lanes = 64 // x.itemsize if module is ckernels else lanes_of(module, x.itemsize)
        strip = plan.pointwise_pixels(c, k, lanes)
        work = (plan.POINTWISE_FILTERS + plan.POINTWISE_CHANNELS) * plan.POINTWISE_VECTORS * lanes
        work = arrays.spoilt(work + 8 * (plan.POINTWISE_CHANNELS + 1))
        y = arrays.spoilt(*y_shape)
        addend = more
        if more.size and in_place:
            y[...] = more
            addend = y
        tasks = n * groups * ceil_div(pixels, strip) * ceil_div(k, plan.POINTWISE_FILTERS)
        before = x, weight, arrays.nothing(), bias, *(1, 1, 0, 0, 1, 1), groups, POINTWISE, 0, 0, 0
        run(
            module.convolution_driver.conv2d_tasks,
            tasks,
            cut,
            before,
            (addend.reshape(-1), rectify, work, no_taps, y),
        )
        assert_same_bits(y, expected, name)


def finished(arrays, y, data):
    """What tiles may add (it may be where they write) and whether they rectify, and y after that."""
    more, rectify = arrays.nothing(), data.draw(st.booleans())
    if data.draw(st.booleans()):
        more = arrays.normal(*y.shape)
        y = y + more
    return more, rectify, np.where(y <= 0, 0, y) if rectify else y


def tiled_everywhere(
    arrays, method, problem, blocks, with_packed, more, rectify, cut, expected, in_place
):  # fmt: skip
    """The tiled kernel of each backend and instruction set gives the expected bits."""
    x, weight, bias, options, groups, y_shape = problem
    flat, block_h, block_w = blocks
    k, terms = len(weight) // groups, weight[0].size
    for name, module in backends():
        tiled, lanes = module.convolution_tiled, lanes_of(module, x.itemsize)
        channels = 8 if module is ckernels else convolution_plan.CHANNEL_ROWS
        filters = 2 * lanes if method == PIXELS else channels
        deep = ceil_div(k, filters)
        places = ceil_div(y_shape[2], block_h) * ceil_div(y_shape[3], block_w)
        packed = arrays.nothing()
        if with_packed:
            packed = arrays.spoilt(tiled.packed_size(len(weight), groups, terms, x.itemsize))
            tiled.pack_conv2d(weight, groups, packed)
        copy = weight.shape[1] * lines_size(weight, options, flat, block_h, block_w)
        sums = convolution_plan.STRIP_TILES * 28 * 64 // x.itemsize
        work = arrays.spoilt(copy + 12 * lanes + (deep * terms + 2) * filters + sums)
        taps = arrays.spoilt(2 * terms + convolution_plan.TAPS_AHEAD, dtype=np.int64)
        y = arrays.spoilt(*y_shape)
        addend = more
        if more.size and in_place:  # what is added lies where the sum goes
            y[...] = more
            addend = y
        before = x, weight, packed, bias, *options, groups, method, flat, block_h, block_w
        tasks, after = len(x) * groups * places * deep, (addend.reshape(-1), rectify, work, taps, y)
        run(module.convolution_driver.conv2d_tasks, tasks, cut, before, after)
        assert_same_bits(y, expected, name)


@settings(max_examples=40, deadline=None)
@given(
    convolutions(most_channels=1, steps=1, widest=120), st.sampled_from([3, 5, 7]),
    st.booleans(), st.floats(0, 1), DTYPES, SIDES, st.data(),
)  # fmt: skip
def test_stacked_rows(problem, size, with_bias, cut, dtype, side, data):
    x_shape, weight_shape, y_shape, options, groups = problem
    weight_shape = (*weight_shape[:2], size, size)
    y_shape = (*y_shape[:2], data.draw(st.integers(1, 30)), y_shape[3])
    block_h = data.draw(st.integers(1, y_shape[2]))
    arrays = Arrays(dtype, side, 2)
    x, weight = arrays.normal(*x_shape), arrays.normal(*weight_shape)
    bias = arrays.normal(len(weight)) if with_bias else arrays.nothing()
    more, rectify, expected = finished(
        arrays, plain(x, weight, bias, options, groups, y_shape), data
    )
    no_taps = arrays.spoilt(0, dtype=np.int64)
    rows = ceil_div(block_h, 8) * 8 + size - 1
    for name, module in backends():
        work = arrays.spoilt(rows * (y_shape[3] + size - 1) + 3 * lanes_of(module, x.itemsize))
        y = arrays.spoilt(*y_shape)
        steps = 1, 1, *options[2:4], 1, 1
        before = x, weight, arrays.nothing(), bias, *steps, groups, STACKED, 0, block_h, y_shape[3]
        tasks = len(x) * len(weight) * ceil_div(y_shape[2], block_h)
        after = more.reshape(-1), rectify, work, no_taps, y
        run(module.convolution_driver.conv2d_tasks, tasks, cut, before, after)
        assert_same_bits(y, expected, name)


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.floats(0, 1), DTYPES, SIDES, st.data())
def test_gradient_by_the_weight(problem, cut, dtype, side, data):
    x_shape, weight_shape, y_shape, options, groups = problem
    flat, block_h = data.draw(st.integers(0, 1)), data.draw(st.integers(1, y_shape[2]))
    block_c = data.draw(st.integers(1, weight_shape[1]))
    arrays = Arrays(dtype, side, 3)
    x, dy = arrays.normal(*x_shape), arrays.normal(*y_shape)
    expected = np.empty(weight_shape, dtype)
    ckernels.convolution.conv2d_backward_weight(x, dy, *options, groups, 0, len(expected), expected)
    terms = block_c * weight_shape[2] * weight_shape[3]
    for name, module in backends():
        lanes = lanes_of(module, x.itemsize)
        copy = block_c * lines_size(expected, options, flat, block_h, y_shape[3])
        packed = block_h * y_shape[3] * 2 * lanes
        work = arrays.spoilt(copy + packed + (terms + 8) * 2 * lanes + 4 * lanes)
        taps = arrays.spoilt(terms + 8, dtype=np.int64)
        dweight = arrays.spoilt(*weight_shape)
        deep = ceil_div(len(dweight) // groups, 2 * lanes)
        before = x, dy, *options, groups, flat, block_h, block_c
        run(
            module.convolution_weight.backward_weight,
            groups * deep * ceil_div(weight_shape[1], block_c),
            cut,
            before,
            (work, taps, dweight),
        )
        assert_same_bits(dweight, expected, name)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 150),
    st.booleans(), st.booleans(), st.floats(0, 1), DTYPES, SIDES,
)  # fmt: skip
def test_dense(samples, inputs, outputs, with_bias, with_packed, cut, dtype, side):
    arrays = Arrays(dtype, side, 4)
    x, weight = arrays.normal(samples, inputs), arrays.normal(inputs, outputs)
    bias = arrays.normal(outputs) if with_bias else arrays.nothing()
    expected = np.empty((samples, outputs), dtype)
    ckernels.dense.linear(x, weight, bias, 0, samples, expected)
    for name, module in backends():
        tiled = module.dense_tiled
        packed = arrays.nothing()
        if with_packed:
            packed = arrays.spoilt(tiled.packed_size(inputs, outputs, x.itemsize))
            tiled.pack_linear(weight, packed)
        tasks, size = tiled.prepare(tiled.FORWARD, samples, inputs, outputs, x.itemsize)
        if not tasks:
            continue
        work = arrays.spoilt(size)
        y = arrays.spoilt(samples, outputs)
        before = x, weight, bias, packed, tiled.FORWARD
        run(tiled.linear_tiled, tasks, cut, before, (work, y))
        assert_same_bits(y, expected, name)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 40), st.integers(1, 150), st.floats(0, 1), DTYPES, SIDES)
def test_dense_gradients(samples, inputs, outputs, cut, dtype, side):
    arrays = Arrays(dtype, side, 6)
    x, weight = arrays.normal(samples, inputs), arrays.normal(inputs, outputs)
    dy, none, sizes = arrays.normal(samples, outputs), arrays.nothing(), (samples, inputs, outputs)
    expected_dx, expected_dweight = np.empty_like(x), np.empty_like(weight)
    ckernels.dense.linear_backward_input(dy, weight, 0, samples, expected_dx)
    ckernels.dense.linear_backward_weight(x, dy, 0, inputs, expected_dweight)
    for name, module in backends():
        tiled = module.dense_tiled
        for form, a, b, expected in (
            (tiled.BACKWARD_INPUT, dy, weight, expected_dx),
            (tiled.BACKWARD_WEIGHT, x, dy, expected_dweight),
        ):
            tasks, size = tiled.prepare(form, *sizes, x.itemsize)
            if not tasks:
                continue
            work = arrays.spoilt(size)
            out = arrays.spoilt(*expected.shape)
            run(tiled.linear_tiled, tasks, cut, (a, b, none, none, form), (work, out))
            assert_same_bits(out, expected, f"{name} {form}")


def test_dense_products_that_go_by_in_slices(backend, dtype, rng):
    """More terms than a slice has, more blocks than keep their sums; the plan's own work space."""
    samples, inputs, outputs = 61, 6 * 129, 139
    x, weight = rng.standard_normal((samples, inputs)), rng.standard_normal((inputs, outputs))
    dy = rng.standard_normal((samples, outputs))
    arrays = [a.astype(dtype) for a in (dy, x, weight)]
    dx, dweight, _ = ln.linear_backward(*arrays)
    expected_dx, expected_dweight = np.empty_like(dx), np.empty_like(dweight)
    ckernels.dense.linear_backward_input(arrays[0], arrays[2], 0, samples, expected_dx)
    ckernels.dense.linear_backward_weight(arrays[1], arrays[0], 0, inputs, expected_dweight)
    assert_same_bits(dx, expected_dx)
    assert_same_bits(dweight, expected_dweight)
    turned = np.ascontiguousarray(arrays[1].T)
    y, expected = ln.linear(turned, arrays[0]), np.empty((inputs, outputs), dtype)
    ckernels.dense.linear(turned, arrays[0], np.empty(0, dtype), 0, inputs, expected)
    assert_same_bits(y, expected)


# One problem for each row of the table in kernels/convolution_plan.py, and what serves it.
SERVED = [
    (PLAIN, (1, 1, 4, 4), (1, 1, 3, 3), 1, 1),
    (PIXELS, (2, 30, 9, 11), (33, 30, 3, 3), 1, 1),
    (PIXELS, (1, 36, 30, 31), (40, 18, 3, 3), 2, 2),
    (CHANNELS, (1, 3, 20, 45), (20, 3, 3, 3), 1, 1),
    (CHANNELS, (1, 70, 1, 200), (20, 70, 1, 1), 1, 1),
    (POINTWISE, (2, 70, 10, 20), (20, 35, 1, 1), 2, 1),
    (CHANNELS, (2, 4, 20, 21), (6, 2, 5, 4), 2, 3),
    (STACKED, (1, 1, 40, 100), (1, 1, 5, 5), 1, 1),
    (STACKED, (2, 6, 21, 30), (12, 1, 3, 3), 6, 1),
]


@pytest.mark.parametrize(("method", "x_shape", "weight_shape", "groups", "stride"), SERVED)
def test_plans_hold_in_every_instruction_set(method, x_shape, weight_shape, groups, stride, dtype):
    """A plan, and a packed weight, made in one set give the right bits in all others."""
    (n, c, h, w), (k, _, r, s) = x_shape, weight_shape
    top, left = (0, 0) if method == POINTWISE else (1, 2)
    options = (stride, stride, top, left, 1, 1)
    oh, ow = (h + 2 * top - r) // stride + 1, (w + left + min(left, 1) - s) // stride + 1
    arrays = Arrays(dtype, at_page_end, 5)
    x, weight, bias = arrays.normal(*x_shape), arrays.normal(*weight_shape), arrays.normal(k)
    expected = plain(x, weight, bias, options, groups, (n, k, oh, ow))
    tiled, driver = ckernels.convolution_tiled, ckernels.convolution_driver
    sizes = n, c, h, w, k, groups, r, s, oh, ow
    sizes = (*sizes, *options[:2], *options[4:], x.itemsize)
    by_numba = kernels.convolution_driver.prepare(*sizes)
    assert by_numba[0] == method
    for planner, worker in itertools.product(SETS, SETS):
        with instruction_set(planner) as available:
            if not available:
                continue
            found, flat, block_h, block_w, tasks, work_size, taps_size = driver.prepare(*sizes)
            packed = arrays.spoilt(tiled.packed_size(k, groups, weight[0].size, x.itemsize))
            tiled.pack_conv2d(weight, groups, packed)
        if planner == "base" and found == PLAIN:
            continue  # without hardware that fuses the plain loops are as good
        assert found == method
        if planner == "avx512" and VECTOR_BYTES == 64:
            assert (found, flat, block_h, block_w, tasks) == by_numba[:5]
        with instruction_set(worker) as available:
            if not available or method == PLAIN:
                continue
            work, taps = arrays.spoilt(work_size), arrays.spoilt(taps_size, dtype=np.int64)
            y, blocks = arrays.spoilt(n, k, oh, ow), (flat, block_h, block_w)
            ckernels.convolution_driver.conv2d_tasks(
                x, weight, packed, bias, *options, groups, method, *blocks, 0, tasks,
                arrays.nothing(), False, work, taps, y,
            )  # fmt: skip
        assert_same_bits(y, expected, f"{planner} {worker}")


def test_compiled_kernels_have_names_of_their_own():
    """Machine code from Numba's cache is found by name: two of one name could be swapped."""
    found = {}
    for module in pkgutil.iter_modules(kernels.__path__):
        for value in vars(importlib.import_module(f"loopnest.kernels.{module.name}")).values():
            if isinstance(getattr(value, "_cache", None), _KernelCache):
                name = value.py_func.__module__, value.py_func.__qualname__
                assert found.setdefault(name, value) is value, name


def test_parts_of_kernels_raise_when_python_calls_them():
    with pytest.raises((KeyError, TypeError)):
        kernels.convolution_tiled.place_of(1, 2, 3, 4, 5)
