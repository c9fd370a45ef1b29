"""Splits that look at no label: even, skewed in size, or as the data come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from fedmtl.errors import ScenarioError
from fedmtl.keys import permutation, stream
from fedmtl.tasks.splits.flower import check_clients
from fedmtl.tasks.task import Array, Rows, Samples, Split


def _by_size(samples: Samples, sizes: Rows, seed: int, kind: str) -> list[Rows]:
    """What Flower's SizePartitioner gives on rows in keyed order, without the seconds that importing it takes."""
    order = permutation(stream(seed, f"tasks.split.{kind}"), len(samples))
    return [np.sort(rows) for rows in np.split(order[: sizes.sum()], sizes.cumsum()[:-1])]


@dataclass(frozen=True, kw_only=True)
class Iid(Split):
    """Rows dealt at random, evenly: sizes differ by one at most. Every row is used."""

    def assign(self, samples: Samples, clients: int, seed: int) -> list[Rows]:
        """ScenarioError where there are more clients than rows."""
        check_clients(samples, clients)
        sizes = np.full(clients, len(samples) // clients) + (np.arange(clients) < len(samples) % clients)
        return _by_size(samples, sizes, seed, "iid")


def _skewed(samples: Samples, clients: int, min_size: int, units: Callable[[Array], Array]) -> Rows:
    """[clients] sizes: `min_size` each, what is left in proportion to units(1..clients), the remainder to the last."""
    check_clients(samples, clients, max(min_size, 1))
    share = units(np.arange(1, clients + 1, dtype=np.float64))
    left = len(samples) - clients * min_size
    sizes: Rows = min_size + np.floor(left * (share / share.sum())).astype(np.int64)
    sizes[-1] += len(samples) - sizes.sum()
    if sizes.min() < 1:
        problem = f"{int((sizes < 1).sum())} of {clients} clients would have no row"
        raise ScenarioError("tasks.split.min-size", f"{problem}; 1 to {len(samples) // clients} would do")
    return sizes


@dataclass(frozen=True, kw_only=True)
class Linear(Split):
    """Sizes grow with the client's number: client i has i + 1 shares.

    min-size: every client gets so many rows first, and the rest is dealt by shares; 0 gives Flower's LinearPartitioner.
    """

    min_size: Annotated[int, Field(ge=0)] = 3

    def assign(self, samples: Samples, clients: int, seed: int) -> list[Rows]:
        """ScenarioError where the smallest client would have no row."""
        return _by_size(samples, _skewed(samples, clients, self.min_size, lambda i: i), seed, "linear")


@dataclass(frozen=True, kw_only=True)
class Square(Split):
    """Sizes grow with the square of the client's number: client i has (i + 1)^2 shares.

    min-size: every client gets so many rows first, and the rest is dealt by shares; 0 gives Flower's SquarePartitioner.
    """

    min_size: Annotated[int, Field(ge=0)] = 3

    def assign(self, samples: Samples, clients: int, seed: int) -> list[Rows]:
        """ScenarioError where the smallest client would have no row."""
        return _by_size(samples, _skewed(samples, clients, self.min_size, np.square), seed, "square")


@dataclass(frozen=True, kw_only=True)
class Exponential(Split):
    """Sizes grow exponentially with the client's number: client i has e^i shares, so the last has about 63 % of them.

    min-size: every client gets so many rows first, and the rest is dealt by shares; 0 gives Flower's
    ExponentialPartitioner.
    """

    min_size: Annotated[int, Field(ge=0)] = 3

    def assign(self, samples: Samples, clients: int, seed: int) -> list[Rows]:
        """ScenarioError where the smallest client would have no row."""
        sizes = _skewed(samples, clients, self.min_size, lambda i: np.exp(i - i[-1]))
        return _by_size(samples, sizes, seed, "exponential")


@dataclass(frozen=True, kw_only=True)
class Natural(Split):
    """Each natural owner of rows (person, sensor, writer, school) is a client.

    tasks.clients = 0 takes all owners, a smaller number the first ones in the order of their ids. min-size: owners with
    fewer rows are left out, and do not count.
    """

    min_size: Annotated[int, Field(ge=1)] = 1

    def assign(self, samples: Samples, clients: int, seed: int) -> list[Rows]:
        """ScenarioError where rows have no owners, or there are fewer owners than clients."""
        if samples.owner is None:
            others = ("iid", "dirichlet", "pathological", "shards", "linear", "square", "exponential")
            problem = "'natural' must know whose each row is (tasks.client)"
            raise ScenarioError("tasks.split.kind", problem, allowed=others)
        order = np.argsort(samples.owner, kind="stable").astype(np.int64)
        _, counts = np.unique(samples.owner, return_counts=True)
        owners: list[Any] = np.split(order, np.cumsum(counts)[:-1])
        large = [owners[i] for i in np.flatnonzero(counts >= self.min_size)]
        if not large or not 0 <= clients <= len(large):
            problem = f"{clients} clients, but {len(large)} owners have {self.min_size} or more rows"
            raise ScenarioError("tasks.clients", f"{problem}; 0 takes all of them")
        return large[:clients] if clients else large
