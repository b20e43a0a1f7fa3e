"""Comparisons and calls that several tests need."""

from __future__ import annotations

import functools
import signal
from typing import Any

import numba
import numpy as np

import loopnest as ln


def hear_interrupts() -> None:
    """For the beginning of a process that is to be interrupted: the tests may run under nohup, or
    in the background, where SIGINT is ignored and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def results(value: Any) -> list[np.ndarray]:
    """The arrays that a call returned, one or several."""
    values = value if isinstance(value, tuple) else (value,)
    return [np.asarray(v) for v in values]


def assert_same_bits(actual: Any, expected: Any, what: str = "") -> None:
    """Equal shapes, dtypes and bits; NaNs count as equal whatever their payload."""
    actual, expected = results(actual), results(expected)
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        if a.ndim == 0 and a.dtype == np.float64 and b.dtype == np.float32:
            a = a.astype(np.float32)  # Numba hands a float32 number out as a Python float
        assert a.shape == b.shape and a.dtype == b.dtype, what
        if a.tobytes() == b.tobytes():
            continue
        same = (a == b) & (np.signbit(a) == np.signbit(b)) | (np.isnan(a) & np.isnan(b))
        assert same.all(), f"{what}: {np.count_nonzero(~same)} of {a.size} differ"


def assert_close(actual: Any, expected: Any, atol: float, what: str = "") -> None:
    """Equal shapes, and values within ``atol`` (1 + |expected|)."""
    for a, b in zip(results(actual), results(expected), strict=True):
        assert a.shape == b.shape, f"{what}: shape {a.shape}, expected {b.shape}"
        np.testing.assert_allclose(a, b, rtol=atol, atol=atol, err_msg=what)


@functools.cache
def _compiled(op: str, count: int, names: tuple[str, ...], fixed: tuple[tuple[str, Any], ...]):
    """@njit function ``(args..., options...)`` that calls ``ln.<op>``.

    Strings, flags and None are written into the source: inside @njit they are constants.
    """
    arguments = [f"a{i}" for i in range(count)]
    keywords = [f"{name}={name}" for name in names] + [f"{k}={v!r}" for k, v in fixed]
    source = f"def call({', '.join([*arguments, *names])}):\n"
    source += f"    return ln.{op}({', '.join([*arguments, *keywords])})\n"
    scope: dict[str, Any] = {"ln": ln}
    exec(source, scope)
    return numba.njit(scope["call"])


def njit_call(op: str, arguments: tuple, options: dict[str, Any]) -> Any:
    """Call ``ln.<op>`` from inside compiled code."""
    fixed = {k: v for k, v in options.items() if v is None or isinstance(v, (str, bool))}
    runtime = {k: v for k, v in options.items() if k not in fixed}
    call = _compiled(op, len(arguments), tuple(runtime), tuple(fixed.items()))
    return call(*arguments, *runtime.values())
