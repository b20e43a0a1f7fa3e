"""What is measured by default, and the ratios that rows are to reach; rows are cases of tests/cases.py."""

from __future__ import annotations

from cases import EVERY_OP, STEPS, WINOGRAD

# What `make bench` measures: a few rows of each op, together below three minutes.
QUICK = (
    *("gelu-16384-sigmoid", "gelu-1000000-sigmoid", "gelu_backward-1000000", "exp-16384"),
    *("silu-1000000", "exp-1000000"),
    *("conv2d-seed", "conv2d-lenet1", "conv2d-lenet2", "conv2d-image3", "conv2d-stem"),
    *("conv2d-r56", "conv2d-r14", "conv2d-pw-wide", "conv2d-dw", "conv2d_backward-lenet2"),
    *("conv2d-r56-packed", "conv2d-r14-packed", "conv2d-pw-wide-packed", "conv2d-r56-winograd"),
    *("avg_pool2d-2x2", "max_pool2d-3x3s2", "max_pool2d-3x3s1"),
    *("avg_pool2d_backward-2x2", "max_pool2d_backward-3x3s2"),
    *("linear-64x784x512", "linear-1x64x64"),
    *(f"cross_entropy_with_grad-{s}-indices" for s in ("4096x1000", "8192x128", "65536x10")),
    *("cross_entropy-8192x128-indices", "linear_backward-64x784x512"),
    *map(str, EVERY_OP),
    *(f"{op}-100000" for op in STEPS),
    *("descend-gd-100000x100", "descend-momentum-100000x100", "gate_forward-xor-1000000"),
    *("network_step-lenet-64", "network_forward-policy-1"),
)

# Peer time / our time that a row is to reach, for Numba and for C (0: no target).
TARGETS: dict[str, tuple[float, float]] = {
    "conv2d-seed": (3, 2.5), "conv2d-lenet1": (2, 2), "conv2d-lenet2": (1.25, 1.2),
    "conv2d-image3": (2, 1.7), "conv2d-image5": (2, 1.7), "conv2d-image7": (1.8, 1.7),
    "conv2d-stem": (1.0, 0.97), "conv2d-down": (1.05, 1.0), "conv2d-dw": (1.0, 0.9),
    "conv2d-vgg64": (1.03, 1.0), "conv2d-vgg3": (1.8, 1.3),
    **{f"conv2d-{name}": (0.95, 0) for name in ("r56", "r28", "r14")},
    **{f"conv2d-{name}-packed": (1.0, 0.97) for name in ("r56", "r28", "r14", "r7")},
    **{f"conv2d-{name}-packed": (1.0, 0.97) for name in ("pw-narrow", "pw-wide")},
    **{f"{name}-winograd": (1.25, 1.15) for name in WINOGRAD},
    "conv2d_backward-r56": (1.0, 0.95), "conv2d_backward-lenet2": (1.0, 0.95),
    "avg_pool2d-2x2-n32": (1.15, 1.1), "max_pool2d-3x3s2-n32": (2, 1.9),
    "max_pool2d-3x3s1": (2.5, 2), "max_pool2d-5x5s1": (2, 2),
    "avg_pool2d_backward-2x2-n32": (3, 3), "max_pool2d_backward-3x3s2-n32": (1.2, 1.2),
    **{f"gelu-{size}-sigmoid": (1.3, 1.0) for size in (16384, 1000000)},
    "gelu-10000000": (1.3, 1.0), "gelu_backward-1000000": (1.5, 1.2),
    "cross_entropy_with_grad-4096x1000-indices": (2.5, 2),
    "cross_entropy_with_grad-8192x128-indices": (2.5, 2),
    "cross_entropy_with_grad-65536x10-indices": (6, 2),
    **{f"{op}-100000": (2, 1.8) for op in ("adam_step", "sgd_step")},
    **{f"{op}-10000000": (0.97, 0.95) for op in ("adam_step", "sgd_step")},
    **{f"descend-{method}-1000000x1000": (2, 1.6) for method in ("gd", "momentum")},
    "linear-64x784x512": (0.97, 0.9), "linear-1x64x64": (3, 2.5),
    "network_step-lenet-64": (1.5, 1.2),
    "logic_step-256x6x8000": (3.5, 2.5), "logic_predict-512x6x8000": (0.9, 0.8),
}  # fmt: skip

# Cells whose target is the plain call, output allocated; all others reuse an output.
FRESH_OUTPUT = ("seed",)
