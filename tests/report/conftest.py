"""Synthetic run directories: what the engine writes, with numbers a test can know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmtl.report.html import write_report
from fedmtl.report.metrics import load_metrics, summarise

MakeRun = Callable[..., Path]
SCENARIO = """\
name = {name}
seed = 3
rounds = {rounds}

[tasks]
source = "digits"
clients = {clients}

[[tasks.split]]
kind = "dirichlet"
alpha = 0.3

[model]
trunk = "mlp"
head = "linear"

[algorithm]
name = "ditto"
lam = 0.5

[training]
optimizer = "sgd"
lr = 0.05
batch-size = 10
epochs = 1

[server]
participation = 0.5

[runtime]
kind = "inline"
cohort = 32
"""


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """A function that writes a run directory; `regression` swaps accuracies for squared errors."""

    def make(folder: str = "run", **choices: Any) -> Path:
        run = tmp_path / folder
        run.mkdir()
        write_run(run, **choices)
        return run

    return make


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its page, to be read and not written to."""
    run = tmp_path_factory.mktemp("reported") / "run"
    run.mkdir()
    write_run(run)
    write_report(run)
    return run


def write_run(
    run: Path,
    *,
    clients: int = 20,
    rounds: int = 10,
    classes: int = 10,
    regression: bool = False,
    name: str = "digits, unequal shares",
    models: tuple[str, ...] = ("personal", "global"),
    tasks: int | None = None,
    finished: bool = True,
) -> None:
    """Write every file of a run."""
    draw = np.random.default_rng(7)
    names = [f"{'sine' if regression else 'digits'}-relabel-{i % (tasks or clients):02d}" for i in range(clients)]
    (run / "scenario.toml").write_text(SCENARIO.format(name=json.dumps(name), rounds=rounds, clients=clients))
    split = make_split(draw, names, classes, regression)
    (run / "split.json").write_text(json.dumps(split))
    with (run / "metrics.jsonl").open("w") as file:
        n = [row["test"] for row in split["clients"]]
        for line in metric_lines(draw, names, n, rounds, regression=regression, models=models):
            file.write(json.dumps(line) + "\n")
    (run / "journal.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events(draw, clients, rounds)))
    if finished:
        (run / "summary.json").write_text(json.dumps(make_summary(run, split, name, rounds)))


def make_split(draw: np.random.Generator, names: list[str], classes: int, regression: bool) -> dict[str, Any]:
    rows = []
    for client, task in enumerate(names):
        labels = (draw.dirichlet(np.full(classes, 0.3)) * draw.integers(60, 140)).astype(int)
        train = int(labels.sum()) + 20
        held = {"client": client, "task": task, "train": train, "val": train // 5, "test": train // 4,
            "metric": "mse" if regression else "accuracy"}
        rows.append({**held, "labels": None if regression else labels.tolist()})
    known = [] if regression else [str(label) for label in range(classes)]
    primary = "mse" if regression else "accuracy"
    return {"classes": known, "clients": rows, "jsd": None if regression else 0.412, "primary": primary}


def metric_lines(
    draw: np.random.Generator, names: list[str], n: list[int], rounds: int, *, regression: bool, models: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Learning curves that rise and saturate, the global model below the others."""
    skill = draw.normal(0, 0.05, len(names))
    lines = []
    for number in range(1, rounds + 1):
        reached = 1 - np.exp(-4 * number / rounds)
        for model in models:
            level = {"global": 0.62, "personal": 0.86, "adapted": 0.82}[model]
            for split in ("val", "test"):
                good = np.clip(level * reached + skill + draw.normal(0, 0.015, len(names)), 0.02, 1)
                loss = -np.log(good)
                found = {"mse": ("min", loss**2)} if regression else {"accuracy": ("max", good)}
                for metric, (direction, values) in {**found, "loss": ("min", loss)}.items():
                    lines.append(
                        {
                            **{"round": number, "split": split, "model": model, "metric": metric},
                            **{"direction": direction, "client": list(range(len(names))), "task": names},
                            **{"value": [round(float(v), 6) for v in values], "n": n},
                        }
                    )
    return lines


def events(draw: np.random.Generator, clients: int, rounds: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"event": "start", "time": "2026-05-04T09:00:00Z"}]
    for number in range(1, rounds + 1):
        train, evaluate = (float(x) for x in draw.uniform([0.06, 0.02], [0.1, 0.03]))
        bad = [{"client": 4, "reason": "not finite: trunk.0.weight"}] if number % 4 == 2 else []
        found.append(
            {
                **{"event": "round", "round": number, "time": f"2026-05-04T09:00:{number % 60:02d}Z"},
                "seconds": {"train": train, "aggregate": 0.006, "evaluate": evaluate, "total": train + evaluate + 0.01},
                "bytes": {"up": 18_440 * clients // 2, "down": 18_440 * clients // 2},
                **{"sampled": clients // 2, "accepted": clients // 2 - len(bad), "rejected": bad, "train_loss": 0.4},
            }
        )
    return [*found, {"event": "end", "seconds": {"startup": 0.8, "total": 0.8 + 0.13 * rounds}}]


def make_summary(run: Path, split: dict[str, Any], name: str, rounds: int) -> dict[str, Any]:
    clients = len(split["clients"])
    return {
        **{"name": name, "algorithm": "ditto", "seed": 3, "rounds": rounds, "clients": clients},
        "checksum": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        **summarise(load_metrics(run), split["primary"]),
        "bytes": {"up": 18_440 * clients // 2 * rounds, "down": 18_440 * clients // 2 * rounds},
        "seconds": {"startup": 0.8, "total": 0.8 + 0.13 * rounds, "round_median": 0.118},
        "truth": {"subspace_sine": 0.031, "cluster_ari": 0.94},
    }
