"""Where a C program finds the header and the library."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]
# In the package; in an editable install in the checkout.
_INCLUDES = (_HERE / "include", _HERE.parents[1] / "csrc" / "include")
# C sources that `Network.to_c` copies from: installed beside the header.
_SOURCES = (_HERE / "include" / "kernels", _HERE.parents[1] / "csrc")
_LIBRARIES = ("libloopnest.a", "loopnest.lib")


def get_include() -> str:
    """Folder that holds ``loopnest.h``, for a C compiler's ``-I``.

    Raises
    ------
    RuntimeError
        The header was not installed.
    """
    for folder in _INCLUDES:
        if (folder / "loopnest.h").exists():
            return str(folder)
    raise RuntimeError("get_include: loopnest.h is not installed; install loopnest again")


def get_library_dir() -> str:
    """Folder that holds the static library ``libloopnest.a``, for a C compiler's ``-L``.

    It has every function of ``loopnest.h``; link with ``-lloopnest -lm``.

    Raises
    ------
    RuntimeError
        The C extension, and with it the library, was not built.

    Examples
    --------
    ::

        gcc main.c -I"$(python -c 'import loopnest as ln; print(ln.get_include())')" \\
            -L"$(python -c 'import loopnest as ln; print(ln.get_library_dir())')" -lloopnest -lm
    """
    if any((_HERE / name).exists() for name in _LIBRARIES):
        return str(_HERE)
    raise RuntimeError(
        f"get_library_dir: {_LIBRARIES[0]} is not in {_HERE}; it is built with the C extension, "
        "where a C compiler is: install one and then loopnest again"
    )


def kernel_source(name: str) -> str:
    """Text of one of the C headers that `Network.to_c` copies from."""
    for folder in _SOURCES:
        if (folder / name).exists():
            return (folder / name).read_text(encoding="utf-8")
    raise RuntimeError(f"to_c: {name} is not installed; install loopnest again")
