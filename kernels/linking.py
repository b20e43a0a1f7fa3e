"""Kernels that compiled functions call where they are, instead of taking them in.

Numba compiles all that a function calls into that function: seconds for each caller of a
convolution. A kernel linked here is compiled once (or comes from the cache on disk), when a
caller first gets to it, and is called through its address. Callers can still be cached: what
they keep of a kernel is its name and the types of the arguments.
"""

import inspect
import sys
from importlib import import_module

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.cgutils import is_null
from numba.extending import intrinsic


class KernelAddress:
    """What finds a kernel's machine code, in any process; callers hold it pickled."""

    def __init__(self, kernel, arguments):
        names = vars(sys.modules[kernel.__module__]).items()
        self.module, self.name = kernel.__module__, next(n for n, v in names if v is kernel)
        self.parameters = _parameters(kernel)
        self.arguments = arguments

    def __call__(self):
        kernel = getattr(import_module(self.module), self.name, None)
        if kernel is None or _parameters(kernel) != self.parameters:
            raise RuntimeError(
                f"loopnest: a function in Numba's cache calls {self.name}"
                f"({', '.join(self.parameters)}), which this version of loopnest has not; "
                "remove the __pycache__ folder beside that function"
            )
        kernel.compile(self.arguments)
        compiled = kernel.overloads[self.arguments]
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)


def _parameters(kernel):
    return list(inspect.signature(kernel.py_func).parameters)


def linked(kernel):
    """A kernel without result, for compiled code: a call is one through its address."""

    def call(typingctx, *given):
        arguments = tuple(_plain(argument) for argument in given)
        finder = KernelAddress(kernel, arguments)

        def codegen(context, builder, signature, values):
            convention = context.call_conv
            kind = convention.get_function_type(types.none, arguments).as_pointer()
            function = builder.inttoptr(_address(context, builder, finder), kind)
            status, result = convention.call_function(
                builder,
                function,
                types.none,
                arguments,
                cgutils.unpack_tuple(builder, values[0], len(arguments)),
            )
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return result

        return types.none(types.StarArgTuple.from_types(arguments)), codegen

    call.__qualname__ = f"{kernel.__module__}.{kernel.py_func.__qualname__}"  # for `own_name`
    return intrinsic(call)


def _plain(argument):
    """A type without what asks for a compilation of its own: a constant's value, read-only."""
    if isinstance(argument, types.Array):
        return argument.copy(readonly=False)
    return types.unliteral(argument)


def _address(context, builder, finder):
    """The address, in a variable of the module once it has been asked for."""
    word = ir.IntType(64)
    kept = cgutils.add_global_variable(builder.module, word, builder.module.get_unique_name("at"))
    kept.linkage, kept.initializer = "internal", word(0)
    with cgutils.if_unlikely(builder, is_null(builder, builder.load(kept))):
        builder.store(_ask(context, builder, finder), kept)
    return builder.load(kept)


def _ask(context, builder, finder):
    """Call ``finder`` in Python; what it raises is raised in the compiled function."""
    api = context.get_python_api(builder)
    lock = api.gil_ensure()
    function = api.unserialize(api.serialize_object(finder))
    answer = api.call_function_objargs(function, ())
    with cgutils.if_unlikely(builder, is_null(builder, answer)):
        api.gil_release(lock)
        context.call_conv.return_exc(builder)
    address = api.long_as_longlong(answer)
    api.decref(answer)
    api.decref(function)
    api.gil_release(lock)
    return address
