"""C twins of ``loopnest.kernels.logic_bits``."""

from __future__ import annotations

import numpy as np

from loopnest._c import lib
from loopnest.ops.c.call import pointer

WORDS = 8
BATCH = 64 * WORDS
FIRST_FEATURE = 2


def logic_pack(x, first, seen, state):
    bits = np.empty(8 * x.shape[1], np.uint8)
    lib.ln_logic_pack_u64(pointer(x), *x.shape, first, pointer(bits), pointer(seen), pointer(state))


def logic_run(gates, ends, state):
    lib.ln_logic_run_u64(pointer(gates), pointer(ends), ends.size, pointer(state))


def logic_count(state, outputs, first, scores):
    lib.ln_logic_count_u64(
        pointer(state), pointer(outputs), outputs.shape[1], *scores.shape, first, pointer(scores)
    )


def logic_predict(x, gates, ends, outputs, first, last, seen, state, scores):
    for batch in range(first, last):
        logic_pack(x, batch * BATCH, seen, state)
        logic_run(gates, ends, state)
        logic_count(state, outputs, batch * BATCH, scores)


def logic_label(scores, first, last, labels):
    lib.ln_logic_label_u64(pointer(scores), scores.shape[1], first, last, pointer(labels))
