"""Calls repeated without Python (csrc/direct.c): the same bits, and nothing taken that Python refuses."""

from __future__ import annotations

import functools
import gc
import sys
import threading

import numpy as np
import pytest
from cases import CASES

import loopnest as ln
from loopnest.ops import activation, convolution, dense, optimizer, pooling
from loopnest.runtime import backend, replay, threads

pytestmark = pytest.mark.skipif(replay._Op is None, reason="loopnest._direct is not built here")

BACKENDS = ln.available_backends()
RNG = np.random.default_rng(5)


@pytest.fixture(params=BACKENDS)
def chosen(request):
    with ln.use_backend(request.param):
        yield request.param


ROWS = ("activation", "convolution", "pooling", "dense", "loss", "optimizer")
SMALL = [c for c in CASES if c.row in ROWS and c.elements < 20_000 and not c.large and not c.packed]


def image(dtype=np.float32, *shape):
    return RNG.standard_normal(shape or (1, 2, 5, 5)).astype(dtype)


class Subclass(np.ndarray):
    pass


def repeated(op: replay.Op, *arguments):
    return op.call(*arguments, backend.kernels, threads.SERIAL_BELOW)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_packed_filters_are_repeated_too(chosen, dtype):
    x, weight = image(dtype, 1, 16, 12, 12), image(dtype, 40, 16, 3, 3)
    handles = ln.pack_weight(weight), ln.pack_weight(weight[:, :, ::-1])
    for _ in range(3):
        for handle in handles:
            y = ln.conv2d(x, handle, padding=1)
            assert y.tobytes() == ln.conv2d(x, handle.weight.copy(), padding=1).tobytes()
    given = x, handles[0].weight, handles[0].packed(), None, None
    again = repeated(convolution._CONV2D, *given, 1, 1, 1, 1, None, "direct")
    assert again is not None
    assert again.tobytes() == ln.conv2d(x, weight, padding=1).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_repeated_call_has_the_bits_of_the_first(chosen, dtype):
    for x in (image(dtype), image(dtype, 3, 2, 7, 6)):
        weight, bias = image(dtype, 3, 2, 3, 3), image(dtype, 3)
        options = {"padding": 1, "activation": "leaky_relu"}
        calls = [ln.conv2d(x, weight, bias, **options) for _ in range(3)]
        given = x, weight, None, bias, None  # not packed, no out
        again = repeated(convolution._CONV2D, *given, 1, 1, 1, 1, "leaky_relu", "direct")
        assert again is not None and again.base is None and again.dtype == dtype
        assert all(c.tobytes() == again.tobytes() for c in calls)


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_every_small_case_gives_the_same_bits_again(chosen, case):
    function = getattr(ln, case.op)
    first = case.arguments(np.dtype(np.float32))
    results = []
    for _ in range(4):
        arguments = [a.copy() if isinstance(a, np.ndarray) else a for a in first]
        found = function(*arguments, **case.options)
        parts = found if isinstance(found, tuple) else (found,)
        results.append([np.asarray(p).tobytes() for p in (*parts, *arguments) if p is not None])
    assert all(r == results[0] for r in results)


def test_what_is_in_doubt_is_left_to_python(chosen):
    x = image(np.float32, 4, 6)
    for _ in range(3):
        ln.relu(x)
    op = activation._FORWARD["relu"]
    assert repeated(op, x, None) is not None
    read_only = x.copy()
    read_only.flags.writeable = False
    assert repeated(op, read_only, None) is not None
    longer = np.zeros(25, np.float32)
    doubtful_x = (
        x.tolist(), x.view(Subclass), x.astype(">f4"), x.astype(np.float64), x[:, ::-1], x.T,
        x[::2], x[None], np.frombuffer(bytes(97), np.uint8)[1:].view(np.float32).reshape(4, 6),
        np.ma.array(x), None,
    )  # fmt: skip
    for doubtful in doubtful_x:
        assert repeated(op, doubtful, None) is None
    doubtful_out = (
        read_only, np.empty((6, 4), np.float32), np.empty((4, 6)), np.empty(24, np.float32),
        np.empty((4, 6), np.float32).view(Subclass), np.empty((6, 4), np.float32).T, [1.0],
    )  # fmt: skip
    for out in doubtful_out:
        assert repeated(op, x, out) is None
    flat = longer[:24].reshape(4, 6)
    flat[:] = x
    assert repeated(op, flat, longer[1:].reshape(4, 6)) is None  # overlaps in part
    assert repeated(op, flat, flat) is flat  # exactly the input
    assert not op.call(x, None) and not op.call(x, None, backend.kernels, True)


def test_errors_are_those_of_python_after_a_plan_was_kept(chosen):
    x, weight = image(np.float32, 2, 3), image(np.float32, 3, 4)
    for _ in range(3):
        ln.linear(x, weight)
    with pytest.raises(ValueError, match="linear: out overlaps"):
        ln.linear(x, weight, out=weight[:2])
    with pytest.raises(TypeError, match="different dtypes"):
        ln.linear(x, weight.astype(float))
    with pytest.raises(ValueError, match="linear: bias has shape"):
        ln.linear(x, weight, x[0])
    with pytest.raises(ValueError, match="activation is 'nothing'"):
        ln.linear(x, weight, activation="nothing")


def test_options_that_may_change_or_only_look_equal_are_not_remembered(chosen):
    x, weight, padding = image(), image(np.float32, 1, 2, 3, 3), [0, 0]
    assert {ln.conv2d(x, weight, padding=padding).shape for _ in range(3)} == {(1, 1, 3, 3)}
    padding[0] = 1
    assert ln.conv2d(x, weight, padding=padding).shape == (1, 1, 5, 3)
    nested = ([0, 0], [0, 0])
    for _ in range(3):
        ln.conv2d(x, weight, padding=nested)
    nested[0][0] = 2
    assert ln.conv2d(x, weight, padding=nested).shape == (1, 1, 5, 3)
    for _ in range(3):
        ln.conv2d(x, weight, stride=1, groups=1)
    for wrong in (True, 1.0):
        with pytest.raises(TypeError, match="stride"):
            ln.conv2d(x, weight, stride=wrong)


def test_backends_have_plans_of_their_own():
    if len(BACKENDS) < 2:
        pytest.skip("one backend")
    x, seen = image(np.float32, 3, 3), set()
    for name in BACKENDS * 3:
        with ln.use_backend(name):
            seen.add(ln.gelu(x).tobytes())
            assert activation._FORWARD["gelu"].call(x, None, backend, threads.SERIAL_BELOW) is None
    assert len(seen) == 1


def test_scalars_and_0d_arrays_stay_what_they_are(chosen):
    for _ in range(4):
        assert type(ln.relu(2.0)) is float
        assert type(ln.relu(np.array(2.0, np.float32))) is np.float32
        out = np.empty((), np.float32)
        assert ln.relu(np.array(2.0, np.float32), out=out) is out


def test_numbers_that_change_in_each_step_reach_the_kernel(chosen):
    """Adam's corrections and rate are no part of what tells plans apart."""
    grads, results = [image(np.float32, 7) for _ in range(6)], []
    for planned in (True, False):
        arrays = [np.zeros(7, np.float32) for _ in range(3)]
        for step, grad in enumerate(grads, 1):
            if not planned:  # of other strides: always by Python
                grad = np.repeat(grad, 2)[::2]
            ln.adam_step(arrays[0], grad, *arrays[1:], step=step, lr=0.1 / step)
        results.append(b"".join(a.tobytes() for a in arrays))
    assert results[0] == results[1]
    param = np.zeros(7, np.float32)
    with pytest.raises(ValueError, match="overlaps"):
        ln.adam_step(param, grads[0], arrays[1], arrays[1], step=1)
    with pytest.raises(ValueError, match="read-only"):
        param.flags.writeable = False
        ln.adam_step(param, grads[0], *arrays[1:], step=1)
    assert optimizer._PLANS


def test_many_sizes_push_out_old_plans(chosen):
    op = dense._LINEAR
    for n in (*range(1, 300), *range(1, 300)):
        x, weight = np.ones((1, n), np.float32), np.ones((n, 1), np.float32)
        for _ in range(2):
            assert ln.linear(x, weight).item() == n
    held = sys.getrefcount(backend.kernels)
    for n in range(300, 400):
        x, weight = np.ones((1, n), np.float32), np.ones((n, 1), np.float32)
        for _ in range(2):
            assert ln.linear(x, weight).item() == n
    assert op.call(x, weight) is None
    assert sys.getrefcount(backend.kernels) < held + 300


def test_plans_hold_no_arrays(chosen):
    x = image(np.float32, 11, 13)
    for _ in range(3):
        y = ln.silu(x)
    counts = sys.getrefcount(x), sys.getrefcount(y)
    gc.collect()
    assert counts == (2, 2)


def test_threads_may_use_and_push_out_plans_at_once(chosen):
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(300):
                n = int(rng.integers(1, 400))
                x = rng.standard_normal((3, n))
                expected = np.maximum(x, 0)
                for _ in range(3):
                    assert np.array_equal(ln.relu(x), expected)
                    ln.linear(x, np.ones((n, 5)))
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors


def test_op_refuses_what_it_cannot_hold():
    refused = ("", 0), ("r" * 9, 0), ("rx", 0), ("r", -1), ("r", 9), ("roooo", 0), ("or", 0)
    for kinds, live in refused:
        with pytest.raises(ValueError, match="kinds"):
            replay._Op(kinds, live)
    with pytest.raises(TypeError):
        replay._Op("ro", live=1)
    made = replay._Op("ro", 0)
    x = np.ones(3)
    many = (x, None, *range(200))
    assert made.call() is None and made.call(x) is None and made.call(*many) is None
    with pytest.raises(ValueError, match="too many"):
        made.keep(
            (x, None), (x,), ((0, 0, tuple(range(97)), (), (), -1, -1, 0, False),), 0, False, []
        )


@pytest.fixture
def all_calls_large(monkeypatch):
    monkeypatch.setattr(threads, "SERIAL_BELOW", 0)
    monkeypatch.setattr(threads, "_helpers", None)
    monkeypatch.setattr(replay, "_kernel_plans", {})
    ops = (dense, "_LINEAR"), (convolution, "_CONV2D"), (pooling, "_MAX"), (pooling, "_AVERAGE")
    for module, name in (*ops, (pooling, "_GLOBAL_MAX")):  # other tests have filled theirs
        kinds = getattr(module, name)._kinds
        monkeypatch.setattr(module, name, replay.Op(kinds))
    before = ln.get_num_threads()
    yield
    ln.set_num_threads(before)


def large_calls():
    """(plans, arguments of a repeated call, the same through Python) of each op that is split."""
    x, weight = image(np.float32, 64, 33), image(np.float32, 33, 70)
    packed = ln.pack_weight(weight)
    yield dense._LINEAR, (x, weight, None, None, None, None), lambda: ln.linear(x, weight)
    given = x, weight, packed.packed(), None, None, None
    yield dense._LINEAR, given, lambda: ln.linear(x, packed)
    planes, filters = image(np.float32, 2, 3, 20, 21), image(np.float32, 20, 3, 3, 3)
    given = planes, filters, None, None, None, 1, 1, 1, 1, "relu", "direct"
    relu = functools.partial(ln.conv2d, activation="relu", padding=1)
    yield convolution._CONV2D, given, lambda: relu(planes, filters)
    depthwise = image(np.float32, 3, 1, 5, 5)
    given = planes, depthwise, None, None, None, 1, 2, 1, 3, None, "direct"
    yield convolution._CONV2D, given, lambda: ln.conv2d(planes, depthwise, padding=2, groups=3)
    given = planes, None, 3, 2, 1, 1, False, False
    yield pooling._MAX, given, lambda: ln.max_pool2d(planes, 3, 2, 1)
    given = planes, None, 2, None, 0, False, True, None
    yield pooling._AVERAGE, given, lambda: ln.avg_pool2d(planes, 2)
    yield pooling._GLOBAL_MAX, (planes, None), lambda: ln.global_max_pool2d(planes)


def test_large_calls_are_repeated_over_any_number_of_threads(chosen, all_calls_large):
    for plans, given, through_python in large_calls():
        ln.set_num_threads(1)
        expected = through_python()
        for n in (2, 1, 2, 3, 8, 1):
            ln.set_num_threads(n)
            calls = [through_python() for _ in range(3)]
            again = repeated(plans, *given)
            assert again is not None or not hasattr(threads._semaphore(), "addresses")
            calls += [repeated(plans, *given) for _ in range(20)] if again is not None else []
            assert all(c.tobytes() == expected.tobytes() for c in calls)


def large_kernels():
    """What is repeated by kernel: name, and a call that gives bytes."""
    x, weight = image(np.float32, 2, 6, 20, 21), image(np.float32, 20, 6, 3, 3)
    dy = image(np.float32, 2, 20, 20, 21)
    logits, target = image(np.float32, 50, 12), RNG.integers(0, 12, 50)
    classes, shares = abs(image(np.float32, 12)), abs(image(np.float32, 50, 12))
    y, indices = ln.max_pool2d(x, 3, 2, 1, return_indices=True)

    def bytes_of(*arrays):
        return b"".join(np.asarray(a).tobytes() for a in arrays)

    losses = functools.partial(ln.cross_entropy_with_grad, logits)
    yield "backward", lambda: bytes_of(*ln.conv2d_backward(dy, x, weight, padding=1))
    yield "winograd", lambda: bytes_of(ln.conv2d(x, weight, padding=1, algorithm="winograd"))
    yield "indices", lambda: bytes_of(*ln.max_pool2d(x, 3, 2, 1, return_indices=True))
    yield "max", lambda: bytes_of(ln.max_pool2d_backward(y, x, indices))
    for smoothing in (0.0, 0.25):
        given = {"weight": classes, "label_smoothing": smoothing}
        yield f"classes {smoothing}", lambda g=given: bytes_of(*losses(target, **g))
    yield "shares", lambda: bytes_of(*losses(shares, label_smoothing=0.1))


def test_large_kernel_calls_are_repeated_over_any_number_of_threads(
    chosen, all_calls_large, monkeypatch
):
    for name, call in large_kernels():
        ln.set_num_threads(1)
        expected = call()
        for n in (2, 1, 3, 8):
            ln.set_num_threads(n)
            assert all(call() == expected for _ in range(4)), name
            if n > 1 and hasattr(threads._helpers.jobs.semaphore, "addresses"):
                with monkeypatch.context() as patch:
                    patch.delattr(replay, "_split")  # Python's way
                    assert all(call() == expected for _ in range(4)), name


def test_large_calls_of_many_callers_while_the_number_of_threads_changes(chosen, all_calls_large):
    kinds = [(lambda c=call: c().tobytes()) for _, _, call in large_calls()]
    kinds += [call for _, call in large_kernels()]
    kinds = [(call, call()) for call in kinds]
    wrong, ended = [], threading.Event()

    def caller():
        for _ in range(20):
            wrong.extend(i for i, (call, e) in enumerate(kinds) if call() != e)

    def changer():
        while not ended.wait(0.001):
            ln.set_num_threads(int(RNG.integers(1, 5)))

    callers = [threading.Thread(target=caller) for _ in range(6)]
    other = threading.Thread(target=changer)
    for thread in (*callers, other):
        thread.start()
    for thread in callers:
        thread.join()
    ended.set()
    other.join()
    assert not wrong


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_of_a_dense_layer_are_repeated(chosen, dtype):
    """Three outputs, each of which may be given, made, or (dx) left out."""
    for rows, inputs, outputs in ((2, 3, 5), (33, 40, 21)):
        dy, x = image(dtype, 3, rows, outputs), image(dtype, 3, rows, inputs)
        weight = image(dtype, inputs, outputs)
        first = ln.linear_backward(dy, x, weight)
        expected = [part.tobytes() for part in first]
        shapes = [part.shape for part in first]
        for needs_dx in (True, False):
            for give in ((), (1,), (1, 2), (0, 1, 2) if needs_dx else (2,)):
                for _ in range(4):
                    given = tuple(
                        np.full(s, 7, dtype) if i in give else None for i, s in enumerate(shapes)
                    )
                    options = {"gradients": given if give else None, "needs_dx": needs_dx}
                    found = ln.linear_backward(dy, x, weight, **options)
                    assert type(found) is tuple and (found[0] is not None) == needs_dx
                    for i in range(0 if needs_dx else 1, 3):
                        assert found[i].tobytes() == expected[i] and found[i].shape == shapes[i]
                        assert i not in give or found[i] is given[i]
                again = repeated(dense._LINEAR_BACKWARD, dy, x, weight, *given, needs_dx)
                assert [a is None for a in again] == [not needs_dx, False, False]


def test_wrong_gradients_are_told_after_a_plan_was_kept(chosen):
    dy, x, weight = image(np.float32, 4, 5), image(np.float32, 4, 3), image(np.float32, 3, 5)
    for _ in range(3):
        ln.linear_backward(dy, x, weight)
        ln.linear_backward(dy, x, weight, needs_dx=False)
    dx, dweight, dbias = ln.linear_backward(dy, x, weight)
    found = ln.linear_backward(dy, x, weight, gradients=[dx, dweight, dbias])  # a list, not a tuple
    assert all(a is b for a, b in zip(found, (dx, dweight, dbias), strict=True))
    memory = np.zeros(15, np.float32)
    for wrong in (
        (None, memory.reshape(3, 5), memory[:5]), (None, weight, None), (None, dweight.T, None),
        (x, None, None), (None, None, dbias.astype(float)), (None, None), (dx, dweight, 3),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match="linear_backward: gradients"):
            ln.linear_backward(dy, x, weight, gradients=wrong)
    with pytest.raises(ValueError, match="gradients"):
        ln.linear_backward(dy, x, weight, gradients=(dx, None, None), needs_dx=False)
    assert not memory.any()
