"""Rewriting a graph before it runs: fewer nodes, the same results but for rounding.

Normalisations and products and sums with one constant a channel are folded into the convolution
(or the normalisation) before them, in float64; Gemm with constant weights becomes Linear; what serves
no output goes.

What depends on the number of axes of a value is done only where that number is known (`ranks`).
A constant is folded only if NumPy's broadcasting puts its numbers along the channel axis, if
it has the dtype of the weights, and if all numbers stay finite and none falls below the normal
range. Otherwise the nodes stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeGuard

import numpy as np

from loopnest.network.lowering import Node
from loopnest.network.network import Input
from loopnest.network.steps.elements import batch_norm_factors

Constants = dict[str, Any]
Ranks = dict[str, int]

# Operators whose result has as many axes as their first input.
_SAME_RANK = frozenset(
    [
        "AveragePool",
        "BatchNormalization",
        "Concat",
        "Conv",
        "Dropout",
        "Gelu",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LRN",
        "LeakyRelu",
        "LogSoftmax",
        "MaxPool",
        "Not",
        "Pad",
        "Relu",
        "Sigmoid",
        "Softmax",
        "Swish",
        "Tanh",
        "Transpose",
    ]
)
_BROADCASTING = frozenset(["Add", "And", "Div", "Mul", "Or", "Sub", "Sum", "Xor"])


def simplify(
    nodes: Sequence[Node], inputs: Sequence[Input], outputs: Sequence[str], constants: Constants
) -> list[Node]:
    """The rewritten nodes; new constants are added to ``constants``."""
    nodes = _without_unused_outputs(nodes, outputs)
    nodes = _without_identity(nodes, outputs)
    graph = _Graph(nodes, inputs, outputs, constants)
    nodes = graph.folded(nodes)
    nodes = [graph.as_linear(node) for node in nodes]
    return _needed(nodes, outputs)


def ranks(nodes: Iterable[Node], inputs: Iterable[Input], constants: Constants) -> Ranks:
    """The number of axes of each value, as far as it is known before the shapes are."""
    known = {spec.name: len(spec.shape) for spec in inputs if spec.dtype is not None}
    known.update((k, v.ndim) for k, v in constants.items() if isinstance(v, np.ndarray))
    for node in nodes:
        rank = _rank(node, [known.get(v) for v in node.inputs], constants)
        if rank is not None:
            known[node.outputs[0]] = rank
            known.update((name, rank) for name in node.outputs[1:] if node.op == "MaxPool")
    return known


def _rank(node: Node, given: list[int | None], constants: Constants) -> int | None:
    """The number of axes of a node's first output, None if it is not known."""
    if node.op in ("Flatten", "Gemm"):
        return 2
    if node.op in ("Reshape", "ConstantOfShape"):
        where = len(node.inputs) - 1
        shape = constants.get(node.inputs[where]) if where or node.op != "Reshape" else None
        if node.op == "Reshape" and not where:
            return len(node.attributes["shape"]) if "shape" in node.attributes else None
        return shape.size if isinstance(shape, np.ndarray) else None
    if not given or given[0] is None:
        return None
    if node.op in _SAME_RANK:
        return given[0]
    counts = [rank for rank in given if rank is not None]
    if node.op in _BROADCASTING:
        return max(counts) if len(counts) == len(given) else None
    if node.op == "MatMul" and len(counts) == 2:
        return max(max(counts), 2) - counts.count(1)
    if node.op in ("Squeeze", "Unsqueeze"):
        axes = node.attributes.get("axes")
        if len(node.inputs) > 1:
            axes = constants.get(node.inputs[1])
        if axes is None:
            return None
        return given[0] + np.size(axes) * (1 if node.op == "Unsqueeze" else -1)
    return None


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


class _Graph:
    """Nodes with what is known of their values; its methods make nodes of fewer steps."""

    def __init__(
        self,
        nodes: Sequence[Node],
        inputs: Sequence[Input],
        outputs: Sequence[str],
        constants: Constants,
    ) -> None:
        self.constants, self.ranks = constants, ranks(nodes, inputs, constants)
        used = [name for node in nodes for name in node.inputs]
        self.uses = Counter(used) + Counter(outputs)
        self.names = {*used, *constants, *(spec.name for spec in inputs)}
        self.names.update(name for node in nodes for name in node.outputs)

    def add(self, name: str, value: np.ndarray) -> str:
        """Add a constant; its name is that of no other value of the graph."""
        while name in self.names:
            name += "_"
        self.names.add(name)
        self.constants[name] = value
        return name

    def _floats(self, names: Iterable[str]) -> list[np.ndarray]:
        """The constants of these names; none if one of them is no array of floats."""
        found = [self.constants.get(name) for name in names]
        arrays = [value for value in found if _is_float(value)]
        return arrays if len(arrays) == len(found) else []

    # ---- one scale and one shift a channel ----

    def folded(self, nodes: Sequence[Node]) -> list[Node]:
        kept: list[Node] = []
        made_by: dict[str, int] = {}  # value -> its node in `kept`, if that can take up a factor
        for node in nodes:
            source = next((v for v in node.inputs if v in made_by), None)
            if source is not None and self.uses[source] == 1:
                index = made_by[source]
                factors = self._factors(node, source, kept[index])
                taken = factors and self._with_factors(kept[index], *factors, node.outputs[0])
                if taken:
                    kept[index] = taken
                    made_by[node.outputs[0]] = index
                    continue
            kept.append(node)
            if self._takes_factors(node):
                made_by[node.outputs[0]] = len(kept) - 1
        return kept

    def _takes_factors(self, node: Node) -> bool:
        """Whether a node is a convolution or normalisation of sound constants."""
        if node.op != "Conv":
            return self._is_plain_norm(node)
        values = self._floats(v for v in node.inputs[1:] if v)
        if not values or len({v.dtype for v in values}) != 1:
            return False
        weight = values[0]
        return weight.ndim >= 3 and all(v.shape == weight.shape[:1] for v in values[1:])

    def _is_plain_norm(self, node: Node) -> bool:
        if node.op != "BatchNormalization" or len(node.outputs) > 1:
            return False
        values = self._floats(node.inputs[1:])
        return (
            not node.attributes.get("training_mode")
            and len({(v.shape, v.dtype) for v in values}) == 1
            and values[0].ndim == 1
        )

    def _factors(
        self, node: Node, source: str, before: Node
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """(scale, shift) a channel that a node applies to ``source``, None if it does other things.

        ``before`` is the convolution or normalisation that makes ``source``.
        """
        weight = self.constants[before.inputs[1]]
        channels, constants = weight.shape[0], self.constants
        if self._is_plain_norm(node) and node.inputs[0] == source:
            scale, bias, mean, variance = (constants[v] for v in node.inputs[1:])
            if scale.shape != (channels,) or scale.dtype != weight.dtype:
                return None
            epsilon = node.attributes.get("epsilon", 1e-5)
            return batch_norm_factors((scale, bias, mean, variance), epsilon)
        if node.op not in ("Add", "Sub", "Mul", "Div") or node.opset < 7:
            return None
        first, second = node.inputs
        other = second if first == source else first
        value = constants.get(other)
        if not _is_float(value) or value.dtype != weight.dtype:
            return None
        if node.op in ("Sub", "Div") and other != second:
            return None
        rank = weight.ndim if before.op == "Conv" else self.ranks.get(source)
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

    def _with_factors(
        self, node: Node, scale: np.ndarray, shift: np.ndarray, output: str
    ) -> Node | None:
        """The node with scale and shift taken into its constants, None if numbers would suffer."""
        first = self.constants[node.inputs[1]].astype(np.float64)
        dtype = self.constants[node.inputs[1]].dtype
        has_bias = len(node.inputs) > 2 and bool(node.inputs[2])
        bias = self.constants[node.inputs[2]] if has_bias else np.zeros(first.shape[:1])
        column = scale.reshape(-1, *[1] * (first.ndim - 1))
        with np.errstate(all="ignore"):
            weight = (first * column).astype(dtype)
            bias = (bias * scale + shift).astype(dtype)
        least = np.finfo(dtype).tiny
        lost = (np.abs(weight) < least) & (np.abs(first) >= least) & (column != 0)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()) or lost.any():
            return None
        names = [self.add(f"{output}.weight", weight), self.add(f"{output}.bias", bias)]
        rest = () if node.op == "Conv" else node.inputs[3:]
        return replace(node, inputs=(node.inputs[0], *names, *rest), outputs=(output,))

    # ---- matrices ----

    def as_linear(self, node: Node) -> Node:
        """Gemm with constant weight, and bias of one row, as x @ weight + bias."""
        if node.op != "Gemm" or node.attributes.get("transA"):
            return node
        if self.ranks.get(node.inputs[0]) != 2:
            return node
        weight = self.constants.get(node.inputs[1])
        bias = self.constants.get(node.inputs[2]) if len(node.inputs) > 2 else None
        if not _is_float(weight) or weight.ndim != 2:
            return node
        alpha, beta = (node.attributes.get(name, 1.0) for name in ("alpha", "beta"))
        matrix = weight.T if node.attributes.get("transB") else weight
        outputs, dtype = matrix.shape[1], weight.dtype
        if len(node.inputs) > 2 and not (
            _is_float(bias)
            and bias.dtype == dtype
            and bias.shape in ((), (1,), (1, 1), (outputs,), (1, outputs))
        ):
            return node
        with np.errstate(all="ignore"):
            matrix = matrix * dtype.type(alpha) if alpha != 1 else matrix
            row = None
            if bias is not None and beta != 0:
                row = np.broadcast_to(bias.reshape(-1), (outputs,)) * dtype.type(beta)
        if alpha != 1 and not np.isfinite(matrix).all():
            return node
        name = self.add(f"{node.outputs[0]}.weight", np.ascontiguousarray(matrix))
        names = [node.inputs[0], name]
        if row is not None:
            names.append(self.add(f"{name}.bias", np.ascontiguousarray(row, dtype)))
        return replace(node, op="Linear", inputs=tuple(names), attributes={})


def _is_float(value: Any) -> TypeGuard[np.ndarray]:
    return isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float64)


def _per_channel(value: np.ndarray, channels: int, rank: int | None) -> np.ndarray | None:
    """A constant as one number for each channel, None if broadcasting puts it elsewhere.

    The value that it is broadcast with has ``rank`` axes, the channels on axis 1.
    """
    if rank is None or rank < 2 or value.ndim > rank:
        return None
    shape = (1,) * (rank - value.ndim) + value.shape
    if shape != (1, channels) + (1,) * (rank - 2):
        return None
    return value.reshape(-1).astype(np.float64)
