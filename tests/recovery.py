"""Runs a method on a planted truth, in-process, and says how near it came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmtl.algorithms.base import Algorithm
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.client.store import MemoryStore
from fedmtl.conformance.case import Trial
from fedmtl.runs.truth import truth_scores
from fedmtl.runtime.data import federation_of
from fedmtl.scenario import from_toml

LINEAR = {"trunk": "mlp", "hidden": [1], "activation": "identity", "bias": False, "head-bias": False}


def planted(method: Algorithm, tasks: str, sections: Mapping[str, Mapping[str, Any]], seed: int = 0, rounds: int = 1) -> Trial:
    """A run on a source, before its first round; `tasks` is the text of its [tasks] section."""
    scenario = from_toml(f"name = 'recovery'\nseed = {seed}\nrounds = {rounds}\n[tasks]\n{tasks}\n"
                         "[model]\ntrunk = 'mlp'\n[algorithm]\nname = 'fedavg'\n")
    words = {"model": LINEAR, **sections, "runtime": {"cohort": 64}}
    words["training"] = {"lr": 0.05, "batch-size": 10, **words.get("training", {})}
    return Trial(method, federation_of(scenario), words, MemoryStore(), together=True)


def opposed(**sections: Mapping[str, Any]) -> tuple[Trial, npt.NDArray[np.bool_]]:
    """(a round of one trunk for tasks of two planted directions, with a fixed head; [6, 6] which of them have the same one)."""
    trial = planted(Fedavg(), "source = 'synthetic-clusters'\ngroups = 2\nclients = 6\nsamples = 40\nstandardise = false", sections)
    trial.rounds(1)
    cluster = np.asarray(trial.federation.truth["clusters"])
    return trial, np.equal.outer(cluster, cluster)


def noting(sent: dict[int, npt.NDArray[Any]], name: str) -> Callable[[list[Any]], list[Any]]:
    """A look at a round's replies that notes what each client sent of a parameter, or of its change."""
    def look(replies: list[Any]) -> list[Any]:
        for reply in replies:
            arrays = {key: array.numpy() for key, array in reply.content.array_records["arrays"].items()}
            for slot, client in enumerate(reply.content.metric_records["clients"]["client"]):
                sent[client] = next(leaf for key, leaf in arrays.items() if key in (name, f"delta/{name}"))[slot]
        return replies

    return look


def recovered(method: Algorithm, tasks: str, seed: int = 0, *, rounds: int = 10, model: Mapping[str, Any] = LINEAR,
              **training: Any) -> dict[str, float]:
    """The truth scores after `rounds` rounds on a source; `tasks` is the text of its [tasks] section."""
    trial = planted(method, tasks, {"model": model, "training": {"epochs": 2, **training}}, seed, rounds)
    trial.rounds(rounds)
    scores = truth_scores(trial.host, trial.state)
    assert all(np.isfinite(value) for value in scores.values())
    return scores
