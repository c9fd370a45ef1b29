"""Which clients take part in a round: keyed, so that the same clients are picked whatever the runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedmtl import keys


@dataclass
class Standing:
    """What the server knows of its clients. sizes: [clients] training rows; loss: [clients] the last training loss, NaN if none."""

    sizes: npt.NDArray[np.int64]
    loss: npt.NDArray[np.float64]


class Scheduler(ABC):
    """A frozen dataclass; its fields are keys of [server] beside `participation`."""

    @abstractmethod
    def pick(self, round: int, count: int, standing: Standing, seed: int) -> list[int]:
        """`count` different clients for a round, by id; `count` is less than there are."""


def _draw(round: int, seed: int) -> np.random.Generator:
    return keys.generator(keys.stream(seed, "participation", round))


@dataclass(frozen=True, kw_only=True)
class Uniform(Scheduler):
    """Every client with the same chance, without replacement."""

    def pick(self, round: int, count: int, standing: Standing, seed: int) -> list[int]:
        """A uniform draw."""
        return sorted(_draw(round, seed).choice(len(standing.sizes), count, replace=False).tolist())


@dataclass(frozen=True, kw_only=True)
class BySize(Scheduler):
    """With chances in proportion to training rows, without replacement."""

    def pick(self, round: int, count: int, standing: Standing, seed: int) -> list[int]:
        """A weighted draw."""
        chance = standing.sizes / standing.sizes.sum()
        return sorted(_draw(round, seed).choice(len(chance), count, replace=False, p=chance).tolist())


@dataclass(frozen=True, kw_only=True)
class RoundRobin(Scheduler):
    """One after the other, so that every client takes part equally often."""

    def pick(self, round: int, count: int, standing: Standing, seed: int) -> list[int]:
        """The next `count` clients, in a keyed order."""
        order = keys.permutation(keys.stream(seed, "round robin"), len(standing.sizes))
        return sorted(order[np.arange((round - 1) * count, round * count) % len(order)].tolist())


@dataclass(frozen=True, kw_only=True)
class PowerOfChoice(Scheduler):
    """Of `candidates` times as many clients, drawn by size, those whose last training loss is largest; unseen ones come first.

    Cho, Wang, Joshi. Towards Understanding Biased Client Selection in Federated Learning. AISTATS 2022. arXiv:2010.01243
    """

    candidates: Annotated[int, Field(ge=1)] = 2

    def pick(self, round: int, count: int, standing: Standing, seed: int) -> list[int]:
        """The pow-d strategy, with the losses that are known instead of a round of questions (cpow-d's rpow-d variant)."""
        chance = standing.sizes / standing.sizes.sum()
        drawn = _draw(round, seed).choice(len(chance), min(count * self.candidates, len(chance)), replace=False, p=chance)
        loss = np.where(np.isnan(standing.loss[drawn]), np.inf, standing.loss[drawn])
        return sorted(drawn[np.lexsort((drawn, -loss))[:count]].tolist())
