"""Backends and threads: choosing, failing, running side by side, forking."""

import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import assert_same_bits

import loopnest as ln
from loopnest.runtime import backend as backends
from loopnest.runtime import threads


def run_python(code, **environment):
    """Standard output of ``code`` in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_does_not_import_numba():
    code = "import sys, loopnest; print('numba' in sys.modules, 'loopnest._c' in sys.modules)"
    assert run_python(code) == "False False"


@pytest.mark.parametrize(("name", "expected"), [("numba", "numba"), ("c", "c"), ("auto", "numba")])
def test_environment_chooses(name, expected):
    code = "import loopnest as ln; ln.relu(1.0); print(ln.get_backend())"
    assert run_python(code, LOOPNEST_BACKEND=name) == expected


def test_empty_variables_are_no_choice():
    code = "import loopnest as ln; print(ln.get_backend(), ln.get_num_threads() > 0)"
    assert run_python(code, LOOPNEST_BACKEND="", LOOPNEST_NUM_THREADS="") == "numba True"


def test_environment_is_checked():
    code = "import loopnest as ln\ntry: ln.relu(1.0)\nexcept ValueError as error: print(error)\n"
    assert "LOOPNEST_BACKEND: name is 'cuda'" in run_python(code, LOOPNEST_BACKEND="cuda")
    code = code.replace("ln.relu(1.0)", "ln.get_num_threads()")
    assert "LOOPNEST_NUM_THREADS" in run_python(code, LOOPNEST_NUM_THREADS="many")


def test_use_backend_is_a_function_and_a_context():
    before = ln.get_backend()
    with ln.use_backend("c"):
        assert ln.get_backend() == "c"
        with ln.use_backend("numba"):
            assert ln.get_backend() == "numba"
        assert ln.get_backend() == "c"
    assert ln.get_backend() == before
    with pytest.raises(ZeroDivisionError), ln.use_backend("c"):
        raise ZeroDivisionError
    assert ln.get_backend() == before
    ln.use_backend("c")
    assert ln.get_backend() == "c"
    ln.use_backend(before)


def test_bad_backend():
    before = ln.get_backend()
    with pytest.raises(ValueError, match="name is 'gpu'; accepted: 'numba', 'c', 'auto'"):
        ln.use_backend("gpu")
    with pytest.raises(TypeError, match="name is 1"):
        ln.use_backend(1)
    assert ln.get_backend() == before


@pytest.mark.parametrize("blocked", ["numba", "loopnest._c"])
def test_missing_backend_says_how_to_get_it(blocked):
    name = "numba" if blocked == "numba" else "c"
    code = f"""
import sys
sys.modules[{blocked!r}] = None
import numpy as np, loopnest as ln
try:
    ln.use_backend({name!r})
except ImportError as error:
    print(error)
print(ln.available_backends(), ln.sigmoid(0.0))
x, w = np.ones((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
print(ln.conv2d(x, w, activation='gelu').shape, ln.max_pool2d(x, 2).sum())
"""
    output = run_python(code)
    assert f"backend '{name}' cannot be had" in output and "install" in output
    other = "c" if name == "numba" else "numba"
    assert f"['{other}'] 0.5" in output and "(1, 1, 2, 2) 4.0" in output


def test_both_backends_have_the_same_kernels():
    numba, c = (backends._load(name) for name in ("numba", "c"))
    assert numba.__all__ == c.__all__
    for row in numba.__all__:
        module = getattr(numba, row)
        kernels = {
            name
            for name, value in vars(module).items()
            if hasattr(value, "py_func") and value.stats.cache_path  # what kernels call has none
        } & set(getattr(module, "__all__", vars(module)))  # __all__: without a driver's own parts
        assert kernels <= set(vars(getattr(c, row))), row


def test_thread_count():
    before = ln.get_num_threads()
    try:
        ln.set_num_threads(3)
        assert ln.get_num_threads() == 3
        for bad, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)):
            with pytest.raises(error, match="set_num_threads: n is"):
                ln.set_num_threads(bad)
        assert ln.get_num_threads() == 3
    finally:
        ln.set_num_threads(before)


def test_pieces_cover_the_range(two_threads):
    for items in (0, 1, 2, 3, 7, 100):
        for count in (1, 2, 3, 8):
            ln.set_num_threads(count)
            seen = []
            threads.split(lambda a, b, s=seen: s.extend(range(a, b)), items, 1e9)
            assert sorted(seen) == list(range(items))


def test_error_in_a_piece_reaches_the_caller(two_threads):
    for guilty in (0, 1):

        def piece(first, last, guilty=guilty):
            if (first > 0) == guilty:
                raise ZeroDivisionError(guilty)

        with pytest.raises(ZeroDivisionError):
            threads.split(piece, 10, 1e9)


def _convolve(seed):
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((2, 3, 12, 11)), rng.standard_normal((4, 3, 3, 3))
    return ln.conv2d(x, w, padding=1, activation="gelu")


def test_many_python_threads_at_once(backend, two_threads):
    expected = [_convolve(seed) for seed in range(8)]
    actual = [None] * 8

    def work(seed):
        for _ in range(20):
            actual[seed] = _convolve(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for a, e in zip(actual, expected, strict=True):
        assert_same_bits(a, e)


def test_in_a_process_pool():
    expected = [_convolve(seed) for seed in range(4)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for actual, e in zip(pool.map(_convolve, range(4)), expected, strict=True):
            assert_same_bits(actual, e)


def test_in_a_forked_child():
    """A child forked after the pool started makes a pool of its own."""
    code = """
import os
import numpy as np, loopnest as ln
from loopnest.runtime import threads
threads.SERIAL_BELOW = 0
ln.set_num_threads(2)
for backend in ("numba", "c"):
    with ln.use_backend(backend):
        x = np.linspace(-3, 3, 1000)
        expected = ln.gelu(x).tobytes()
        child = os.fork()
        if child == 0:
            os._exit(0 if ln.gelu(x).tobytes() == expected else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code).split() == ["0", "0"]
