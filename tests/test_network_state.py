"""One rule: calls, compiled functions and gradients follow weights and buffers, however changed."""

from __future__ import annotations

import re
import subprocess
import weakref

import numba
import numpy as np
import pytest
import reference
from helpers import assert_same_bits

import loopnest as ln


def make(dtype=np.float32):
    """Normalisations before, behind and beside a convolution, two of them in a residual block."""
    block = ln.Sequential(ln.Conv2d(2, 2, 3, padding=1), ln.BatchNorm2d(2))
    return ln.Sequential(
        ln.BatchNorm2d(2),
        ln.Conv2d(2, 2, 1),
        ln.Add(block, ln.Identity()),
        ln.ReLU(),
        ln.Flatten(),
        ln.Linear(18, 3),
        input_shape=(2, 3, 3),
        dtype=dtype,
    )


def right(net, x):
    """The outputs in float64, from the weights as they are."""
    w = {k: v.astype(float) for k, v in {**net.parameters, **net.buffers}.items()}

    def norm(x, name):
        a = {k: w[f"{name}.{k}"][:, None, None] for k in ("weight", "bias")}
        mean, var = (w[f"{name}.running_{k}"][:, None, None] for k in ("mean", "var"))
        return (x - mean) / np.sqrt(var + 1e-5) * a["weight"] + a["bias"]

    h = reference.conv2d(norm(x.astype(float), "0"), w["1.weight"], w["1.bias"])
    inner = reference.conv2d(h, w["2.0.0.weight"], w["2.0.0.bias"], padding=1)
    h = np.maximum(norm(inner, "2.0.1") + h, 0)
    return h.reshape(len(x), -1) @ w["5.weight"] + w["5.bias"]


def loss_of(logits, target):
    z = logits - logits.max(1, keepdims=True)
    return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), target])


@numba.njit
def adam_in_njit(vector, grad, m, v):
    ln.adam_step(vector, grad, m, v, step=1, lr=0.5)


def in_place(net, rng):
    net.parameters["1.weight"][...] = rng.standard_normal((2, 2, 1, 1))


def a_buffer_in_place(net, rng):
    net.buffers["2.0.1.bias"][...] = 100


def variance_in_place(net, rng):
    net.buffers["0.running_var"][...] = [4, 0.25]


def through_vector(net, rng):
    net.vector[...] = rng.standard_normal(net.vector.shape)


def vector_in_place_by_name(net, rng):
    net.vector *= -2


def vector_replaced(net, rng):
    net.vector = rng.standard_normal(net.vector.shape)


def entry_replaced(net, rng):
    net.parameters["5.bias"] = rng.standard_normal(3).astype("f4")


def entry_by_an_operator(net, rng):
    net.parameters["5.weight"] *= 3


def buffer_entry_replaced(net, rng):
    net.buffers["0.running_mean"] = [3, -3]


def update(net, rng):
    net.buffers.update({"2.0.1.weight": np.full(2, 7.0)})


def load(net, rng):
    state = {k: rng.uniform(0.5, 2, v.shape) for k, v in net.state_dict().items()}
    net.load_state_dict(state)


def optimizer_in_njit(net, rng):
    grad = rng.standard_normal(net.vector.shape).astype(net.dtype)
    adam_in_njit(net.vector, grad, np.zeros_like(grad), np.zeros_like(grad))


CHANGES = [in_place, a_buffer_in_place, variance_in_place, through_vector,
           vector_in_place_by_name, vector_replaced, entry_replaced, entry_by_an_operator,
           buffer_entry_replaced, update, load, optimizer_in_njit]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_ways_follow_all_changes(dtype, rng):
    net = make(dtype)
    forward, gradient = net.njit(), net.njit_gradient(batch=4)
    x = rng.standard_normal((4, 2, 3, 3)).astype(dtype)
    target = np.array([0, 1, 2, 1])
    out = np.empty_like(net.vector)
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    shown = []
    for change in [lambda net, rng: None, *CHANGES]:
        change(net, rng)
        expected = right(net, x)
        scale = np.abs(expected).max()
        with ln.use_backend("c"):
            by_c, (y, _) = net(x), net.forward(x)
        for found in (by_c, net(x), forward(x), y):
            np.testing.assert_allclose(found, expected, tolerance, tolerance * scale)
        assert_same_bits(forward(x), by_c)
        assert_same_bits(net(x), by_c)
        loss, slopes = net.gradient(x, target)
        np.testing.assert_allclose(loss, loss_of(expected, target), tolerance, tolerance * scale)
        assert_same_bits(np.asarray(gradient(x, target, out)), np.asarray(loss))
        assert_same_bits(out, slopes.vector)
        shown.append(by_c)
    assert len({s.tobytes() for s in shown}) == len(shown)  # each change showed


def test_gradients_through_normalisations(rng):
    """Against finite differences, after buffers have changed."""
    net = make(np.float64)
    x, target = rng.standard_normal((3, 2, 3, 3)), np.array([0, 2, 1])
    net.gradient(x, target)
    for value in net.buffers.values():
        value[...] = rng.uniform(0.5, 2, value.shape)
    slopes = net.gradient(x, target)[1].vector
    step, numeric = 1e-6, np.empty_like(slopes)
    for i in range(slopes.size):
        kept, values = net.vector[i], []
        for sign in (1, -1):
            net.vector[i] = kept + sign * step
            values.append(loss_of(right(net, x), target))
        net.vector[i] = kept
        numeric[i] = (values[0] - values[1]) / (2 * step)
    np.testing.assert_allclose(slopes, numeric, 1e-5, 1e-7)


def test_the_exported_file_has_the_weights_of_its_time(tmp_path, rng):
    net = make()
    before = net.to_c(tmp_path / "before.c", name="net").read_text()
    net.buffers["0.bias"][...] = 5
    after = net.to_c(tmp_path / "after.c", name="net").read_text()
    assert before != after
    x = rng.standard_normal((1, 2, 3, 3)).astype("f4")
    main = tmp_path / "main.c"
    main.write_text(
        "#include <stdio.h>\nvoid net_forward(const float *x, float *y);\nint main(void) {\n"
        f"float x[] = {{{', '.join(float(v).hex() for v in x.ravel())}}}, y[3];\n"
        'net_forward(x, y); for (int i = 0; i < 3; i++) printf("%a\\n", y[i]); return 0; }\n'
    )
    command = [
        "cc",
        "-O2",
        "-o",
        str(tmp_path / "run"),
        str(main),
        str(tmp_path / "after.c"),
        "-lm",
    ]
    subprocess.run(command, check=True)
    lines = subprocess.run([tmp_path / "run"], capture_output=True, text=True, check=True).stdout
    assert_same_bits(np.array([float.fromhex(v) for v in lines.split()], "f4"), net(x)[0])


def test_gemm_of_onnx_that_stays_a_gemm_follows_its_weights(rng):
    """C is of a shape that `Linear` has not, B is transposed, alpha and beta count."""
    onnx = pytest.importorskip("onnx")
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    b, c = rng.standard_normal((3, 4)).astype("f4"), rng.standard_normal((2, 1)).astype("f4")
    node = helper.make_node("Gemm", ["x", "b", "c"], ["y"], transB=1, alpha=0.5, beta=2.0)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info("x", real, [2, 4])],
        [helper.make_tensor_value_info("y", real, [2, 3])],
        [onnx.numpy_helper.from_array(b, "b"), onnx.numpy_helper.from_array(c, "c")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    net, x = ln.load_onnx(model, frozen=False), rng.standard_normal((2, 4)).astype("f4")
    forward = net.njit()
    for _ in range(2):
        b, c = net.parameters["b"].astype(float), net.parameters["c"].astype(float)
        expected = 0.5 * x @ b.T + 2 * c
        np.testing.assert_allclose(net(x), expected, 1e-5, 1e-5)
        assert_same_bits(forward(x), net(x))
        slopes = net.backward(np.ones((2, 3), "f4"), x)[1]
        np.testing.assert_allclose(slopes["b"], np.tile(0.5 * x.sum(0), (3, 1)), 1e-5, 1e-5)
        np.testing.assert_allclose(slopes["c"], np.full((2, 1), 6.0), 1e-5)
        net.parameters["b"] *= -3
        net.parameters["c"] += 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda n: n.parameters.__setitem__("none", np.zeros(3)), ValueError, "no weights 'none'"),
        (lambda n: n.parameters.__setitem__("5.bias", np.zeros(4)), ValueError, "shape (4,)"),
        (lambda n: n.parameters.__setitem__("5.bias", 0.0), ValueError, "shape ()"),
        (lambda n: n.parameters.__setitem__("5.bias", np.zeros(3, complex)), TypeError, "complex"),
        (lambda n: n.parameters.pop("5.bias"), TypeError, "removed or added"),
        (lambda n: n.parameters.__delitem__("5.bias"), TypeError, "removed or added"),
        (lambda n: n.buffers.clear(), TypeError, "removed or added"),
        (lambda n: n.buffers.setdefault("new", np.zeros(3)), TypeError, "removed or added"),
        (lambda n: setattr(n, "parameters", {}), AttributeError, "parameters"),
        (lambda n: setattr(n, "buffers", {}), AttributeError, "buffers"),
        (lambda n: setattr(n, "frozen", True), AttributeError, "frozen"),
        (lambda n: setattr(n, "vector", np.zeros(3)), ValueError, "shape (3,)"),
    ],
)
def test_what_cannot_be_changed(change, error, message):
    net = make()
    before, x = net.state_dict(), np.ones((1, 2, 3, 3), "f4")
    y = net(x)
    with pytest.raises(error, match=re.escape(message)):
        change(net)
    assert_same_bits(net(x), y)
    assert all(np.array_equal(v, before[k]) for k, v in net.state_dict().items())


# ---- outputs ----


def two_outputs():
    from loopnest.network.lowering import Node
    from loopnest.network.network import Input, Network

    nodes = [Node("Relu", ("x",), ("y",)), Node("Tanh", ("x",), ("z",))]
    return Network(nodes, [Input("x", (None, 4), np.dtype("f4"))], ["y", "z"], {})


@pytest.mark.parametrize("compiled", [False, True])
def test_two_outputs_in_one_array(compiled, rng, backend):
    net = two_outputs()
    forward = net.njit() if compiled else net
    x, a = rng.standard_normal((3, 4)).astype("f4"), np.full((5, 4), 7, "f4")
    for out in [(a[:3], a[:3]), (a[:3], a[2:]), (a[2:], a[:3])]:
        with pytest.raises(ValueError, match="overlap"):
            forward(x, out=out)
        assert (a == 7).all()
    b = np.empty((6, 4), "f4")
    y, z = forward(x, out=(b[:3], b[3:]))
    assert_same_bits(y, np.maximum(x, 0))
    np.testing.assert_allclose(z, np.tanh(x), 1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_outputs_within_weights(compiled, rng, backend):
    net = make()
    forward = net.njit() if compiled else net
    x, before = rng.standard_normal((2, 2, 3, 3)).astype("f4"), net.state_dict()
    places = [
        net.vector[:6],
        net.vector[-6:],
        net.vector[7:13],
        net.parameters["5.weight"].ravel()[3:9],
    ]
    for place in places:
        with pytest.raises(ValueError, match="overlaps the network's weights"):
            forward(x, out=place.reshape(2, 3))
    with pytest.raises(ValueError, match="overlaps the network's weights"):
        forward(x[0], out=net.parameters["5.bias"])
    assert all(np.array_equal(v, before[k]) for k, v in net.state_dict().items())


def test_an_output_within_a_buffer(rng, backend):
    net = ln.Sequential(ln.BatchNorm2d(4), ln.GlobalAvgPool2d(), ln.Flatten())
    x = rng.standard_normal((1, 4, 2, 2)).astype("f4")
    out = net.buffers["0.running_mean"].reshape(1, 4)
    for forward in (net, net.njit((4, 2, 2))):
        with pytest.raises(ValueError, match="overlaps the network's weights"):
            forward(x, out=out)
    assert not out.any()


def test_gradients_within_what_they_come_from(rng):
    net = make()
    gradient = net.njit_gradient(batch=4)
    size = net.vector.size
    memory = np.zeros(size + 72, "f4")
    x = memory[:72].reshape(4, 2, 3, 3)
    x[...] = rng.standard_normal(x.shape)
    target = np.array([0, 1, 2, 0])
    wide = np.zeros(size, np.int64)
    classes = wide[:4]
    before, x_before = net.vector.copy(), x.copy()
    with pytest.raises(ValueError, match="overlaps the network's weights"):
        gradient(x, target, net.vector)
    with pytest.raises(ValueError, match="overlaps an input"):
        gradient(x, target, memory[:size])
    with pytest.raises(ValueError, match="overlaps an input"):
        gradient(x, classes, wide.view("f4")[:size])
    assert_same_bits(net.vector, before)
    assert_same_bits(x, x_before)
    out = memory[72:]
    loss = gradient(x, target, out)
    again, slopes = net.gradient(x, target)
    assert loss == again
    assert_same_bits(out, slopes.vector)


# ---- memory, sizes ----


@pytest.mark.parametrize("size", [2, 64])
def test_inputs_and_outputs_are_not_kept_alive(size, rng, backend):
    net = ln.Sequential(
        ln.Conv2d(1, 4, 3, padding=1), ln.BatchNorm2d(4),
        ln.Add(ln.Identity(), ln.Conv2d(4, 4, 1)), input_shape=(1, size, size),
    )  # fmt: skip
    for _ in range(3):
        x = rng.standard_normal((1, 1, size, size)).astype("f4")
        out = np.empty((1, 4, size, size), "f4")
        y = net(x)
        net(x, out=out)
        watched = [weakref.ref(a) for a in (x, y, out)]
        del x, y, out
        assert [w() for w in watched] == [None] * 3


def test_a_dense_layer_tells_the_size_of_images(rng):
    net = ln.Sequential(
        *(ln.Conv2d(1, 2, 3), ln.BatchNorm2d(2), ln.ReLU(), ln.Flatten(), ln.Linear(32, 3)),
    )
    forward, gradient = net.njit(), net.njit_gradient(batch=2)
    x = rng.standard_normal((2, 1, 6, 6)).astype("f4")
    assert_same_bits(forward(x), net(x))
    assert gradient(x, np.array([0, 1]), np.empty_like(net.vector)) > 0
    with pytest.raises(ValueError, match=re.escape("accepted: (any, 1, 6, 6)")):
        forward(x[:, :, 1:])


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([ln.Conv2d(3, 2, 3)], "input_shape=(3, 28, 28)"),
        ([ln.Conv2d(1, 2, 3), ln.GlobalAvgPool2d(), ln.Flatten(), ln.Linear(2, 3)], "(1, 28, 28)"),
        ([ln.Conv2d(1, 2, 3), ln.MaxPool2d(2), ln.Flatten(), ln.Linear(32, 3)],
         "images of [10, 11] pixels a side fit"),
        ([ln.Conv2d(1, 2, 3), ln.Flatten(), ln.Linear(30, 3)], "input_shape=(1, 28, 28)"),
    ],
)  # fmt: skip
def test_what_to_write_where_the_size_is_open(layers, message, tmp_path):
    net = ln.Sequential(*layers)
    for call in (net.njit, lambda: net.njit_gradient(batch=2), lambda: net.to_c(tmp_path / "a.c")):
        with pytest.raises(ValueError, match=re.escape(message)):
            call()
