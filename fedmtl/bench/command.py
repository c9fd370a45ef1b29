"""A benchmark from beginning to end: planned, tuned, run, told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fedmtl.bench.board import Tables
from fedmtl.bench.live import LiveTable
from fedmtl.bench.page import write_page
from fedmtl.bench.plan import ADDRESS, choices, cluster_of, plan, plan_tuning
from fedmtl.bench.pool import Crew, Processes, Work, locked, run_jobs
from fedmtl.bench.tables import write_board
from fedmtl.bench.tuning import replace_text
from fedmtl.errors import ScenarioError
from fedmtl.runs.tracking import check_trackers

PLAN = "bench.json"
"""In a benchmark's directory: what it is going to run, for who watches it."""


@dataclass(frozen=True)
class Benchmark:
    """What is asked for; see `bench.plan.plan`. trials: of each method before its runs; 0 for no tuning.

    runtime.address, by a word or in the scenarios, is the benchmark's own: its runs are then tasks of that Ray cluster
    (`runtime.ray_tasks`), and say of themselves what they say without it.
    """

    scenarios: Sequence[str]
    methods: Sequence[str]
    seeds: int
    words: Sequence[str] = ()
    trials: int = 0
    track: tuple[str, ...] = ()

    def run(self, root: Path, workers: int) -> tuple[dict[str, str], Tables, list[Path]]:
        """(why each failed run failed, by its name; what the runs say; the files that say it).

        What `root` holds already is not run again. workers: runs side by side, 0 for one a core.
        Raises ScenarioError before anything starts, DiskError, FedmtlError where every run failed.
        """
        check_trackers(self.track)
        if self.trials and find_spec("optuna") is None:
            raise ScenarioError("--tune", "optuna is not installed here: pip install 'fedmtl[tune]'")
        tunings = plan_tuning(self.scenarios, self.methods, self.trials, self.words) if self.trials else []
        jobs = plan(self.scenarios, self.methods, self.seeds, self.words, track=self.track)
        with locked(root), _crew(cluster_of(self.scenarios, self.words), root) as crew:
            failed = _together(tunings, jobs, root, workers, crew) if tunings else {}
            if tunings:
                jobs = plan(self.scenarios, self.methods, self.seeds, self.words, chosen=choices(root, tunings), track=self.track)
            failed |= _together(jobs, [], root, workers, crew)
            said = Tables.read(root)
            return failed, said, [*write_board(root, said), write_page(root, said)]


@contextmanager
def _crew(address: str, root: Path) -> Iterator[Crew]:
    """Raises ScenarioError where Ray is not installed, FedmtlError where no cluster answers at the address."""
    if not address:
        yield Processes()
        return
    if find_spec("ray") is None:
        raise ScenarioError(ADDRESS, "ray is not installed here")
    from fedmtl.runtime.ray_tasks import Tasks

    with closing(Tasks(address, root)) as tasks:
        yield tasks


def _together(jobs: Sequence[Work], later: Sequence[Work], root: Path, workers: int, crew: Crew) -> dict[str, str]:
    """Does `jobs`; `later`: what comes after them."""
    entries = [{"name": job.name, "scenario": job.scenario, "method": job.method, "seed": job.seed} for job in (*jobs, *later)]
    replace_text(root / PLAN, json.dumps(entries, indent=1))
    with LiveTable(jobs, root) as live:
        return run_jobs(jobs, root, workers, live, crew)
