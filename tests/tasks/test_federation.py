"""The data of every client: divided in proportion, the same whatever part of it a process holds."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from fedmtl.errors import ScenarioError
from fedmtl.tasks.divide import divide, part_sizes
from fedmtl.tasks.federation import label_counts, make_federation, mean_js_divergence
from fedmtl.tasks.sources.digits import Digits
from fedmtl.tasks.sources.synthetic_linear import SyntheticLinear
from fedmtl.tasks.splits.labels import Dirichlet
from fedmtl.tasks.splits.sizes import Iid, Linear, Natural
from fedmtl.tasks.task import PARTS, Samples, Source, Split, Transform
from fedmtl.tasks.transforms import Relabel


@dataclass(frozen=True)
class Given(Source):
    samples: Samples

    def load(self, clients, seed):
        return self.samples


def owned(sizes, classes=3, seed=0):
    """Rows numbered in x, of owners with these many rows."""
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return Given(Samples(x=np.arange(len(owner), dtype=np.float32)[:, None], y=rng.integers(0, classes, len(owner)),
                         classes=tuple("abcdefgh"[:classes]), owner=owner))


def make(source, splits=(), transforms=(), *, clients=0, val=0.1, test=0.2, seed=0, only=None):
    return make_federation(source, splits, transforms, clients=clients, val=val, test=test, seed=seed, only=only)


def client_rows(federation, client):
    """What the client sees, part by part."""
    return [(federation.x[rows], federation.y[rows]) for rows in (federation.part(client, part) for part in PARTS)]


def assert_same(a, b):
    assert all(np.array_equal(p, q) for one, two in zip(a, b, strict=True) for p, q in zip(one, two, strict=True))


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(3, 80), min_size=1, max_size=30), classes=st.integers(1, 8),
       val=st.floats(0, 0.49), test=st.floats(0, 0.49), seed=st.integers(0, 2**31))
def test_division_is_a_partition_in_proportion(sizes, classes, val, test, seed):
    y = np.random.default_rng(seed).integers(0, classes, sum(sizes))
    rows, bounds = divide(y, np.array(sizes), np.arange(len(sizes)), val=val, test=test, seed=seed)
    assert np.array_equal(np.sort(rows), np.arange(sum(sizes)))
    starts = np.cumsum([0, *sizes])
    for c, (size, bound) in enumerate(zip(sizes, bounds, strict=True)):
        assert (bound[0], bound[3]) == (starts[c], starts[c + 1])
        mine = rows[bound[0]:bound[3]]
        assert mine.min() >= starts[c]
        assert mine.max() < starts[c + 1]
        n_train, n_val, n_test = np.diff(bound)
        assert n_train >= 1
        assert (n_val >= 1, n_test >= 1) == (val > 0, test > 0)
        have = np.bincount(y[mine], minlength=classes)
        tested = np.bincount(y[rows[bound[2]:bound[3]]], minlength=classes)
        assert np.all(np.abs(tested - have * n_test / size) < 1)
        checked = np.bincount(y[rows[bound[1]:bound[2]]], minlength=classes)
        assert np.all(np.abs(checked - (have - tested) * n_val / (size - n_test)) < 1)


@given(size=st.integers(3, 10_000), val=st.floats(0, 1, exclude_max=True), test=st.floats(0, 1, exclude_max=True))
def test_part_sizes_leave_a_training_row(size, val, test):
    n_val, n_test = (int(n[0]) for n in part_sizes(np.array([size]), val, test))
    assert size - n_val - n_test >= 1
    assert (n_val >= 1, n_test >= 1) == (val > 0, test > 0)
    if val + test < 0.9 and size > 20:
        assert abs(n_val - max(val * size, val > 0)) <= 1
        assert abs(n_test - max(test * size, test > 0)) <= 1


def test_each_row_has_one_place_and_a_seed_decides_it():
    source = owned([9, 3, 40, 5])
    one, same, other = make(source, seed=1), make(source, seed=1), make(source, seed=2)
    seen = [row for c in range(4) for x, _ in client_rows(one, c) for row in x[:, 0].astype(int)]
    assert sorted(seen) == list(range(57))
    assert [sum(len(x) for x, _ in client_rows(one, c)) for c in range(4)] == [9, 3, 40, 5]
    for c in range(4):
        assert set(source.samples.owner[np.concatenate([x for x, _ in client_rows(one, c)])[:, 0].astype(int)]) == {c}
        assert_same(client_rows(one, c), client_rows(same, c))
    assert not np.array_equal(one.x[one.part(2, "test")], other.x[other.part(2, "test")])


@pytest.mark.parametrize("transforms", [(), (Relabel(),)], ids=["plain", "relabel"])
@pytest.mark.parametrize("splits", [(), (Dirichlet(),), (Linear(),)], ids=["iid", "dirichlet", "linear"])
def test_a_process_sees_the_same_whatever_else_it_holds(transforms, splits):
    whole = make(Digits(), splits, transforms, clients=9, seed=5)
    for only in ([0], [8], [6, 2]):
        some = make(Digits(), splits, transforms, clients=9, seed=5, only=only)
        assert some.tasks == whole.tasks
        assert some.classes == whole.classes
        held = sum(whole.bounds[c, 3] - whole.bounds[c, 0] for c in only)
        assert len(some.x) == len(some.y) == len(some.rows) == held
        for c in range(9):
            if c in only:
                assert_same(client_rows(some, c), client_rows(whole, c))
            else:
                assert len(set(some.bounds[c])) == 1
        assert np.array_equal(label_counts(some)[only], label_counts(whole)[only])
        assert label_counts(some).sum() == len(some.x)


def test_clients_that_are_not_there_are_not_given():
    for only in ([], [9], [-1]):
        with pytest.raises(ValueError, match="clients 0 to 8"):
            make(Digits(), clients=9, only=only)


def test_default_split_is_natural_where_rows_have_owners():
    assert make(owned([9, 3, 40, 5])).clients == 4
    assert make(SyntheticLinear(), clients=7).clients == 7
    assert make(Digits(), clients=7).sizes("train").sum() + make(Digits(), clients=7).sizes("test").sum() > 1500


def test_rows_of_nobody_are_dropped():
    federation = make(owned([9, 3, 40, 5]), [Natural(min_size=5)], clients=2)
    assert federation.clients == 2
    assert len(federation.x) == 49


def test_regression_is_divided_and_keeps_its_truth():
    federation = make(SyntheticLinear(dim=6, samples=10), clients=5)
    assert federation.sizes("train").tolist() == [7] * 5
    assert federation.sizes("val").tolist() == [1] * 5
    assert federation.y.shape == (50, 1)
    assert federation.truth["weights"].shape == (5, 2)
    assert label_counts(federation).shape == (5, 0)
    assert mean_js_divergence(label_counts(federation)) == 0


def test_too_few_rows_are_refused_before_the_start():
    with pytest.raises(ScenarioError, match=r"tasks\.clients: too few samples: 2 of 3 clients"):
        make(owned([2, 9, 2]))
    assert make(owned([2, 9, 2]), val=0).sizes("test").tolist() == [1, 2, 1]
    assert make(owned([1, 9, 1]), val=0, test=0).sizes("train").tolist() == [1, 9, 1]
    with pytest.raises(ScenarioError, match=r"tasks\.clients"):
        make(Digits(), clients=1000)


@pytest.mark.parametrize(("val", "test", "key"), [
    (1.0, 0, "val"), (-0.1, 0, "val"), (0.5, 0.5, "test"), (0, float("nan"), "test")])
def test_fractions_must_leave_training_rows(val, test, key):
    with pytest.raises(ScenarioError) as caught:
        make(Digits(), clients=3, val=val, test=test)
    assert caught.value.key == f"tasks.{key}"


def test_one_split_at_most():
    with pytest.raises(ScenarioError, match=r"tasks\.split: one split"):
        make(Digits(), [Iid(), Iid()], clients=3)


@dataclass(frozen=True)
class Fixed(Split):
    rows: tuple = ()

    def assign(self, samples, clients, seed):
        return [np.array(part) for part in self.rows]


@pytest.mark.parametrize("rows", [([0, 1, 2], [2, 3, 4]), ([0, 1, 1],), ([0, 1, 5000],), ([-1, 0, 1],), ()])
def test_a_split_of_ones_own_is_checked(rows):
    with pytest.raises(ScenarioError, match=r"tasks\.split: "):
        make(Digits(), [Fixed(rows)], clients=2)


@dataclass(frozen=True)
class Halve(Transform):
    """A transform may change how many rows there are, and their shape."""

    odd: int = 1

    def apply(self, samples, client, seed):
        return replace(samples.take(np.arange(0, len(samples), 2)), x=samples.x[::2, : 3 + self.odd * (client % 2)])


def test_transforms_may_change_rows_and_shapes_but_alike():
    federation = make(Digits(), (), [Halve(odd=0)], clients=4)
    assert federation.x.shape == (900, 3)
    assert federation.bounds[-1, 3] == 900
    with pytest.raises(ScenarioError, match=r"tasks\.transform"):
        make(Digits(), (), [Halve()], clients=4)


def test_label_counts_by_part_and_divergence():
    federation = make(Digits(), [Dirichlet(alpha=0.3)], clients=6)
    whole = label_counts(federation)
    assert np.array_equal(whole, sum(label_counts(federation, part) for part in PARTS))
    for c in range(6):
        mine = np.bincount(federation.y[federation.part(c, "val")], minlength=10)
        assert np.array_equal(label_counts(federation, "val")[c], mine)
    p = whole / whole.sum(axis=1, keepdims=True)
    pairs = [jensenshannon(p[i], p[j], base=2) ** 2 for i in range(6) for j in range(i)]
    assert mean_js_divergence(whole) == pytest.approx(np.mean(pairs))
    assert mean_js_divergence(label_counts(make(Digits(), clients=6))) < 0.05 < mean_js_divergence(whole)


def test_divergence_has_known_ends():
    assert mean_js_divergence(np.array([[5, 0], [0, 9]])) == pytest.approx(1)
    assert mean_js_divergence(np.array([[5, 5], [9, 9], [0, 0]])) == pytest.approx(0, abs=1e-9)
    assert mean_js_divergence(np.array([[5, 5]])) == 0
    assert mean_js_divergence(np.tile(np.array([[3, 0], [0, 3]]), (3000, 1))) == pytest.approx(0.5, abs=0.02)


def test_a_hundred_thousand_clients():
    federation = make(SyntheticLinear(dim=2, rank=1, samples=5), clients=100_000)
    assert federation.clients == 100_000
    assert federation.sizes("train").tolist() == [3] * 100_000
    assert np.array_equal(np.sort(federation.rows), np.arange(500_000))
