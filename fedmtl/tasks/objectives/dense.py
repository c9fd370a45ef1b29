"""A class for every entry of a row: pixels of an image, tokens of a sequence."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from fedmtl.registry import Count
from fedmtl.tasks.objectives.base import Direction, Numbers, Objective
from fedmtl.tasks.objectives.counts import class_counts, macro_f1, mean_iou
from fedmtl.tasks.objectives.targets import count_classes, entries_of, flat, known_mean, refused
from fedmtl.tasks.task import Samples


@dataclass(frozen=True, kw_only=True)
class _Dense(Objective):
    """What segmentation and tagging have in common: softmax cross-entropy, the mean over a row's labelled entries."""

    classes: Count = 0
    axes: PositiveInt = 1

    def outputs(self, samples: Samples) -> int:
        """Classes times entries."""
        kind = type(self).__name__.lower()
        if samples.y.ndim != 1 + self.axes:
            needs = f"a class for each entry, y [N, {', '.join('n' * self.axes)}] (tasks.objective.axes = {self.axes})"
            raise refused(kind, needs, samples, ["classification"])
        return count_classes(kind, samples, self.classes) * prod(samples.y.shape[1:])

    def present(self, y: Tensor) -> Tensor:
        """Rows that have a label."""
        return (entries_of(flat(y, self.axes)) >= 0).any(-1)

    @abstractmethod
    def logits(self, out: Tensor, entries: int) -> Tensor:
        """Outputs as [..., B, entries, classes]."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """mean over labelled entries e of -log softmax(out_e)[y_e]."""
        labels = entries_of(flat(y, self.axes))
        losses = F.cross_entropy(self.logits(out, labels.shape[-1]).flatten(0, -2), labels.flatten(), ignore_index=-1,
                                 reduction="none")
        return known_mean(losses.reshape(labels.shape), labels >= 0)

    def rows(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Losses, hits and labelled entries, and counts by class."""
        labels = entries_of(flat(y, self.axes))
        logits = self.logits(out, labels.shape[-1])
        called = logits.argmax(-1)
        return {"loss": self.loss(out, y), "hits": (called == labels).sum(-1).to(out.dtype),
                "known": (labels >= 0).sum(-1).to(out.dtype), **class_counts(called, labels, logits.shape[-1], out.dtype)}


@dataclass(frozen=True, kw_only=True)
class Segmentation(_Dense):
    """Segmentation: softmax cross-entropy of every pixel, scored by the mean over classes of intersection over union.

    y: [N, pixels], or with axes = 2 [N, H, W], of classes, -1 or NaN where a pixel has no label. Outputs are classes x pixels,
    class after class. A row's loss is the mean over its labelled pixels; pixel_accuracy and miou count a client's pixels alike,
    and miou leaves out classes that are neither there nor predicted. classes: how many, where the source does not name them.
    """

    metrics: ClassVar[dict[str, Direction]] = {"miou": "max", "pixel_accuracy": "max", "loss": "min"}

    def logits(self, out: Tensor, entries: int) -> Tensor:
        """Of classes x pixels."""
        return out.reshape(*out.shape[:-1], out.shape[-1] // entries, entries).transpose(-1, -2)

    def scores(self, means: dict[str, Numbers]) -> dict[str, Numbers]:
        """Ratios of counts, and the loss."""
        return {"miou": mean_iou(means), "pixel_accuracy": means["hits"] / means["known"], "loss": means["loss"]}


@dataclass(frozen=True, kw_only=True)
class Tagging(_Dense):
    """Sequence tagging: softmax cross-entropy of every token, scored by the share of tokens that are right.

    y: [N, L] of classes, -1 or NaN beyond a sequence's end. Outputs are L x classes, token after token. A row's loss is the mean
    over its tokens; token_accuracy and macro_f1 count a client's tokens alike. classes: how many, where the source does not name
    them.
    """

    metrics: ClassVar[dict[str, Direction]] = {"token_accuracy": "max", "macro_f1": "max", "loss": "min"}

    def logits(self, out: Tensor, entries: int) -> Tensor:
        """Of tokens x classes."""
        return out.reshape(*out.shape[:-1], entries, out.shape[-1] // entries)

    def scores(self, means: dict[str, Numbers]) -> dict[str, Numbers]:
        """Ratios of counts, and the loss."""
        return {"token_accuracy": means["hits"] / means["known"], "macro_f1": macro_f1(means), "loss": means["loss"]}
