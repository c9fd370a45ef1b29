"""Ray gives the bits that one process gives, whatever the number of workers. One Ray session serves all tests here."""

from __future__ import annotations

import json

import pytest

from fedmtl import run
from fedmtl.report.files import load_journal

# Ray leaves files and processes to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

CASES = {
    "fedper": {"algorithm.name": "fedper"},
    "ditto": {"algorithm.name": "ditto", "algorithm.lam": 0.5},
    "dirichlet": {"algorithm.name": "fedper", "server.participation": 0.5, "tasks.transform": [],
                  "tasks.split": [{"kind": "dirichlet", "alpha": 0.5, "min-size": 5}], "tasks.clients": 17},
    "drift": {"tasks.transform": [{"kind": "drift", "what": "relabel", "stages": 2}]},
}
WORDS = {"rounds": 4, "tasks.clients": 14, "model.hidden": [8], "runtime.shards": 5, "runtime.cohort": 4}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The runs of one process, by case."""
    place = tmp_path_factory.mktemp("inline")
    return {name: run("quickstart", {**WORDS, **words, "runtime.kind": "inline"}, out=place / name, report=False)
            for name, words in CASES.items()}


QUICK = {("dirichlet", 3)}


@pytest.mark.parametrize(("case", "workers"), [
    pytest.param(case, workers, marks=[] if (case, workers) in QUICK else pytest.mark.slow)
    for case in CASES for workers in (1, 2, 3)])
def test_the_number_of_workers_changes_no_bit(case, workers, session, alone, tmp_path):
    words = {**WORDS, **CASES[case], "runtime.kind": "ray", "runtime.workers": workers}
    result = run("quickstart", words, out=tmp_path / "run", report=False)
    assert session.is_initialized()
    assert result.summary["checksum"] == alone[case].summary["checksum"]
    assert (result.path / "metrics.jsonl").read_bytes() == (alone[case].path / "metrics.jsonl").read_bytes()
    assert result.summary["test"] == alone[case].summary["test"]
    assert result.summary["bytes"] == alone[case].summary["bytes"]
    told = [[{k: event[k] for k in ("sampled", "accepted", "bytes", "rejected")} for event in load_journal(one.path)
             if event["event"] == "round"] for one in (result, alone[case])]
    assert told[0] == told[1]
    assert not (result.path / "private").exists()


@pytest.mark.slow
def test_a_method_of_ones_own_runs_in_the_workers_too(session, tmp_path):
    (tmp_path / "own_method.py").write_text("""
from dataclasses import dataclass
from fedmtl.algorithms.fedper import Fedper

@dataclass(frozen=True, kw_only=True)
class Touchy(Fedper):
    def local(self, client, received, kept):
        if (client.n % 2 == 1).any():
            raise ArithmeticError("odd")
        return super().local(client, received, kept)
""")
    text = json.dumps
    (tmp_path / "own.toml").write_text(
        f'name = "own"\nrounds = 2\n[tasks]\nsource = "digits"\nclients = 7\n[algorithm]\nname = {text("own_method:Touchy")}\n'
        "[server]\nmax-failures = 1.0\n[runtime]\nkind = \"ray\"\nworkers = 2\n")
    result = run(tmp_path / "own.toml", out=tmp_path / "run", report=False)
    rounds = [event for event in load_journal(result.path) if event["event"] == "round"]
    assert all(0 < len(event["rejected"]) < 7 for event in rounds)
    assert {one["reason"] for event in rounds for one in event["rejected"]} == {"ArithmeticError: odd"}
    inline = run(tmp_path / "own.toml", {"runtime.kind": "inline"}, out=tmp_path / "inline", report=False)
    assert inline.summary["checksum"] == result.summary["checksum"]
