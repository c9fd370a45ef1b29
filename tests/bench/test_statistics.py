"""The statistics of a leaderboard, against tables, by hand, and over runs with a planted advantage and with none."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import drawn, made_run, write_run
from scipy import stats

import fedmtl
from fedmtl.bench.board import ALL, board, leaderboard, paired, pairs, ranks
from fedmtl.bench.runs import Run
from fedmtl.bench.statistics import agrees, critical_difference, friedman, holm, mean_ranks, signed_rank
from fedmtl.bench.tables import markdown, rank_line, write_board
from fedmtl.report.gains import interval


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_signed_rank_by_hand_and_against_scipy():
    assert signed_rank([0.0] * 9) == 1.0
    assert signed_rank([1, 2, 3, 4, 5, 0, np.nan]) == pytest.approx(2 / 2**5)  # the most extreme of 32 signs, both ways
    d = np.random.default_rng(0).normal(0.2, 1, 30)
    assert signed_rank(d) == pytest.approx(stats.wilcoxon(d).pvalue, rel=1e-6)


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (10, 3.164)])
def test_the_critical_difference_is_demsar_s_table_5(methods, q):
    assert critical_difference(methods, 14) == pytest.approx(q * np.sqrt(methods * (methods + 1) / (6 * 14)), abs=2e-3)
    assert critical_difference(methods, 1) is None
    assert critical_difference(1, 14) is None


def test_ranks_and_friedman_by_hand():
    table = pd.DataFrame({"a": [0.9, 0.8, 0.7, np.nan], "b": [0.8, 0.8, 0.6, 1.0], "c": [0.1, 0.2, 0.3, 1.0]})
    assert mean_ranks(table).to_dict() == pytest.approx({"a": 3.5 / 3, "b": 5.5 / 3, "c": 3.0})
    whole = table.dropna()
    assert friedman(table) == pytest.approx(stats.friedmanchisquare(whole["a"], whole["b"], whole["c"]).pvalue)
    assert friedman(pd.DataFrame({"a": [1.0, 2], "b": [1.0, 2], "c": [1.0, 2]})) == 1.0
    assert friedman(table[["a", "b"]]) is None


def test_seeds_agree_where_their_interval_leaves_0_out():
    assert agrees([0.02]) is None
    assert agrees([0.02, 0.021, 0.019]) is True
    assert agrees([0.02, -0.01, 0.03]) is False
    assert (agrees([0.0, 0.0]), agrees([0.1, 0.1])) == (False, True)


def planted(draw, gains, make, seeds=5, clients=20):
    """Runs of methods that are `gains` better than the first, which is Local."""
    skill = draw.normal(0.8, 0.05, clients)
    return [make(method, seed, drawn(draw, skill, gain)) for seed in range(seeds) for method, gain in gains.items()]


def test_a_planted_advantage_is_found_and_two_copies_are_not():
    draw, found, alarms, rash = np.random.default_rng(1), 0, 0, 0
    for _ in range(20):
        row = board(planted(draw, {"local": 0.0, "better": 0.02, "copy": 0.0}, made_run)).set_index("algorithm")
        found += bool(row.loc["better", "significant"])
        alarms += bool(row.loc["copy", "significant"])
        rash += bool(row.loc["copy", "p_holm"] < 0.05)
    assert found >= 19
    assert alarms <= 3  # at 5 %, more than 3 of 20 come in 1.6 % of all cases
    assert rash > 3  # clients alone, who share their run's luck, would cry wolf


SCENARIO = """
name = "twins"
rounds = 3
tasks = {source = "file", path = "rows.npz", x = "x", y = "y", client = "client", clients = 10, test = 0.5,
         split = [{kind = "natural"}]}
model = {hidden = [16]}
algorithm = {name = "fedavg"}
training = {batch-size = 5, lr = 0.1}
evaluation = {every = 3, parts = ["test"]}
runtime = {kind = "inline"}
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_trained_twins_are_alike_and_one_that_is_given_2_points_is_better(tmp_path):
    """The same as above with runs that are trained: 10 clients of one model, three seeds, all noise is that of mini-batches."""
    draw = np.random.default_rng(0)
    centres, y, owner = draw.normal(0, 1, (4, 6)), draw.integers(0, 4, 1500), np.repeat(np.arange(10), 150)
    x = centres[y] + draw.normal(0, 0.3, (10, 6))[owner] + draw.normal(0, 1, (1500, 6))
    np.savez(tmp_path / "rows.npz", x=x.astype(np.float32), y=y, client=owner)
    (tmp_path / "twins.toml").write_text(SCENARIO.replace(",\n        ", ","))
    shutil.copy(Path(__file__).with_name("twins.py"), tmp_path)
    alarms = found = apart = 0
    for repetition in range(20):
        pair = {}
        for name in ("Former", "Latter"):
            pair[name] = [Run.read(fedmtl.run(tmp_path / "twins.toml", {"algorithm.name": f"twins:{name}", "seed": seed},
                                              out=tmp_path / f"{name}-{seed}", report=False).path)
                          for seed in range(3 * repetition, 3 * repetition + 3)]
        apart += any(a.said["checksum"] != b.said["checksum"] for a, b in zip(*pair.values(), strict=True))
        better = [run.named("twins", "better") for run in pair["Former"]]
        for run, same in zip(better, pair["Former"], strict=True):
            run.__dict__["scores"] = same.scores.assign(value=same.scores["value"] + 0.02)
        alarms += bool(paired([*pair["Former"], *pair["Latter"]])["significant"].item())
        found += bool(paired([*better, *pair["Latter"]])["significant"].item())
    assert apart == 20
    assert alarms <= 3  # at 5 %, more than 3 of 20 come in 1.6 % of all cases
    assert found >= 15


def test_a_difference_and_its_interval_are_of_the_clients_means_over_seeds(tmp_path):
    draw = np.random.default_rng(3)
    local, other = draw.normal(0.7, 0.1, (3, 6)), draw.normal(0.75, 0.1, (3, 6))
    for seed in range(3):
        write_run(tmp_path, "local", seed, local[seed])
        write_run(tmp_path, "other", seed, other[seed])
    row = leaderboard(tmp_path).set_index("algorithm").loc["other"]
    clients = (other - local).mean(0)
    assert row["difference"] == pytest.approx(clients.mean())
    assert [row["difference_low"], row["difference_high"]] == pytest.approx(interval(clients))
    assert row["p"] == pytest.approx(signed_rank(clients))
    assert [row["low"], row["high"]] == pytest.approx(interval(other.mean(1)))
    assert row["worst10"] == pytest.approx(other.min(1).mean())
    assert row["harmed"] == pytest.approx((other < local).mean())
    assert row["delta_m"] == pytest.approx(((other - local) / local).mean())
    assert (row["bytes"], row["steps"], row["samples"]) == (30, 7, 70)
    assert (row["forward"], row["backward"], row["kept"], row["kept_bytes"]) == (140, 70, 8, 32)
    pair = pairs(tmp_path).iloc[0]
    assert (pair["a"], pair["b"]) == ("local", "other")
    assert pair["difference"] == pytest.approx(-clients.mean())


def test_the_interval_of_a_share_ends_at_1(tmp_path):
    for seed, score in enumerate((1.0, 1.0, 0.9)):
        write_run(tmp_path, "local", seed, [score] * 3)
        write_run(tmp_path / "errors", "local", seed, [score] * 3, direction="min")
    assert leaderboard(tmp_path)["high"].item() == 1.0
    assert leaderboard(tmp_path / "errors")["high"].item() > 1.0


def test_of_an_error_the_smaller_is_better(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "local", seed, [1.0, 2.0, 3.0], direction="min")
        write_run(tmp_path, "other", seed, [0.5, 1.5 - 0.01 * seed, 2.5], direction="min")
    found = leaderboard(tmp_path)
    assert found["algorithm"].tolist() == ["other", "local"]
    assert found["difference"].iloc[0] == pytest.approx(0.5 + 0.01 / 3)
    assert found["rank"].tolist() == [1.0, 2.0]
    assert found["worst10"].iloc[0] == pytest.approx(2.5)


def test_a_seed_that_only_one_method_ended_is_in_no_pair(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "local", seed, [0.5, 0.6, 0.7])
    write_run(tmp_path, "other", 1, [0.7, 0.7, 0.7])
    row = leaderboard(tmp_path).set_index("algorithm").loc["other"]
    assert (row["seeds"], row["agreed"] is pd.NA) == (1, True)
    assert pairs(tmp_path)["seeds"].tolist() == [1]


def test_ranks_over_clients_and_over_scenarios(tmp_path):
    for scenario in ("one", "two", "three"):
        for method, score in {"local": 0.5, "a": 0.7, "b": 0.9}.items():
            write_run(tmp_path, method, 0, [score, score + 0.01, score - 0.01, score], scenario=scenario)
    found = ranks(tmp_path)
    one = found[found["scenario"] == "one"]
    assert one["algorithm"].tolist() == ["b", "a", "local"]
    assert one["rank"].tolist() == [1.0, 2.0, 3.0]
    assert one["rows"].tolist() == [4] * 3
    overall = found[found["scenario"] == ALL]
    assert overall["rows"].tolist() == [3] * 3
    assert overall["critical"].iloc[0] == pytest.approx(critical_difference(3, 3))
    assert "over 3 scenarios" in rank_line(found, ALL)
    write_board(tmp_path)
    assert "## Over all scenarios" in (tmp_path / "leaderboard.md").read_text()
    assert (tmp_path / "ranks.csv").exists()


def test_what_is_sure_stands_below_the_table(tmp_path):
    planted(np.random.default_rng(5), {"local": 0.0, "better": 0.1, "alike": 0.0}, partial(write_run, tmp_path))
    text = markdown(leaderboard(tmp_path), pairs(tmp_path), ranks(tmp_path), [("x-seed0", "it\nfailed")])
    assert "Better for sure (of 3 pairs, Holm over all): better than alike, local." in text
    assert "(Nemenyi, 5 %)" in text
    assert "- x-seed0: it failed" in text
