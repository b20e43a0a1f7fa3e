"""Training of logic networks: the step over chunks of samples, epochs, checkpoints."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loopnest.logic import files as logic_files
from loopnest.logic.packed import aligned, as_bits
from loopnest.ops import loss, optimizer
from loopnest.runtime import backend, checks, files, threads

if TYPE_CHECKING:
    from loopnest.logic.network import LogicNetwork

# Work of one neuron on one sample, forward and backward, in the units of threads.split.
_WORK = 8


def samples(op: str, x: Any, inputs: int, name: str = "x") -> np.ndarray:
    """x as bytes 0 and 1, (samples, inputs)."""
    given = checks.plain(op, name, x)
    if given.ndim != 2 or given.shape[1] != inputs:
        raise ValueError(f"{op}: {name} has shape {given.shape}; accepted: (samples, {inputs})")
    return np.ascontiguousarray(as_bits(op, name, given, check=True))


def labels(op: str, name: str, y: Any, count: int, classes: int) -> np.ndarray:
    """y as class indices of so many samples."""
    found = checks.integer_array(op, name, y)
    checks.same_shape(op, name, found, (count,))
    if count and not (found.min() >= 0 and found.max() < classes):
        raise ValueError(
            f"{op}: {name} has labels from {found.min()} to {found.max()}; "
            f"accepted: 0 to {classes - 1}"
        )
    return found


class Engine:
    """Buffers and kernels of one network's forward and backward passes.

    Samples go through all layers in chunks of 32 (kernels.logic.CHUNK), each on its own, so
    that threads may share them; their gradients are added in ascending order afterwards.
    """

    def __init__(self, net: LogicNetwork) -> None:
        self.net = net
        self.group = net.layers[-1] // net.classes
        self.shares = aligned(16 * net.neurons, net.dtype).reshape(16, net.neurons)
        self.coefficients = aligned(4 * net.neurons, net.dtype)
        self.gradients = np.empty((0, 4 * net.neurons), net.dtype)
        self._spare: list[tuple[np.ndarray, ...]] = []

    def mix(self) -> None:
        """Shares and coefficients from the logits."""
        kernel, logits = backend.kernels.logic.logic_coefficients, self.net.logits

        def piece(first: int, last: int) -> None:
            kernel(logits, first, last, self.shares, self.coefficients)

        threads.split(piece, self.net.neurons, logits.size * 2)

    def _buffers(self) -> tuple[np.ndarray, ...]:
        """Work space of one chunk: x, y, dy, dx."""
        if self._spare:
            return self._spare.pop()
        chunk, net = backend.kernels.logic.CHUNK, self.net
        widest = max(net.layers)
        return tuple(
            aligned(rows * chunk, net.dtype) for rows in (net.inputs, net.neurons, widest, widest)
        )

    def _forward(self, buffers: tuple[np.ndarray, ...], part: np.ndarray) -> np.ndarray:
        """Scores (32, classes) of up to 32 samples; the buffers hold all values."""
        kernels, net = backend.kernels.logic, self.net
        x, y = buffers[:2]
        columns = x.reshape(net.inputs, kernels.CHUNK)
        columns[:, : len(part)] = part.T
        columns[:, len(part) :] = 0
        kernels.logic_forward(x, net.left, net.right, self.coefficients, net.starts, y)
        scores = np.empty((kernels.CHUNK, net.classes), net.dtype)
        kernels.logic_scores(y, int(net.starts[-2]), self.group, 1 / net.tau, scores)
        return scores

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Soft scores (samples, classes), over tau."""
        self.mix()
        chunk, net = backend.kernels.logic.CHUNK, self.net
        scores = np.empty((len(x), net.classes), net.dtype)

        def piece(first: int, last: int) -> None:
            buffers = self._buffers()
            for c in range(first, last):
                part = slice(c * chunk, (c + 1) * chunk)
                scores[part] = self._forward(buffers, x[part])[: len(scores[part])]
            self._spare.append(buffers)

        threads.split(piece, -(-len(x) // chunk), len(x) * net.neurons * _WORK)
        return scores

    def gradient(self, x: np.ndarray, y: np.ndarray) -> float:
        """Sum of the cross-entropies of a batch; leaves the gradient of their mean in ``shares``."""
        self.mix()
        kernels, net = backend.kernels.logic, self.net
        chunks = -(-len(x) // kernels.CHUNK)
        if len(self.gradients) < chunks:
            self.gradients = aligned(chunks * 4 * net.neurons, net.dtype).reshape(chunks, -1)
        losses = np.zeros(chunks)

        def piece(first: int, last: int) -> None:
            buffers = self._buffers()
            for c in range(first, last):
                part = slice(c * kernels.CHUNK, (c + 1) * kernels.CHUNK)
                losses[c] = self._chunk(buffers, x[part], y[part], 1 / len(x), self.gradients[c])
            self._spare.append(buffers)

        threads.split(piece, chunks, len(x) * net.neurons * _WORK)
        parts = self.gradients[:chunks]

        def logits_piece(first: int, last: int) -> None:
            kernels.logic_coefficients_backward(parts, self.coefficients, first, last, self.shares)

        threads.split(logits_piece, net.neurons, net.logits.size * 2)
        return math.fsum(losses)

    def _chunk(
        self, buffers: tuple[np.ndarray, ...], x: np.ndarray, y: np.ndarray, weight: float,
        gradients: np.ndarray,
    ) -> float:  # fmt: skip
        """Loss of up to 32 samples; their gradient by the coefficients goes to ``gradients``."""
        kernels, net = backend.kernels.logic, self.net
        scores = self._forward(buffers, x)
        found, dscores = scores[: len(x)], np.zeros_like(scores)
        losses = loss.cross_entropy(found, y, reduction="none")
        dscores[: len(x)] = loss.cross_entropy_backward(found, y, reduction="sum")
        values, features, dy, dx = buffers[1], buffers[0], buffers[2], buffers[3]
        kernels.logic_scores_backward(dscores, self.group, weight / net.tau, dy)
        kernels.logic_backward(
            features, values, net.left, net.right, self.coefficients, net.starts, dy, dx, gradients
        )
        return math.fsum(losses)


def batches(count: int, size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Indices of each mini-batch; the order depends on seed and epoch alone."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    for first in range(0, count, size):
        yield order[first : first + size]


class _Run:
    """One training run: what a checkpoint holds, and what decides when to stop."""

    def __init__(self, net: LogicNetwork) -> None:
        self.m, self.v = np.zeros_like(net.logits), np.zeros_like(net.logits)
        self.step = self.epoch = 0
        self.best_epoch, self.best, self.best_loss = 0, -1.0, math.inf
        self.best_logits = net.logits.copy()
        self.history: list[dict[str, float]] = []

    def entries(self) -> dict[str, np.ndarray]:
        import json

        numbers = {
            "step": self.step, "epoch": self.epoch, "best_epoch": self.best_epoch,
            "best": self.best, "best_loss": self.best_loss,
        }  # fmt: skip
        return {
            "run": np.array(json.dumps(numbers)),
            "m": self.m, "v": self.v,
        }  # fmt: skip

    def restore(self, net: LogicNetwork, file: files.ArrayFile) -> None:
        numbers = file.json("run")
        for name in ("step", "epoch", "best_epoch"):
            setattr(self, name, checks.integer("fit", name, numbers[name], 0))
        self.best, self.best_loss = float(numbers["best"]), float(numbers["best_loss"])
        for name in ("m", "v"):
            array = file.array(name, net.logits.shape, net.dtype)
            setattr(self, name, logic_files.finite(array, name))


def fit(
    net: LogicNetwork,
    x: Any,
    y: Any,
    validation: Any,
    epochs: int,
    batch_size: int,
    lr: float,
    patience: int | None,
    checkpoint: str | os.PathLike | None,
    checkpoint_every: int,
    resume: bool,
    progress: bool,
) -> None:
    """`LogicNetwork.fit`."""
    op = "LogicNetwork.fit"
    x = samples(op, x, net.inputs)
    y = labels(op, "y", y, len(x), net.classes)
    if not len(x):
        raise ValueError(f"{op}: x has no samples; accepted: at least one")
    judged = _validation(op, net, validation) if validation is not None else (x, y)
    epochs = checks.integer(op, "epochs", epochs, 0)
    batch_size = checks.integer(op, "batch_size", batch_size, 1)
    lr = checks.number(op, "lr", lr, 0.0)
    every = checks.integer(op, "checkpoint_every", checkpoint_every, 1)
    if patience is not None:
        patience = checks.integer(op, "patience", patience, 1)
    run = _Run(net)
    mark = _fingerprint(net, x, y, judged, batch_size, lr)
    if checkpoint is not None:
        checkpoint = Path(checkpoint)
        if resume and checkpoint.exists():
            _resume(op, net, run, checkpoint, mark)
    engine = Engine(net)
    from loopnest.runtime import terminal  # rich takes longer to import than all of this package

    with terminal.Bar("fit", epochs, shown=progress) as bar:
        bar.to(run.epoch)
        while run.epoch < epochs and not _tired(run, patience):
            _one_epoch(net, engine, run, x, y, judged, batch_size, lr)
            last = run.history[-1]
            bar.to(run.epoch, f"loss {last['loss']:.4f}  hard accuracy {last['accuracy']:.4f}")
            if checkpoint is not None and run.epoch % every == 0:
                _save(net, run, checkpoint, mark)
    if checkpoint is not None and run.epoch:
        _save(net, run, checkpoint, mark)
    net.logits = run.best_logits.copy()
    net.history = list(run.history)


def _validation(op: str, net: LogicNetwork, given: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise TypeError(f"{op}: validation is a {type(given).__name__}; accepted: a pair (x, y)")
    x = samples(op, given[0], net.inputs, "validation x")
    if not len(x):
        raise ValueError(f"{op}: validation x has no samples; accepted: at least one")
    return x, labels(op, "validation y", given[1], len(x), net.classes)


def _one_epoch(
    net: LogicNetwork, engine: Engine, run: _Run, x: np.ndarray, y: np.ndarray,
    judged: tuple[np.ndarray, np.ndarray], batch_size: int, lr: float,
) -> None:  # fmt: skip
    begin, total = time.perf_counter(), 0.0
    for rows in batches(len(x), batch_size, net.seed, run.epoch):
        total += engine.gradient(x[rows], y[rows])
        run.step += 1
        optimizer.adam_step(net.logits, engine.shares, run.m, run.v, step=run.step, lr=lr)
    run.epoch += 1
    accuracy, loss = net.accuracy(*judged), total / len(x)
    if accuracy > run.best or (accuracy == run.best and loss < run.best_loss):
        run.best_epoch = run.epoch if accuracy > run.best else run.best_epoch
        run.best, run.best_loss = accuracy, loss
        run.best_logits[:] = net.logits
    run.history.append(
        {
            "epoch": run.epoch, "loss": loss, "accuracy": accuracy,
            "seconds": time.perf_counter() - begin,
        }
    )  # fmt: skip


def _tired(run: _Run, patience: int | None) -> bool:
    return patience is not None and run.epoch - run.best_epoch >= patience


# ---- checkpoints ----


def _fingerprint(net: LogicNetwork, *parts: Any) -> str:
    """Digest of all that decides the bits of a run."""
    import hashlib
    import json

    digest = hashlib.sha256(json.dumps(net.config()).encode())
    for part in (net.left, net.right, net.logits, *parts):
        for item in part if isinstance(part, tuple) else (part,):
            digest.update(item.tobytes() if isinstance(item, np.ndarray) else repr(item).encode())
    return digest.hexdigest()


def _save(net: LogicNetwork, run: _Run, path: Path, mark: str) -> None:
    """A file of the best network so far that also holds the state of the run."""
    entries = net.file_entries(run.best_logits, run.history)
    more = {"current_logits": net.logits, "fingerprint": np.array(mark)}
    files.write_npz(path, {**entries, **run.entries(), **more})


def _resume(op: str, net: LogicNetwork, run: _Run, path: Path, mark: str) -> None:
    """Go back to the state in a checkpoint of this very run."""
    with logic_files.opened(path) as file:
        saved = type(net).from_file(file, net.logits.nbytes + net.left.nbytes + net.right.nbytes)
        try:
            found = file.text("fingerprint")
            run.restore(net, file)
            current = file.array("current_logits", net.logits.shape, net.dtype)
            current = logic_files.finite(current, "current_logits")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{op}: {str(path)!r} is no whole checkpoint ({error})") from error
    if found != mark:
        raise ValueError(
            f"{op}: checkpoint {str(path)!r} is of another run (network, samples, batch_size or lr "
            "differ); accepted: its own checkpoint, another file, or resume=False to start anew"
        )
    run.best_logits, run.history = saved.logits, saved.history
    net.logits = current
