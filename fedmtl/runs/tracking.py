"""Where else a run's scores go while it runs: TensorBoard, MLflow, Weights & Biases. The run directory stays the source of all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fedmtl.algorithms.steps import WORK
from fedmtl.errors import ScenarioError
from fedmtl.report.baseline import flat
from fedmtl.runs.engine import Line
from fedmtl.scenario import Scenario


class Tracker(ABC):
    """One run in a tool. Called with the line of each round."""

    needs: str
    """The package that must be installed."""

    @abstractmethod
    def __init__(self, title: str, settings: Mapping[str, Any], place: Path) -> None:
        """Begins a run. settings: the resolved scenario by dotted keys; place: the run directory."""

    def __call__(self, line: Line) -> None:
        """One round is over."""
        self.log(line.round, {**line.means, "train/loss": line.loss, "clients/accepted": line.sampled - line.failed,
                              "clients/failed": line.failed, "bytes/up": line.bytes_up, "bytes/down": line.bytes_down,
                              **{f"work/{unit}": line.ledger[unit] for unit in WORK}, "seconds/round": line.seconds})

    @abstractmethod
    def log(self, round: int, values: Mapping[str, float]) -> None:
        """Numbers of a round, by name."""

    @abstractmethod
    def close(self, *, failed: bool) -> None:
        """The run has ended."""


class TensorBoard(Tracker):
    """Event files in the run directory, under tensorboard/: `tensorboard --logdir runs` shows every run."""

    needs = "tensorboard"

    def __init__(self, title: str, settings: Mapping[str, Any], place: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer: Any = SummaryWriter(str(place / "tensorboard"))
        rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
        self.writer.add_text("scenario", f"| {title} | |\n|---|---|\n{rows}")

    def log(self, round: int, values: Mapping[str, float]) -> None:
        """One point a number."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, round)
        self.writer.flush()

    def close(self, *, failed: bool) -> None:
        """Closes the files."""
        self.writer.close()


class Mlflow(Tracker):
    """A run in the experiment "fedmtl" of MLflow's tracking store: MLFLOW_TRACKING_URI says where that is."""

    needs = "mlflow"

    def __init__(self, title: str, settings: Mapping[str, Any], place: Path) -> None:
        from mlflow import MlflowClient

        self.client: Any = MlflowClient()
        found = self.client.get_experiment_by_name("fedmtl")
        experiment = found.experiment_id if found else self.client.create_experiment("fedmtl")
        self.run = self.client.create_run(experiment, run_name=title).info.run_id
        for key, value in settings.items():
            self.client.log_param(self.run, key, str(value)[:500])

    def log(self, round: int, values: Mapping[str, float]) -> None:
        """One point a number."""
        for name, value in values.items():
            self.client.log_metric(self.run, name, value, step=round)

    def close(self, *, failed: bool) -> None:
        """Says how it ended."""
        self.client.set_terminated(self.run, "FAILED" if failed else "FINISHED")


class Wandb(Tracker):
    """A run in the project "fedmtl" of Weights & Biases; WANDB_MODE=offline keeps it in the run directory."""

    needs = "wandb"

    def __init__(self, title: str, settings: Mapping[str, Any], place: Path) -> None:
        import wandb

        self.run: Any = wandb.init(project="fedmtl", name=title, config=dict(settings), dir=str(place), reinit="create_new")

    def log(self, round: int, values: Mapping[str, float]) -> None:
        """One point a number."""
        self.run.log(dict(values), step=round)

    def close(self, *, failed: bool) -> None:
        """Says how it ended."""
        self.run.finish(exit_code=int(failed))


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": Mlflow, "wandb": Wandb}


def check_trackers(names: Sequence[str]) -> None:
    """Raises ScenarioError where a tool is unknown or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ScenarioError("--track", f"unknown tool '{name}'", allowed=TRACKERS, got=name)
        if find_spec(TRACKERS[name].needs) is None:
            raise ScenarioError("--track", f"{name} is not installed here: pip install 'fedmtl[{name}]'")


@contextmanager
def tracked(names: Sequence[str], scenario: Scenario, place: Path) -> Iterator[list[Tracker]]:
    """A tracker for each name, told at the end whether the run failed."""
    title = f"{scenario.name} {scenario.algorithm.name} seed {scenario.seed}"
    trackers, failed = [TRACKERS[name](title, flat(scenario.resolved()), place) for name in names], True
    try:
        yield trackers
        failed = False
    finally:
        for tracker in trackers:
            tracker.close(failed=failed)
