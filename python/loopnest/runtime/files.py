"""Files: written whole or not at all; arrays of an NPZ file read with their sizes known first.

Modules of the standard library are imported where they are used: most programs that import
loopnest write no files, and these take longer to import than the package.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

# Largest text in an NPZ file, in bytes: the settings and the history of 100,000 epochs and more.
MOST_TEXT = 64 << 20


@contextmanager
def replacing(path: str | os.PathLike, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """A file to write that appears at ``path`` when the block ends, and never in part.

    The file has a temporary name beside ``path`` until then. If the block raises, ``path`` stays
    as it was.
    """
    import tempfile

    path = os.path.abspath(os.fspath(path))
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".loopnest.")
    try:
        with os.fdopen(handle, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp's files are the owner's alone
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_npz(
    path: str | os.PathLike, entries: dict[str, np.ndarray], compressed: bool = False
) -> None:
    """Write arrays as NPZ, whole or not at all."""
    with replacing(path) as file:
        save: Callable[..., None] = np.savez_compressed if compressed else np.savez
        save(file, **entries)


class ArrayFile:
    """An NPZ file whose entries are read one by one, each checked before it is unpacked.

    Parameters
    ----------
    path : path-like
        The file.
    what : str
        Put in front of messages, with what the file should be: "LogicNetwork.load: 'a.npz'".

    Raises
    ------
    ValueError
        The file, or an entry that is asked for, is damaged or not what was asked for.
    OSError
        The file cannot be read.
    """

    def __init__(self, path: str | os.PathLike, what: str) -> None:
        self.what = what
        import zipfile

        self._stream = open(path, "rb")  # noqa: SIM115 - closed by __exit__
        try:
            with self._told("or no NPZ file"):
                self._zip = zipfile.ZipFile(self._stream)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *error: Any) -> None:
        self._zip.close()
        self._stream.close()

    @contextmanager
    def _told(self, where: str) -> Iterator[None]:
        """Turn what zipfile, zlib, struct or NumPy's parser of headers raise into ValueError."""
        try:
            yield
        except Exception as error:
            # Of the system's errors, a place before the file's start is the file's fault.
            if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
                raise
            raise ValueError(f"{self.what} is damaged {where} ({error})") from error

    def text(self, name: str) -> str:
        """The text of an entry, of up to `MOST_TEXT` bytes."""

        def fits(shape: tuple, dtype: np.dtype) -> bool:
            return shape == () and dtype.kind == "U" and dtype.itemsize <= MOST_TEXT

        return str(self._read(name, fits, "a text"))

    def json(self, name: str) -> Any:
        """What the text of an entry says, read as JSON."""
        import json

        text = self.text(name)
        with self._told(f"in its entry {name!r}"):
            return json.loads(text)

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An entry of exactly this shape and dtype, contiguous."""
        wanted = np.dtype(dtype)

        def fits(found: tuple, kind: np.dtype) -> bool:
            return found == shape and kind.newbyteorder("=") == wanted

        array = self._read(name, fits, f"{wanted}, shape {shape}")
        return np.ascontiguousarray(array, wanted)

    def _read(self, name: str, fits: Callable[[tuple, np.dtype], bool], wanted: str) -> np.ndarray:
        with self._told(f"in its entry {name!r}"):
            from numpy.lib import format as npy

            member = self._zip.getinfo(name + ".npy")
            with self._zip.open(member) as entry:
                version = npy.read_magic(entry)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"format {version}")
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, fortran, dtype = read(entry)
                if dtype.hasobject or not fits(shape, dtype):
                    raise ValueError(f"it is {dtype}, shape {shape}; accepted: {wanted}")
                size = math.prod(shape) * dtype.itemsize
                if member.file_size != entry.tell() + size:
                    raise ValueError(f"{member.file_size} bytes for {size} bytes of numbers")
                flat = np.empty(math.prod(shape), dtype)
                if size:
                    _fill(flat.view(np.uint8).data, entry)
            return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _fill(memory: memoryview, entry: IO[bytes]) -> None:
    """Read as many bytes as there is room for."""
    at = 0
    while at < len(memory):
        piece = entry.read(min(len(memory) - at, 1 << 20))
        if not piece:
            raise ValueError("it ends early")
        memory[at : at + len(piece)] = piece
        at += len(piece)
