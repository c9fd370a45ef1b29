"""Every score against scikit-learn or scipy on random data, and where it is undefined."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau
from sklearn import metrics
from zoo import CASES, all_scores, objective, outputs, targets

N = 80


def scored(kind, missing=0.0, table=None):
    """(scores, outputs, targets as int64 or as they are) on random outputs."""
    y, out = targets(kind, N, missing=missing, seed=7), outputs(kind, N, seed=8)
    return all_scores(objective(kind, table), out, torch.from_numpy(y)), out.numpy(), y


def near(found, wanted):
    assert found == pytest.approx(wanted, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_classification(missing):
    found, out, y = scored("classification", missing)
    at = ~np.isnan(y[:, 0])
    true, said, share = y[at, 0].astype(int), out[at].argmax(1), torch.softmax(torch.from_numpy(out[at]), 1).numpy()
    near(found["accuracy"], metrics.accuracy_score(true, said))
    near(found["balanced_accuracy"], metrics.balanced_accuracy_score(true, said))
    near(found["macro_f1"], metrics.f1_score(true, said, average="macro"))
    near(found["auc"], metrics.roc_auc_score(true, share, multi_class="ovr"))


def test_classification_where_classes_are_absent():
    """Classes that are neither there nor predicted count nowhere; predicted ones that are not there cost F1 alone."""
    one, true, said = objective("classification"), np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 2])
    out = torch.from_numpy(4.0 * (said[:, None] == np.arange(4)))
    found = all_scores(one, out, torch.from_numpy(true))
    near(found["balanced_accuracy"], (1 / 2 + 2 / 3) / 2)
    near(found["macro_f1"], metrics.f1_score(true, said, average="macro", zero_division=0))
    share = torch.softmax(out, 1).numpy()
    near(found["auc"], np.mean([metrics.roc_auc_score(true == k, share[:, k]) for k in (0, 1)]))
    assert np.isnan(all_scores(one, out[:2], torch.from_numpy(true[:2]))["auc"])


@pytest.mark.parametrize("kind", ["regression", "absolute", "huber"])
def test_regression(kind):
    found, out, y = scored(kind, table=CASES[kind].table | {"also": ["mae", "r2"]})
    near(found["mse"], metrics.mean_squared_error(y, out))
    near(found["rmse"], metrics.mean_squared_error(y, out) ** 0.5)
    near(found["mae"], metrics.mean_absolute_error(y, out))
    near(found["r2"], metrics.r2_score(y, out))
    assert set(found) == {"mse", "rmse", "mae", "r2", "loss"}
    assert next(iter(objective(kind).metrics)) == ("mse" if kind == "regression" else "mae")


def test_r2_where_targets_are_missing_or_constant():
    one, out, y = objective("regression"), outputs("regression", 9), torch.from_numpy(targets("regression", 9))
    y[2:5, 0] = torch.nan
    y[:, 1] = 3.0
    keep = [0, 1, 5, 6, 7, 8]
    near(all_scores(one, out, y)["r2"], metrics.r2_score(y[keep, 0], out[keep, 0]))
    assert np.isnan(one.whole(out[:1].numpy(), y[:1].numpy())["r2"])


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_binary(missing):
    found, out, y = scored("binary", missing)
    at = ~np.isnan(y[:, 0])
    near(found["accuracy"], metrics.accuracy_score(y[at, 0], out[at, 0] > 0))
    near(found["auc"], metrics.roc_auc_score(y[at, 0], out[at, 0]))


def test_binary_of_one_class():
    found = all_scores(objective("binary"), outputs("binary", 5), torch.ones(5, 1))
    assert np.isnan(found["auc"])
    assert 0 <= found["accuracy"] <= 1


def test_multi_label():
    found, out, y = scored("multi-label")
    near(found["auc"], metrics.roc_auc_score(y, out, average="macro"))
    near(found["macro_f1"], metrics.f1_score(y, out > 0, average="macro"))
    near(found["subset_accuracy"], metrics.accuracy_score(y, out > 0))
    near(found["hamming"], metrics.hamming_loss(y, out > 0))


def test_multi_label_where_labels_are_missing():
    found, out, y = scored("multi-label", 0.4)
    there = [~np.isnan(column) for column in y.T]
    columns = [(y[at, k], out[at, k]) for k, at in enumerate(there)]
    near(found["auc"], np.mean([metrics.roc_auc_score(true, z) for true, z in columns]))
    near(found["macro_f1"], np.mean([metrics.f1_score(true, z > 0) for true, z in columns]))
    known = ~np.isnan(y)
    near(found["hamming"], metrics.zero_one_loss(y[known], out[known] > 0))
    rows = known.any(1)
    near(found["subset_accuracy"], np.mean(((y == (out > 0)) | ~known)[rows].all(1)))


def test_multi_label_that_is_always_the_same():
    """A label without a 1, given or predicted, has no F1; one of a single value has no area."""
    y = torch.tensor([[0.0, 0, 1], [0, 1, 1], [0, 1, 1]])
    out = torch.tensor([[-1.0, -1, 2], [-2, 1, 1], [-1, 2, -1]])
    found = all_scores(objective("multi-label"), out, y)
    near(found["macro_f1"], metrics.f1_score(y, out > 0, average="macro", zero_division=np.nan))
    near(found["auc"], 1.0)


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_ordinal(missing):
    found, out, y = scored("ordinal", missing)
    at = ~np.isnan(y[:, 0])
    true, p = y[at, 0].astype(int), objective("ordinal").log_probabilities(torch.from_numpy(out[at])).exp().numpy()
    said = (p.cumsum(1) < 0.5).sum(1)
    near(found["mae"], metrics.mean_absolute_error(true, said))
    near(found["accuracy"], metrics.accuracy_score(true, said))
    near(found["kappa"], metrics.cohen_kappa_score(true, said, weights="quadratic"))


def test_kappa_of_one_class():
    one, out = objective("ordinal"), torch.full((4, 3), -9.0)
    assert np.isnan(all_scores(one, out, torch.zeros(4, 1))["kappa"])
    assert all_scores(one, out, torch.tensor([[0.0], [1], [0], [1]]))["kappa"] == 0


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_ranking(missing):
    found, out, y = scored("ranking", missing)
    at = ~np.isnan(y[:, 0])
    s, v = out[at, 0], y[at, 0]
    near(found["ndcg"], metrics.ndcg_score(v[None], s[None], k=5))
    near(found["kendall_tau"], kendalltau(v, s).statistic)
    pairs = [s[i] > s[j] for i in range(len(v)) for j in range(len(v)) if v[i] > v[j]]
    near(found["pairwise_accuracy"], np.mean(pairs))
    near(found["loss"], objective("ranking").loss(torch.from_numpy(out[at]), torch.from_numpy(y[at])).mean().item())


def test_ranking_of_two_grades_is_the_area_under_the_curve():
    draw = np.random.default_rng(0)
    s, v = draw.integers(0, 20, (600, 1)).astype(float), draw.integers(0, 2, (600, 1)).astype(float)
    near(objective("ranking").whole(s, v)["pairwise_accuracy"], metrics.roc_auc_score(v[:, 0], s[:, 0]))


def test_ranking_where_nothing_can_be_ranked():
    one, s = objective("ranking"), np.arange(4.0)[:, None]
    assert all(np.isnan(value) for value in one.whole(s, np.ones((4, 1))).values())
    found = one.whole(np.zeros((4, 1)), s - 2)
    assert found["pairwise_accuracy"] == 0.5
    assert np.isnan(found["kendall_tau"])
    assert np.isnan(found["ndcg"])


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_segmentation_and_tagging(missing):
    for kind in ("segmentation", "tagging"):
        found, out, y = scored(kind, missing)
        flat = y.reshape(N, -1)
        at = ~np.isnan(flat)
        said = out.reshape(N, 3, -1).argmax(1) if kind == "segmentation" else out.reshape(N, -1, 3).argmax(2)
        true, said = flat[at].astype(int), said[at]
        near(found["pixel_accuracy" if kind == "segmentation" else "token_accuracy"], metrics.accuracy_score(true, said))
        if kind == "segmentation":
            near(found["miou"], metrics.jaccard_score(true, said, average="macro"))
        else:
            near(found["macro_f1"], metrics.f1_score(true, said, average="macro"))


def test_reconstruction():
    found, out, y = scored("reconstruction")
    errors = ((out - y.reshape(N, -1)) ** 2).mean(1)
    near(found["mse"], errors.mean())
    near(found["psnr"], np.mean(20 * np.log10(2.0 / np.sqrt(errors))))


def test_psnr_of_a_copy_is_finite():
    y = torch.from_numpy(targets("reconstruction", 3)).float()
    psnr = objective("reconstruction").rows(y.flatten(1), y)["psnr"]
    near(psnr.tolist(), [-20 * np.log10(np.finfo(np.float32).eps)] * 3)
