"""One table of bad calls through every way in: Python on Numba, Python on C, and @njit.

All must refuse, with an error that names the op, before anything is written. From compiled code
what types tell is a TypingError, what only values tell a ValueError.
"""

from fractions import Fraction

import numba
import numpy as np
import pytest
from helpers import njit_call

import loopnest as ln

ones, zeros = np.ones, np.zeros
INDEX = np.array([0, 1])
IMAGE, FILTERS = ones((1, 2, 5, 5)), ones((4, 2, 3, 3))


def classes(*shape):
    return zeros(shape, np.int64)


def state(count):
    return [zeros(3) for _ in range(count)]


HUGE = np.array([2**64 - 100], np.uint64)  # -100 to whoever converts it: ignore_index

# (op, what is wrong, positional arguments, options)
BAD = [
    ("cross_entropy", "axes of the target", (ones((2, 3, 2, 4)), classes(2, 4, 2)), {}),
    ("cross_entropy", "one target for many rows", (ones((2, 3)), classes(1)), {}),
    ("cross_entropy", "a number for a batch", (ones((1, 3)), 1), {}),
    ("cross_entropy", "unsigned class", (ones((1, 3)), HUGE), {}),
    ("cross_entropy", "unsigned number", (ones(3), HUGE[0]), {}),
    ("cross_entropy", "class out of range", (ones((2, 3)), np.array([0, 3])), {}),
    ("cross_entropy", "shares of other shape", (ones((2, 3)), ones((3, 2))), {}),
    ("cross_entropy", "ignore_index", (ones((2, 3)), INDEX), {"ignore_index": 1.0}),
    ("cross_entropy", "ignore_index too large", (ones((2, 3)), INDEX), {"ignore_index": 2**62 + 1}),
    ("cross_entropy", "label_smoothing nan", (ones((2, 3)), INDEX), {"label_smoothing": np.nan}),
    ("cross_entropy", "label_smoothing", (ones((2, 3)), INDEX), {"label_smoothing": 1.5}),
    ("cross_entropy", "weight", (ones((2, 3)), INDEX), {"weight": ones(2)}),
    ("cross_entropy", "weight of two axes", (ones((2, 3)), INDEX), {"weight": ones((3, 1))}),
    ("cross_entropy", "no class", (ones((2, 0)), INDEX), {}),
    ("cross_entropy_backward", "dy", (ones((2, 3, 2)), classes(2, 2)),
     {"reduction": "none", "dy": ones((4, 1))}),
    ("cross_entropy_backward", "dy turned", (ones((2, 3, 4)), classes(2, 4)),
     {"reduction": "none", "dy": ones((4, 2))}),
    ("cross_entropy_backward", "dy with a mean", (ones((2, 3)), INDEX), {"dy": ones(2)}),
    ("softmax", "axis", (ones((2, 3)),), {"axis": 2}),
    ("softmax", "axis below", (ones((2, 3)),), {"axis": -3}),
    ("softmax", "axis no integer", (ones((2, 3)),), {"axis": 0.0}),
    ("linear", "bias of two axes", (ones((2, 3)), ones((3, 4)), ones((4, 1))), {}),
    ("linear", "bias too short", (ones((2, 3)), ones((3, 4)), ones(1)), {}),
    ("linear", "inputs", (ones((2, 2)), ones((3, 4))), {}),
    ("linear_backward", "dy", (ones((2, 3)), ones((2, 3)), ones((3, 4))), {}),
    ("conv2d", "bias of two axes", (IMAGE, FILTERS, ones((4, 1))), {}),
    ("conv2d", "groups", (IMAGE, FILTERS), {"groups": 3}),
    ("conv2d", "groups that overflow", (ones((1, 0, 4, 4)), ones((0, 4, 3, 3))), {"groups": 2**62}),
    ("conv2d", "groups beyond its limit", (ones((1, 0, 4, 4)), ones((0, 0, 3, 3))), {"groups": 2**31}),
    ("conv2d", "groups no integer", (IMAGE, FILTERS), {"groups": 1.0}),
    ("conv2d", "groups below 1", (IMAGE, FILTERS), {"groups": 0}),
    ("conv2d", "stride 0", (IMAGE, FILTERS), {"stride": 0}),
    ("conv2d", "stride no integer", (IMAGE, FILTERS), {"stride": 1.0}),
    ("conv2d", "stride of three", (IMAGE, FILTERS), {"stride": (1, 1, 1)}),
    ("conv2d", "stride too large", (IMAGE, FILTERS), {"stride": 2**31}),
    ("conv2d", "padding below 0", (IMAGE, FILTERS), {"padding": (-1, 0)}),
    ("conv2d", "one side of two", (IMAGE, FILTERS), {"padding": ((1, 1), 1)}),
    ("conv2d", "one side of two, turned", (IMAGE, FILTERS), {"padding": (1, (1, 1))}),
    ("conv2d", "padding as an array", (IMAGE, FILTERS), {"padding": np.array([1, 1])}),
    ("conv2d", "dilation", (IMAGE, FILTERS), {"dilation": 9}),
    ("conv2d", "algorithm", (IMAGE, FILTERS), {"algorithm": "winograd", "stride": 2}),
    ("conv2d_backward", "dy", (ones((1, 4, 5, 5)), IMAGE, FILTERS), {}),
    ("conv2d_backward", "needs_dx", (ones((1, 4, 3, 3)), IMAGE, FILTERS), {"needs_dx": np.nan}),
    ("linear_backward", "needs_dx", (ones((2, 4)), ones((2, 3)), ones((3, 4))), {"needs_dx": 1}),
    ("linear_backward", "a dx that is not needed", (ones((2, 4)), ones((2, 3)), ones((3, 4))),
     {"needs_dx": False, "gradients": (zeros((2, 3)), zeros((3, 4)), zeros(4))}),
    ("conv2d_backward", "a dx that is not needed", (ones((1, 4, 3, 3)), IMAGE, FILTERS),
     {"needs_dx": False, "gradients": (zeros(0), zeros(FILTERS.shape), zeros(4))}),
    ("avg_pool2d", "divisor 0", (IMAGE, 2), {"divisor_override": 0}),
    ("avg_pool2d", "divisor no integer", (IMAGE, 2), {"divisor_override": 2.5}),
    ("avg_pool2d", "divisor too large", (IMAGE, 2), {"divisor_override": 2**31}),
    ("avg_pool2d", "count_include_pad", (IMAGE, 2), {"count_include_pad": 0.5}),
    ("avg_pool2d", "ceil_mode", (IMAGE, 2), {"ceil_mode": 0.5}),
    ("avg_pool2d", "padding", (IMAGE, 2), {"padding": 2}),
    ("avg_pool2d_backward", "dy", (ones((1, 2, 5, 5)), IMAGE, 2), {}),
    ("max_pool2d", "window", (IMAGE, 6), {}),
    ("max_pool2d", "dilation 0", (IMAGE, 2), {"dilation": 0}),
    ("max_pool2d_backward", "index", (ones((1, 2, 2, 2)), IMAGE, np.full((1, 2, 2, 2), 25)), {}),
    ("max_pool2d_backward", "unsigned index",
     (ones((1, 2, 2, 2)), IMAGE, np.full((1, 2, 2, 2), 2**64 - 1, np.uint64)), {}),
    ("max_pool2d_backward", "stride without a window",
     (ones((1, 2, 2, 2)), IMAGE, classes(1, 2, 2, 2)), {"stride": -1}),
    ("max_pool2d_backward", "padding without a window",
     (ones((1, 2, 2, 2)), IMAGE, classes(1, 2, 2, 2)), {"padding": "same"}),
    ("max_pool2d_backward", "empty plane", (ones((1, 2, 0, 0)), ones((1, 2, 0, 5)), classes(1, 2, 0, 0)), {}),
    ("max_pool2d_backward", "shapes", (ones((1, 2, 2, 2)), IMAGE, classes(1, 2, 2, 1)), {}),
    ("global_avg_pool2d", "empty plane", (ones((1, 2, 0, 5)),), {}),
    ("adam_step", "one beta", state(4), {"step": 1, "betas": (0.9,)}),
    ("adam_step", "three betas", state(4), {"step": 1, "betas": (0.9, 0.9, 0.9)}),
    ("adam_step", "array of betas", state(4), {"step": 1, "betas": np.array([0.9])}),
    ("adam_step", "betas a number", state(4), {"step": 1, "betas": 0.9}),
    ("adam_step", "beta 1", state(4), {"step": 1, "betas": (0.9, 1.0)}),
    ("adam_step", "beta nan", state(4), {"step": 1, "betas": (np.nan, 0.9)}),
    ("adam_step", "step 0", state(4), {"step": 0}),
    ("adam_step", "step too large", state(4), {"step": 2**62 + 1}),
    ("adam_step", "step no integer", state(4), {"step": 1.5}),
    ("adam_step", "lr", state(4), {"step": 1, "lr": -1.0}),
    ("adam_step", "lr complex", state(4), {"step": 1, "lr": 1j}),
    ("adam_step", "shape of a state", (zeros(3), zeros(3), zeros(4), zeros(3)), {"step": 1}),
    ("adamw_step", "betas", state(4), {"step": 1, "betas": np.array([0.9])}),
    ("lion_step", "betas", state(3), {"betas": np.array([0.9])}),
    ("lion_step", "weight_decay", state(3), {"weight_decay": np.inf}),
    ("adagrad_step", "step", state(3), {"step": 2**62 + 1}),
    ("sgd_step", "no buffer", state(2), {"lr": 0.1, "momentum": 0.9}),
    ("sgd_step", "nesterov", state(3), {"lr": 0.1, "nesterov": 0.5}),
    ("sgd_step", "dampening", state(3), {"lr": 0.1, "dampening": np.nan}),
    ("sgd_step", "infinite dampening", state(2), {"lr": 0.1, "dampening": -np.inf}),
    ("rmsprop_step", "alpha", state(3), {"alpha": 1.5}),
    ("relu", "complex", (ones(3, complex),), {}),
    ("leaky_relu", "slope", (ones(3),), {"negative_slope": np.inf}),
    ("relu_backward", "dy", (ones(3), ones(4)), {}),
    ("gate_forward", "shapes", ("and", ones(3), ones(4)), {}),
    ("descend", "lr without a start", ("gelu", zeros(0)), {"lr": -1.0, "steps": 1}),
    ("conv2d_output_shape", "kernel", ((2, 2), (3, 3)), {}),
]  # fmt: skip


def refused(op, call):
    with pytest.raises((ValueError, TypeError, numba.TypingError)) as caught:
        call()
    assert op in str(caught.value) or "descend" in str(caught.value)


@pytest.mark.parametrize("face", ["numba", "c", "njit"])
@pytest.mark.parametrize(("op", "wrong", "given", "options"), BAD, ids=lambda v: str(v)[:40])
def test_refused_by_every_face(op, wrong, given, options, face):
    given = tuple(v.copy() if isinstance(v, np.ndarray) else v for v in given)
    before = [np.array(v) for v in given]
    if face == "njit":
        options, strings = dict(options), {}
        if op == "gate_forward":
            strings["gate"], given = given[0], given[1:]
            function = numba.njit(lambda a, b: ln.gate_forward("and", a, b))
            refused(op, lambda: function(*given))
            return
        if op == "descend":
            function = numba.njit(lambda x, lr, steps: ln.descend("gelu", x, lr=lr, steps=steps))
            refused(op, lambda: function(given[1], **options))
            return
        refused(op, lambda: njit_call(op, given, options))
    else:
        with ln.use_backend(face):
            refused(op, lambda: getattr(ln, op)(*given, **options))
    for now, then in zip(given, before, strict=True):
        assert np.asarray(now).tobytes() == then.tobytes()


@pytest.mark.parametrize("face", ["numba", "c", "njit"])
@pytest.mark.parametrize("op", ["sgd_step", "rmsprop_step"])
def test_a_missing_buffer_is_a_type_error(op, face):
    """The same kind everywhere, though compiled code learns the momentum at run time only."""
    given, options = state(2 if op == "sgd_step" else 3), {"lr": 0.1, "momentum": 0.9}
    with pytest.raises(TypeError, match=f"{op}: momentum_buffer is None"):
        if face == "njit":
            njit_call(op, tuple(given), options)
        else:
            with ln.use_backend(face):
                getattr(ln, op)(*given, **options)


# ---- out, and what it must not overlap: the arrays as they came, whatever is copied ----


def halves(*shape):
    """A strided array, and a contiguous view of the beginning of its memory."""
    memory = np.arange(2.0 * np.prod(shape)).reshape(*shape[:-1], 2 * shape[-1])
    return memory[..., ::2], lambda *wanted: memory.reshape(-1)[: np.prod(wanted)].reshape(wanted)


def _softmax():
    x, part = halves(3, 4)
    return "softmax", (x,), {"out": part(3, 4)}


def _linear():
    x, part = halves(2, 3)
    return "linear", (x, ones((3, 2))), {"out": part(2, 2)}


def _conv2d():
    x, part = halves(1, 1, 4, 4)
    return "conv2d", (x, ones((1, 1, 3, 3))), {"out": part(1, 1, 2, 2)}


def _pool():
    x, part = halves(1, 1, 4, 4)
    return "avg_pool2d", (x, 2), {"out": part(1, 1, 2, 2)}


def _gelu():
    x, part = halves(8)
    return "gelu", (x,), {"out": part(8)}


def _weight():
    memory = np.arange(1.0, 21.0)
    out = memory[:6].reshape(2, 3)
    options = {"weight": memory[2:5], "out": out}
    return "cross_entropy_backward", (ones((2, 3)), INDEX), options


def _strided_logits():
    x, part = halves(3, 4)
    return "cross_entropy_backward", (x, np.array([0, 1, 2])), {"out": part(3, 4)}


def _dy():
    memory = np.arange(1.0, 21.0)
    options = {"reduction": "none", "dy": memory[:4:2], "out": memory[:6].reshape(2, 3)}
    return "cross_entropy_backward", (ones((2, 3)), INDEX), options


def _grad():
    memory = zeros(8)
    return "sgd_step", (memory[:4], memory[::2]), {"lr": 0.1}


def _state():
    memory = zeros(8)
    return "lion_step", (zeros(4), memory[::2], memory[2:6]), {}


OVERLAPS = [
    _softmax, _linear, _conv2d, _pool, _gelu, _weight, _strided_logits, _dy, _grad, _state
]  # fmt: skip


@pytest.mark.parametrize("face", ["numba", "c", "njit"])
@pytest.mark.parametrize("make", OVERLAPS, ids=lambda f: f.__name__[1:])
def test_out_over_an_input_as_it_came(make, face):
    op, given, options = make()
    arrays = [v for v in (*given, *options.values()) if isinstance(v, np.ndarray)]
    before = [a.copy() for a in arrays]
    if face == "njit":
        with pytest.raises(ValueError, match=f"{op}: .*overlap"):
            njit_call(op, given, options)
    else:
        with ln.use_backend(face), pytest.raises(ValueError, match=f"{op}: .*overlap"):
            getattr(ln, op)(*given, **options)
    assert all((a == b).all() for a, b in zip(arrays, before, strict=True))


@pytest.mark.parametrize("face", ["numba", "c", "njit"])
def test_rows_between_are_no_overlap(face):
    memory = np.arange(24.0).reshape(4, 6)
    x, out = memory[::3], memory[1:3]
    expected = np.maximum(x, 0)
    if face == "njit":
        numba.njit(lambda x, out: ln.relu(x, out=out))(x, out)
    else:
        with ln.use_backend(face):
            ln.relu(x, out=out)
    assert (out == expected).all()


@pytest.mark.parametrize("face", ["numba", "c", "njit"])
def test_written_arrays_that_are_not_aligned(face):
    """Numba's types do not tell: compiled code looks at the address."""
    odd = np.zeros(25, np.uint8)[1:].view(np.float64)
    for op, given, options in (
        ("tanh", (ones(3),), {"out": odd}),
        ("lion_step", (ones(3), ones(3), odd), {}),
        ("lion_step", (odd, ones(3), ones(3)), {}),
    ):
        with ln.use_backend("c" if face == "njit" else face), pytest.raises(ValueError, match=op):
            if face == "njit":
                njit_call(op, given, options)
            else:
                getattr(ln, op)(*given, **options)
        assert not odd.any()


# ---- what is taken ----


@pytest.mark.parametrize("face", ["numba", "c", "njit"])
def test_one_number_in_a_tuple_serves_both_axes(face):
    """As PyTorch takes it."""
    x, weight = IMAGE, np.arange(72.0).reshape(FILTERS.shape)
    options = {"stride": (2,), "padding": (1,), "dilation": (1,)}
    with ln.use_backend("c" if face == "njit" else face):
        expected = ln.conv2d(x, weight, stride=2, padding=1)
        pooled = ln.max_pool2d(x, 2, 1)
        if face == "njit":
            got = njit_call("conv2d", (x, weight), options)
            means = numba.njit(lambda x: ln.max_pool2d(x, (2,), (1,)))(x)
        else:
            got, means = ln.conv2d(x, weight, **options), ln.max_pool2d(x, (2,), (1,))
    assert got.tobytes() == expected.tobytes() and means.tobytes() == pooled.tobytes()


@pytest.mark.parametrize("value", [3.0, -np.inf, np.nan])
@pytest.mark.parametrize("face", ["numba", "c", "njit"])
def test_softmax_of_a_number(face, value, dtype):
    """One class: probability 1, as PyTorch has it; NaN of what is not finite."""
    x, finite = np.array(value, dtype), np.isfinite(value)
    for op, expected in (("softmax", 1.0), ("log_softmax", 0.0)):
        if face == "njit":
            got = njit_call(op, (x,), {})
        else:
            with ln.use_backend(face):
                got = getattr(ln, op)(x)
        assert got.dtype == dtype and np.ndim(got) == 0
        assert got == expected if finite else np.isnan(got)


UNSIGNED = [
    ("conv2d", (IMAGE, FILTERS), {"stride": 2, "padding": 1}),
    ("conv2d", (IMAGE, FILTERS), {"padding": (1, 2), "dilation": 2}),
    ("avg_pool2d", (IMAGE, 3), {"stride": 2, "padding": 1}),
    ("max_pool2d", (IMAGE, 2), {"stride": 1, "dilation": 2, "padding": 1}),
    ("softmax", (ones((2, 3)),), {"axis": 1}),
]


@pytest.mark.parametrize("kind", [np.uint64, np.uint8, np.int32])
@pytest.mark.parametrize(("op", "given", "options"), UNSIGNED, ids=lambda v: str(v)[:40])
def test_integers_of_any_type(op, given, options, kind, backend):
    """Of unsigned 64 and signed 64 bits Numba makes a float, which is no size."""
    expected = getattr(ln, op)(*given, **options)

    def typed(v):
        return tuple(map(typed, v)) if isinstance(v, tuple) else kind(v) if type(v) is int else v

    given, options = tuple(map(typed, given)), {k: typed(v) for k, v in options.items()}
    assert getattr(ln, op)(*given, **options).tobytes() == expected.tobytes()
    assert njit_call(op, given, options).tobytes() == expected.tobytes()


@pytest.mark.parametrize("value", [10**400, -(10**400), Fraction(10**400)], ids=lambda v: "huge")
def test_numbers_beyond_every_float(value, backend):
    """As infinity: float() of them raises OverflowError."""
    for name, call in (
        ("lr", lambda: ln.sgd_step(ones(3), ones(3), lr=value)),
        ("negative_slope", lambda: ln.leaky_relu(ones(3), value)),
        ("label_smoothing", lambda: ln.cross_entropy(ones((2, 3)), INDEX, label_smoothing=value)),
        ("tol", lambda: ln.descend("gelu", 1.0, lr=0.1, steps=1, tol=value)),
    ):
        with pytest.raises(ValueError, match=f"{name} is -?inf"):
            call()


def test_what_is_no_array_is_told_with_its_name(backend):
    ragged = [[1], [1, 2]]
    for name, call in (
        ("target", lambda: ln.cross_entropy(ones((2, 3)), ragged)),
        ("x", lambda: ln.softmax(ragged)),
        ("indices", lambda: ln.max_pool2d_backward(ones((1, 1, 2, 2)), ones((1, 1, 4, 4)), ragged)),
    ):
        with pytest.raises(TypeError, match=f": {name} is a list that NumPy makes no array of"):
            call()


def test_options_of_descend_inside_njit():
    """Of unsigned numbers of steps Numba makes floats; a limit holds in both faces."""
    x = np.array([0.5, 1.0])
    options = {"lr": 0.1, "steps": np.uint64(3), "record": np.uint8(2)}
    compiled = numba.njit(
        lambda x, steps, record: ln.descend("gelu", x, lr=0.1, steps=steps, record=record)
    )
    expected = ln.descend("gelu", x, **options)
    found = compiled(x, options["steps"], options["record"])
    assert found.x.tobytes() == expected.x.tobytes()
    assert found.trajectory.tobytes() == expected.trajectory.tobytes()
    for record, steps in ((2**62 + 1, 3), (0, 3), (1, 2**62 + 1), (1, -1)):
        for call in (compiled, lambda x, s, r: ln.descend("gelu", x, lr=0.1, steps=s, record=r)):
            with pytest.raises(ValueError, match="descend: (record|steps) is .*accepted: integers"):
                call(x, steps, record)


def test_out_for_a_number_inside_njit():
    """A compiled call of numbers gives a number back and writes nothing."""
    for call in (
        lambda a, out: ln.gate_forward("and", a, a, out),
        lambda a, out: ln.relu(a, out=out),
        lambda a, out: ln.gelu_backward(a, a, out=out),
    ):
        with pytest.raises(numba.TypingError, match="out is .* for a number"):
            numba.njit(call)(1.0, zeros(3))


class Metres(np.ndarray):
    """A unit, as astropy and unyt have them: arithmetic of its own."""

    def __array_ufunc__(self, *arguments, **options):
        return NotImplemented


class Wrapped(np.ndarray):
    """A unit that only results carry."""

    def __array_wrap__(self, array, context=None, return_scalar=False):
        return array


class Feet(np.ndarray):
    """A unit in a plain attribute, NumPy's arithmetic."""

    units = "ft"


class Quantity:
    """A number with a unit around an array, as pint has it."""

    def __init__(self, array):
        self.array, self.units = array, "m"

    def __array__(self, dtype=None, copy=None):
        return self.array


class Table:
    """What pandas has: a method of that name, and a column that looks like an attribute."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array

    def __getattr__(self, name):
        if name == "unit":
            return self.array[0]
        raise AttributeError(name)

    def mask(self):
        """Other values where a condition holds."""


class Named(np.ndarray):
    """A subclass with an attribute and no arithmetic of its own."""

    name = "plain"


def with_meaning(kind, array):
    return MEANINGS[kind](array)


MEANINGS = {
    "MaskedArray": np.ma.array,
    "Metres": lambda array: array.view(Metres),
    "Wrapped": lambda array: array.view(Wrapped),
    "Feet": lambda array: array.view(Feet),
    "Quantity": Quantity,
}


@pytest.mark.parametrize("kind", [k for k in MEANINGS if k != "Quantity"])
def test_arrays_with_a_meaning_are_refused(kind, backend):
    word = kind
    meaning = lambda array: with_meaning(kind, array)  # noqa: E731
    x = ones((2, 3))
    for call in (
        lambda: ln.softmax(meaning(x)),
        lambda: ln.gelu(x, out=meaning(x.copy())),
        lambda: ln.cross_entropy(x, meaning(INDEX)),
        lambda: ln.cross_entropy(x, INDEX, weight=meaning(ones(3))),
        lambda: ln.cross_entropy_backward(x, INDEX, dy=meaning(np.array(1.0))),
        lambda: ln.linear(x, meaning(ones((3, 2)))),
        lambda: ln.max_pool2d_backward(
            ones((1, 1, 2, 2)), ones((1, 1, 4, 4)), meaning(classes(1, 1, 2, 2))
        ),
        lambda: ln.sgd_step(meaning(ones(3)), ones(3), lr=0.1),
        lambda: ln.sgd_step(ones(3), meaning(ones(3)), lr=0.1),
        lambda: ln.descend("gelu", meaning(ones(3)), lr=0.1, steps=1),
        lambda: ln.Thermometer([0.5])(meaning(x)),
        lambda: ln.Sequential(ln.Linear(3, 2))(meaning(x.astype(np.float32))),
        lambda: ln.Circuit.half_adder().evaluate({"a": meaning(INDEX), "b": INDEX}),
    ):
        with pytest.raises(TypeError, match=word):
            call()
    assert ln.relu(x.view(Named)).tobytes() == x.tobytes()
    assert ln.relu(Table(x)).tobytes() == x.tobytes()


@pytest.mark.parametrize("kind", MEANINGS)
def test_meanings_in_lists_are_refused(kind, backend):
    """NumPy makes an array of a list of them, without a word."""
    x = with_meaning(kind, ones(3))
    for call in (
        lambda: ln.softmax(x),
        lambda: ln.softmax([x, x]),
        lambda: ln.softmax([[ones(3), x]]),
        lambda: ln.cross_entropy(
            ones((2, 3)), INDEX, weight=(1.0, 1.0, with_meaning(kind, np.array(1.0)))
        ),
        lambda: ln.descend("gelu", [x], lr=0.1, steps=1),
    ):
        with pytest.raises(TypeError, match=kind):
            call()


def test_options_with_a_mask_are_refused(backend):
    for name, call in (
        ("groups", lambda: ln.conv2d(IMAGE, FILTERS, groups=np.ma.array(1))),
        ("stride", lambda: ln.conv2d(IMAGE, FILTERS, stride=(np.ma.array(1), 1))),
        ("axis", lambda: ln.softmax(ones((2, 3)), axis=np.ma.array(1, mask=True))),
        ("lr", lambda: ln.sgd_step(ones(3), ones(3), lr=np.ma.array(0.1))),
    ):
        with pytest.raises(TypeError, match=f": {name} is masked"):
            call()


@pytest.mark.parametrize("strides", [(8,), (16,), (0,), (-8,)])
def test_strides_of_one_element_mean_nothing(strides, backend):
    """Neither at first nor when a plan repeats the call."""
    memory = np.array([-2.0, 3.0])
    x = memory[:1]
    for _ in range(4):
        x[0] = 3.0
        out = np.lib.stride_tricks.as_strided(memory, (1,), strides)
        assert ln.gelu(x, out=out) is out
        assert out[0] == ln.gelu(np.array([3.0]))[0]
