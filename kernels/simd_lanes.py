"""Sixteen numbers as one Numba value: element-wise operators, loads, stores, row sums.

``Lanes`` has a number's operators, so scalar.py's functions take it in a number's place; a loop
over blocks of 16 is then vector code by construction, whatever width LLVM prefers (Numba's LLVM
takes 256-bit vectors on AVX-512 machines), in place too, and a tail is one masked block instead
of a scalar loop. LLVM splits the value where registers are narrower. Beside simd.py the only
file with LLVM IR.

A long loop takes BLOCK at a time where there are registers enough: a function is one chain of
some twenty operations, each waiting four cycles for the one before, and a core looks ahead over two
or three such chains only. With four of them side by side it waits less.
"""

import math
import operator

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from loopnest.kernels.jit import scalar

LANES = 16


def _has(feature):
    """Whether the code is compiled for a CPU with this feature."""
    if config.CPU_FEATURES is not None:
        return f"+{feature}" in config.CPU_FEATURES.split(",")
    return bool(llvmlite.binding.get_host_cpu_features().get(feature))


has_scalef = _has("avx512f")
BLOCK = 4 * LANES if _has("avx512f") else LANES
_I32, _I64 = ir.IntType(32), ir.IntType(64)


class Lanes(types.Type):
    """16 numbers of one type, or ``count``; of booleans: a mask."""

    def __init__(self, dtype, count=LANES):
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Lanes({dtype}, {count})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        element = manager.lookup(fe_type.dtype).get_value_type()
        element = ir.IntType(1) if fe_type.dtype == types.boolean else element
        super().__init__(manager, fe_type, ir.VectorType(element, fe_type.count))


def element_of(kind):
    """The number type of a number or of Lanes."""
    return kind.dtype if isinstance(kind, Lanes) else kind


def widest(*kinds):
    """Lanes if one of these types is, else their number type; None if numbers differ."""
    elements = {element_of(kind) for kind in kinds}
    if len(elements) != 1:
        return None
    return next((kind for kind in kinds if isinstance(kind, Lanes)), elements.pop())


def spread(context, builder, value, kind, wanted):
    """The value, a number repeated in all lanes where Lanes are wanted."""
    if isinstance(wanted, Lanes) and not isinstance(kind, Lanes):
        return splat(builder, value, context.get_value_type(wanted))
    return value


def splat(builder, value, llvm):
    """Vector of one number."""
    none = ir.Constant(llvm, ir.Undefined)
    first = builder.insert_element(none, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, none, ir.Constant(ir.VectorType(_I32, llvm.count), None))


def part(builder, value, first, count):
    """Lanes ``first`` to ``first + count`` of a vector."""
    indices = ir.Constant(ir.VectorType(_I32, count), list(range(first, first + count)))
    return builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), indices)


def joined(builder, parts):
    """One vector of several of the same length, a power of two of them."""
    while len(parts) > 1:
        count = 2 * parts[0].type.count
        indices = ir.Constant(ir.VectorType(_I32, count), list(range(count)))
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [builder.shuffle_vector(a, b, indices) for a, b in pairs]
    return parts[0]


def call_llvm(builder, name, value_type, arguments):
    """LLVM intrinsic ``llvm.<name>.<suffix of the type>`` from and to one type."""
    vector = isinstance(value_type, ir.VectorType)
    element = value_type.element if vector else value_type
    suffix = f"f{64 if isinstance(element, ir.DoubleType) else 32}"
    name = f"llvm.{name}.{f'v{value_type.count}' if vector else ''}{suffix}"
    kind = ir.FunctionType(value_type, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


# ---- operators ----

_ARITHMETIC = {
    operator.add: "fadd",
    operator.sub: "fsub",
    operator.mul: "fmul",
    operator.truediv: "fdiv",
}
_COMPARISONS = {
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
}


def _define(function, result_of, generate):
    """Operator on Lanes with Lanes or numbers of the same type."""

    @infer_global(function)
    class Template(AbstractTemplate):
        def generic(self, args, kws):
            kind = widest(*args)
            if not isinstance(kind, Lanes) or kws:
                return None
            result = result_of(kind)
            return result and signature(result, *args)

    def lower(context, builder, sig, args):
        kind = widest(*sig.args)
        values = [
            spread(context, builder, *pair, kind) for pair in zip(args, sig.args, strict=True)
        ]
        return generate(builder, *values)

    return lower


def _binary(function, result_of, generate):
    lower = _define(function, result_of, generate)
    for left, right in ((Lanes, Lanes), (Lanes, types.Float), (types.Float, Lanes)):
        lower_builtin(function, left, right)(lower)


def _real(kind):
    return kind if isinstance(kind.dtype, types.Float) else None


for _function, _name in _ARITHMETIC.items():
    _binary(_function, _real, lambda builder, a, b, name=_name: getattr(builder, name)(a, b))
for _function, _sign in _COMPARISONS.items():
    _compare = "fcmp_unordered" if _sign == "!=" else "fcmp_ordered"
    _binary(
        _function,
        lambda kind: _real(kind) and Lanes(types.boolean, kind.count),
        lambda builder, a, b, how=_compare, sign=_sign: getattr(builder, how)(sign, a, b),
    )
_binary(
    operator.or_,
    lambda kind: kind if kind.dtype == types.boolean else None,
    lambda builder, a, b: builder.or_(a, b),
)
lower_builtin(operator.neg, Lanes)(_define(operator.neg, _real, lambda builder, a: builder.fneg(a)))
lower_builtin(abs, Lanes)(
    _define(abs, _real, lambda builder, a: call_llvm(builder, "fabs", a.type, [a]))
)
lower_builtin(math.sqrt, Lanes)(
    _define(math.sqrt, _real, lambda builder, a: call_llvm(builder, "sqrt", a.type, [a]))
)


# ---- memory ----


def address(context, builder, array_type, array, index):
    """Address of array[index]; no check, no wraparound."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def flattened(typingctx, array):
    """The numbers of a contiguous array as one axis; for the kernel that was given the array.

    ``array.reshape(-1)`` asks NumPy's rules anew in each call: 30 ns, and longer to compile.
    """
    if not (isinstance(array, types.Array) and array.layout == "C"):
        return None
    kind = array.copy(ndim=1)

    def codegen(context, builder, sig, args):
        given = context.make_array(array)(context, builder, args[0])
        made = context.make_array(kind)(context, builder)
        made.data, made.nitems, made.itemsize = given.data, given.nitems, given.itemsize
        made.shape = cgutils.pack_array(builder, [given.nitems])
        made.strides = cgutils.pack_array(builder, [given.itemsize])
        return made._getvalue()

    return kind(array), codegen


def first_lanes(builder, count):
    """Mask of the lanes below ``count`` (an i64)."""
    integers = ir.VectorType(_I32, LANES)
    limit = splat(builder, builder.trunc(count, _I32), integers)
    return builder.icmp_signed("<", ir.Constant(integers, list(range(LANES))), limit)


def masked(builder, what, result, llvm, arguments):
    bits = 64 if isinstance(llvm.element, ir.DoubleType) else 32
    kind = ir.FunctionType(result, [a.type for a in arguments])
    name = f"llvm.masked.{what}.v{LANES}f{bits}.p0"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def is_real_array(kind):
    return isinstance(kind, types.Array) and isinstance(kind.dtype, types.Float) and kind.ndim == 1


def _load(x, count):
    """Signature and code of a load."""
    if not is_real_array(x):
        return None
    kind = Lanes(x.dtype, count)

    def codegen(context, builder, sig, args):
        llvm = context.get_value_type(kind)
        place = address(context, builder, sig.args[0], *args)
        value = builder.load(builder.bitcast(place, llvm.as_pointer()))
        value.align = x.dtype.bitwidth // 8
        return value

    return kind(x, types.int64), codegen


@scalar
def to_cache_line(array):
    """Elements of an array before its first whole cache line.

    NumPy's large arrays all begin 16 bytes behind one. Once a loop has gone so far, its vectors
    do not straddle two lines: a fifth of the time where little more is done than moving data.
    """
    return min((-array.ctypes.data % 64) // array.itemsize, array.size)


@intrinsic
def load(typingctx, x, i):
    """x[i : i + 16] of a contiguous 1-D array."""
    return _load(x, LANES)


@intrinsic
def load_block(typingctx, x, i):
    """x[i : i + BLOCK] of a contiguous 1-D array."""
    return _load(x, BLOCK)


AHEAD, _LINE = 1024, 64  # bytes


def _fetch(array, write):
    """Signature and code of `fetch_to_read` and `fetch_to_write`."""
    if not is_real_array(array):
        return None
    size = BLOCK * array.dtype.bitwidth // 8
    pointer = ir.PointerType()
    kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])

    def codegen(context, builder, sig, args):
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        start = builder.bitcast(address(context, builder, sig.args[0], *args), pointer)
        hints = [ir.Constant(_I32, hint) for hint in (write, 3, 1)]  # keep, data
        for offset in range(AHEAD, AHEAD + size, _LINE):
            line = builder.gep(start, [ir.Constant(_I64, offset)], source_etype=ir.IntType(8))
            builder.call(function, [line, *hints])
        return context.get_dummy_value()

    return types.none(array, types.int64), codegen


@intrinsic
def fetch_to_read(typingctx, x, i):
    """Ask for the cache lines of the BLOCK that begins AHEAD bytes behind x[i].

    What the CPU fetches by itself from beyond its second cache comes too late for a loop that
    computes and writes as well: 1M elements of GELU took 362 us, and take 295, as a copy does.
    """
    return _fetch(x, 0)


@intrinsic
def fetch_to_write(typingctx, y, i):
    """`fetch_to_read`, of lines that will be written."""
    return _fetch(y, 1)


@intrinsic
def load_some(typingctx, x, i, count, rest):
    """The first ``count`` of x[i : i + 16], at most 16; ``rest`` in the other lanes."""
    if not (is_real_array(x) and rest == x.dtype):
        return None
    kind = Lanes(x.dtype)

    def codegen(context, builder, sig, args):
        array, index, count, rest = args
        llvm = context.get_value_type(kind)
        place = address(context, builder, sig.args[0], array, index)
        place = builder.bitcast(place, ir.PointerType())
        align = ir.Constant(_I32, x.dtype.bitwidth // 8)
        mask, rest = first_lanes(builder, count), splat(builder, rest, llvm)
        return masked(builder, "load", llvm, llvm, [place, align, mask, rest])

    return kind(x, types.int64, types.int64, rest), codegen


@intrinsic
def store(typingctx, y, i, value):
    """y[i : i + 16] = value, or as many as it has."""
    if not (is_real_array(y) and isinstance(value, Lanes) and value.dtype == y.dtype):
        return None

    def codegen(context, builder, sig, args):
        array, index, value = args
        place = address(context, builder, sig.args[0], array, index)
        done = builder.store(value, builder.bitcast(place, value.type.as_pointer()))
        done.align = y.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.none(y, types.int64, value), codegen


@intrinsic
def store_some(typingctx, y, i, count, value):
    """The first ``count`` lanes to y[i : i + 16]; nothing else is written."""
    if not (is_real_array(y) and value == Lanes(y.dtype)):
        return None

    def codegen(context, builder, sig, args):
        array, index, count, value = args
        place = address(context, builder, sig.args[0], array, index)
        place = builder.bitcast(place, ir.PointerType())
        align, mask = ir.Constant(_I32, y.dtype.bitwidth // 8), first_lanes(builder, count)
        masked(builder, "store", ir.VoidType(), value.type, [value, place, align, mask])
        return context.get_dummy_value()

    return types.none(y, types.int64, types.int64, value), codegen


@intrinsic
def keep_first(typingctx, value, count, rest):
    """The first ``count`` lanes of the value, or of each of its rows, ``rest`` in the others."""
    if not (isinstance(value, Lanes) and rest == value.dtype):
        return None

    def codegen(context, builder, sig, args):
        value, count, rest = args
        mask = first_lanes(builder, count)
        mask = joined(builder, [mask] * (value.type.count // LANES))
        return builder.select(mask, value, splat(builder, rest, value.type))

    return value(value, types.int64, rest), codegen


@intrinsic
def repeat(typingctx, number):
    """A number in all lanes."""
    kind = Lanes(number)

    def codegen(context, builder, sig, args):
        return splat(builder, args[0], context.get_value_type(kind))

    return kind(number), codegen


def _folded(builder, value, combine):
    """Lanes combined with those 8, then 4, 2, 1 above; a number."""
    half = LANES // 2
    while half:
        none = ir.Constant(value.type, ir.Undefined)
        indices = [
            ir.Constant(ir.VectorType(_I32, half), list(range(first, first + half)))
            for first in (0, half)
        ]
        low, high = (builder.shuffle_vector(value, none, i) for i in indices)
        value = combine(builder, low, high)
        half //= 2
    return builder.extract_element(value, ir.Constant(_I32, 0))


def larger(builder, a, b):
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


@intrinsic
def fold_sum(typingctx, value):
    """Sum of the lanes, folded 8, 4, 2, 1."""

    def codegen(context, builder, sig, args):
        return _folded(builder, args[0], lambda builder, a, b: builder.fadd(a, b))

    return value.dtype(value), codegen


@intrinsic
def fold_max(typingctx, value):
    """Largest lane, where none is NaN."""

    def codegen(context, builder, sig, args):
        return _folded(builder, args[0], larger)

    return value.dtype(value), codegen
