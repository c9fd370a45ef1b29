"""Clients with very different numbers of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fedmtl.errors import ScenarioError
from fedmtl.registry import Amount
from fedmtl.tasks.sources.drawing import Positive, basis, draw, linear, need_clients, normal, owners
from fedmtl.tasks.task import Samples, Source


@dataclass(frozen=True, kw_only=True)
class SyntheticImbalance(Source):
    """Regressions in a shared subspace, as 'synthetic-linear', but the last client has `ratio` times the rows of the first.

    Collins, Hassani, Mokhtari, Shakkottai. Exploiting Shared Representations for Personalized Federated Learning. ICML
    2021. arXiv:2102.07078, section 5.1 (there all clients have equally many)

    y = w_i^T B^T x + noise; B: [dim, rank] with orthonormal columns; w_i ~ N(0, I_rank); x ~ N(0, I_dim). Client i of C has
    smallest * ratio^(i / (C - 1)) rows, rounded: evenly spaced in the logarithm.
    truth: "subspace" B [dim, rank], "weights" w [clients, rank], "sizes" [clients].
    """

    smallest: Positive = 10
    ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1000.0
    dim: Positive = 20
    rank: Positive = 2
    noise: Amount = 0.1

    def load(self, clients: int, seed: int) -> Samples:
        """x: [N, dim], y: [N, 1], client after client, the smallest first."""
        need_clients(clients)
        if self.rank > self.dim:
            raise ScenarioError("tasks.rank", f"rank {self.rank} does not fit into {self.dim} dimensions (tasks.dim)")
        name = "synthetic-imbalance"
        sizes = np.rint(self.smallest * self.ratio ** (np.arange(clients) / max(clients - 1, 1))).astype(np.int64)
        b = basis(draw(seed, name, "subspace"), self.dim, self.rank)
        w = draw(seed, name, "weights").standard_normal((clients, self.rank))
        owner = owners(sizes, clients)
        x = normal(seed, name, len(owner), self.dim)
        y = linear(x, np.einsum("cr,dr->cd", w, b), owner, self.noise, seed, name)
        return Samples(x=x, y=y[:, None], owner=owner, task=name, truth={"subspace": b, "weights": w, "sizes": sizes})
