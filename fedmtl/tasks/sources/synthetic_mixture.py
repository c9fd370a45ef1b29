"""Clients whose rows come from several linear models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedmtl.registry import Amount
from fedmtl.tasks.sources.drawing import SIGNS, Above, Kind, Positive, draw, linear, need_clients, owners
from fedmtl.tasks.task import Samples, Source


@dataclass(frozen=True, kw_only=True)
class SyntheticMixture(Source):
    """Each row of a client comes from one of M linear models, by the client's own mixture weights.

    Marfoq, Neglia, Bellet, Kameni, Vidal. Federated Multi-Task Learning under a Mixture of Distributions. NeurIPS 2021.
    arXiv:2108.10252, appendix (synthetic data: dim 150, 3 components, alpha 0.4, target "class")

    pi_i ~ Dirichlet(alpha, ..., alpha); theta_m ~ U[-1, 1]^dim; x ~ U[-1, 1]^dim, the same for all components; z ~ pi_i;
    target "value": y = theta_z^T x + noise * N(0, 1); "class": y ~ Bernoulli(sigmoid(theta_z^T x + noise * N(0, 1))). A
    client has `samples` rows, which do not depend on how many clients there are.
    truth: "mixture" pi [clients, components], "components" theta [components, dim].
    """

    components: Positive = 3
    alpha: Above = 0.4
    dim: Positive = 20
    samples: Positive = 100
    noise: Amount = 0.1
    target: Kind = "value"

    def load(self, clients: int, seed: int) -> Samples:
        """x: [clients * samples, dim], client after client."""
        need_clients(clients)
        name = "synthetic-mixture"
        pi = draw(seed, name, "mixture").dirichlet([self.alpha] * self.components, size=clients)
        theta = draw(seed, name, "components").uniform(-1, 1, (self.components, self.dim))
        owner = owners(self.samples, clients)
        x = draw(seed, name, "x").random((len(owner), self.dim), dtype=np.float32) * 2 - 1
        chance = draw(seed, name, "z").random(len(owner))
        z = (chance[:, None] >= np.cumsum(pi, axis=1)[owner, :-1]).sum(axis=1)
        y = linear(x, theta, z, self.noise, seed, name)
        truth = {"mixture": pi, "components": theta}
        if self.target == "value":
            return Samples(x=x, y=y[:, None], owner=owner, task=name, truth=truth)
        label = (draw(seed, name, "y").random(len(y)) * (1 + np.exp(-y.astype(np.float64))) < 1).astype(np.int64)
        return Samples(x=x, y=label, classes=SIGNS, owner=owner, task=name, truth=truth)
