"""Networks from ONNX files.

A file may be damaged or hostile, so all is checked as it is read: the operators and their
attributes against a table, names, sizes of tensors before they are made, places of external data.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from loopnest.network.lowering import Node
from loopnest.network.network import Input, Network
from loopnest.network.onnx.cost import Budget
from loopnest.network.onnx.evaluate import evaluate, is_lowered, run
from loopnest.network.onnx.simplify import simplify
from loopnest.network.onnx.table import (
    BEFORE_OPSET_6,
    FIRST_OPSET,
    LAST_OPSET,
    REQUIRED,
    SHAPE_INPUTS,
    SUPPORTED,
)
from loopnest.runtime import checks

_LONGEST = 120  # of a name in a message
DEFAULT_BYTES = 1 << 30  # of all constants together, and of each array
DEFAULT_WORK = 10**9  # multiply-adds of computing constants while loading: about a second
# What a damaged file may raise in what reads it, beside ValueError.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError)


def _onnx() -> Any:
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError(
            f"load_onnx: the onnx package cannot be had ({error}); install it with 'pip install onnx'"
        ) from error
    return onnx


def load_onnx(
    model: Any,
    *,
    frozen: bool = True,
    max_bytes: int = DEFAULT_BYTES,
    max_work: int = DEFAULT_WORK,
) -> Network:
    """Load an ONNX model as a `Network`.

    Parameters
    ----------
    model : path, bytes or onnx.ModelProto
        Opsets 6 to 28 of the operators that the README lists.
    frozen : bool
        False for a network whose weights are to be trained further.
    max_bytes : int
        Bound for the file, for the constants together, and for each array and the work space
        that the network makes when it is called; 1 GiB by default.
    max_work : int
        Bound for what is computed while loading (nodes whose inputs are all constants), in
        multiply-adds; 10**9 by default, about a second. A node alone counts 25,000.

    Returns
    -------
    Network
        Its batch normalisations are folded into the convolutions before them.

    Raises
    ------
    ValueError
        The file is damaged, or has an operator or attribute that is not supported (the
        message says which, and in which node), a cycle, a missing tensor, a size out of bounds, or
        external data outside its folder. All bounds are checked before anything is allocated
        or computed.
    TypeError
        The model is no path, bytes or ModelProto, or a bound is no integer.
    OSError
        The file cannot be read.
    ImportError
        The onnx package is missing.
    """
    op = "load_onnx"
    max_bytes = checks.integer(op, "max_bytes", max_bytes, 1)
    budget = Budget(max_bytes, checks.integer(op, "max_work", max_work, 1))
    loader = _Loader(model, budget, bool(frozen))
    try:
        return loader.network()
    except ValueError as error:
        if str(error).startswith(f"{op}: "):
            raise
        raise ValueError(f"{op}: the file is damaged ({error})") from error
    except _DAMAGE as error:
        raise ValueError(f"{op}: the file is damaged ({type(error).__name__}: {error})") from error


class _Loader:
    def __init__(self, model: Any, budget: Budget, frozen: bool) -> None:
        self.onnx, self.frozen = _onnx(), frozen
        self.budget, self.limit = budget, budget.bytes
        self.folder: Path | None = None
        self.model = self._parse(model)
        self.name = "onnx"
        self.constants: dict[str, Any] = {}

    def fail(self, message: str) -> ValueError:
        return ValueError(f"load_onnx: {message}")

    def _parse(self, model: Any) -> Any:
        if isinstance(model, self.onnx.ModelProto):
            return model
        if isinstance(model, (bytes, bytearray, memoryview)):
            data = bytes(model)
        elif isinstance(model, (str, os.PathLike)):
            path = Path(model)
            if "\0" in os.fspath(path):
                raise self.fail(f"the path {os.fspath(path)!r} has a null character")
            if path.stat().st_size > self.limit:
                raise self.fail(f"{path} has {path.stat().st_size} bytes; accepted: {self.limit}")
            data = path.read_bytes()
            self.folder = path.resolve().parent
        else:
            raise TypeError(
                f"load_onnx: model is a {type(model).__name__}; accepted: a path, bytes, ModelProto"
            )
        if len(data) > self.limit:
            raise self.fail(f"the model has {len(data)} bytes; accepted: {self.limit}")
        parsed = self.onnx.ModelProto()
        try:
            parsed.ParseFromString(data)
        except Exception as error:  # of protobuf, whose class depends on its version
            raise self.fail(f"this is no ONNX model, or a damaged one ({error})") from error
        return parsed

    # ---- the whole ----

    def network(self) -> Network:
        graph = self.model.graph
        self.name = _short(graph.name) or "onnx"
        if not graph.node and not graph.output:
            raise self.fail("the model has no graph")
        opset = self._opset()
        if graph.sparse_initializer:
            raise self.fail("sparse initializers are not supported")
        for tensor in graph.initializer:
            self._define(tensor.name, self._tensor(tensor, f"initializer {_short(tensor.name)!r}"))
        inputs = [self._input(v) for v in graph.input if v.name not in self.constants]
        defined = {i.name for i in inputs} | set(self.constants)
        if len(defined) != len(inputs) + len(self.constants):
            raise self.fail("two inputs have the same name")
        nodes = self._nodes(graph, opset, defined)
        outputs = [v.name for v in graph.output]
        if not outputs:
            raise self.fail("the graph has no outputs")
        for name in outputs:
            if name not in defined:
                raise self.fail(f"output {_short(name)!r} is made by no node")
        nodes = simplify(nodes, inputs, outputs, self.constants)
        return self._assemble(nodes, inputs, outputs)

    def _opset(self) -> int:
        versions = {s.domain: s.version for s in self.model.opset_import}
        version = versions.get("", versions.get("ai.onnx"))
        if version is None:
            raise self.fail("the model does not say which opset it is of")
        if not FIRST_OPSET <= version <= LAST_OPSET:
            raise self.fail(f"opset {version}; accepted: {FIRST_OPSET} to {LAST_OPSET}")
        return version

    def _define(self, name: str, value: Any) -> None:
        if not name or name in self.constants:
            raise self.fail(f"initializer {_short(name)!r} is there twice, or has no name")
        self.constants[name] = value

    def _input(self, value: Any) -> Input:
        kind = value.type.WhichOneof("value")
        if kind in ("sequence_type", "optional_type"):
            return Input(value.name, (), None)  # type: ignore[arg-type]
        tensor = value.type.tensor_type
        if kind != "tensor_type":
            raise self.fail(f"input {_short(value.name)!r} is a {kind}; accepted: a tensor")
        dtype = self._dtype(tensor.elem_type, f"input {_short(value.name)!r}")
        shape = []
        for dim in tensor.shape.dim:
            known = dim.dim_value if dim.WhichOneof("value") == "dim_value" else None
            if known is not None and not 0 <= known < 2**48:
                raise self.fail(f"input {_short(value.name)!r} has a size of {known}")
            shape.append(known)
        return Input(value.name, tuple(shape), dtype)

    def _dtype(self, kind: int, what: str) -> np.dtype:
        try:
            dtype = np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(kind))
        except (KeyError, TypeError, ValueError) as error:
            raise self.fail(f"{what} has an unknown element type, {kind}") from error
        if dtype.kind not in "fiubO" or dtype.name.startswith(("bfloat", "float8", "float4")):
            raise self.fail(f"{what} has dtype {dtype}, which is not supported")
        return dtype

    # ---- tensors ----

    def _tensor(self, tensor: Any, what: str) -> np.ndarray:
        """A tensor's numbers; their count is checked before anything is made."""
        dtype = self._dtype(tensor.data_type, what)
        size = 1
        for dim in tensor.dims:
            if dim < 0 or dim >= 2**48:
                raise self.fail(f"{what} has the shape {list(tensor.dims)[:32]}")
            size *= dim
        if len(tensor.dims) > 32:
            raise self.fail(f"{what} has {len(tensor.dims)} dimensions")
        self._account(size * dtype.itemsize, what)
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            return self._external(tensor, what, dtype, size)
        try:
            array = self.onnx.numpy_helper.to_array(tensor)
        except Exception as error:
            raise self.fail(
                f"{what} has not the numbers that its shape asks for ({error})"
            ) from error
        if array.size != size:
            raise self.fail(f"{what} has {array.size} numbers for the shape {list(tensor.dims)}")
        return array

    def _account(self, count: int, what: str) -> None:
        self.budget.bytes -= count
        if self.budget.bytes < 0:
            raise self.fail(
                f"{what} takes the constants to {self.limit - self.budget.bytes} bytes; "
                f"accepted: max_bytes, {self.limit}"
            )

    def _external(self, tensor: Any, what: str, dtype: np.dtype, size: int) -> np.ndarray:
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        if self.folder is None:
            raise self.fail(f"{what} lies in a file of its own; accepted: with a model from a path")
        path = self._beside(what, location)
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or size * dtype.itemsize)
        except ValueError as error:
            raise self.fail(f"{what} has no proper offset or length") from error
        wanted = size * dtype.itemsize
        if offset < 0 or length != wanted or offset + length > path.stat().st_size:
            raise self.fail(
                f"{what} needs {wanted} bytes; the file has {path.stat().st_size}, "
                f"offset {offset}, length {length}"
            )
        if dtype.hasobject:
            raise self.fail(f"{what} has strings in a file of its own, which is not supported")
        data = np.fromfile(path, dtype.newbyteorder("<"), size, offset=offset)
        if data.size != size:
            raise self.fail(f"{what}: its file ends early")
        return data.astype(dtype, copy=False).reshape(tuple(tensor.dims))

    def _beside(self, what: str, location: str) -> Path:
        """The file of external data, which must lie in the model's folder."""
        assert self.folder is not None
        shown = repr(_short(location))
        try:
            path = (self.folder / location).resolve()
            found = path.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, a null
            raise self.fail(f"{what} lies in {shown}, which is no file ({error})") from error
        if not location or os.path.isabs(location) or self.folder not in path.parents:
            raise self.fail(f"{what} lies in {shown}, outside the model's folder")
        if not found:
            raise self.fail(f"{what} lies in {shown}, which is no file")
        return path

    # ---- nodes ----

    def _nodes(self, graph: Any, opset: int, defined: set[str]) -> list[Node]:
        later = {name for proto in graph.node for name in proto.output if name}
        nodes = []
        for i, proto in enumerate(graph.node):
            name = _short(proto.name) or f"#{i}"
            node = self._node(proto, name, opset)
            for value in node.inputs:
                if value and value not in defined:
                    why = (
                        "is made by a later node: the graph has a cycle or is out of order"
                        if value in later
                        else "is missing"
                    )
                    raise self.fail(f"{node.label}: its input {_short(value)!r} {why}")
            for value in node.outputs:
                if value and value in defined:
                    raise self.fail(f"{node.label}: its output {_short(value)!r} is there twice")
                defined.add(value)
            nodes += self._folded(node)
        return nodes

    def _folded(self, node: Node) -> list[Node]:
        """The node, or nothing where it is known what it gives."""
        if not all(v in self.constants for v in node.inputs if v):
            return [node]
        if node.op == "Dropout" and len(node.inputs) > 2:
            return [node]  # random
        inputs = [self.constants[v] if v else None for v in node.inputs]
        try:
            results = evaluate(node, inputs, self.budget)
        except (ValueError, TypeError) as error:
            raise self.fail(str(error)) from error
        for name, value in zip(node.outputs, results, strict=False):
            if name:
                if isinstance(value, np.ndarray) and node.op != "Identity":
                    self._account(value.nbytes, node.label)
                self.constants[name] = value
        return []

    def _node(self, proto: Any, name: str, opset: int) -> Node:
        op = proto.op_type
        where = f"node {name!r} ({_short(op)})"
        if proto.domain not in ("", "ai.onnx") or op not in SUPPORTED:
            domain = f" of the domain {_short(proto.domain)!r}" if proto.domain else ""
            raise self.fail(f"{where}: the operator {_short(op)!r}{domain} is not supported")
        if opset < 6 and op not in BEFORE_OPSET_6:
            raise self.fail(f"{where}: the operator {op!r} of opset {opset} is not supported")
        table = SUPPORTED[op]
        inputs, outputs = list(proto.input), list(proto.output)
        while inputs and not inputs[-1]:
            inputs.pop()
        while len(outputs) > 1 and not outputs[-1]:
            outputs.pop()
        low, high = table.inputs
        if not low <= len(inputs) <= high or not all(inputs[:low]):
            raise self.fail(f"{where}: {len(inputs)} inputs; accepted: {low} to {high}")
        if not 1 <= len(outputs) <= table.outputs or not outputs[0]:
            raise self.fail(f"{where}: {len(outputs)} outputs; accepted: 1 to {table.outputs}")
        attributes: dict[str, Any] = {}
        for attribute in proto.attribute:
            attributes[attribute.name] = self._attribute(where, attribute, table.attributes)
        needed = REQUIRED.get(op)
        if needed and needed not in attributes:
            raise self.fail(f"{where}: attribute {needed!r} is missing")
        if op == "Constant" and len(attributes) != 1:
            raise self.fail(f"{where}: it must have one value")
        if op in ("BatchNormalization", "Dropout") and opset < 7 and not attributes.get("is_test"):
            raise self.fail(f"{where}: is_test is 0, training, which is not supported")
        if op == "BatchNormalization" and opset < 14 and len(outputs) > 1:
            raise self.fail(f"{where}: {len(outputs)} outputs, for training, are not supported")
        return Node(op, tuple(inputs), tuple(outputs), attributes, name, opset)

    def _attribute(self, where: str, attribute: Any, accepted: dict[str, Any]) -> Any:
        name = attribute.name
        if name not in accepted or attribute.ref_attr_name:
            raise self.fail(f"{where}: the attribute {_short(name)!r} is not supported")
        kinds = self.onnx.AttributeProto.AttributeType
        wanted = accepted[name]
        kind = kinds.Name(attribute.type)
        if isinstance(wanted, str):
            if kind != wanted:
                raise self.fail(
                    f"{where}: attribute {name!r} is of type {kind}; accepted: {wanted}"
                )
            if wanted == "TENSOR":
                return self._tensor(attribute.t, f"{where}: attribute {name!r}")
            value = self.onnx.helper.get_attribute_value(attribute)
            if wanted == "INTS":
                return [int(v) for v in value]
            if wanted in ("STRING", "STRINGS"):
                return value
            return float(value) if wanted == "FLOAT" else value
        value = self.onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if value not in wanted:
            raise self.fail(
                f"{where}: attribute {name!r} is {value!r}; accepted: "
                + ", ".join(map(repr, wanted))
            )
        return value

    # ---- the network ----

    def _assemble(self, nodes: list[Node], inputs: list[Input], outputs: list[str]) -> Network:
        used = {name for node in nodes for name in node.inputs} | set(outputs)
        constants = {k: v for k, v in self.constants.items() if k in used}
        floats = {i.dtype for i in inputs}
        dtype = floats.pop() if len(floats) == 1 else np.dtype(np.float32)
        dynamic = _why_dynamic(nodes, inputs, outputs, constants, dtype)
        untrained = _untrained(nodes)
        own = {
            k: np.array(v)
            if isinstance(v, np.ndarray) and not self.frozen and dynamic is None
            else v
            for k, v in constants.items()
        }
        parameters = {
            k: v
            for k, v in own.items()
            if isinstance(v, np.ndarray) and v.dtype == dtype and dynamic is None
            if self.frozen or k not in untrained
        }
        buffers = {k: v for k, v in own.items() if k not in parameters}
        real = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float32)
        return Network(
            nodes,
            inputs,
            outputs,
            parameters,
            buffers,
            dtype=real,
            name=self.name,
            limit=self.limit,
            frozen=self.frozen and dynamic is None,
            dynamic=dynamic,
            evaluate=run,
        )


def _untrained(nodes: Iterable[Node]) -> set[str]:
    """Names of what has no gradient: shapes, fill values, and all of a normalisation."""
    places = {**SHAPE_INPUTS, "BatchNormalization": (1, 2, 3, 4)}
    return {
        node.inputs[i] for node in nodes for i in places.get(node.op, ()) if i < len(node.inputs)
    }


def _why_dynamic(
    nodes: Iterable[Node],
    inputs: list[Input],
    outputs: list[str],
    constants: dict[str, Any],
    dtype: np.dtype,
) -> str | None:
    """What keeps a network from being a program of fixed shapes, None if nothing does."""
    if not inputs:
        return "it has no inputs"
    for spec in inputs:
        if spec.dtype != dtype or dtype not in (np.float32, np.float64):
            return f"input {_short(spec.name)!r} has dtype {spec.dtype}"
    for node in nodes:
        if not is_lowered(node.op):
            return node.label
        if len(node.outputs) > 1 or node.attributes.get("training_mode"):
            return node.label + " with more than one output, or training"
        shapes = SHAPE_INPUTS.get(node.op, ())
        if node.op == "BatchNormalization":
            shapes = (1, 2, 3, 4)
        if node.op == "Dropout" and len(node.inputs) > 2:
            return node.label + " with a training input"
        for i, name in enumerate(node.inputs):
            if not name or (node.op == "Dropout" and i):
                continue
            value = constants.get(name)
            if i in shapes and name not in constants:
                return f"{node.label}, whose input {_short(name)!r} is computed"
            if i not in shapes and value is not None and value.dtype != dtype:
                return f"{node.label}, whose input {_short(name)!r} has dtype {value.dtype}"
    for name in outputs:
        if name in constants and constants[name].dtype != dtype:
            return f"output {_short(name)!r} has dtype {constants[name].dtype}"
    return None


def _short(name: str) -> str:
    """A name from a file as messages show it: on one line, and not too long."""
    shown = name if len(name) <= _LONGEST else name[:_LONGEST] + "..."
    return "".join(c if c.isprintable() else "?" for c in shown)
