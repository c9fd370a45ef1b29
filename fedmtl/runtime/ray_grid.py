"""Clients on Ray: sticky workers that keep their clients' data and private state, one call a worker and round."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from flwr.app import Message, MessageType
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from fedmtl.client.durable import DurableStore
from fedmtl.client.handler import Handler
from fedmtl.errors import FedmtlError
from fedmtl.profiling import spans
from fedmtl.runtime.garbage import collect_seldom
from fedmtl.runtime.grid import OwnGrid
from fedmtl.runtime.mixed import host_of
from fedmtl.scenario import Scenario, from_toml
from fedmtl.scenario.sections import RuntimeSection
from fedmtl.server.messages import ARRAYS, empty_run, refusal
from fedmtl.server.reduce import deal
from fedmtl.tasks.task import Federation, Mixed

PATIENCE = 3
"""Workers that one message may cost before it, and not bad luck, is held to blame."""


class Worker:
    """One process: a home for the clients of some shards, and for those of workers that died."""

    def __init__(self, scenario: str, folder: str | None, federation: Federation | Mixed, private: str, profile: bool) -> None:
        torch.set_num_threads(1)
        spans.on = profile
        empty_run()
        self.scenario = from_toml(scenario, Path(folder) if folder else None)
        self.federation, self.private = federation, Path(private)
        self.shard = deal(federation.sizes("train"), self.scenario.runtime.shards, federation.group) % self.scenario.runtime.shards
        self.homes: dict[int, Handler] = {}

    def settle(self, node: int, shards: list[int], before: int | None = None) -> None:
        """Makes this process the home of a node's clients, with the private state they had before a round."""
        clients = np.flatnonzero(np.isin(self.shard, shards)).tolist()
        store = DurableStore(self.private / f"node-{node:03d}", before=before)
        host = host_of(self.scenario, self.federation, store)
        host.keep_models(self.private.parent / "models")
        self.homes[node] = Handler(host, clients, trusted=True)
        collect_seldom()

    def handle(self, message: Message, arrays: Any) -> tuple[Message, dict[str, float]]:
        """The reply to a message whose parameters came through Ray's object store, and what took how long (profiling)."""
        if arrays is not None:
            message.content[ARRAYS] = arrays
        return self.homes[message.metadata.dst_node_id](message), spans.take()


@dataclass(frozen=True)
class _Call:
    """A message under way. deaths: how many workers it has outlived."""

    message: Message
    arrays: Any
    worker: Any
    deaths: int


class RayGrid(OwnGrid):
    """One node a worker. Results do not depend on the number of workers: they hold whole shards (server.reduce).

    private: the directory of the clients' private state, which every worker must reach, removed when the grid is closed. Where
    a worker dies, another one takes its clients over and the round goes on.
    """

    def __init__(self, scenario: Scenario, federation: Federation | Mixed, private: Path, *, verbose: bool = False) -> None:
        super().__init__()
        self.started = not ray.is_initialized()
        if self.started:
            connect(scenario.runtime, verbose=verbose)
        folder = str(scenario.folder) if scenario.folder else None
        self.private = private.resolve()
        self._birth = (scenario.to_toml(), folder, ray.put(federation), str(self.private), spans.on)
        self._actor = ray.remote(num_cpus=1, num_gpus=scenario.runtime.gpus_per_worker, scheduling_strategy="SPREAD")(Worker)
        count = scenario.runtime.workers
        self.shards = {w + 1: list(range(w, scenario.runtime.shards, count)) for w in range(count)}
        self.workers = {node: self._bear() for node in self.shards}
        ray.get([self.workers[node].settle.remote(node, mine) for node, mine in self.shards.items()])

    def _bear(self) -> Any:
        return self._actor.remote(*self._birth)

    def get_node_ids(self) -> Iterable[int]:
        """The workers, those that died included: their clients live on elsewhere."""
        return list(self.shards)

    def ask(self, messages: list[Message], timeout: float | None) -> list[Message]:
        """One call a message, all at once; parameters that several messages share are put once."""
        shared: dict[int, Any] = {}
        calls: dict[Any, _Call] = {}
        for message in messages:
            arrays = message.content.pop(ARRAYS, None)
            if arrays is not None and id(arrays) not in shared:
                shared[id(arrays)] = ray.put(arrays)
            self._send(calls, message, None if arrays is None else shared[id(arrays)], 0)
        replies: list[Message] = []
        answered: set[int] = set()
        deadline = None if timeout is None else time.monotonic() + timeout
        while calls:
            done, _ = ray.wait(list(calls), timeout=None if deadline is None else max(deadline - time.monotonic(), 0))
            if not done:
                break
            call = calls.pop(done[0])
            answered.add(call.message.metadata.dst_node_id)
            try:
                reply, spent = ray.get(done[0])
                replies.append(reply)
                spans.add(spent, "workers")
            except RayTaskError as error:
                replies.append(refusal(call.message, f"the worker could not answer: {error.cause!r}"))
            except (RayActorError, ObjectLostError) as error:  # or its machine is gone, and the reply with it
                if call.deaths + 1 >= PATIENCE:
                    raise FedmtlError(f"{PATIENCE} Ray workers died on one message; the last: {error}") from error
                answered.remove(call.message.metadata.dst_node_id)
                self._rehome(call, calls, answered)
                self._send(calls, call.message, call.arrays, call.deaths + 1)
        return replies

    def _send(self, calls: dict[Any, _Call], message: Message, arrays: Any, deaths: int) -> None:
        worker = self.workers[message.metadata.dst_node_id]
        calls[worker.handle.remote(message, arrays)] = _Call(message, arrays, worker, deaths)

    def _rehome(self, call: _Call, calls: dict[Any, _Call], answered: set[int]) -> None:
        """Finds a new home for the nodes whose worker died, with the private state they had before the call's message.

        A node that has answered its own message of this round already keeps what it has after it.
        """
        metadata = call.message.metadata
        number, done = int(metadata.group_id), metadata.message_type != MessageType.TRAIN
        orphans = self._bury(call.worker, calls, answered, number)
        for _ in range(len(self.workers) + PATIENCE):
            if not orphans:
                return
            living = list(dict.fromkeys(worker for node, worker in self.workers.items() if node not in orphans))
            heir = min(living, key=list(self.workers.values()).count) if living else self._bear()
            self.workers |= dict.fromkeys(orphans, heir)
            try:
                ray.get([heir.settle.remote(node, self.shards[node], number + (done or node in answered)) for node in orphans])
                return
            except RayActorError:  # it had died too, and nobody knew yet
                orphans = self._bury(heir, calls, answered, number)
        raise FedmtlError(f"no Ray worker stays alive to take over the clients of one that died in round {number}")

    def _bury(self, dead: Any, calls: dict[Any, _Call], answered: set[int], number: int) -> list[int]:
        """The nodes that a worker leaves behind; makes sure that it writes no more, and notes the answers that it still gave."""
        orphans = [node for node, worker in self.workers.items() if worker is dead]
        if orphans:
            ray.kill(dead)
            self.events.append(f"a worker died in round {number}; another one takes over its clients")
        last = {reply: call.message.metadata.dst_node_id for reply, call in calls.items() if call.worker is dead}
        for reply, node in last.items():
            try:
                ray.get(reply)
                answered.add(node)
            except RayTaskError:
                answered.add(node)
            except (RayActorError, ObjectLostError):
                continue
        return orphans

    def close(self) -> None:
        """Ends the workers, and Ray where this grid started it."""
        for worker in dict.fromkeys(self.workers.values()):
            ray.kill(worker)
        self.workers = {}
        shutil.rmtree(self.private, ignore_errors=True)
        if self.started:
            ray.shutdown()


def connect(runtime: RuntimeSection, *, verbose: bool) -> None:
    """Joins the cluster at runtime.address, or starts Ray on this machine."""
    level = logging.INFO if verbose else logging.ERROR
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if runtime.address:
        try:
            _knock(runtime.address)
            ray.init(address=runtime.address, log_to_driver=verbose, logging_level=level)
        except (OSError, ValueError, RuntimeError, OverflowError) as error:
            raise FedmtlError(f"runtime.address: no Ray cluster answers at {runtime.address}: {error}") from error
    else:
        ray.init("local", include_dashboard=False, log_to_driver=verbose, num_cpus=runtime.workers, logging_level=level)


def _knock(address: str) -> None:
    """Raises OSError where nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
