"""A shared trunk and a private head, trained jointly.

Arivazhagan, Aggarwal, Singh, Choudhary. Federated Learning with Personalization Layers. 2019. arXiv:1912.00818

Sends: phi, the trunk. Keeps: h, the head. Server: weighted mean of phi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedmtl.algorithms.base import Algorithm, Update
from fedmtl.algorithms.steps import Client
from fedmtl.trees import Params


@dataclass(frozen=True, kw_only=True)
class Fedper(Algorithm):
    """FedPer: hard sharing. `share` selects the base layers; `all` is FedAvg, `none` is local training."""

    share: str = "trunk"

    @property
    def wire(self) -> str:
        """The base layers."""
        return self.share

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """Algorithm 2: joint SGD on base and personalisation layers."""
        return client.share(client.sgd(client.loss, {**kept, **received}), self.share)
