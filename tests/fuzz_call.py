"""One call of the fuzzer: drawn from the table, its arrays placed beside protected pages.

A call is told by five things, which its token spells: the op's key, the number of a `Profile` (all
that decides types: dtypes, layouts, spellings, constants), drawn lengths, a seed, and the number of
the call in its family. Calls of a family share shapes and options; each has its own values,
and may have one fault.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np
from fuzz_kinds import Sizes, value_of
from fuzz_table import TABLE, Array, Op
from guard import guarded

import loopnest as ln

# Profiles below this number have right types only, and such as @njit takes; all others anything.
PLAIN_PROFILES = 64
CAPACITY = 1 << 20  # bytes of the memory of one argument
MARGIN = 64  # bytes beside an array that are watched as well

LAYOUTS = ("F", "step", "reverse", "zero", "rows", "swap", "frozen", "unaligned")
ODD_LAYOUTS = (*LAYOUTS, "subclass", "matrix", "masked", "big-endian", "list")
NOT_COMPILED = ("subclass", "matrix", "masked", "big-endian", "list")
WRONG_DTYPES = ("float16", "complex128", "longdouble", "object", "U3", "M8[s]")


class Plain(np.ndarray):
    """A subclass without a meaning of its own."""


@dataclass(frozen=True)
class Profile:
    """The types of a call: what a compiled function is made for.

    ``fault`` says what is wrong with them, in words; ``forms`` has the spelling of each option, the
    text itself for constants and wrong values; ``layouts`` the dtype and layout of each array.
    """

    op: Op
    dtype: str
    ndim: int
    layouts: dict[str, tuple[str, str]]
    forms: dict[str, str]
    fault: str = ""
    wrong: str = ""  # the option that has a wrong type, or the array with wrong axes

    @property
    def compiles(self) -> bool:
        """Whether @njit takes these types, or refuses them as Python does."""
        odd = any(layout in NOT_COMPILED for _, layout in self.layouts.values())
        lists = any(form == "list" or form.startswith("[") for form in self.forms.values())
        objects = any(dtype == "object" for dtype, _ in self.layouts.values())
        return self.op.njit and not (odd or lists or objects)


@functools.lru_cache(maxsize=4096)
def profile_of(key: str, number: int) -> Profile:
    """The profile of this number."""
    op, rng = TABLE[key], Random(f"{key} {number}")
    plain = number < PLAIN_PROFILES
    dtype = ("float32", "float64")[number % 2]
    ndim = rng.choice((1, 1, 2, 2, 3) if plain else (0, 1, 2, 3, 4))
    layouts = {}
    all_or_none = rng.random() < 0.4  # of the gradients' arrays
    for array in op.arrays:
        odds = 0.4 if not array.name.startswith("gradients") else 0.9 * all_or_none
        if array.optional and rng.random() > odds:
            continue
        layouts[array.name] = _layout(rng, op, array, dtype, plain)
    forms = {
        option.name: option.form(rng)
        for option in op.options
        if option.always or rng.random() < 0.5
    }
    forms |= dict(op.fixed)
    if forms.get("needs_dx") == "False" and rng.random() < 0.8:
        layouts.pop("gradients[0]", None)  # there is no dx to write
    profile = Profile(op, dtype, ndim, layouts, forms)
    return profile if plain or rng.random() < 0.5 else _with_fault(rng, profile)


def _layout(rng: Random, op: Op, array: Array, dtype: str, plain: bool) -> tuple[str, str]:
    """(dtype, layout) of an array."""
    if array.values in ("classes", "places"):
        dtype = rng.choice(("int64", "int64", "int32", "uint8", "uint64"))
    elif not plain and (array.role, array.values) == ("read", "any") and rng.random() < 0.1:
        dtype = rng.choice(("int64", "bool", "uint8", "int32"))
    if array.role != "read" or array.name == op.packed or rng.random() < 0.7:
        return dtype, "C"
    return dtype, rng.choice(LAYOUTS if plain else ODD_LAYOUTS)


def _with_fault(rng: Random, profile: Profile) -> Profile:
    """The same with one thing wrong."""
    options = profile.op.options
    kind = rng.choice(("option", "option", "dtype", "axes", "layout", "nothing"))
    forms, layouts = dict(profile.forms), dict(profile.layouts)
    name = rng.choice(list(layouts)) if layouts else ""
    role = next((a.role for a in profile.op.arrays if a.name == name), "read")
    fault, wrong = f"{name} of wrong {kind}", name
    if kind == "option" and options:
        option = rng.choice(options)
        wrong, forms[option.name] = option.name, option.wrong(rng)
        fault = f"{option.name} is {forms[option.name]}"
    elif kind == "dtype" and name:
        layouts[name] = rng.choice(WRONG_DTYPES), "C"
    elif kind == "axes" and name and profile.op.packed != name:
        fault = "?" + fault  # some ops take any number of axes
    elif kind == "layout" and name:
        odd = ("masked",) if role == "read" else ("F", "step", "frozen", "unaligned", "masked")
        layouts[name] = layouts[name][0], rng.choice(odd)
        fault = f"{name} is masked" if layouts[name][1] == "masked" else fault
    else:
        return profile
    return Profile(profile.op, profile.dtype, profile.ndim, layouts, forms, fault, wrong)


@dataclass
class Call:
    """A call that is ready: arguments by name, and the memory that they lie in."""

    token: str
    profile: Profile
    arguments: dict[str, Any]
    texts: dict[str, str]
    sizes: Sizes
    fault: str  # what is wrong and must be refused; "?" first: may be taken, but by all alike
    values: str
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    memory: list[np.ndarray] = field(default_factory=list)  # bytes that the arrays lie in
    written: list[str] = field(default_factory=list)  # names of arrays that a call changes

    @property
    def op(self) -> Op:
        """Its entry in the table."""
        return self.profile.op

    def __str__(self) -> str:
        shown = [
            f"{k}={self.arrays[k].dtype.str}{self.arrays[k].shape}/{self.arrays[k].strides}"
            if k in self.arrays
            else f"{k}={self.texts.get(k) or _short(self.arguments[k])}"
            for k in self.arguments
        ]
        fault = f"; {self.fault}" if self.fault else ""
        return f"{self.op.name}({', '.join(shown)}) [{self.values}{fault}]"


def _short(value: Any) -> str:
    """What an argument is, in a few words."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str}{value.shape}"
    return repr(value)[:40]


def call_of(key: str, number: int, lengths: tuple[int, ...], seed: int, variant: int) -> Call:
    """The call that these tell."""
    profile, shared = profile_of(key, number), Random(seed)
    rng = Random(seed * 1000 + variant)
    token = f"{key}:{number}:{'.'.join(map(str, lengths))}:{seed}:{variant}"
    axes = {"x": (1,) * profile.ndim, "g": 1}
    usual = {k: _text(shared, profile, k, axes) for k in profile.forms}
    sizes = profile.op.sizes(shared, list(lengths), {**_values(usual), "ndim": profile.ndim})
    texts = {k: t if k != "groups" else _text(shared, profile, k, sizes) for k, t in usual.items()}
    call = Call(token, profile, {}, texts, sizes, profile.fault, _kind_of_values(rng))
    change = "" if call.fault or rng.random() < 0.6 else rng.choice(("option", "shape", "over"))
    if change == "option":
        _bad_option(rng, call)
    resized = rng.choice(list(profile.layouts)) if change == "shape" and profile.layouts else ""
    _place_all(rng, call, resized)
    if change == "over" and call.written:
        _put_over(rng, call)
    call.arguments |= {k: value_of(t) for k, t in call.texts.items()}
    _pack(call)
    return call


def _values(texts: dict[str, str]) -> dict[str, Any]:
    """Values of the options that make sense as sizes."""
    return {k: v for k, t in texts.items() if _fits(v := value_of(t))}


def _fits(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return len(value) == 2 and all(map(_fits, value))
    return isinstance(value, (str, bool)) or (isinstance(value, (int, np.integer)) and value < 99)


def _option(profile: Profile, name: str) -> Any:
    return next((o for o in profile.op.options if o.name == name), None)


def _text(rng: Random, profile: Profile, name: str, sizes: Sizes) -> str:
    """A right value of an option; its form where that is a constant or a wrong value."""
    option, form = _option(profile, name), profile.forms[name]
    return form if option is None or name == profile.wrong else option.good(rng, form, sizes)


def _bad_option(rng: Random, call: Call) -> None:
    """Give one option a value that must be refused."""
    names = [o.name for o in call.op.options if o.name in call.texts and not o.constant]
    if not names:
        return
    name = rng.choice(names)
    text = _option(call.profile, name).bad(rng, call.profile.forms[name], call.sizes)
    if text is not None:
        call.texts[name] = text
        nothing = name == "groups" and not call.sizes["c"]  # any number divides no channels
        call.fault = f"{'?' * nothing}{name} is {text}"


def _kind_of_values(rng: Random) -> str:
    return rng.choice(("normal", "normal", "normal", "tied", "special", "special", "tiny", "huge"))


# ---- arrays ----


@functools.cache
def _memory(place: int) -> np.ndarray:
    """Bytes between two protected pages, one block for each place among the arguments."""
    return guarded(CAPACITY, np.uint8)


@functools.cache
def _pool(dtype: str, kind: str) -> np.ndarray:
    """Numbers of a kind, from which arrays are filled."""
    rng, size = np.random.default_rng(7), 1 << 16
    real = np.dtype(dtype)
    if kind in ("shares", "squares") or real.kind not in "f":
        numbers = rng.random(size) if kind in ("shares", "squares") else rng.integers(0, 4, size)
        return numbers.astype(real)
    numbers = 2 * rng.standard_normal(size)
    if kind == "tied":
        numbers = np.rint(numbers)
    elif kind == "special":
        where = rng.random(size) < 0.06
        numbers[where] = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40], where.sum())
    elif kind in ("tiny", "huge") and real.itemsize in (4, 8):
        exponent = {"tiny": (-44, -37), "huge": (36, 38)}[kind]
        if real == np.float64:
            exponent = {"tiny": (-322, -307), "huge": (306, 308)}[kind]
        numbers = numbers / 8 * 10.0 ** rng.uniform(*exponent, size)
    with np.errstate(all="ignore"):
        return numbers.astype(real)


def _place_all(rng: Random, call: Call, resized: str) -> None:
    """Make every array of the call."""
    for place, array in enumerate(call.op.arrays):
        if array.name not in call.profile.layouts:
            continue
        shape = _shape(array.shape, call.sizes)
        if array.name == resized:
            shape = _other_shape(rng, shape)
            call.fault = f"?shape of {array.name}"
        if array.name == call.profile.wrong and "axes" in call.profile.fault:
            shape = rng.choice([shape[1:], (*shape, 1), ()])
        dtype, layout = call.profile.layouts[array.name]
        made = call.arrays[array.name] = _placed(rng, place, shape, dtype, layout)
        if call.fault.endswith("wrong layout") and array.name == call.profile.wrong:
            call.fault = call.fault if not _writable(made, layout) else ""
        _fill(rng, call, array, made)
        if array.role != "read":
            call.written.append(array.name)
        call.arguments[array.name] = _dressed(call, array.name, made, layout)


def _writable(array: np.ndarray, layout: str) -> bool:
    return array.flags.carray and layout != "frozen"


def _shape(names: str, sizes: Sizes) -> tuple[int, ...]:
    if names in sizes and isinstance(sizes[names], tuple):
        return sizes[names]
    return tuple(sizes[name] for name in names.split())


def _other_shape(rng: Random, shape: tuple[int, ...]) -> tuple[int, ...]:
    """One axis longer, shorter or empty."""
    if not shape:
        return shape
    axis = rng.randrange(len(shape))
    length = rng.choice((max(shape[axis] - 1, 0), shape[axis] + 1, 0, 1))
    return (*shape[:axis], length, *shape[axis + 1 :])


def _placed(rng: Random, place: int, shape: tuple, dtype: str, layout: str) -> np.ndarray:
    """An array of this layout that ends (or begins) at a protected page."""
    real = np.dtype(dtype)
    if layout == "big-endian":
        real = real.newbyteorder(">")
    if real.kind == "O":
        return np.zeros(shape, real)
    order, step = list(range(len(shape)))[::-1], [1] * len(shape)
    if layout == "F":
        order.reverse()
    elif layout == "swap" and len(shape) > 1:
        order[:2] = order[1::-1]
    elif shape and layout in ("step", "reverse", "zero", "rows"):
        step[0 if layout in ("zero", "rows") else -1] = {"reverse": -1, "zero": 0}.get(layout, 2)
    strides, unit = [0] * len(shape), real.itemsize
    for axis in order:
        strides[axis] = unit * step[axis]
        unit *= max(shape[axis], 1) * abs(step[axis]) or 1
    reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)] if 0 not in shape else []
    low, high = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach)
    length = high - low + real.itemsize * (0 not in shape)
    memory = _memory(place)
    if length + 1 > memory.size:
        memory = guarded(-(-length // 4096) * 4096 + 4096, np.uint8)
    start = memory.size - length if rng.random() < 0.8 else 0
    if layout == "unaligned":
        start += 1 if start == 0 else -1
    return np.ndarray(shape, real, memory, start - low, strides)


def _fill(rng: Random, call: Call, array: Array, made: np.ndarray) -> None:
    """Values of the kind that the array is for."""
    if array.role == "out":
        made[...] = np.zeros((), made.dtype) if made.dtype.kind not in "fiu" else 7
        return
    if array.values in ("classes", "places"):
        made[...] = _indices(rng, call, array, made.shape).astype(made.dtype)
        return
    native = made.dtype.newbyteorder("=").str
    kind = array.values if array.values != "any" else call.values
    pool, size = _pool(native, kind), made.size
    first = rng.randrange(pool.size)
    made[...] = (
        np.resize(np.roll(pool, -first)[: max(size, 1)], made.shape)
        if size > 4096
        else (pool.take(range(first, first + size), mode="wrap").reshape(made.shape))
    )


def _indices(rng: Random, call: Call, array: Array, shape: tuple) -> np.ndarray:
    """Classes or places; now and then one that is not there."""
    most = call.sizes["classes" if array.values == "classes" else "area"]
    numbers = np.random.default_rng(rng.randrange(2**32)).integers(0, max(most, 1), shape)
    signed = np.dtype(call.profile.layouts[array.name][0]).kind == "i"
    if numbers.size and not call.fault and rng.random() < 0.15:
        wrong = [most, 127 if most < 127 else most, *([-2, -101, -(2**31)] if signed else [])]
        numbers.flat[rng.randrange(numbers.size)] = rng.choice(wrong)
        call.fault = f"?{array.name} out of range"
    elif numbers.size and array.values == "classes" and signed and rng.random() < 0.3:
        numbers.flat[rng.randrange(numbers.size)] = -100  # ignored, unless ignore_index is another
    return numbers


def _dressed(call: Call, name: str, made: np.ndarray, layout: str) -> Any:
    """The array as what it is passed as, and a note of the bytes that it lies in."""
    memory: Any = made
    while isinstance(memory, np.ndarray) and memory.base is not None:
        memory = memory.base
    if made.dtype.kind != "O" and made.size:
        low, high = np.lib.array_utils.byte_bounds(made)
        whole = made.base if isinstance(made.base, np.ndarray) else np.frombuffer(memory, np.uint8)
        origin = whole.ctypes.data
        first, last = max(low - origin - MARGIN, 0), min(high - origin + MARGIN, whole.size)
        call.memory.append(whole[first:last])
    number = made.ndim == 0 and made.dtype.kind in "fiub" and layout != "masked"
    if call.op.numbers and number and name != "out":
        call.arrays.pop(name)
        return made[()]
    if layout == "frozen":
        made.setflags(write=False)
    elif layout == "subclass":
        return made.view(Plain)
    elif layout == "matrix" and made.ndim == 2:
        return made.view(np.matrix)
    elif layout == "masked":
        call.fault = call.fault or f"{name} is masked"
        return np.ma.MaskedArray(made, mask=np.ones(made.shape, bool), copy=False)
    elif layout == "list" and made.dtype.kind in "fiub" and made.size:
        return made.tolist()
    return made


def _put_over(rng: Random, call: Call) -> None:
    """Let an array that is written lie over another one."""
    target = rng.choice(call.written)
    arrays = {k: a for k, a in call.arrays.items() if isinstance(call.arguments[k], np.ndarray)}
    others = [k for k in arrays if k != target and arrays[k].dtype.kind != "O"]
    given = call.arrays.get(target)
    if not others or given is None or not given.size or given.dtype.kind == "O":
        return
    name = rng.choice(others)
    array = call.arrays[name]
    memory = array.base
    if not isinstance(memory, np.ndarray) or not array.size or memory.size < given.nbytes:
        return
    at = np.lib.array_utils.byte_bounds(array)[0] - memory.ctypes.data
    at += given.itemsize * rng.choice((0, 0, 1, -1, 4))
    at = max(0, min(at, memory.size - given.nbytes)) // given.itemsize * given.itemsize
    moved = np.ndarray(given.shape, given.dtype, memory, at)
    call.memory.append(memory[at : at + given.nbytes])
    call.arrays[target] = call.arguments[target] = moved
    same = moved.ctypes.data == array.ctypes.data and array.flags.c_contiguous
    if same and moved.shape == array.shape and call.op.in_place and target == "out":
        fault = "?out is an input"
    elif not np.shares_memory(moved, array):
        fault = f"?{target} between elements"
    elif (call.op.key.endswith("pool2d_backward") and name == "x") or name == call.op.packed:
        fault = f"?{name} itself is not read"
    else:
        fault = f"{target} over {name}"
    if not call.fault or (call.fault.startswith("?") and not fault.startswith("?")):
        call.fault = fault


def _pack(call: Call) -> None:
    """Bring gradients together, and the packed weight into its handle."""
    given = [k for k in call.arguments if re.match(r"gradients\[", k)]
    if given:
        three = [call.arguments.pop(f"gradients[{i}]", None) for i in range(3)]
        call.arguments["gradients"] = tuple(three)
    name = call.op.packed
    if name and isinstance(call.arguments.get(name), np.ndarray):
        groups = call.sizes.get("g", 1) if "groups" in call.texts else 1
        try:
            call.arguments[name] = ln.pack_weight(call.arguments[name], groups=groups)
        except (TypeError, ValueError):
            call.fault = "?" + call.fault
