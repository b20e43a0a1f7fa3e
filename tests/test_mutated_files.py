"""Files with flipped, lost and repeated bytes: only the documented errors, little time and memory.

A process of its own, whose memory is bounded, loads each mutation, and runs what was loaded.
`make fuzz` sets LOOPNEST_FUZZ_CALLS to the number of mutations. A finding is printed with the file,
the seed and the number of the mutation: `python tests/test_mutated_files.py FILE SEED NUMBER`.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

MUTATIONS = int(os.environ.get("LOOPNEST_FUZZ_CALLS", "1000"))
SEED = 1
# Of one mutation: seconds, and bytes beyond what the process has when it begins.
MOST_SECONDS, MOST_BYTES = 10, 1 << 30
KINDS = ("onnx", "logic", "checkpoint", "sweep")


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with up to four changes: bytes, integers, pieces lost, doubled, moved, cut off."""
    found = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at, other = (int(v) for v in rng.integers(0, max(1, len(found)), 2))
        length = int(rng.integers(1, 33))
        match int(rng.integers(0, 7)):
            case 0:
                found[at : at + 1] = bytes([int(rng.integers(0, 256))])
            case 1:
                found[at : at + 1] = bytes(
                    [(found[at] if found else 0) ^ (1 << int(rng.integers(0, 8)))]
                )
            case 2:
                found[at : at + length] = b""
            case 3:
                found[at:at] = found[other : other + length]
            case 4:
                found[at : at + length] = bytes(
                    rng.choice([0, 255, 127, 128]) for _ in range(length)
                )
            case 5:
                number = int(rng.choice([0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, 1000, 11000]))
                found[at : at + 8] = (number % 2**64).to_bytes(8, "little")
            case _:
                if rng.integers(0, 4) == 0:
                    del found[at:]
    return bytes(found)


# ---- the files that are mutated, and what loads them: each gives (bytes, loader, prefix) ----


def onnx_files() -> Iterator[bytes]:
    """ONNX's own cases of the listed operators, and graphs that compute with constants."""
    import onnx
    from test_onnx import LISTED, _model
    from test_onnx_forms import composite

    yield composite().SerializeToString()
    rng = np.random.default_rng(0)
    for index in rng.permutation(len(LISTED))[:120]:
        made = _model(LISTED[index])
        # Inputs become constants in half of the files: then loading computes all.
        if index % 2:
            for value in made.graph.input:
                kind = value.type.tensor_type
                sizes = [d.dim_value or 2 for d in kind.shape.dim]
                if value.type.WhichOneof("value") == "tensor_type" and kind.elem_type == 1:
                    data = np.ones(sizes, np.float32)
                    made.graph.initializer.append(onnx.numpy_helper.from_array(data, value.name))
        data = made.SerializeToString()
        if len(data) < 20_000:
            yield data


def load_onnx(path: Path) -> None:
    import loopnest as ln

    net = ln.load_onnx(path, max_bytes=1 << 26, max_work=10**8)
    shapes = [tuple(2 if s is None else s for s in i.shape) for i in net.inputs]
    if any(np.prod(s, dtype=float) > 1e6 for s in shapes) or any(
        i.dtype is None for i in net.inputs
    ):
        return
    given = [np.ones(s, i.dtype) for s, i in zip(shapes, net.inputs, strict=True)]
    try:
        net(*given)
    except (ValueError, TypeError):  # shapes that do not fit; the message names the node
        pass


def logic_network():
    import loopnest as ln

    x = np.random.default_rng(0).integers(0, 2, (40, 6))
    return ln.LogicNetwork(6, [10, 8], 2), x, x[:, 0]


def npz_file(kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.npz"
        if kind == "sweep":
            from loopnest.app import sweep

            sweep.Map(sweep_settings()).save(path)
        else:
            net, x, y = logic_network()
            net.fit(x, y, epochs=1, checkpoint=path, progress=False)
            if kind == "logic":
                net.save(path)
        return path.read_bytes()


def sweep_settings():
    from loopnest.app import sweep

    return sweep.Settings("gelu", (0.01, 1.0, 4), "start", (-1.0, 1.0, 5), 0.0)


def load_logic(path: Path) -> None:
    import loopnest as ln

    ln.LogicNetwork.load(path).pack().predict(np.zeros((3, 6), np.uint8))


def load_checkpoint(path: Path) -> None:
    net, x, y = logic_network()
    net.fit(x, y, epochs=1, checkpoint=path, progress=False)


def load_sweep(path: Path) -> None:
    from loopnest.app import sweep

    sweep.Map.load(path, sweep_settings())


LOADERS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "onnx": (load_onnx, ("load_onnx: ",)),
    "logic": (load_logic, ("LogicNetwork.load: ", "PackedLogic.predict: ")),
    "checkpoint": (load_checkpoint, ("LogicNetwork.load: ", "LogicNetwork.fit: ")),
    "sweep": (load_sweep, ("sweep: ",)),
}


# ---- the process that loads ----


def one(kind: str, path: Path, data: bytes) -> str | None:
    """What is wrong with loading these bytes, None if nothing is."""
    load, prefixes = LOADERS[kind]
    path.write_bytes(data)
    begin = time.perf_counter()
    signal.alarm(
        3 * MOST_SECONDS
    )  # a kernel cannot be interrupted by less than the signal's default
    try:
        load(path)
    except ValueError as error:
        if not str(error).startswith(prefixes):
            return f"the message {error!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    seconds = time.perf_counter() - begin
    return f"{seconds:.1f} s" if seconds > MOST_SECONDS else None


def bound_memory() -> None:
    """Bound the process's memory, where the system tells how much it has."""
    if not Path("/proc/self/statm").exists():
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (now + MOST_BYTES, now + MOST_BYTES))


def main(kind: str, seed: str, first: str, last: str) -> None:
    """Load mutations first to last; print what is wrong, and the number of each one's file."""
    import loopnest as ln

    warnings.simplefilter("ignore")
    faulthandler.enable()
    sources = list(onnx_files()) if kind == "onnx" else [npz_file(kind)]
    with ln.use_backend("c"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        for data in sources:  # as they are: what a process does once is done
            assert one(kind, path, data) is None
        bound_memory()
        for number in range(int(first), int(last)):
            print(f"at {number}", flush=True)
            rng = np.random.default_rng([int(seed), number])
            wrong = one(kind, path, mutated(sources[number % len(sources)], rng))
            if wrong:
                print(f"FOUND {kind} {seed} {number}: {wrong}", flush=True)


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(kind) -> None:
    count = MUTATIONS // 2 if kind == "onnx" else MUTATIONS // 6
    command = [sys.executable, __file__, kind, str(SEED), "0", str(count)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = ended.stdout.splitlines()
    found = [line for line in lines if line.startswith("FOUND")]
    assert not found, "\n".join(found[:20])
    assert ended.returncode == 0, (lines[-1:], ended.stderr[-2000:])
    assert lines[-1] == f"at {count - 1}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    kind, seed, first, *last = sys.argv[1:]
    main(kind, seed, first, last[0] if last else str(int(first) + 1))
