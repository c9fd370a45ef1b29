"""The loss of clients that have several tasks each: what the levers of mtl.own_tasks make of the tasks' losses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedmtl.algorithms.batches import Batch, row_losses
from fedmtl.mtl.losses import Losses
from fedmtl.mtl.own_tasks import OwnTasks
from fedmtl.trees import Params

if TYPE_CHECKING:
    from fedmtl.algorithms.steps import Client


def balanced(client: Client, own: OwnTasks, out: Tensor, batch: Batch, params: Params) -> Tensor:
    """sum_t w_t L_t [C], L_t the mean over the rows of `batch` that have a label of task t; in training, teaches the levers."""
    objective = client.signature.objective
    sums, masses, rows = _by_task(client, out, batch)
    means = sums / masses.clamp(min=torch.finfo(masses.dtype).tiny)
    tasks = [(name, part) for name, part, _, _ in objective.split(out, batch.y)]
    numeric = torch.tensor([part.regresses for _, part in tasks], device=out.device)
    losses = Losses(means.detach(), rows, tuple(name for name, _ in tasks), numeric, client.key)
    teaching = torch.is_grad_enabled()
    shared = _shared(client, params) if teaching else {}
    total, learnt = own.loss(means, losses, shared, client.balance or client.begin_balance())
    if teaching:
        client.balance.update(learnt)
    return total


def _shared(client: Client, params: Params) -> Params:
    """The leaves that are trained and that a client's tasks share, in the order of the layers."""
    names = client.select("adapter+trunk")
    return {name: params[name] for name in client.signature.layout.names if name in names and params[name].requires_grad}


def _by_task(client: Client, out: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """[C, T] each: the weighted sum of a task's losses over its labelled rows, the sum of these weights, how many rows."""
    sums, masses, rows = [], [], []
    for _, part, own, y in client.signature.objective.split(out, batch.y):
        losses, weight = row_losses(part, own, replace(batch, y=y))
        sums.append((losses * weight).sum(1))
        masses.append(weight.sum(1))
        rows.append((weight > 0).sum(1))
    return torch.stack(sums, 1), torch.stack(masses, 1), torch.stack(rows, 1).to(out.dtype)
