"""Weighted sums over clients whose bits do not depend on who computes them.

Clients are dealt to a fixed number of shards, by size and id alone. Inside a shard, rows are added one by one in float64, large
clients first; then the shards, in one way whoever holds them. A worker that holds whole shards may send their sums instead of its
rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmtl.trees import Params, flat

PIECE = 2**15
"""Numbers that are added before the next ones: a sum in float64 that stays in a processor's cache."""


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
    """Sums of weighted rows over whole shards, in float64. Add rows in the order of `order_of`.

    shards: those whose rows are added here, in rising order; sums: [len(shards), ...] of each leaf; parts: shards that others
    added up, and their sums.
    """

    shards: Sequence[int]
    sums: Params = field(default_factory=dict)
    parts: list[tuple[Sequence[int], Mapping[str, Tensor]]] = field(default_factory=list)

    def add(self, rows: Mapping[str, Tensor], weights: npt.NDArray[np.float64], shard: npt.NDArray[np.int64]) -> None:
        """Adds rows [K, ...] with weights [K] to the sums of their shards [K]."""
        places, weight = np.searchsorted(np.asarray(self.shards), shard), torch.from_numpy(weights).unsqueeze(1)
        index = torch.from_numpy(places)
        for name, leaf in rows.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros(len(self.shards), *leaf.shape[1:], dtype=torch.float64)
            to, own = self.sums[name].view(len(self.shards), -1), flat(leaf.detach().cpu())
            if leaf.numel() > PIECE and len(leaf) == 1:
                _add_to(to[places[0]], own[0], weight[0])
            else:
                to.index_add_(0, index, own * weight)

    def merge(self, shards: Sequence[int], sums: Mapping[str, Tensor]) -> None:
        """Takes over the sums [len(shards), ...] of whole shards from whoever computed them."""
        self.parts.append((shards, sums))

    def of(self, shards: Sequence[int]) -> Params:
        """The sums [len(shards), ...] of some of the shards that are added up here, in rising order."""
        if list(shards) == list(self.shards):
            return self.sums
        return {name: leaf[np.searchsorted(np.asarray(self.shards), shards)] for name, leaf in self.sums.items()}

    def shapes(self) -> dict[str, torch.Size]:
        """Of each leaf that of one row."""
        return {name: leaf.shape[1:] for _, sums in self._all() for name, leaf in sums.items()}

    def total(self) -> Params:
        """The sum over the shards, new tensors in float64, in the same way whoever added them up: the shards of a large leaf one
        after the other, of a small one all at once.
        """
        shapes = self.shapes()
        return {name: self._at_once(name, shape) if shape.numel() <= PIECE else self._in_turn(name, shape)
                for name, shape in shapes.items()}

    def _at_once(self, name: str, shape: torch.Size) -> Tensor:
        having = [(shards, sums[name]) for shards, sums in self._all() if name in sums]
        if len(having) == 1 and list(having[0][0]) == list(self.shards):
            return having[0][1].sum(0)
        if len(having) == 1 and len(having[0][0]) == 1:
            return having[0][1][0].clone()
        matrix = torch.zeros(len(self.shards), *shape, dtype=torch.float64)
        for shards, leaf in having:
            matrix.index_add_(0, torch.from_numpy(np.searchsorted(np.asarray(self.shards), shards)), leaf)
        return matrix.sum(0)

    def _in_turn(self, name: str, shape: torch.Size) -> Tensor:
        out = torch.zeros(shape, dtype=torch.float64)
        rows = [row for shards, sums in self._all() if name in sums for row in zip(shards, sums[name].unbind(), strict=True)]
        for _, leaf in sorted(rows, key=lambda row: row[0]):
            _add_to(out.view(-1), leaf.reshape(-1))
        return out

    def _all(self) -> list[tuple[Sequence[int], Mapping[str, Tensor]]]:
        return [*self.parts, (self.shards, self.sums)]


def _add_to(out: Tensor, row: Tensor, weight: Tensor | float = 1.0) -> None:
    """out += weight * row, of long vectors: piece by piece, so that the product stays in the processor's cache."""
    for there, piece in zip(torch.split(out, PIECE), torch.split(row, PIECE), strict=True):
        there.add_(piece.double() * weight)
