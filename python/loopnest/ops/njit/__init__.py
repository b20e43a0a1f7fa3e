"""The public functions inside ``@njit``: one Numba overload each.

Numba calls `init` through the ``numba_extensions`` entry point when it first compiles
something. An overload checks, makes the output and calls the same kernels as the
package does, so the bits are the same; it runs on the caller's thread.
"""


def init() -> None:
    """Register all overloads."""
    from loopnest.ops.njit import (
        activation,
        convolution,
        dense,
        descent,
        gates,
        loss,
        optimizer,
        pooling,
    )
