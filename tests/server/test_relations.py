"""Cosines between clients' updates of the trunk: what they are, and that looking changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recovery import noting, opposed
from tiny import PHI, client_of, trial

import fedmtl
from fedmtl.algorithms.base import Algorithm
from fedmtl.algorithms.fedadam import Fedadam
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.fedem import Fedem
from fedmtl.algorithms.fedhca2 import Fedhca2
from fedmtl.algorithms.fedper import Fedper
from fedmtl.algorithms.mr_mtl import MrMtl
from fedmtl.errors import ScenarioError
from fedmtl.report.relations import load_relations
from fedmtl.scenario import load_scenario
from fedmtl.server.relations import Relations

SIZES = (4, 7, 5, 6)
TINY = {"tasks.clients": 5, "model.hidden": [6], "rounds": 3, "runtime.kind": "inline", "runtime.cohort": 4}


def cosines(rows: np.ndarray) -> np.ndarray:
    """[K, K] written out."""
    return np.array([[a @ b / np.sqrt(a @ a * (b @ b)) for b in rows] for a in rows])


@pytest.mark.parametrize("method", [Fedper(), Fedavg(), Fedadam(), MrMtl(pull="trunk"), Fedhca2()], ids=str)
def test_the_cosines_of_what_clients_made_of_what_they_received(method: Algorithm) -> None:
    """One common trunk, or one each; models sent, or changes of them."""
    t = trial(method, SIZES, evaluation={"relations": 2}, rounds=9)
    t.rounds(1)
    assert t.strategy.rounds[1].relations is None
    before = [client_of(t.shared, c)[PHI] if method.addressed else t.shared[PHI].numpy() for c in range(4)]
    sent: dict[int, np.ndarray] = {}

    t.rounds(1, noting(sent, PHI))
    changes = isinstance(method, Fedadam | MrMtl)
    updates = np.stack([sent[c].ravel() - (0 if changes else before[c].ravel()) for c in range(4)])
    found = t.strategy.rounds[2].relations
    assert found is not None
    assert found.clients == [0, 1, 2, 3]
    np.testing.assert_allclose(found.cosine, cosines(updates), atol=1e-12)
    np.testing.assert_allclose(found.norm, np.linalg.norm(updates, axis=1))


def test_the_conflict_rate() -> None:
    """Of the pairs that have a cosine: a client that moved nothing has none."""
    nan = float("nan")
    cosine = np.array([[1, -0.5, 0.2, nan], [-0.5, 1, 0.0, nan], [0.2, 0.0, 1, nan], [nan, nan, nan, nan]])
    assert Relations([0, 1, 2, 3], cosine, np.ones(4)).conflict == pytest.approx(1 / 3)
    assert np.isnan(Relations([3], cosine[3:, 3:], np.ones(1)).conflict)
    t = trial(Fedavg(), SIZES, lr=0.0, evaluation={"relations": 1})
    t.rounds(1)
    found = t.strategy.rounds[1].relations
    assert found is not None
    assert np.isnan(found.cosine).all()


@pytest.mark.parametrize("words", [{}, {"server.modulation": "pcgrad"}, {"algorithm.name": "mat-fl"}], ids=str)
def test_looking_changes_no_bit(tmp_path: Path, words: dict[str, Any]) -> None:
    words = TINY | words
    seen, unseen = (fedmtl.run("quickstart", words | {"evaluation.relations": every}, out=tmp_path / str(every), report=False)
                    for every in (2, 0))
    assert seen.summary["checksum"] == unseen.summary["checksum"]
    assert seen.summary["bytes"] == unseen.summary["bytes"]
    assert seen.path.joinpath("metrics.jsonl").read_bytes() == unseen.path.joinpath("metrics.jsonl").read_bytes()
    assert not (unseen.path / "relations.jsonl").exists()
    assert "conflict" not in unseen.summary
    lines = load_relations(seen.path)
    assert [line["round"] for line in lines] == [2, 3]
    assert seen.summary["conflict"] == {"round": 3, "rate": lines[-1]["conflict"]}
    assert lines[-1]["conflict"] == pytest.approx((lines[-1]["cosine"][np.triu_indices(5, 1)] < 0).mean())
    raw = json.loads((seen.path / "relations.jsonl").read_text().splitlines()[0])
    assert len(raw["cosine"]) == 10
    assert len(raw["norm"]) == 5


def test_clients_of_opposite_tasks_conflict() -> None:
    """The sign of a cosine is that of the directions' product."""
    t, alike = opposed(evaluation={"relations": 1})
    found = t.strategy.rounds[1].relations
    assert found is not None
    assert found.cosine[alike].min() > found.cosine[~alike].max()


def test_what_has_no_trunk_to_compare_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"evaluation.relations: the method sends no one trunk"):
        trial(Fedem(), SIZES, evaluation={"relations": 1})
    for method in ("local", "lg-fedavg"):
        with pytest.raises(ScenarioError, match=rf"evaluation.relations: '{method}' shares no trunk"):
            load_scenario("quickstart", {"evaluation.relations": 1, "algorithm.name": method})
    with pytest.raises(ScenarioError, match=r"evaluation.relations"):
        load_scenario("quickstart", {"evaluation.relations": -1})
