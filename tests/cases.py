"""The one table of cases: each op, with shapes, options, and flop and byte counts.

Tests and benchmarks both read it: an op that is not here does not exist, and one that is
cannot go untested or unmeasured. `CELLS` name the rows of the project's speed targets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


@dataclass(frozen=True)
class Case:
    """One call of one op.

    ``inputs(rng, dtype)`` makes the positional arguments; ``terms`` is the number of terms
    in one output's sum (sets the tolerance); ``flops`` and ``elements`` (read plus written)
    are what the call must do at the least; ``cell`` names a target row; ``large`` cases are
    left out of the slower tests.
    """

    op: str
    name: str
    inputs: Callable[[np.random.Generator, np.dtype], tuple]
    options: dict[str, Any] = field(default_factory=dict)
    terms: int = 1
    flops: int = 0
    elements: int = 0
    cell: str | None = None
    large: bool = False
    changes: tuple[int, ...] = ()  # arguments that the call changes in place
    own: dict[str, Any] = field(default_factory=dict)  # options that only loopnest's call gets
    fewest_flops: int | None = None  # where an algorithm of ours needs fewer than `flops`
    packed: bool = False  # loopnest is given the weight (argument 1) as `pack_weight` makes it

    @property
    def row(self) -> str:
        """The op family, which is the name of a file in each room."""
        return ROW_OF.get(self.op) or BENCH_ROW_OF[self.op]

    def arguments(self, dtype: np.dtype, seed: int = 0) -> tuple:
        """Positional arguments, the same for the same seed."""
        return self.inputs(np.random.default_rng(seed), np.dtype(dtype))

    def call(self, module: Any, arguments: tuple, **more: Any) -> Any:
        """Call the op of this name in ``module`` (loopnest, or the reference)."""
        return getattr(module, self.op)(*arguments, **self.options, **more)

    def expected(self, reference: Any, arguments: tuple) -> Any:
        """What the reference gives for these arguments."""
        return self.call(reference, arguments)

    def bytes(self, dtype: np.dtype) -> int:
        """Bytes that must move."""
        return self.elements * np.dtype(dtype).itemsize

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator, np.dtype], tuple]:
    """Maker of standard normal arrays."""
    return lambda rng, dtype: tuple(rng.standard_normal(s).astype(dtype) for s in shapes)


# ---- element-wise ----

PLAIN = ("exp", "sigmoid", "tanh", "relu", "silu")
GELU_FORMS = ("sigmoid", "tanh", "none")
SIZES = ((1,), (15,), (16,), (17,), (63,), (1025,), (3, 5, 7), (0,), (2, 0))


def _elementwise() -> Iterator[Case]:
    ops: list[tuple[str, dict[str, Any]]] = [(op, {}) for op in PLAIN]
    ops += [("leaky_relu", {}), ("leaky_relu", {"negative_slope": 0.25})]
    ops += [("gelu", {"approximate": form}) for form in GELU_FORMS]
    derivatives = [("gelu_derivative", {"approximate": form}) for form in GELU_FORMS]
    for op, options in ops + derivatives:
        for shape in SIZES:
            yield _unary(op, options, shape)
    for op, options in ops:
        for shape in SIZES:
            yield _unary(op + "_backward", options, shape, count=2)
    for op, options in ((op, options) for op, options in ops if op in ("gelu", "silu", "exp")):
        for size in (16_384, 1_000_000):
            yield _unary(op, options, (size,), large=True, cell="gelu, forward")
    yield _unary("gelu_backward", {}, (1_000_000,), count=2, large=True, cell="gelu, backward")


def _unary(op, options, shape, count=1, **more) -> Case:
    size = math.prod(shape)
    form = "-".join(str(v) for v in options.values())
    name = "x".join(map(str, shape)) + (f"-{form}" if form else "")
    scaled = lambda rng, dtype: tuple(  # noqa: E731
        (4 * rng.standard_normal(shape)).astype(dtype) for _ in range(count)
    )
    return Case(op, name, scaled, options, flops=size, elements=size * (count + 1), **more)


# ---- convolution ----


def conv(name, x, weight, cell=None, large=False, bias=True, **options) -> Iterator[Case]:
    """A forward case, and the backward one of the same shapes."""
    import reference

    n, k, (_, group_channels, r, s) = x[0], weight[0], weight
    size = {key: options[key] for key in ("stride", "padding", "dilation") if key in options}
    oh, ow = reference.conv2d_output_shape(x[2:], weight[2:], **size)
    y, taps = (n, k, oh, ow), group_channels * r * s
    flops, elements = 2 * math.prod(y) * taps, math.prod(x) + math.prod(weight) + math.prod(y)
    arrays = normal(x, weight, (k,)) if bias else normal(x, weight)
    yield Case("conv2d", name, arrays, options, taps, flops, elements, cell, large)
    plain = {key: value for key, value in options.items() if key != "activation"}
    terms = max(math.prod(weight) // group_channels, n * oh * ow)
    yield Case(
        "conv2d_backward", name, normal(y, x, weight), plain, terms, 2 * flops, 2 * elements,
        f"{cell} backward" if cell else None, large,
    )  # fmt: skip


def _convolutions() -> Iterator[Case]:
    yield from conv("seed", (1, 1, 4, 4), (1, 1, 3, 3), "seed", padding=1)
    yield from conv("lenet1", (32, 1, 28, 28), (6, 1, 5, 5), "lenet1", padding=2)
    yield from conv("lenet2", (32, 6, 14, 14), (16, 6, 5, 5), "lenet2")
    for size in (3, 5, 7):
        yield from conv(
            f"image{size}", (1, 1, 1080, 1920), (1, 1, size, size), "image", True, padding="same"
        )
    yield from conv("stem", (1, 3, 224, 224), (64, 3, 7, 7), "stem", True, stride=2, padding=3)
    for c, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        yield from conv(f"r{size}", (1, c, size, size), (c, c, 3, 3), f"r{size}", True, padding=1)
    yield from conv("down", (1, 128, 56, 56), (128, 128, 3, 3), "down", True, stride=2, padding=1)
    yield from conv("vgg3", (1, 3, 224, 224), (64, 3, 3, 3), "vgg", True, padding=1)
    yield from conv("pw-narrow", (1, 256, 56, 56), (64, 256, 1, 1), "pw", True)
    yield from conv("pw-wide", (1, 64, 56, 56), (256, 64, 1, 1), "pw", True)
    yield from conv("dw", (1, 128, 56, 56), (128, 1, 3, 3), "dw", True, padding=1, groups=128)
    # Tails around vector and tile widths, odd options.
    for width in (1, 2, 7, 8, 15, 16, 17, 31, 33):
        yield from conv(f"width{width}", (1, 2, 3, width), (3, 2, 2, 1), padding=(1, 0))
    for channels in (1, 3, 5, 17):
        yield from conv(f"channels{channels}", (2, channels, 6, 5), (channels + 2, channels, 3, 3))
    yield from conv("stride", (2, 3, 11, 13), (4, 3, 3, 2), stride=(2, 3), padding=(1, 1))
    yield from conv("stride-gap", (1, 2, 9, 9), (2, 2, 2, 2), stride=4)
    yield from conv("dilation", (1, 2, 12, 11), (3, 2, 3, 3), dilation=(2, 3), padding=2)
    yield from conv("groups", (2, 6, 5, 7), (4, 3, 3, 3), groups=2, padding=1)
    yield from conv("asymmetric", (1, 2, 5, 6), (3, 2, 3, 4), padding=((2, 0), (1, 3)), stride=2)
    yield from conv("same-even", (1, 1, 6, 7), (2, 1, 4, 2), padding="same", dilation=(1, 2))
    yield from conv("wide-padding", (1, 1, 2, 3), (1, 1, 2, 2), padding=5, stride=3)
    yield from conv("whole", (2, 3, 4, 5), (2, 3, 4, 5), padding="valid", bias=False)
    yield from conv("one", (1, 1, 1, 1), (1, 1, 1, 1))
    yield from conv("no-images", (0, 2, 4, 4), (3, 2, 3, 3))
    yield from _tiled_convolutions()
    for activation in ("relu", "leaky_relu", "gelu", "sigmoid", "tanh", "silu", "exp"):
        yield next(conv(activation, (1, 2, 5, 5), (3, 2, 3, 3), activation=activation))
    groups = {"groups": 3, "padding": ((0, 2), (1, 0))}
    yield _winograd("winograd", (2, 5, 9, 35), (18, 5, 3, 3), padding=1)
    yield _winograd("winograd-groups", (1, 6, 8, 8), (9, 2, 3, 3), **groups)


def _winograd(name, x, weight, *more, **options) -> Case:
    """A forward case; flops are those of direct sums, and so is the tolerance."""
    return next(conv(name, x, weight, *more, algorithm="winograd", **options))


def _tiled_convolutions() -> Iterator[Case]:
    """Each shape class of kernels/convolution_plan.py, with tails around its tiles."""
    for k in (15, 16, 17, 33, 48):
        yield from conv(f"pixels-k{k}", (1, 16, 9, 11), (k, 16, 3, 3), padding=1)
    for width in (6, 7, 8, 13, 14, 15, 29):
        yield from conv(f"pixels-width{width}", (2, 15, 5, width), (20, 15, 3, 3), padding=1)
    yield from conv("pixels-stride", (2, 16, 13, 15), (32, 16, 3, 3), padding=1, stride=2)
    yield from conv("pixels-dilated", (1, 16, 13, 33), (18, 16, 3, 3), padding=2, dilation=(2, 3))
    yield from conv("pixels-groups", (1, 32, 8, 9), (66, 16, 3, 3), padding=1, groups=2)
    for k in (1, 2, 3, 4, 5, 7, 8, 9, 12):
        yield from conv(f"channels-k{k}", (1, 9, 12, 21), (k, 9, 3, 2), padding=(1, 0))
    for width in (31, 47, 48, 49, 65):
        yield from conv(f"channels-width{width}", (1, 5, 6, width), (9, 5, 2, 3), stride=(1, 2))
    yield from conv("pointwise", (2, 24, 9, 10), (20, 24, 1, 1))
    yield from conv("pointwise-stride", (2, 24, 9, 11), (20, 24, 1, 1), stride=(2, 3))
    for size, widths in ((3, (31, 33, 70, 300)), (5, (48, 53)), (7, (49, 100, 300))):
        for width in widths:
            yield from conv(
                f"stacked{size}-{width}", (2, 1, 17, width), (1, 1, size, size), padding=1
            )
    yield from conv(
        "stacked-groups", (2, 3, 9, 40), (6, 1, 3, 3), padding=((0, 2), (1, 1)), groups=3
    )


# ---- pooling ----


def pool(name, x, kernel_size, stride=None, padding=0, **more) -> Iterator[Case]:
    """Average and maximum, forward and backward, of the same window."""
    import reference

    cell, large = more.pop("cell", None), more.pop("large", False)
    dilation, ceil_mode = more.pop("dilation", 1), more.get("ceil_mode", False)
    window = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
    oh, ow = reference.pool2d_output_shape(x[2:], **window, dilation=dilation, ceil_mode=ceil_mode)
    y = (*x[:2], oh, ow)
    area = kernel_size**2 if isinstance(kernel_size, int) else math.prod(kernel_size)
    counts = {
        "terms": area, "flops": math.prod(y) * area, "elements": math.prod(x) + math.prod(y),
        "large": large,
    }  # fmt: skip
    back = f"{cell} backward" if cell else None
    if dilation == 1:
        average = {**window, **more}
        yield Case("avg_pool2d", name, normal(x), average, cell=cell, **counts)
        yield Case("avg_pool2d_backward", name, normal(y, x), average, cell=back, **counts)
    maximum = {**window, "dilation": dilation, "ceil_mode": ceil_mode}
    indexed = {**maximum, "return_indices": True}
    yield Case("max_pool2d", name, _tied(x), maximum, cell=cell, **counts)
    yield Case("max_pool2d", f"{name}-indices", _tied(x), indexed, cell=cell, **counts)

    def with_indices(rng, dtype):
        (values,) = _tied(x)(rng, dtype)
        _, indices = reference.max_pool2d(values, **indexed)
        return rng.standard_normal(y).astype(dtype), values, indices

    yield Case("max_pool2d_backward", name, with_indices, maximum, cell=back, **counts)


def _tied(shape):
    """Small whole numbers, so that windows hold equal values."""
    return lambda rng, dtype: (rng.integers(-3, 4, shape).astype(dtype),)


def _pools() -> Iterator[Case]:
    big = (4, 64, 112, 112)
    yield from pool("2x2", big, 2, cell="avg 2x2/2", large=True)
    yield from pool("3x3s2", big, 3, 2, 1, cell="max 3x3/2", large=True)
    yield from pool("3x3s1", (4, 64, 56, 56), 3, 1, 1, cell="max 3x3/1", large=True)
    yield from pool("5x5s1", (4, 64, 56, 56), 5, 1, 2, cell="max 5x5/1", large=True)
    for width in (3, 4, 15, 16, 17, 33):
        yield from pool(f"width{width}", (2, 1, 5, width), 2, 1)
    yield from pool("oblong", (1, 3, 9, 8), (3, 2), (2, 1), (1, 1))
    yield from pool("ceil", (2, 2, 7, 6), 3, 2, 1, ceil_mode=True)
    yield from pool("ceil-exclude", (1, 1, 5, 5), 2, 2, 1, ceil_mode=True, count_include_pad=False)
    # PyTorch issue 183528: ceil_mode with padding counts only what lies in the padded input.
    yield from pool("issue183528", (1, 1, 6, 6), 3, 2, 1, ceil_mode=True, count_include_pad=True)
    yield from pool("divisor", (1, 2, 6, 6), 3, 3, divisor_override=7)
    yield from pool("gap", (1, 1, 9, 10), 2, 4)
    yield from pool("dilated", (1, 2, 9, 8), 3, 2, 1, dilation=2)
    yield from pool("whole", (2, 2, 3, 4), (3, 4))
    yield from pool("no-images", (0, 2, 4, 4), 2)
    for op in ("global_avg_pool2d", "global_max_pool2d"):
        for shape in ((1, 1, 1, 1), (2, 3, 4, 4), (2, 1, 7, 9), (1, 4, 33, 31)):
            name, size = "x".join(map(str, shape)), math.prod(shape)
            yield Case(op, name, normal(shape), terms=shape[2] * shape[3], elements=size)


# ---- dense and loss ----


def dense(name, x, outputs, cell=None, large=False, **options) -> Iterator[Case]:
    """A forward case, and the backward one of the same shapes."""
    rows, inputs = math.prod(x[:-1]), x[-1]
    y, weight = (*x[:-1], outputs), (inputs, outputs)
    flops, elements = 2 * rows * inputs * outputs, rows * (inputs + outputs) + inputs * outputs
    arrays = normal(x, weight, (outputs,))
    yield Case("linear", name, arrays, options, inputs, flops, elements, cell, large)
    terms = max(rows, outputs)
    arrays = normal(y, x, weight)
    yield Case("linear_backward", name, arrays, {}, terms, 2 * flops, 2 * elements, cell, large)


def _denses() -> Iterator[Case]:
    yield from dense("64x784x512", (64, 784), 512, "linear + gelu", True, activation="gelu")
    yield from dense("1x64x64", (1, 64), 64, "linear + gelu", activation="gelu")
    for outputs in (1, 2, 15, 16, 17, 33):
        yield from dense(f"outputs{outputs}", (3, 5), outputs)
    for rows, outputs in ((4, 47), (7, 48), (8, 49), (9, 96), (33, 97)):
        yield from dense(f"tiled{rows}x{outputs}", (rows, 31), outputs)
    yield from dense("vector", (7,), 4)
    yield from dense("deep", (2, 3, 9), 5, activation="relu")
    yield from dense("no-rows", (0, 4), 3)
    yield from dense("one", (1, 1), 1)


def _losses() -> Iterator[Case]:
    shapes = ((1, 1), (3, 2), (5, 10), (2, 15), (2, 16), (2, 17), (4, 100), (7,), (2, 3, 4))
    shapes += ((2, 3, 3), (2, 2, 2, 2))  # with the classes last they have the same shape
    for shape in shapes:
        name, size = "x".join(map(str, shape)), math.prod(shape)
        for op in ("softmax", "log_softmax"):
            yield Case(op, name, normal(shape), {"axis": -1}, 16, 5 * size, 2 * size)
        yield from _entropies(name, shape, {})
    for op in ("softmax", "log_softmax"):
        yield Case(op, "axis0", normal((4, 5)), {"axis": 0}, 16, 100, 40)
        yield Case(op, "axis1", normal((2, 3, 4)), {"axis": 1}, 16, 120, 48)
        yield Case(op, "axis1-cube", normal((3, 3, 3)), {"axis": 1}, 16, 120, 48)
    for reduction in ("sum", "none"):
        yield from _entropies(f"5x4-{reduction}", (5, 4), {"reduction": reduction})
    yield from _entropies("5x4-smooth", (5, 4), {"label_smoothing": 0.125})
    for rows in (63, 64, 65, 130):  # around a block of rows
        yield Case("softmax", f"{rows}x10", normal((rows, 10)), {"axis": -1}, 16, 1, 1)
        yield from _entropies(f"{rows}x10", (rows, 10), {}, ops=("cross_entropy_with_grad",))
    for rows, classes in ((4096, 1000), (8192, 128), (65536, 10)):
        cell = f"softmax+CE {rows}x{classes}"
        yield from _entropies(f"{rows}x{classes}", (rows, classes), {}, cell, True)


ENTROPIES = ("cross_entropy", "cross_entropy_backward", "cross_entropy_with_grad")


def _entropies(name, shape, options, cell=None, large=False, ops=ENTROPIES) -> Iterator[Case]:
    classes = shape[0] if len(shape) == 1 else shape[1]
    rows = () if len(shape) == 1 else (shape[0], *shape[2:])
    size = math.prod(shape)

    def indices(rng, dtype):
        return rng.standard_normal(shape).astype(dtype), rng.integers(0, classes, rows)

    def shares(rng, dtype):
        return rng.standard_normal(shape).astype(dtype), rng.random(shape).astype(dtype)

    for op in ops:
        for kind, arrays in (("indices", indices), ("shares", shares)):
            yield Case(
                op, f"{name}-{kind}", arrays, options, 64, 6 * size, 2 * size, cell, large
            )  # fmt: skip


ROW_OF = {
    **dict.fromkeys((*PLAIN, "leaky_relu", "gelu", "gelu_derivative"), "activation"),
    **{f"{op}_backward": "activation" for op in (*PLAIN, "leaky_relu", "gelu")},
    **dict.fromkeys(("conv2d", "conv2d_backward"), "convolution"),
    **dict.fromkeys(("avg_pool2d", "avg_pool2d_backward"), "pooling"),
    **dict.fromkeys(("max_pool2d", "max_pool2d_backward"), "pooling"),
    **dict.fromkeys(("global_avg_pool2d", "global_max_pool2d"), "pooling"),
    **dict.fromkeys(("linear", "linear_backward"), "dense"),
    **dict.fromkeys(("softmax", "log_softmax", *ENTROPIES), "loss"),
}

CASES = [*_elementwise(), *_convolutions(), *_pools(), *_denses(), *_losses()]
SMALL = [case for case in CASES if not case.large]


# ---- bench only: cells too large for the contract tests, and size sweeps ----


def _sweeps() -> Iterator[Case]:
    """From a fraction of L1 to beyond the last cache."""
    for op in ("gelu", "exp"):
        for size in (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 10_000_000):
            if size != 1 << 14:  # a cell already
                yield _unary(op, {}, (size,), large=True, cell=f"sweep {op}")
    for size in (8, 16, 32, 64, 128, 256, 512):
        name, x = f"sweep{size}", (1, 16, size, size)
        yield next(conv(name, x, (16, 16, 3, 3), "sweep conv2d", True, padding=1))
        for case in pool(name, x, 3, 1, 1, cell="sweep pool", large=True):
            if case.op == "max_pool2d" and not case.options.get("return_indices"):
                yield case


def _every_op() -> Iterator[Case]:
    """One row for each op that has no cell of its own."""
    size = (1 << 16,)
    for op in ("sigmoid", "tanh", "relu", "leaky_relu"):
        yield _unary(op, {}, size, large=True, cell="every op")
    yield _unary("gelu_derivative", {}, size, large=True, cell="every op")
    for op in (*PLAIN, "leaky_relu"):
        yield _unary(f"{op}_backward", {}, size, count=2, large=True, cell="every op")
    for op in ("softmax", "log_softmax"):
        counts = (16, 5 << 19, 2 << 19, "every op", True)
        yield Case(op, "4096x128", normal((4096, 128)), {"axis": -1}, *counts)
    shape = (4096, 128)
    entropies = _entropies("4096x128", shape, {}, "every op", True)
    yield next(case for case in entropies if case.op == "cross_entropy_backward")
    x = (8, 64, 56, 56)
    for op in ("global_avg_pool2d", "global_max_pool2d"):
        counts = (56 * 56, math.prod(x), math.prod(x), "every op", True)
        yield Case(op, "8x64x56x56", normal(x), {}, *counts)


# What each optimizer step has besides parameter and gradient, its options, and its arithmetic.
STEPS: dict[str, tuple[int, dict[str, Any], int]] = {
    "sgd_step": (1, {"lr": 1e-3, "momentum": 0.9}, 4),
    "adam_step": (2, {"step": 10}, 12),
    "adamw_step": (2, {"step": 10}, 14),
    "rmsprop_step": (1, {}, 7),
    "adagrad_step": (1, {"step": 10}, 6),
    "lion_step": (1, {}, 9),
}


def _optimizers() -> Iterator[Case]:
    for op, (states, options, flops) in STEPS.items():
        for size in (100_000, 10_000_000):
            cell = "adam, momentum step" if op in ("sgd_step", "adam_step") else "every op"
            yield Case(
                op, str(size), _step_arrays(size, states), options, 4, flops * size,
                (2 * states + 3) * size, cell, True, (0, *range(2, 2 + states)),
            )  # fmt: skip
    for starts, steps in ((100_000, 100), (1_000_000, 1000)):
        for method, momentum in (("gd", 0.0), ("momentum", 0.9)):
            yield _sweep(method, starts, steps, {"lr": 0.1, "momentum": momentum})


def _step_arrays(size: int, states: int):
    """Parameter, gradient, and states as after some steps: second moments are not negative."""

    def arrays(rng, dtype):
        param, grad = rng.standard_normal((2, size)).astype(dtype)
        return param, grad, *(0.5 + rng.random((states, size))).astype(dtype)

    return arrays


def _sweep(method: str, starts: int, steps: int, options: dict[str, Any]) -> Case:
    options = {"method": method, "steps": steps, **options}
    return Case(
        "descend", f"{method}-{starts}x{steps}",
        lambda rng, dtype: ("gelu", rng.uniform(-2, 3, starts).astype(dtype)),
        options, steps, 2 * starts * steps, 2 * starts, "sweep", True,
    )  # fmt: skip


def _gates() -> Iterator[Case]:
    for name, size in (("xor", 1_000_000), ("nand", 1_000_000)):
        yield Case(
            "gate_forward", f"{name}-{size}",
            lambda rng, dtype, name=name, size=size: (name, *rng.random((2, size)).astype(dtype)),
            {}, 4, size * (14 if name == "xor" else 5), 3 * size, "every op", True,
        )  # fmt: skip


def _cells() -> Iterator[Case]:
    """Cells of the targets whose arrays are too large to go through every test."""
    vgg64 = list(conv("vgg64", (1, 64, 224, 224), (64, 64, 3, 3), "vgg", True, padding=1))
    yield from vgg64
    known = {str(case): case for case in [*CASES, *vgg64]}
    for name in PACKED:
        yield replace(known[name], name=f"{known[name].name}-packed", packed=True)
    for name in WINOGRAD:
        case = known[name]
        # Its sums run over tiles, with differences of inputs: a few times the rounding.
        own, terms = {"algorithm": "winograd"}, 8 * case.terms
        # F(2x2, 3x3) takes 16 multiply-adds for the 36 of direct sums.
        fewest = case.flops * 16 // 36
        yield replace(case, name=f"{case.name}-winograd", own=own, terms=terms, fewest_flops=fewest)
    yield from pool("2x2-n32", (32, 64, 112, 112), 2, cell="avg 2x2/2", large=True)
    yield from pool("3x3s2-n32", (32, 64, 112, 112), 3, 2, 1, cell="max 3x3/2", large=True)


BENCH_ROW_OF = {
    **dict.fromkeys((*STEPS, "descend"), "optimizer"),
    **dict.fromkeys(("gate_forward", "logic_step", "logic_predict"), "gates"),
    **dict.fromkeys(("network_forward", "network_step"), "network"),
}


def _jobs() -> Iterator[Case]:
    """Whole jobs: bench/jobs.py has our side, tests/reference_jobs.py the reference."""

    def bits(count, labelled):
        return lambda rng, dtype: (
            rng.integers(0, 2, (count, 784), np.uint8),
            *([rng.integers(0, 10, count)] if labelled else []),
        )

    neurons = 6 * 8000
    # Forward 6 operations a neuron and sample, backward 14; the values are read and written.
    yield Case(
        "logic_step", "256x6x8000", bits(256, True), {}, 256, 20 * 256 * neurons,
        4 * 256 * neurons, "logic layer training step", True,
    )  # fmt: skip
    yield Case(
        "logic_predict", "512x6x8000", bits(512, False), {}, 1, 0, 512 * neurons // 8,
        "logic hard inference", True,
    )  # fmt: skip

    def digits(count, labelled):
        return lambda rng, dtype: (
            "lenet", rng.standard_normal((count, 1, 28, 28)).astype(dtype),
            *([rng.integers(0, 10, count)] if labelled else []),
        )  # fmt: skip

    weights, forward = 61_706, 64 * 833_040
    yield Case(
        "network_forward", "lenet-64", digits(64, False), {}, 400, forward,
        64 * 794 + weights, "network", True,
    )  # fmt: skip
    # Twice as much again for the gradients, but none by the images; 14 for AdamW.
    yield Case(
        "network_step", "lenet-64", digits(64, True), {}, 400,
        3 * forward - 64 * 235_200 + 14 * weights, 64 * 785 + 6 * weights, "LeNet training", True,
    )  # fmt: skip
    yield Case(
        "network_forward", "policy-1",
        lambda rng, dtype: ("policy", rng.standard_normal((1, 64)).astype(dtype)), {}, 64,
        2 * 64 * 66, 64 + 4_290, "policy", True,
    )  # fmt: skip


# Cells also measured with weights brought into the kernels' order beforehand, as ONNX Runtime
# does it with constant weights; and those also measured by Winograd's method.
PACKED = (
    *(f"conv2d-{name}" for name in ("lenet2", "stem", "r56", "r28", "r14", "r7", "down", "vgg64")),
    *("conv2d-pw-narrow", "conv2d-pw-wide", "linear-64x784x512", "linear-1x64x64"),
)
WINOGRAD = ("conv2d-r56", "conv2d-r28", "conv2d-vgg64")

EVERY_OP = [*_every_op()]
BENCH_CASES = [*_sweeps(), *EVERY_OP, *_optimizers(), *_gates(), *_cells(), *_jobs()]


def bench_cases() -> list[Case]:
    """All that can be measured: every case of a target cell, and the bench-only ones."""
    return [case for case in CASES if case.cell] + BENCH_CASES


def tolerance(case: Case, dtype: np.dtype) -> float:
    """Allowed error on inputs of size 1: each of the case's terms may round once."""
    return 8 * float(np.finfo(dtype).eps) * max(case.terms, 4)
