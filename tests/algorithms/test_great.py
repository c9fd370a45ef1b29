"""GREAT by hand: a discriminator of gradients, layers that confuse it, and a trunk that is trained through them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import LR, PHI, SIZES, H, Theta, client_of, data, mean, near, same_bits, start, trial

import fedmtl
from fedmtl.algorithms.fedper import Fedper
from fedmtl.algorithms.great import Great
from fedmtl.conformance.case import Trial
from fedmtl.errors import ScenarioError

HIDDEN, TASK = "discriminator/hidden", "discriminator/task"
RATE = 0.02


def gradients(w: Theta, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 2 * (x @ w[PHI].T @ w[H].T - y) * w[H]


def play(g: np.ndarray, s: np.ndarray, net: Theta, me: int) -> tuple[float, float, np.ndarray, Theta]:
    """(share recognised, cross-entropy, its gradient by s, by the discriminator) at e^s g / rms(e^s g)."""
    q = np.exp(s) * g
    r = np.sqrt((q**2).mean())
    u = q / r
    before = u @ net[HIDDEN].T
    hidden = np.maximum(before, 0)
    says = hidden @ net[TASK].T
    p = np.exp(says) / np.exp(says).sum(1, keepdims=True)
    d_says = (p - np.eye(p.shape[1])[me]) / len(g)
    d_hidden = d_says @ net[TASK] * (before > 0)
    d_u = d_hidden @ net[HIDDEN]
    d_q = d_u / r - q * (d_u * q).sum() / (r**3 * q.size)
    down = {HIDDEN: d_hidden.T @ u, TASK: d_says.T @ hidden}
    return (says.argmax(1) == me).mean(), -np.log(p[:, me]).mean(), (d_q * q).sum(0), down


def descend(w: Theta, s: np.ndarray, x: np.ndarray, y: np.ndarray) -> Theta:
    g = gradients(w, x, y)
    scale = np.exp(s) * np.sqrt((g**2).mean() / ((np.exp(s) * g) ** 2).mean())
    for _ in range(2):
        error = 2 / len(x) * (x @ w[PHI].T @ w[H].T - y)
        w = {PHI: w[PHI] - LR * (scale * w[H]).T @ (error.T @ x), H: w[H] - LR * error.T @ (x @ w[PHI].T)}
    return w


def net_of(t: Trial) -> Theta:
    return {name: t.state[name].numpy() for name in (HIDDEN, TASK)}


@pytest.mark.parametrize(("strength", "warm"), [(0.7, 0), (0.7, 2), (0.0, 0)])
def test_four_rounds_by_hand(strength: float, warm: int) -> None:
    t = trial(Great(strength=strength, discriminator_lr=RATE, width=3, warm_rounds=warm))
    phi, heads, s, net = start(t)[PHI], [start(t)[H]] * 2, [np.zeros(2)] * 2, net_of(t)
    m, v = ({name: np.zeros_like(leaf) for name, leaf in net.items()} for _ in range(2))
    for number in range(1, 5):
        met = [({PHI: phi, H: heads[c]}, *data(t, c)) for c in (0, 1)]
        played = [play(gradients(*met[c]), s[c], net, c) for c in (0, 1)]
        s = [s[c] + (strength * played[c][2] if number > warm else 0.0) for c in (0, 1)]
        done = [descend(w, s[c], x, y) for c, (w, x, y) in enumerate(met)]
        phi, heads = mean(done, SIZES, [PHI])[PHI], [one[H] for one in done]
        down = mean([one[3] for one in played], SIZES, [HIDDEN, TASK])
        m = {n: 0.9 * m[n] + 0.1 * down[n] for n in m}
        v = {n: 0.999 * v[n] + 0.001 * down[n] ** 2 for n in v}
        net = {n: net[n] - RATE * m[n] / (1 - 0.9**number) / (np.sqrt(v[n] / (1 - 0.999**number)) + 1e-8) for n in net}
        state = t.rounds(1)
        near({n: state[n] for n in (PHI, HIDDEN, TASK)}, {PHI: phi, **net}, 1e-9)
        right = sum(n * one[0] for n, one in zip(SIZES, played, strict=True)) / sum(SIZES)
        assert t.method.figures(state) == {"discriminator/accuracy": pytest.approx(right), "discriminator/chance": 0.5}
        for client in (0, 1):
            near(client_of(t.kept(), client), {H: heads[client], "align": s[client]}, 1e-9)


def test_both_adversaries_move_and_each_its_own_way() -> None:
    t = trial(Great(strength=0.2, discriminator_lr=0.01, width=8))
    net, w = net_of(t), start(t)
    sent = t.host.train(1, [0, 1], t.parcel).rows
    for row, client in enumerate((1, 0)):
        g, s = gradients(w, *data(t, client)), client_of(t.kept(), client)["align"]
        _, before, up, _ = play(g, np.zeros(2), net, client)
        np.testing.assert_allclose(s, 0.2 * up, atol=1e-12)
        assert np.abs(up).min() > 1e-5
        assert play(g, s, net, client)[1] > before + 1e-6, "the layer does not confuse the discriminator"
        down = {name: sent[name][row].numpy() for name in (HIDDEN, TASK)}
        assert play(g, np.zeros(2), {n: net[n] - 0.01 * down[n] for n in net}, client)[1] < before - 1e-6, "it does not learn"


def test_without_strength_it_is_fedper() -> None:
    found, wanted = trial(Great(strength=0.0)), trial(Fedper())
    first = net_of(found)
    state = found.rounds(3)
    same_bits({PHI: state[PHI]}, wanted.rounds(3))
    same_bits({H: found.kept()[H]}, wanted.kept())
    assert all((state[name].numpy() != leaf).any() for name, leaf in first.items()), "the discriminator learns all the same"
    assert torch.equal(found.kept()["align"], torch.zeros(2, 2, dtype=torch.float64))


def test_before_the_warm_rounds_are_over_it_is_fedper() -> None:
    found, wanted = trial(Great(strength=1.0, warm_rounds=2)), trial(Fedper())
    same_bits({PHI: found.rounds(2)[PHI]}, wanted.rounds(2))
    assert not torch.equal(found.rounds(1)[PHI], wanted.rounds(1)[PHI])


def test_layers_change_the_direction_alone() -> None:
    """Scales have a geometric mean of 1, and what comes through them is as large as before."""
    t = trial(Great(strength=1.0, width=8))
    t.rounds(5)
    s = t.kept()["align"]
    assert s.abs().min() > 1e-5
    torch.testing.assert_close(s.sum(1), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_client_whose_gradients_are_all_0_keeps_its_layer() -> None:
    t = trial(Great(strength=1.0), training={"lr": 0.0})
    t.host.model[H].zero_()
    t.store.save([0, 1], {H: torch.zeros(2, 1, 2, dtype=torch.float64), "align": torch.zeros(2, 2, dtype=torch.float64)}, 0)
    assert all(leaf.isfinite().all() for leaf in t.rounds(2).values())
    assert torch.equal(t.kept()["align"], torch.zeros(2, 2, dtype=torch.float64))


def test_clients_know_their_number_in_the_federation() -> None:
    t = trial(Great())
    assert t.host.client([1, 0, 1], 1, "batches").ids.tolist() == [1, 0, 1]
    t.host.first = 5
    assert t.host.client([1, 0], 1, "batches").ids.tolist() == [6, 5]


def test_unlike_representations_are_refused() -> None:
    signature = trial(Great()).host.signature
    with pytest.raises(ScenarioError, match=r"algorithm.name: .*one width, not of \[2, 5\]"):
        Great().unites([signature, replace(signature, features=5)])


@pytest.mark.slow
def test_the_discriminator_is_confused() -> None:
    """After 40 rounds without layers it recognises tasks far above chance; with them less, ten rounds later."""
    ends = []
    for strength in (0.0, 0.3):
        t = Trial(Great(strength=strength, discriminator_lr=0.02, warm_rounds=40), together=True)
        before = t.method.figures(t.rounds(40))["discriminator/accuracy"]
        ends.append(t.method.figures(t.rounds(10))["discriminator/accuracy"])
    assert before > 0.5
    assert ends[1] < before - 0.1 < ends[0]


def test_every_round_is_recorded(tmp_path: Path) -> None:
    run = fedmtl.run("quickstart", {"algorithm.name": "great", "rounds": 2, "tasks.clients": 4, "runtime.kind": "inline"},
                     out=tmp_path / "run", report=False)
    journal = [json.loads(line) for line in (run.path / "journal.jsonl").read_text().splitlines()]
    said = [event["method"] for event in journal if event["event"] == "round"]
    assert [sorted(one) for one in said] == [["discriminator/accuracy", "discriminator/chance"]] * 2
    assert run.summary["method"] == said[-1]
    assert said[-1]["discriminator/chance"] == 0.25
