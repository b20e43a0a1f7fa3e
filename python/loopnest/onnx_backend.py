"""loopnest as an ONNX backend, so that ONNX's own tests, and what else knows the interface, run it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep

from loopnest.network.network import Network
from loopnest.network.onnx.load import load_onnx


class LoopnestRep(BackendRep):
    """A model that is ready to run."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs for a sequence of inputs, one array each."""
        many = isinstance(inputs, (list, tuple)) and len(inputs) == len(self.network.inputs)
        results = self.network(*(inputs if many else [inputs]))
        return results if isinstance(results, tuple) else (results,)


class LoopnestBackend(Backend):
    """See `onnx.backend.base.Backend`."""

    @classmethod
    def is_compatible(cls, model: Any, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the model can be loaded."""
        try:
            load_onnx(model)
        except ValueError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> LoopnestRep:
        """Load a model; ValueError if it has what is not supported."""
        return LoopnestRep(load_onnx(model))

    @classmethod
    def run_node(
        cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one operator on arrays."""
        arrays = [np.asarray(v) for v in inputs]
        names = [name for name in node.input if name]
        given = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in zip(names, arrays, strict=True)
        ]
        made = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = onnx.helper.make_graph([node], "node", given, made)
        opset = kwargs.get("opset_version", 21)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        return cls.prepare(model).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU it is."""
        return device == "CPU"


prepare = LoopnestBackend.prepare
run_node = LoopnestBackend.run_node
run_model = LoopnestBackend.run_model
supports_device = LoopnestBackend.supports_device
is_compatible = LoopnestBackend.is_compatible
