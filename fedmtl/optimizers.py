"""Optimisers for a cohort: torch.optim's update rules, slice by slice, where clients may rest while others step.

torch.optim itself cannot leave a client's slice of a tensor, its momentum and its decay untouched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmtl.registry import Amount, Share
from fedmtl.trees import Params

State = dict[str, Params]


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """One step for every client. Fields: lr, and weight-decay as in torch.optim."""

    lr: Amount = 0.1
    weight_decay: Amount = 0.0

    def start(self, params: Params) -> State:
        """The state before the first step: every buffer zero."""
        return {slot: {name: torch.zeros_like(p) for name, p in params.items()} for slot in self.slots()}

    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """The names of the buffers kept for each parameter."""

    @abstractmethod
    def update(self, p: Tensor, g: Tensor, buffers: dict[str, Tensor], step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The new parameter and buffers of one leaf [C, ...]; `step` [C, 1, ...] counts a client's steps from 1."""

    def step(self, params: Params, grads: Params, state: State, steps: Tensor, active: Tensor | None) -> tuple[Params, State]:
        """One step, which may write into `params`. steps: [C], each client's number of steps with this one; active: [C] bool,
        or None for everyone."""
        new_params: Params = {}
        new_state: State = {slot: {} for slot in state}
        for name, p in params.items():
            shape = (-1, *[1] * (p.dim() - 1))
            old = {slot: leaves[name] for slot, leaves in state.items()}
            new, buffers = self.update(p, grads[name], old, steps.reshape(shape))
            if active is not None:
                here = active.reshape(shape)
                new = torch.where(here, new, p)
                buffers = {slot: torch.where(here, leaf, old[slot]) for slot, leaf in buffers.items()}
            new_params[name] = new
            for slot, leaf in buffers.items():
                new_state[slot][name] = leaf
        return new_params, new_state


@dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """Stochastic gradient descent with momentum and weight decay."""

    momentum: Share = 0.0

    def slots(self) -> tuple[str, ...]:
        """The momentum buffer, where there is momentum."""
        return ("momentum",) if self.momentum else ()

    def update(self, p: Tensor, g: Tensor, buffers: dict[str, Tensor], step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """b <- momentum b + (g + decay p); p <- p - lr b."""
        if self.weight_decay:
            g = torch.add(g, p, alpha=self.weight_decay)
        if not self.momentum:
            return torch.add(p, g, alpha=-self.lr), {}
        buffer = torch.add(g, buffers["momentum"], alpha=self.momentum)
        return torch.add(p, buffer, alpha=-self.lr), {"momentum": buffer}


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam, with weight decay added to the gradient.

    Kingma, Ba. Adam: A Method for Stochastic Optimization. ICLR 2015. arXiv:1412.6980
    """

    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: Amount = 1e-8

    def slots(self) -> tuple[str, ...]:
        """The first and second moment."""
        return ("m", "v")

    def update(self, p: Tensor, g: Tensor, buffers: dict[str, Tensor], step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Algorithm 1 of the paper."""
        if self.weight_decay:
            g = torch.add(g, p, alpha=self.weight_decay)
        return self._adam(p, g, buffers, step)

    def _adam(self, p: Tensor, g: Tensor, buffers: dict[str, Tensor], step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        m = torch.lerp(buffers["m"], g, 1 - self.beta1)
        v = buffers["v"] * self.beta2 + g.square() * (1 - self.beta2)
        t = step.to(p.dtype)
        denominator = (v / (1 - self.beta2**t)).sqrt() + self.eps
        return p - self.lr * (m / (1 - self.beta1**t)) / denominator, {"m": m, "v": v}


@dataclass(frozen=True, kw_only=True)
class Adamw(Adam):
    """Adam with decoupled weight decay.

    Loshchilov, Hutter. Decoupled Weight Decay Regularization. ICLR 2019. arXiv:1711.05101
    """

    weight_decay: Amount = 0.01

    def update(self, p: Tensor, g: Tensor, buffers: dict[str, Tensor], step: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Algorithm 2 of the paper."""
        return self._adam(p * (1 - self.lr * self.weight_decay), g, buffers, step)
