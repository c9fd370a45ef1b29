"""The levers of a client's own tasks: directions by hand, every modulation, missing labels, private state, planted conflicts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedmtl import keys, run
from fedmtl.algorithms.base import Algorithm
from fedmtl.algorithms.ditto import Ditto
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.fedbabu import Fedbabu
from fedmtl.algorithms.fedem import Fedem
from fedmtl.algorithms.fedper import Fedper
from fedmtl.algorithms.fedrep import Fedrep
from fedmtl.algorithms.local import Local
from fedmtl.algorithms.moon import Moon
from fedmtl.client.store import DirectoryStore
from fedmtl.conformance.case import Trial, federation_from
from fedmtl.errors import ScenarioError
from fedmtl.mtl.losses import Losses
from fedmtl.mtl.losses.given import Sum, Uniform
from fedmtl.mtl.losses.learnt import Gradnorm
from fedmtl.mtl.modulation import Changes, Modulation
from fedmtl.mtl.modulation.base import Mean
from fedmtl.mtl.modulation.surgery import Gradvac, Pcgrad
from fedmtl.mtl.own_tasks import DRAWS, OwnTasks, last_layer
from fedmtl.mtl.sampling import Epochs
from fedmtl.mtl.standing import Standing
from fedmtl.registry import discover
from fedmtl.scenario import load_scenario
from fedmtl.trees import expand

MODULATIONS = sorted(set(discover("fedmtl.mtl.modulation", Modulation)) - {"none"})
AMOUNT = {"name": "amount", "kind": "regression", "columns": [0]}
KIND = {"name": "kind", "kind": "classification", "classes": 3, "columns": [1]}
YES = {"name": "yes", "kind": "binary", "columns": [2]}
SIZES = (9, 7, 5)
TWO = [{"name": name, "kind": "regression", "columns": [column]} for column, name in enumerate("ab")]
LINE = {"hidden": [1], "activation": "identity", "bias": False, "head-bias": False}


def data(missing=0.3, sizes=SIZES, held=2):
    """Clients with three tasks on 4 inputs; a share of the labels of each is missing."""
    draw = np.random.default_rng(11)
    n = sum(sizes) + 2 * held * len(sizes)
    x = draw.normal(size=(n, 4))
    y = np.stack([x[:, 0] - x[:, 1], draw.integers(0, 3, n), x[:, 3] > 0], axis=1).astype(np.float64)
    y[draw.random((n, 3)) < missing] = np.nan
    return federation_from(x, y, sizes, held=held)


def trial(method=None, federation=None, *, tasks=(AMOUNT, KIND, YES), cohort=3, model=None, **training):
    return Trial(method or Fedavg(), federation or data(), {
        "tasks": {"objective": {"kind": "set", "tasks": list(tasks)}}, "model": model or {"hidden": [5], "activation": "tanh"},
        "training": {"lr": 0.1, "batch-size": 100, "dtype": "float64", **training},
        "runtime": {"cohort": cohort}, "server": {"weighting": "uniform"}}, together=True)


def begin(t):
    """(the cohort, its first batch, its initial leaves)."""
    client = t.host.client([0, 1, 2], 1, "batches")
    leaves = {name: leaf.detach().clone().requires_grad_() for name, leaf in expand(t.host.model, 3).items()}
    return client, next(client.batches(1)), leaves


def tasks_by_hand(params, x, y):
    """Of one client the mean losses of the tasks of which there is a label, from its slice of parameters; None of the others."""
    hidden = torch.tanh(x @ params["trunk.linear0.weight"].T + params["trunk.linear0.bias"])
    out = {task: hidden @ params[f"head.{task}.weight"].T + params[f"head.{task}.bias"] for task in ("amount", "kind", "yes")}
    here = [~y[:, column].isnan() for column in range(3)]
    losses = [lambda: F.mse_loss(out["amount"][here[0], 0], y[here[0], 0]),
              lambda: F.cross_entropy(out["kind"][here[1]], y[here[1], 1].long()),
              lambda: F.binary_cross_entropy_with_logits(out["yes"][here[2], 0], y[here[2], 2])]
    return [loss() if present.any() else None for loss, present in zip(losses, here, strict=True)]


@pytest.mark.parametrize("weighting", ["uniform", "sum"])
@pytest.mark.parametrize("name", MODULATIONS)
def test_the_trunk_goes_the_modulated_way_and_heads_their_own(name, weighting):
    """Each client's gradient, slot by slot, against the modulation on its tasks' gradients; one of the clients lacks a task."""
    pytest.importorskip("torchjd")
    federation = data()
    federation.y[federation.part(1, "train"), 1] = np.nan
    t = trial(federation=federation, modulation=name, **{"loss-weighting": weighting})
    client, batch, leaves = begin(t)
    losses = client.loss(leaves, batch)
    found = dict(zip(leaves, torch.autograd.grad(losses.sum(), list(leaves.values())), strict=True))
    for slot in range(3):
        own = {n: leaf[slot].detach().requires_grad_() for n, leaf in leaves.items()}
        real = batch.weight[slot] > 0
        means = tasks_by_hand(own, batch.x[slot, real], batch.y[slot, real])
        known = [i for i, mean in enumerate(means) if mean is not None]
        assert len(known) == (2 if slot == 1 else 3)
        w = 1 / len(known) if weighting == "uniform" else 1.0
        heads = {n: leaf for n, leaf in own.items() if n.startswith("head.")}
        trunk = {n: leaf for n, leaf in own.items() if n not in heads}
        whole = w * sum(means[i] for i in known)
        plain = torch.autograd.grad(whole, list(heads.values()), retain_graph=True, materialize_grads=True)
        assert losses[slot].item() == pytest.approx(whole.item(), abs=1e-12)
        for n, grad in zip(heads, plain, strict=True):
            torch.testing.assert_close(found[n][slot], grad, rtol=1e-10, atol=1e-10)
        rows = [torch.autograd.grad(means[i], list(trunk.values()), retain_graph=True) for i in known]
        stacked = {n: torch.stack([row[i] for row in rows]) for i, n in enumerate(trunk)}
        shares = torch.full((len(known),), 1 / len(known), dtype=torch.float64)
        changes, key = Changes(stacked, {}, shares, known), keys.fold(client.key[slot], DRAWS, 0)
        direction, _ = t.host.signature.balance.modulation.combine(changes, Standing(np.ones(3, np.int64)), key)
        for n, leaf in direction.items():
            torch.testing.assert_close(found[n][slot], len(known) * w * leaf, rtol=2e-5, atol=1e-7)


def test_two_tasks_of_one_client_by_hand():
    """PCGrad on two conflicting gradients of a linear trunk: each loses its part along the other, whatever the order."""
    x, y = np.array([[1.0, 0.5], [0.3, -1.0], [0.7, 0.2], [1.0, 1.0]]), np.zeros((4, 2))
    y[:, 0], y[:, 1] = 3 * x[:, 0] + 2, -3 * x[:, 0] + x[:, 1] - 2
    federation = federation_from(np.concatenate([x, x]), np.concatenate([y, y]), [4], held=2)
    t = trial(Local(), federation, tasks=TWO, cohort=1, modulation="pcgrad", lr=0.01, model=LINE, epochs=1)
    for task in "ab":
        t.host.model[f"head.{task}.weight"].fill_(0.5)
    start = {name: leaf.clone() for name, leaf in t.host.model.items()}
    name = "trunk.linear0.weight"
    assert set(start) == {name, "head.a.weight", "head.b.weight"}
    w, heads = start[name][0], [start["head.a.weight"].item(), start["head.b.weight"].item()]
    rows, train = torch.from_numpy(x), torch.from_numpy(y)
    z = rows @ w
    gaps = [head * z - train[:, i] for i, head in enumerate(heads)]
    g = [2 * head * (gap @ rows) / 4 for head, gap in zip(heads, gaps, strict=True)]
    inner = g[0] @ g[1]
    assert inner < 0
    turned = [g[0] - inner / (g[1] @ g[1]) * g[1], g[1] - inner / (g[0] @ g[0]) * g[0]]
    t.rounds(1)
    after = t.kept()
    torch.testing.assert_close(after[name][0, 0], w - 0.01 * (turned[0] + turned[1]) / 2, rtol=1e-10, atol=1e-10)
    for head, gap, task in zip(heads, gaps, "ab", strict=True):
        torch.testing.assert_close(after[f"head.{task}.weight"].item(), head - 0.01 * (gap @ z).item() / 4, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODULATIONS)
def test_every_modulation_trains_in_cohorts_as_in_loops(name):
    pytest.importorskip("torchjd")
    found = []
    for cohort in (1, 3):
        t = trial(cohort=cohort, modulation=name, **{"batch-size": 4, "epochs": 1})
        t.rounds(2)
        found.append(t.outcome())
    assert found[0].keys() == found[1].keys()
    for leaf, value in found[0].items():
        torch.testing.assert_close(value, found[1][leaf], rtol=1e-7, atol=1e-7)
        assert value.isfinite().all()
    plain = trial(modulation="none", **{"batch-size": 4, "epochs": 1})
    plain.rounds(2)
    assert any(not torch.equal(leaf, plain.outcome()[n]) for n, leaf in found[1].items() if n in plain.outcome())
    assert not any("modulation" in n for n in plain.outcome())


@pytest.mark.parametrize("method", [Fedper(), Fedrep(), Ditto(), Fedbabu(), Moon(), Local()])
def test_methods_of_every_kind(method):
    """What a method adds to the loss, trains alone or makes of features takes no harm; cohorts are loops."""
    found = []
    for cohort in (1, 3):
        t = trial(method, cohort=cohort, modulation="pcgrad", **{"batch-size": 4, "epochs": 1, "loss-weighting": "gradnorm"})
        t.rounds(2)
        found.append(t.outcome())
    for leaf, value in found[0].items():
        torch.testing.assert_close(value, found[1][leaf], rtol=1e-9, atol=1e-9)


def test_the_mean_as_a_modulation_changes_nothing():
    t = trial()
    client, batch, leaves = begin(t)
    plain = torch.autograd.grad(client.loss(leaves, batch).sum(), list(leaves.values()))
    object.__setattr__(client.signature, "balance", OwnTasks(Uniform(), Mean(), Epochs()))
    client.balance.clear()
    steered = torch.autograd.grad(client.loss(leaves, batch).sum(), list(leaves.values()))
    for a, b in zip(plain, steered, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_one_task_with_labels_is_followed_as_it_is():
    federation = data()
    federation.y[:, 1:] = np.nan
    steered, plain = trial(federation=federation, modulation="pcgrad"), trial(federation=federation)
    for t in (steered, plain):
        t.rounds(2)
    for name, leaf in plain.state.items():
        torch.testing.assert_close(steered.state[name], leaf, rtol=1e-12, atol=1e-12)


def test_what_gradvac_learns_is_the_client_s_alone(tmp_path):
    t = trial(modulation="gradvac", cohort=2, **{"batch-size": 3, "target-rate": 0.5})
    t.rounds(2)
    kept = t.kept()
    targets = kept["own-tasks/modulation/gradvac/target"]
    assert targets.shape == (3, 3, 3)
    assert not torch.allclose(targets[0], targets[1])
    assert kept["own-tasks/modulation/batches"].tolist() == [12, 12, 8]
    assert not any("target" in name for name in t.state)
    store = DirectoryStore(tmp_path)
    state, known = t.host.store.load([0, 1, 2])
    store.save([0, 1, 2], state, 2)
    assert all(known)
    assert all(torch.equal(leaf, state[name]) for name, leaf in store.load([0, 1, 2])[0].items())


def test_a_task_that_is_not_there_keeps_its_target_and_counts_no_batch():
    values = torch.tensor([[1.0, 2.0, 0.5]] * 2, dtype=torch.float64)
    w = torch.randn(2, 3, 4, dtype=torch.float64, generator=keys.torch_generator(3)).requires_grad_()
    means = (w * values.unsqueeze(2)).sum(2) ** 2
    losses = Losses(means.detach(), torch.tensor([[2.0, 0, 2], [0, 0, 0]], dtype=torch.float64), ("a", "b", "c"),
                    torch.zeros(3, dtype=torch.bool), np.arange(2, dtype=np.uint64))
    own = OwnTasks(Sum(), Gradvac(target_rate=0.5), Epochs())
    state = expand(own.start(3), 2)
    total, learnt = own.loss(means, losses, {"trunk.w": w}, state)
    assert total.tolist() == pytest.approx((means * losses.known).sum(1).tolist())
    target = learnt["modulation/gradvac/target"]
    assert (target[0] != 0).nonzero().tolist() in ([], [[0, 2], [2, 0]])
    assert not target[1].any()
    assert learnt["modulation/batches"].tolist() == [1, 0]


def test_draws_differ_from_client_to_client_and_batch_to_batch(monkeypatch):
    seen = []
    combine = Pcgrad.combine

    def watch(self, changes, standing, key):
        seen.append(int(key))
        return combine(self, changes, standing, key)

    monkeypatch.setattr(Pcgrad, "combine", watch)
    t = trial(modulation="pcgrad", federation=data(0.0), **{"batch-size": 4})
    t.rounds(2)
    assert len(seen) == len(set(seen)) == 2 * 2 * (3 + 2 + 2)


# GradNorm ------------------------------------------------------------------------------------------------------------------------

def given(values, norms, rows=None):
    values = torch.tensor(values, dtype=torch.float64)
    return Losses(values, torch.ones_like(values) if rows is None else torch.tensor(rows, dtype=torch.float64),
                  tuple("abc"[: values.shape[1]]), torch.zeros(values.shape[1], dtype=torch.bool), np.zeros(1, np.uint64),
                  torch.tensor(norms, dtype=torch.float64))


def fresh(weighting, tasks):
    return {name: leaf.double() for name, leaf in expand(weighting.start(tasks), 1).items()}


def test_gradnorm_is_a_gradient_step_on_its_loss():
    """Algorithm 1, with the gradient of its L_grad by autograd, on two batches."""
    weighting = Gradnorm(loss_lr=0.03, asymmetry=1.5)
    state, w, first = fresh(weighting, 3), torch.ones(3, dtype=torch.float64), torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    for values, norms in (([2.0, 1.0, 0.5], [3.0, 0.2, 1.0]), ([1.5, 0.4, 0.6], [2.0, 0.3, 1.5])):
        w.requires_grad_()
        n, loss = torch.tensor(norms, dtype=torch.float64), torch.tensor(values, dtype=torch.float64)
        pace = loss / first
        target = ((w * n).mean() * (pace / pace.mean()) ** 1.5).detach()
        [slope] = torch.autograd.grad((w * n - target).abs().sum(), w)
        w = (w - 0.03 * slope).detach()
        w = 3 * w / w.sum()
        state = weighting.learn(given([values], [norms]), state)
        torch.testing.assert_close(state["w"][0], w, rtol=1e-12, atol=1e-12)
        assert state["w"].sum().item() == pytest.approx(3)


def test_gradnorm_without_asymmetry_makes_all_norms_alike():
    weighting, norms = Gradnorm(loss_lr=0.001, asymmetry=0.0), [2.0, 1.0, 0.5]
    state = fresh(weighting, 3)
    for _ in range(3000):
        state = weighting.learn(given([[1.0, 2.0, 3.0]], [norms]), state)
    reach = state["w"][0] * torch.tensor(norms)
    assert reach.max() / reach.min() < 1.02


def test_gradnorm_favours_the_slower_of_two_alike():
    weighting, state = Gradnorm(), fresh(Gradnorm(), 2)
    state = weighting.learn(given([[1.0, 1.0]], [[1.0, 1.0]]), state)
    for _ in range(20):
        state = weighting.learn(given([[0.9, 0.3]], [[1.0, 1.0]]), state)
    assert state["w"][0, 0] > state["w"][0, 1]


def test_gradnorm_of_one_task_is_1_and_without_norms_it_rests():
    weighting = Gradnorm()
    state = weighting.learn(given([[2.0]], [[7.0]]), fresh(weighting, 1))
    assert state["w"].tolist() == [[1.0]]
    only = weighting.learn(given([[2.0, 1.0, 1.0]], [[7.0, 1.0, 1.0]], rows=[[0, 3, 0]]), fresh(weighting, 3))
    assert only["w"].tolist() == [[1.0, 1.0, 1.0]]
    resting = Losses(**{**vars(given([[1.0, 2.0]], [[1.0, 1.0]])), "norms": None})
    assert weighting.learn(resting, fresh(weighting, 2)).keys() == {"w", "first"}
    assert torch.equal(weighting.learn(resting, fresh(weighting, 2))["w"], torch.ones(1, 2, dtype=torch.float64))


def test_norms_are_those_of_the_last_matrix_that_tasks_share(monkeypatch):
    seen = []
    learn = Gradnorm.learn
    monkeypatch.setattr(Gradnorm, "learn", lambda self, losses, state: seen.append(losses.norms) or learn(self, losses, state))
    t = trial(federation=data(0.0), **{"loss-weighting": "gradnorm"})
    client, batch, leaves = begin(t)
    client.loss(leaves, batch)
    assert last_layer({n: leaf for n, leaf in leaves.items() if n.startswith("trunk.")}) == "trunk.linear0.weight"
    for slot in range(3):
        own = {n: leaf[slot].detach().requires_grad_() for n, leaf in leaves.items()}
        real = batch.weight[slot] > 0
        for i, mean in enumerate(tasks_by_hand(own, batch.x[slot, real], batch.y[slot, real])):
            [grad] = torch.autograd.grad(mean, own["trunk.linear0.weight"], retain_graph=True)
            assert seen[0][slot, i].item() == pytest.approx(grad.norm().item(), abs=1e-12)


def test_gradnorm_rests_while_the_trunk_does():
    t = trial(Fedrep(), **{"loss-weighting": "gradnorm"})
    client, batch, leaves = begin(t)
    heads = {n: leaf if n.startswith("head.") else leaf.detach() for n, leaf in leaves.items()}
    client.loss(heads, batch)
    assert torch.equal(client.balance["loss-weighting/w"], torch.ones(3, 3, dtype=torch.float64))
    client.loss(leaves, batch)
    assert not torch.equal(client.balance["loss-weighting/w"], torch.ones(3, 3, dtype=torch.float64))


# together ------------------------------------------------------------------------------------------------------------------------

METHODS = ["fedavg", "fedper", "ditto", "fedrep", "local"]
WEIGHTINGS = ["uniform", "uncertainty", "dwa", "famo", "gradnorm"]
SAMPLERS = ["epochs", "steps", "class-balanced", "temperature", "loss-proportional"]
PRODUCT = list(itertools.product(METHODS, WEIGHTINGS, ["none", "pcgrad", "graddrop", "gradvac", "cagrad", "upgrad"], SAMPLERS))
METHOD = discover("fedmtl.algorithms", Algorithm)


def together(method, weighting, modulation, sampler):
    pytest.importorskip("torchjd")
    t = trial(METHOD[method](), modulation=modulation, sampler=sampler,
              **{"loss-weighting": weighting, "batch-size": 4, "epochs": 1})
    t.rounds(3)
    for name, leaf in t.outcome().items():
        assert leaf.isfinite().all(), name


@pytest.mark.parametrize("words", PRODUCT[::37], ids="-".join)
def test_some_levers_together(words):
    together(*words)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_all_levers_together(method):
    for words in PRODUCT:
        if words[0] == method:
            together(*words)


@pytest.mark.parametrize(("words", "told"), [
    ({"training.modulation": "pcgard"}, r"training.modulation: unknown name 'pcgard'\n  did you mean 'pcgrad'\?"),
    ({"training.modulation": "pcgrad", "tasks.objective": "classification"}, "training.modulation: clients have one task each"),
    ({"training.loss-weighting": "dwa", "tasks.objective": "classification"}, "training.loss-weighting: clients have one task"),
    ({"training.modulation": "pcgrad", "algorithm.name": "fedem"}, "training.modulation: the method's clients do not minimise"),
    ({"training.loss-weighting": "dwa", "algorithm.name": "fedem"}, "training.loss-weighting: the method's clients do not"),
    ({"training.sampler": "loss-proportional", "algorithm.name": "fedem"}, "training.sampler: the method's clients do not"),
    ({"training.modulation": "cagrad", "training.c": -1.0}, "training.c: .*greater than or equal to 0"),
    ({"training.c": 0.4}, "training.c: neither optimizer 'sgd' nor .* nor modulation 'none' nor"),
    ({"training.loss-weighting": "gradnorm", "training.asymmetry": -1.0}, "training.asymmetry: .*greater than or equal to 0")])
def test_what_a_scenario_cannot_say(words, told):
    with pytest.raises(ScenarioError, match=told):
        load_scenario("task-sets", words)


def test_one_task_of_a_set_and_no_trunk_are_refused():
    with pytest.raises(ScenarioError, match=r"^training\.modulation: clients have one task each"):
        trial(tasks=[KIND], modulation="pcgrad")
    with pytest.raises(ScenarioError, match=r"^training\.modulation: the model has nothing before its heads"):
        trial(modulation="pcgrad", model={"trunk": "flat"})
    trial(Fedem(), modulation="none")


def test_what_is_missing_is_said_under_the_key_that_asked(monkeypatch):
    monkeypatch.setattr("fedmtl.mtl.modulation.theirs.find_spec", lambda name: None)
    with pytest.raises(ScenarioError, match=r"^training\.modulation: it needs torchjd, cvxpy, clarabel: pip install 'fedmtl\[mod"):
        load_scenario("task-sets", {"training.modulation": "cagrad"})
    with pytest.raises(ScenarioError, match=r"^server\.modulation: it needs torchjd"):
        load_scenario("task-sets", {"server.modulation": "cagrad"})


def test_a_run_and_its_repeat(tmp_path):
    words = {"rounds": 2, "tasks.clients": 5, "runtime.kind": "inline", "training.modulation": "gradvac", "evaluation.every": 2,
             "training.batch-size": 64, "training.loss-weighting": "gradnorm", "training.sampler": "loss-proportional"}
    first = run("task-sets", words, out=tmp_path / "a", report=False)
    assert 'modulation = "gradvac"' in (first.path / "scenario.toml").read_text()
    again = run(first.path / "scenario.toml", {"runtime.cohort": 2}, out=tmp_path / "b", report=False)
    same = run(first.path / "scenario.toml", out=tmp_path / "c", report=False)
    assert first.summary["checksum"] == same.summary["checksum"]
    assert again.summary["test"]["loss"]["mean"] == pytest.approx(first.summary["test"]["loss"]["mean"], rel=1e-3)


# planted conflicts ---------------------------------------------------------------------------------------------------------------

def planted(name, seed):
    """A client whose two tasks want one number of different things, as badly at first, and one through a head 3 times as steep."""
    def made(y):
        t = trial(Fedbabu(), federation_from(x, y, [200], held=10), tasks=TWO, cohort=1, modulation=name, lr=0.05, model=LINE,
                  **{"batch-size": 1000})
        for task, steepness in zip("ab", (3.0, 1.0), strict=True):
            t.host.model[f"head.{task}.weight"].fill_(steepness)
        return t

    draw = np.random.default_rng(seed)
    x = np.sqrt(200) * np.linalg.qr(draw.normal(size=(220, 6)))[0]
    x[:200] = np.sqrt(200) * np.linalg.qr(x[:200])[0]
    wanted = 3 * np.linalg.qr(draw.normal(size=(6, 6)))[0][:, :2]
    first = made(np.zeros((220, 2))).host.model["trunk.linear0.weight"].numpy().T
    return made(x @ (first * [3.0, 1.0] + wanted))


def worst(name, seed):
    """The loss of the task that does worst after some steps of the trunk alone; the heads are fixed."""
    t = planted(name, seed)
    t.rounds(4)
    client, model = t.host.client([0], 1, "batches"), t.models()["personal"]
    batch = next(client.batches(1))
    with torch.no_grad():
        return ((client.predict(model, batch) - batch.y) ** 2).mean(1).max().item()


@pytest.mark.parametrize("name", ["cagrad", "upgrad", "mgda"])
def test_on_tasks_that_conflict_the_worst_is_served_better(name):
    pytest.importorskip("torchjd")
    for seed in range(5):
        assert worst(name, seed) < worst("none", seed), seed
