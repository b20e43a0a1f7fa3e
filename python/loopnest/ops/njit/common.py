"""What overloads share: dtypes of arguments, outputs, overlap.

Checks on types happen at compile time and raise `TypingError`; those on values happen at run
time and raise ValueError with a fixed message, for Numba builds no text from numbers
without a large cost in compile time.
"""

import functools
import math

import numpy as np
from numba import literal_unroll, types
from numba.core.errors import TypingError
from numba.extending import overload

from loopnest.kernels import activation as activation_kernels
from loopnest.kernels.jit import PART, jitable, own_name
from loopnest.kernels.linking import linked
from loopnest.ops import window_rules as rules
from loopnest.ops.activation import FUSED, WIDE
from loopnest.ops.window_rules import LIMIT
from loopnest.runtime import checks

# The rules that Python checks sizes by are compiled as they are.
for _rule in (
    rules.extent,
    rules.same_padding,
    rules.window_count,
    rules.padding_fits,
    rules.channels_fault,
    rules.is_winograd,
):
    jitable(_rule)


def overloads(public):
    """Register an implementation of ``public`` for compiled code.

    The implementation's own parameters are positional: Numba fails on keyword-only ones.
    """

    def register(pick):
        @functools.wraps(pick)
        def named(*args, **options):
            return own_name(pick(*args, **options))

        overload(public, strict=False, prefer_literal=True, jit_options=PART)(named)
        return pick

    return register


def is_none(argument) -> bool:
    """Whether an argument was left out or is None."""
    return argument is None or (
        isinstance(argument, (types.NoneType, types.Omitted))
        and getattr(argument, "value", None) is None
    )


def literal(op, name, argument, accepted):
    """Value of a string option, which must be known at compile time."""
    value = argument
    if isinstance(argument, types.Omitted):
        value = argument.value
    elif isinstance(argument, types.StringLiteral):
        value = argument.literal_value
    elif isinstance(argument, types.NoneType):
        value = None
    elif isinstance(argument, types.Type):
        raise TypingError(f"{op}: {name} must be a constant inside @njit; it is {argument}")
    if value not in accepted:
        raise TypingError(f"{op}: {name} is {value!r}; accepted: {', '.join(map(repr, accepted))}")
    return value


def float_array(op, name, argument):
    """Check that an argument is a float array or one that is promoted; return its dtype."""
    if not isinstance(argument, types.Array):
        raise TypingError(f"{op}: {name} is {argument}; accepted: a float32 or float64 array")
    return promoted(op, name, argument.dtype)


def promoted(op, name, dtype):
    """float32 and float64 stay, integers and booleans become float64."""
    if dtype in (types.float32, types.float64):
        return dtype
    if isinstance(dtype, (types.Integer, types.Boolean)):
        return types.float64
    raise TypingError(f"{op}: {name} has dtype {dtype}; accepted: float32 or float64")


def same_dtype(op, **arrays):
    """The one dtype of all arrays (None is skipped)."""
    given = {k: float_array(op, k, v) for k, v in arrays.items() if not is_none(v)}
    if len(set(given.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in given.items())
        raise TypingError(f"{op}: arrays of different dtypes: {listed}")
    return next(iter(given.values()))


def output(op, out, dtype, ndim):
    """Compiled function ``(out, shape) -> array``: a new one, or ``out`` with its shape checked."""
    real = np.float32 if dtype == types.float32 else np.float64
    if is_none(out):
        return jitable(lambda out, shape: np.empty(shape, real))
    fits = (
        isinstance(out, types.Array)
        and out.dtype == dtype
        and out.ndim == ndim
        and out.layout == "C"
        and out.mutable
        and out.aligned
    )
    if not fits:
        raise TypingError(
            f"{op}: out is {out}; accepted: a writable C-contiguous {dtype} array, {ndim} dimensions"
        )
    wrong_shape = op + ": out has the wrong shape"
    wrong_place = op + ": out is not aligned in memory; accepted: a C-contiguous array"

    def check(out, shape):
        if out.shape != shape:
            raise ValueError(wrong_shape)
        if misaligned(out):
            raise ValueError(wrong_place)
        return out

    return jitable(check)


@jitable
def misaligned(array):
    """Whether elements do not lie at multiples of their size: Numba's types do not tell that."""
    return array.size > 0 and array.ctypes.data % array.itemsize != 0


def no_output(op, out):
    """Refuse an array to write to where the result is a number."""
    if not is_none(out):
        raise TypingError(f"{op}: out is {out} for a number; accepted inside @njit: None")


def separate(op, out, in_place=False):
    """Compiled function ``(out, x)`` that refuses overlap in memory; ``x`` is what came.

    Not a copy of it: a copy never overlaps. ``in_place`` allows that both are the same array.
    """
    if is_none(out):
        return jitable(lambda out, x: None)
    test = overlaps_partly if in_place else overlaps
    message = op + ": out overlaps an input in memory; accepted: an array of its own"

    def check(out, x):
        if test(out, x):
            raise ValueError(message)

    return jitable(check)


def gradient_arrays(op, out, dtype, ndims, needs_dx):
    """Two compiled functions for (dx, dweight, dbias): ``(out, shapes)`` makes or takes them,
    ``(made, inputs)`` refuses overlap in memory.
    """
    given = isinstance(out, types.BaseTuple) and len(out) == 3 and not is_none(out[0])
    if given and not flag(op, "needs_dx", needs_dx):
        raise TypingError(f"{op}: gradients[0] is given with needs_dx False; accepted: None")
    if is_none(out):
        x, weight, bias = (output(op, None, dtype, ndim) for ndim in ndims)
        return (
            jitable(lambda out, a, b, c: (x(None, a), weight(None, b), bias(None, c))),
            jitable(lambda made, inputs: None),
        )
    if not (isinstance(out, types.BaseTuple) and len(out) == 3):
        raise TypingError(f"{op}: gradients is {out}; accepted: (dx, dweight, dbias) or None")
    dx, dweight, dbias = (output(op, one, dtype, n) for one, n in zip(out, ndims, strict=True))
    message = op + ": an array of gradients overlaps another array in memory"

    def make(out, a, b, c):
        return dx(out[0], a), dweight(out[1], b), dbias(out[2], c)

    def check(made, inputs):
        x, weight, bias = made
        p, q, r = inputs
        for y in literal_unroll((x, weight, bias)):
            if overlaps(y, p) or overlaps(y, q) or overlaps(y, r):
                raise ValueError(message)
        if overlaps(x, weight) or overlaps(x, bias) or overlaps(weight, bias):
            raise ValueError(message)

    return jitable(make), jitable(check)


def optional_dx(op, needs_dx, ndim, kernel):
    """The kernel of dx, and two compiled functions: ``(shape of x)`` gives that of dx,
    ``(dx)`` what is returned.

    Nothing to do, without elements, and None, where dx is not needed; a constant decides.
    """
    if flag(op, "needs_dx", needs_dx):
        return kernel, _as_is, _as_is
    none = (0,) * ndim
    return _nothing, jitable(lambda shape: none), jitable(lambda dx: None)


@jitable
def _nothing(*arguments):
    pass


def contiguous(array, dtype):
    """Compiled function that makes a C-contiguous array of ``dtype`` of such an array."""
    if array.dtype == dtype and array.layout == "C" and array.aligned:
        return _as_is
    return _as_float32 if dtype == types.float32 else _as_float64


@jitable
def _as_is(x):
    return x


@jitable
def _as_float32(x):
    return np.ascontiguousarray(x).astype(np.float32)


@jitable
def _as_float64(x):
    return np.ascontiguousarray(x).astype(np.float64)


def overlaps(y, a):
    """Whether contiguous y shares an element with a: an array of any layout, or a number or None."""
    raise NotImplementedError("for compiled code")


@overload(overlaps, jit_options=PART)
def _overlaps(y, a):
    if not isinstance(a, types.Array):
        return lambda y, a: False
    if a.layout == "C" or a.ndim == 0:
        return _contiguous_overlap
    return _strided_overlap


def _contiguous_overlap(y, a):
    start_y, start_a = np.int64(y.ctypes.data), np.int64(a.ctypes.data)
    size_y, size_a = y.size * y.itemsize, a.size * a.itemsize
    return size_y > 0 and size_a > 0 and start_y < start_a + size_a and start_a < start_y + size_y


def _strided_overlap(y, a):
    if y.size == 0 or a.size == 0:
        return False
    start, low = np.int64(y.ctypes.data), np.int64(a.ctypes.data)
    end, first, high = start + y.size * y.itemsize, low, low + a.itemsize
    for i in range(a.ndim):
        reach = (a.shape[i] - 1) * a.strides[i]
        low, high = low + min(reach, 0), high + max(reach, 0)
    if high <= start or end <= low:
        return False
    for number in range(a.size):  # a is copied anyway, which takes as long
        rest, at = number, first
        for i in range(a.ndim - 1, -1, -1):
            at += rest % a.shape[i] * a.strides[i]
            rest //= a.shape[i]
        if at < end and start < at + a.itemsize:
            return True
    return False


def overlaps_partly(y, a):
    """Whether they share an element without being the same memory, element for element."""
    raise NotImplementedError("for compiled code")


@overload(overlaps_partly, jit_options=PART)
def _overlaps_partly(y, a):
    if not (isinstance(a, types.Array) and a.dtype == y.dtype and a.layout == "C"):
        return lambda y, a: overlaps(y, a)
    return lambda y, a: overlaps(y, a) and not (y.ctypes.data == a.ctypes.data and y.size == a.size)


def _is_integer(argument):
    return (
        isinstance(argument, (types.Integer, types.IntegerLiteral, int))
        or (isinstance(argument, types.Omitted) and isinstance(argument.value, int))
    ) and not isinstance(argument, bool)


def _is_sequence(argument, length):
    return isinstance(argument, types.BaseTuple) and len(argument) == length


def integer(op, name, argument, low, high=LIMIT):
    """Compiled function that checks an integer's range; its type is checked here."""
    if not _is_integer(argument):
        raise TypingError(f"{op}: {name} is {argument}; accepted: integers of at least {low}")
    message = f"{op}: {name} is out of range; accepted: integers from {low} to {high}"

    def check(value):
        if value < low or value > high:
            raise ValueError(message)
        return np.int64(value)

    return jitable(check)


def _is_number(argument):
    if isinstance(argument, types.Omitted):
        argument = argument.value
    if isinstance(argument, (bool, types.Boolean, types.BooleanLiteral)):
        return False
    return isinstance(argument, (int, float, types.Integer, types.Float, types.IntegerLiteral))


def numbers(op, **arguments):
    """Check at compile time that arguments are plain numbers: no arrays, no flags, not complex."""
    for name, argument in arguments.items():
        if not _is_number(argument):
            raise TypingError(f"{op}: {name} is {argument}; accepted: a number")


def at_least(op, name, low=0.0, high=math.inf, below=False):
    """Compiled function that makes a float of a number and checks its range."""
    accepted = checks.accepted_range(low, high, below)
    message = f"{op}: {name} is out of range; accepted: {accepted}"

    def check(value):
        number = float(value)
        if not (number >= low and number <= high and math.isfinite(number)):
            raise ValueError(message)
        if below and number == high:
            raise ValueError(message)
        return number

    return jitable(check)


def beta(op, name):
    """Compiled check of a decay rate within [0, 1)."""
    return at_least(op, name, 0.0, 1.0, below=True)


def both_numbers(op, name, argument):
    """Compiled function that gives two numbers of a tuple or list of exactly two."""
    value = argument.value if isinstance(argument, types.Omitted) else argument
    accepted = "accepted: two numbers from 0 to below 1"
    if isinstance(value, (types.BaseTuple, tuple)):
        if len(value) != 2 or not all(_is_number(part) for part in value):
            raise TypingError(f"{op}: {name} is {argument}; {accepted}")
        return jitable(lambda given: (float(given[0]), float(given[1])))
    if not (isinstance(value, (types.List, types.ListType)) and _is_number(value.dtype)):
        raise TypingError(f"{op}: {name} is {argument}; {accepted}")
    message = f"{op}: {name} has not two entries; {accepted}"

    def entries(given):
        if len(given) != 2:
            raise ValueError(message)
        return float(given[0]), float(given[1])

    return jitable(entries)


def flags(op, **arguments):
    """Check at compile time that options are True or False, nothing else."""
    for name, argument in arguments.items():
        value = argument.value if isinstance(argument, types.Omitted) else argument
        if not isinstance(value, (bool, types.Boolean, types.BooleanLiteral)):
            raise TypingError(f"{op}: {name} is {argument}; accepted: True or False")


def switch(op, name, argument):
    """Check at compile time that an option is True or False, which may be known at run time only."""
    value = argument.value if isinstance(argument, types.Omitted) else argument
    if not isinstance(value, (bool, int, types.Boolean, types.BooleanLiteral, types.Integer)):
        raise TypingError(f"{op}: {name} is {argument}; accepted: True or False")


def pair_of(op, name, argument, low):
    """Compiled function that makes two ints of at least ``low`` of an int or two of them."""
    message = f"{op}: {name} is out of range; accepted: integers from {low} to {LIMIT}"

    def check(a, b):
        if a < low or b < low or a > LIMIT or b > LIMIT:
            raise ValueError(message)
        return np.int64(a), np.int64(b)  # of two unsigned numbers a difference would be a float

    check = jitable(check)
    if _is_integer(argument):
        return jitable(lambda value: check(value, value))
    if _is_sequence(argument, 1) and _is_integer(argument[0]):
        return jitable(lambda value: check(value[0], value[0]))
    if _is_sequence(argument, 2) and all(_is_integer(a) for a in argument):
        return jitable(lambda value: check(value[0], value[1]))
    raise TypingError(f"{op}: {name} is {argument}; accepted: an integer or two of them")


def flag(op, name, argument):
    """Value of a boolean option, which must be known at compile time."""
    if isinstance(argument, types.Omitted):
        return bool(argument.value)
    if isinstance(argument, types.BooleanLiteral):
        return argument.literal_value
    if isinstance(argument, bool):
        return argument
    raise TypingError(f"{op}: {name} must be a constant True or False inside @njit")


def array_of(op, name, argument, ndim):
    """Check at compile time that an argument is a float array of ``ndim`` dimensions."""
    float_array(op, name, argument)
    if argument.ndim != ndim:
        raise TypingError(f"{op}: {name} has {argument.ndim} dimensions; accepted: {ndim}")


def optional(op, name, argument, dtype, ndim=1):
    """Compiled function that gives a contiguous array, or one of no elements for None."""
    if is_none(argument):
        real = np.float32 if dtype == types.float32 else np.float64
        return jitable(lambda value: np.empty(0, real))
    array_of(op, name, argument, ndim)
    return contiguous(argument, dtype)


def activate(op, activation):
    """Compiled function that applies an activation, known at compile time, to a flat array."""
    name = literal(op, "activation", activation, (None, *FUSED))
    if name is None:
        return jitable(lambda y: None)
    kernel = linked(getattr(activation_kernels, WIDE.get(name, name)))
    if name == "leaky_relu":
        return jitable(lambda y: kernel(y, 0.01, y))
    return jitable(lambda y: kernel(y, y))
