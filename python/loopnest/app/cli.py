"""The command `loopnest`: reproduce, info, warmup, sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loopnest import __version__, available_backends
from loopnest.descent.descent import CONVENTIONS, METHOD_NAMES
from loopnest.runtime import backend, terminal


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="loopnest", description="Neural-network kernels for the CPU: check, look, warm up."
    )
    parser.add_argument("--version", action="version", version=f"loopnest {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    reproduce = commands.add_parser(
        "reproduce",
        help="compute the four worked problems beside their printed values",
        description="Compute the four worked problems on each backend beside their printed "
        "values. Exit status 1 if a backend is wrong or backends differ in a bit; where only the "
        "printed sheet is off, 0.",
    )
    reproduce.add_argument("--backend", choices=("numba", "c", "all"), default="all")
    reproduce.add_argument("--json", metavar="FILE", help="write every quantity to FILE")
    reproduce.add_argument("--plots", metavar="DIR", help="write pictures (PNG) to DIR")
    commands.add_parser("info", help="versions, backends, CPU, threads, cache folder")
    warmup = commands.add_parser(
        "warmup",
        help="compile the Numba kernels and keep them on disk",
        description="Compile the Numba kernels and keep them on disk, so that no later call "
        "waits for it.",
    )
    warmup.add_argument(
        "op", nargs="*", help="ops or rows (activation, convolution, ...); default: all"
    )
    warmup.add_argument("--dtype", choices=("float32", "float64", "all"), default="all")
    _add_sweep(commands)
    return parser


def _range(text: str) -> tuple[float, float, int]:
    """FROM:TO:COUNT"""
    try:
        low, high, count = text.split(":")
        return float(low), float(high), int(count)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; accepted: FROM:TO:COUNT") from None


def _add_sweep(commands: Any) -> None:
    sweep = commands.add_parser(
        "sweep",
        help="map a descent over learning rates and starts (or momenta)",
        description="Run a descent from many starts (or with many momenta) at many learning "
        "rates; keep steps to convergence and final values in an NPZ file and draw them. "
        "An interrupted run keeps what is done (exit status 130); --resume goes on.",
    )
    add = sweep.add_argument
    add(
        "objective",
        nargs="?",
        default="gelu",
        help="an activation, or FILE.py:f,df for functions of one number (f alone: central "
        "differences); default: gelu, which is x*sigmoid(1.702x)",
    )
    add("--lr", type=_range, default=(0.01, 100.0, 200), metavar="FROM:TO:COUNT")
    add("--start", default="-6:4:300", metavar="X or FROM:TO:COUNT")
    add("--momentum", default="0", metavar="B or FROM:TO:COUNT")
    add("--method", default="gd", choices=METHOD_NAMES)
    add("--convention", default="ema", choices=CONVENTIONS, help="what momentum means")
    add("--steps", type=int, default=10_000)
    add("--tol", type=float, default=1e-6, help="a problem stops where |slope| is at most this")
    add("--dtype", default="float64", choices=("float32", "float64"))
    add("--backend", choices=("numba", "c", "auto"), default="auto")
    add("--out", default="sweep.npz", metavar="FILE", help="default: sweep.npz")
    add("--plot", metavar="FILE", help="draw a picture (.png, .pdf, .svg)")
    add("--resume", action="store_true", help="go on with the map in --out")


def _number_or_range(parser: argparse.ArgumentParser, option: str, text: str) -> Any:
    try:
        return _range(text) if ":" in text else float(text)
    except (ValueError, argparse.ArgumentTypeError):
        parser.error(f"{option} is {text!r}; accepted: a number or FROM:TO:COUNT")


def _sweep(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from loopnest.app import sweep

    given = {
        name: _number_or_range(parser, f"--{name}", getattr(arguments, name))
        for name in ("start", "momentum")
    }
    ranges = [name for name, value in given.items() if isinstance(value, tuple)]
    if len(ranges) != 1:
        parser.error("one of --start and --momentum must be a range FROM:TO:COUNT, not both")
    (across,) = ranges
    other = given["momentum" if across == "start" else "start"]
    for option in ("out", "plot"):
        _require_folder(parser, f"--{option}", getattr(arguments, option))
    out = Path(arguments.out)
    try:
        if arguments.plot:
            from loopnest.app import plots

            plots.require_matplotlib()
        settings = sweep.Settings(
            arguments.objective, arguments.lr, across, given[across], other, arguments.method,
            arguments.convention, arguments.steps, arguments.tol, arguments.dtype,
        )  # fmt: skip
        with backend.use_backend(arguments.backend):
            result = sweep.run(settings, out, resume=arguments.resume)
    except (ValueError, TypeError, ImportError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        terminal.show(f"Interrupted. What is done is in {out}; --resume goes on.")
        return 130
    terminal.show(sweep.summary(result))
    terminal.show(f"Wrote {out}")
    if arguments.plot:
        sweep.draw(result, Path(arguments.plot))
        terminal.show(f"Wrote {arguments.plot}")
    return 0


def _reproduce(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from loopnest.app import reproduce

    chosen = available_backends()
    try:
        if arguments.backend != "all":
            chosen = [arguments.backend]
        with backend.use_backend(chosen[0] if chosen else "auto"):
            pass  # only to learn here, and not halfway, that it is missing
        if arguments.plots:
            from loopnest.app import plots

            plots.require_matplotlib()
    except ImportError as error:
        parser.error(str(error))
    _require_folder(parser, "--json", arguments.json)
    report = reproduce.reproduce(chosen)
    reproduce.show(report)
    if arguments.json:
        reproduce.write_json(report, arguments.json)
        terminal.show(f"Wrote {arguments.json}")
    if arguments.plots:
        with backend.use_backend(chosen[0]):
            for path in plots.write_plots(arguments.plots):
                terminal.show(f"Wrote {path}")
    return 0 if report.passed else 1


def _require_folder(parser: argparse.ArgumentParser, option: str, file: str | None) -> None:
    """Refuse a file that cannot be, before a minute of work is spent on it."""
    if file and (Path(file).is_dir() or not Path(file).absolute().parent.is_dir()):
        parser.error(f"{option} is {file!r}; accepted: a file in a folder that exists")


def _warmup(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from loopnest.app import warmup

    try:
        ops = warmup.select(arguments.op)
    except ValueError as error:
        parser.error(str(error))
    if "numba" not in available_backends():
        terminal.show("numba is not installed: there is nothing to compile, C serves.")
        return 0
    dtypes = ("float32", "float64") if arguments.dtype == "all" else (arguments.dtype,)
    warmup.warm_up(ops, dtypes)
    return 0


def _join_ranges(argv: Sequence[str]) -> list[str]:
    """``--start -8:4:9`` as ``--start=-8:4:9``: argparse takes the second for an option."""
    joined: list[str] = []
    for text in argv:
        if joined and joined[-1] in ("--start", "--momentum", "--lr") and text.startswith("-"):
            joined[-1] += "=" + text
        else:
            joined.append(text)
    return joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; by default those of the process.

    Returns
    -------
    int
        0; 1 if `reproduce` finds a backend wrong; 2 for files that cannot be written; 130 for an
        interrupted `sweep`. Bad usage ends in SystemExit(2), as argparse has it.
    """
    parser = _parser()
    arguments = parser.parse_args(_join_ranges(sys.argv[1:] if argv is None else argv))
    try:
        if arguments.command == "reproduce":
            return _reproduce(parser, arguments)
        if arguments.command == "warmup":
            return _warmup(parser, arguments)
        if arguments.command == "sweep":
            return _sweep(parser, arguments)
        from loopnest.app import info

        info.show()
    except OSError as error:
        print(f"loopnest: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
