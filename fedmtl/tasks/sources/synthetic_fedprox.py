"""Synthetic(alpha, beta), on which FedProx was tried."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedmtl.registry import Amount, Count
from fedmtl.tasks.sources.drawing import Positive, draw, need_clients, owners
from fedmtl.tasks.task import Samples, Source


@dataclass(frozen=True, kw_only=True)
class SyntheticFedprox(Source):
    """Softmax models and inputs that both differ from client to client, with sizes of a long tail.

    Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith. Federated Optimization in Heterogeneous Networks. MLSys 2020.
    arXiv:1812.06127, section 5.1 (Synthetic(alpha, beta): 30 devices, alpha = beta = 0, 0.5 or 1)

    y = argmax(softmax(W_i^T x + b_i)), W_i and b_i ~ N(u_i, 1), u_i ~ N(0, alpha): how much the models differ. x ~ N(v_i, S)
    with S diagonal, S_jj = j^-1.2, v_ij ~ N(B_i, 1), B_i ~ N(0, beta): how much the inputs differ. alpha and beta are standard
    deviations, as in the authors' code. iid: one W and b for all, and v_i = 0. samples: rows a client, 0 for the authors'
    50 + floor(lognormal(4, 2)). A client's rows do not depend on how many clients there are.
    truth: "weights" W [clients, dim, classes], "bias" b [clients, classes].
    """

    alpha: Amount = 0.5
    beta: Amount = 0.5
    iid: bool = False
    dim: Positive = 60
    classes: Positive = 10
    samples: Count = 0

    def load(self, clients: int, seed: int) -> Samples:
        """x: [N, dim], y: [N], client after client."""
        need_clients(clients)
        name, shape = "synthetic-fedprox", (clients, self.dim, self.classes)
        sizes = 50 + draw(seed, name, "sizes").lognormal(4, 2, clients).astype(np.int64)
        u = draw(seed, name, "u").standard_normal(clients) * self.alpha
        centre = draw(seed, name, "b").standard_normal(clients) * self.beta
        w = draw(seed, name, "weights").standard_normal(shape) + u[:, None, None]
        b = draw(seed, name, "bias").standard_normal((clients, self.classes)) + u[:, None]
        v = draw(seed, name, "v").standard_normal((clients, self.dim)) + centre[:, None]
        if self.iid:
            w, b, v = (np.broadcast_to(draw(seed, name, "one").standard_normal(shape[1:]), shape),
                       np.broadcast_to(draw(seed, name, "one bias").standard_normal(self.classes), b.shape), np.zeros_like(v))
        owner = owners(self.samples or sizes, clients)
        x = draw(seed, name, "x").standard_normal((len(owner), self.dim), dtype=np.float32)
        x = x * (np.arange(1, self.dim + 1) ** -0.6).astype(np.float32) + v.astype(np.float32)[owner]
        score = b[owner]
        for j in range(self.dim):  # feature by feature: no [N, dim, classes] copy of the weights
            score += x[:, j, None] * w[owner, j]
        return Samples(x=x, y=score.argmax(axis=1).astype(np.int64), classes=tuple(map(str, range(self.classes))),
                       owner=owner, task=name, truth={"weights": w, "bias": b})
