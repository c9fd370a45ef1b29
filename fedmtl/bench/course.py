"""How the scores of a benchmark's runs went, and what they cost on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedmtl.bench.runs import Run
from fedmtl.report.costs import rounds_of
from fedmtl.report.files import load_journal, load_metrics
from fedmtl.report.metrics import scores

COSTS = ("bytes", "seconds", "samples")


def course(run: Run) -> pd.DataFrame:
    """By round the mean test score, and of COSTS those that were recorded, each summed up to that round.

    bytes are those up and down, seconds those of training and aggregation, samples the rows that clients trained on.
    Raises FedmtlError for files that cannot be read.
    """
    tested = scores(load_metrics(run.place), split="test", model=run.said["test_model"], metric=run.said["primary"])
    found = tested[np.isfinite(tested["value"])].groupby("round", sort=True)["value"].mean().to_frame("mean")
    rounds = rounds_of(load_journal(run.place))
    spent = pd.DataFrame({"bytes": rounds["up"] + rounds["down"], "seconds": rounds["train"] + rounds["aggregate"]})
    spent = (spent.join(rounds["samples"]) if "samples" in rounds else spent).cumsum()
    at = spent.reindex(spent.index.union(found.index)).ffill().fillna(0.0)
    joined: pd.DataFrame = found.join(at)
    return joined


@dataclass(frozen=True, kw_only=True)
class Courses:
    """The mean over seeds of a method's courses, and the lowest and highest score of a seed, by round."""

    mean: pd.DataFrame
    low: pd.Series[float]
    high: pd.Series[float]
    seeds: int


def over_seeds(courses: Sequence[pd.DataFrame]) -> Courses:
    """Of the rounds that were scored with every seed."""
    joined = pd.concat(courses, keys=range(len(courses)))
    by_round = joined.groupby(level=1, sort=True)
    whole = by_round["mean"].count() == len(courses)
    low, high = (by_round["mean"].agg(name)[whole] for name in ("min", "max"))
    return Courses(mean=by_round.mean()[whole], low=low, high=high, seeds=len(courses))


def front(cost: Sequence[float], score: Sequence[float], direction: str) -> list[int]:
    """Which points no other one beats, cheapest first: no other costs at most as much and scores better, nor less and as well."""
    sign = -1 if direction == "max" else 1
    points = [(x, sign * y) for x, y in zip(cost, score, strict=True)]
    kept: list[int] = []
    for i in sorted(range(len(points)), key=points.__getitem__):
        if not kept or points[i][1] < points[kept[-1]][1] or points[i] == points[kept[-1]]:
            kept.append(i)
    return kept


def far(scores: Sequence[float], direction: str) -> list[bool]:
    """Which scores are so much worse than the rest that a scale that holds them hides how the others differ.

    Those beyond the worse quartile by more than three times the distance of the quartiles (Tukey. Exploratory Data Analysis. 1977:
    "far out"); none of fewer than five, or where the quartiles are equal.
    """
    good = np.asarray(scores) * (1 if direction == "max" else -1)
    low, high = np.quantile(good, (0.25, 0.75))
    return [bool(value) for value in (good < low - 3 * (high - low)) & (len(good) >= 5) & (high > low)]
