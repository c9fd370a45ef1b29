"""Work as tasks of a Ray cluster: a CPU each, spread over its nodes, done again where a node dies."""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from fedmtl.bench.pool import Crew, Work
from fedmtl.errors import DiskError
from fedmtl.registry import said_by
from fedmtl.runtime.ray_grid import connect
from fedmtl.scenario.sections import RuntimeSection

SIGN = ".cluster"
"""In the directory: by what it holds a node knows that it sees this directory, and not one of its own of that name."""
RETRIES = 3
"""How often a task is begun again whose node or process died."""


class Tasks(Crew):
    """A cluster's nodes, all of which reach `root` and the current directory. Raises FedmtlError where no cluster answers.

    A run is of one process (`bench.plan.plan`), so it takes one CPU, and of a GPU what runtime.gpus-per-worker says.
    """

    def __init__(self, address: str, root: Path) -> None:
        self.started = not ray.is_initialized()
        if self.started:
            connect(RuntimeSection(address=address), verbose=False)
        self.here, self.sign = Path.cwd(), uuid4().hex
        (root / SIGN).write_text(self.sign, encoding="utf-8")
        self.task = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(do)

    def size(self) -> int:
        """One a CPU of the nodes that are there now."""
        return max(int(ray.cluster_resources().get("CPU", 0)), 1)  # type: ignore[no-untyped-call]

    def start(self, job: Work, root: Path) -> Any:
        """See Crew."""
        gpus = tomllib.loads(job.text).get("runtime", {}).get("gpus-per-worker", 0)
        return self.task.options(name=job.name, num_gpus=gpus).remote(job, root.resolve(), self.here, self.sign)

    def ended(self, running: Collection[Any]) -> dict[Any, str]:
        """See Crew."""
        first = ray.wait(list(running))[0][0]
        try:
            return {first: ray.get(first)}
        except RayTaskError as error:
            return {first: f"its task could not begin: {error.cause!r}"}
        except RayError as error:
            return {first: f"Ray gave it up: {type(error).__name__}: {str(error).partition(chr(10))[0]}"}

    def stop(self, running: Collection[Any]) -> None:
        """See Crew."""
        for task in running:
            ray.cancel(task, force=True)

    def close(self) -> None:
        """Leaves the cluster, where this crew joined it."""
        if self.started:
            ray.shutdown()


def do(job: Work, root: Path, here: Path, sign: str) -> str:
    """A piece of work on a node, from its beginning: what a node that died left of it is cleared. Why it failed, else ""."""
    torch.set_num_threads(1)
    try:
        _check_reach(root, here, sign)
        job.clear(root)
        job.work(root / job.name)
    except Exception as error:  # whatever ends a run is told in the table, and the others go on
        return said_by(error)
    return ""


def _check_reach(root: Path, here: Path, sign: str) -> None:
    node = socket.gethostname()
    try:
        os.chdir(here)
        found = (root / SIGN).read_text(encoding="utf-8")
    except OSError as error:
        raise DiskError(f"the Ray node {node} does not reach {error.filename} ({error.strerror}); all nodes must") from error
    if found != sign:
        raise DiskError(f"the Ray node {node} has a directory of its own at {root}, not the benchmark's; all nodes must reach that")
