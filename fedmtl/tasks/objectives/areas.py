"""Areas under the ROC curve, of scikit-learn, with NaN where they are undefined."""

from __future__ import annotations

import numpy as np

from fedmtl.tasks.objectives.base import Numbers
from fedmtl.tasks.task import Array


def roc_auc(positive: Array, scores: Numbers) -> float:
    """Of truth values [n] and scores [n]; NaN where all are positive or none is, or where a score is not finite."""
    from sklearn.metrics import roc_auc_score

    if not 0 < positive.sum() < len(positive) or not np.isfinite(scores).all():
        return float("nan")
    return float(roc_auc_score(positive, scores))


def defined_mean(values: list[float]) -> float:
    """The mean of those that are not NaN; NaN where all are."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
