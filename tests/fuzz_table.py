"""The fuzzer's table: what each op takes, from which every call is drawn.

An array's shape is a list of names of sizes, "n c h w"; a name in capitals stands for a whole
shape. ``sizes`` makes them of drawn numbers, once the options are known. An entry "op#form" is
another way to call the same op.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import reference
from cases import GELU_FORMS, PLAIN
from fuzz_kinds import LIMIT, Axis, Betas, Choice, Flag, Option, Padding, Pair, Real, Sizes, Whole

from loopnest import GATE_NAMES

# Lengths of axes: none, one, tails around vectors and tiles, primes.
LENGTHS = (0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 7, 8, 9, 11, 15, 16, 17, 31, 32, 33, 47, 49, 64, 65, 127)
MOST_WORK = 200_000  # multiply-adds of one call: some 0.1 ms


@dataclass(frozen=True)
class Array:
    """An argument that is an array.

    ``role``: "read", "state" (changed in place), "out"; ``values``: how it is filled.
    """

    name: str
    shape: str
    role: str = "read"
    optional: bool = False
    values: str = "any"  # any | shares (0 to 1) | classes | places (in a plane) | squares (>= 0)


@dataclass(frozen=True)
class Op:
    """One way to call an op.

    ``terms``: numbers in one output's sum, of which each may round; ``in_place``: ``out`` may be
    exactly an input; ``numbers``: arrays without axes are passed as plain numbers; ``same``: the
    reference gives the same values (else only the faces are compared); ``njit``: can be compiled;
    ``packed``: the array that goes in as a handle of `pack_weight`.
    """

    key: str
    arrays: tuple[Array, ...]
    options: tuple[Option, ...]
    sizes: Callable[[Random, list[int], dict[str, Any]], Sizes]
    terms: Callable[[Sizes], float] = lambda sizes: 4
    in_place: bool = False
    numbers: bool = False
    same: bool = True
    njit: bool = True
    packed: str = ""
    fixed: tuple[tuple[str, str], ...] = ()  # options that are always given so

    @property
    def name(self) -> str:
        """The function's name."""
        return self.key.partition("#")[0]


def read(names: str, shape: str, **more: Any) -> tuple[Array, ...]:
    """Inputs of one shape."""
    return tuple(Array(name, shape, **more) for name in names.split())


def out(shape: str) -> Array:
    """The array to write to."""
    return Array("out", shape, "out", optional=True)


# ---- element-wise ----


def any_shape(rng: Random, lengths: list[int], options: dict[str, Any]) -> Sizes:
    """One shape of up to four axes."""
    shape = tuple(lengths[: options["ndim"]])
    while math.prod(shape) > 4000:
        shape = tuple(n - n // 3 for n in shape)
    return {"x": shape}


def _elementwise() -> Iterator[Op]:
    slope, form = Real("negative_slope", (0.01, 0.25, -1.0, 0.0)), Choice("approximate", GELU_FORMS)
    ops = [(op, ()) for op in PLAIN] + [("leaky_relu", (slope,)), ("gelu", (form,))]
    shared = {"sizes": any_shape, "in_place": True, "numbers": True}
    for op, options in [*ops, ("gelu_derivative", (form,))]:
        yield Op(op, (*read("x", "x"), out("x")), options, **shared)
    for op, options in ops:
        yield Op(f"{op}_backward", (*read("dy x", "x"), out("x")), options, **shared)


# ---- convolution ----

_WINDOW = (Pair("stride", (1, 1, 1, 2, 3)), Padding("padding"), Pair("dilation", (1, 1, 1, 2)))
_GROUPS = Whole("groups", "g")
_FUSED = Choice("activation", (None, None, "relu", "leaky_relu", "gelu", "sigmoid", "tanh", "silu"))


def _output(reference_shape: Callable, *sizes: Any, **options: Any) -> tuple[int, int]:
    """Height and width of the result; (1, 1) where there is none."""
    try:
        return reference_shape(*sizes, **options)
    except (TypeError, ValueError, ZeroDivisionError):
        return 1, 1


def conv_sizes(rng: Random, lengths: list[int], options: dict[str, Any]) -> Sizes:
    """Sizes of a convolution, not too much work."""
    n, g = lengths[0] % 4, rng.choice((1, 1, 2, 3)) if "groups" in options else 1
    cg, kg, h, w, r, s = lengths[1], lengths[2], lengths[3], lengths[4], *lengths[5:7]
    r, s = (r % 8 or 3, s % 8 or 3) if rng.random() < 0.95 else (r % 3, s % 3)
    if options.get("algorithm") == "winograd" and rng.random() < 0.9:
        r, s = 3, 3
    window = {k: options[k] for k in ("stride", "padding", "dilation") if k in options}
    if rng.random() < 0.9:  # else the filters may not fit
        h, w = max(h, 2 * r - 1), max(w, 2 * s - 1)
    while True:
        oh, ow = _output(reference.conv2d_output_shape, (h, w), (r, s), **window)
        if n * g * max(kg * cg * r * s, kg, cg) * max(oh * ow, h * w, 1) <= MOST_WORK:
            break
        n = min(n, 1)
        largest = max(h, w, cg, kg)
        h, w, cg, kg = (v // 2 + v % 2 if v == largest else v for v in (h, w, cg, kg))
        if largest < 3:
            break
    return {
        "n": n, "g": g, "c": g * cg, "cg": cg, "k": g * kg, "h": h, "w": w, "r": r, "s": s,
        "oh": oh, "ow": ow,
    }  # fmt: skip


def _convolutions() -> Iterator[Op]:
    arrays = (*read("x", "n c h w"), *read("weight", "k cg r s"))
    forward = (*arrays, Array("bias", "k", optional=True), out("n k oh ow"))
    options = (*_WINDOW, _GROUPS, _FUSED)
    terms = lambda z: z["cg"] * z["r"] * z["s"]  # noqa: E731
    yield Op("conv2d", forward, options, conv_sizes, terms)
    yield Op("conv2d#packed", forward, options, conv_sizes, terms, packed="weight")
    yield Op(
        "conv2d#winograd", forward, (Padding("padding"), _GROUPS), conv_sizes,
        lambda z: 8 * terms(z), fixed=(("algorithm", "'winograd'"),),
    )  # fmt: skip
    given = zip(range(3), ("n c h w", "k cg r s", "k"), strict=True)
    gradients = tuple(Array(f"gradients[{i}]", shape, "out", True) for i, shape in given)
    yield Op(
        "conv2d_backward", (*read("dy", "n k oh ow"), *arrays, *gradients),
        (*_WINDOW, _GROUPS, Flag("needs_dx")), conv_sizes,
        lambda z: max(z["k"] * z["r"] * z["s"], z["n"] * z["oh"] * z["ow"]),
    )  # fmt: skip


# ---- pooling ----

_POOL = (
    Pair("kernel_size", (1, 2, 2, 3, 3, 5), always=True),
    Pair("stride", (1, 2, 2, 3), none=True),
)
_AVERAGE = (
    *_POOL, Pair("padding", (0, 0, 1), low=0), Flag("ceil_mode", runtime=True),
    Flag("count_include_pad", runtime=True),
    Whole("divisor_override", (1, 3, 7, -2), low=-LIMIT, never=(0,)),
)  # fmt: skip
_MAXIMUM = (
    *_POOL, Pair("padding", (0, 0, 1), low=0), Pair("dilation", (1, 1, 2)),
    Flag("ceil_mode", runtime=True),
)  # fmt: skip


def pool_sizes(rng: Random, lengths: list[int], options: dict[str, Any]) -> Sizes:
    """Sizes of a pooling over images."""
    n, c, (h, w) = lengths[0] % 4, lengths[1] % 9, lengths[2:4]
    if rng.random() < 0.9:
        h, w = max(h, 5), max(w, 5)
    while n * c * h * w > 6000:
        h, w, c = h // 2 + 1, w // 2 + 1, min(c, 3)
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    window = {k: options[k] for k in names if k in options}
    oh, ow = _output(reference.pool2d_output_shape, (h, w), **window) if window else (1, 1)
    return {"n": n, "c": c, "h": h, "w": w, "oh": oh, "ow": ow, "area": h * w}


def _pools() -> Iterator[Op]:
    x, y = read("x", "n c h w"), read("dy", "n c oh ow")
    y_out, x_out = out("n c oh ow"), out("n c h w")
    yield Op("avg_pool2d", (*x, y_out), _AVERAGE, pool_sizes, lambda z: 49)
    yield Op("avg_pool2d_backward", (*y, *x, x_out), _AVERAGE, pool_sizes, lambda z: 49)
    indexed = (*_MAXIMUM, Flag("return_indices"))
    yield Op("max_pool2d", (*x, y_out), indexed, pool_sizes)
    indices = read("indices", "n c oh ow", values="places")
    yield Op("max_pool2d_backward", (*y, *x, *indices, x_out), _MAXIMUM, pool_sizes, lambda z: 4096)
    for op in ("global_avg_pool2d", "global_max_pool2d"):
        yield Op(op, (*x, out("n c one one")), (), _plane_sizes, lambda z: 64)


def _plane_sizes(rng: Random, lengths: list[int], options: dict[str, Any]) -> Sizes:
    return {**pool_sizes(rng, lengths, {}), "one": 1}


# ---- dense and loss ----


def dense_sizes(rng: Random, lengths: list[int], options: dict[str, Any]) -> Sizes:
    """Sizes of a dense layer; x has one to three axes."""
    rows, inputs, outputs = tuple(lengths[: options["ndim"]]), *lengths[4:6]
    while math.prod(rows) * inputs * outputs > MOST_WORK or math.prod(rows) > 500:
        rows = tuple(v // 2 + 1 if v > 1 else v for v in rows)
        inputs = inputs // 2 + 1 if inputs > 16 else inputs
    return {"X": (*rows, inputs), "Y": (*rows, outputs), "i": inputs, "o": outputs}


def _denses() -> Iterator[Op]:
    x, weight = read("x", "X"), read("weight", "i o")
    forward = (*x, *weight, Array("bias", "o", optional=True), out("Y"))
    terms = lambda z: z["i"]  # noqa: E731
    yield Op("linear", forward, (_FUSED,), dense_sizes, terms)
    yield Op("linear#packed", forward, (_FUSED,), dense_sizes, terms, packed="weight")
    given = zip(range(3), ("X", "i o", "o"), strict=True)
    gradients = tuple(Array(f"gradients[{i}]", shape, "out", True) for i, shape in given)
    yield Op(
        "linear_backward", (*read("dy", "Y"), *x, *weight, *gradients), (Flag("needs_dx"),),
        dense_sizes, lambda z: max(z["o"], math.prod(z["X"][:-1])),
    )  # fmt: skip


def loss_sizes(rng: Random, lengths: list[int], options: dict[str, Any]) -> Sizes:
    """Shapes of logits, of rows, and the number of classes."""
    ndim = max(options["ndim"], 1)
    shape = list(lengths[:ndim])
    while math.prod(shape) > 6000:
        shape = [v // 2 + 1 if v > 2 else v for v in shape]
    axis = min(ndim - 1, 1)
    rows = tuple(v for i, v in enumerate(shape) if i != axis)
    return {"x": tuple(shape), "rows": rows, "classes": shape[axis]}


def _losses() -> Iterator[Op]:
    terms = lambda z: 64  # noqa: E731
    for op in ("softmax", "log_softmax"):
        arrays = (*read("x", "x"), out("x"))
        yield Op(op, arrays, (Axis("axis"),), any_shape, terms, in_place=True)
    weight = Array("weight", "classes", optional=True, values="shares")
    smoothing = Real("label_smoothing", (0.0, 0.125, 1.0), low=0.0, high=1.0)
    reduction = Choice("reduction", ("mean", "sum", "none"))
    ignore = Whole("ignore_index", (-100, 0, 1), low=-(2**62), high=2**62, typed=False)
    options = (reduction, smoothing, ignore)
    indices, shares = read("target", "rows", values="classes"), read("target", "x", values="shares")
    for kind, target in (("indices", indices), ("shares", shares)):
        arrays = (*read("logits", "x"), *target, weight)
        yield Op(f"cross_entropy#{kind}", arrays, options, loss_sizes, terms)
        yield Op(f"cross_entropy_with_grad#{kind}", (*arrays, out("x")), options, loss_sizes, terms)
        number = Real("dy", (1.0, -2.5, 0.0), free=True)
        yield Op(
            f"cross_entropy_backward#{kind}", (*arrays, out("x")), (*options, number), loss_sizes,
            terms, same=False,
        )  # fmt: skip
        dy = Array("dy", "rows")
        yield Op(
            f"cross_entropy_backward#{kind}-rows", (*arrays, dy, out("x")), (smoothing, ignore),
            loss_sizes, terms, fixed=(("reduction", "'none'"),), same=False,
        )  # fmt: skip


# ---- optimizer steps, descend, gates, sizes ----


def _steps() -> Iterator[Op]:
    rate, decay = Real("lr", (1e-3, 0.5, 0.0), low=0.0), Real("weight_decay", (0.0, 0.25), low=0.0)
    eps, betas = Real("eps", (1e-8, 0.5), low=0.0), Betas("betas")
    momentum = Real("momentum", (0.0, 0.9), low=0.0)
    step = Whole("step", (1, 2, 10, 1000), high=2**62, always=True, typed=False)
    needed = Real("lr", rate.usual, low=0.0, always=True)

    def state(name: str, optional: bool = False, values: str = "squares") -> Array:
        return Array(name, "x", "state", optional, values)

    both = (state("param", values="any"), *read("grad", "x"))
    buffer = state("momentum_buffer", True, "any")
    moments = (state("m", values="any"), state("v"), state("max_v", True))
    lion = (state("m", values="any"),)
    centered = state("grad_average", True, "any")
    alpha, flags = Real("alpha", (0.99, 0.5, 1.0), low=0.0, high=1.0), {"runtime": True}
    for op, states, options in (
        ("sgd_step", (buffer,), (
            needed, momentum, Real("dampening", (0.0, 0.0, 0.5)), decay, Flag("nesterov", **flags),
            Flag("first", **flags))),
        ("adam_step", moments, (step, rate, betas, eps, decay)),
        ("adamw_step", moments, (step, rate, betas, eps, decay)),
        ("rmsprop_step", (state("v"), buffer, centered), (rate, alpha, eps, decay, momentum)),
        ("adagrad_step", (state("state_sum"),), (
            step, rate, Real("lr_decay", (0.0, 0.1), low=0.0), decay, eps)),
        ("lion_step", lion, (rate, betas, decay)),
    ):  # fmt: skip
        yield Op(op, (*both, *states), options, any_shape)


def _others() -> Iterator[Op]:
    objective = Choice("objective", ("gelu", "silu", "tanh", "gelu_erf"), always=True)
    options = (
        objective, Choice("method", ("gd", "momentum", "rmsprop", "adagrad", "adam", "adamw", "lion")),
        Real("lr", (0.1, 1.0, 0.0), low=0.0, always=True, many=True),
        Whole("steps", (0, 1, 3, 7), low=0, high=2**63 - 1, always=True), Betas("betas"),
        Real("momentum", (0.0, 0.5), low=0.0, many=True),
        Real("alpha", (0.5,), low=0.0, high=1.0, below=True, many=True),
        Choice("convention", ("ema", "heavy-ball", "lookback", "nesterov")),
        Real("tol", (0.0, 1e-2), low=0.0), Flag("record"), Real("eps", (1e-8,), low=0.0),
        Real("weight_decay", (0.0, 0.1), low=0.0),
    )  # fmt: skip
    yield Op("descend", read("x0", "x"), options, any_shape, same=False)
    gate = Choice("gate", GATE_NAMES, always=True)
    arrays = (*read("a b", "x"), out("x"))
    more = {"in_place": True, "numbers": True, "same": False}
    yield Op("gate_forward", arrays, (gate,), any_shape, **more)
    hw = [Pair(k, (1, 2, 3, 5, 9, 33), always=True) for k in ("input_hw", "output_hw", "kernel_hw")]
    yield Op("conv2d_output_shape", (), (hw[0], hw[2], *_WINDOW), no_sizes)
    bound = Whole("max_padding", (0, 1, 4), low=0, high=2**63 - 1)
    yield Op(
        "conv2d_paddings_for", (), (*hw, Pair("stride", (1, 2, 3), typed=False), _WINDOW[2], bound), no_sizes,
        njit=False,
    )  # fmt: skip
    yield Op("average_filter", (), (
        Pair("size", (1, 2, 3, 7), always=True), Whole("channels", (1, 2, 5)),
    ), no_sizes)  # fmt: skip


def no_sizes(rng: Random, lengths: list[int], options: dict[str, Any]) -> Sizes:
    """An op without arrays."""
    return {}


_ALL = itertools.chain(_elementwise(), _convolutions(), _pools(), _denses(), _losses(), _steps())
TABLE: dict[str, Op] = {op.key: op for op in itertools.chain(_ALL, _others())}
