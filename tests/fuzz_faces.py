"""The ways in, for the fuzzer: Python on either backend and @njit, and how their answers compare."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import reference
from cases import STEPS
from fuzz_call import Call
from fuzz_kinds import NAMES, Option
from numba.core.errors import TypingError

import loopnest as ln
from loopnest.ops.packing import PackedWeight
from loopnest.runtime import threads

TYPES = "types"  # a compile-time refusal: TypeError or ValueError, which Python tells apart


@dataclass
class Answer:
    """What came of a call: arrays, or a refusal."""

    arrays: list[np.ndarray]
    error: str = ""  # TypeError, ValueError, MemoryError, `TYPES`; any other is a fault
    text: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"{self.error}: {self.text[:300]}"
        return ", ".join(f"{a.dtype}{a.shape} {a.ravel()[:6]}" for a in self.arrays)


def _arrays_of(result: Any) -> list[np.ndarray]:
    """Copies of what a call gave back."""
    if hasattr(result, "trajectory"):  # of a descent all but the path, which @njit has not
        names = ("x", "fun", "grad", "steps", "converged", "trajectory", "diverged")
        result = tuple(getattr(result, name) for name in names)
    if isinstance(result, list):  # of choices
        result = repr(sorted(map(repr, (tuple(choice) for choice in result))))
    values = result if isinstance(result, tuple) else (result,)
    return [np.array(v) for v in values if v is not None]


def answer_of(call: Call, run: Callable[[], Any]) -> Answer:
    """Run a call on a face: its arrays, those that it wrote included, or what it raised."""
    try:
        result = run()
    except TypingError as error:
        return Answer([], TYPES, str(error))
    except (TypeError, ValueError, MemoryError) as error:
        kinds = (TypeError, ValueError, MemoryError)
        return Answer([], next(k.__name__ for k in kinds if isinstance(error, k)), str(error))
    except Exception as error:
        return Answer([], type(error).__name__, str(error))
    return Answer([*_arrays_of(result), *(np.array(call.arrays[k]) for k in call.written)])


def python_face(call: Call, face: str, module: Any = ln) -> Answer:
    """From Python, on a backend; "c, 2 threads" splits the call however small it is."""
    backend, _, split = face.partition(", ")
    ln.use_backend(backend)
    function = getattr(module, call.op.name)
    if not split:
        return answer_of(call, lambda: function(**call.arguments))
    before, ln_threads = threads.SERIAL_BELOW, ln.get_num_threads()
    threads.SERIAL_BELOW = 0
    ln.set_num_threads(2)
    try:
        return answer_of(call, lambda: function(**call.arguments))
    finally:
        threads.SERIAL_BELOW = before
        ln.set_num_threads(ln_threads)


# ---- @njit ----


class Compiled:
    """Functions compiled so far, and how many more may be.

    Compiling takes a second, a call some microseconds; so there are only ``most`` functions for each
    op, and as many refusals at compile time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count: dict[tuple[str, bool], int] = {}
        self._refused: dict[Any, Answer] = {}
        self._seen: set[Any] = set()

    def face(self, call: Call) -> Answer | None:
        """Inside @njit; None where the types are not to be had there or are too many."""
        if not call.profile.compiles:
            return None
        source, runtime = _source(call)
        if any(type(v) is int and v.bit_length() > 64 for v in runtime):
            return None  # Numba itself refuses these, before any code runs
        key = source, tuple(_type_key(v) for v in runtime)
        if key in self._refused:
            return self._refused[key]
        fresh = key not in self._seen
        faulty = bool(call.profile.fault)
        count = self._count.get((call.op.key, faulty), 0)
        if fresh and count >= self._most:
            return None
        answer = answer_of(call, lambda: _function(source)(*runtime))
        if fresh:
            self._count[call.op.key, faulty] = count + 1
            self._seen.add(key)
        if answer.error == TYPES:
            self._refused[key] = answer
        return answer


def _source(call: Call) -> tuple[str, list[Any]]:
    """Python text of a function that makes the call, and what it is given at run time."""
    options: dict[str, Option] = {o.name: o for o in call.op.options}
    names, words, runtime = [], [], []
    for name, value in call.arguments.items():
        text = call.texts.get(name)
        constant = name not in options or options[name].constant
        if text is not None and (constant or text == "None" or text.startswith("'")):
            words.append(f"{name}={text}")
        elif name == "gradients":
            three = [f"g{i}" if g is not None else "None" for i, g in enumerate(value)]
            words.append(f"gradients=({', '.join(three)})")
            names += [n for n in three if n != "None"]
            runtime += [g for g in value if g is not None]
        else:
            words.append(f"{name}={name}")
            names.append(name)
            runtime.append(value)
    body = f"ln.{call.op.name}({', '.join(words)})"
    return f"def call({', '.join(names)}):\n    return {body}\n", runtime


@functools.cache
def _function(source: str) -> Any:
    scope: dict[str, Any] = {"ln": ln, **NAMES}
    exec(source, scope)
    return numba.njit(scope["call"])


def _type_key(value: Any) -> Any:
    """What decides the type that Numba sees."""
    if isinstance(value, np.ndarray):
        flags = value.flags
        layout = flags.c_contiguous, flags.f_contiguous, flags.writeable, flags.aligned
        return value.dtype.str, value.ndim, layout
    if isinstance(value, tuple):
        return tuple(_type_key(v) for v in value)
    if isinstance(value, PackedWeight):
        return value.dtype.str, value.ndim
    return type(value)


# ---- comparing ----


def same_bits(a: Answer, b: Answer) -> bool:
    """Equal shapes, dtypes and bits; any NaN for a NaN."""
    return len(a.arrays) == len(b.arrays) and all(map(_same, a.arrays, b.arrays))


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.ndim == b.ndim == 0 and a.dtype.kind == b.dtype.kind == "f":
        narrow = min(a.dtype, b.dtype)  # Numba hands a float32 number out as a Python float
        a, b = a.astype(narrow), b.astype(narrow)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.tobytes() == b.tobytes():
        return True
    if a.dtype.kind != "f":
        return False
    equal = (a == b) & (np.signbit(a) == np.signbit(b))
    return bool((equal | (np.isnan(a) & np.isnan(b))).all())


def errors_agree(python: Answer, other: Answer) -> bool:
    """Both refuse, with the same kind of error."""
    refusals = ("TypeError", "ValueError", "MemoryError")
    if python.error not in refusals:
        return False
    return python.error == other.error or (
        other.error == TYPES and python.error in ("TypeError", "ValueError")
    )


# ---- the float64 reference ----


def _state(values: dict[str, Any], *names: str) -> list[Any]:
    return [values.pop(name, None) for name in names]


def _reference_step(name: str, values: dict[str, Any]) -> tuple:
    """An optimizer step of the reference; what the library changes in place, in the call's order."""
    step = getattr(reference, name)
    if name == "sgd_step":
        values["step"] = 1 if values.pop("first", False) else 2
        param, buffer = step(**values)
        return param, buffer
    if name.startswith("adam"):
        return step(**values, amsgrad=values.get("max_v") is not None)
    if name == "rmsprop_step":
        given = dict(
            zip(("square_avg", "grad_avg"), _state(values, "v", "grad_average"), strict=True)
        )
        return step(**values, **given, centered=given["grad_avg"] is not None)
    return step(**values)


def expected_of(call: Call, given: dict[str, np.ndarray]) -> list[np.ndarray] | None:
    """What the reference gives for the arrays as they were; None where it has no say."""
    if not call.op.same or not _affordable(call):
        return None
    values = {k: given.get(k, _plain(v)) for k, v in call.arguments.items()}
    if call.op.packed and isinstance(values.get(call.op.packed), PackedWeight):
        values[call.op.packed] = values[call.op.packed].weight
    needs_dx = values.pop("needs_dx", True)
    for name in ("out", "gradients"):
        values.pop(name, None)
    if call.op.name in STEPS:
        return [np.asarray(v) for v in _reference_step(call.op.name, values) if v is not None]
    if call.op.name == "average_filter":
        return [np.repeat(reference.average_filter(values["size"]), values.get("channels", 1), 0)]
    try:
        result = getattr(reference, call.op.name)(**values)
    except ValueError:
        if any(a.size == 0 for a in call.arrays.values()):
            return None  # a maximum of no elements
        return [np.array("refused")]
    result = result if isinstance(result, tuple) else (result,)
    if isinstance(result[0], list):
        return [np.array(repr(sorted(map(repr, result[0]))))]
    return [np.asarray(v) for v in (result if needs_dx else result[1:])]


def _plain(value: Any) -> Any:
    """Numbers of an option as Python's, so that the reference computes in double precision."""
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _affordable(call: Call) -> bool:
    """Whether values are such that the reference can be held against them, in short time."""
    exact = call.values in ("normal", "tied")
    if call.values == "special":  # 0 times infinity is not always computed
        exact = call.op.name not in (*STEPS, "conv2d_backward") and "winograd" not in call.op.key
    if call.op.name == "lion_step" and call.values == "tied":  # the sign of a sum that cancels
        exact = False
    if "grad_average" in call.arguments:  # v less the mean's square may cancel altogether
        exact = False
    sizes = [
        v
        for k in ("padding", "kernel_size")
        if k in call.arguments
        for v in np.ravel(call.arguments[k])
        if not isinstance(v, str)
    ]
    return exact and all(v is None or abs(int(v)) < 200 for v in sizes)


def _condition(call: Call) -> float:
    """How much Adam's bias correction, 1 - beta^step, enlarges rounding."""
    if not call.op.name.startswith("adam"):
        return 1.0
    step = float(call.arguments["step"])
    betas = [float(beta) for beta in call.arguments.get("betas", (0.9, 0.999))]
    return 1 / min(1 - beta**step for beta in betas)


def far_from(call: Call, answer: Answer, expected: list[np.ndarray]) -> Iterator[str]:
    """Where an answer is not within rounding of the reference."""
    floats = [a for a in answer.arrays if a.dtype.kind == "f"]
    eps = float(np.finfo(floats[0].dtype).eps) if floats else 0.0
    tolerance = 8 * eps * max(call.op.terms(call.sizes), 4) * 4 * _condition(call)
    for i, (a, e) in enumerate(zip(answer.arrays, expected, strict=False)):
        if e.dtype.kind == "U":
            if a.shape != () or str(a) != str(e):
                yield f"result {i} is {str(a)[:200]}, the reference {str(e)[:200]}"
            continue
        if a.shape != e.shape:
            yield f"result {i} has shape {a.shape}, the reference {e.shape}"
            continue
        with np.errstate(all="ignore"):
            a64, e = np.asarray(a, np.float64), np.asarray(e, np.float64)
            near = np.abs(a64 - e) <= tolerance * (1 + np.abs(e))
            wrong = ~(near | (a64 == e) | (np.isnan(a64) & np.isnan(e)))
        if wrong.any():
            at = np.unravel_index(int(np.argmax(wrong)), wrong.shape) if wrong.ndim else ()
            yield f"result {i} at {tuple(map(int, at))} is {a64[at]!r}, the reference {e[at]!r}"
