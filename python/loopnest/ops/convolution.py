"""2D convolution over NCHW arrays, and its gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from loopnest.kernels.convolution_phase import phase
from loopnest.ops import activation as activations
from loopnest.ops import packing, winograd
from loopnest.ops import window_rules as rules
from loopnest.ops.shapes import Geometry, resolve
from loopnest.runtime import backend, checks, replay, threads

PLAIN = 0  # the method of kernels/convolution_plan.py that has no vectors to speak of

Run = Callable[[], Any]  # computes, and returns the call that it was if that was small

# Multiply-adds of a gradient below which flipping filters does not pay.
SMALL_GRADIENT = 1 << 15


def _fit(
    op: str,
    x: np.ndarray,
    weight: np.ndarray,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> Geometry:
    """x, weight and the options, checked against each other."""
    # The usual forms are looked up. Only exact types: True and 1.0 equal 1 but are refused.
    if type(stride) is type(dilation) is type(groups) is int and type(padding) in (int, str):
        return _fit_cached(op, x.shape, weight.shape, stride, padding, dilation, groups)
    return _fit_shapes(op, x.shape, weight.shape, stride, padding, dilation, groups)


def _fit_shapes(
    op: str,
    x: tuple[int, ...],
    weight: tuple[int, ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> Geometry:
    groups = checks.integer(op, "groups", groups, 1, rules.LIMIT)
    channels, (k, group_channels, r, s) = x[1], weight
    fault = rules.channels_fault(channels, k, group_channels, groups)
    if fault == rules.GROUPS_DO_NOT_DIVIDE:
        raise ValueError(
            f"{op}: groups is {groups}; accepted: a divisor of x's {channels} channels "
            f"and of weight's {k} filters"
        )
    if fault == rules.OTHER_CHANNELS:
        raise ValueError(
            f"{op}: weight has {group_channels} channels a filter, shape {weight}; "
            f"accepted: {channels // groups}, x has {channels} channels in {groups} groups"
        )
    if r < 1 or s < 1:
        raise ValueError(f"{op}: weight has kernel size {(r, s)}; accepted: at least 1")
    geometry = resolve(op, (x[2], x[3]), (r, s), stride, padding, dilation)
    return geometry._replace(groups=groups)


_fit_cached = functools.lru_cache(maxsize=4096)(_fit_shapes)

_EMPTY = {dtype: np.empty(0, dtype) for dtype in (checks.F32, checks.F64)}
_NO_TAPS = np.empty(0, np.int64)
_CONV2D = replay.Op("rrrro")


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
    algorithm: str = "direct",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """2D convolution, as frameworks define it: cross-correlation, the filter is not flipped.

    Parameters
    ----------
    x : array_like, shape (N, C, H, W)
        float32 or float64, as all arrays of the call.
    weight : array_like or PackedWeight, shape (K, C/groups, R, S)
        The filters; a handle of `pack_weight` saves packing them in each call.
    bias : array_like, shape (K,), optional
        Added to each output channel.
    stride, dilation : int or (int, int)
        Step between outputs, and between taps, at least 1.
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid"
        Zeros around the input; "same" keeps its size (stride 1 only).
    groups : int
        Channels and filters are split into so many independent convolutions.
    activation : str, optional
        Name of an activation of this library, applied to the result.
    algorithm : {"direct", "winograd"}
        How it is computed: "winograd", F(2x2, 3x3), needs 16 multiplications where "direct" needs
        36, for 3x3 filters of stride and dilation 1. It pays from about 16 channels and
        filters of a group on.
    out : ndarray, shape (N, K, OH, OW), optional
        Where to write; it must not overlap an input.

    Returns
    -------
    ndarray, shape (N, K, OH, OW)
        `conv2d_output_shape` gives (OH, OW).

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, before anything is written.

    Notes
    -----
    Each output is one sum in the order (c, r, s) of fused multiply-adds, so the bits depend
    on neither backend nor threads. Padding zeros are multiplied like data: a NaN or infinite
    weight reaches the border.

    With algorithm "winograd" the bits are others (the same in both backends, for any number of
    threads). Of T = C/groups channels, no output is off by more than
    ``32 eps T (T + 11) max|x| max|weight|``, eps of the dtype (and the rounding of the bias). That
    is the worst case; on normal data the error is about 0.6 of direct's from 64 channels on, up to
    4 times it for one channel. Sums of 4 numbers of x and of 9 of a filter are formed, and must
    not overflow. A NaN or infinity in x makes NaN or infinite, not only the outputs
    that see it, but any in the 2 x 2 tiles (counted from output 0, 0) whose 4 x 4 input holds it;
    one in a filter, any of that filter's outputs.
    """
    # Written out: a tuple of the options would cost a sixth of such a call.
    known = _CONV2D.call(
        x, weight, None, bias, out, stride, padding, dilation, groups, activation, algorithm,
        backend.kernels, threads.SERIAL_BELOW,
    )  # fmt: skip
    if known is not None:
        return known
    options = stride, padding, dilation, groups, activation, algorithm
    given: tuple[Any, ...] = x, weight, None, bias, out
    if type(weight) is packing.PackedWeight and weight.ndim == 4 and algorithm == "direct":
        given = x, weight._weight, weight.packed(), bias, out
        known = _CONV2D.call(*given, *options, backend.kernels, threads.SERIAL_BELOW)
        if known is not None:
            return known
    y, runs = _arranged(x, weight, bias, None, *options, out)
    calls = [run() for run in runs]
    _CONV2D.keep((*given, *options, backend.kernels, threads.SERIAL_BELOW), y, *calls)
    return y


def bound(x: Any, weight: Any, bias: Any, more: Any = None, *, out: Any, **options: Any) -> Run:
    """`conv2d` of these very arrays, checked once; for a network's steps.

    ``more``, of the output's shape, is added before the activation. It must not be ``out``.
    """
    names = "stride", "padding", "dilation", "groups", "activation"
    given = (*(options[name] for name in names), "direct", out)
    kernels: Any = None
    runs: list[Run] = []

    def run() -> None:
        nonlocal kernels, runs
        if kernels is not backend.kernels or not runs:
            runs = _arranged(x, weight, bias, more, *given)[1]
            kernels = backend.kernels
        for part in runs:
            part()

    return run


def _arranged(
    x: Any,
    weight: Any,
    bias: Any,
    more: np.ndarray | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
    activation: Any,
    algorithm: Any,
    out: Any,
) -> tuple[np.ndarray, list[Run]]:
    """The output, and what computes it."""
    op, given = "conv2d", (x, weight, bias)
    weight, handle = packing.unpack(op, weight, 4, groups)
    x, weight = checks.array(op, "x", x, 4), checks.array(op, "weight", weight, 4)
    output, resolved, groups = _fit(op, x, weight, stride, padding, dilation, groups)
    dtype = x.dtype
    if bias is not None:
        bias = checks.array(op, "bias", bias, 1)
        checks.same_shape(op, "bias", bias, weight.shape[:1])
        checks.same_dtype(op, x=x, weight=weight, bias=bias)
    elif weight.dtype is not dtype:
        checks.same_dtype(op, x=x, weight=weight)
    if algorithm != "direct":
        checks.choice(op, "algorithm", algorithm, ("direct", "winograd"))
        winograd.check(op, weight.shape[2:], resolved)
    activate = None if activation is None else activations.in_place(op, activation)
    y = checks.output(op, out, (len(x), len(weight), *output), dtype, (*given, x, weight, bias))
    operands = x, weight, handle, _EMPTY[dtype] if bias is None else bias, resolved, groups, y
    rectify = activation == "relu"
    if algorithm == "direct":
        runs = [_multiply(*operands, more, rectify)]
    else:
        assert more is None, "only networks add, and they compute directly"
        runs, rectify = [functools.partial(winograd.multiply, *operands)], False
    if activate is not None and not rectify:
        runs.append(functools.partial(activate, y))
    return y, runs


class _Blocks(NamedTuple):
    """How a convolution is cut; kernels/convolution_plan.py tells the meaning."""

    method: int
    flat: int
    block_h: int
    block_w: int
    tasks: int
    work: int
    taps: int


@functools.lru_cache(maxsize=4096)
def _blocks(driver: Any, *sizes: int) -> _Blocks:
    return _Blocks(*driver.prepare(*sizes))


def _multiply(
    x: np.ndarray,
    weight: np.ndarray,
    handle: packing.PackedWeight | None,
    bias: np.ndarray,
    options: tuple[int, ...],
    groups: int,
    y: np.ndarray,
    more: np.ndarray | None = None,
    rectify: bool = False,
) -> Run:
    """What writes y = x * weight + bias + more, then max(0, y) with ``rectify``: one driver's tasks."""
    n, c, h, w = x.shape
    k, group_channels, r, s = weight.shape
    oh, ow = y.shape[2:]
    multiply_adds = y.size * group_channels * r * s
    stride_h, stride_w, top, left, dilation_h, dilation_w = options
    if r == s == stride_h == stride_w == 1 and top == left == 0 and (oh, ow) == (h, w):
        h, w, oh, ow = 1, h * w, 1, oh * ow  # nothing tells rows apart
        x, y = x.reshape(n, c, h, w), y.reshape(n, k, oh, ow)
    driver = backend.kernels.convolution_driver
    plan = _blocks(
        driver, n, c, h, w, k, groups, r, s, oh, ow, stride_h, stride_w, dilation_h, dilation_w,
        x.itemsize,
    )  # fmt: skip
    if plan.method == PLAIN and more is None and not rectify:
        # Tiny calls go to the plain loops without the driver, whose arguments alone take 0.1 us.
        small = x, weight, bias, *options, groups, replay.Items(plan.tasks), y
        return functools.partial(
            replay.split, multiply_adds, backend.kernels.convolution.conv2d, *small
        )
    none, no_taps = _EMPTY[x.dtype], _NO_TAPS
    operands = (
        x, weight, none if handle is None else handle.packed(), bias, *options, groups,
        plan.method, plan.flat, plan.block_h, plan.block_w, replay.Items(plan.tasks),
        none if more is None else more.reshape(-1), int(rectify),
        replay.Space(plan.work, y.dtype) if plan.work else none,
        replay.Space(plan.taps, np.int64) if plan.taps else no_taps, y,
    )  # fmt: skip
    work = multiply_adds if plan.method == PLAIN else multiply_adds / 16
    return functools.partial(replay.split, work, driver.conv2d_tasks, *operands)


def conv2d_backward(
    dy: Any,
    x: Any,
    weight: Any,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    gradients: Any = None,
    needs_dx: bool = True,
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Gradients of `conv2d` by its input, its weight and its bias.

    Parameters
    ----------
    dy : array_like, shape (N, K, OH, OW)
        Gradient by the output (before any fused activation).
    x, weight, stride, padding, dilation, groups
        As in the forward call.
    gradients : (ndarray, ndarray, ndarray), optional
        Where to write dx, dweight and dbias; None among them for a new array. They must overlap
        neither an input nor one another.
    needs_dx : bool
        False where dx is of no use, as in the first layer of a network: None in its place.

    Returns
    -------
    dx : ndarray, shape of x
    dweight : ndarray, shape of weight
    dbias : ndarray, shape (K,)

    Raises
    ------
    TypeError, ValueError
        For arguments that do not fit, before anything is written.

    Notes
    -----
    dx sums over (k, oh, ow), dweight over (n, oh, ow), each in that order and fused; dbias in
    runs of 2048 terms, as `softmax` sums. Beyond its border dy counts as zeros.
    """
    op, given = "conv2d_backward", (dy, x, weight)
    needs_dx = checks.flag(op, "needs_dx", needs_dx)
    x, weight = checks.array(op, "x", x, 4), checks.array(op, "weight", weight, 4)
    output, options, groups = _fit(op, x, weight, stride, padding, dilation, groups)
    dy = checks.array(op, "dy", dy, 4)
    dtype = checks.same_dtype(op, dy=dy, x=x, weight=weight)
    k = len(weight)
    checks.same_shape(op, "dy", dy, (len(x), k, *output))
    shapes = x.shape, weight.shape, (k,)
    inputs = given[0], dy, given[1], x, given[2], weight
    dx, dweight, dbias = checks.gradients(op, gradients, shapes, dtype, inputs, needs_dx)
    if needs_dx:
        _backward_input(dy, weight, options, groups, dx)
    _backward_weight(x, dy, options, groups, dweight)
    by_bias = backend.kernels.convolution.conv2d_backward_bias
    replay.split(dy.size, by_bias, dy, replay.Items(k), dbias)
    return dx if needs_dx else None, dweight, dbias


def _backward_input(
    dy: np.ndarray, weight: np.ndarray, options: tuple[int, ...], groups: int, dx: np.ndarray
) -> np.ndarray:
    """dx, the forward convolution of dy with the flipped filters, for each phase of the stride."""
    stride_h, stride_w, top, left, dilation_h, dilation_w = options
    n, channels, height, width = dx.shape
    multiply_adds = dy.size * math.prod(weight.shape[1:])
    if multiply_adds < SMALL_GRADIENT:
        plain = backend.kernels.convolution.conv2d_backward_input
        rows = replay.Items(n * channels * height)
        replay.split(multiply_adds, plain, dy, weight, *options, groups, rows, dx)
        return dx
    phases_h = [phase(p, weight.shape[2], stride_h, top, dilation_h) for p in range(stride_h)]
    phases_w = [phase(p, weight.shape[3], stride_w, left, dilation_w) for p in range(stride_w)]
    for row, (tap_h, apart_h, count_h, step_h, pad_h) in enumerate(phases_h[:height]):
        for column, (tap_w, apart_w, count_w, step_w, pad_w) in enumerate(phases_w[:width]):
            part = dx[:, :, row::stride_h, column::stride_w]
            if not count_h * count_w:
                part[...] = 0
                continue
            filters = _flipped(weight[:, :, tap_h::apart_h, tap_w::apart_w], groups)
            y = dx if part.shape == dx.shape else np.empty(part.shape, dx.dtype)
            options = 1, 1, pad_h, pad_w, step_h, step_w
            _multiply(dy, filters, None, _EMPTY[dy.dtype], options, groups, y)()
            if y is not dx:
                part[...] = y
    return dx


def _flipped(weight: np.ndarray, groups: int) -> np.ndarray:
    """(K, C/groups, R, S) as the filters (C, K/groups, R, S) of the convolution backwards."""
    k, channels, r, s = weight.shape
    grouped = weight.reshape(groups, k // groups, channels, r, s)[..., ::-1, ::-1]
    return np.ascontiguousarray(
        grouped.transpose(0, 2, 1, 3, 4).reshape(groups * channels, k // groups, r, s)
    )


def _backward_weight(
    x: np.ndarray, dy: np.ndarray, options: tuple[int, ...], groups: int, dweight: np.ndarray
) -> np.ndarray:
    k, _, r, s = dweight.shape
    n, channels = x.shape[:2]
    stride_h, stride_w, _, _, dilation_h, dilation_w = options
    kernels, multiply_adds = backend.kernels, dy.size * math.prod(dweight.shape[1:])
    *blocks, tasks, work_size, taps_size = kernels.convolution_weight.prepare_weight(
        n, channels, k, groups, r, s, *dy.shape[2:],
        stride_h, stride_w, dilation_h, dilation_w, x.itemsize,
    )  # fmt: skip
    if not tasks:
        plain = kernels.convolution.conv2d_backward_weight
        filters = replay.Items(k)
        replay.split(multiply_adds, plain, x, dy, *options, groups, filters, dweight)
        return dweight
    kernel = kernels.convolution_weight.backward_weight
    spaces = replay.Space(work_size, x.dtype), replay.Space(taps_size, np.int64)
    operands = x, dy, *options, groups, *blocks, replay.Items(tasks), *spaces, dweight
    replay.split(multiply_adds / 16, kernel, *operands)
    return dweight
