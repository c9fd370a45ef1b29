"""What a method sees of its clients: their loss and the local training loop.

A method is written for one client. What it gets is a cohort: every tensor has a leading axis [C], one slice a client, and
nothing that `Client` or trees offers mixes slices. Clients of a cohort may have different numbers of samples and steps; a
client that has none left keeps its slice, bit for bit, while others go on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmtl import keys
from fedmtl.algorithms.balanced import balanced
from fedmtl.algorithms.batches import SCAN, Batch, Ints, Rows, Schedule, made_of, row_losses
from fedmtl.algorithms.gradients import Loss, for_all, gradient
from fedmtl.errors import ScenarioError
from fedmtl.models.base import Layout
from fedmtl.models.stacked import Forward
from fedmtl.mtl.own_tasks import SAMPLER, OwnTasks, under
from fedmtl.mtl.sampling import Epochs, Sampler, strata
from fedmtl.optimizers import Optimizer
from fedmtl.profiling import spans
from fedmtl.tasks.objectives import Objective
from fedmtl.trees import Params, dense, expand, first

__all__ = ["SCAN", "Batch", "Client", "Loss", "Rows", "Signature"]

PUBLIC = 0x7075626C6963
"""Folded into a key, it gives that of the passes over the public rows."""
WORK = ("steps", "samples", "forward", "backward")
"""Steps; rows that they took gradients of; and rows through a model, with and without a gradient, and with one: once a model."""


@dataclass(frozen=True)
class Signature:
    """What clients must have in common to be one cohort."""

    forward: Forward
    layout: Layout
    objective: Objective
    outputs: int
    """How wide the head is."""
    balance: OwnTasks | None = None
    """How the losses of several tasks become one, and their gradients; None where there is one task."""
    features: int = 0
    """How wide the representation is."""


@dataclass
class Client:
    """A cohort of clients, read as one. x, y: the pool of rows; rows: which of them each client trains on; key: [C]."""

    signature: Signature
    x: Tensor
    y: Tensor
    rows: Rows
    key: keys.Keys
    optimizer: Optimizer
    batch_size: int
    epochs: int
    round: int = 0
    coin: keys.Keys = field(default_factory=lambda: np.zeros((), np.uint64))
    """The key of the round, the same at every client: for draws that all must agree on."""

    public: Tensor | None = None
    """[P, ...] the inputs that every client and the server see (tasks.public); None where there are none."""
    soft: Tensor | None = None
    """[rows of the pool, outputs] what each row's owner's teacher says of it (Algorithm.teachers), NaN where it has none."""
    balance: Params = field(default_factory=dict)
    """What the levers of a client's own tasks have learnt, [C, ...]: private; empty before the first batch."""
    sampler: Sampler = field(default_factory=Epochs)
    """Which rows a pass draws, and how many."""
    effort: npt.NDArray[np.float64] = field(default_factory=lambda: np.ones(1))
    """[C] or [1] the share of its steps that each client makes (server.pace)."""
    ids: Ints = field(default_factory=lambda: np.zeros(1, np.int64))
    """[C] each client's number in the federation, from 0: what the server calls it."""
    work: Ints = field(default_factory=lambda: np.zeros((len(WORK), 0), np.int64))
    """[4, C] what each client has done, in the order of WORK, also in cohorts made of this one."""

    def __post_init__(self) -> None:
        self.train_loss: list[Tensor] = []
        if self.work.shape[1] != self.size:
            self.work = np.zeros((len(WORK), self.size), np.int64)

    @property
    def size(self) -> int:
        """C, the number of clients."""
        return len(self.rows.counts)

    @property
    def n(self) -> Tensor:
        """[C] the number of training samples."""
        return torch.from_numpy(self.rows.counts).to(self.x.device)

    @property
    def steps(self) -> Tensor:
        """[C] the number of mini-batches in one pass."""
        drawn = self.sampler.rows(self.rows.counts, self.batch_size)
        return torch.from_numpy(-(-drawn // self.batch_size)).to(self.x.device)

    def made(self, epochs: int) -> Tensor:
        """[C] the number of steps in so many passes, as far as a client comes."""
        return torch.from_numpy(made_of(self.steps.cpu().numpy(), epochs, self.effort)).to(self.x.device)

    def select(self, selector: str) -> frozenset[str]:
        """The parameter names that a selector (trunk, head, norm, all, none and their sums) means."""
        return self.signature.layout.select(selector)

    def share(self, params: Params, selector: str) -> tuple[Params, Params]:
        """(what the selector names, the rest): what a method sends and what it keeps."""
        names = self.select(selector)
        return {k: v for k, v in params.items() if k in names}, {k: v for k, v in params.items() if k not in names}

    def predict(self, params: Params, batch: Batch, *, training: bool = True) -> Tensor:
        """The model's outputs on a batch, [C, B, outputs]; not in training it is as it is used, without dropout."""
        return self._passed(self.signature.forward, params, batch, training)

    def features(self, params: Params, batch: Batch, *, training: bool = True) -> Tensor:
        """The representation of a batch, [C, B, features]: what the trunk gives."""
        return self._passed(self.signature.forward.body, params, batch, training)

    def head(self, params: Params, z: Tensor, batch: Batch) -> Tensor:
        """The outputs [C, B, outputs] of the head for the representation z [C, B, features] of a batch."""
        return self._run(self.signature.forward.top, params, z, batch.noise)

    def _passed(self, forward: Forward, params: Params, batch: Batch, training: bool) -> Tensor:
        """What a batch becomes; counts its rows."""
        out = self._run(forward, params, batch.x, batch.noise) if training else forward(params, batch.x)
        self.work[2] += batch.real
        if out.requires_grad:
            self.work[3] += batch.real
        return out

    def _run(self, forward: Forward, params: Params, x: Tensor, noise: Tensor | None) -> Tensor:
        keyed = {} if noise is None else dict.fromkeys(forward.dropouts, noise)
        return forward({**params, **keyed}, x, training=True)

    def grad(self, objective: Loss, params: Params, batch: Batch) -> Params:
        """The gradient of `objective` by every trainable parameter, each client's own; its value counts as a training loss."""
        names = [k for k in params if k.rsplit("/", 1)[-1] in self.signature.layout.trainable]
        losses, found = gradient(self, objective, params, batch, names)
        self._took(batch, losses)
        return {name: for_all(dense(found[name]), self.size) for name in names}

    def _took(self, batch: Batch, losses: Tensor) -> None:
        """Counts a step."""
        self.train_loss.append(first(losses.detach(), batch.active))
        self.work[0, : batch.active] += 1
        self.work[1] += batch.real

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """Each client's mean loss on its labelled rows of the batch: [C], 0 where it has none."""
        return self.loss_of(self.predict(params, batch), batch, params)

    def loss_of(self, out: Tensor, batch: Batch, params: Params) -> Tensor:
        """The same of outputs [C, B, outputs] that were made with the trunk of `params`.

        Of several tasks it is the weighted sum, whose gradient by the trunk is the modulated one; each call may teach these levers.
        """
        if self.signature.balance is not None:
            return balanced(self, self.signature.balance, out, batch, params)
        losses, weight = self.row_losses(out, batch)
        total = (losses * weight).sum(1)
        return total if weight is batch.weight else total / weight.sum(1).clamp(min=torch.finfo(weight.dtype).tiny)

    def row_losses(self, out: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(losses, weights), [C, B] each, of outputs [C, B, outputs]; weights are the batch's, and 0 on rows without a label."""
        return row_losses(self.signature.objective, out, batch)

    def begin_balance(self) -> Params:
        """[C, ...] what the levers of a client's own tasks remember before the first batch."""
        own, tasks = self.signature.balance, len(self.signature.objective.heads)
        state = own.start(tasks) if own is not None else {}
        return expand({name: leaf.to(self.x.device, self.x.dtype if leaf.is_floating_point() else leaf.dtype)
                       for name, leaf in state.items()}, self.size)

    def end_balance(self) -> Params:
        """What they remember after the round."""
        own = self.signature.balance
        return own.close(self.balance) if own is not None and self.balance else self.balance

    @torch.no_grad()
    def mean_loss(self, params: Params) -> Tensor:
        """[C] the mean loss of a model on all labelled training rows, as it is used: without dropout. 0 where there are none."""
        params = self.signature.forward.working(params)  # of one order of memory, which decides on the last bits
        total = mass = torch.zeros((), device=self.x.device)
        for batch in self.scan():
            losses, weight = self.row_losses(self.predict(params, batch, training=False), batch)
            total, mass = total + (losses * weight).sum(1), mass + weight.sum(1)
        return total / mass.clamp(min=torch.finfo(mass.dtype).tiny)

    def scan(self) -> Iterator[Batch]:
        """All training rows once, in their order; the weights are 1/n, so that sums over the batches are means over rows."""
        return self.rows.scan(self.x, self.y)

    @torch.no_grad()
    def outputs(self, params: Params) -> Tensor:
        """[C, N, outputs] what a model says of all training rows, in their order; N is what the longest client has."""
        params = self.signature.forward.working(params)
        return torch.cat([self.predict(params, batch, training=False) for batch in self.scan()], 1)[:, : self.rows.padded.shape[1]]

    def on_public(self) -> Client:
        """The same cohort with the public rows, which have no labels, in the place of its own.

        Every client draws them in an order of its own; a batch's `rows` are their numbers. Losses there are not the round's.
        """
        if self.public is None:
            raise ScenarioError("tasks.public", "there are no rows that clients and server see")
        count = len(self.public)
        return replace(self, x=self.public, y=self.public.new_zeros(count), rows=Rows.of([np.arange(count)] * self.size),
                       key=keys.fold(self.key, PUBLIC), sampler=Epochs(), public=None, soft=None, effort=np.ones(1))

    def split(self, share: float) -> tuple[Client, Client]:
        """(the rest, `share` of every client's training rows, rounded down): every so many rows, the same ones in each round."""
        rest, held = (replace(self, rows=rows) for rows in self.rows.split(share))
        rest.train_loss = held.train_loss = self.train_loss
        return rest, held

    def sgd(self, objective: Loss, params: Params, *, train: str = "all", epochs: int | None = None, first_epoch: int = 0,
            lr: float | None = None, also: Collection[str] = ()) -> Params:
        """`params` after `epochs` passes over the training rows, minimising `objective` over the parts that `train` selects.

        also: leaves that are trained though the model does not have them. Several models may stand beside each other
        ("0/trunk.a", "1/trunk.a"). Every call starts a fresh optimiser. Calls with equal `first_epoch` see the same batches. The
        given tensors are never written to.
        """
        trainable = self.signature.layout.trainable
        names = {k for k in params if k.rsplit("/", 1)[-1] in self.select(train) & trainable} | set(also)
        state = {k: v.detach() if k.rsplit("/", 1)[-1] in trainable else v.detach().clone() for k, v in params.items()}
        free = {k: v for k, v in state.items() if k in names}
        if not free:
            return state
        free = self.signature.forward.working(free)
        optimizer = self.optimizer if lr is None else replace(self.optimizer, lr=lr)
        buffers, params = optimizer.start(free), {**state, **free}
        for step, batch in enumerate(self.batches(self.epochs if epochs is None else epochs, first_epoch), start=1):
            with spans.span("forward and backward"):
                losses, grads = gradient(self, objective, params, batch, free)
            self._took(batch, losses)
            with spans.span("optimiser"):
                optimizer.step(free, grads, buffers, step, batch.active)
        return params

    def batches(self, epochs: int, first_epoch: int = 0) -> Iterator[Batch]:
        """The clients' mini-batches in `epochs` passes over their rows, each drawn anew by the sampler; see Schedule."""
        with spans.span("data"):
            counts, passes = self.rows.counts, np.arange(first_epoch, first_epoch + epochs)
            drawn = self.sampler.rows(counts, self.batch_size)
            order = self.sampler.order(self.key, passes, counts, drawn, self._strata(), under(SAMPLER, self.balance))
            noise = self.key if self.signature.forward.dropouts else None
            schedule = Schedule.of(self.rows, order, drawn, self.batch_size, first_epoch, noise, self.effort)
        return schedule.batches(self.x, self.y)

    def _strata(self) -> list[npt.NDArray[np.bool_]]:
        """Of each client which rows are of which class, where the sampler looks at that."""
        if not self.sampler.stratified:
            return []
        found = [strata(self.signature.objective, self.y[torch.from_numpy(rows).to(self.y.device)]) for rows in self.rows.each()]
        return [one for one in found if one is not None]

    def mean_train_loss(self) -> Tensor:
        """[C] the mean of the objective over the steps so far, NaN for a client that made none."""
        if not self.train_loss:
            return torch.full((self.size,), torch.nan, device=self.x.device)
        total, made = self.train_loss[0].new_zeros(self.size), np.zeros(self.size)
        for losses in self.train_loss:
            total[: len(losses)] += losses
            made[: len(losses)] += 1
        return total / torch.from_numpy(made).to(total)
