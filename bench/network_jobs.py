"""Our side of the rows of whole networks: a LeNet forward and its training step, a policy."""

from __future__ import annotations

from time import perf_counter_ns

import numpy as np
import reference_network
from cases import Case
from timing import Prepared


def network_forward(case: Case, arguments: tuple) -> Prepared:
    """The network called from Python, output reused."""
    name, x = arguments
    net = reference_network.network(name)
    return Prepared(net, (x,), {"out": np.empty_like(net(x))})


def compiled_forward(case: Case, arguments: tuple) -> Prepared:
    """The network called in a loop inside @njit."""
    import numba

    name, x = arguments
    net = reference_network.network(name)
    forward, y = net.njit(), np.empty_like(net(x))

    @numba.njit
    def many(times, x, y):
        for _ in range(times):
            forward(x, y)
        return y

    def loop(count):
        begin = perf_counter_ns()
        many(count, x, y)
        return perf_counter_ns() - begin

    return Prepared(many, (1, x, y), loop=loop)


def network_step(case: Case, arguments: tuple) -> Prepared:
    """Loss, gradient and AdamW of one batch: inside @njit on Numba, by calls on C."""
    import loopnest as ln

    name, x, target = arguments
    net = reference_network.trainable(name)
    state = reference_network.adamw_state(net)
    make = _compiled_step if ln.get_backend() == "numba" else _called_step
    step = make(net, len(x), reference_network.ADAMW)
    return Prepared(
        step, (x, target, net.vector, *state),
        result=lambda loss: (np.float64(loss), net.vector),
    )  # fmt: skip


def _compiled_step(net, batch, options):
    import numba

    import loopnest as ln

    gradient = net.njit_gradient(batch=batch)
    slope = np.empty_like(net.vector)
    step, lr, decay = options["step"], options["lr"], options["weight_decay"]

    @numba.njit
    def compiled(x, target, weights, m, v, slope):
        loss = gradient(x, target, slope)
        ln.adamw_step(weights, slope, m, v, step=step, lr=lr, weight_decay=decay)
        return loss

    return lambda x, target, weights, m, v: compiled(x, target, weights, m, v, slope)


def _called_step(net, batch, options):
    import loopnest as ln

    def called(x, target, weights, m, v):
        loss, gradients = net.gradient(x, target)
        ln.adamw_step(weights, gradients.vector, m, v, **options)
        return loss

    return called
