"""An ONNX file becomes one C file, which is compiled and compared with the network, bit for bit.

    python examples/network/onnx_to_c.py model.onnx model.c

Without arguments it takes a small model that it makes itself.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import loopnest as ln


def small_model() -> bytes:
    """Convolution, normalisation, pooling, dense layer, softmax: what classifiers are made of."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "scale": rng.uniform(0.5, 2, 8),
        "shift": rng.normal(size=8),
        "mean": rng.normal(size=8),
        "variance": rng.uniform(0.5, 2, 8),
        "v": rng.normal(0, 0.3, (5, 8)),
        "c": rng.normal(size=5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["b"]),
        helper.make_node("Relu", ["b"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "c"], ["z"], transB=1),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=9).SerializeToString()


def same_bits(net: ln.Network, source: Path) -> bool:
    """Compile the file and compare on random input."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("no C compiler: the file was written but not tried")
    library = source.with_suffix(".so")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(source), "-o", str(library), "-lm"], check=True)
    x = np.random.default_rng(1).normal(size=net.inputs[0].shape).astype(np.float32)
    expected = net(x)
    y = np.empty_like(expected)
    forward = getattr(ctypes.CDLL(str(library)), source.stem + "_forward")
    forward(*(a.ctypes.data_as(ctypes.c_void_p) for a in (x, y)))
    return y.tobytes() == expected.tobytes()


def main(argv: list[str] | None = None) -> bool:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("source", nargs="?", type=Path)
    arguments = parser.parse_args(argv)
    net = ln.load_onnx(arguments.model or small_model())
    print(net)
    with tempfile.TemporaryDirectory() as folder:
        source = net.to_c(arguments.source or Path(folder) / "small.c")
        equal = same_bits(net, source)
        print(f"{source}: {source.stat().st_size:,} bytes, same bits as net(x): {equal}")
    return equal


if __name__ == "__main__":
    main()
