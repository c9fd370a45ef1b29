"""From a scenario to a finished, reported run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.serverapp import Grid

from fedmtl.algorithms.steps import WORK
from fedmtl.client.store import MemoryStore
from fedmtl.errors import ScenarioError
from fedmtl.profiling import spans
from fedmtl.runs.budget import Purse, in_words
from fedmtl.runs.console import RoundLines
from fedmtl.runs.engine import Line, Listener, kept_of, run_rounds
from fedmtl.runs.newcomers import after_training, check_newcomers
from fedmtl.runs.results import RunDirectory, next_directory
from fedmtl.runs.tracking import check_trackers, tracked
from fedmtl.runs.truth import truth_scores
from fedmtl.runtime.choose import choose
from fedmtl.runtime.cohort import Host
from fedmtl.runtime.data import device_of, federation_of
from fedmtl.runtime.garbage import seldom_collected
from fedmtl.runtime.mixed import MixedHost, host_of
from fedmtl.runtime.tap import tapped
from fedmtl.scenario import Overrides, Scenario, load_scenario, override
from fedmtl.server.strategy import MethodStrategy
from fedmtl.tasks.task import PARTS, Federation, Mixed

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RunResult:
    """A finished run: its directory, and summary.json as a dict."""

    path: Path
    summary: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> RunResult:
        """The result of a run that has ended."""
        return cls(path, json.loads((path / "summary.json").read_text(encoding="utf-8")))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Every score of every client and round, as one long data frame."""
        from fedmtl.report.metrics import load_metrics

        return load_metrics(self.path)


def resolve(scenario: Scenario, federation: Federation | Mixed) -> Scenario:
    """The scenario with every "auto" of where and how it runs settled, so that it can be repeated."""
    check_newcomers(scenario, federation)
    for lever in (scenario.weighting, scenario.modulation, scenario.scheduler, scenario.pace):
        lever.check(federation.clients)
    kind, workers = choose(scenario, federation)
    if kind == "flower" and scenario.evaluation.keep_models:
        raise ScenarioError("evaluation.keep-models", "clients that are processes of their own keep their models to themselves")
    if kind == "ray" and find_spec("ray") is None:
        if scenario.runtime.kind == "ray":
            raise ScenarioError("runtime.kind", "ray is not installed here", allowed=["auto", "inline"])
        kind, workers = "inline", 1
    if kind == "ray" and scenario.runtime.gpus_per_worker > 0 and not torch.cuda.is_available():
        raise ScenarioError("runtime.gpus-per-worker", "no CUDA device is available to this build of torch", allowed=["0"])
    scope = scenario.evaluation.clients
    if scope == "auto":
        scope = "all" if federation.clients <= 1000 else "sampled"
    width = host_of(scenario, federation, MemoryStore()).width
    settled = {"kind": kind, "workers": workers, "device": device_of(scenario).type, "cohort": width}
    return scenario.model_copy(update={"runtime": scenario.runtime.model_copy(update=settled),
                                       "evaluation": scenario.evaluation.model_copy(update={"clients": scope})})


def run(scenario: str | Path | Scenario, overrides: Overrides = (), *,
        out: str | Path | None = None, quiet: bool = True, verbose: bool = False, report: bool = True,
        profile: bool = False, baseline: str = "", track: Sequence[str] = ()) -> RunResult:
    """Runs a scenario to its end and returns its result.

    scenario: a path, the name of a shipped scenario, or a Scenario. overrides: {"algorithm.name": "ditto", "rounds": 20}, or
    key=value words. out: the run directory; by default a new one under runs/. quiet: no progress lines. report:
    whether to write the page, which takes a second or two; `fedmtl report` writes it later. profile: whether to write into
    the journal where the time of each round goes. baseline: a method, usually "local", to run on the same clients in a directory
    of its own inside; the summary then says what was gained over it (delta_m, harmed); where it shares no trunk, it is spared
    what acts on one (`load_scenario`). track: where else to write scores while it
    runs, by name (`runs.tracking`).
    Raises ScenarioError (before anything starts), TooManyFailures, PrivacyError, DiskError.
    """
    begin, spans.on = time.perf_counter(), profile
    scenario = override(scenario, overrides) if isinstance(scenario, Scenario) else load_scenario(scenario, overrides)
    federation = federation_of(scenario)
    scenario = resolve(scenario, federation)
    other = override(scenario, {"algorithm.name": baseline}, spare=True) if baseline else None
    check_trackers(track)
    files = RunDirectory(Path(out) if out is not None else next_directory(Path("runs"), stem_of(scenario)))
    if other is not None:
        run(other, out=files.path / f"baseline-{baseline}", quiet=quiet, verbose=verbose, report=report, track=track)
        begin, spans.on = time.perf_counter(), profile
    with tracked(track, scenario, files.path) as trackers:
        result = _run(scenario, federation, files, begin, quiet=quiet, verbose=verbose, listeners=trackers)
    return compare_with(result, files.path / f"baseline-{baseline}" if baseline else None, report=report)


def _run(scenario: Scenario, federation: Federation | Mixed, files: RunDirectory, begin: float, *, quiet: bool, verbose: bool,
         listeners: Sequence[Listener]) -> RunResult:
    def over(grid: Grid) -> RunResult:
        return conduct(scenario, federation, grid, files, begin, quiet=quiet, report=False, listeners=listeners)

    with files:
        if scenario.runtime.kind == "flower":
            from fedmtl.runtime.flower import simulate

            return simulate(scenario, over, verbose=verbose)
        with one_thread(), closing(open_grid(scenario, federation, files.path / "private", verbose=verbose)) as grid:
            return over(grid)


def compare_with(result: RunResult, baseline: Path | None = None, *, report: bool = True) -> RunResult:
    """The result with delta_m, harmed and the gains of each task over another run, in its summary.json and on its page.

    baseline: that run; else a comparable Local run beside it, where there is one.
    """
    from fedmtl.report.files import load_split
    from fedmtl.report.gains import compared

    if report:
        from fedmtl.report.html import write_report

        write_report(result.path, baseline=baseline)
        return RunResult.read(result.path)
    against, _ = compared(result.path, load_split(result.path), baseline)
    if against:
        against.keep(result.path)
    return RunResult.read(result.path)


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: small matrices lose by more, and sums do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def stem_of(scenario: Scenario) -> str:
    """What a run is called where nobody names it."""
    return f"{scenario.name}-{scenario.algorithm.name}-seed{scenario.seed}".replace("/", "-").replace(":", "-")


def open_grid(scenario: Scenario, federation: Federation | Mixed, private: Path, *, verbose: bool = False) -> Any:
    """The grid of a resolved scenario that runs inline or on Ray; there, private state is kept in `private` while it runs.

    Models that are to be kept lie in `models` beside it.
    """
    if scenario.runtime.kind == "ray":
        from fedmtl.runtime.ray_grid import RayGrid

        return RayGrid(scenario, federation, private, verbose=verbose)
    from fedmtl.runtime.inline import InlineGrid

    return InlineGrid(scenario, federation, private.parent / "models")


def strategy_of(plan: Host | MixedHost, federation: Federation | Mixed) -> MethodStrategy:
    """The server's side of a scenario, from its initial model."""
    model = {name: leaf.cpu() for name, leaf in plan.model.items()}
    return MethodStrategy(plan.scenario, model, plan.wire, plan.metrics, plan.names, federation.clients, plan.on_public)


def conduct(scenario: Scenario, federation: Federation | Mixed, grid: Grid, files: RunDirectory, begin: float, *,
            quiet: bool, report: bool = True, listeners: Sequence[Listener] = ()) -> RunResult:
    """Runs every round of a resolved scenario over any Grid, and writes the run directory and its report.

    begin: time.perf_counter() at which the run's clock started. listeners: who else is told of each round.
    """
    grid, plan = tapped(grid), host_of(scenario, federation, MemoryStore())
    strategy, purse = strategy_of(plan, federation), Purse(scenario.budget)
    primary = plan.primary
    files.begin(scenario, federation, primary, plan.decides)
    files.asked = plan.partial
    spent: list[Line] = []
    title = (f"{scenario.name}: {scenario.algorithm.name}, {federation.clients} clients, {scenario.rounds} rounds, "
             f"{scenario.runtime.kind} x {scenario.runtime.workers}, cohorts of {scenario.runtime.cohort}"
             + (f", at most {in_words(purse.limits)}" if purse.limits else ""))
    with RoundLines(title, scenario.rounds, quiet=quiet) as console:
        strategy.join(grid).check({part: federation.sizes(part) for part in PARTS})
        started = time.perf_counter() - begin

        def listen(line: Line) -> None:
            spent.append(line)
            console(line)
            for listener in listeners:
                listener(line)

        with seldom_collected():
            state = run_rounds(scenario, grid, strategy, plan.metrics, plan.primary, files, listen, purse)
    with one_thread():
        newcomers = after_training(scenario, federation, state, plan.decides, files)
    seconds = {"startup": started, "total": time.perf_counter() - begin,
               "round_median": float(np.median([line.seconds for line in spent]))}
    files.journal("end", seconds=seconds)
    method = strategy.method
    shared = method.sends_to(state, range(federation.clients)) if method.addressed else method.sends(state)
    truth, figures = truth_scores(plan, state), method.figures(state)
    summary = files.finish(scenario, shared, primary, {
        "clients": federation.clients, "task_names": sorted(set(federation.tasks)),
        "bytes": {way: sum(getattr(line, f"bytes_{way}") for line in spent) for way in ("up", "down", "evaluate")},
        "work": {unit: sum(line.ledger[unit] for line in spent) for unit in WORK}, "kept": kept_of(spent), **purse.said(),
        "seconds": seconds, **({"truth": truth} if truth else {}), **({"method": figures} if figures else {}), **newcomers})
    if report:
        from fedmtl.report.html import write_report

        write_report(files.path)
    return RunResult(files.path, summary)
