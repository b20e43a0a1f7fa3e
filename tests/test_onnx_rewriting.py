"""Rewritten ONNX graphs give what the graph as it stands gives: NumPy's broadcasting, every name."""

from __future__ import annotations

import numpy as np
import pytest
from test_onnx_hostile import model, node, tensor

import loopnest as ln

NORM = ["s", "b", "m", "v"]


def norm_weights(channels=2):
    """Parameters of a normalisation that gives 1 for x = 0."""
    one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    return {"s": one, "b": one, "m": zero, "v": one}


@pytest.mark.parametrize(
    ("shape", "constant"),
    [
        ((1, 2, 2, 1), (1, 2, 1)), ((1, 2, 3), (2, 1, 1)), ((1, 2, 3), (1, 2, 1)),
        ((1, 2, 2), (2, 1)), ((1, 2, 2), (2,)), ((2, 2), (2,)), ((2, 2), (2, 1)),
        ((2, 2), (1, 2)), ((1, 2, 2, 2), (2, 1, 1)), ((1, 2, 2, 2), (1, 2, 1, 1)),
        ((1, 2, 2, 2, 2), (2, 1, 1)), ((1, 2, 2, 2, 2), (2, 1, 1, 1)),
        ((1, 2, 2, 2), (1, 1, 2, 1, 1)), ((2, 2), (1, 2, 1)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("op", ["Add", "Mul", "Sub", "Div"])
@pytest.mark.parametrize("turned", [False, True])
def test_constants_lie_where_numpy_puts_them(shape, constant, op, turned, backend):
    values = np.array([10, 20], np.float32).reshape(constant)
    function = {"Add": np.add, "Mul": np.multiply, "Sub": np.subtract, "Div": np.divide}[op]
    ones = np.ones(shape, np.float32)
    operands = (values, ones) if turned else (ones, values)
    names = ["c", "n"] if turned else ["n", "c"]
    for sizes in (shape, [None] * len(shape)):
        made = model(
            [node("BatchNormalization", ["x", *NORM], ["n"]), node(op, names, name="m")],
            [tensor("x", sizes)], weights={**norm_weights(), "c": values},
        )  # fmt: skip
        y = ln.load_onnx(made)(np.zeros(shape, np.float32))
        expected = function(*operands)
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("constant", [(1, 3, 1), (3, 1, 1), (1, 3, 1, 1), (3,), (1, 1, 3, 1, 1)])
def test_constants_behind_a_convolution(constant, rng):
    """1-D to 3-D: the channel axis is that of the weight's rank."""
    for rank in (3, 4, 5):
        weight = rng.normal(size=(3, 2, *[1] * (rank - 2))).astype(np.float32)
        shift = rng.normal(size=constant).astype(np.float32)
        x = rng.normal(size=(3, 2, *[3] * (rank - 2))).astype(np.float32)
        made = model(
            [node("Conv", ["x", "w"], ["a"]), node("Add", ["a", "c"], name="m")],
            [tensor("x", x.shape)], weights={"w": weight, "c": shift},
        )  # fmt: skip
        expected = np.einsum("kc,nc...->nk...", weight.reshape(3, 2), x) + shift
        found = ln.load_onnx(made)(x)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_rank_that_is_not_known_folds_nothing():
    """A Reshape whose target is computed hides the number of axes."""
    nodes = [
        node("Squeeze", ["x"], ["q"]),
        node("BatchNormalization", ["q", *NORM], ["n"], name="b"),
        node("Add", ["n", "c"], name="m"),
    ]
    weights = {**norm_weights(), "c": np.array([10, 20], np.float32).reshape(2, 1, 1)}
    net = ln.load_onnx(model(nodes, [tensor("x", [2, 2, 3, 1])], weights=weights))
    y = net(np.zeros((2, 2, 3, 1), np.float32))
    assert y.shape == (2, 2, 3)
    np.testing.assert_allclose(y[:, 0, 0], [11, 21], rtol=1e-5)


def test_names_of_the_graph_are_not_taken_by_new_constants():
    """The folded weight of "y" may not be called as another value is."""
    nodes = [
        node("Relu", ["x"], ["y.weight"], name="r"),
        node("Conv", ["x", "w"], ["a"]),
        node("Mul", ["a", "c"], ["y"], name="m"),
        node("Add", ["y", "y.weight"], ["z"], name="s"),
    ]
    weights = {"w": np.full((1, 1, 1, 1), 2, "f4"), "c": np.full((1, 1, 1, 1), 5, "f4")}
    made = model(nodes, [tensor("x", [1, 1, 1, 3])], [tensor("z", None)], weights)
    y = ln.load_onnx(made)(np.array([[[[-1, 0, 3]]]], np.float32))
    assert y.tolist() == [[[[-10, 0, 33]]]]


def test_names_behind_a_dense_layer():
    nodes = [
        node("Relu", ["x"], ["y.weight.bias"], name="r"),
        node("Gemm", ["x", "w", "b"], ["y"]),
        node("Add", ["y", "y.weight.bias"], ["z"], name="s"),
    ]
    weights = {"w": np.eye(4, dtype="f4"), "b": np.full(4, 7, "f4")}
    y = ln.load_onnx(model(nodes, outputs=[tensor("z", None)], weights=weights))(
        np.array([[-1, 0, 1, 2]], np.float32)
    )
    assert y.tolist() == [[6, 7, 9, 11]]


@pytest.mark.parametrize("factor", [np.inf, np.nan, 1e30, 1e-30])
def test_what_leaves_the_range_of_float32_is_not_folded(factor):
    """w factor is no float32, though (w x) factor is."""
    weight = 1e20 if factor == 1e30 else 1e-20
    x = np.float32(1 / weight)
    nodes = [node("Conv", ["x", "w"], ["a"]), node("Mul", ["a", "c"], name="m")]
    weights = {"w": np.full((1, 1, 1, 1), weight, "f4"), "c": np.full((1, 1, 1), factor, "f4")}
    y = ln.load_onnx(model(nodes, [tensor("x", [1, 1, 1, 1])], weights=weights))(
        x.reshape(1, 1, 1, 1)
    )
    np.testing.assert_allclose(y.reshape(()), np.float32(weight) * x * np.float32(factor), 1e-5)


def test_a_bias_of_a_wrong_shape_is_refused_though_it_would_broadcast():
    nodes = [node("Conv", ["x", "w", "b"], ["a"]), node("Mul", ["a", "c"], name="m")]
    weights = {
        "w": np.ones((2, 1, 1, 1), "f4"),
        "b": np.ones(1, "f4"),
        "c": np.ones((2, 1, 1), "f4"),
    }
    net = ln.load_onnx(model(nodes, [tensor("x", [1, 1, 2, 2])], weights=weights))
    with pytest.raises(ValueError, match="node 'n'.*bias has shape"):
        net(np.zeros((1, 1, 2, 2), np.float32))


@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (4,), (1, 1, 3), (3, 4)])
def test_a_gemm_bias_that_does_not_broadcast_names_the_node(shape):
    weights = {"w": np.ones((4, 3), "f4"), "c": np.ones(shape, "f4")}
    net = ln.load_onnx(
        model([node("Gemm", ["x", "w", "c"])], [tensor("x", [3, 4])], weights=weights)
    )
    with pytest.raises(ValueError, match="node 'n' .*C has shape .*accepted: one that broadcasts"):
        net(np.zeros((3, 4), np.float32))


def test_a_gemm_takes_matrices_only():
    weights = {"w": np.ones((4, 3), "f4")}
    made = model([node("Gemm", ["x", "w"])], [tensor("x", [2, 3, 4])], weights=weights)
    with pytest.raises(ValueError, match="node 'n' .*accepted: 2 axes each"):
        ln.load_onnx(made)(np.zeros((2, 3, 4), np.float32))
