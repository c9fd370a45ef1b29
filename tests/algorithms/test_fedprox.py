"""FedProx by hand; its penalty has a gradient, linear in the distance, towards the received model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import SIZES, data, descend, mean, minus, near, same_bits, start, trial

from fedmtl import trees
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.fedprox import Fedprox


@pytest.mark.parametrize("mu", [0.01, 3.0])
def test_two_rounds_by_hand(mu: float) -> None:
    t = trial(Fedprox(mu=mu))
    w = start(t)
    for _ in range(2):
        w = mean([descend(w, *data(t, c), 2, extra=lambda v, w=w: minus(v, w, mu)) for c in (0, 1)], SIZES)
        near(t.rounds(1), w)


def test_mu_0_is_fedavg() -> None:
    a, b = trial(Fedprox(mu=0.0)), trial(Fedavg())
    near(a.rounds(3), b.rounds(3), 1e-14)


def test_default_is_not_fedavg() -> None:
    a, b = trial(Fedprox()).rounds(1), trial(Fedavg()).rounds(1)
    assert max((leaf - b[name]).abs().max() for name, leaf in a.items()) > 1e-6


def test_large_mu_holds_w_at_the_anchor() -> None:
    """With a step of 1 / mu, every step ends one gradient step from the anchor: nearer as mu grows."""
    gaps = []
    for mu in (10.0, 1000.0):
        t = trial(Fedprox(mu=mu), lr=1 / mu, epochs=5)
        w = start(t)
        by_hand = [descend(w, *data(t, c), 5, lr=1 / mu, extra=lambda v, w=w, mu=mu: minus(v, w, mu)) for c in (0, 1)]
        near(t.rounds(1), mean(by_hand, SIZES))
        gaps.append(max(np.abs(leaf.numpy() - w[name]).max() for name, leaf in t.state.items()))
    assert gaps[1] < gaps[0] / 50


def test_penalty_is_the_squared_norm() -> None:
    """The gradient at distance 2d is twice that at d."""
    anchor = {"w": torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}
    d = torch.tensor([[1.0, -2.0, 0.5], [0.1, 0.2, 0.3]], dtype=torch.float64)
    found = []
    for far in (1, 2):
        w = {"w": (anchor["w"] + far * d).requires_grad_()}
        found.append(torch.autograd.grad((0.7 / 2 * trees.sqdist(w, anchor)).sum(), w["w"])[0])
    torch.testing.assert_close(found[0], 0.7 * d, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[1], 2 * found[0], rtol=1e-12, atol=1e-12)


def test_cohort_of_one_is_the_same_method() -> None:
    near(trial(Fedprox(mu=2.0), cohort=1).rounds(2), trial(Fedprox(mu=2.0)).rounds(2), 1e-13)
    same_bits(trial(Fedprox(mu=2.0)).rounds(2), trial(Fedprox(mu=2.0)).rounds(2))
