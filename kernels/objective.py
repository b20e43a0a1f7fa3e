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
from loopnest.kernels.jit import OPTIONS

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


def _central(f, width, relative):
    """Slope of f by central differences."""

    @njit(**OPTIONS)
    def slope(objective, x, real):
        h = real(width) * max(real(1), abs(x)) if relative else real(width)
        up, down = x + h, x - h
        return (real(f(up)) - real(f(down))) / (up - down)

    return slope


def _build(f, df, width, relative):
    f = _compiled(f)

    @njit(**OPTIONS)
    def value(objective, x, real):
        return real(f(x))

    if df is None:
        slope = _central(f, width, relative)
    else:
        df = _compiled(df)

        @njit(**OPTIONS)
        def slope(objective, x, real):
            return real(df(x))

    # Functions passed as arguments would stay in the loop's table of versions for good.
    scope = {**vars(descent), "value": value, "slope": slope}
    return njit(**OPTIONS)(FunctionType(descent.descend.py_func.__code__, scope))


def loop(f, df, width, relative, arguments):
    """`descent.descend` compiled for f; None if f cannot be compiled.

    df None: central differences, h = width or, if relative, width max(1, |x|).
    ``arguments`` are those of the call to come.
    """
    keys = _key(f), None if df is None else _key(df)
    known = keys[0] is not None and (df is None or keys[1] is not None)
    types = tuple(typeof(a) for a in arguments)
    key = (*keys, width, relative, types)
    if known and key in _LOOPS:
        return _LOOPS[key]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Numba, on code that is not its user's
            result = _build(f, df, width, relative)
            result.compile(types)
    except Exception:  # Numba raises many kinds for code it cannot compile
        result = None
    if known:
        if len(_LOOPS) >= _MOST_LOOPS:
            _LOOPS.clear()
        _LOOPS[key] = result
    return result
