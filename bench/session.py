"""Opens and closes a run: peers, threads, limits, machine facts, where results go."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

import harness
import machine
import peers
import results
import timing

OUT = machine.ROOT / "out" / "bench"


def folder() -> Path:
    """Where this run's files go."""
    named = os.environ.get("LOOPNEST_BENCH_OUT")
    if named:
        return Path(named)
    return OUT / datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")


def board(settings: harness.Settings) -> harness.Board:
    """A board with the peers that are there; ValueError for names that are not known."""
    settings.rows()  # unknown names are told before anything is imported or measured
    peers.pin_environment(max(settings.threads))
    usable, missing = peers.choose(list(settings.peers) or None)
    for peer in usable.values():
        peer.set_threads(settings.threads[0])
    run = results.Run(
        folder() / "run.json",
        settings=vars(settings),
        machine=machine.facts(),
        limits=None,
        harness={"overhead_ns": timing.overhead_ns()},
        peers=describe(usable, missing),
    )
    return harness.Board(settings, run, usable)


def describe(usable: dict, missing: dict[str, str]) -> dict[str, dict]:
    """Name, version and settings of each peer; the reason where it is missing."""
    known = peers.known()
    told = {}
    for name in [*usable, *missing]:
        if name in usable:
            peer = usable[name]
            told[name] = {
                "state": "used", "version": peer.version(), "settings": peer.settings()
            }  # fmt: skip
        else:
            # Not the peer's own answer, which may need what could not be imported.
            found = machine.version(known[name].distribution or name)
            told[name] = {
                "state": "missing", "reason": missing[name], "version": found or "not installed",
                "settings": "",
            }  # fmt: skip
    return told


def close(board: harness.Board) -> None:
    """Mark the run complete when every row was measured that some competitor can do."""
    measured = {record["id"] for record in board.run.data["rows"]}
    if board.run.data["rows"]:
        done = all(
            str(row) in measured
            for row in board.settings.rows()
            if any(peer.supports(row.case, row.dtype) for peer in board.competitors.values())
        )
        board.run.finish("complete" if done else "interrupted")
