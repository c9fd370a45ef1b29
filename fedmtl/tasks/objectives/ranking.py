"""Which of two rows comes first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from fedmtl.tasks.objectives.base import Direction, Numbers, Objective
from fedmtl.tasks.objectives.targets import check_one, values_of
from fedmtl.tasks.task import Array, Samples

NAN = float("nan")


@dataclass(frozen=True, kw_only=True)
class Ranking(Objective):
    """Pairwise ranking: the logistic loss of score differences within a batch, scored by the share of pairs in the right order.

    Burges, Shaked, Renshaw, Lazier, Deeds, Hamilton, Hullender. Learning to Rank using Gradient Descent (RankNet). ICML 2005.

    y: [N] int64 grades, missing where negative, or [N, 1] floats, NaN where missing; more is better. The loss of row i is the mean
    over rows j of its batch with y_j < y_i, and 0 where there is none; such rows count in the mean over rows. A missing row is in
    no pair.

    pairwise_accuracy counts equal scores half, and is the area under the ROC curve where there are two grades. ndcg is that of the
    first `k` (scikit-learn; needs y >= 0), kendall_tau is tau-b (scipy); all compare the rows of one client's part, as does loss.
    """

    metrics: ClassVar[dict[str, Direction]] = {
        "pairwise_accuracy": "max", "ndcg": "max", "kendall_tau": "max", "loss": "min"}
    rowwise: ClassVar[bool] = False
    k: PositiveInt = 10

    def outputs(self, samples: Samples) -> int:
        """One score."""
        check_one("ranking", samples)
        return 1

    def present(self, y: Tensor) -> Tensor:
        """Targets that are not NaN, grades that are not negative."""
        return ~values_of(y).isnan()

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """mean over {j: y_j < y_i} of softplus(-(s_i - s_j))."""
        s, v = out.squeeze(-1), values_of(y)
        pairs = v.unsqueeze(-1) > v.unsqueeze(-2)
        losses = F.softplus(s.unsqueeze(-2) - s.unsqueeze(-1))
        return losses.masked_fill(~pairs, 0).sum(-1) / pairs.sum(-1).clamp(min=1)

    def rows(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """None: a batch of evaluation holds rows of several parts, which must not be compared."""
        return {}

    def whole(self, out: Numbers, y: Array) -> dict[str, float]:
        """Every score; NaN where no two targets differ."""
        from scipy.stats import kendalltau
        from sklearn.metrics import ndcg_score

        s, v = out[:, 0], y.reshape(-1).astype(np.float64)
        if len(v) < 2 or np.ptp(v) == 0 or not np.isfinite(s).all():
            return dict.fromkeys(self.metrics, NAN)
        right, loss = self._compared(s, v)
        ndcg = float(ndcg_score(v[None], s[None], k=self.k)) if v.min() >= 0 else NAN
        tau = float(kendalltau(v, s).statistic) if np.ptp(s) > 0 else NAN
        return {"pairwise_accuracy": right, "ndcg": ndcg, "kendall_tau": tau, "loss": loss}

    def _compared(self, s: Numbers, v: Numbers) -> tuple[float, float]:
        """(the share of pairs in the right order, the mean loss), some rows against all at a time."""
        right = pairs = loss = 0.0
        for at in np.array_split(np.arange(len(v)), -(-len(v) // 256)):
            first = v[at, None] > v
            ahead = s[at, None] - s
            counts = first.sum(1)
            right += float(((ahead > 0) + 0.5 * (ahead == 0))[first].sum())
            pairs += float(counts.sum())
            loss += float((np.where(first, np.logaddexp(0, -ahead), 0).sum(1) / np.maximum(counts, 1)).sum())
        return right / pairs, loss / len(v)
