"""Gates: all 16 functions, the worked weights, equal bits, bad input."""

import numpy as np
import pytest
import reference
from numba import njit

import loopnest as ln

BACKENDS = ln.available_backends()
ROWS_A = np.array([0.0, 0.0, 1.0, 1.0])
ROWS_B = np.array([0.0, 1.0, 0.0, 1.0])
DTYPES = (np.float32, np.float64)


@pytest.fixture(params=BACKENDS)
def backend(request):
    with ln.use_backend(request.param):
        yield request.param


def inputs(dtype, n=1003):
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 3, (2, n)).astype(dtype)
    a[:8] = [0, -0.0, 1, np.inf, -np.inf, np.nan, 1e-40, 300]
    b[:8] = [0, 1, -0.0, 1, np.inf, 0, 1e-40, np.nan]
    return a, b


def by_hand(name, a, b):
    """The network in float64, layer by layer, from the public weights."""
    values = np.stack([a, b], axis=-1).astype(np.float64)
    *hidden, (weight, bias) = ln.gate(name).layers
    for w, c in hidden:
        values = reference.relu(values @ w + c)
    return reference.sigmoid(values @ weight + bias)[..., 0]


@pytest.mark.parametrize("name", ln.GATE_NAMES)
def test_truth_table(name, backend):
    table = ln.gate(name).truth_table()
    assert table.shape == (4, 3)
    assert table[:, :2].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert table[:, 2].tolist() == reference.truth(name).tolist()
    assert ln.gate(name.upper()).name == name


def test_names_are_truth_tables():
    assert ln.GATE_NAMES == reference.GATE_NAMES
    assert len(set(ln.GATE_NAMES)) == 16


WORKED = {
    "and": [([[0.5], [0.5]], [-1])],
    "or": [([[1], [1]], [-0.5])],
    "xor": [([[-1, 1], [-1, 1]], [1.5, -0.5]), ([[-1], [-1]], [1])],
    "xnor": [([[-1, 1], [-1, 1]], [1.5, -0.5]), ([[1], [1]], [-1.5])],
}


@pytest.mark.parametrize("name", WORKED)
def test_worked_weights(name):
    layers = ln.gate(name).layers
    assert len(layers) == len(WORKED[name])
    for (weight, bias), (expected_weight, expected_bias) in zip(layers, WORKED[name], strict=True):
        assert weight.dtype == bias.dtype == np.float64
        assert np.array_equal(weight, expected_weight)
        assert np.array_equal(bias, expected_bias)


def test_only_xor_and_xnor_need_a_hidden_layer():
    assert [n for n in ln.GATE_NAMES if len(ln.gate(n).layers) == 2] == ["xor", "xnor"]


def test_worked_activations(backend):
    hidden, last = ln.gate("xor").activations(ROWS_A, ROWS_B)
    assert hidden.preactivation.T.tolist() == [[1.5, 0.5, 0.5, -0.5], [-0.5, 0.5, 0.5, 1.5]]
    assert hidden.activation.T.tolist() == [[1.5, 0.5, 0.5, 0], [0, 0.5, 0.5, 1.5]]
    assert last.preactivation.T.tolist() == [[-0.5, 0, 0, -0.5]]
    assert last.activation[1, 0] == 0.5
    assert np.array_equal(last.activation[:, 0], ln.gate("xor").forward(ROWS_A, ROWS_B))
    (single,) = ln.gate("or").activations(1, 0)
    assert single.preactivation.shape == (1,)
    assert single.preactivation[0] == 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ln.GATE_NAMES)
def test_bits_and_reference(name, dtype):
    a, b = inputs(dtype)
    results = {}
    for chosen in BACKENDS:
        with ln.use_backend(chosen):
            results[chosen] = ln.gate_forward(name, a, b)
    first = results[BACKENDS[0]]
    assert first.dtype == dtype
    for other in results.values():
        assert other.tobytes() == first.tobytes()
    with np.errstate(all="ignore"):
        expected = by_hand(name, a, b)
    np.testing.assert_allclose(first, expected, rtol=40 * np.finfo(dtype).eps, atol=1e-37)


@pytest.mark.parametrize("name", ["xor", "AND", "true"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_njit_has_the_same_bits(name, dtype):
    @njit
    def inside(a, b, out):
        return ln.gate_forward(name, a, b), ln.gate_forward(name, a, b, out=out)

    a, b = inputs(dtype)
    out = np.empty_like(a)
    got, same = inside(a, b, out)
    assert got.tobytes() == out.tobytes() == same.tobytes() == ln.gate_forward(name, a, b).tobytes()


def test_njit_numbers():
    @njit
    def inside(a, b):
        return ln.gate_forward("xnor", a, b) + ln.gate_forward("nor", a, b)

    expected = ln.gate_forward("xnor", 1.0, 0.25) + ln.gate_forward("nor", 1.0, 0.25)
    assert inside(1.0, 0.25) == expected
    assert inside(1, 1) == ln.gate_forward("xnor", 1, 1) + ln.gate_forward("nor", 1, 1)


def test_njit_refuses_unknown_and_unequal():
    @njit
    def unknown(a):
        return ln.gate_forward("maybe", a, a)

    @njit
    def unequal(a, b):
        return ln.gate_forward("and", a, b)

    with pytest.raises(Exception, match="gate is 'maybe'; accepted: 'false'"):
        unknown(ROWS_A)
    with pytest.raises(ValueError, match="a and b have shapes that do not broadcast"):
        unequal(ROWS_A, np.zeros(3))


def test_threads_do_not_change_bits(backend, monkeypatch):
    from loopnest.runtime import threads

    a, b = inputs(np.float32)
    one = ln.gate_forward("xor", a, b)
    monkeypatch.setattr(threads, "SERIAL_BELOW", 0)
    monkeypatch.setattr(threads, "_count", 3)
    assert ln.gate_forward("xor", a, b).tobytes() == one.tobytes()


def test_shapes_and_numbers(backend):
    gate = ln.gate("or")
    assert gate.forward(0, 1) == ln.sigmoid(0.5)
    assert type(gate.forward(0, 1)) is float
    assert gate.forward(ROWS_A[:, None], ROWS_B).shape == (4, 4)
    assert gate.forward(np.float32([1, 0]), 1).dtype == np.float32
    assert type(gate.forward(np.float32(1), np.float32(0))) is np.float32
    assert gate.forward(np.array([True, False]), np.array([1, 0])).dtype == np.float64
    assert gate.forward(np.empty((0, 3)), 1.0).shape == (0, 3)
    strided = np.arange(8.0)[::2]
    assert np.array_equal(gate.forward(strided, strided), gate.forward(strided.copy(), strided))
    assert np.array_equal(ln.gate_forward(gate, ROWS_A, ROWS_B), gate.forward(ROWS_A, ROWS_B))


def test_out(backend):
    expected = ln.gate_forward("and", ROWS_A, ROWS_B)
    out = np.empty(4)
    assert ln.gate_forward("and", ROWS_A, ROWS_B, out=out) is out
    assert np.array_equal(out, expected)
    a = ROWS_A.copy()
    ln.gate_forward("and", a, ROWS_B, out=a)
    assert np.array_equal(a, expected)


@pytest.mark.parametrize("call", [ln.gate, lambda name: ln.gate_forward(name, 0, 1)])
def test_unknown_gate(call):
    with pytest.raises(ValueError, match=r"name is 'maybe'; accepted: 'false', 'and', .*'true'"):
        call("maybe")
    with pytest.raises(TypeError, match="name is 3; accepted"):
        call(3)


@pytest.mark.parametrize(
    ("a", "b", "out", "error", "message"),
    [
        (np.zeros(3), np.zeros(4), None, ValueError, r"a has shape \(3,\), b \(4,\)"),
        (np.zeros(3, np.float32), np.zeros(3), None, TypeError, "different dtypes"),
        (np.zeros(3, complex), np.zeros(3), None, TypeError, "a has dtype complex128"),
        ("x", 1, None, TypeError, "a has dtype"),
        (np.zeros(3, np.float16), 1, None, TypeError, "cast it with a.astype"),
        (np.zeros(3), np.zeros(3), np.zeros(4), ValueError, "out has shape"),
        (np.zeros(3), np.zeros(3), np.zeros(3, np.float32), TypeError, "out has dtype"),
        (np.zeros(3), np.zeros(3), np.zeros(6)[::2], ValueError, "not C-contiguous"),
        (np.zeros(3), np.zeros(3), [0, 0, 0], TypeError, "out is a list"),
    ],
)
def test_bad_input(a, b, out, error, message):
    with pytest.raises(error, match=message):
        ln.gate_forward("and", a, b, out=out)


def test_overlapping_out():
    memory = np.zeros(5)
    with pytest.raises(ValueError, match="overlaps an input"):
        ln.gate_forward("and", memory[:4], 1.0, out=memory[1:])


def test_ones_broadcast(backend):
    y = ln.gate_forward("and", np.ones((1, 1)), np.ones(1))
    assert y.shape == (1, 1) and y[0, 0] == 0.5


@pytest.mark.parametrize("name", ["and", "xor"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_broadcasts_inside_njit_too(name, dtype):
    rng = np.random.default_rng(3)

    @njit
    def inside(a, b):
        return ln.gate_forward(name, a, b)

    shapes = [((4, 1), (3,)), ((2, 3), (1, 3)), ((), (5,)), ((0, 1), (4,)), ((2, 1, 3), (4, 1))]
    for one, other in shapes:
        a, b = rng.random(one).astype(dtype), rng.random(other).astype(dtype)
        a = np.asarray(a)
        for left, right in ((a, b), (b, a), (0.25, b), (b, 1)):
            expected, found = ln.gate_forward(name, left, right), inside(left, right)
            assert found.dtype == dtype and found.shape == np.shape(expected)
            assert found.tobytes() == np.asarray(expected).tobytes()
    with pytest.raises(ValueError, match="gate_forward: a and b have shapes that do not broadcast"):
        inside(np.ones((2, 3), dtype), np.ones(2, dtype))
