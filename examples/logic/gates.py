"""From a truth table to trained neurons to a circuit: the first steps with gates.

Learns each of the 16 functions with a 2-2-1 network by gradient descent, then adds numbers with a
circuit of gates: once as neurons, once as bits.
"""

import numpy as np

import loopnest as ln
from loopnest.runtime import terminal


def learn() -> None:
    """A table of the 16 learned networks."""
    rows = []
    for name in ln.GATE_NAMES:
        learned = ln.Gate.train(name)
        table, wanted = learned.truth_table()[:, 2], ln.gate(name).truth_table()[:, 2]
        outputs = learned.forward([0, 0, 1, 1], [0, 1, 0, 1])
        right = "learned" if np.array_equal(table, wanted) else "WRONG"
        cells = name, "".join(map(str, wanted)), " ".join(f"{v:.3f}" for v in outputs), right
        rows.append([(cell, "") for cell in cells])
    terminal.show_table(
        "2-2-1 networks after descent", ["gate", "00 01 10 11", "sigmoid outputs", ""], rows
    )


def add(bits: int = 16, samples: int = 1000) -> None:
    """Random additions by an adder of gates."""
    a, b = np.random.default_rng(0).integers(0, 2**bits, (2, samples))
    inputs = {f"a{i}": a >> i & 1 for i in range(bits)} | {f"b{i}": b >> i & 1 for i in range(bits)}
    adder = ln.Circuit.adder(bits)
    for by in ("neurons", "bits"):
        found = adder.evaluate(inputs, by=by)
        total = sum(found[f"sum{i}"].astype(int) << i for i in range(bits))
        total += found["carry"].astype(int) << bits
        terminal.show(f"{adder!r} as {by}: {np.sum(total == a + b)} of {samples} sums right")


if __name__ == "__main__":
    learn()
    add()
