"""Kinds of options for the fuzzer: how each is spelled, which values are right, which are wrong.

Values are Python text, evaluated with `NAMES`, so that every call can be printed and pasted. The
spelling ("form") of an option belongs to the types of a call: one compiled function serves all
values of a form. Text that `bad` and `wrong` give is refused on every way in; `bad` has the type of
the form, `wrong` another type.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

NAMES = {"np": np, "nan": math.nan, "inf": math.inf}
LIMIT = 2**31 - 1  # largest size, stride, padding or dilation that is taken
HUGE = (2**31, 2**32 + 1, 2**62, 2**63 - 1)
TYPED = {"np.int32": 32, "np.int64": 64, "np.uint8": 8, "np.uint64": 64}  # bits of each

Sizes = dict[str, Any]


@functools.lru_cache(maxsize=65536)
def _code(text: str) -> Any:
    return compile(text, "<option>", "eval")


def value_of(text: str) -> Any:
    """The value that the text of an option stands for."""
    with np.errstate(over="ignore"):  # np.float32(1e300)
        return eval(_code(text), NAMES)


@dataclass(frozen=True)
class Option:
    """One option of an op.

    ``constant``: inside @njit its value is written into the source. ``always``: never left out.
    """

    name: str
    constant = False
    always = False

    def form(self, rng: Random) -> str:
        """How the value is spelled; a constant's form is its text."""
        raise NotImplementedError

    def good(self, rng: Random, form: str, sizes: Sizes) -> str:
        """Text of a value that is taken."""
        return form

    def bad(self, rng: Random, form: str, sizes: Sizes) -> str | None:
        """Text of a value of the same type that is refused; None if there is none."""
        return None

    def wrong(self, rng: Random) -> str:
        """Text of a value of a type that is refused."""
        raise NotImplementedError


@dataclass(frozen=True)
class Whole(Option):
    """An integer in a range; its usual values may be the name of a size."""

    usual: tuple[int, ...] | str = (1,)
    low: int = 1
    high: int = LIMIT
    always: bool = False
    typed: bool = True
    never: tuple[int, ...] = ()  # refused although in the range

    def form(self, rng: Random) -> str:
        return rng.choice(("int", "int", "int", *(TYPED if self.typed else ())))

    def _spelled(self, form: str, value: int) -> str:
        if form in TYPED:
            bits, signed = TYPED[form], not form.startswith("np.u")
            low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
            return f"{form}({min(max(value, low), high)})"
        return str(value)

    def _usual(self, rng: Random, sizes: Sizes) -> int:
        return sizes[self.usual] if isinstance(self.usual, str) else rng.choice(self.usual)

    def good(self, rng: Random, form: str, sizes: Sizes) -> str:
        return self._spelled(form, self._usual(rng, sizes))

    def _outside(self, rng: Random, form: str) -> str | None:
        values = [self.low - 1, -1, -(2**31), -(2**63), self.high + 1, *HUGE, *self.never]
        text = self._spelled(form, rng.choice([v for v in values if -(2**63) <= v < 2**63]))
        value = int(value_of(text))
        return None if self.low <= value <= self.high and value not in self.never else text

    def bad(self, rng: Random, form: str, sizes: Sizes) -> str | None:
        return self._outside(rng, form)

    def wrong(self, rng: Random) -> str:
        return rng.choice(("1.0", "1.5", "nan", "True", "'1'", "1j", "np.float32(1)", "[[1]]"))


@dataclass(frozen=True)
class Pair(Whole):
    """An integer or two of them."""

    none: bool = False

    def form(self, rng: Random) -> str:
        if self.none and rng.random() < 0.3:
            return "None"
        return rng.choice(("int", "int", "pair", "pair", "list", super().form(rng)))

    def good(self, rng: Random, form: str, sizes: Sizes) -> str:
        if form == "None":
            return form
        first = self._usual(rng, sizes)
        if form not in ("pair", "list"):
            return self._spelled(form, first)
        return self._two(form, first, self._usual(rng, sizes))

    @staticmethod
    def _two(form: str, first: Any, second: Any) -> str:
        return f"({first}, {second})" if form == "pair" else f"[{first}, {second}]"

    def bad(self, rng: Random, form: str, sizes: Sizes) -> str | None:
        if form == "None":
            return None
        if form not in ("pair", "list"):
            return self._outside(rng, form)
        values = [rng.choice((1, 2)), self._outside(rng, "int")]
        rng.shuffle(values)
        return None if None in values else self._two(form, *values)

    def wrong(self, rng: Random) -> str:
        nested = ("(1, 1, 1)", "()", "(1.0, 1)", "(1, True)", "(1, None)", "(1, (1, 1))")
        return rng.choice((*nested, super().wrong(rng)))


@dataclass(frozen=True)
class Padding(Pair):
    """An integer, two, two of each axis, "same" or "valid"; (a word is its own form)."""

    usual: tuple[int, ...] | str = (0, 0, 1, 1, 2, 3)
    low: int = 0

    def form(self, rng: Random) -> str:
        return rng.choice(("sides", "sides", "'same'", "'valid'", *[super().form(rng)] * 4))

    def good(self, rng: Random, form: str, sizes: Sizes) -> str:
        if form.startswith("'"):
            return form
        if form == "sides":
            return self._sides([self._usual(rng, sizes) for _ in range(4)])
        return super().good(rng, form, sizes)

    @staticmethod
    def _sides(v: list[Any]) -> str:
        return f"(({v[0]}, {v[1]}), ({v[2]}, {v[3]}))"

    def bad(self, rng: Random, form: str, sizes: Sizes) -> str | None:
        if form.startswith("'"):
            return None
        if form != "sides":
            return super().bad(rng, form, sizes)
        values = [rng.choice((0, 1)) for _ in range(3)] + [self._outside(rng, "int")]
        rng.shuffle(values)
        return None if None in values else self._sides(values)

    def wrong(self, rng: Random) -> str:
        nested = ("((1, 1), 1)", "(1, (1, 1))", "((1, 1), (1, 1.0))", "'full'", "(1, 1, 1, 1)")
        return rng.choice((*nested, super().wrong(rng)))


@dataclass(frozen=True)
class Real(Option):
    """A finite number in a range; ``below``: the upper bound is outside; ``free``: any number;
    ``many``: an array of numbers as well.
    """

    usual: tuple[float, ...] = (0.0,)
    low: float = -math.inf
    high: float = math.inf
    below: bool = False
    always: bool = False
    free: bool = False
    many: bool = False

    def form(self, rng: Random) -> str:
        return rng.choice(("float", "float", "float", "int", "np.float32", "np.float64"))

    def _spelled(self, form: str, value: float) -> str:
        if form == "int":
            return str(int(value)) if math.isfinite(value) else "-1"
        return repr(value) if form == "float" else f"{form}({value!r})"

    def good(self, rng: Random, form: str, sizes: Sizes) -> str:
        text = self._spelled(form, rng.choice(self.usual))
        return text if self.takes(value_of(text)) else self._spelled(form, self.usual[0])

    def takes(self, value: Any) -> bool:
        """Whether a number is in the range."""
        inside = math.isfinite(value) and self.low <= value <= self.high
        return inside and not (self.below and value == self.high)

    def bad(self, rng: Random, form: str, sizes: Sizes) -> str | None:
        if self.free:
            return None
        values = [math.nan, math.inf, -math.inf]
        values += [self.low - 0.5, -1.0] * (self.low > -math.inf)
        values += [self.high + 0.25, 1e300] * (self.high < math.inf)
        values += [self.high] * self.below
        with np.errstate(over="ignore"):
            text = self._spelled(form, rng.choice(values))
            return None if self.takes(value_of(text)) else text

    def wrong(self, rng: Random) -> str:
        if self.free or self.many:
            return rng.choice(("'1'", "0.5j", "b'1'", "'a'"))
        return rng.choice(("'1'", "True", "0.5j", "(0.5,)", "[0.5]", "np.ones(2)", "b'1'"))


@dataclass(frozen=True)
class Betas(Real):
    """Two decay rates."""

    usual: tuple[float, ...] = (0.0, 0.5, 0.9, 0.999)
    low: float = 0.0
    high: float = 1.0
    below: bool = True

    def form(self, rng: Random) -> str:
        return rng.choice(("float", "float", "np.float32", "list"))

    def _two(self, form: str, first: Any, second: Any) -> str:
        return f"[{first}, {second}]" if form == "list" else f"({first}, {second})"

    def good(self, rng: Random, form: str, sizes: Sizes) -> str:
        inner = "float" if form == "list" else form
        return self._two(form, *(super(Betas, self).good(rng, inner, sizes) for _ in "ab"))

    def bad(self, rng: Random, form: str, sizes: Sizes) -> str | None:
        inner = "float" if form == "list" else form
        pair = [super().good(rng, inner, sizes), super().bad(rng, inner, sizes)]
        rng.shuffle(pair)
        return None if None in pair else self._two(form, *pair)

    def wrong(self, rng: Random) -> str:
        return rng.choice(
            ("(0.9,)", "()", "(0.9, 0.9, 0.9)", "0.9", "np.array([0.9])", "'ab'", "(0.9, '1')",
             "((0.9, 0.9), 0.9)", "(0.9, None)", "(0.9, True)")
        )  # fmt: skip


@dataclass(frozen=True)
class Choice(Option):
    """One of some words (or None), a constant inside @njit."""

    words: tuple[Any, ...] = ()
    constant = True
    always: bool = False

    def form(self, rng: Random) -> str:
        return repr(rng.choice(self.words))

    def wrong(self, rng: Random) -> str:
        return rng.choice(("'nonsense'", "''", "1", "True", "b'relu'", "('tanh',)", "1.0"))


@dataclass(frozen=True)
class Flag(Option):
    """True or False; ``runtime``: inside @njit it may be a variable too."""

    runtime: bool = False

    @property
    def constant(self) -> bool:  # type: ignore[override]
        return not self.runtime

    def form(self, rng: Random) -> str:
        return "flag" if self.runtime else repr(rng.random() < 0.5)

    def good(self, rng: Random, form: str, sizes: Sizes) -> str:
        return repr(rng.random() < 0.5) if form == "flag" else form

    def wrong(self, rng: Random) -> str:
        return rng.choice(("0.5", "None", "'yes'", "(True,)", "nan"))


@dataclass(frozen=True)
class Axis(Option):
    """An axis of x, counted from either end."""

    always: bool = False

    def form(self, rng: Random) -> str:
        return rng.choice(("int", "int", "np.int64", "np.int32"))

    def good(self, rng: Random, form: str, sizes: Sizes) -> str:
        ndim = max(len(sizes["x"]), 1)  # a number counts as one class
        value = rng.randrange(-ndim, ndim)
        return f"{form}({value})" if form != "int" else str(value)

    def bad(self, rng: Random, form: str, sizes: Sizes) -> str | None:
        ndim = max(len(sizes["x"]), 1)
        value = rng.choice((ndim, -ndim - 1, 2**31 - 1, -(2**31)))
        return f"{form}({value})" if form != "int" else str(value)

    def wrong(self, rng: Random) -> str:
        return rng.choice(("1.0", "None", "'0'", "(0,)", "nan", "0j"))
