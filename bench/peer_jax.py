"""JAX: functions compiled by jit, the call waited for."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import reference
from cases import Case
from peers import Peer
from timing import Prepared


class Jax(Peer):
    name = "jax"
    requires = ("jax",)

    def load(self) -> None:
        # Both are read once, at import; XLA has no call that changes its threads later.
        one = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        if os.environ.get("OMP_NUM_THREADS") == "1":
            os.environ.setdefault("XLA_FLAGS", one)
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        super().load()
        global jax, jnp, lax
        import jax
        import jax.numpy as jnp
        from jax import lax

        jax.config.update("jax_enable_x64", True)

    def settings(self) -> str:
        return f"jit, block_until_ready; XLA_FLAGS {os.environ.get('XLA_FLAGS', 'none')}"

    def supports(self, case: Case, dtype: np.dtype) -> bool:
        pinned = self.threads == 1 or "threads=1" not in os.environ.get("XLA_FLAGS", "")
        return pinned and super().supports(case, dtype)

    def prepare(self, case: Case, arguments: tuple, dtype: np.dtype) -> list[Prepared]:
        arrays = [jnp.asarray(a) for a in arguments if isinstance(a, np.ndarray)]
        compiled = jax.jit(getattr(self, case.op)(case, dtype.type, *arguments))

        def call(*inputs: Any) -> Any:
            return jax.block_until_ready(compiled(*inputs))

        return [Prepared(call, tuple(arrays), result=to_numpy)]

    # -- each op as a function of its arrays --

    def exp(self, case, number, *_):
        return jnp.exp

    def sigmoid(self, case, number, *_):
        return jax.nn.sigmoid

    def tanh(self, case, number, *_):
        return jnp.tanh

    def relu(self, case, number, *_):
        return jax.nn.relu

    def silu(self, case, number, *_):
        return jax.nn.silu

    def gelu(self, case, number, *_):
        form = case.options.get("approximate", "sigmoid")
        if form == "sigmoid":
            return lambda x: x * jax.nn.sigmoid(number(1.702) * x)
        return lambda x: jax.nn.gelu(x, approximate=form == "tanh")

    def gelu_backward(self, case, number, *_):
        return lambda dy, x: dy * slope(x, number)

    def conv2d(self, case, number, x, weight, *_):
        o = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **case.options}
        if o.get("activation"):
            raise NotImplementedError("no fused activation")
        geometry = (o["padding"], x.shape[2:], weight.shape[2:], o["stride"], o["dilation"])
        options = {
            "window_strides": reference._pair(o["stride"]),
            "padding": reference.resolve_padding(*geometry),
            "rhs_dilation": reference._pair(o["dilation"]),
            "feature_group_count": o["groups"],
        }

        def convolve(x, w, bias=None):
            y = lax.conv_general_dilated(x, w, **options)
            return y if bias is None else y + bias[None, :, None, None]

        return convolve

    def avg_pool2d(self, case, number, *_):
        if case.options["padding"]:
            raise NotImplementedError("only without padding")
        area = np.prod(reference._pair(case.options["kernel_size"]))
        total = window(case, number(0), lax.add)
        return lambda x: total(x) * number(1 / area)

    def max_pool2d(self, case, number, *_):
        if case.options.get("return_indices"):
            raise NotImplementedError("no indices")
        return window(case, number(-np.inf), lax.max)

    def linear(self, case, number, *_):
        name = case.options.get("activation")
        act = {None: lambda y: y, "relu": jax.nn.relu, "gelu": self.gelu(case, number)}[name]
        return lambda x, w, b: act(x @ w + b)

    def softmax(self, case, number, *_):
        return lambda x: jax.nn.softmax(x, axis=case.options["axis"])

    def log_softmax(self, case, number, *_):
        return lambda x: jax.nn.log_softmax(x, axis=case.options["axis"])

    def cross_entropy(self, case, number, logits, target):
        return mean_loss(target.ndim == 1)

    def cross_entropy_backward(self, case, number, logits, target):
        return jax.grad(mean_loss(target.ndim == 1))

    def cross_entropy_with_grad(self, case, number, logits, target):
        return jax.value_and_grad(mean_loss(target.ndim == 1))

    def descend(self, case, number, *_):
        o = case.options
        lr, b = number(o["lr"]), number(o["momentum"])

        def step(_, state):
            x, v = state
            v = b * v + (number(1) - b) * slope(x, number)
            return x - lr * v, v

        return lambda x: lax.fori_loop(0, o["steps"], step, (x, jnp.zeros_like(x)))[0]


def slope(x, number):
    """Derivative of x sigmoid(1.702 x)."""
    s = jax.nn.sigmoid(number(1.702) * x)
    return s + number(1.702) * x * s * (number(1) - s)


def mean_loss(by_index: bool):
    def loss(logits, target):
        logs = jax.nn.log_softmax(logits, axis=1)
        if by_index:
            return -jnp.take_along_axis(logs, target[:, None], axis=1).mean()
        return -(target * logs).sum(axis=1).mean()

    return loss


def window(case: Case, start, combine):
    o = case.options
    kernel, pad = reference._pair(o["kernel_size"]), reference._pair(o["padding"])
    stride = kernel if o["stride"] is None else reference._pair(o["stride"])
    dilation = reference._pair(o.get("dilation", 1))
    if o.get("ceil_mode"):
        raise NotImplementedError("whole windows only")
    sides = ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1]))
    return lambda x: lax.reduce_window(
        x, start, combine, (1, 1, *kernel), (1, 1, *stride), sides,
        window_dilation=(1, 1, *dilation),
    )  # fmt: skip


def to_numpy(raw: Any) -> Any:
    if isinstance(raw, (tuple, list)):
        return tuple(to_numpy(r) for r in raw)
    return np.asarray(raw)


PEERS = (Jax,)
