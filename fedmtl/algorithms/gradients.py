"""The gradient of a cohort's losses: in closed form where that is known, else by autograd."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedmtl.algorithms.batches import Batch
from fedmtl.models.stacked import descend
from fedmtl.trees import Params, Slopes, first

if TYPE_CHECKING:
    from fedmtl.algorithms.steps import Client

Loss = Callable[[Params, Batch], Tensor]


def gradient(client: Client, objective: Loss, params: Params, batch: Batch, names: Collection[str]) -> tuple[Tensor, Slopes]:
    """(losses [A], their gradient by `names`, [A, ...]), each client's own; A clients at least have rows in the batch.

    Counts the rows that went through the model.
    """
    with torch.no_grad():
        found = _closed_form(client, objective, params, batch, names)
    return _by_autograd(objective, params, batch, names) if found is None else found


def _closed_form(client: Client, objective: Loss, params: Params, batch: Batch,
                 names: Collection[str]) -> tuple[Tensor, Slopes] | None:
    """The same where it is known in closed form: of the plain loss of a stack of common layers.

    Of the first clients only, [A, ...]: those that still have rows, but two at least in a cohort, where a product of one matrix
    rounds differently.
    """
    signature = client.signature
    plain = objective == client.loss and signature.balance is None
    if not (plain and signature.objective.sloped(batch.y)):
        return None
    keyed = {} if batch.noise is None else dict.fromkeys(signature.forward.dropouts, batch.noise)
    some = max(batch.active, 2)
    leaves = {name: first(leaf, some) for name, leaf in (params | keyed).items()} if some < client.size else params | keyed
    if (climbed := signature.forward.climb(leaves, first(batch.x, some), names)) is None:
        return None
    client.work[2:] += batch.real
    out, steps = climbed
    weight = first(batch.weight, some)
    losses, slope = signature.objective.slope(out, first(batch.y, some))
    _, grads = descend(steps, slope.mul_(weight.unsqueeze(-1)))
    return (losses * weight).sum(1), grads


@torch.enable_grad()
def _by_autograd(objective: Loss, params: Params, batch: Batch, names: Collection[str]) -> tuple[Tensor, Slopes]:
    leaves = {name: params[name].detach().requires_grad_() for name in names}
    losses = objective({**params, **leaves}, batch)
    return losses, dict(zip(leaves, torch.autograd.grad(losses.sum(), list(leaves.values())), strict=True))


def for_all(leaf: Tensor, clients: int) -> Tensor:
    """A gradient [A, ...] of the first clients, for all [C, ...]: 0 for those whose rows are used up."""
    rest = clients - len(leaf)
    return torch.cat([leaf, leaf.new_zeros(rest, *leaf.shape[1:])]) if rest else leaf
