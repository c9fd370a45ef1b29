"""What happened in one round."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedmtl.server.messages import LEDGER
from fedmtl.server.relations import Affinity, Relations


@dataclass
class Round:
    """The record of a round. rejected, unscored: client to reason; scores: one value a client, in the order of `scored`.

    ledger: what the clients whose replies came, `replied` of them, say that they did and keep, all together, by LEDGER's names.
    effort: of who was picked, the share of its steps that server.pace leaves each, empty where it is all; work: (steps, samples) of
    each client then.
    """

    number: int
    sampled: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    loss: dict[int, float] = field(default_factory=dict)
    scored: list[int] = field(default_factory=list)
    unscored: dict[int, str] = field(default_factory=dict)
    scores: dict[tuple[str, ...], npt.NDArray[np.float64]] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_evaluate: int = 0
    replied: int = 0
    ledger: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LEDGER, 0))
    effort: dict[int, float] = field(default_factory=dict)
    work: dict[int, tuple[int, int]] = field(default_factory=dict)
    relations: Relations | None = None
    affinity: Affinity | None = None
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def means(self) -> dict[str, float]:
        """Of every score the mean over the clients that have it, as "test/personal/accuracy"; without what nobody has."""
        if not self.scores:
            return {}
        table = np.stack(list(self.scores.values()))
        count = (~np.isnan(table)).sum(1)
        total = np.nansum(table, axis=1)
        return {"/".join(key): float(total[i] / count[i]) for i, key in enumerate(self.scores) if count[i]}
