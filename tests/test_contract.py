"""The numerics contract over the whole case table.

Right against the float64 reference; the same bits from Numba, C, two threads and @njit.
"""

import os

import numpy as np
import pytest
import reference
from cases import CASES, FLOAT32, FLOAT64, ROW_OF, SMALL, tolerance
from helpers import assert_close, assert_same_bits, njit_call

import loopnest as ln

DTYPES = {"float32": FLOAT32, "float64": FLOAT64}


def variants(cases):
    """(case, dtype) for both dtypes; large cases in float32 only."""
    return [
        pytest.param(case, dtype, id=f"{case}-{name}")
        for case in cases
        for name, dtype in DTYPES.items()
        if not (case.large and name == "float64")
    ]


@pytest.mark.parametrize(("case", "dtype"), variants(CASES))
def test_backends_agree_with_reference_and_each_other(case, dtype):
    arguments = case.arguments(dtype)
    with ln.use_backend("numba"):
        numba_result = case.call(ln, arguments)
    with ln.use_backend("c"):
        c_result = case.call(ln, arguments)
    assert_same_bits(c_result, numba_result, "C and Numba")
    assert_close(numba_result, case.call(reference, arguments), tolerance(case, dtype), str(case))


@pytest.mark.parametrize(("case", "dtype"), variants(CASES))
def test_threads_do_not_change_the_bits(case, dtype, two_threads):
    arguments = case.arguments(dtype)
    for name in ("numba", "c"):
        with ln.use_backend(name):
            ln.set_num_threads(1)
            one = case.call(ln, arguments)
            ln.set_num_threads(2)
            assert_same_bits(case.call(ln, arguments), one, name)


# Of the activations that conv2d and linear apply, inside @njit, by one function for all names.
FUSED = (None, "leaky_relu", "gelu")


def compiled_form(case, dtype):
    """What tells apart the functions that `njit_call` compiles, and what is new in each."""
    dims = tuple((a.ndim, a.dtype.kind) for a in case.arguments(dtype))
    options = frozenset(
        (k, v if v is None or isinstance(v, (str, bool)) else str(np.shape(v)))
        for k, v in case.options.items()
    )
    news = {(case.op, dtype.name)}
    # How options and arrays of other dimensions are taken is one function for a whole row
    # (each activation has its own).
    taker = case.op if case.row == "activation" else case.row
    news |= {(taker, option) for option in options}
    news.add((case.row, case.op.endswith("_backward"), dims))
    return (case.op, dtype.name, options, dims), news


def njit_variants():
    """Cases that compile something new (an op in a dtype, a row's option, dimensions), and
    those that compile nothing; all of them when LOOPNEST_FULL is set.

    Nearly all of this test's time is compilation: a second for each combination.
    """
    full, forms, seen = bool(os.environ.get("LOOPNEST_FULL")), set(), set()
    for variant in variants(SMALL):
        form, news = compiled_form(*variant.values)
        usual = variant.values[0].options.get("activation") in FUSED
        if full or form in forms or (usual and not news <= seen):
            forms.add(form)
            seen |= news
            yield variant


@pytest.mark.parametrize(("case", "dtype"), list(njit_variants()))
def test_njit_gives_the_same_bits(case, dtype):
    arguments = case.arguments(dtype)
    expected = case.call(ln, arguments)
    assert_same_bits(njit_call(case.op, arguments, case.options), expected)


@pytest.mark.parametrize("isa", ["base", "avx2", "avx512"])
def test_instruction_sets_give_the_same_bits(isa):
    _c = pytest.importorskip("loopnest._c")
    if _c.lib.ln_select_isa(isa.encode()) != 0:
        pytest.skip(f"this CPU has no {isa}")
    try:
        for case in SMALL[::7]:
            arguments = case.arguments(FLOAT32)
            with ln.use_backend("c"):
                actual = case.call(ln, arguments)
            with ln.use_backend("numba"):
                assert_same_bits(actual, case.call(ln, arguments), f"{case} on {isa}")
    finally:
        _c.lib.ln_select_isa(b"best")


@pytest.mark.parametrize("op", sorted(ROW_OF))
def test_special_values_give_the_same_bits(op, dtype):
    case = next(c for c in SMALL if c.op == op and c.elements > 20)
    floats = [a for a in case.arguments(dtype) if a.dtype == dtype]
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -3e38, 5e-324], dtype)
    for shift in range(2):
        for array in floats:
            flat = array.reshape(-1)
            flat[shift :: max(2, flat.size // 5)][: len(special)] = np.resize(
                special, len(flat[shift :: max(2, flat.size // 5)][: len(special)])
            )
        arguments = case.arguments(dtype)
        arguments = (
            tuple(floats.pop(0) if a.dtype == dtype else a for a in arguments)
            if floats
            else arguments
        )
        with np.errstate(all="ignore"):
            with ln.use_backend("numba"):
                expected = case.call(ln, arguments)
            with ln.use_backend("c"):
                assert_same_bits(case.call(ln, arguments), expected)
        floats = [a for a in arguments if a.dtype == dtype]


@pytest.mark.parametrize("op", sorted(ROW_OF))
def test_strided_and_read_only_inputs(op, dtype, backend):
    case = next(c for c in SMALL if c.op == op and c.elements > 20)
    arguments = case.arguments(dtype)
    expected = case.call(ln, arguments)

    def scattered(a):
        wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
        wide[..., ::2] = a
        return wide[..., ::2]

    def frozen(a):
        a = a.copy()
        a.setflags(write=False)
        return a

    def unaligned(a):
        raw = np.zeros(a.nbytes + 1, np.uint8)
        b = raw[1:].view(a.dtype).reshape(a.shape)
        b[...] = a
        return b

    for change in (scattered, frozen, unaligned, np.asfortranarray):
        changed = tuple(change(a) for a in arguments)
        assert_same_bits(case.call(ln, changed), expected, change.__name__)
    before = [a.copy() for a in arguments]
    case.call(ln, arguments)
    for a, b in zip(arguments, before, strict=True):
        assert_same_bits(a, b, "inputs are left alone")


def test_every_public_op_is_in_the_table():
    not_kernels = {
        "conv2d_output_shape", "conv2d_paddings_for", "average_filter", "use_backend",
        "get_backend", "available_backends", "set_num_threads", "get_num_threads",
        "get_include", "get_library_dir", "gate", "gate_forward", "descend", "load_onnx",
        "pack_weight",
    }  # fmt: skip
    functions = {
        name
        for name in dir(ln)
        if not name.startswith("_") and callable(getattr(ln, name)) and name.islower()
    }
    steps = {name for name in functions if name.endswith("_step")}
    assert functions - not_kernels - steps == set(ROW_OF)
