"""Weighted sums over clients whose bits do not depend on who computes them.

Clients are dealt to a fixed number of shards, by size and id alone. Inside a shard, rows are added one by one in float64, large
clients first; then the shards, all at once. A worker that holds whole shards may send their sums instead of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmtl.trees import Params, flat


def deal(sizes: npt.NDArray[np.int64], shards: int, group: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """[clients] the shard of each client: by falling size, back and forth over the shards, so that they are even.

    group: [clients]; group g has shards g * shards to (g + 1) * shards - 1 to itself.
    """
    if group is not None and group.any():
        out = np.empty(len(sizes), np.int64)
        for g in np.unique(group):
            out[group == g] = g * shards + deal(sizes[group == g], shards)
        return out
    order = np.lexsort((np.arange(len(sizes)), -sizes))
    turn = np.arange(len(sizes)) % (2 * shards)
    shard = np.empty(len(sizes), np.int64)
    shard[order] = np.where(turn < shards, turn, 2 * shards - 1 - turn)
    return shard


def order_of(sizes: npt.NDArray[np.int64], clients: Sequence[int]) -> list[int]:
    """`clients` in the order in which they are added: by falling size, then by id."""
    ids = np.asarray(clients, dtype=np.int64)
    ordered: list[int] = ids[np.lexsort((ids, -sizes[ids]))].tolist()
    return ordered


@dataclass
class ShardSums:
    """Sums of weighted rows, [shards, ...] in float64 for each leaf. Add rows in the order of `order_of`."""

    shards: int
    sums: Params = field(default_factory=dict)

    def add(self, rows: Mapping[str, Tensor], weights: npt.NDArray[np.float64], shard: npt.NDArray[np.int64]) -> None:
        """Adds rows [K, ...] with weights [K] to the sums of their shards [K]."""
        index, weight = torch.from_numpy(shard), torch.from_numpy(weights)
        for name, leaf in rows.items():
            rows_of = flat(leaf.detach().cpu()) * weight.unsqueeze(1)
            if name not in self.sums:
                self.sums[name] = torch.zeros(self.shards, *leaf.shape[1:], dtype=torch.float64)
            self.sums[name].view(self.shards, -1).index_add_(0, index, rows_of)

    def merge(self, shard: Sequence[int], sums: Mapping[str, Tensor]) -> None:
        """Takes over the sums [len(shard), ...] of whole shards from whoever computed them."""
        index, everything = torch.tensor(shard, dtype=torch.int64), list(shard) == list(range(self.shards))
        for name, leaf in sums.items():
            if everything and name not in self.sums:
                self.sums[name] = leaf
                continue
            if name not in self.sums:
                self.sums[name] = torch.zeros(self.shards, *leaf.shape[1:], dtype=torch.float64)
            self.sums[name].index_add_(0, index, leaf)

    def of(self, shard: Sequence[int]) -> Params:
        """The sums [len(shard), ...] of some shards, in rising order."""
        return self.sums if len(shard) == self.shards else {name: leaf[shard] for name, leaf in self.sums.items()}

    def total(self) -> Params:
        """The sum over the shards in float64, always of the same matrix, however many workers filled it."""
        return {name: leaf.sum(0) for name, leaf in self.sums.items()}
