"""The page of a benchmark: it leads with who wins and whether that is sure, and holds what the answer rests on."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from browser import DARK, needs_browser, serious, widths
from made_runs import made_run

import fedmtl
from fedmtl import cli
from fedmtl.bench import charts, story
from fedmtl.bench.board import board, paired, ranked
from fedmtl.bench.course import course, far, front, over_seeds
from fedmtl.bench.page import is_benchmark, write_page
from fedmtl.bench.plan import plan
from fedmtl.bench.runs import read_runs
from fedmtl.bench.winners import alike, means
from fedmtl.errors import FedmtlError
from fedmtl.report import words
from fedmtl.report.draw import looks
from fedmtl.report.files import load_journal
from fedmtl.scenario import from_toml

WORDS = ["rounds=3", "tasks.clients=6", "model.hidden=[8]", "training.epochs=1"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Two scenarios, four methods, two seeds; one of the runs failed."""
    root = tmp_path_factory.mktemp("two") / "bench"
    for job in plan(["digits-pathological", "quickstart"], ["fedavg", "fedper", "ditto"], 2, WORDS):
        fedmtl.run(from_toml(job.text, job.folder), out=root / job.name, report=False)
    place = root / "quickstart-ditto-seed1"
    shutil.rmtree(place)
    place.mkdir()
    (place / "failed.txt").write_text("it <ran> away\n")
    return root


@pytest.fixture(scope="module")
def page(bench):
    return write_page(bench).read_text(encoding="utf-8")


def test_it_leads_with_the_winner_and_holds_the_rest(bench, page):
    table = board(read_runs(bench))
    for scenario, rows in table.groupby("scenario"):
        best = rows.iloc[0]
        at = page.index(f"{scenario}: accuracy")
        assert page.index(f'<p class="winner">{best["algorithm"]}', at) < page.index("Leaderboard", at)
        for row in rows.to_dict("records"):
            assert words.score("accuracy", row["mean"]).replace(" ", "\N{NO-BREAK SPACE}") in page
            assert row["command"].replace("&", "&amp;") in page
    for said in ("Average ranks", "critical difference", "Accuracy by round", "Each method by itself",
                 "Gain over local of every client", "The worst-off against the mean",
                 "Accuracy for the bytes", "Accuracy for the seconds", "Accuracy for the samples",
                 "Labels each client holds", "Settings", "15 runs", "it &lt;ran&gt; away", "Rows rest on 1 to 2 seeds"):
        assert said in page, said
    assert page.count("same clients, data, split, model and budget") == 2
    assert len(page) < 3_000_000
    assert {path.suffix for path in (bench / "figures").iterdir()} == {".svg"}


def test_nothing_is_loaded_and_ids_are_unique(page):
    assert re.search(r"<(script|iframe|object|embed|form|img)\b", page) is None
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("#", "data:")) or re.fullmatch(r"[\w-]+\.(md|csv|tex|parquet)", link) for link in links)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#") and not link.startswith("#m")} <= set(ids)


@pytest.mark.slow
def test_made_again_it_is_the_same_page(bench, page):
    assert write_page(bench).read_text(encoding="utf-8") == page


@pytest.mark.slow
def test_report_knows_a_benchmark_from_a_run(bench, monkeypatch, capsys):
    assert is_benchmark(bench)
    assert not is_benchmark(bench / "quickstart-local-seed0")
    monkeypatch.setattr(sys, "argv", ["fedmtl", "report", str(bench)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 0
    assert capsys.readouterr().out.strip() == str(bench / "index.html")


def test_report_takes_no_baseline_for_a_benchmark(bench, monkeypatch, capsys):
    before = {path: path.stat().st_mtime_ns for path in bench.rglob("*")}
    monkeypatch.setattr(sys, "argv", ["fedmtl", "report", str(bench), "--baseline", str(bench / "quickstart-local-seed0")])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code == 2
    assert "--baseline: one run is no baseline of a benchmark" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in bench.rglob("*")} == before


def test_a_run_of_another_budget_is_called_not_comparable(bench, tmp_path):
    root = tmp_path / "unequal"
    for name in ("quickstart-local-seed0", "quickstart-fedper-seed0"):
        shutil.copytree(bench / name, root / name)
    toml = root / "quickstart-fedper-seed0" / "scenario.toml"
    toml.write_text(toml.read_text().replace("epochs = 1", "epochs = 7"))
    said = write_page(root).read_text(encoding="utf-8")
    assert "Not comparable" in said
    assert "another budget (training.epochs is 7 here and 1 there)" in said
    assert "same clients, data, split, model and budget" not in said
    assert "One seed cannot tell luck from method." in said


def test_a_report_of_a_run_is_linked_and_relations_are_drawn_of_methods_that_have_some(tmp_path):
    for job in plan(["quickstart"], ["fedper"], 1, WORDS):
        shares = job.method == "fedper"
        fedmtl.run(from_toml(job.text, job.folder), ["evaluation.relations=1"] if shares else [], out=tmp_path / job.name,
                   report=shares)
    said = write_page(tmp_path).read_text(encoding="utf-8")
    assert 'href="quickstart-fedper-seed0/report.html"' in said
    assert "quickstart-local-seed0/report.html" not in said
    assert "How updates of the trunk relate" in said
    assert "Conflict rate" in said


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(FedmtlError, match="no run in it has ended"):
        write_page(tmp_path)


def test_names_cannot_break_out(bench, tmp_path):
    root = tmp_path / "named"
    for name in ("quickstart-local-seed0", "quickstart-fedper-seed0"):
        shutil.copytree(bench / name, root / name)
        path = root / name / "summary.json"
        summary = json.loads(path.read_text())
        summary["name"] = "<script>alert(1)</script> $x_1$"
        if "fedper" in name:
            summary["algorithm"] = "m:<img src=x>"
        path.write_text(json.dumps(summary))
    assert re.search(r"<(script|img)\b", write_page(root).read_text(encoding="utf-8")) is None


def test_a_course_sums_what_was_spent(bench):
    run = next(run for run in read_runs(bench) if run.place.name == "quickstart-fedper-seed0")
    found = course(run)
    rounds = [event for event in load_journal(run.place) if event["event"] == "round"]
    assert found.index.tolist() == [1, 2, 3]
    assert found["bytes"].iloc[-1] == run.said["bytes"]["up"] + run.said["bytes"]["down"]
    assert found["samples"].tolist() == np.cumsum([event["samples"] for event in rounds]).tolist()
    assert found["mean"].iloc[-1] == pytest.approx(run.said["test"]["accuracy"]["mean"])
    other = found + 1
    joined = over_seeds([found, other.iloc[:2]])
    assert joined.mean.index.tolist() == [1, 2]  # round 3 has one seed only
    assert joined.mean["mean"].tolist() == pytest.approx((found["mean"].iloc[:2] + 0.5).tolist())
    assert (joined.high - joined.low).tolist() == pytest.approx([1, 1])


def test_the_pareto_front_by_hand():
    cost, score = [3.0, 1.0, 2.0, 2.0, 4.0, 1.0], [0.9, 0.5, 0.7, 0.6, 0.9, 0.5]
    assert front(cost, score, "max") == [1, 5, 2, 0]  # equal points stand together; dearer and no better is out
    assert front(cost, [-value for value in score], "min") == [1, 5, 2, 0]
    assert front([1.0], [2.0], "min") == [0]


def test_what_lies_far_below_the_rest_is_off_the_scale():
    assert far([99.2, 99.1, 99.0, 98.8, 97.6, 92.6, 64.3], "max") == [False] * 6 + [True]
    assert far([1.0, 1.1, 1.2, 1.3, 9.0], "min") == [False] * 4 + [True]
    assert far([1.0, 1.1, 1.2, 1.3, 9.0], "max") == [False] * 5  # what is far above stays
    assert far([88.9, 86.9, 85.5, 84.7, 37.1, 17.8, 17.8], "max") == [False] * 7
    assert far([0.9, 0.9, 0.9, 0.9, 0.1], "max") == [False] * 5
    assert far([0.9, 0.8, 0.1], "max") == [False] * 3


def test_a_method_off_the_scale_is_named_with_its_score():
    draw = np.random.default_rng(0)
    runs = [made_run(name, 0, np.clip(draw.normal(mean, 0.01, 20), 0, 1))
            for name, mean in zip("abcdef", (0.97, 0.96, 0.95, 0.94, 0.93, 0.2), strict=True)]
    rows = board(runs)
    drawn = means("", rows, runs, "local")
    assert "Off the scale: f." in drawn.alt
    assert words.score("accuracy", rows["mean"].iloc[-1]) in drawn.inline()
    assert drawn.figure.axes[0].get_xlim()[0] > 0.9
    tail = charts.tails("", rows, looks(list("abcdef"), "local"), "max")
    assert tail is not None
    assert re.search(r"Off the scale: f \(\S+ % against \S+ %\)\.$", tail.alt)
    assert tail.figure.axes[0].get_ylim()[0] > 0.8


def test_groups_that_ranks_cannot_tell_apart_by_hand():
    assert alike([1.0, 1.5, 2.2, 4.0, 4.1], 1.0) == [(0, 1), (1, 2), (3, 4)]
    assert alike([1.0, 3.0], 1.0) == []
    assert alike([1.0, 2.0, 3.0], 5.0) == [(0, 2)]


def test_the_answer_says_what_is_sure():
    rows = pd.DataFrame({"scenario": "s", "algorithm": ["a", "b", "local"], "metric": "accuracy", "direction": "max", "seeds": 3,
                         "mean": [0.9, 0.8, 0.7], "low": 0.6, "high": 0.95, "worst10": 0.5, "before": np.nan, "shared": np.nan,
                         "chosen": np.nan, "chosen_round": np.nan, "difference": [0.2, 0.1, np.nan], "p_holm": [0.01, 0.2, np.nan],
                         "significant": pd.array([True, False, None], dtype="boolean"), "rank": [1.0, 2.0, 3.0], "delta_m": 0.1,
                         "harmed": 0.0, "bytes": 9.0, "forward": 5.0, "backward": 5.0, "kept": 0.0, "budget": "",
                         "ended": "rounds", "tuned": None, "trials": np.nan, "without": ""})
    pairs = pd.DataFrame({"a": ["a", "a", "b"], "b": ["b", "local", "local"], "difference": [0.1, 0.2, 0.1],
                          "significant": pd.array([False, True, True], dtype="boolean")})
    found = story.answer(rows, pairs)
    assert (found["winner"], found["sure"]) == ("a", False)
    assert "Not to be told from b; surely better than local." in found["said"]
    assert "Of 2 methods, 1 surely better than local and 0 surely worse." in found["said"]
    sure = story.answer(rows, pairs.assign(significant=pd.array([True] * 3, dtype="boolean")))
    assert sure["sure"]
    assert "Surely better than b, local: the winner." in sure["said"]
    turned = pairs.assign(a=["b", "local", "b"], b=["a", "a", "local"], difference=[-0.1, -0.2, 0.1])
    assert story.answer(rows, turned) == found


def test_ranks_without_a_critical_difference_are_not_drawn(bench, tmp_path):
    root = tmp_path / "alone"
    shutil.copytree(bench / "quickstart-local-seed0", root / "quickstart-local-seed0")
    assert "Average ranks" not in write_page(root).read_text(encoding="utf-8")
    runs = read_runs(bench)
    assert "all scenarios" in set(ranked(runs)["scenario"])
    assert len(paired(runs)) == 12


@pytest.mark.slow
@needs_browser
def test_it_fits_phones_and_desks_and_axe_is_content(bench, page, tmp_path):
    place = tmp_path / "bench.html"
    place.write_text(page, encoding="utf-8")
    for frame in widths(place, tmp_path):
        assert frame["scroll"] <= frame["width"]
        assert frame["figures"] >= 18
    for flags in ((), (DARK,)):
        assert serious(place, tmp_path, *flags) == []


@pytest.mark.slow
@needs_browser
def test_the_checks_see_what_is_planted(page, tmp_path):
    place = tmp_path / "planted.html"
    planted = '<main><img src="x.png"><p style="width:2000px;color:#999;background:#aaa">wide and pale</p>'
    place.write_text(page.replace("<main>", planted), encoding="utf-8")
    assert {one["id"] for one in serious(place, tmp_path)} >= {"image-alt", "color-contrast"}
    with pytest.raises(AssertionError):
        widths(place, tmp_path)
    place.write_text(page.replace("<main>", '<main><p style="width:2000px">wide</p>'), encoding="utf-8")
    assert any(frame["scroll"] > frame["width"] for frame in widths(place, tmp_path))
