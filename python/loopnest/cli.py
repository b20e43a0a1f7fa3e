"""The command `loopnest`: reproduce, info, warmup."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from loopnest import __version__, available_backends, backend, terminal


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
    return parser


def _reproduce(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from loopnest import reproduce

    chosen = available_backends()
    try:
        if arguments.backend != "all":
            chosen = [arguments.backend]
        with backend.use_backend(chosen[0] if chosen else "auto"):
            pass  # only to learn here, and not halfway, that it is missing
        if arguments.plots:
            from loopnest import plots

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
    from loopnest import warmup

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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; by default those of the process.

    Returns
    -------
    int
        0; 1 if `reproduce` finds a backend wrong; 2 for files that cannot be written. Bad
        usage ends in SystemExit(2), as argparse has it.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "reproduce":
            return _reproduce(parser, arguments)
        if arguments.command == "warmup":
            return _warmup(parser, arguments)
        from loopnest import info

        info.show()
    except OSError as error:
        print(f"loopnest: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
