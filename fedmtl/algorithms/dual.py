"""Stochastic dual coordinate ascent for the linear models of a cohort (Shalev-Shwartz, Zhang. JMLR 14, 2013)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fedmtl import keys
from fedmtl.algorithms.steps import SCAN, Client
from fedmtl.errors import ScenarioError
from fedmtl.tasks.objectives import Objective
from fedmtl.tasks.objectives.basic import Classification
from fedmtl.tasks.objectives.binary import Binary
from fedmtl.trees import Params

Loss = Literal["hinge", "smooth-hinge", "squared"]
Wanted = Literal["auto", "hinge", "smooth-hinge", "squared"]


def loss_for(wanted: Wanted, objective: Objective) -> Loss:
    """The loss; "auto" is the hinge for classes and the squared one for numbers. Raises ScenarioError (algorithm.loss)."""
    if isinstance(objective, Classification | Binary):
        return "hinge" if wanted == "auto" else wanted
    if wanted not in ("auto", "squared") or not objective.regresses:
        raise ScenarioError("algorithm.loss", "a task without classes goes with the squared loss, and with numbers as targets")
    return "squared"


def linear_rows(client: Client, params: Params, bias: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(x [C, n, d], y [C, n, k], real [C, n]) of the training rows; x ends with a column of ones where there is a bias.

    Classes become signs, each against the rest. real: 1 where there is a row that has a label.
    """
    objective, parts = client.signature.objective, []
    for batch in client.scan():
        present = objective.present(batch.y)
        real = (batch.weight > 0) & (present if present is not None else torch.ones_like(batch.weight, dtype=torch.bool))
        parts.append((client.features(params, batch), batch.y, real))
    x, y, real = (torch.cat(list(part), dim=1) for part in zip(*parts, strict=True))
    if bias:
        x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    if objective.link != "identity":
        labels = y.reshape(*y.shape[:2]).nan_to_num(0).clamp(min=0).long()
        width = next(leaf for name, leaf in params.items() if name == "head.weight").shape[1]
        y = (F.one_hot(labels, width) if objective.link == "softmax" else labels.unsqueeze(-1)) * 2 - 1
    return x, y.to(x.dtype), real.to(x.dtype)


def primal(loss: Loss, m: Tensor, y: Tensor) -> Tensor:
    """loss(y, m), entry by entry."""
    if loss == "squared":
        return (m - y).square()
    short = (1 - y * m).clamp(min=0)
    return short if loss == "hinge" else torch.where(short <= 1, short.square() / 2, short - 0.5)


def conjugate(loss: Loss, alpha: Tensor, y: Tensor) -> Tensor:
    """loss*(-alpha), entry by entry."""
    curve = {"hinge": 0.0, "smooth-hinge": 0.5, "squared": 0.25}[loss]
    return curve * alpha.square() - alpha * y


def best(loss: Loss, alpha: Tensor, y: Tensor, m: Tensor, q: Tensor) -> Tensor:
    """The alpha that maximises -loss*(-alpha') - (alpha' - alpha) m - (alpha' - alpha)^2 q / 2, entry by entry."""
    q = q.clamp(min=torch.finfo(q.dtype).tiny)
    if loss == "squared":
        return alpha + (y - m - alpha / 2) / (q + 0.5)
    a, curve = y * alpha, 0.0 if loss == "hinge" else 1.0
    return y * (a + (1 - y * m - curve * a) / (q + curve)).clamp(0, 1)


def columns(head: Params) -> Tensor:
    """A linear layer's weight [C, k, d] and bias [C, k] as one [C, d + 1, k]."""
    parts = [head[name].reshape(*head[name].shape[:2], -1) for name in ("head.weight", "head.bias") if name in head]
    return torch.cat(parts, dim=2).transpose(1, 2)


def layers(rows: Tensor, like: Params) -> Params:
    """The inverse of columns: the leaves of `like`."""
    cut = like["head.weight"].shape[2]
    return {name: rows[:, :cut].transpose(1, 2) if name == "head.weight" else rows[:, -1] for name in like}


def mean_of(values: Tensor, real: Tensor) -> Tensor:
    """[C] the sum over k of the means over rows of [C, n, k]."""
    total = torch.zeros_like(real[:, 0])
    for some, there in zip(torch.split(values, SCAN, 1), torch.split(real, SCAN, 1), strict=True):
        total = total + (some.sum(-1) * there).sum(1)
    return total / _count(real)


def _count(real: Tensor) -> Tensor:
    return torch.stack([some.sum(1) for some in torch.split(real, SCAN, 1)]).sum(0).clamp(min=1)


def ascend(client: Client, rows: tuple[Tensor, Tensor, Tensor], loss: Loss, alpha: Tensor, w: Tensor, pull: Tensor,
           fraction: float) -> tuple[Tensor, Tensor]:
    """(the new alpha [C, n, k], the change of B = mean of alpha_i x_i, [C, d, k]) after `fraction` of the rows, in every epoch.

    w: [C, d, k], where B stands; pull: [C], how much w moves by a change of B. Rows are visited in a keyed order.
    """
    x, y, real = rows
    alpha, change, slot, n = alpha.clone(), torch.zeros_like(w), torch.arange(len(x), device=x.device)[:, None], _count(real)
    visits = np.ceil(fraction * client.effort * client.rows.counts - 1e-9).astype(np.int64)
    client.work += client.epochs * visits  # a step, a row, and each way through the layer
    most, pull = visits.max(initial=0), pull[:, None]
    goes_on = torch.from_numpy(np.arange(most) < visits[:, None]).to(x.device)
    q = pull * x.square().sum(2) / n[:, None]
    for epoch in range(client.epochs):
        bits = keys.fold(client.key[:, None], epoch, np.arange(x.shape[1]))
        bits[np.arange(x.shape[1]) >= client.rows.counts[:, None]] = np.iinfo(np.uint64).max
        order = torch.from_numpy(np.argsort(bits, axis=1, kind="stable")[:, :most]).to(x.device)
        olds, moves = alpha[slot, order], []
        mine = (x[slot, order], y[slot, order], olds, q[slot, order].unsqueeze(2), (goes_on & (real[slot, order] > 0)).unsqueeze(2))
        for xi, yi, old, qi, moves_on in zip(*(part.unbind(1) for part in mine), strict=True):
            m = (xi.unsqueeze(2) * (w + pull.unsqueeze(2) * change)).sum(1)
            moved = torch.where(moves_on, best(loss, old, yi, m, qi) - old, 0)
            change = change + xi.unsqueeze(2) * (moved / n[:, None]).unsqueeze(1)
            moves.append(moved)
        if moves:
            alpha[slot, order] = olds + torch.stack(moves, 1)
    return alpha, change
