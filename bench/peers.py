"""Competitors behind one small interface, and the three ways into loopnest.

A peer is a class with ``name``, ``requires`` (modules to import), ``settings()``,
``supports(case, dtype)`` and ``prepare(case, arguments, dtype)``, which gives one or more
`Prepared` calls: several where the same job can be done in several ways; the quickest that is
right is measured. To add one: write such a class in ``peer_<name>.py`` and name the file in
``FILES``. A peer that is not installed, or breaks, costs its own column.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
from time import perf_counter_ns
from typing import Any

import jobs
import numpy as np
from cases import Case
from machine import version
from targets import FRESH_OUTPUT
from timing import Prepared

FILES = (
    "peer_numpy", "peer_torch", "peer_onnx", "peer_opencv", "peer_jax", "peer_straight_c",
)  # fmt: skip
OURS = ("numba", "c", "njit")


class Peer:
    """What every competitor has. ``threads`` is set before `prepare` is called."""

    name = ""
    distribution = ""  # whose version is shown
    requires: tuple[str, ...] = ()
    ours = False

    def __init__(self) -> None:
        self.threads = 1

    def load(self) -> None:
        """Import what is needed; ImportError says that the peer is missing."""
        for module in self.requires:
            importlib.import_module(module)

    def version(self) -> str:
        return version(self.distribution or self.name) or "not installed"

    def settings(self) -> str:
        """How it was set up, in a few words."""
        return ""

    def set_threads(self, count: int) -> None:
        """Use so many threads from now on."""
        self.threads = count

    def supports(self, case: Case, dtype: np.dtype) -> bool:
        """Whether it can do this case at all."""
        return hasattr(self, case.op)

    def prepare(self, case: Case, arguments: tuple, dtype: np.dtype) -> list[Prepared]:
        """Ready-made calls; by default from the method that has the op's name."""
        made = getattr(self, case.op)(case, *arguments)
        return [made] if isinstance(made, Prepared) else list(made)


class Ours(Peer):
    """loopnest called from Python, as a user calls it: arguments checked, ``out`` reused."""

    distribution = "loopnest"
    ours = True

    def load(self) -> None:
        import loopnest as ln

        with ln.use_backend(self.name):
            pass

    def settings(self) -> str:
        return "checked Python call, out= where there is one"

    def set_threads(self, count: int) -> None:
        import loopnest as ln

        super().set_threads(count)
        ln.set_num_threads(count)

    def supports(self, case: Case, dtype: np.dtype) -> bool:
        import loopnest as ln

        return hasattr(ln, case.op) or case.op in jobs.JOBS

    def prepare(self, case: Case, arguments: tuple, dtype: np.dtype) -> list[Prepared]:
        import loopnest as ln

        select = functools.partial(ln.use_backend, self.name)
        select()
        if case.op in jobs.JOBS:
            made = jobs.prepare(case, arguments)
            made.before = select
            return [made]
        function = getattr(ln, case.op)
        arguments, options = own_call(case, arguments)
        if takes_out(function, case):
            options["out"] = one_array(function(*arguments, **options))
        return [Prepared(function, arguments, options, result=after(case, arguments),
                         before=select)]  # fmt: skip


def own_call(case: Case, arguments: tuple) -> tuple[tuple, dict[str, Any]]:
    """Arguments and options of our call; NotImplementedError for what is not there (yet)."""
    import loopnest as ln

    options = {**case.options, **case.own}
    if case.packed:
        if not hasattr(ln, "pack_weight"):
            raise NotImplementedError("no pack_weight")
        more = {"groups": options["groups"]} if "groups" in options else {}
        arguments = (arguments[0], ln.pack_weight(arguments[1], **more), *arguments[2:])
    if case.own:
        try:
            getattr(ln, case.op)(*arguments, **options)
        except ValueError as error:
            raise NotImplementedError(str(error)) from None
    return arguments, options


def one_array(result: Any) -> Any:
    """The array that ``out=`` stands for: of a loss and its gradient the gradient."""
    return result[-1] if isinstance(result, tuple) else result


def takes_out(function: Any, case: Case) -> bool:
    """Whether to hand over an output array (an op that returns a pair takes none)."""
    if case.cell in FRESH_OUTPUT or case.options.get("return_indices"):
        return False
    return "out" in inspect.signature(function).parameters


def after(case: Case, arguments: tuple) -> Any:
    """What the case's call changed: its return value, or for a step its state arrays."""
    if case.op.endswith("_step"):
        return lambda raw: tuple(arguments[i] for i in case.changes)
    return lambda raw: getattr(raw, "x", raw)


class Numba(Ours):
    name = "numba"


class C(Ours):
    name = "c"


class Njit(Ours):
    """The same public call inside a user's own compiled loop: no Python in between."""

    name = "njit"

    def load(self) -> None:
        importlib.import_module("numba")

    def settings(self) -> str:
        return "called in a loop inside @njit"

    def supports(self, case: Case, dtype: np.dtype) -> bool:
        # Compiling takes seconds a row, and only small calls are dearer from Python.
        small = case.flops < 5_000_000 and case.bytes(dtype) < 256 << 10 and not case.packed
        called = case.op not in jobs.JOBS or case.op in jobs.COMPILED
        return small and called and self.threads == 1 and super().supports(case, dtype)

    def prepare(self, case: Case, arguments: tuple, dtype: np.dtype) -> list[Prepared]:
        import loopnest as ln

        if case.op in jobs.JOBS:
            return [jobs.prepare(case, arguments, compiled=True)]
        options = dict(case.options)
        if takes_out(getattr(ln, case.op), case):
            options["out"] = one_array(getattr(ln, case.op)(*arguments, **options))
        many = compiled_loop(case.op, len(arguments), options)
        changing = [v for v in options.values() if not fixed(v)]

        def once() -> Any:
            return many(1, *arguments, *changing)

        def loop(count: int) -> int:
            begin = perf_counter_ns()
            many(count, *arguments, *changing)
            return perf_counter_ns() - begin

        return [Prepared(once, loop=loop, result=after(case, arguments))]


def fixed(value: Any) -> bool:
    """Strings, flags and None have to be constants inside @njit."""
    return value is None or isinstance(value, (str, bool))


def compiled_loop(op: str, count: int, options: dict[str, Any]) -> Any:
    """@njit function ``(times, arguments..., options...)`` that calls ``ln.<op>`` repeatedly."""
    import numba

    import loopnest as ln

    positional = [f"a{i}" for i in range(count)]
    changing = [name for name, value in options.items() if not fixed(value)]
    keywords = [f"{k}={v!r}" if fixed(v) else f"{k}={k}" for k, v in options.items()]
    call = f"ln.{op}({', '.join([*positional, *keywords])})"
    source = (
        f"def many({', '.join(['times', *positional, *changing])}):\n"
        f"    value = {call}\n"
        "    for _ in range(times - 1):\n"
        f"        value = {call}\n"
        "    return value\n"
    )
    scope: dict[str, Any] = {"ln": ln}
    exec(source, scope)
    return numba.njit(scope["many"])


# ---- the registry ----


def known() -> dict[str, type[Peer]]:
    """All peer classes by name, ours first, in the order of the table's columns."""
    classes: dict[str, type[Peer]] = {"numba": Numba, "c": C, "njit": Njit}
    for file in FILES:
        for peer in importlib.import_module(file).PEERS:
            classes[peer.name] = peer
    return classes


def nearest(word: str, words: Any) -> str:
    """The names most like ``word``, for a message; all of them if none is like it."""
    words = list(words)
    close = difflib.get_close_matches(word, words, n=4, cutoff=0.4)
    if close:
        return "nearest: " + ", ".join(close)
    return "there are: " + ", ".join(words[:12]) + (", ..." if len(words) > 12 else "")


def choose(names: list[str] | None) -> tuple[dict[str, Peer], dict[str, str]]:
    """Peers that can be used, and the reason for each that cannot; None means all."""
    classes = known()
    for name in names or ():
        if name not in classes:
            raise ValueError(f"peers: {name!r} is not known; {nearest(name, classes)}")
    usable, missing = {}, {}
    for name in names or classes:
        peer = classes[name]()
        try:
            peer.load()
        except Exception as error:  # a broken install must not end the run either
            missing[name] = f"{type(error).__name__}: {error}"
        else:
            usable[name] = peer
    return usable, missing


def pin_environment(threads: int) -> None:
    """Thread counts that libraries read once, at import: set before any is imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
