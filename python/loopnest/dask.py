"""Chunked arrays: `descend` over grids of problems, convolution and pooling of large images.

The functions are those of loopnest, on Dask arrays, and lazy; what Dask computes has the bits of the
in-memory call, for an output depends on its own window only, not on how the work is cut. Needs
Dask: ``pip install loopnest[dask]``. On several processes every worker compiles or loads
its kernels once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import loopnest as ln
from loopnest.descent.descent import Descent
from loopnest.objectives import Objective
from loopnest.ops import pooling
from loopnest.ops import shapes as output_size
from loopnest.ops.window_rules import LIMIT, extent
from loopnest.runtime import checks

try:
    import dask.array as da
except ImportError as error:
    raise ImportError(
        f"loopnest.dask needs Dask ({error}); install it with 'pip install loopnest[dask]'"
    ) from error

__all__ = ["avg_pool2d", "conv2d", "descend", "max_pool2d"]


def _array(op: str, value: Any, ndim: int | None = None) -> Any:
    """A Dask array of float32 or float64."""
    array = value if isinstance(value, da.Array) else da.asarray(checks.plain(op, "x", value))
    if array.dtype.kind in "iub":
        array = array.astype(np.float64)
    if array.dtype not in (checks.F32, checks.F64):
        raise TypeError(f"{op}: x has dtype {array.dtype}; accepted: float32 or float64")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{op}: x has {array.ndim} dimensions; accepted: {ndim}")
    if any(np.isnan(size) for size in array.shape):
        raise ValueError(f"{op}: x has chunks of unknown size; accepted: x.compute_chunk_sizes()")
    return array


# ---- descents ----

_FIELDS = ("x", "fun", "grad", "steps", "converged", "diverged")


def _records(dtype: np.dtype) -> np.dtype:
    """What one problem gives."""
    kinds = (dtype, dtype, dtype, np.int64, np.bool_, np.bool_)
    return np.dtype(list(zip(_FIELDS, kinds, strict=True)))


def _descend_block(
    x0: np.ndarray, lr: np.ndarray, momentum: np.ndarray, objective: Any, options: dict
) -> np.ndarray:
    found = ln.descend(objective, x0, lr=lr, momentum=momentum, **options)
    records = np.empty(np.shape(found.x), _records(x0.dtype))
    for name in _FIELDS:
        records[name] = getattr(found, name)
    return records


def descend(
    objective: Any, x0: Any, *, lr: Any, steps: int, momentum: Any = 0.0, **options: Any
) -> Descent:
    """`loopnest.descend` over chunked grids of problems.

    Parameters
    ----------
    objective, steps, options
        As for `loopnest.descend`, but for ``record``, betas and alpha, which must be numbers;
        functions of one variable. Functions of the caller travel to the workers by pickle.
    x0, lr, momentum : dask array, array_like or number
        They broadcast against each other; each chunk is a task.

    Returns
    -------
    loopnest.Descent
        Its arrays are Dask arrays, not computed yet; ``trajectory`` is None, and so is ``path``.

    Raises
    ------
    TypeError, ValueError
        As `loopnest.descend`, at once where the arguments show it, else when computing.
    """
    op = "descend"
    if options.get("record", False) is not False:
        raise ValueError(f"{op}: record is {options['record']!r}; accepted on Dask: False")
    if isinstance(objective, Objective):
        raise TypeError(f"{op}: objective is an Objective; accepted on Dask: of one variable")
    start = _array(op, x0)
    rates = [da.asarray(v) for v in (lr, momentum)]
    shapes = {"x0": start.shape, "lr": rates[0].shape, "momentum": rates[1].shape}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"{op}: shapes {listed}; accepted: shapes that broadcast against each other"
        ) from None
    options = {"steps": steps, **options}
    # Without problems: refuses bad options here and not on a worker.
    ln.descend(objective, np.empty(0, start.dtype), lr=0.0, **options)
    block = partial(_descend_block, objective=objective, options=options)
    records = da.core.elemwise(block, start, *rates, dtype=_records(start.dtype))
    x, fun, grad, taken, converged, diverged = (records[name] for name in _FIELDS)
    return Descent(x, fun, grad, taken, converged, None, diverged, None)  # type: ignore[arg-type]


# ---- windows ----


@dataclass(frozen=True)
class _Span:
    """A run of outputs along one axis: the input it needs, and where it is in the result."""

    first: int  # input[first:last]
    last: int
    skip: int  # outputs before the run, whose windows reach into padding that is not there
    count: int


def _spans(
    chunks: tuple[int, ...], outputs: int, window: int, stride: int, before: int
) -> list[_Span]:
    """Runs of outputs for the chunks of an axis, each about where its input chunk is.

    Every piece is padded like the whole. So that this does not matter inside, a piece starts
    as many windows early as padding reaches, and ends where its last window ends.
    """
    size, early = sum(chunks), -(-before // stride)
    borders = np.clip(-(-(np.cumsum(chunks) + before - window + 1) // stride), 0, outputs)
    borders = np.unique(np.concatenate([[0], borders[:-1], [outputs]]))
    spans = []
    for start, stop in pairwise(borders):
        # Windows of padding alone still get a piece of the input, if only to have its type.
        first = max(0, min(start - early, (size - 1) // stride)) * stride
        last = min(size, max(first + 1, (stop - 1) * stride - before + window))
        # With ceil_mode a last window may be alone and cut short: give it a whole one.
        first = min(first, max(0, last - window) // stride * stride)
        spans.append(_Span(int(first), int(last), int(start - first // stride), int(stop - start)))
    return spans


def _piece(x: np.ndarray, function: Any, arguments: tuple, options: dict, cut: tuple) -> np.ndarray:
    y = function(x, *arguments, **options)
    (top, height), (left, width) = cut
    return np.ascontiguousarray(y[:, :, top : top + height, left : left + width])


def _windows(
    x: Any, function: Any, arguments: tuple, options: dict, channels: int, outputs: tuple,
    window: tuple, stride: tuple, before: tuple,
) -> Any:  # fmt: skip
    """``function`` on the pieces of x that make the outputs, put together."""
    rows, columns = (
        _spans(x.chunks[2 + i], outputs[i], window[i], stride[i], before[i]) for i in (0, 1)
    )
    bands = []
    for row in rows:
        band = []
        for column in columns:
            piece = x[:, :, row.first : row.last, column.first : column.last]
            piece = piece.rechunk({1: -1, 2: -1, 3: -1})
            cut = (row.skip, row.count), (column.skip, column.count)
            chunks = (piece.chunks[0], (channels,), (row.count,), (column.count,))
            result = da.map_blocks(
                _piece, piece, function=function, arguments=arguments, options=options, cut=cut,
                dtype=x.dtype, chunks=chunks, meta=np.empty((0,) * 4, x.dtype),
            )  # fmt: skip
            band.append(result)
        bands.append(da.concatenate(band, axis=3))
    return da.concatenate(bands, axis=2)


def conv2d(
    x: Any, weight: Any, bias: Any = None, *, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1, activation: str | None = None,
) -> Any:  # fmt: skip
    """`loopnest.conv2d` of a chunked x, lazily.

    Parameters
    ----------
    x : dask array, (N, C, H, W)
        Chunked along N, H and W as one likes; chunks along C are joined.
    weight, bias, stride, padding, dilation, groups, activation
        As for `loopnest.conv2d`; weight and bias in memory.

    Returns
    -------
    dask array, (N, K, OH, OW)

    Raises
    ------
    TypeError, ValueError
        As `loopnest.conv2d`, at once.
    """
    op = "conv2d"
    x, weight = _array(op, x, 4), checks.array(op, "weight", weight, 4)
    options = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups,
        "activation": activation,
    }  # fmt: skip
    # Without images: refuses here what does not fit.
    ln.conv2d(np.empty((0, *x.shape[1:]), x.dtype), weight, bias, **options)
    r, s = weight.shape[2:]
    found = output_size.resolve(op, x.shape[2:], (r, s), stride, padding, dilation)
    dilations, steps = found.options[4:], found.options[:2]
    window = extent(r, dilations[0]), extent(s, dilations[1])
    return _windows(
        x, ln.conv2d, (weight, bias), options, weight.shape[0], found.output, window, steps,
        found.options[2:4],
    )  # fmt: skip


def _pool(op: str, function: Any, x: Any, options: dict, dilation: Any) -> Any:
    x = _array(op, x, 4)
    function(np.empty((0, *x.shape[1:]), x.dtype), **options)
    kernel = checks.pair(op, "kernel_size", options["kernel_size"], 1, LIMIT)
    stride, padding = options["stride"], checks.pair(op, "padding", options["padding"], 0, LIMIT)
    stride = kernel if stride is None else checks.pair(op, "stride", stride, 1, LIMIT)
    gaps = checks.pair(op, "dilation", dilation, 1, LIMIT)
    output = pooling.resolve(
        op, x.shape[2:], kernel, stride, padding, gaps, options["ceil_mode"]
    ).output
    window = tuple(extent(k, d) for k, d in zip(kernel, gaps, strict=True))
    return _windows(x, function, (), options, x.shape[1], output, window, stride, padding)


def avg_pool2d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, *, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    """`loopnest.avg_pool2d` of a chunked x (N, C, H, W), lazily; errors at once."""
    options = {
        "kernel_size": kernel_size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode,
        "count_include_pad": count_include_pad, "divisor_override": divisor_override,
    }  # fmt: skip
    return _pool("avg_pool2d", ln.avg_pool2d, x, options, 1)


def max_pool2d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, *, dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:  # fmt: skip
    """`loopnest.max_pool2d` of a chunked x (N, C, H, W), lazily, without indices; errors at once."""
    options = {
        "kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation,
        "ceil_mode": ceil_mode,
    }  # fmt: skip
    return _pool("max_pool2d", ln.max_pool2d, x, options, dilation)
