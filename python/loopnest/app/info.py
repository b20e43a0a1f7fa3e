"""What `loopnest info` tells: versions, backends, the CPU, threads, the cache."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable
from pathlib import Path

from loopnest import __version__, available_backends, get_backend, get_num_threads
from loopnest.runtime import terminal

_PACKAGES = ("numpy", "numba", "llvmlite", "cffi")
# The features that decide which kernels run, out of the hundred that a CPU lists.
_FEATURES = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512cd", "avx512dq"),
    *("avx512vl", "avx512_bf16", "avx512_vnni", "neon", "asimd", "sve"),
)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu_field(*names: str) -> str:
    """A field of /proc/cpuinfo, where there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in names:
            return value.strip()
    return ""


def _features() -> str:
    flags = set(_cpu_field("flags", "Features").split())
    return " ".join(name for name in _FEATURES if name in flags) or "unknown"


def _isa() -> str:
    try:
        from loopnest._c import ffi, lib
    except ImportError:
        return "no C extension"
    return ffi.string(lib.ln_isa()).decode()


def _cache_folder() -> str:
    """Where Numba keeps compiled kernels; it picks a folder that can be written."""
    try:
        from loopnest.kernels import activation
    except ImportError:
        return "numba is not installed"
    return activation.exp.stats.cache_path or "none: nowhere to write, compiled in each process"


def _told(ask: Callable[[], object]) -> str:
    """What ``ask`` says; this is where people look when a setting is wrong, so not a traceback."""
    try:
        return str(ask())
    except (ImportError, ValueError) as error:
        return f"error: {error}"


def collect() -> list[tuple[str, str]]:
    """Everything as (name, value)."""
    found = available_backends()
    rows = [("loopnest", __version__), ("python", platform.python_version())]
    rows += [(package, _version(package)) for package in _PACKAGES]
    return [
        *rows,
        ("backends available", ", ".join(found) or "none"),
        ("backend in use", _told(get_backend) if found else "none"),
        ("system", f"{platform.system()} {platform.machine()}"),
        ("CPU", _cpu_field("model name") or platform.processor() or "unknown"),
        ("CPU features", _features()),
        ("instruction set of the C kernels", _isa()),
        ("threads in one call, at most", _told(get_num_threads)),
        ("Numba's cache of compiled kernels", _cache_folder()),
    ]


def show() -> None:
    """Print it as a table."""
    rows = [[(name, ""), (value, "")] for name, value in collect()]
    terminal.show_table("loopnest info", ["", ""], rows)
