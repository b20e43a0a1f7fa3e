"""Register tiles: the bits of the plain loops, in every form, block size and instruction set.

The kernels are called beneath the public functions, with blocks far smaller than a plan
would choose, so that all borders between blocks and tiles arise in small arrays.
"""

import contextlib

import numpy as np
import pytest
from guarded import at_page_end, at_page_start
from helpers import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

import loopnest as ln
from loopnest import _c, ckernels, kernels
from loopnest.kernels import convolution_plan

PLAIN, PIXELS, CHANNELS = convolution_plan.PLAIN, convolution_plan.PIXELS, convolution_plan.CHANNELS
SETS = ("base", "avx2", "avx512")
BACKENDS = [("numba", kernels), *[(name, ckernels) for name in SETS]]


@contextlib.contextmanager
def instruction_set(name):
    """Let C compute in one of SETS; skipped where the CPU lacks it."""
    if name in SETS and _c.lib.ln_select_isa(name.encode()) != 0:
        pytest.skip(f"this CPU has no {name}")
    try:
        yield
    finally:
        _c.lib.ln_select_isa(b"best")


def available():
    """Names and kernels of all backends that this CPU can run."""
    for name, module in BACKENDS:
        if name == "numba" or _c.lib.ln_select_isa(name.encode()) == 0:
            with instruction_set(name):
                yield name, module


def guarded(shape, dtype):
    """Array of NaNs whose neighbours in memory cannot be touched."""
    array = at_page_end(shape, dtype)
    array.fill(np.nan)
    return array


def plain_conv2d(x, weight, bias, options, groups, y_shape):
    y = np.empty(y_shape, x.dtype)
    rows = y_shape[0] * y_shape[1] * y_shape[2]
    ckernels.convolution.conv2d(x, weight, bias, *options, groups, 0, rows, y)
    return y


def work_sizes(module, method, flat, block_h, block_w, x, weight, options, groups):
    """Numbers and tasks as `prepare` would tell them for a plan that it did not choose."""
    lanes = 64 // x.itemsize  # the widest, so that it serves all
    (_, c, r, s), stride_h, stride_w, _, _, dilation_h, dilation_w = weight.shape, *options
    variants, phases, more_h, more_w = convolution_plan.lines(
        s, r, stride_h, stride_w, dilation_h, dilation_w, flat
    )
    copy = c * variants * phases * (block_h + more_h) * (block_w + more_w)
    return copy + 8 * lanes + (c * r * s + 1) * 2 * lanes


def tasks_of(module, method, block_h, block_w, x, weight, groups, y):
    lanes = (64 if module is ckernels else convolution_plan.VECTOR_BYTES) // x.itemsize
    channels = 8 if module is ckernels else convolution_plan.CHANNEL_ROWS
    filters = 2 * lanes if method == PIXELS else channels
    ceil_div = convolution_plan.ceil_div
    blocks = len(x) * groups * ceil_div(y.shape[2], block_h) * ceil_div(y.shape[3], block_w)
    return blocks * ceil_div(len(weight) // groups, filters)


@st.composite
def convolutions(draw):
    """Sizes, options, and a plan with small blocks."""
    n, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2, 3]))
    c, k = draw(st.integers(1, 4)), draw(st.integers(1, 40))
    kernel = [draw(st.integers(1, 5)) for _ in "hw"]
    stride = [draw(st.integers(1, 4)) for _ in "hw"]
    dilation = [draw(st.integers(1, 3)) for _ in "hw"]
    top, left = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    out = draw(st.integers(1, 9)), draw(st.integers(1, 40))
    size = [
        # the last row and column that are read, less what padding below may hold
        max(1, (o - 1) * s + (f - 1) * d + 1 - before - draw(st.integers(0, 2)))
        for o, s, f, d, before in zip(out, stride, kernel, dilation, (top, left), strict=True)
    ]
    flat = draw(st.integers(0, 1))
    block_h = draw(st.integers(1, out[0]))
    block_w = out[1] if flat or block_h > 1 else draw(st.integers(1, out[1]))
    method = draw(st.sampled_from([PIXELS, CHANNELS]))
    return {
        "x": (n, groups * c, *size),
        "weight": (groups * k, c, *kernel),
        "y": (n, groups * k, *out),
        "options": (*stride, top, left, *dilation),
        "groups": groups,
        "plan": (method, flat, block_h, block_w),
        "bias": draw(st.booleans()),
        "packed": draw(st.booleans()),
        "dtype": draw(st.sampled_from([np.float32, np.float64])),
        "cut": draw(st.floats(0, 1)),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


@settings(max_examples=120, deadline=None)
@given(convolutions())
def test_conv2d_has_the_bits_of_the_plain_loops(p):
    rng, dtype, groups, options = np.random.default_rng(p["seed"]), p["dtype"], p["groups"], p["options"]
    x, weight = at_page_end(p["x"], dtype), at_page_end(p["weight"], dtype)
    x[...], weight[...] = rng.standard_normal(x.shape), rng.standard_normal(weight.shape)
    bias = rng.standard_normal(len(weight) if p["bias"] else 0).astype(dtype)
    expected = plain_conv2d(x, weight, bias, options, groups, p["y"])
    method, *blocks = p["plan"]
    for name, module in available():
        tiled = module.convolution_tiled
        packed = np.empty(0, dtype)
        if p["packed"]:
            size = tiled.packed_size(len(weight), groups, weight[0].size, x.itemsize)
            packed = at_page_end((size,), dtype)
            tiled.pack_conv2d(weight, groups, packed)
        y = guarded(p["y"], dtype)
        work = guarded(work_sizes(module, method, *blocks, x, weight, options, groups), dtype)
        taps = at_page_end((weight[0].size,), np.int64)
        kernel = tiled.conv2d_pixels if method == PIXELS else tiled.conv2d_channels
        tasks = tasks_of(module, method, *blocks[1:], x, weight, groups, y)
        cut = int(p["cut"] * tasks)
        for first, last in ((cut, tasks), (0, cut)):
            kernel(x, weight, bias, *options, groups, *blocks, first, last, packed, work, taps, y)
        assert_same_bits(y, expected, f"{name} {p}")
