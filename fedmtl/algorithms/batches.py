"""The rows that clients of a cohort draw, step by step, and the mini-batches that are made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmtl import keys
from fedmtl.profiling import spans
from fedmtl.tasks.objectives import Objective
from fedmtl.trees import Params, Scalar, pick, scale, sub

Ints = npt.NDArray[np.int64]
GATHER = 2**22
"""Numbers of x that are gathered for coming batches at once."""
SCAN = 64
"""Rows of each client that are read at once where nothing is trained: fixed, so that no sum depends on the cohort."""


@dataclass(frozen=True)
class Batch:
    """x: [C, B, ...]; y: [C, B, ...]; weight: [C, B], 1/count on real rows and 0 on padding; noise: [C] dropout keys.

    active: how many clients, the first ones, still have rows. rows: [C, B] their numbers in the pool. real: [C] how many of them
    are no padding.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    active: int
    noise: Tensor | None
    rows: Tensor
    real: Ints

    def moved(self, params: Params, grads: Params, lr: Scalar) -> Params:
        """params - lr grads for the clients that still have rows; the others, and what has no gradient, keep every bit."""
        step = sub(pick(params, grads), scale(grads, lr))
        if self.active < len(self.weight):
            step = {name: torch.cat([leaf[: self.active], params[name][self.active :]]) for name, leaf in step.items()}
        return {**params, **step}


@dataclass(frozen=True)
class Rows:
    """The training rows of C clients: padded [C, longest] row numbers, counts [C]."""

    padded: Ints
    counts: Ints

    @classmethod
    def of(cls, rows: Sequence[Ints]) -> Rows:
        """From the row numbers of each client."""
        counts = np.array([len(r) for r in rows])
        padded = np.zeros((len(rows), counts.max(initial=1)), np.int64)
        for slot, r in enumerate(rows):
            padded[slot, : len(r)] = r
        return cls(padded, counts)

    def each(self) -> list[Ints]:
        """The row numbers of each client."""
        return [row[:count] for row, count in zip(self.padded, self.counts, strict=True)]

    def split(self, share: float) -> tuple[Rows, Rows]:
        """(the rest, `share` of every client's rows, rounded down): every so many rows."""
        number = np.arange(self.padded.shape[1])
        out = np.floor((number + 1) * share + 1e-9) > np.floor(number * share + 1e-9)
        return Rows.of([row[~out[: len(row)]] for row in self.each()]), Rows.of([row[out[: len(row)]] for row in self.each()])

    def scan(self, x: Tensor, y: Tensor) -> Iterator[Batch]:
        """Every row of the pool x, y once, in order; the weights are 1/n, so that sums over the batches are means over rows."""
        index = np.pad(self.padded, ((0, 0), (0, -self.padded.shape[1] % SCAN)))
        weight = (np.arange(index.shape[1]) < self.counts[:, None]) / np.maximum(self.counts, 1)[:, None]
        for start in range(0, index.shape[1], SCAN):
            some = slice(start, start + SCAN)
            yield gathered(x, y, index[:, some], weight[:, some], len(self.counts))


@dataclass(frozen=True)
class Schedule:
    """Of every step [T] and client [C]: rows [T, C, B], how many of them are real [T, C], weight [T, C, B], noise keys [T, C].

    A client goes from pass to pass at its own pace, so that the t-th batch of the cohort is the t-th of each client.
    """

    rows: Ints
    real: Ints
    weight: npt.NDArray[np.float64]
    noise: Ints | None

    @classmethod
    def of(cls, rows: Rows, order: Ints, drawn: Ints, batch_size: int, first_epoch: int, noise: keys.Keys | None,
           effort: npt.NDArray[np.float64]) -> Schedule:
        """order: [C, E, ...] which of its rows each client draws in each pass, the first drawn [C] of them; noise: keys [C].

        effort: [C] the share of its steps that each makes, one at least. Raises ValueError where a client makes more than the one
        before it.
        """
        clients, epochs, longest = len(drawn), order.shape[1], drawn.max(initial=1)
        width = min(batch_size, longest) if clients == 1 else batch_size
        own = np.maximum(-(-drawn // width), 1)
        made = made_of(own, epochs, effort)
        if (np.diff(np.where(drawn > 0, made, 0)) > 0).any():
            raise ValueError(f"clients of a cohort stand in order of falling steps, not {made.tolist()}")
        time = np.arange(made.max(initial=0))[:, None]
        at, step = np.minimum(time // own, max(epochs - 1, 0)), time % own
        real = np.where(time >= made, 0, np.minimum(np.maximum(drawn - step * width, 0), width))
        weight = (np.arange(width) < real[..., None]) / np.maximum(real, 1)[..., None]
        dropped = None if noise is None else keys.fold(noise, at + first_epoch, step, 1).astype(np.int64)
        place, one = np.minimum(step[..., None] * width + np.arange(width), longest - 1), np.arange(clients)[:, None]
        return cls(rows.padded[one, order[one, at[..., None], place]], real, weight, dropped)

    def batches(self, x: Tensor, y: Tensor) -> Iterator[Batch]:
        """The mini-batches, of rows of the pool x, y; several are gathered at once."""
        active, widths = (self.real > 0).sum(1).tolist(), self.real.max(1).tolist()
        _, clients, most = self.rows.shape
        at_once = max(1, GATHER // max(clients * most * x[:1].numel(), 1))
        for start in range(0, len(self.real), at_once):
            some = slice(start, start + at_once)
            with spans.span("data"):
                many = gathered(x, y, self.rows[some], self.weight[some], 0, None if self.noise is None else self.noise[some])
            for t in range(start, min(start + at_once, len(self.real))):
                if active[t]:
                    own: Any = t - start if clients > 1 else (t - start, slice(None), slice(widths[t]))
                    yield Batch(many.x[own], many.y[own], many.weight[own], active[t],
                                None if many.noise is None else many.noise[t - start], many.rows[own], self.real[t])


def made_of(steps: Ints, epochs: int, effort: npt.NDArray[np.float64]) -> Ints:
    """[C] how many steps clients with `steps` [C] in one pass make in `epochs` passes; it grows with steps times effort."""
    return np.minimum(np.maximum(np.ceil(epochs * (steps * effort) - 1e-9), 1).astype(np.int64), epochs * steps)


def gathered(x: Tensor, y: Tensor, rows: Ints, weight: npt.NDArray[np.float64], active: int, noise: Ints | None = None) -> Batch:
    """The batch, or the batches [T, ...], of some rows of the pool x, y."""
    device, shape = x.device, rows.shape
    index = torch.from_numpy(rows.ravel()).to(device)
    weights = torch.from_numpy(weight).to(device, x.dtype)
    keyed = None if noise is None else torch.from_numpy(noise).to(device)
    some = [pool.index_select(0, index).reshape(*shape, *pool.shape[1:]) for pool in (x, y)]
    return Batch(some[0], some[1], weights, active, keyed, index.reshape(shape), (weight > 0).sum(-1))


def row_losses(objective: Objective, out: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """(losses, weights), [C, B] each, of outputs [C, B, outputs]; weights are the batch's, and 0 on rows without a label."""
    y = batch.y if objective.rowwise else _without_padding(batch)
    losses, present = objective.loss(out, y), objective.present(y)
    return losses, batch.weight if present is None else batch.weight * present


def _without_padding(batch: Batch) -> Tensor:
    """The targets, with rows that only fill a batch up marked as having no label."""
    padding = (batch.weight == 0).reshape(*batch.weight.shape, *[1] * (batch.y.dim() - 2))
    return batch.y.masked_fill(padding, float("nan") if batch.y.is_floating_point() else -1)
