"""FedHCA2 by hand: the conflict-averse step of the trunks, the attention of the heads, the weights' own step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import PHI, H, client_of, data, descend, near, start, trial

from fedmtl.algorithms.fedhca2 import Fedhca2, attention, conflict_averse
from fedmtl.algorithms.local import Local

SIZES = (4, 7, 5)


def union(delta: np.ndarray, c: float) -> np.ndarray:
    """CAGrad by search over the simplex of three."""
    grid = np.linspace(0, 1, 401)
    best, found = np.inf, None
    mean = delta.mean(0)
    for a in grid:
        for b in grid[grid <= 1 - a + 1e-12]:
            g = a * delta[0] + b * delta[1] + (1 - a - b) * delta[2]
            value = g @ mean + c * np.linalg.norm(mean) * np.linalg.norm(g)
            if value < best:
                best, found = value, g
    return mean + c * np.linalg.norm(mean) * found / np.linalg.norm(found)


def attends(delta: np.ndarray) -> np.ndarray:
    """softmax(D D^T / sqrt(d)) D."""
    e = np.exp(delta @ delta.T / np.sqrt(delta.shape[1]))
    return e / e.sum(1, keepdims=True) @ delta


def test_three_rounds_by_hand() -> None:
    """With U as the method's own function gives it, which the test below proves."""
    t = trial(Fedhca2(alpha=0.4, beta=0.3, hyper_lr=0.5), SIZES)
    w = [start(t) for _ in SIZES]
    weights, speed, given = np.tile([0.4, 0.3], (3, 1)), np.zeros((3, 2)), None
    for _ in range(3):
        new = [descend(w[c], *data(t, c), 2) for c in range(3)]
        delta = {n: np.stack([(new[c][n] - w[c][n]).ravel() for c in range(3)]) for n in (PHI, H)}
        if given is not None:
            speed = 0.9 * speed + np.stack([-(delta[n] * given[n]).sum(1) for n in (PHI, H)], 1)
        weights = np.clip(weights - 0.5 * speed, 0, 1)
        u = conflict_averse(torch.from_numpy(delta[PHI]), 0.4).numpy() / 1.16
        given = {PHI: np.tile(u, (3, 1)), H: attends(delta[H])}
        w = [{n: new[c][n] + weights[c, i] * given[n][c].reshape(new[c][n].shape) for i, n in enumerate((PHI, H))}
             for c in range(3)]
        t.rounds(1)
        for c in range(3):
            near(client_of(t.shared, c), w[c], 1e-7)  # a search of its own finds U
            near(client_of(t.models()["personal"], c), w[c], 1e-7)
    assert np.abs(weights - [0.4, 0.3]).max() > 1e-3


@pytest.mark.parametrize("c", [0.2, 0.4, 0.9])
def test_conflict_averse_equals_a_search(c: float) -> None:
    delta = np.random.default_rng(1).normal(size=(3, 6)) + 0.3
    np.testing.assert_allclose(conflict_averse(torch.from_numpy(delta), c).numpy(), union(delta, c), atol=1e-2)


def test_conflict_averse_helps_the_worst() -> None:
    """Two small updates against a large one: the mean harms them, its direction less; alike, it is theirs."""
    delta = torch.tensor([[4.0, 0.0], [-1.0, 0.5], [-1.0, 0.6]], dtype=torch.float64)
    assert (delta @ conflict_averse(delta, 0.9)).min() > (delta @ delta.mean(0)).min()
    same = torch.ones(3, 4, dtype=torch.float64)
    assert torch.allclose(conflict_averse(same, 0.4), 1.4 * same[0])
    assert torch.equal(conflict_averse(torch.zeros(3, 4, dtype=torch.float64), 0.4), torch.zeros(4, dtype=torch.float64))


def test_attention_by_hand() -> None:
    delta = np.array([[1.0, 2.0], [0.5, -1.0], [2.0, 2.0]])
    np.testing.assert_allclose(attention(torch.from_numpy(delta)).numpy(), attends(delta), atol=1e-12)


def test_nothing_let_in_is_local() -> None:
    a, b = trial(Fedhca2(alpha=0.0, beta=0.0, hyper_lr=0.0), SIZES), trial(Local(), SIZES)
    a.rounds(3)
    b.rounds(3)
    near(a.models()["personal"], b.models()["personal"], 1e-14)


def test_defaults_are_the_authors() -> None:
    method = Fedhca2()
    assert (method.c, method.alpha, method.beta, method.hyper_lr, method.hyper_momentum) == (0.4, 0.1, 0.1, 0.01, 0.9)
