"""Optimisers for a cohort: torch.optim's update rules, slice by slice, where clients may rest while others step.

torch.optim itself cannot leave a client's slice of a tensor, its momentum and its decay untouched. Clients of a cohort stand in
order of falling size, so those that still have a batch are always the first ones: a step updates the first `active` slices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from fedmtl.registry import Amount, Share
from fedmtl.search import Span
from fedmtl.trees import Params, Slopes, dense, first

State = dict[str, Params]
Leaves = list[Tensor] | tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """One step for every client. Fields: lr, and weight-decay as in torch.optim."""

    lr: Annotated[Amount, Span(0.001, 1.0)] = 0.1
    weight_decay: Amount = 0.0

    def start(self, params: Params) -> State:
        """The state before the first step: every buffer zero."""
        return {slot: {name: torch.zeros_like(p) for name, p in params.items()} for slot in self.slots()}

    @abstractmethod
    def slots(self) -> tuple[str, ...]:
        """The names of the buffers kept for each parameter."""

    @abstractmethod
    def update(self, p: Leaves, g: Leaves, buffers: dict[str, Leaves], step: int) -> None:
        """Writes the new values into the leaves p, [A, ...] each, and into their buffers; `step` counts from 1."""

    @torch.no_grad()
    def step(self, params: Params, grads: Slopes, state: State, step: int, active: int | None = None) -> None:
        """One step, in place, of the first `active` clients (None: of all); the others keep every bit, and need no gradient.

        step: the number of this step, from 1, the same for all who make it.
        """
        def some(tree: Params) -> Leaves:
            return [first(tree[name].detach(), active) for name in params]

        whole = {name: dense(slope) for name, slope in grads.items()}
        self.update(some(params), some(whole), {slot: some(leaves) for slot, leaves in state.items()}, step)


@dataclass(frozen=True, kw_only=True)
class Sgd(Optimizer):
    """Stochastic gradient descent with momentum and weight decay."""

    momentum: Share = 0.0

    def slots(self) -> tuple[str, ...]:
        """The momentum buffer, where there is momentum."""
        return ("momentum",) if self.momentum else ()

    @torch.no_grad()
    def step(self, params: Params, grads: Slopes, state: State, step: int, active: int | None = None) -> None:
        """See Optimizer. Without momentum and decay, a gradient in parts goes into its leaf as it is."""
        if self.momentum or self.weight_decay:
            super().step(params, grads, state, step, active)
            return
        whole: list[tuple[Tensor, Tensor]] = []
        for name, slope in grads.items():
            leaf = first(params[name], active)
            if isinstance(slope, Tensor):
                whole.append((leaf, first(slope, active)))
            else:
                slope.add_to(leaf, -self.lr)
        if whole:
            torch._foreach_add_(*map(list, zip(*whole, strict=True)), alpha=-self.lr)

    def update(self, p: Leaves, g: Leaves, buffers: dict[str, Leaves], step: int) -> None:
        """b <- momentum b + (g + decay p); p <- p - lr b."""
        if self.weight_decay:
            g = torch._foreach_add(g, p, alpha=self.weight_decay)
        if self.momentum:
            torch._foreach_mul_(buffers["momentum"], self.momentum)
            torch._foreach_add_(buffers["momentum"], g)
            g = buffers["momentum"]
        torch._foreach_add_(p, g, alpha=-self.lr)


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam, with weight decay added to the gradient.

    Kingma, Ba. Adam: A Method for Stochastic Optimization. ICLR 2015. arXiv:1412.6980
    """

    lr: Annotated[Amount, Span(0.0001, 0.1)] = 1e-3
    beta1: Share = 0.9
    beta2: Share = 0.999
    eps: Amount = 1e-8

    def slots(self) -> tuple[str, ...]:
        """The first and second moment."""
        return ("m", "v")

    def update(self, p: Leaves, g: Leaves, buffers: dict[str, Leaves], step: int) -> None:
        """Algorithm 1 of the paper."""
        if self.weight_decay:
            g = torch._foreach_add(g, p, alpha=self.weight_decay)
        self._adam(p, g, buffers, step)

    def _adam(self, p: Leaves, g: Leaves, buffers: dict[str, Leaves], step: int) -> None:
        m, v = buffers["m"], buffers["v"]
        torch._foreach_lerp_(m, g, 1 - self.beta1)
        torch._foreach_mul_(v, self.beta2)
        torch._foreach_addcmul_(v, g, g, 1 - self.beta2)
        denominator = torch._foreach_div(v, 1 - self.beta2**step)
        torch._foreach_sqrt_(denominator)
        torch._foreach_add_(denominator, self.eps)
        torch._foreach_addcdiv_(p, m, denominator, -self.lr / (1 - self.beta1**step))


@dataclass(frozen=True, kw_only=True)
class Adamw(Adam):
    """Adam with decoupled weight decay.

    Loshchilov, Hutter. Decoupled Weight Decay Regularization. ICLR 2019. arXiv:1711.05101
    """

    weight_decay: Amount = 0.01

    def update(self, p: Leaves, g: Leaves, buffers: dict[str, Leaves], step: int) -> None:
        """Algorithm 2 of the paper."""
        torch._foreach_mul_(p, 1 - self.lr * self.weight_decay)
        self._adam(p, g, buffers, step)
