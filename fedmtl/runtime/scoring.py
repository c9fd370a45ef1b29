"""Scoring a cohort: every client's held-out rows in batches, and what each metric says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmtl.algorithms.steps import Rows
from fedmtl.runtime.pool import Pool
from fedmtl.tasks.objectives import Objective
from fedmtl.tasks.task import Federation, PartName
from fedmtl.trees import Params

Numbers = npt.NDArray[np.float64]
EVAL_ROWS = 64
"""Rows of each client in one evaluation batch: fixed where clients share it, so that a client's scores do not depend on its
neighbours."""
CACHE_BYTES = 2**27
"""The rows that may be kept gathered for evaluation, in bytes."""

Key = tuple[PartName, str, str]
Scores = dict[Key, Numbers]
"""(part, model, metric) to one value a client."""


@dataclass
class Index:
    """Where a cohort's rows are. counts: [C, parts] rows to score; rows: of each client, part after part."""

    train: Rows
    counts: npt.NDArray[np.int64]
    rows: list[npt.NDArray[np.int64]]
    blocks: list[tuple[Tensor, Tensor, Tensor]] | None = None
    """The evaluation batches (x, y, weight [C, parts, EVAL_ROWS]), where they are kept."""


@dataclass
class Tally:
    """The scores of one task of a cohort, block by block. totals: [C, parts, quantities]; counts: [C, parts] labelled rows."""

    objective: Objective
    names: list[str] = field(default_factory=list)
    totals: Tensor | float = 0.0
    counts: Tensor | float = 0.0
    outs: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, weight: Tensor, present: Tensor | None, found: Params, out: tuple[Tensor, Tensor]) -> None:
        """One more block: weight [C, parts, B], which rows have a label [C, B], quantities [C, B], outputs and targets."""
        labelled = weight if present is None else weight * present.unsqueeze(1)
        self.counts = self.counts + labelled.sum(2)
        if found:
            self.totals = self.totals + torch.bmm(labelled, torch.stack(list(found.values()), dim=-1))
        self.names = list(found)
        self.outs.append(out)

    def scores(self, index: Index) -> dict[str, Numbers]:
        """Metric to values [C, parts]."""
        assert isinstance(self.counts, Tensor)
        mean = (self.totals / self.counts.unsqueeze(-1)).cpu().numpy()
        scores = self.objective.scores({name: mean[..., i] for i, name in enumerate(self.names)})
        return scores | self._whole(index) if set(self.objective.metrics) - set(scores) else scores

    def _whole(self, index: Index) -> dict[str, Numbers]:
        """Metrics [C, parts] that need all of a client's labelled rows at once."""
        out, y = (torch.cat([block[i] for block in self.outs], dim=1) for i in (0, 1))
        present = self.objective.present(y)
        made: dict[str, Numbers] = {}
        for slot, counts in enumerate(index.counts):
            for part, (end, count) in enumerate(zip(counts.cumsum(), counts, strict=True)):
                rows = torch.arange(int(end - count), int(end), device=y.device)
                rows = rows if present is None else rows[present[slot, rows]]
                found = self.objective.whole(out[slot, rows].double().cpu().numpy(), y[slot, rows].cpu().numpy())
                for name, value in found.items():
                    made.setdefault(name, np.full(index.counts.shape, np.nan))[slot, part] = value
        return made


@dataclass(frozen=True)
class Scorer:
    """Scores the clients of one group. parts: what is scored, in order; dtype: of weights and inputs."""

    federation: Federation
    objective: Objective
    parts: tuple[PartName, ...]
    dtype: torch.dtype

    def index(self, slots: Sequence[int]) -> Index:
        """Where a cohort's rows are."""
        rows = [[self.federation.part(c, part) for part in self.parts] for c in slots]
        return Index(Rows.of([self.federation.part(c, "train") for c in slots]),
                     np.array([[len(part) for part in own] for own in rows]), [np.concatenate(own) for own in rows])

    @torch.no_grad()
    def score(self, slots: Sequence[int], index: Index, pool: Pool,
              says: Callable[[Tensor], Tensor]) -> dict[tuple[PartName, str], Numbers]:
        """(part, metric) to the values [C] of what `says` outputs for inputs [C, B, ...]."""
        tallies = dict[str, Tally]()
        for x, y, weight in self._blocks(index, pool):
            out = says(x)
            in_units = self.objective.split(*self._in_units(slots, out, y))
            for (task, part, own, target), (_, _, said, true) in zip(self.objective.split(out, y), in_units, strict=True):
                found = part.rows(said, true)
                if self.federation.center is not None or task:
                    found["loss"] = part.loss(own, target)
                tallies.setdefault(task, Tally(part)).add(weight, part.present(target), found, (said, true))
        scores: dict[str, Numbers] = {}
        for task, tally in tallies.items():
            scores |= {f"{task}.{metric}" if task else metric: values for metric, values in tally.scores(index).items()}
        scores = self.objective.scores(scores) if self.objective.heads else scores
        return {(part, metric): values[:, i] for metric, values in scores.items() for i, part in enumerate(self.parts)}

    def _in_units(self, slots: Sequence[int], out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [C, B, outputs] and targets [C, B, k] as they would be without standardising."""
        center, spread = self.federation.center, self.federation.spread
        if center is None or spread is None:
            return out, y
        made = []
        for values, scales in ((out, [self.objective.by_output(scale) for scale in (spread, center)]), (y, [spread, center])):
            factor, shift = (torch.from_numpy(scale[list(slots)]).to(values).unsqueeze(1) for scale in scales)
            made.append(values * factor + shift)
        return made[0], made[1]

    def _blocks(self, index: Index, pool: Pool) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The evaluation batches of a cohort; kept gathered where all the clients' fit into CACHE_BYTES."""
        if index.blocks is not None:
            yield from index.blocks
            return
        made, x = [], pool.x
        keeps = self.federation.clients * EVAL_ROWS * x[:1].numel() * x.element_size() <= CACHE_BYTES
        for start in range(0, max(len(rows) for rows in index.rows), EVAL_ROWS):
            block = self._block(index, pool, start)
            yield block
            if keeps:
                made.append(block)
        if keeps:
            index.blocks = made

    def _block(self, index: Index, pool: Pool, start: int) -> tuple[Tensor, Tensor, Tensor]:
        ends = index.counts.cumsum(1)
        pieces = [rows[start : start + EVAL_ROWS] for rows in index.rows]
        place = np.zeros((len(pieces), EVAL_ROWS if len(pieces) > 1 else len(pieces[0])), np.int64)
        for slot, piece in enumerate(pieces):
            place[slot, : len(piece)] = piece
        position = np.arange(start, start + place.shape[1])
        mask = (position < ends[..., None]) & (position >= (ends - index.counts)[..., None])
        flat = torch.from_numpy(place).flatten().to(pool.device)
        x, y = (rows.index_select(0, flat) for rows in (pool.x, pool.y))
        return (x.reshape(*place.shape, *x.shape[1:]), y.reshape(*place.shape, *y.shape[1:]),
                torch.from_numpy(mask).to(x.device, self.dtype))
