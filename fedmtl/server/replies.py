"""The accepted replies of one round, as a method's server half sees them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmtl.algorithms.steps import Client
from fedmtl.errors import ScenarioError
from fedmtl.server.reduce import ShardSums, order_of
from fedmtl.trees import Params

BLOCK = 64
"""Rows that are added to sums at once: they are in float64 while they are."""


@dataclass
class Gathered:
    """Replies client by client. parts: (clients [K], leaves [K, ...]) as they came in."""

    parts: list[tuple[list[int], Params]] = field(default_factory=list)

    @property
    def clients(self) -> list[int]:
        """Everyone whose reply is here."""
        return [client for clients, _ in self.parts for client in clients]

    def leave_out(self, clients: Collection[int]) -> None:
        """Forgets the replies of some clients."""
        if clients:
            self.parts = [(left, _at(rows, [i for i, client in enumerate(mine) if client in left])) for mine, rows in self.parts
                          if (left := [client for client in mine if client not in clients])]

    def form_of(self) -> dict[int, frozenset[tuple[str, torch.Size]]]:
        """The names and shapes that each client sent."""
        return {client: frozenset((name, leaf.shape[1:]) for name, leaf in rows.items())
                for clients, rows in self.parts for client in clients}

    def stacked(self, clients: Sequence[int], names: Collection[str] | None = None) -> Params:
        """The rows of `clients` in that order, [K, ...]: of the leaves that all of them sent, or of `names` among those."""
        wanted, place = set(clients), {client: i for i, client in enumerate(clients)}
        used = [(mine, rows) for mine, rows in self.parts if wanted & set(mine)]
        if not used:
            return {}
        common = [name for name in used[0][1] if all(name in rows for _, rows in used) and (names is None or name in names)]
        out = {name: used[0][1][name].new_empty(len(clients), *used[0][1][name].shape[1:]) for name in common}
        for mine, rows in used:
            chosen = [i for i, client in enumerate(mine) if client in wanted]
            to = torch.tensor([place[mine[i]] for i in chosen], dtype=torch.int64)
            some = rows if len(chosen) == len(mine) else _at({name: rows[name] for name in common}, chosen)
            for name, leaf in out.items():
                leaf.index_copy_(0, to, some[name])
        return out


def _at(rows: Params, where: list[int]) -> Params:
    index = torch.tensor(where, dtype=torch.int64)
    return {name: leaf.index_select(0, index) for name, leaf in rows.items()}


@dataclass
class Accepted:
    """See algorithms.base.Replies. sums: what trusted nodes added up; gathered: what came client by client.

    group, shard, sizes: [registered] of each client. weigh: clients to their weights; users: a name and clients to those of them
    whose model has that parameter; dtype: of each name. modulated: names whose mean is `modulate` of their rows instead.
    public: see Host.on_public.
    """

    round: int
    clients: list[int]
    sums: ShardSums
    gathered: Gathered
    group: npt.NDArray[np.int64]
    shard: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    weigh: Callable[[list[int]], npt.NDArray[np.float64]]
    users: Callable[[str, list[int]], Collection[int]]
    dtype: Callable[[str], torch.dtype]
    modulated: Collection[str] = ()
    modulate: Callable[[Params, Tensor], Params] = lambda rows, weights: rows
    public: Callable[[int, int], Client] | None = None
    _mean: Params = field(default_factory=dict)

    @property
    def registered(self) -> int:
        """All clients of the federation."""
        return len(self.group)

    @property
    def weights(self) -> Tensor:
        """[K] in float64, in the order of `clients`."""
        return torch.from_numpy(self.weigh(self.clients))

    def mean(self) -> Params:
        """The weighted mean of each leaf over the clients that have it, in its own dtype; see server.modulation, too."""
        if not self._mean:
            self._add()
            for name, total in self.sums.total().items():
                mass = float(self.weigh(list(self.users(name, self.clients))).sum())
                self._mean[name] = total.div_(mass).to(self.dtype(name))
            rows = self.gathered.stacked(self.clients, self.modulated) if self.modulated else {}
            self._mean |= self.modulate(rows, self.weights) if rows else {}
        return dict(self._mean)

    def rows(self) -> Params:
        """What each client sent, [K, ...] in the order of `clients`."""
        return self.gathered.stacked(self.clients)

    def means(self, weights: Tensor) -> Params:
        """The means of each leaf by every row of `weights` [M, K], over the clients that have it: [M, ...] in its own dtype."""
        totals: dict[str, tuple[Tensor, Tensor]] = {}
        place = {client: i for i, client in enumerate(self.clients)}
        for mine in self._alike():
            some = weights.double()[:, [place[client] for client in mine]]
            for name, leaf in self.gathered.stacked(mine).items():
                total, mass = totals.get(name, (torch.zeros(()), torch.zeros(())))
                totals[name] = total + torch.tensordot(some, leaf.double(), 1), mass + some.sum(1)
        return {name: (total / mass.reshape(-1, *[1] * (total.dim() - 1))).to(self.dtype(name))
                for name, (total, mass) in totals.items()}

    def on_public(self, models: int) -> Client:
        """A cohort on the public rows. Raises ScenarioError where nobody has given any."""
        if self.public is None:
            raise ScenarioError("tasks.public", "the server has no public rows here")
        return self.public(self.round, models)

    def _add(self) -> None:
        """Adds up the replies that came client by client."""
        for mine in self._alike():
            rows = {name: leaf for name, leaf in self.gathered.stacked(mine).items() if name not in self.modulated}
            for start in range(0, len(mine), BLOCK):
                some = mine[start : start + BLOCK]
                block = {name: leaf[start : start + BLOCK] for name, leaf in rows.items()}
                self.sums.add(block, self.weigh(some), self.shard[some])

    def _alike(self) -> Iterator[list[int]]:
        """The clients whose replies came one by one, group by group, in adding order."""
        ordered = order_of(self.sizes, self.gathered.clients)
        for group in np.unique(self.group[ordered]) if ordered else []:
            yield [client for client in ordered if self.group[client] == group]

    def sent(self) -> dict[str, int]:
        """The bytes of each leaf of one client's reply."""
        shapes = self.sums.shapes() | {name: leaf.shape[1:] for _, rows in self.gathered.parts for name, leaf in rows.items()}
        return {name: shape.numel() * self.dtype(name).itemsize for name, shape in shapes.items()}
