"""Vectors of the host's width and register tiles as Numba values, in LLVM IR.

A tile is a tuple of MR*NV vectors, row by row: an accumulator block that LLVM keeps in
registers. Memory is addressed by plain integers (int64): row views in hot loops would
leave reference counting behind, and array indices wraparound tests.
"""

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

_FEATURES = binding.get_host_cpu_features()
_AVX512 = _FEATURES.get("avx512f", False)
_X86 = binding.get_process_triple().startswith("x86_64")

VECTOR_BYTES = 64 if _AVX512 else 32 if _FEATURES.get("avx2", False) else 16
REGISTERS = 32 if _AVX512 or not _X86 else 16


class Vector(types.Type):
    """LLVM vector of VECTOR_BYTES / itemsize numbers."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype}x{self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, fe_type):
        element = manager.lookup(fe_type.dtype).get_value_type()
        super().__init__(manager, fe_type, ir.VectorType(element, fe_type.lanes))


_I32 = ir.IntType(32)


def _integer(value):
    return value.literal_value if isinstance(value, types.IntegerLiteral) else None


def _size(vector):
    return vector.dtype.bitwidth // 8


def _at(builder, address, offset, element):
    """Pointer to ``element`` at address + offset bytes."""
    moved = builder.add(address, ir.Constant(address.type, offset)) if offset else address
    return builder.inttoptr(moved, element.as_pointer())


def _load(builder, address, offset, vector, llvm):
    value = builder.load(_at(builder, address, offset, llvm))
    value.align = _size(vector)
    return value


def _call(builder, name, result, arguments):
    signature = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, signature, name), arguments)


def _suffix(vector):
    return f"v{vector.lanes}f{vector.dtype.bitwidth}"


def _splat(builder, value, llvm):
    none = ir.Constant(llvm, ir.Undefined)
    first = builder.insert_element(none, value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, llvm.count), None)
    return builder.shuffle_vector(first, none, zeros)


def _steps(builder, step, count):
    """step * 0, step * 1, ...: sums, so that equal ones are shared."""
    sums = [ir.Constant(step.type, 0)]
    for _ in range(count - 1):
        sums.append(builder.add(sums[-1], step))
    return sums


@intrinsic
def address_of(typingctx, array):
    """Where a contiguous array begins."""

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), codegen


@intrinsic(prefer_literal=True)
def zero_tile(typingctx, like, rows, vectors):
    """Tile of zeros of the type of ``like``."""
    tile = types.UniTuple(Vector(like), _integer(rows) * _integer(vectors))

    def codegen(context, builder, signature, args):
        return ir.Constant(context.get_value_type(tile), None)

    return tile(like, rows, vectors), codegen


def _fuse(builder, tile, at, a, b, vector):
    """The tile with ``a * b`` added to its vector ``at``, rounded once."""
    terms = [a, b, builder.extract_value(tile, at)]
    total = _call(builder, f"llvm.fma.{_suffix(vector)}", a.type, terms)
    return builder.insert_value(tile, total, at)


@intrinsic(prefer_literal=True)
def multiply_add(typingctx, tile, a, a_step, b, pitch, rows, vectors):
    """Rank-1 update: ``tile[i][j] += A[i] B[j]``, each fused.

    A are ``rows`` numbers, ``a_step`` bytes apart from address a; B ``vectors`` vectors from b,
    ``pitch`` bytes apart.
    """
    vector, mr, nv = tile.dtype, _integer(rows), _integer(vectors)

    def codegen(context, builder, signature, args):
        acc, a, a_step, b, pitch, _, _ = args
        llvm = context.get_value_type(vector)
        bs = [
            _load(builder, builder.add(b, step), 0, vector, llvm)
            for step in _steps(builder, pitch, nv)
        ]
        for i, step in enumerate(_steps(builder, a_step, mr)):
            number = builder.load(_at(builder, builder.add(a, step), 0, llvm.element))
            x = _splat(builder, number, llvm)
            for j in range(nv):
                acc = _fuse(builder, acc, i * nv + j, x, bs[j], vector)
        return acc

    return tile(tile, a, a_step, b, pitch, rows, vectors), codegen


@intrinsic(prefer_literal=True)
def multiply_add_gathered(typingctx, tile, a, offsets, b, rows, vectors):
    """The same with number i of A at a + offsets[i] bytes; offsets is the address of int64s."""
    vector, mr, nv = tile.dtype, _integer(rows), _integer(vectors)

    def codegen(context, builder, signature, args):
        acc, a, offsets, b, _, _ = args
        llvm = context.get_value_type(vector)
        bs = [_load(builder, b, j * VECTOR_BYTES, vector, llvm) for j in range(nv)]
        for i in range(mr):
            offset = builder.load(_at(builder, offsets, 8 * i, ir.IntType(64)))
            number = builder.load(_at(builder, builder.add(a, offset), 0, llvm.element))
            x = _splat(builder, number, llvm)
            for j in range(nv):
                acc = _fuse(builder, acc, i * nv + j, x, bs[j], vector)
        return acc

    return tile(tile, a, offsets, b, rows, vectors), codegen


def _unknown(builder, number):
    """The same number, but LLVM does not know: what is loaded there is loaded anew.

    Else it would keep a large filter's numbers, each in a vector, beyond the registers.
    """
    signature = ir.FunctionType(number.type, [number.type])
    return builder.asm(signature, "", "=r,0", [number], side_effect=True)


@intrinsic
def unknown(typingctx, address):
    """The same address, from which LLVM cannot tell what others are."""
    return types.int64(types.int64), lambda _, builder, __, args: _unknown(builder, args[0])


@intrinsic(prefer_literal=True)
def multiply_add_stacked(typingctx, tile, x, line, weight, rows, vectors, r, s):
    """A whole r x s filter at address ``weight`` over rows + r - 1 rows of x, ``line`` bytes apart.

    Row i of the tile gets input rows i, i+1, ... in this order, each from the left. What is
    loaded once serves all rows that see it.
    """
    vector, mr, nv, literals = tile.dtype, _integer(rows), _integer(vectors), (r, s)
    r, s = _integer(r), _integer(s)

    def codegen(context, builder, signature, args):
        acc, x, line, weight = args[:4]
        llvm, size = context.get_value_type(vector), _size(vector)
        for j, step in enumerate(_steps(builder, line, mr + r - 1)):
            row, weight = builder.add(x, step), _unknown(builder, weight)
            for t in range(s):
                pixels = [
                    _load(builder, row, t * size + v * VECTOR_BYTES, vector, llvm)
                    for v in range(nv)
                ]
                for i in range(max(0, j - r + 1), min(mr, j + 1)):
                    number = builder.load(
                        _at(builder, weight, ((j - i) * s + t) * size, llvm.element)
                    )
                    w = _splat(builder, number, llvm)
                    for v in range(nv):
                        acc = _fuse(builder, acc, i * nv + v, w, pixels[v], vector)
        return acc

    return tile(tile, x, line, weight, rows, vectors, *literals), codegen


@intrinsic(prefer_literal=True)
def load_tile(typingctx, like, source, rows, vectors):
    """Tile of the vectors at an address, one after the other."""
    tile = types.UniTuple(Vector(like), _integer(rows) * _integer(vectors))

    def codegen(context, builder, signature, args):
        acc, llvm = context.get_constant_undef(tile), context.get_value_type(tile.dtype)
        for at in range(tile.count):
            value = _load(builder, args[1], at * VECTOR_BYTES, tile.dtype, llvm)
            acc = builder.insert_value(acc, value, at)
        return acc

    return tile(like, source, rows, vectors), codegen


@intrinsic(prefer_literal=True)
def load_column(typingctx, like, source, step, rows):
    """Tile of one vector wide: those at an address and each ``step`` bytes on."""
    tile = types.UniTuple(Vector(like), _integer(rows))

    def codegen(context, builder, signature, args):
        acc, llvm = context.get_constant_undef(tile), context.get_value_type(tile.dtype)
        for at, offset in enumerate(_steps(builder, args[2], tile.count)):
            value = _load(builder, builder.add(args[1], offset), 0, tile.dtype, llvm)
            acc = builder.insert_value(acc, value, at)
        return acc

    return tile(like, source, step, rows), codegen


@intrinsic
def store_tile(typingctx, tile, target):
    """Write the vectors of a tile one after the other."""

    def codegen(context, builder, signature, args):
        llvm = context.get_value_type(tile.dtype)
        for at in range(tile.count):
            pointer = _at(builder, args[1], at * VECTOR_BYTES, llvm)
            builder.store(builder.extract_value(args[0], at), pointer).align = _size(tile.dtype)
        return context.get_dummy_value()

    return types.none(tile, types.int64), codegen


@intrinsic(prefer_literal=True)
def add_to_rows(typingctx, tile, source, rows, vectors):
    """Add the ``vectors`` vectors at address ``source`` to each row."""
    vector, mr, nv = tile.dtype, _integer(rows), _integer(vectors)

    def codegen(context, builder, signature, args):
        acc, source, _, _ = args
        llvm = context.get_value_type(vector)
        more = [_load(builder, source, j * VECTOR_BYTES, vector, llvm) for j in range(nv)]
        for at in range(mr * nv):
            total = builder.fadd(builder.extract_value(acc, at), more[at % nv])
            acc = builder.insert_value(acc, total, at)
        return acc

    return tile(tile, source, rows, vectors), codegen


@intrinsic(prefer_literal=True)
def add_to_columns(typingctx, tile, source, rows, vectors):
    """Add number i of the ``rows`` numbers at address ``source`` to all of row i."""
    vector, mr, nv = tile.dtype, _integer(rows), _integer(vectors)

    def codegen(context, builder, signature, args):
        acc, source, _, _ = args
        llvm = context.get_value_type(vector)
        for i in range(mr):
            number = builder.load(_at(builder, source, i * _size(vector), llvm.element))
            more = _splat(builder, number, llvm)
            for at in range(i * nv, (i + 1) * nv):
                total = builder.fadd(builder.extract_value(acc, at), more)
                acc = builder.insert_value(acc, total, at)
        return acc

    return tile(tile, source, rows, vectors), codegen


@intrinsic
def add_number(typingctx, tile, source):
    """Add the number at address ``source`` to all of the tile."""
    vector = tile.dtype

    def codegen(context, builder, signature, args):
        acc, llvm = args[0], context.get_value_type(vector)
        more = _splat(builder, builder.load(_at(builder, args[1], 0, llvm.element)), llvm)
        for at in range(tile.count):
            total = builder.fadd(builder.extract_value(acc, at), more)
            acc = builder.insert_value(acc, total, at)
        return acc

    return tile(tile, types.int64), codegen


def _first_lanes(builder, count, lanes):
    """Mask of the lanes below ``count`` (an i64)."""
    integers = ir.VectorType(ir.IntType(64), lanes)
    return builder.icmp_signed(
        "<", ir.Constant(integers, list(range(lanes))), _splat(builder, count, integers)
    )


def _first_of_row(builder, mask, height, row):
    """The mask, or no lane of rows from ``height`` on."""
    inside = builder.icmp_signed(">", height, ir.Constant(height.type, row))
    return builder.select(inside, mask, ir.Constant(mask.type, None))


def _store_some(builder, value, pointer, vector, mask):
    pointer = builder.bitcast(pointer, ir.PointerType())
    align = ir.Constant(_I32, _size(vector))
    name = f"llvm.masked.store.{_suffix(vector)}.p0"
    _call(builder, name, ir.VoidType(), [value, pointer, align, mask])


def _vectors_of_row(builder, vector, width, vectors, each):
    """(mask, where it begins in bytes) of the vectors of a row of ``width`` numbers, ``each`` a vector."""
    for before in _steps(builder, each, vectors):
        left = builder.sub(width, before)
        left = builder.select(builder.icmp_signed("<", left, each), left, each)
        start = builder.mul(before, ir.Constant(before.type, _size(vector)))
        yield _first_lanes(builder, left, vector.lanes), start


@intrinsic(prefer_literal=True)
def store_rows(typingctx, tile, y, y_step, height, width, each, rows, vectors):
    """The first ``width`` numbers of the first ``height`` rows, y_step bytes apart, ``each`` a vector."""
    vector, mr, nv = tile.dtype, _integer(rows), _integer(vectors)

    def codegen(context, builder, signature, args):
        acc, y, y_step, height, width, each, _, _ = args
        llvm = context.get_value_type(vector)
        parts = list(_vectors_of_row(builder, vector, width, nv, each))
        for i, step in enumerate(_steps(builder, y_step, mr)):
            for j, (inside, start) in enumerate(parts):
                pointer = _at(builder, builder.add(builder.add(y, step), start), 0, llvm)
                mask = _first_of_row(builder, inside, height, i)
                value = builder.extract_value(acc, i * nv + j)
                _store_some(builder, value, pointer, vector, mask)
        return context.get_dummy_value()

    return types.none(tile, y, y_step, height, width, each, rows, vectors), codegen


@intrinsic(prefer_literal=True)
def add_rows(typingctx, tile, source, step, height, width, each, rows, vectors):
    """Add the numbers at ``source`` to the part of the tile that `store_rows` would write there."""
    vector, mr, nv = tile.dtype, _integer(rows), _integer(vectors)

    def codegen(context, builder, signature, args):
        acc, source, step, height, width, each, _, _ = args
        llvm = context.get_value_type(vector)
        parts = _vectors_of_row(builder, vector, width, nv, each)
        for j, (mask, start) in enumerate(parts):
            for i, down in enumerate(_steps(builder, step, mr)):
                place = builder.add(builder.add(source, down), start)
                some = _first_of_row(builder, mask, height, i)
                more = _load_some(builder, place, vector, llvm, some)
                total = builder.fadd(builder.extract_value(acc, i * nv + j), more)
                acc = builder.insert_value(acc, total, i * nv + j)
        return acc

    return tile(tile, source, step, height, width, each, rows, vectors), codegen


def _rectify(builder, value):
    zero = ir.Constant(value.type, None)
    return builder.select(builder.fcmp_ordered("<=", value, zero), zero, value)


@intrinsic
def rectified(typingctx, tile):
    """The tile with zeros in place of numbers that are not above zero; NaN stays."""

    def codegen(context, builder, signature, args):
        acc = args[0]
        for at in range(tile.count):
            value = _rectify(builder, builder.extract_value(acc, at))
            acc = builder.insert_value(acc, value, at)
        return acc

    return tile(tile), codegen


@intrinsic
def integer_at(typingctx, address):
    """The int64 at an address."""

    def codegen(context, builder, signature, args):
        return builder.load(_at(builder, args[0], 0, ir.IntType(64)))

    return types.int64(types.int64), codegen


def _load_some(builder, address, vector, llvm, mask):
    """Lanes under the mask, zeros elsewhere; nothing else is read."""
    pointer = builder.inttoptr(address, ir.PointerType())
    align = ir.Constant(_I32, _size(vector))
    name = f"llvm.masked.load.{_suffix(vector)}.p0"
    return _call(builder, name, llvm, [pointer, align, mask, ir.Constant(llvm, None)])


@intrinsic
def size_of(typingctx, like):
    """Bytes of a number of this type."""

    def codegen(context, builder, signature, args):
        return ir.Constant(ir.IntType(64), like.bitwidth // 8)

    return types.int64(like), codegen
