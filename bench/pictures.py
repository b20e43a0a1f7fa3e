"""The two pictures of a run: bars of ratios to the fastest peer, and the roofline."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import text

matplotlib.use("Agg")
# Text stays text in SVG: smaller, searchable, and it takes the reader's own font.
matplotlib.rcParams.update({
    "svg.fonttype": "none", "svg.hashsalt": "loopnest", "font.size": 9,
    "font.family": "sans-serif", "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#8a94a3", "xtick.color": "#4a5361", "ytick.color": "#4a5361",
    "text.color": "#1d2530", "axes.labelcolor": "#1d2530",
})  # fmt: skip
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.patheffects import withStroke  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

COLOURS = {"numba": "#1f6fb4", "c": "#e08214", "njit": "#3a9d5d", "peer": "#8a94a3"}
HALO = [withStroke(linewidth=2.2, foreground="white")]  # keeps words legible on lines
MANY = 64  # rows in one picture
BEHIND = 0.45  # opacity of a bar that has not reached 1.0


def short(record: dict[str, Any]) -> str:
    """A row's name for a picture: the usual form needs no mention."""
    return record["id"].replace("-sigmoid", "").replace("-indices", "")


def bars(data: dict[str, Any], folder: Path) -> list[Path]:
    """Ratio to the fastest peer of each row, on a logarithmic axis."""
    rows = [r for r in data["rows"] if r["fastest_peer"] and r["ratios"]]
    if not rows:
        return []
    figure, axis = plt.subplots(figsize=(8.6, 1.35 + 0.3 * len(rows)), layout="constrained")
    values = [e["ratio"] for r in rows for e in _own(r).values()]
    values += [t for r in rows for t in r.get("target", {}).values() if t]
    low, high = min([0.5, *values]) / 2.2, max([2.0, *values]) * 2.0
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    axis.axvspan(1, high, color="#eaf4ec", zorder=0)
    for place, record in enumerate(rows):
        _row_bars(axis, place, record, low)
    axis.axvline(1.0, color="#1d2530", linewidth=1.2, zorder=4)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set_yticks(range(len(rows)), [short(r) for r in rows])
    axis.tick_params(axis="y", length=0)
    _separate_families(axis, rows)
    axis.set_xticks(_ticks(low, high), [f"{t:g}" for t in _ticks(low, high)])
    axis.minorticks_off()
    axis.set_xlabel("times as fast as the fastest peer (right of 1.0: loopnest is faster)")
    axis.set_title(_title(data, "Ratio to the fastest peer"), loc="left", fontsize=10)
    handles = [plt.Rectangle((0, 0), 1, 1, color=COLOURS[own]) for own in ("numba", "c")]
    handles.append(
        plt.Rectangle((0, 0), 1, 1, facecolor="none", edgecolor="#8a94a3", hatch="/////")
    )
    words = [
        "Numba",
        "C (pale: slower than the peer)",
        "\N{ALMOST EQUAL TO} no significant difference",
    ]
    if any("target" in r for r in rows):
        handles.append(plt.Line2D([], [], color="#b3261e", linewidth=1.5))
        words.append("to be reached")
    figure.legend(handles, words, loc="outside lower left", ncols=4, frameon=False, fontsize=8)
    return _save(figure, folder / "ratios")


def _own(record: dict[str, Any]) -> dict[str, Any]:
    found = {own: text.against_fastest(record, own) for own in ("numba", "c")}
    return {own: entry for own, entry in found.items() if entry}


def _row_bars(axis: Any, place: int, record: dict[str, Any], low: float) -> None:
    """Two bars that grow from 1.0 to either side, and the peer's name."""
    for own, offset in (("numba", -0.19), ("c", 0.19)):
        entry = _own(record).get(own)
        if entry is None:
            continue
        ratio = entry["ratio"]
        sure = entry["differs"]
        axis.barh(
            place + offset, ratio - 1, height=0.34, left=1, zorder=3,
            color=COLOURS[own] if sure else "none", edgecolor=COLOURS[own], linewidth=0.6,
            alpha=1 if ratio >= 1 else BEHIND, hatch=None if sure else "/////",
        )  # fmt: skip
        target = record.get("target", {}).get(own)
        if target:
            axis.plot([target] * 2, [place + offset - 0.17, place + offset + 0.17],
                      color="#b3261e", linewidth=1.5, zorder=6)  # fmt: skip
        right = ratio >= 1
        axis.annotate(
            text.ratio_of(entry), (ratio, place + offset), (3 if right else -3, 0),
            textcoords="offset points", ha="left" if right else "right", va="center",
            fontsize=7, zorder=5,
        )  # fmt: skip
    peer = record["fastest_peer"]
    words = f"{text.name_of(peer)} {text.state_of(record['competitors'][peer])}"
    axis.annotate(
        words, (1, place), (4, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="left", va="center", fontsize=7.5, color="#4a5361",
    )  # fmt: skip


def _separate_families(axis: Any, rows: list[dict[str, Any]]) -> None:
    for place in range(1, len(rows)):
        if rows[place]["family"] != rows[place - 1]["family"]:
            axis.axhline(place - 0.5, color="#c9d0d9", linewidth=0.7, zorder=1)


def _ticks(low: float, high: float) -> list[float]:
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    return [step for step in steps if low <= step <= high]


def _title(data: dict[str, Any], words: str) -> str:
    machine = data["machine"]
    note = "" if data["status"] == "complete" else f", {data['status']}"
    threads = "/".join(sorted({str(r["threads"]) for r in data["rows"]}))
    return (
        f"{words}\n{machine['cpu']}, {threads} thread(s), {text.date_of(data)}, "
        f"commit {machine['commit'][:7]}{' + changes' if machine['dirty'] else ''}{note}"
    )


def roofline(data: dict[str, Any], folder: Path) -> list[Path]:
    """Every row by its arithmetic per byte, under the roofs that this machine measured."""
    rows = [r for r in data["rows"] if r["flops"] and r["bytes"] and r["ratios"]]
    if not rows or not data["limits"]:
        return []
    height = max(5.6, 0.155 * len(rows) + 0.9)
    figure, (axis, side) = plt.subplots(
        1, 2, figsize=(11.5, height), width_ratios=(4, 1.55), layout="constrained"
    )
    axis.set_xscale("log")
    axis.set_yscale("log")
    places = _spread(rows)
    _roofs(axis, data["limits"]["single" if rows[0]["threads"] == 1 else "all"], places)
    side.axis("off")
    for number, (record, x) in enumerate(zip(rows, places, strict=True), 1):
        _point(axis, record, x, number)
        side.text(
            0, 1 - (number - 0.5) / max(len(rows), 30), f"{number:>2}  {short(record)}",
            transform=side.transAxes, fontsize=7.5, va="center",
        )  # fmt: skip
    axis.set_xlabel("arithmetic per byte that must move, FLOP/byte (neighbours are moved apart)")
    axis.set_ylabel("GFLOP/s (best time)")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axis.xaxis.set_major_formatter(plain)
    axis.yaxis.set_major_formatter(plain)
    axis.grid(True, which="major", color="#e4e8ed", linewidth=0.6, zorder=0)
    for kind, marker, label in (
        ("numba", "o", "Numba"), ("c", "s", "C"), ("peer", "D", "fastest peer")
    ):  # fmt: skip
        axis.plot([], [], marker, color=COLOURS[kind], label=label, markersize=5,
                  markerfacecolor="white" if kind == "peer" else COLOURS[kind])  # fmt: skip
    axis.legend(loc="lower right", fontsize=8)
    axis.set_title(_title(data, "Roofline"), loc="left", fontsize=10)
    return _save(figure, folder / "roofline")


def _spread(rows: list[dict[str, Any]], gap: float = 0.033) -> list[float]:
    """Arithmetic intensities, moved apart by as little as leaves ``gap`` decades between them.

    Clusters of neighbours that are too near are centred on their mean and merged while
    they overlap.
    """
    exact = [math.log10(r["flops"] / r["bytes"]) for r in rows]
    clusters: list[list[int]] = []
    for i in sorted(range(len(rows)), key=lambda i: exact[i]):
        last = [i]
        while clusters and _overlap(clusters[-1], last, exact, gap):
            last = clusters.pop() + last
        clusters.append(last)
    placed = list(exact)
    for members in clusters:
        for k, i in enumerate(members):
            placed[i] = _middle(members, exact) + gap * (k - (len(members) - 1) / 2)
    return [10**x for x in placed]


def _overlap(left: list[int], right: list[int], exact: list[float], gap: float) -> bool:
    room = _middle(right, exact) - _middle(left, exact)
    return room < gap * (len(left) + len(right)) / 2


def _middle(members: list[int], exact: list[float]) -> float:
    return sum(exact[i] for i in members) / len(members)


def _roofs(axis: Any, limits: dict[str, Any], places: list[float]) -> None:
    """Peaks as level lines, each memory as a line that grows with the arithmetic per byte."""
    low, high = min(places) / 2, max(places) * 3
    axis.set_xlim(low, high)
    peaks = limits["gflops"]
    for dtype, style in (("float32", "-"), ("float64", (0, (5, 2)))):
        axis.plot([low, high], [peaks[dtype]] * 2, color="#1d2530", linestyle=style, linewidth=1)
        axis.annotate(f"{dtype} multiply-add {peaks[dtype]:.0f} GFLOP/s", (high, peaks[dtype]),
                      (-2, 3), textcoords="offset points", ha="right", fontsize=7.5,
                      path_effects=HALO)  # fmt: skip
    shades = ("#b2182b", "#d6604d", "#a06bb0", "#6a51a3", "#4a5361")
    for (level, rates), colour in zip(limits["gbs"].items(), shades, strict=False):
        rate = max(rates.values())
        knee = min(peaks["float32"] / rate, high)
        axis.plot([low, knee], [low * rate, knee * rate], color=colour, linewidth=1)
        # Above the points: most rows stay below a third of a roof.
        start = max(knee / 6, low * 1.1)
        axis.text(start, start * rate * 1.06, f"{level} {rate:.0f} GB/s", fontsize=7.5,
                  color=colour, rotation=math.degrees(math.atan(rate)), rotation_mode="anchor",
                  transform_rotates_text=True, path_effects=HALO)  # fmt: skip


def _point(axis: Any, record: dict[str, Any], x: float, number: int) -> None:
    """The row's competitors above each other, tied by a line."""
    columns = record["competitors"]
    drawn = [(own, own, marker) for own, marker in (("numba", "o"), ("c", "s"))]
    drawn.append((record["fastest_peer"], "peer", "D"))
    heights = {}
    for name, kind, marker in drawn:
        if name in columns and columns[name]["state"] == "ok":
            heights[kind] = y = columns[name]["gflops"]
            fill = "white" if kind == "peer" else COLOURS[kind]
            axis.plot(x, y, marker, color=COLOURS[kind], markerfacecolor=fill, markersize=5,
                      zorder=4)  # fmt: skip
    if heights:
        axis.plot([x, x], [min(heights.values()), max(heights.values())], color="#b6bec9",
                  linewidth=0.8, zorder=2)  # fmt: skip
        axis.annotate(str(number), (x, min(heights.values())), (0, -5),
                      textcoords="offset points", ha="center", va="top", fontsize=7,
                      zorder=6, path_effects=HALO)  # fmt: skip


def _save(figure: Any, stem: Path) -> list[Path]:
    paths = [stem.with_suffix(end) for end in (".svg", ".png")]
    for path in paths:
        # No date in the file: the same run draws the same picture.
        more = {"metadata": {"Date": None}} if path.suffix == ".svg" else {"dpi": 150}
        figure.savefig(path, facecolor="white", **more)
    plt.close(figure)
    return paths


def chosen(data: dict[str, Any]) -> dict[str, Any]:
    """The run with the rows that a picture has room for: beyond MANY those with a target."""
    if len(data["rows"]) <= MANY:
        return data
    rows = [r for r in data["rows"] if "target" in r and r["threads"] == 1]
    return {**data, "rows": rows or data["rows"][:MANY]}


def draw(data: dict[str, Any], folder: Path) -> list[Path]:
    """All pictures of a run."""
    data = chosen(data)
    return [*bars(data, folder), *roofline(data, folder)]
