"""The round loop: the same in every runtime, because all it knows is a Flower Grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from flwr.app import ConfigRecord
from flwr.serverapp import Grid

from fedmtl.algorithms.steps import WORK
from fedmtl.errors import TooManyFailures
from fedmtl.profiling import spans
from fedmtl.runs.budget import Purse
from fedmtl.scenario import Scenario
from fedmtl.server.messages import LEDGER, to_params
from fedmtl.server.round import Round
from fedmtl.server.strategy import MethodStrategy
from fedmtl.tasks.objectives import Direction
from fedmtl.trees import Params


@dataclass(frozen=True)
class Line:
    """What the console says of one round."""

    round: int
    loss: float
    score: float
    worst10: float
    sampled: int
    failed: int
    bytes_up: int
    bytes_down: int
    bytes_evaluate: int
    seconds: float
    replied: int = 0
    ledger: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(LEDGER, 0))
    """What those who replied did and keep, all together (server.strategy.Round)."""

    means: Mapping[str, float] = field(default_factory=dict)
    """The clients' mean of every score, as "test/personal/accuracy"."""


Listener = Callable[[Line], None]


class Record(Protocol):
    """Where a run writes what happens: `runs.results.RunDirectory`."""

    def journal(self, event: str, **entry: Any) -> None:
        """An event, with the time."""

    def scores(self, now: Round, directions: Mapping[str, str], tasks: list[str], sizes: Mapping[str, Any]) -> None:
        """Every client's scores of a round."""

    def relations(self, now: Round) -> None:
        """How the clients' updates of a round relate, where that was asked for."""


def worst_tenth(values: np.ndarray, direction: str) -> float:
    """The mean over the worst tenth of the clients, at least one."""
    ordered = np.sort(values[~np.isnan(values)])
    count = max(1, int(np.ceil(len(ordered) / 10)))
    if not len(ordered):
        return float("nan")
    return float((ordered[:count] if direction == "max" else ordered[-count:]).mean())


def run_rounds(scenario: Scenario, grid: Grid, strategy: MethodStrategy, metrics: Mapping[str, Direction], primary: str,
               files: Record, listen: Listener, purse: Purse | None = None) -> Params:
    """Every round of a scenario, as far as its budget goes; returns the server's last state. See server.strategy for the errors.

    purse: that budget, for who wants to see afterwards what was spent.
    """
    arrays, config = strategy.initial_arrays(), ConfigRecord()
    roster, purse = strategy.join(grid), purse or Purse(scenario.budget)
    for number in range(1, scenario.rounds + 1):
        start = time.perf_counter()
        timeout = scenario.runtime.timeout
        with spans.span("messages"):
            asked = list(strategy.configure_train(number, arrays, config, grid))
        with spans.span("waiting"):
            replies = grid.send_and_receive(asked, timeout=timeout)
        trained = time.perf_counter()
        try:
            with spans.span("aggregation"):
                arrays = strategy.aggregate_train(number, replies)[0] or arrays
        except TooManyFailures:
            files.journal("stopped", round=number, rejected=_reasons(strategy.round(number).rejected))
            raise
        aggregated = time.perf_counter()
        now = strategy.round(number)
        done = {unit: now.ledger[unit] for unit in WORK}
        purse.pay(steps=done["steps"], samples=done["samples"], bytes=now.bytes_up + now.bytes_down, seconds=aggregated - start)
        strategy.last = scenario.rounds if purse.holds else number
        if asked := strategy.configure_affinity(number):
            with spans.span("waiting"):
                replies = grid.send_and_receive(asked, timeout=timeout)
            strategy.aggregate_affinity(number, replies)
        with spans.span("messages"):
            asked = list(strategy.configure_evaluate(number, arrays, config, grid))
        if asked:
            with spans.span("waiting"):
                replies = grid.send_and_receive(asked, timeout=timeout)
            with spans.span("evaluation"):
                strategy.aggregate_evaluate(number, replies)
        end = time.perf_counter()
        del strategy.rounds[number]
        recovered = getattr(grid, "events", [])
        while recovered:
            files.journal("recovered", round=number, text=recovered.pop(0))
        with spans.span("recording"):
            files.scores(now, metrics, roster.tasks, roster.sizes)
            files.relations(now)
        seconds = {"train": trained - start, "aggregate": aggregated - trained, "evaluate": end - aggregated,
                   "total": end - start}
        line = line_of(now, metrics[primary], primary, seconds["total"])
        files.journal("round", round=number, seconds=seconds, sampled=len(now.sampled), accepted=len(now.accepted),
                      bytes={"up": now.bytes_up, "down": now.bytes_down, "evaluate": now.bytes_evaluate},
                      **done, kept=kept_of([now]), **({"work": work_of(now)} if now.effort else {}),
                      rejected=_reasons(now.rejected), unscored=_reasons(now.unscored),
                      train_loss=None if np.isnan(line.loss) else line.loss,
                      **({"method": now.figures} if now.figures else {}), **({"profile": spans.take()} if spans.on else {}))
        listen(line)
        if number == strategy.last:
            break
    return to_params(arrays)


def _reasons(clients: Mapping[int, str]) -> list[dict[str, int | str]]:
    return [{"client": client, "reason": why} for client, why in sorted(clients.items())]


def kept_of(rounds: Sequence[Round | Line]) -> dict[str, int]:
    """How many numbers a client keeps to itself, and how many bytes they are: the mean over all replies of some rounds."""
    replied = max(sum(one.replied for one in rounds), 1)
    total = {name: sum(one.ledger[name] for one in rounds) for name in ("kept", "kept-bytes")}
    return {"parameters": round(total["kept"] / replied), "bytes": round(total["kept-bytes"] / replied)}


def work_of(now: Round) -> dict[str, list[Any]]:
    """Of a round in which not everyone makes all steps: who was picked, the share of each, and what it did; 0 where left out."""
    did = [now.work.get(client, (0, 0)) for client in now.effort]
    return {"client": list(now.effort), "share": [round(share, 6) for share in now.effort.values()],
            "steps": [steps for steps, _ in did], "samples": [rows for _, rows in did]}


def line_of(now: Round, direction: Direction, primary: str, seconds: float) -> Line:
    """A round in one line: the headline model's mean and worst tenth, on validation rows where there are any, else test."""
    means = now.means
    key = next(((part, model, primary) for part in ("val", "test", "train") for model in ("adapted", "personal")
                if f"{part}/{model}/{primary}" in means), None)
    losses = np.array([now.loss[c] for c in sorted(now.loss)])
    losses = losses[np.isfinite(losses)]
    return Line(now.number, float(losses.mean()) if len(losses) else float("nan"),
                means["/".join(key)] if key else float("nan"),
                worst_tenth(now.scores[key], direction) if key else float("nan"),
                len(now.sampled), len(now.rejected), now.bytes_up, now.bytes_down, now.bytes_evaluate, seconds,
                now.replied, now.ledger, means)
