"""LogicNetwork: connections, training, files, bad input."""

import json
import tracemalloc

import numpy as np
import pytest
import reference_logic as reference

import loopnest as ln
from loopnest.logic import files, training
from loopnest.logic.network import unique_pairs
from loopnest.logic.packed import all_samples
from loopnest.runtime import threads


def rule(samples=300, seed=0):
    """Two classes by a rule of five bits."""
    x = np.random.default_rng(seed).integers(0, 2, (samples, 5)).astype(np.uint8)
    return x, ((x[:, 0] & x[:, 1]) ^ x[:, 3]).astype(np.int64)


def network(seed=0, **options):
    return ln.LogicNetwork(5, [10, 24, 16], 2, seed=seed, tau=2.0, **options)


def trained(**options):
    x, y = rule()
    net = network()
    return net.fit(x, y, **{"epochs": 6, "batch_size": 50, "progress": False, **options})


# ---- connections ----


@pytest.mark.parametrize(
    ("inputs", "neurons"), [(2, 1), (5, 10), (5, 9), (16, 8), (40, 100), (300, 1000), (1000, 250)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_connections_are_unique_and_spread(inputs, neurons, seed):
    pairs = unique_pairs("test", inputs, neurons, np.random.default_rng(seed))
    assert pairs.shape == (neurons, 2)
    assert pairs.min() >= 0 and pairs.max() < inputs
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len({tuple(sorted(p)) for p in pairs.tolist()}) == neurons
    assert (np.diff(pairs[:, 0]) >= 0).all()
    used = np.bincount(pairs.reshape(-1), minlength=inputs)
    if 4 * neurons <= inputs * (inputs - 1) // 2:
        assert used.max() - used.min() <= 1


def test_the_seed_decides():
    assert np.array_equal(network(3).left, network(3).left)
    assert not np.array_equal(network(3).right, network(4).right)
    last = network().left[-16:].reshape(2, 8)
    assert (np.diff(last, axis=1) >= 0).all()  # sorted within each class


def test_residual_initialisation_passes_the_left_input():
    net = network()
    assert np.allclose(reference.shares(net.logits)[3], 0.9)
    assert set(net.functions) == {3}
    assert network(init="random").logits.std() > 0.5


# ---- training ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_learns_a_rule(dtype, backend):
    x, y = rule()
    net = network(dtype=dtype).fit(x, y, epochs=60, batch_size=50, lr=0.05, progress=False)
    everything = all_samples(5)
    assert net.accuracy(everything, (everything[:, 0] & everything[:, 1]) ^ everything[:, 3]) == 1
    assert net.logits.dtype == dtype
    assert [h["epoch"] for h in net.history] == list(range(1, 61))
    assert net.history[-1]["loss"] < net.history[0]["loss"]
    hard = reference.outputs(net.netlist(), x).reshape(len(x), 2, 8).sum(axis=2)
    assert np.array_equal(net.scores(x), hard)
    packed = net.pack()
    assert packed.gates < packed.gates_before == 50
    assert np.array_equal(packed.predict(x), net.predict(x))


def test_bits_do_not_depend_on_backend_or_threads(monkeypatch):
    monkeypatch.setattr(threads, "SERIAL_BELOW", 0)
    found = set()
    for name in ln.available_backends():
        for workers in (1, 3):
            monkeypatch.setattr(threads, "_count", workers)
            with ln.use_backend(name):
                net = trained()
                losses = [(h["loss"], h["accuracy"]) for h in net.history]
                found.add((net.logits.tobytes(), str(losses)))
    assert len(found) == 1


def test_the_best_hard_network_is_kept():
    x, y = rule()
    net = network().fit(x[:200], y[:200], validation=(x[200:], y[200:]), epochs=25,
                        batch_size=20, lr=0.3, progress=False)  # fmt: skip
    best = max(h["accuracy"] for h in net.history)
    assert net.accuracy(x[200:], y[200:]) == best
    assert net.history[-1]["accuracy"] <= best


def test_early_stop():
    x, y = rule()
    net = network().fit(x, y, epochs=500, batch_size=50, lr=0.05, patience=5, progress=False)
    accuracies = [h["accuracy"] for h in net.history]
    assert len(accuracies) == accuracies.index(max(accuracies)) + 1 + 5 < 500


def test_no_epochs_change_nothing():
    assert np.array_equal(trained(epochs=0).logits, network().logits)


def test_progress_is_shown(capsys):
    trained(progress=True, epochs=2)
    assert "hard accuracy" in capsys.readouterr().out
    trained(progress=False, epochs=2)
    assert capsys.readouterr().out == ""


# ---- checkpoints ----


class Interrupted(Exception):
    pass


def interrupt_after(monkeypatch, epochs):
    """Let training fail in the middle of a later epoch."""
    original = training.Engine.gradient
    steps = [0]

    def gradient(self, x, y):
        steps[0] += 1
        if steps[0] > 6 * epochs + 2:
            raise Interrupted
        return original(self, x, y)

    monkeypatch.setattr(training.Engine, "gradient", gradient)


def test_resumed_to_the_same_bits(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    whole = trained(epochs=8)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(Interrupted):
            trained(epochs=8, checkpoint=path)
    kept = ln.LogicNetwork.load(path)
    assert len(kept.history) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
    resumed = trained(epochs=8, checkpoint=path)
    assert resumed.logits.tobytes() == whole.logits.tobytes()
    plain = [{k: v for k, v in h.items() if k != "seconds"} for h in whole.history]
    assert [{k: v for k, v in h.items() if k != "seconds"} for h in resumed.history] == plain
    again = trained(epochs=8, checkpoint=path)  # nothing is left to do
    assert again.logits.tobytes() == whole.logits.tobytes()
    longer = trained(epochs=10, checkpoint=path)
    assert longer.logits.tobytes() == trained(epochs=10).logits.tobytes()


def test_a_failed_write_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    trained(epochs=2, checkpoint=path)
    before = path.read_bytes()

    def full_disk(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        trained(epochs=4, checkpoint=path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.npz"
    trained(checkpoint=path)
    for change in ({"lr": 0.5}, {"batch_size": 10}):
        with pytest.raises(ValueError, match="is of another run"):
            trained(checkpoint=path, epochs=9, **change)
    x, y = rule(seed=5)
    with pytest.raises(ValueError, match="resume=False to start anew"):
        network().fit(x, y, checkpoint=path, progress=False)
    network().fit(x, y, checkpoint=path, resume=False, epochs=1, progress=False)
    network().save(path)
    with pytest.raises(ValueError, match="is no whole checkpoint"):
        trained(checkpoint=path)


# ---- files ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_save_and_load(tmp_path, dtype):
    x, y = rule()
    net = network(dtype=dtype).fit(x, y, epochs=2, progress=False)
    net.save(tmp_path / "net.npz")
    back = ln.LogicNetwork.load(tmp_path / "net.npz")
    assert back.config() == net.config() and back.history == net.history
    assert back.logits.tobytes() == net.logits.tobytes()
    assert np.array_equal(back.predict(x), net.predict(x))
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]
    more = back.fit(x, y, epochs=1, progress=False)
    assert more.logits.tobytes() == net.fit(x, y, epochs=1, progress=False).logits.tobytes()


def rewritten(path, **changes):
    """The file with some entries replaced; header is a dict of changes."""
    with np.load(path) as file:
        entries = dict(file)
    header = json.loads(str(entries["header"])) | changes.pop("header", {})
    np.savez(path, **{**entries, "header": np.array(json.dumps(header)), **changes})


def test_damaged_files(tmp_path):
    path = tmp_path / "net.npz"
    network().save(path)
    whole = path.read_bytes()
    with pytest.raises(FileNotFoundError):
        ln.LogicNetwork.load(tmp_path / "nothing.npz")
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"LogicNetwork.load: .*net.npz' is (damaged|no)"):
            ln.LogicNetwork.load(path)
    for at in range(0, len(whole), 97):  # a flipped byte is found, or does not matter
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            loaded = ln.LogicNetwork.load(path)
        except ValueError:
            continue
        assert np.isfinite(loaded.logits).all()
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="is damaged"):
        ln.LogicNetwork.load(path)


def test_sizes_are_known_before_anything_is_unpacked(tmp_path, monkeypatch):
    """Entries larger than the header says, of another name, or larger than max_bytes stay packed."""
    path = tmp_path / "net.npz"
    net = network()
    net.save(path)
    with np.load(path) as file:
        entries = dict(file)
    huge = np.zeros((16, 4_000_000), np.float32)  # 256 MB, a few hundred KB in the file
    for more in ({"extra": huge}, {"logits": huge}, {"left": huge}):
        np.savez_compressed(path, **{**entries, **more})
        tracemalloc.start()
        if "extra" in more:
            ln.LogicNetwork.load(path)
        else:
            with pytest.raises(ValueError, match="LogicNetwork.load: .*is damaged in its entry"):
                ln.LogicNetwork.load(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
        tracemalloc.stop()
    net.save(path)
    with pytest.raises(ValueError, match="its arrays have 3600 bytes; accepted: max_bytes, 3599"):
        ln.LogicNetwork.load(path, max_bytes=3599)
    assert ln.LogicNetwork.load(path, max_bytes=3600).logits.tobytes() == net.logits.tobytes()


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "[]", '{"format": []}', "{", "\ud800"])
def test_headers_that_are_none(tmp_path, text):
    path = tmp_path / "net.npz"
    network().save(path)
    with np.load(path) as file:
        np.savez(path, **{**dict(file), "header": np.array(text)})
    with pytest.raises(ValueError, match="LogicNetwork.load: "):
        ln.LogicNetwork.load(path)


def test_no_pickle(tmp_path):
    path = tmp_path / "net.npz"
    np.savez(path, header=np.array([{"format": "x"}], dtype=object))
    with pytest.raises(ValueError, match="is damaged"):
        ln.LogicNetwork.load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"header": {"version": 2}}, "has version 2, this loopnest reads up to 1"),
        ({"header": {"version": "1"}}, "has version '1'"),
        ({"header": {"format": "other"}}, "holds 'other'"),
        ({"header": {"layers": [10, 24, 17]}}, "is damaged"),
        ({"header": {"layers": []}}, "is damaged"),
        ({"header": {"layers": [10**9, 24, 16]}}, "is damaged"),
        ({"header": {"classes": 3}}, "is damaged"),
        ({"header": {"tau": None}}, "is damaged"),
        ({"header": {"dtype": "int8"}}, "is damaged"),
        ({"header": {"inputs": 3}}, "points outside its layer"),
        ({"left": np.full(50, -1, np.int32)}, "points outside its layer"),
        ({"left": np.zeros(49, np.int32)}, "is damaged"),
        ({"left": np.zeros(50)}, "is damaged"),
        ({"left": np.zeros(50, np.int32), "right": np.zeros(50, np.int32)}, "the same row"),
        ({"logits": np.full((16, 50), np.nan, np.float32)}, "not finite"),
        ({"logits": np.zeros((16, 50))}, "is damaged"),
    ],
)
def test_wrong_contents(tmp_path, changes, message):
    path = tmp_path / "net.npz"
    network().save(path)
    rewritten(path, **changes)
    with pytest.raises(ValueError, match=message):
        ln.LogicNetwork.load(path)


def test_exports(tmp_path):
    net = trained()
    net.to_c(tmp_path / "net.c")
    net.to_verilog(tmp_path / "net.v")
    assert "network_predict" in (tmp_path / "net.c").read_text()
    assert "module network" in (tmp_path / "net.v").read_text()


@pytest.mark.parametrize(("inputs", "neurons"), [(7, 40), (7, 21), (5, 12), (2, 9), (4, 24)])
def test_more_gates_than_pairs_of_inputs(inputs, neurons, tmp_path):
    """Every pair is used equally often, as far as that can be; the gates on a pair may differ."""
    classes = 1 + neurons % 2
    net = ln.LogicNetwork(inputs, [neurons, 2 * classes], 2, seed=3)
    left, right = net.left[:neurons], net.right[:neurons]
    assert (left != right).all()
    low, high = np.minimum(left, right), np.maximum(left, right)
    _, counts = np.unique(low * inputs + high, return_counts=True)
    pairs = inputs * (inputs - 1) // 2
    assert len(counts) == min(pairs, neurons) and np.ptp(counts) == bool(neurons % pairs)
    assert (
        ln.LogicNetwork(inputs, [neurons, 2 * classes], 2, seed=3).left.tolist()
        == net.left.tolist()
    )
    x = np.random.default_rng(0).integers(0, 2, (64, inputs))
    y = x[:, 0] & x[:, 1]
    net.logits = np.random.default_rng(1).standard_normal((16, net.neurons)).astype(np.float32)
    net.fit(x, y, epochs=3, progress=False)
    assert (
        len({*zip(low, high, net.functions[:neurons], strict=True)}) > len(counts)
        or pairs >= neurons
    )
    net.save(tmp_path / "net.npz")
    back = ln.LogicNetwork.load(tmp_path / "net.npz")
    assert np.array_equal(back.scores(x), net.pack().scores(x))


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((1, [4], 2), {}, ValueError, "inputs is 1; accepted: integers from 2"),
        ((2.5, [4], 2), {}, TypeError, "inputs is 2.5"),
        ((5, 10, 2), {}, TypeError, "layers is 10; accepted: a sequence"),
        ((5, [], 2), {}, ValueError, "layers is empty"),
        ((5, [4, 0], 2), {}, ValueError, "layers is 0"),
        ((5, [4, 5], 2), {}, ValueError, "the last of layers is 5 with 2 classes; accepted: a mul"),
        ((5, [4], 1), {}, ValueError, "classes is 1"),
        ((5, [1, 8], 2), {}, ValueError, "8 neurons on 1 input; accepted: at least 2 inputs"),
        ((5, [4], 2), {"tau": 0}, ValueError, "tau is 0"),
        ((5, [4], 2), {"tau": "hot"}, TypeError, "tau is 'hot'"),
        ((5, [4], 2), {"seed": -1}, ValueError, "seed is -1"),
        ((5, [4], 2), {"init": "zero"}, ValueError, "init is 'zero'; accepted: 'residual'"),
        ((5, [4], 2), {"dtype": int}, TypeError, "accepted: float32 or float64"),
        ((5, [4], 2), {"dtype": "??"}, TypeError, "accepted: float32 or float64"),
    ],
)
def test_bad_networks(arguments, options, error, message):
    with pytest.raises(error, match=message):
        ln.LogicNetwork(*arguments, **options)


X, Y = rule(20)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X + 0.5}, ValueError, "x has values other than 0 and 1"),
        ({"x": X * 2}, ValueError, "x has values other than 0 and 1"),
        ({"x": X[:, :4]}, ValueError, r"x has shape \(20, 4\); accepted: \(samples, 5\)"),
        ({"x": X[0]}, ValueError, "x has shape"),
        ({"x": X.astype(complex)}, TypeError, "x has dtype complex128"),
        ({"x": X[:0], "y": Y[:0]}, ValueError, "x has no samples"),
        ({"y": Y + 1}, ValueError, "y has labels from 1 to 2; accepted: 0 to 1"),
        ({"y": Y - 1}, ValueError, "y has labels from -1 to 0"),
        ({"y": Y.astype(float)}, TypeError, "y has dtype float64"),
        ({"y": Y[:5]}, ValueError, r"y has shape \(5,\)"),
        ({"validation": X}, TypeError, "validation is a ndarray; accepted: a pair"),
        ({"validation": (X, Y + 1)}, ValueError, "validation y has labels"),
        ({"validation": (X[:, :2], Y)}, ValueError, "validation x has shape"),
        ({"validation": (X[:0], Y[:0])}, ValueError, "validation x has no samples"),
        ({"epochs": -1}, ValueError, "epochs is -1"),
        ({"epochs": 1.5}, TypeError, "epochs is 1.5"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"lr": -0.1}, ValueError, "lr is -0.1"),
        ({"lr": np.nan}, ValueError, "lr is nan"),
        ({"patience": 0}, ValueError, "patience is 0"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every is 0"),
    ],
)
def test_bad_fits(change, error, message):
    net = network()
    before = net.logits.copy()
    with pytest.raises(error, match=message):
        net.fit(**{"x": X, "y": Y, "epochs": 1, "progress": False, **change})
    assert np.array_equal(net.logits, before)
