"""Clients share what a class looks like to them, its mean representation, and no parameters: their models may be unlike.

Tan, Long, Liu, Zhou, Lu, Jiang, Zhang. FedProto: Federated Prototype Learning across Heterogeneous Clients. AAAI 2022.
arXiv:2105.00243

Sends: of each class the mean representation and the share of the rows. Keeps: the model. Server: the mean prototype of a class.
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
class Fedproto(Algorithm):
    """FedProto. lam is the pull of representations towards the prototypes; 0 is local training, but for how it predicts.

    A prototype is weighted by class counts (times what [server] weighting makes of a client). A client has no pull before it
    first receives prototypes; it predicts the nearest one, and before that with its head. All tasks must have the same classes
    and representations of one width; classification only.
    """

    shared: ClassVar[str] = "none"
    statistics: ClassVar[tuple[str, ...]] = ("prototypes", "share", "known")
    predicts: ClassVar[bool] = True

    lam: Annotated[Amount, Span(0.1, 4.0)] = 1.0

    def fits(self, signature: Signature) -> None:
        """Raises ScenarioError where a task is no classification."""
        require_classes(signature, "fedproto")

    def unites(self, signatures: Sequence[Signature]) -> None:
        """Raises ScenarioError where prototypes cannot be compared."""
        require_alike(signatures, "fedproto", features=True)

    def start(self, client: Client, model: Params) -> Tree:
        """The whole model."""
        return model

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """Equation 7: F(w) + lam mean (f(x) - Cbar_y)^2 over rows whose class is known; then the client's own prototypes."""

        def near_prototypes(w: Params, batch: Batch) -> Tensor:
            z, hot = client.features(w, batch), of_class(client, batch)
            known = torch.bmm(hot, received["known"].unsqueeze(2)).squeeze(2)
            apart = (z - torch.bmm(hot, received["prototypes"])).square().mean(2)
            return client.loss_of(client.head(w, z, batch), batch, w) + self.lam * (apart * known * batch.weight).sum(1)

        w = client.sgd(near_prototypes if received else client.loss, dict(kept))
        return self._prototypes(client, w), w

    @torch.no_grad()
    def _prototypes(self, client: Client, w: Params) -> Params:
        """Equation 3, times the share [C, K] of the rows that are of the class: 0 where a client has none."""
        total: Tensor = torch.zeros(())
        share: Tensor = torch.zeros(())
        for batch in client.scan():
            hot = of_class(client, batch) * batch.weight.unsqueeze(2)
            total = total + torch.bmm(hot.transpose(1, 2), client.features(w, batch, training=False))
            share = share + hot.sum(1)
        return {"prototypes": total, "share": share}

    def init(self, model: Params, wire: frozenset[str], clients: int) -> Params:
        """Nothing: how wide a representation is, clients say."""
        return {}

    def server(self, state: Params, replies: Replies) -> Params:
        """Equation 6: Cbar_c = sum_i n_ic C_ic / sum_i n_ic; that of a class which nobody had this time stays."""
        mean = replies.mean()
        share = mean["share"].unsqueeze(1)
        new = mean["prototypes"] / share.clamp(min=torch.finfo(share.dtype).tiny)
        old = state or {"prototypes": torch.zeros_like(new), "known": torch.zeros_like(mean["share"])}
        return {"prototypes": torch.where(share > 0, new, old["prototypes"]),
                "known": old["known"].maximum((mean["share"] > 0).to(new))}

    def personal(self, received: Params, kept: Mapping[str, Any]) -> Params:
        """The model, and the prototypes by which it predicts."""
        return {**kept, **received}

    def predict(self, client: Client, params: Params, x: Tensor) -> Tensor:
        """-norm(f(x) - Cbar_c)^2, lower than all of them where a class has no prototype."""
        forward = client.signature.forward
        if "prototypes" not in params:
            return forward(params, x)
        apart = torch.cdist(forward.body(params, x), params["prototypes"]).square()
        never = apart.amax(2, keepdim=True) + 1
        return -torch.where(params["known"].unsqueeze(1) > 0, apart, never)
