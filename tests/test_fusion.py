"""Steps put together where networks are called from Python: the bits of the steps one by one."""

import numpy as np
import pytest
from helpers import assert_same_bits

import loopnest as ln
from loopnest import execute
from loopnest.fusion import fused
from loopnest.lowering import Lowering


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
        net = ln.load_onnx(f"{folder}{name}.onnx")
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
