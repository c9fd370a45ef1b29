"""A shared representation under private heads, trained in turn: the head first, then the representation.

Collins, Hassani, Mokhtari, Shakkottai. Exploiting Shared Representations for Personalized Federated Learning. ICML 2021.
arXiv:2102.07078

Sends: phi, the trunk. Keeps: h, the head. Server: weighted mean of phi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fedmtl.algorithms.base import Algorithm, Update
from fedmtl.algorithms.steps import Client
from fedmtl.registry import Count
from fedmtl.trees import Params


@dataclass(frozen=True, kw_only=True)
class Fedrep(Algorithm):
    """FedRep. The paper trains the head for 10 epochs and the representation for 1 (CIFAR-10) or 5."""

    shared: ClassVar[str] = "trunk"

    head_epochs: Count = 10
    trunk_epochs: Count = 1

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """Algorithm 1: tau_h epochs on h with phi frozen, then tau_phi epochs on phi with h frozen."""
        theta = client.sgd(client.loss, {**kept, **received}, train="head", epochs=self.head_epochs)
        theta = client.sgd(client.loss, theta, train="trunk", epochs=self.trunk_epochs, first_epoch=self.head_epochs)
        return client.share(theta, self.shared)
