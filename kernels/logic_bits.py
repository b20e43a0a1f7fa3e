"""Hard logic networks on bits: 64 samples a word, a row of 8 words (BATCH samples) a signal.

``state`` holds the rows: row 0 is all zeros, row 1 all ones, row 2 + f is feature f, the rest are
for gates. A program is a list of gates, (left, right, out) rows each, in an order in which
they can be computed; ``ends`` (16) says where the run of each function ends within a stage, so
that a run's masks stay in registers. In the form m0 ^ m1 a ^ (m2 ^ m3 a) b, the float form
of logic.py modulo 2, one loop serves all functions. The twin is csrc/logic_bits.c.
"""

import numpy as np

from loopnest.kernels import wide
from loopnest.kernels.jit import block, kernel

WORDS = wide.WORDS
BATCH = 64 * WORDS
FIRST_FEATURE = 2
PLANES = 40  # bits of a score, at most
_U = np.uint64
_U8 = np.uint8
_ZERO = np.uint64(0)


@block
def _pack_eight(x, row, rows, features, bits, seen):
    """Bit i of bits[f] is x[row + i, f]; rows at ``rows`` and beyond count as 0."""
    if row + 8 <= rows:
        r0 = _U(row * features)
        n = _U(features)
        every = _U8(0)
        for f in range(n):
            at = r0 + f
            x0, x1, x2, x3 = x[at], x[at + n], x[at + _U(2) * n], x[at + _U(3) * n]
            x4, x5 = x[at + _U(4) * n], x[at + _U(5) * n]
            x6, x7 = x[at + _U(6) * n], x[at + _U(7) * n]
            every |= x0 | x1 | x2 | x3 | x4 | x5 | x6 | x7
            low = _U8(x0 + _U8(x1 * 2)) + _U8(_U8(x2 * 4) + _U8(x3 * 8))
            high = _U8(x4 + _U8(x5 * 2)) + _U8(_U8(x6 * 4) + _U8(x7 * 8))
            bits[f] = _U8(low + _U8(high * 16))
        seen[0] |= every
        return
    bits[:features] = 0
    for i in range(rows - row):
        for f in range(features):
            value = x[_U((row + i) * features + f)]
            seen[0] |= value
            bits[_U(f)] |= _U8(value << i)


@kernel
def logic_pack(x, first, seen, state):
    """Features of samples first .. first + BATCH of x (samples, features), bytes 0 or 1.

    ``seen`` (1) collects the bits of all values, so that it ends up above 1 if one was.
    """
    rows, features = x.shape
    flat = x.reshape(x.size)
    bits = np.zeros((8, features), np.uint8)
    n = _U(features)
    b = bits.reshape(bits.size)
    for word in range(WORDS):
        start = first + 64 * word
        if start >= rows:
            for f in range(n):
                state[(_U(FIRST_FEATURE) + f) * _U(WORDS) + _U(word)] = _ZERO
            continue
        for j in range(8):
            _pack_eight(flat, min(start + 8 * j, rows), rows, features, bits[j], seen)
        for f in range(n):
            low = _U(b[f]) | (_U(b[n + f]) << _U(8))
            low |= (_U(b[_U(2) * n + f]) << _U(16)) | (_U(b[_U(3) * n + f]) << _U(24))
            high = _U(b[_U(4) * n + f]) | (_U(b[_U(5) * n + f]) << _U(8))
            high |= (_U(b[_U(6) * n + f]) << _U(16)) | (_U(b[_U(7) * n + f]) << _U(24))
            state[(_U(FIRST_FEATURE) + f) * _U(WORDS) + _U(word)] = low | (high << _U(32))


@block
def _mask(on):
    """All bits, or none."""
    return wide.splat(_ZERO - _U(on & 1))


@kernel
def logic_run(gates, ends, state):
    """Compute all gates (left, right, out of each, flat), run by run.

    Run i has function i % 16 and goes to gate ends[i].
    """
    state[:WORDS] = _ZERO
    state[WORDS : 2 * WORDS] = ~_ZERO
    begin, words = _U(0), _U(WORDS)
    for run in range(ends.size):
        end, f = _U(ends[run]), run % 16
        f00, f01, f10, f11 = f >> 3, f >> 2, f >> 1, f
        m0, m1, m2 = _mask(f00), _mask(f00 ^ f10), _mask(f00 ^ f01)
        m3 = _mask(f00 ^ f01 ^ f10 ^ f11)
        for g in range(_U(3) * begin, _U(3) * end, _U(3)):
            a = wide.load(state, _U(gates[g]) * words)
            b = wide.load(state, _U(gates[g + _U(1)]) * words)
            slope = wide.differ(m2, wide.both(m3, a))
            start = wide.differ(m0, wide.both(m1, a))
            wide.store(state, _U(gates[g + _U(2)]) * words, wide.differ(start, wide.both(slope, b)))
        begin = end


@block
def _count(state, outputs, planes):
    """planes[j] = bit j of the number of ones among the output rows, for each sample."""
    words = _U(WORDS)
    planes[:] = _ZERO
    zero = wide.splat(_ZERO)
    ones, twos, fours = zero, zero, zero
    for i in range(_U(0), _U(outputs.size), _U(8)):
        # Carry-save adders: 8 rows enter, one row of weight 8 leaves (Harley and Seal).
        r0 = wide.load(state, _U(outputs[i]) * words)
        r1 = wide.load(state, _U(outputs[i + _U(1)]) * words)
        two_a, ones = _carry(ones, r0, r1), _odd(ones, r0, r1)
        r0 = wide.load(state, _U(outputs[i + _U(2)]) * words)
        r1 = wide.load(state, _U(outputs[i + _U(3)]) * words)
        two_b, ones = _carry(ones, r0, r1), _odd(ones, r0, r1)
        four_a, twos = _carry(twos, two_a, two_b), _odd(twos, two_a, two_b)
        r0 = wide.load(state, _U(outputs[i + _U(4)]) * words)
        r1 = wide.load(state, _U(outputs[i + _U(5)]) * words)
        two_a, ones = _carry(ones, r0, r1), _odd(ones, r0, r1)
        r0 = wide.load(state, _U(outputs[i + _U(6)]) * words)
        r1 = wide.load(state, _U(outputs[i + _U(7)]) * words)
        two_b, ones = _carry(ones, r0, r1), _odd(ones, r0, r1)
        four_b, twos = _carry(twos, two_a, two_b), _odd(twos, two_a, two_b)
        carry, fours = _carry(fours, four_a, four_b), _odd(fours, four_a, four_b)
        j, step = _U(3) * words, i // _U(8) + _U(1)
        while step:  # a ripple as far as a counter of the groups would go
            plane = wide.load(planes, j)
            wide.store(planes, j, wide.differ(plane, carry))
            carry = wide.both(plane, carry)
            j += words
            step >>= _U(1)
    wide.store(planes, _U(0), ones)
    wide.store(planes, words, twos)
    wide.store(planes, _U(2) * words, fours)


@block
def _odd(a, b, c):
    return wide.differ(wide.differ(a, b), c)


@block
def _carry(a, b, c):
    return wide.either(wide.both(a, b), wide.both(c, wide.differ(a, b)))


@kernel
def logic_count(state, outputs, first, scores):
    """scores (samples, classes): ones among each class's rows, for samples from ``first`` on.

    outputs (classes, rows): a multiple of 8 rows, filled up with row 0.
    """
    samples, classes = scores.shape
    flat = scores.reshape(scores.size)
    planes = np.empty(PLANES * WORDS, np.uint64)
    depth = 3
    while (outputs.shape[1] >> depth) > 0:
        depth += 1
    counts = np.empty(64, np.int32)
    for k in range(classes):
        _count(state, outputs[k], planes)
        for word in range(WORDS):
            start = first + 64 * word
            if start >= samples:
                break
            counts[:] = 0
            for j in range(depth):
                bits = planes[_U(j * WORDS + word)]
                for s in range(_U(64)):
                    counts[s] += np.int32(((bits >> s) & _U(1)) << _U(j))
            for s in range(min(64, samples - start)):
                flat[_U((start + s) * classes + k)] = counts[_U(s)]


@kernel
def logic_predict(x, gates, ends, outputs, first, last, seen, state, scores):
    """Scores of batches [first, last): pack, run and count, BATCH samples at a time."""
    for batch in range(first, last):
        logic_pack(x, batch * BATCH, seen, state)
        logic_run(gates, ends, state)
        logic_count(state, outputs, batch * BATCH, scores)


@kernel
def logic_label(scores, first, last, labels):
    """The class of the largest score, the first of equal ones, for rows [first, last)."""
    classes = scores.shape[1]
    flat = scores.reshape(scores.size)
    for row in range(first, last):
        best, label = flat[_U(row * classes)], 0
        for k in range(1, classes):
            value = flat[_U(row * classes + k)]
            if value > best:
                best, label = value, k
        labels[_U(row)] = label
