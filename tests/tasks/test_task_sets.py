"""Sets of tasks: one head each, labels that are missing, and scores task by task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fedmtl import keys, run
from fedmtl.algorithms.ditto import Ditto
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.fedper import Fedper
from fedmtl.algorithms.fedrep import Fedrep
from fedmtl.conformance.case import Trial, federation_from
from fedmtl.errors import ScenarioError
from fedmtl.models import heads, trunks
from fedmtl.models.base import make_net, state_of
from fedmtl.models.stacked import Forward
from fedmtl.runtime.data import federation_of
from fedmtl.scenario import from_table, load_scenario
from fedmtl.tasks.task import Samples
from fedmtl.tasks.transforms.several import Hide, Targets
from fedmtl.trees import expand

KIND = {"name": "kind", "kind": "classification", "classes": 3, "columns": [0]}
AMOUNT = {"name": "amount", "kind": "regression", "columns": [1, 2]}
YES = {"name": "yes", "kind": "binary", "columns": [3]}
TASKS = [KIND, AMOUNT, YES]
SIZES = (9, 7, 5)
NOWHERE = float("nan")


def data(sizes=SIZES, missing=0.4, held=4):
    """Clients with all three tasks; a share of the labels of each is missing."""
    draw = np.random.default_rng(3)
    n = sum(sizes) + 2 * held * len(sizes)
    x = draw.normal(size=(n, 6))
    y = np.stack([draw.integers(0, 3, n), x[:, 0] - x[:, 1], x[:, 2], x[:, 3] > 0], axis=1).astype(np.float64)
    gone = draw.random((n, 3)) < missing
    y[gone[:, [0, 1, 1, 2]]] = NOWHERE
    return federation_from(x, y, sizes, held=held)


def trial(method=None, federation=None, *, tasks=TASKS, cohort=2, weighting="uniform", **training):
    """Full batches in float64."""
    return Trial(method or Fedavg(), federation or data(), {
        "tasks": {"objective": {"kind": "set", "tasks": tasks}},
        "training": {"lr": 0.1, "batch-size": 100, "dtype": "float64", "loss-weighting": weighting, **training},
        "runtime": {"cohort": cohort}, "server": {"weighting": "uniform"}})


def near(found, wanted, tolerance=1e-12):
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        assert torch.allclose(found[name], leaf, rtol=tolerance, atol=tolerance), name


def first_batch(t):
    slots = list(range(len(SIZES)))
    client = t.host.client(slots, 1, "batches")
    params = {name: leaf.clone().requires_grad_() for name, leaf in expand(t.host.model, len(slots)).items()}
    return client, params, next(client.batches(1))


def by_hand(params, x, y):
    """The three mean losses over labelled rows of one client, from its slice of parameters."""
    hidden = torch.tanh(F.layer_norm(x @ params["trunk.linear0.weight"].T + params["trunk.linear0.bias"], (5,),
                                     params["trunk.norm0.weight"], params["trunk.norm0.bias"]))
    out = {task: hidden @ params[f"head.{task}.weight"].T + params[f"head.{task}.bias"] for task in ("kind", "amount", "yes")}
    a, b, c = ~y[:, 0].isnan(), ~y[:, 1].isnan(), ~y[:, 3].isnan()
    return [F.cross_entropy(out["kind"][a], y[a, 0].long()), F.mse_loss(out["amount"][b], y[b, 1:3]),
            F.binary_cross_entropy_with_logits(out["yes"][c, 0], y[c, 3])]


def test_the_loss_is_the_mean_of_the_tasks_means_over_labelled_rows():
    t = trial(cohort=3)
    client, params, batch = first_batch(t)
    losses = client.loss(params, batch)
    found = torch.autograd.grad(losses.sum(), list(params.values()))
    for slot in range(len(SIZES)):
        own = {name: leaf[slot].detach().requires_grad_() for name, leaf in params.items()}
        real = batch.weight[slot] > 0
        known = [loss for loss in by_hand(own, batch.x[slot, real], batch.y[slot, real]) if not loss.isnan()]
        wanted = sum(known) / len(known)
        assert losses.tolist()[slot] == pytest.approx(wanted.item(), abs=1e-12)
        for grad, leaf in zip(found, torch.autograd.grad(wanted, list(own.values()), materialize_grads=True), strict=True):
            assert torch.allclose(grad[slot], leaf, atol=1e-12)


def test_heads_beside_each_other_are_the_module():
    for head in (heads.Linear(), heads.Linear(head_bias=False), heads.Mlp(head_hidden=3)):
        net = make_net(trunks.Mlp(hidden=(5,)), head, (4,), 6, keys.stream(0, "model"), heads={"a": 3, "b": 1, "c": 2}).double()
        forward, x = Forward(net), torch.randn(3, 7, 4, dtype=torch.float64, generator=keys.torch_generator(1))
        assert forward.path == "stacked"
        params = {name: (leaf.double() * torch.tensor([1.0, 0.7, -0.4]).double().reshape(-1, *[1] * leaf.dim())).requires_grad_()
                  for name, leaf in state_of(net).items()}
        out = forward(params, x)
        grads = torch.autograd.grad(out.square().sum(), list(params.values()))
        for c in range(3):
            alone = {name: leaf[c : c + 1].detach().requires_grad_() for name, leaf in params.items()}
            one = forward(alone, x[c : c + 1])
            assert torch.allclose(one[0], out[c], atol=1e-13)
            for grad, leaf in zip(grads, torch.autograd.grad(one.square().sum(), list(alone.values())), strict=True):
                assert torch.allclose(grad[c], leaf[0], atol=1e-12)
    with pytest.raises(ScenarioError, match=r"^tasks\.objective\.tasks: a task cannot be called 'train'"):
        make_net(trunks.Mlp(), heads.Linear(), (4,), 2, keys.stream(0, "model"), heads={"train": 2})


def test_a_task_without_labels_is_a_task_that_is_not_there():
    """A whole round of a client that lacks all labels of a task, against the set without that task."""
    full = data()
    y = full.y.copy()
    y[:, 3] = NOWHERE
    for method in (Fedavg(), Fedper(), Ditto()):
        masked, without = trial(method, replace(full, y=y), epochs=3), trial(method, full, tasks=TASKS[:2], epochs=3)
        for t in (masked, without):
            t.rounds(2)
        near({name: leaf for name, leaf in masked.outcome().items() if ".yes." not in name}, without.outcome(), 1e-6)
        kept = {name: leaf for name, leaf in masked.outcome().items() if name.endswith("head.yes.weight")}
        assert kept
        for leaf in kept.values():  # and the head of that task is as it was
            assert torch.allclose(leaf, masked.host.model["head.yes.weight"].expand_as(leaf), atol=1e-12)


def test_rows_without_any_label_are_rows_left_out():
    """Rows that lack all labels, in full batches: as if the client had never had them (through two rounds, 1e-6)."""
    full = data(missing=0.0)
    y, keep = full.y.copy(), []
    for client, size in enumerate(SIZES):
        train = full.part(client, "train")
        y[train[size // 2 :]] = NOWHERE
        keep += [*train[: size // 2], *full.part(client, "val"), *full.part(client, "test")]
    fewer = federation_from(full.x[keep], full.y[keep], [size // 2 for size in SIZES])
    for method in (Fedper(), Fedrep()):
        masked, left_out = trial(method, replace(full, y=y), epochs=2), trial(method, fewer, epochs=2)
        for t in (masked, left_out):
            t.rounds(2)
        near(masked.outcome(), left_out.outcome(), 1e-6)


@pytest.mark.parametrize("width", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("weighting", ["uniform", "uncertainty", "dwa", "random", "famo"])
@pytest.mark.parametrize("method", [Fedavg(), Fedper(), Ditto()])
def test_cohorts_and_loops_agree(method, weighting, width):
    found = []
    for cohort in (1, width):
        t = trial(method, cohort=cohort, weighting=weighting, **{"batch-size": 3, "epochs": 1})
        t.rounds(3)
        found.append(t.outcome())
    assert any("loss-weighting" in name for name in found[0]) == (weighting != "uniform")
    near(found[1], found[0], 1e-9)


def test_scores_are_those_of_the_labelled_rows():
    federation = data()
    t = trial(federation=federation)
    client = t.host.client([0, 1, 2], 1, "adapt")
    scores = t.host.score([0, 1, 2], lambda x: client.signature.forward(expand(t.host.model, 3), x))
    for c in range(3):
        rows = federation.part(c, "test")
        own = dict(t.host.model)
        y = torch.from_numpy(federation.y[rows])
        wanted = by_hand(own, torch.from_numpy(federation.x[rows]), y)
        for task, loss in zip(("kind", "amount", "yes"), wanted, strict=True):
            np.testing.assert_allclose(scores["test", f"{task}.loss"][c], loss, atol=1e-12)
        known = [float(loss) for loss in wanted if not loss.isnan()]
        np.testing.assert_allclose(scores["test", "loss"][c], np.mean(known), atol=1e-12)
    assert t.host.metrics["kind.accuracy"] == "max"
    assert t.host.metrics["amount.rmse"] == "min"
    assert t.host.primary == "loss"


TINY = {"tasks.clients": 5, "rounds": 2, "evaluation.every": 1, "runtime.kind": "inline"}


def test_a_run_says_each_tasks_scores(tmp_path):
    result = run("task-sets", TINY, out=tmp_path / "run", report=False)
    frame = result.metrics
    has = {metric: sorted(part["client"].unique()) for metric, part in frame.groupby("metric", observed=True)}
    assert has["digit.accuracy"] == [0, 2, 3, 4]  # client 1 has no digits
    assert has["ink.rmse"] == [0, 1, 2, 4]
    assert has["loss"] == [0, 1, 2, 3, 4]
    assert result.summary["test"]["digit.accuracy"]["direction"] == "max"
    assert result.summary["test"]["ink.rmse"]["direction"] == "min"
    assert 0.5 < result.summary["test"]["ink.rmse"]["mean"] < 30  # in units of ink, not in standard deviations


def test_columns_that_regress_are_standardised_and_no_others():
    federation = federation_of(load_scenario("task-sets", TINY))
    assert (federation.center[:, :2] == 0).all()
    assert (federation.spread[:, :2] == 1).all()
    for client in range(5):
        ink = federation.y[federation.part(client, "train"), 2]
        if client != 3:
            assert abs(ink.mean()) < 1e-4
            assert ink.std() == pytest.approx(1, abs=1e-4)
    assert set(np.unique(federation.y[:, 1][~np.isnan(federation.y[:, 1])])) == {0, 1}


def test_hidden_labels():
    samples = load_scenario("task-sets").groups[0].source.load(1, 0)
    made = Targets(of=("class", "centroid")).apply(samples, 0, 0)
    assert made.y.shape == (len(samples), 3)
    assert np.array_equal(made.y[:, 0], samples.y)
    hidden = Hide(columns=(1, 2), share=0.3).apply(made, 0, 0)
    gone = np.isnan(hidden.y)
    assert gone.sum(axis=0).tolist() == [0, *[round(0.3 * len(samples))] * 2]
    assert np.array_equal(gone[:, 1], gone[:, 2])
    assert np.array_equal(hidden.y[~gone], made.y[~gone])
    assert np.isnan(Hide(columns=((0,), ()), share=1.0).apply(made, 2, 0).y[:, 0]).all()
    assert not np.isnan(Hide(columns=((0,), ()), share=1.0).apply(made, 3, 0).y).any()
    others = np.isnan(Hide(columns=(0,), share=0.3).apply(made, 0, 0).y[:, 0])
    assert (others != gone[:, 1]).any()
    assert (np.isnan(Hide(columns=(0,), share=0.3).apply(made, 1, 0).y[:, 0]) != others).any()
    with pytest.raises(ScenarioError, match=r"^tasks\.transform\.columns: y has columns 0 to 2, but no 3"):
        Hide(columns=((3,),)).check(made)
    with pytest.raises(ScenarioError, match=r"^tasks\.transform\.columns: \"hide\" needs targets"):
        Hide(columns=(0,)).check(samples)


def table(tasks, **more):
    return {"name": "t", "rounds": 1, "algorithm": {"name": "fedper"},
            "tasks": {"source": "digits", "clients": 2, "objective": {"kind": "set", "tasks": tasks}, **more}}


@pytest.mark.parametrize(("tasks", "told"), [
    ([], r"tasks\.objective\.tasks: "),
    ([{"name": "a", "kind": "binary"}], r"tasks\.objective\.tasks\.0\.columns: Field required"),
    ([{**KIND, "name": "A b"}], r"tasks\.objective\.tasks\.0\.name: "),
    ([{**KIND, "kind": "clasification"}], r"tasks\.objective\.tasks\.0\.kind: unknown name 'clasification'\n  did you mean"),
    ([{**KIND, "kind": "set"}], r"tasks\.objective\.tasks\.0\.kind: a task of a set cannot be of kind 'set'"),
    ([YES, {**KIND, "clases": 3}], r"tasks\.objective\.tasks\.1\.clases: 'classification' has no such key"),
    ([KIND, KIND], r"tasks\.objective\.tasks: every task needs a name of its own"),
])
def test_refusals(tasks, told):
    with pytest.raises(ScenarioError, match=f"^{told}"):
        from_table(table(tasks))
    group = {"name": "g", "source": "digits", "clients": 2, "objective": {"kind": "set", "tasks": tasks}}
    with pytest.raises(ScenarioError, match="^" + told.replace(r"tasks\.", r"tasks\.group\.0\.", 1)):
        from_table({**table([KIND]), "tasks": {"group": [group]}})


@pytest.mark.parametrize(("task", "told"), [
    ({**AMOUNT, "columns": [4]}, r"tasks\.objective\.tasks\.0\.columns: the targets have 4 columns"),
    ({**KIND, "columns": [1]}, r"tasks\.objective\.tasks\.0: classification needs labels 0 to 2"),
    ({**KIND, "columns": [0, 1]}, r"tasks\.objective\.tasks\.0: classification needs "),
    ({"name": "kind", "kind": "classification", "columns": [0]}, r"tasks\.objective\.tasks\.0: classification needs class labels"),
])
def test_targets_that_do_not_fit(task, told):
    with pytest.raises(ScenarioError, match=f"^{told}"):
        trial(tasks=[task])


def test_targets_must_be_columns():
    built = from_table(table([KIND])).objective(0, ())
    with pytest.raises(ScenarioError, match=r"^tasks\.objective: set needs targets \[N, K\] as floats"):
        built.fitted(Samples(np.zeros((3, 2)), np.zeros(3, np.int64), ("a", "b")))
