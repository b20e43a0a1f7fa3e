"""The differential fuzzer: the same drawn call on every way in.

    python fuzz.py --calls 1000000 --seed 5 --ops conv2d,linear
    python fuzz.py --call conv2d:17:3.2.1.5.5.3.3.1:12345:4

Python on Numba, Python on C and @njit must give the same bits, or refuse with the same kind of error
and leave all memory as it was; what they give must be within rounding of the float64 reference.
Arrays end at protected pages, so the calls run in a child process, which notes each call before it
starts. When the child dies the call is told and a new child goes on after it. Every finding ends with
the command that repeats it. Hypothesis draws families of calls; `fuzz_table.py` has what there is
to draw from.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FAMILY = 24  # calls of one family, each through every face
SPLIT = 16  # one family in so many is computed by two threads as well
KEPT = 50  # findings of a kind that a child tells
CHUNK = 400  # families that one run of Hypothesis draws
STILL = 180  # seconds without a new call after which a child counts as hanging
MEMORY = 8 << 30  # bytes of address space of a child: an absurd size must not fill the machine
FACES = os.environ.get("LOOPNEST_FUZZ_FACES", "").split()  # none: all of them
NOTE = 512  # bytes of the file where a child notes what it does


class Fuzzer:
    """Runs calls, and gathers what is wrong."""

    def __init__(self, signatures: int, module: Any = None) -> None:
        import fuzz_faces

        import loopnest as ln

        self._faces = fuzz_faces
        self._compiled = fuzz_faces.Compiled(signatures)
        self._module = module or ln
        self.note: Any = None  # is told each call before it starts
        self.report: Any = None  # is told each finding
        self.calls = 0
        self.counts: Counter[str] = Counter()
        self.kinds: Counter[tuple[str, str]] = Counter()
        self.findings: list[dict[str, str]] = []

    def run(
        self, key: str, profile: int, lengths: tuple, seed: int, variant: int, njit: bool = True
    ) -> None:
        """One call on all faces."""
        from fuzz_call import call_of

        call = call_of(key, profile, lengths, seed, variant)
        before = [m.tobytes() for m in call.memory]
        given = {k: a.copy() for k, a in call.arrays.items() if k in call.written}
        answers = {}
        faces = ["numba", "c"] + ["njit"] * njit
        if seed % SPLIT == 0:
            faces += ["numba, 2 threads", "c, 2 threads"]
        if FACES:
            faces = [face for face in faces if face.partition(",")[0] in FACES]
        for face in faces:
            if self.note is not None:
                self.note(f"{self.calls} {call.token} on {face}")
            if face == "njit":
                answer = self._compiled.face(call)
            else:
                answer = self._faces.python_face(call, face, self._module)
            if answer is None:
                continue
            answers[face] = answer
            self.calls += 1
            self._check_memory(call, before, face, answer)
        self._compare(call, answers, given)

    def _check_memory(self, call: Any, before: list[bytes], face: str, answer: Any) -> None:
        """Nothing but outputs is written, nothing at all after a refusal; put it back."""
        mine = [call.arrays[k] for k in call.written] if not answer.error else []
        for memory, bytes_ in zip(call.memory, before, strict=True):
            if memory.tobytes() == bytes_:
                continue
            memory_after = memory.copy()
            memory[...] = memoryview(bytes_)
            for array in mine:
                _copy_bytes(array, memory, memory_after)
            if memory_after.tobytes() != bytes_:
                self._found(call, "memory", f"{face} wrote where it must not ({answer})")

    def _compare(self, call: Any, answers: dict[str, Any], given: dict[str, Any]) -> None:
        faces = self._faces
        first = answers["numba"]
        self.counts[f"{call.op.key} {'refused' if first.error else 'taken'}"] += 1
        self.counts[f"{call.op.key} njit"] += "njit" in answers
        for face, answer in answers.items():
            if answer.error and not (first.error and faces.errors_agree(first, answer)):
                kind = (
                    answer.error if answer.error not in ("TypeError", "ValueError") else "refused"
                )
                self._found(call, f"{kind} on {face}", answers)
                return
            if first.error and not answer.error:
                self._found(call, f"taken on {face}", answers)
                return
            named = f"{call.op.name}:"
            if answer.error in ("TypeError", "ValueError") and named not in answer.text:
                self._found(call, f"unnamed on {face}", answers)
            if not first.error and not faces.same_bits(first, answer):
                self._found(call, f"bits of {face}", answers)
        if first.error:
            return
        if call.fault and not call.fault.startswith("?"):
            self._found(call, "taken by all", answers)
            return
        expected = faces.expected_of(call, given)
        if expected is not None:
            for difference in faces.far_from(call, first, expected):
                self._found(call, "reference", difference)

    def _found(self, call: Any, kind: str, told: Any) -> None:
        if isinstance(told, dict):
            told = "; ".join(f"{face}: {answer}" for face, answer in told.items())
        told = " ".join(told.split())
        self.kinds[call.op.key, kind] += 1
        if self.kinds[call.op.key, kind] > KEPT:
            return
        finding = {"op": call.op.key, "kind": kind, "token": call.token, "call": str(call)}
        self.findings.append({**finding, "told": told})
        if self.report is not None:
            self.report(self.findings[-1])


def _copy_bytes(array: Any, source: Any, target: Any) -> None:
    """Give the bytes of ``array`` that lie in both blocks the values of ``source``."""
    import numpy as np

    low, high = np.lib.array_utils.byte_bounds(array)
    first = max(low - source.ctypes.data, 0)
    last = min(high - source.ctypes.data, source.size)
    if first < last:
        target[first:last] = source[first:last]


def families(seed: int, ops: list[str]) -> Iterator[tuple]:
    """Families of calls without end, drawn by Hypothesis: (op, profile, lengths, seed)."""
    from fuzz_call import PLAIN_PROFILES
    from fuzz_table import LENGTHS
    from hypothesis import strategies as st

    profiles = st.one_of(
        st.integers(0, PLAIN_PROFILES - 1), st.integers(0, 9), st.integers(PLAIN_PROFILES, 10**6)
    )
    lengths = st.tuples(*[st.sampled_from(LENGTHS)] * 8)
    drawn = st.tuples(profiles, lengths, st.integers(0, 2**32 - 1))
    turns = itertools.cycle(ops)
    for chunk in itertools.count():
        for example in _examples(drawn, seed * 1_000_003 + chunk):
            yield next(turns), *example


def _examples(strategy: Any, seed: int) -> list[Any]:
    """A chunk of what Hypothesis draws for a seed."""
    import hypothesis

    found: list[Any] = []
    settings = hypothesis.settings(
        max_examples=CHUNK, database=None, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip

    def keep(example: Any) -> None:
        found.append(example)

    hypothesis.seed(seed)(settings(hypothesis.given(strategy)(keep)))()
    return found


def ops_named(text: str) -> list[str]:
    """Keys of the table for a list of ops; all for an empty one."""
    from fuzz_table import TABLE

    wanted = [name for name in text.split(",") if name]
    unknown = [w for w in wanted if not any(w in (k, op.name) for k, op in TABLE.items())]
    if unknown:
        raise SystemExit(f"fuzz: no such op: {', '.join(unknown)}")
    return [k for k, op in TABLE.items() if not wanted or k in wanted or op.name in wanted]


def quiet() -> None:
    """Warnings are errors, but for those of Numba about how quick code will be."""
    from numba.core.errors import NumbaWarning

    warnings.simplefilter("error")
    warnings.simplefilter("ignore", NumbaWarning)


def run_families(fuzzer: Fuzzer, options: argparse.Namespace, note: Any = None) -> None:
    """Run families until there have been enough calls."""
    quiet()
    drawn = itertools.islice(families(options.seed, ops_named(options.ops)), options.skip, None)
    for number, family in enumerate(drawn, options.skip):
        if note is not None:
            fuzzer.note = lambda text, number=number: note(f"{number} {text}")
        for variant in range(FAMILY):
            fuzzer.run(*family, variant)
        if fuzzer.calls >= options.calls:
            return


# ---- the child: runs calls, and notes what it does in files that the parent reads ----


def child(fuzzer: Fuzzer, options: argparse.Namespace) -> None:
    """Run families; each call is noted before it starts, findings are written as they come."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # end with the parent (PR_SET_PDEATHSIG)
    if not FACES:  # sanitizers, for which there are fewer, take terabytes of addresses
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = Path(options.child)
    note = os.open(folder / "note", os.O_RDWR | os.O_CREAT)
    with open(folder / "findings", "a", buffering=1) as findings:
        fuzzer.report = lambda finding: print(json.dumps(finding), file=findings)
        run_families(fuzzer, options, lambda text: os.pwrite(note, text.encode().ljust(NOTE), 0))
    with open(folder / "counts", "a") as counts:
        print(json.dumps([fuzzer.calls, fuzzer.counts]), file=counts)


# ---- the parent ----


def watched(command: list[str], folder: Path) -> tuple[int, list[str]]:
    """Run a child to its end: exit status, and the words of its last note."""
    process = subprocess.Popen(command)
    last, since = b"", time.monotonic()
    try:
        while process.poll() is None:
            time.sleep(0.2)
            now = _read(folder / "note")
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > STILL:
                process.kill()
                process.wait()
                return HANG, _read(folder / "note").decode().split()
    finally:
        process.kill()
        process.wait()
    return process.returncode, _read(folder / "note").decode().split()


HANG = 1000  # stands for an exit status


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def supervise(options: argparse.Namespace, script: str = __file__) -> list[dict[str, str]]:
    """Run children until there have been enough calls; all findings, crashes among them."""
    findings, left, skip = [], options.calls, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        while left > 0:
            (folder / "note").unlink(missing_ok=True)
            status, words = watched(
                [
                    sys.executable, script, "--child", name, "--skip", str(skip), "--calls",
                    str(left), "--seed", str(options.seed), "--ops", options.ops,
                    "--signatures", str(options.signatures),
                ],
                folder,
            )  # fmt: skip
            if status == 0:
                break
            if len(words) < 5:
                raise SystemExit(f"fuzz: the child ended with {status} before its first call")
            family, calls, token, _, *face = words
            why = "hangs" if status == HANG else f"ends the process ({_signal(status)})"
            findings.append({
                "op": token.partition(":")[0], "kind": "crash", "token": token,
                "call": f"on {' '.join(face)}", "told": why,
            })  # fmt: skip
            print(f"crash: {token} on {' '.join(face)} {why}", flush=True)
            skip, left = int(family) + 1, left - int(calls)
        findings += [json.loads(line) for line in _read(folder / "findings").splitlines()]
        for line in _read(folder / "counts").splitlines():
            _print_counts(*json.loads(line))
    return findings


def _signal(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _print_counts(calls: int, counts: dict[str, int]) -> None:
    print(f"{calls} calls; drawn calls of each op: taken, refused, run inside @njit too")
    for key in sorted({name.rpartition(" ")[0] for name in counts}):
        shown = [counts.get(f"{key} {what}", 0) for what in ("taken", "refused", "njit")]
        print(f"  {key:34}" + "".join(f"{n:9}" for n in shown))


def show(findings: list[dict[str, str]], most: int) -> None:
    """Print findings, a few of each kind."""
    kinds = Counter((f["op"], f["kind"]) for f in findings)
    shown: Counter[tuple] = Counter()
    for finding in findings:
        kind = finding["op"], finding["kind"]
        shown[kind] += 1
        if shown[kind] <= most:
            print(f"{finding['kind']} ({kinds[kind]} such of {finding['op']}): {finding['call']}")
            print(f"    {finding['told'][:700]}")
            print(f"    python tests/fuzz.py --call {finding['token']}")
    print(f"{len(findings)} findings of {len(kinds)} kinds")


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=100_000, help="calls, each through one face")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ops", default="", help="names in a list with commas; all by default")
    parser.add_argument(
        "--signatures", type=int, default=4, help="functions that @njit may compile for each op"
    )
    parser.add_argument("--call", default="", help="repeat this one call")
    parser.add_argument("--show", type=int, default=2, help="findings of a kind that are printed")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def repeat(token: str) -> list[dict[str, str]]:
    """The findings of one call."""
    quiet()
    key, profile, lengths, seed, variant = token.split(":")
    told = int(profile), tuple(map(int, lengths.split("."))), int(seed)
    fuzzer = Fuzzer(signatures=1)
    for v in range(int(variant) + 1):  # those before it in its family too: a replay needs them
        fuzzer.findings.clear()
        fuzzer.run(key, *told, v, v == int(variant))
    return fuzzer.findings


def main() -> int:
    options = parsed()
    if options.child:
        child(Fuzzer(options.signatures), options)
        return 0
    if options.call:
        findings = repeat(options.call)
    else:
        started = time.monotonic()
        findings = supervise(options)
        print(f"{time.monotonic() - started:.0f} s")
    show(findings, options.show)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
