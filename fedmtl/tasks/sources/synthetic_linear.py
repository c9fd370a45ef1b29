"""Linear regressions that share a known subspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from fedmtl.errors import ScenarioError
from fedmtl.keys import generator, stream
from fedmtl.tasks.task import Samples, Source


@dataclass(frozen=True, kw_only=True)
class SyntheticLinear(Source):
    """Regressions y = w_i^T B^T x + noise: every client has a w_i of its own, all share the subspace B.

    Collins, Hassani, Mokhtari, Shakkottai. Exploiting Shared Representations for Personalized Federated Learning. ICML
    2021. arXiv:2102.07078, section 5.1

    B: [dim, rank] with orthonormal columns; w_i ~ N(0, I_rank); x ~ N(0, I_dim); noise ~ N(0, noise^2). Each client has
    `samples` rows, all parts together: with fewer training rows than `dim`, no client can find its own w_i^T B^T alone.
    A client's rows do not depend on how many clients there are.
    truth: "subspace" B [dim, rank], "weights" w [clients, rank].
    """

    dim: Annotated[int, Field(gt=0)] = 20
    rank: Annotated[int, Field(gt=0)] = 2
    samples: Annotated[int, Field(gt=0)] = 25
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.1

    def load(self, clients: int, seed: int) -> Samples:
        """x: [clients * samples, dim], y: [clients * samples, 1], client after client."""
        if clients < 1:
            raise ScenarioError("tasks.clients", f"data are made for each client: 1 or more are needed, not {clients}")
        if self.rank > self.dim:
            raise ScenarioError("tasks.rank", f"rank {self.rank} does not fit into {self.dim} dimensions (tasks.dim)")
        draw = {name: generator(stream(seed, f"tasks.synthetic-linear.{name}")) for name in ("b", "w", "x", "z")}
        b = np.linalg.qr(draw["b"].standard_normal((self.dim, self.rank)))[0]
        w = draw["w"].standard_normal((clients, self.rank))
        x = draw["x"].standard_normal((clients * self.samples, self.dim), dtype=np.float32)
        owner = np.repeat(np.arange(clients, dtype=np.int64), self.samples)
        y = np.einsum("nk,nk->n", np.einsum("nd,dk->nk", x, b.astype(np.float32)), w.astype(np.float32)[owner])
        if self.noise > 0:
            y = y + np.float32(self.noise) * draw["z"].standard_normal(len(y), dtype=np.float32)
        return Samples(x=x, y=y[:, None].astype(np.float32), owner=owner, task="synthetic-linear",
                       truth={"subspace": b, "weights": w})
