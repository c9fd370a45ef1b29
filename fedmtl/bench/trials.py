"""The trials of one method: which values are tried, and how good each trial is on validation rows. The test rows are taken away.

Trial 0 is what the scenario says; the others are Optuna's tree-structured Parzen estimator's, seeded by the scenario's seed, one
after the other, so that they depend on nothing but the scenario. Bergstra, Bardenet, Bengio, Kegl. Algorithms for Hyper-Parameter
Optimization. NeurIPS 2011; Akiba et al. Optuna. KDD 2019. arXiv:1907.10902
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedmtl import keys
from fedmtl.bench.tuning import replace_text
from fedmtl.client.store import MemoryStore
from fedmtl.errors import DiskError, FedmtlError, ScenarioError
from fedmtl.report.files import lines
from fedmtl.report.metrics import MODELS
from fedmtl.runs.engine import run_rounds
from fedmtl.runs.runner import one_thread, open_grid, strategy_of
from fedmtl.runtime.data import federation_of
from fedmtl.runtime.mixed import host_of
from fedmtl.scenario import Scenario, override
from fedmtl.search import Among, Mark, Value, space_of
from fedmtl.server.round import Round
from fedmtl.tasks.task import Federation, Mixed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

RANDOM = 5
"""Trials before the estimator has seen enough to say anything."""
Values = dict[str, Value]
"""Dotted keys and what a trial gave them."""
Trial = dict[str, Any]
"""trial: its number; values; scores: a mean over clients for each kind of task, None where it failed; failed: why, else ""."""


def space(scenario: Scenario) -> dict[str, tuple[Mark, Value]]:
    """What may be tried, by dotted keys, and what the scenario says: the marked fields of its method and optimiser."""
    found = {}
    for section, part in (("algorithm", scenario.method), ("training", scenario.optimizer)):
        for key, mark in space_of(type(part)).items():
            found[f"{section}.{key}"] = mark, getattr(part, key.replace("-", "_"))
    return found


def without_test(federation: Federation | Mixed) -> Federation | Mixed:
    """The same clients with no test rows."""
    if isinstance(federation, Mixed):
        return Mixed(federation.names, tuple(_blind(member) for member in federation.members))
    return _blind(federation)


def _blind(federation: Federation) -> Federation:
    bounds = federation.bounds.copy()
    bounds[:, 3] = bounds[:, 2]
    return replace(federation, bounds=bounds)


def tune(scenario: Scenario, count: int, record: Path) -> tuple[list[Trial], int]:
    """(the first `count` trials, the number of the best). Those in `record` are not made again.

    Raises ScenarioError where there are no validation rows, DiskError where `record` holds other trials, FedmtlError where all
    fail.
    """
    return search(scenario, federation_of(scenario), count, record)


def search(scenario: Scenario, federation: Federation | Mixed, count: int, record: Path) -> tuple[list[Trial], int]:
    """See `tune`: on given data."""
    data = without_test(federation)
    if not data.sizes("val").any():
        raise ScenarioError("tasks.val", "tuning chooses on validation rows, and there are none")
    marks = space(scenario)
    asks, signs = Asks(scenario.seed, {key: mark for key, (mark, _) in marks.items()}), signs_of(scenario, data)
    made: list[Trial] = [one for _, one in lines(record)] if record.exists() else []
    for number in range(count):
        values = asks.next() if number else {key: said for key, (_, said) in marks.items()}
        if number == len(made):
            made.append({"trial": number, "values": values, **score(scenario, data, values)})
            replace_text(record, "".join(json.dumps(one) + "\n" for one in made))
        if made[number]["values"] != values:
            raise DiskError(f"{record}, line {number + 1}: made with other ranges or another Optuna; remove {record.parent} first")
        asks.tell(values, worth(made[: number + 1], signs)[-1])
    found = worth(made[:count], signs)
    if all(one is None for one in found):
        raise FedmtlError(f"all of {count} trials failed; the first: {made[0]['failed']}")
    return made[:count], int(np.argmax([-np.inf if one is None else one for one in found]))


def signs_of(scenario: Scenario, federation: Federation | Mixed) -> list[int]:
    """Of each kind of task, 1 where the metric that decides for it is better when larger, else -1."""
    plan = host_of(scenario, federation, MemoryStore())
    return [1 if plan.metrics[metric] == "max" else -1 for metric in plan.decides]


def worth(made: Sequence[Trial], signs: Sequence[int]) -> list[float | None]:
    """What each trial is worth, larger is better; None where it failed.

    Of one kind of task it is the score; of several the mean relative gain over the first trial that ended, as in Delta-m.
    """
    first = next((one["scores"] for one in made if one["scores"]), None)
    if first is None:
        return [None] * len(made)
    if len(signs) == 1:
        return [one["scores"] and signs[0] * one["scores"][0] for one in made]
    size = [abs(base) or 1.0 for base in first]
    return [one["scores"] and float(np.mean([sign * (v - base) / by for sign, v, base, by in
                                             zip(signs, one["scores"], first, size, strict=True)])) for one in made]


def score(scenario: Scenario, federation: Federation | Mixed, values: Mapping[str, Value]) -> dict[str, Any]:
    """scores: of each kind of task its clients' mean after the last round, on validation rows; failed: why there are none."""
    try:
        now = last_round(override(scenario, dict(values)), federation)
    except FedmtlError as error:
        return {"scores": None, "failed": str(error)}
    decides, means = host_of(scenario, federation, MemoryStore()).decides, []
    group = federation.group[now.scored]
    for number, metric in enumerate(decides):
        model = next(model for model in MODELS if ("val", model, metric) in now.scores)
        mine = now.scores["val", model, metric][group == number]
        means.append(float(np.nanmean(mine)) if np.isfinite(mine).any() else np.nan)
    if not np.isfinite(means).all():
        return {"scores": None, "failed": "its scores are not finite"}
    return {"scores": means, "failed": ""}


class Last:
    """What a trial writes: nothing; it remembers its last scored round."""

    def __init__(self) -> None:
        self.now: Round | None = None

    def journal(self, event: str, **entry: Any) -> None:
        """Not kept."""

    def relations(self, now: Round) -> None:
        """Not kept."""

    def scores(self, now: Round, directions: Mapping[str, str], tasks: list[str], sizes: Mapping[str, Any]) -> None:
        """Kept until the next one."""
        self.now = now if now.scores else self.now


def last_round(scenario: Scenario, federation: Federation | Mixed) -> Round:
    """The last round of a scenario, scored on validation rows and on nothing else. Raises what a run raises."""
    asked = scenario.evaluation.model_copy(update={"parts": ["val"], "every": scenario.rounds, "relations": 0, "affinity": 0})
    blind = scenario.model_copy(update={"evaluation": asked})
    last, plan = Last(), host_of(blind, federation, MemoryStore())
    with one_thread(), closing(open_grid(blind, federation, Path())) as grid:
        run_rounds(blind, grid, strategy_of(plan, federation), plan.metrics, plan.primary, last, lambda line: None)
    if last.now is None:
        raise FedmtlError("nobody was scored after the last round")
    return last.now


class Asks:
    """Which values are tried next: Optuna's, of three digits, so that what is reported is what was run."""

    def __init__(self, seed: int, marks: Mapping[str, Mark]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=int(keys.stream(seed, "tuning") % np.uint64(2**32)), n_startup_trials=RANDOM)
        self.study = optuna.create_study(sampler=sampler, direction="maximize")
        self.marks, self.ranges = marks, {key: _range(mark) for key, mark in marks.items()}
        self.asked: optuna.Trial | None = None

    def next(self) -> Values:
        """The values of the next trial."""
        self.asked = self.study.ask(self.ranges)
        return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in self.asked.params.items()}

    def tell(self, values: Values, worth: float | None) -> None:
        """What came of `values`: of those asked for last, or of the scenario's own, where they lie within the ranges."""
        import optuna

        if self.asked is not None:
            self.study.tell(self.asked, worth, state=None if worth is not None else optuna.trial.TrialState.FAIL)
        elif worth is not None and all(_within(mark, values[key]) for key, mark in self.marks.items()):
            self.study.add_trial(optuna.create_trial(params=values, distributions=self.ranges, value=worth))


def _range(mark: Mark) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(mark, Among):
        return CategoricalDistribution(mark.values)
    if isinstance(mark.low, int) and isinstance(mark.high, int):
        return IntDistribution(mark.low, mark.high, log=not mark.even)
    return FloatDistribution(mark.low, mark.high, log=not mark.even)


def _within(mark: Mark, value: Value) -> bool:
    return value in mark.values if isinstance(mark, Among) else mark.low <= value <= mark.high  # type: ignore[operator]
