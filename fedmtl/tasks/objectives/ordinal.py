"""Classes that stand in an order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedmtl.registry import Count
from fedmtl.tasks.objectives.base import Direction, Numbers, Objective
from fedmtl.tasks.objectives.targets import check_one, count_classes, labels_of
from fedmtl.tasks.task import Array, Samples


@dataclass(frozen=True, kw_only=True)
class Ordinal(Objective):
    """Ordinal regression: cumulative logits and their likelihood, scored by how many classes a prediction is off.

    McCullagh. Regression Models for Ordinal Data. Journal of the Royal Statistical Society B 42, 1980.

    K classes, K - 1 outputs z: logit P(y > k) = o_k with o_0 = z_0 and o_k = o_{k-1} - softplus(z_k), so they fall. Where the
    gaps z_1 ... do not depend on x, as when the head has only biases there, these are McCullagh's proportional odds. Predicted is
    the median, the number of o_k above 0. y: [N] int64, or [N, 1] floats; NaN or -1 is a missing label. classes: how many, where
    the source does not name them. kappa is Cohen's, with quadratic weights (Psychological Bulletin 70, 1968).
    """

    metrics: ClassVar[dict[str, Direction]] = {"mae": "min", "accuracy": "max", "kappa": "max", "loss": "min"}
    classes: Count = 0

    def outputs(self, samples: Samples) -> int:
        """The number of classes less one."""
        count = count_classes("ordinal", samples, self.classes)
        check_one("ordinal", samples)
        return count - 1

    def present(self, y: Tensor) -> Tensor:
        """Labels that are neither NaN nor negative."""
        return labels_of(y) >= 0

    def log_probabilities(self, out: Tensor) -> Tensor:
        """[..., B, K]: log(s(o_{k-1}) - s(o_k)) = log s(o_{k-1}) + log s(-o_k) + log s(z_k), s the logistic function."""
        o, none = self._cumulative(out), torch.zeros_like(out[..., :1])
        above, below = torch.cat([none, F.logsigmoid(o)], -1), torch.cat([F.logsigmoid(-o), none], -1)
        return above + below + torch.cat([none, F.logsigmoid(out[..., 1:]), none], -1)

    @staticmethod
    def _cumulative(out: Tensor) -> Tensor:
        """o, [..., B, K - 1]."""
        return torch.cat([out[..., :1], -F.softplus(out[..., 1:])], -1).cumsum(-1)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """-log P(y)."""
        labels = labels_of(y)
        found = self.log_probabilities(out).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return -found.masked_fill(labels < 0, 0)

    def rows(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """How far off in classes, hits, and losses."""
        off = ((self._cumulative(out) > 0).sum(-1) - labels_of(y)).abs()
        return {"mae": off.to(out.dtype), "accuracy": (off == 0).to(out.dtype), "loss": self.loss(out, y)}

    def whole(self, out: Numbers, y: Array) -> dict[str, float]:
        """Kappa; NaN where labels and predictions are all of one class."""
        from sklearn.metrics import cohen_kappa_score

        true, said = y.reshape(-1).astype(np.int64), (self._cumulative(torch.from_numpy(out)) > 0).sum(-1).numpy()
        if len(np.union1d(true, said)) < 2 or not np.isfinite(out).all():
            return {"kappa": float("nan")}
        return {"kappa": float(cohen_kappa_score(true, said, labels=np.arange(out.shape[-1] + 1), weights="quadratic"))}
