"""Netlists of two-input gates: simplification, and the program that the bit kernels run.

A function is its index in `GATE_NAMES`: bit 3 - 2a - b of it is the value at (a, b).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FALSE, AND, LEFT, RIGHT, XOR, OR, XNOR, NOT_RIGHT, NOT_LEFT, TRUE = 0, 1, 3, 5, 6, 7, 9, 10, 12, 15


@dataclass(frozen=True)
class Netlist:
    """Gates in an order in which they can be computed.

    Signals are numbered: the inputs first, then the gates. ``left``, ``right`` and ``op`` have an
    entry a gate, ``outputs`` names the signals that leave.
    """

    inputs: int
    left: np.ndarray
    right: np.ndarray
    op: np.ndarray
    outputs: np.ndarray

    @property
    def gates(self) -> int:
        return len(self.op)

    def levels(self) -> np.ndarray:
        """Longest way from an input to each gate, in gates."""
        levels = [0] * self.inputs
        for a, b in zip(self.left.tolist(), self.right.tolist(), strict=True):
            levels.append(max(levels[a], levels[b]) + 1)
        return np.array(levels[self.inputs :], np.int64)


def make(
    inputs: int, gates: list[tuple[int, int, int]], outputs: list[int] | np.ndarray
) -> Netlist:
    """Netlist of (op, left, right) tuples."""
    table = np.array(gates, np.int32).reshape(-1, 3)
    op, left, right = (np.ascontiguousarray(column) for column in table.T)
    return Netlist(inputs, left, right, op.astype(np.uint8), np.asarray(outputs, np.int32))


# ---- simplification ----


def _table(change) -> list[int]:
    """For each function the one whose values are change(f)(a, b)."""
    found = []
    for op in range(16):
        new = change(lambda a, b, op=op: op >> (3 - 2 * a - b) & 1)
        found.append(sum(new(a, b) << (3 - 2 * a - b) for a in (0, 1) for b in (0, 1)))
    return found


_FLIP_LEFT = _table(lambda f: lambda a, b: f(1 - a, b))
_FLIP_RIGHT = _table(lambda f: lambda a, b: f(a, 1 - b))
_SWAP = _table(lambda f: lambda a, b: f(b, a))
_LEFT_IS_0 = _table(lambda f: lambda a, b: f(0, b))
_RIGHT_IS_0 = _table(lambda f: lambda a, b: f(a, 0))
_SAME = _table(lambda f: lambda a, b: f(a, a))


class _Nodes:
    """Distinct functions of the inputs, found by structural hashing.

    A literal is 2*node, plus 1 for its complement; node 0 is the constant 0, then come the
    inputs. Gates are kept with a value of 0 at (0, 0) and the smaller node on the left, so
    that a function, its complement and its mirror image are one node.
    """

    def __init__(self, inputs: int) -> None:
        self.gates: list[tuple[int, int, int]] = [(0, 0, 0)] * (inputs + 1)
        self._known: dict[tuple[int, int, int], int] = {}

    def literal(self, op: int, a: int, b: int) -> int:
        """The literal that is op(a, b)."""
        if a & 1:
            op = _FLIP_LEFT[op]
        if b & 1:
            op = _FLIP_RIGHT[op]
        a, b = a >> 1, b >> 1
        if a == 0:
            op = _LEFT_IS_0[op]
        if b == 0:
            op = _RIGHT_IS_0[op]
        if a == b:
            op = _SAME[op]
        if op in (FALSE, TRUE):
            return op & 1
        if op in (LEFT, NOT_LEFT):
            return 2 * a + (op == NOT_LEFT)
        if op in (RIGHT, NOT_RIGHT):
            return 2 * b + (op == NOT_RIGHT)
        inverted = op >> 3
        if inverted:
            op ^= TRUE
        if a > b:
            op, a, b = _SWAP[op], b, a
        node = self._known.setdefault((op, a, b), len(self.gates))
        if node == len(self.gates):
            self.gates.append((op, a, b))
        return 2 * node + inverted


def simplify(netlist: Netlist) -> Netlist:
    """An equal netlist without constants, copies, inverters, duplicates and unused gates.

    Inverters go into the function of the gate that reads them; one remains where an input, or a
    signal that is also an output, is wanted inverted as an output.
    """
    nodes = _Nodes(netlist.inputs)
    literals = [2 * (1 + i) for i in range(netlist.inputs)]
    columns = (netlist.op.tolist(), netlist.left.tolist(), netlist.right.tolist())
    for op, a, b in zip(*columns, strict=True):
        literals.append(nodes.literal(op, literals[a], literals[b]))
    return _emit(netlist.inputs, nodes, [literals[i] for i in netlist.outputs.tolist()])


def _emit(inputs: int, nodes: _Nodes, wanted: list[int]) -> Netlist:
    """Gates that the wanted literals need, each in the polarity in which it leaves."""
    used = {literal >> 1 for literal in wanted}
    for node in range(len(nodes.gates) - 1, inputs, -1):
        if node in used:
            used.update(nodes.gates[node][1:])
    plain = {literal >> 1 for literal in wanted if not literal & 1}
    flipped = {literal >> 1 for literal in wanted if literal & 1} - plain
    gates: list[tuple[int, int, int]] = []
    signal = {1 + i: i for i in range(inputs)}
    for node in range(inputs + 1, len(nodes.gates)):
        if node not in used:
            continue
        op, a, b = nodes.gates[node]
        op = _FLIP_LEFT[op] if a in flipped and a > inputs else op
        op = _FLIP_RIGHT[op] if b in flipped and b > inputs else op
        signal[node] = inputs + len(gates)
        gates.append((op ^ TRUE if node in flipped else op, signal[a], signal[b]))
    inverters: dict[int, int] = {}
    outputs = []
    for literal in wanted:
        node = literal >> 1
        if node == 0 or (literal & 1 and (node <= inputs or node not in flipped)):
            if literal not in inverters:
                inverters[literal] = inputs + len(gates)
                source = signal.get(node, 0)
                gates.append(((FALSE, TRUE)[literal] if node == 0 else NOT_LEFT, source, source))
            outputs.append(inverters[literal])
        else:
            outputs.append(signal[node])
    return make(inputs, gates, outputs)


# ---- the program ----

ZEROS, ONES, FIRST_INPUT = 0, 1, 2  # rows of the bit kernels' state


@dataclass(frozen=True)
class Program:
    """What `kernels.logic_bits` runs: gates by level, by function within a level."""

    rows: int
    gates: np.ndarray  # left, right and out row of each gate, flat
    ends: np.ndarray  # where each run ends: 16 a level
    outputs: np.ndarray  # row of each output


def program(netlist: Netlist, levels: np.ndarray | None = None) -> Program:
    """Order the gates and give each signal a row; rows are used again when nobody reads them."""
    levels = netlist.levels() if levels is None else levels
    inputs, depth = netlist.inputs, int(levels.max(initial=0))
    last_use = np.zeros(netlist.gates, np.int64)
    for side in (netlist.left, netlist.right):
        inner = side >= inputs
        np.maximum.at(last_use, side[inner] - inputs, levels[inner])
    leaving = netlist.outputs[netlist.outputs >= inputs] - inputs
    last_use[leaving] = depth + 1
    order = np.lexsort((netlist.left, netlist.op, levels))
    bounds = np.searchsorted(levels[order], np.arange(1, depth + 2))
    row = np.empty(inputs + netlist.gates, np.int32)
    row[:inputs] = FIRST_INPUT + np.arange(inputs)
    free, rows = np.empty(0, np.int32), FIRST_INPUT + inputs
    expires: list[list[np.ndarray]] = [[] for _ in range(depth + 2)]
    ends = np.empty((depth, 16), np.int64)
    for level in range(1, depth + 1):
        members = order[bounds[level - 1] : bounds[level]]
        fresh = max(0, len(members) - len(free))
        pool = np.concatenate([free, np.arange(rows, rows + fresh, dtype=np.int32)])
        rows += fresh
        mine, free = pool[: len(members)], pool[len(members) :]
        row[inputs + members] = mine
        until = np.maximum(last_use[members], level)
        for when in np.unique(until):
            expires[when].append(mine[until == when])
        free = np.sort(np.concatenate([free, *expires[level]]))
        ends[level - 1] = bounds[level - 1] + np.searchsorted(
            netlist.op[members], np.arange(16), side="right"
        )
    gates = np.stack([row[netlist.left], row[netlist.right], row[inputs:]], axis=1)[order]
    return Program(
        rows, np.ascontiguousarray(gates, np.int32).reshape(-1), ends.reshape(-1),
        row[netlist.outputs],
    )  # fmt: skip
