"""Copies and pickles of all that users can hold: whole, and with memory of their own."""

from __future__ import annotations

import copy
import pickle

import numba
import numpy as np
import pytest
import reference
from helpers import assert_same_bits

import loopnest as ln


def through_pickle(value):
    return pickle.loads(pickle.dumps(value))


@pytest.fixture(
    params=[copy.copy, copy.deepcopy, through_pickle], ids=["copy", "deepcopy", "pickle"]
)
def copied(request):
    return request.param


def images(dtype=np.float32):
    return ln.Sequential(
        *(ln.Conv2d(2, 3, 3, padding=1), ln.BatchNorm2d(3), ln.ReLU(), ln.MaxPool2d(2)),
        *(ln.Flatten(), ln.Linear(12, 4), ln.Tanh(), ln.Linear(4, 3)),
        input_shape=(2, 4, 4),
        dtype=dtype,
    )


def expected(net, x):
    """The outputs of `images`, in float64."""
    p = {k: v.astype(float) for k, v in net.parameters.items()}
    b = {k.split(".")[1]: v.astype(float)[:, None, None] for k, v in net.buffers.items()}
    h = reference.conv2d(x.astype(float), p["0.weight"], p["0.bias"], padding=1)
    h = (h - b["running_mean"]) / np.sqrt(b["running_var"] + 1e-5) * b["weight"] + b["bias"]
    h = reference.max_pool2d(np.maximum(h, 0), 2).reshape(len(x), -1)
    return np.tanh(h @ p["5.weight"] + p["5.bias"]) @ p["7.weight"] + p["7.bias"]


def train(net, x, target, steps=30):
    first, second = np.zeros_like(net.vector), np.zeros_like(net.vector)
    losses = []
    for step in range(1, steps + 1):
        loss, gradients = net.gradient(x, target)
        ln.adam_step(net.vector, gradients.vector, first, second, step=step, lr=0.05)
        losses.append(loss)
    return losses


@pytest.mark.parametrize("used", ["new", "called", "trained"])
def test_networks(used, copied, dtype, rng, backend):
    net = images(dtype)
    x = rng.standard_normal((6, 2, 4, 4)).astype(dtype)
    target = np.arange(6) % 3
    net.buffers["1.running_mean"][...] = [0.5, -0.5, 1]
    if used != "new":
        net(x)
    if used == "trained":
        train(net, x, target, 3)
    before, vector = net(x), net.vector.copy()
    twin = copied(net)
    assert_same_bits(twin(x), before)
    assert all(np.shares_memory(v, twin.vector) for v in twin.parameters.values())
    assert not np.shares_memory(twin.vector, net.vector)
    losses = train(twin, x, target)
    assert losses[-1] < losses[0] * 0.7
    assert_same_bits(net(x), before)
    assert_same_bits(net.vector, vector)
    # A batch size that was seen before, and one that was not.
    for rows in (6, 4):
        np.testing.assert_allclose(twin(x[:rows]), expected(twin, x[:rows]), 2e-4, 2e-5)
    twin.buffers["1.bias"][...] = 3
    np.testing.assert_allclose(twin(x), expected(twin, x), 2e-4, 2e-5)
    assert_same_bits(net(x), before)


def test_a_network_and_its_vector_stay_together(rng):
    net = images()
    twin, vector = copy.deepcopy((net, net.vector))
    assert twin.vector is vector


@pytest.mark.parametrize("frozen", [True, False])
def test_networks_from_onnx(frozen, copied, rng, backend):
    onnx = pytest.importorskip("onnx")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    arrays = {"w": (3, 2, 3, 3), "b": (3,), "s": (3,), "m": (3,), "v": (3,)}
    arrays = {k: rng.uniform(0.5, 1, shape).astype("f4") for k, shape in arrays.items()}
    nodes = [
        helper.make_node("BatchNormalization", ["x", "p", "p", "p", "p"], ["n"]),
        helper.make_node("Conv", ["n", "w", "b"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("BatchNormalization", ["r", "s", "s", "m", "v"], ["y"]),
    ]
    arrays["p"] = np.array([2, 3], "f4")
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", real, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("y", real, ["n", 3, 2, 2])],
        [onnx.numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    net = ln.load_onnx(model, frozen=frozen)
    x = rng.standard_normal((2, 2, 4, 4)).astype("f4")

    def right(s, bias):
        a = {k: v.astype(float)[:, None, None] for k, v in arrays.items() if v.ndim == 1}
        h = (x - a["p"]) / np.sqrt(a["p"] + 1e-5) * a["p"] + a["p"]
        h = np.maximum(reference.conv2d(h, arrays["w"].astype(float)) + bias, 0)
        return (h - a["m"]) / np.sqrt(a["v"] + 1e-5) * s + s

    scale, bias = (arrays[k].astype(float)[:, None, None] for k in "sb")
    np.testing.assert_allclose(net(x), right(scale, bias), 1e-4, 1e-4)
    twin = copied(net)
    assert_same_bits(twin(x), net(x))
    assert twin.frozen is frozen
    names = {**twin.parameters, **twin.buffers}
    assert not any(np.shares_memory(v, net.parameters.get(k, v[:0])) for k, v in names.items())
    if frozen:
        for value in names.values():
            with pytest.raises(ValueError, match="read-only|WRITEABLE"):
                value.setflags(write=True)
                value[...] = 0
        return
    assert not {"s", "m", "v", "p"} & set(twin.parameters)  # nothing trains them
    twin.buffers["s"] = [4, 5, 6]
    twin.parameters["b"] += 1
    shown = right(np.array([4.0, 5, 6])[:, None, None], bias + 1)
    np.testing.assert_allclose(twin(x), shown, 1e-4, 1e-4)
    np.testing.assert_allclose(net(x), right(scale, bias), 1e-4, 1e-4)


def test_gradients_and_tapes(copied, rng, backend):
    net = images()
    x = rng.standard_normal((5, 2, 4, 4)).astype("f4")
    y, tape = net.forward(x)
    dy = rng.standard_normal(y.shape).astype("f4")
    twin = copied(tape)
    dx, gradients = net.backward(dy, tape)
    tape._executor._block[...] = np.nan  # the twin has arrays of its own
    again, same = twin.network.backward(dy, twin)
    assert_same_bits(again, dx)
    assert_same_bits(same.vector, gradients.vector)
    other = copied(gradients)
    assert list(other) == list(gradients)
    for name, value in other.items():
        assert_same_bits(value, gradients[name])
        assert np.shares_memory(value, other.vector)
    assert not np.shares_memory(other.vector, gradients.vector)


def test_weights_by_name_become_plain_copies(copied):
    net = images()
    found = copied(net.parameters)
    assert type(found) is dict and list(found) == list(net.parameters)


@pytest.mark.parametrize("shape", [(5, 4, 3, 3), (7, 5), (0, 3)])
def test_packed_weights(shape, copied, dtype, rng, backend):
    weight = rng.standard_normal(shape).astype(dtype)
    handle = ln.pack_weight(weight)
    twin = copied(handle)
    x = rng.standard_normal((2, 4, 6, 6) if len(shape) == 4 else (3, shape[0])).astype(dtype)
    call = ln.conv2d if len(shape) == 4 else ln.linear
    assert_same_bits(call(x, twin), call(x, weight))
    assert (twin.shape, twin.dtype, twin.groups) == (handle.shape, handle.dtype, handle.groups)


def dense(x, handle):
    return ln.linear(x, handle)


def test_packed_weights_never_change(rng):
    weight = rng.standard_normal((7, 5)).astype("f4")
    handle = ln.pack_weight(weight)
    x = rng.standard_normal((3, 7)).astype("f4")
    right = numba.njit(dense)(x, handle)
    small = np.zeros(1, "f4")

    def change_shape():
        handle.weight.shape = (35,)
        handle.packed().shape = (1, handle.packed().size)
        raise AttributeError("but of a view alone")

    changes = [
        lambda: setattr(handle, "weight", small),
        lambda: setattr(handle, "_weight", small),
        lambda: setattr(handle, "_packed", {"numba": small}),
        lambda: setattr(handle, "groups", 3),
        lambda: setattr(handle, "another", 3),
        lambda: delattr(handle, "_weight"),
        lambda: handle._packed.__setitem__("numba", small),
        lambda: handle._packed.update(numba=small),
        lambda: handle._packed.clear(),
        lambda: handle._packed.pop("numba"),
        lambda: handle.weight.__setitem__(0, 1),
        lambda: handle.weight.setflags(write=True),
        lambda: handle.packed().setflags(write=True),
        lambda: handle.numba_packed.setflags(write=True),
        lambda: handle.__init__(small.reshape(1, 1)),
        change_shape,
    ]
    for change in changes:
        with pytest.raises((AttributeError, TypeError, ValueError)):
            change()
        assert_same_bits(numba.njit(dense)(x, handle), right)
        assert_same_bits(ln.linear(x, handle), right)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 2), complex), np.zeros((2, 2, 2))])
def test_a_handle_is_checked_when_it_is_made(bad):
    with pytest.raises((TypeError, ValueError), match="pack_weight"):
        ln.PackedWeight(bad, 1)


@pytest.mark.parametrize("trained", [False, True])
def test_logic_networks(trained, copied, rng, backend):
    net = ln.LogicNetwork(6, [12, 8], 2, seed=3)
    x = rng.integers(0, 2, (40, 6)).astype(np.uint8)
    if trained:
        net.fit(x, x[:, 0].astype(int), epochs=2)
    twin, scores = copied(net), net.scores(x)
    assert twin.config() == net.config() and twin.history == net.history
    assert_same_bits(twin.scores(x), scores)
    twin.logits[...] = rng.standard_normal(twin.logits.shape)
    assert_same_bits(net.scores(x), scores)
    packed = net.pack()
    again = copied(packed)
    assert_same_bits(again.scores(x), packed.scores(x))
    assert_same_bits(again.evaluate(x), packed.evaluate(x))


@pytest.mark.parametrize("learned", [False, True])
def test_gates(learned, copied, dtype, backend):
    gate = ln.Gate.train("and", steps=300) if learned else ln.gate("xor")
    twin = copied(gate)
    assert_same_bits(twin.weights(dtype), gate.weights(dtype))
    for (w, b), (other_w, other_b) in zip(twin.layers, gate.layers, strict=True):
        assert np.array_equal(w, other_w) and np.array_equal(b, other_b)
        assert not np.shares_memory(w, other_w) and not np.shares_memory(b, other_b)


def test_circuits(copied, backend):
    circuit = ln.Circuit.adder(3)
    twin = copied(circuit)
    assert np.array_equal(twin.truth_table(), circuit.truth_table())
    bits = {name: np.array([0, 1, 1]) for name in circuit.inputs}
    for by in ("bits", "neurons"):
        first, other = circuit.evaluate(bits, by=by), twin.evaluate(bits, by=by)
        assert list(first) == list(other)
        assert all(np.array_equal(first[k], other[k]) for k in first)


def test_thermometers(copied):
    encoding = ln.Thermometer([[0.2, 0.5], [0.3, 0.7]])
    twin, x = copied(encoding), np.array([[0.1, 0.6], [0.6, 0.8]])
    assert_same_bits(twin(x), encoding(x))
    twin.thresholds[...] = 5
    assert encoding.thresholds[0, 0] == 0.2


def test_results_of_descend(copied, backend):
    found = ln.descend("silu", np.array([1.0, 2.0, 3.0]), lr=0.1, steps=20, record=5)
    twin = copied(found)
    assert_same_bits(twin.x, found.x)
    assert_same_bits(twin.trajectory, found.trajectory)
    assert not np.shares_memory(twin.x, found.x)
    assert twin.path == found.path and twin.path.reason == found.path.reason
