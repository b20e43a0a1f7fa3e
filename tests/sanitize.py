"""`make sanitize`: the C side under gcc's sanitizers.

    python sanitize.py                    all of it
    python sanitize.py networks --short   a part, in its short form

calls     the extension under AddressSanitizer and UndefinedBehaviorSanitizer: every small case of the
          table of cases, again from plans and on two threads, then the fuzzer's calls
threads   helper threads under ThreadSanitizer, with signals, forks and an exit while they wait
networks  exported networks under the first two, on a stack of 64 KB; and what their object files
          call: nothing that allocates, locks or writes

The sanitized extension is built in a folder of its own, so that nothing in the checkout changes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
COMPILER = shutil.which("gcc") or shutil.which("cc") or "cc"
MEMORY = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
# What a function for an audio callback may call: mathematics and copying.
ALLOWED = re.compile(
    r"(fmaf?|sqrtf?|fabsf?|mem(cpy|set|move)|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail)$"
)
STACK = 64 << 10  # bytes: a small thread of an embedded or audio system


def run(*command: Any, **more: Any) -> subprocess.CompletedProcess:
    return subprocess.run([str(c) for c in command], capture_output=True, check=False, **more)


def checked(*command: Any, **more: Any) -> subprocess.CompletedProcess:
    done = run(*command, **more)
    if done.returncode:
        out, err = (v.decode(errors="replace") if v else "" for v in (done.stdout, done.stderr))
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}\n{out}{err}")
    return done


def has_sanitizers() -> bool:
    """Whether the compiler can link programs with the sanitizers."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text("int main(void) { return 0; }\n")
        return not run(COMPILER, *MEMORY, source, "-o", Path(folder, "probe")).returncode


# ---- calls ----


def extension(folder: Path) -> dict[str, str]:
    """Build the package with sanitizers; the environment that uses it."""
    flags = " ".join([*MEMORY, "-fno-omit-frame-pointer"])
    build = "build", "--build-lib", folder / "lib", "--build-temp", folder / "temporary"
    environment = {**os.environ, "CFLAGS": flags, "LDFLAGS": flags, "PYTHONWARNINGS": "ignore"}
    checked(sys.executable, "setup.py", "--quiet", *build, cwd=ROOT, env=environment)
    library = checked(COMPILER, "-print-file-name=libasan.so").stdout.decode().strip()
    return {
        **os.environ,
        "LD_PRELOAD": library,
        "PYTHONPATH": os.pathsep.join([str(folder / "lib"), str(HERE)]),
        "PYTHONMALLOC": "malloc",  # Python's own pools would hide what lies beside an array
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",  # Python's own leaks
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "LOOPNEST_BACKEND": "c",
    }


def every_case() -> None:
    """Every small case on the C backend: at first, from a plan, and on two threads."""
    from cases import SMALL
    from helpers import assert_same_bits

    import loopnest as ln
    from loopnest.runtime import threads

    assert "sanitize" in ln.__file__, ln.__file__
    for case in SMALL:
        for dtype in (np.float32, np.float64):
            given = [case.arguments(np.dtype(dtype)) for _ in range(4)]
            expected = case.call(ln, given[0])
            for again in given[1:3]:
                assert_same_bits(case.call(ln, again), expected, str(case))
            before, threads.SERIAL_BELOW = threads.SERIAL_BELOW, 0
            ln.set_num_threads(2)
            assert_same_bits(case.call(ln, given[3]), expected, str(case))
            ln.set_num_threads(1)
            threads.SERIAL_BELOW = before
    print(len(SMALL), "cases")


def calls(short: bool) -> None:
    folder = ROOT / "out" / "sanitize"
    environment = extension(folder)
    code = "import sanitize; sanitize.every_case()"
    told = checked(sys.executable, "-W", "ignore", "-c", code, env=environment, cwd=HERE)
    print("calls:", told.stdout.decode().strip())
    count = "2000" if short else "300000"
    fuzz = "fuzz.py", "--signatures", "0", "--calls", count
    environment["LOOPNEST_FUZZ_FACES"] = "c"
    print(checked(sys.executable, *fuzz, env=environment, cwd=HERE).stdout.decode().strip())


# ---- threads ----


def threads(short: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "threads")
        sources = HERE / "sanitize_c" / "threads.c", ROOT / "csrc" / "spin.c"
        flags = "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-fsanitize=thread"
        include = f"-I{ROOT / 'csrc'}"
        checked(COMPILER, *flags, include, *sources, "-o", program, "-pthread")
        options = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1:die_after_fork=0"}
        # ThreadSanitizer places its memory at fixed addresses, which some kernels take at random.
        fixed = ["setarch", "-R"] if shutil.which("setarch") else []
        done = checked(*fixed, program, 300 if short else 20_000, env=options)
        print("threads:", done.stdout.decode().strip())


# ---- networks ----


def exported() -> dict[str, tuple[Any, np.ndarray]]:
    """Networks of the tests with an input each."""
    from test_network import INPUTS

    rng, found = np.random.default_rng(0), {}
    for make, shape in INPUTS.items():
        for dtype in (np.float32, np.float64):
            x = rng.standard_normal((2, *shape)).astype(dtype)
            found[f"{make.__name__} {np.dtype(dtype)}"] = make(dtype), x
    return found


def undefined(name: Path) -> list[str]:
    """Names that an object file leaves to others."""
    lines = checked("nm", "-u", name).stdout.decode().splitlines()
    return [line.split()[-1] for line in lines if line.strip()]


def network(net: Any, x: np.ndarray, folder: Path) -> None:
    """One network: its file is clean, its bits are those of the call."""
    source = net.to_c(folder / "net.c", batch=len(x))
    expected = net(x)
    warnings = "-std=c11", "-Wall", "-Wextra", "-Werror"
    sizes = f"-DX={x.size}", f"-DY={expected.size}", f"-DSTACK={STACK}"
    real = "-DREAL=" + ("float" if x.dtype == np.float32 else "double")
    main = HERE / "sanitize_c" / "network.c"
    for flags in (MEMORY, ("-O2",), ("-O3", "-march=native")):
        # AddressSanitizer's own frames and the signal of an overflow need some more stack.
        stack = f"-DSTACK={4 * STACK}" if flags is MEMORY else sizes[2]
        program = folder / "program"
        options = *warnings, *flags, *sizes[:2], stack, real
        checked(COMPILER, *options, main, source, "-o", program, "-lm", "-pthread")
        done = checked(program, input=x.tobytes())
        assert done.stdout == expected.tobytes(), f"other bits with {flags}"
        if flags is not MEMORY:
            thing = folder / "net.o"
            checked(COMPILER, *warnings, *flags, "-c", source, "-o", thing)
            others = [n for n in undefined(thing) if not ALLOWED.match(n)]
            assert not others, f"calls {others}"


def networks(short: bool) -> None:
    made = exported()
    chosen = list(made)[:: 4 if short else 1]
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            network(*made[name], Path(folder))
    print(f"networks: {len(chosen)} are clean")


PARTS: dict[str, Callable[[bool], None]] = {
    "threads": threads, "networks": networks, "calls": calls
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("parts", nargs="*", help="threads, networks, calls; all by default")
    parser.add_argument("--short", action="store_true", help="some seconds of each part")
    options = parser.parse_args()
    if not has_sanitizers():
        print("sanitize: the C compiler has no sanitizers; install gcc's", file=sys.stderr)
        return 2
    sys.path[:0] = [str(HERE)]
    for part in options.parts or PARTS:
        PARTS[part](options.short)
    return 0


if __name__ == "__main__":
    sys.exit(main())
