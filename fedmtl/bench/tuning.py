"""What tuning leaves in a benchmark's directory: tuning/SCENARIO-METHOD/ with scenario.toml, trials.jsonl and chosen.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedmtl.bench.pool import Work
from fedmtl.errors import DiskError
from fedmtl.report.files import lines, load_scenario

FOLDER = "tuning"
COLUMNS = ["scenario", "algorithm", "trial", "score", "failed", "values", "chosen"]


@dataclass(frozen=True)
class Tuning(Work):
    """The trials of one method in one scenario, of the benchmark's first seed, all in one process. trials: how many."""

    trials: int

    def finished(self, root: Path) -> bool:
        """Whether `root` holds the end of exactly these trials. Raises DiskError where it holds trials of another scenario."""
        place = root / self.name
        if (place / "scenario.toml").exists() and (place / "scenario.toml").read_text(encoding="utf-8") != self.text:
            raise DiskError(f"{place} holds trials of other settings; choose another --out, or remove it first")
        return (chosen := chosen_of(place)) is not None and chosen["trials"] == self.trials

    def clear(self, root: Path) -> None:
        """Leaves the trials that were made: they are not made again."""
        for name in ("chosen.json", "failed.txt"):
            (root / self.name / name).unlink(missing_ok=True)

    def work(self, place: Path) -> None:
        """Makes the trials that are missing, and writes which was best. See `trials.tune` for the errors."""
        from fedmtl.bench.trials import tune
        from fedmtl.scenario import from_toml

        place.mkdir(parents=True, exist_ok=True)
        replace_text(place / "scenario.toml", self.text)
        made, best = tune(from_toml(self.text, self.folder), self.trials, place / "trials.jsonl")
        replace_text(place / "chosen.json", json.dumps({"trials": self.trials, **made[best]}))

    def said(self, root: Path) -> str:
        """What came of it, in short."""
        return in_words((chosen_of(root / self.name) or {})["values"])


def replace_text(path: Path, text: str) -> None:
    """Writes a file whole: a reader never sees half of it."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def chosen_of(place: Path) -> dict[str, Any] | None:
    """The trial that was chosen there, and of how many; None where tuning has come to no end."""
    path = place / "chosen.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def in_words(values: Mapping[str, Any]) -> str:
    """Values as key=value words; a method's own fields without their section."""
    return " ".join(f"{key.removeprefix('algorithm.')}={json.dumps(value) if isinstance(value, bool) else value}"
                    for key, value in values.items())


def place_of(scenario: str, method: str) -> str:
    """Where the trials of a method lie in a benchmark's directory."""
    return f"{FOLDER}/" + f"{scenario}-{method}".replace("/", "-").replace(":", "-")


def tuned_values(run: Path, scenario: str, method: str) -> dict[str, Any]:
    """What the leaderboard says of a run's tuning: how many trials, and the values that they chose."""
    chosen = chosen_of(run.parent / place_of(scenario, method))
    return {"trials": None, "tuned": ""} if chosen is None else {"trials": chosen["trials"], "tuned": in_words(chosen["values"])}


def trials(root: Path | str) -> pd.DataFrame:
    """Every trial of a benchmark, one row each; score: on validation rows, of several kinds of tasks the mean of each."""
    rows = []
    for path in sorted(Path(root).glob(f"{FOLDER}/*/trials.jsonl")):
        asks, best = load_scenario(path.parent), chosen_of(path.parent) or {}
        for _, one in lines(path):
            said = " ".join(f"{score:.6g}" for score in one["scores"] or [])
            rows.append([asks["name"], asks["algorithm"]["name"], one["trial"], said, one["failed"], in_words(one["values"]),
                         one["trial"] == best.get("trial")])
    return pd.DataFrame(rows, columns=COLUMNS)
