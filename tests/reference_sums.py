"""The rule of long sums in plain Python and NumPy, one rounded addition after the other."""

from __future__ import annotations

import numpy as np

RUN = 2048
LANES = 16
# Counts of terms on both sides of where something begins.
COUNTS = (1, 16, 2047, 2048, 2049, 4095, 4096, 4097, 3 * RUN + 5, 7 * RUN, 8 * RUN + 1)


def in_order(rows):
    """Sum over the first axis, from the top."""
    total = np.zeros_like(rows[0])
    for row in rows:
        total = total + row
    return total


def run_total(terms):
    """Sum over the first axis in 16 interleaved partial sums, folded 8, 4, 2, 1."""
    lanes = [
        in_order(terms[lane::LANES]) if lane < len(terms) else 0 * terms[0] for lane in range(LANES)
    ]
    half = LANES // 2
    while half:
        lanes = [lanes[i] + lanes[i + half] for i in range(half)]
        half //= 2
    return lanes[0]


def pairwise(totals):
    """Sum of the totals of runs: the largest power of two of them, and the others."""
    if len(totals) == 1:
        return totals[0]
    left = 1
    while 2 * left < len(totals):
        left *= 2
    return pairwise(totals[:left]) + pairwise(totals[left:])


def total(terms):
    """Sum over the first axis of an array, in its dtype."""
    terms = np.asarray(terms)
    return pairwise([run_total(terms[at : at + RUN]) for at in range(0, len(terms), RUN)])


def total_of_pieces(pieces):
    """Sum of all numbers of rows: a run goes on from piece to piece, each piece begins in lane 0."""
    totals, lanes, held = [], np.zeros(LANES, pieces.dtype), 0
    for piece in pieces:
        while len(piece):
            now = piece[: RUN - held]
            for i, term in enumerate(now):
                lanes[i % LANES] += term
            piece, held = piece[len(now) :], held + len(now)
            if held == RUN:
                totals.append(run_total(lanes))
                lanes, held = np.zeros_like(lanes), 0
    return pairwise(totals + [run_total(lanes)] if held else totals)


def total_in_order(rows):
    """Sum over the first axis: in order, or of more rows than a run by the rule."""
    return total(rows) if len(rows) > RUN else in_order(rows)
