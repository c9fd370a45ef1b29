"""Targets standardised on what a client trains on, and scores brought back to their units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn

import fedmtl
from fedmtl.client.store import MemoryStore
from fedmtl.errors import ScenarioError
from fedmtl.runtime.data import federation_of
from fedmtl.runtime.mixed import host_of
from fedmtl.runtime.parcels import Parcel
from fedmtl.scenario import from_table
from fedmtl.tasks.federation import make_federation
from fedmtl.tasks.sources.digits import Digits
from fedmtl.tasks.task import Samples, Source
from fedmtl.tasks.units import standardised, train_scale

SIZES = (6, 9, 40, 12)
NAN = float("nan")


@dataclass(frozen=True)
class Units(Source):
    """Two targets of clients whose scales differ by orders of magnitude; the second one of client 1 never varies."""

    holes: bool = False

    def load(self, clients, seed):
        rng = np.random.default_rng(3)
        owner = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
        y = rng.normal(size=(len(owner), 2)) * 10.0 ** owner[:, None] + 100 * owner[:, None]
        y[owner == 1, 1] = 7.1
        if self.holes:
            y[rng.random(y.shape) < 0.3] = NAN
            y[owner == 3, 0] = NAN
        x = rng.normal(size=(len(owner), 3)).astype(np.float32)
        return Samples(x, y.astype(np.float32), owner=owner)


def made(source, *, standardise=True, only=None):
    return make_federation(source, [], [], clients=0, val=0.1, test=0.25, seed=2, only=only, standardise=standardise)


@pytest.mark.filterwarnings("ignore:(Mean of empty|Degrees of freedom):RuntimeWarning")
@pytest.mark.parametrize("holes", [False, True])
def test_closed_form(holes):
    raw, ours = made(Units(holes), standardise=False), made(Units(holes))
    assert raw.center is None
    assert np.array_equal(raw.rows, ours.rows)
    for c in range(len(SIZES)):
        train = raw.y[raw.part(c, "train")].astype(np.float64)
        center, spread = np.nan_to_num(np.nanmean(train, axis=0)), np.nan_to_num(np.nanstd(train, axis=0), nan=1.0)
        spread[spread < 1e-6] = 1
        np.testing.assert_allclose(ours.center[c], center, rtol=1e-12)
        np.testing.assert_allclose(ours.spread[c], spread, rtol=1e-12)
        for part in ("train", "val", "test"):
            rows = raw.part(c, part)
            np.testing.assert_allclose(ours.y[rows], (raw.y[rows] - center) / spread, rtol=1e-5, atol=1e-5)
    assert ours.spread[1, 1] == 1
    assert ours.y.dtype == np.float32


def test_only_train_rows_decide():
    raw = made(Units(), standardise=False)
    center, spread = train_scale(raw.y, raw.rows, raw.bounds)
    changed = raw.y.copy()
    for c in range(len(SIZES)):
        changed[raw.part(c, "test")] = 1e9
    again = train_scale(changed, raw.rows, raw.bounds)
    assert np.array_equal(center, again[0])
    assert np.array_equal(spread, again[1])


@pytest.mark.parametrize("only", [[0], [3, 1]])
@pytest.mark.parametrize("holes", [False, True])
def test_a_process_that_holds_some_clients_sees_the_same_bits(only, holes):
    whole, some = made(Units(holes)), made(Units(holes), only=only)
    for c in only:
        assert np.array_equal(some.center[c], whole.center[c])
        assert np.array_equal(some.spread[c], whole.spread[c])
        for part in ("train", "val", "test"):
            assert some.y[some.part(c, part)].tobytes() == whole.y[whole.part(c, part)].tobytes()


def test_labels_stay():
    federation = make_federation(Digits(), [], [], clients=3, val=0.1, test=0.2, seed=0, standardise=True)
    assert federation.center is None
    assert federation.y.dtype == np.int64


@given(y=drawn.arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 3)),
                      elements=st.floats(-(2.0**50), 2.0**50, width=32, allow_subnormal=False) | st.just(NAN)))
def test_any_targets_come_back(y):
    rows, bounds = np.arange(len(y)), np.array([[0, len(y), len(y), len(y)]])
    center, spread = train_scale(y, rows, bounds)
    there = standardised(y, np.zeros(len(y), np.int64), center, spread)
    assert np.all(spread > 0)
    assert np.array_equal(np.isnan(there), np.isnan(y))
    known = ~np.isnan(y)
    back = there.astype(np.float64) * spread + center
    tolerance = 1e-6 * (np.abs(y - center) + np.abs(y))[known]
    assert np.all(np.abs(back - y)[known] <= tolerance + 1e-30)
    for column in there.T[spread[0] != 1]:
        assert abs(np.nanmean(column.astype(np.float64))) < 1e-2


def test_targets_too_far_from_those_trained_on_are_refused():
    y = np.array([[0], [1e-38], [1e10]], np.float32)
    center, spread = train_scale(y, np.arange(3), np.array([[0, 2, 2, 3]]))
    with pytest.raises(ScenarioError, match=r"tasks\.standardise: client 0"):
        standardised(y, np.zeros(3, np.int64), center, spread)


def scenario(rounds=0, folder=None, **tasks):
    return from_table({"name": "t", "rounds": max(rounds, 1), "algorithm": {"name": "fedper"},
                       "tasks": {"source": "diabetes", "clients": 4, **tasks}, "model": {"trunk": "mlp", "hidden": [4]},
                       "training": {"lr": 0.05}, "runtime": {"kind": "inline"}}, folder)


def test_default_is_where_the_objective_regresses():
    for objective, standard in (("auto", True), ("regression", True), ("absolute", True), ({"kind": "huber", "delta": 2.0}, True),
                                ("ranking", False), ("reconstruction", False)):
        assert scenario(objective=objective).standardises(0) is standard
    assert not scenario(standardise=False).standardises(0)
    assert federation_of(scenario(standardise=False)).center is None
    assert federation_of(scenario()).center.shape == (4, 1)


@pytest.mark.parametrize("objective", ["ranking", "classification"])
def test_refused_where_it_means_nothing(objective):
    with pytest.raises(ScenarioError, match=r"tasks\.standardise: the targets of '" + objective):
        scenario(objective=objective, standardise=True)


def test_refused_where_auto_finds_labels():
    one = scenario(source="digits", standardise=True)
    with pytest.raises(ScenarioError, match=r"tasks\.standardise: the targets of 'classification'"):
        host_of(one, federation_of(one), MemoryStore())


def test_groups_say_it_for_themselves():
    def of(**tasks):
        return from_table({"name": "t", "rounds": 1, "algorithm": {"name": "fedper"}, "model": {"adapter": 4},
                           "tasks": {"group": [{"name": "a", "source": "digits", "clients": 2},
                                               {"name": "b", "source": "diabetes", "clients": 2} | tasks.pop("b", {})], **tasks}})

    digits, diabetes = federation_of(of()).members
    assert (digits.center is None, diabetes.center is None) == (True, False)
    assert federation_of(of(b={"standardise": False})).members[1].center is None
    assert federation_of(of(standardise=False)).members[1].center is None


@pytest.mark.parametrize("kind", ["regression", "absolute"])
def test_scores_are_in_units_and_the_loss_is_what_is_minimised(kind):
    one = scenario(objective={"kind": kind, "also": ["mae", "r2"]} if kind == "regression" else {"kind": kind, "also": ["r2"]})
    federation = federation_of(one)
    host = host_of(one, federation, MemoryStore())
    params = {name: leaf for name, leaf in host.model.items() if name in host.wire}
    scores, failed = host.evaluate(0, range(4), Parcel(params))
    assert not failed
    raw = federation_of(scenario(standardise=False))
    for c in range(4):
        rows = federation.part(c, "test")
        x = host.pool.x[rows]
        out = host.signature.forward({k: v.expand(2, *v.shape) for k, v in host.model.items()}, x.expand(2, *x.shape))
        out = out[0].detach().numpy().astype(np.float64)
        said, true = out * federation.spread[c] + federation.center[c], raw.y[raw.part(c, "test")].astype(np.float64)
        wanted = {"mse": np.mean((said - true) ** 2), "rmse": np.sqrt(np.mean((said - true) ** 2)),
                  "mae": np.abs(said - true).mean(), "r2": 1 - ((said - true) ** 2).sum() / ((true - true.mean()) ** 2).sum(),
                  "loss": np.mean(np.abs(out - federation.y[rows]) ** (2 if kind == "regression" else 1))}
        for name, value in wanted.items():
            assert scores["test", "personal", name][c] == pytest.approx(value, rel=1e-4), name


SOURCE = '''
import numpy as np


def scaled(clients, seed, factor, shift):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(30 * clients, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + 0.1 * rng.normal(size=len(x))
    return x, y * factor + shift, np.arange(len(x)) % clients
'''


def test_units_change_scores_by_their_factor_and_nothing_else(tmp_path):
    (tmp_path / "units_source.py").write_text(SOURCE)
    found = []
    for factor, shift in ((1.0, 0.0), (1024.0, 4096.0)):
        one = scenario(rounds=5, folder=tmp_path, source="units_source:scaled", clients=3, factor=factor, shift=shift)
        found.append(fedmtl.run(one, out=tmp_path / f"run{factor}", report=False).summary["test"])
    for name, power in (("mse", 2), ("rmse", 1), ("loss", 0)):
        assert found[1][name]["mean"] == pytest.approx(found[0][name]["mean"] * 1024**power, rel=2e-3), name
