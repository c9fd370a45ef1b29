"""What a node's clients receive, and what a round of their training gives."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from fedmtl import trees
from fedmtl.trees import Params


@dataclass
class Trained:
    """What a round of training gave. clients: [K] ids that succeeded, in adding order; failed: id to reason.

    work: [K] of each client what it did and keeps, in the order of server.messages.LEDGER.

    Either rows, leaves [K, ...], or sums of whole shards, leaves [S, ...] in float64 with their shard numbers.
    """

    clients: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    work: list[tuple[int, ...]] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    rows: Params = field(default_factory=dict)
    sums: Params = field(default_factory=dict)
    shards: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Parcel:
    """What a node received: one set of parameters for all its clients, or where `row` says which is whose, [K, ...]."""

    params: Params
    row: Mapping[int, int] | None = None

    def to(self, clients: Sequence[int], names: Collection[str], device: torch.device) -> Params:
        """What each of `clients` received under names whose last part is one of `names`, with a client axis."""
        used = {name: leaf.to(device) for name, leaf in self.params.items() if name.rsplit("/", 1)[-1] in names}
        if self.row is None:
            return trees.expand(used, len(clients))
        index = torch.tensor([self.row[client] for client in clients], device=device)
        return {name: leaf.index_select(0, index) for name, leaf in used.items()}
