"""What clients' work bought, drawn: the worst tenth by client updates, and how much each client did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedmtl.report.files import load_journal, load_metrics
from fedmtl.report.html import write_report
from fedmtl.report.metrics import headline_model, scores
from fedmtl.report.updates import score_against_updates, work_chart, worst_by_updates

MakeRun = Callable[..., Path]


def test_the_worst_tenth_by_updates(make_run: MakeRun) -> None:
    """20 clients, 10 of them a round, of which one is rejected in rounds 2, 6 and 10: the mean of the two lowest."""
    run = make_run(models=("personal",))
    frame, journal = load_metrics(run), load_journal(run)
    found = worst_by_updates(frame, journal, "accuracy")
    assert found.index.tolist() == [10, 19, 29, 39, 49, 58, 68, 78, 88, 97]
    rows = scores(frame, split="test", model=headline_model(frame), metric="accuracy")
    last = np.sort(rows[rows["round"] == 10]["value"].to_numpy())
    assert found.iloc[-1] == pytest.approx(last[:2].mean())
    chart = score_against_updates(frame, journal, "accuracy", "mine")
    assert chart is not None
    assert "mine" in chart.alt
    assert "after 97 updates" in chart.alt
    assert chart.header == ["client updates", "worst tenth, accuracy"]
    assert chart.rows[-1][0] == "97"


def test_another_run_stands_beside_it(make_run: MakeRun) -> None:
    run, other = make_run("mine"), make_run("other")
    chart = score_against_updates(load_metrics(run), load_journal(run), "accuracy", "mine", other)
    assert chart is not None
    assert "ditto, uniform (other)" in chart.alt
    write_report(run, baseline=other)
    assert "ditto, uniform (other)" in (run / "figures" / "worst-updates.svg").read_text()


def test_the_work_of_each_client(make_run: MakeRun, reported: Path) -> None:
    run = make_run()
    assert work_chart(load_journal(run)) is None
    assert "Samples that each client processed" not in (reported / "report.html").read_text()
    events = [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]
    for event in events:
        if event["event"] == "round":
            event["work"] = {"client": [0, 3], "share": [1.0, 0.25], "steps": [8, 2], "samples": [80, 20]}
    (run / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    chart = work_chart(load_journal(run))
    assert chart is not None
    assert chart.rows == [["0", "10", "100 %", "800"], ["3", "10", "25 %", "200"]]
    assert "200 to 800 samples" in chart.alt
    assert "62 % of their steps" in chart.alt
    page = write_report(run).read_text()
    assert "Samples that each client processed" in page
    assert "worst tenth" in page
