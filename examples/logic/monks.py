"""MONK's problems (Thrun et al. 1991), made by their rules; the test set is all 432 robots.

Training samples are a random subset by the seed, of the published sizes 124, 169 and 122; in
the third problem 5% of their labels (6) are wrong, as published. Attributes are one-hot: 17 bits.
"""

import itertools

import numpy as np
import report

VALUES = (3, 3, 2, 3, 4, 2)  # of the six attributes, counting from 1
ROBOTS = np.array(list(itertools.product(*(range(1, n + 1) for n in VALUES))))
BITS = np.concatenate(
    [ROBOTS[:, [i]] == np.arange(1, n + 1) for i, n in enumerate(VALUES)], axis=1
).astype(np.uint8)
HEAD, BODY, _, HOLDS, JACKET, _ = ROBOTS.T
RULES = {
    1: (HEAD == BODY) | (JACKET == 1),
    2: (ROBOTS == 1).sum(axis=1) == 2,
    3: ((JACKET == 3) & (HOLDS == 1)) | ((JACKET != 4) & (BODY != 3)),
}
TRAIN = {1: 124, 2: 169, 3: 122}
WRONG_LABELS = {1: 0, 2: 0, 3: 6}
DEEP = {"layers": [136] + [400] * 9, "tau": 5.0}
SHALLOW = {"layers": [136] + [400] * 3, "tau": 20.0}  # learns less of the wrong labels
NETWORK = {1: DEEP, 2: DEEP, 3: SHALLOW}
FIT = {
    1: {"epochs": 200, "batch_size": 32},
    2: {"epochs": 200, "batch_size": 32},
    3: {"epochs": 60, "batch_size": 16},
}


def make(problem: int, seed: int) -> report.Task:
    rng = np.random.default_rng(seed)
    y = RULES[problem].astype(np.int64)
    rows = rng.permutation(len(y))[: TRAIN[problem]]
    learned = y[rows]
    learned[rng.permutation(len(rows))[: WRONG_LABELS[problem]]] ^= 1
    return report.Task(
        train=(BITS[rows], learned),
        test=(BITS, y),
        classes=2,
        fit={"lr": 0.02, **FIT[problem]},
        **NETWORK[problem],
    )


if __name__ == "__main__":
    options = report.arguments(__doc__)
    for problem in RULES:
        report.run(f"MONK-{problem}", lambda seed, p=problem: make(p, seed), options)
