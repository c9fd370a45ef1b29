"""Every loss against torch, scikit-learn or numpy by hand, and what each objective asks of its targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn
from zoo import CASES, as_integers, objective, outputs, samples, targets

from fedmtl.errors import ScenarioError

N = 50


def given(kind, missing=0.0):
    y = targets(kind, N, missing=missing)
    return outputs(kind, N), torch.from_numpy(y), y


def near(found, wanted):
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=1e-12, atol=1e-12)


def logistic(z):
    return 1 / (1 + np.exp(-z))


def test_classification():
    out, y, labels = given("classification")
    plain = objective("classification", {"classes": 4}).loss(out, y)
    near(plain.mean(), log_loss(labels[:, 0], torch.softmax(out, -1), labels=range(4)))
    near(objective("classification").loss(out, y), plain * torch.tensor([1, 2, 0.5, 3])[y[:, 0].long()])


def test_classification_as_ever():
    """Integer labels are all there, so nothing is masked and no bit of a run without further scores changes."""
    out, y = outputs("classification", 4, 6).float(), torch.from_numpy(as_integers("classification", targets("classification", 24)))
    one, y = objective("classification", {}), y.reshape(4, 6)
    assert one.present(y) is None
    assert one.metrics == {"accuracy": "max", "loss": "min"}
    assert list(one.rows(out, y)) == ["accuracy", "loss"]
    assert torch.equal(one.loss(out, y).flatten(), nn.functional.cross_entropy(out.flatten(0, 1), y.flatten(), reduction="none"))


def test_regression():
    out, y, _ = given("regression")
    for kind, loss in (("regression", nn.MSELoss), ("absolute", nn.L1Loss)):
        near(objective(kind).loss(out, y), loss(reduction="none")(out, y).mean(1))
        assert torch.equal(objective(kind, {}).loss(out, y), loss(reduction="none")(out, y).mean(1))
    near(objective("huber").loss(out, y), nn.HuberLoss(reduction="none", delta=0.3)(out, y).mean(1))
    assert objective("regression", {}).present(y) is None
    assert objective("regression", {}).metrics == {"mse": "min", "rmse": "min", "loss": "min"}


@pytest.mark.parametrize("kind", ["regression", "absolute", "huber", "multi-label", "reconstruction"])
def test_the_mean_over_the_entries_that_are_there(kind):
    out, y, numbers = given(kind, missing=0.4)
    one = objective(kind, CASES[kind].table | ({"pos-weight": []} if kind == "multi-label" else {}))
    penalty = {"multi-label": lambda z, t: -np.log(logistic(z if t else -z)), "absolute": lambda z, t: abs(z - t),
               "huber": lambda z, t: (z - t) ** 2 / 2 if abs(z - t) <= 0.3 else 0.3 * (abs(z - t) - 0.15)}.get(
                   kind, lambda z, t: (z - t) ** 2)
    for z, row, loss in zip(out.numpy(), numbers.reshape(N, -1), one.loss(out, y).tolist(), strict=True):
        there = [penalty(a, b) for a, b in zip(z, row, strict=True) if not np.isnan(b)]
        near(loss, np.mean(there) if there else 0.0)


def test_binary():
    out, y, labels = given("binary")
    plain, share = objective("binary", {}).loss(out, y), logistic(out[:, 0].numpy())
    near(plain.mean(), log_loss(labels[:, 0], share))
    near(objective("binary").loss(out, y), np.where(labels[:, 0] == 1, 3, 1) * plain.numpy())


def test_multi_label_weights():
    out, y, _ = given("multi-label")
    wanted = nn.BCEWithLogitsLoss(reduction="none", pos_weight=torch.tensor([1.0, 2, 4], dtype=torch.float64))(out, y).mean(1)
    near(objective("multi-label").loss(out, y), wanted)


def test_ordinal_likelihood():
    """P(y > k) falls with k, the classes' probabilities are its differences, and they sum to one."""
    out, y, labels = given("ordinal")
    z, one = out.numpy(), objective("ordinal")
    o = np.stack([z[:, 0], z[:, 0] - np.log1p(np.exp(z[:, 1])), z[:, 0] - np.log1p(np.exp(z[:, 1:])).sum(1)], 1)
    above = np.concatenate([np.ones((N, 1)), logistic(o), np.zeros((N, 1))], axis=1)
    assert (np.diff(above, axis=1) < 0).all()
    near(one.log_probabilities(out).exp(), -np.diff(above, axis=1))
    near(one.log_probabilities(out).exp().sum(-1), np.ones(N))
    near(one.loss(out, y), -np.log(-np.diff(above, axis=1))[np.arange(N), labels[:, 0].astype(int)])


def test_ordinal_of_two_classes_is_binary():
    out, y, _ = given("binary")
    near(objective("ordinal", {"classes": 2}).loss(out, y), objective("binary", {}).loss(out, y))


def test_ranking():
    out, y, grades = given("ranking", missing=0.3)
    s, v = out[:, 0].numpy(), grades[:, 0]
    for i, loss in enumerate(objective("ranking").loss(out, y).tolist()):
        pairs = [np.log1p(np.exp(-(s[i] - s[j]))) for j in range(N) if v[i] > v[j]]
        near(loss, np.mean(pairs) if pairs else 0.0)


def test_ranking_does_not_see_rows_without_a_label():
    """So a batch whose padding is NaN gives what the batch without padding gives."""
    out, y, _ = given("ranking")
    padded = y.clone()
    padded[30:] = torch.nan
    near(objective("ranking").loss(out, padded)[:30], objective("ranking").loss(out[:30], y[:30]))


def test_segmentation_and_tagging():
    for kind, layout in (("segmentation", lambda z: z.reshape(N, 3, 2, 4)), ("tagging", lambda z: z.reshape(N, 5, 3).mT)):
        out, y, _ = given(kind, missing=0.4)
        labels = y.nan_to_num(-1).long()
        entries = nn.functional.cross_entropy(layout(out), labels, ignore_index=-1, reduction="none").flatten(1)
        near(objective(kind).loss(out, y), entries.sum(1) / (labels >= 0).flatten(1).sum(1).clamp(min=1))


def test_reconstruction_of_several_axes():
    out, y, numbers = given("reconstruction")
    near(objective("reconstruction").loss(out, y), ((out.numpy().reshape(N, 2, 3) - numbers) ** 2).mean((1, 2)))
    near(objective("reconstruction").loss(out, y), objective("reconstruction", {}).loss(out, y.flatten(1)))


NAMED = ("no", "yes", "maybe")
WRONG = {
    "binary of three": ("binary", {}, np.zeros(4, np.int64), NAMED, ["two classes", "3 class labels", "allowed: classification"]),
    "half": ("binary", {}, np.full((4, 1), 0.5), (), ["labels 0 to 1", "-1 or NaN", "has 0.5"]),
    "two columns": ("binary", {}, np.zeros((4, 2)), (), [r"[N] int64 or [N, 1] floats", "[N, 2] float64"]),
    "grades": ("ranking", {}, np.zeros((4, 2)), (), ["one target a row"]),
    "classes unknown": ("ordinal", {}, np.zeros((4, 1)), (), ["tasks.objective.classes", "allowed: regression"]),
    "one class": ("ordinal", {"classes": 1}, np.zeros((4, 1)), (), ["at least 2 classes"]),
    "too many labels": ("tagging", {"classes": 2}, np.full((4, 3), 2), (), ["tagging needs labels 0 to 1", "has 2"]),
    "too low": ("tagging", {"classes": 2}, np.full((4, 3), -2), (), ["labels 0 to 1", "has -2"]),
    "other classes": ("classification", {"classes": 4}, np.zeros(4, np.int64), NAMED, ["as many", "classes = 4", "3 class labels"]),
    "weights": ("classification", {"class-weights": [1.0, 2.0]}, np.zeros(4, np.int64), NAMED, ["one class weight a class, not 2"]),
    "pos-weights": ("multi-label", {"pos-weight": [1.0, 2.0]}, np.zeros((4, 3)), (), ["one pos-weight a label, not 2"]),
    "one label": ("multi-label", {}, np.zeros(4, np.int64), NAMED, ["[N, k]", "allowed: binary, classification"]),
    "axes": ("segmentation", {"classes": 2, "axes": 2}, np.zeros((4, 6)), (), ["y [N, n, n]", "objective.axes = 2", "[N, 6]"]),
    "labels": ("reconstruction", {}, np.zeros((4, 6), np.int64), (), ["real-valued targets [N, n]", "int64"]),
    "named": ("huber", {}, np.zeros(4, np.int64), NAMED, ["huber needs real-valued targets", "allowed: classification"]),
    "not told": ("regression", {}, np.full((4, 1), np.nan), (), ["tasks.objective.missing = true"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_targets(name):
    kind, table, y, classes, words = WRONG[name]
    with pytest.raises(ScenarioError) as error:
        objective(kind, table).outputs(samples(y, classes))
    assert error.value.key == "tasks.objective"
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(("kind", "table", "words"), [
    ("huber", {"delta": 0}, ["tasks.objective.delta", "greater than 0"]),
    ("binary", {"pos-weight": -1.0}, ["tasks.objective.pos-weight"]),
    ("classification", {"also": ["f2"]}, ["tasks.objective.also", "allowed: auc, balanced-accuracy, macro-f1"]),
    ("ranking", {"k": 0}, ["tasks.objective.k"]),
])
def test_wrong_fields(kind, table, words):
    with pytest.raises(ScenarioError) as error:
        objective(kind, table)
    for word in words:
        assert word in str(error.value)
