"""Runs side by side: one process a run, so that a run is alone with its memory and its death concerns nobody else."""

from __future__ import annotations

import fcntl
import math
import multiprocessing
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Self

from fedmtl.errors import DiskError

if TYPE_CHECKING:
    from fedmtl.scenario import Scenario

State = tuple[str, str]
"""("waiting" | "running" | "done" | "failed", the reason of a failure)."""


@dataclass(frozen=True)
class Work(ABC):
    """Something that a process does once for a scenario and method, into a directory of its own.

    name: that directory, under the benchmark's; text: the resolved scenario, as its scenario.toml will hold it; folder: where paths
    of the scenario begin.
    """

    name: str
    scenario: str
    method: str
    seed: int
    text: str
    folder: Path | None

    @classmethod
    def of(cls, name: str, scenario: Scenario, *more: Any) -> Self:
        """What is to be done for a resolved scenario; more: the fields that a kind of work adds."""
        return cls(name, scenario.name, scenario.algorithm.name, scenario.seed, scenario.to_toml(), scenario.folder, *more)

    @abstractmethod
    def finished(self, root: Path) -> bool:
        """Whether it was done. Raises DiskError where something else stands in its place."""

    @abstractmethod
    def clear(self, root: Path) -> None:
        """Makes room for it."""

    @abstractmethod
    def work(self, place: Path) -> None:
        """Does it."""

    @abstractmethod
    def said(self, root: Path) -> str:
        """What came of it, in short."""


Listener = Callable[[Work, State], None]


class Crew(ABC):
    """Where work is done, several pieces at a time; each that is under way has a handle."""

    @abstractmethod
    def size(self) -> int:
        """How many at a time, where nobody says it."""

    @abstractmethod
    def start(self, job: Work, root: Path) -> Any:
        """Begins what is to be done under `root`; the handle."""

    @abstractmethod
    def ended(self, running: Collection[Any]) -> dict[Any, str]:
        """Waits until some end: these, and why each failed ("" where it did not)."""

    @abstractmethod
    def stop(self, running: Collection[Any]) -> None:
        """Ends these where they are."""


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """The benchmark directory, for one benchmark at a time. Raises DiskError where it is taken or cannot be written."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / ".lock").open("w")
    except OSError as error:
        raise DiskError(f"{root} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DiskError(f"another benchmark is running in {root}") from error
        yield


def warm_up() -> ForkServerContext:
    """Starts the process from which those of the runs are forked: it imports what they need while others go on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fedmtl.bench.pool", "fedmtl.bench.warm"])
    ensure_running()
    return context


def run_jobs(jobs: Sequence[Work], root: Path, workers: int, listen: Listener, crew: Crew | None = None) -> dict[str, str]:
    """Runs what is missing under `root`, `workers` at a time (0: as many as the crew has room for), by default in processes.

    Gives why each failed run failed, by its name. Every method of a scenario is begun once first; from then on the longest go
    first, so that they end together. A failed run leaves its reason in failed.txt. Raises DiskError (see `Work.finished`) before
    anything starts.
    """
    done = {job.name: job.finished(root) for job in jobs}
    for job in jobs:
        if done[job.name]:
            listen(job, ("done", ""))
        else:
            job.clear(root)
    missing = [job for job in jobs if not done[job.name]]
    crew = crew or Processes()
    failed: dict[str, str] = {}
    running: dict[Any, tuple[Work, float]] = {}
    took: dict[tuple[str, str], float] = {}
    try:
        while missing or running:
            while missing and len(running) < (workers or crew.size()):
                job = max(missing, key=lambda one: took.get((one.scenario, one.method), math.inf))
                missing.remove(job)
                took.setdefault((job.scenario, job.method), 0.0)
                running[crew.start(job, root)] = job, time.monotonic()
                listen(job, ("running", ""))
            for handle, reason in crew.ended(running).items():
                job, began = running.pop(handle)
                took[job.scenario, job.method] = time.monotonic() - began
                if reason:
                    failed[job.name] = reason
                    _keep(root / job.name, reason)
                listen(job, ("failed", reason) if reason else ("done", ""))
    finally:
        crew.stop(running)
    return failed


class Processes(Crew):
    """Processes of this machine, forked from one that has imported what they need."""

    def __init__(self) -> None:
        self.context = warm_up()
        self.processes: dict[Connection, ForkServerProcess] = {}

    def size(self) -> int:
        """One a core."""
        from fedmtl.runtime.choose import cores

        return cores()

    def start(self, job: Work, root: Path) -> Connection:
        """See Crew."""
        mine, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_child, args=(job, root / job.name, theirs), name=job.name)
        with _no_main():
            process.start()
        theirs.close()
        self.processes[mine] = process
        return mine

    def ended(self, running: Collection[Connection]) -> dict[Connection, str]:
        """See Crew."""
        ready = [one for one in wait(list(running)) if isinstance(one, Connection)]
        return {one: _ending(one, self.processes.pop(one)) for one in ready}

    def stop(self, running: Collection[Connection]) -> None:
        """See Crew."""
        for connection in running:
            process = self.processes.pop(connection)
            process.kill()
            process.join()
            connection.close()


@contextmanager
def _no_main() -> Iterator[None]:
    """Keeps a new process from importing the program that started this one: it may run on import, as some scripts do."""
    program = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program


def _ending(connection: Connection, process: ForkServerProcess) -> str:
    """Why a run failed; "" where it did not. A process that died has said nothing."""
    try:
        reason: str | None = connection.recv()
    except EOFError:
        reason = None
    connection.close()
    process.join()
    if reason is None:
        code = process.exitcode or 0
        return f"its process was killed by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
    return reason


def _keep(place: Path, reason: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "failed.txt").write_text(reason + "\n", encoding="utf-8")


def _child(job: Work, place: Path, answer: Connection) -> None:
    """One run in a process of its own, which ends with the benchmark's, however that ends."""
    import torch

    from fedmtl.registry import said_by

    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    try:
        job.work(place)
    except Exception as error:  # whatever ends a run is told in the table, and the others go on
        answer.send(said_by(error))
    else:
        answer.send("")


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

