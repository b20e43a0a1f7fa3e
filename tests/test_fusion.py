"""Steps put together where networks are called from Python: the bits of the steps one by one."""

import sys

import numpy as np
import pytest
import reference
from helpers import assert_same_bits

import loopnest as ln
from loopnest.network import execute
from loopnest.network.fusion import fused
from loopnest.network.lowering import Lowering, Node
from loopnest.network.network import Input, Network
from loopnest.network.program import Value
from loopnest.network.verify import verify


@pytest.fixture
def builder(dtype):
    return Lowering(dtype, 1 << 30)


def run(program, x, monkeypatch, fuse=True):
    """Outputs of a program; and how many steps it took."""
    if not fuse:
        monkeypatch.setattr(execute, "fused", lambda program: program)
    executor = execute.Executor(program)
    monkeypatch.undo()
    outputs = [np.full(v.shape, np.nan, program.dtype) for v in program.outputs]
    executor.run([x], outputs)
    return outputs, len(executor._steps)


def check(b, outputs, fewer, rng, monkeypatch, backend):
    """The same bits, in so many steps fewer."""
    program = b.finish(outputs, separable=False)
    x = rng.standard_normal(program.inputs[0].shape).astype(program.dtype)
    kept = x.copy()
    expected, steps = run(program, x, monkeypatch, fuse=False)
    found, fused_steps = run(program, x, monkeypatch)
    assert steps - fused_steps == fewer
    for a, e in zip(found, expected, strict=True):
        assert_same_bits(a, e)
    assert_same_bits(x, kept)
    assert len(program.steps) == steps  # the program itself stays


def weights(b, rng, *shape):
    return b.constant(rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:])))


# (channels, kernel, stride, size): plain, pixel, channel and stacked kernels.
CONVOLUTIONS = [(2, 1, 1, 3), (40, 1, 1, 7), (40, 1, 1, 19), (36, 3, 1, 9), (8, 3, 1, 20)]


@pytest.mark.parametrize(("channels", "kernel", "stride", "size"), CONVOLUTIONS)
@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
@pytest.mark.parametrize("swapped", [False, True])
def test_residual(
    builder, channels, kernel, stride, size, activation, swapped, rng, monkeypatch, backend
):
    b = builder
    x = b.input((2, channels, size, size))
    first = b.unary("tanh", x)
    pad = (kernel // 2, kernel // 2)
    y = b.conv2d(first, weights(b, rng, channels, channels, kernel, kernel),
                 weights(b, rng, channels), (stride, stride), (pad, pad))  # fmt: skip
    y = b.binary("add", first, y) if swapped else b.binary("add", y, first)
    if activation:
        y = b.unary(activation, y)
    y = b.conv2d(y, weights(b, rng, 5, channels, 1, 1), None)
    check(b, [y], 1, rng, monkeypatch, backend)


def test_residual_of_two_convolutions(builder, rng, monkeypatch, backend):
    b = builder
    x = b.input((1, 20, 12, 12))
    left = b.conv2d(x, weights(b, rng, 33, 20, 1, 1), None)
    right = b.conv2d(x, weights(b, rng, 33, 20, 3, 3), None, padding=((1, 1), (1, 1)))
    y = b.unary("relu", b.binary("add", left, right))
    check(b, [y, b.binary("mul", y, y)], 1, rng, monkeypatch, backend)


def test_what_is_used_twice_stays(builder, rng, monkeypatch, backend):
    b = builder
    x = b.input((1, 20, 12, 12))
    sums = b.conv2d(x, weights(b, rng, 20, 20, 1, 1), None)
    doubled = b.binary("add", sums, sums)
    other = b.binary("add", b.binary("add", sums, x), doubled)
    check(b, [other, b.unary("tanh", sums)], 0, rng, monkeypatch, backend)


def test_an_activation_before_the_addition_stays_before(builder, rng, monkeypatch, backend):
    b = builder
    x = b.input((1, 20, 12, 12))
    y = b.unary("relu", b.conv2d(x, weights(b, rng, 20, 20, 1, 1), None))
    check(b, [b.binary("add", y, x)], 0, rng, monkeypatch, backend)


def concatenated(b, parts):
    """Along channels, as operators.py does for a batch of one or more."""
    n, _, h, w = parts[0].shape
    channels = sum(part.shape[1] for part in parts)
    y, at = b.work((n, channels, h, w)), 0
    for part in parts:
        size = part.shape[1] * h * w
        b.move(part, y, (n, size), (size, 1), (channels * h * w, 1), 0, at)
        at += size
    return y


@pytest.mark.parametrize(("images", "fewer"), [(1, 2), (2, 0)])
def test_concat_in_place(builder, images, fewer, rng, monkeypatch, backend):
    b = builder
    x = b.input((images, 6, 11, 13))
    a = b.unary("relu", b.conv2d(x, weights(b, rng, 7, 6, 1, 1), None))
    c = b.conv2d(x, weights(b, rng, 9, 6, 3, 3), None, padding=((1, 1), (1, 1)))
    y = concatenated(b, [a, c])
    last = b.unary("tanh", b.conv2d(y, weights(b, rng, 3, 16, 1, 1), None))
    check(b, [last, b.binary("add", a, a)], fewer, rng, monkeypatch, backend)


def test_concat_of_concats_and_of_the_input(builder, rng, monkeypatch, backend):
    b = builder
    x = b.input((1, 6, 11, 13))
    a = b.unary("tanh", x)
    inner = concatenated(b, [a, x, a])  # x is no work array; a can be in one place only
    outer = concatenated(b, [inner, b.unary("relu", inner)])
    check(b, [outer], 3, rng, monkeypatch, backend)


def test_networks_of_every_kind(rng, monkeypatch, backend):
    """Residual and dense blocks, with weights that make every number count."""
    onnx = pytest.importorskip("onnx")
    folder = onnx.__path__[0] + "/backend/test/data/light/light_"
    for name in ("squeezenet", "shufflenet"):
        net = ln.load_onnx(f"{folder}{name}.onnx", frozen=False)
        for key, value in net.parameters.items():
            scale = np.sqrt(2 / np.prod(value.shape[1:])) if value.ndim > 1 else 0.1
            net.parameters[key] = (abs(rng.standard_normal(value.shape)) * scale).astype("f4")
            if value.ndim == 4:
                net.parameters[key] *= rng.choice([-1, 1], value.shape).astype("f4")
        program = net.lower(net.shapes("test", 1))
        x = rng.standard_normal(program.inputs[0].shape).astype(np.float32)
        (expected,), steps = run(program, x, monkeypatch, fuse=False)
        (found,), fused_steps = run(program, x, monkeypatch)
        assert fused_steps < steps - 10 and np.ptp(found) > 0
        assert_same_bits(found, expected)
        assert len(fused(program).steps) == fused_steps


@pytest.mark.parametrize(("groups", "channels", "size"), [(1, 1, 4), (8, 8, 20), (1, 24, 12)])
def test_what_is_added_is_not_overwritten(groups, channels, size, backend):
    """The addition's other operand dies there, and is no input of the convolution before it.

    Its memory must not become the sum's: small and depthwise convolutions write before they add.
    """
    branch = ln.Sequential(
        ln.Conv2d(channels, channels, 1), ln.Conv2d(channels, channels, 3, padding=1, groups=groups)
    )
    net = ln.Sequential(
        ln.Conv2d(channels, channels, 1), ln.Add(branch, ln.Identity()),
        ln.Conv2d(channels, channels, 1), input_shape=(channels, size, size),
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, channels, size, size)).astype(np.float32)
    w = list(net.parameters.values())
    h = ln.conv2d(x, w[0], w[1])
    sums = ln.conv2d(ln.conv2d(h, w[2], w[3]), w[4], w[5], padding=1, groups=groups) + h
    expected = ln.conv2d(sums, w[6], w[7])
    assert net(x).tobytes() == expected.tobytes()
    assert net.njit()(x).tobytes() == expected.tobytes()


def chain_of_two(channels):
    return ln.Sequential(ln.Conv2d(channels, channels, 3, padding=1), ln.BatchNorm2d(channels))


def normalise(x, net, name):
    """A batch normalisation in float64, as its formula stands."""
    w, b, mean, var = (
        net.buffers[f"{name}.{k}"].astype(float)[:, None, None]
        for k in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * w + b


@pytest.mark.parametrize("size", [(2, 2), (5, 7), (1, 6)])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("after", [None, ln.ReLU, ln.Tanh])
def test_a_normalisation_before_an_addition(size, swapped, after, dtype, rng, backend):
    """A normalisation works on flat planes, the addition on images: a residual block."""
    parts = [chain_of_two(3), ln.Identity()]
    layers = [ln.Add(*parts[:: -1 if swapped else 1]), *([after()] if after else [])]
    net = ln.Sequential(*layers, input_shape=(3, *size), dtype=dtype)
    for value in net.buffers.values():
        value[...] = rng.uniform(0.5, 2, value.shape)
    x = rng.standard_normal((4, 3, *size)).astype(dtype)
    weight, bias = (v.astype(float) for v in net.parameters.values())
    product = reference.conv2d(x.astype(float), weight, bias, padding=1)
    name = next(iter(net.buffers)).rsplit(".", 1)[0]
    expected = normalise(product, net, name) + x
    expected = {None: expected, ln.ReLU: np.maximum(expected, 0), ln.Tanh: np.tanh(expected)}[after]
    tolerance = 2e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(net(x), expected, tolerance, tolerance)
    if not after and not swapped:
        assert_same_bits(net.njit()(x), net(x))


def test_a_convolution_that_a_normalisation_and_an_addition_read(rng, backend):
    """y = conv(x); norm(y) + y"""
    inner = ln.Add(ln.BatchNorm2d(2), ln.Identity())
    net = ln.Sequential(ln.Conv2d(2, 2, 1), inner, input_shape=(2, 3, 4))
    net.buffers["1.0.running_mean"][...] = [3, -4]
    x = rng.standard_normal((2, 2, 3, 4)).astype(np.float32)
    weight, bias = (v.astype(float) for v in net.parameters.values())
    y = reference.conv2d(x.astype(float), weight, bias)
    np.testing.assert_allclose(net(x), normalise(y, net, "1.0") + y, 1e-5, 1e-5)


def test_one_dimension(rng, backend):
    """A convolution over a sequence is one over images of height 1; what is added is a sequence."""
    nodes = [
        Node("Conv", ("x", "w", "b"), ("y",), {"pads": [1, 1]}),
        Node("Add", ("y", "x"), ("z",)),
        Node("Relu", ("z",), ("r",)),
    ]
    w, bias = (rng.standard_normal(s).astype(np.float32) for s in ((3, 3, 3), 3))
    net = Network(nodes, [Input("x", (None, 3, 9), np.dtype("f4"))], ["r"], {"w": w, "b": bias})
    x = rng.standard_normal((2, 3, 9)).astype(np.float32)
    product = reference.conv2d(x[:, :, None].astype(float), w[:, :, None].astype(float),
                               bias.astype(float), padding=(0, 1))[:, :, 0]  # fmt: skip
    np.testing.assert_allclose(net(x), np.maximum(product + x, 0), 1e-5, 1e-5)
    assert_same_bits(net.njit()(x), net(x))


def lines_run(function, *arguments):
    """How many lines of Python a call runs: its work, whatever the machine does beside it."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return count


def additions(b, count):
    y = b.conv2d(b.input((1, 2, 3, 3)), b.constant(np.ones((2, 2, 1, 1))), None)
    for _ in range(count):
        y = b.binary("add", y, y)
    return [y]


def long_concat(b, count):
    x = b.input((1, 2, 3, 3))
    return [concatenated(b, [b.unary("tanh", x) for _ in range(count)])]


def nested_concat(b, count):
    y = b.input((1, 1, 2, 2))
    for _ in range(count // 4):
        y = concatenated(b, [b.unary("tanh", y)])
    return [y]


def dense_sums(b, count):
    """Convolutions whose results are added: each addition has two candidates."""
    y = b.input((1, 2, 3, 3))
    weight = b.constant(np.ones((2, 2, 1, 1)))
    for _ in range(count // 4):
        y = b.binary("add", b.conv2d(y, weight, None), y)
    return [y]


@pytest.mark.parametrize("make", [additions, long_concat, nested_concat, dense_sums])
def test_the_work_is_linear_in_the_steps(make):
    def work(count):
        b = Lowering(np.float32, 1 << 30)
        program = b.finish(make(b, count), separable=False)
        return lines_run(fused, program)

    assert work(1600) < 5 * work(400)  # 4 if it is linear, 16 if it is quadratic


def broken(step_change):
    """A program whose one convolution is changed, as a wrong rewriting would."""
    b = Lowering(np.float32, 1 << 30)
    y = b.conv2d(b.input((1, 2, 3, 3)), b.constant(np.ones((2, 2, 1, 1))), b.constant(np.ones(2)))
    program = b.finish([b.binary("add", y, y)], separable=False)
    step_change(program)
    return program


def _other_shape(p):
    (y,) = p.steps[0].outputs
    p.steps[0].outputs = (y.reshaped(1, 2, 1, 9),)


def _outside(p):
    (y,) = p.steps[0].outputs
    p.steps[0].outputs = (Value(y.storage, y.shape, 1),)


def _backwards(p):
    p.steps.reverse()


def _onto_the_input(p):
    p.steps[0].outputs = (p.inputs[0],)


def _short_bias(p):
    x, weight, bias = p.steps[0].inputs
    p.steps[0].inputs = (x, weight, Value(bias.storage, (1,)))


def _no_output(p):
    p.steps.pop()


def _other_dtype(p):
    storage = p.steps[0].inputs[1].storage
    storage.data = storage.data.astype(np.float64)


@pytest.mark.parametrize(
    "change",
    [_other_shape, _outside, _backwards, _onto_the_input, _short_bias, _no_output, _other_dtype],
)
def test_a_wrong_rewriting_is_an_internal_error(change):
    verify(broken(lambda program: None))
    with pytest.raises(RuntimeError, match="internal error"):
        verify(broken(change))
