"""FedDyn by hand; its fixed point is the optimum of all."""

from __future__ import annotations

import pytest
from tiny import PHI, SIZES, H, client_of, data, descend, mean, minus, near, optimum_stays, plus, start, trial

from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.feddyn import Feddyn
from fedmtl.errors import ScenarioError
from fedmtl.scenario import load_scenario


@pytest.mark.parametrize("alpha", [0.01, 2.0])
@pytest.mark.parametrize("weighting", ["size", "uniform"])
def test_three_rounds_by_hand(alpha: float, weighting: str) -> None:
    """Algorithm 1 with everyone there, the argmin by three steps."""
    t = trial(Feddyn(alpha=alpha), epochs=3, server={"weighting": weighting})
    weights = SIZES if weighting == "size" else (1, 1)
    theta = start(t)
    h = minus(theta, theta)
    g = [h, h]
    for _ in range(3):
        extra = [lambda p, k=k, theta=theta, g=g: minus(minus(p, theta, alpha), g[k]) for k in (0, 1)]
        new = [descend(theta, *data(t, k), 3, extra=extra[k]) for k in (0, 1)]
        change = [minus(new[k], theta) for k in (0, 1)]
        g = [plus(g[k], change[k], -alpha) for k in (0, 1)]
        h = plus(h, mean(change, weights), -alpha)
        theta = plus(mean(new, weights), h, -1 / alpha)
        state = t.rounds(1)
        near(state, theta | {f"server/h/{name}": leaf for name, leaf in h.items()})
        for k in (0, 1):
            near(client_of(t.kept(), k), {f"g/{name}": leaf for name, leaf in g[k].items()})


def test_h_moves_by_the_share_that_answered() -> None:
    t = trial(Feddyn(alpha=0.5))
    theta = start(t)
    change = minus(descend(theta, *data(t, 1), 2, extra=lambda p: minus(p, theta, 0.5)), theta)
    h = minus(theta, theta)
    h = plus(h, change, -0.5 / 2)
    near(t.rounds(1, lambda replies: replies[1:]), plus(plus(theta, change), h, -1 / 0.5) | {
        f"server/h/{name}": leaf for name, leaf in h.items()})


def test_the_optimum_of_all_is_a_fixed_point() -> None:
    """Trap: g_i of a wrong sign, or left at 0, and clients drift off it. Where h = 0, g_i is the gradient of F_i there."""
    optimum_stays(Feddyn(alpha=0.3), "server/h", "g")


def test_share_keeps_the_rest_private() -> None:
    t = trial(Feddyn(share="trunk"))
    assert set(t.rounds(1)) == {PHI, f"server/h/{PHI}"}
    assert set(t.kept()) == {H, f"g/{PHI}"}


def test_the_default_is_the_paper_s_and_no_fedavg() -> None:
    assert Feddyn().alpha == 0.01
    a, b = trial(Feddyn()).rounds(2), trial(Fedavg()).rounds(2)
    assert max((leaf - a[name]).abs().max() for name, leaf in b.items()) > 1e-4


def test_alpha_0_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"algorithm.alpha"):
        load_scenario("quickstart", {"algorithm.name": "feddyn", "algorithm.alpha": 0.0})


def test_h_stays_with_the_server() -> None:
    assert set(trial(Feddyn()).shared) == {PHI, H}


def test_cohort_of_one_is_the_same_method() -> None:
    near(trial(Feddyn(), cohort=1).rounds(3), trial(Feddyn()).rounds(3), 1e-12)
