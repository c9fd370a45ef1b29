"""What a benchmark runs: scenarios x methods x seeds, each checked and resolved before the first one starts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmtl.bench.pool import Work
from fedmtl.bench.runs import BASELINE
from fedmtl.bench.tuning import Tuning, chosen_of, place_of
from fedmtl.errors import DiskError, FedmtlError, ScenarioError
from fedmtl.report.files import load_summary
from fedmtl.report.words import score
from fedmtl.runs.runner import resolve, run, stem_of
from fedmtl.runtime.data import federation_of
from fedmtl.scenario import Scenario, from_toml, load_scenario, override, parse_override
from fedmtl.tasks.task import Federation, Mixed

ADDRESS = "runtime.address"

@dataclass(frozen=True)
class Job(Work):
    """One run. track: see `runs.tracking`."""

    track: tuple[str, ...] = ()

    def finished(self, root: Path) -> bool:
        """Whether `root` holds the end of exactly this run.

        Raises DiskError where a finished run of other settings, or something that is no run, stands in its place.
        """
        place = root / self.name
        if not place.exists():
            return False
        if _ended(place):
            if (place / "scenario.toml").read_text(encoding="utf-8") == self.text:
                return True
            raise DiskError(f"{place} holds a run of other settings; choose another --out, or remove it first")
        if not place.is_dir() or (any(place.iterdir()) and not any((place / n).exists() for n in ("journal.jsonl", "failed.txt"))):
            raise DiskError(f"{place} is in the way and is no run; choose another --out, or remove it first")
        return False

    def clear(self, root: Path) -> None:
        """Removes what an unfinished run left."""
        if (root / self.name).exists():
            shutil.rmtree(root / self.name)

    def work(self, place: Path) -> None:
        """The run, into `place`. See `runs.runner.run` for the errors."""
        run(from_toml(self.text, self.folder), out=place, report=False, track=self.track)

    def said(self, root: Path) -> str:
        """What came of it, in short."""
        summary = load_summary(root / self.name)
        return score(summary["primary"], summary["test"][summary["primary"]]["mean"])


def _ended(place: Path) -> bool:
    """A kill can leave half a summary: only one that can be read ends a run."""
    try:
        return "checksum" in load_summary(place) and (place / "scenario.toml").exists()
    except DiskError:
        raise
    except FedmtlError:
        return False


Chosen = Mapping[tuple[str, str], Mapping[str, Any]]
"""By scenario and method: dotted keys and the values that tuning chose."""


def plan(scenarios: Sequence[str], methods: Sequence[str], seeds: int, words: Sequence[str] = (), *, chosen: Chosen | None = None,
         track: Sequence[str] = ()) -> list[Job]:
    """Every run of a benchmark, Local's first; seeds count up from each scenario's own.

    words: key=value for all runs; `METHOD.key=value` is a field of one method. chosen: what tuning found; methods that it says
    nothing of are left out. track: see `runs.tracking`. All runs are of one process each, and methods that share no trunk are
    spared what acts on one (`load_scenario`).
    Raises ScenarioError for what is unknown, given twice or cannot run.
    """
    if seeds < 1:
        raise ScenarioError("--seeds", f"at least 1 (got {seeds})")
    jobs: list[Job] = []
    data = Data()
    for scenario in _scenarios(scenarios, methods, words):
        settings = {} if chosen is None else chosen.get((scenario.name, scenario.algorithm.name))
        if settings is not None:
            first = override(scenario, settings)
            each = [data.settled(override(first, {"seed": first.seed + i})) for i in range(seeds)]
            jobs += [Job.of(stem_of(one), one, tuple(track)) for one in each]
    _once("scenario", [job.name for job in jobs])
    return jobs


def plan_tuning(scenarios: Sequence[str], methods: Sequence[str], trials: int, words: Sequence[str] = ()) -> list[Tuning]:
    """The tuning of every scenario and method, `trials` for each, before the runs that `plan` makes of what they choose."""
    data = Data()
    made = [data.settled(scenario) for scenario in _scenarios(scenarios, methods, words)]
    jobs = [Tuning.of(place_of(one.name, one.algorithm.name), one, trials) for one in made]
    _once("scenario", [job.name for job in jobs])
    return jobs


def choices(root: Path, tunings: Sequence[Tuning]) -> Chosen:
    """What tuning chose, where it came to an end."""
    found = {(job.scenario, job.method): chosen_of(root / job.name) for job in tunings}
    return {key: said["values"] for key, said in found.items() if said is not None}


def cluster_of(names: Sequence[str], words: Sequence[str] = ()) -> str:
    """The address of the Ray cluster that a benchmark runs on: what a word says of all scenarios, else they themselves; or "".

    Raises ScenarioError where they name several.
    """
    common = [word for word in words if parse_override(word)[0][0] in Scenario.model_fields]
    local = [*common, f"algorithm.name={BASELINE}"]  # which runs in any case; a file's own method may not go with the words
    found = sorted({load_scenario(name, local, spare=True).runtime.address for name in names})
    if len(found) > 1:
        said = ", ".join(address or "none" for address in found)
        raise ScenarioError(ADDRESS, f"a benchmark runs on one cluster, but its scenarios name several ({said}); say which one")
    return found[0]


def _scenarios(names: Sequence[str], methods: Sequence[str], words: Sequence[str]) -> Iterator[Scenario]:
    """Every scenario with every method, Local first."""
    _once("scenario", names)
    _once("--algorithms", methods)
    wanted = [BASELINE, *(method for method in methods if method != BASELINE)]
    own = {method: [f"algorithm.{w.removeprefix(f'{method}.')}" for w in words if w.startswith(f"{method}.")] for method in wanted}
    common = [word for word in words if not word.startswith(tuple(f"{method}." for method in wanted))]
    for word in common:
        key = word.partition("=")[0].strip()
        if key.split(".")[0] == "algorithm":
            raise ScenarioError(key, "a benchmark has several methods: write METHOD.key=value, for example fedprox.mu=0.1",
                                allowed=wanted)
        if key in ("runtime.kind", "runtime.workers"):
            raise ScenarioError(key, "a benchmark runs one process a run, as many side by side as --workers says")
    for name in names:
        for method in wanted:
            alone = ["runtime.kind=inline", f'{ADDRESS}=""']
            yield load_scenario(name, [*common, f"algorithm.name={method}", *own[method], *alone], spare=True)


class Data:
    """The clients' data, made once for all methods."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, int, Path | None], Federation | Mixed] = {}

    def settled(self, scenario: Scenario) -> Scenario:
        """See `runs.runner.resolve`."""
        key = scenario.tasks.model_dump_json(), scenario.seed, scenario.folder
        if key not in self.made:
            self.made[key] = federation_of(scenario)
        return resolve(scenario, self.made[key])


def _once(key: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if not names or twice:
        raise ScenarioError(key, f"given twice: {', '.join(twice)}" if twice else "none is given")
