"""What is a client's own in its mean representation becomes a private vector, and the rest is drawn to everyone's mean.

Zhang, Hua, Cao, Wang, Song, Xue, Ma, Guan. Eliminating Domain Bias for Federated Learning in Representation Space. NeurIPS 2023.
arXiv:2311.14975

Sends: w, the model, and in the first round the mean of z. Keeps: a private vector on the representation. Server: weighted mean
of w; the weighted mean of the means, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from fedmtl.algorithms.base import Algorithm, Replies, Update
from fedmtl.algorithms.steps import Batch, Client
from fedmtl.registry import Amount, Share
from fedmtl.search import Span
from fedmtl.trees import Params, Tree, pick


@dataclass(frozen=True, kw_only=True)
class Feddbe(Algorithm):
    """FedAvg with DBE. kappa: strength of the mean's regularisation; mu: how much a batch counts in the running mean of z.

    The first round that ends well is FedAvg's; each client then tells the mean of z over its train rows. From there on z is
    phi(x) plus the private vector, which starts at 0, and kappa times the mean square of (running mean of phi(x) - everyone's)
    is added to the loss (as the paper has it; the authors' code adds half of that). The global model is w without a private vector.
    In the authors' code the clients first train an epoch that only serves to find the means, each by its running mean.
    """

    predicts: ClassVar[bool] = True
    statistics: ClassVar[tuple[str, ...]] = ("mean",)
    departs: ClassVar[Mapping[str, str]] = {"learns": "kappa = 50 holds the first rounds back"}

    kappa: Annotated[Amount, Span(1.0, 500.0)] = 50.0
    mu: Annotated[Share, Span(0.1, 1.0, even=True)] = 1.0

    def start(self, client: Client, model: Params) -> Tree:
        """The private vector is 0."""
        with torch.no_grad():
            some = client.signature.forward.body(model, client.x[:1].expand(client.size, 1, *client.x.shape[1:]))
        return {"bias": torch.zeros_like(some[:, 0])}

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """SGD on L(h(phi(x) + bias)) + kappa MSE(mean of phi(x), everyone's mean)."""
        w = pick(received, client.signature.layout.names)
        if "mean" not in received:
            theta = client.sgd(client.loss, w)
            return {**theta, "mean": self._mean(client, theta)}, dict(kept)
        running = torch.zeros_like(received["mean"])

        def unbiased(theta: Params, batch: Batch) -> Tensor:
            nonlocal running
            z = client.features(theta, batch)
            now = (1 - self.mu) * running + self.mu * (z * batch.weight.unsqueeze(-1)).sum(1)
            running = now.detach()
            out = client.head(theta, z + theta["bias"].unsqueeze(1), batch)
            return client.loss_of(out, batch, theta) + self.kappa * (now - received["mean"]).square().mean(1)

        theta = client.sgd(unbiased, {**w, "bias": kept["bias"]}, also=["bias"])
        return pick(theta, w), {"bias": theta["bias"]}

    @torch.no_grad()
    def _mean(self, client: Client, theta: Params) -> Tensor:
        """[C, features] the mean of z over all train rows."""
        parts = [client.features(theta, batch, training=False) * batch.weight.unsqueeze(-1) for batch in client.scan()]
        return torch.stack([part.sum(1) for part in parts]).sum(0)

    def personal(self, received: Params, kept: Mapping[str, Any]) -> Params:
        """w and the private vector."""
        return {**{name: leaf for name, leaf in received.items() if name != "mean"}, "bias": kept["bias"]}

    def predict(self, client: Client, params: Params, x: Tensor) -> Tensor:
        """h(phi(x) + bias)."""
        forward = client.signature.forward
        return forward.top(params, forward.body(params, x) + params["bias"].unsqueeze(1))

    def server(self, state: Params, replies: Replies) -> Params:
        """The mean of the means stays as it was first found."""
        return {**state, **replies.mean(), **pick(state, self.statistics)}
