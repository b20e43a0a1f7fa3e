"""Output sizes of a 2D convolution: from its options, and which options reach a given size."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

from loopnest.ops.window_rules import LIMIT, WINDOW_TOO_LARGE, extent, same_padding, window_count
from loopnest.runtime import checks

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


class Geometry(NamedTuple):
    """The output size of a convolution, and its options resolved to plain ints."""

    output: Pair
    # Stride, top and left padding, dilation: as the kernels take them.
    options: tuple[int, ...]
    groups: int = 1


def padding_of(op: str, padding: Any, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    """Any accepted form of padding as ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        checks.choice(op, "padding", padding, ("same", "valid"))
        if padding == "valid":
            return (0, 0), (0, 0)
        if stride != (1, 1):
            raise ValueError(f"{op}: padding is 'same' with stride {stride}; accepted: stride 1")
        return same_padding(kernel[0], dilation[0]), same_padding(kernel[1], dilation[1])
    if isinstance(padding, (tuple, list)) and len(padding) == 2:
        if all(isinstance(side, (tuple, list)) for side in padding):
            return (
                checks.pair(op, "padding", padding[0], 0, LIMIT),
                checks.pair(op, "padding", padding[1], 0, LIMIT),
            )
        h, w = checks.pair(op, "padding", padding, 0, LIMIT)
        return (h, h), (w, w)
    if isinstance(padding, (tuple, list)) and len(padding) != 1:
        raise ValueError(
            f"{op}: padding is {padding!r}; accepted: an integer, (ph, pw), "
            "((top, bottom), (left, right)), 'same' or 'valid'"
        )
    h, w = checks.pair(op, "padding", padding, 0, LIMIT)
    return (h, h), (w, w)


def resolve(
    op: str, input_hw: Pair, kernel_hw: Pair, stride: Any, padding: Any, dilation: Any
) -> Geometry:
    """Check a convolution's options against its sizes."""
    # The usual forms are looked up. Only exact types: True and 1.0 equal 1 but are refused.
    if type(stride) is int and type(dilation) is int and type(padding) in (int, str):
        return _resolve_cached(op, input_hw, kernel_hw, stride, padding, dilation)
    return _resolve(op, input_hw, kernel_hw, stride, padding, dilation)


def _resolve(
    op: str, input_hw: Pair, kernel_hw: Pair, stride: Any, padding: Any, dilation: Any
) -> Geometry:
    stride = checks.pair(op, "stride", stride, 1, LIMIT)
    dilation = checks.pair(op, "dilation", dilation, 1, LIMIT)
    sides = padding_of(op, padding, kernel_hw, stride, dilation)
    (top, _), (left, _) = sides
    output = _output_size(op, input_hw, kernel_hw, stride, sides, dilation)
    return Geometry(output, (*stride, top, left, *dilation))


_resolve_cached = functools.lru_cache(maxsize=4096)(_resolve)


def _output_size(
    op: str, input_hw: Pair, kernel_hw: Pair, stride: Pair, padding: Padding, dilation: Pair
) -> Pair:
    sizes = []
    for size, k, s, (before, after), d in zip(
        input_hw, kernel_hw, stride, padding, dilation, strict=True
    ):
        sizes.append(window_count(size, k, s, before, after, d, False))
        if sizes[-1] == WINDOW_TOO_LARGE:
            raise ValueError(
                f"{op}: kernel {kernel_hw} with dilation {dilation} is larger than the padded "
                f"input: input {input_hw}, padding {padding}"
            )
    return sizes[0], sizes[1]


def conv2d_output_shape(
    input_hw: Any, kernel_hw: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> Pair:
    """Height and width of a convolution's output.

    floor((size + padding - dilation (kernel - 1) - 1) / stride) + 1 along each axis, with
    the padding of both sides.

    Parameters
    ----------
    input_hw, kernel_hw : int or (int, int)
        Height and width, at least 1.
    stride, dilation : int or (int, int)
        At least 1.
    padding : int, (int, int), ((top, bottom), (left, right)), "same" or "valid"
        Rows and columns of zeros around the input.

    Returns
    -------
    (int, int)
        Output height and width.

    Raises
    ------
    TypeError, ValueError
        For options out of range, or a kernel larger than the padded input.

    Examples
    --------
    >>> from loopnest import conv2d_output_shape
    >>> conv2d_output_shape(4, 3, padding=1)
    (4, 4)
    """
    op = "conv2d_output_shape"
    size = checks.pair(op, "input_hw", input_hw, 1, LIMIT)
    kernel = checks.pair(op, "kernel_hw", kernel_hw, 1, LIMIT)
    return resolve(op, size, kernel, stride, padding, dilation).output


class Reach(NamedTuple):
    """A stride and a padding, in the simplest form that `conv2d` takes."""

    stride: int | Pair
    padding: int | Pair | Padding

    @property
    def symmetric(self) -> bool:
        """Whether both sides of each axis are padded alike."""
        if isinstance(self.padding, int) or isinstance(self.padding[0], int):
            return True
        return all(before == after for before, after in self.padding)


def _simplest(stride: Pair, padding: Padding) -> Reach:
    (top, bottom), (left, right) = padding
    simple: int | Pair | Padding = padding
    if top == bottom and left == right:
        simple = top if top == left else (top, left)
    return Reach(stride[0] if stride[0] == stride[1] else stride, simple)


def conv2d_paddings_for(
    input_hw: Any,
    output_hw: Any,
    kernel_hw: Any,
    *,
    stride: Any = range(1, 5),
    dilation: Any = 1,
    max_padding: int | None = None,
) -> list[Reach]:
    """Every stride and padding with which a convolution reaches a given output size.

    Parameters
    ----------
    input_hw, output_hw, kernel_hw : int or (int, int)
        Height and width, at least 1.
    stride : int, (int, int) or iterable of int
        The one stride to try, as int or pair, or several (any iterable but a tuple of two:
        a range, a list); the default tries 1 to 4.
    dilation : int or (int, int)
        At least 1.
    max_padding : int, optional
        Largest padding of one side; by default the extent of the (dilated) kernel: with
        more than that, windows see nothing but zeros.

    Returns
    -------
    list of Reach
        Pairs ``(stride, padding)`` in the simplest form that `conv2d` takes, symmetric ones
        (``.symmetric``) first; empty if there is none.

    Raises
    ------
    TypeError, ValueError
        For sizes or bounds out of range.

    Examples
    --------
    >>> from loopnest import conv2d_paddings_for
    >>> conv2d_paddings_for(4, 4, 2, stride=2)
    [Reach(stride=2, padding=2)]
    """
    op = "conv2d_paddings_for"
    size = checks.pair(op, "input_hw", input_hw, 1, LIMIT)
    target = checks.pair(op, "output_hw", output_hw, 1, LIMIT)
    kernel = checks.pair(op, "kernel_hw", kernel_hw, 1, LIMIT)
    dilation = checks.pair(op, "dilation", dilation, 1, LIMIT)
    several = isinstance(stride, Iterable) and not isinstance(stride, (tuple, str))
    strides = [checks.pair(op, "stride", s, 1, LIMIT) for s in (stride if several else [stride])]
    reach = [extent(k, d) for k, d in zip(kernel, dilation, strict=True)]
    bound = (
        reach if max_padding is None else [checks.integer(op, "max_padding", max_padding, 0)] * 2
    )
    found = []
    for pair in strides:
        rows, columns = (
            _sides_for(size[a], target[a], reach[a], pair[a], bound[a]) for a in (0, 1)
        )
        found += [_simplest(pair, sides) for sides in itertools.product(rows, columns)]
    return sorted(found, key=lambda reach: not reach.symmetric)


def _sides_for(size: int, target: int, reach: int, stride: int, bound: int) -> list[Pair]:
    """Every (before, after) up to the bound that gives ``target`` outputs along one axis."""
    least = max(0, (target - 1) * stride + reach - size)
    most = min(target * stride + reach - 1 - size, 2 * bound)
    return [
        (before, total - before)
        for total in range(least, most + 1)
        for before in range(max(0, total - bound), min(bound, total) + 1)
    ]
