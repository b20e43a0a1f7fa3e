"""What a run looks like: a table for the terminal, Markdown, pictures, one HTML page."""

from __future__ import annotations

from typing import Any

import results
import text
from rich.console import Console
from rich.table import Table

SUMMARY = (
    "row", "Numba", "C", "in @njit", "fastest peer", "its time", "Numba vs peer", "C vs peer",
    "rate", "of limit",
)  # fmt: skip
DETAILS = (
    "competitor", "best", "median", "rate", "of limit", "Numba vs it", "C vs it", "how",
)  # fmt: skip
LEGEND = (
    "Best times. Ratios are the other's best time over ours: above 1.00x loopnest is faster; "
    f"{text.EQUAL} means no significant difference. Rate and share of the limit are those of "
    "the faster of Numba and C; the limit is the least time this machine could take, by "
    "arithmetic or by data."
)


def summary(data: dict[str, Any]) -> list[list[str]]:
    """One line a row."""
    return [_summary_line(record) for record in data["rows"]]


def _summary_line(record: dict[str, Any]) -> list[str]:
    columns, peer = record["competitors"], record["fastest_peer"]
    best = min(
        (columns[own] for own in ("numba", "c") if columns.get(own, {}).get("state") == "ok"),
        key=lambda column: column["best_ns"], default=None,
    )  # fmt: skip
    name = text.name_of(peer) if peer else "none"
    if peer and columns[peer].get("stands_for"):
        name += " *"
    return [
        record["id"],
        *[text.state_of(columns.get(own)) for own in ("numba", "c", "njit")],
        name,
        text.state_of(columns.get(peer)) if peer else "",
        *[text.ratio_of(text.against_fastest(record, own)) for own in ("numba", "c")],
        text.rate_of(best, record) if best else "",
        text.percent_of(best) if best else "",
    ]


def details(record: dict[str, Any]) -> list[list[str]]:
    """One line a competitor, the fastest first."""
    columns = record["competitors"].items()
    order = sorted(columns, key=lambda item: item[1].get("best_ns", float("inf")))
    return [_detail_line(record, name, column) for name, column in order]


def _detail_line(record: dict[str, Any], name: str, column: dict[str, Any]) -> list[str]:
    if column["state"] != "ok":
        return [text.name_of(name), column["state"].upper(), *[""] * 5, column["error"]]
    against = [text.ratio_of(record["ratios"].get(own, {}).get(name)) for own in ("numba", "c")]
    how = column["variant"] or ""
    return [
        text.name_of(name), text.time_of(column["best_ns"]), text.time_of(column["median_ns"]),
        text.rate_of(column, record), text.percent_of(column), *against, how,
    ]  # fmt: skip


def limit_rows(data: dict[str, Any]) -> list[list[str]]:
    """The machine's own limits."""
    if not data["limits"]:
        return []
    single, everything = data["limits"]["single"], data["limits"]["all"]
    lines = [
        [
            f"{dtype} multiply-add",
            *(f"{m['gflops'][dtype]:.0f} GFLOP/s" for m in (single, everything)),
        ]
        for dtype in single["gflops"]
    ]
    for level in single["gbs"]:
        rates = (
            " / ".join(f"{r:.0f}" for r in m["gbs"][level].values()) for m in (single, everything)
        )
        lines.append([f"{level} read / copy / triad", *(f"{rate} GB/s" for rate in rates)])
    return lines


def startup_rows(data: dict[str, Any]) -> list[list[str]]:
    """First calls, in milliseconds."""
    whats = ("compile", "load from cache", "c")
    return [
        [op, *(f"{found[w]:.1f} ms" if w in found else "" for w in whats)]
        for op, found in (data.get("startup") or {}).items()
    ]


def target_rows(data: dict[str, Any]) -> list[list[str]]:
    """Each row that has a target: ratio to the fastest of its peers, and whether it is reached."""
    lines = []
    for record in data["rows"]:
        if "target" not in record or record["threads"] > 1:
            continue
        peer = results.target_peer(record)
        line = [record["id"], text.name_of(peer)]
        for own, target in record["target"].items():
            entry = record["ratios"].get(own, {}).get(peer)
            reached = entry and entry["ratio"] >= target
            words = text.digits(entry["ratio"]) if entry else "none"
            line += [f"{target:g}" if target else "", words, "" if not target else
                     "reached" if reached else "missed"]  # fmt: skip
        lines.append(line)
    return lines


def thread_rows(data: dict[str, Any]) -> list[list[str]]:
    """Rows that were measured on one thread and on more."""
    single = {(r["op"], r["name"], r["dtype"]): r for r in data["rows"] if r["threads"] == 1}
    lines = []
    for record in data["rows"]:
        one = single.get((record["op"], record["name"], record["dtype"]))
        if record["threads"] == 1 or one is None:
            continue
        for own in ("numba", "c"):
            pair = [r["competitors"].get(own, {}).get("best_ns") for r in (one, record)]
            if all(pair):
                times = [text.time_of(ns) for ns in pair]
                ratio = f"{text.digits(pair[0] / pair[1])}x"
                lines.append([one["id"], text.name_of(own), str(record["threads"]), *times, ratio])
    return lines


def overhead_rows(data: dict[str, Any]) -> list[list[str]]:
    """Checked call, its kernel alone, and the call inside @njit."""
    found = data.get("overhead") or {}
    lines = []
    for case, backends in found.get("calls", {}).items():
        for own, ns in backends.items():
            kernel, inside = ns.get("kernel"), ns.get("njit")
            lines.append([
                case, text.name_of(own), text.time_of(ns["checked"]),
                text.time_of(kernel) if kernel else "",
                text.time_of(ns["checked"] - kernel) if kernel else "",
                text.time_of(inside) if inside else "",
            ])  # fmt: skip
    if "import_ms" in found:
        words = f"{found['import_ms']:.0f} ms"
        lines.append(["import loopnest, numpy being there", "", words, "", "", ""])
    return lines


def fact_rows(data: dict[str, Any]) -> list[list[str]]:
    """Machine and software."""
    m, s = data["machine"], data["settings"]
    sizes = ", ".join(
        f"{c['name']} {c['bytes'] >> 10} KB"
        + (f" (of {c['reported'] >> 20} MB reported)" if "reported" in c else "")
        for c in m["caches"]
    )
    commit = f"{m['commit'][:12]}{', with uncommitted changes' if m['dirty'] else ''}"
    packages = ", ".join(f"{name} {version}" for name, version in m["packages"].items())
    load = ", ".join(f"{x:.2f}" for x in m["load_at_start"] or ())
    mode = "cold caches" if s["cold"] else "warm caches"
    return [
        ["date", f"{text.date_of(data)}, {data['status']}"],
        ["CPU", f"{m['cpu']}, {m['cores']} usable cores; {sizes}"],
        ["governor, load", f"{m['governor']}; load at the start {load}"],
        ["system", m["system"]],
        ["Python", f"{m['python']}; {packages}"],
        ["C", f"{m['compiler']['version']}, {' '.join(m['compiler']['flags'])}; "
              f"instruction set {m['c_instruction_set']}"],
        ["commit", commit],
        ["settings", f"{s['rounds']} rounds or more of {s['batch_ms']:g} ms, {mode}, threads "
                     f"{', '.join(map(str, s['threads']))}"],
        ["harness", f"{data['harness']['overhead_ns']:.0f} ns a call, not subtracted"],
    ]  # fmt: skip


def peer_rows(data: dict[str, Any]) -> list[list[str]]:
    """Who took part, and who is missing and why."""
    return [
        [text.name_of(name), peer["version"] or "", peer.get("reason") or peer["settings"]]
        for name, peer in data["peers"].items()
    ]


def sections(data: dict[str, Any]) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
    """The smaller tables: title, headings, lines."""
    threads = data["limits"]["all"]["threads"] if data["limits"] else 0
    return [
        ("Limits of this machine", ("", "1 thread", f"{threads} threads"), limit_rows(data)),
        ("Targets", ("row", "fastest peer", "Numba must", "Numba", "", "C must", "C", " "),
         target_rows(data)),
        ("First call of an op", ("op", "Numba compiles", "Numba, from its cache", "C"),
         startup_rows(data)),
        ("Cost of a call", ("call", "by", "checked call", "kernel alone", "difference",
                            "inside @njit"), overhead_rows(data)),
        ("More threads", ("row", "by", "threads", "one thread", "all of them", "times as fast"),
         thread_rows(data)),
        ("Competitors", ("name", "version", "settings, or why it is missing"), peer_rows(data)),
        ("Machine", ("", ""), fact_rows(data)),
    ]  # fmt: skip


# ---- Markdown ----


def _markdown_table(headings: Any, lines: list[list[str]]) -> str:
    cells = [list(headings), ["---"] * len(headings), *lines]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in cells
    )


def markdown(data: dict[str, Any]) -> str:
    """The whole run as one Markdown text."""
    parts = [f"# loopnest benchmark, {text.date_of(data)}"]
    if data.get("note"):
        parts.append(f"**{data['note']}**")
    parts += [_markdown_table(SUMMARY, summary(data)), LEGEND]
    parts += [stand_ins(data), *(f"- {p}" for p in text.problems(data))]
    for title, headings, lines in sections(data):
        if lines:
            parts.append(f"## {title}\n\n{_markdown_table(headings, lines)}")
    parts.append("## Every competitor")
    for record in data["rows"]:
        parts.append(f"### {record['id']}\n\n{_markdown_table(DETAILS, details(record))}")
    return "\n\n".join(part for part in parts if part) + "\n"


def stand_ins(data: dict[str, Any]) -> str:
    """Which peers did something else than was asked."""
    found = sorted(
        {
            f"{text.name_of(name)} {column['variant']}"
            for record in data["rows"]
            for name, column in record["competitors"].items()
            if column.get("stands_for")
        }
    )
    return (
        f"\\* a relative of the op, as the peer has none of its own: {', '.join(found)}."
        if found
        else ""
    )


# ---- terminal ----


LEAST = ("in @njit", "rate", "its time", "of limit")  # left out first where space is short


def wide(console: Console) -> Console:
    """A pipe or a log has no width of its own: never cut a row short there."""
    if console.is_terminal:
        return console
    return Console(file=console.file, width=200, no_color=True, highlight=False)


def show(data: dict[str, Any], console: Console) -> None:
    """The summary as a table; what was wrong below it."""
    console = wide(console)
    for count in range(len(LEAST) + 1):
        table = _summary_table(data, set(LEAST[:count]))
        if Console(width=1000).measure(table).maximum <= console.width:
            break
    console.print(table)
    console.print(LEGEND, style="dim", markup=False, width=min(console.width, 120))
    for problem in text.problems(data):
        style = "bold red" if problem.startswith("ERROR") else "yellow"
        console.print(problem, style=style, markup=False)
    for name, peer in data["peers"].items():
        if peer["state"] == "missing":
            words = f"{text.name_of(name)} is missing: {peer['reason']}"
            console.print(words, style="dim", markup=False)


def _summary_table(data: dict[str, Any], without: set[str]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    shown = [heading for heading in SUMMARY if heading not in without]
    for heading in shown:
        left = heading in ("row", "fastest peer")
        table.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for record, line in zip(data["rows"], summary(data), strict=True):
        cells = dict(zip(SUMMARY, line, strict=True))
        table.add_row(*[_coloured(record, heading, cells[heading]) for heading in shown])
    return table


def _coloured(record: dict[str, Any], heading: str, cell: str) -> str:
    own = {"Numba vs peer": "numba", "C vs peer": "c"}.get(heading)
    entry = text.against_fastest(record, own) if own else None
    if cell in ("WRONG", "FAILED"):
        return f"[bold red]{cell}[/]"
    if entry is None or not entry["differs"]:
        return cell
    return f"[{'green' if entry['ratio'] > 1 else 'red'}]{cell}[/]"
