"""Rewriting a graph before it runs: fewer nodes, the same results but for rounding.

Normalisations and products and sums with one constant a channel are folded into the convolution
(or the normalisation) before them, in float64; Gemm with constant weights becomes Linear; what serves
no output goes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from loopnest.lower_elements import batch_norm_factors
from loopnest.lowering import Node

Constants = dict[str, Any]


def simplify(nodes: Sequence[Node], outputs: Sequence[str], constants: Constants) -> list[Node]:
    """The rewritten nodes; new constants are added to ``constants``."""
    nodes = _without_unused_outputs(nodes, outputs)
    nodes = _without_identity(nodes, outputs)
    nodes = _folded(nodes, outputs, constants)
    nodes = [_as_linear(node, constants) for node in nodes]
    return _needed(nodes, outputs)


def _without_unused_outputs(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """Masks and indices that nobody reads are not made."""
    used = {name for node in nodes for name in node.inputs} | set(outputs)
    kept = []
    for node in nodes:
        made = list(node.outputs)
        while len(made) > 1 and made[-1] not in used:
            made.pop()
        kept.append(replace(node, outputs=tuple(made)))
    return kept


def _without_identity(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """Identity and Dropout at rest hand their input on."""
    same: dict[str, str] = {}
    kept = []
    for node in nodes:
        node = replace(node, inputs=tuple(same.get(v, v) for v in node.inputs))
        rests = node.op == "Identity" or (node.op == "Dropout" and len(node.inputs) < 3)
        if rests and len(node.outputs) == 1 and node.outputs[0] not in outputs:
            same[node.outputs[0]] = node.inputs[0]
        else:
            kept.append(node)
    return kept


def _needed(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return kept[::-1]


# ---- one scale and one shift a channel ----


def _folded(nodes: Sequence[Node], outputs: Sequence[str], constants: Constants) -> list[Node]:
    uses = Counter(name for node in nodes for name in node.inputs) + Counter(outputs)
    kept: list[Node] = []
    made_by: dict[str, int] = {}  # value -> its node in `kept`, if that can take up a factor
    for node in nodes:
        source = next((v for v in node.inputs if v in made_by), None)
        if source is not None and uses[source] == 1:
            index = made_by[source]
            factors = _factors(node, source, _channels(kept[index], constants), constants,
                               _rank(kept[index], constants))  # fmt: skip
            if factors is not None:
                kept[index] = _with_factors(kept[index], *factors, constants, node.outputs[0])
                made_by[node.outputs[0]] = index
                continue
        kept.append(node)
        if _takes_factors(node, constants):
            made_by[node.outputs[0]] = len(kept) - 1
    return kept


def _takes_factors(node: Node, constants: Constants) -> bool:
    if node.op == "Conv":
        return all(_is_float(constants.get(v)) for v in node.inputs[1:] if v)
    return _is_plain_norm(node, constants)


def _is_plain_norm(node: Node, constants: Constants) -> bool:
    return (
        node.op == "BatchNormalization"
        and len(node.outputs) == 1
        and not node.attributes.get("training_mode")
        and all(_is_float(constants.get(v)) for v in node.inputs[1:])
        and len({constants[v].shape for v in node.inputs[1:]}) == 1
        and constants[node.inputs[1]].ndim == 1
    )


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float64)


def _channels(node: Node, constants: Constants) -> int:
    return constants[node.inputs[1]].shape[0] if constants[node.inputs[1]].ndim else 0


def _rank(node: Node, constants: Constants) -> int | None:
    """Dimensions of a node's output, where its weight tells."""
    return constants[node.inputs[1]].ndim if node.op == "Conv" else None


def _factors(
    node: Node, source: str, channels: int, constants: Constants, rank: int | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """(scale, shift) a channel that a node applies to ``source``, None if it does other things."""
    if _is_plain_norm(node, constants) and node.inputs[0] == source:
        scale, bias, mean, variance = (constants[v] for v in node.inputs[1:])
        if scale.shape != (channels,):
            return None
        return batch_norm_factors(scale, bias, mean, variance, node.attributes.get("epsilon", 1e-5))
    if node.op not in ("Add", "Sub", "Mul", "Div") or node.opset < 7:
        return None
    first, second = node.inputs
    other = second if first == source else first
    value = constants.get(other)
    if value is None or not _is_float(value) or (node.op in ("Sub", "Div") and other != second):
        return None
    numbers = _per_channel(value, channels, rank)
    if numbers is None:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    with np.errstate(all="ignore"):
        return {
            "Add": (one, numbers),
            "Sub": (one, -numbers),
            "Mul": (numbers, zero),
            "Div": (1 / numbers, zero),
        }[node.op]


def _per_channel(value: np.ndarray, channels: int, rank: int | None) -> np.ndarray | None:
    """A constant that is one number for each channel, as such."""
    if rank is None:
        # Of an input whose rank is not known the channel axis is told by (1, C, 1, ...) alone...
        if value.ndim >= 3 and value.shape[:2] == (1, channels) and value.size == channels:
            return value.reshape(-1).astype(np.float64)
        # ... and (C, 1, 1) by three axes, as images have four.
        rank = 4 if value.ndim == 3 and value.shape[0] == channels else -1
    shape = (1,) * (rank - value.ndim) + value.shape
    if len(shape) != rank or value.size != channels or shape[1] != channels:
        return None
    return value.reshape(-1).astype(np.float64)


def _with_factors(
    node: Node, scale: np.ndarray, shift: np.ndarray, constants: Constants, output: str
) -> Node:
    """The node with scale and shift taken into its constants."""
    first = constants[node.inputs[1]]
    dtype = first.dtype
    with np.errstate(all="ignore"):
        if node.op == "Conv":
            bias = constants[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else 0.0
            column = scale.reshape(-1, *[1] * (first.ndim - 1))
            weight, bias = first.astype(np.float64) * column, bias * scale + shift
            rest: tuple[str, ...] = ()
        else:
            weight, bias = first * scale, constants[node.inputs[2]] * scale + shift
            rest = node.inputs[3:]
    names = []
    for role, value in (("weight", weight), ("bias", bias)):
        name = f"{output}.{role}"
        while name in constants:
            name += "_"
        constants[name] = np.ascontiguousarray(value, dtype)
        names.append(name)
    return replace(node, inputs=(node.inputs[0], *names, *rest), outputs=(output,))


def _as_linear(node: Node, constants: Constants) -> Node:
    """Gemm with constant weight, and bias of one row, as x @ weight + bias."""
    if node.op != "Gemm" or node.attributes.get("transA"):
        return node
    weight = constants.get(node.inputs[1])
    bias = constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
    if weight is None or not _is_float(weight) or weight.ndim != 2:
        return node
    if len(node.inputs) > 2 and not _is_float(bias):
        return node
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    matrix = weight.T if node.attributes.get("transB") else weight
    outputs = matrix.shape[1]
    if bias is not None and (
        math.prod(bias.shape) not in (1, outputs)
        or bias.ndim > 2
        or (bias.size > 1 and bias.shape[-1] != outputs)
    ):
        return node
    name = f"{node.outputs[0]}.weight"
    while name in constants:
        name += "_"
    dtype = weight.dtype
    constants[name] = np.ascontiguousarray(matrix * dtype.type(alpha) if alpha != 1 else matrix)
    inputs = [node.inputs[0], name]
    if bias is not None and beta != 0:
        row = np.broadcast_to(bias.reshape(-1), (outputs,))
        constants[name + ".bias"] = np.ascontiguousarray(row * dtype.type(beta), dtype)
        inputs.append(name + ".bias")
    return replace(node, op="Linear", inputs=tuple(inputs), attributes={})
