"""Files of logic networks: NPZ without pickle, versioned, written whole or not at all.

Modules of the standard library are imported where they are used: most programs that import
loopnest write no files, and these take longer to import than the package.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np

FORMAT = "loopnest.LogicNetwork"
VERSION = 1


def replace_file(path: str | os.PathLike, content: bytes) -> None:
    """Put ``content`` at ``path``, or leave what is there: never half of it."""
    import tempfile

    path = os.path.abspath(os.fspath(path))
    handle, temporary = tempfile.mkstemp(
        dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}."
    )
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp's files are the owner's alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_npz(path: str | os.PathLike, entries: dict[str, np.ndarray]) -> None:
    """Write arrays as NPZ, whole or not at all."""
    memory = io.BytesIO()
    np.savez(memory, **entries)  # type: ignore[arg-type]
    replace_file(path, memory.getvalue())


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an NPZ file; ValueError if it is damaged. Nothing is unpickled."""
    op = "LogicNetwork.load"
    with open(path, "rb") as stream:
        try:
            with np.load(stream, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception as error:  # whatever zipfile, zlib or NumPy's parser of headers raise
            raise ValueError(
                f"{op}: {os.fspath(path)!r} is damaged or no NPZ file ({error})"
            ) from error


def read_header(op: str, path: str | os.PathLike, entries: dict[str, np.ndarray]) -> dict[str, Any]:
    import json

    try:
        header = json.loads(str(entries["header"]))
        kind, version = header["format"], header["version"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{op}: {os.fspath(path)!r} is no file of a LogicNetwork ({error})"
        ) from error
    if kind != FORMAT:
        raise ValueError(f"{op}: {os.fspath(path)!r} holds {kind!r}; accepted: {FORMAT!r}")
    if not isinstance(version, int) or version > VERSION or version < 1:
        raise ValueError(
            f"{op}: {os.fspath(path)!r} has version {version!r}, this loopnest reads up to "
            f"{VERSION}; accepted: a file of this version, or a newer loopnest"
        )
    return header


def finite(array: np.ndarray, name: str, shape: tuple, dtype: np.dtype) -> np.ndarray:
    """The array, if it is of this shape and dtype and finite."""
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype}, shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")
    return np.ascontiguousarray(array)
