"""The two-input Boolean functions as small networks with a sigmoid output."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from loopnest.ops import activation, dense, gate_training
from loopnest.runtime import backend, checks, threads
from loopnest.runtime.copies import Copied

# A gate's index is its truth table f(0,0) f(0,1) f(1,0) f(1,1), read as a binary number.
GATE_NAMES: tuple[str, ...] = (
    *("false", "and", "a_and_not_b", "a", "not_a_and_b", "b", "xor", "or"),
    *("nor", "xnor", "not_b", "a_or_not_b", "not_a", "not_a_or_b", "nand", "true"),
)

# Each neuron as (wa, wb, bias); three neurons are a 2-2-1 network, its output neuron last.
# All numbers are halves, so exact in float32 too.
_HIDDEN = ((-1.0, -1.0, 1.5), (1.0, 1.0, -0.5))  # off for 11, off for 00
_NEURONS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "false": ((0.0, 0.0, -1.0),),
    "and": ((0.5, 0.5, -1.0),),
    "a_and_not_b": ((1.0, -1.0, -0.5),),
    "a": ((1.0, 0.0, -0.5),),
    "not_a_and_b": ((-1.0, 1.0, -0.5),),
    "b": ((0.0, 1.0, -0.5),),
    "xor": (*_HIDDEN, (-1.0, -1.0, 1.0)),
    "or": ((1.0, 1.0, -0.5),),
    "nor": ((-1.0, -1.0, 0.5),),
    "xnor": (*_HIDDEN, (1.0, 1.0, -1.5)),
    "not_b": ((0.0, -1.0, 0.5),),
    "a_or_not_b": ((1.0, -1.0, 0.5),),
    "not_a": ((-1.0, 0.0, 0.5),),
    "not_a_or_b": ((-1.0, 1.0, 0.5),),
    "nand": ((-1.0, -1.0, 1.5),),
    "true": ((0.0, 0.0, 1.0),),
}

# Work of one element in the units of threads.split.
_WORK = 8


class LayerActivations(NamedTuple):
    """What one layer computed; the last axis runs over its neurons."""

    preactivation: np.ndarray
    activation: np.ndarray


class Gate(Copied):
    """A two-input Boolean function as a network; `gate` makes one.

    Attributes
    ----------
    name : str
        One of `GATE_NAMES`.
    layers : list of (ndarray, ndarray)
        Weight (in, out) and bias (out,) of each layer, float64. Hidden neurons have a ReLU,
        the output neuron a sigmoid; at least 0.5 means 1.
    """

    def __init__(self, name: str, neurons: Any = None) -> None:
        self.name = name
        self._neurons = _NEURONS[name] if neurons is None else neurons
        *hidden, last = (np.array(neuron) for neuron in self._neurons)
        groups = [hidden, [last]] if hidden else [[last]]
        self.layers = [
            (np.stack([n[:2] for n in group], axis=1), np.array([n[2] for n in group]))
            for group in groups
        ]

    def __repr__(self) -> str:
        return f"gate({self.name!r})"

    @classmethod
    def train(cls, name: str, *, seed: int = 0, lr: float = 0.1, steps: int = 1000) -> Gate:
        """A 2-2-1 network that has learned the function by gradient descent.

        Adam on the mean cross-entropy of the four rows, with this library's `linear`, `relu`,
        `sigmoid` and their gradients. A start that gets stuck gives way to the next one.

        Parameters
        ----------
        name : str
            One of `GATE_NAMES`, lower or upper case.
        seed : int
            Of the starting weights.
        lr : float
            Adam's learning rate.
        steps : int
            Steps of each start, at most.

        Returns
        -------
        Gate
            With learned weights in ``layers``; all methods and `gate_forward` use them.

        Raises
        ------
        RuntimeError
            No start has learned the function.
        TypeError, ValueError
            For a name or options that do not fit.
        """
        op = "Gate.train"
        name = _name(op, name)
        seed, steps = checks.integer(op, "seed", seed, 0), checks.integer(op, "steps", steps, 1)
        lr = checks.number(op, "lr", lr, 0.0)
        truth = np.array([GATE_NAMES.index(name) >> i & 1 for i in (3, 2, 1, 0)])
        (w1, b1), (w2, b2) = gate_training.learned_layers(truth, seed, lr, steps)
        hidden = (np.append(w1[:, i], b1[i]) for i in (0, 1))
        return cls(name, tuple(tuple(n.tolist()) for n in (*hidden, np.append(w2, b2))))

    def weights(self, dtype: Any) -> np.ndarray:
        """All numbers as the kernels take them: 3 a neuron, the output neuron last."""
        if self._neurons is _NEURONS[self.name]:
            return packed_weights(self.name, dtype)
        return np.array(self._neurons, dtype).reshape(-1)

    def forward(self, a: Any, b: Any, out: np.ndarray | None = None) -> Any:
        """The sigmoid output for inputs a and b; see `gate_forward`."""
        return gate_forward(self, a, b, out)

    def activations(self, a: Any, b: Any) -> list[LayerActivations]:
        """Each layer's pre-activations and activations; a and b broadcast.

        Returns
        -------
        list of LayerActivations
            Arrays of the broadcast shape of a and b with an axis over neurons at the end. The
            last activation holds the bits that `forward` gives.
        """
        _, a, b = _operands("Gate.activations", a, b)
        shape = a.shape
        values = np.stack([a.reshape(-1), b.reshape(-1)], axis=1)
        found = []
        for weight, bias in self.layers:
            z = dense.linear(values, weight.astype(a.dtype), bias.astype(a.dtype))
            last = weight.shape[1] == 1
            values = activation.sigmoid(z) if last else activation.relu(z)
            found.append(
                LayerActivations(z.reshape(*shape, -1), values.reshape(*shape, weight.shape[1]))
            )
        return found

    def truth_table(self) -> np.ndarray:
        """Rows 00, 01, 10, 11 of a, b and the output, which is 1 where the sigmoid is >= 0.5."""
        rows = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        decided = self.forward(rows[:, 0], rows[:, 1]) >= 0.5
        return np.column_stack([rows, decided.astype(rows.dtype)])


@functools.lru_cache(maxsize=64)
def packed_weights(name: str, dtype: Any) -> np.ndarray:
    """The gate's numbers in the kernels' layout; read-only."""
    weights = np.array(_NEURONS[name], dtype).reshape(-1)
    weights.flags.writeable = False
    return weights


@functools.cache
def _named(name: str) -> Gate:
    return Gate(name)


def _name(op: str, name: Any) -> str:
    return checks.choice(op, "name", name.lower() if isinstance(name, str) else name, GATE_NAMES)


def gate(name: str) -> Gate:
    """A two-input Boolean function as a network of neurons.

    Parameters
    ----------
    name : str
        One of `GATE_NAMES`, lower or upper case.

    Returns
    -------
    Gate
        One neuron where the function is linearly separable; for xor and xnor two hidden
        neurons with ReLU and an output neuron.

    Raises
    ------
    TypeError, ValueError
        The name is none of them.

    Examples
    --------
    >>> import loopnest as ln
    >>> ln.gate("xor").truth_table()[:, 2]
    array([0, 1, 1, 0])
    """
    return Gate(_name("gate", name))


def _operands(op: str, a: Any, b: Any) -> tuple[bool, np.ndarray, np.ndarray]:
    """Whether both are numbers; a and b broadcast, contiguous, of one dtype."""
    plain = [isinstance(v, (int, float)) for v in (a, b)]
    arrays = [checks.array(op, name, v) for name, v in (("a", a), ("b", b))]
    if plain[0] != plain[1]:  # a Python number takes the dtype of the array, as in NumPy
        number, other = (0, 1) if plain[0] else (1, 0)
        arrays[number] = arrays[number].astype(arrays[other].dtype)
    checks.same_dtype(op, a=arrays[0], b=arrays[1])
    if arrays[0].shape != arrays[1].shape:
        try:
            # Copies: NumPy warns about broadcast views whose flags Numba reads.
            arrays = [np.array(v, order="C") for v in np.broadcast_arrays(*arrays)]
        except ValueError:
            raise ValueError(
                f"{op}: a has shape {arrays[0].shape}, b {arrays[1].shape}; "
                "accepted: shapes that broadcast against each other"
            ) from None
    return all(plain), arrays[0], arrays[1]


def gate_forward(gate: str | Gate, a: Any, b: Any, out: np.ndarray | None = None) -> Any:
    """A gate's network over arrays: its sigmoid output, element by element.

    Parameters
    ----------
    gate : str or Gate
        One of `GATE_NAMES`, lower or upper case, or what `gate` made.
    a, b : array_like or number
        Inputs, 0 or 1 for a truth value, any other number too; they broadcast.
    out : ndarray, optional
        Where to write: the broadcast shape, C-contiguous; a or b itself is allowed.

    Returns
    -------
    ndarray or number
        ``out`` or a new array; a number for two numbers. At least 0.5 means true.

    Raises
    ------
    TypeError, ValueError
        For an unknown gate, other dtypes, shapes that do not broadcast, an unfit ``out``.

    Notes
    -----
    A neuron sums fma(b, wb, a*wa) + bias. In ``@njit`` the gate is a constant name, and
    a and b are two arrays of one shape or two numbers.
    """
    op = "gate_forward"
    chosen = gate if isinstance(gate, Gate) else _named(_name(op, gate))
    given = a, b
    numbers, a, b = _operands(op, a, b)
    y = checks.output(op, out, a.shape, a.dtype, (*given, a, b), in_place=True)
    kernel = backend.kernels.gates.gate_forward
    weights = chosen.weights(a.dtype)
    flat_a, flat_b, flat_y = a.reshape(-1), b.reshape(-1), y.reshape(-1)

    def piece(first: int, last: int) -> None:
        kernel(flat_a[first:last], flat_b[first:last], weights, flat_y[first:last])

    threads.split(piece, y.size, y.size * _WORK)
    if y.ndim or out is not None:
        return y
    return float(y[()]) if numbers else y[()]
