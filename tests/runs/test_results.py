"""A run directory holds what the contract says, and its numbers are those that can be computed again from its lines."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import fedmtl
from fedmtl.client.store import digest as checksum
from fedmtl.errors import DiskError
from fedmtl.runs.results import RunDirectory, next_directory
from fedmtl.runs.runner import RunResult
from fedmtl.scenario import from_toml

WORDS = {"rounds": 5, "tasks.clients": 12, "model.hidden": [8], "runtime.kind": "inline", "server.participation": 0.5,
         "evaluation.parts": ["train", "val", "test"]}
LINE = {"round": int, "split": str, "model": str, "metric": str, "direction": str,
        "client": list, "task": list, "value": list, "n": list}


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> RunResult:
    return fedmtl.run("quickstart", WORDS, out=tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def lines(result):
    return [strict(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def journal(result):
    return [strict(line) for line in (result.path / "journal.jsonl").read_text().splitlines()]


def strict(text):
    """JSON as the standard has it: no NaN, no Infinity."""
    def refuse(word):
        raise ValueError(f"{word} is no JSON")
    return json.loads(text, parse_constant=refuse)


def values(lines, **wanted):
    [line] = [line for line in lines if all(line[key] == value for key, value in wanted.items())]
    return np.array(line["value"], dtype=float), np.array(line["n"], dtype=float)


def test_the_directory_holds_its_files_and_no_others(result):
    assert {path.name for path in result.path.iterdir()} == {
        "scenario.toml", "metrics.jsonl", "journal.jsonl", "summary.json", "split.json", "checkpoint", "report.html", "figures"}
    assert (result.path / "report.html").stat().st_size > 10_000


def test_the_scenario_is_resolved(result):
    text = (result.path / "scenario.toml").read_text()
    table = tomllib.loads(text)
    assert table["runtime"]["kind"] == "inline"
    assert table["runtime"]["cohort"] >= 1
    assert table["evaluation"]["clients"] == "all"
    assert table["training"] == {"optimizer": "sgd", "batch-size": 10, "epochs": 1, "dtype": "float32", "lr": 0.1,
                                 "momentum": 0.0, "weight-decay": 0.0, "sampler": "epochs", "loss-weighting": "uniform",
                                 "modulation": "none"}
    assert from_toml(text).to_toml() == text


def test_every_line_of_metrics_has_the_fields_of_the_contract(lines):
    assert lines
    for line in lines:
        assert {key: type(value) for key, value in line.items()} == LINE
        assert line["split"] in ("train", "val", "test")
        assert line["model"] in ("global", "personal", "adapted")
        assert line["direction"] == {"accuracy": "max", "loss": "min"}[line["metric"]]
        assert len(line["client"]) == len(line["task"]) == len(line["value"]) == len(line["n"]) == 12
        assert line["client"] == list(range(12))
        assert all(isinstance(n, int) and n > 0 for n in line["n"])
        assert all(isinstance(value, float) and math.isfinite(value) for value in line["value"])
    keys = [(line["round"], line["split"], line["model"], line["metric"]) for line in lines]
    assert sorted(keys) == sorted((r, s, "personal", m) for r in range(1, 6) for s in ("train", "val", "test")
                                  for m in ("accuracy", "loss"))


def test_the_frame_is_the_lines(result, lines):
    frame = result.metrics
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == list(LINE)
    assert len(frame) == sum(len(line["client"]) for line in lines)
    for line in lines:
        rows = frame[(frame["round"] == line["round"]) & (frame["split"] == line["split"]) & (frame["metric"] == line["metric"])]
        assert rows["value"].tolist() == line["value"]
        assert rows["client"].tolist() == line["client"]
        assert rows["task"].tolist() == line["task"]
        assert rows["n"].tolist() == line["n"]


def test_the_journal_tells_every_round(journal, result):
    assert [event["event"] for event in journal] == ["start", *["round"] * 5, "end"]
    for number, event in enumerate(journal[1:-1], start=1):
        assert set(event) == {"event", "time", "round", "seconds", "sampled", "accepted", "bytes", "rejected",
                              "unscored", "train_loss", "steps", "samples", "forward", "backward", "kept"}
        assert event["round"] == number
        assert event["sampled"] == event["accepted"] == 6
        assert event["rejected"] == event["unscored"] == []
        assert set(event["seconds"]) == {"train", "aggregate", "evaluate", "total"}
        assert event["seconds"]["total"] == pytest.approx(sum(event["seconds"][k] for k in ("train", "aggregate", "evaluate")))
        trunk = 4 * (64 * 8 + 8)
        assert event["bytes"] == {"up": 6 * trunk, "down": 6 * trunk, "evaluate": 12 * trunk}
        assert pd.Timestamp(event["time"]).tzinfo is not None
    for way in ("up", "down", "evaluate"):
        assert result.summary["bytes"][way] == sum(event["bytes"][way] for event in journal[1:-1])


def test_the_split_adds_up(result, lines):
    split = json.loads((result.path / "split.json").read_text())
    assert set(split) == {"classes", "groups", "spaces", "clients", "primary", "jsd"}
    assert split["classes"] == [str(digit) for digit in range(10)]
    assert split["primary"] == "accuracy"
    assert 0 <= split["jsd"] <= 1
    assert [client["client"] for client in split["clients"]] == list(range(12))
    for client in split["clients"]:
        assert set(client) == {"client", "task", "train", "val", "test", "labels", "metric"}
        assert sum(client["labels"]) == client["train"] + client["val"] + client["test"]
    assert sum(sum(client["labels"]) for client in split["clients"]) == 1797
    for part in ("train", "val", "test"):
        assert values(lines, round=1, split=part, metric="loss")[1].tolist() == [client[part] for client in split["clients"]]
    assert lines[0]["task"] == [client["task"] for client in split["clients"]]


def test_the_summary_is_what_the_lines_say(result, lines):
    summary = strict((result.path / "summary.json").read_text())
    assert summary == result.summary == RunResult.read(result.path).summary
    assert {"name", "algorithm", "seed", "rounds", "clients", "checksum", "test", "test_at_best_val", "tasks", "bytes",
            "seconds"} <= set(summary)
    assert (summary["name"], summary["algorithm"], summary["seed"], summary["rounds"], summary["clients"]) == (
        "quickstart", "fedper", 0, 5, 12)
    assert set(summary["seconds"]) == {"startup", "total", "round_median"}
    best = max(range(1, 6), key=lambda r: values(lines, round=r, split="val", metric="accuracy")[0].mean())
    assert summary["test_at_best_val"]["round"] == best
    for at, told in ((5, summary["test"]), (best, summary["test_at_best_val"])):
        for metric in ("accuracy", "loss"):
            v, n = values(lines, round=at, split="test", metric=metric)
            upward = np.sort(v)
            worst, top = (upward[:2], upward[-2:]) if metric == "accuracy" else (upward[-2:], upward[:2])
            assert told[metric] == {"mean": pytest.approx(v.mean()), "weighted_mean": pytest.approx((v * n).sum() / n.sum()),
                                    "std": pytest.approx(v.std()), "worst10": pytest.approx(worst.mean()),
                                    "best10": pytest.approx(top.mean()), "direction": "max" if metric == "accuracy" else "min"}
    v, _ = values(lines, round=5, split="test", metric="accuracy")
    assert {task: told["accuracy"] for task, told in summary["tasks"].items()} == pytest.approx(
        dict(zip(lines[0]["task"], v.tolist(), strict=True)))


def test_the_checksum_is_that_of_the_checkpoint(result):
    shared = load_file(result.path / "checkpoint" / "shared.safetensors")
    assert sorted(shared) == ["trunk.linear0.bias", "trunk.linear0.weight"]
    assert checksum(shared) == result.summary["checksum"]
    digest = hashlib.sha256()
    for name in sorted(shared):
        digest.update(f"{name} float32 {list(shared[name].shape)}\n".encode() + shared[name].numpy().tobytes())
    assert digest.hexdigest() == result.summary["checksum"]


def test_the_checksum_sees_names_shapes_types_and_every_bit():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [{"a": torch.zeros(3, 2), "b": torch.ones(1)}, {"a": torch.zeros(2, 3), "c": torch.ones(1)},
              {"a": torch.zeros(2, 3)}, {"a": torch.zeros(2, 3).double(), "b": torch.ones(1)},
              {"a": -torch.zeros(2, 3), "b": torch.ones(1)}, {}]
    assert len({checksum(params) for params in [base, *others]}) == 7
    assert checksum(dict(reversed(base.items()))) == checksum(base)
    assert checksum({"a": torch.zeros(3, 2).t(), "b": torch.ones(1)}) == checksum(base)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(result, tmp_path):
    again = fedmtl.run("quickstart", WORDS, out=tmp_path / "again", report=False)
    assert again.summary["checksum"] == result.summary["checksum"]
    assert (again.path / "metrics.jsonl").read_bytes() == (result.path / "metrics.jsonl").read_bytes()
    assert (again.path / "split.json").read_bytes() == (result.path / "split.json").read_bytes()
    other = fedmtl.run("quickstart", {**WORDS, "seed": 1}, out=tmp_path / "other", report=False)
    assert other.summary["checksum"] != result.summary["checksum"]
    assert (other.path / "metrics.jsonl").read_bytes() != (result.path / "metrics.jsonl").read_bytes()


def test_the_python_interface(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    r = fedmtl.run("quickstart", {"algorithm.name": "ditto", "rounds": 20, "runtime.kind": "inline"}, report=False)
    assert str(r.path) == "runs/quickstart-ditto-seed0"
    assert r.summary["algorithm"] == "ditto"
    assert r.summary["rounds"] == 20
    assert set(r.metrics["round"]) == set(range(1, 21))
    assert set(r.metrics["model"]) == {"global", "personal"}
    assert r.summary["test"]["accuracy"]["mean"] > 0.2


def test_evaluation_every_few_rounds_and_after_the_last(tmp_path):
    r = fedmtl.run("quickstart", {**WORDS, "evaluation.every": 3, "evaluation.parts": ["test"]}, out=tmp_path / "run",
                   report=False)
    assert sorted(set(r.metrics["round"])) == [3, 5]
    assert r.summary["test_at_best_val"] is None  # nothing to choose by


def test_a_diverged_run_still_ends_and_says_so(tmp_path):
    r = fedmtl.run("quickstart", {**WORDS, "training.lr": 1e30, "server.max-failures": 1.0}, out=tmp_path / "run",
                   report=False)
    events = [json.loads(line) for line in (r.path / "journal.jsonl").read_text().splitlines()]
    assert any("not finite" in one["reason"] for event in events for one in event.get("rejected", []))
    strict((r.path / "summary.json").read_text())


def test_a_directory_is_used_once(tmp_path):
    with RunDirectory(tmp_path / "a") as files:
        files.write("scenario.toml", "")
    with pytest.raises(DiskError, match="already holds a run"):
        RunDirectory(tmp_path / "a")


def test_the_next_directory_is_the_first_free_one(tmp_path):
    assert next_directory(tmp_path, "x") == tmp_path / "x"
    for name in ("x", "x-2", "x-4"):
        (tmp_path / name).mkdir()
    assert next_directory(tmp_path, "x") == tmp_path / "x-3"


def test_what_goes_wrong_ends_in_the_journal(tmp_path):
    files = RunDirectory(tmp_path / "a")
    with pytest.raises(KeyError), files:
        raise KeyError("x")
    [event] = [json.loads(line) for line in (tmp_path / "a" / "journal.jsonl").read_text().splitlines()]
    assert event["event"] == "failed"
    assert event["error"] == "KeyError"
