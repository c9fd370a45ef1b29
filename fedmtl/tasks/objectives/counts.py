"""Metrics that are ratios of counts by class: means over rows of counts give them exactly, so no row need be kept.

As in scikit-learn: f1_score(average="macro", zero_division=nan) and jaccard_score(average="macro") average over classes that occur
among labels or predictions, balanced_accuracy_score over classes that occur among labels.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fedmtl.tasks.objectives.base import Numbers

PARTS = ("is", "called", "both")


def class_counts(called: Tensor, labels: Tensor, classes: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Of entries [..., B, E], labels -1 where missing: how many of a row are of class k, are called k, and both; each [..., B]."""
    names = torch.arange(classes, device=labels.device)
    true, said = labels.unsqueeze(-1) == names, called.masked_fill(labels < 0, -1).unsqueeze(-1) == names
    found = (true, said, true & said)
    return {f"{part}/{k}": column for part, hot in zip(PARTS, found, strict=True)
            for k, column in enumerate(hot.sum(-2).to(dtype).unbind(-1))}


def _stacked(means: Mapping[str, Numbers]) -> list[Numbers]:
    """The three counts, each [classes, ...]."""
    classes = sum(name.startswith("is/") for name in means)
    return [np.stack([means[f"{part}/{k}"] for k in range(classes)]) for part in PARTS]


def _mean_ratio(top: Numbers, bottom: Numbers) -> Numbers:
    """Mean over classes of top / bottom where bottom is not 0; NaN where it is 0 everywhere."""
    there = bottom > 0
    ratio = np.divide(top, bottom, out=np.zeros_like(top), where=there)
    mean: Numbers = np.divide(ratio.sum(0), there.sum(0), out=np.full(top.shape[1:], np.nan), where=there.any(0))
    return mean


def macro_f1(means: Mapping[str, Numbers]) -> Numbers:
    """2 both / (is + called), the mean over classes."""
    true, said, both = _stacked(means)
    return _mean_ratio(2 * both, true + said)


def mean_iou(means: Mapping[str, Numbers]) -> Numbers:
    """Intersection over union, both / (is + called - both), the mean over classes."""
    true, said, both = _stacked(means)
    return _mean_ratio(both, true + said - both)


def balanced_accuracy(means: Mapping[str, Numbers]) -> Numbers:
    """Recall, both / is, the mean over classes."""
    true, _, both = _stacked(means)
    return _mean_ratio(both, true)
