"""Work memory: aligned, separate, used again, bounded; after exceptions, in threads and forks."""

import os
import threading

import numpy as np
import pytest
from test_backend import run_python

from loopnest.runtime import scratch


@pytest.fixture(autouse=True)
def nothing_kept():
    scratch._kept.blocks.clear()
    yield
    scratch._kept.blocks.clear()


def kept():
    return sum(block.size for block in scratch._kept.blocks)


@pytest.mark.parametrize("shape", [0, 1, 1000, (3, 5), (0, 7), (64, 1024), ()])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.dtype(np.float64)])
def test_shape_dtype_and_alignment(shape, dtype):
    for _ in range(2):
        with scratch.take(shape, dtype) as work:
            assert work.shape == (shape if isinstance(shape, tuple) else (shape,))
            assert work.dtype == dtype and work.flags.writeable and work.flags.c_contiguous
            assert work.ctypes.data % scratch.ALIGNMENT == 0
            work[...] = 1


def test_memory_is_used_again():
    with scratch.take(1000) as work:
        first = work.ctypes.data
    for size in (1000, 10, 1001):
        with scratch.take(size) as work:
            assert work.ctypes.data == first
    with scratch.take((10, 10), np.float32) as work:
        assert work.ctypes.data == first and work.shape == (10, 10)


def test_arrays_in_use_are_separate_in_any_order():
    takes = [scratch.take(size) for size in (100, 5000, 100, 20)]
    for _ in range(3):
        works = [take.__enter__() for take in takes]
        for i, work in enumerate(works):
            work[:] = i
        for i, work in enumerate(works):
            assert (work == i).all()
        for take in (takes[1], takes[0], takes[3], takes[2]):
            take.__exit__(None, None, None)


def test_an_exception_gives_the_memory_back():
    for _ in range(5):
        with pytest.raises(ZeroDivisionError), scratch.take(1 << 20):
            raise ZeroDivisionError
    assert kept() == 1 << 20


def test_kept_memory_is_bounded():
    for size in (1 << 20, 3 << 20, 7 << 20, 13 << 20, 40 << 20):
        with scratch.take(size), scratch.take(size):
            pass
        assert kept() <= scratch.KEPT
    for size in range(1, 200):
        with scratch.take(size << 10):
            pass
    assert len(scratch._kept.blocks) == 1


@pytest.mark.parametrize("shape", [1 << 62, (1 << 40, 1 << 40)])
def test_no_memory(shape):
    with scratch.take(100):
        pass
    with pytest.raises(MemoryError, match="work space"), scratch.take(shape):
        pass
    with scratch.take(100):
        pass


def test_threads_do_not_share():
    wrong = []

    def work(number):
        for i in range(200):
            with scratch.take(64 * (1 + i % 7), np.int64) as a, scratch.take(512, np.int64) as b:
                a[:], b[:] = number, -number
                if (a != number).any() or (b != -number).any():
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_in_a_forked_child():
    code = """
import os
from loopnest.runtime import scratch
with scratch.take(1000) as work:
    work[:] = 1
    child = os.fork()
    with scratch.take(1000) as other:
        other[:] = 2
    fine = (work == 1).all() and other.ctypes.data != work.ctypes.data
    if child == 0:
        os._exit(0 if fine else 1)
    print(fine, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code) == "True 0"
