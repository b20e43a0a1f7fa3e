"""Pictures of the four worked problems; needs matplotlib, which is imported at first use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

import loopnest as ln
from loopnest.app import worked_sheet as sheet
from loopnest.app.worked_problems import CONVENTIONS, LONG, MINIMUM, START, descend, maps
from loopnest.app.worked_problems import steps_to_minimum as steps_of
from loopnest.runtime import files

_DPI = 120
_COLORS = ("#444444", "#0072b2", "#d55e00", "#009e73", "#cc79a7")


def require_matplotlib() -> None:
    """Raise ImportError, saying how to get it, where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"plots need matplotlib ({error}); install it with 'pip install loopnest[plots]' "
            "or 'pip install matplotlib'"
        ) from error


def new_figure(rows: int, columns: int, size: tuple[float, float], **options: Any) -> Any:
    """A figure that no window system knows of, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained", figsize=size)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **options)


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a picture, its format that of the name's end (PNG without one), by renaming."""
    target = Path(path)
    kind = target.suffix.lstrip(".").lower() or "png"
    with files.replacing(target) as file:
        figure.savefig(file, dpi=_DPI, format=kind)


def write_plots(folder: str | os.PathLike[str]) -> list[Path]:
    """Draw all pictures with the backend in use.

    Parameters
    ----------
    folder : path
        Where the PNG files go; made if need be.

    Returns
    -------
    list of Path

    Raises
    ------
    ImportError
        matplotlib is not installed.
    OSError
        The folder cannot be written.
    """
    require_matplotlib()
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in (
        ("1_descent_paths", _descent_paths),
        ("1c_momentum_20000_steps", _long_runs),
        ("2_gate_regions", _gate_regions),
        ("4_feature_maps", _feature_maps),
    ):
        path = target / f"{name}.png"
        save(draw(), path)
        written.append(path)
    return written


def _descent_paths() -> Any:
    """1(a) and 1(b) on the curve, each with a closer look at its steps."""
    figure, axes = new_figure(1, 2, size=(11, 4.8))
    curve = np.linspace(-2.2, 0.6, 500)
    for ax, part, lr in zip(axes, "ab", (sheet.LR_SMALL, sheet.LR_LARGE), strict=True):
        x = descend(np.float64, 0.0, lr, 3, "plain")
        y = ln.gelu(x)
        ax.plot(curve, ln.gelu(curve), color=_COLORS[0], lw=1.5, label="GELU")
        ax.plot(x, y, "o-", color=_COLORS[2], lw=1.2, ms=5, label="three steps from x = 0")
        ax.plot(MINIMUM, ln.gelu(MINIMUM), "*", color=_COLORS[1], ms=13, label="minimum")
        ax.set(title=f"1({part})  rate {lr:g}", xlabel="x", ylabel="GELU(x)", ylim=(-0.26, 0.12))
        ax.legend(loc="upper left", frameon=False)
        _label_points(ax, x, y, part)
        ax.grid(alpha=0.25)
    return figure


def _label_points(ax: Any, x: Any, y: Any, part: str) -> None:
    """Name each point beside the curve, where nothing else is."""
    shifts = {
        "a": ((16, -10), (16, -10), (16, -10), (16, -10)),
        "b": ((16, -10), (26, -26), (12, -44), (-52, -62)),
    }[part]
    for i, (u, v, shift) in enumerate(zip(x, y, shifts, strict=True)):
        ax.annotate(
            f"x{i} = {u:.5g}",
            (u, v),
            textcoords="offset points",
            xytext=shift,
            fontsize=9,
            arrowprops={"arrowstyle": "-", "lw": 0.6, "color": "#888888"},
        )


def _long_runs() -> Any:
    """1(c): how far each convention is from the minimum, step by step."""
    figure, (left, right) = new_figure(1, 2, size=(12, 4.8))
    steps = np.arange(1, LONG + 1)
    for color, convention in zip(_COLORS, CONVENTIONS, strict=True):
        x = descend(np.float64, START, sheet.LR_SMALL, LONG, convention)
        needed, x = steps_of(x), x[1:]
        name = "plain descent" if convention == "plain" else convention
        # Two pairs run almost on top of each other: dashes let the lower one show.
        dashes = (4, 3) if convention in ("lookback", "nesterov") else (None, None)
        look = {"color": color, "lw": 1.5, "dashes": dashes}
        left.plot(steps, x, label=f"{name}: {needed:,}", **look)
        right.plot(steps, np.maximum(np.abs(x - MINIMUM), 1e-17), label=name, **look)
    left.axhline(MINIMUM, color="#888888", lw=0.8, ls=":")
    left.set(xlabel="step", ylabel="x", title="1(c)  descent from x = -3, rate 0.1, momentum 0.9")
    left.legend(title="steps to within 1e-6", loc="upper left", fontsize=9)
    right.set(xlabel="step", ylabel="|x - minimum|", yscale="log", ylim=(1e-13, 10))
    right.set(title="distance to the minimum at x = -0.75115")
    right.axhline(1e-6, color="#888888", lw=0.8, ls=":")
    right.annotate("1e-6", (1.2, 1.5e-6), fontsize=9, color="#555555")
    for ax in (left, right):
        ax.set(xscale="log", xlim=(1, LONG))
        ax.grid(alpha=0.25)
    return figure


def _gate_regions() -> Any:
    """2: what each network says of every point around the four inputs."""
    figure, axes = new_figure(1, 4, size=(13, 3.9), sharey=True)
    line = np.linspace(-0.5, 1.5, 401)
    a, b = np.meshgrid(line, line)
    for ax, name in zip(axes, sheet.GATES, strict=True):
        y = ln.gate(name).forward(a, b)
        image = ax.imshow(
            y, origin="lower", extent=(-0.5, 1.5, -0.5, 1.5), cmap="RdBu", vmin=0.1, vmax=0.9
        )
        # Corners lie exactly on 0.5, which counts as 1; all of xor's band is 0.5 but for
        # the last bit. So the border is drawn a hair below.
        border = 0.5 - 1e-6
        ax.contourf(a, b, y, levels=[border, 1], colors="none", hatches=["//"])
        ax.contour(a, b, y, levels=[border], colors="black", linewidths=1.4)
        for u, v, decided in ln.gate(name).truth_table():
            output = ln.gate(name).forward(float(u), float(v))
            face = "black" if decided else "white"
            ax.plot(u, v, "o", ms=11, mfc=face, mec="black")
            ax.annotate(
                f"{output:.3f}",
                (u, v),
                textcoords="offset points",
                xytext=(0, 12),
                ha="center",
                bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.85},
            )
        ax.set(title=name, xlabel="a", xticks=(0, 1), yticks=(0, 1))
    axes[0].set_ylabel("b")
    figure.colorbar(image, ax=axes, label="sigmoid output", shrink=0.8)
    figure.suptitle(
        "2  Gates as networks: hatched where the output is at least 0.5, which means 1", fontsize=12
    )
    return figure


def _matrix(ax: Any, values: np.ndarray, title: str, limit: float | None = None) -> None:
    """A small matrix as colored cells with its numbers."""
    limit = limit or float(np.abs(values).max())
    ax.imshow(values, cmap="PuOr", vmin=-1.3 * limit, vmax=1.3 * limit)
    for (i, j), value in np.ndenumerate(values):
        ink = "white" if abs(value) > 0.7 * limit else "black"
        ax.text(j, i, f"{value:g}", ha="center", va="center", fontsize=12, color=ink)
    ax.set(title=title, xticks=(), yticks=())
    ax.title.set_fontsize(10)


def _feature_maps() -> Any:
    """4: image, filter, feature map, and the map pooled in both ways."""
    figure, axes = new_figure(1, 5, size=(13.5, 3.7))
    feature, pooled, convolved = (v[0, 0] for v in maps(np.float64))
    _matrix(axes[0], np.array(sheet.IMAGE, float), "F, 4x4")
    _matrix(axes[1], np.array(sheet.FILTER, float), "filter 1, 3x3")
    _matrix(axes[2], feature, "(a) F' = conv2d(F, filter 1),\nstride 1, padding 1")
    limit = float(np.abs(feature).max())
    _matrix(axes[3], pooled, "(c) avg_pool2d(F'),\nsize 2, stride 2", limit)
    _matrix(axes[4], convolved, "(d) conv2d(F', 2x2 of 0.25),\nstride 2", limit)
    figure.suptitle("4  Convolution (cross-correlation) and pooling", fontsize=12)
    return figure
