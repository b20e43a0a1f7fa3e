"""Where the folders go in the package, and the C extension; the rest is pyproject.toml."""

import os
import platform
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import BaseError, CCompilerError

# abi3: one wheel serves every CPython from 3.10 on, except free-threaded builds.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")

NO_EXTENSION = """
*** loopnest is installed WITHOUT its C extension {name}: {error}
*** Numba alone will compute; use_backend("c") and the C library are not there.
*** For them, install a C compiler (Debian: apt install gcc) and install loopnest again.
"""


def direct_calls():
    """Extension loopnest._direct where there can be one: small calls then cost a tenth.

    csrc/direct.c tells what it needs. It is a module of its own for it sees NumPy's arrays.
    """
    unix = not sysconfig.get_platform().startswith("win")
    if not (LIMITED_API and unix and platform.machine() in ("x86_64", "aarch64", "arm64")):
        return []
    try:
        import numpy
    except ImportError:  # built without isolation: the package then works as well
        return []
    return [
        Extension(
            "loopnest._direct",
            ["csrc/direct.c"],
            include_dirs=[numpy.get_include()],
            define_macros=[("Py_LIMITED_API", "0x030A0000")],
            depends=["csrc/spin.h", "csrc/direct_call.h"],
            extra_compile_args=["-std=c11", "-O2", "-g0"],
            py_limited_api=True,
            optional=True,
        )
    ]


def understood(compiler, flags):
    """Those of the flags that the compiler knows: clang refuses some of gcc's."""
    if not isinstance(getattr(compiler, "compiler", None), list):
        return flags  # no Unix compiler: it has its own
    trial = [*compiler.compiler, "-E", "-x", "c", "-"]
    try:
        tried = [
            (flag, subprocess.run([*trial, flag], input=b"", capture_output=True, check=False))
            for flag in flags
        ]
    except OSError:  # no compiler, which is told of where it is called
        return flags
    return [flag for flag, ran in tried if ran.returncode == 0]


def side_by_side(compile_all):
    """A compiler's method ``compile`` that compiles its sources on all cores at once."""

    def compile_each(sources, **options):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            made = pool.map(lambda source: compile_all([source], **options), sources)
            return [name for objects in made for name in objects]

    return compile_each


class BuildWithLibrary(build_ext):
    """Builds the extension, and a static library of the same objects for C programs."""

    def build_extensions(self):
        self.compiler.compile = side_by_side(self.compiler.compile)
        super().build_extensions()

    def build_extension(self, ext):
        try:
            ext.extra_compile_args = understood(self.compiler, ext.extra_compile_args)
            super().build_extension(ext)
        except (BaseError, CCompilerError) as error:
            self.warn(NO_EXTENSION.format(name=ext.name, error=error))
            raise  # `optional` of the extension: the install goes on
        if ext.name != "loopnest._c":
            return
        objects = self.compiler.object_filenames(ext.sources[1:], output_dir=self.build_temp)
        if not all(Path(name).exists() for name in objects):
            return  # the extension was up to date, and so is the library beside it
        try:
            self.compiler.create_static_lib(
                objects, "loopnest", output_dir=str(Path(self.get_ext_fullpath(ext.name)).parent)
            )
        except (BaseError, CCompilerError) as error:
            self.warn(f"loopnest: no static library for C programs was made: {error}")

    def copy_extensions_to_source(self):
        """Editable installs: the library goes where the extension goes."""
        super().copy_extensions_to_source()
        build_py = self.get_finalized_command("build_py")
        for ext in self.extensions:
            built, kept = (Path(p) for p in reversed(self._get_inplace_equivalent(build_py, ext)))
            library = self.compiler.library_filename("loopnest")
            if built.with_name(library).exists():
                self.copy_file(str(built.with_name(library)), str(kept.with_name(library)))
            if not built.exists():  # what an earlier build left is of older sources
                kept.unlink(missing_ok=True)
                kept.with_name(library).unlink(missing_ok=True)


class WithKernelSources(build_py):
    """Puts the C headers that ``Network.to_c`` copies from beside loopnest.h."""

    def run(self):
        super().run()
        if not self.editable_mode:  # else they are read where they are
            folder = Path(self.build_lib, "loopnest", "include", "kernels")
            self.mkpath(str(folder))
            for header in sorted(Path("csrc").glob("*.h")):
                self.copy_file(str(header), str(folder / header.name))


setup(
    packages=["loopnest.include", "loopnest.kernels", *find_packages("python")],
    package_dir={
        "loopnest": "python/loopnest",
        "loopnest.kernels": "kernels",
        "loopnest.include": "csrc/include",
    },
    package_data={"loopnest": ["py.typed"], "loopnest.include": ["*.h"]},
    cmdclass={"build_ext": BuildWithLibrary, "build_py": WithKernelSources},
    ext_modules=direct_calls(),
    cffi_modules=["csrc/build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if LIMITED_API else {},
)
