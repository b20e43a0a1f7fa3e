"""Circuits of named gates, the learned gates, and bits of numbers."""

import numpy as np
import pytest

import loopnest as ln

HALF = {"sum": ("xor", "a", "b"), "carry": ("and", "a", "b")}


@pytest.mark.parametrize("by", ["bits", "neurons"])
def test_adders(by, backend):
    half, full = ln.Circuit.half_adder(), ln.Circuit.full_adder()
    for a in (0, 1):
        for b in (0, 1):
            found = half.evaluate({"a": a, "b": b}, by=by)
            assert found == {"sum": (a + b) % 2, "carry": (a + b) // 2}
            for c in (0, 1):
                found = full.evaluate({"a": a, "b": b, "carry_in": c}, by=by)
                assert found == {"sum": (a + b + c) % 2, "carry": (a + b + c) // 2}


@pytest.mark.parametrize("bits", [1, 2, 5, 17])
@pytest.mark.parametrize("by", ["bits", "neurons"])
def test_n_bit_adder(bits, by):
    a, b = np.random.default_rng(bits).integers(0, 2**bits, (2, 13, 50))
    inputs = {f"a{i}": a >> i & 1 for i in range(bits)} | {f"b{i}": b >> i & 1 for i in range(bits)}
    found = ln.Circuit.adder(bits).evaluate(inputs, by=by)
    assert all(v.shape == (13, 50) and v.dtype == np.uint8 for v in found.values())
    total = sum(found[f"sum{i}"].astype(int) << i for i in range(bits))
    assert np.array_equal(total + (found["carry"].astype(int) << bits), a + b)


@pytest.mark.parametrize("selects", [1, 2, 4])
@pytest.mark.parametrize("by", ["bits", "neurons"])
def test_multiplexer(selects, by):
    rng = np.random.default_rng(selects)
    data = rng.integers(0, 2, (2**selects, 400))
    chosen = rng.integers(0, 2**selects, 400)
    inputs = {f"d{i}": row for i, row in enumerate(data)}
    inputs |= {f"s{i}": chosen >> i & 1 for i in range(selects)}
    found = ln.Circuit.multiplexer(selects).evaluate(inputs, by=by)
    assert np.array_equal(found["y"], data[chosen, np.arange(400)])


@pytest.mark.parametrize("name", ln.GATE_NAMES)
def test_every_gate_by_neurons_and_bits(name, backend):
    circuit = ln.Circuit(["a", "b"], {"y": (name, "a", "b"), "z": (name, "y", "a")}, ["y", "z"])
    inputs = {"a": [0, 0, 1, 1], "b": [0, 1, 0, 1]}
    bits, neurons = (circuit.evaluate(inputs, by=by) for by in ("bits", "neurons"))
    assert bits["y"].tolist() == ln.gate(name).truth_table()[:, 2].tolist()
    for output in ("y", "z"):
        assert np.array_equal(bits[output], neurons[output])


def test_forms_of_a_circuit():
    rows = [("sum", "XOR", "a", "b"), ("carry", "and", "a", "b")]
    named = ln.Circuit("ab", rows, {"s": "sum", "c": "carry", "same": "a"})
    assert named.truth_table().tolist() == [
        [0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [1, 0, 1, 0, 1], [1, 1, 0, 1, 1],
    ]  # fmt: skip
    found = named.evaluate({"a": np.array([[True], [False]]), "b": np.float32([0, 1, 1])})
    assert found["s"].tolist() == [[1, 0, 0], [0, 1, 1]]
    assert repr(named) == "Circuit(2 inputs, 2 gates, 3 outputs)"
    empty = named.evaluate({"a": np.zeros((0, 3), int), "b": 1})
    assert empty["s"].shape == (0, 3)


def test_packed_circuits_are_simplified():
    rows = {"x": ("xor", "a", "b"), "y": ("xnor", "b", "a"), "z": ("and", "x", "y")}
    packed = ln.Circuit("ab", rows, ["z", "x"]).pack()
    assert (packed.gates_before, packed.gates) == (3, 2)  # z is constant
    assert packed.evaluate([[0, 1], [1, 1]]).tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], HALF, ["sum"]), ValueError, "inputs is empty"),
        ((["a", "a"], {}, ["a"]), ValueError, "'a' is given twice"),
        ((["a", 3], {}, ["a"]), TypeError, "inputs has 3"),
        (("ab", HALF, []), ValueError, "outputs is empty"),
        (
            ("ab", HALF, ["total"]),
            ValueError,
            "outputs names 'total'; accepted: an input or a gate",
        ),
        (("ab", {"a": ("or", "a", "b")}, ["a"]), ValueError, "'a' is given twice"),
        (("ab", {"x": ("or", "a", "y"), "y": ("or", "a", "b")}, ["x"]), ValueError, "names 'y'"),
        (("ab", {"x": ("maybe", "a", "b")}, ["x"]), ValueError, "name is 'maybe'; accepted"),
        (("ab", {"x": ("or", "a")}, ["x"]), TypeError, "accepted: name, function, left, right"),
        (("ab", [("or", "a", "b")], ["x"]), TypeError, "accepted: name, function, left, right"),
    ],
)
def test_bad_circuits(arguments, error, message):
    with pytest.raises(error, match=message):
        ln.Circuit(*arguments)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({"a": 1}, ValueError, "inputs has a; accepted: values for a, b"),
        ({"a": 1, "b": 0, "c": 1}, ValueError, "inputs has a, b, c"),
        ([0, 1], TypeError, "inputs is a list; accepted: a mapping"),
        ({"a": 2, "b": 0}, ValueError, "a has values other than 0 and 1"),
        ({"a": 0.5, "b": 0}, ValueError, "a has values other than 0 and 1"),
        ({"a": "1", "b": 0}, TypeError, "a has dtype"),
        ({"a": [0, 1], "b": [0, 1, 1]}, ValueError, r"shapes a \(2,\), b \(3,\)"),
    ],
)
@pytest.mark.parametrize("by", ["bits", "neurons"])
def test_bad_values(inputs, error, message, by):
    with pytest.raises(error, match=message):
        ln.Circuit.half_adder().evaluate(inputs, by=by)


def test_bad_options(tmp_path):
    with pytest.raises(ValueError, match="by is 'magic'; accepted: 'bits', 'neurons'"):
        ln.Circuit.half_adder().evaluate({"a": 0, "b": 0}, by="magic")
    with pytest.raises(ValueError, match="bits is 0"):
        ln.Circuit.adder(0)
    with pytest.raises(ValueError, match="selects is 17"):
        ln.Circuit.multiplexer(17)
    with pytest.raises(ValueError, match="has 18 inputs; accepted: up to 16"):
        ln.Circuit.adder(9).truth_table()
    for names in (["a b"], ["wire"]):
        with pytest.raises(ValueError, match="name is"):
            ln.Circuit(names, {}, {"y": names[0]}).to_verilog(tmp_path / "x.v")
    with pytest.raises(ValueError, match="a is input and output"):
        ln.Circuit("a", {}, ["a"]).to_verilog(tmp_path / "x.v")


# ---- learned gates ----


@pytest.mark.parametrize("name", ln.GATE_NAMES)
def test_gates_are_learned(name):
    learned = ln.Gate.train(name, seed=1)
    assert [weight.shape for weight, _ in learned.layers] == [(2, 2), (2, 1)]
    assert np.array_equal(learned.truth_table(), ln.gate(name).truth_table())
    a, b = np.array([0.0, 0, 1, 1]), np.array([0.0, 1, 0, 1])
    (hidden, bias), (out, last) = learned.layers
    by_hand = np.maximum(np.stack([a, b], 1) @ hidden + bias, 0) @ out + last
    np.testing.assert_allclose(ln.gate_forward(learned, a, b), 1 / (1 + np.exp(-by_hand[:, 0])))
    assert np.array_equal(learned.forward(a, b), learned.activations(a, b)[1].activation[:, 0])


def test_learning_is_repeatable_and_says_when_it_fails():
    first, second = (ln.Gate.train("nand", seed=7) for _ in range(2))
    for (w, b), (v, c) in zip(first.layers, second.layers, strict=True):
        assert np.array_equal(w, v) and np.array_equal(b, c)
    with pytest.raises(RuntimeError, match="no start of 50 has learned in 1 steps"):
        ln.Gate.train("xor", steps=1)
    with pytest.raises(ValueError, match="name is 'maybe'"):
        ln.Gate.train("maybe")


# ---- numbers as bits ----


def test_thermometer():
    coder = ln.Thermometer([5, 2])
    assert coder.bits == 2 and coder.thresholds.tolist() == [2, 5]
    assert coder([[1, 7], [3, 5]]).tolist() == [[0, 0, 1, 1], [1, 0, 1, 0]]
    assert ln.Thermometer(0.5)(np.float32([[0, 1]])).tolist() == [[0, 1]]
    assert ln.Thermometer.uniform(0, 4, 3).thresholds.tolist() == [1, 2, 3]
    x = np.random.default_rng(0).normal([0, 100], [1, 20], (1000, 2))
    bits = ln.Thermometer.quantiles(x, 4)(x)
    assert bits.dtype == np.uint8 and bits.shape == (1000, 8)
    assert np.allclose(bits.mean(axis=0), [0.8, 0.6, 0.4, 0.2] * 2, atol=0.01)
    assert coder(np.zeros((0, 3))).shape == (0, 6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ln.Thermometer([]), ValueError, r"thresholds has shape \(0,\)"),
        (lambda: ln.Thermometer([np.nan]), ValueError, "not finite"),
        (lambda: ln.Thermometer("x"), TypeError, "thresholds has dtype"),
        (lambda: ln.Thermometer(1)(np.zeros(3)), ValueError, "x has 1 dimensions"),
        (lambda: ln.Thermometer(1)([[np.nan]]), ValueError, "x has NaN"),
        (lambda: ln.Thermometer([[1], [2]])([[1, 2, 3]]), ValueError, r"accepted: \(samples, 2\)"),
        (lambda: ln.Thermometer.uniform(1, 1, 3), ValueError, "low below high"),
        (lambda: ln.Thermometer.uniform(0, 1, 0), ValueError, "bits is 0"),
        (lambda: ln.Thermometer.quantiles(np.zeros((0, 2)), 1), ValueError, "x has no samples"),
    ],
)
def test_bad_thermometers(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- names from outside ----


@pytest.mark.parametrize(
    "name",
    ["a;b", "a\nb", "`include", "end//", "a*/", "", "1a", "module", "tri", "x y", "ä", "a" * 201],
)
def test_names_that_verilog_does_not_take(name, tmp_path):
    """As a signal, on each way to a file, and as the module."""
    if name:
        for circuit in (
            ln.Circuit([name, "q"], {"y": ("and", name, "q")}, ["y"]),
            ln.Circuit(["p", "q"], {"y": ("and", "p", "q")}, {name: "y"}),
        ):
            for write in (circuit.to_verilog, circuit.pack().to_verilog):
                with pytest.raises(ValueError, match="to_verilog: .*accepted: letters"):
                    write(tmp_path / "out.v")
    packed = ln.Circuit(["p", "q"], {"y": ("and", "p", "q")}, ["y"]).pack()
    with pytest.raises(ValueError, match="to_verilog: name is"):
        packed.to_verilog(tmp_path / "out.v", name)
    if name != "tri":
        with pytest.raises(ValueError, match="to_c: name is"):
            packed.to_c(tmp_path / "out.c", name)
    assert not list(tmp_path.iterdir())


def test_a_signal_is_one_port(tmp_path):
    circuit = ln.Circuit(["p", "q"], {"y": ("and", "p", "q")}, ["p", "y"])
    for write in (circuit.to_verilog, circuit.pack().to_verilog):
        with pytest.raises(ValueError, match="p is input and output"):
            write(tmp_path / "out.v")


@pytest.mark.parametrize("name", ["logic", "wire", "real", "tri", "bit"])
def test_words_of_verilog_are_names_in_c(name, tmp_path):
    packed = ln.Circuit(["p", "q"], {"y": ("and", "p", "q")}, ["y"]).pack()
    packed.to_c(tmp_path / "out.c", name)
    assert f"void {name}_evaluate(" in (tmp_path / "out.c").read_text()
    for word in ("int", "main"):
        with pytest.raises(ValueError, match="no keyword"):
            packed.to_c(tmp_path / "out.c", word)
