"""Weightings of a client's own tasks: their formulas, torchjd's, and that what they learn stays with the client."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedmtl import run
from fedmtl.errors import ScenarioError
from fedmtl.mtl.losses import Losses, LossWeighting
from fedmtl.mtl.losses.given import Fixed, Random, Size, Sum, Uniform
from fedmtl.mtl.losses.learnt import Dwa, Famo, ImtlL, Stch, Uncertainty
from fedmtl.registry import discover
from fedmtl.scenario import load_scenario
from fedmtl.trees import expand

VALUES = torch.tensor([[0.5, 2.0, 1.2], [3.0, 0.1, 0.7]], dtype=torch.float64)
ALL = discover("fedmtl.mtl.losses", LossWeighting)


def losses(values=VALUES, rows=None, numeric=(False, False, False), key=(1, 2)):
    return Losses(values, torch.ones_like(values) if rows is None else torch.tensor(rows, dtype=torch.float64), ("a", "b", "c"),
                  torch.tensor(numeric), np.asarray(key, np.uint64))


def begin(weighting, clients=2):
    return {name: leaf.double() if leaf.is_floating_point() else leaf for name, leaf in expand(weighting.start(3), clients).items()}


def test_weights_that_are_given():
    rows = [[4, 0, 2], [1, 1, 2]]
    assert Uniform().weights(losses(rows=rows), {}).tolist() == [[0.5, 0, 0.5], pytest.approx([1 / 3] * 3)]
    assert Sum().weights(losses(rows=rows), {}).tolist() == [[1, 0, 1], [1, 1, 1]]
    assert Size().weights(losses(rows=rows), {}).tolist() == [pytest.approx([2 / 3, 0, 1 / 3]), [0.25, 0.25, 0.5]]
    assert Fixed(task_weights={"c": 0.2}).weights(losses(rows=rows), {}).tolist() == [[1, 0, 0.2], [1, 1, 0.2]]


def test_uncertainty_is_gradient_descent_on_its_objective():
    """Kendall et al., equations 7 and 10: s by autograd of the whole objective, weights as the losses' coefficients in it."""
    weighting, numeric = Uncertainty(loss_lr=0.3), torch.tensor([True, False, True])
    state, s = begin(weighting), torch.zeros(2, 3, dtype=torch.float64)
    for step in range(4):
        values = VALUES * (1 + step)
        s.requires_grad_()
        values.requires_grad_()
        objective = torch.where(numeric, values / (2 * s.exp()), values / s.exp()) + s / 2
        by_s, by_loss = torch.autograd.grad(objective.sum(), (s, values))
        given = losses(values.detach(), numeric=numeric.tolist())
        assert torch.allclose(weighting.weights(given, state), by_loss, atol=1e-14)
        state, s = weighting.learn(given, state), (s - 0.3 * by_s).detach()
        assert torch.allclose(state["s"], s, atol=1e-14)


@pytest.mark.parametrize(("weighting", "theirs"), [(Uncertainty(loss_lr=0.1), "UW"), (ImtlL(loss_lr=0.1), "IMTLL")])
def test_learnt_scales_are_torchjds(weighting, theirs):
    scalarization = pytest.importorskip("torchjd.scalarization")
    state = begin(weighting)
    for slot in range(2):
        scalarizer = getattr(scalarization, theirs)(3).double()
        [leaf] = scalarizer.parameters()
        own = {name: value[slot : slot + 1] for name, value in state.items()}
        for step in range(3):
            values = (VALUES[slot] / (1 + step)).requires_grad_()
            given = losses(values.detach()[None], numeric=(True,) * 3, key=[1])
            by_loss, by_leaf = torch.autograd.grad(scalarizer(values), (values, leaf))
            assert torch.allclose(weighting.weights(given, own)[0], by_loss, atol=1e-12)
            own = weighting.learn(given, own)
            with torch.no_grad():
                leaf -= 0.1 * by_leaf
            assert torch.allclose(own["s"][0], leaf, atol=1e-12)


def test_stch_is_torchjds():
    scalarization = pytest.importorskip("torchjd.scalarization")
    values = VALUES[0].clone().requires_grad_()
    [wanted] = torch.autograd.grad(scalarization.STCH(0.4, weights=torch.ones(3, dtype=torch.float64))(values), values)
    assert torch.allclose(Stch(mu=0.4).weights(losses(), {})[0], wanted, atol=1e-12)


def test_famo_is_torchjds_on_one_batch():
    scalarization = pytest.importorskip("torchjd.scalarization")
    weighting, state = Famo(), begin(Famo())
    theirs = scalarization.FAMO(3).double()
    for step in range(5):
        values = (VALUES[:1] * torch.tensor([0.9**step, 0.7**step, 1.1**step])).clone()
        both = losses(values.expand(2, 3))
        if step:
            theirs.update(values[0])
        state = weighting.learn(both, state)
        leaf = values[0].clone().requires_grad_()
        [wanted] = torch.autograd.grad(theirs(leaf), leaf)
        assert torch.allclose(weighting.weights(both, state)[0], wanted, atol=1e-6)


def test_dwa_compares_rounds():
    weighting, state = Dwa(temperature=2.0), begin(Dwa())
    assert torch.allclose(weighting.weights(losses(), state), torch.ones(2, 3, dtype=torch.float64))
    for factor in (1.0, 0.5):
        for _ in range(2):
            state = weighting.learn(losses(VALUES * torch.tensor([1.0, factor, 1.0])), state)
        state = weighting.close(state)
    r = np.exp(np.array([1, 0.5, 1]) / 2)
    np.testing.assert_allclose(weighting.weights(losses(), state)[0], 3 * r / r.sum(), atol=1e-12)


def test_random_weights_are_keyed_by_client_and_batch():
    weighting, state = Random(), begin(Random())
    first = weighting.weights(losses(), state)
    assert torch.allclose(first.sum(1), torch.ones(2, dtype=torch.float64))
    assert not torch.allclose(first[0], first[1])
    assert torch.equal(first[:1], weighting.weights(losses(VALUES[:1], key=[1]), {"batches": state["batches"][:1]}))
    later = weighting.learn(losses(rows=[[1, 1, 1], [0, 0, 0]]), state)
    assert later["batches"].tolist() == [1, 0]
    assert not torch.allclose(weighting.weights(losses(), later)[0], first[0])


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_task_without_rows_counts_for_nothing_and_learns_nothing(name):
    weighting = ALL[name]()
    given, state = losses(rows=[[3, 0, 2], [0, 0, 0]]), begin(weighting)
    weights = weighting.weights(given, state)
    assert weights[0, 1] == 0
    assert (weights[0, [0, 2]] > 0).all()
    assert (weights[1] == 0).all()
    learnt = weighting.close(weighting.learn(given, state))
    assert learnt.keys() == state.keys()
    for leaf in learnt:
        assert torch.equal(learnt[leaf][1], state[leaf][1])
        assert learnt[leaf].isfinite().all()
        if learnt[leaf].dim() > 1:
            assert learnt[leaf][0, 1] == state[leaf][0, 1]


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_one_runs(name, tmp_path):
    words = {"rounds": 2, "tasks.clients": 5, "runtime.kind": "inline", "training.loss-weighting": name, "evaluation.every": 2,
             "training.batch-size": 64}
    first, again = (run("task-sets", words, out=tmp_path / str(i), report=False) for i in range(2))
    assert np.isfinite(first.summary["test"]["loss"]["mean"])
    assert first.summary["checksum"] == again.summary["checksum"]


def test_refusals():
    with pytest.raises(ScenarioError, match=r"^training\.loss-weighting: unknown name 'unifrom'"):
        load_scenario("task-sets", {"training.loss-weighting": "unifrom"})
    with pytest.raises(ScenarioError, match=r"^training\.task-weights\.digits: no set has .*\n  did you mean 'digit'"):
        load_scenario("task-sets", {"training.loss-weighting": "fixed", "training.task-weights": {"digits": 1.0}})
    with pytest.raises(ScenarioError, match=r"^training\.mu: neither optimizer 'sgd' nor .* has such a key"):
        load_scenario("task-sets", {"training.mu": 0.1})
    chosen = load_scenario("task-sets", {"training.loss-weighting": "stch", "training.mu": 0.1})
    assert chosen.resolved()["training"]["mu"] == 0.1
