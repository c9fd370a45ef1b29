"""Ditto by hand: v is pulled towards the RECEIVED w, and w is FedAvg's."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import SIZES, client_of, data, descend, mean, minus, near, same_bits, start, trial

from fedmtl.algorithms.ditto import Ditto
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.local import Local


@pytest.mark.parametrize("lam", [0.1, 1.0, 4.0])
def test_three_rounds_by_hand(lam: float) -> None:
    t = trial(Ditto(lam=lam))
    w = start(t)
    v = [w, w]
    for _ in range(3):
        received = w
        v = [descend(v[c], *data(t, c), 2, extra=lambda p, w=received: minus(p, w, lam)) for c in (0, 1)]
        w = mean([descend(received, *data(t, c), 2) for c in (0, 1)], SIZES)
        near(t.rounds(1), w)
        for client in (0, 1):
            near(client_of(t.kept(), client), v[client])
            near(client_of(t.models()["personal"], client), v[client])
            near(client_of(t.models()["global"], client), w)


def test_the_anchor_is_not_the_client_s_own_new_w() -> None:
    """Trained towards the model after w's own step, v would be elsewhere: the test above sees the difference."""
    t = trial(Ditto(lam=4.0))
    w = start(t)
    t.rounds(1)
    moved = descend(w, *data(t, 0), 2)
    wrong = descend(w, *data(t, 0), 2, extra=lambda p: minus(p, moved, 4.0))
    assert max(np.abs(leaf - t.kept()[name][0].numpy()).max() for name, leaf in wrong.items()) > 1e-3


def test_lam_0_is_local() -> None:
    a, b = trial(Ditto(lam=0.0)), trial(Local())
    a.rounds(3)
    b.rounds(3)
    near(a.kept(), b.kept(), 1e-14)


def test_w_is_fedavg_whatever_lam() -> None:
    same_bits(trial(Ditto(lam=7.0)).rounds(3), trial(Fedavg()).rounds(3))


def test_default_is_neither_local_nor_fedavg() -> None:
    assert Ditto().lam == 1.0
    t, alone = trial(Ditto()), trial(Local())
    t.rounds(2)
    alone.rounds(2)
    for other in (alone.models()["personal"], t.models()["global"]):
        assert max((leaf - other[name]).abs().max() for name, leaf in t.kept().items()) > 1e-3


def test_large_lam_pulls_v_onto_the_anchor() -> None:
    gaps = []
    for lam in (5.0, 500.0):
        t = trial(Ditto(lam=lam), lr=0.5 / lam, epochs=30)
        received = start(t)
        t.rounds(1)
        gaps.append(max(np.abs(leaf[0].numpy() - received[name]).max() for name, leaf in t.kept().items()))
    assert gaps[1] < gaps[0] / 50


def test_one_client_is_central_training() -> None:
    t = trial(Ditto(), (9,))
    near(t.rounds(3), descend(start(t), *data(t, 0), 6))
