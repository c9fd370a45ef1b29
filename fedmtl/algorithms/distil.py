"""Each client's own teacher, trained alone, then distilled into one student: a shared trunk under private heads.

Clark, Luong, Khandelwal, Manning, Le. BAM! Born-Again Multi-Task Networks for Natural Language Understanding. ACL 2019.
arXiv:1907.04829 (soft outputs at a temperature: Hinton, Vinyals, Dean. Distilling the Knowledge in a Neural Network. 2015.
arXiv:1503.02531)

Sends: phi, the student's trunk. Keeps: the teacher, whether it is trained, h, the student's head. Server: weighted mean of phi.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedmtl.algorithms.base import Algorithm, Update
from fedmtl.algorithms.soft import apart
from fedmtl.algorithms.steps import Batch, Client
from fedmtl.registry import Count, Share
from fedmtl.search import Span
from fedmtl.trees import Params, Tree


@dataclass(frozen=True, kw_only=True)
class Distil(Algorithm):
    """BAM, federated. `teachers` is the directory of a finished run on the same tasks, such as a Local run, whose best personal
    models teach; they may be of any kind and size. Left out, clients train teachers as large as the student, as Local does, in the
    first `teacher-rounds` rounds, which cost as many passes, and the student rests.

    Then the student minimises (1 - a) F + a D, F the loss on labels and D the distance to the teacher's outputs at `temperature`,
    on all rows, labelled or not. a goes from `alpha` to 0 within `anneal-rounds` rounds (0: it stays). Of several tasks D is the
    sum. A client without a teacher (it took no part in time) learns from labels alone. alpha 0 without teachers' rounds is
    FedPer. `share` selects what students share.
    """

    proven_with: ClassVar[Mapping[str, Any]] = {"teacher_rounds": 1}
    departs: ClassVar[Mapping[str, str]] = {"learns": "the student rests for the first 20 rounds"}

    teachers: str = ""
    share: str = "trunk"
    teacher_rounds: Count = 20
    alpha: Annotated[Share, Span(0.1, 1.0, even=True)] = 1.0
    anneal_rounds: Count = 40
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False), Span(1.0, 10.0)] = 2.0

    @property
    def wire(self) -> str:
        """What students share."""
        return self.share

    def start(self, client: Client, model: Params) -> Tree:
        """Teacher and student start at the initial model."""
        mine = client.share(model, self.share)[1]
        return mine if self.teachers else {**mine, "teacher": model, "taught": client.n.to(client.x.dtype) * 0}

    def weight(self, round: int) -> float:
        """a in a round: alpha in the first of the student's, 0 from `anneal-rounds` later on."""
        if not self.anneal_rounds:
            return self.alpha
        first = 1 if self.teachers else self.teacher_rounds + 1
        return self.alpha * max(0.0, 1 - (round - first) / self.anneal_rounds)

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """A round of the teacher's, or one of the student's."""
        if not self.teachers and client.round <= self.teacher_rounds:
            teacher = client.sgd(client.loss, dict(kept["teacher"]))
            return dict(received), {**kept, "teacher": teacher, "taught": torch.ones_like(kept["taught"])}
        weight, teacher = self.weight(client.round), client.signature.forward.working(dict(kept.get("teacher", {})))

        def mixture(w: Params, batch: Batch) -> Tensor:
            out = client.predict(w, batch)
            with torch.no_grad():
                soft = client.predict(teacher, batch, training=False) if client.soft is None else client.soft[batch.rows]
            spoken = soft.isfinite().all(2) | (batch.weight == 0)
            a = weight * (kept["taught"] if client.soft is None else spoken.all(1).to(out.dtype))
            mine, theirs = (client.signature.objective.split(said, batch.y) for said in (out, soft.nan_to_num()))
            far = [apart(task, own, other[2], self.temperature) for (_, task, own, _), other in zip(mine, theirs, strict=True)]
            return (1 - a) * client.loss_of(out, batch, w) + a * (torch.stack(far).sum(0) * batch.weight).sum(1)

        student = client.sgd(mixture if weight else client.loss, {**_student(kept), **received})
        sent, own = client.share(student, self.share)
        return sent, {**own, **{name: kept[name] for name in ("teacher", "taught") if name in kept}}

    def personal(self, received: Params, kept: Mapping[str, Any]) -> Params:
        """The student."""
        return {**_student(kept), **received}


def _student(kept: Mapping[str, Any]) -> Params:
    return {name: leaf for name, leaf in kept.items() if name not in ("teacher", "taught")}
