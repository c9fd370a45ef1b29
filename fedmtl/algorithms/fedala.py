"""Each client starts from its own model and the global one, mixed element by element with weights that it learns.

Zhang, Hua, Wang, Song, Xue, Ma, Guan. FedALA: Adaptive Local Aggregation for Personalized Federated Learning. AAAI 2023.
arXiv:2212.01197

Sends: theta, the trained model. Keeps: theta, and W, the weights of its upper layers. Server: weighted mean of theta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fedmtl import keys
from fedmtl.algorithms.base import Algorithm, Update
from fedmtl.algorithms.steps import Client, Rows
from fedmtl.registry import Amount, Count, Share
from fedmtl.search import Span
from fedmtl.trees import Params, Tree, where

STILL, LAST = 0.1, 10
"""W is learned when the loss of the last passes has a smaller standard deviation than this, and of how many passes."""
SAMPLE = 0xA1A
"""Marks the draw of the sampled rows among the draws of a round."""


@dataclass(frozen=True, kw_only=True)
class Fedala(Algorithm):
    """FedALA. p: the upper layers that are mixed, counted from the output; those below are the global ones.

    W is learned with rate eta on a new sample of the train rows in each round: one pass, and the first time until the loss
    stands still, or at most `first_epochs` passes. Each costs a pass over the sample. No W is learned in round 1, where nobody
    differs from what is received. A client uses the mixture of what it received and its own model, by its last W.
    """

    proven_with: ClassVar[Mapping[str, Any]] = {"first_epochs": 11}

    eta: Annotated[Amount, Span(0.1, 10.0)] = 1.0
    sample: Annotated[Share, Span(0.2, 1.0, even=True)] = 0.8
    p: Annotated[Count, Span(1, 3)] = 2
    first_epochs: Count = 20

    def start(self, client: Client, model: Params) -> Tree:
        """The initial model; W all 1, which is the global model."""
        trainable = [name for name in client.signature.layout.names if name in client.signature.layout.trainable]
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in trainable))
        upper = set(layers[len(layers) - min(self.p, len(layers)):])
        mixed = {name: torch.ones_like(model[name]) for name in trainable if name.rpartition(".")[0] in upper}
        return {"own": model, "W": mixed, "learned": torch.zeros(client.size, dtype=torch.bool, device=client.x.device)}

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """Algorithm 1: learn W, start from the mixture, then SGD."""
        weights = kept.get("W", {})
        if client.round > 1 and weights:
            weights = self._learn(client, received, kept["own"], weights, kept["learned"])
        theta = client.sgd(client.loss, mixture(received, kept["own"], weights))
        return theta, {"own": theta, "W": weights, "learned": kept["learned"] | (client.round > 1)}

    def _learn(self, client: Client, received: Params, own: Params, weights: Params, learned: Tensor) -> Params:
        """W <- clip(W - eta grad L o (w^t - w_i)) on the sample."""
        sample, losses = sampled(client, self.sample), list[Tensor]()
        gap = {name: received[name] - own[name] for name in weights}
        going = torch.ones_like(learned)
        for epoch in range(max(self.first_epochs, 1)):
            once, new = replace(sample), weights
            for batch in once.batches(1, epoch):
                grads = once.grad(once.loss, mixture(received, own, new), batch)
                new = batch.moved(new, {name: grads[name] * difference for name, difference in gap.items()}, self.eta)
                new = {name: leaf.clamp(0, 1) for name, leaf in new.items()}
            weights = where(going, new, weights)
            losses.append(once.mean_train_loss())
            going = going & ~learned
            if len(losses) >= LAST:
                going = going & (torch.stack(losses[-LAST:]).std(0, correction=0) >= STILL)
            if not going.any():  # saves time only: nobody's W would change
                break
        return weights

    def personal(self, received: Params, kept: Mapping[str, Any]) -> Params:
        """The mixture."""
        return mixture(received, kept["own"], kept.get("W", {}))


def mixture(received: Params, own: Params, weights: Params) -> Params:
    """w_i + (w^t - w_i) o W where there are weights, else w^t; exact at 0 and 1."""
    return received | {name: own[name] * (1 - W) + received[name] * W for name, W in weights.items()}


def sampled(client: Client, share: float) -> Client:
    """The client with a random share of its train rows, one row at least: another sample in each round."""
    padded, counts = client.rows.padded, client.rows.counts
    bits = keys.fold(client.key[:, None], SAMPLE, np.arange(padded.shape[1]))
    bits[np.arange(padded.shape[1]) >= counts[:, None]] = np.iinfo(np.uint64).max
    drawn = np.take_along_axis(padded, np.argsort(bits, axis=1, kind="stable"), axis=1)
    fewer = np.minimum(counts, np.maximum(1, np.floor(share * counts + 1e-9).astype(np.int64)))
    return replace(client, rows=Rows(drawn[:, : fewer.max(initial=1)], fewer))
