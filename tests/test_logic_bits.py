"""Hard logic networks on bits: packing, running, simplification, C and Verilog."""

import ctypes
import importlib
import shutil
import subprocess

import numpy as np
import pytest
import reference_logic as reference
from hypothesis import given, settings
from hypothesis import strategies as st

import loopnest as ln
from loopnest.logic import netlist
from loopnest.logic.packed import all_samples
from loopnest.runtime import threads


def random_netlist(seed, inputs, gates, outputs):
    """Any gates on any signals further up, the same signal twice among them."""
    rng = np.random.default_rng(seed)
    rows = [
        (rng.integers(16), rng.integers(inputs + i), rng.integers(inputs + i)) for i in range(gates)
    ]
    return netlist.make(inputs, rows, rng.integers(0, inputs + gates, outputs))


def bits(seed, samples, inputs):
    return np.random.default_rng(seed).integers(0, 2, (samples, inputs)).astype(np.uint8)


@pytest.mark.parametrize("samples", [0, 1, 7, 8, 63, 64, 65, 511, 512, 513, 1100])
@pytest.mark.parametrize("inputs", [1, 8, 70])
def test_any_number_of_samples(samples, inputs, backend):
    net = random_netlist(inputs, inputs, 40, 24)
    x = bits(samples, samples, inputs)
    expected = reference.outputs(net, x)
    for simplify in (False, True):
        packed = ln.PackedLogic(net, 3, simplify=simplify)
        assert np.array_equal(packed.evaluate(x), expected)
        scores = expected.reshape(samples, 3, 8).sum(axis=2)
        found = packed.scores(x)
        assert found.dtype == np.int32 and np.array_equal(found, scores)
        labels = packed.predict(x)
        assert labels.dtype == np.int64 and np.array_equal(labels, scores.argmax(axis=1))


@pytest.mark.parametrize("group", [1, 2, 7, 8, 9, 15, 16, 17, 31, 64, 255, 1030])
def test_counts_of_any_size(group, backend):
    rng = np.random.default_rng(group)
    wanted = rng.integers(0, 5, 2 * group)
    net = netlist.make(5, [], wanted)
    x = bits(1, 70, 5)
    expected = x[:, wanted].reshape(70, 2, group).sum(axis=2)
    assert np.array_equal(ln.PackedLogic(net, 2).scores(x), expected)
    ones = np.ones((3, 5), bool)
    assert np.array_equal(ln.PackedLogic(net, 2).scores(ones), np.full((3, 2), group))


@pytest.mark.parametrize("op", range(16))
def test_every_function(op, backend):
    net = netlist.make(2, [(op, 0, 1)], [2])
    for simplify in (False, True):
        found = ln.PackedLogic(net, simplify=simplify).evaluate(all_samples(2))[:, 0]
        assert found.tolist() == ln.gate(ln.GATE_NAMES[op]).truth_table()[:, 2].tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 30), st.integers(1, 9))
def test_simplification_is_exhaustively_right(seed, inputs, gates, outputs):
    net = random_netlist(seed, inputs, gates, outputs)
    x = all_samples(inputs)
    small = netlist.simplify(net)
    assert np.array_equal(reference.outputs(small, x), reference.outputs(net, x))
    assert small.gates <= gates + outputs
    again = netlist.simplify(small)
    assert again.gates == small.gates
    packed = ln.PackedLogic(net)
    assert packed.prove_equal(ln.PackedLogic(net, simplify=False)) == "exhaustive"


def test_what_simplification_removes():
    x, y = 0, 1
    copies = [(3, x, y), (5, x, y), (12, x, y), (10, x, y)]  # signals 2 .. 5
    constants = [(0, x, y), (15, x, y), (6, x, x)]  # 6 .. 8
    duplicates = [(1, x, y), (1, y, x), (8, 4, 5)]  # 9 .. 11: and, and, nor of complements
    unused = [(7, x, y)]
    net = netlist.make(2, copies + constants + duplicates + unused, [9, 10, 11, 2, 6, 7])
    small = netlist.simplify(net)
    assert small.gates == 3  # one and, the two constants
    assert np.array_equal(
        reference.outputs(small, all_samples(2)), reference.outputs(net, all_samples(2))
    )


def test_a_wrong_network_is_found_out():
    a, b = (netlist.make(3, [(op, 0, 1), (7, 3, 2)], [4]) for op in (1, 7))
    with pytest.raises(ValueError, match=r"they differ on \[0, 1, 0\]"):
        ln.PackedLogic(a).prove_equal(ln.PackedLogic(b))
    with pytest.raises(ValueError, match="differ in inputs or outputs"):
        ln.PackedLogic(a).prove_equal(ln.PackedLogic(netlist.make(2, [], [0])))
    wide = [netlist.make(40, [(op, 0, 39)], [40]) for op in (6, 9)]
    with pytest.raises(ValueError, match="they differ"):
        ln.PackedLogic(wide[0]).prove_equal(ln.PackedLogic(wide[1]))
    assert ln.PackedLogic(wide[0]).prove_equal(ln.PackedLogic(wide[0])) == "random"


def test_backends_and_threads_give_the_same(monkeypatch):
    net = random_netlist(5, 30, 300, 40)
    x = bits(5, 2100, 30)
    monkeypatch.setattr(threads, "SERIAL_BELOW", 0)
    found = set()
    for name in ln.available_backends():
        for workers in (1, 3):
            monkeypatch.setattr(threads, "_count", workers)
            with ln.use_backend(name):
                found.add(ln.PackedLogic(net, 4).scores(x).tobytes())
    assert len(found) == 1


def test_state_of_both_backends():
    """All rows, bit for bit, from the kernels themselves."""
    packed = ln.PackedLogic(random_netlist(8, 12, 90, 20), simplify=False)
    program, x = packed._program, bits(8, 300, 12)
    states = set()
    for package, name in (("kernels", "numba"), ("ops.c", "c")):
        if name in ln.available_backends():
            kernels = importlib.import_module(f"loopnest.{package}.logic_bits")
            state, seen = np.zeros(program.rows * 8, np.uint64), np.zeros(1, np.uint8)
            kernels.logic_pack(x, 0, seen, state)
            kernels.logic_run(program.gates, program.ends, state)
            assert seen[0] == 1
            states.add(state.tobytes())
    assert len(states) == 1


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_input_forms(dtype, backend):
    packed = ln.PackedLogic(random_netlist(2, 10, 30, 6), 2)
    x = bits(2, 67, 10)
    expected = packed.evaluate(x)
    given = x.astype(dtype)
    wide = np.zeros((67, 20), dtype)
    wide[:, ::2] = given
    frozen = given.copy()
    frozen.setflags(write=False)
    for form in (given, given.tolist(), wide[:, ::2], np.asfortranarray(given), frozen):
        assert np.array_equal(packed.evaluate(form), expected)
        assert np.array_equal(packed.scores(form), packed.scores(x))
    assert np.array_equal(packed.evaluate(given[5]), expected[5])
    assert packed.predict(given[5]) == packed.predict(x)[5]
    assert type(packed.predict(given[5])) is int
    assert packed.scores(given[5]).shape == (2,)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((3, 4)), ValueError, r"x has shape \(3, 4\); accepted: \(samples, 5\) or \(5,\)"),
        (np.zeros((2, 3, 5)), ValueError, "x has shape"),
        (np.full((3, 5), 0.5), ValueError, "x has values other than 0 and 1"),
        (np.full((3, 5), np.nan), ValueError, "x has values other than 0 and 1"),
        (np.full((3, 5), 2, np.uint8), ValueError, "x has values other than 0 and 1"),
        (np.full((600, 5), 255, np.uint8), ValueError, "x has values other than 0 and 1"),
        (np.full((3, 5), -1), ValueError, "x has values other than 0 and 1"),
        (np.zeros((3, 5), complex), TypeError, "x has dtype complex128"),
        ("01011", ValueError, "x has shape"),
    ],
)
def test_bad_samples(x, error, message, backend):
    packed = ln.PackedLogic(random_netlist(1, 5, 9, 4), 2)
    for call in (packed.evaluate, packed.scores, packed.predict):
        with pytest.raises(error, match=message):
            call(x)


def test_a_circuit_has_no_classes():
    packed = ln.Circuit.half_adder().pack()
    for call in (packed.scores, packed.predict):
        with pytest.raises(ValueError, match="circuit without classes; accepted: evaluate"):
            call([[0, 1]])


# ---- C and Verilog ----


def compiled(path, tmp_path):
    """The exported C file, compiled without a warning, as a library."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler")
    library = tmp_path / "network.so"
    subprocess.run(
        [compiler, "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion",
         "-shared", "-fPIC", path, "-o", library],
        check=True,
    )  # fmt: skip
    return ctypes.CDLL(str(library))


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


@pytest.mark.parametrize(("inputs", "gates", "outputs"), [(1, 0, 2), (5, 20, 4), (40, 500, 60)])
def test_c_export(inputs, gates, outputs, tmp_path):
    packed = ln.PackedLogic(random_netlist(3, inputs, gates, outputs), 2)
    packed.to_c(tmp_path / "network.c", name="mine")
    assert [p.name for p in tmp_path.iterdir()] == ["network.c"]
    library = compiled(tmp_path / "network.c", tmp_path)
    for count in (1, 64, 700):
        x = bits(count, count, inputs)
        y = np.empty((count, outputs), np.uint8)
        scores, labels = np.empty((count, 2), np.int32), np.empty(count, np.int32)
        n = ctypes.c_size_t(count)
        library.mine_evaluate(pointer(x), n, pointer(y))
        library.mine_predict(pointer(x), n, pointer(scores), pointer(labels))
        assert np.array_equal(y, packed.evaluate(x))
        assert np.array_equal(scores, packed.scores(x))
        assert np.array_equal(labels, packed.predict(x))


def simulated(source, bench, tmp_path):
    """Words that the test bench prints, a list a line."""
    compiler = shutil.which("iverilog")
    if not compiler:
        pytest.skip("Icarus Verilog is not installed (Debian: apt install iverilog)")
    (tmp_path / "bench.v").write_text(bench, encoding="ascii")
    program = tmp_path / "bench.vvp"
    done = subprocess.run(
        [compiler, "-g2001", "-Wall", "-o", program, source, tmp_path / "bench.v"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "warning" not in done.stderr, done.stderr
    run = subprocess.run(["vvp", "-n", program], check=True, capture_output=True, text=True)
    return [line.split() for line in run.stdout.splitlines()]


@pytest.mark.parametrize(
    ("inputs", "gates", "outputs", "classes"),
    [(2, 0, 2, 2), (5, 20, 4, 2), (20, 200, 30, 3), (9, 40, 35, 5)],
)
def test_verilog_export(inputs, gates, outputs, classes, tmp_path):
    packed = ln.PackedLogic(random_netlist(7, inputs, gates, outputs), classes)
    packed.to_verilog(tmp_path / "network.v", name="mine")
    x = bits(7, 60, inputs)
    (tmp_path / "x.txt").write_text("\n".join("".join(map(str, row[::-1])) for row in x) + "\n")
    width = (outputs // classes).bit_length()
    bench = f"""
    module bench;
        reg [{inputs - 1}:0] samples [0:59];
        reg [{inputs - 1}:0] x;
        wire [{outputs - 1}:0] y;
        wire [{classes * width - 1}:0] scores;
        wire [{max(1, (classes - 1).bit_length()) - 1}:0] label;
        integer i;
        mine dut(.x(x), .y(y), .scores(scores), .label(label));
        initial begin
            $readmemb("{tmp_path / "x.txt"}", samples);
            for (i = 0; i < 60; i = i + 1) begin
                x = samples[i];
                #1 $display("%b %b %0d", y, scores, label);
            end
        end
    endmodule
    """
    found = simulated(tmp_path / "network.v", bench, tmp_path)
    assert len(found) == 60
    y = [[int(bit) for bit in row[0][::-1]] for row in found]
    assert np.array_equal(y, packed.evaluate(x))
    scores = [
        [int(row[1], 2) >> (k * width) & (2**width - 1) for k in range(classes)] for row in found
    ]
    assert np.array_equal(scores, packed.scores(x))
    assert np.array_equal([int(row[2]) for row in found], packed.predict(x))


def test_verilog_of_a_circuit(tmp_path):
    circuit = ln.Circuit.adder(3)
    circuit.to_verilog(tmp_path / "adder.v", name="adder")
    ports = ", ".join(f".a{i}(a[{i}]), .b{i}(b[{i}]), .sum{i}(s[{i}])" for i in range(3))
    bench = f"""
    module bench;
        reg [2:0] a, b;
        wire [3:0] s;
        integer i;
        adder dut({ports}, .carry(s[3]));
        initial for (i = 0; i < 64; i = i + 1) begin
            {{a, b}} = i;
            #1 $display("%0d %0d %0d", a, b, s);
        end
    endmodule
    """
    found = simulated(tmp_path / "adder.v", bench, tmp_path)
    assert len(found) == 64
    assert all(int(a) + int(b) == int(s) for a, b, s in found)


@pytest.mark.parametrize("name", ["", "9lives", "a-b", "while", "module", "a b", "é", 3])
def test_names_of_exports(name, tmp_path):
    packed = ln.Circuit.half_adder().pack()
    for write in (packed.to_c, packed.to_verilog):
        with pytest.raises((ValueError, TypeError), match="name is"):
            write(tmp_path / "x", name=name)
    assert not list(tmp_path.iterdir())
