"""Numbers as people read them."""

from __future__ import annotations

from typing import Any

EQUAL = "\N{ALMOST EQUAL TO}"  # a tilde looks like a minus in small type
OURS = {"numba": "Numba", "c": "C", "njit": "in @njit"}
PEERS = {
    "numpy": "NumPy", "scipy": "SciPy", "torch": "PyTorch", "onnxruntime": "ONNX Runtime",
    "opencv": "OpenCV", "jax": "JAX",
}  # fmt: skip
NAMES = {**OURS, **PEERS}


def name_of(competitor: str | None) -> str:
    """A competitor's name as its makers write it."""
    return NAMES.get(competitor or "", competitor or "none")


def time_of(ns: float) -> str:
    """Nanoseconds with a unit and three digits."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{digits(ns / size)} {unit}"
    return f"{digits(ns)} ns"


def digits(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def rate_of(column: dict[str, Any], record: dict[str, Any]) -> str:
    """GFLOP/s where arithmetic sets the limit, else GB/s."""
    limit = record.get("limit")
    arithmetic = limit["by"] == "arithmetic" if limit else record["flops"] > 8 * record["bytes"]
    if arithmetic or not record["bytes"]:
        return f"{digits(column['gflops'])} GFLOP/s"
    return f"{digits(column['gbs'])} GB/s"


def ratio_of(entry: dict[str, Any] | None) -> str:
    """Such as "1.32x"; marked where the difference is not significant."""
    if entry is None:
        return ""
    return f"{'' if entry['differs'] else EQUAL}{digits(entry['ratio'])}x"


def percent_of(column: dict[str, Any]) -> str:
    """Of the limit of this machine."""
    value = column.get("percent_of_limit")
    return "" if value is None else f"{value:.0f}%" if value >= 1 else f"{value:.1f}%"


def state_of(column: dict[str, Any] | None) -> str:
    """Time of a competitor, or why there is none."""
    if column is None:
        return ""
    return time_of(column["best_ns"]) if column["state"] == "ok" else column["state"].upper()


def date_of(data: dict[str, Any]) -> str:
    """Day and time of a run, for people."""
    return data["started"].replace("T", " ").replace("Z", " UTC")


def against_fastest(record: dict[str, Any], own: str) -> dict[str, Any] | None:
    """Ratio of one of ours to the fastest peer."""
    return record["ratios"].get(own, {}).get(record["fastest_peer"])


def problems(data: dict[str, Any]) -> list[str]:
    """Everything that was wrong or failed, ours first."""
    found = []
    for record in data["rows"]:
        for competitor, column in record["competitors"].items():
            if column["state"] != "ok":
                mark = "ERROR" if competitor in OURS else "column lost"
                text = f"{record['id']}: {name_of(competitor)} {column['state']}: "
                found.append((competitor not in OURS, f"{mark}: {text}{column['error']}"))
    return [text for _, text in sorted(found)]
