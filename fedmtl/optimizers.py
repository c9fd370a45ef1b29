"""Optimisers for a cohort: torch.optim's update rules, slice by slice, where clients may rest while others step.

torch.optim itself cannot leave a client's slice of a tensor, its momentum and its decay untouched. Clients of a cohort stand in
order of falling size, so those that still have a batch are always the first ones: a step updates the first `active` slices.
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
    def update(self, p: Tensor, g: Tensor, buffers: dict[str, Tensor], step: int) -> None:
        """Writes the new values into p and the buffers of one leaf [A, ...]; `step` counts from 1."""

    @torch.no_grad()
    def step(self, params: Params, grads: Params, state: State, step: int, active: int | None = None) -> None:
        """One step, in place, of the first `active` clients (None: of all); the others keep every bit.

        step: the number of this step, from 1, the same for all who make it.
        """
        for name, p in params.items():
            buffers = {slot: leaves[name][:active] for slot, leaves in state.items()}
            self.update(p[:active], grads[name][:active], buffers, step)


@dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """Stochastic gradient descent with momentum and weight decay."""

    momentum: Share = 0.0

    def slots(self) -> tuple[str, ...]:
        """The momentum buffer, where there is momentum."""
        return ("momentum",) if self.momentum else ()

    def update(self, p: Tensor, g: Tensor, buffers: dict[str, Tensor], step: int) -> None:
        """b <- momentum b + (g + decay p); p <- p - lr b."""
        if self.weight_decay:
            g = torch.add(g, p, alpha=self.weight_decay)
        if self.momentum:
            g = buffers["momentum"].mul_(self.momentum).add_(g)
        p.add_(g, alpha=-self.lr)


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam, with weight decay added to the gradient.

    Kingma, Ba. Adam: A Method for Stochastic Optimization. ICLR 2015. arXiv:1412.6980
    """

    lr: Amount = 1e-3
    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: Amount = 1e-8

    def slots(self) -> tuple[str, ...]:
        """The first and second moment."""
        return ("m", "v")

    def update(self, p: Tensor, g: Tensor, buffers: dict[str, Tensor], step: int) -> None:
        """Algorithm 1 of the paper."""
        if self.weight_decay:
            g = torch.add(g, p, alpha=self.weight_decay)
        self._adam(p, g, buffers, step)

    def _adam(self, p: Tensor, g: Tensor, buffers: dict[str, Tensor], step: int) -> None:
        m = buffers["m"].lerp_(g, 1 - self.beta1)
        v = buffers["v"].mul_(self.beta2).addcmul_(g, g, value=1 - self.beta2)
        denominator = (v / (1 - self.beta2**step)).sqrt_().add_(self.eps)
        p.addcdiv_(m, denominator, value=-self.lr / (1 - self.beta1**step))


@dataclass(frozen=True, kw_only=True)
class Adamw(Adam):
    """Adam with decoupled weight decay.

    Loshchilov, Hutter. Decoupled Weight Decay Regularization. ICLR 2019. arXiv:1711.05101
    """

    weight_decay: Amount = 0.01

    def update(self, p: Tensor, g: Tensor, buffers: dict[str, Tensor], step: int) -> None:
        """Algorithm 2 of the paper."""
        p.mul_(1 - self.lr * self.weight_decay)
        self._adam(p, g, buffers, step)
