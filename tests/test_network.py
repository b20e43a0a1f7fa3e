"""Networks made in code: against PyTorch, on every way in, with every wrong argument."""

from __future__ import annotations

import os
import threading

import numba
import numpy as np
import pytest
from helpers import assert_same_bits

import loopnest as ln


def lenet(dtype=np.float32, **options):
    return ln.Sequential(
        ln.Conv2d(1, 6, 5, padding=2),
        ln.ReLU(),
        ln.MaxPool2d(2),
        ln.Conv2d(6, 16, 5),
        ln.ReLU(),
        ln.MaxPool2d(2),
        ln.Flatten(),
        ln.Linear(400, 120),
        ln.ReLU(),
        ln.Linear(120, 84),
        ln.ReLU(),
        ln.Linear(84, 10),
        input_shape=(1, 28, 28),
        dtype=dtype,
        **options,
    )


def policy(dtype=np.float32):
    return ln.Sequential(ln.Linear(7, 33), ln.Tanh(), ln.Linear(33, 2), ln.GELU(), dtype=dtype)


def branches(dtype=np.float32):
    """Every layer there is."""
    body = ln.Sequential(
        ln.Conv2d(12, 12, 3, padding="same", groups=3, bias=False),
        ln.SiLU(),
        input_shape=(12, 1, 1),
    )
    return ln.Sequential(
        ln.Conv2d(2, 6, 3, padding=((0, 1), (2, 0))),
        ln.BatchNorm2d(6),
        ln.LeakyReLU(0.2),
        ln.Concat(ln.Identity(), ln.AvgPool2d(3, 1, 1, count_include_pad=False)),
        ln.Add(ln.Identity(), body),
        ln.ReLU(),
        ln.MaxPool2d(3, 2, 1, ceil_mode=True),
        ln.Sigmoid(),
        ln.Conv2d(12, 5, (1, 2), stride=(1, 2), dilation=2),
        ln.GELU("none"),
        ln.Concat(ln.GlobalAvgPool2d(), ln.GlobalMaxPool2d()),
        ln.Flatten(),
        ln.Linear(10, 9, bias=False),
        ln.GELU("tanh"),
        ln.Concat(ln.Softmax(), ln.LogSoftmax()),
        input_shape=(2, 11, 13),
        dtype=dtype,
    )


INPUTS = {lenet: (1, 28, 28), policy: (7,), branches: (2, 11, 13)}


@pytest.fixture(params=list(INPUTS), ids=lambda f: f.__name__)
def network(request, dtype, rng):
    """(network, maker of a batch of inputs)"""
    net, shape = request.param(dtype), INPUTS[request.param]
    return net, lambda n: rng.standard_normal((n, *shape)).astype(dtype)


def test_both_backends_give_the_same_bits(network):
    net, batch = network
    x = batch(5)
    with ln.use_backend("numba"):
        expected = net(x)
    with ln.use_backend("c"):
        assert_same_bits(net(x), expected)


def test_rows_do_not_depend_on_the_batch(network):
    net, batch = network
    x = batch(4)
    assert_same_bits(np.stack([net(row) for row in x]), net(x))
    assert net(x[:0]).shape == (0, *net(x).shape[1:])


def test_views_and_out(network):
    net, batch = network
    x = batch(6)
    expected, frozen = net(x), x.copy()
    frozen.flags.writeable = False
    assert_same_bits(net(frozen), expected)
    assert_same_bits(net(x[::-2]), expected[::-2])
    out = np.empty_like(expected)
    assert net(x, out=out) is out
    assert_same_bits(out, expected)
    single = np.empty_like(expected[0])
    net(x[2], out=single)
    assert_same_bits(single, expected[2])


def test_njit_gives_the_bits_of_numpy(rng):
    for make, dtype in ((policy, np.float64), (branches, np.float32)):
        net, shape = make(dtype), INPUTS[make]
        forward = net.njit()
        for n in (1, 3, 67, 0):
            x = rng.standard_normal((n, *shape)).astype(dtype)
            assert_same_bits(forward(x), net(x))
        if make is policy or os.environ.get(
            "LOOPNEST_FULL"
        ):  # each compiles anew, 20 s of branches
            x = rng.standard_normal((4, *shape)).astype(dtype)
            assert_same_bits(forward(x[::2]), net(x[::2]))
            assert_same_bits(forward(x[1]), net(x[1]))


def test_njit_lenet_in_a_loop(rng):
    net = lenet()
    forward = net.njit()

    @numba.njit
    def run(images, out):
        best = np.empty(len(images), np.int64)
        for i in range(len(images)):
            forward(images[i], out)
            best[i] = np.argmax(out)
        return best

    images = rng.standard_normal((9, 1, 28, 28)).astype(np.float32)
    assert run(images, np.empty(10, np.float32)).tolist() == net(images).argmax(1).tolist()


def test_njit_sees_weights_that_change(rng):
    net = policy()
    forward, x = net.njit(), rng.standard_normal((3, 7)).astype(np.float32)
    before = forward(x)
    net.vector *= np.float32(0.5)
    assert not np.array_equal(forward(x), before)
    assert_same_bits(forward(x), net(x))


def test_njit_errors():
    forward = policy().njit()
    with pytest.raises(ValueError, match="x has the wrong shape"):
        forward(np.zeros((2, 8), np.float32))
    with pytest.raises(ValueError, match="out has the wrong shape"):
        forward(np.zeros((2, 7), np.float32), np.zeros((3, 2), np.float32))
    with pytest.raises(numba.TypingError, match="accepted: a float32 array"):
        forward(np.zeros((2, 7)))
    with pytest.raises(numba.TypingError, match="3 dimensions"):
        forward(np.zeros((2, 7, 1), np.float32))
    with pytest.raises(ValueError, match="input_shape"):
        ln.Sequential(ln.Conv2d(1, 1, 3)).njit()
    memory = np.zeros(40, np.float32)
    with pytest.raises(ValueError, match="overlaps"):
        forward(memory[:14].reshape(2, 7), memory[10:14].reshape(2, 2))


def test_njit_allocates_only_its_output(rng):
    from numba.core.runtime import _nrt_python, rtsys

    net = policy()
    forward = net.njit()

    @numba.njit
    def loop(x, out, steps):
        for _ in range(steps):
            forward(x, out)

    x, out = rng.standard_normal((1, 7)).astype(np.float32), np.empty((1, 2), np.float32)
    loop(x, out, 1)
    _nrt_python.memsys_enable_stats()
    before = rtsys.get_allocation_stats().mi_alloc
    loop(x, out, 1000)
    made = rtsys.get_allocation_stats().mi_alloc - before
    _nrt_python.memsys_disable_stats()
    assert made < 1000  # not one a call
    assert_same_bits(out, net(x))


def test_njit_from_many_threads(rng):
    """The work space of a large network is one; who finds it taken makes another."""
    net = lenet()
    forward = net.njit()
    images = rng.standard_normal((40, 1, 28, 28)).astype(np.float32)
    expected, wrong = net(images), []

    @numba.njit(nogil=True)
    def work(images):
        return forward(images)

    work(images[:1])

    def check():
        for _ in range(5):
            if work(images).tobytes() != expected.tobytes():
                wrong.append(1)

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_users_function_is_not_cached_with_addresses_of_this_process(tmp_path, monkeypatch):
    """Numba must not keep machine code that holds addresses of the weights."""
    source = tmp_path / "user.py"
    source.write_text(
        "import numba\nforward = None\n"
        "def make():\n"
        "    @numba.njit(cache=True)\n"
        "    def run(x):\n        return forward(x)\n"
        "    return run\n"
    )
    scope = {"__name__": "user", "__file__": str(source)}
    exec(compile(source.read_text(), str(source), "exec"), scope)
    scope["forward"] = policy().njit()
    run = scope["make"]()
    with pytest.warns(numba.core.errors.NumbaWarning, match="dynamic globals"):
        run(np.zeros((1, 7), np.float32))
    assert not list(tmp_path.rglob("*.nbc"))


def test_against_pytorch(rng):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 16, 5),
        nn.LogSoftmax(1),
    )
    theirs[1].running_mean.uniform_()
    theirs[1].running_var.uniform_(0.5, 2)
    theirs.eval()
    ours = ln.Sequential(
        ln.Conv2d(3, 8, 3, stride=2, padding=1),
        ln.BatchNorm2d(8),
        ln.ReLU(),
        ln.AvgPool2d(2),
        ln.Flatten(),
        ln.Linear(8 * 16, 5),
        ln.LogSoftmax(1),
        input_shape=(3, 16, 16),
    ).load_state_dict(theirs.state_dict())
    x = rng.standard_normal((4, 3, 16, 16)).astype(np.float32)
    np.testing.assert_allclose(ours(x), theirs(torch.tensor(x)).detach(), rtol=1e-5, atol=1e-6)
    for name, value in theirs.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert np.array_equal(ours.state_dict()[name], value)


def test_load_state_dict_changes_all_or_nothing():
    net = policy()
    before, state = net.vector.copy(), net.state_dict()
    for change, message in (
        (lambda s: s.pop("0.bias"), "missing"),
        (lambda s: s.update(more=np.zeros(1)), "unknown"),
        (lambda s: s.update({"2.weight": np.zeros((33, 2))}), "shape"),
        (lambda s: s.update({"2.weight": np.zeros((2, 33), complex)}), "dtype"),
    ):
        wrong = {name: np.zeros_like(value) for name, value in state.items()}
        change(wrong)
        with pytest.raises((ValueError, TypeError), match=message):
            net.load_state_dict(wrong)
        assert_same_bits(net.vector, before)


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ((np.zeros((2, 8), np.float32),), ValueError, "shape"),
        ((np.zeros((2, 7)),), TypeError, "dtype float64; accepted: float32"),
        ((np.zeros((2, 7), np.float16),), TypeError, "float16"),
        ((np.zeros((2, 2, 7), np.float32),), ValueError, "accepted"),
        ((), TypeError, "0 arrays"),
        ((np.zeros((2, 7), np.float32),) * 2, TypeError, "2 arrays"),
        (("text",), TypeError, "dtype"),
    ],
)
def test_wrong_input(arrays, error, message):
    with pytest.raises(error, match=message):
        policy()(*arrays)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ln.Sequential(), ValueError, "input_shape"),
        (lambda: ln.Sequential(ln.ReLU), TypeError, r"ReLU\(\)"),
        (lambda: ln.Sequential(3), TypeError, "int"),
        (lambda: ln.Sequential(ln.Linear(2, 2), dtype=np.int32), TypeError, "float64"),
        (lambda: ln.Linear(0, 3), ValueError, "in_features"),
        (lambda: ln.Conv2d(4, 4, 3, groups=3), ValueError, "groups"),
        (lambda: ln.Conv2d(4, 4, 3, padding="full"), ValueError, "padding"),
        (lambda: ln.MaxPool2d(2, padding=2), ValueError, "padding"),
        (lambda: ln.GELU("exact"), ValueError, "approximate"),
        (lambda: ln.Sequential(ln.Linear(2, 3), ln.Linear(4, 2))(np.zeros((1, 2), "f4")), ValueError,
         "node '1'"),
    ],
)  # fmt: skip
def test_wrong_layers(make, error, message):
    with pytest.raises(error, match=message):
        make()
