"""The row itself, or another of its size, from a representation."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Annotated, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from fedmtl.tasks.objectives.base import Direction, Objective
from fedmtl.tasks.objectives.targets import flat, known_mean, refused
from fedmtl.tasks.task import Samples


@dataclass(frozen=True, kw_only=True)
class Reconstruction(Objective):
    """Reconstruction: squared error, the mean over a row's entries, scored by the same and by the peak signal-to-noise ratio.

    y: [N, entries] floats, or with axes = 2 [N, H, W] and so on; NaN where an entry is unknown. psnr, in decibels, is
    10 log10(peak^2 / mse) of each row, the mean over rows; peak is the range of the entries. Errors below what the numbers' type
    resolves count as that: an exact copy has a finite psnr.
    """

    metrics: ClassVar[dict[str, Direction]] = {"mse": "min", "psnr": "max", "loss": "min"}
    axes: PositiveInt = 1
    peak: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def outputs(self, samples: Samples) -> int:
        """As many as a row has entries."""
        y = samples.y
        if samples.classes or y.dtype.kind != "f" or y.ndim != 1 + self.axes:
            shape = f"[N, {', '.join('n' * self.axes)}]"
            raise refused("reconstruction", f"real-valued targets {shape} (tasks.objective.axes = {self.axes})", samples,
                          ["classification"])
        return prod(y.shape[1:])

    def present(self, y: Tensor) -> Tensor:
        """Rows that have a known entry."""
        return (~flat(y, self.axes).isnan()).any(-1)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """mean over known entries of (out - y)^2."""
        target = flat(y, self.axes)
        known = ~target.isnan()
        return known_mean((out - target).masked_fill(~known, 0).square(), known)

    def rows(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Squared errors and signal-to-noise ratios."""
        mse = self.loss(out, y)
        least = (self.peak * torch.finfo(out.dtype).eps) ** 2
        return {"mse": mse, "psnr": 10 * torch.log10(self.peak**2 / mse.clamp(min=least)), "loss": mse}
