"""Facts about the machine and the software that a result must carry to mean anything."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHARE = 32  # MB of the last cache that one core is believed to have at most
_PACKAGES = ("numpy", "numba", "llvmlite", "cffi", "pytest-benchmark")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _run(*command: str) -> str | None:
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def version(package: str) -> str | None:
    """Installed version of a distribution, None without it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _cores() -> tuple[int, ...]:
    """Numbers of the cores that this process might run on when it was first asked."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Count of the cores that this process may run on, `keep_to` aside."""
    return len(_cores())


def keep_to(count: int) -> bool:
    """Keep all threads of this process to ``count`` cores; False where the system cannot.

    Threads that are started later inherit the cores of the thread that starts them. So no
    competitor takes two cores for one thread, whatever it makes of its settings.
    """
    if not hasattr(os, "sched_setaffinity"):
        return False
    chosen = _cores()[-count:]  # the first core serves most of the machine's interrupts
    for task in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(task), chosen)
        except ProcessLookupError:
            pass  # the thread has ended meanwhile
    return True


def _bytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]?)", text).groups()
    return int(number) << {"": 0, "K": 10, "M": 20, "G": 30}[unit]


def caches() -> list[dict[str, Any]]:
    """Data caches of the first core, smallest first: name, bytes, cores that share it.

    Where the system does not tell, sizes common today stand in. A virtual machine reports the
    last cache of the whole socket, of which its few cores get but a share.
    """
    found: list[dict[str, Any]] = []
    most = SHARE << 20
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (_read(f"{folder}/{n}") for n in ("type", "level", "size"))
        if kind in ("Data", "Unified") and level and size:
            shared = _read(f"{folder}/shared_cpu_list") or "0"
            cores = _count(shared)
            cache = {"name": f"L{level}", "bytes": _bytes(size), "shared_by": cores}
            if cache["bytes"] > most * cores:
                cache |= {"bytes": most * cores, "reported": cache["bytes"]}
            found.append(cache)
    if found:
        return sorted(found, key=lambda c: c["bytes"])
    guess = (("L1", 32 << 10, 1), ("L2", 1 << 20, 1), ("L3", 16 << 20, usable_cores()))
    return [{"name": n, "bytes": b, "shared_by": s, "guessed": True} for n, b, s in guess]


def _count(cores: str) -> int:
    """Number of cores in a list such as "0-3,8"."""
    total = 0
    for part in cores.split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


def _cpu() -> tuple[str, list[str]]:
    """Model name and feature flags."""
    text = _read("/proc/cpuinfo") or ""
    lines = (line.partition(":") for line in text.splitlines())
    fields = {key.strip(): value.strip() for key, _, value in lines}
    model = fields.get("model name") or _run("sysctl", "-n", "machdep.cpu.brand_string")
    flags = fields.get("flags") or fields.get("Features") or ""
    return model or platform.processor() or "unknown", flags.split()


def _compiler() -> dict[str, Any]:
    """The compiler that setuptools would use, and our flags."""
    name = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    text = _run(name, "--version") if shutil.which(name) else None
    source = (ROOT / "csrc" / "build.py").read_text(encoding="utf-8")
    flags = re.findall(r'"(-[^"]+)",', source)
    return {"name": name, "version": (text or "unknown").splitlines()[0], "flags": flags}


def _c_isa() -> str | None:
    try:
        from loopnest._c import ffi, lib
    except ImportError:
        return None
    return ffi.string(lib.ln_isa()).decode()


def facts() -> dict[str, Any]:
    """Everything, ready for JSON."""
    model, flags = _cpu()
    status = _run("git", "status", "--porcelain", "--untracked-files=no")
    return {
        "cpu": model,
        "cpu_flags": flags,
        "cores": usable_cores(),
        "caches": caches(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "unreadable",
        "load_at_start": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "compiler": _compiler(),
        "c_instruction_set": _c_isa(),
        "commit": _run("git", "rev-parse", "HEAD") or "unknown",
        "dirty": bool(status) if status is not None else None,
    }
