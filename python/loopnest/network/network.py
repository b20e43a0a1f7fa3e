"""A trained network as one object: called from NumPy, from ``@njit`` code, written as C."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loopnest.network.execute import Pool, output_arrays
from loopnest.network.lowering import Lowering, Node
from loopnest.network.program import Program, Shape, Storage, Value
from loopnest.network.steps import operators
from loopnest.runtime import checks
from loopnest.runtime.copies import Copied
from loopnest.runtime.weights import Ranges, Weights, read_only

# Largest single array that a network may make, in bytes, unless it says otherwise.
DEFAULT_LIMIT = 4 << 30

_PROGRAMS_KEPT = 8  # per network: one for each shape of inputs that was seen last


@dataclass(frozen=True)
class Input:
    """An input of a network; sizes that are not known are None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype

    def described(self) -> str:
        return "(" + ", ".join("any" if s is None else str(s) for s in self.shape) + ")"

    def accepts(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.shape) and all(
            want in (None, got) for want, got in zip(self.shape, shape, strict=True)
        )


class Network(Copied):
    """A graph of operators with its weights.

    Made by `Sequential` or `load_onnx`; call it with arrays.

    Attributes
    ----------
    parameters : dict of str to ndarray
        The trainable weights by name, see below.
    buffers : dict of str to ndarray
        What is not trained: scale, shift and statistics of normalisations, shapes.
    inputs : tuple of Input
        Name, shape (None: any size) and dtype of each input.
    outputs : tuple of str
        Names of the outputs.
    dtype : dtype
        float32 or float64, of all arrays.
    frozen : bool
        Whether the weights are read-only; the kernels then keep them in their own order.
    nodes : tuple of Node
        The operators in the order they run.

    Notes
    -----
    Calls of the network, its gradients, and what `njit` and `njit_gradient` gave follow
    parameters and buffers alike: each call uses the numbers that they have then. They may be
    changed in place (by an optimizer step inside ``@njit`` for one), by `load_state_dict`, or by
    an assignment ``net.parameters[name] = array``, which copies the numbers; entries cannot be
    added or removed. Read-only are all arrays of a frozen network, and buffers that decide shapes.
    What `to_c` writes has the numbers of its time.

    Copies (``copy.copy``, ``copy.deepcopy``) and pickles have weights of their own.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        inputs: Sequence[Input],
        outputs: Sequence[str],
        parameters: dict[str, np.ndarray],
        buffers: dict[str, np.ndarray] | None = None,
        *,
        dtype: Any = np.float32,
        name: str = "network",
        limit: int = DEFAULT_LIMIT,
        frozen: bool = False,
        dynamic: str | None = None,
        evaluate: Callable[..., list[Any]] | None = None,
    ) -> None:
        self.nodes, self.inputs, self.outputs = tuple(nodes), tuple(inputs), tuple(outputs)
        self.dtype = np.dtype(dtype)
        self.name = name
        self._limit = limit
        self._frozen = frozen
        # What keeps the network from becoming a program of fixed shapes, and what runs it then.
        self._dynamic, self._evaluate = dynamic, evaluate
        self._parameters, self._buffers = Weights(), Weights()
        self._take_weights(parameters, buffers or {})
        self._pools: OrderedDict[Any, Pool] = OrderedDict()
        self._differentiated: dict[Any, Any] = {}

    def _take_weights(
        self, parameters: Mapping[str, np.ndarray], buffers: Mapping[str, Any]
    ) -> None:
        """Make these arrays the network's; programs hold them from now on."""
        changing = set() if self._frozen else self._followed(buffers)
        mine = {k: np.require(v, self.dtype, ("C", "A")) for k, v in parameters.items()}
        if self._frozen and self._dynamic is None:
            mine = {k: read_only(v) for k, v in mine.items()}
        dict.update(self._parameters, mine)
        for name, value in buffers.items():
            # A dynamic network looks at its arrays anew in each call.
            if isinstance(value, np.ndarray) and self._dynamic is None:
                value = np.require(value, None, ("C", "A"))
                value = value if name in changing else read_only(value)
            dict.__setitem__(self._buffers, name, value)
        # Where parameters and buffers lie: outputs must not.
        arrays = (*self._parameters.values(), *self._buffers.values())
        self.weight_memory = Ranges(a for a in arrays if isinstance(a, np.ndarray))

    def _followed(self, buffers: Mapping[str, Any]) -> set[str]:
        """The buffers whose changes calls follow: those of normalisations, in the network's dtype."""
        followed: set[str] = set()
        computed_once: set[str] = set()
        for node in self.nodes:
            if node.op == "BatchNormalization":
                arrays = [buffers.get(name) for name in node.inputs[1:]]
                fits = all(getattr(a, "dtype", self.dtype) == self.dtype for a in arrays)
                (followed if fits else computed_once).update(node.inputs[1:])
        return followed - computed_once

    @property
    def parameters(self) -> Weights:
        return self._parameters

    @property
    def buffers(self) -> Weights:
        return self._buffers

    @property
    def frozen(self) -> bool:
        return self._frozen

    # ---- copies ----

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        for made in ("_pools", "_differentiated", "weight_memory"):  # what a copy makes anew
            del state[made]
        state["_parameters"], state["_buffers"] = dict(self._parameters), dict(self._buffers)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        parameters, buffers = state.pop("_parameters"), state.pop("_buffers")
        self.__dict__.update(state)
        self._parameters, self._buffers = Weights(), Weights()
        self._take_weights(parameters, buffers)
        self._pools, self._differentiated = OrderedDict(), {}

    def __repr__(self) -> str:
        takes = ", ".join(f"{i.name} {i.described()}" for i in self.inputs)
        count = sum(v.size for v in self.parameters.values())
        return (
            f"<{type(self).__name__} {self.name!r}: {len(self.nodes)} operators, "
            f"{count} weights, {self.dtype}, takes {takes}>"
        )

    # ---- NumPy ----

    def __call__(self, *arrays: Any, out: Any = None) -> Any:
        """Compute the outputs.

        Parameters
        ----------
        *arrays : array_like
            One for each input, of the network's dtype. A single input may lack the batch
            axis; then the output lacks it too.
        out : ndarray or sequence of them, optional
            Where to write.

        Returns
        -------
        ndarray or tuple of them

        Raises
        ------
        TypeError, ValueError
            For arrays that do not fit, before anything is written.
        """
        if self._dynamic is not None:
            return self._run_dynamic(arrays, out)
        given: Sequence[np.ndarray] = arrays
        single, pool = False, self._known(arrays)
        if pool is None:
            given, single = self._arguments(self.name, arrays)
            if single and out is not None:
                out = self._batch_of_one(out)
            pool = self._pool(tuple(a.shape for a in given))
        results = output_arrays(self.name, pool.program, out, (*arrays, *given))
        if out is not None and (len(results) > 1 or self.weight_memory.may_meet(out)):
            self._check_outputs(results)
        pool.run(given, results)
        if single:
            results = [r.reshape(r.shape[1:]) for r in results]
        return results[0] if len(results) == 1 else tuple(results)

    def _check_outputs(self, results: Sequence[np.ndarray]) -> None:
        """Outputs of the caller must be apart from each other and from the weights."""
        memory = self.weight_memory
        for i, result in enumerate(results):
            if memory.meet(result):
                raise ValueError(f"{self.name}: out overlaps the network's weights in memory")
            if i and any(np.may_share_memory(result, other) for other in results[:i]):
                raise ValueError(f"{self.name}: out has two arrays that overlap in memory")

    def _known(self, arrays: Sequence[Any]) -> Pool | None:
        """What runs on arrays like these, None if they must be looked at first."""
        for array in arrays:
            if type(array) is not np.ndarray or array.dtype != self.dtype:
                return None
            if not (array.flags.c_contiguous and array.flags.aligned):
                return None
        return self._pools.get(tuple([array.shape for array in arrays]))

    def _batch_of_one(self, out: Any) -> Any:
        if not isinstance(out, np.ndarray):
            raise TypeError(f"{self.name}: out is a {type(out).__name__}; accepted: a NumPy array")
        if not out.flags.c_contiguous:
            raise ValueError(f"{self.name}: out is not C-contiguous (strides {out.strides})")
        return out.reshape(1, *out.shape)

    def _run_dynamic(self, arrays: tuple, out: Any) -> Any:
        assert self._evaluate is not None
        if out is not None:
            raise ValueError(f"{self.name}: out is given; {self._dynamic}: it takes none")
        results = self._evaluate(self, arrays)
        return results[0] if len(results) == 1 else tuple(results)

    def _arguments(self, op: str, arrays: Sequence[Any]) -> tuple[list[np.ndarray], bool]:
        """Contiguous arrays of the right dtype and shape; whether a batch axis was added."""
        if len(arrays) != len(self.inputs):
            names = ", ".join(i.name for i in self.inputs)
            raise TypeError(f"{op}: {len(arrays)} arrays; accepted: {len(self.inputs)} ({names})")
        given, single = [], False
        for spec, value in zip(self.inputs, arrays, strict=True):
            array = checks.array(op, spec.name, value)
            if array.dtype != self.dtype:
                raise TypeError(
                    f"{op}: {spec.name} has dtype {np.asarray(value).dtype}; accepted: {self.dtype}"
                )
            if not spec.accepts(array.shape):
                if len(self.inputs) == 1 and spec.accepts((1, *array.shape)):
                    single, array = True, array.reshape(1, *array.shape)
                else:
                    raise ValueError(
                        f"{op}: {spec.name} has shape {array.shape}; accepted: {spec.described()}"
                    )
            given.append(array)
        return given, single

    # ---- programs ----

    def lower(self, shapes: Sequence[Shape], fuse: bool = True, fixed: bool = False) -> Program:
        """The program for inputs of these shapes.

        It follows the weights, or (``fixed``, or in a frozen network) has what they are now.
        """
        self._need_program("lower")
        b = Lowering(self.dtype, self._limit, fuse)
        b.fixed = fixed or self.frozen
        results = self.lower_into(b, shapes)
        program = b.finish(results, separable=not b.mixes_rows)
        program.frozen = self.frozen
        return program

    def lower_into(self, b: Lowering, shapes: Sequence[Shape]) -> list[Value]:
        """The outputs, as steps of a builder."""
        values: dict[str, Value] = {}
        for spec, shape in zip(self.inputs, shapes, strict=True):
            values[spec.name] = b.input(tuple(shape))
        for node in self.nodes:
            taken = [self._operand(b, name, values) for name in node.inputs]
            made = operators.lower(b, node, taken)
            values.update(zip(node.outputs, made, strict=False))
        b.where = self.name
        results = [self._operand(b, name, values) for name in self.outputs]
        return [r for r in results if r is not None]

    def _operand(self, b: Lowering, name: str, values: dict[str, Value]) -> Value | None:
        if not name:
            return None
        if name not in values:
            if name in self.parameters:
                values[name] = b.constant(self.parameters[name], name)
            else:
                data = np.ascontiguousarray(self.buffers[name])
                storage = Storage("constant", data.size, data=data)
                values[name] = Value(storage, data.shape)
        return values[name]

    def _need_program(self, what: str) -> None:
        if self._dynamic is not None:
            raise ValueError(
                f"{self.name}: {self._dynamic}: the network runs from NumPy only, not with {what}"
            )

    def _pool(self, shapes: tuple[Shape, ...]) -> Pool:
        pool = self._pools.get(shapes)
        if pool is None:
            pool = self._pools[shapes] = Pool(self.lower(shapes))
            while len(self._pools) > _PROGRAMS_KEPT:
                self._pools.popitem(last=False)
        return pool

    def forget_programs(self) -> None:
        """Drop the programs and work space of earlier calls: only to free memory."""
        self._pools.clear()
        self._differentiated.clear()

    def shapes(self, op: str, batch: int | None, input_shape: Any = None) -> list[Shape]:
        """Whole input shapes for a batch size; sizes that are not known must be given.

        ``input_shape`` is that of one input without the batch axis.
        """
        found = []
        for spec in self.inputs:
            shape: list[int | None] = list(spec.shape)
            if input_shape is not None:
                if len(self.inputs) > 1:
                    raise ValueError(f"{op}: input_shape is for networks with one input")
                wanted = tuple(checks.integer(op, "input_shape", s, 1) for s in tuple(input_shape))
                if not spec.accepts((shape[0] or 1, *wanted)):
                    raise ValueError(
                        f"{op}: input_shape is {wanted}; accepted: {spec.described()} "
                        "without its first axis"
                    )
                shape[1:] = wanted
            if shape and shape[0] is None:
                shape[0] = 1 if batch is None else batch
            if None in shape:
                shape[2:] = self._inferred(op, spec)
            found.append(tuple(s for s in shape if s is not None))
        return found

    def _inferred(self, op: str, spec: Input) -> tuple[int, int]:
        """Height and width of images, where a dense layer leaves one square size."""
        from loopnest.network.input_size import square_sizes

        sizes = square_sizes(self)
        if len(sizes) == 1:
            return sizes[0], sizes[0]
        fit = f"; images of {sizes} pixels a side fit" if sizes else ""
        example = tuple(s or (sizes[0] if sizes else 28) for s in spec.shape[1:])
        raise ValueError(
            f"{op}: {spec.name} has shape {spec.described()}, so its size is not known{fit}; accepted: "
            f"with input_shape, the sizes without the batch axis, such as input_shape={example}"
        )

    # ---- weights ----

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all weights under the names, and in the layout, that PyTorch uses."""
        return {name: self._to_torch(name, v).copy() for name, v in self._all_weights().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> Network:
        """Take weights from a mapping of names to arrays, as a PyTorch module gives it.

        Parameters
        ----------
        state : mapping of str to array_like
            Arrays, or tensors that NumPy can read. Dense weights are (outputs, inputs), as
            in PyTorch. Floats of another size are converted.

        Returns
        -------
        Network
            This one.

        Raises
        ------
        ValueError, TypeError
            A name is missing or unknown, or an array has the wrong shape or dtype; then
            nothing is changed.
        """
        op = "load_state_dict"
        mine = self._all_weights()
        given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        missing, unknown = sorted(mine.keys() - given), sorted(given.keys() - mine)
        if missing or unknown:
            raise ValueError(
                f"{op}: missing {missing or 'nothing'}, unknown {unknown or 'nothing'}; "
                f"accepted: {sorted(mine)}"
            )
        taken = {}
        for name, target in mine.items():
            try:
                array = checks.plain(op, name, given[name])
            except Exception as error:
                raise TypeError(f"{op}: {name} is no array ({error})") from error
            if array.dtype.kind not in "fiu":
                raise TypeError(f"{op}: {name} has dtype {array.dtype}; accepted: floats")
            wanted = self._to_torch(name, target).shape
            if array.shape != wanted:
                raise ValueError(f"{op}: {name} has shape {array.shape}; accepted: {wanted}")
            if not target.flags.writeable:
                raise ValueError(f"{op}: {name} is read-only: {self.name} is frozen")
            taken[name] = array
        for name, array in taken.items():
            self._to_torch(name, mine[name])[...] = array
        return self

    def _all_weights(self) -> dict[str, np.ndarray]:
        return {**self.parameters, **{k: v for k, v in self.buffers.items() if v.dtype.kind == "f"}}

    def _to_torch(self, name: str, array: np.ndarray) -> np.ndarray:
        return array.T if name in self._transposed else array

    @property
    def _transposed(self) -> set[str]:
        return {n.inputs[1] for n in self.nodes if n.op == "Linear"}

    # ---- other forms ----

    def njit(self, input_shape: Iterable[int] | None = None, *, batch: int | None = None) -> Any:
        """A compiled function ``forward(x, out=None)`` for your own ``@njit`` code.

        It gives the bits of calling the network, with the weights and buffers that the network
        has then, see `Network`. Weights and work space are bound to it: it looks up nothing, and
        allocates nothing beyond its output (with ``out`` nothing at all). Several threads may run
        it at once.

        Parameters
        ----------
        input_shape : tuple of int, optional
            Shape of one input without the batch axis, where the network does not know it. It
            may be left out where a dense layer after `Flatten` fits square images of one size
            alone: then these are meant.
        batch : int, optional
            Only for networks that mix the rows of a batch: the one batch size to compile for.
            All others take any.

        Returns
        -------
        Numba function
            Takes arrays (C-contiguous or not) with a batch axis, or, with one input, without.

        Raises
        ------
        ValueError
            A size is not known, or the network has an operator that only NumPy calls have.
        ImportError
            Numba is missing.
        """
        from loopnest.network.compile import compile_forward

        self._need_program("njit")
        return compile_forward(self, input_shape, batch)

    def to_c(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        batch: int | None = None,
        input_shape: Iterable[int] | None = None,
    ) -> Path:
        """Write one C11 file with the weights in it and a function ``<name>_forward(x, y)``.

        The weights are those of now: the file does not follow later changes.

        The file needs no library and allocates nothing; its results have the bits of calling the
        network, on hardware with FMA at full speed. ``<name>_forward`` works in a static buffer;
        ``<name>_forward_in`` takes a buffer of the caller's and may run in many threads.

        Parameters
        ----------
        path : path
            The file; written beside it and renamed, so that it is whole or not there.
        name : str, optional
            Prefix of all names in C; by default the file's name.
        batch : int, optional
            Size of the batch axis, 1 if left out.
        input_shape : tuple of int, optional
            As for `njit`.

        Returns
        -------
        Path

        Raises
        ------
        ValueError
            As for `njit`; or ``name`` is no C identifier.
        """
        from loopnest.network.export_c import write_c

        self._need_program("to_c")
        return write_c(self, Path(path), name, batch, input_shape)

    # ---- gradients ----

    def forward(self, *arrays: Any) -> tuple[Any, Any]:
        """Compute the outputs, and keep what `backward` needs.

        Returns
        -------
        outputs : ndarray or tuple of them
        tape
            For `backward`.
        """
        from loopnest.network.gradient import Tape

        self._need_program("forward")
        given, single = self._arguments("forward", arrays)
        tape = Tape(self, given, single)
        return tape.outputs, tape

    def backward(self, dy: Any, tape: Any) -> tuple[Any, dict[str, np.ndarray]]:
        """Gradients by the inputs and by every parameter.

        Parameters
        ----------
        dy : array_like or sequence of them
            Gradient by the output, shape and dtype of it.
        tape
            From `forward`; or the input itself, then the forward pass is done first.

        Returns
        -------
        dx : ndarray or tuple of them
        gradients : dict of str to ndarray
            Names and shapes are those of ``parameters``.

        Raises
        ------
        TypeError, ValueError
            For arrays that do not fit, or a network with an operator that has no gradient.
        """
        from loopnest.network.gradient import Tape

        if not isinstance(tape, Tape):
            _, tape = self.forward(*(tape if isinstance(tape, (tuple, list)) else (tape,)))
        if tape.network is not self:
            raise ValueError("backward: tape is of another network")
        return tape.backward(dy)

    def gradient(self, x: Any, target: Any) -> tuple[Any, dict[str, np.ndarray]]:
        """Loss of a batch and its gradient by every parameter, for training.

        What `njit_gradient` does inside ``@njit``; quicker than `forward` and `backward`, which
        also give the gradient by the input.

        Parameters
        ----------
        x : array_like
            A batch.
        target : array_like
            Class indices or probabilities, as for `cross_entropy`.

        Returns
        -------
        loss : number
            Mean cross-entropy of the outputs, which are taken as logits.
        gradients : dict of str to ndarray
            Names and shapes are those of ``parameters``; ``gradients.vector`` is laid out like
            ``vector``.

        Raises
        ------
        TypeError, ValueError
            For arrays that do not fit, or a network with an operator that has no gradient.
        """
        from loopnest.network.gradient import Tape
        from loopnest.ops import loss

        self._need_program("gradient")
        given, single = self._arguments("gradient", (x,))
        if single:
            raise ValueError(f"gradient: x has shape {given[0].shape[1:]}; accepted: a batch")
        tape = Tape.for_training(self, given)
        value, dy = loss.cross_entropy_with_grad(tape.outputs, target)
        gradients = tape.backward(dy)[1]
        tape.rest()
        return value, gradients

    def njit_gradient(self, input_shape: Iterable[int] | None = None, *, batch: int) -> Any:
        """A compiled function ``gradient(x, target, out) -> loss`` for training in ``@njit``.

        Parameters
        ----------
        input_shape : tuple of int, optional
            As for `njit`.
        batch : int
            The most rows that ``x`` may have.

        Returns
        -------
        Numba function
            ``x`` is a batch, ``target`` int64 class indices. The mean cross-entropy of
            the outputs (taken as logits) is returned, its gradient by all parameters is
            written to ``out``, a vector laid out like ``vector`` and apart from it. The function
            follows weights and buffers, see `Network`.
        """
        from loopnest.network.compile_gradient import compile_gradient

        self._need_program("njit_gradient")
        return compile_gradient(self, input_shape, batch)
