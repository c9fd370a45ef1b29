"""A federation of six clients whose nodes are asked one by one, so that a test can change what each of them answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import pytest
from flwr.app import Message

from fedmtl.client.handler import Handler
from fedmtl.client.store import MemoryStore
from fedmtl.runtime.cohort import Host
from fedmtl.runtime.data import federation_of
from fedmtl.runtime.grid import OwnGrid
from fedmtl.scenario import Scenario, from_toml, load_scenario
from fedmtl.server.strategy import MethodStrategy
from fedmtl.tasks.task import Federation

CLIENTS = 6
WORDS = {"tasks.clients": CLIENTS, "model.hidden": [5], "runtime.kind": "inline", "runtime.cohort": 4, "rounds": 3}

Change = Callable[[Message, int], list[Message]]


@lru_cache
def data_of(text: str) -> Federation:
    """The federation of a scenario, made once."""
    return federation_of(from_toml(text))


class NodeGrid(OwnGrid):
    """One untrusted node a client, as remote processes are; `change` sees every reply to a train or evaluate message."""

    def __init__(self, scenario: Scenario, *, trusted: bool = False) -> None:
        super().__init__()
        federation = data_of(scenario.to_toml())
        self.host = Host(scenario, federation, MemoryStore())
        self.nodes = {100 + client: Handler(self.host, [client], trusted=trusted) for client in range(federation.clients)}
        self.change: Change = lambda reply, client: [reply]

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def ask(self, messages: list[Message], timeout: float | None) -> list[Message]:
        out: list[Message] = []
        for message in messages:
            node = message.metadata.dst_node_id
            reply = self.nodes[node](message)
            reply.metadata.__dict__["_src_node_id"] = node
            out += [reply] if message.metadata.message_type == "query" else self.change(reply, node - 100)
        return out


class Setting:
    """A scenario with its grid and strategy."""

    def __init__(self, **words: object) -> None:
        self.scenario = load_scenario("quickstart", WORDS | {key.replace("__", "."): value for key, value in words.items()})
        self.grid = NodeGrid(self.scenario)
        self.strategy = MethodStrategy(self.scenario, self.grid.host.model, self.grid.host.wire, self.grid.host.objective.metrics)

    def train(self, change: Change | None = None, number: int = 1):
        """One train round; its record and the server's arrays (None where nothing was let in)."""
        from flwr.app import ConfigRecord

        if change is not None:
            self.grid.change = change
        messages = self.strategy.configure_train(number, self.strategy.initial_arrays(), ConfigRecord(), self.grid)
        arrays, _ = self.strategy.aggregate_train(number, self.grid.send_and_receive(messages))
        return self.strategy.rounds[number], arrays


@pytest.fixture(scope="session")
def setting() -> Callable[..., Setting]:
    return Setting
