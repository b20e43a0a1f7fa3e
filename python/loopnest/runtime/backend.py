"""Which backend computes: ``loopnest.kernels`` (Numba) or ``loopnest.ops.c`` (C).

Both have the same modules with the same functions of the same arguments. The
package calls ``backend.kernels.<row>.<kernel>(...)``; what ``kernels`` is gets decided at
the first such call, so that importing loopnest imports neither.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
from types import ModuleType
from typing import Any

from loopnest.runtime import forks

BACKENDS = ("numba", "c", "auto")


class _Undecided:
    """Stands for the kernels until the first one is asked for."""

    def __getattr__(self, row: str) -> Any:
        select(os.environ.get("LOOPNEST_BACKEND") or "auto", source="LOOPNEST_BACKEND")
        return getattr(kernels, row)


kernels: Any = _Undecided()
_blocks: list[use_backend] = []  # the `with` blocks that are open, in the order of their start
_lock = threading.RLock()
forks.guard(sys.modules[__name__], "_lock", patience=1.0)  # it is held for microseconds


def _load_numba() -> ModuleType:
    forks.wait_at_forks()
    try:
        importlib.import_module("numba")  # the kernels import it row by row
        return importlib.import_module("loopnest.kernels")
    except ImportError as error:
        raise ImportError(
            f"use_backend: backend 'numba' cannot be had ({error}); "
            "install it with 'pip install numba', or use backend 'c'"
        ) from error


def _load_c() -> ModuleType:
    try:
        return importlib.import_module("loopnest.ops.c")
    except ImportError as error:
        raise ImportError(
            f"use_backend: backend 'c' cannot be had ({error}); it needs the extension "
            "that 'pip install loopnest' builds where a C compiler and cffi are, "
            "or use backend 'numba'"
        ) from error


def _load(name: str) -> ModuleType:
    if name == "numba":
        return _load_numba()
    if name == "c":
        return _load_c()
    try:
        return _load_numba()
    except ImportError as no_numba:
        try:
            return _load_c()
        except ImportError as no_c:
            raise ImportError(f"loopnest has no backend here. {no_numba}. {no_c}") from no_c


def select(name: str, source: str = "use_backend") -> None:
    """Make ``name`` the backend of this process."""
    global kernels
    if not isinstance(name, str):
        raise TypeError(f"{source}: name is {name!r}; accepted: {', '.join(map(repr, BACKENDS))}")
    if name not in BACKENDS:
        raise ValueError(f"{source}: name is {name!r}; accepted: {', '.join(map(repr, BACKENDS))}")
    kernels = _load(name)


class use_backend:
    """Choose who computes, from here on or for the length of a ``with`` block.

    Parameters
    ----------
    name : {"numba", "c", "auto"}
        "auto" is numba when it can be imported, else c. Holds for the whole process,
        all threads; the environment variable LOOPNEST_BACKEND sets the first choice.

    Raises
    ------
    ValueError
        The name is none of these.
    ImportError
        That backend is not installed; the message says how to get it.

    Examples
    --------
    >>> import loopnest as ln
    >>> with ln.use_backend("c"):
    ...     ln.sigmoid(0.0)
    0.5
    """

    def __init__(self, name: str) -> None:
        self._name, self._entered = name, False
        self._previous = kernels
        select(name)

    def __enter__(self) -> use_backend:
        self._thread = threading.get_ident()
        with _lock:
            if self._entered:  # the same object in a second block
                self._previous = kernels
                select(self._name)
            self._entered = True
            _blocks.append(self)
        return self

    def __exit__(self, *exception: object) -> None:
        global kernels
        with _lock:
            place = _blocks.index(self)
            del _blocks[place]
            # Blocks of several threads end in any order: the one that was entered after
            # this one then goes back to where this one would have.
            if place < len(_blocks):
                _blocks[place]._previous = self._previous
            else:
                kernels = self._previous


def _after_fork() -> None:
    """In a forked child: no blocks of threads that are not there."""
    for block in [b for b in _blocks if b._thread != threading.get_ident()]:
        block.__exit__()


forks.in_child(_after_fork)


def get_backend() -> str:
    """Name of the backend in use, "numba" or "c"; decides it if that was not done yet."""
    if isinstance(kernels, _Undecided):
        _ = kernels.activation
    return "c" if kernels.__name__ == "loopnest.ops.c" else "numba"


def available_backends() -> list[str]:
    """The backends that can be used here; imports them to find out."""
    found = []
    for name in ("numba", "c"):
        try:
            _load(name)
        except ImportError:
            continue
        found.append(name)
    return found
