"""C twins of ``loopnest.kernels.descent``."""

from __future__ import annotations

from loopnest._c import ffi
from loopnest.ops.c.call import by_dtype, pointer

_descend = by_dtype("descend")


def descend(objective, method, start, lr, momentum, steps, schedule, *rest):
    beta1, beta2, eps, weight_decay, tol, every, stop, first, last, *outputs = rest
    options = ffi.new(
        "ln_descend_options *",
        (objective, method, steps, schedule.shape[0], every)
        + (beta1, beta2, eps, weight_decay, tol, pointer(stop)),
    )
    *columns, trajectory = outputs
    _descend[start.dtype](
        options,
        *[pointer(a) for a in (start, lr, momentum, schedule)],
        start.size,
        first,
        last,
        *[pointer(a) for a in columns],
        pointer(trajectory) if every else ffi.NULL,
    )
