"""The board: measures a row for all competitors at once and hands out their samples.

pytest-benchmark runs one test after the other, but competitors have to take turns. So the
first test of a row measures the whole row in interleaved rounds, and each test then gives
its own samples to pytest-benchmark, which computes its statistics and writes its JSON.
"""

from __future__ import annotations

import os
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import peers as peers_module
import pytest
import reference
import reference_jobs
import reference_network
import reference_optimizer
import results
import timing
from cases import Case, bench_cases, tolerance
from machine import caches, keep_to, usable_cores
from targets import QUICK, TARGETS


def _gate_forward(name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The gate's own numbers (tests have proven them) through float64 layers."""
    import loopnest as ln

    values = np.stack([a, b], axis=-1).astype(np.float64)
    *hidden, (weight, bias) = ln.gate(name).layers
    for w, bias_h in hidden:
        values = reference.relu(values @ w + bias_h)
    return reference.sigmoid(values @ weight + bias)[..., 0]


def _descend(objective: str, x0: np.ndarray, **options: Any) -> np.ndarray:
    """The last points only, some starts at a time: a trajectory of all takes gigabytes."""
    slope = getattr(reference, f"{objective}_derivative")
    pieces = np.array_split(x0, max(1, x0.size // 8192))
    ends = [reference_optimizer.descend(None, slope, x, **options)[-1] for x in pieces]
    return np.concatenate(ends)


REFERENCE = types.SimpleNamespace(
    **{
        **vars(reference_jobs),
        **vars(reference_network),
        **vars(reference_optimizer),
        **vars(reference),
    }
    | {"gate_forward": _gate_forward, "descend": _descend}
)


@dataclass(frozen=True)
class Row:
    """One case in one dtype on so many threads: a line of the table."""

    case: Case
    dtype: np.dtype
    threads: int

    def __str__(self) -> str:
        name = str(self.case)
        if self.dtype == np.float64:
            name += "-float64"
        return name if self.threads == 1 else f"{name}-{self.threads}threads"


@dataclass
class Settings:
    """What to run, and how; given through the environment so that plain pytest works too."""

    full: bool = False
    only: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    rounds: int = timing.ROUNDS
    batch_ms: float = 6.0
    cold: bool = False
    threads: tuple[int, ...] = (1,)
    dtypes: tuple[str, ...] = ("float32",)
    limits: bool = True

    def rows(self) -> list[Row]:
        """Rows of the run, ValueError for a selection that fits none."""
        rows = []
        for case in select(self.only, self.full):
            for dtype in map(np.dtype, self.dtypes):
                counts = [c for c in self.threads if c == 1 or self._worth_splitting(case, dtype)]
                rows += [Row(case, dtype, count) for count in counts]
        return rows

    def _worth_splitting(self, case: Case, dtype: np.dtype) -> bool:
        """Of several thread counts, those above 1 are for rows of about a millisecond or more."""
        return len(self.threads) == 1 or case.flops >= 1e8 or case.bytes(dtype) >= 1e7


def select(only: tuple[str, ...], full: bool) -> list[Case]:
    """Cases that are called so, whose op or row begins so, or else whose cell does.

    Without ``only``: the quick set, or with ``full`` all of them. With it, the quick cases
    that fit; all that fit where ``full`` is asked for or no quick one fits.
    """
    cases = bench_cases()
    if not only:
        return cases if full else [case for case in cases if str(case) in QUICK]
    chosen: dict[str, Case] = {}
    for word in only:
        fits = matching(word.lower(), cases)
        few = [case for case in fits if str(case) in QUICK]
        chosen |= {str(case): case for case in (fits if full or not few else few)}
    return list(chosen.values())


def matching(word: str, cases: list[Case]) -> list[Case]:
    """Cases that a word means; ValueError with the nearest names if it means none."""
    readings = (
        lambda case: str(case) == word,
        lambda case: str(case).startswith(word) or case.row.startswith(word),
        lambda case: case.name.startswith(word),
        lambda case: (case.cell or "").lower().startswith(word),
    )
    for reading in readings:
        fits = [case for case in cases if reading(case)]
        if fits:
            return fits
    names = {n for c in cases for n in (str(c), c.op, c.row, c.name, c.cell) if n}
    nearest = peers_module.nearest(word, sorted(names))
    raise ValueError(f"case: {word!r} names no op, case or cell; {nearest}")


@dataclass
class Board:
    """Measures rows, keeps and writes what was measured."""

    settings: Settings
    run: results.Run
    competitors: dict[str, peers_module.Peer]
    started: Callable[[Row | None], None] = lambda row: None  # None: the limits
    finished: Callable[[dict[str, Any]], None] = lambda record: None
    _records: dict[str, dict[str, Any]] = field(default_factory=dict)
    _flush: timing.Flusher | None = None

    def __post_init__(self) -> None:
        if self.settings.cold:
            self._flush = timing.Flusher(4 * max(c["bytes"] for c in caches()))

    def record(self, row: Row) -> dict[str, Any]:
        """The row's record; measured when first asked for."""
        if self.settings.limits and self.run.data["limits"] is None:
            self.started(None)
            self.run.data["limits"] = measured_limits()
        if str(row) not in self._records:
            self.started(row)
            record = self._measure(row)
            self._records[str(row)] = record
            self.run.add(record)
            self.finished(record)
        return self._records[str(row)]

    def _measure(self, row: Row) -> dict[str, Any]:
        columns: dict[str, dict[str, Any]] = {}
        entries: dict[str, timing.Prepared] = {}
        expected = Expected(row)
        keep_to(min(row.threads, usable_cores()))
        for name, peer in self.competitors.items():
            peer.set_threads(row.threads)
            if not peer.supports(row.case, row.dtype):
                continue
            try:
                entries[name], columns[name] = _ready(peer, row, expected)
            except NotImplementedError:
                continue  # it cannot do this one
            except WrongResult as error:
                columns[name] = {"state": "wrong", "error": str(error)}
            except Exception as error:
                columns[name] = {"state": "failed", "error": f"{type(error).__name__}: {error}"}

        def failed(name: str, error: Exception) -> None:
            columns[name] = {"state": "failed", "error": f"{type(error).__name__}: {error}"}

        samples = timing.interleave(
            entries, self.settings.rounds, self.settings.batch_ms * 1e6, self._flush, failed
        )
        for name, taken in samples.items():
            columns[name] |= {"state": "ok", "calls": taken.calls, "samples_ns": taken.ns}
            columns[name] |= {"cores": taken.cores} | refused_cores(taken.cores, row.threads)
        record = results.row_record(row, columns, self.run.data)
        if str(row.case) in TARGETS:
            record["target"] = dict(zip(("numba", "c"), TARGETS[str(row.case)], strict=True))
        return record


# Measured clocks of wall and processor differ by less than this share.
CLOCKS_AGREE = 0.05


def refused_cores(cores: float, threads: int) -> dict[str, str]:
    """What replaces the state of a competitor that kept more cores busy than it had threads."""
    if cores <= threads * (1 + CLOCKS_AGREE):
        return {}
    error = f"kept {cores:.2f} cores busy on {threads} threads: its time compares with nothing"
    return {"state": "failed", "error": error}


def measured_limits() -> dict[str, Any] | None:
    """The machine's limits; None without Numba, which measures them."""
    try:
        import limits
    except ImportError:
        return None
    return limits.measure()


class WrongResult(AssertionError):
    """A competitor computed something else than the reference."""


class Expected:
    """The reference's results, computed when first needed."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._known: dict[str | None, tuple[np.ndarray, ...]] = {}

    def __call__(self, stands_for: str | None) -> tuple[np.ndarray, ...]:
        if stands_for not in self._known:
            case = self._row.case
            arguments = case.arguments(self._row.dtype)
            if stands_for is None:
                value = case.expected(REFERENCE, arguments)
            else:
                value = getattr(REFERENCE, stands_for)(*arguments)
            values = value if isinstance(value, tuple) else (value,)
            # A step's reference also returns state that the case does not use, as None.
            self._known[stands_for] = tuple(np.asarray(v) for v in values if v is not None)
        return self._known[stands_for]


def verify(entry: timing.Prepared, row: Row, expected: Expected, factor: float) -> None:
    """WrongResult unless one call gives the reference's result."""
    atol = factor * tolerance(row.case, row.dtype)
    actual, wanted = entry.arrays(), expected(entry.stands_for)
    if len(actual) != len(wanted):
        raise WrongResult(f"{len(actual)} results, the reference has {len(wanted)}")
    for got, want in zip(actual, wanted, strict=True):
        if got.shape != want.shape:
            raise WrongResult(f"shape {got.shape}, the reference has {want.shape}")
        with np.errstate(all="ignore"):
            close = np.isclose(got, want, rtol=atol, atol=atol, equal_nan=True)
            if not close.all():
                worst = np.nanmax(np.abs(got - want))
                raise WrongResult(
                    f"{close.size - np.count_nonzero(close)} of {close.size} values differ from "
                    f"the reference, by up to {worst:.3g}"
                )


def _ready(peer: peers_module.Peer, row: Row, expected: Expected):
    """The quickest right variant of a peer, and what was found out about all of them."""
    # Peers may take other orders of summation and other polynomials than ours.
    factor = 1 if peer.ours else 4
    right: list[timing.Prepared] = []
    tried: dict[str, str | float] = {}
    error: Exception | None = None
    arguments = row.case.arguments(row.dtype)
    for entry in peer.prepare(row.case, arguments, row.dtype):
        try:
            verify(entry, row, expected, factor)
        except Exception as problem:
            error = error if isinstance(error, WrongResult) else problem
            tried[entry.variant] = f"{type(problem).__name__}: {problem}"
        else:
            right.append(entry)
    if not right:
        raise error or NotImplementedError
    if len(right) > 1:
        speeds = [timing.quick_look(entry) for entry in right]
        tried |= {entry.variant: speed for entry, speed in zip(right, speeds, strict=True)}
        right = [right[speeds.index(min(speeds))]]
    column: dict[str, Any] = {"variant": right[0].variant, "stands_for": right[0].stands_for}
    return right[0], column | ({"tried": tried} if len(tried) > 1 else {})


# ---- the tests of bench_<row>.py ----


def parametrize(family: str) -> Callable[[pytest.Metafunc], None]:
    """A ``pytest_generate_tests`` that gives a file its rows and their competitors."""

    def generate(metafunc: pytest.Metafunc) -> None:
        board = metafunc.config.stash[BOARD]
        cells = [
            pytest.param(row, name, id=f"{row}-{name}")
            for row in board.settings.rows()
            if row.case.row == family
            for name, peer in board.competitors.items()
            if peer.supports(row.case, row.dtype)
        ]
        metafunc.parametrize(("row", "competitor"), cells)

    return generate


BOARD: pytest.StashKey[Board] = pytest.StashKey()
CURRENT: list[Board] = []  # the one that run.py made, before pytest started


class Replay:
    """A timer that runs over recorded samples: pytest-benchmark asks it before and after."""

    def __init__(self) -> None:
        self._now = 0.0
        self._pending: list[float] = []

    def load(self, seconds: list[float]) -> None:
        self._pending = [step for s in seconds for step in (0.0, s)]

    def __call__(self) -> float:
        self._now += self._pending.pop(0)
        return self._now


REPLAY = Replay()


def hand_over(benchmark: Any, request: pytest.FixtureRequest, row: Row, competitor: str) -> None:
    """Measure the row if that has not been done; give this competitor's samples over."""
    board = request.config.stash[BOARD]
    column = board.record(row)["competitors"].get(competitor)
    if column is None:
        pytest.skip(f"{competitor} cannot do {row}")
    if column["state"] != "ok":
        message = f"{row}: {competitor} {column['state']}: {column['error']}"
        if board.competitors[competitor].ours:
            pytest.fail(message, pytrace=False)
        pytest.skip(message)
    REPLAY.load([ns * 1e-9 for ns in column["samples_ns"]])
    benchmark.group = str(row)
    benchmark.extra_info.update(variant=column["variant"], calls=column["calls"])
    benchmark.pedantic(timing._nothing, rounds=len(column["samples_ns"]))


# ---- settings from the environment, so that `pytest bench` and run.py agree ----


def settings_from(environment: dict[str, str] | Any = os.environ) -> Settings:
    """Settings that LOOPNEST_BENCH_... variables describe."""

    def words(name: str) -> tuple[str, ...]:
        text = environment.get(f"LOOPNEST_BENCH_{name}", "")
        return tuple(word.strip() for word in text.split(",") if word.strip())

    def number(name: str, default: float) -> float:
        text = environment.get(f"LOOPNEST_BENCH_{name}", "")
        try:
            return float(text) if text else default
        except ValueError:
            raise ValueError(f"LOOPNEST_BENCH_{name}: {text!r}; accepted: a number") from None

    rounds = int(number("ROUNDS", timing.ROUNDS))
    if rounds < timing.ROUNDS:
        raise ValueError(f"rounds: {rounds}; accepted: at least {timing.ROUNDS}")
    dtypes = words("DTYPES") or ("float32",)
    for dtype in dtypes:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtypes: {dtype!r}; accepted: float32, float64")
    return Settings(
        full=bool(words("FULL")),
        only=words("ONLY"),
        peers=words("PEERS"),
        rounds=rounds,
        batch_ms=number("BATCH_MS", 6.0),
        cold=bool(words("COLD")),
        threads=tuple(dict.fromkeys(map(_threads, words("THREADS")))) or (1,),
        dtypes=dtypes,
        limits=environment.get("LOOPNEST_BENCH_LIMITS", "1") != "0",
    )


def _threads(word: str) -> int:
    if word == "all":
        return usable_cores()
    if not word.isdigit() or int(word) < 1:
        raise ValueError(f"threads: {word!r}; accepted: a number of at least 1, or all")
    return int(word)
