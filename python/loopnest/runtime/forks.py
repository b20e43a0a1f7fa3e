"""What a forked child needs: locks that are free, and modules that are whole.

A child has the thread that forked and no other, but all memory as it was: a lock that another thread
held stays held for ever, a module that another thread was importing stays half imported. So a fork
waits, for a while, until other threads let go. The child gets a new lock where that was in vain.

Threads of a split call (threads.py) and work space (scratch.py) need no lock over forks: the child
starts helpers of its own, and blocks of memory belong to one thread each.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

# Seconds that a fork waits for one import or compilation of another thread. Imports take up to 3 s,
# compilations 10 s on a quiet machine. What waits for the forking thread itself ends after it.
PATIENCE = 30.0

_POLL = 1e-3  # seconds between two looks at imports that are under way

# The locks of modules that are being imported, by name. Python gives them no public name; where they
# are not found, forks wait for no imports.
_MODULE_LOCKS = getattr(getattr(importlib, "_bootstrap", None), "_module_locks", {})


class _Guarded(NamedTuple):
    """An attribute that is a `threading.RLock`, and how many seconds a fork waits for it."""

    owner: Any
    name: str
    patience: float


_guarded: list[_Guarded] = []


def guard(owner: Any, name: str, patience: float) -> None:
    """Let no child inherit the reentrant lock ``owner.name`` from a thread that it does not have.

    Forks take the locks in the order of these calls, as nested ``with`` blocks take them.
    """
    _guarded.append(_Guarded(owner, name, patience))


def _others_import() -> bool:
    """Whether another thread is importing a module, of any package."""
    locks = [reference() for reference in list(_MODULE_LOCKS.values())]
    owners = {getattr(lock, "owner", None) for lock in locks}
    return bool(owners - {None, threading.get_ident()})


class _Forks:
    """The locks that forks under way have got."""

    def __init__(self) -> None:
        self._taken: dict[int, list[Any]] = {}  # by thread, for two may fork at once

    def before(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            while _others_import() and time.monotonic() < end:
                time.sleep(_POLL)
            self._take()
            # While this thread waited for a lock, another one may have begun to import.
            if not _others_import() or time.monotonic() > end:
                return
            self.in_parent()

    def _take(self) -> None:
        taken = self._taken[threading.get_ident()] = []
        for owner, name, patience in _guarded:
            lock = getattr(owner, name)
            if lock.acquire(timeout=patience):
                taken.append(lock)

    def in_parent(self) -> None:
        for lock in reversed(self._taken.pop(threading.get_ident(), [])):
            lock.release()

    def in_child(self) -> None:
        taken = self._taken.get(threading.get_ident(), [])
        for owner, name, _ in _guarded:
            if not any(getattr(owner, name) is lock for lock in taken):
                setattr(owner, name, threading.RLock())
        self.in_parent()
        self._taken.clear()


_forks = _Forks()


@functools.cache
def wait_at_forks() -> None:
    """Let forks wait from now on.

    What is called before a fork is called in the reverse of this order. The module logging takes its
    lock there, which imports need: so it must come after the wait.
    """
    import logging  # noqa: F401

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_forks.before, after_in_parent=_forks.in_parent)


def in_child(function: Callable[[], None]) -> None:
    """Call a function in every forked child, after its locks are free."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


in_child(_forks.in_child)
