"""Loops over rows, which pooling is made of; all of them vectorise.

Arrays are flat, with offsets. Counts are rounded up by `rounded` where there is room, for
the rest that does not fill a vector would run one by one, and rows are short: what is
written too much lies in work space, or is overwritten by the next row.
"""

import numpy as np

from loopnest.kernels.jit import block, fragment, scalar

# Forced inline: Numba counts the references of an array that is passed on, at each call.
from loopnest.kernels.simd import select
from loopnest.kernels.simd_copies import copy_lanes, stream_line
from loopnest.kernels.simd_pooling import (
    larger,
    larger_or_nan,
    larger_places,
    load_alternate,
    load_some,
    no_places,
    store_places,
    store_some,
    unordered,
)
from loopnest.kernels.simd_prefetch import prefetch
from loopnest.kernels.simd_tiles import VECTOR_BYTES, load_tile, size_of, store_tile
from loopnest.kernels.wide import (
    LANES,
    evens,
    high_twice,
    load,
    low_twice,
    mul,
    odds,
    splat,
    store,
)
from loopnest.kernels.wide import add as plus

_U = np.uint64
_LINE, _AHEAD = _U(64), _U(4096)  # bytes
PARTS = 4  # of an average of 2x2 that is streamed
SLACK = 64  # elements of work space behind a row, for counts rounded up
STREAM_FROM = 8 << 20  # bytes of output: four times a large L2


# ---- windows ----


@scalar
def window(out, stride, pad, size, kernel_size):
    """(first, last, padded) of a window: clipped to the input, and its length with padding."""
    start = out * stride - pad
    end = min(start + kernel_size, size + pad)
    return max(start, 0), min(end, size), end - start


@scalar
def inner(stride, pad, size, extent, out):
    """[first, last) of the outputs whose windows lie within the input."""
    first = min((pad + stride - 1) // stride, out)
    fitting = (size - extent + pad) // stride + 1 if size + pad >= extent else 0
    return first, max(first, min(fitting, out))


@scalar
def taps(start, size, kernel_size, dilation):
    """[first, last) of the taps, the first at ``start``, that lie within the input."""
    if dilation == 1:
        first, last = max(0, -start), min(kernel_size, size - start)
    else:
        first = (-start + dilation - 1) // dilation if start < 0 else 0
        last = min((size - 1 - start) // dilation + 1 if start < size else 0, kernel_size)
    return first, max(first, last)


@scalar
def batch(width):
    """How many rows are worked on together: 16 KB of float32.

    A row that was just written is not read at once: the CPU would have to wait for it.
    """
    return max(1, min(8, 4096 // width))


@scalar
def element(position, half):
    """Where the element at ``position`` of a row is, once it is split (half is not 0)."""
    return (position & 1) * half + (position >> 1) if half else position


# ---- rows ----


@scalar
def rounded(count, room):
    """``count`` as a multiple of 32, but at most ``room``."""
    return min((count + 31) & ~31, room)


@scalar
def fill(y, to, count, value):
    to = _U(to)
    for i in range(_U(count)):
        y[to + i] = value


@scalar
def copy(x, a, y, to, count):
    a, to = _U(a), _U(to)
    for i in range(_U(count)):
        y[to + i] = x[a + i]


@scalar
def split(x, a, y, even, odd, count):
    """``count`` pairs: the first of each to y[even:], the second to y[odd:]."""
    a, even, odd = _U(a), _U(even), _U(odd)
    for i in range(_U(count)):
        y[even + i] = x[a + _U(2) * i]
        y[odd + i] = x[a + _U(2) * i + _U(1)]


@scalar
def merge(x, even, odd, y, to, count):
    """The reverse of `split`."""
    even, odd, to = _U(even), _U(odd), _U(to)
    for i in range(_U(count)):
        y[to + _U(2) * i] = x[even + i]
        y[to + _U(2) * i + _U(1)] = x[odd + i]


@scalar
def fetch(address, size):
    """Ask for ``size`` bytes that will be read some rows later; they need not exist.

    The CPU looks ahead by itself, but not beyond a page of 4 KB: it starts anew on each.
    """
    for at in range(_U(0), _U(size), _LINE):
        prefetch(address + _AHEAD + at, 0)


@scalar
def twice(x, a, y, to, count):
    """Each number twice, and 0 in place of -0; reads and writes up to whole vectors."""
    zero = splat(x.dtype.type(0))
    for i in range(_U(0), _U(count), _U(LANES)):
        v, at = plus(load(x, _U(a) + i), zero), _U(to) + _U(2) * i
        store(y, at, low_twice(v))
        store(y, at + _U(LANES), high_twice(v))


@block
def move(zero, source, target, count):
    """Copy ``count`` numbers of the type of ``zero`` between addresses."""
    for left in range(count, 0, -(VECTOR_BYTES // size_of(zero))):
        copy_lanes(zero, source, target, left)
        source += VECTOR_BYTES
        target += VECTOR_BYTES


@fragment
def stream(zero, source, target, count):
    """Write numbers of a buffer, as many as fill cache lines; how many were written.

    A line that is streamed need not be read before it is written, which is half of what memory
    would have to do.
    """
    size = size_of(zero)
    head = min(count, -target % 64 // size)  # up to the first line
    move(zero, source, target, head)
    source, target = source + head * size, target + head * size
    line = 64 // size
    for _ in range((count - head) // line):
        stream_line(source, target)
        source, target = source + 64, target + 64
    return head + (count - head) // line * line


# ---- sums: each begins with 0, so that -0 becomes 0 ----


@scalar
def first_sum(x, a, y, to, count):
    a, to = _U(a), _U(to)
    for i in range(_U(count)):
        y[to + i] = x[a + i] + x.dtype.type(0)


@scalar
def first_sum_of_2(x, a, b, y, to, count):
    a, b, to = _U(a), _U(b), _U(to)
    for i in range(_U(count)):
        y[to + i] = (x[a + i] + x.dtype.type(0)) + x[b + i]


@scalar
def add(x, a, y, to, count):
    a, to = _U(a), _U(to)
    for i in range(_U(count)):
        y[to + i] += x[a + i]


@scalar
def sum_of_2_by_2(x, a, b, i):
    """Sum of a pair of two rows, in the order of the general case."""
    zero, left, right = x.dtype.type(0), _U(2) * i, _U(2) * i + _U(1)
    return (((x[a + left] + zero) + x[b + left]) + zero) + ((x[a + right] + zero) + x[b + right])


@scalar
def mean_of_2_by_2(x, a, b, y, to, count, divisor):
    """Sums of the pairs of two rows, divided as `divide` does it; the usual pooling."""
    a, b, to = _U(a), _U(b), _U(to)
    by = y.dtype.type(divisor)
    if divisor & (divisor - 1) == 0:
        # In vectors by hand: LLVM would check at each short row whether y overlaps x.
        by = y.dtype.type(1) / by
        zero, factor, whole = splat(x.dtype.type(0)), splat(by), _U(count) & ~_U(LANES - 1)
        for i in range(_U(0), whole, _U(LANES)):
            p, q = a + _U(2) * i, b + _U(2) * i
            low = plus(plus(load(x, p), zero), load(x, q))
            high = plus(plus(load(x, p + _U(LANES)), zero), load(x, q + _U(LANES)))
            sums = plus(plus(evens(low, high), zero), odds(low, high))
            store(y, to + i, mul(sums, factor))
        for i in range(whole, _U(count)):
            y[to + i] = sum_of_2_by_2(x, a, b, i) * by
    else:
        for i in range(_U(count)):
            y[to + i] = sum_of_2_by_2(x, a, b, i) / by


@scalar
def divide(y, to, count, divisor):
    """Divide by an integer; by a power of two as a product, which gives the same bits."""
    to = _U(to)
    by = y.dtype.type(divisor)
    if divisor & (divisor - 1) == 0:
        by = y.dtype.type(1) / by
        for i in range(_U(count)):
            y[to + i] *= by
    else:
        for i in range(_U(count)):
            y[to + i] /= by


@scalar
def sum_of_few(x, first, last):
    total = x.dtype.type(0)
    for i in range(_U(first), _U(last)):
        total += x[i]
    return total


# ---- maxima: of equal values the first stays ----


@scalar
def best_of_3(zero, a, b, c, y, count, nan):
    """Of ``count`` numbers at three addresses; y may be a. NaN is told only if ``nan``."""
    lanes, step = VECTOR_BYTES // size_of(zero), _U(VECTOR_BYTES)
    if nan:
        for _ in range(count // lanes):
            best = larger_or_nan(load_tile(zero, a, 1, 1), load_tile(zero, b, 1, 1))
            store_tile(larger_or_nan(best, load_tile(zero, c, 1, 1)), y)
            a, b, c, y = a + step, b + step, c + step, y + step
    else:
        for _ in range(count // lanes):
            best = larger(load_tile(zero, a, 1, 1), load_tile(zero, b, 1, 1))
            store_tile(larger(best, load_tile(zero, c, 1, 1)), y)
            a, b, c, y = a + step, b + step, c + step, y + step
    rest = count % lanes
    if rest:
        best = larger_or_nan(load_some(zero, a, rest), load_some(zero, b, rest))
        store_some(larger_or_nan(best, load_some(zero, c, rest)), y, rest)


@scalar
def better_of_2_or_nan(x, a, b, y, to, count):
    a, b, to = _U(a), _U(b), _U(to)
    for i in range(_U(count)):
        best, v, w = y[to + i], x[a + i], x[b + i]
        best = v if (v > best) | (v != v) else best
        y[to + i] = w if (w > best) | (w != w) else best


@scalar
def better_or_nan(x, a, y, to, count):
    a, to = _U(a), _U(to)
    for i in range(_U(count)):
        best, v = y[to + i], x[a + i]
        y[to + i] = v if (v > best) | (v != v) else best


@block
def places_of_row(zero, x, at, stride, step, taps_w, pitch, taps_h, y, places, count):
    """Maxima of a row of windows that lie within the input, and where they are in the plane.

    x, y and places are addresses, of the first window's first tap and of the results; ``at`` is
    the place of that tap. ``stride`` of the windows (1 or 2), ``step`` and ``pitch`` of the taps
    in a row and of rows are in elements.
    """
    size, lanes = _U(size_of(zero)), VECTOR_BYTES // size_of(zero)
    for first in range(0, count, lanes):
        left = count - first
        best = load_alternate(zero, x, left) if stride == 2 else load_some(zero, x, left)
        found = no_places(zero)
        for i in range(taps_h):
            for j in range(taps_w):
                place = i * pitch + j * step
                tap = x + _U(place) * size
                if stride == 2:
                    best, found = larger_places(best, found, load_alternate(zero, tap, left), place)
                else:
                    best, found = larger_places(best, found, load_some(zero, tap, left), place)
        store_some(best, y, left)
        store_places(found, at + stride * first, stride, places, left)
        x += _U(stride * lanes) * size
        y += _U(VECTOR_BYTES)
        places += _U(8 * lanes)


@scalar
def has_nan(zero, x, count):
    """Whether one of ``count`` numbers at an address is NaN; two vectors at a time."""
    lanes, step, seen = VECTOR_BYTES // size_of(zero), _U(VECTOR_BYTES), np.int64(0)
    for _ in range(count // (2 * lanes)):
        seen |= unordered(load_tile(zero, x, 1, 1), load_tile(zero, x + step, 1, 1))
        x += step + step
    rest = count % (2 * lanes)
    if rest:
        seen |= unordered(load_some(zero, x, rest), load_some(zero, x + step, rest - lanes))
    return seen != 0


@scalar
def max_of_few(x, first, step, count):
    """No branch on the values: which is the larger, nobody can foretell."""
    best = x[_U(first)]
    for j in range(_U(1), _U(count)):
        value = x[_U(first) + j * _U(step)]
        best = select((value > best) | (value != value), value, best)
    return best
