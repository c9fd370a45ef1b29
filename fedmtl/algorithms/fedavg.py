"""One global model: the weighted mean of the clients' models after local training.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas. Communication-Efficient Learning of Deep Networks from Decentralized Data.
AISTATS 2017. arXiv:1602.05629

Sends: w, the model. Keeps: nothing. Server: weighted mean of w.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedmtl.algorithms.base import Algorithm, Update
from fedmtl.algorithms.steps import Client
from fedmtl.trees import Params


@dataclass(frozen=True, kw_only=True)
class Fedavg(Algorithm):
    """FedAvg."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """ClientUpdate of Algorithm 1."""
        return client.sgd(client.loss, received), {}
