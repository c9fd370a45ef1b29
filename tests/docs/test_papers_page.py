"""The scenarios of docs/papers.md: every one can be read, is measured by the script, and the page holds what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from fedmtl.scenario import load_scenario, shipped

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import measure_papers  # noqa: E402
from measure_papers import ROWS, Row  # noqa: E402

NAMES = sorted(name.removeprefix("papers/") for name in shipped() if name.startswith("papers/"))


def test_the_script_measures_them_all():
    assert sorted(ROWS) == NAMES
    assert sorted(measure_papers.UNITS) == NAMES
    assert len(NAMES) >= 9


@pytest.mark.parametrize("name", NAMES)
def test_each_is_read_with_each_row(name):
    for row in ROWS[name].values():
        assert load_scenario(f"papers/{name}", row.changes).name == f"papers/{name}"


def test_the_table_is_what_was_measured():
    page = measure_papers.PAGE.read_text(encoding="utf-8")
    told = page.split(measure_papers.BEGIN)[1].split(measure_papers.END)[0]
    assert told == measure_papers.table(), "run python scripts/measure_papers.py --table"
    figures = pd.read_csv(measure_papers.FIGURES)
    assert not figures.duplicated(["scenario", "row", "seed", "figure"]).any()
    assert all(row in ROWS[name] for name, row in zip(figures["scenario"], figures["row"], strict=True))


def test_a_row_that_is_measured_again_takes_its_old_place(tmp_path, monkeypatch):
    monkeypatch.setattr(measure_papers, "FIGURES", tmp_path / "papers.csv")
    for row, seed, value in (("local", 1, 0.1), ("global", 2, 0.2), ("global", 1, 0.3), ("local", 1, 0.4)):
        one = {"scenario": ["school"], "row": [row], "seed": [seed], "figure": ["explained"], "value": [value]}
        measure_papers.keep(pd.DataFrame(one))
    assert pd.read_csv(tmp_path / "papers.csv").to_numpy().tolist() == [
        ["school", "global", 1, "explained", 0.3], ["school", "global", 2, "explained", 0.2],
        ["school", "local", 1, "explained", 0.4]]
    assert "| Global: FedAvg | 22.7 (m) | 25.0 +- 7.1 | 2 |" in measure_papers.table()
    assert "| MR-MTL | 26.7 (m), another method | not measured | 0 |" in measure_papers.table()


def test_central_ridges():
    """Against scikit-learn, and the tied ones by the gradient of what they minimise."""
    draw, T, d = np.random.default_rng(0), 4, 3
    sizes, truth = [6, 9, 12, 7], draw.normal(size=d)
    x = [draw.normal(size=(n, d)) for n in sizes]
    y = [one @ truth + draw.normal(size=len(one)) for one in x]
    a, b = np.stack([one.T @ one / len(one) for one in x]), np.stack([one.T @ t / len(t) for one, t in zip(x, y, strict=True)])
    share = np.array(sizes) / sum(sizes)
    for t, w in enumerate(measure_papers._own_ridges(a, b, share)):
        np.testing.assert_allclose(w, Ridge(alpha=0.03 * sizes[t], fit_intercept=False).fit(x[t], y[t]).coef_)
    both = Ridge(alpha=5e-4 * sum(sizes), fit_intercept=False).fit(np.concatenate(x), np.concatenate(y)).coef_
    np.testing.assert_allclose(measure_papers._one_ridge(a, b, share), np.tile(both, (T, 1)))
    w = measure_papers._tied_ridges(a, b, share)
    np.testing.assert_allclose(2 * (np.einsum("tij,tj->ti", a, w) - b) + w - share @ w, 0, atol=1e-12)


def test_central_logistic_regressions_that_are_tied():
    """By the gradient of what they minimise, in every w_t and in w."""
    draw, T, d, K, lam, ridge = np.random.default_rng(0), 3, 4, 3, 0.02, 0.05
    train = []
    for n in (20, 31, 26):
        x = draw.normal(size=(n, d))
        train.append((x, (x @ draw.normal(size=(d, K))).argmax(1)))
    weights = measure_papers.tied_weights(train, lam, ridge)
    assert weights.shape == (T, d, K)
    w = weights.sum(0) * lam / (T * lam + ridge)
    for (x, y), own in zip(train, weights, strict=True):
        p = np.exp(x @ own)
        slope = x.T @ (p / p.sum(1, keepdims=True) - np.eye(K)[y]) / len(y)
        np.testing.assert_allclose(slope + lam * (own - w), 0, atol=1e-4)


@pytest.mark.slow
def test_mr_mtl_reaches_the_central_solution():
    """School, one draw: the explained variance of the federated run is that of the linear system."""
    if not (ROOT.parent / "shared" / "data" / "school.npz").exists():
        pytest.skip("the School file is not here")
    runs, central = (measure_papers.measured("school", ROWS["school"][row], 0)["explained"] for row in ("mr-mtl", "central-mr-mtl"))
    assert runs == pytest.approx(central, abs=0.005)


@pytest.mark.parametrize("row", [Row("IFCA", {"rounds": 3}), ROWS["ifca-clusters"]["cfl"]], ids=["ifca", "cfl"])
def test_clusters_are_found(row):
    assert measure_papers.measured("ifca-clusters", row, 0)["cluster_ari"] == 1.0
