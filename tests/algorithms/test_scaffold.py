"""SCAFFOLD by hand: control variates, the optimum of all in spite of drift, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from tiny import LR, PHI, SIZES, H, client_of, data, descend, mean, minus, near, optimum_stays, plus, same_bits, start, trial

from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.fedper import Fedper
from fedmtl.algorithms.local import Local
from fedmtl.algorithms.scaffold import Scaffold
from fedmtl.errors import ScenarioError
from fedmtl.scenario import load_scenario


@pytest.mark.parametrize("eta_g", [1.0, 0.5])
def test_three_rounds_by_hand(eta_g: float) -> None:
    """Option II of Algorithm 1, with everyone there."""
    t = trial(Scaffold(eta_g=eta_g), epochs=3)
    x = start(t)
    c = plus(x, x, -1.0)
    own = [c, c]
    for _ in range(3):
        y = [descend(x, *data(t, k), 3, extra=lambda _, k=k, c=c, own=own: minus(c, own[k])) for k in (0, 1)]
        new = [plus(minus(own[k], c), minus(x, y[k]), 1 / (3 * LR)) for k in (0, 1)]
        x = plus(x, minus(mean(y, SIZES), x), eta_g)
        c = plus(c, mean([minus(new[k], own[k]) for k in (0, 1)], SIZES))
        own = new
        state = t.rounds(1)
        near(state, x | {f"c/{name}": leaf for name, leaf in c.items()})
        for k in (0, 1):
            near(client_of(t.kept(), k), {f"c/{name}": leaf for name, leaf in own[k].items()})


def test_c_moves_by_the_share_that_answered() -> None:
    """Of two clients one answers: c takes half of its change (size S / N), x all of it."""
    t = trial(Scaffold())
    x = start(t)
    y = descend(x, *data(t, 0), 2)
    near(t.rounds(1, lambda replies: replies[:1]), y | {
        f"c/{name}": leaf for name, leaf in minus(x, y, 1 / (2 * LR) / 2).items()})


def test_k_is_the_client_s_own_number_of_steps() -> None:
    """With batches of 2, clients of 4 and 7 rows make 2 and 4 steps an epoch."""
    t = trial(Scaffold(), epochs=3, training={"batch-size": 2})
    x = start(t)
    plain = trial(Local(), epochs=3, training={"batch-size": 2})
    plain.rounds(1)
    t.rounds(1)
    for k, count in enumerate((6, 12)):
        y = client_of(plain.kept(), k)
        near(client_of(t.kept(), k), {f"c/{name}": leaf for name, leaf in minus(x, y, 1 / (count * LR)).items()})


def test_one_step_and_full_participation_is_fedavg() -> None:
    """Then corrections cancel in the mean, under any weighting that both use."""
    for weighting in ("size", "uniform"):
        a = trial(Scaffold(), epochs=1, server={"weighting": weighting}).rounds(5)
        b = trial(Fedavg(), epochs=1, server={"weighting": weighting}).rounds(5)
        near({name: a[name] for name in b}, b, 1e-12)


def test_the_first_round_is_fedavg() -> None:
    near({name: leaf for name, leaf in trial(Scaffold(), epochs=4).rounds(1).items() if "/" not in name},
         trial(Fedavg(), epochs=4).rounds(1), 1e-13)


def test_share_keeps_the_rest_private() -> None:
    """With one step a client sends the gradient of the trunk alone; the head is trained as FedPer does."""
    t, per = trial(Scaffold(share="trunk"), epochs=1), trial(Fedper(), epochs=1)
    assert set(t.rounds(1)) == {PHI, f"c/{PHI}"}
    per.rounds(1)
    near({H: t.kept()[H]}, per.kept(), 1e-13)
    same_bits({PHI: t.models()["personal"][PHI][0]}, {PHI: t.state[PHI]})
    assert set(trial(Scaffold(share="none")).rounds(2)) == set()


def test_the_optimum_of_all_is_a_fixed_point() -> None:
    """Trap: with control variates of a wrong sign, or that stay 0, clients drift off it as those of FedAvg do."""
    optimum_stays(Scaffold(), "c", "c")


@pytest.mark.parametrize(("words", "message"), [
    ({"training.optimizer": "adam"}, "training.optimizer: 'scaffold' has no rule for Adam"),
    ({"training.momentum": 0.9}, "training.momentum: 'scaffold' has no rule for momentum"),
])
def test_other_optimisers_are_refused(words: dict[str, object], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        load_scenario("quickstart", {"algorithm.name": "scaffold"} | words)


def test_default_is_not_fedavg() -> None:
    a, b = trial(Scaffold()).rounds(3), trial(Fedavg()).rounds(3)
    assert max((leaf - a[name]).abs().max() for name, leaf in b.items()) > 1e-4


def test_cohort_of_one_is_the_same_method() -> None:
    near(trial(Scaffold(), cohort=1).rounds(3), trial(Scaffold()).rounds(3), 1e-13)
    assert trial(Scaffold()).rounds(1)[PHI].dtype is torch.float64
