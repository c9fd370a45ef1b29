"""Private relabelling."""

import numpy as np
import pytest

from fedmtl.errors import ScenarioError
from fedmtl.registry import discover
from fedmtl.tasks.sources.digits import Digits
from fedmtl.tasks.sources.synthetic_linear import SyntheticLinear
from fedmtl.tasks.task import Transform
from fedmtl.tasks.transforms import Relabel


def test_found_by_name():
    assert "relabel" in discover("fedmtl.tasks.transforms", Transform)


def test_relabel_is_a_permutation_keyed_by_seed_and_client():
    samples = Digits().load(1, 0)
    names = {}
    for client in range(12):
        made = Relabel().apply(samples, client, 3)
        pairs = set(zip(samples.y.tolist(), made.y.tolist(), strict=True))
        assert len(pairs) == 10
        assert len({b for _, b in pairs}) == 10
        assert made.y.dtype == np.int64
        assert made.x is samples.x
        names[client] = tuple(sorted(pairs))
        assert np.array_equal(made.y, Relabel().apply(samples, client, 3).y)
    assert len(set(names.values())) == 12
    assert not np.array_equal(Relabel().apply(samples, 0, 3).y, Relabel().apply(samples, 0, 4).y)


def test_relabel_depends_on_no_other_row():
    samples, rows = Digits().load(1, 0), np.arange(0, 1797, 7)
    assert np.array_equal(Relabel().apply(samples, 5, 0).take(rows).y, Relabel().apply(samples.take(rows), 5, 0).y)


def test_relabel_names_the_task_by_client():
    assert Relabel().apply(Digits().load(1, 0), 7, 0).task == "digits-relabel-07"


def test_relabel_refuses_regression():
    with pytest.raises(ScenarioError, match=r"tasks\.transform\.kind"):
        Relabel().check(SyntheticLinear().load(2, 0))
