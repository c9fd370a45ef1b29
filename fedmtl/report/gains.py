"""What a method gains over another run on the same clients, usually Local: per client, per task, and who is harmed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedmtl.errors import FedmtlError
from fedmtl.report.files import load_metrics, load_scenario, load_split
from fedmtl.report.metrics import headline_model, last_round, scores

LEVEL = 0.95


def gains(run: Path, baseline: Path) -> pd.DataFrame:
    """One row a client: task, metric (the one that decides for its kind of task), value, baseline, gain after the last round.

    gain is relative and positive where the run is better: (value - baseline) / |baseline| in the metric's direction, the term of
    Delta-m (Maninis, Radosavovic, Kokkinos. Attentive Single-Tasking of Multiple Tasks. CVPR 2019, equation 3).
    Raises FedmtlError where the two runs do not have the same clients, data and seed.
    """
    split, other = load_split(run), load_split(baseline)
    if split["clients"] != other["clients"] or load_scenario(run)["seed"] != load_scenario(baseline)["seed"]:
        raise FedmtlError(f"{run} and {baseline} cannot be compared: they differ in clients, data or seed")
    decides = pd.Series({client["client"]: client["metric"] for client in split["clients"]})
    both = []
    for place in (run, baseline):
        frame = load_metrics(place)
        last = scores(frame, split="test", model=headline_model(frame))
        last = last[last["round"] == last_round(frame)]
        last = last[last["metric"].astype(str) == last["client"].map(decides)]
        both.append(last.set_index("client")[["task", "metric", "direction", "value"]])
    joined = both[0].join(both[1]["value"].rename("baseline"), how="inner")
    sign = np.where(joined["direction"] == "max", 1.0, -1.0)
    joined["gain"] = sign * (joined["value"] - joined["baseline"]) / joined["baseline"].abs().clip(lower=1e-12)
    return joined.reset_index()


def interval(values: np.ndarray) -> list[float] | None:
    """The mean's interval at 95 % over clients (Student's t), or None for fewer than two."""
    from scipy import stats

    if len(values) < 2:
        return None
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return [float(np.mean(values)) - half, float(np.mean(values)) + half]


def share_interval(count: int, total: int) -> list[float]:
    """Wilson's 95 % interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(count, total).proportion_ci(LEVEL, method="wilson")
    return [float(found.low), float(found.high)]


def gain_summary(frame: pd.DataFrame) -> dict[str, Any]:
    """delta_m, the mean over tasks of their clients' mean gain; harmed, the share of clients that lose; both with intervals.

    Accuracies and errors are never averaged: only relative gains are.
    """
    tasks = {str(task): {"gain": float(rows["gain"].mean()), "interval": interval(rows["gain"].to_numpy()),
                         "metric": str(rows["metric"].iloc[0]), "clients": len(rows)}
             for task, rows in frame.groupby(frame["task"].astype(str))}
    harmed = int((frame["gain"] < 0).sum())
    return {"delta_m": float(np.mean([task["gain"] for task in tasks.values()])), "harmed": harmed / len(frame),
            "gains": {"clients": interval(frame["gain"].to_numpy()), "harmed": share_interval(harmed, len(frame)), "tasks": tasks}}
