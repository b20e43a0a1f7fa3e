"""Breast cancer, Wisconsin (scikit-learn): 455 samples to learn from, 114 for the test.

Each of the 30 features becomes 10 bits, cut at quantiles of the training samples. The split is a
permutation by the seed.
"""

import numpy as np
import report
from sklearn.datasets import load_breast_cancer

import loopnest as ln

TRAIN = 455


def make(seed: int) -> report.Task:
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[:TRAIN], order[TRAIN:]
    coder = ln.Thermometer.quantiles(x[train], 10)
    return report.Task(
        train=(coder(x[train]), y[train]),
        test=(coder(x[test]), y[test]),
        layers=[2000] * 4,
        classes=2,
        tau=60,
        fit={"epochs": 30, "batch_size": 32, "lr": 0.02},
    )


if __name__ == "__main__":
    report.run("breast cancer", make, report.arguments(__doc__))
