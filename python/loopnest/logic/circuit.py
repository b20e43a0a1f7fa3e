"""Circuits of named two-input gates, evaluated as neurons or as bits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from loopnest.logic import export, netlist
from loopnest.logic import packed as packed_logic
from loopnest.ops import gates
from loopnest.runtime import checks
from loopnest.runtime.copies import Copied

_MOST_BITS = 4096  # of an adder
_MOST_SELECTS = 16  # of a multiplexer
GateRow = tuple[str, str, str, str]  # name, function, left and right signal


class Circuit(Copied):
    """Named inputs, gates and outputs.

    Parameters
    ----------
    inputs : sequence of str
        Names of the inputs.
    gates : mapping or sequence
        Each gate's name with its function (one of `GATE_NAMES`) and the names of its left and
        right signal: ``{"s": ("xor", "a", "b")}``, or ``[("s", "xor", "a", "b")]``. A signal is an
        input or a gate further up.
    outputs : sequence of str, or mapping
        Signals that leave, or a mapping of output names to signals.

    Raises
    ------
    TypeError, ValueError
        For a name that is given twice or not known, or no inputs or outputs.

    Examples
    --------
    >>> import loopnest as ln
    >>> half = ln.Circuit(
    ...     ["a", "b"],
    ...     {"total": ("xor", "a", "b"), "carry": ("and", "a", "b")},
    ...     ["total", "carry"],
    ... )
    >>> half.evaluate({"a": 1, "b": 1})
    {'total': 0, 'carry': 1}
    """

    def __init__(
        self,
        inputs: Sequence[str],
        gates: Mapping[str, tuple[str, str, str]] | Iterable[GateRow],
        outputs: Sequence[str] | Mapping[str, str],
    ) -> None:
        self.inputs = _names("inputs", inputs)
        rows = [(k, *v) for k, v in gates.items()] if isinstance(gates, Mapping) else list(gates)
        signals: dict[str, int] = {}
        for name in self.inputs:
            _new(signals, name)
        self.gates: tuple[GateRow, ...] = tuple(_gate_row(row, signals) for row in rows)
        pairs = (
            outputs if isinstance(outputs, Mapping) else {n: n for n in _names("outputs", outputs)}
        )
        self.outputs = {
            name: _known("outputs", signals, pairs[name]) for name in _names("outputs", pairs)
        }
        self._signals = signals

    def __repr__(self) -> str:
        return f"Circuit({len(self.inputs)} inputs, {len(self.gates)} gates, {len(self.outputs)} outputs)"

    def netlist(self) -> netlist.Netlist:
        """The circuit with numbers in place of names."""
        table = [
            (gates.GATE_NAMES.index(function), self._signals[left], self._signals[right])
            for _, function, left, right in self.gates
        ]
        wanted = [self._signals[signal] for signal in self.outputs.values()]
        return netlist.make(len(self.inputs), table, wanted)

    # -- evaluation --

    def evaluate(self, inputs: Mapping[str, Any], *, by: str = "bits") -> dict[str, Any]:
        """Values of the outputs.

        Parameters
        ----------
        inputs : mapping
            For each input zeros and ones, numbers or arrays; they broadcast.
        by : {"bits", "neurons"}
            "bits": 64 samples a machine word. "neurons": every gate is the network of neurons that
            `gate` makes, its sigmoid output decided at 0.5. Both give the same.

        Returns
        -------
        dict
            For each output an array of uint8 of the broadcast shape, or an int.

        Raises
        ------
        TypeError, ValueError
            An input is missing, unknown, or neither 0 nor 1.
        """
        op = "Circuit.evaluate"
        by = checks.choice(op, "by", by, ("bits", "neurons"))
        columns = self._columns(op, inputs)
        shape = columns[0].shape
        flat = [column.reshape(-1) for column in columns]
        values = self._by_bits(flat) if by == "bits" else self._by_neurons(flat)
        return {
            name: value.reshape(shape) if shape else int(value[0])
            for name, value in zip(self.outputs, values, strict=True)
        }

    def _columns(self, op: str, inputs: Mapping[str, Any]) -> list[np.ndarray]:
        """Bytes 0 and 1 of each input, broadcast."""
        if not isinstance(inputs, Mapping):
            raise TypeError(f"{op}: inputs is a {type(inputs).__name__}; accepted: a mapping")
        if set(inputs) != set(self.inputs):
            raise ValueError(
                f"{op}: inputs has {_listed(inputs)}; accepted: values for {_listed(self.inputs)}"
            )
        columns = [
            packed_logic.as_bits(op, name, checks.plain(op, name, inputs[name]), check=True)
            for name in self.inputs
        ]
        try:
            return [np.array(c) for c in np.broadcast_arrays(*columns)]
        except ValueError:
            shapes = ", ".join(f"{n} {c.shape}" for n, c in zip(self.inputs, columns, strict=True))
            raise ValueError(
                f"{op}: inputs have shapes {shapes}; accepted: shapes that broadcast"
            ) from None

    def _by_bits(self, columns: list[np.ndarray]) -> Iterable[np.ndarray]:
        return self.pack(simplify=False).evaluate(np.stack(columns, axis=1)).T

    def _by_neurons(self, columns: list[np.ndarray]) -> Iterable[np.ndarray]:
        values = dict(zip(self.inputs, (c.astype(np.float64) for c in columns), strict=True))
        for name, function, left, right in self.gates:
            output = gates.gate_forward(function, values[left], values[right])
            values[name] = (output >= 0.5).astype(np.float64)
        return (values[signal].astype(np.uint8) for signal in self.outputs.values())

    def truth_table(self) -> np.ndarray:
        """All inputs, counting up, with the outputs beside them; for up to 16 inputs.

        Returns
        -------
        ndarray of uint8, shape (2**inputs, inputs + outputs)

        Raises
        ------
        ValueError
            There are more inputs.
        """
        if len(self.inputs) > packed_logic.EXHAUSTIVE_INPUTS:
            raise ValueError(
                f"Circuit.truth_table: the circuit has {len(self.inputs)} inputs; "
                f"accepted: up to {packed_logic.EXHAUSTIVE_INPUTS}"
            )
        x = packed_logic.all_samples(len(self.inputs))
        return np.column_stack([x, self.pack(simplify=False).evaluate(x)])

    def pack(self, *, simplify: bool = True) -> packed_logic.PackedLogic:
        """The circuit as a predictor on bits, columns in the order of the names."""
        names = self.inputs, tuple(self.outputs)
        packed = packed_logic.PackedLogic(self.netlist(), simplify=simplify, names=names)
        if simplify:
            packed.prove_equal(packed_logic.PackedLogic(self.netlist(), simplify=False))
        return packed

    def to_c(self, path: str | os.PathLike, name: str = "circuit") -> None:
        """Write the simplified circuit as a C11 file; see `PackedLogic.to_c`."""
        self.pack().to_c(path, name)

    def to_verilog(self, path: str | os.PathLike, name: str = "circuit") -> None:
        """Write the simplified circuit as a Verilog module; see `PackedLogic.to_verilog`."""
        export.check_ports("Circuit.to_verilog", self.inputs, self.outputs)
        self.pack().to_verilog(path, name)

    # -- well-known circuits --

    @staticmethod
    def half_adder() -> Circuit:
        """Inputs a, b; outputs sum, carry."""
        return Circuit(
            "ab", {"sum": ("xor", "a", "b"), "carry": ("and", "a", "b")}, ["sum", "carry"]
        )

    @staticmethod
    def full_adder() -> Circuit:
        """Inputs a, b, carry_in; outputs sum, carry: two half adders and an or."""
        rows = _full_adder("", "a", "b", "carry_in")
        return Circuit(["a", "b", "carry_in"], rows, ["sum", "carry"])

    @staticmethod
    def adder(bits: int) -> Circuit:
        """Adds two numbers: inputs a0, b0, a1, ... (bit 0 the lowest), outputs sum0, ..., carry."""
        bits = checks.integer("Circuit.adder", "bits", bits, 1, _MOST_BITS)
        inputs = [f"{letter}{i}" for i in range(bits) for letter in "ab"]
        rows: list[GateRow] = [("sum0", "xor", "a0", "b0"), ("carry0", "and", "a0", "b0")]
        for i in range(1, bits):
            rows += _full_adder(str(i), f"a{i}", f"b{i}", f"carry{i - 1}")
        sums = {f"sum{i}": f"sum{i}" for i in range(bits)}
        return Circuit(inputs, rows, {**sums, "carry": f"carry{bits - 1}"})

    @staticmethod
    def multiplexer(selects: int) -> Circuit:
        """Chooses one of 2**selects inputs d0, d1, ... by the number s0, s1, ... (s0 the lowest)."""
        selects = checks.integer("Circuit.multiplexer", "selects", selects, 1, _MOST_SELECTS)
        level = [f"d{i}" for i in range(2**selects)]
        inputs = [*level, *(f"s{i}" for i in range(selects))]
        rows: list[GateRow] = []
        for s in range(selects):
            chosen = []
            for i in range(0, len(level), 2):
                low, high, either = f"low{s}_{i // 2}", f"high{s}_{i // 2}", f"m{s}_{i // 2}"
                rows.append((low, "a_and_not_b", level[i], f"s{s}"))
                rows.append((high, "and", level[i + 1], f"s{s}"))
                rows.append((either, "or", low, high))
                chosen.append(either)
            level = chosen
        return Circuit(inputs, rows, {"y": level[0]})


def _full_adder(number: str, a: str, b: str, carry_in: str) -> list[GateRow]:
    half, both, passed = f"half{number}", f"both{number}", f"passed{number}"
    return [
        (half, "xor", a, b),
        (both, "and", a, b),
        (f"sum{number}", "xor", half, carry_in),
        (passed, "and", half, carry_in),
        (f"carry{number}", "or", both, passed),
    ]


def _listed(names: Iterable[object]) -> str:
    found = [str(name) for name in names]
    return (", ".join(found[:8]) + (", ..." if len(found) > 8 else "")) or "nothing"


def _names(what: str, names: Iterable[str]) -> tuple[str, ...]:
    found = tuple(names)
    if not found:
        raise ValueError(f"Circuit: {what} is empty; accepted: at least one name")
    for name in found:
        if not isinstance(name, str) or not name:
            raise TypeError(f"Circuit: {what} has {name!r}; accepted: names")
    return found


def _new(signals: dict[str, int], name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"Circuit: {name!r} is no name; accepted: a string")
    if name in signals:
        raise ValueError(f"Circuit: {name!r} is given twice; accepted: one signal of each name")
    signals[name] = len(signals)


def _known(where: str, signals: dict[str, int], name: Any) -> str:
    if name not in signals:
        raise ValueError(
            f"Circuit: {where} names {name!r}; accepted: an input or a gate further up: "
            f"{_listed(signals)}"
        )
    return name


def _gate_row(row: Any, signals: dict[str, int]) -> GateRow:
    if not isinstance(row, (tuple, list)) or len(row) != 4:
        raise TypeError(f"Circuit: gate {row!r}; accepted: name, function, left, right")
    name, function, left, right = row
    function = gates.gate(function).name
    left, right = (_known(f"gate {name!r}", signals, signal) for signal in (left, right))
    _new(signals, name)
    return name, function, left, right
