"""One HTML page for a run: pictures inside, tables, no other file needed."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

import report
import text

STYLE = """
:root { color-scheme: light; --ink: #1d2530; --soft: #5a6472; --line: #dfe4ea; --good: #17733a;
  --bad: #b3261e; --card: #ffffff; --ground: #f5f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 0 0 12px; }
p { margin: 6px 0; } .soft { color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 18px 0; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: 13.5px; }
th { text-align: left; font-weight: 600; color: var(--soft); white-space: nowrap; }
th, td { padding: 4px 10px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr:hover td { background: #f0f5fa; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); }
.wrong { color: #fff; background: var(--bad); padding: 0 6px; border-radius: 4px; }
details { margin: 4px 0; } summary { cursor: pointer; padding: 3px 0; }
details table { margin: 4px 0 12px 18px; width: calc(100% - 18px); }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 16px; flex: 1 1 170px; } .tile b { display: block; font-size: 24px; }
svg { max-width: 100%; height: auto; display: block; margin: 0 auto; }
"""
TEXTUAL = {
    "row",
    "fastest peer",
    "competitor",
    "how",
    "name",
    "version",
    "op",
    "call",
    "by",
    "",
    " ",
}


def html(data: dict[str, Any], drawn: list[Path]) -> str:
    """The page as one string."""
    body = [_head(data), _tiles(data), _problems(data)]
    for stem, title in (("ratios", "Against the fastest peer"), ("roofline", "Roofline")):
        path = next((p for p in drawn if p.name == f"{stem}.svg"), None)
        if path:
            body.append(f"<section><h2>{title}</h2>{_inline(path, stem)}</section>")
    table = _table(report.SUMMARY, report.summary(data))
    notes = "".join(f"<p class=soft>{escape(n)}</p>" for n in
                    (report.LEGEND, report.stand_ins(data).lstrip("\\")) if n)  # fmt: skip
    body.append(f"<section><h2>Rows</h2>{table}{notes}</section>")
    body.append(f"<section><h2>Every competitor</h2>{_details(data)}</section>")
    for title, headings, lines in report.sections(data):
        if lines:
            body.append(f"<section><h2>{title}</h2>{_table(headings, lines)}</section>")
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width, initial-scale=1'>"
        f"<title>loopnest benchmark, {escape(text.date_of(data))}</title>"
        f"<style>{STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _head(data: dict[str, Any]) -> str:
    m = data["machine"]
    status = "" if data["status"] == "complete" else f" <span class=wrong>{data['status']}</span>"
    note = f"<p><b>{escape(data['note'])}</b></p>" if data.get("note") else ""
    commit = m["commit"][:7] + (" with uncommitted changes" if m["dirty"] else "")
    return (
        f"<h1>loopnest benchmark{status}</h1><p class=soft>{escape(m['cpu'])}, {m['cores']} cores "
        f"&middot; {escape(text.date_of(data))} &middot; commit {commit}</p>{note}"
    )


def _tiles(data: dict[str, Any]) -> str:
    """How many rows each of ours wins against the fastest peer."""
    tiles = [(str(len(data["rows"])), "rows measured")]
    for own in ("numba", "c"):
        entries = [e for r in data["rows"] if (e := text.against_fastest(r, own))]
        faster = sum(e["ratio"] > 1 and e["differs"] for e in entries)
        equal = sum(not e["differs"] for e in entries)
        words = f"{text.name_of(own)} faster than the fastest peer"
        tiles.append((f"{faster} of {len(entries)}", words + (f", {equal} equal" if equal else "")))
    if data["limits"]:
        tiles.append((f"{data['limits']['single']['gflops']['float32']:.0f} GFLOP/s",
                      "float32 multiply-add, one core"))  # fmt: skip
    tiles.append((f"{data['harness']['overhead_ns']:.0f} ns", "cost of the harness in each call"))
    inside = "".join(f"<div class=tile><b>{escape(v)}</b>{escape(w)}</div>" for v, w in tiles)
    return f"<div class=tiles>{inside}</div>"


def _problems(data: dict[str, Any]) -> str:
    found = text.problems(data)
    if not found:
        return ""
    lines = "".join(f"<p>{escape(problem)}</p>" for problem in found)
    return f"<section><h2>Wrong or failed</h2>{lines}</section>"


def _table(headings: Any, lines: list[list[str]]) -> str:
    numeric = [h not in TEXTUAL and "settings" not in h for h in headings]
    marks = [" class=n" if n else "" for n in numeric]
    head = "".join(f"<th{m}>{escape(h)}</th>" for h, m in zip(headings, marks, strict=True))
    rows = (
        "".join(f"<td{m}>{_cell(c)}</td>" for c, m in zip(line, marks, strict=True))
        for line in lines
    )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _cell(words: str) -> str:
    """Ratios in green and red, errors marked."""
    if words in ("WRONG", "FAILED"):
        return f"<span class=wrong>{words}</span>"
    if words in ("reached", "missed"):
        return f"<span class={'good' if words == 'reached' else 'bad'}>{words}</span>"
    if re.fullmatch(r"[\d.]+x", words):
        return f"<span class={'good' if float(words[:-1]) >= 1 else 'bad'}>{words}</span>"
    return escape(words)


def _details(data: dict[str, Any]) -> str:
    parts = []
    for record in data["rows"]:
        limit = record["limit"]
        bound = f", limit by {limit['by']} {text.time_of(limit['ns'])}" if limit else ""
        words = f"{record['flops']:,} FLOP, {record['bytes']:,} bytes{bound}"
        parts.append(
            f"<details><summary>{escape(record['id'])} <span class=soft>{words}</span></summary>"
            f"{_table(report.DETAILS, report.details(record))}</details>"
        )
    return "".join(parts)


def _inline(path: Path, prefix: str) -> str:
    """An SVG's element; its ids made its own, since two pictures share the page."""
    svg = path.read_text(encoding="utf-8")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)
