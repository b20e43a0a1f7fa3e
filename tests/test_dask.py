"""`loopnest.dask`: the bits of the in-memory call, however arrays are cut; killed workers."""

import os
import signal
import threading

import numpy as np
import pytest
from helpers import assert_same_bits

import loopnest as ln

da = pytest.importorskip("dask.array")
dask = pytest.importorskip("dask")

from loopnest import dask as chunked  # noqa: E402


@pytest.fixture(autouse=True)
def _c_and_one_process():
    with ln.use_backend("c"), dask.config.set(scheduler="synchronous"):
        yield


@pytest.mark.parametrize("chunks", [(2, 3), (7, 5), ((1, 4, 2), (2, 2, 1))])
def test_descend(chunks, dtype, rng):
    x0 = rng.standard_normal((7, 5)).astype(dtype)
    x0[2, 3] = np.nan
    lr = np.linspace(0.1, 2, 5).astype(dtype)
    options = {"method": "momentum", "momentum": 0.5, "steps": 40, "tol": 1e-4}
    found = chunked.descend("gelu", da.from_array(x0, chunks), lr=lr, **options)
    expected = ln.descend("gelu", x0, lr=lr, **options)
    assert isinstance(found.x, da.Array) and found.x.chunks[0][0] <= 7
    for name in ("x", "fun", "grad", "steps", "converged", "diverged"):
        assert_same_bits(getattr(found, name).compute(), getattr(expected, name), name)
    assert found.trajectory is None


def test_descend_broadcasts_grids(rng):
    start = da.linspace(-3, 2, 12, chunks=5)[None, :]
    lr = da.from_array(np.geomspace(0.1, 5, 9), 4)[:, None]
    found = chunked.descend((lambda x: x * x, lambda x: 2 * x), start, lr=lr, steps=30)
    expected = ln.descend(
        (lambda x: x * x, lambda x: 2 * x), start.compute(), lr=lr.compute(), steps=30
    )
    assert found.x.numblocks == (3, 3)
    assert_same_bits(found.x.compute(), expected.x)


SHAPES = [
    # N C H W, K R S, options
    ((2, 3, 11, 13), (4, 3, 3, 3), {"padding": 1}),
    ((1, 2, 16, 9), (2, 2, 5, 3), {"stride": 2, "padding": (2, 1)}),
    ((2, 4, 12, 12), (4, 2, 3, 2), {"groups": 2, "dilation": 2, "padding": "valid"}),
    ((1, 1, 10, 10), (1, 1, 4, 4), {"stride": (3, 1), "padding": ((1, 3), (0, 2))}),
    ((1, 1, 9, 9), (1, 1, 3, 5), {"padding": "same", "activation": "gelu"}),
    ((1, 1, 3, 4), (1, 1, 2, 2), {"padding": 4}),  # windows of padding alone
]
CUTS = [(1, 1, 3, 4), (2, 3, 5, 13), (1, 4, (1, 1), 2), "whole"]


def _cut(x, cut):
    if cut == "whole":
        return da.from_array(x, chunks=-1)
    if isinstance(cut[2], tuple):
        cut = (*cut[:2], (1, 1, x.shape[2] - 2), cut[3])
    return da.from_array(x, chunks=cut)


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize(("shape", "filters", "options"), SHAPES)
def test_conv2d(shape, filters, options, cut, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    weight = rng.standard_normal(filters).astype(dtype)
    bias = rng.standard_normal(filters[0]).astype(dtype)
    found = chunked.conv2d(_cut(x, cut), weight, bias, **options)
    expected = ln.conv2d(x, weight, bias, **options)
    assert found.shape == expected.shape and found.dtype == dtype
    assert_same_bits(found.compute(), expected)


POOLS = [
    ("avg_pool2d", (2,), {}),
    ("avg_pool2d", (3, 2, 1), {"ceil_mode": True}),
    ("avg_pool2d", ((3, 2), (2, 1), (1, 0)), {"count_include_pad": False}),
    ("avg_pool2d", (3, 1, 1), {"divisor_override": 5}),
    ("max_pool2d", (3, 2, 1), {}),
    ("max_pool2d", (2, 3), {"ceil_mode": True}),
    ("max_pool2d", (3, 1, 1), {"dilation": 2}),
]


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize(("op", "arguments", "options"), POOLS)
def test_pooling(op, arguments, options, cut, dtype, rng):
    x = rng.standard_normal((2, 3, 11, 13)).astype(dtype)
    x[0, 1, 4, 5] = np.nan
    found = getattr(chunked, op)(_cut(x, cut), *arguments, **options)
    expected = getattr(ln, op)(x, *arguments, **options)
    assert found.shape == expected.shape
    assert_same_bits(found.compute(), expected)


def test_pieces_are_small():
    """A large image is not gathered: a task sees its chunk and the rows around it."""
    x = da.zeros((1, 1, 4000, 64), dtype=np.float32, chunks=(1, 1, 500, 64))
    y = chunked.conv2d(x, np.ones((1, 1, 3, 3), np.float32), padding=1)
    assert y.numblocks == (1, 1, 8, 1) and max(y.chunks[2]) < 510


_ONE = np.ones((1, 1, 4, 4))


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "record is True", lambda: chunked.descend("gelu", 0.0, lr=1, steps=1, record=True)),
        (ValueError, "method is 'x'", lambda: chunked.descend("gelu", 0.0, lr=1, steps=1, method="x")),
        (ValueError, "broadcast", lambda: chunked.descend("gelu", [0.0] * 2, lr=[1] * 3, steps=1)),
        (ValueError, "stride is 0", lambda: chunked.conv2d(_ONE, _ONE, stride=0)),
        (TypeError, "dtype", lambda: chunked.conv2d(1j * _ONE, _ONE)),
        (ValueError, "larger than the padded", lambda: chunked.max_pool2d(np.ones((1, 1, 4, 4)), 5)),
        (ValueError, "dimensions", lambda: chunked.avg_pool2d(np.ones((4, 4)), 2)),
    ],
)  # fmt: skip
def test_bad_input_is_told_at_once(error, message, call):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")
@pytest.mark.filterwarnings("ignore")
def test_a_killed_worker_changes_nothing(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("LOOPNEST_BACKEND", "c")
    x0 = np.linspace(-2, 2, 64)
    options = {"lr": 0.1, "steps": 40}
    expected = ln.descend((np.square, lambda x: 2 * x), x0, **options)

    def slope(x):  # pickled by value, so that workers need not find this file
        import time

        time.sleep(0.002)
        return 2 * x

    settings = {"distributed.comm.timeouts.connect": "60s", "distributed.worker.daemon": True}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2, timeout=120)
        pids = list(client.run(os.getpid).values())
        found = chunked.descend((np.square, slope), da.from_array(x0, 4), **options)
        future = client.compute(found.x)
        killer = threading.Timer(0.5, os.kill, (pids[0], signal.SIGKILL))
        killer.start()
        result = future.result(timeout=180)
        killer.join()
        assert pids[0] not in client.run(os.getpid).values()
    assert_same_bits(result, expected.x)
