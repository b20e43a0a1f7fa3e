"""Checks of arguments: each error names the op, the argument, what came, what is accepted."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

F32 = np.dtype(np.float32)
F64 = np.dtype(np.float64)
INT64_MAX = 2**63 - 1
_FLOATS = frozenset((F32, F64))


def array(op: str, name: str, value: Any, ndim: int | None = None) -> np.ndarray:
    """``value`` as a C-contiguous, aligned float32 or float64 array (a copy if it must be).

    Integers and booleans become float64.
    """
    if type(value) is not np.ndarray or value.dtype not in _FLOATS:
        value = _as_float(op, name, value)
    if ndim is not None and value.ndim != ndim:
        raise ValueError(
            f"{op}: {name} has {value.ndim} dimensions, shape {value.shape}; accepted: {ndim}"
        )
    flags = value.flags
    if not (flags.c_contiguous and flags.aligned):
        value = np.require(value, requirements=("C", "A"))
    return value


# What NumPy's own subclasses make of arithmetic: nothing. Others that define it carry a meaning.
_USUAL_FUNCTIONS = (np.ndarray.__array_ufunc__, np.ndarray.__array_function__)
_USUAL_WRAPS = (np.ndarray.__array_wrap__, np.memmap.__array_wrap__)
# Attributes by which arrays of NumPy and of other libraries say more than numbers.
_MEANINGS = ("mask", "unit", "units")


def has_meaning(value: Any) -> bool:
    """Whether an array says more than its numbers: a mask or a unit.

    `numpy.asarray` drops a mask or a unit without a word. A subclass is plain if it leaves NumPy's
    arithmetic as it is and has no attribute of such a name: memmap, matrix, recarray, and one's own
    with other attributes.
    """
    kind = type(value)
    if isinstance(value, np.ndarray):
        functions = kind.__array_ufunc__, kind.__array_function__
        if functions != _USUAL_FUNCTIONS or kind.__array_wrap__ not in _USUAL_WRAPS:
            return True
    own = getattr(value, "__dict__", {})
    # A method is no mask: pandas has one of that name. A column of a table is no attribute here.
    return any(
        name in own or (hasattr(kind, name) and not callable(getattr(kind, name)))
        for name in _MEANINGS
    )


def _meaningful(value: Any) -> Any:
    """The first array with a meaning: ``value``, or an entry of it if it is a list; else None."""
    if isinstance(value, (list, tuple)):
        entries = (_meaningful(v) for v in value if type(v) not in (float, int, bool))
        return next((found for found in entries if found is not None), None)
    return value if type(value) is not np.ndarray and has_meaning(value) else None


def refuse_meaning(op: str, name: str, value: Any) -> None:
    """TypeError where an array of ``value`` would say less than it does."""
    if type(value) is np.ndarray or isinstance(value, np.generic):
        return
    found = _meaningful(value)
    if found is not None:
        kind = f"{type(found).__module__}.{type(found).__qualname__}"
        raise TypeError(
            f"{op}: {name} is {'a' if found is value else 'or has a'} {kind}, whose mask or unit "
            "would be lost; "
            "accepted: a plain array, numpy.asarray of it if its numbers are all there is to it"
        )


def plain(op: str, name: str, value: Any) -> np.ndarray:
    """``value`` as an array of whatever dtype; TypeError where that would drop a meaning."""
    refuse_meaning(op, name, value)
    try:
        return np.asarray(value)
    except Exception as error:
        raise TypeError(
            f"{op}: {name} is a {type(value).__name__} that NumPy makes no array of ({error}); "
            "accepted: an array"
        ) from error


def _as_float(op: str, name: str, value: Any) -> np.ndarray:
    given = plain(op, name, value)
    dtype = given.dtype
    if dtype.kind in "iub":
        return given.astype(F64)
    if dtype.kind == "f" and dtype.itemsize in (4, 8):
        return given.astype(dtype.newbyteorder("="), copy=False)
    if dtype == np.float16:
        raise TypeError(
            f"{op}: {name} has dtype float16; accepted: float32 or float64, "
            f"cast it with {name}.astype(numpy.float32)"
        )
    raise TypeError(f"{op}: {name} has dtype {dtype}; accepted: float32 or float64")


def integer_array(op: str, name: str, value: Any) -> np.ndarray:
    """``value`` as a C-contiguous int64 array; only integer dtypes are taken."""
    given = plain(op, name, value)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{op}: {name} has dtype {given.dtype}; accepted: an integer dtype")
    if given.dtype.kind == "u" and given.size and given.max() > INT64_MAX:  # would turn negative
        raise ValueError(f"{op}: {name} holds {given.max()}; accepted: at most {INT64_MAX}")
    return np.require(given, dtype=np.int64, requirements=("C", "A"))


def same_dtype(op: str, **arrays: np.ndarray | None) -> np.dtype:
    """The one dtype of all arrays (None is skipped)."""
    first = None
    for value in arrays.values():
        if value is None:
            continue
        if first is None:
            first = value.dtype
        elif value.dtype != first:
            listed = ", ".join(
                f"{name} {value.dtype}" for name, value in arrays.items() if value is not None
            )
            raise TypeError(
                f"{op}: arrays of different dtypes: {listed}; accepted: all float32 or all float64"
            )
    assert first is not None, "called with an array"
    return first


def same_shape(op: str, name: str, value: np.ndarray, shape: tuple[int, ...]) -> None:
    """``value`` must have this shape."""
    if value.shape != shape:
        raise ValueError(f"{op}: {name} has shape {value.shape}; accepted: {shape}")


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays share an element; if that is too hard to tell, whether they may."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=1000)  # type: ignore[arg-type]
    except RuntimeError:  # numpy.exceptions.TooHardError
        return True


def _refuse_layout(op: str, name: str, out: np.ndarray) -> None:
    if out.flags.writeable:
        raise ValueError(
            f"{op}: {name} is not C-contiguous and aligned (strides {out.strides}); "
            "accepted: a C-contiguous array"
        )
    raise ValueError(f"{op}: {name} is read-only; accepted: a writable array")


def output(
    op: str,
    out: Any,
    shape: tuple[int, ...],
    dtype: np.dtype,
    inputs: Iterable[Any] = (),
    in_place: bool = False,
    name: str = "out",
) -> np.ndarray:
    """The array to write to: a new one, or the caller's once it is proven fit.

    ``in_place`` allows that it is exactly one of the inputs.
    """
    if out is None:
        try:
            return np.empty(shape, dtype)
        except ValueError:
            raise ValueError(f"{op}: the result's shape {shape} is too large for memory") from None
        except MemoryError:
            raise MemoryError(f"{op}: no memory for a result of shape {shape}, {dtype}") from None
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{op}: {name} is a {type(out).__name__}; accepted: a NumPy array")
    if type(out) is not np.ndarray:
        refuse_meaning(op, name, out)
        out = out.view(np.ndarray)  # a memmap's bytes; np.matrix would stay 2-D when flattened
    if out.dtype != dtype:
        raise TypeError(f"{op}: {name} has dtype {out.dtype}; accepted: {dtype}")
    if out.shape != shape:
        same_shape(op, name, out, shape)
    flags = out.flags
    if not flags.carray:  # C-contiguous, aligned and writable
        _refuse_layout(op, name, out)
    owner, seen = flags.owndata, None
    for given in inputs:
        if given is seen or not isinstance(given, np.ndarray):
            continue
        seen = given
        if given is out:
            shared, same = True, True
        else:
            # Two arrays that own their memory do not share it; asking NumPy costs more.
            shared = not (owner and given.flags.owndata) and _overlap(out, given)
            # Both in one piece: strides of axes of one element mean nothing.
            same = shared and (
                given.ctypes.data == out.ctypes.data
                and given.flags.c_contiguous
                and given.size == out.size
                and given.dtype == out.dtype
            )
        if shared and not (in_place and same):
            raise ValueError(
                f"{op}: {name} overlaps an input in memory; accepted: an array of its own"
                + (" or exactly the input" if in_place else "")
            )
    return out


def gradients(
    op: str,
    given: Any,
    shapes: Sequence[tuple[int, ...]],
    dtype: np.dtype,
    inputs: Iterable[Any],
    needs_dx: bool,
) -> list[np.ndarray]:
    """The arrays (dx, dweight, dbias) to write to: new ones, or the caller's once they are fit.

    Without ``needs_dx`` the caller gives no dx, and a dx without elements is made.
    """
    accepted = "accepted: None or (dx, dweight, dbias), each a NumPy array or None"
    if given is None:
        given = (None,) * len(shapes)
    if not isinstance(given, (tuple, list)):
        raise TypeError(f"{op}: gradients is a {type(given).__name__}; {accepted}")
    if len(given) != len(shapes):
        raise ValueError(f"{op}: gradients has {len(given)} entries; {accepted}")
    if not needs_dx:
        if given[0] is not None:
            raise ValueError(f"{op}: gradients[0] is given with needs_dx False; accepted: None")
        shapes = (0,), *shapes[1:]
    made: list[np.ndarray] = []
    for i, (one, shape) in enumerate(zip(given, shapes, strict=True)):
        made.append(output(op, one, shape, dtype, (*inputs, *made), name=f"gradients[{i}]"))
    return made


def choice(op: str, name: str, value: Any, accepted: Iterable[Any]) -> Any:
    """``value`` must be one of ``accepted``."""
    accepted = tuple(accepted)
    if not (isinstance(value, str) or value is None):
        raise TypeError(f"{op}: {name} is {value!r}; accepted: {', '.join(map(repr, accepted))}")
    if value not in accepted:
        raise ValueError(f"{op}: {name} is {value!r}; accepted: {', '.join(map(repr, accepted))}")
    return value


def integer(op: str, name: str, value: Any, low: int, high: int | None = None) -> int:
    """``value`` as an int within ``[low, high]``; no bool, no float."""
    if type(value) is not int:
        try:
            given: Any = None if isinstance(value, (bool, np.bool_)) else value
            refuse_meaning(op, name, given)
            value = operator.index(given)
        except TypeError:
            raise TypeError(
                f"{op}: {name} is {value!r}; accepted: {_integers(low, high)}"
            ) from None
    if value < low or (high is not None and value > high):
        raise ValueError(f"{op}: {name} is {value}; accepted: {_integers(low, high)}")
    return value


def _integers(low: int, high: int | None) -> str:
    return f"integers from {low} to {high}" if high is not None else f"integers of at least {low}"


def flag(op: str, name: str, value: Any) -> bool:
    """``value`` must be True or False, Python's or NumPy's."""
    if value is True or value is False:
        return value
    if not isinstance(value, np.bool_):
        raise TypeError(f"{op}: {name} is {value!r}; accepted: True or False")
    return bool(value)


def pair(op: str, name: str, value: Any, low: int, high: int) -> tuple[int, int]:
    """``value``, an int or two of them, as two ints within ``[low, high]``."""
    if isinstance(value, (tuple, list)):
        if len(value) not in (1, 2):
            raise ValueError(f"{op}: {name} is {value!r}; accepted: an integer or two of them")
        value = (*value, *value)[:2]  # one serves both axes, as in PyTorch
        return integer(op, name, value[0], low, high), integer(op, name, value[1], low, high)
    value = integer(op, name, value, low, high)
    return value, value


def number(op: str, name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a finite float within ``[low, high]``."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{op}: {name} is {value!r}; accepted: a number")
    refuse_meaning(op, name, value)
    try:
        value = float(value)
    except OverflowError:  # an integer or a fraction beyond every float
        value = math.inf if value > 0 else -math.inf
    if not (math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{op}: {name} is {value}; accepted: {accepted_range(low, high)}")
    return value


def accepted_range(low: float, high: float, below: bool = False) -> str:
    """Words for a range of numbers; with ``below`` its end is outside."""
    if low == -math.inf and high == math.inf:
        return "a finite number"
    if high == math.inf:
        return f"a finite number of at least {low:g}"
    return f"a number from {low:g} to {'below ' if below else ''}{high:g}"
