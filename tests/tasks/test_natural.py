"""The shipped scenarios on natural tasks: every file is read, a round of each kind of method runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedmtl
from fedmtl.errors import ScenarioError
from fedmtl.scenario import load_scenario, shipped

NATURAL = {"natural/school": (139, "mse"), "natural/landmine": (29, "auc"), "natural/har": (30, "accuracy"),
           "natural/vehicle": (23, "accuracy")}


def test_all_are_shipped():
    assert {name for name in shipped() if name.startswith("natural/")} == set(NATURAL)
    for name in NATURAL:
        assert load_scenario(name).name == name


@pytest.mark.parametrize("method", [pytest.param("local", marks=pytest.mark.slow), pytest.param("fedavg", marks=pytest.mark.slow),
                                    "fedper"])
@pytest.mark.parametrize("name", NATURAL)
def test_a_round(name, method, tmp_path):
    scenario = load_scenario(name, {"rounds": 1, "algorithm.name": method, "training.epochs": 1, "runtime.kind": "inline"})
    path = Path(scenario.groups[0].source.path)
    if not path.exists():
        pytest.skip(f"{path} is not here")
    summary = fedmtl.run(scenario, out=tmp_path / "run", report=False).summary
    clients, primary = NATURAL[name]
    assert (summary["clients"], summary["primary"]) == (clients, primary)
    assert summary["tasks"].keys() >= ({f"school-{task}" for task in range(139)} if name == "natural/school" else set())
    if name == "natural/school":
        assert 8 < summary["test"]["rmse"]["mean"] < 20


@pytest.mark.parametrize("name", NATURAL)
def test_an_absent_file_is_told(name):
    with pytest.raises(ScenarioError, match=r"tasks\.path: no file 'not/here.npz', neither beside .*tasks\.path=FILE"):
        fedmtl.run(load_scenario(name, {"tasks.path": "not/here.npz"}))
