"""The same task seen otherwise: noise, gain, missing features and channels."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from fedmtl.errors import ScenarioError
from fedmtl.keys import fold, generator, stream, uniform
from fedmtl.registry import Amount, Share
from fedmtl.tasks.task import Rows, Samples, Transform
from fedmtl.tasks.transforms.common import chosen, lists_of, need_numbers, turn


@dataclass(frozen=True, kw_only=True)
class Noise(Transform):
    """Gaussian noise of a client's own strength on every number of x.

    Li, Diao, Chen, He. Federated Learning on Non-IID Data Silos: An Experimental Study. ICDE 2022. arXiv:2102.02079
    ("noise-based feature imbalance"; there client i of N has a variance in proportion to i / N)

    std: its standard deviation. vary: each client has a strength drawn evenly between 0 and std.
    """

    std: Amount = 0.1
    vary: bool = False

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """x + noise."""
        key = stream(seed, "tasks.noise", 0, client)
        std = np.float32(self.std * (uniform(fold(key, 1), 1)[0] if self.vary else 1))
        return replace(samples, x=samples.x + std * generator(key).standard_normal(samples.x.shape, dtype=np.float32))

    def check(self, samples: Samples) -> None:
        """Tokens take no noise."""
        need_numbers(samples, "noise")


@dataclass(frozen=True, kw_only=True)
class Scale(Transform):
    """A client's own gain: x is multiplied by one number.

    factors: numbers that clients take in turn; left out, each is drawn between 1 / spread and spread, evenly in its
    logarithm.
    """

    factors: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = ()
    spread: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """x times the client's factor."""
        drawn = self.spread ** (2 * uniform(stream(seed, "tasks.scale", 0, client), 1)[0] - 1)
        return replace(samples, x=samples.x * np.float32(turn(self.factors, client) if self.factors else drawn))

    def check(self, samples: Samples) -> None:
        """Tokens have no gain."""
        need_numbers(samples, "scale")


@dataclass(frozen=True, kw_only=True)
class _Kept(Transform):
    """A client sees a part of axis 1 of x."""

    kind: ClassVar[str]

    share: Share = 0.5
    keep: tuple[Annotated[int, Field(ge=0)], ...] | tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] = ()
    drop: bool = False

    def _lists(self) -> list[Rows]:
        return [np.array(one, dtype=np.int64) for one in lists_of(self.keep)]

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """x with the others at 0, or without them."""
        n = samples.x.shape[1]
        lists = self._lists()
        kept = turn(lists, client) if lists else chosen(f"tasks.{self.kind}", seed, client, n, max(1, round(self.share * n)))
        if self.drop:
            return replace(samples, x=np.ascontiguousarray(samples.x[:, kept]))
        x = np.zeros_like(samples.x)
        x[:, kept] = samples.x[:, kept]
        return replace(samples, x=x)

    @abstractmethod
    def check(self, samples: Samples) -> None:
        """The numbers must be places of axis 1; what is dropped must leave the same shape to all."""
        need_numbers(samples, self.kind)
        n, lists = samples.x.shape[1], self._lists()
        if any(not len(one) or one.max() >= n or len(np.unique(one)) < len(one) for one in lists):
            raise ScenarioError("tasks.transform.keep", f"lists of different numbers from 0 to {n - 1} are needed")
        if self.drop and len({len(one) for one in lists}) > 1:
            raise ScenarioError("tasks.transform.keep", "with drop, all lists must be equally long: clients share one shape")


@dataclass(frozen=True, kw_only=True)
class Features(_Kept):
    """A client sees some of the features of x [N, d] only.

    share: how many, of all, drawn by key; or keep: their numbers, or a list of such lists that clients take in turn. The
    others are 0; with drop they are left out, so that feature j is not the same for two clients.
    """

    kind: ClassVar[str] = "features"

    def check(self, samples: Samples) -> None:
        """Flat rows."""
        if samples.x.ndim != 2:
            problem = f"'features' needs rows of features, not {list(samples.x.shape[1:])}; see 'channels'"
            raise ScenarioError("tasks.transform.kind", problem)
        super().check(samples)


@dataclass(frozen=True, kw_only=True)
class Channels(_Kept):
    """A client sees some of the channels of x [N, channels, ...] only, as where a sensor is missing.

    share: how many, of all, drawn by key; or keep: their numbers, or a list of such lists that clients take in turn. The
    others are 0; with drop they are left out, so that channel j is not the same for two clients.
    """

    kind: ClassVar[str] = "channels"

    def check(self, samples: Samples) -> None:
        """Channels are axis 1 of at least three."""
        if samples.x.ndim < 3:
            raise ScenarioError("tasks.transform.kind", "'channels' needs x of [N, channels, ...]; see 'features'")
        super().check(samples)
