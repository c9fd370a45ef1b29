"""Synthetic families: every truth can be found again in the data, by a method that knows what to look for."""

import time

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from fedmtl.errors import ScenarioError
from fedmtl.registry import build, discover
from fedmtl.tasks.federation import make_federation
from fedmtl.tasks.sources import check_samples
from fedmtl.tasks.sources.bundled import BreastCancer, Diabetes, Wine
from fedmtl.tasks.sources.synthetic_clusters import SyntheticClusters
from fedmtl.tasks.sources.synthetic_conflict import SyntheticConflict
from fedmtl.tasks.sources.synthetic_fedprox import SyntheticFedprox
from fedmtl.tasks.sources.synthetic_graph import SyntheticGraph, smoothed
from fedmtl.tasks.sources.synthetic_imbalance import SyntheticImbalance
from fedmtl.tasks.sources.synthetic_linear import SyntheticLinear
from fedmtl.tasks.sources.synthetic_mixture import SyntheticMixture
from fedmtl.tasks.task import Source

MADE = {"synthetic-clusters": SyntheticClusters(), "synthetic-conflict": SyntheticConflict(), "synthetic-graph": SyntheticGraph(),
        "synthetic-fedprox": SyntheticFedprox(), "synthetic-imbalance": SyntheticImbalance(ratio=20.0),
        "synthetic-linear": SyntheticLinear(), "synthetic-mixture": SyntheticMixture()}
GROWING = [SyntheticClusters(outliers=2, spread=0.1), SyntheticConflict(), SyntheticMixture(), SyntheticMixture(target="class"),
           SyntheticFedprox(), SyntheticFedprox(samples=30), SyntheticClusters(target="class")]


def fitted(samples, clients):
    """[clients, dim] each client's own least squares."""
    return np.stack([np.linalg.lstsq(samples.x[samples.owner == c], samples.y[samples.owner == c, 0])[0] for c in range(clients)])


def test_each_family_is_tried():
    found = discover("fedmtl.tasks.sources", Source)
    assert set(MADE) == {name for name in found if name.startswith("synthetic")}


@pytest.mark.parametrize("name", MADE)
def test_what_every_family_holds_to(name):
    np.random.seed(1)  # noqa: NPY002  that the global generator is neither read nor moved is the point
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = (check_samples(MADE[name].load(9, seed), "tasks.source") for seed in (3, 3, 4))
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert one.x.tobytes() + one.y.tobytes() == same.x.tobytes() + same.y.tobytes()
    assert not np.array_equal(one.x[:10], other.x[:10])
    assert np.array_equal(one.owner, np.sort(one.owner))
    assert np.unique(one.owner).tolist() == list(range(9))
    assert one.task == name
    assert one.truth.keys() == other.truth.keys() != set()
    assert any(value.shape[0] == 9 for value in one.truth.values())
    assert all(np.isfinite(value).all() for value in one.truth.values())
    with pytest.raises(ScenarioError, match=r"tasks\.clients"):
        MADE[name].load(0, 0)
    federation = make_federation(MADE[name], [], [], clients=9, val=0.1, test=0.2, seed=3)
    assert federation.clients == 9
    assert federation.truth.keys() == one.truth.keys()


@pytest.mark.parametrize("source", GROWING, ids=repr)
def test_a_client_does_not_depend_on_how_many_there_are(source):
    few, many = source.load(4, 1), source.load(11, 1)
    assert np.array_equal(few.x, many.x[: len(few)])
    assert np.array_equal(few.y, many.y[: len(few)])


def test_targets_are_linear_in_the_true_weights():
    for source in (SyntheticClusters(noise=0.0, outliers=2), SyntheticConflict(noise=0.0), SyntheticGraph(noise=0.0)):
        samples = source.load(8, 0)
        expected = np.sum(samples.x * samples.truth["weights"][samples.owner], axis=1)
        assert np.allclose(samples.y[:, 0], expected, atol=1e-4)
        signs = type(source)(noise=0.0, target="class").load(8, 0)
        assert signs.classes == ("negative", "positive")
        assert np.mean(signs.y) == pytest.approx(0.5, abs=0.1)
    noisy = SyntheticClusters(noise=0.5, samples=500).load(8, 0)
    assert np.std(noisy.y[:, 0] - np.sum(noisy.x * noisy.truth["weights"][noisy.owner], axis=1)) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("outliers", [0, 3])
def test_clusters_are_found_in_the_clients_own_weights(outliers):
    source = SyntheticClusters(groups=4, outliers=outliers, separation=3.0, spread=0.1, dim=10)
    samples = source.load(24 + outliers, 2)
    truth = samples.truth["clusters"]
    assert np.bincount(truth).tolist() == [6] * 4 + [1] * outliers
    found = AgglomerativeClustering(n_clusters=None, distance_threshold=1.0, linkage="complete").fit_predict(
        fitted(samples, 24 + outliers))
    assert adjusted_rand_score(truth, found) == 1
    centres = np.stack([samples.truth["weights"][truth == g].mean(axis=0) for g in range(4)])
    apart = np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(4, 1)]
    assert apart == pytest.approx(3.0, rel=0.05)
    lengths = np.linalg.norm(samples.truth["weights"][:outliers], axis=1)
    assert lengths == pytest.approx(3 / 2**0.5)


def test_graph_weights_solve_their_equation():
    for graph in ("ring", "blocks", "random"):
        source = SyntheticGraph(graph=graph, degree=4, groups=3, smooth=7.0)
        a = source.load(30, 5).truth["graph"]
        assert np.array_equal(a, a.T)
        assert not a.diagonal().any()
        degrees = a.sum(axis=1)
        assert {"ring": set(degrees) == {4}, "blocks": set(degrees) == {9}, "random": 2 < degrees.mean() < 6}[graph]
        z = np.random.default_rng(0).standard_normal((30, 5))
        laplacian = np.diag(degrees) - a
        assert np.allclose(smoothed(z, a, 7.0), np.linalg.solve(np.eye(30) + 7 * laplacian, z), atol=1e-9)
    assert np.array_equal(smoothed(z, a, 0.0), z)


def test_graph_is_found_in_the_clients_own_weights():
    for graph in ("ring", "blocks", "random"):
        rough, smooth = (SyntheticGraph(graph=graph, smooth=s, noise=0.01).load(40, 0) for s in (0.0, 30.0))
        for samples, low in ((rough, 0.8), (smooth, 0.0)):
            w, a = fitted(samples, 40), samples.truth["graph"]
            assert np.mean(samples.truth["weights"] ** 2) == pytest.approx(1)
            apart = np.sum((w[:, None] - w) ** 2, axis=2)
            near, far = apart[a > 0].mean(), apart[(a == 0) & ~np.eye(40, dtype=bool)].mean()
            assert low <= near / far < (0.5 if low == 0 else 1.2)
    blocks = SyntheticGraph(graph="blocks", groups=4, smooth=100.0, noise=0.01).load(40, 0)
    found = AgglomerativeClustering(n_clusters=4).fit_predict(fitted(blocks, 40))
    assert adjusted_rand_score(np.arange(40) % 4, found) == 1


def test_mixture_weights_are_found_by_counting():
    samples = SyntheticMixture(components=4, samples=1500, noise=0.0).load(12, 3)
    pi, theta = samples.truth["mixture"], samples.truth["components"]
    assert pi.sum(axis=1) == pytest.approx(1)
    z = np.argmin(np.abs(samples.x @ theta.T - samples.y), axis=1)
    assert np.abs(np.take_along_axis(samples.x @ theta.T, z[:, None], 1) - samples.y).max() < 1e-4
    counts = np.stack([np.bincount(z[samples.owner == c], minlength=4) for c in range(12)]) / 1500
    assert np.abs(counts - pi).max() < 0.06
    assert np.abs(counts - pi).mean() < 0.01
    assert (samples.x.min() >= -1, samples.x.max() <= 1, abs(theta).max() <= 1) == (True,) * 3
    alone = SyntheticMixture(components=1, samples=4000, noise=0.0, target="class", dim=3).load(3, 0)
    score = alone.x @ alone.truth["components"][0]
    likely = score > np.quantile(score, 0.9)
    assert alone.y[likely].mean() == pytest.approx(np.mean(1 / (1 + np.exp(-score[likely]))), abs=0.04)


@pytest.mark.parametrize(("angle", "groups"), [(120.0, 2), (180.0, 2), (0.0, 3), (60.0, 3), (120.0, 3), (100.0, 5)])
def test_gradients_form_the_angle_at_the_start(angle, groups):
    samples = SyntheticConflict(angle=angle, groups=groups, ratio=4.0, samples=6000, dim=8).load(2 * groups, 1)
    gradients = np.stack([-2 * np.mean(samples.x[samples.owner == c] * samples.y[samples.owner == c], axis=0)
                          for c in range(2 * groups)])
    lengths = np.linalg.norm(gradients, axis=1)
    cosine = np.clip(gradients @ gradients.T / np.outer(lengths, lengths), -1, 1)
    assert np.rad2deg(np.arccos(cosine)) == pytest.approx(samples.truth["angle"], abs=5)
    assert lengths[groups - 1] / lengths[0] == pytest.approx(4, rel=0.1)
    w = samples.truth["weights"][:groups] / np.linalg.norm(samples.truth["weights"][:groups], axis=1, keepdims=True)
    assert (w @ w.T)[np.triu_indices(groups, 1)] == pytest.approx(np.cos(np.deg2rad(angle)))


def test_sizes_of_one_to_a_thousand_and_the_subspace():
    samples = SyntheticImbalance().load(7, 0)
    sizes = np.bincount(samples.owner)
    assert sizes.tolist() == samples.truth["sizes"].tolist() == [10, 32, 100, 316, 1000, 3162, 10000]
    samples = SyntheticImbalance(smallest=100, ratio=10.0).load(12, 0)
    w = fitted(samples, 12)
    assert np.sin(subspace_angles(np.linalg.svd(w)[2][:2].T, samples.truth["subspace"])).max() < 0.05
    assert SyntheticImbalance().load(1, 0).truth["sizes"].tolist() == [10]


def test_fedprox_is_what_its_truth_says():
    samples = SyntheticFedprox().load(30, 0)
    w, b, sizes = samples.truth["weights"], samples.truth["bias"], np.bincount(samples.owner)
    assert samples.x.shape[1:] == (60,)
    assert len(samples.classes) == 10
    for c in (0, 7, 29):
        mine = samples.owner == c
        score = samples.x[mine].astype(np.float64) @ w[c] + b[c]
        assert np.mean(score.argmax(axis=1) == samples.y[mine]) > 0.99
    assert sizes.min() >= 50
    many = np.log(np.bincount(SyntheticFedprox(dim=1, classes=1).load(3000, 1).owner) - 49.5)
    assert (many.mean(), many.std()) == (pytest.approx(4, abs=0.15), pytest.approx(2, abs=0.15))
    spread = SyntheticFedprox(samples=400).load(20, 0)
    inside = np.mean([spread.x[spread.owner == c].var(axis=0) for c in range(20)], axis=0)
    assert inside == pytest.approx(np.arange(1, 61) ** -1.2, rel=0.1)
    # u_i moves all of W_i, B_i all of v_i: with alpha = beta = 2 the clients' means vary by 2
    far = SyntheticFedprox(alpha=2.0, beta=2.0, samples=50).load(400, 0)
    assert far.truth["weights"].mean(axis=(1, 2)).std() == pytest.approx(2, rel=0.1)
    assert far.x.reshape(400, 50, 60).mean(axis=(1, 2)).std() == pytest.approx(2, rel=0.1)
    alike = SyntheticFedprox(iid=True, samples=100).load(10, 0)
    assert np.ptp(alike.truth["weights"], axis=0).max() == 0
    assert np.abs(alike.x.mean(axis=0)).max() < 0.15


@pytest.mark.parametrize(("name", "table", "clients", "key"), [
    ("clusters", {"groups": 5, "dim": 4}, 9, "groups"), ("conflict", {"angle": 130.0, "groups": 3}, 9, "angle"),
    ("conflict", {"angle": 181.0}, 9, "angle"), ("conflict", {"groups": 1}, 9, "groups"),
    ("conflict", {"groups": 5, "dim": 4, "angle": 90.0}, 9, "groups"), ("graph", {"degree": 3}, 9, "degree"),
    ("graph", {}, 5001, "clients"), ("imbalance", {"rank": 3, "dim": 2}, 9, "rank"), ("imbalance", {"ratio": 0.5}, 9, "ratio"),
    ("mixture", {"alpha": 0.0}, 9, "alpha"), ("fedprox", {"alpha": -1.0}, 9, "alpha"),
    ("clusters", {"target": "sign"}, 9, "target"),
])
def test_what_cannot_be_made_is_refused(name, table, clients, key):
    with pytest.raises(ScenarioError) as caught:
        build(Source, "fedmtl.tasks.sources", f"synthetic-{name}", table, "tasks", name_key="source").load(clients, 0)
    assert caught.value.key == f"tasks.{key}"


@pytest.mark.parametrize("source", [SyntheticClusters(), SyntheticConflict(), SyntheticMixture(), SyntheticFedprox(samples=50),
                                    SyntheticGraph(graph="ring")], ids=repr)
def test_a_thousand_clients_in_a_moment(source):
    start = time.perf_counter()
    assert len(np.unique(source.load(1000, 0).owner)) == 1000
    assert time.perf_counter() - start < 5


def test_bundled_sets_by_hand():
    cancer, wine, diabetes = (source().load(1, 0) for source in (BreastCancer, Wine, Diabetes))
    assert (cancer.x.shape, cancer.classes, np.bincount(cancer.y).tolist()) == ((569, 30), ("malignant", "benign"), [212, 357])
    assert (wine.x.shape, np.bincount(wine.y).tolist()) == ((178, 13), [59, 71, 48])
    for samples in (cancer, wine, diabetes):
        check_samples(samples, "tasks.source")
    for samples in (cancer, wine):
        assert (samples.x.min() > -0.02, samples.x.max() < 1.02) == (True, True)
        assert samples.x.max(axis=0) == pytest.approx(1, abs=0.02)
    assert cancer.x[0, 0] == pytest.approx((17.99 - 6.981) / (28.11 - 6.981))
    assert wine.x[0, 12] == pytest.approx((1065 - 278) / (1680 - 278))
    assert diabetes.x.std(axis=0) == pytest.approx(1, rel=0.01)
    assert (diabetes.y.shape, diabetes.y[0, 0], diabetes.y.min(), diabetes.y.max()) == ((442, 1), 151, 25, 346)
