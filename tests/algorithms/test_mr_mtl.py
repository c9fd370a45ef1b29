"""MR-MTL by hand: w is pulled towards wbar, and wbar moves by the weighted mean of the changes."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import PHI, SIZES, H, client_of, data, descend, mean, minus, near, start, trial

from fedmtl.algorithms.local import Local
from fedmtl.algorithms.mr_mtl import MrMtl


@pytest.mark.parametrize("lam", [0.1, 3.0])
@pytest.mark.parametrize(("pull", "names"), [("all", [PHI, H]), ("trunk", [PHI])])
def test_three_rounds_by_hand(lam: float, pull: str, names: list[str]) -> None:
    t = trial(MrMtl(lam=lam, pull=pull))
    w = [start(t), start(t)]
    wbar = {name: start(t)[name] for name in names}
    for _ in range(3):
        old = w
        w = [descend(w[c], *data(t, c), 2, extra=lambda p, wbar=wbar: minus({n: p[n] for n in names}, wbar, lam)) for c in (0, 1)]
        changes = mean([minus(w[c], old[c]) for c in (0, 1)], SIZES, names)
        wbar = {name: wbar[name] + changes[name] for name in names}
        near(t.rounds(1), wbar)
        for client in (0, 1):
            near(client_of(t.kept(), client), w[client])
            near(client_of(t.models()["personal"], client), w[client])


def test_wbar_is_the_mean_of_the_models_with_everyone_there() -> None:
    t = trial(MrMtl(lam=1.0))
    state = t.rounds(4)
    near(state, mean([client_of(t.kept(), c) for c in (0, 1)], SIZES))


def test_who_is_absent_still_counts() -> None:
    """wbar moves by changes, so a client that rests keeps its place in the mean of those that move."""
    t = trial(MrMtl(lam=1.0))
    before = {name: leaf.numpy() for name, leaf in t.rounds(1).items()}
    old = client_of(t.kept(), 0)
    after = t.rounds(1, lambda replies: replies[:1])
    new = client_of(t.kept(), 0)
    near(after, {name: before[name] + new[name] - old[name] for name in before})


def test_lam_0_is_local() -> None:
    a, b = trial(MrMtl(lam=0.0)), trial(Local())
    a.rounds(3)
    b.rounds(3)
    near(a.kept(), b.kept(), 1e-14)


def test_default_is_not_local() -> None:
    a, b = trial(MrMtl()), trial(Local())
    a.rounds(2)
    b.rounds(2)
    assert max((leaf - b.kept()[name]).abs().max() for name, leaf in a.kept().items()) > 1e-4


def test_large_lam_pulls_w_onto_the_anchor() -> None:
    gaps = []
    for lam in (5.0, 500.0):
        t = trial(MrMtl(lam=lam), lr=0.5 / lam, epochs=30)
        anchor = start(t)
        t.rounds(1)
        gaps.append(max(np.abs(leaf[0].numpy() - anchor[name]).max() for name, leaf in t.kept().items()))
    assert gaps[1] < gaps[0] / 50
