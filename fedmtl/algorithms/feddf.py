"""One global model that learns, on public rows, what the clients' models say together: FedAvg's mean is only where it starts.

Lin, Kong, Stich, Jaggi. Ensemble Distillation for Robust Model Fusion in Federated Learning. NeurIPS 2020. arXiv:2006.07242

Sends: w, the model. Keeps: nothing. Server: the weighted mean of w, distilled from the mean of all outputs on the public rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from fedmtl.algorithms.base import Algorithm, Replies, Update
from fedmtl.algorithms.soft import apart, at
from fedmtl.algorithms.steps import Batch, Client, Signature
from fedmtl.errors import ScenarioError
from fedmtl.optimizers import Adam
from fedmtl.registry import Amount, Count
from fedmtl.search import Span
from fedmtl.trees import Params, expand, pick


@dataclass(frozen=True, kw_only=True)
class Feddf(Algorithm):
    """FedDF, Algorithm 1 (AVGLOGITS): `steps` steps of Adam on KL(softmax(mean logits) || softmax(student)), from FedAvg's mean.

    The rate falls from `server-lr` to 0 as a cosine. The authors take up to 10,000 steps and stop on held-out labels; here there
    are none, and `steps` is all: 0 is FedAvg. Every step costs the server a pass over `server-batch` public rows, besides one over
    all of them by each client's model. All clients share one model.
    """

    rows: ClassVar[bool] = True
    public: ClassVar[bool] = True
    averages: ClassVar[Literal["models"]] = "models"
    departs: ClassVar[Mapping[str, str]] = {
        "copies": "where student and teacher agree, Adam makes steps of its rate of rounding errors"}
    proven_with: ClassVar[Mapping[str, Any]] = {"steps": 20}

    steps: Count = 200
    server_lr: Annotated[Amount, Span(1e-4, 1e-2)] = 1e-3
    server_batch: PositiveInt = 128
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    def unites(self, signatures: Sequence[Signature]) -> None:
        """Raises ScenarioError: with groups there is no one model."""
        raise ScenarioError("algorithm.name", f"'feddf' distils into one model, which {len(signatures)} groups do not have")

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """As FedAvg."""
        return client.sgd(client.loss, received), {}

    def server(self, state: Params, replies: Replies) -> Params:
        """Lines 8 to 13: the student starts at the weighted mean and approaches the mean of the clients' outputs."""
        mean, rows = replies.mean(), replies.rows()
        if not self.steps:
            return {**state, **mean}
        room = replace(replies.on_public(1), batch_size=self.server_batch)
        said = [room.outputs({name: leaf[k : k + 1] for name, leaf in rows.items()}) for k in range(len(replies.clients))]
        student = self._distilled(room, expand(mean, 1), torch.stack(said).double().mean(0).to(said[0].dtype))
        return {**state, **{name: leaf[0] for name, leaf in student.items()}}

    def _distilled(self, room: Client, student: Params, teacher: Tensor) -> Params:
        """The student [1, ...] after its steps towards what the teacher says of the public rows, [1, P, outputs]."""
        student = room.signature.forward.working(student)
        free = pick(student, room.signature.layout.trainable)

        def far(w: Params, batch: Batch) -> Tensor:
            said = apart(room.signature.objective, room.predict(w, batch), at(teacher, batch.rows), self.temperature)
            return (said * batch.weight).sum(1)

        adam = Adam(lr=self.server_lr)
        state, passes = adam.start(free), math.ceil(self.steps / int(room.steps))
        for step, batch in enumerate(islice(room.batches(passes), self.steps), start=1):
            grads = room.grad(far, student, batch)
            rate = self.server_lr * (1 + math.cos(math.pi * (step - 1) / self.steps)) / 2
            replace(adam, lr=rate).step(free, grads, state, step)
        return student
