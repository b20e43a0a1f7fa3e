"""Hard logic networks as predictors: 64 samples a machine word."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from loopnest.logic import export, netlist
from loopnest.runtime import backend, checks, scratch, threads
from loopnest.runtime.copies import Copied

# Work of one gate on one batch, in the units of threads.split.
_WORK = 16
_PROOF_SAMPLES = 4096
EXHAUSTIVE_INPUTS = 16  # all samples of so many inputs are 128 batches


class PackedLogic(Copied):
    """A network of hard gates, ready to run; `LogicNetwork.pack` and `Circuit.pack` make one.

    Gates are evaluated 512 samples at a time on the bits of machine words. Any number of samples
    will do; packing them into words is part of each call.

    Attributes
    ----------
    inputs, outputs : int
        Bits that enter and leave for each sample.
    classes : int or None
        Groups of outputs whose ones are counted; None for a circuit.
    gates : int
        Gates that are evaluated, after simplification if there was one.
    gates_before : int
        Gates before simplification.
    depth : int
        Gates on the longest way from an input to an output.
    """

    def __init__(
        self,
        original: netlist.Netlist,
        classes: int | None = None,
        *,
        simplify: bool = True,
        levels: np.ndarray | None = None,
        names: tuple[tuple[str, ...], tuple[str, ...]] | None = None,
    ) -> None:
        if classes is not None and (classes < 1 or len(original.outputs) % classes):
            raise ValueError(
                f"PackedLogic: classes is {classes} with {len(original.outputs)} outputs; "
                "accepted: a number that divides the outputs"
            )
        self.netlist = netlist.simplify(original) if simplify else original
        self.gates_before, self.gates = original.gates, self.netlist.gates
        self.inputs, self.outputs = original.inputs, len(original.outputs)
        self.classes = classes
        self.names = names
        levels = self.netlist.levels() if levels is None or simplify else levels
        self.depth = int(levels.max(initial=0))
        self._program = netlist.program(self.netlist, levels)
        if classes is not None:
            self._groups = _padded_groups(self._program.outputs, classes)

    def __repr__(self) -> str:
        what = f"{self.outputs} outputs" if self.classes is None else f"{self.classes} classes"
        return f"PackedLogic({self.inputs} inputs, {self.gates} gates, {what})"

    # -- evaluation --

    def evaluate(self, x: Any) -> np.ndarray:
        """Output bits of each sample.

        Parameters
        ----------
        x : array_like, shape (samples, inputs) or (inputs,)
            Zeros and ones of any boolean, integer or float dtype.

        Returns
        -------
        ndarray of uint8, shape (samples, outputs) or (outputs,)

        Raises
        ------
        TypeError, ValueError
            For another shape or dtype, or a value that is neither 0 nor 1.
        """
        op = "PackedLogic.evaluate"
        samples, single = _samples(op, x, self.inputs)
        bits = np.empty((len(samples), self.outputs), np.uint8)
        for first, words in self._words(op, samples):
            part = bits[first : first + 64 * words.shape[1]]
            part[:] = _unpacked(words)[:, : len(part)].T
        return bits[0] if single else bits

    def _words(self, op: str, samples: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """First sample, and a row of words for each output, of each batch."""
        kernels, program = backend.kernels.logic_bits, self._program
        seen = np.zeros(1, np.uint8)
        with scratch.take(program.rows * kernels.WORDS, np.uint64) as state:
            for first in range(0, len(samples), kernels.BATCH):
                kernels.logic_pack(samples, first, seen, state)
                _only_bits(op, seen[0])
                kernels.logic_run(program.gates, program.ends, state)
                yield first, state.reshape(-1, kernels.WORDS)[program.outputs]

    def scores(self, x: Any) -> np.ndarray:
        """Ones among each class's outputs.

        Parameters
        ----------
        x : array_like, shape (samples, inputs) or (inputs,)
            As in `evaluate`.

        Returns
        -------
        ndarray of int32, shape (samples, classes) or (classes,)
        """
        samples, single = _samples("PackedLogic.scores", x, self.inputs)
        scores = self._scores("PackedLogic.scores", samples)
        return scores[0] if single else scores

    def predict(self, x: Any) -> Any:
        """The class with the largest score, the first of equal ones.

        Parameters
        ----------
        x : array_like, shape (samples, inputs) or (inputs,)
            As in `evaluate`.

        Returns
        -------
        ndarray of int64, shape (samples,), or int for one sample
        """
        op = "PackedLogic.predict"
        samples, single = _samples(op, x, self.inputs)
        scores = self._scores(op, samples)
        labels = np.empty(len(scores), np.int64)
        backend.kernels.logic_bits.logic_label(scores, 0, len(scores), labels)
        return int(labels[0]) if single else labels

    def _scores(self, op: str, samples: np.ndarray) -> np.ndarray:
        if self.classes is None:
            raise ValueError(f"{op}: this is a circuit without classes; accepted: evaluate")
        kernels, program = backend.kernels.logic_bits, self._program
        scores = np.empty((len(samples), self.classes), np.int32)
        batches = -(-len(samples) // kernels.BATCH)
        marks: list[np.ndarray] = []

        def piece(first: int, last: int) -> None:
            seen = np.zeros(1, np.uint8)
            marks.append(seen)
            # Rows must not straddle cache lines, which takes 1.5 times as long: scratch is aligned.
            with scratch.take(program.rows * kernels.WORDS, np.uint64) as state:
                kernels.logic_predict(
                    samples, program.gates, program.ends, self._groups, first, last, seen, state,
                    scores,
                )  # fmt: skip

        threads.split(piece, batches, batches * (self.gates + self.inputs + self.outputs) * _WORK)
        _only_bits(op, max((int(seen[0]) for seen in marks), default=0))
        return scores

    # -- proof --

    def prove_equal(self, other: PackedLogic, seed: int = 0) -> str:
        """Compare all outputs with those of another network of the same inputs and outputs.

        Returns
        -------
        str
            "exhaustive" if all samples were tried (up to 16 inputs), else "random".

        Raises
        ------
        ValueError
            The two differ in size, or on a sample, which the message gives.
        """
        if (self.inputs, self.outputs) != (other.inputs, other.outputs):
            raise ValueError(
                f"PackedLogic.prove_equal: {self!r} and {other!r} differ in inputs or outputs"
            )
        exhaustive = self.inputs <= EXHAUSTIVE_INPUTS
        if exhaustive:
            x = all_samples(self.inputs)
        else:
            x = np.random.default_rng(seed).integers(0, 2, (_PROOF_SAMPLES, self.inputs), np.uint8)
        op = "PackedLogic.prove_equal"
        for (first, ours), (_, theirs) in zip(self._words(op, x), other._words(op, x), strict=True):
            wrong = np.bitwise_or.reduce(ours ^ theirs, axis=0)[None]
            bad = np.flatnonzero(_unpacked(wrong)[0, : len(x) - first])
            if len(bad):
                raise ValueError(f"{op}: they differ on {x[first + bad[0]].tolist()}")
        return "exhaustive" if exhaustive else "random"

    # -- export --

    def to_c(self, path: str | os.PathLike, name: str = "network") -> None:
        """Write the network as one C11 file that needs nothing else.

        It has ``<name>_evaluate`` and, with classes, ``<name>_predict``; the file tells how to
        call them. Gates are rows of a table, so that a compiler takes a moment, not minutes.

        Parameters
        ----------
        path : path-like
            File to write; written beside it first, then renamed.
        name : str
            Prefix of the functions, a C identifier.

        Raises
        ------
        ValueError
            The name is no identifier.
        """
        export.write(path, export.c_source(self, name))

    def to_verilog(self, path: str | os.PathLike, name: str = "network") -> None:
        """Write the network as a Verilog-2001 module, combinational.

        A circuit has a port for each of its names; otherwise ports are ``x`` and ``y``, bit i
        of which is input or output i, and with classes also ``label`` and ``scores``.

        Parameters
        ----------
        path : path-like
            File to write; written beside it first, then renamed.
        name : str
            Name of the module, an identifier.

        Raises
        ------
        ValueError
            The name is no identifier.
        """
        export.write(path, export.verilog_source(self, name))


def all_samples(inputs: int) -> np.ndarray:
    """Every sample of so many bits, counting up, the first input the highest bit."""
    numbers = np.arange(2**inputs)[:, None]
    return (numbers >> np.arange(inputs)[::-1] & 1).astype(np.uint8)


def _padded_groups(outputs: np.ndarray, classes: int) -> np.ndarray:
    """Output rows of each class, filled up to a multiple of 8 with the row of zeros."""
    group = len(outputs) // classes
    padded = np.full((classes, -(-group // 8) * 8), netlist.ZEROS, np.int32)
    padded[:, :group] = outputs.reshape(classes, group)
    return padded


def aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """Flat array whose data starts at a multiple of 64 bytes."""
    raw = np.empty(size * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * dtype.itemsize].view(dtype)


def _unpacked(words: np.ndarray) -> np.ndarray:
    """Bits of rows of words, sample by sample."""
    octets = np.ascontiguousarray(words, "<u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little")


def _samples(op: str, x: Any, inputs: int) -> tuple[np.ndarray, bool]:
    """x as bytes (samples, inputs), C-contiguous, and whether it was a single sample."""
    given = checks.plain(op, "x", x)
    if given.ndim not in (1, 2) or given.shape[-1] != inputs:
        raise ValueError(
            f"{op}: x has shape {given.shape}; accepted: (samples, {inputs}) or ({inputs},)"
        )
    bits = as_bits(op, "x", given)
    return np.require(bits.reshape(-1, inputs), requirements=("C", "A")), given.ndim == 1


def as_bits(op: str, name: str, given: np.ndarray, check: bool = False) -> np.ndarray:
    """Zeros and ones as bytes; bytes themselves are left for the kernel to check by default."""
    if given.dtype == np.bool_:
        return given.view(np.uint8) if given.flags.c_contiguous else given.astype(np.uint8)
    if given.dtype.kind not in "iuf":
        raise TypeError(
            f"{op}: {name} has dtype {given.dtype}; accepted: zeros and ones, bool, integer or float"
        )
    if given.dtype == np.uint8 and not check:
        return given
    if not ((given == 0) | (given == 1)).all():
        _only_bits(op, 2, name)
    return given.astype(np.uint8)


def _only_bits(op: str, seen: int, name: str = "x") -> None:
    if seen > 1:
        raise ValueError(
            f"{op}: {name} has values other than 0 and 1; accepted: zeros and ones, "
            "for example from a Thermometer"
        )
