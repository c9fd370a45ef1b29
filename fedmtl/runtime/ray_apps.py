"""Any Flower app on sticky Ray workers: the same ServerApp and ClientApp, without Flower's queues and polling.

A node's Context stays in the worker that serves the node; a batch of messages costs one call a worker, in which records that
messages share travel once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from copy import copy
from typing import Any

import ray
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from ray import cloudpickle
from ray.exceptions import RayActorError

from fedmtl.errors import FedmtlError
from fedmtl.runtime.choose import cores
from fedmtl.runtime.grid import OwnGrid
from fedmtl.runtime.ray_grid import connect
from fedmtl.scenario.sections import RuntimeSection
from fedmtl.server.messages import app_error, empty_run


class AppWorker:
    """One process that serves some nodes of a Flower app."""

    def __init__(self, path: list[str], app: bytes, nodes: dict[int, int], total: int, run_config: dict[str, Any]) -> None:
        torch.set_num_threads(1)
        sys.path[:0] = [entry for entry in path if entry not in sys.path]
        run = empty_run()
        self.app: ClientApp = cloudpickle.loads(app)
        self.contexts = {node: Context(run_id=run.run_id, node_id=node, state=RecordDict(), run_config=dict(run_config),
                                       node_config={"partition-id": partition, "num-partitions": total})
                         for node, partition in nodes.items()}

    def handle(self, messages: list[Message]) -> list[Message]:
        """The replies; what a ClientApp raises becomes an error reply, as in Flower."""
        return [self._reply(message) for message in messages]

    def _reply(self, message: Message) -> Message:
        message.content = RecordDict({name: _own(record) for name, record in message.content.items()})
        try:
            return self.app(message, self.contexts[message.metadata.dst_node_id])
        except Exception as error:  # a ClientApp may raise anything; Flower turns it into a reply too
            return app_error(message, error)


def _own(record: Any) -> Any:
    """A record like this one: messages of a batch share records, and a client may write into what it gets."""
    return type(record)({name: copy(value) for name, value in record.items()})


class AppGrid(OwnGrid):
    """Nodes 1..n of a Flower app, dealt to workers once."""

    def __init__(self, app: ClientApp, nodes: int, workers: int, run_config: Mapping[str, Any]) -> None:
        super().__init__()
        packed = cloudpickle.dumps(app)  # type: ignore[no-untyped-call]
        path = [entry for entry in sys.path if entry]
        actor: Any = ray.remote(num_cpus=1)(AppWorker)
        dealt = [{n + 1: n for n in range(w, nodes, workers)} for w in range(workers)]
        self.workers = [actor.remote(path, packed, mine, nodes, dict(run_config)) for mine in dealt]
        self.nodes = nodes

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(range(1, self.nodes + 1))

    def ask(self, messages: list[Message], timeout: float | None) -> list[Message]:
        """One call a worker."""
        batches: dict[int, list[Message]] = {}
        for message in messages:
            batches.setdefault((message.metadata.dst_node_id - 1) % len(self.workers), []).append(message)
        calls = [self.workers[worker].handle.remote(batch) for worker, batch in batches.items()]
        done, _ = ray.wait(calls, num_returns=len(calls), timeout=timeout) if calls else ([], [])
        try:
            return [reply for replies in ray.get(done) for reply in replies]
        except RayActorError as error:
            raise FedmtlError(f"a worker died, and with it the Contexts of its nodes: {error}") from error

    def close(self) -> None:
        """Ends the workers."""
        for worker in self.workers:
            ray.kill(worker)


def run_flower_app(server_app: ServerApp, client_app: ClientApp, *, num_supernodes: int, workers: int = 0,
                   run_config: Mapping[str, Any] | None = None, verbose: bool = False) -> Context:
    """Runs a Flower app to its end and returns the ServerApp's Context.

    num_supernodes: how many nodes; each finds its partition-id and num-partitions in its node_config. workers: processes, 0 for
    one a core. run_config: what the app's pyproject.toml says under [tool.flwr.app.config], and what overrides it.
    What the ServerApp raises is raised here.
    """
    count = min(workers or cores(), num_supernodes)
    started = not ray.is_initialized()
    if started:
        connect(RuntimeSection(workers=count), verbose=verbose)
    grid = AppGrid(client_app, num_supernodes, count, run_config or {})
    context = Context(run_id=grid.run.run_id, node_id=0, node_config={}, state=RecordDict(), run_config=dict(run_config or {}))
    try:
        server_app(grid, context)
    finally:
        grid.close()
        if started:
            ray.shutdown()
    return context
