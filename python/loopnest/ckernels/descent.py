"""C twins of ``loopnest.kernels.descent``."""

from __future__ import annotations

from loopnest._c import ffi
from loopnest.ckernels.call import by_dtype, pointer

_descend = by_dtype("descend")


def descend(objective, method, start, lr, momentum, steps, corrections, *rest):
    beta1, beta2, eps, weight_decay, tol, record, first, last, *outputs = rest
    rows = corrections.shape[0]
    options = ffi.new(
        "ln_descend_options *",
        (objective, method, steps, rows, beta1, beta2, eps, weight_decay, tol),
    )
    x, fun, grad, taken, converged, trajectory = outputs
    _descend[start.dtype](
        options,
        *[pointer(a) for a in (start, lr, momentum, corrections)],
        start.size,
        first,
        last,
        *[pointer(a) for a in (x, fun, grad, taken, converged)],
        pointer(trajectory) if record else ffi.NULL,
    )
