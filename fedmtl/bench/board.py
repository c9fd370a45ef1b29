"""The leaderboard: what many runs say together. A client's score is the deciding test metric's after the last round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedmtl.bench.runs import Run, baselines, failures, metrics, read_runs
from fedmtl.bench.statistics import LEVEL, agrees, critical_difference, friedman, holm, mean_ranks, signed_rank
from fedmtl.bench.tuning import tuned_values
from fedmtl.mtl.fitting import OF_THE_TRUNK
from fedmtl.report.gains import interval
from fedmtl.report.words import is_share
from fedmtl.runs.budget import in_words

__all__ = ["failures", "leaderboard", "metrics", "pairs", "ranks"]

_WORK = ("steps", "samples", "forward", "backward")
_TEXT = ("scenario", "algorithm", "metric", "direction", "budget", "ended", "tuned", "without", "command")
COLUMNS = ["scenario", "algorithm", "metric", "direction", "seeds", "mean", "low", "high", "worst10", "before", "shared", "round",
           "chosen", "chosen_round", "difference", "difference_low", "difference_high", "p", "p_holm", "agreed", "significant",
           "rank", "delta_m", "harmed", "bytes", *_WORK, "kept", "kept_bytes", "budget", "ended", "trials", "tuned", "without",
           "command"]
PAIRS = ["scenario", "a", "b", "clients", "seeds", "difference", "low", "high", "p", "p_holm", "agreed", "significant"]
RANKS = ["scenario", "algorithm", "rank", "rows", "critical", "friedman"]
ALL = "all scenarios"


@dataclass(frozen=True)
class Tables:
    """What runs say together. board, pairs, ranks: see `board`, `paired` and `ranked`."""

    runs: Sequence[Run]

    @classmethod
    def read(cls, root: Path | str) -> Tables:
        """Of a benchmark's directory. Raises FedmtlError where no run in it has ended."""
        return cls(read_runs(root))

    @cached_property
    def board(self) -> pd.DataFrame:
        """The leaderboard."""
        return board(self.runs)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Every method against every other."""
        return paired(self.runs)

    @cached_property
    def ranks(self) -> pd.DataFrame:
        """Mean ranks."""
        return ranked(self.runs)


def leaderboard(root: Path | str) -> pd.DataFrame:
    """The leaderboard of a benchmark's directory; see `board`."""
    return board(read_runs(root))


def pairs(root: Path | str) -> pd.DataFrame:
    """Every method of a benchmark against every other; see `paired`."""
    return paired(read_runs(root))


def ranks(root: Path | str) -> pd.DataFrame:
    """The ranks of a benchmark's methods; see `ranked`."""
    return ranked(read_runs(root))


def board(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a scenario and method, the best mean first; every figure the mean over seeds unless it says otherwise.

    scenario, algorithm, metric, direction, seeds (how many ended), mean with low and high (95 % over seeds, Student's t; of shares
    within 0 and 1), worst10, round;
    before (without the training that a method does only before use) and shared (the global model), where there are such;
    chosen and chosen_round (by validation); difference with difference_low and difference_high over Local (of the clients' means
    over seeds, positive is better, 95 % over clients; the relative gain where clients have unlike metrics), p (Wilcoxon over
    clients) and p_holm (over the methods of the scenario), agreed (`statistics.agrees`), significant at 5 % (both, or p_holm where
    there is one seed), rank (over clients), delta_m, harmed, what was spent: bytes (up and down), steps, samples, rows forward and
    backward through a model; kept (numbers in a client's private state) and kept_bytes; budget, ended: by what; trials and the
    values that they chose; without: what other methods have and this one, which shares no trunk, was spared
    (`mtl.fitting.OF_THE_TRUNK`); command (re-runs the row in the benchmark directory). Local has no difference.
    """
    base, rows = baselines(runs), []
    for scenario, each in _by_scenario(runs):
        worth = _worth(each, base)
        ranked_here = dict(mean_ranks(_means(worth)))
        made = [{"scenario": scenario, **_row(mine, base, worth), "rank": ranked_here.get(method), "without": _without(mine, each)}
                for method, mine in _by_method(each)]
        _adjust([row for row in made if row["p"] is not None])
        sign = -1 if made[0]["direction"] == "max" else 1
        rows += sorted(made, key=lambda row: (row["mean"] is None, sign * (row["mean"] or 0), row["algorithm"]))
    numbers = [name for name in COLUMNS if name not in (*_TEXT, "seeds", "agreed", "significant")]
    return pd.DataFrame(rows, columns=COLUMNS).astype({**dict.fromkeys(numbers, "float64"), "seeds": "int64", "agreed": "boolean",
                                                       "significant": "boolean"})


def paired(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a scenario and pair of methods: how much a is above b over clients, paired, and whether that is sure.

    scenario, a, b, clients, seeds (that both ended), difference with low and high (of the clients' means over these seeds, 95 %
    over clients), p (Wilcoxon), p_holm (over all pairs of the scenario), agreed and significant as in `board`.
    """
    base, rows = baselines(runs), []
    for scenario, each in _by_scenario(runs):
        worth = _worth(each, base)
        names = [name for name, _ in _by_method(each)]
        made = [{"scenario": scenario, "a": a, "b": b, **_apart(worth, a, b)} for i, a in enumerate(names) for b in names[i + 1 :]]
        made = [row for row in made if row["clients"]]
        _adjust(made)
        rows += made
    return pd.DataFrame(rows, columns=PAIRS).astype({"agreed": "boolean", "significant": "boolean"})


def ranked(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a scenario and method: its mean rank, over how many rows, how far two must be apart to differ, and Friedman's p.

    A scenario's rows are its clients (their means over the seeds that every method ended). With several scenarios that have the
    same methods, "all scenarios" ranks their means over clients, as Demsar's test over data sets does.
    """
    base, rows, means = baselines(runs), [], {}
    for scenario, each in _by_scenario(runs):
        table = _means(_worth(each, base))
        means[scenario] = table.dropna().mean()
        rows += _ranking(scenario, table)
    if len(means) > 1:
        rows += _ranking(ALL, pd.DataFrame(means).T)
    return pd.DataFrame(rows, columns=RANKS)


def _ranking(name: str, table: pd.DataFrame) -> list[dict[str, Any]]:
    count = len(table.dropna())
    shared = {"rows": count, "critical": critical_difference(table.shape[1], count), "friedman": friedman(table)}
    return [{"scenario": name, "algorithm": method, "rank": float(rank), **shared}
            for method, rank in mean_ranks(table).sort_values(kind="stable").items()]


def _by_scenario(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    return [(name, [run for run in runs if run.scenario == name]) for name in sorted({run.scenario for run in runs})]


def _by_method(runs: Sequence[Run]) -> list[tuple[str, list[Run]]]:
    names = sorted({run.method for run in runs})
    return [(name, sorted((run for run in runs if run.method == name), key=lambda run: run.seed)) for name in names]


Worth = dict[str, dict[int, "pd.Series[float]"]]
"""By method and seed: how good each client's model is (`Run.worth`)."""


def _worth(runs: Sequence[Run], base: dict[tuple[str, int], Run]) -> Worth:
    return {method: {run.seed: run.worth(base.get((run.scenario, run.seed))) for run in mine} for method, mine in _by_method(runs)}


def _means(worth: Worth) -> pd.DataFrame:
    """[clients, methods] the means over the seeds that every method ended."""
    common = set.intersection(*(set(by_seed) for by_seed in worth.values()))
    return pd.DataFrame({method: _over_seeds([by_seed[seed] for seed in sorted(common)]) for method, by_seed in worth.items()})


def _over_seeds(each: Sequence[pd.Series[float]]) -> pd.Series[float]:
    """One number a client: seeds are no further clients."""
    return pd.concat(each).groupby(level=0).mean() if each else pd.Series(dtype=float)


def _apart(worth: Worth, a: str, b: str) -> dict[str, Any]:
    """How far `a` is above `b`, over the seeds that both ended."""
    both = sorted(set(worth[a]) & set(worth[b]))
    apart = [(worth[a][seed] - worth[b][seed]).dropna() for seed in both]
    clients = _over_seeds(apart).to_numpy()
    if not len(clients):
        return {"clients": 0, "seeds": len(both), "p": None}
    low, high = interval(clients) or (None, None)
    return {"clients": len(clients), "seeds": len(both), "difference": float(clients.mean()), "low": low, "high": high,
            "p": signed_rank(clients), "agreed": agrees([float(one.mean()) for one in apart])}


def _adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Holm's adjustment over rows that are asked about together, and the verdict."""
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": float(adjusted), "significant": bool(adjusted < LEVEL and row["agreed"] is not False)}


def _row(runs: Sequence[Run], base: dict[tuple[str, int], Run], worth: Worth) -> dict[str, Any]:
    each = pd.DataFrame([{**_figures(run), **run.over(base.get((run.scenario, run.seed)))} for run in runs])
    first, means = runs[0], each["mean"].dropna().to_numpy(float)
    low, high = interval(means) or (None, None)
    if low is not None and high is not None and is_share(first.said["primary"]):
        low, high = max(low, 0.0), min(high, 1.0)
    ends = sorted({str(run.said.get("ended", "rounds")) for run in runs})
    row: dict[str, Any] = {"algorithm": first.method, "metric": first.said["primary"], "direction": first.direction,
                           "seeds": len(runs), "low": low, "high": high, "p": None, "ended": " or ".join(ends),
                           "budget": in_words({unit: one["limit"] for unit, one in first.said.get("budget", {}).items()}),
                           **tuned_values(first.place, first.said["name"], first.said["algorithm"]), "command": _command(runs)}
    for key in each:
        values = each[key].dropna().to_numpy(float)
        row[str(key)] = float(values.mean()) if len(values) else None
    local = base.get((first.scenario, first.seed))
    if local is not None and local.method != first.method:
        apart = _apart(worth, first.method, local.method)
        if apart["clients"]:
            row |= {name if name in ("difference", "p", "agreed") else f"difference_{name}": apart[name]
                    for name in ("difference", "low", "high", "p", "agreed")}
    return row


def _figures(run: Run) -> dict[str, float | None]:
    """What one run adds to the means of its row."""
    said = run.said
    primary, models, chosen = said["primary"], said["test_models"], said.get("test_at_best_val")
    work, kept = said.get("work", {}), said.get("kept", {})
    return {"mean": said["test"][primary]["mean"], "worst10": said["test"][primary]["worst10"], "round": said["test_round"],
            "before": models["personal"][primary]["mean"] if said["test_model"] == "adapted" else None,
            "shared": models["global"][primary]["mean"] if "global" in models else None,
            "chosen": chosen[primary]["mean"] if chosen else None, "chosen_round": chosen["round"] if chosen else None,
            "bytes": said["bytes"]["up"] + said["bytes"]["down"], **{unit: work.get(unit) for unit in _WORK},
            "kept": kept.get("parameters"), "kept_bytes": kept.get("bytes")}


def _without(mine: Sequence[Run], each: Sequence[Run]) -> str:
    """What acts on a trunk that is shared, in other runs of the scenario and in none of a row's."""
    def on(runs: Sequence[Run], key: str, off: int | str) -> bool:
        section, name = key.split(".")
        return any(run.asks.get(section, {}).get(name, off) != off for run in runs)

    return ", ".join(key.split(".")[1] for key, off in OF_THE_TRUNK.items() if on(each, key, off) and not on(mine, key, off))


def _command(runs: Sequence[Run]) -> str:
    return " && ".join(f"fedmtl run {run.place.name}/scenario.toml" for run in runs)


def verdict(row: Any) -> str:
    """p after Holm with a star where the difference is significant, as people read it."""
    return f"{row.p_holm:.2g}" + (" *" if row.significant else "") if np.isfinite(row.p_holm) else ""
