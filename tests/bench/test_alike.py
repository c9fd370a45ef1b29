"""`fedmtl compare`: what can be compared stands in one table, what cannot stands apart with its reason, whatever is given."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from made_runs import write_run

from fedmtl import cli
from fedmtl.bench.alike import sort_out
from fedmtl.bench.board import board
from fedmtl.errors import FedmtlError

LOW, HIGH = [0.5, 0.6, 0.7, 0.6], [0.6, 0.7, 0.8, 0.7]


def command(*words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fedmtl", *map(str, words)])
    try:
        cli.main()
        code = 0
    except SystemExit as error:
        code = error.code or 0
    said = capsys.readouterr()
    return code, said.out, said.err


def test_runs_on_the_same_clients_stand_together_whatever_they_are_called(tmp_path):
    places = [write_run(tmp_path, "local", seed, LOW) for seed in (0, 1)]
    places += [write_run(tmp_path, "ditto", seed, HIGH) for seed in (0, 1)]
    places += [write_run(tmp_path, "fedavg", seed, HIGH, scenario="mine") for seed in (0, 1)]
    found = sort_out(places)
    assert (found.apart, found.left) == ({}, {})
    assert {run.scenario for run in found.runs} == {"made and mine"}
    assert sorted(board(found.runs)["algorithm"]) == ["ditto", "fedavg", "local"]


@pytest.mark.parametrize(("changes", "why"), [
    ({"rounds": 20}, "another budget"), ({"split": 41}, "another split"), ({"scores": [0.5] * 5}, "other tasks")])
def test_another_split_or_budget_stands_apart(tmp_path, changes, why):
    write_run(tmp_path, "local", 0, LOW)
    write_run(tmp_path, "ditto", 0, HIGH)
    write_run(tmp_path / "other", "ditto", 0, changes.pop("scores", HIGH), **changes)
    found = sort_out([tmp_path, tmp_path / "other"])
    assert [(name, why in said) for name, said in found.apart.items()] == [("made (2)", True)]
    rows = board(found.runs)
    assert rows.groupby("scenario").size().to_dict() == {"made": 2, "made (2)": 1}
    assert rows.set_index(["scenario", "algorithm"])["difference"].isna().to_dict() == {
        ("made", "ditto"): False, ("made", "local"): True, ("made (2)", "ditto"): True}


def test_settings_of_one_method_are_rows_and_a_repeated_run_is_left_out(tmp_path):
    places = [write_run(tmp_path / str(lam), "ditto", 0, HIGH, lam=lam) for lam in (0.1, 1.0)]
    again = write_run(tmp_path / "again", "ditto", 0, HIGH, lam=1.0)
    found = sort_out([*places, again])
    assert [run.method for run in found.runs] == ["ditto (lam=0.1)", "ditto (lam=1.0)"]
    assert list(found.left) == [str(again)]
    assert "the same settings and seed" in found.left[str(again)]


def test_a_run_that_is_given_twice_is_one(tmp_path, monkeypatch):
    run = write_run(tmp_path, "local", 0, LOW)
    monkeypatch.chdir(tmp_path)
    found = sort_out([tmp_path, run, Path(run.name)])
    assert (len(found.runs), found.left) == (1, {})


def test_what_has_not_ended_and_what_is_no_run_are_told(tmp_path):
    whole, half = write_run(tmp_path, "local", 0, LOW), write_run(tmp_path, "ditto", 0, LOW)
    (half / "summary.json").unlink()
    (tmp_path / "nothing").mkdir()
    found = sort_out([whole, half, tmp_path / "nothing"])
    assert found.left == {str(half): "it has not ended", str(tmp_path / "nothing"): "no run, and no directory of runs"}
    with pytest.raises(FedmtlError, match="it has not ended"):
        sort_out([half])


def test_the_command_says_all_of_it(tmp_path, monkeypatch, capsys):
    write_run(tmp_path, "local", 0, LOW)
    write_run(tmp_path, "ditto", 0, HIGH)
    write_run(tmp_path, "ditto", 1, HIGH, scenario="longer", rounds=30)
    code, out, _ = command("compare", tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert code == 0
    assert "stands apart: " in out
    assert "another budget (rounds is" in out
    code, out, _ = command("compare", tmp_path, "--json", monkeypatch=monkeypatch, capsys=capsys)
    said = json.loads(out)
    assert (len(said["rows"]), len(said["pairs"]), len(said["apart"])) == (3, 1, 1)
    code, _, err = command("compare", tmp_path / "absent", monkeypatch=monkeypatch, capsys=capsys)
    assert (code, "no run" in err) == (1, True)
