"""Packed weights inside ``@njit``: a handle goes in as an argument and stands for its weight."""

import numba
from numba import types
from numba.core import cgutils
from numba.extending import (
    NativeValue,
    make_attribute_wrapper,
    models,
    overload,
    register_model,
    typeof_impl,
    unbox,
)

from loopnest.kernels.jit import PART, jitable
from loopnest.ops.njit.common import contiguous
from loopnest.ops.packing import PackedWeight


class PackedWeightType(types.Type):
    """A `PackedWeight`: the weight, its packed form and the groups it is for."""

    def __init__(self, dtype, ndim):
        self.dtype, self.ndim = dtype, ndim
        self.weight = types.Array(dtype, ndim, "C", readonly=True)
        self.packed = types.Array(dtype, 1, "C")
        super().__init__(name=f"PackedWeight({dtype}, {ndim})")


@register_model(PackedWeightType)
class _PackedWeightModel(models.StructModel):
    def __init__(self, manager, fe_type):
        members = [("weight", fe_type.weight), ("packed", fe_type.packed), ("groups", types.int64)]
        super().__init__(manager, fe_type, members)


# What is packed has a private name: compiled code could write to it, and the kernels take it as it is.
for _name, _python_name in (("weight", "weight"), ("packed", "_packed"), ("groups", "groups")):
    make_attribute_wrapper(PackedWeightType, _name, _python_name)


@typeof_impl.register(PackedWeight)
def _typeof(handle, context):
    return PackedWeightType(numba.from_dtype(handle.dtype), handle.ndim)


@unbox(PackedWeightType)
def _unbox(typ, handle, c):
    value = cgutils.create_struct_proxy(typ)(c.context, c.builder)
    failed = cgutils.alloca_once_value(c.builder, cgutils.false_bit)
    for name, kind in (
        ("weight", typ.weight),
        ("numba_packed", typ.packed),
        ("groups", types.int64),
    ):
        member = c.pyapi.object_getattr_string(handle, name)
        with c.builder.if_then(cgutils.is_null(c.builder, member), likely=False):
            c.builder.store(cgutils.true_bit, failed)
        with cgutils.if_likely(c.builder, cgutils.is_not_null(c.builder, member)):
            native = c.unbox(kind, member)
            setattr(value, name.removeprefix("numba_"), native.value)
            c.pyapi.decref(member)
            with c.builder.if_then(native.is_error):
                c.builder.store(cgutils.true_bit, failed)
    return NativeValue(value._getvalue(), is_error=c.builder.load(failed))


def weight_of(argument):
    """Type of the array that a weight argument is or stands for."""
    return argument.weight if isinstance(argument, PackedWeightType) else argument


def array_in(argument):
    """The array that a weight argument is or stands for, in compiled code."""
    raise NotImplementedError("for compiled code")


@overload(array_in, jit_options=PART)
def _array_in(argument):
    if isinstance(argument, PackedWeightType):
        return lambda argument: argument.weight
    return lambda argument: argument


def unpack(op, argument, dtype):
    """Compiled function ``(weight, groups) -> (array, its packed form or nothing)``."""
    if not isinstance(argument, PackedWeightType):
        prepare = contiguous(argument, dtype)

        def array(weight, groups):
            prepared = prepare(weight)
            return prepared, prepared.reshape(prepared.size)[:0]  # nothing is allocated

        return jitable(array)
    message = op + ": weight is packed for other groups"

    def handle(weight, groups):
        if weight.groups != groups:
            raise ValueError(message)
        return weight.weight, weight._packed

    return jitable(handle)
