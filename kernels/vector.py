"""Numbers that let LLVM turn a loop over a caller's formula into vectors.

A `Real` is a float32 or float64 whose arithmetic stays in its type (Numba widens float32 as
soon as a Python constant meets it) and whose functions are those of scalar.py (those of
Python's math are calls into the C library, which end every hope of vectors). Formulas need no
change: operators, comparisons and the functions in `_FUNCTIONS` take it. What they do not take
fails to compile, and the caller of objective.py gets the next best form.
"""

import math
import operator

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typeconv import Conversion
from numba.extending import intrinsic, lower_cast, models, overload, register_model

from loopnest.kernels import scalar
from loopnest.kernels.jit import OPTIONS
from loopnest.kernels.simd import select

_INLINED = {**OPTIONS, "forceinline": True}


class Real(types.Type):
    """Numba type of a number that stays in its type."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Real({dtype})")

    def unify(self, typingctx, other):
        """Where a variable is a Real on one branch and a constant on the other."""
        return self if isinstance(other, (types.Number, types.Boolean)) else None

    def can_convert_from(self, typingctx, other):
        return Conversion.safe if isinstance(other, (types.Number, types.Boolean)) else None


@register_model(Real)
class _RealModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        super().__init__(manager, fe_type, manager.lookup(fe_type.dtype).get_value_type())


def _accepted(argument):
    return isinstance(argument, (Real, types.Integer, types.Float, types.Boolean))


def _common(*arguments):
    """The Real type of an operation with at least one Real, None if it is none of ours."""
    found = {a for a in arguments if isinstance(a, Real)}
    return found.pop() if len(found) == 1 and all(map(_accepted, arguments)) else None


def _values(context, builder, signature, args, dtype):
    """The arguments as LLVM floats of this type."""
    return [
        v if isinstance(t, Real) else context.cast(builder, v, t, dtype)
        for v, t in zip(args, signature.args, strict=True)
    ]


@lower_cast(types.Integer, Real)
@lower_cast(types.Float, Real)
@lower_cast(types.Boolean, Real)
def _number_to_real(context, builder, fromty, toty, value):
    return context.cast(builder, value, fromty, toty.dtype)


@intrinsic
def lift(typingctx, x):
    """A float as a Real."""
    return (Real(x)(x), lambda context, builder, signature, args: args[0]) if x in _FLOATS else None


@intrinsic
def number(typingctx, x):
    """A Real as a float."""
    if not isinstance(x, Real):
        return None
    return x.dtype(x), lambda context, builder, signature, args: args[0]


@intrinsic
def like(typingctx, value, x):
    """A number or a Real in the type of the float x."""
    if x not in _FLOATS or not _accepted(value):
        return None

    def codegen(context, builder, signature, args):
        return _values(context, builder, signature, args, x)[0]

    return x(value, x), codegen


_FLOATS = (types.float32, types.float64)

# ---- operators ----


def _register(function, emit, comparison=False):
    """Let an operator take Reals; ``emit`` writes the instruction for LLVM floats."""

    @intrinsic
    def compute(typingctx, a, b):
        real = _common(a, b)
        if real is None:
            return None

        def codegen(context, builder, signature, args):
            return emit(builder, *_values(context, builder, signature, args, real.dtype))

        return (types.boolean if comparison else real)(a, b), codegen

    @overload(function, jit_options=_INLINED)
    def take(a, b):
        if _common(a, b) is not None:
            return lambda a, b: compute(a, b)
        return None


_register(operator.add, lambda builder, a, b: builder.fadd(a, b))
_register(operator.sub, lambda builder, a, b: builder.fsub(a, b))
_register(operator.mul, lambda builder, a, b: builder.fmul(a, b))
_register(operator.truediv, lambda builder, a, b: builder.fdiv(a, b))
for _function, _sign in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "==")):
    _register(
        getattr(operator, _function),
        lambda builder, a, b, sign=_sign: builder.fcmp_ordered(sign, a, b),
        comparison=True,
    )
_register(operator.ne, lambda builder, a, b: builder.fcmp_unordered("!=", a, b), comparison=True)


@intrinsic
def _negative(typingctx, x):
    return x(x), lambda context, builder, signature, args: builder.fneg(args[0])


@overload(operator.neg, jit_options=_INLINED)
def _neg(x):
    if isinstance(x, Real):
        return lambda x: _negative(x)
    return None


@overload(operator.pos, jit_options=_INLINED)
@overload(float, jit_options=_INLINED)
def _same(x):
    if isinstance(x, Real):
        return lambda x: x
    return None


_MOST_FACTORS = 64  # of a power


@intrinsic(prefer_literal=True)
def _whole_power(typingctx, base, exponent):
    count = abs(exponent.literal_value)

    def codegen(context, builder, signature, args):
        square, result, left = args[0], ir.Constant(args[0].type, 1.0), count
        while left:
            if left % 2:
                result = builder.fmul(result, square)
            square, left = builder.fmul(square, square), left // 2
        one = ir.Constant(args[0].type, 1.0)
        return builder.fdiv(one, result) if exponent.literal_value < 0 else result

    return base(base, exponent), codegen


@overload(operator.pow, prefer_literal=True, jit_options=_INLINED)
@overload(math.pow, prefer_literal=True, jit_options=_INLINED)
@overload(np.power, prefer_literal=True, jit_options=_INLINED)
def _power(base, exponent):
    """Whole constant powers, as products."""
    if not (isinstance(base, Real) and isinstance(exponent, types.IntegerLiteral)):
        return None
    if abs(exponent.literal_value) > _MOST_FACTORS:
        return None
    return lambda base, exponent: _whole_power(base, exponent)


# ---- functions ----


@intrinsic
def _root(typingctx, x):
    def codegen(context, builder, signature, args):
        kind = args[0].type
        root = builder.module.declare_intrinsic("llvm.sqrt", [kind])
        return builder.call(root, args)

    return x(x), codegen


@intrinsic
def _size(typingctx, x):
    def codegen(context, builder, signature, args):
        kind = args[0].type
        size = builder.module.declare_intrinsic("llvm.fabs", [kind])
        return builder.call(size, args)

    return x(x), codegen


def _log(x):
    """The logarithm of scalar.py, which is for positive normal numbers, for all."""
    kind = np.float32 if x.dtype == types.float32 else np.float64
    zero, infinity, nan = kind(0), kind(np.inf), kind(np.nan)
    tiny, factor = kind(np.finfo(kind).tiny), kind(2.0**64)
    shift = kind(64 * math.log(2))

    def log(x):
        y = number(x)
        small = y < tiny
        result = scalar.log(select(small, y * factor, y)) - select(small, shift, zero)
        return lift(select(y > zero, result, select(y == zero, -infinity, nan)))

    return log


def _scalar(function):
    return lambda x: lambda x: lift(function(number(x)))


# What formulas may call, and makers of the implementation for a Real
_FUNCTIONS = {
    (math.exp, np.exp): _scalar(scalar.exp),
    (math.log, np.log): _log,
    (math.tanh, np.tanh): _scalar(scalar.tanh),
    (math.sqrt, np.sqrt): lambda x: lambda x: _root(x),
    (abs, math.fabs, np.abs, np.fabs): lambda x: lambda x: _size(x),
    (np.square,): lambda x: lambda x: x * x,
    (math.cosh, np.cosh): lambda x: lambda x: (math.exp(x) + math.exp(-x)) * 0.5,
}


def _register_function(functions, make):
    def take(x):
        if isinstance(x, Real):
            return make(x)
        return None

    for function in functions:
        overload(function, jit_options=_INLINED)(take)


for _functions, _make in _FUNCTIONS.items():
    _register_function(_functions, _make)


@overload(np.maximum, jit_options=_INLINED)
@overload(max, jit_options=_INLINED)
def _maximum(a, b):
    if _common(a, b) is not None:
        return lambda a, b: _pick(b > a, b, a)
    return None


@overload(np.minimum, jit_options=_INLINED)
@overload(min, jit_options=_INLINED)
def _minimum(a, b):
    if _common(a, b) is not None:
        return lambda a, b: _pick(b < a, b, a)
    return None


@intrinsic
def _pick(typingctx, condition, a, b):
    real = _common(a, b)
    if condition != types.boolean or real is None:
        return None

    def codegen(context, builder, signature, args):
        flag = context.cast(builder, args[0], types.boolean, types.boolean)
        values = [
            v if isinstance(t, Real) else context.cast(builder, v, t, real.dtype)
            for v, t in zip(args[1:], signature.args[1:], strict=True)
        ]
        return builder.select(flag, *values)

    return real(condition, a, b), codegen


@overload(np.where, jit_options=_INLINED)
def _where(condition, x, y):
    if condition == types.boolean and _common(x, y) is not None:
        return lambda condition, x, y: _pick(condition, x, y)
    return None
