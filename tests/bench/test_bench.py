"""A benchmark: what it runs, that it survives a kill, that its runs are those that run alone, and its statistics."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_runs import Nap

import fedmtl
from fedmtl.bench.alike import sort_out
from fedmtl.bench.board import failures, leaderboard, metrics
from fedmtl.bench.plan import cluster_of, plan
from fedmtl.bench.pool import run_jobs
from fedmtl.bench.tables import write_board
from fedmtl.errors import DiskError, ScenarioError
from fedmtl.scenario import from_toml

WORDS = ["rounds=2", "tasks.clients=4", "model.hidden=[8]", "training.epochs=1"]
FILES = ("leaderboard.md", "leaderboard.csv", "leaderboard.parquet", "leaderboard.tex")


def jobs():
    return plan(["digits-pathological"], ["fedavg"], 2, WORDS)


def boards(root):
    write_board(root)
    return {name: (root / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("bench")
    for job in jobs():
        job.work(root / job.name)
    return root


def test_the_cluster_that_scenarios_or_words_name(tmp_path):
    files = {name: tmp_path / f"{name}.toml" for name in ("one", "two", "none")}
    for name, file in files.items():
        address = f'[runtime]\naddress = "{name}.example:6379"\n' if name != "none" else ""
        file.write_text('name = "x"\nrounds = 1\n[tasks]\nsource = "digits"\nclients = 4\n'
                        f'[algorithm]\nname = "per-fedavg"\n{address}')
    one, two, none = map(str, files.values())
    assert cluster_of([none]) == ""
    assert cluster_of([one, one]) == "one.example:6379"
    assert cluster_of([one], ["training.optimizer=adam"]) == "one.example:6379", "the file's own method takes plain SGD only"
    assert cluster_of([one, two, none], ["fedavg.epochs=2", "runtime.address=three.example:1"]) == "three.example:1"
    with pytest.raises(ScenarioError, match=r"runtime\.address: .* \(none, one\.example:6379\); say which one"):
        cluster_of([one, none])
    texts = [plan([file], ["fedavg"], 1)[0].text for file in (one, none)]
    assert texts[0] == texts[1]


def test_the_product_and_local(whole):
    assert [job.name.removeprefix("digits-pathological-") for job in jobs()] == [
        "local-seed0", "local-seed1", "fedavg-seed0", "fedavg-seed1"]
    board = leaderboard(whole)
    assert sorted(board["algorithm"]) == ["fedavg", "local"]
    assert board["seeds"].tolist() == [2, 2]
    frame = metrics(whole)
    assert frame.groupby(["algorithm", "seed"]).ngroups == 4
    for row in board.itertuples():
        runs = [json.loads((whole / f"digits-pathological-{row.algorithm}-seed{s}" / "summary.json").read_text()) for s in (0, 1)]
        assert row.mean == pytest.approx(np.mean([run["test"]["accuracy"]["mean"] for run in runs]))
        assert row.command.count("fedmtl run ") == 2
        part = frame[(frame["algorithm"] == row.algorithm) & (frame["round"] == 2) & (frame["split"] == "test")
                     & (frame["metric"] == "accuracy") & (frame["model"] == runs[0]["test_model"])]
        assert part.groupby("seed")["value"].mean().mean() == pytest.approx(row.mean)
    assert "seconds" not in board


def test_a_run_equals_the_same_run_alone(whole, tmp_path):
    place = whole / "digits-pathological-fedavg-seed1"
    alone = fedmtl.run(place / "scenario.toml", out=tmp_path / "alone", report=False)
    assert alone.summary["checksum"] == json.loads((place / "summary.json").read_text())["checksum"]
    assert (alone.path / "metrics.jsonl").read_bytes() == (place / "metrics.jsonl").read_bytes()
    assert (alone.path / "scenario.toml").read_bytes() == (place / "scenario.toml").read_bytes()


@pytest.mark.slow
def test_started_again_it_runs_only_what_is_missing(whole, tmp_path):
    import shutil

    before, root = boards(whole), tmp_path / "again"
    shutil.copytree(whole, root)
    (root / "digits-pathological-fedavg-seed0" / "summary.json").write_text('{"half')
    seen = []
    run_jobs(jobs(), root, 2, lambda job, state: seen.append((job.name, state[0])))
    assert [name for name, state in seen if state == "running"] == ["digits-pathological-fedavg-seed0"]
    assert boards(root) == before
    other = plan(["digits-pathological"], ["fedavg"], 2, [*WORDS, "training.lr=0.2"])
    with pytest.raises(DiskError, match="other settings"):
        run_jobs(other, root, 2, lambda *_: None)


def test_every_method_is_begun_first_and_then_the_longest_go_first(tmp_path):
    """The first one of all is a long one: it also starts the process that the others come from."""
    naps = [Nap(name, "s", name[0], int(name[1]), "1" if name[0] == "a" else "0", None)
            for name in ("a0", "a1", "b0", "b1", "b2", "a2")]
    seen = []
    assert run_jobs(naps, tmp_path, 1, lambda job, state: seen.append((job.name, state[0]))) == {}
    assert [name for name, state in seen if state == "running"] == ["a0", "b0", "a1", "a2", "b1", "b2"]


def test_a_failing_run_is_shown_and_the_others_go_on(tmp_path):
    made = plan(["digits-pathological"], ["fedavg"], 1, WORDS)
    broken = [job if job.method == "local" else replace(job, text=job.text.replace("lr = 0.1", "lr = 1e30")) for job in made]
    failed = run_jobs(broken, tmp_path, 2, lambda *_: None)
    assert list(failed) == ["digits-pathological-fedavg-seed0"]
    assert failures(tmp_path) == list(failed.items())
    assert leaderboard(tmp_path)["algorithm"].tolist() == ["local"]
    write_board(tmp_path)
    assert "## Failed" in (tmp_path / "leaderboard.md").read_text()


@pytest.mark.parametrize(("scenarios", "methods", "words", "key"), [
    (["digits-pathological"], ["fedavg", "fedavg"], [], "--algorithms"),
    (["digits-pathological"], ["fedavgg"], [], "algorithm.name"),
    (["nothing"], ["fedavg"], [], "nothing"), (["digits-pathological"] * 2, ["fedavg"], [], "scenario"),
    ([], ["fedavg"], [], "scenario"), (["digits-pathological"], ["fedavg"], ["algorithm.lam=1"], "algorithm.lam"),
    (["digits-pathological"], ["fedavg"], ["runtime.kind=ray"], "runtime.kind")])
def test_refused_before_anything_starts(scenarios, methods, words, key):
    with pytest.raises(ScenarioError) as caught:
        plan(scenarios, methods, 1, words)
    assert caught.value.key == key


def test_a_method_s_own_field_reaches_that_method_alone():
    made = plan(["digits-pathological"], ["fedprox"], 1, [*WORDS, "fedprox.mu=0.25"])
    assert ["mu = 0.25" in job.text for job in made] == [False, True]


LEVERS = ["evaluation.relations=1", "evaluation.affinity=2", "server.modulation=cagrad", "server.c=0.4"]


def test_who_shares_no_trunk_is_spared_what_acts_on_one_and_it_is_said(tmp_path):
    made = plan(["digits-pathological"], ["fedper", "lg-fedavg"], 1, [*WORDS, *LEVERS])
    asked = {job.method: from_toml(job.text) for job in made}
    assert {name: (one.evaluation.relations, one.evaluation.affinity, one.server.modulation) for name, one in asked.items()} == {
        "local": (0, 0, "none"), "lg-fedavg": (0, 0, "none"), "fedper": (1, 2, "cagrad")}
    assert asked["fedper"].modulation.c == 0.4
    for job in made:
        job.work(tmp_path / job.name)
    found = leaderboard(tmp_path).set_index("algorithm")
    assert found["without"].to_dict() == {"fedper": "", **dict.fromkeys(["local", "lg-fedavg"], "relations, affinity, modulation")}
    assert np.isfinite(found.loc["fedper", "difference"])
    write_board(tmp_path)
    assert "| without |" in (tmp_path / "leaderboard.md").read_text()
    assert (tmp_path / "digits-pathological-fedper-seed0" / "relations.jsonl").exists()
    compared = sort_out([tmp_path])
    assert (compared.apart, compared.left) == ({}, {})
    for levers, key in ((["evaluation.relations=-1"], "evaluation.relations"), (["server.modulation=cagard"], "server.modulation")):
        with pytest.raises(ScenarioError) as caught:
            plan(["digits-pathological"], ["local"], 1, [*WORDS, *levers])
        assert caught.value.key == key


def test_a_baseline_that_shares_no_trunk_is_spared_too(tmp_path):
    result = fedmtl.run("digits-pathological", ["algorithm.name=fedper", *WORDS, *LEVERS], out=tmp_path / "run", baseline="local",
                        report=False)
    assert result.summary["baseline_method"] == "local"
    assert "delta_m" in result.summary
    with pytest.raises(ScenarioError, match="shares no trunk"):
        fedmtl.run("digits-pathological", ["algorithm.name=local", *WORDS, LEVERS[0]], out=tmp_path / "alone")


def test_parquet_reads_back(whole):
    write_board(whole)
    pd.testing.assert_frame_equal(pd.read_parquet(whole / "leaderboard.parquet"), leaderboard(whole))
