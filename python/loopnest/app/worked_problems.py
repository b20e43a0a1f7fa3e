"""The four worked problems: each computed with loopnest, and again in plain Python floats.

A `Problem` pairs the two. ``compute(dtype)`` runs on the backend in use; ``expected()`` shares
no code with it (`math` and loops over lists), so it can tell which of them is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import loopnest as ln
from loopnest.app import worked_sheet as sheet

Values = dict[str, Any]

# Where the slope of GELU is 0; a run has reached it within NEAR.
MINIMUM = -0.751154255441289
NEAR = 1e-6
LONG = 20_000
START = -3.0

CONVENTIONS = ("plain", "ema", "heavy-ball", "lookback", "nesterov")


@dataclass(frozen=True)
class Problem:
    """One table of the report."""

    key: str
    title: str
    compute: Callable[[Any], Values]
    expected: Callable[[], Values]
    columns: str = ""  # what the numbers of one quantity stand for
    digits: int = 10
    tolerance: float = 1e-12  # relative to the yardstick, float64
    tolerances: dict[str, float] = field(default_factory=dict)  # absolute, by quantity
    tolerance32: float = 1e-5  # absolute up to 1, then relative, float32


# ---- 1: descent on GELU ----


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))


def _gelu(x: float) -> float:
    return x * _sigmoid(1.702 * x)


def _slope(x: float) -> float:
    e = math.exp(-1.702 * x)
    return (1 + e * (1 + 1.702 * x)) / (1 + e) ** 2


def descend(dtype: Any, x0: float, lr: float, steps: int, convention: str) -> np.ndarray:
    """The points of a descent on GELU, with loopnest."""
    options: dict[str, Any] = {"method": "gd"}
    if convention != "plain":
        options = {"method": "momentum", "momentum": sheet.BETA, "convention": convention}
    start = np.array([x0], dtype)
    result = ln.descend(ln.gelu, start, lr=lr, steps=steps, record=True, **options)
    return np.asarray(result.trajectory).reshape(-1)


def _descend_plainly(x: float, lr: float, steps: int, convention: str) -> list[float]:
    b = 0.0 if convention == "plain" else sheet.BETA
    v = _slope(x) if convention == "lookback" else 0.0
    points = [x]
    for _ in range(steps):
        g = _slope(x)
        if convention == "lookback":
            x, v = x - lr * v, b * v + (1 - b) * g
        else:
            v = b * v + ((1 - b) * g if convention == "ema" else g)
            x -= lr * (g + b * v if convention == "nesterov" else v)
        points.append(x)
    return points


def _named(name: str, values: Any) -> Values:
    return {name.format(i): v for i, v in enumerate(values)}


def _descent(x0: float, lr: float) -> tuple[Callable[[Any], Values], Callable[[], Values]]:
    """Three plain steps: slopes, points and values."""

    def compute(dtype: Any) -> Values:
        x = descend(dtype, x0, lr, 3, "plain")
        slopes, values = ln.gelu_derivative(x[:3]), ln.gelu(x)
        points = {f"x{i}": x[i] for i in (1, 2, 3)}
        return _named("slope at x{}", slopes) | points | _named("GELU(x{})", values)

    def expected() -> Values:
        x = _descend_plainly(x0, lr, 3, "plain")
        points = {f"x{i}": x[i] for i in (1, 2, 3)}
        slopes, values = map(_slope, x[:3]), map(_gelu, x)
        return _named("slope at x{}", slopes) | points | _named("GELU(x{})", values)

    return compute, expected


def _lookback(x: Any, values: Any, lr: float) -> Values:
    """V from the steps it made, points and values after the start."""
    velocities = {f"V{i}": (x[i] - x[i + 1]) / lr for i in range(3)}
    points = {f"x{i}": x[i] for i in (1, 2, 3)}
    return velocities | points | {f"GELU(x{i})": values[i] for i in (1, 2, 3)}


def _compute_lookback(dtype: Any) -> Values:
    x = descend(dtype, START, sheet.LR_SMALL, 3, "lookback")
    return _lookback(x, ln.gelu(x), x.dtype.type(sheet.LR_SMALL))


def _expected_lookback() -> Values:
    x = _descend_plainly(START, sheet.LR_SMALL, 3, "lookback")
    return _lookback(x, [_gelu(v) for v in x], sheet.LR_SMALL)


def steps_to_minimum(x: Any) -> float:
    """The first step from which the points stay within NEAR of the minimum; inf for never."""
    near = np.abs(np.asarray(x, np.float64) - MINIMUM) <= NEAR  # false for NaN
    far = np.flatnonzero(~near)
    first = int(far[-1]) + 1 if far.size else 0
    return math.inf if first == len(x) else first


def _label(convention: str) -> str:
    return "plain descent" if convention == "plain" else f"momentum, {convention}"


def _compute_long(dtype: Any) -> Values:
    rows: Values = {}
    for convention in CONVENTIONS:
        x = descend(dtype, START, sheet.LR_SMALL, LONG, convention)
        rows[f"{_label(convention)}: x"] = x[-1]
        rows[f"{_label(convention)}: GELU(x)"] = ln.gelu(x[-1:])
        rows[f"{_label(convention)}: steps"] = steps_to_minimum(x)
    return rows


def _expected_long() -> Values:
    rows: Values = {}
    for convention in CONVENTIONS:
        x = _descend_plainly(START, sheet.LR_SMALL, LONG, convention)
        rows[f"{_label(convention)}: x"] = x[-1]
        rows[f"{_label(convention)}: GELU(x)"] = _gelu(x[-1])
        rows[f"{_label(convention)}: steps"] = steps_to_minimum(x)
    return rows


# ---- 2: gates ----

_A, _B = (0, 0, 1, 1), (0, 1, 0, 1)


def _gate_rows(name: str, hidden: list[tuple[Any, Any]], last: tuple[Any, Any, Any]) -> Values:
    rows: Values = {}
    for i, (before, after) in enumerate(hidden, start=1):
        rows[f"{name} neuron {i}"] = before
        rows[f"{name} neuron {i}, ReLU"] = after
    keys = ("pre-activation", "sigmoid", "decides")
    return rows | {f"{name} {key}": value for key, value in zip(keys, last, strict=True)}


def _compute_gates(dtype: Any) -> Values:
    a, b = np.array(_A, dtype), np.array(_B, dtype)
    rows: Values = {}
    for name in sheet.GATES:
        gate = ln.gate(name)
        *hidden, last = gate.activations(a, b)
        y = gate.forward(a, b)
        columns = [pair for layer in hidden for pair in zip(*(v.T for v in layer), strict=True)]
        rows |= _gate_rows(name, columns, (last.preactivation, y, gate.truth_table()[:, 2]))
    right = [
        int("".join(map(str, ln.gate(name).truth_table()[:, 2])), 2) == index
        for index, name in enumerate(ln.GATE_NAMES)
    ]
    return rows | {"gates right, of all 16": sum(right)}


def _expected_gates() -> Values:
    rows: Values = {}
    for name, (*hidden, last) in sheet.GATES.items():
        inputs: list[Any] = [_A, _B]
        columns = []
        for neuron in hidden:
            z = _neuron(inputs, neuron)
            columns.append((z, [max(v, 0) for v in z]))
        z = _neuron([after for _, after in columns] or inputs, last)
        y = [_sigmoid(v) for v in z]
        rows |= _gate_rows(name, columns, (z, y, [int(v >= 0.5) for v in y]))
    return rows | {"gates right, of all 16": 16}


def _neuron(inputs: list[Any], weights: tuple[float, float, float]) -> list[float]:
    wa, wb, bias = weights
    return [wa * a + wb * b + bias for a, b in zip(*inputs, strict=True)]


# ---- 3: one hidden layer, softmax, cross-entropy ----

X = (0.5, -1.0, 2.0)
W1 = ((0.1, -0.2, 0.3, 0.4), (0.5, 0.6, -0.7, 0.8), (-0.9, 0.1, 0.2, -0.3))
B1 = (0.1, -0.1, 0.2, 0.0)
W2 = ((0.3, -0.5, 0.2), (-0.4, 0.7, 0.1), (0.6, 0.2, -0.8), (-0.1, 0.9, 0.5))
B2 = (0.05, -0.05, 0.1)
TARGET = 1
INSTANCE = (
    f"x = {X}, y = (0, 1, 0)",
    f"W1 = {W1}, b1 = {B1}",
    f"W2 = {W2}, b2 = {B2}",
)
_STEP = 1e-5  # of the central differences: error near 1e-11 in float64


def _differences(f: Callable[[Any], float], x: Any) -> list[float]:
    """Gradient of f at the list x by central differences."""
    gradient = []
    for i in range(len(x)):
        up, down = list(x), list(x)
        up[i], down[i] = x[i] + _STEP, x[i] - _STEP
        gradient.append((f(up) - f(down)) / (up[i] - down[i]))
    return gradient


def _compute_network(dtype: Any) -> Values:
    x, w1, b1, w2, b2 = (np.array(v, dtype) for v in ([X], W1, B1, W2, B2))

    def loss_of(f2: Any) -> float:
        return float(
            ln.cross_entropy(np.array(f2, dtype).reshape(1, -1), [TARGET], reduction="sum")
        )

    def f2_of(x: Any) -> np.ndarray:
        a = ln.linear(np.array(x, dtype).reshape(1, -1), w1, b1, activation="sigmoid")
        return ln.linear(a, w2, b2)

    f1 = ln.linear(x, w1, b1)
    a = ln.sigmoid(f1)
    f2 = ln.linear(a, w2, b2)
    df2 = ln.cross_entropy_backward(f2, [TARGET], reduction="sum")
    da = ln.linear_backward(df2, a, w2)[0]
    dx = ln.linear_backward(ln.sigmoid_backward(da, f1), x, w1)[0]
    rows = {"f1": f1, "a": a, "f2": f2, "o": ln.softmax(f2), "E": loss_of(f2)}
    rows |= {"(a) dE/df2": df2, "(b) dE/dx": dx}
    if dtype == np.float64:
        rows["(a) dE/df2 by differences"] = _differences(loss_of, f2[0])
        rows["(b) dE/dx by differences"] = _differences(lambda v: loss_of(f2_of(v)), X)
    return rows


def _dense(x: Any, weight: Any, bias: Any) -> list[float]:
    return [
        sum(v * row[j] for v, row in zip(x, weight, strict=True)) + bias[j]
        for j in range(len(bias))
    ]


def _transposed(x: Any, weight: Any) -> list[float]:
    return [sum(v * w for v, w in zip(x, row, strict=True)) for row in weight]


def _expected_network() -> Values:
    f1 = _dense(X, W1, B1)
    a = [_sigmoid(v) for v in f1]
    f2 = _dense(a, W2, B2)
    total = sum(math.exp(v) for v in f2)
    o = [math.exp(v) / total for v in f2]
    df2 = [v - (i == TARGET) for i, v in enumerate(o)]
    df1 = [d * v * (1 - v) for d, v in zip(_transposed(df2, W2), a, strict=True)]
    dx = _transposed(df1, W1)
    rows: Values = {"f1": f1, "a": a, "f2": f2, "o": o, "E": -math.log(o[TARGET])}
    rows |= {"(a) dE/df2": df2, "(b) dE/dx": dx}
    return rows | {"(a) dE/df2 by differences": df2, "(b) dE/dx by differences": dx}


# ---- 4: convolution and pooling ----


def maps(dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F', and F' pooled in both ways, with loopnest."""
    image, weight = (np.array(v, dtype)[None, None] for v in (sheet.IMAGE, sheet.FILTER))
    feature = ln.conv2d(image, weight, padding=1)
    pooled = ln.avg_pool2d(feature, 2)
    return feature, pooled, ln.conv2d(feature, ln.average_filter(2, dtype=dtype), stride=2)


def _describe(stride: Any, padding: Any) -> str:
    """A stride and the padding ((top, bottom), (left, right)) in words."""
    (top, bottom), (left, right) = padding
    if top == bottom == left == right:
        return f"(b) stride {stride}, padding {top} on every side"
    sides = zip(("top", "bottom", "left", "right"), (top, bottom, left, right), strict=True)
    named = " and ".join(f"{side} {count}" for side, count in sides if count)
    return f"(b) stride {stride}, padding {named}"


def _sides(padding: Any) -> Any:
    """((top, bottom), (left, right)) of any form of padding that `conv2d` takes."""
    h, w = padding if isinstance(padding, tuple) else (padding, padding)
    return tuple(side if isinstance(side, tuple) else (side, side) for side in (h, w))


def _rows_of(name: str, matrix: Any) -> Values:
    return {name.format(i): row for i, row in enumerate(matrix, start=1)}


def _compute_maps(dtype: Any) -> Values:
    feature, pooled, convolved = (v[0, 0] for v in maps(dtype))
    image, square = np.array(sheet.IMAGE, dtype)[None, None], np.ones((1, 1, 2, 2), dtype)
    same = [way.padding for way in ln.conv2d_paddings_for(4, 4, 3, stride=1) if way.symmetric]
    ways = ln.conv2d_paddings_for(4, 4, 2)
    rows: Values = {"(a) padding that keeps 4x4": same}
    rows |= _rows_of("(a) F' row {}", feature)
    for stride in (1, 2):
        y = ln.conv2d(image, square, stride=stride, padding=1)
        rows[f"(b) 2x2, padding 1, stride {stride}: size"] = y.shape[2:]
    rows["(b) ways to 4x4 with padding 1"] = sum(way.padding == 1 for way in ways)
    rows["(b) ways to 4x4 in all"] = len(ways)
    for way in ways:
        y = ln.conv2d(image, square, stride=way.stride, padding=way.padding)
        rows[_describe(way.stride, _sides(way.padding))] = y.shape[2:]
    rows |= _rows_of("(c) average pooling row {}", pooled)
    rows["(d) filter 3"] = ln.average_filter(2, dtype=dtype)
    return rows | _rows_of("(d) by convolution row {}", convolved)


def _correlate(image: Any, weight: Any, stride: int, padding: Any) -> list[list[float]]:
    """Cross-correlation with loops over lists; padding ((top, bottom), (left, right))."""
    (top, bottom), (left, right) = padding
    height, width, r, s = len(image), len(image[0]), len(weight), len(weight[0])

    def pixel(h: int, w: int) -> float:
        return image[h][w] if 0 <= h < height and 0 <= w < width else 0

    return [
        [
            sum(weight[i][j] * pixel(h - top + i, w - left + j) for i in range(r) for j in range(s))
            for w in range(0, width + left + right - s + 1, stride)
        ]
        for h in range(0, height + top + bottom - r + 1, stride)
    ]


def _size(matrix: list[list[float]]) -> tuple[int, int]:
    return len(matrix), len(matrix[0])


def _expected_maps() -> Values:
    everywhere = ((1, 1), (1, 1))
    feature = _correlate(sheet.IMAGE, sheet.FILTER, 1, everywhere)
    square, quarter = ((1, 1), (1, 1)), ((0.25, 0.25), (0.25, 0.25))
    pooled = _correlate(feature, quarter, 2, ((0, 0), (0, 0)))
    pads = [(before, after) for before in range(3) for after in range(3)]
    ways = [
        (stride, (rows, columns))
        for stride in range(1, 5)
        for rows in pads
        for columns in pads
        if _size(_correlate(sheet.IMAGE, square, stride, (rows, columns))) == (4, 4)
    ]
    rows: Values = {"(a) padding that keeps 4x4": 1} | _rows_of("(a) F' row {}", feature)
    for stride in (1, 2):
        size = _size(_correlate(sheet.IMAGE, square, stride, everywhere))
        rows[f"(b) 2x2, padding 1, stride {stride}: size"] = size
    rows["(b) ways to 4x4 with padding 1"] = sum(padding == everywhere for _, padding in ways)
    rows["(b) ways to 4x4 in all"] = len(ways)
    rows |= {_describe(stride, padding): (4, 4) for stride, padding in ways}
    rows |= _rows_of("(c) average pooling row {}", pooled) | {"(d) filter 3": quarter}
    return rows | _rows_of("(d) by convolution row {}", pooled)


PROBLEMS = (
    Problem("1a", "1(a) Descent on GELU from 0, rate 0.1", *_descent(0.0, sheet.LR_SMALL)),
    Problem("1b", "1(b) Descent on GELU from 0, rate 1", *_descent(0.0, sheet.LR_LARGE)),
    Problem("1c", "1(c) Descent on GELU from -3, rate 0.1", *_descent(START, sheet.LR_SMALL)),
    Problem(
        "1c momentum",
        '1(c) The same with momentum 0.9, convention "lookback"',
        _compute_lookback,
        _expected_lookback,
        tolerances={f"V{i}": 1e-13 for i in range(3)},  # differences of neighbours of 3
    ),
    Problem(
        "1c long",
        f"1(c) over {LONG:,} steps; steps: when within {NEAR:g} of the minimum",
        _compute_long,
        _expected_long,
        tolerance=1e-9,
        tolerance32=math.inf,
    ),
    Problem(
        "2", "2 Gates as networks", _compute_gates, _expected_gates, "inputs 00 01 10 11", digits=4
    ),
    Problem(
        "3",
        "3 One hidden layer, softmax, cross-entropy",
        _compute_network,
        _expected_network,
        digits=5,
        tolerances={"(a) dE/df2 by differences": 1e-9, "(b) dE/dx by differences": 1e-9},
    ),
    Problem("4", "4 Convolution and pooling", _compute_maps, _expected_maps, digits=6),
)
