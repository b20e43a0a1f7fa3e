"""What the example scripts share: command line, training with several seeds, the printed table."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import loopnest as ln
from loopnest.runtime import terminal


@dataclass
class Task:
    """Bits to learn from, bits to be judged by, and the network for them."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    layers: list[int]
    classes: int
    tau: float
    fit: dict[str, Any] = field(default_factory=dict)


def arguments(description: str) -> argparse.Namespace:
    """The command line of each script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=3, help="train with seeds 0 .. SEEDS-1 (3)")
    parser.add_argument("--epochs", type=int, help="fewer or more than the script's own number")
    parser.add_argument("--export", type=Path, metavar="DIR", help="write C, Verilog and NPZ files")
    return parser.parse_args()


def samples_per_second(packed: ln.PackedLogic, x: np.ndarray, seconds: float = 0.3) -> float:
    """Rate of `predict`, from bytes to classes, on repeated samples; the best of its calls."""
    many = np.resize(x, (max(16_384, len(x)), x.shape[1]))
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        packed.predict(many)
        best = min(best, time.perf_counter() - begin)
    return len(many) / best


def run(title: str, make: Callable[[int], Task], options: argparse.Namespace) -> float:
    """Train and judge ``make(seed)`` for each seed, print a table, return the mean accuracy."""
    rows, accuracies = [], []
    for seed in range(options.seeds):
        task = make(seed)
        x, y = task.train
        net = ln.LogicNetwork(x.shape[1], task.layers, task.classes, tau=task.tau, seed=seed)
        fit = task.fit | ({"epochs": options.epochs} if options.epochs else {})
        begin = time.perf_counter()
        net.fit(x, y, **fit)
        seconds = time.perf_counter() - begin
        packed = net.pack()
        accuracies.append(float(np.mean(packed.predict(task.test[0]) == task.test[1])))
        rate = samples_per_second(packed, task.test[0])
        cells = (
            str(seed), f"{accuracies[-1]:.2%}", f"{packed.gates_before:,}", f"{packed.gates:,}",
            f"{seconds:.1f} s", f"{rate / 1e6:.2f} million",
        )  # fmt: skip
        rows.append([(cell, "") for cell in cells])
        if options.export:
            export(net, packed, options.export, f"{Path(title).name.replace(' ', '_')}_{seed}")
    mean = float(np.mean(accuracies))
    rows.append([("mean", ""), (f"{mean:.2%}", ""), *[("", "")] * 4])
    columns = ["seed", "hard accuracy", "gates", "simplified", "training", "samples a second"]
    terminal.show_table(title, columns, rows)
    return mean


def export(net: ln.LogicNetwork, packed: ln.PackedLogic, folder: Path, name: str) -> None:
    """The trained network as NPZ, C and Verilog."""
    folder.mkdir(parents=True, exist_ok=True)
    net.save(folder / f"{name}.npz")
    packed.to_c(folder / f"{name}.c")
    packed.to_verilog(folder / f"{name}.v")
