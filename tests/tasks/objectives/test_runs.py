"""Every objective in a run from a user's own source: its scores stand in metrics.jsonl with their directions."""

from __future__ import annotations

import json

import pytest
from zoo import CASES, KINDS, objective

import fedmtl

SOURCE = '''
import numpy as np
from zoo import as_integers, targets

from fedmtl.tasks.task import Samples


def drawn(clients, seed, kind):
    y = targets(kind, 40 * clients, seed=seed)
    x = np.random.default_rng(seed).normal(size=(len(y), 3)).astype(np.float32)
    return Samples(x, y.reshape(len(y), -1).astype(np.float32), owner=np.arange(len(y)) % clients)


def named(clients, seed, kind):
    made = drawn(clients, seed, kind)
    y = as_integers(kind, made.y)
    return Samples(made.x, y, tuple(str(label) for label in range(y.max() + 1)), made.owner)
'''
NAMED = ["binary", "classification", "ordinal", "ranking"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("sources")
    (made / "objective_source.py").write_text(SOURCE)
    return made


@pytest.mark.parametrize(("kind", "source"), [(kind, "drawn") for kind in KINDS] + [(kind, "named") for kind in NAMED])
def test_run(kind, source, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    own = {key: value for key, value in CASES[kind].table.items() if key not in ("axes", "missing")}
    if source == "named":
        own.pop("classes", None)
    result = fedmtl.run("quickstart", {
        "rounds": 2, "tasks": {"source": f"objective_source:{source}", "kind": kind, "clients": 3,
                               "objective": {"kind": kind, **own}},
        "model.trunk": "mlp", "model.hidden": [4], "runtime.kind": "inline", "training.lr": 0.01,
    }, out=tmp_path / "run", report=False)
    lines = [json.loads(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()]
    one = objective(kind, own)
    assert {line["metric"]: line["direction"] for line in lines} == one.metrics
    assert {line["round"] for line in lines} == {1, 2}
    for line in lines:
        assert all(value is not None for value in line["value"]), line["metric"]
    assert result.summary["primary"] == next(iter(one.metrics))
    assert result.summary["test"][result.summary["primary"]]["mean"] is not None
