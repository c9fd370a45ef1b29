"""Two copies of FedAvg that differ in nothing but the order in which clients draw their rows."""

from __future__ import annotations

from dataclasses import dataclass

from fedmtl.algorithms.fedavg import Fedavg


@dataclass(frozen=True, kw_only=True)
class Former(Fedavg):
    """FedAvg."""


@dataclass(frozen=True, kw_only=True)
class Latter(Fedavg):
    """FedAvg, with the rows of later epochs."""

    def local(self, client, received, kept):
        """ClientUpdate of FedAvg's Algorithm 1."""
        return client.sgd(client.loss, received, first_epoch=1000), {}
