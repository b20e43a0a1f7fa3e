"""PyTorch's side of the rows of whole networks."""

from __future__ import annotations

import numpy as np
import reference_network
import torch
from cases import Case
from timing import Prepared
from torch import nn


def module(name: str, dtype: torch.dtype) -> nn.Module:
    """The network with loopnest's weights."""
    if name == "lenet":
        made = nn.Sequential(
            *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        )
    else:
        made = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2), nn.Tanh())
    state = reference_network.make(name).state_dict()
    made.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    return made.to(dtype)


def forward(case: Case, x: torch.Tensor) -> Prepared:
    net = module(case.name.split("-")[0], x.dtype)
    return Prepared(net, (x,), result=lambda y: y.detach().numpy())


def step(case: Case, x: torch.Tensor, target: torch.Tensor) -> Prepared:
    """Loss, backward and fused AdamW, from the state that ours starts from."""
    net = module(case.name.split("-")[0], x.dtype)
    o = reference_network.ADAMW
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=o["lr"], weight_decay=o["weight_decay"],
        betas=reference_network.BETAS, eps=reference_network.EPS, fused=True,
    )  # fmt: skip
    for p in net.parameters():
        optimizer.state[p] = {
            "step": torch.tensor(float(o["step"] - 1)),
            "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.full_like(p, 0.5),
        }  # fmt: skip
    loss_of = nn.functional.cross_entropy

    def train():
        with torch.inference_mode(False), torch.enable_grad():
            optimizer.zero_grad()
            loss = loss_of(net(x), target)
            loss.backward()
            optimizer.step()
        return loss

    return Prepared(train, result=lambda loss: (loss.detach().numpy(), weights(net)))


def weights(net: nn.Module) -> np.ndarray:
    """All weights in loopnest's order: a Linear's are transposed."""
    values = [p.detach().numpy() for p in net.parameters()]
    return np.concatenate([(v.T if v.ndim == 2 else v).reshape(-1) for v in values])
