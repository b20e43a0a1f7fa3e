"""Small calls, repeated without Python: the one mechanism that keeps a checked call cheap.

Every public function first asks its `Op`::

    known = _RELU.call(x, out, *options, backend.kernels, threads.SERIAL_BELOW)
    if known is not None:
        return known

``call`` is written in C (csrc/direct.c). It looks at nothing but what cannot be misread: exact
NumPy arrays, contiguous, aligned, of native float32, float64 or int64, outputs writable and apart
from all else. If it has a plan for their shapes and for these very options it runs it and
returns the output; otherwise, always None. Then the function does its work in Python: it checks,
converts, tells what is wrong, chooses a kernel and calls it. Was that a matter of one call,
`serial` or `split` notes which, and `Op.keep` makes a plan of it: the same machine
code, on other addresses, gives the same bits. So checks and choices are written once, in
Python, and the quick way cannot differ from them. A large call that was split is split again, over
the same helpers (threads.py), who then do their part without Python.

A plan is kept when a call comes a second time; an op has up to 128 of them. Without the extension
(no compiler, or another CPU than x86-64 and aarch64) all calls take the way through Python.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from loopnest.runtime import scratch, threads

try:
    from loopnest._direct import Op as _Op
except ImportError:  # the package works as well without, the small calls slower
    _Op = None

# Bytes of work space of one thread: so much comes from malloc without page faults.
MOST_SPACE = 1 << 20

# Work (see `threads.split`) from which a plan lets other Python threads run: some microseconds.
_RELEASE_FROM = 1 << 16


class Space(NamedTuple):
    """Stands for work space among the arguments of a kernel."""

    size: int
    dtype: Any


class Items(NamedTuple):
    """Stands for two arguments of a kernel: the first and the last of ``total`` items."""

    total: int


class _Bound(int):
    """The first or last item; told from other numbers among what a kernel is given."""


class Call(NamedTuple):
    """A kernel call that was made: what a plan repeats. Spaces and items are left to fill in."""

    kernel: Any
    arguments: tuple[Any, ...]
    work: float


def small(work: float, space: int = 0) -> bool:
    """Whether a call of so much work and so many bytes of work space is left to `serial`.

    One that is in pieces for the sake of interrupts is not, even on one thread.
    """
    return threads.serial(work) and space <= MOST_SPACE and work <= threads.PIECE_WORK


def serial(work: float, kernel: Any, *arguments: Any) -> Call:
    """Call a kernel; what was called."""
    kernel(*_filled(arguments, int)[0])
    return Call(kernel, arguments, work)


def split(work: float, kernel: Any, *arguments: Any) -> Call | None:
    """Call a kernel on pieces of the `Items` among its arguments, over threads if that pays.

    Returns what was called, None if that is not to be repeated.
    """
    spaces = [value for value in arguments if type(value) is Space]
    bytes_ = sum(space.size * np.dtype(space.dtype).itemsize for space in spaces)
    if small(work, bytes_) and work <= threads.PIECE_WORK:
        return serial(work, kernel, *arguments)
    if (
        work > threads.PIECE_WORK
        or bytes_ > MOST_SPACE
        or not (hasattr(kernel, "arrange") or hasattr(kernel, "overloads"))
    ):
        _split(work, kernel, arguments)
        return None
    call, given = Call(kernel, arguments, work), _given(arguments)
    # What comes with other checks each time, as a network's steps and gradients, has its plan here.
    arrays = sum(value is None or type(value) is np.ndarray for value in given)
    plans = _kernel_plans.get((kernel, arrays))
    if plans is None:
        plans = _kernel_plans[kernel, arrays] = Op("r" * arrays)
    if plans.call(*given) is None:
        _split(work, kernel, arguments)
        plans.keep(given, None, call)
    return call


def _given(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What tells calls of a kernel apart, as `Op.call` takes it: arrays first."""
    arrays: list[Any] = []
    options: list[Any] = [threads.SERIAL_BELOW, len(arguments)]
    for value in arguments:
        if type(value) is np.ndarray:
            arrays.append(value if value.size else None)
        elif type(value) is Space or type(value) is Items:
            options.append(value[0])
        else:
            options.append(value)
    return *arrays, *options


def _split(work: float, kernel: Any, arguments: tuple[Any, ...]) -> None:
    """Call a kernel on pieces, from Python."""

    def piece(first: int, last: int) -> None:
        with contextlib.ExitStack() as taken:
            given: list[Any] = []
            for value in arguments:
                if type(value) is Items:
                    given += first, last
                elif type(value) is Space:
                    given.append(taken.enter_context(scratch.take(value.size, value.dtype)))
                else:
                    given.append(value)
            kernel(*given)

    items = next(value.total for value in arguments if type(value) is Items)
    threads.split(piece, items, work)


def _filled(arguments: tuple[Any, ...], bound: type[int]) -> tuple[list[Any], list[np.ndarray]]:
    """The arguments of one call on all items, and the work space among them."""
    given: list[Any] = []
    spaces: list[np.ndarray] = []
    for value in arguments:
        if type(value) is Items:
            given += bound(0), bound(value.total)
        elif type(value) is Space:
            spaces.append(np.empty(value.size, value.dtype))
            given.append(spaces[-1])
        else:
            given.append(value)
    return given, spaces


def _never(*arguments: Any) -> None:
    """Without the extension no call is known."""


class Op:
    """Plans of one public function.

    Parameters
    ----------
    kinds : str
        A letter an array argument: "r" is read, "w" written in place (apart from all else); the
        last ones, up to three, may be "o", outputs that are made for None, or "i", which may also be
        exactly one of the inputs. All may be None.
    live : int
        So many doubles end the arguments; they are no part of what tells plans apart, but are
        passed on in this order.
    """

    def __init__(self, kinds: str, live: int = 0) -> None:
        self._kinds = kinds
        made = self._made = None if _Op is None else _Op(kinds, live)
        self.call: Any = _never if made is None else made.call

    def keep(self, arguments: tuple, output: Any, *calls: Call | None) -> None:
        """Make a plan for ``arguments`` (those of ``call``), if they come again.

        ``output`` is the array that was made or written, a tuple if there are several; ``calls`` are
        the kernel calls that did the work; None among them if one cannot be repeated.
        """
        made, arrays = self._made, list(arguments[: len(self._kinds)])
        outputs = () if self._kinds[-1] not in "oi" else output
        if type(outputs) is not tuple:
            outputs = (outputs,)
        if made is None or None in calls or not made.wanted(*arguments):
            return
        arrays[len(arrays) - len(outputs) :] = outputs
        places = _places(arrays)
        if places is None:
            return
        kept: list[Any] = list(arguments[len(self._kinds) :])
        total, forms = 0, []
        for call in calls:
            assert call is not None
            known = dict(places)
            given, spaces = _filled(call.arguments, _Bound)
            for space in spaces:
                known[_address(space)] = -1, total
                total += -(-space.nbytes // 64) * 64
            form = _form(call, given, known, kept)
            if form is None:
                return
            forms.append(form)
        work = sum(call.work for call in calls if call is not None)
        made.keep(arguments, outputs, tuple(forms), total, work >= _RELEASE_FROM, kept)


# Plans of large kernel calls, by kernel and number of arrays.
_kernel_plans: dict[tuple[Any, int], Op] = {}


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _places(arrays: Sequence[Any]) -> dict[int, tuple[int, int]] | None:
    """(number, 0) of each array by its address; None if the addresses do not tell them apart."""
    given = {i: a for i, a in enumerate(arrays) if a is not None}
    places = {_address(a): (i, 0) for i, a in given.items() if a.size}
    return places if len(places) == len(given) else None


def _form(
    call: Call, given: list[Any], places: dict[int, tuple[int, int]], kept: list[Any]
) -> tuple | None:
    """A call as csrc/direct.c takes it.

    Machine code, words, which of them are addresses, doubles, which words are the first and last
    item (-1: none), how many items, and whether more threads than one may share them. None if it
    has an array that is neither given nor work space.
    """
    flat = _flat_c if hasattr(call.kernel, "arrange") else _flat_numba
    code, reports, values = flat(call.kernel, given, kept)
    words: list[int] = []
    slots: list[tuple[int, int, int]] = []
    doubles: list[int] = []
    for value in values:
        if isinstance(value, bytes):
            doubles.append(int.from_bytes(value.ljust(8, b"\0"), "little"))
            continue
        if isinstance(value, np.ndarray):
            if not value.size:
                kept.append(value)  # the same in each call, such as a bias that was left out
            elif (place := places.get(_address(value))) is not None:
                slots.append((len(words), *place))
            else:
                return None
            value = _address(value)
        words.append(value)
    kept.append(call.kernel)
    bounds = [i for i, word in enumerate(words) if type(word) is _Bound]
    first, last = bounds if len(bounds) == 2 else (-1, -1)
    items = words[last] if len(bounds) == 2 else 0
    large = call.work >= threads.SERIAL_BELOW
    return code, reports, tuple(words), tuple(slots), tuple(doubles), first, last, items, large


def _flat_c(kernel: Any, given: list[Any], kept: list[Any]) -> tuple[int, int, list[Any]]:
    """A C kernel's address, and its arguments as they go into registers."""
    from loopnest.ops.c.call import ffi

    function, arguments = kernel.arrange(*given)
    values: list[Any] = []
    for value, kind in zip(arguments, ffi.typeof(function).args, strict=True):
        if isinstance(value, np.ndarray):
            values.append(value)
        elif kind.kind == "pointer":
            kept.append(value)
            values.append(int(ffi.cast("intptr_t", value)))
        elif kind.cname in ("float", "double"):
            values.append(struct.pack("<f" if kind.cname == "float" else "<d", value))
        else:
            values.append(value if type(value) is _Bound else int(value))
    return int(ffi.cast("intptr_t", function)), 0, values


def _flat_numba(kernel: Any, given: list[Any], kept: list[Any]) -> tuple[int, int, list[Any]]:
    """Machine code of a Numba kernel, and its arguments in Numba's own calling convention.

    First where to put a result and an error (direct.c sets them), then the arguments; an
    array is owner, parent, size, item size, data, shape and strides (numba/core/datamodel).
    """
    from numba import typeof

    compiled = kernel.overloads[tuple(typeof(int(a) if type(a) is _Bound else a) for a in given)]
    code = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
    values: list[Any] = [0, 0]
    for value in given:
        if isinstance(value, np.ndarray):
            values += [0, 0, value.size, value.itemsize, value, *value.shape, *value.strides]
        elif isinstance(value, float):
            values.append(struct.pack("<d", value))
        else:
            values.append(value if type(value) is _Bound else int(value))
    return code, 1, values
