"""Look-ahead affinity: what it is, that looking changes nothing, and that it knows friend from foe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recovery import noting, opposed
from tiny import PHI, client_of, data, trial

import fedmtl
from fedmtl.algorithms.affinity import grouped
from fedmtl.algorithms.base import Algorithm
from fedmtl.algorithms.fedadam import Fedadam
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.fedper import Fedper
from fedmtl.algorithms.mr_mtl import MrMtl
from fedmtl.conformance.case import Trial
from fedmtl.errors import ScenarioError
from fedmtl.report.relations import load_affinity
from fedmtl.scenario import load_scenario

SIZES = (4, 7, 5, 6)
TINY = {"tasks.clients": 5, "model.hidden": [6], "rounds": 3, "runtime.kind": "inline", "runtime.cohort": 4}


def affinity(t: Trial, number: int) -> np.ndarray:
    """The messages of a round, there and back."""
    asked = t.strategy.configure_affinity(number)
    t.strategy.aggregate_affinity(number, t.grid.send_and_receive(asked))
    found = t.strategy.rounds[number].affinity
    assert found is not None
    return found.table


@pytest.mark.parametrize("method", [Fedper(), Fedavg(), Fedadam(), MrMtl(pull="trunk")], ids=str)
def test_it_is_what_one_client_s_step_does_to_another_s_loss(method: Algorithm) -> None:
    """One common trunk, or one each; models sent, or changes of them; with the head that a client has after the round."""
    t = trial(method, SIZES, evaluation={"affinity": 1}, rounds=9)
    t.rounds(1)
    before = {c: client_of(t.shared, c)[PHI] if method.addressed else t.shared[PHI].numpy() for c in range(4)}
    sent: dict[int, np.ndarray] = {}
    heads = {}

    received = {name: leaf.clone() for name, leaf in t.shared.items()}
    t.rounds(1, noting(sent, PHI))
    changes = isinstance(method, Fedadam | MrMtl)
    step = {c: sent[c] - (0 if changes else before[c]) for c in range(4)}
    table = affinity(t, 2)
    heads = {c: {name: leaf[c].numpy() for name, leaf in t.kept().items() if name.startswith("head.")} for c in range(4)}
    for j in range(4):
        x, y = data(t, j)
        own = {name: (client_of(received, j) if method.addressed else {n: v.numpy() for n, v in received.items()}).get(name)
               for name in ("head.weight",)}
        head = heads[j].get("head.weight", own["head.weight"])

        def loss(trunk: np.ndarray, x: np.ndarray = x, y: np.ndarray = y, head: np.ndarray | None = head) -> float:
            assert head is not None
            return float(np.mean((x @ trunk.T @ head.T - y.reshape(len(x), -1)) ** 2))

        wanted = [1 - loss(before[j] + step[i]) / loss(before[j]) for i in range(4)]
        np.testing.assert_allclose(table[:, j], wanted, atol=1e-9)


@pytest.mark.parametrize("words", [{}, {"server.modulation": "pcgrad"}, {"algorithm.name": "mat-fl"}], ids=str)
def test_looking_changes_no_bit(tmp_path: Path, words: dict[str, Any]) -> None:
    seen, unseen = (fedmtl.run("quickstart", TINY | words | {"evaluation.affinity": every}, out=tmp_path / str(every), report=False)
                    for every in (2, 0))
    assert seen.summary["checksum"] == unseen.summary["checksum"]
    assert seen.path.joinpath("metrics.jsonl").read_bytes() == unseen.path.joinpath("metrics.jsonl").read_bytes()
    assert not (unseen.path / "affinity.jsonl").exists()
    assert [line["round"] for line in load_affinity(seen.path)] == [2, 3]
    events = [[json.loads(line) for line in (run.path / "journal.jsonl").read_text().splitlines()] for run in (seen, unseen)]
    more = [a["bytes"]["evaluate"] - b["bytes"]["evaluate"] for a, b in zip(*events, strict=True) if a["event"] == "round"]
    assert more[0] == 0
    assert more[1] == more[2] == 4 * (64 * 6 + 6) * (5 + 5 * 5)  # to each of 5 clients the trunk, and 5 steps from there


def test_friends_and_foes_are_told_and_grouped() -> None:
    t, alike = opposed(evaluation={"affinity": 1})
    table = affinity(t, 1)
    assert table[alike].min() > 0
    assert table[alike].min() > table[~alike].max()
    groups = grouped(torch.from_numpy(table), 2).numpy()
    np.testing.assert_array_equal(np.equal.outer(groups, groups), alike)


def test_what_shares_no_trunk_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"evaluation.affinity: 'local' shares no trunk"):
        load_scenario("quickstart", {"evaluation.affinity": 1, "algorithm.name": "local"})
