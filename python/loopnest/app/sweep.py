"""Maps of a descent over learning rates and starts (or momenta): the command `loopnest sweep`.

A map is computed in bands of rows, and what is done is on disk: an interrupted run goes on
where it was.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopnest.descent import descent
from loopnest.runtime import files, terminal

_BAND_SECONDS = 0.25  # of work between two looks at the progress bar and the clock
_SAVE_SECONDS = 10.0  # between two saves of an unfinished map


@dataclass(frozen=True)
class Settings:
    """What a map is of.

    Attributes
    ----------
    objective : str
        An activation's name; or FILE.py:f,df or module:f,df for functions of the caller's (f
        alone: slopes by central differences).
    lr : tuple
        (from, to, count), in equal ratios.
    across : {"start", "momentum"}
        What varies along a row.
    values : tuple
        (from, to, count) of it, in equal distances.
    other : float
        The momentum or the start of all problems, whichever does not vary.
    """

    objective: str
    lr: tuple[float, float, int]
    across: str
    values: tuple[float, float, int]
    other: float
    method: str = "gd"
    convention: str = "ema"
    steps: int = 10_000
    tol: float = 1e-6
    dtype: str = "float64"

    def __post_init__(self) -> None:
        op = "sweep"
        for name, (low, high, count) in (("lr", self.lr), (self.across, self.values)):
            if not (math.isfinite(low) and math.isfinite(high)) or count < 1 or low > high:
                raise ValueError(
                    f"{op}: {name} is {low:g}:{high:g}:{count}; accepted: from <= to, count >= 1"
                )
        if self.lr[0] <= 0:
            raise ValueError(f"{op}: lr starts at {self.lr[0]:g}; accepted: a number above 0")
        if self.across not in ("start", "momentum"):
            raise ValueError(f"{op}: across is {self.across!r}; accepted: 'start', 'momentum'")

    def axes(self) -> tuple[np.ndarray, np.ndarray]:
        """Learning rates, and the values along a row."""
        return np.geomspace(*self.lr), np.linspace(*self.values)

    def text(self) -> str:
        """All of it, to compare with another run's."""
        return json.dumps(asdict(self), sort_keys=True)


def load_objective(text: str) -> dict[str, Any]:
    """What `descend` takes for the text: ``objective`` and, for f alone, ``gradient``.

    Raises
    ------
    ValueError
        There is no such activation, file or function; the message says what is accepted.
    """
    if ":" not in text:
        descent.objective_number(text)
        return {"objective": text}
    place, _, names = text.rpartition(":")
    functions = [getattr(_module(place), name, None) for name in names.split(",")]
    if len(functions) > 2 or not all(map(callable, functions)):
        raise ValueError(
            f"sweep: objective is {text!r}; accepted: FILE.py:f or FILE.py:f,df with functions "
            "that are in the file"
        )
    if len(functions) == 1:
        return {"objective": functions[0], "gradient": "central"}
    return {"objective": tuple(functions)}


def _module(place: str) -> Any:
    try:
        if not place.endswith(".py"):
            sys.path.insert(0, os.getcwd())
            try:
                return importlib.import_module(place)
            finally:
                sys.path.pop(0)
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except (ImportError, OSError) as error:
        raise ValueError(
            f"sweep: objective's module {place!r} cannot be loaded ({error})"
        ) from None


class Map:
    """The results, rows of learning rates, and which rows are done."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lr, self.values = settings.axes()
        shape, dtype = (self.lr.size, self.values.size), np.dtype(settings.dtype)
        self.arrays: dict[str, np.ndarray] = {
            "x": np.zeros(shape, dtype),
            "fun": np.zeros(shape, dtype),
            "steps": np.zeros(shape, np.int64),
            "converged": np.zeros(shape, np.bool_),
            "diverged": np.zeros(shape, np.bool_),
        }
        self.done = np.zeros(self.lr.size, np.bool_)

    def save(self, path: Path) -> None:
        """Write an NPZ file beside its place, then rename it: no reader ever sees a half."""
        contents: dict[str, Any] = {"lr": self.lr, self.settings.across: self.values}
        contents |= {"done": self.done, "settings": self.settings.text(), **self.arrays}
        files.write_npz(path, contents, compressed=True)

    @classmethod
    def load(cls, path: Path, settings: Settings) -> Map:
        """The map of an earlier run, which must have been of the same settings."""
        result, wanted = cls(settings), settings.text()
        try:
            with files.ArrayFile(path, "the file") as file:
                found = file.text("settings")
                if found == wanted:
                    result.done = file.array("done", result.done.shape, np.bool_)
                    for name, array in result.arrays.items():
                        result.arrays[name] = file.array(name, array.shape, array.dtype)
        except (OSError, ValueError) as error:
            raise ValueError(f"sweep: {path} is no map of this command ({error})") from None
        if found != wanted:
            raise ValueError(
                f"sweep: {path} holds another map, {found[:1000]}; accepted: the same settings, or "
                "another file"
            )
        return result

    def compute_rows(self, first: int, last: int, objective: dict[str, Any]) -> None:
        """Fill rows first to last."""
        settings, dtype = self.settings, np.dtype(self.settings.dtype)
        starts, momenta = self.values, np.array(settings.other)
        if settings.across == "momentum":
            starts, momenta = momenta, starts
        found = descent.descend(
            **objective,
            x0=starts.astype(dtype),
            lr=self.lr[first:last, None],
            momentum=momenta,
            method=settings.method,
            convention=settings.convention,
            steps=settings.steps,
            tol=settings.tol,
        )
        for name, array in self.arrays.items():
            array[first:last] = getattr(found, name)
        self.done[first:last] = True


def run(settings: Settings, path: Path, *, resume: bool = False) -> Map:
    """Compute a map into an NPZ file, showing how far it got.

    Raises
    ------
    ValueError
        Settings that `descend` refuses, or ``resume`` and a file of another map.
    KeyboardInterrupt
        Interrupted; the rows that were done are in the file.
    """
    objective = load_objective(settings.objective)
    result = Map.load(path, settings) if resume and path.exists() else Map(settings)
    result.compute_rows(0, 0, objective)  # refuses bad settings before any work
    left = np.flatnonzero(~result.done)
    saved = time.monotonic()
    try:
        with terminal.Bar("sweep", result.done.size) as bar:
            bar.to(int(result.done.sum()))
            rows = 1
            while left.size:
                # Rows of a band are neighbours; in a resumed map there may be gaps.
                band = left[: np.argmax(np.append(np.diff(left) > 1, True)) + 1][:rows]
                begin = time.perf_counter()
                result.compute_rows(int(band[0]), int(band[-1]) + 1, objective)
                seconds = time.perf_counter() - begin
                left = left[band.size :]
                bar.to(int(result.done.sum()))
                rows = max(1, min(4 * rows, int(band.size * _BAND_SECONDS / max(seconds, 1e-6))))
                if time.monotonic() - saved > _SAVE_SECONDS:
                    result.save(path)
                    saved = time.monotonic()
    finally:
        result.save(path)
    return result


def draw(result: Map, path: Path) -> None:
    """Draw steps to convergence and final value as colours, PNG or what the name ends in."""
    from matplotlib.colors import ListedColormap, LogNorm
    from matplotlib.patches import Patch

    from loopnest.app import plots

    settings, arrays = result.settings, result.arrays
    figure, (left, right) = plots.new_figure(1, 2, (12.5, 5), sharey=True)
    x, y = _edges(result.values, False), _edges(result.lr, True)
    steps = np.ma.masked_where(~arrays["converged"], np.maximum(arrays["steps"], 1))
    values = np.ma.masked_where(~np.isfinite(arrays["fun"]), arrays["fun"])
    norm = LogNorm(1, max(settings.steps, 2))
    image = left.pcolormesh(x, y, steps, norm=norm, cmap="viridis", rasterized=True)
    figure.colorbar(image, ax=left, label="steps until |slope| <= tol")
    low, high = (
        (float(v) for v in np.percentile(values.compressed(), (0, 98)))
        if values.count()
        else (0, 1)
    )
    image = right.pcolormesh(x, y, values, cmap="magma_r", vmin=low, vmax=high, rasterized=True)
    figure.colorbar(image, ax=right, label="final value", extend="max")
    legend = []
    states = (
        ("diverged", arrays["diverged"], "#c1272d", (left, right)),
        (f"not there after {settings.steps:,} steps", ~(arrays["converged"] | arrays["diverged"]),
         "#d0d0d0", (left,)),
    )  # fmt: skip
    for label, where, color, axes in states:
        if not where.any():
            continue
        for ax in axes:
            shown = np.ma.masked_where(~where, np.ones(where.shape))
            ax.pcolormesh(x, y, shown, cmap=ListedColormap([color]), rasterized=True)
        legend.append(Patch(color=color, label=label))
    if legend:
        left.legend(handles=legend, loc="lower left", fontsize=9)
    other = {"start": "momentum", "momentum": "start"}[settings.across]
    method = settings.method
    if method == "momentum":
        method += f" ({settings.convention})"
    note = (
        ""
        if settings.across == "start" and settings.method == "gd"
        else f", {other} {settings.other:g}"
    )
    name = {"gelu": "x sigmoid(1.702 x)"}.get(settings.objective, settings.objective)
    left.set(yscale="log", ylabel="learning rate", title=f"{name}: {method}{note}")
    right.set(title=f"where it ends, tol {settings.tol:g}")
    for ax in (left, right):
        ax.set_xlabel(settings.across)
    plots.save(figure, path)


def _edges(centres: np.ndarray, ratios: bool) -> np.ndarray:
    """Borders of the cells around these centres."""
    if ratios:
        return np.exp(_edges(np.log(centres), False))
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def summary(result: Map) -> str:
    """One line on what became of the problems."""
    size = result.done.size * result.values.size
    share: Callable[[str], float] = lambda name: 100.0 * float(result.arrays[name].mean())  # noqa: E731
    total = int(result.arrays["steps"].sum())
    return (
        f"{size:,} problems, {total:,} steps: {share('converged'):.1f}% converged, "
        f"{share('diverged'):.1f}% diverged"
    )
