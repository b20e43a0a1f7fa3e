"""The handwritten solution sheet of the four worked problems, as data.

Numbers that the sheet shows are kept as text, so that their digits are known. They stand as
printed, also where they are off; `SLIPS` says what is known about those.
"""

from __future__ import annotations

from typing import NamedTuple

# The problems' given numbers.
LR_SMALL, LR_LARGE, BETA = 0.1, 1.0, 0.9
IMAGE = ((3, 5, 2, 3), (9, 1, 8, 4), (6, 4, 3, 7), (7, 0, 2, 4))
FILTER = ((-1, 0.5, -2), (2, 0, 1), (0, 1, 1.5))
# Neurons of each gate: weights of the two inputs, bias; three are a 2-2-1 network.
GATES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "AND": ((0.5, 0.5, -1),),
    "OR": ((1, 1, -0.5),),
    "XOR": ((-1, -1, 1.5), (1, 1, -0.5), (-1, -1, 1)),
    "XNOR": ((-1, -1, 1.5), (1, 1, -0.5), (1, 1, -1.5)),
}

# Printed numbers: problem -> quantity -> the numbers, separated by blanks.
PRINTED: dict[str, dict[str, str]] = {
    "1a": {
        "slope at x0": "0.5",
        "slope at x1": "0.4575",
        "slope at x2": "0.418875",
        "x1": "-0.05",
        "x2": "-0.09575",
        "x3": "-0.13764",
        "GELU(x0)": "0",
        "GELU(x1)": "-0.02394",
        "GELU(x2)": "-0.04398",
        "GELU(x3)": "-0.06079",
    },
    "1b": {
        "slope at x0": "0.5",
        "slope at x1": "0.120778",
        "slope at x2": "0.055719",
        "x1": "-0.5",
        "x2": "-0.62078",
        "x3": "-0.6765",
        "GELU(x0)": "0",
        "GELU(x1)": "-0.14961",
        "GELU(x2)": "-0.16014",
        "GELU(x3)": "-0.16252",
    },
    "1c": {
        "slope at x0": "-0.02455",
        "slope at x1": "-0.02462",
        "slope at x2": "-0.0247",
        "x1": "-2.99755",
        "x2": "-2.99508",
        "x3": "-2.99261",
        "GELU(x0)": "-0.01807",
        "GELU(x1)": "-0.01813",
        "GELU(x2)": "-0.01819",
        "GELU(x3)": "-0.01825",
    },
    "1c momentum": {
        "V0": "-0.02455",
        "V1": "-0.02455",
        "V2": "-0.02456",
        "x1": "-2.99755",
        "x2": "-2.99509",
        "x3": "-2.99263",
        "GELU(x1)": "-0.01813",
        "GELU(x2)": "-0.01819",
        "GELU(x3)": "-0.01825",
    },
    "2": {
        "AND pre-activation": "-1 -0.5 -0.5 0",
        "AND sigmoid": "0.269 0.376 0.376 0.5",
        "AND decides": "0 0 0 1",
        "OR pre-activation": "-0.5 0.5 0.5 1.5",
        "OR sigmoid": "0.376 0.622 0.622 0.817",
        "OR decides": "0 1 1 1",
        "XOR neuron 1": "1.5 0.5 0.5 -0.5",
        "XOR neuron 1, ReLU": "1.5 0.5 0.5 0",
        "XOR neuron 2": "-0.5 0.5 0.5 1.5",
        "XOR neuron 2, ReLU": "0 0.5 0.5 1.5",
        "XOR pre-activation": "-0.5 0 0 -0.5",
        "XOR sigmoid": "0.378 0.5 0.5 0.378",
        "XOR decides": "0 1 1 0",
        "XNOR pre-activation": "0 -0.5 -0.5 0",
        "XNOR sigmoid": "0.5 0.378 0.378 0.5",
        "XNOR decides": "1 0 0 1",
    },
    "4": {
        "(a) padding that keeps 4x4": "1",
        "(a) F' row 1": "15.5 21 27 8",
        "(a) F' row 2": "4.5 30 9.5 22.5",
        "(a) F' row 3": "13.5 -6.5 18 4",
        "(a) F' row 4": "-5 6 -12.5 4.5",
        "(b) 2x2, padding 1, stride 1: size": "5 5",
        "(b) 2x2, padding 1, stride 2: size": "3 3",
        "(b) ways to 4x4 with padding 1": "0",
        "(b) ways to 4x4 in all": "0",
        "(c) average pooling row 1": "17.75 16.75",
        "(c) average pooling row 2": "2 3.5",
        "(d) filter 3": "0.25 0.25 0.25 0.25",
        "(d) by convolution row 1": "17.75 16.75",
        "(d) by convolution row 2": "2 3.5",
    },
}


class Slip(NamedTuple):
    """What is known to be off about a quantity on the sheet.

    ``printed`` is the number it is about; None means that the number is right and what
    stands around it is not.
    """

    printed: str | None
    reason: str


SLIPS: dict[tuple[str, str], Slip] = {
    ("1c", "GELU(x3)"): Slip(None, "right number, but labelled GELU(x0)"),
    ("2", "AND sigmoid"): Slip("0.376", "a slip: sigmoid(-0.5) is 0.3775"),
    ("2", "OR sigmoid"): Slip("0.376", "a slip: sigmoid(-0.5) is 0.3775"),
    ("3", "(b) dE/dx"): Slip(None, "right formula, but headed dE/dw"),
    ("4", "(b) ways to 4x4 in all"): Slip(
        "0", '"4x4 cannot be reached" holds for padding 1 only; the ways are below'
    ),
}

REMARKS: dict[str, tuple[str, ...]] = {
    "1b": (
        "A rate of 1 comes near the minimum (-0.7511542554) sooner, as the sheet remarks; a "
        "larger one can overshoot it.",
    ),
    "1c": (
        'Sheet: titled "gradient descent with momentum (i)"; its numbers are of plain descent.',
    ),
    "1c momentum": (
        "The sheet concludes that both perform the same: true of three steps on a plateau. The "
        "next table has 20,000.",
    ),
    "1c long": (
        "All end in the minimum, but not alike: heavy-ball and nesterov add up slopes, up to ten "
        "at momentum 0.9, and need less than half the steps of plain descent; ema and lookback "
        "average slopes and gain about an eighth.",
    ),
    "3": (
        "The sheet has formulas only: the instance is ours, checked against plain Python and "
        "central differences.",
    ),
    "4": (
        "(b) lists strides 1 to 4 with up to 2 rows or columns a side: with more, a 2x2 window "
        "sees nothing but zeros.",
    ),
}
