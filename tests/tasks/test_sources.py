"""Sources made here, a user's own function, and what is demanded of every source."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from fedmtl.errors import ScenarioError
from fedmtl.registry import build, discover
from fedmtl.tasks.sources import check_samples, function_source
from fedmtl.tasks.sources.check import encode
from fedmtl.tasks.sources.digits import Digits
from fedmtl.tasks.sources.synthetic_linear import SyntheticLinear
from fedmtl.tasks.task import Samples, Source


def test_all_are_found_by_name():
    assert set(discover("fedmtl.tasks.sources", Source)) == {
        "digits", "breast-cancer", "wine", "diabetes", "file", "hub", "synthetic-linear", "synthetic-clusters",
        "synthetic-conflict", "synthetic-fedprox", "synthetic-graph", "synthetic-imbalance", "synthetic-mixture"}


def test_digits():
    flat, image = Digits().load(3, 0), Digits(image=True).load(3, 0)
    assert flat.x.shape == (1797, 64)
    assert image.x.shape == (1797, 1, 8, 8)
    assert (flat.x.min(), flat.x.max()) == (0, 1)
    assert np.array_equal(flat.x, image.x.reshape(1797, 64))
    assert flat.classes == tuple("0123456789")
    assert flat.task == "digits"
    check_samples(flat, "tasks.source")


def test_synthetic_linear_is_what_its_truth_says():
    samples = check_samples(SyntheticLinear(dim=8, rank=3, samples=6, noise=0.0).load(40, 1), "tasks.source")
    b, w = samples.truth["subspace"], samples.truth["weights"]
    assert b.shape == (8, 3)
    assert w.shape == (40, 3)
    assert np.allclose(b.T @ b, np.eye(3))
    assert np.allclose(samples.y[:, 0], np.sum((samples.x @ b) * w[samples.owner], axis=1), atol=1e-5)
    assert np.array_equal(np.bincount(samples.owner), [6] * 40)
    assert abs(samples.x.mean()) < 0.1
    assert abs(samples.x.std() - 1) < 0.1


def test_synthetic_noise_has_its_size_and_leaves_the_rest():
    clean, noisy = (SyntheticLinear(noise=noise).load(200, 1) for noise in (0.0, 0.5))
    assert np.array_equal(clean.x, noisy.x)
    assert np.std(noisy.y - clean.y) == pytest.approx(0.5, rel=0.05)


def test_synthetic_clients_do_not_depend_on_their_number():
    few, many = SyntheticLinear().load(3, 1), SyntheticLinear().load(50, 1)
    assert np.array_equal(few.x, many.x[:75])
    assert np.array_equal(few.y, many.y[:75])
    assert not np.array_equal(few.x, SyntheticLinear().load(3, 2).x)


@pytest.mark.parametrize(("table", "clients", "key"), [
    ({"dim": 2, "rank": 3}, 5, "tasks.rank"), ({}, 0, "tasks.clients"), ({"noise": -1.0}, 5, "tasks.noise"),
    ({"dim": 0}, 5, "tasks.dim"), ({"dimm": 4}, 5, "tasks.dimm"),
])
def test_synthetic_refuses(table, clients, key):
    with pytest.raises(ScenarioError) as caught:
        build(Source, "fedmtl.tasks.sources", "synthetic-linear", table, "tasks", name_key="source").load(clients, 0)
    assert caught.value.key == key


GOOD = Samples(x=np.ones((4, 2), np.float32), y=np.array([0, 1, 1, 0]), classes=("a", "b"),
               owner=np.array([0, 0, 1, 1]))


@pytest.mark.parametrize(("change", "problem"), [
    ({"x": np.ones((4, 2))}, "float64"), ({"x": np.ones(4, np.float32)}, "x must be"), ({"x": [[1.0]] * 4}, "list"),
    ({"x": np.ones((3, 2), np.float32)}, "unequal numbers of rows: x has 3, y has 4"),
    ({"x": np.ones((0, 2), np.float32)}, "empty"), ({"y": np.array([0, 1, 2, 0])}, "0 to 2; 2 classes"),
    ({"y": np.array([0, -1, 1, 0])}, "-1 to 1"), ({"y": np.zeros((4, 1), np.float32)}, "not a label"),
    ({"y": np.zeros(4)}, "y must be"), ({"owner": np.array([0, 1])}, "owner has 2"), ({"owner": np.ones(4)}, "float64"),
    ({"owner": np.array([0, -1, 1, 1])}, "owner"), ({"tasks": ("one",)}, "tasks names 1 owners"),
    ({"tasks": ("one", "two"), "owner": None}, "tasks names 2 owners"),
    ({"y": np.array([[0, 1], [1, -2], [0, 0], [1, 1]])}, "-2 to 1"),
    ({"x": np.array([[0, 1], [0, np.nan], [1, 1], [1, 1]], np.float32)}, r"x holds nan in row 1, place \[1\]"),
    ({"y": np.array([[0], [0], [np.inf], [0]], np.float32), "classes": ()}, "y holds inf in row 2"),
])
def test_what_is_demanded_of_samples(change, problem):
    check_samples(GOOD, "tasks.source")
    with pytest.raises(ScenarioError, match=rf"tasks\.source: .*{problem}"):
        check_samples(replace(GOOD, **change), "tasks.source")


def test_labels_may_be_many_a_row_and_owners_may_have_tasks():
    check_samples(replace(GOOD, y=np.array([[0, 1], [1, -1], [0, 0], [1, 1]]), tasks=("one", "two")), "tasks.source")


@pytest.mark.parametrize(("values", "names", "codes"), [
    (["c10", "c9", "c10"], ("c9", "c10"), [1, 0, 1]), ([30, 4, 4], ("4", "30"), [1, 0, 0]),
    ([True, False], ("False", "True"), [1, 0]), ([2.0, 1.0], ("1", "2"), [1, 0]),
    ([0.5, -1.5], ("-1.5", "0.5"), [1, 0]),
    (np.array([b"b", b"a"]), ("a", "b"), [1, 0]), (np.array(["x", 3], dtype=object), ("3", "x"), [1, 0]),
    (np.array([[3], [1]]), ("1", "3"), [1, 0]),
])
def test_codes_follow_the_natural_order(values, names, codes):
    got, found = encode(np.asarray(values), "tasks.y", "y")
    assert found == names
    assert got.tolist() == codes
    assert got.dtype == np.int64


MODULE = '''
import numpy as np
from fedmtl.tasks.task import Samples

def pair(clients, seed, scale=1.0):
    return np.full((6, 2), scale), ["b", "a", "b", "a", "b", "a"]

def triple(*, clients, seed, **options):
    return np.ones((clients, 2)), np.ones(clients), [f"u{i}" for i in range(clients)]

def whole(clients, seed):
    return Samples(x=np.ones((2, 2), np.float32), y=np.ones((2, 1), np.float32), task="mine")

def lone(clients, seed):
    return np.ones(3)

def short(clients, seed):
    return np.ones((3, 1)), np.ones(2)

def holes(clients, seed):
    return np.array([[1.0], [np.nan]]), [0, 1]

def four(clients, seed):
    return 1, 2, 3, 4

def numbers(clients, seed):
    return 1, 2

def words(clients, seed):
    return [["a"], ["b"]], [0, 1]

def deaf():
    return None

thing = 3
'''


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "own_source.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("own_source", None)


def test_a_function_gives_pairs_triples_or_samples(module):
    pair = function_source("own_source:pair", {"scale": 2.5}, module).load(3, 0)
    assert pair.x.dtype == np.float32
    assert pair.x[0, 0] == 2.5
    assert pair.classes == ("a", "b")
    assert pair.y.tolist() == [1, 0] * 3
    assert pair.task == "pair"
    triple = function_source("own_source:triple", {"any-thing": 1}, module).load(12, 0)
    assert triple.owner.tolist() == list(range(12))
    assert triple.y.shape == (12, 1)
    assert triple.classes == ()
    assert function_source("own_source:whole", {}, module).load(3, 0).task == "mine"


@pytest.mark.parametrize(("name", "problem"), [
    ("lone", "ndarray, not Samples"), ("short", "x has 3, y has 2"), ("holes", "x holds nan in row 1"),
    ("four", "gave 4 things"), ("numbers", "x is one value"), ("words", "x does not hold numbers"),
])
def test_what_a_function_gives_is_checked(module, name, problem):
    with pytest.raises(ScenarioError, match=rf"tasks\.source: .*{problem}"):
        function_source(f"own_source:{name}", {}, module).load(3, 0)


@pytest.mark.parametrize(("name", "options", "key", "problem"), [
    ("pair", {"scael": 1}, "tasks.scael", "did you mean 'scale'"),
    ("deaf", {}, "tasks.source", "does not take clients"),
    ("thing", {}, "tasks.source", "not a function"), ("piar", {}, "tasks.source", "did you mean 'pair'"),
])
def test_a_function_that_cannot_be_called_is_refused(module, name, options, key, problem):
    with pytest.raises(ScenarioError, match=problem) as caught:
        function_source(f"own_source:{name}", options, module)
    assert caught.value.key == key
