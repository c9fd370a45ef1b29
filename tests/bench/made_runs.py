"""Run directories with scores that a test knows: what the engine writes, without training."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import tomli_w

from fedmtl.bench.pool import Work
from fedmtl.bench.runs import Run
from fedmtl.report.files import load_metrics
from fedmtl.report.metrics import summarise


class Nap(Work):
    """Something that takes as many seconds as its text says."""

    def finished(self, root: Path) -> bool:
        return False

    def clear(self, root: Path) -> None:
        """Nothing is left."""

    def work(self, place: Path) -> None:
        time.sleep(float(self.text))

    def said(self, root: Path) -> str:
        return "slept"


def write_run(root: Path, method: str, seed: int, scores, *, scenario: str = "made", rounds: int = 10, split: int = 40,
              direction: str = "max", local=None, **settings) -> Path:
    """A finished run whose clients score `scores` [clients] after the last round."""
    place = root / f"{scenario}-{method}-seed{seed}"
    place.mkdir(parents=True)
    clients = len(scores)
    table = {"name": scenario, "seed": seed, "rounds": rounds, "tasks": {"source": "digits", "clients": clients},
             "model": {"trunk": "mlp"}, "algorithm": {"name": method, **settings}}
    (place / "scenario.toml").write_text(tomli_w.dumps(table))
    metric = "accuracy" if direction == "max" else "mse"
    rows = [{"client": c, "task": "digits", "train": split, "val": 10, "test": 20, "metric": metric, "labels": [c]}
            for c in range(clients)]
    (place / "split.json").write_text(json.dumps({"clients": rows, "primary": metric, "classes": ["0"]}))
    line = {"round": rounds, "model": "personal", "metric": metric, "direction": direction, "client": list(range(clients)),
            "task": ["digits"] * clients, "value": [float(value) for value in scores], "n": [20] * clients}
    (place / "metrics.jsonl").write_text("".join(json.dumps({**line, "split": part}) + "\n" for part in ("val", "test")))
    said = {"name": scenario, "algorithm": method, "seed": seed, "rounds": rounds, "bytes": {"up": 10, "down": 20, "evaluate": 5},
            "work": {"steps": 7, "samples": 70, "forward": 140, "backward": 70}, "kept": {"parameters": 8, "bytes": 32},
            "seconds": {"total": 1.0}, "checksum": "0", **summarise(load_metrics(place), metric)}
    (place / "summary.json").write_text(json.dumps(said))
    return place


def made_run(method: str, seed: int, scores) -> Run:
    """The same without files, for tests of many."""
    spread = {"accuracy": {"mean": float(np.mean(scores)), "worst10": float(np.min(scores)), "direction": "max"}}
    said = {"name": "made", "algorithm": method, "seed": seed, "primary": "accuracy", "test": spread, "test_model": "personal",
            "test_round": 1, "test_models": {"personal": spread}, "bytes": {"up": 1, "down": 1}}
    run = Run(Path(f"made-{method}-seed{seed}"), "made", method, seed, said, {"algorithm": {"name": method}})
    clients = range(len(scores))
    run.__dict__["scores"] = pd.DataFrame({"task": "digits", "metric": "accuracy", "direction": "max", "value": scores, "n": 20},
                                          index=pd.Index(clients, name="client"))
    return run


def drawn(draw: np.random.Generator, skill, gain: float = 0.0):
    """Scores of a run: each client's skill, luck of its own, and luck that all clients of the run share with their model."""
    return skill + gain + draw.normal(0, 0.005) + draw.normal(0, 0.01, len(skill))
