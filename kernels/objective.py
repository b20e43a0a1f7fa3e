"""Descents on functions of the caller: the loop of descent.py compiled around them.

Plain Python functions are compiled as they are; those that Numba cannot compile are left
to the caller of this module, which then works without Numba.
"""

import inspect
import math
import warnings
from types import CodeType, FunctionType

import numpy as np
from numba import njit, typeof
from numba.core.dispatcher import Dispatcher

from loopnest.kernels import descent
from loopnest.kernels.jit import OPTIONS, own_name
from loopnest.kernels.vector import lift, like

INLINED = {**OPTIONS, "forceinline": True}

# Compiled loops by what went into them; emptied when full, for each holds machine code.
_LOOPS: dict = {}
_MOST_LOOPS = 64


def _fixed(name, value):
    """What the cache may know of a value that a function refers to, or None if it may change.

    Numba compiles such values in as constants: a changed one needs a new compilation.
    """
    if isinstance(value, (bool, int, float, np.generic)):
        return name, type(value), repr(value)
    if value is np or value is math or isinstance(value, (np.ufunc, Dispatcher)):
        return name, value
    return None


def _key(function):
    """Hashable identity of a function and all it refers to; None if that cannot be told."""
    if isinstance(function, (Dispatcher, np.ufunc)) or not isinstance(function, FunctionType):
        return function if getattr(function, "__hash__", None) else None
    code = function.__code__
    if any(isinstance(constant, CodeType) for constant in code.co_consts):
        return None
    try:
        found = inspect.getclosurevars(function)
    except ValueError:  # a cell that is still empty
        return None
    parts = [_fixed(k, v) for k, v in {**found.nonlocals, **found.globals}.items()]
    parts += [_fixed("default", v) for v in function.__defaults__ or ()]
    return None if None in parts else (code, *parts)


def _compiled(function):
    """The function for compiled callers."""
    if isinstance(function, Dispatcher):
        return function
    own = isinstance(function, FunctionType) and not function.__module__.startswith("loopnest.")
    # NumPy's, math's and loopnest's functions are known to Numba by name, not by source.
    return njit(**OPTIONS)(function if own else lambda x: function(x))


def _formula(function, as_vector):
    """The function of one float for compiled loops, its result in the type of the argument."""
    if not as_vector:
        function = _compiled(function)

        @njit(**INLINED)
        def plain(x):
            return like(function(x), x)

        return plain
    # A dispatcher's own function, with its own options: the dispatcher keeps what it compiles.
    options = getattr(function, "targetoptions", {})
    inner = getattr(function, "py_func", function)
    inner = njit(**{**INLINED, "fastmath": options.get("fastmath", False)})(inner)

    @njit(**INLINED)
    def lifted(x):
        return like(inner(lift(x)), x)

    return lifted


def _central(f, width, relative):
    """Slope of f by central differences."""

    @njit(**INLINED)
    def slope(x):
        one = like(1.0, x)
        h = like(width, x) * max(one, abs(x)) if relative else like(width, x)
        up, down = x + h, x - h
        return (f(up) - f(down)) / (up - down)

    return slope


def build(f, df, width, relative, method, decays, as_vector):
    """The kernel of descent.py for f, not compiled yet, and the loop of a step in it."""
    value = _formula(f, as_vector)
    slope = _central(value, width, relative) if df is None else _formula(df, as_vector)
    loops = {
        "advance": descent.make_advance(slope, method, decays, False),
        "advance_looking": descent.make_advance(slope, method, decays, True),
        "values": descent.make_values(value),
    }
    loops = {name: njit(**OPTIONS)(own_name(function)) for name, function in loops.items()}
    # The kernel of descent.py with these in the place of its own; functions that were passed
    # as arguments would stay in the kernel's table of versions for good.
    make = FunctionType(descent.make.__code__, {**vars(descent), **loops})
    return make(0, method, decays, lambda loop: njit(**OPTIONS)(own_name(loop))), loops["advance"]


def _has_vectors(loop):
    """Whether LLVM made vectors of the loop."""
    return any("vector.body" in text for text in loop.inspect_llvm().values())


def _compile(types, *arguments):
    """The compiled kernel and the loop in it, or None and why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Numba, on code that is not its user's
            kernel, advance = build(*arguments)
            kernel.compile(types)
    except Exception as error:  # Numba raises many kinds for code it cannot compile
        return None, _reason(error)
    return kernel, advance


def _reason(error):
    """The line of Numba's message that says most."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    telling = [n for n in lines if n.startswith(("No implementation", "No conversion", "Use of"))]
    return (telling or lines or [type(error).__name__])[0]


def loop(f, df, width, relative, method, decays, arguments):
    """Kernel of descent.py for f, the name of its form and why it is that one.

    "vector", else "scalar", else None with "numpy". df None: central differences, h = width or, if
    relative, width max(1, |x|). ``arguments`` are those of the call to come.
    """
    keys = _key(f), None if df is None else _key(df)
    known = keys[0] is not None and (df is None or keys[1] is not None)
    types = tuple(typeof(a) for a in arguments)
    key = (*keys, width, relative, method, decays, types)
    if known and key in _LOOPS:
        return _LOOPS[key]
    result = _best(f, df, width, relative, method, decays, types)
    if known:
        if len(_LOOPS) >= _MOST_LOOPS:
            _LOOPS.clear()
        _LOOPS[key] = result
    return result


def _best(f, df, width, relative, method, decays, types):
    arguments = f, df, width, relative, method, decays
    kernel, advance = _compile(types, *arguments, True)
    if kernel is not None and _has_vectors(advance):
        return kernel, "vector", "the formula compiles for vectors"
    why = f"no vectors: {advance}" if kernel is None else "no vectors: a loop, branch or call in it"
    kernel, advance = _compile(types, *arguments, False)
    if kernel is not None:
        return kernel, "scalar", why
    return None, "numpy", f"Numba does not compile it: {advance}"
