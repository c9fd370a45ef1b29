"""Every client's data are a mixture of shared components, each with a model; only the mixture weights are its own.

Marfoq, Neglia, Bellet, Kameni, Vidal. Federated Multi-Task Learning under a Mixture of Distributions. NeurIPS 2021.
arXiv:2108.10252

Sends: theta_1, ..., theta_M, the components. Keeps: pi, its mixture weights. Server: weighted mean of each theta_m.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from fedmtl.algorithms.base import Algorithm, Update
from fedmtl.algorithms.several import apart, model_at, numbered
from fedmtl.algorithms.steps import Batch, Client
from fedmtl.registry import Amount
from fedmtl.search import Span
from fedmtl.trees import Params, Tree, pick

LOOKS = 100
"""E- and M-steps on pi alone, with which `infer` finds a client's mixture."""


@dataclass(frozen=True, kw_only=True)
class Fedem(Algorithm):
    """FedEM. M components; the first starts at the initial model, the others apart from it.

    The E-step is at the components as they were received, and pi is not made anew after aggregation. A row's loss counts
    `precision` times in it: 1 is the paper's likelihood exp(-loss); 1 / (2 noise^2) is that of a squared error. M models go both
    ways and are trained, and M more forward passes a step tell the responsibilities.
    """

    predicts: ClassVar[bool] = True
    own_loss: ClassVar[bool] = True
    departs: ClassVar[Mapping[str, str]] = {"whole-model": "a client uses M models at once"}

    components: Annotated[PositiveInt, Span(2, 4)] = 3
    precision: Amount = 1.0

    def init(self, model: Params, wire: frozenset[str], clients: int) -> Params:
        """M models."""
        return numbered(apart(pick(model, wire), self.components))

    def start(self, client: Client, model: Params) -> Tree:
        """pi = (1/M, ..., 1/M)."""
        return {"pi": torch.full((client.size, self.components), 1 / self.components, dtype=client.x.dtype, device=client.x.device)}

    @torch.no_grad()
    def _fit(self, client: Client, models: list[Params], batch: Batch) -> tuple[Tensor, Tensor]:
        """(log-likelihoods [C, B, M] of a batch's rows under every component, weights [C, B])."""
        found = [client.row_losses(client.predict(model, batch, training=False), batch) for model in models]
        return -self.precision * torch.stack([losses for losses, _ in found], dim=-1), found[0][1]

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """Algorithm 1: q_s(m) ~ pi_m exp(-loss), pi = mean_s q_s, then SGD on mean_s q_s(m) loss(theta_m; s) for every m."""
        models = [model_at(received, m) for m in range(self.components)]
        fits = [self._fit(client, models, batch) for batch in client.scan()]
        pi = _shares([(_posterior(kept["pi"], fit), weight) for fit, weight in fits])

        def expected(theta: Params, batch: Batch) -> Tensor:
            fit, weight = self._fit(client, models, batch)
            q = _posterior(kept["pi"], fit)
            losses = [client.row_losses(client.predict(model_at(theta, m), batch), batch)[0] for m in range(self.components)]
            total = (torch.stack(losses, dim=-1) * q).sum(-1) * weight
            return total.sum(1) / weight.sum(1).clamp(min=torch.finfo(weight.dtype).tiny)

        return client.sgd(expected, received), {"pi": pi}

    def personal(self, received: Params, kept: Mapping[str, Any]) -> Params:
        """The components, and pi."""
        return {**received, "pi": kept["pi"]}

    def predict(self, client: Client, params: Params, x: Tensor) -> Tensor:
        """sum_m pi_m p(y | x, theta_m): probabilities are mixed, not logits."""
        out = [client.signature.forward(model_at(params, m), x) for m in range(self.components)]
        return client.signature.objective.mixed(torch.stack(out), params["pi"].T)

    def infer(self, client: Client, received: Params) -> dict[str, Tensor]:
        """Every client's mixture, by E- and M-steps on pi with the components as they are."""
        models = [model_at(received, m) for m in range(self.components)]
        fits = [self._fit(client, models, batch) for batch in client.scan()]
        pi = self.start(client, {})["pi"]
        for _ in range(LOOKS):
            pi = _shares([(_posterior(pi, fit), weight) for fit, weight in fits])
        return {"mixture": pi}


def _posterior(pi: Tensor, fit: Tensor) -> Tensor:
    """q [C, B, M] ~ pi_m exp(fit), which sums to 1 over m."""
    return (fit + pi.log().unsqueeze(1)).softmax(-1)


def _shares(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """[C, M] the mean of q [C, B, M] over all rows, by their weights [C, B]."""
    total = mass = torch.zeros(())
    for q, weight in parts:
        total, mass = total + (q * weight.unsqueeze(-1)).sum(1), mass + weight.sum(1)
    return total / mass.clamp(min=torch.finfo(total.dtype).tiny).unsqueeze(-1)
