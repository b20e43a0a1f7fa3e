"""ONNX files that are damaged or meant to harm: clear errors, no crash, bounded memory."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import loopnest as ln

FLOAT = TensorProto.FLOAT


def tensor(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, inputs=None, outputs=None, weights=None, opset=17):
    graph = helper.make_graph(
        nodes,
        "graph",
        [tensor("x", [1, 4])] if inputs is None else inputs,
        [tensor("y", None)] if outputs is None else outputs,
        [numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def node(op, inputs, outputs=("y",), name="n", **attributes):
    return helper.make_node(op, list(inputs), list(outputs), name, **attributes)


def refused(made, message, error=ValueError, **options):
    with pytest.raises(error, match=message):
        ln.load_onnx(made, **options)


def good():
    weights = {"w": np.ones((4, 3), np.float32), "b": np.arange(3, dtype=np.float32)}
    return model(
        [node("Gemm", ["x", "w", "b"], ["z"]), node("Relu", ["z"], name="m")], weights=weights
    )


def test_every_truncation_is_an_error_or_a_network():
    data = good().SerializeToString()
    loaded = 0
    for end in range(len(data)):
        try:
            net = ln.load_onnx(data[:end])
        except ValueError as error:
            assert str(error).startswith("load_onnx: ")
        else:
            loaded += 1
            assert isinstance(net, ln.Network)
    assert loaded < 40
    assert ln.load_onnx(data)(np.ones((1, 4), np.float32)).tolist() == [[4, 5, 6]]


def test_flipped_bytes_never_crash():
    data = good().SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        try:
            net = ln.load_onnx(bytes(damaged), max_bytes=1 << 20)
            net(np.ones((1, 4), np.float32))
        except (ValueError, TypeError):
            pass


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"not onnx", b"\xff" * 1000])
def test_no_model(data):
    refused(data, "load_onnx")


def test_files(tmp_path):
    refused(tmp_path / "none.onnx", "none.onnx", FileNotFoundError)
    refused(3, "accepted: a path, bytes, ModelProto", TypeError)
    path = tmp_path / "big.onnx"
    path.write_bytes(good().SerializeToString())
    refused(path, "bytes; accepted", max_bytes=10)


def test_unsupported():
    refused(model([node("Gru", ["x"])]), "node 'n'.*'Gru' is not supported")
    refused(model([node("Relu", ["x"], domain="evil")]), "of the domain 'evil'")
    refused(model([node("Relu", ["x"], power=2)]), "node 'n' .*'power' is not supported")
    refused(model([node("Softmax", ["x"], axis=1.5)]), "'axis' is of type FLOAT; accepted: INT")
    refused(model([node("Conv", ["x", "x"], auto_pad="SAME")]), "'auto_pad' is 'SAME'")
    refused(model([node("Gelu", ["x"], approximate="fast")], opset=20), "'approximate' is 'fast'")
    refused(model([node("MaxPool", ["x"])]), "'kernel_shape' is missing")
    refused(model([node("Relu", ["x"])], opset=99), "opset 99")
    refused(model([node("Relu", ["x"])], opset=4), "of opset 4")
    refused(model([node("Relu", ["x", "x"])]), "2 inputs")
    refused(model([node("Relu", ["x"], ["y", "z"])]), "2 outputs")
    refused(model([node("Relu", ["x"])], [tensor("x", [1], TensorProto.BFLOAT16)]), "bfloat16")
    refused(model([node("Relu", ["x"])], [tensor("x", [1], 99)]), "element type, 99")


def test_graphs_that_do_not_hold_together():
    loop = [node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"], "m"), node("Relu", ["b"])]
    refused(model(loop), "'b' is made by a later node: the graph has a cycle")
    refused(model([node("Relu", ["y"])]), "cycle")
    refused(model([node("Add", ["x", "gone"])]), "'gone' is missing")
    refused(model([node("Relu", ["x"]), node("Relu", ["x"], name="m")]), "'y' is there twice")
    refused(model([node("Relu", ["x"], ["x"])]), "'x' is there twice")
    refused(model([node("Relu", ["x"], ["z"])]), "output 'y' is made by no node")
    refused(model([node("Relu", ["x"])], outputs=[]), "no outputs")
    refused(model([node("Relu", ["x"])], [tensor("x", [1]), tensor("x", [2])]), "same name")
    refused(model([node("Relu", ["x"])], [tensor("x", [2**60])]), "size of")


def test_tensors_whose_sizes_lie():
    made = good()
    for dims, message in (
        ([2**31, 2**31, 2**31], "bytes; accepted: max_bytes"),
        ([2**62], "has the shape"),
        ([-1, 4], "has the shape"),
        ([4, 4], "has not the numbers"),
        ([1] * 40, "40 dimensions"),
        ([3], "has not the numbers"),
    ):
        wrong = onnx.ModelProto.FromString(made.SerializeToString())
        del wrong.graph.initializer[0].dims[:]
        wrong.graph.initializer[0].dims.extend(dims)
        refused(wrong, message)


def test_memory_is_bounded():
    """Each of these asks for terabytes in a few hundred bytes."""
    huge = np.array([2**20, 2**20], np.int64)
    pads = np.array([0, 2**40, 0, 2**40], np.int64)
    many = [node("ConstantOfShape", ["s"], [f"c{i}"], f"n{i}") for i in range(40)]
    cases = [
        model([node("ConstantOfShape", ["s"])], weights={"s": huge}),
        model([*many, node("Sum", [f"c{i}" for i in range(40)])], weights={"s": np.array([4096, 64])}),
        model([node("Pad", ["x", "p"])], weights={"p": pads}),
        model([node("Add", ["a", "b"])], weights={"a": np.zeros((2**16, 1), "f4"),
                                                  "b": np.zeros((1, 2**16), "f4")}),
        model([node("Conv", ["x", "w"], pads=[2**30] * 4)], [tensor("x", [1, 1, 4, 4])],
              weights={"w": np.ones((1, 1, 1, 1), "f4")}),
        model([node("AveragePool", ["x"], kernel_shape=[2**30, 1], pads=[2**30, 0, 2**30, 0])],
              [tensor("x", [1, 1, 4, 4])]),
        model([node("MaxPool", ["x"], kernel_shape=[1, 1], pads=[2**30, 0, 1, 0])],
              [tensor("x", [1, 1, 4, 4])]),
        model([node("LRN", ["x"], size=2**40)], [tensor("x", [1, 4, 4, 4])]),
    ]  # fmt: skip
    tracemalloc.start()
    for made in cases:
        with pytest.raises(ValueError, match="accepted"):
            net = ln.load_onnx(made, max_bytes=1 << 24)
            net(np.zeros([s or 1 for s in net.inputs[0].shape], np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200e6


def test_work_space_is_bounded():
    """Many arrays that are each within bounds, alive at once."""
    rows = [node("Relu", ["x"], [f"v{i}"], f"n{i}") for i in range(40)]
    made = model([*rows, node("Sum", [f"v{i}" for i in range(40)])], [tensor("x", [2**20])])
    net = ln.load_onnx(made, max_bytes=1 << 24)
    with pytest.raises(ValueError, match="accepted: at most"):
        net(np.zeros(2**20, np.float32))


def test_external_data(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    values = np.arange(12, dtype=np.float32)
    (folder / "weights.bin").write_bytes(b"skip" + values.tobytes())
    (tmp_path / "secret.bin").write_bytes(values.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")

    def with_entries(**entries):
        made = good()
        w = made.graph.initializer[0]
        w.ClearField("raw_data")
        w.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            w.external_data.add(key=key, value=str(value))
        path = folder / "model.onnx"
        path.write_bytes(made.SerializeToString())
        return path

    net = ln.load_onnx(with_entries(location="weights.bin", offset=4, length=48))
    x = np.ones((1, 4), np.float32)
    np.testing.assert_allclose(net(x)[0], values.reshape(4, 3).sum(0) + np.arange(3))
    for entries, message in (
        ({"location": "../secret.bin"}, "outside the model's folder"),
        ({"location": str(tmp_path / "secret.bin")}, "outside the model's folder"),
        ({"location": "link.bin"}, "outside the model's folder"),
        ({"location": ""}, "outside the model's folder"),
        ({"location": "."}, "outside|no file"),
        ({"location": "gone.bin"}, "which is no file"),
        ({"location": "weights.bin", "offset": 40}, "needs 48 bytes"),
        ({"location": "weights.bin", "offset": -4}, "needs 48 bytes"),
        ({"location": "weights.bin", "length": 2**40}, "needs 48 bytes"),
        ({"location": "weights.bin", "offset": "ten"}, "no proper offset"),
    ):
        refused(with_entries(**entries), message)
    refused(with_entries(location="weights.bin").read_bytes(), "accepted: with a model from a path")


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: model([node("Reshape", ["x", "s"])], weights={"s": np.array([3, -1])}), "fit"),
        (lambda: model([node("Reshape", ["x", "s"])], weights={"s": np.array([-1, -1])}), "-1"),
        (lambda: model([node("Transpose", ["x"], perm=[0, 0])]), "perm"),
        (lambda: model([node("Squeeze", ["x", "s"])], weights={"s": np.array([1])}), "axes of size 1"),
        (lambda: model([node("Unsqueeze", ["x", "s"])], weights={"s": np.array([9])}), "axis is 9"),
        (lambda: model([node("Concat", ["x", "x"], axis=5)]), "axis is 5"),
        (lambda: model([node("Flatten", ["x"], axis=7)]), "axis is 7"),
        (lambda: model([node("Softmax", ["x"], axis=-9)]), "axis is -9"),
        (lambda: model([node("Conv", ["x", "w"])], weights={"w": np.ones((1, 1, 1, 1), "f4")}), "shape"),
        (lambda: model([node("Gemm", ["x", "w"])], weights={"w": np.ones((3, 3), "f4")}), "fit"),
        (lambda: model([node("MatMul", ["x", "w"])], weights={"w": np.ones((3, 3), "f4")}), "fit"),
        (lambda: model([node("Add", ["x", "w"])], weights={"w": np.ones(3, "f4")}), "broadcast"),
        (lambda: model([node("Add", ["x", "w"])], weights={"w": np.ones(4, "i4")}), "dtype"),
        (lambda: model([node("Pad", ["x", "s"], mode="reflect")],
                       weights={"s": np.array([0, 4, 0, 0])}), "mode 'reflect'"),
        (lambda: model([node("MaxPool", ["x"], kernel_shape=[0])], [tensor("x", [1, 1, 4])]), "kernel_shape"),
        (lambda: model([node("MaxPool", ["x"], kernel_shape=[9])], [tensor("x", [1, 1, 4])]), "larger"),
        (lambda: model([node("MaxPool", ["x"], kernel_shape=[2], strides=[0])],
                       [tensor("x", [1, 1, 4])]), "strides"),
        (lambda: model([node("MaxPool", ["x"], kernel_shape=[2], pads=[-1, 0])],
                       [tensor("x", [1, 1, 4])]), "pads"),
        (lambda: model([node("And", ["x", "x"])]), "accepted: bool"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_name_the_node(made, message):
    net = ln.load_onnx(made())
    shape = net.inputs[0].shape
    with pytest.raises((ValueError, TypeError), match=f"node 'n'.*{message}"):
        net(np.zeros(shape, np.float32))


def test_what_only_numpy_calls_have_is_told():
    net = ln.load_onnx(model([node("Not", ["x"])], [tensor("x", [2], TensorProto.BOOL)]))
    assert net(np.array([True, False])).tolist() == [False, True]
    for form in (net.njit, lambda: net.to_c("never.c"), lambda: net.forward(np.zeros(2))):
        with pytest.raises(ValueError, match="'x' has dtype bool"):
            form()
    with pytest.raises(TypeError, match="accepted: bool"):
        net(np.zeros(2, np.float32))


def test_wrong_input():
    net = ln.load_onnx(good())
    with pytest.raises(ValueError, match=r"shape \(2, 4\); accepted: \(1, 4\)"):
        net(np.zeros((2, 4), np.float32))
    with pytest.raises(TypeError, match="float64"):
        net(np.zeros((1, 4)))


# ---- work ----


def cheap(make, message, seconds=5.0, **options):
    """Refused with this message, in little time and memory."""
    begin = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(ValueError, match=message):
        made = make()
        net = ln.load_onnx(made, **options)
        net(*[np.zeros([s or 1 for s in i.shape], i.dtype) for i in net.inputs])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6 and time.perf_counter() - begin < seconds


def filled(*sizes):
    return {"s": np.array(sizes, np.int64)}


def integers(name, *sizes):
    zero = numpy_helper.from_array(np.zeros(1, np.int8))
    return node("ConstantOfShape", ["s"], [name], name, value=zero)


@pytest.mark.parametrize(
    "make",
    [
        lambda: model([node("ConstantOfShape", ["s"], ["c"], "f"), node("MatMul", ["c", "c"])],
                      weights=filled(3000, 3000)),
        lambda: model([integers("c"), node("MatMul", ["c", "c"])], weights=filled(2000, 2000)),
        lambda: model([node("ConstantOfShape", ["s"], ["c"], "f"),
                       node("MaxPool", ["c"], kernel_shape=[1000, 1000])],
                      weights=filled(1, 1, 1100, 1100)),
        lambda: model([node("ConstantOfShape", ["s"], ["c"], "f"),
                       node("MaxPool", ["c"], ["y", "i"], kernel_shape=[1000, 1000])],
                      weights=filled(1, 1, 1000, 1000)),
        lambda: model([integers("c"), node("MaxPool", ["c"], kernel_shape=[1000, 1000])],
                      weights=filled(1, 1, 1000, 1000)),
        lambda: model([node("ConstantOfShape", ["s"], ["c"], "f"), node("Conv", ["c", "c"])],
                      weights=filled(400, 400, 64, 1)),
    ],
)  # fmt: skip
def test_work_of_constants_is_bounded(make):
    """Small files that would compute for minutes; the bound is met before they begin."""
    cheap(make, "load_onnx: node .*max_work")


def test_the_bound_of_work_is_the_callers():
    nodes = [node("ConstantOfShape", ["s"], ["c"], "f"), node("MatMul", ["c", "c"])]
    made = model([*nodes[:1], node("MatMul", ["c", "c"])], weights=filled(300, 300))
    assert ln.load_onnx(made)
    with pytest.raises(ValueError, match="node 'n' .*max_work"):
        ln.load_onnx(made, max_work=1_000_000)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="load_onnx: max_work is"):
            ln.load_onnx(made, max_work=wrong)
    with pytest.raises(TypeError, match="load_onnx: max_bytes is"):
        ln.load_onnx(made, max_bytes=1.5)


@pytest.mark.parametrize("shapes", [((50000, 1), (1, 50000)), ((50000,), (1, 50000)),
                                    ((9, 5000, 1), (9, 1, 5000))])  # fmt: skip
def test_integer_products_are_bounded_when_called(shapes):
    inputs = [tensor(n, s, TensorProto.INT8) for n, s in zip("ab", shapes, strict=True)]
    cheap(lambda: model([node("MatMul", ["a", "b"])], inputs), "node 'n' .*accepted: at most|do not fit",
          max_bytes=10**6)  # fmt: skip


def test_live_arrays_are_bounded_together_when_called():
    """Each is within bounds; all of them are needed at the end."""
    rows = [node("Add", ["x", "x"], [f"v{i}"], f"n{i}") for i in range(40)]
    made = model([*rows, node("Sum", [f"v{i}" for i in range(40)])],
                 [tensor("x", [2**20], TensorProto.INT32)])  # fmt: skip
    cheap(lambda: made, "accepted: at most", max_bytes=1 << 24)


@pytest.mark.parametrize("constant", [False, True])
def test_long_chains_take_linear_time(constant):
    count = 20_000
    nodes = [node("Relu", [f"v{i}"], [f"v{i + 1}"], f"n{i}") for i in range(count)]
    inputs = [tensor("x" if constant else "v0", [4])]
    weights = {"v0": np.array([-1, 0, 1, 2], np.float32)} if constant else {}
    nodes.append(node("Add", ["x", f"v{count}"] if constant else [f"v{count}"] * 2))
    made = model(nodes, inputs, weights=weights)
    begin = time.perf_counter()
    y = ln.load_onnx(made)(np.array([-1, 0, 1, 2], np.float32))
    assert y.tolist() == ([-1, 0, 2, 4] if constant else [0, 0, 2, 4])
    assert time.perf_counter() - begin < 30  # 3 s on an idle machine


def test_integers_that_pad_stay_exact():
    large = 2**53 + 1
    made = model([node("Pad", ["x", "p", "v"])], [tensor("x", [1], TensorProto.INT64)],
                 weights={"p": np.array([1, 1]), "v": np.array(large)})  # fmt: skip
    assert ln.load_onnx(made)(np.array([3])).tolist() == [large, 3, large]


def test_names_and_places_that_no_system_has(tmp_path):
    made = good()
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    path = tmp_path / "model.onnx"
    for place in ("a\0b", "x" * 5000, "loop"):
        if place == "loop":
            (tmp_path / "loop").symlink_to(tmp_path / "loop")
        del weight.external_data[:]
        weight.external_data.add(key="location", value=place)
        path.write_bytes(made.SerializeToString())
        refused(path, "load_onnx: .*which is no file|outside")
    refused("a\0b.onnx", "load_onnx: the path .* null character")
    refused(b"x" * 100, "100 bytes; accepted: 99", max_bytes=99)
