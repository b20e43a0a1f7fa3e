"""Trainable networks of two-input logic gates (differentiable logic-gate networks)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from loopnest.logic import files as logic_files
from loopnest.logic import netlist, training
from loopnest.logic import packed as packed_logic
from loopnest.runtime import checks, files
from loopnest.runtime.copies import Copied

# Logit of the passing-through gate `a` at the start: 0.9 of the mixture, as in Petersen 2024.
RESIDUAL = math.log(0.9 / (0.1 / 15))
_LEFT = netlist.LEFT
_LARGEST = 2**31 - 1


class LogicNetwork(Copied):
    """Layers of two-input logic gates, trained by gradient descent; on the CPU.

    Every neuron reads two neurons of the layer before, chosen at random once (each pair once, or
    equally often where there are more neurons than pairs), and mixes the 16
    two-input functions by a softmax over its 16 logits. After training each neuron keeps its most
    probable function: what remains is a circuit of gates, evaluated on bits (`pack`). A class's
    score is the number of ones among its share of the last layer's outputs, over ``tau``.

    Parameters
    ----------
    inputs : int
        Bits of a sample; see `Thermometer` for making bits of numbers.
    layers : sequence of int
        Neurons of each layer; the last must be a multiple of ``classes``.
    classes : int
        Number of classes, at least 2.
    tau : float, optional
        Divides the scores before the softmax over classes; by default the root of the outputs a
        class has. Larger is softer.
    seed : int
        Of the connections, of random initial logits, and of the order of samples in `fit`.
    init : {"residual", "random"}
        "residual" starts each neuron as 0.9 of its left input, 0.1 spread over the other
        functions, which keeps gradients alive in deep networks; "random" draws normal logits.
    dtype : float32 or float64
        Of logits and training.

    Raises
    ------
    TypeError, ValueError
        For options out of range, classes that do not divide the outputs, or a layer that reads a
        layer of one neuron.

    Notes
    -----
    The method is that of F. Petersen, C. Borgelt, H. Kuehne, O. Deussen, "Deep Differentiable Logic
    Gate Networks", NeurIPS 2022, with the residual initialisation of F. Petersen, H. Kuehne,
    C. Borgelt, J. Welzel, S. Ermon, "Convolutional Differentiable Logic Gate Networks", NeurIPS
    2024. Its authors state a pending patent on the method; ask them before commercial use.

    The 16 functions are bilinear in their values at the corners, so that a mixture is c0 + c1 a +
    c2 b + c3 ab, and training works on 4 coefficients a neuron.

    Examples
    --------
    >>> import numpy as np, loopnest as ln
    >>> x = np.random.default_rng(0).integers(0, 2, (300, 5))
    >>> net = ln.LogicNetwork(5, [10, 24, 16], classes=2, tau=2)
    >>> y = (x[:, 0] & x[:, 1]) ^ x[:, 3]
    >>> net.fit(x, y, epochs=60, batch_size=50, lr=0.05, progress=False).accuracy(x, y)
    1.0
    """

    def __init__(
        self,
        inputs: int,
        layers: Sequence[int],
        classes: int,
        *,
        tau: float | None = None,
        seed: int = 0,
        init: str = "residual",
        dtype: Any = np.float32,
    ) -> None:
        op = "LogicNetwork"
        self.inputs = checks.integer(op, "inputs", inputs, 2, _LARGEST)
        if isinstance(layers, (str, bytes)) or not isinstance(layers, (Sequence, np.ndarray)):
            raise TypeError(f"{op}: layers is {layers!r}; accepted: a sequence of integers")
        self.layers = tuple(checks.integer(op, "layers", n, 1, _LARGEST) for n in layers)
        if not self.layers:
            raise ValueError(f"{op}: layers is empty; accepted: at least one layer")
        self.classes = checks.integer(op, "classes", classes, 2, _LARGEST)
        if self.layers[-1] % self.classes:
            raise ValueError(
                f"{op}: the last of layers is {self.layers[-1]} with {self.classes} classes; "
                "accepted: a multiple of classes"
            )
        self.seed = checks.integer(op, "seed", seed, 0)
        self.init = checks.choice(op, "init", init, ("residual", "random"))
        self.dtype = _float_dtype(op, dtype)
        group = self.layers[-1] // self.classes
        self.tau = math.sqrt(group) if tau is None else checks.number(op, "tau", tau, 1e-6)
        rng = np.random.default_rng(self.seed)
        self._connect(op, rng)
        self.logits = self._first_logits(rng)
        self.history: list[dict[str, float]] = []

    def _connect(self, op: str, rng: np.random.Generator) -> None:
        sizes = (self.inputs, *self.layers)
        pairs = [
            unique_pairs(op, sizes[i], sizes[i + 1], rng, self.classes if last else 1)
            for i, last in enumerate([False] * (len(self.layers) - 1) + [True])
        ]
        #: Where each layer's neurons begin, and their inputs as rows of the layer before.
        self.starts = np.concatenate([[0], np.cumsum(self.layers)]).astype(np.int64)
        self.left, self.right = (
            np.ascontiguousarray(np.concatenate([p[:, side] for p in pairs]), np.int32)
            for side in (0, 1)
        )

    def _first_logits(self, rng: np.random.Generator) -> np.ndarray:
        if self.init == "random":
            return rng.standard_normal((16, self.neurons)).astype(self.dtype)
        logits = np.zeros((16, self.neurons), self.dtype)
        logits[_LEFT] = RESIDUAL
        return logits

    def __repr__(self) -> str:
        return (
            f"LogicNetwork({self.inputs}, {list(self.layers)}, {self.classes}, tau={self.tau:g}, "
            f"seed={self.seed}, init={self.init!r})"
        )

    @property
    def neurons(self) -> int:
        """Gates of all layers together."""
        return sum(self.layers)

    @property
    def functions(self) -> np.ndarray:
        """Index in `GATE_NAMES` of each neuron's most probable function."""
        return self.logits.argmax(axis=0).astype(np.uint8)

    # -- training --

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        validation: tuple[Any, Any] | None = None,
        epochs: int = 100,
        batch_size: int = 128,
        lr: float = 0.01,
        patience: int | None = None,
        checkpoint: str | os.PathLike | None = None,
        checkpoint_every: int = 1,
        resume: bool = True,
        progress: bool = True,
    ) -> LogicNetwork:
        """Train by Adam on mini-batches, and keep the epoch whose HARD network was best.

        After each epoch the hard network (each neuron its most probable function) is scored on the
        validation samples, or without any on the training samples. The logits of the best epoch
        (of equally good ones that of the smallest loss) are the result, also when training stops
        early.

        Parameters
        ----------
        x : array_like, shape (samples, inputs)
            Zeros and ones, of any boolean, integer or float dtype.
        y : array_like of int, shape (samples,)
            Classes, 0 to classes - 1.
        validation : (x, y), optional
            Samples that training does not see.
        epochs : int
            Passes over the samples, at most.
        batch_size : int
            Samples a step.
        lr : float
            Adam's learning rate.
        patience : int, optional
            Stop after so many epochs without a better hard accuracy.
        checkpoint : path-like, optional
            File for the state of the run, written to a temporary name and renamed, after every
            ``checkpoint_every`` epochs and at the end. If training is interrupted, the last one remains;
            `LogicNetwork.load` reads
            it too, as the best network so far.
        resume : bool
            If the file is there, go on from it: to the same bits as without the interruption.
            False starts anew.
        progress : bool
            Show a bar with loss and hard accuracy.

        Returns
        -------
        LogicNetwork
            The network itself; ``history`` has an entry an epoch: epoch, loss (mean cross-entropy of
            the soft network while training), accuracy (hard) and seconds.

        Raises
        ------
        TypeError, ValueError
            For samples that are not 0 and 1, labels out of range, options out of range, or a
            checkpoint that is damaged or of another run.
        """
        training.fit(
            self, x, y, validation, epochs, batch_size, lr, patience, checkpoint,
            checkpoint_every, resume, progress,
        )  # fmt: skip
        return self

    # -- the hard network --

    def netlist(self) -> netlist.Netlist:
        """The circuit of each neuron's most probable function."""
        offsets = np.concatenate([[0], self.inputs + self.starts[:-2]])  # of the layer before
        shift = np.repeat(offsets, self.layers).astype(np.int32)
        last = np.arange(self.starts[-2], self.starts[-1]) + self.inputs
        return netlist.Netlist(
            self.inputs, self.left + shift, self.right + shift, self.functions,
            last.astype(np.int32),
        )  # fmt: skip

    def pack(self, *, simplify: bool = True, verify: bool = True) -> packed_logic.PackedLogic:
        """The hard network as a predictor on bits.

        Parameters
        ----------
        simplify : bool
            Remove constants, copies, duplicates and gates that nobody reads.
        verify : bool
            Compare the simplified network with the original: on every sample for up to 16
            inputs, else on 4096 random ones.

        Returns
        -------
        PackedLogic
        """
        plain = packed_logic.PackedLogic(
            self.netlist(), self.classes, simplify=False,
            levels=np.repeat(np.arange(1, len(self.layers) + 1), self.layers),
        )  # fmt: skip
        if not simplify:
            return plain
        packed = packed_logic.PackedLogic(plain.netlist, self.classes)
        if verify:
            packed.prove_equal(plain)
        return packed

    def predict(self, x: Any) -> Any:
        """Classes of samples by the hard network; see `PackedLogic.predict`."""
        return self.pack(simplify=False).predict(x)

    def scores(self, x: Any, *, soft: bool = False) -> np.ndarray:
        """Scores of the classes.

        Parameters
        ----------
        x : array_like, shape (samples, inputs)
            Zeros and ones.
        soft : bool
            Scores of the mixtures as training sees them, over tau; else the hard network's
            counts of ones.

        Returns
        -------
        ndarray, shape (samples, classes), of the network's dtype or int32
        """
        if not soft:
            return self.pack(simplify=False).scores(x)
        samples = training.samples("LogicNetwork.scores", x, self.inputs)
        return training.Engine(self).scores(samples)

    def accuracy(self, x: Any, y: Any) -> float:
        """Share of samples whose class the hard network finds."""
        op = "LogicNetwork.accuracy"
        samples = training.samples(op, x, self.inputs)
        labels = training.labels(op, "y", y, len(samples), self.classes)
        return float(np.mean(self.predict(samples) == labels)) if len(labels) else math.nan

    def to_c(self, path: str | os.PathLike, name: str = "network") -> None:
        """Write the simplified hard network as a C11 file; see `PackedLogic.to_c`."""
        self.pack().to_c(path, name)

    def to_verilog(self, path: str | os.PathLike, name: str = "network") -> None:
        """Write the simplified hard network as a Verilog module; see `PackedLogic.to_verilog`."""
        self.pack().to_verilog(path, name)

    # -- files --

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "inputs": self.inputs, "layers": list(self.layers), "classes": self.classes,
            "tau": self.tau, "seed": self.seed, "init": self.init, "dtype": self.dtype.name,
        }  # fmt: skip

    def save(self, path: str | os.PathLike) -> None:
        """Write the network to an NPZ file: beside it first, then renamed. `load` reads it."""
        files.write_npz(path, self.file_entries(self.logits, self.history))

    def file_entries(self, logits: np.ndarray, history: list) -> dict[str, np.ndarray]:
        """What a file of the network with these logits holds."""
        import json

        header = {
            "format": logic_files.FORMAT,
            "version": logic_files.VERSION,
            **self.config(),
            "history": history,
        }
        return {
            "header": np.array(json.dumps(header)),
            "logits": logits, "left": self.left, "right": self.right,
        }  # fmt: skip

    @classmethod
    def load(
        cls, path: str | os.PathLike, *, max_bytes: int = logic_files.MOST_BYTES
    ) -> LogicNetwork:
        """Read a network that `save`, or a checkpoint of `fit`, has written.

        Parameters
        ----------
        path : path-like
            The file. Nothing in it is unpickled.
        max_bytes : int
            Bound for the network's arrays together; 1 GiB by default. The file's header is read
            first, and every array must be as large as the header says, before it is unpacked.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        ValueError
            The file is damaged, of another kind, of a newer version, or too large.
        """
        max_bytes = checks.integer(logic_files.LOAD, "max_bytes", max_bytes, 1)
        with logic_files.opened(path) as file:
            return cls.from_file(file, max_bytes)

    @classmethod
    def from_file(cls, file: files.ArrayFile, max_bytes: int) -> LogicNetwork:
        """The network in a file; all of it is checked."""
        header = logic_files.read_header(file)
        try:
            net = cls.__new__(cls)
            net._restore(logic_files.LOAD, header, header, file, max_bytes)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if str(error).startswith(file.what):
                raise
            raise ValueError(f"{file.what} is damaged ({error})") from error
        return net

    def _restore(
        self, op: str, header: dict, options: dict, file: files.ArrayFile, max_bytes: int
    ) -> None:
        """Fill in from a file: the connections are those of the file, not drawn anew."""
        sizes = [checks.integer(op, "layers", n, 1, _LARGEST) for n in header["layers"]]
        self.inputs = checks.integer(op, "inputs", header["inputs"], 2, _LARGEST)
        self.layers, self.classes = (
            tuple(sizes),
            checks.integer(op, "classes", header["classes"], 2),
        )
        if not sizes or sizes[-1] % self.classes:
            raise ValueError("classes do not divide the outputs")
        self.seed = checks.integer(op, "seed", options["seed"], 0)
        self.init = checks.choice(op, "init", options["init"], ("residual", "random"))
        self.dtype = _float_dtype(op, np.dtype(str(options["dtype"])))
        self.tau = checks.number(op, "tau", options["tau"], 1e-6)
        self.history = header["history"]
        if not isinstance(self.history, list):
            raise ValueError("history is no list")
        size = self.neurons * (16 * self.dtype.itemsize + 2 * 4)
        if size > max_bytes:
            raise ValueError(f"its arrays have {size} bytes; accepted: max_bytes, {max_bytes}")
        self.starts = np.concatenate([[0], np.cumsum(self.layers)]).astype(np.int64)
        self.left, self.right = (
            file.array(name, (self.neurons,), np.int32) for name in ("left", "right")
        )
        before = np.repeat((self.inputs, *self.layers[:-1]), self.layers)
        for rows in (self.left, self.right):
            if (rows < 0).any() or (rows >= before).any():
                raise ValueError("left or right points outside its layer")
        if (self.left == self.right).any():
            raise ValueError("left and right are the same row")
        logits = file.array("logits", (16, self.neurons), self.dtype)
        self.logits = logic_files.finite(logits, "logits")


def _float_dtype(op: str, dtype: Any) -> np.dtype:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found not in (checks.F32, checks.F64):
        raise TypeError(f"{op}: dtype is {dtype!r}; accepted: float32 or float64")
    return found


def unique_pairs(
    op: str, inputs: int, neurons: int, rng: np.random.Generator, groups: int = 1
) -> np.ndarray:
    """Random pairs (neurons, 2) of different inputs, no pair twice where there are enough of them.

    Of more neurons than pairs, every pair is used equally often, as far as that can be: neurons
    on the same pair learn different functions. Inputs are used equally often, as far as that can
    be. Within each group pairs are sorted by their first input, so that rows are read in order,
    which is up to twice as fast.
    """
    if inputs < 2:
        raise ValueError(
            f"{op}: layers has {neurons} neurons on {inputs} input; accepted: at least 2 inputs"
        )
    possible = inputs * (inputs - 1) // 2
    whole, rest = divmod(neurons, possible) if neurons > possible else (0, neurons)
    parts = [_dense_pairs(inputs, possible, rng) for _ in range(whole)]
    if rest:
        dense = 4 * rest > possible
        parts.append((_dense_pairs if dense else _sparse_pairs)(inputs, rest, rng))
    pairs = rng.permutation(np.concatenate(parts)) if whole else parts[0]
    grouped = pairs.reshape(groups, -1, 2)
    order = np.argsort(grouped[:, :, 0], axis=1, kind="stable")
    return np.take_along_axis(grouped, order[:, :, None], axis=1).reshape(-1, 2)


def _dense_pairs(inputs: int, neurons: int, rng: np.random.Generator) -> np.ndarray:
    """A choice among all pairs, for when a good part of them is needed."""
    every = np.stack(np.triu_indices(inputs, 1), axis=1)
    chosen = every[rng.permutation(len(every))[:neurons]]
    turned = rng.random(neurons) < 0.5
    chosen[turned] = chosen[turned, ::-1]
    return chosen


def _sparse_pairs(inputs: int, neurons: int, rng: np.random.Generator) -> np.ndarray:
    """Pairs from shuffled decks of all inputs; those that clash exchange partners."""
    decks = -(-2 * neurons // inputs)
    cards = np.concatenate([rng.permutation(inputs) for _ in range(decks)])[: 2 * neurons]
    pairs = rng.permutation(cards).reshape(-1, 2)
    while True:
        low, high = pairs.min(axis=1).astype(np.int64), pairs.max(axis=1)
        _, first = np.unique(low * inputs + high, return_index=True)
        clash = np.ones(neurons, bool)
        clash[first] = False
        bad = np.flatnonzero(clash | (low == high))
        if not len(bad):
            return pairs
        others = rng.integers(0, neurons, len(bad))
        for i, j in zip(bad, others, strict=True):
            pairs[i, 1], pairs[j, 1] = pairs[j, 1], pairs[i, 1]
