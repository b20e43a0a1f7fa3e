"""ONNX's own backend tests for the operators that are listed, and its models."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import pytest
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

import loopnest as ln
from loopnest.network.onnx.table import SUPPORTED
from loopnest.onnx_backend import LoopnestBackend

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
with warnings.catch_warnings():  # its generated cases overflow on purpose
    warnings.simplefilter("ignore")
    CASES = [case for kind in KINDS for case in load_model_tests(kind=kind)]


def _model(case):
    return case.model if case.model is not None else onnx.load(Path(case.model_dir) / "model.onnx")


def _listed(case) -> bool:
    """Whether a case has none but the listed operators."""
    return {n.op_type for n in _model(case).graph.node} <= set(SUPPORTED)


LISTED = [c for c in CASES if _listed(c)]


def _data_sets(case):
    if case.data_sets is not None:
        return case.data_sets
    sets = []
    for folder in sorted(Path(case.model_dir).glob("test_data_set*")):
        loaded = []
        for kind in ("input", "output"):
            files = sorted(folder.glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
            loaded.append([onnx.numpy_helper.to_array(onnx.load_tensor(f)) for f in files])
        sets.append(loaded)
    return sets


def _plain(value):
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def test_the_count():
    assert len(LISTED) >= 320


@pytest.mark.parametrize("case", LISTED, ids=lambda c: c.name)
def test_onnx_case(case):
    ready = LoopnestBackend.prepare(_model(case))
    sets = _data_sets(case)
    assert sets
    for inputs, expected in sets:
        results = ready.run([_plain(v) for v in inputs])
        Runner.assert_similar_outputs([_plain(v) for v in expected], results, case.rtol, case.atol)


LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MODELS = ("bvlc_alexnet", "densenet121", "inception_v1", "inception_v2", "resnet50")
MODELS += ("shufflenet", "squeezenet", "zfnet512")  # vgg19 is as alexnet, and takes a minute


@pytest.mark.parametrize("name", MODELS)
def test_light_model(name):
    path = LIGHT / f"light_{name}.onnx"
    net = ln.load_onnx(path)
    (given,) = [v for v in onnx.load(path).graph.input if v.name == net.inputs[0].name]
    y = net(Runner.generate_dummy_data(given))
    expected = onnx.numpy_helper.to_array(
        onnx.load_tensor(path.with_name(f"{path.stem}_output_0.pb"))
    )
    Runner.assert_similar_outputs([expected], [y], 1e-3, 1e-5)
