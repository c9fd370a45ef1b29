"""Where the time goes: nothing is counted twice, nothing that is measured changes a result."""

from __future__ import annotations

import re
import time

import pytest
from typer.testing import CliRunner

from fedmtl import run
from fedmtl.cli import app
from fedmtl.profiling import Spans, spans
from fedmtl.report.files import load_journal

WORDS = {"rounds": 3, "tasks.clients": 6, "model.hidden": [8], "runtime.kind": "inline"}


def busy(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.fixture
def on():
    one = Spans()
    one.on = True
    return one


def test_what_is_inside_is_not_counted_outside(on):
    start = time.perf_counter()
    with on.span("outer"):
        busy(0.02)
        with on.span("inner"):
            busy(0.03)
            with on.span("core"):
                busy(0.01)
        with on.span("inner"):
            busy(0.01)
    spent, taken = time.perf_counter() - start, on.take()
    assert taken.keys() == {"outer", "inner", "core"}
    assert taken["outer"] >= 0.02
    assert taken["inner"] >= 0.04
    assert taken["core"] >= 0.01
    assert sum(taken.values()) <= spent
    assert on.take() == {}


def test_a_span_inside_one_of_its_own_name_counts_once(on):
    start = time.perf_counter()
    with on.span("data"):
        busy(0.01)
        with on.span("data"):
            busy(0.01)
    assert 0.02 <= on.take()["data"] <= time.perf_counter() - start


def test_what_raises_is_counted_too_and_leaves_nothing_open(on):
    with pytest.raises(ZeroDivisionError), on.span("outer"), on.span("inner"):
        1 / 0  # noqa: B018
    assert set(on.take()) == {"outer", "inner"}
    with on.span("next"):
        busy(0.01)
    assert on.take()["next"] >= 0.01
    assert on._inner == []


def test_what_others_spent_is_told_apart(on):
    for spent in ({"data": 1.0}, {"data": 0.5, "messages": 2.0}, {}):
        on.add(spent, "workers")
    with on.span("data"):
        pass
    taken = on.take()
    assert taken.pop("data") < 0.5
    assert taken == {"workers: data": 1.5, "workers: messages": 2.0}


def test_off_it_counts_nothing():
    one = Spans()
    with one.span("outer"), one.span("inner"):
        busy(0.001)
    assert one.take() == {}
    assert one._inner == []


def test_a_profiled_run_journals_its_rounds_and_has_the_same_results(tmp_path):
    plain = run("quickstart", WORDS, out=tmp_path / "plain", report=False)
    assert not spans.on
    profiled = run("quickstart", WORDS, out=tmp_path / "profiled", report=False, profile=True)
    again = run("quickstart", WORDS, out=tmp_path / "again", report=False)
    assert plain.summary["checksum"] == profiled.summary["checksum"] == again.summary["checksum"]
    assert (plain.path / "metrics.jsonl").read_bytes() == (profiled.path / "metrics.jsonl").read_bytes()
    assert not any("profile" in event for one in (plain, again) for event in load_journal(one.path))
    rounds = [event for event in load_journal(profiled.path) if event["event"] == "round"]
    assert len(rounds) == 3
    for event in rounds:
        assert {"data", "forward and backward", "optimiser", "local work", "messages", "aggregation", "evaluation", "waiting",
                "recording"} <= set(event["profile"])
        assert all(seconds >= 0 for seconds in event["profile"].values())
        counted = sum(seconds for name, seconds in event["profile"].items() if name != "recording")
        assert counted <= event["seconds"]["total"]
        assert counted >= event["seconds"]["total"] / 2


def test_the_command_prints_where_the_time_went(tmp_path):
    words = [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in WORDS.items()]
    said = CliRunner().invoke(app, ["run", "quickstart", *words, "--out", str(tmp_path / "run"), "--profile"])
    assert said.exit_code == 0, said.output
    assert "milliseconds of a round (median), by what they went into" in said.output
    shares = [float(share) for share in re.findall(r"forward and backward +[\d.]+ +([\d.]+)%", said.output)]
    assert len(shares) == 1
    assert 0 < shares[0] < 100
    total = sum(float(share) for share in re.findall(r"^ +[a-z ]+ +[\d.]+ +([\d.]+)%$", said.output, re.MULTILINE))
    assert total == pytest.approx(100, abs=1)
    quiet = CliRunner().invoke(app, ["run", "quickstart", *words, "--out", str(tmp_path / "plain")])
    assert "milliseconds of a round" not in quiet.output


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_tell_theirs(tmp_path):
    words = {**WORDS, "runtime.kind": "ray", "runtime.workers": 2}
    result = run("quickstart", words, out=tmp_path / "run", report=False, profile=True)
    last = [event["profile"] for event in load_journal(result.path) if "profile" in event][-1]
    assert {"workers: forward and backward", "workers: evaluation", "waiting", "aggregation"} <= set(last)
    assert "forward and backward" not in last
    assert result.summary["checksum"] == run("quickstart", WORDS, out=tmp_path / "one", report=False).summary["checksum"]
