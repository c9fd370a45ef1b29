"""Budgets: what a run spends is counted, it ends when another round would take more, and its last round is scored."""

from __future__ import annotations

import json

import pytest

import fedmtl
from fedmtl.errors import ScenarioError
from fedmtl.report.baseline import why_not
from fedmtl.runs.budget import Purse, budget_words
from fedmtl.scenario import load_scenario
from fedmtl.scenario.sections import BudgetSection

WORDS = {"rounds": 9, "tasks.clients": 4, "model.hidden": [8], "training.epochs": 2, "training.batch-size": 10,
         "runtime.kind": "inline", "evaluation.every": 50}


def run(place, **words):
    return fedmtl.run("digits-pathological", {"algorithm.name": "fedavg", **WORDS, **words}, out=place, report=False)


def journal(result):
    events = [json.loads(line) for line in (result.path / "journal.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "round"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("budget") / "whole")


def test_steps_and_samples_are_those_of_every_pass(whole):
    split = json.loads((whole.path / "split.json").read_text())["clients"]
    train = [client["train"] for client in split]
    for event in journal(whole):
        assert event["samples"] == 2 * sum(train)
        assert event["steps"] == 2 * sum(-(-n // 10) for n in train)
        assert event["forward"] == event["backward"] == event["samples"]
        assert event["kept"] == {"parameters": 0, "bytes": 0}
    assert whole.summary["work"] == {unit: 9 * event[unit] for unit in ("steps", "samples", "forward", "backward")}
    assert "ended" not in whole.summary


def test_a_method_of_several_phases_pays_for_all_of_them(whole, tmp_path):
    once = journal(whole)[0]["samples"]
    ditto = run(tmp_path / "ditto", **{"algorithm.name": "ditto", "rounds": 1})
    assert ditto.summary["work"]["samples"] == 2 * once
    assert ditto.summary["work"]["backward"] == 2 * once
    assert ditto.summary["kept"]["bytes"] == 4 * ditto.summary["kept"]["parameters"]
    assert ditto.summary["kept"]["parameters"] == (64 + 1) * 8 + (8 + 1) * 10
    fedrep = run(tmp_path / "fedrep", **{"algorithm.name": "fedrep", "rounds": 1, "algorithm.head-epochs": 3,
                                         "algorithm.trunk-epochs": 1})
    assert fedrep.summary["work"]["samples"] == 4 * once // 2
    assert fedrep.summary["kept"] == {"parameters": 90, "bytes": 360}


@pytest.mark.parametrize(("name", "words", "forward", "backward"), [
    ("fedem", {"algorithm.components": 2}, 2 * (1 + 2 * 2), 2 * 2),  # E-step; in 2 passes each of 2 models twice, once with a slope
    ("ifca", {"algorithm.k": 3}, 3 + 2, 2), ("moon", {}, 3 * 2, 2)])
def test_every_row_through_every_model_is_counted(whole, tmp_path, name, words, forward, backward):
    rows = journal(whole)[0]["samples"] // 2
    done = run(tmp_path / name, **{"algorithm.name": name, "rounds": 1, **words}).summary["work"]
    assert (done["forward"], done["backward"]) == (forward * rows, backward * rows)


def test_a_step_on_a_dual_variable_is_a_row_each_way(tmp_path):
    done = run(tmp_path / "mocha", **{"algorithm.name": "mocha", "rounds": 1, "algorithm.fraction": 1.0})
    train = sum(client["train"] for client in json.loads((done.path / "split.json").read_text())["clients"])
    assert done.summary["work"] == {"steps": 2 * train, "samples": 2 * train, "forward": 3 * train, "backward": 2 * train}


@pytest.mark.parametrize("cohort", [1, 3])
def test_what_is_counted_does_not_depend_on_the_cohort(whole, tmp_path, cohort):
    assert run(tmp_path / "run", **{"rounds": 2, "runtime.cohort": cohort}).summary["work"] == {
        unit: count * 2 // 9 for unit, count in whole.summary["work"].items()}


@pytest.mark.parametrize("unit", ["steps", "samples", "bytes"])
def test_a_run_ends_when_another_round_would_take_more(whole, tmp_path, unit):
    event = journal(whole)[0]
    cost = event["bytes"]["up"] + event["bytes"]["down"] if unit == "bytes" else event[unit]
    short = run(tmp_path / "short", **{f"budget.{unit}": 4 * cost - 1})
    assert len(journal(short)) == 3
    assert (short.summary["ended"], short.summary["budget"]) == (unit, {unit: {"limit": 4 * cost - 1, "spent": 3.0 * cost}})
    assert short.summary["test_round"] == 3
    assert set(short.metrics["round"]) == {3}
    exact = run(tmp_path / "exact", **{f"budget.{unit}": 4 * cost})
    assert exact.summary["test_round"] == 4
    again = fedmtl.run(short.path / "scenario.toml", out=tmp_path / "again", report=False)
    assert again.summary["checksum"] == short.summary["checksum"]
    shorter = run(tmp_path / "rounds", rounds=3)
    assert shorter.summary["checksum"] == short.summary["checksum"]
    assert why_not(short.path, exact.path).startswith(f"another budget (budget.{unit} is")


def test_a_budget_that_is_not_spent_changes_nothing(whole, tmp_path):
    rich = run(tmp_path / "rich", **{"budget.samples": 10**9})
    assert (rich.summary["checksum"], rich.summary["ended"]) == (whole.summary["checksum"], "rounds")


def test_the_first_round_always_runs_and_seconds_are_the_clock_s(tmp_path):
    hasty = run(tmp_path / "hasty", **{"budget.seconds": 1e-6})
    assert (hasty.summary["test_round"], hasty.summary["ended"]) == (1, "seconds")


def test_a_purse_looks_at_the_dearest_round():
    purse = Purse(BudgetSection(samples=10))
    purse.pay(samples=5)
    purse.pay(samples=1)
    assert not purse.holds  # another one might take 5
    assert purse.short == ["samples"]
    assert Purse(BudgetSection()).holds


def test_words_of_the_command_line():
    assert budget_words("samples=2e5") == ["budget.samples=200000"]
    assert budget_words("seconds=1.5") == ["budget.seconds=1.5"]
    assert budget_words("") == []
    scenario = load_scenario("quickstart", budget_words("bytes=1000"))
    assert scenario.resolved()["budget"] == {"bytes": 1000}
    assert "budget" not in load_scenario("quickstart").resolved()


@pytest.mark.parametrize("text", ["rows=5", "samples", "samples=many"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ScenarioError) as caught:
        budget_words(text)
    assert caught.value.key == "--budget"
    with pytest.raises(ScenarioError):
        load_scenario("quickstart", ["budget.samples=0"])
