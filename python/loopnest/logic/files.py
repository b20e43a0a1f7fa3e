"""Files of logic networks: NPZ without pickle, versioned, written whole or not at all."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from loopnest.runtime.files import ArrayFile

FORMAT = "loopnest.LogicNetwork"
VERSION = 1
LOAD = "LogicNetwork.load"
MOST_BYTES = 1 << 30  # of the arrays of a network that is loaded, unless the caller says otherwise


def opened(path: str | os.PathLike) -> ArrayFile:
    """The file of a network; messages begin with the loader's name."""
    return ArrayFile(path, f"{LOAD}: {os.fspath(path)!r}")


def read_header(file: ArrayFile) -> dict[str, Any]:
    """What the file says of the network, read before anything else."""
    header = file.json("header")
    if not isinstance(header, dict) or not {"format", "version"} <= set(header):
        raise ValueError(f"{file.what} is no file of a LogicNetwork")
    kind, version = header["format"], header["version"]
    if kind != FORMAT:
        raise ValueError(f"{file.what} holds {_short(kind)}; accepted: {FORMAT!r}")
    if not isinstance(version, int) or version > VERSION or version < 1:
        raise ValueError(
            f"{file.what} has version {_short(version)}, this loopnest reads up to "
            f"{VERSION}; accepted: a file of this version, or a newer loopnest"
        )
    return header


def _short(value: Any) -> str:
    """A value from a file as messages show it."""
    shown = repr(value)
    return shown if len(shown) <= 100 else shown[:100] + "..."


def finite(array: np.ndarray, name: str) -> np.ndarray:
    """The array, if its numbers are finite."""
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")
    return array
