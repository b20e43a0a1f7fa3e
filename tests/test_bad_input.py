"""What every op refuses, from one table: the error names op and argument, nothing is written.

The rows' own tests have what is particular to each op.
"""

import inspect
import threading

import numpy as np
import pytest
from cases import FLOAT32, FLOAT64, ROW_OF, SMALL, STEPS

import loopnest as ln

FIRST = {op: next(c for c in SMALL if c.op == op and c.elements > 20) for op in ROW_OF}
WITH_OUT = sorted(op for op in ROW_OF if "out" in inspect.signature(getattr(ln, op)).parameters)
INTEGERS = ("target", "indices")

# Arrays that no op takes, made of a right one.
WRONG_DTYPES = {
    "complex128": lambda a: a.astype(complex),
    "object": lambda a: a.astype(object),
    "<U32": lambda a: a.astype(float).astype(str),
    "float16": lambda a: a.astype(np.float16),
    "datetime64": lambda a: np.zeros(a.shape, "datetime64[s]"),
    "float128": lambda a: a.astype(np.longdouble),
}


def names_of(op):
    return list(inspect.signature(getattr(ln, op)).parameters)


def output_of(case, arguments):
    """A right ``out``, filled so that writing to it shows."""
    y = np.asarray(array_of(case.call(ln, arguments)))
    return np.full(y.shape, 7.0, y.dtype)


def array_of(result):
    """What ``out`` stands for: of loss and gradient the gradient."""
    return result[-1] if isinstance(result, tuple) else result


def refused(case, arguments, error, word, **more):
    with pytest.raises(error) as caught:
        case.call(ln, arguments, **more)
    text = str(caught.value)
    assert text.startswith(case.op + ":") and word in text and "accepted" in text, text


@pytest.mark.parametrize("wrong", WRONG_DTYPES)
@pytest.mark.parametrize("op", sorted(ROW_OF))
def test_arrays_of_other_dtypes(op, wrong, backend):
    case = FIRST[op]
    arguments = case.arguments(FLOAT64)
    for place, name in zip(range(len(arguments)), names_of(op), strict=False):
        changed = list(arguments)
        changed[place] = WRONG_DTYPES[wrong](arguments[place])
        more = {"out": output_of(case, arguments)} if op in WITH_OUT else {}
        refused(case, changed, (TypeError, ValueError), name, **more)
        if name not in INTEGERS:
            with pytest.raises(TypeError, match="<U" if wrong == "<U32" else wrong):
                case.call(ln, changed)
        assert not more or (more["out"] == 7).all()
    if wrong == "float16":
        with pytest.raises(TypeError, match="cast it with"):
            case.call(ln, [WRONG_DTYPES[wrong](a) for a in arguments])


@pytest.mark.parametrize("op", sorted(ROW_OF))
def test_mixed_dtypes_and_wrong_rank(op, backend):
    case = FIRST[op]
    arguments = case.arguments(FLOAT64)
    floats = [i for i, a in enumerate(arguments) if a.dtype == FLOAT64]
    for place in floats[1:]:
        changed = list(arguments)
        changed[place] = changed[place].astype(FLOAT32)
        refused(case, changed, TypeError, "different dtypes")
    if ROW_OF[op] in ("convolution", "pooling"):
        for place in floats:
            changed = list(arguments)
            changed[place] = changed[place][0]
            refused(case, changed, ValueError, names_of(op)[place])


@pytest.mark.parametrize("op", WITH_OUT)
def test_out(op, backend):
    case = FIRST[op]
    arguments = case.arguments(FLOAT64)
    right = output_of(case, arguments)
    frozen = right.copy()
    frozen.setflags(write=False)
    wide = np.full((*right.shape[:-1], 2 * right.shape[-1]), 7.0)
    unaligned = np.zeros(right.nbytes + 1, np.uint8)[1:].view(right.dtype).reshape(right.shape)
    unaligned[...] = 7
    wrong = [
        (TypeError, "list", right.tolist()),
        (TypeError, "float32", right.astype(FLOAT32)),
        (TypeError, ">f8", right.astype(">f8")),
        (ValueError, "shape", np.full((*right.shape, 1), 7.0)),
        (ValueError, "shape", right[:-1] if len(right) > 1 else np.concatenate([right, right])),
        (ValueError, "C-contiguous", wide[..., ::2]),
        (ValueError, "C-contiguous", unaligned),
        (ValueError, "read-only", frozen),
    ]
    if right.ndim > 1 and min(right.shape[-2:]) > 1:
        wrong.append((ValueError, "C-contiguous", np.asfortranarray(right)))
    for error, word, out in wrong:
        with pytest.raises(error, match="out") as caught:
            case.call(ln, arguments, out=out)
        assert str(caught.value).startswith(op + ": out") and word in str(caught.value)
        assert (np.asarray(out, FLOAT64) == 7).all()
    assert array_of(case.call(ln, arguments, out=right)) is right
    assert right.tobytes() == np.asarray(array_of(case.call(ln, arguments))).tobytes()


@pytest.mark.parametrize("op", WITH_OUT)
def test_out_that_overlaps_an_input(op, backend):
    case = FIRST[op]
    arguments = list(case.arguments(FLOAT64))
    y = output_of(case, arguments)
    for place, a in enumerate(arguments):
        unused = names_of(op)[place] == "x" and op.endswith("pool2d_backward")
        if a.dtype != FLOAT64 or unused:
            continue  # of that x only the shape counts
        memory = np.zeros(a.size + y.size)
        shared = memory[: a.size].reshape(a.shape)
        shared[...] = a
        start = 1 if a.size > 1 else 0
        out = memory[start : start + y.size].reshape(y.shape)
        changed = [*arguments[:place], shared, *arguments[place + 1 :]]
        if np.shares_memory(out, shared):
            refused(case, changed, ValueError, "overlaps", out=out)
            assert (shared == a).all()


def test_rows_between_those_of_an_input_are_no_overlap(backend):
    memory = np.arange(24.0).reshape(4, 6)
    expected = memory[::3].copy()
    assert (ln.relu(memory[::3], out=memory[1:3]) == expected).all()
    assert (memory[1:3] == expected).all() and (memory[::3] == expected).all()


@pytest.mark.parametrize("kind", ["matrix", "memmap"])
def test_subclasses_of_arrays_are_written_as_plain_memory(kind, backend, tmp_path):
    """np.matrix stays two-dimensional when flattened, which once let kernels write past it."""
    x = np.linspace(-2, 2, 12).reshape(3, 4)
    plain = np.zeros((3, 4))
    if kind == "memmap":
        out = np.memmap(tmp_path / "y", np.float64, "w+", shape=(3, 4))
    else:
        out = plain.view(np.matrix)
    ln.gelu(x, out=out)
    assert np.asarray(out).tobytes() == ln.gelu(x).tobytes()
    ln.softmax(x, out=out)
    assert np.asarray(out).tobytes() == ln.softmax(x).tobytes()
    assert ln.gelu(out).tobytes() == ln.gelu(np.asarray(out)).tobytes()


def test_unsigned_integers_do_not_wrap():
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    y, indices = ln.max_pool2d(x, 2, return_indices=True)
    with pytest.raises(ValueError, match="indices holds 18446744073709551615"):
        ln.max_pool2d_backward(y, x, np.full(indices.shape, 2**64 - 1, np.uint64), 2)
    with pytest.raises(ValueError, match="target holds 18446744073709551516"):  # not -100
        ln.cross_entropy(np.ones((1, 3)), np.array([2**64 - 100], np.uint64))


@pytest.mark.parametrize("dy", ["a", None, 1j, [1.0, [2.0]]])
def test_upstream_gradient_of_the_loss(dy):
    with pytest.raises(TypeError, match="cross_entropy_backward: dy"):
        ln.cross_entropy_backward(np.ones((2, 3)), np.array([0, 1]), dy=dy)


@pytest.mark.parametrize("dtype", ["nonsense", int, np.float16, complex])
def test_average_filter_dtype(dtype):
    with pytest.raises(TypeError, match="average_filter: dtype is"):
        ln.average_filter(2, 1, dtype)


@pytest.mark.parametrize("lr", [np.nan, np.inf, -1.0])
@pytest.mark.parametrize("op", STEPS)
def test_learning_rates(op, lr, backend):
    states, options, _ = STEPS[op]
    arrays = [np.full(3, 7.0) for _ in range(2 + states)]
    with pytest.raises(ValueError, match=f"{op}: lr is"):
        getattr(ln, op)(*arrays, **{**options, "lr": lr})
    assert all((a == 7).all() for a in arrays)


# ---- choosing a backend ----


def test_the_same_object_serves_two_blocks():
    before = ln.get_backend()
    for name in ("c", "numba"):
        block = ln.use_backend(name)
        ln.use_backend(before)
        for _ in range(2):
            with block:
                pass
        assert ln.get_backend() == before
    other = "c" if before == "numba" else "numba"
    block = ln.use_backend(other)
    with block:
        assert ln.get_backend() == other
    with block:
        assert ln.get_backend() == other


def test_blocks_of_threads_that_end_in_any_order_leave_nothing_behind():
    with ln.use_backend("numba"):
        first_open, second_open = threading.Event(), threading.Event()
        first_closed = threading.Event()

        def first():
            with ln.use_backend("c"):
                first_open.set()
                second_open.wait(10)
            first_closed.set()

        def second():
            first_open.wait(10)
            with ln.use_backend("c"):
                second_open.set()
                first_closed.wait(10)
                assert ln.get_backend() == "c"

        workers = [threading.Thread(target=work) for work in (first, second)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert ln.get_backend() == "numba"
