"""Numba's cache on disk saves time and nothing else: no state of it makes a call fail."""

import os
import subprocess
import sys
import textwrap

import pytest

CALL = """
import errno, sys
import numpy as np
{before}
import loopnest as ln

ln.use_backend("numba")
print(ln.relu(np.array([-1.0, 2.0])).tolist())
"""


def run(folder, before=""):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CALL.format(before=textwrap.dedent(before))],
        capture_output=True, text=True, check=False,
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[0.0, 2.0]\n"


@pytest.mark.parametrize("number", ["ENOSPC", "EROFS", "EACCES", "EDQUOT", "EIO"])
def test_a_disk_that_takes_nothing(number, tmp_path):
    """The kernel is compiled; that it cannot be kept is no error of the call."""
    run(tmp_path, f"""
    from numba.core import caching

    def refuse(self, filepath):
        raise OSError(errno.{number}, "no")

    caching.IndexDataCacheFile._open_for_write = refuse
    """)  # fmt: skip
    assert not [p for p in tmp_path.rglob("*.nb?") if p.stat().st_size]


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("rest", [0, 1, 20, -1])
def test_files_that_are_not_whole(kind, rest, tmp_path):
    run(tmp_path)
    files = list(tmp_path.rglob(f"*.{kind}"))
    assert files
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[:rest] if rest >= 0 else b"\x80" + data[1:-1])
    run(tmp_path)
    run(tmp_path)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9])
def test_a_wrong_byte_is_found(part, tmp_path):
    """In the middle of a file, where it would be machine code."""
    run(tmp_path)
    files = list(tmp_path.rglob("*.nbc"))
    assert files
    for path in files:
        data = bytearray(path.read_bytes())
        data[int(part * len(data))] ^= 0x55
        path.write_bytes(data)
    run(tmp_path)
    assert all(path.read_bytes() != data for path in files)  # saved anew
