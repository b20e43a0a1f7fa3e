"""Activations: accuracy, edge values, outputs, bad input."""

import math

import double
import mpmath
import numpy as np
import pytest
import scan
from helpers import assert_same_bits, njit_call

import loopnest as ln
from loopnest.runtime import backend as backends

FUNCTIONS = {
    "exp": (ln.exp, {}),
    "sigmoid": (ln.sigmoid, {}),
    "tanh": (ln.tanh, {}),
    "silu": (ln.silu, {}),
    "gelu": (ln.gelu, {}),
    "gelu_tanh": (ln.gelu, {"approximate": "tanh"}),
    "gelu_erf": (ln.gelu, {"approximate": "none"}),
}


def _sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


def _tanh_argument(x):
    return 2 * mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)


EXACT = {
    "exp": mpmath.exp,
    "sigmoid": _sigmoid,
    "tanh": mpmath.tanh,
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * _sigmoid(mpmath.mpf("1.702") * x),
    "gelu_tanh": lambda x: x * _sigmoid(_tanh_argument(x)),
    "gelu_erf": lambda x: x * mpmath.ncdf(x),
}
SLOPES = {
    f"{name}_backward": lambda x, f=f: mpmath.diff(f, x, h=mpmath.mpf(10) ** -30)
    for name, f in EXACT.items()
}
SLOPES["sigmoid_backward"] = lambda x: 1 / (2 + 2 * mpmath.cosh(x))
SLOPES["tanh_backward"] = lambda x: mpmath.sech(x) ** 2


def _kernels():
    backend = backends.kernels
    _ = backend.activation  # decides which, if nothing did yet
    return backends.kernels


@pytest.mark.parametrize("name", scan.FUNCTIONS)
def test_float32_scan(name, backend):
    """Every 4096th of all float32 values, and all around the borders; `make exhaustive` does all."""
    function = scan.FUNCTIONS[name]
    for x in (scan.inputs(1234, scan.EVERY, 4096), scan.border_inputs()):
        errors = scan.errors_of(function.run(_kernels(), x), scan.exact_values(function, x), x)
        assert errors.worst <= function.limit, f"{errors.worst} ulp at {errors.at!r}"


@pytest.mark.parametrize("name", [*EXACT, *SLOPES])
def test_reference_against_mpmath(name, rng):
    """The scan's exact values are good to a thousandth of a float32 ulp; a tenth at a crossing."""
    x = np.concatenate([rng.uniform(-12, 12, 60), rng.uniform(-104, 88, 30)])
    x = np.append(x, [-1.2784645, -0.7524614, -0.7517915, -0.7511542]).astype(np.float32)
    exact = {**EXACT, **SLOPES}[name]
    values = scan.FUNCTIONS[name].exact(x.astype(np.float64))
    with mpmath.workdps(80):
        for at, value in zip(x, values, strict=True):
            expected = exact(mpmath.mpf(float(at)))
            absolute = 1e-16 if abs(expected) < 1e-6 and abs(at + 1) < 0.5 else 2.0**-160
            assert abs(value - expected) <= 6e-11 * abs(expected) + absolute, at


needs_long_double = pytest.mark.skipif(
    not double.AVAILABLE, reason="long double is no wider than float64 here"
)


@needs_long_double
@pytest.mark.parametrize("name", double.FUNCTIONS)
def test_float64_scan(name, backend):
    """50,000 random inputs; `make exhaustive` takes 10^7."""
    errors, _ = double.scan(name, 50_000, 7, _kernels())
    assert errors.worst <= double.FUNCTIONS[name][1], f"{errors.worst} ulp at {errors.at!r}"


@needs_long_double
@pytest.mark.parametrize("name", double.FUNCTIONS)
def test_float64_scan_knows_the_exact_values(name, rng):
    """Those of mpmath, to a hundredth of a float64 ulp."""
    x = double.inputs(rng, 60)
    x = x[(np.abs(x) < 700) & (np.abs(x) > 1e-200)]
    x = x[np.abs(x - (double.FUNCTIONS[name][2] or 1e4)) > double.NEAR_ZERO]
    exact = {**EXACT, **SLOPES}[name]
    with mpmath.workdps(250):
        for at, value in zip(x, double.exact(name, x), strict=True):
            expected = exact(mpmath.mpf(float(at)))
            high = float(value)
            known = mpmath.mpf(high) + mpmath.mpf(float(value - np.longdouble(high)))
            spacing = max(math.ulp(float(expected)), 5e-324)
            assert abs(known - expected) <= mpmath.mpf(spacing) / 100, at


@pytest.mark.parametrize("name", [*EXACT, *SLOPES])
def test_float64_against_mpmath(name, backend, rng):
    function = scan.FUNCTIONS[name]
    x = np.concatenate(
        [
            rng.uniform(-40, 40, 150),
            rng.uniform(-740, 709, 50),
            rng.standard_normal(150),
            10.0 ** rng.uniform(-300, 2, 50) * rng.choice([-1, 1], 50),
        ]
    )
    y = function.run(_kernels(), x)
    exact = {**EXACT, **SLOPES}[name]
    with mpmath.workdps(90):
        for value, result in zip(x, y, strict=True):
            expected = exact(mpmath.mpf(value))
            spacing = max(math.ulp(float(expected)), 5e-324)
            assert abs(mpmath.mpf(result) - expected) <= function.limit * spacing, value


@pytest.mark.parametrize("name", FUNCTIONS)
def test_limits(name, backend, dtype):
    function, options = FUNCTIONS[name]
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], dtype)
    y = function(x, **options)
    expected = {
        "exp": [np.inf, 0.0, np.nan, 1.0, 1.0],
        "sigmoid": [1.0, 0.0, np.nan, 0.5, 0.5],
        "tanh": [1.0, -1.0, np.nan, 0.0, -0.0],
    }.get(name, [np.inf, -0.0, np.nan, 0.0, -0.0])
    assert_same_bits(y, np.array(expected, dtype))


def test_sigmoid_of_zero_is_exactly_half(backend, dtype):
    assert ln.sigmoid(dtype.type(0)) == 0.5


def test_overflow_and_underflow(backend):
    x = np.array([88.72283, 88.7229, -87.4, -103.97, -103.98], np.float32)
    y = ln.exp(x)
    assert np.isfinite(y[0]) and y[1] == np.inf
    assert y[2] > 0 and y[3] == np.float32(1e-45) and y[4] == 0


def test_worked_values(backend):
    # WORKED_PROBLEMS 1: slopes and values of x sigmoid(1.702 x) to the printed digits.
    x = np.array([0, -0.05, -0.09575, -0.5, -0.62078, -3, -2.99755])
    slopes = [0.5, 0.4575, 0.418875, 0.120778, 0.055719, -0.02455, -0.02462]
    for slope, printed, digits in zip(
        ln.gelu_derivative(x), slopes, (1, 4, 3, 6, 4, 5, 5), strict=True
    ):
        assert round(float(slope), digits) == pytest.approx(printed, abs=1.01 * 10**-digits)
    assert ln.gelu(-0.5) == pytest.approx(-0.14961, abs=5e-6)
    assert ln.gelu(-3.0) == pytest.approx(-0.01807, abs=5e-6)
    assert ln.gelu(-0.7511542554) == pytest.approx(-0.1636101896, abs=5e-11)


DERIVATIVES: dict[str, dict] = {
    **{name: {} for name in ("exp", "sigmoid", "tanh", "silu", "gelu", "relu")},
    "gelu-tanh": {"approximate": "tanh"},
    "gelu-none": {"approximate": "none"},
    "leaky_relu": {"negative_slope": 0.2},
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_backward_is_the_slope_by_finite_differences(name, backend, rng):
    op, options = name.split("-")[0], DERIVATIVES[name]
    x = rng.uniform(-6, 6, 200)
    x = x[np.abs(x) > 0.01]
    h = 1e-6
    forward = getattr(ln, op)
    slope = (forward(x + h, **options) - forward(x - h, **options)) / (2 * h)
    dy = rng.standard_normal(x.size)
    dx = getattr(ln, op + "_backward")(dy, x, **options)
    scale = 1 + np.abs(slope)
    assert np.max(np.abs(dx - dy * slope) / scale) < 1e-8


@pytest.mark.parametrize("form", ["sigmoid", "tanh", "none"])
def test_gelu_backward_is_dy_times_derivative(form, backend, dtype, rng):
    x, dy = (rng.standard_normal(100).astype(dtype) for _ in range(2))
    slope = ln.gelu_derivative(x, approximate=form)
    assert_same_bits(ln.gelu_backward(dy, x, approximate=form), dy * slope)
    ends = ln.gelu_derivative(np.array([np.inf, -np.inf, 0.0], dtype), approximate=form)
    assert ends.tolist() == [1.0, 0.0, 0.5]


def test_relu_masks_infinite_gradients(backend, dtype):
    x = np.array([-1, 0, 1, np.nan], dtype)
    dy = np.array([np.inf, np.nan, np.inf, 2], dtype)
    assert ln.relu_backward(dy, x).tolist() == [0, 0, np.inf, 2]


def test_numbers_give_numbers(backend):
    assert type(ln.sigmoid(0.0)) is float
    assert type(ln.relu(-3)) is float and ln.relu(-3) == 0
    assert type(ln.exp(np.float32(1))) is np.float32
    assert type(ln.exp(np.array(1.0))) is np.float64
    assert ln.gelu_backward(1.0, 0.0) == 0.5
    assert njit_call("sigmoid", (0.0,), {}) == 0.5
    assert njit_call("gelu_backward", (1.0, 0.0), {}) == 0.5
    assert njit_call("relu", (-3,), {}) == 0


def test_integers_and_booleans_become_float64(backend):
    for x in ([0, 1, 2], np.arange(3, dtype=np.int8), np.array([False, True])):
        y = ln.sigmoid(x)
        assert y.dtype == np.float64
        assert_same_bits(y, ln.sigmoid(np.asarray(x, np.float64)))


def test_big_endian_input(backend):
    x = np.linspace(-2, 2, 9).astype(">f4")
    assert_same_bits(ln.tanh(x), ln.tanh(x.astype(np.float32)))


def test_out(backend, dtype, rng):
    x = rng.standard_normal((3, 5)).astype(dtype)
    expected = ln.gelu(x)
    out = np.empty_like(x)
    assert ln.gelu(x, out=out) is out
    assert_same_bits(out, expected)
    copy = x.copy()
    assert ln.gelu(copy, out=copy) is copy
    assert_same_bits(copy, expected)
    dy = rng.standard_normal((3, 5)).astype(dtype)
    expected = ln.silu_backward(dy, x)
    assert ln.silu_backward(dy, x, out=dy) is dy
    assert_same_bits(dy, expected)


def test_zero_dimensional_out(backend):
    out = np.empty(())
    assert ln.sigmoid(0.0, out=out) is out
    assert out == 0.5


def test_no_spurious_warnings(backend, dtype):
    info = np.finfo(dtype)
    x = np.array([0, -0.0, info.tiny, -info.tiny, 1e4, -1e4, info.max, info.min, np.inf, -np.inf])
    x = np.append(x, [np.nan, info.smallest_subnormal]).astype(dtype)
    with np.errstate(all="raise"):
        for function, options in FUNCTIONS.values():
            function(x, **options)
        for name in DERIVATIVES:
            op = name.split("-")[0]
            getattr(ln, op + "_backward")(np.ones_like(x), x, **DERIVATIVES[name])


def test_where_is_refused_with_advice():
    mask = np.array([True, False])
    for function in (ln.exp, ln.sigmoid, ln.tanh, ln.relu, ln.leaky_relu, ln.silu, ln.gelu):
        with pytest.raises(TypeError, match=r"where is not supported.*np\.where"):
            function(np.zeros(2), where=mask)


def test_through_dask(backend, dtype, rng):
    da = pytest.importorskip("dask.array")
    x = rng.standard_normal((6, 9)).astype(dtype)
    lazy = da.from_array(x, chunks=(4, 5))
    assert_same_bits(lazy.map_blocks(ln.gelu, dtype=dtype).compute(), ln.gelu(x))
    rows = da.from_array(x, chunks=(4, 9)).map_blocks(ln.softmax, dtype=dtype)
    assert_same_bits(rows.compute(), ln.softmax(x))


def test_through_xarray(backend, dtype, rng):
    xr = pytest.importorskip("xarray")
    x = xr.DataArray(rng.standard_normal((3, 4)).astype(dtype), dims=("row", "class"))
    y = xr.apply_ufunc(ln.silu, x)
    assert y.dims == x.dims
    assert_same_bits(y.values, ln.silu(x.values))
    p = xr.apply_ufunc(ln.softmax, x, input_core_dims=[["row"]], output_core_dims=[["row"]])
    assert_same_bits(p.values, ln.softmax(x.values.T.copy()))


BAD = [
    (TypeError, "float16", lambda: ln.exp(np.zeros(3, np.float16))),
    (TypeError, "astype", lambda: ln.exp(np.zeros(3, np.float16))),
    (TypeError, "complex128", lambda: ln.exp(np.zeros(3, complex))),
    (TypeError, "dtype object", lambda: ln.exp(np.array([None]))),
    (TypeError, "dtype <U1", lambda: ln.exp("a")),
    (TypeError, "sigmoid: x", lambda: ln.sigmoid([[1.0], [1.0, 2.0]])),
    (TypeError, "out is a list", lambda: ln.exp(np.zeros(3), out=[0.0] * 3)),
    (ValueError, r"out has shape \(4,\)", lambda: ln.exp(np.zeros(3), out=np.zeros(4))),
    (TypeError, "out has dtype float32", lambda: ln.exp(np.zeros(3), np.zeros(3, np.float32))),
    (ValueError, "C-contiguous", lambda: ln.exp(np.zeros(3), out=np.zeros(6)[::2])),
    (ValueError, "'erf'", lambda: ln.gelu(1.0, approximate="erf")),
    (TypeError, "approximate is 3", lambda: ln.gelu(1.0, approximate=3)),
    (ValueError, "negative_slope is nan", lambda: ln.leaky_relu(1.0, math.nan)),
    (TypeError, "negative_slope", lambda: ln.leaky_relu(1.0, "0.1")),
    (ValueError, r"dy has shape \(2,\)", lambda: ln.exp_backward(np.zeros(2), np.zeros(3))),
    (TypeError, "different dtypes", lambda: ln.exp_backward(np.zeros(2, np.float32), np.zeros(2))),
]


@pytest.mark.parametrize(("error", "message", "call"), BAD)
def test_bad_input(error, message, call, backend):
    with pytest.raises(error, match=message):
        call()


def test_out_that_is_read_only_or_overlaps_is_left_alone(backend):
    buffer = np.arange(10.0)
    for out in (buffer[1:9], buffer[2:10]):
        with pytest.raises(ValueError, match="overlaps"):
            ln.exp(buffer[:8], out=out)
    with pytest.raises(ValueError, match="overlaps"):
        ln.exp(buffer[::-1], out=buffer)
    assert buffer.tolist() == list(range(10))
    frozen = np.zeros(3)
    frozen.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        ln.exp(np.zeros(3), out=frozen)
