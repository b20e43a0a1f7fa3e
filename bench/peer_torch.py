"""PyTorch, eager: contiguous and channels_last, ``out=`` forms, whichever is quickest."""

from __future__ import annotations

from typing import Any

import numpy as np
import reference
import reference_jobs
from cases import Case
from peers import Peer
from timing import Prepared


def to_numpy(raw: Any) -> Any:
    """Arrays of what PyTorch returned."""
    if isinstance(raw, (tuple, list)):
        return tuple(to_numpy(r) for r in raw)
    return raw.detach().numpy()


class Torch(Peer):
    name = "torch"
    requires = ("torch",)

    def load(self) -> None:
        super().load()
        global torch, F, aten
        import torch
        import torch.nn.functional as F

        aten = torch.ops.aten
        self._inference: Any = None

    def version(self) -> str:
        return torch.__version__

    def settings(self) -> str:
        onednn = "oneDNN" if torch.backends.mkldnn.is_available() else "no oneDNN"
        return f"eager, inference_mode, {onednn}, contiguous or channels_last, out= where quicker"

    def set_threads(self, count: int) -> None:
        super().set_threads(count)
        torch.set_num_threads(count)

    def prepare(self, case: Case, arguments: tuple, dtype: np.dtype) -> list[Prepared]:
        # Tensors are made outside inference mode: those made inside have no gradients.
        if self._inference:
            self._inference.__exit__(None, None, None)
            self._inference = None
        with torch.no_grad():
            tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in arguments
                       if isinstance(a, np.ndarray)]  # fmt: skip
            made = getattr(self, case.op)(case, *tensors)
            entries = [made] if isinstance(made, Prepared) else list(made)
        for entry in entries:
            entry.before = self._enter_inference
        return entries

    def _enter_inference(self) -> None:
        if self._inference is None:
            self._inference = torch.inference_mode()
            self._inference.__enter__()

    # -- element-wise --

    def exp(self, case: Case, x):
        return call(torch.exp, x, out=torch.empty_like(x))

    def sigmoid(self, case: Case, x):
        return call(torch.sigmoid, x, out=torch.empty_like(x))

    def tanh(self, case: Case, x):
        return call(torch.tanh, x, out=torch.empty_like(x))

    def relu(self, case: Case, x):
        return call(torch.clamp_min, x, 0, out=torch.empty_like(x))

    def leaky_relu(self, case: Case, x):
        slope = case.options.get("negative_slope", 0.01)
        return call(aten.leaky_relu.out, x, slope, out=torch.empty_like(x))

    def silu(self, case: Case, x):
        return call(aten.silu.out, x, out=torch.empty_like(x))

    def gelu(self, case: Case, x):
        form, y = case.options.get("approximate", "sigmoid"), torch.empty_like(x)
        if form != "sigmoid":
            return call(aten.gelu.out, x, approximate=form, out=y)

        def same():  # x sigmoid(1.702 x) = silu(1.702 x) / 1.702
            torch.mul(x, 1.702, out=y)
            aten.silu.out(y, out=y)
            return torch.mul(y, 1 / 1.702, out=y)

        relative = call(aten.silu.out, x, out=y, variant="silu(out=) in its place")
        relative.stands_for = "silu"
        return call(same, variant="mul, silu, mul"), relative

    def gelu_backward(self, case: Case, dy, x):
        form, dx = case.options.get("approximate", "sigmoid"), torch.empty_like(x)
        if form != "sigmoid":
            return call(aten.gelu_backward.grad_input, dy, x, approximate=form, grad_input=dx)
        scaled = torch.empty_like(x)

        def same():  # the slope of silu(1.702 x) / 1.702 is silu'(1.702 x)
            torch.mul(x, 1.702, out=scaled)
            return aten.silu_backward.grad_input(dy, scaled, grad_input=dx)

        relative = call(
            aten.silu_backward.grad_input, dy, x, grad_input=dx,
            variant="silu_backward in its place",
        )  # fmt: skip
        relative.stands_for = "silu_backward"
        return call(same, variant="mul, silu_backward"), relative

    def silu_backward(self, case: Case, dy, x):
        return call(aten.silu_backward.grad_input, dy, x, grad_input=torch.empty_like(x))

    def relu_backward(self, case: Case, dy, x):
        return call(aten.threshold_backward.grad_input, dy, x, 0, grad_input=torch.empty_like(x))

    def leaky_relu_backward(self, case: Case, dy, x):
        slope, dx = case.options.get("negative_slope", 0.01), torch.empty_like(x)
        return call(aten.leaky_relu_backward.grad_input, dy, x, slope, False, grad_input=dx)

    # PyTorch's own take the function's value: recomputed, as our calls are given x.

    def tanh_backward(self, case: Case, dy, x):
        y, dx = torch.empty_like(x), torch.empty_like(x)
        return call(lambda: aten.tanh_backward.grad_input(dy, torch.tanh(x, out=y), grad_input=dx))

    def sigmoid_backward(self, case: Case, dy, x):
        y, dx = torch.empty_like(x), torch.empty_like(x)
        return call(
            lambda: aten.sigmoid_backward.grad_input(dy, torch.sigmoid(x, out=y), grad_input=dx)
        )

    def exp_backward(self, case: Case, dy, x):
        y = torch.empty_like(x)
        return call(lambda: torch.mul(dy, torch.exp(x, out=y), out=y))

    # -- convolution and pooling --

    def conv2d(self, case: Case, x, weight, bias=None):
        options = conv_options(case, x, weight)
        name = case.options.get("activation")
        for form, layout in layouts():
            xs, ws = x.to(memory_format=layout), weight.to(memory_format=layout)
            if name is None:
                yield call(F.conv2d, xs, ws, bias, variant=form, **options)
            else:
                yield call(
                    lambda xs=xs, ws=ws: act(F.conv2d(xs, ws, bias, **options), name), variant=form
                )

    def conv2d_backward(self, case: Case, dy, x, weight):
        o = conv_options(case, x, weight)
        padding = o["padding"]
        if isinstance(padding, str):
            sides = reference.resolve_padding(padding, x.shape[2:], weight.shape[2:])
            if any(before != after for before, after in sides):
                raise NotImplementedError("asymmetric padding")
            padding = [before for before, _ in sides]
        geometry = [list(reference._pair(v)) for v in (o["stride"], padding, o["dilation"])]
        for form, layout in layouts():
            arrays = [a.to(memory_format=layout) for a in (dy, x, weight)]
            yield call(
                aten.convolution_backward, *arrays, [len(weight)], *geometry, False, [0, 0],
                o["groups"], [True, True, True], variant=form,
            )  # fmt: skip

    def avg_pool2d(self, case: Case, x):
        return pool_variants(F.avg_pool2d, (x,), case.options)

    def max_pool2d(self, case: Case, x):
        return pool_variants(F.max_pool2d, (x,), case.options)

    def avg_pool2d_backward(self, case: Case, dy, x):
        o = pool_options(case.options)
        include, divisor = case.options.get("count_include_pad", True), None
        ceil = case.options.get("ceil_mode", False)
        arguments = (o["kernel"], o["stride"], o["padding"], ceil, include, divisor)
        return pool_variants(aten.avg_pool2d_backward, (dy, x), {}, arguments)

    def max_pool2d_backward(self, case: Case, dy, x, indices):
        o = pool_options(case.options)
        dilation = list(reference._pair(case.options.get("dilation", 1)))
        ceil = case.options.get("ceil_mode", False)
        arguments = (o["kernel"], o["stride"], o["padding"], dilation, ceil)
        for form, layout in layouts():
            g, xs, i = (a.to(memory_format=layout) for a in (dy, x, indices))
            yield call(aten.max_pool2d_with_indices_backward, g, xs, *arguments, i, variant=form)

    def global_avg_pool2d(self, case: Case, x):
        yield call(F.adaptive_avg_pool2d, x, 1, variant="adaptive")
        yield call(torch.mean, x, (2, 3), keepdim=True, variant="mean")

    def global_max_pool2d(self, case: Case, x):
        yield call(torch.amax, x, (2, 3), keepdim=True, variant="amax")

    # -- dense and loss --

    def linear(self, case: Case, x, weight, bias):
        name = case.options.get("activation")
        turned = weight.t().contiguous()
        y = torch.empty((*x.shape[:-1], weight.shape[1]), dtype=x.dtype)
        if name is None:
            yield call(F.linear, x, turned, bias, variant="linear")
            yield call(torch.addmm, bias, x, weight, out=y, variant="addmm(out=)")
            return
        yield call(lambda: act(F.linear(x, turned, bias), name), variant="linear")
        yield call(lambda: act(torch.addmm(bias, x, weight, out=y), name), variant="addmm(out=)")

    def linear_backward(self, case: Case, dy, x, weight):
        dx, dw = torch.empty_like(x), torch.empty_like(weight)

        def products():
            torch.mm(dy, weight.t(), out=dx)
            torch.mm(x.t(), dy, out=dw)
            return dx, dw, dy.sum(0)

        return call(products)

    def softmax(self, case: Case, x):
        return call(torch.softmax, x, case.options["axis"], out=torch.empty_like(x))

    def log_softmax(self, case: Case, x):
        return call(torch.log_softmax, x, case.options["axis"])

    def cross_entropy(self, case: Case, logits, target):
        return call(F.cross_entropy, logits, target, **case.options)

    def cross_entropy_backward(self, case: Case, logits, target):
        leaf = logits.clone().requires_grad_()
        y, options = torch.empty_like(logits), case.options

        def autograd():
            with torch.inference_mode(False), torch.enable_grad():
                loss = F.cross_entropy(leaf, target, **options)
            return torch.autograd.grad(loss, leaf)[0]

        yield call(autograd, variant="autograd")
        if target.dim() > 1 or options or logits.dim() != 2:
            return
        places, scale = target[:, None], 1 / len(logits)
        minus = torch.full(places.shape, -1.0, dtype=logits.dtype)

        def by_hand():
            aten._softmax.out(logits, 1, False, out=y)
            y.scatter_add_(1, places, minus)
            return y.mul_(scale)

        yield call(by_hand, variant="softmax(out=), scatter, scale")

    def cross_entropy_with_grad(self, case: Case, logits, target):
        leaf, options = logits.clone().requires_grad_(), case.options

        def autograd():
            with torch.enable_grad():
                loss = F.cross_entropy(leaf, target, **options)
            return loss, torch.autograd.grad(loss, leaf)[0]

        yield call(autograd, variant="autograd")
        if target.dim() > 1 or options or logits.dim() != 2:
            return
        places, scale = target[:, None], 1 / len(logits)
        minus = torch.full(places.shape, -1.0, dtype=logits.dtype)

        def by_hand():
            y = torch.log_softmax(logits, 1)
            loss = F.nll_loss(y, target)
            y.exp_().scatter_add_(1, places, minus)
            return loss, y.mul_(scale)

        yield call(by_hand, variant="log_softmax, nll_loss, exp_, scatter, scale")

    # -- optimizers: state as it is after step - 1 --

    def adam_step(self, case: Case, param, grad, m, v, *more):
        o = case.options
        beta1, beta2 = o.get("betas", (0.9, 0.999))
        for variant in ("Adam(fused=True)", "Adam(foreach=True)"):
            p, *state = (a.clone() for a in (param, m, v))
            p.grad = grad
            kind = {"fused": True} if "fused" in variant else {"foreach": True}
            step = torch.optim.Adam([p], lr=o.get("lr", 1e-3), betas=(beta1, beta2),
                                    eps=o.get("eps", 1e-8), **kind)  # fmt: skip
            step.state[p] = {
                "step": torch.tensor(float(o["step"] - 1)),
                "exp_avg": state[0], "exp_avg_sq": state[1],
            }  # fmt: skip
            yield call(step.step, variant=variant, result=changed(p, *state))

    def sgd_step(self, case: Case, param, grad, buffer=None):
        o = case.options
        for variant in ("SGD(fused=True)", "SGD(foreach=True)"):
            p = param.clone()
            p.grad = grad
            kind = {"fused": True} if "fused" in variant else {"foreach": True}
            step = torch.optim.SGD([p], lr=o["lr"], momentum=o.get("momentum", 0.0), **kind)
            held = () if buffer is None else (buffer.clone(),)
            if held:
                step.state[p] = {"momentum_buffer": held[0]}
            yield call(step.step, variant=variant, result=changed(p, *held))

    def descend(self, case: Case, x0):
        o = case.options
        x, v, s = (torch.empty_like(x0) for _ in range(3))

        def loop():
            x.copy_(x0)
            v.zero_()
            for _ in range(o["steps"]):
                torch.mul(x, 1.702, out=s)
                aten.silu_backward.grad_input(one, s, grad_input=s)
                if o["momentum"]:
                    v.mul_(o["momentum"]).add_(s, alpha=1 - o["momentum"])
                x.sub_(v if o["momentum"] else s, alpha=o["lr"])
            return x

        one = torch.ones_like(x0)
        return call(loop)

    def logic_step(self, case: Case, bits, labels):
        """Four coefficients a neuron instead of 16 functions, features as rows; autograd."""
        net = reference_jobs.logic_network()
        layers = [(slice(a, b), torch.from_numpy(left).long(), torch.from_numpy(right).long())
                  for a, b, left, right in reference_jobs.logic_layers(net)]  # fmt: skip
        x, matrix = bits.t().float().contiguous(), bilinear()
        logits = torch.from_numpy(net.logits.copy()).requires_grad_()

        def step():
            with torch.inference_mode(False), torch.enable_grad():
                c = (matrix.t() @ torch.softmax(logits, 0))[:, :, None]
                y = x
                for own, left, right in layers:
                    a, b = y.index_select(0, left), y.index_select(0, right)
                    c0, c1, c2, c3 = c[:, own]
                    y = torch.addcmul(torch.addcmul(c0, c2, b), torch.addcmul(c1, c3, b), a)
                scores = y.view(net.classes, -1, len(bits)).sum(1).t() / net.tau
                loss = F.cross_entropy(scores, labels)
            return loss, torch.autograd.grad(loss, logits)[0]

        return call(step)

    def network_forward(self, case: Case, x):
        import torch_networks

        return torch_networks.forward(case, x)

    def network_step(self, case: Case, x, target):
        import torch_networks

        return torch_networks.step(case, x, target)

    def gate_forward(self, case: Case, a, b):
        import loopnest as ln

        *hidden, (weight, bias) = [
            (w.tolist(), c.tolist()) for w, c in ln.gate(case.name.split("-")[0]).layers
        ]
        y = torch.empty_like(a)

        def neuron(x1, x2, w1, w2, c):
            return torch.mul(x1, w1).add_(x2, alpha=w2).add_(c)

        def network():
            x1, x2 = a, b
            for w, c in hidden:
                x1, x2 = (neuron(x1, x2, w[0][j], w[1][j], c[j]).clamp_(min=0) for j in range(2))
            z = neuron(x1, x2, weight[0][0], weight[1][0], bias[0])
            return torch.sigmoid(z, out=y)

        return call(network)


def bilinear():
    """The matrix that makes four coefficients of 16 shares."""
    return torch.from_numpy(reference_jobs.BILINEAR.astype(np.float32))


def changed(*tensors):
    """Result of a step: what it changed in place."""
    return lambda raw: tuple(t.detach().numpy() for t in tensors)


def call(function, *args, variant: str = "", result=to_numpy, **kwargs) -> Prepared:
    return Prepared(function, args, kwargs, variant, result)


def layouts():
    return ("contiguous", torch.contiguous_format), ("channels_last", torch.channels_last)


def act(y, name: str):
    """An activation in place, by the shortest way there is."""
    if name == "gelu":
        return _gelu(y)
    if name == "silu":
        return F.silu(y, inplace=True)
    return getattr(torch, f"{name}_")(y)


def _gelu(y):
    """x sigmoid(1.702 x) in place."""
    y.mul_(1.702)
    F.silu(y, inplace=True)
    return y.mul_(1 / 1.702)


def conv_options(case: Case, x, weight) -> dict[str, Any]:
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1, **case.options}
    options.pop("activation", None)
    options.pop("algorithm", None)
    if np.ndim(options["padding"]) == 2:
        raise NotImplementedError("asymmetric padding")
    return options


def pool_options(options: dict[str, Any]) -> dict[str, list[int]]:
    kernel = options["kernel_size"]
    stride = kernel if options["stride"] is None else options["stride"]
    sizes = {"kernel": kernel, "stride": stride, "padding": options["padding"]}
    return {name: list(reference._pair(value)) for name, value in sizes.items()}


def pool_variants(function, arrays, options, more=()):
    for form, layout in layouts():
        laid_out = [a.to(memory_format=layout) for a in arrays]
        yield call(function, *laid_out, *more, variant=form, **options)


PEERS = (Torch,)
