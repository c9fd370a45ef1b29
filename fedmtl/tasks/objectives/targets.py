"""Targets as objectives read them: class labels with -1 for a missing one, numbers with NaN for one.

A pool of rows that holds NaN is of floats, so class labels may come as floats too. Then they have a target axis: labels of rows
are integers [..., B] or floats [..., B, 1].
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from fedmtl.errors import ScenarioError
from fedmtl.tasks.task import Samples


def entries_of(y: Tensor) -> Tensor:
    """Class labels of entries, int64 in the shape of y; -1 where missing (NaN or negative)."""
    return (y.nan_to_num(-1.0).long() if y.is_floating_point() else y).clamp(min=-1)


def labels_of(y: Tensor) -> Tensor:
    """Class labels of rows, [..., B] int64; -1 where missing."""
    return entries_of(y).squeeze(-1) if y.is_floating_point() else y.clamp(min=-1)


def values_of(y: Tensor) -> Tensor:
    """One number a row, [..., B] floats; NaN where missing. Integers are grades, missing where negative."""
    return y.squeeze(-1) if y.is_floating_point() else y.to(torch.get_default_dtype()).masked_fill(y < 0, torch.nan)


def flat(y: Tensor, axes: int) -> Tensor:
    """[..., B, entries] of targets whose rows have `axes` axes."""
    return y.flatten(-axes)


def known_mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean over the last axis where `known`; 0 where nothing is. The others' gradients are zero."""
    return values.masked_fill(~known, 0).sum(-1) / known.sum(-1).clamp(min=1)


def refused(kind: str, needs: str, samples: Samples, allowed: Iterable[str] = ()) -> ScenarioError:
    """The error that says what `kind` needs and what the source has instead."""
    shape = "".join(f", {n}" for n in samples.y.shape[1:])
    has = f"{len(samples.classes)} class labels" if samples.classes else f"targets [N{shape}] {samples.y.dtype}"
    return ScenarioError("tasks.objective", f"{kind} needs {needs}; this source has {has}", allowed=allowed)


def count_classes(kind: str, samples: Samples, classes: int, least: int = 2) -> int:
    """How many classes: `classes`, or where that is 0 as many as the source names.

    Raises ScenarioError where neither says it, where they differ, or where a label is none of 0 to classes - 1, -1 and NaN.
    """
    count = classes or len(samples.classes)
    if not count:
        raise refused(kind, "class labels, or tasks.objective.classes where they come as numbers", samples, ["regression"])
    if count < least or (samples.classes and count != len(samples.classes)):
        needs = f"at least {least} classes" if count < least else f"as many classes as tasks.objective.classes = {classes} says"
        raise refused(kind, needs, samples)
    labels = samples.y[~np.isnan(samples.y)] if samples.y.dtype.kind == "f" else samples.y
    wrong = labels[(labels < -1) | (labels >= count) | (labels != np.floor(labels))]
    if wrong.size:
        raise ScenarioError("tasks.objective", f"{kind} needs labels 0 to {count - 1}, and -1 or NaN where one is missing; this "
                            f"source has {wrong.flat[0]}")
    return count


def check_one(kind: str, samples: Samples) -> None:
    """Raises ScenarioError where rows have not one target each: [N] integers, or [N, 1] floats."""
    y = samples.y
    if not ((y.ndim == 1 and y.dtype.kind == "i") or (y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind == "f")):
        raise refused(kind, "one target a row, [N] int64 or [N, 1] floats", samples)
