"""`conv2d` with algorithm="winograd": F(2x2, 3x3), as kernels/winograd.py tells."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from loopnest.ops import packing
from loopnest.ops.window_rules import is_winograd
from loopnest.runtime import backend, replay, scratch, threads


def check(op: str, kernel: tuple[int, int], options: tuple[int, ...]) -> None:
    """Refuse what is no 3x3 convolution of stride 1 and dilation 1."""
    stride, dilation = options[:2], options[4:6]
    if not is_winograd(*kernel, *stride, *dilation):
        raise ValueError(
            f"{op}: algorithm is 'winograd' with kernel {kernel}, stride {stride}, dilation "
            f"{dilation}; accepted: kernel (3, 3), stride 1, dilation 1 (or algorithm 'direct')"
        )


def parts(total: int, deep: int, part: int) -> Iterator[tuple[int, int]]:
    """(first, number) of blocks of filters that are transformed together, ``deep`` a group."""
    first, span = 0, deep if part < deep else total
    while first < total:
        count = min(part, (first // span + 1) * span - first)
        yield first, count
        first += count


@functools.lru_cache(maxsize=1024)
def _cut(kernels: Any, *sizes: int) -> tuple[int, ...]:
    """What `prepare_winograd` gives."""
    return kernels.prepare_winograd(*sizes)


def multiply(
    x: np.ndarray,
    weight: np.ndarray,
    handle: packing.PackedWeight | None,
    bias: np.ndarray,
    options: tuple[int, ...],
    groups: int,
    y: np.ndarray,
) -> None:
    """y = x * weight + bias."""
    kernels = backend.kernels.winograd
    n, channels, k = *x.shape[:2], len(weight)
    strip, columns, part, tasks, size, work_size = _cut(
        kernels, n, channels, k, groups, *y.shape[2:], x.itemsize
    )
    deep = -(-(k // groups) // kernels.FILTERS)
    multiply_adds = 4 * y.size * (channels // groups)
    for first_block, blocks in parts(groups * deep, deep, part):

        def run(u: np.ndarray, first_block: int = first_block, blocks: int = blocks) -> None:
            cut = *options[2:4], groups, strip, columns, first_block, blocks
            space, items = replay.Space(work_size, x.dtype), tasks * max(blocks // deep, 1)
            share = multiply_adds * blocks / (16 * groups * deep)
            operands = x, u, bias, *cut, replay.Items(items), space, y
            replay.split(share, kernels.conv2d_winograd, *operands)

        if handle is not None:
            run(_kept(handle, groups * deep, size)[first_block * size :])
        else:
            with scratch.take(blocks * size, x.dtype) as u:
                _transform(weight, groups, first_block, blocks, u)
                run(u)


def _kept(handle: packing.PackedWeight, blocks: int, size: int) -> np.ndarray:
    """All transformed filters of a handle."""

    def make() -> np.ndarray:
        u = packing.aligned(blocks * size, handle.dtype)
        _transform(handle._weight, handle.groups, 0, blocks, u)
        return u

    return handle.kept("winograd", make)


def _transform(weight: np.ndarray, groups: int, first: int, blocks: int, u: np.ndarray) -> None:
    """Write the transformed filters of so many blocks."""
    kernel, size = backend.kernels.winograd.transform_filters, u.size // blocks
    lanes = 64 // weight.itemsize  # of the widest vector

    def piece(low: int, high: int) -> None:
        with scratch.take(9 * weight.shape[1] * lanes, weight.dtype) as work:
            kernel(weight, groups, first + low, first + high, work, u[low * size : high * size])

    threads.split(piece, blocks, u.size)
