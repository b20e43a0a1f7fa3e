"""A run's record: what is in it, what is computed from it, how it is kept on disk."""

from __future__ import annotations

import json
import os
import statistics
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import timing

SCHEMA = "loopnest-bench/1"
OURS = ("numba", "c", "njit")


class Run:
    """One run; written anew after every row, so that an interruption costs one row."""

    def __init__(self, path: Path, **header: Any) -> None:
        self.path = path
        self.data: dict[str, Any] = {
            "schema": SCHEMA,
            "status": "interrupted",  # until it is complete
            "started": now(),
            "finished": None,
            **header,
            "rows": [],
        }

    def add(self, record: dict[str, Any]) -> None:
        self.data["rows"].append(record)
        self.write()

    def finish(self, status: str) -> None:
        self.data["status"], self.data["finished"] = status, now()
        self.write()

    def write(self) -> None:
        """Write to a temporary name and rename: the file is whole at any moment."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".tmp")
        draft.write_text(json.dumps(self.data, separators=(",", ":")) + "\n", encoding="utf-8")
        os.replace(draft, self.path)


def now() -> str:
    """Date and time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def load(path: Path) -> dict[str, Any]:
    """A stored run; ValueError if the file is something else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"{path} is no run of this benchmark (schema {SCHEMA!r})")
    return data


def row_record(row: Any, columns: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Everything about one row, with all that can be computed from its samples."""
    case = row.case
    record: dict[str, Any] = {
        "id": str(row), "family": case.row, "op": case.op, "name": case.name,
        "cell": case.cell, "dtype": row.dtype.name, "threads": row.threads,
        "options": {k: str(v) for k, v in case.options.items()},
        "flops": case.flops, "fewest_flops": case.fewest_flops,
        "bytes": case.bytes(row.dtype), "footprint": footprint(row),
        "competitors": columns,
    }  # fmt: skip
    derive(record, data)
    record["fastest_peer"] = fastest_peer(record)
    record["ratios"] = ratios(record)
    return record


def footprint(row: Any) -> int:
    """Bytes of all arrays: what a call changes in place moves twice and is there once."""
    moved, case = row.case.bytes(row.dtype), row.case
    if not case.changes:
        return moved
    return moved * (len(case.changes) + 1) // (2 * len(case.changes) + 1)


def derive(record: dict[str, Any], data: dict[str, Any]) -> None:
    """What follows from samples and limits: best, median, rates, share of the limit."""
    # With cold caches all data comes from memory.
    levels = [] if data["settings"].get("cold") else data["machine"].get("caches", [])
    record["limit"] = limit_of(record, data["limits"], levels)
    for column in record["competitors"].values():
        if column["state"] != "ok":
            continue
        samples = column["samples_ns"]
        column["best_ns"], column["median_ns"] = best, _ = min(samples), statistics.median(samples)
        column["gflops"], column["gbs"] = record["flops"] / best, record["bytes"] / best
        if record["limit"]:
            column["percent_of_limit"] = 100 * record["limit"]["ns"] / best


def better_limits(one: Any, two: Any) -> Any:
    """The higher figure of each: a disturbance can only lower what was measured."""
    if isinstance(one, dict):
        return {key: better_limits(value, two[key]) for key, value in one.items()}
    return max(one, two)


def use_limits(data: dict[str, Any], limits: Any) -> None:
    """Take over these limits and compute again what depends on them."""
    data["limits"] = limits
    for record in data["rows"]:
        derive(record, data)


def level_of(size: int, levels: list[dict[str, Any]]) -> str:
    """The smallest memory that holds the data."""
    return next((level["name"] for level in levels if size <= level["bytes"]), "memory")


def data_ns(moved: int, size: int, levels: list[dict[str, Any]], gbs: dict[str, Any]) -> float:
    """Least nanoseconds in which ``moved`` bytes can move, of data that takes ``size`` bytes.

    At the best each cache holds as much of the data as fits, and serves that share of the
    traffic at its own rate: data a little larger than a cache is not all fetched from beyond it.
    """
    total, covered = 0.0, 0
    for level in [*levels, {"name": "memory", "bytes": size}]:
        held = min(size, level["bytes"])
        share = max(held - covered, 0) / max(size, 1)
        total += share * moved / max(gbs[level["name"]].values())
        covered = max(covered, held)
    return total


def limit_of(record: dict[str, Any], limits: Any, levels: Any) -> dict[str, Any] | None:
    """The least time this machine could take: arithmetic or data, whichever takes longer."""
    if not limits:
        return None
    key = "single" if record["threads"] == 1 else "all"
    measured = limits[key]
    level = level_of(record["footprint"], levels)
    flops = record.get("fewest_flops") or record["flops"]
    arithmetic = flops / measured["gflops"][record["dtype"]]
    data = data_ns(record["bytes"], record["footprint"], levels, measured["gbs"])
    return {
        "ns": max(arithmetic, data, 1e-9),
        "by": "arithmetic" if arithmetic > data else level,
        "level": level,
    }


def timed(record: dict[str, Any]) -> dict[str, list[float]]:
    """Samples of the competitors that have some."""
    columns = record["competitors"].items()
    return {name: c["samples_ns"] for name, c in columns if c["state"] == "ok"}


def fastest_peer(record: dict[str, Any]) -> str | None:
    """The competitor with the best time that is not ours."""
    best = {name: min(s) for name, s in timed(record).items() if name not in OURS}
    return min(best, key=best.get) if best else None


def target_peer(record: dict[str, Any]) -> str | None:
    """The fastest of the peers that the targets name: JAX for descents only."""
    best = {name: min(s) for name, s in timed(record).items() if name not in OURS}
    if record["op"] != "descend":
        best.pop("jax", None)
    return min(best, key=best.get) if best else None


def ratios(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """For each of ours: peer time / our time, against every other competitor.

    "ratio" is that of the best times, which disturbances spoil least.
    """
    samples = timed(record)
    return {
        own: {
            peer: {
                "ratio": min(samples[peer]) / min(samples[own]),
                "paired_ratio": timing.paired_ratio(samples[peer], samples[own]),
                "differs": timing.differ(samples[peer], samples[own]),
            }
            for peer in samples
            if peer != own
        }
        for own in OURS
        if own in samples
    }
