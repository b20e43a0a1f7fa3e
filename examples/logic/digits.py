"""scikit-learn's 1,797 handwritten digits of 8 x 8 pixels: 1,437 to learn from, 360 for the test.

Each pixel (0 to 16) becomes 5 bits. The split is a permutation by the seed.
"""

import numpy as np
import report
from sklearn.datasets import load_digits

import loopnest as ln

TRAIN = 1437


def make(seed: int) -> report.Task:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    bits, y = ln.Thermometer([2, 5, 8, 11, 14])(x[order]), y[order]
    return report.Task(
        train=(bits[:TRAIN], y[:TRAIN]),
        test=(bits[TRAIN:], y[TRAIN:]),
        layers=[4000] * 4,
        classes=10,
        tau=20,
        fit={"epochs": 40, "batch_size": 64, "lr": 0.02},
    )


if __name__ == "__main__":
    report.run("digits", make, report.arguments(__doc__))
