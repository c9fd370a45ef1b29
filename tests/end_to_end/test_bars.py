"""What the methods must reach on the shipped scenarios, over five seeds."""

from __future__ import annotations

import numpy as np
import pytest

from fedmtl import run

pytestmark = pytest.mark.slow
SEEDS = range(5)


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """(scenario, method) to the summaries of five seeds, each run once."""
    place, kept = tmp_path_factory.mktemp("bars"), {}

    def of(scenario, method):
        if (scenario, method) not in kept:
            kept[scenario, method] = [
                run(scenario, {"algorithm.name": method, "seed": seed, "runtime.kind": "inline", "evaluation.every": 10},
                    out=place / f"{scenario}-{method}-{seed}", report=False).summary for seed in SEEDS]
        return kept[scenario, method]

    return of


def test_fedrep_finds_the_subspace(scores):
    sines = [summary["truth"]["subspace_sine"] for summary in scores_of_fedrep(scores)]
    assert max(sines) < 0.05, sines


def scores_of_fedrep(scores):
    """The shipped file's own fields matter here, so its method is not chosen again."""
    return scores("linear-representation", "fedrep")


@pytest.mark.parametrize("other", ["local", "fedavg"])
def test_fedrep_has_a_third_of_the_error_of_those_that_share_nothing_or_all(other, scores):
    ours = [summary["test"]["mse"]["mean"] for summary in scores_of_fedrep(scores)]
    theirs = [summary["test"]["mse"]["mean"] for summary in scores("linear-representation", other)]
    assert all(mine < yours / 3 for mine, yours in zip(ours, theirs, strict=True)), (ours, theirs)


def test_a_private_head_on_a_shared_trunk_wins_the_quickstart(scores):
    means = {method: np.array([summary["test"]["accuracy"]["mean"] for summary in scores("quickstart", method)])
             for method in ("fedper", "local", "fedavg")}
    assert (means["fedper"] > means["local"]).all(), means
    assert (means["fedper"] > means["fedavg"]).all(), means
    assert (means["fedper"] - means["local"]).mean() >= 0.02, means
