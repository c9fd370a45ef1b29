"""The clustered matrix of cosines on the page, and relations.jsonl read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedmtl.errors import FedmtlError
from fedmtl.report.html import write_report
from fedmtl.report.metrics import load_split
from fedmtl.report.relations import leaf_order, load_affinity, load_relations, relation_charts

MakeRun = Callable[..., Path]
GROUP = np.array([0, 1, 0, 1, 2, 2, 0, 1])


def write(run: Path, rounds: int = 3) -> None:
    """Three groups of clients: alike inside, in conflict across."""
    full = np.where(np.equal.outer(GROUP, GROUP), 0.8, -0.3)
    pairs = full[np.triu_indices(len(GROUP), 1)]
    lines = [{"round": n, "client": list(range(len(GROUP))), "conflict": float((pairs < 0).mean()) / n, "norm": [1.0] * len(GROUP),
              "cosine": pairs.tolist()} for n in range(1, rounds + 1)]
    (run / "relations.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")


def test_groups_stand_together() -> None:
    ordered = GROUP[leaf_order(np.where(np.equal.outer(GROUP, GROUP), 0.8, -0.3))]
    assert (np.diff(ordered) != 0).sum() == 2
    assert sorted(leaf_order(np.full((5, 5), np.nan)).tolist()) == list(range(5))
    assert leaf_order(np.eye(2)).tolist() == [0, 1]


def test_the_page_draws_them(make_run: MakeRun, reported: Path) -> None:
    run = make_run(clients=8)
    assert "How updates of the trunk relate" not in (reported / "report.html").read_text()
    write(run)
    page = write_report(run).read_text()
    assert "How updates of the trunk relate" in page
    assert "in round 3: from -0.30 to 0.80" in page
    assert "digits-relabel-00 (0)" in page
    assert {"relations.svg", "conflict.svg"} <= {path.name for path in (run / "figures").iterdir()}
    assert "Conflict rate" in page
    write(run, rounds=1)
    titles = [chart.title for chart in relation_charts(load_relations(run), [], load_split(run))]
    assert titles
    assert not any("Conflict rate" in title for title in titles)


def test_reading_back(make_run: MakeRun) -> None:
    run = make_run(clients=8)
    assert load_relations(run) == []
    write(run)
    line = load_relations(run)[-1]
    np.testing.assert_array_equal(line["cosine"], line["cosine"].T)
    assert line["cosine"][0, 2] == 0.8
    (run / "relations.jsonl").write_text('{"round": 1, "client": [0, 1], "conflict": 0, "cosine": [0.1, 0.2]}\n')
    with pytest.raises(FedmtlError, match=r"relations.jsonl, line 1"):
        load_relations(run)


def test_affinities_are_drawn_and_read_back(make_run: MakeRun) -> None:
    run = make_run(clients=8)
    table = np.where(np.equal.outer(GROUP, GROUP), 0.02, -0.01)
    table[0, 1] = -0.05  # client 0's step for client 1
    line = {"round": 4, "client": list(range(8)), "affinity": table.tolist()}
    (run / "affinity.jsonl").write_text(json.dumps(line) + "\n")
    found = load_affinity(run)
    assert [one["round"] for one in found] == [4]
    assert found[0]["affinity"][0, 1] == -0.05
    page = write_report(run).read_text()
    assert "Whose step helps whom" in page
    assert "from -5.00 to 2.00 (median -1.00)" in page
    assert (run / "figures" / "affinity.svg").exists()
    (run / "affinity.jsonl").write_text(json.dumps({**line, "affinity": [[0.1, 0.2]]}) + "\n")
    with pytest.raises(FedmtlError, match=r"affinity.jsonl, line 1"):
        load_affinity(run)
