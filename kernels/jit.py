"""The one place that holds Numba's options, each with its reason.

``kernel``   a compiled loop that the package calls; cached on disk.
``scalar``   a function of numbers that kernels inline; cached with its callers.
``block``    a loop over one contiguous block, part of a kernel.
``fragment`` a block in vectors that is compiled within kernels only, in half the time.
``inlined``  a fragment that callers inline, as what holds a tile in registers must be.
``jitable``  a function of a few numbers beside kernels, Python's too.
``by_dtype`` one name for a float32 and a float64 scalar function.
"""

import hashlib
import pickle
import zlib
from pathlib import Path

from llvmlite.binding import ffi as llvm
from numba import njit, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import overload, register_jitable

from loopnest.runtime import forks

OPTIONS = {
    "nogil": True,  # kernels run side by side on Python threads
    "error_model": "numpy",  # x/0 is inf or nan, and no branch stops the vectoriser
    "boundscheck": False,  # even under NUMBA_BOUNDSCHECK: the caller has checked all shapes
    "fastmath": False,  # reordered or contracted sums would change the bits
}


# For parts of kernels: no entries for callers in Python and in C, which take as long to compile.
PART = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


class _FragmentLibrary(JITCodeLibrary):
    """A part of a kernel in LLVM's intermediate code, as it is lowered, to be linked into its callers.

    Numba optimises each function and makes machine code of it, and does so again wherever it is
    linked in: the parts of parts of a kernel three times. Only what is made in the kernel ever runs.
    """

    def _optimize_functions(self, module):
        module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        pass

    def _finalize_final_module(self):
        self._finalized = True


class _FragmentCompiler(Compiler):
    """The compiler of parts, whose entry points do not lead anywhere."""

    def __init__(self, typing_context, context, library, *rest):
        library = library or _FragmentLibrary(context.codegen(), "part of a kernel")
        super().__init__(typing_context, context, library, *rest)
        self.state.targetctx.get_executable = _no_executable  # of a copy for this compilation


def _no_executable(library, fndesc, env):
    """A key by which callers find the part: any new built-in method that raises when called."""
    return {}.popitem


FRAGMENT = {**PART, "pipeline_class": _FragmentCompiler}


def _sources_digest() -> str:
    """Digest of every kernel source.

    Numba's cache looks at a function's own file only; a kernel inlines scalars and
    vector types from other files, so any edit must make all cached code stale.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCES = _sources_digest()


# A child of fork compiles too: it must not inherit these locks from a thread that it does not have.
forks.wait_at_forks()
for _owner in (global_compiler_lock, getattr(llvm.lib, "_lock", None)):
    if hasattr(_owner, "_lock"):
        forks.guard(_owner, "_lock", forks.PATIENCE)


class _CheckedFile(IndexDataCacheFile):
    """Numba's index and data files, the data behind a checksum.

    Pickle finds that a file was cut off, but machine code with a wrong byte would run.
    """

    def _save_data(self, name, data):
        content = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(_checksum(content) + content)

    def _load_data(self, name):
        content = memoryview(Path(self._data_path(name)).read_bytes())
        if content[:4] != _checksum(content[4:]):
            raise ValueError(f"{name} is no whole file")
        return pickle.loads(content[4:])


def _checksum(content):
    return zlib.crc32(content).to_bytes(4, "little")


class _KernelCache(FunctionCache):
    """Numba's on-disk cache, made stale by a change in any file of this folder.

    The cache saves time, no more: a disk that is full or broken, or files that are not whole, cost
    a compilation and raise nothing.
    """

    def __init__(self, py_func):
        super().__init__(py_func)
        self._cache_file = _CheckedFile(
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=SOURCES,
        )

    def load_overload(self, signature, target_context):
        try:
            return super().load_overload(signature, target_context)
        except Exception:  # whatever comes of unpickling what is no whole file
            return None

    def save_overload(self, signature, data):
        try:
            super().save_overload(signature, data)
        except OSError:
            return  # full, or not to be written to (any longer)
        except Exception:  # the index is no whole file: begin a new one
            self._start_anew(signature, data)

    def _start_anew(self, signature, data):
        try:
            self._cache_file.flush()
            super().save_overload(signature, data)
        except Exception:
            return


def own_name(function):
    """Give a function made by another function a qualified name that no other one has.

    In Numba's cache a function's symbol is its qualified name, the types, and a number counted
    anew in each process. Of two functions that differ only in what they close over, compiled in
    different processes, both would run the first one's code once both come from the cache.
    """
    if "<locals>" in function.__qualname__:
        digest = hashlib.sha256(repr(_told(function, ())).encode()).hexdigest()
        function.__qualname__ += "_" + digest[:12]
    return function


def _told(value, outer):
    """What tells a value of a closure from others, the same in every process."""
    function = getattr(value, "py_func", value)
    code = getattr(function, "__code__", None)
    if code is None or function in outer:
        plain = isinstance(value, (bool, int, float, str, bytes, tuple, type(None), types.Type))
        name = getattr(value, "__qualname__", getattr(value, "__name__", ""))
        return type(value).__name__, str(value) if plain else name
    inside = [c.cell_contents for c in function.__closure__ or ()]
    known = [function.__globals__.get(name) for name in code.co_names]
    inside += [v for v in known if "<locals>" in getattr(v, "__qualname__", "")]
    place = function.__module__, function.__qualname__, code.co_firstlineno, code.co_code
    return *place, code.co_names, [_told(v, (*outer, function)) for v in inside]


def kernel(function):
    """Compile lazily, per argument types, and keep the machine code on disk."""
    dispatcher = njit(**OPTIONS)(own_name(function))
    try:
        dispatcher._cache = _KernelCache(function)
    except RuntimeError:
        pass  # nowhere to write (read-only install, no home): compile in each process
    return dispatcher


def scalar(function):
    """Compile a function of numbers, inlined into the kernels that call it.

    Forced: a loop around a call is not vectorised, and LLVM leaves long functions as calls.
    """
    return njit(**PART, forceinline=True)(own_name(function))


def block(function):
    """Compile a loop over one block, for kernels to call; LLVM decides whether to inline it."""
    return njit(**PART)(own_name(function))


def fragment(function):
    """A block that LLVM sees within kernels only: for kernels of many parts, which compile slowly.

    Loops that LLVM is to vectorise by itself are better optimised before they are linked in: blocks.
    """
    return njit(**FRAGMENT)(own_name(function))


def inlined(function):
    """A fragment that its callers inline."""
    return njit(**FRAGMENT, forceinline=True)(own_name(function))


def jitable(function):
    """A function of the checks around a kernel, or of its plan: for Python and for its callers."""
    return register_jitable(**FRAGMENT)(own_name(function))


def inlined_overload(name):
    """Decorator: what picks the implementation of ``name`` by its arguments' types."""
    return overload(name, strict=False, jit_options={**PART, "forceinline": True})


def by_dtype(float32, float64):
    """Name for both versions of a scalar function; the first argument's type picks one.

    Callable from compiled code only.
    """

    def name(*args):
        raise TypeError(f"{float32.__name__} is for compiled code")

    def pick(*args):
        element = getattr(args[0], "dtype", args[0])  # of a number, or of Lanes of them
        return (float32 if element == types.float32 else float64).py_func

    inlined_overload(name)(pick)
    return name
