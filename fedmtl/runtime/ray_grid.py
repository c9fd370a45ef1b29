"""Clients on Ray: sticky workers that keep their clients' data and private state, one call a worker and round."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from flwr.app import Message

from fedmtl.client.handler import Handler
from fedmtl.client.store import MemoryStore
from fedmtl.errors import FedmtlError
from fedmtl.runtime.cohort import Host
from fedmtl.runtime.grid import OwnGrid
from fedmtl.scenario import Scenario, from_toml
from fedmtl.server.messages import ARRAYS, empty_run
from fedmtl.server.reduce import deal
from fedmtl.tasks.task import Federation


class Worker:
    """One process that holds the clients of some shards."""

    def __init__(self, scenario: str, folder: str | None, federation: Federation, shards: list[int]) -> None:
        torch.set_num_threads(1)
        empty_run()
        resolved = from_toml(scenario, Path(folder) if folder else None)
        shard = deal(federation.sizes("train"), resolved.runtime.shards)
        clients = np.flatnonzero(np.isin(shard, shards)).tolist()
        self.handler = Handler(Host(resolved, federation, MemoryStore()), clients, trusted=True)

    def handle(self, message: Message, arrays: Any) -> Message:
        """The reply to a message whose parameters came through Ray's object store."""
        if arrays is not None:
            message.content[ARRAYS] = arrays
        return self.handler(message)


class RayGrid(OwnGrid):
    """One node a worker. Results do not depend on the number of workers: they hold whole shards (server.reduce)."""

    def __init__(self, scenario: Scenario, federation: Federation, *, verbose: bool = False) -> None:
        super().__init__()
        self.started = not ray.is_initialized()
        if self.started:
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
            ray.init(include_dashboard=False, log_to_driver=verbose, num_cpus=max(scenario.runtime.workers, 1),
                     logging_level=logging.INFO if verbose else logging.ERROR)
        data = ray.put(federation)
        actor = ray.remote(num_cpus=1, num_gpus=scenario.runtime.gpus_per_worker)(Worker)
        count = scenario.runtime.workers
        dealt = [list(range(w, scenario.runtime.shards, count)) for w in range(count)]
        folder = str(scenario.folder) if scenario.folder else None
        self.workers = {i + 1: actor.remote(scenario.to_toml(), folder, data, mine) for i, mine in enumerate(dealt)}

    def get_node_ids(self) -> Iterable[int]:
        """The workers."""
        return list(self.workers)

    def ask(self, messages: list[Message], timeout: float | None) -> list[Message]:
        """One call a message, all at once; parameters that several messages share are put once."""
        shared: dict[int, Any] = {}
        calls = []
        for message in messages:
            arrays = message.content.pop(ARRAYS, None)
            if arrays is not None and id(arrays) not in shared:
                shared[id(arrays)] = (ray.put(arrays), arrays)
            ref = shared[id(arrays)][0] if arrays is not None else None
            calls.append(self.workers[message.metadata.dst_node_id].handle.remote(message, ref))
        try:
            done, _ = ray.wait(calls, num_returns=len(calls), timeout=timeout)
            replies: list[Message] = ray.get(done)
        except ray.exceptions.RayActorError as error:
            raise FedmtlError(f"a Ray worker died: {error}") from error
        return replies

    def close(self) -> None:
        """Ends the workers, and Ray where this grid started it."""
        for worker in self.workers.values():
            ray.kill(worker)
        self.workers = {}
        if self.started:
            ray.shutdown()
