"""What methods for classification need of a client's rows: how many there are of each class, and their mean representations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from fedmtl.algorithms.steps import Batch, Client, Signature
from fedmtl.errors import ScenarioError
from fedmtl.tasks.objectives.basic import Classification
from fedmtl.tasks.objectives.targets import labels_of
from fedmtl.trees import Params


def require_classes(signature: Signature, method: str) -> None:
    """Raises ScenarioError where a task has other targets than one class a row."""
    if not isinstance(signature.objective, Classification):
        kind = type(signature.objective).__name__.lower()
        raise ScenarioError("algorithm.name", f"'{method}' is a method for classification, not for '{kind}'")


def require_alike(signatures: Sequence[Signature], method: str, *, features: bool = False) -> None:
    """Raises ScenarioError where groups have unlike numbers of outputs or, with `features`, representations of unlike widths."""
    if len(outputs := {signature.outputs for signature in signatures}) > 1:
        raise ScenarioError("tasks.group", f"'{method}' compares what clients say of the same classes, but groups have "
                            f"{' and '.join(map(str, sorted(outputs)))} outputs")
    if features and len(widths := {signature.features for signature in signatures}) > 1:
        raise ScenarioError("tasks.group.trunk", f"'{method}' compares representations: the last layers of all trunks must have "
                            f"one width, not {' and '.join(map(str, sorted(widths)))}")


def of_class(client: Client, batch: Batch) -> Tensor:
    """[C, B, classes] 1 where a row has a label and is of that class, else 0."""
    labels = labels_of(batch.y)
    known = (labels >= 0) & (batch.weight > 0)
    return F.one_hot(labels.clamp(min=0), client.signature.outputs).to(batch.x.dtype) * known.unsqueeze(-1)


def class_counts(client: Client) -> Tensor:
    """[C, classes] labelled train rows of each class."""
    return torch.stack([of_class(client, batch).sum(1) for batch in client.scan()]).sum(0)


@torch.no_grad()
def class_sums(client: Client, params: Params) -> tuple[Tensor, Tensor, Tensor]:
    """Of the labelled train rows: (counts [C, classes], sums of z by class [C, classes, features], sums of norm(z)^2 [C])."""
    counts = sums = squares = torch.zeros((), device=client.x.device, dtype=client.x.dtype)
    for batch in client.scan():
        z, hot = client.features(params, batch, training=False), of_class(client, batch)
        counts, sums = counts + hot.sum(1), sums + hot.transpose(1, 2) @ z
        squares = squares + (z.square().sum(2) * hot.sum(2)).sum(1)
    return counts, sums, squares


@torch.no_grad()
def representations(client: Client, params: Params) -> tuple[Tensor, Tensor]:
    """(z [C, N, features], hot [C, N, classes]) of all train rows, as the trunk is used; N covers the longest client's rows."""
    parts = [(client.features(params, batch, training=False), of_class(client, batch)) for batch in client.scan()]
    z, hot = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
    return z, hot
