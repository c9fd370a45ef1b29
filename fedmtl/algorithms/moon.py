"""FedAvg with a contrastive term: representations near the global model's, and away from the client's own last ones.

Li, He, Song. Model-Contrastive Federated Learning. CVPR 2021. arXiv:2103.16257

Sends: w, the model. Keeps: the model it sent last. Server: weighted mean of w.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fedmtl.algorithms.base import Algorithm, Update
from fedmtl.algorithms.steps import Batch, Client
from fedmtl.registry import Amount
from fedmtl.search import Among
from fedmtl.trees import Params, Tree, pick


@dataclass(frozen=True, kw_only=True)
class Moon(Algorithm):
    """MOON on what the trunk gives. mu 0 is FedAvg; the paper's best is 5 (CIFAR-10) or 1; tau is the temperature.

    Three forward passes a batch, where FedAvg has one. A client's last model is at first the initial one.
    """

    mu: Annotated[Amount, Among(0.1, 1.0, 5.0, 10.0)] = 1.0
    tau: Annotated[float, Field(gt=0, allow_inf_nan=False), Among(0.1, 0.5, 1.0)] = 0.5

    def start(self, client: Client, model: Params) -> Tree:
        """The initial model stands for the client's last one."""
        return model

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """Equations 3 and 4: F(w) + mu mean -log(e^near / (e^near + e^far)), cosines over tau to the received and last model."""
        last = pick(dict(kept), received)

        def contrasted(w: Params, batch: Batch) -> Tensor:
            z = client.features(w, batch)
            with torch.no_grad():
                others = [client.features(model, batch, training=False) for model in (received, last)]
            near, far = (F.cosine_similarity(z, other, dim=-1) / self.tau for other in others)
            contrast = (F.softplus(far - near) * batch.weight).sum(1)
            return client.loss_of(client.head(w, z, batch), batch, w) + self.mu * contrast

        w = client.sgd(contrasted, received)
        return w, w

    def personal(self, received: Params, kept: Mapping[str, Any]) -> Params:
        """w."""
        return received
