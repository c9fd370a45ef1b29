"""Linear models whose tasks' relations are learned with them, by dual coordinate ascent at the clients.

Smith, Chiang, Sanjabi, Talwalkar. Federated Multi-Task Learning. NeurIPS 2017. arXiv:1705.10467 (MOCHA)

Sends: B_t = mean of alpha_i x_i, of the shape of the weights, and two sums that tell the duality gap. Keeps: alpha, and B_t.
Server: w_t = sum_s Sigma_ts B_s / lam, sent to client t; Sigma, how tasks relate, from W.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor

from fedmtl.algorithms import dual
from fedmtl.algorithms.base import Algorithm, Replies, Update
from fedmtl.algorithms.dual import linear_rows, mean_of
from fedmtl.algorithms.relation import Relation, correlations, dual_strength, first_sigma, renewed, strength, unmoved
from fedmtl.algorithms.several import of_clients, own_models, stack, with_models
from fedmtl.algorithms.steps import Client, Signature
from fedmtl.errors import ScenarioError
from fedmtl.registry import Amount, Share
from fedmtl.search import Span
from fedmtl.trees import Params, Tree, from_matrix, pick, scale


@dataclass(frozen=True, kw_only=True)
class Mocha(Algorithm):
    """MOCHA: min over W, Omega of sum_t mean_i loss(y_i, w_t x_i) + lam/2 tr(W Omega W^T); Sigma = Omega^-1.

    relation: "learned" is anew every `inner` rounds; otherwise Omega = I + tie L is fixed; see algorithms.relation. A round visits
    `fraction` of a client's rows, once for each of training.epochs; training.lr and batch-size mean nothing. eta: the share of a
    local step that is taken (the paper's gamma). loss: "auto" is the hinge for classes, each against the rest, (y - w x)^2 for
    numbers. x is what the trunk gives, never trained: with trunk = "flat" the inputs. A client has `capacity` rows at most.
    """

    shared: ClassVar[str] = "head"
    rows: ClassVar[bool] = True
    addressed: ClassVar[bool] = True
    own_loss: ClassVar[bool] = True
    statistics: ClassVar[tuple[str, ...]] = ("pull", "primal", "dual")
    proven_with: ClassVar[Mapping[str, Any]] = {"relation": "mean"}
    departs: ClassVar[Mapping[str, str]] = {"copies": "the sum over tasks is minimised, not their mean", "alike": "rows are drawn"}

    lam: Annotated[float, Field(gt=0, allow_inf_nan=False), Span(0.00001, 10.0)] = 0.01
    loss: dual.Wanted = "auto"
    relation: Relation = "learned"
    tie: Amount = 1.0
    edges: tuple[tuple[NonNegativeInt, NonNegativeInt], ...] = ()
    inner: PositiveInt = 10
    fraction: Share = 0.5
    eta: Share = 1.0
    capacity: PositiveInt = 4096

    def fits(self, signature: Signature) -> None:
        """Raises ScenarioError for another head than one linear layer, and for an objective that the loss is not for."""
        if signature.layout.roles["head"] - {"head.weight", "head.bias"}:
            raise ScenarioError("model.head", "mocha trains one linear layer, in one group of clients", allowed=["linear"])
        dual.loss_for(self.loss, signature.objective)

    def init(self, model: Params, wire: frozenset[str], clients: int) -> Params:
        """B = 0, and the first Sigma."""
        return {**own_models(scale(model, 0.0), wire, clients), **unmoved(clients), "server/rounds": torch.tensor(0.0),
                "server/sigma": first_sigma(self.relation, clients, self.tie, self.edges),
                "server/gap": torch.full((2,), torch.nan, dtype=torch.float64)}

    def sends_to(self, state: Params, clients: Sequence[int]) -> Params:
        """w_t, and how much it moves by a change of B_t: rho Sigma_tt / lam, rho = eta max_t sum_s abs(Sigma_ts) / Sigma_tt."""
        sigma, like = state["server/sigma"], of_clients(state, clients)
        rho = self.eta * (sigma.abs().sum(1) / sigma.diagonal()).max()
        rows = from_matrix((sigma @ stack(state) / self.lam)[list(clients)], like)
        w = {name: leaf.to(like[name].dtype) for name, leaf in rows.items()}
        return {**w, "pull": (rho * sigma.diagonal()[list(clients)] / self.lam).to(w["head.weight"].dtype)}

    def start(self, client: Client, model: Params) -> Tree:
        """alpha = 0 and B = 0, on the trunk as it is."""
        if (most := int(client.rows.counts.max())) > self.capacity:
            raise ScenarioError("algorithm.capacity", f"a client has {most} rows (got {self.capacity})")
        zero = scale(pick(model, client.select("head")), 0.0)
        return {**model, **zero, "alpha": client.x.new_zeros(client.size, self.capacity, zero["head.weight"].shape[1])}

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """Algorithm 1, lines 5 to 8: SDCA on the local subproblem. The two sums are those before it, at the received w."""
        loss, params = dual.loss_for(self.loss, client.signature.objective), {n: leaf for n, leaf in kept.items() if n != "alpha"}
        weight = pick(received, ("head.weight", "head.bias"))
        x, y, real = (part[:, : self.capacity] for part in linear_rows(client, params, len(weight) > 1))
        w, alpha, unused = dual.columns(weight), kept["alpha"][:, : x.shape[1]], kept["alpha"][:, x.shape[1] :]
        pays = {"primal": dual.primal(loss, torch.bmm(x, w), y), "dual": dual.conjugate(loss, alpha, y)}
        sums = {name: mean_of(values, real) for name, values in pays.items()}
        client.train_loss.append(sums["primal"])
        new, change = dual.ascend(client, (x, y, real), loss, alpha, w, received["pull"], self.fraction)
        b: Params = {name: kept[name] + self.eta * way for name, way in dual.layers(change, weight).items()}
        return {**b, **sums}, {**params, **b, "alpha": torch.cat([alpha + self.eta * (new - alpha), unused], dim=1)}

    def server(self, state: Params, replies: Replies) -> Params:
        """Lines 9 to 11: B, the gap at the W that was sent (where all clients answered), and Sigma where it is due."""
        rows, learned = replies.rows(), self.relation == "learned"
        sums = (rows.pop("primal") + rows.pop("dual")).double().sum()
        b, sigma, gaps, lam = stack(state), state["server/sigma"], state["server/gap"], self.lam
        gap = sums + lam / 2 * strength(sigma @ b / lam, sigma, learned) + dual_strength(b, sigma, learned) / (2 * lam)
        state = with_models(state, replies.clients, rows) | {"server/rounds": state["server/rounds"] + 1}
        if learned and int(state["server/rounds"]) % self.inner == 0:
            state |= renewed(state, stack(state), lam, int(state["server/rounds"]) // self.inner)
        known = gap if len(replies.clients) == len(sigma) else torch.full_like(gap, torch.nan)
        return {**state, "server/gap": torch.stack([known if gaps[0].isnan() else gaps[0], known])}

    def figures(self, state: Params) -> dict[str, float]:
        """The duality gap: the first one that was known, and that of the W that was sent last."""
        gaps = zip(("first", "last"), state["server/gap"].tolist(), strict=True)
        return {f"duality_gap_{which}": gap for which, gap in gaps if isfinite(gap)}

    def estimates(self, state: Params) -> dict[str, Tensor]:
        """The relation, as correlations."""
        return {"relation": correlations(state["server/sigma"])}
