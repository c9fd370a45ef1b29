"""Clients tell each other what they say of each class on average, and learn from the others' answers: no parameters are shared.

Jeong, Oh, Kim, Park, Bennis, Kim. Communication-Efficient On-Device Machine Learning: Federated Distillation and Augmentation
under Non-IID Private Data. 2018. arXiv:1811.11479

Sends: of each class the mean of its softmax outputs. Keeps: the model. Server: of each class the mean of what the others said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from fedmtl.algorithms.base import Algorithm, Replies, Update
from fedmtl.algorithms.classes import of_class, require_alike, require_classes
from fedmtl.algorithms.steps import Batch, Client, Signature
from fedmtl.registry import Amount
from fedmtl.search import Span
from fedmtl.trees import Params, Tree


@dataclass(frozen=True, kw_only=True)
class Fd(Algorithm):
    """FD, without the augmentation (FAug). gamma is how much the teacher counts, of which the paper gives no value; 0 is local.

    The teacher of class c is the plain mean over the other clients that have said something of c, each by its last word; where
    nobody else has, it is the client's own. All tasks must have the same classes; classification only.
    """

    shared: ClassVar[str] = "none"
    statistics: ClassVar[tuple[str, ...]] = ("says", "has")
    rows: ClassVar[bool] = True
    addressed: ClassVar[bool] = True

    gamma: Annotated[Amount, Span(0.01, 10.0)] = 1.0

    def fits(self, signature: Signature) -> None:
        """Raises ScenarioError where a task is no classification."""
        require_classes(signature, "fd")

    def unites(self, signatures: Sequence[Signature]) -> None:
        """Raises ScenarioError where clients do not speak of the same classes."""
        require_alike(signatures, "fd")

    def start(self, client: Client, model: Params) -> Tree:
        """The whole model."""
        return model

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """Algorithm 1: F(w) + gamma mean cross-entropy(teacher of the row's class, softmax(w(x)))."""

        def taught(w: Params, batch: Batch) -> Tensor:
            out, hot = client.predict(w, batch), of_class(client, batch)
            teacher = torch.bmm(hot, received["says"] * received["has"].unsqueeze(2))
            return client.loss_of(out, batch, w) - self.gamma * ((teacher * out.log_softmax(2)).sum(2) * batch.weight).sum(1)

        w = client.sgd(taught if received else client.loss, dict(kept))
        return self._says(client, w), w

    @torch.no_grad()
    def _says(self, client: Client, w: Params) -> Params:
        """says [C, K, K]: of class c, row c, the mean softmax output over its rows; has [C, K]: 1 where there are any."""
        total: Tensor = torch.zeros(())
        count: Tensor = torch.zeros(())
        for batch in client.scan():
            hot = of_class(client, batch)
            total = total + torch.bmm(hot.transpose(1, 2), client.predict(w, batch, training=False).softmax(2))
            count = count + hot.sum(1)
        return {"says": total / count.clamp(min=1).unsqueeze(2), "has": (count > 0).to(total)}

    def init(self, model: Params, wire: frozenset[str], clients: int) -> Params:
        """Nothing: how many classes there are, clients say."""
        return {}

    def server(self, state: Params, replies: Replies) -> Params:
        """The last word of every client, [clients, K, K], and of which classes it has said any, [clients, K]."""
        where, said = torch.tensor(replies.clients), {f"server/{name}": leaf for name, leaf in replies.rows().items()}
        old = state or {name: leaf.new_zeros(replies.registered, *leaf.shape[1:]) for name, leaf in said.items()}
        return {name: old[name].index_copy(0, where, leaf) for name, leaf in said.items()}

    def sends_to(self, state: Params, clients: Sequence[int]) -> Params:
        """What the others say of each class, [K, classes, classes]."""
        if not state:
            return {}
        mine = torch.tensor(list(clients), dtype=torch.int64)
        says, has = state["server/says"], state["server/has"]
        total, count = (says.double() * has.unsqueeze(2)).sum(0), has.double().sum(0)
        own, here = says[mine], has[mine]
        others = (count - here).unsqueeze(2)
        teacher = (total - own * here.unsqueeze(2)) / others.clamp(min=1)
        return {"says": torch.where(others > 0, teacher.to(own), own), "has": (count > 0).to(here).expand_as(here)}
