"""Average and maximum pooling over NCHW arrays, their gradients, and pooling as convolution."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from loopnest.ops.window_rules import LIMIT, WINDOW_TOO_LARGE, extent, padding_fits, window_count
from loopnest.runtime import backend, checks, replay, threads

Pair = tuple[int, int]

_AVERAGE, _AVERAGE_BACKWARD, _MAX = replay.Op("ro"), replay.Op("rro"), replay.Op("ro")
_GLOBAL_AVERAGE, _GLOBAL_MAX = replay.Op("ro"), replay.Op("ro")


class Geometry(NamedTuple):
    """A pooling's options as plain ints, and what follows from them."""

    output: Pair
    # Kernel, stride and padding as the kernels take them; and the dilation.
    windows: tuple[int, ...]
    dilated: tuple[int, ...]
    # Of one plane, in the units of threads.split: rows are read, then reduced both ways.
    work: int
    # Elements of work space that max_pool2d takes: a batch of rows, and what is kept of rows.
    space: int


def resolve(
    op: str,
    input_hw: Pair,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> Geometry:
    """Check a pooling's options against its input size (the rules are PyTorch's)."""
    # The usual forms are looked up. Only exact types: True and 1.0 equal 1 but are refused.
    if (
        type(kernel_size) is type(padding) is type(dilation) is int
        and (stride is None or type(stride) is int)
        and type(ceil_mode) is bool
    ):
        return _resolve_cached(op, input_hw, kernel_size, stride, padding, dilation, ceil_mode)
    return _resolve(op, input_hw, kernel_size, stride, padding, dilation, ceil_mode)


def _window(op: str, kernel_size: Any, stride: Any, padding: Any, dilation: Any) -> list[Pair]:
    """Kernel, stride, padding and dilation as pairs, each within its range."""
    kernel = checks.pair(op, "kernel_size", kernel_size, 1, LIMIT)
    return [
        kernel,
        kernel if stride is None else checks.pair(op, "stride", stride, 1, LIMIT),
        checks.pair(op, "padding", padding, 0, LIMIT),
        checks.pair(op, "dilation", dilation, 1, LIMIT),
    ]


def _resolve(
    op: str,
    input_hw: Pair,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> Geometry:
    kernel, step, pad, gaps = _window(op, kernel_size, stride, padding, dilation)
    out = tuple(
        _output_size(op, *sizes, ceil_mode)
        for sizes in zip(input_hw, kernel, step, pad, gaps, strict=True)
    )
    windows = (*kernel, *step, *pad)
    height, width = input_hw
    work = height * width + out[0] * out[1] * (min(kernel[0], height) + min(kernel[1], width))
    rows = max(1, min(8, 4096 // width))
    kept = min((rows - 1) * step[0] + (kernel[0] - 1) * gaps[0] + 1, height)
    space = rows * width + 256 + kept * (max(width, out[1]) + 64)
    return Geometry((out[0], out[1]), windows, (*windows, *gaps), work, space)


_resolve_cached = functools.lru_cache(maxsize=4096)(_resolve)


def _output_size(
    op: str, size: int, kernel: int, stride: int, pad: int, dilation: int, ceil_mode: bool
) -> int:
    if not padding_fits(pad, kernel):
        raise ValueError(
            f"{op}: padding is {pad} for kernel_size {kernel}; accepted: at most half of it"
        )
    count = window_count(size, kernel, stride, pad, pad, dilation, ceil_mode)
    if count == WINDOW_TOO_LARGE:
        raise ValueError(
            f"{op}: window of {extent(kernel, dilation)} is larger than the padded input: "
            f"input {size}, padding {pad} on each side"
        )
    return count


def _flag(op: str, name: str, value: Any) -> bool:
    if value is False or value is True:
        return value
    if not isinstance(value, (bool, np.bool_, int)):
        raise TypeError(f"{op}: {name} is {value!r}; accepted: True or False")
    return bool(value)


def _image(op: str, x: Any) -> np.ndarray:
    x = checks.array(op, "x", x, 4)
    if x.shape[2] < 1 or x.shape[3] < 1:
        raise ValueError(f"{op}: x has shape {x.shape}; accepted: height and width of at least 1")
    return x


def _average_options(op: str, count_include_pad: Any, divisor_override: Any) -> tuple[int, int]:
    """(include_pad, divisor) as the kernels take them; divisor 0 is "no override"."""
    if count_include_pad is True and divisor_override is None:
        return 1, 0
    include = int(_flag(op, "count_include_pad", count_include_pad))
    if divisor_override is None:
        return include, 0
    divisor = checks.integer(op, "divisor_override", divisor_override, -LIMIT, LIMIT)
    if divisor == 0:
        raise ValueError(f"{op}: divisor_override is 0; accepted: another integer, or None")
    return include, divisor


def avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Average pooling, with PyTorch's options and rules.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
        float32 or float64.
    kernel_size : int or (int, int)
        Height and width of the window.
    stride : int or (int, int), optional
        Step between windows; the window's size if left out.
    padding : int or (int, int)
        Rows and columns around the input, at most half the window.
    ceil_mode : bool
        Round the output size up: the last window may hang over the edge.
    count_include_pad : bool
        Whether padding (not what hangs over beyond it) counts in the divisor.
    divisor_override : int, optional
        Divide by this instead of the window's size.
    out : ndarray, shape (N, C, OH, OW), optional
        Where to write; it must not overlap x.

    Returns
    -------
    ndarray, shape (N, C, OH, OW)

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, before anything is written.

    Notes
    -----
    A window's columns are added up from the top, then what came of them from the left. In a window
    of more than 2048 terms both sums go in runs, as `softmax` sums.

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> ln.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    known = _AVERAGE.call(
        x, out, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override,
        backend.kernels, threads.SERIAL_BELOW,
    )  # fmt: skip
    if known is not None:
        return known
    given = x, out, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    op, x = "avg_pool2d", _image("avg_pool2d", x)
    averaging = _average_options(op, count_include_pad, divisor_override)
    ceil_mode = _flag(op, "ceil_mode", ceil_mode)
    g = resolve(op, x.shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    y = checks.output(op, out, (*x.shape[:2], *g.output), x.dtype, (given[0], x))
    kernel, options = backend.kernels.pooling.avg_pool2d, (*g.windows, *averaging)
    planes = x.shape[0] * x.shape[1]
    call = _split(
        kernel, x, options, 2 * x.shape[3] + 256, planes * g.output[0], planes * g.work, y
    )
    _AVERAGE.keep((*given, backend.kernels, threads.SERIAL_BELOW), y, call)
    return y


def _split(
    kernel: Any,
    x: np.ndarray,
    options: tuple[int, ...],
    size: int,
    items: int,
    work: int,
    y: np.ndarray,
) -> replay.Call | None:
    """Call ``kernel(x, *options, space, first, last, y)`` on pieces of ``range(items)``.

    space: ``size`` elements of work space. Returns that call if it can be repeated.
    """
    space = replay.Space(size, x.dtype)
    return replay.split(work, kernel, x, *options, space, replay.Items(items), y)


def avg_pool2d_backward(
    dy: Any,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Gradient of `avg_pool2d` by x.

    Parameters
    ----------
    dy : array_like, shape (N, C, OH, OW)
        Gradient by the output.
    x : array_like, shape (N, C, H, W)
        The input of the forward call (only its shape matters).
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
        As in the forward call.
    out : ndarray, shape (N, C, H, W), optional
        Where to write; it must not overlap dy.

    Returns
    -------
    ndarray, shape (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, before anything is written.
    """
    options = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    given = dy, x, out, *options, backend.kernels, threads.SERIAL_BELOW
    known = _AVERAGE_BACKWARD.call(*given)
    if known is not None:
        return known
    op = "avg_pool2d_backward"
    x, dy = _image(op, x), checks.array(op, "dy", dy, 4)
    dtype = checks.same_dtype(op, dy=dy, x=x)
    averaging = _average_options(op, count_include_pad, divisor_override)
    ceil_mode = _flag(op, "ceil_mode", ceil_mode)
    g = resolve(op, x.shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    checks.same_shape(op, "dy", dy, (*x.shape[:2], *g.output))
    dx = checks.output(op, out, x.shape, dtype, (*given[:2], dy))
    kernel, windows = backend.kernels.pooling.avg_pool2d_backward, (*g.windows, *averaging)
    planes, space = x.shape[0] * x.shape[1], g.output[1] + 2 * x.shape[3] + 320
    call = _split(kernel, dy, windows, space, planes, planes * g.work, dx)
    _AVERAGE_BACKWARD.keep(given, dx, call)
    return dx


def max_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    out: np.ndarray | None = None,
) -> Any:
    """Maximum pooling, with PyTorch's options and rules.

    Parameters
    ----------
    x, kernel_size, stride, padding, ceil_mode, out
        As for `avg_pool2d`; padding is at most half the window and never wins.
    dilation : int or (int, int)
        Step between the elements of a window.
    return_indices : bool
        Also return where each maximum is.

    Returns
    -------
    y : ndarray, shape (N, C, OH, OW)
        NaN where the window holds one.
    indices : ndarray of int64, shape (N, C, OH, OW)
        Only with ``return_indices``: position h*W + w in the plane; of equal values the
        first, of NaNs the last, -1 where dilation leaves a window without a value (and
        its maximum is -inf).

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, before anything is written.
    """
    known = _MAX.call(  # written out: a tuple would cost a tenth of a small call
        x, out, kernel_size, stride, padding, dilation, ceil_mode, return_indices,
        backend.kernels, threads.SERIAL_BELOW,
    )  # fmt: skip
    if known is not None:
        return known
    given = x, out, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    op, x = "max_pool2d", _image("max_pool2d", x)
    ceil_mode = _flag(op, "ceil_mode", ceil_mode)
    g = resolve(op, x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    shape = (*x.shape[:2], *g.output)
    return_indices = _flag(op, "return_indices", return_indices)
    y = checks.output(op, out, shape, x.dtype, (given[0], x))
    kernels, windows = backend.kernels.pooling, g.dilated
    items = shape[0] * shape[1] * shape[2]
    if return_indices:
        indices = checks.output(op, None, shape, np.dtype(np.int64))
        work = 4 * y.size * min(g.windows[0] * g.windows[1], x.shape[2] * x.shape[3])
        rows = replay.Items(items)
        replay.split(work, kernels.max_pool2d_indices, x, *windows, rows, indices, y)
        return y, indices
    work = shape[0] * shape[1] * g.work
    call = _split(kernels.max_pool2d, x, windows, g.space, items, work, y)
    _MAX.keep((*given, backend.kernels, threads.SERIAL_BELOW), y, call)
    return y


def max_pool2d_backward(
    dy: Any,
    x: Any,
    indices: Any,
    kernel_size: Any = None,
    stride: Any = None,
    padding: Any = 0,
    *,
    dilation: Any = 1,
    ceil_mode: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Gradient of `max_pool2d` by x: each output's gradient goes to its maximum.

    Parameters
    ----------
    dy : array_like, shape (N, C, OH, OW)
        Gradient by the output.
    x : array_like, shape (N, C, H, W)
        The input of the forward call (only its shape matters).
    indices : array_like of int, shape (N, C, OH, OW)
        From the forward call with ``return_indices=True``.
    kernel_size, stride, padding, dilation, ceil_mode : optional
        As in the forward call. The indices say all that is needed; with a kernel_size the
        shape of dy is checked against them.
    out : ndarray, shape (N, C, H, W), optional
        Where to write; it must not overlap dy.

    Returns
    -------
    ndarray, shape (N, C, H, W)

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, among them an index outside the plane.
    """
    op = "max_pool2d_backward"
    given, x, dy = (dy, x, indices), _image(op, x), checks.array(op, "dy", dy, 4)
    dtype = checks.same_dtype(op, dy=dy, x=x)
    indices = checks.integer_array(op, "indices", indices)
    ceil_mode = _flag(op, "ceil_mode", ceil_mode)
    if kernel_size is None:
        _window(op, 1, stride, padding, dilation)  # of no use then, but refused if wrong
    else:
        g = resolve(op, x.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
        checks.same_shape(op, "dy", dy, (*x.shape[:2], *g.output))
    checks.same_shape(op, "dy", dy, (*x.shape[:2], *dy.shape[2:]))
    checks.same_shape(op, "indices", indices, dy.shape)
    plane = x.shape[2] * x.shape[3]
    if _outside(indices.reshape(-1), plane):
        wrong = indices.min() if indices.min() < -1 else indices.max()
        raise ValueError(f"{op}: indices holds {wrong}; accepted: -1 to {plane - 1}")
    dx = checks.output(op, out, x.shape, dtype, (*given, dy, indices))
    kernel = backend.kernels.pooling.max_pool2d_backward
    planes = replay.Items(x.shape[0] * x.shape[1])
    replay.split(4 * dy.size + x.size, kernel, dy, indices, planes, dx)
    return dx


def _outside(indices: np.ndarray, plane: int) -> bool:
    """Whether one of them is not from -1 to plane - 1."""
    outside: list[bool] = []
    kernel = backend.kernels.pooling.indices_outside
    threads.split(
        lambda first, last: outside.append(kernel(indices[first:last], plane)),
        indices.size,
        indices.size,
    )
    return any(outside)


def _planes(op: str, x: Any, out: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """x, and the output for one value a plane."""
    given, x = x, _image(op, x)
    return x, checks.output(op, out, (*x.shape[:2], 1, 1), x.dtype, (given, x))


def global_avg_pool2d(x: Any, out: np.ndarray | None = None) -> np.ndarray:
    """Mean of each plane, summed in runs of 2048 terms as `softmax` is.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
        float32 or float64.
    out : ndarray, shape (N, C, 1, 1), optional
        Where to write; it must not overlap x.

    Returns
    -------
    ndarray, shape (N, C, 1, 1)

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit.
    """
    given = x, out, backend.kernels, threads.SERIAL_BELOW
    known = _GLOBAL_AVERAGE.call(*given)
    if known is not None:
        return known
    x, y = _planes("global_avg_pool2d", x, out)
    kernel = backend.kernels.pooling.global_avg_pool2d
    _GLOBAL_AVERAGE.keep(given, y, replay.split(x.size, kernel, x, replay.Items(y.size), y))
    return y


def global_max_pool2d(x: Any, out: np.ndarray | None = None) -> np.ndarray:
    """Maximum of each plane, NaN if it holds one. Parameters are those of `global_avg_pool2d`."""
    given = x, out, backend.kernels, threads.SERIAL_BELOW
    known = _GLOBAL_MAX.call(*given)
    if known is not None:
        return known
    x, y = _planes("global_max_pool2d", x, out)
    call = _split(backend.kernels.pooling.global_max_pool2d, x, (), 256, y.size, x.size, y)
    _GLOBAL_MAX.keep(given, y, call)
    return y


def average_filter(size: Any, channels: int = 1, dtype: Any = np.float64) -> np.ndarray:
    """Average pooling written as a convolution's weight: every entry is 1/(kh kw).

    Parameters
    ----------
    size : int or (int, int)
        The window (kh, kw).
    channels : int
        One filter a channel, for `conv2d` with ``groups=channels``.
    dtype : dtype
        float64 or float32.

    Returns
    -------
    ndarray, shape (channels, 1, kh, kw)

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> bool((ln.conv2d(x, ln.average_filter(2), stride=2) == ln.avg_pool2d(x, 2)).all())
    True
    """
    op = "average_filter"
    kh, kw = checks.pair(op, "size", size, 1, LIMIT)
    channels = checks.integer(op, "channels", channels, 1, LIMIT)
    try:
        dtype = np.dtype(dtype)
    except TypeError:
        pass  # no dtype at all, and told as such
    if dtype not in (checks.F32, checks.F64):
        raise TypeError(f"{op}: dtype is {dtype}; accepted: float32 or float64")
    weight = checks.output(op, None, (channels, 1, kh, kw), dtype)
    weight.fill(1 / (kh * kw))
    return weight
