"""A federation so small that a method is checked in milliseconds, run through the same handler and strategy as any other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, Message

from fedmtl import keys, trees
from fedmtl.algorithms.base import Algorithm
from fedmtl.algorithms.steps import Client
from fedmtl.client.handler import Handler
from fedmtl.client.store import MemoryStore, Store
from fedmtl.registry import component_name
from fedmtl.runtime.cohort import Host
from fedmtl.runtime.grid import OwnGrid
from fedmtl.runtime.parcels import Parcel
from fedmtl.scenario import AlgorithmSection, Scenario, from_table
from fedmtl.server.messages import to_params
from fedmtl.server.reduce import order_of
from fedmtl.server.strategy import MethodStrategy
from fedmtl.tasks.task import Array, Federation
from fedmtl.trees import Params

SIZES = (3, 8, 9, 9, 8)
"""Train rows of each client: with batches of 4, some batches are partial and some clients rest while others step."""
ORDER = [2, 3, 1, 4, 0]
"""These clients as a cohort wants them, by falling size."""
HELD = 4
"""Validation rows, and as many test rows, of each client."""
PUBLIC = 8
"""Public rows: the first ones of the pool."""
ONE_EPOCH = {"training": {"epochs": 1}}
ONE_STEP = {"training": {"epochs": 1, "batch-size": max(SIZES)}}
"""For what does not depend on how long clients learn."""

Alter = Callable[[list[Message]], list[Message]]


def federation_from(x: Array, y: Array, sizes: Sequence[int], classes: tuple[str, ...] = (), held: int = HELD) -> Federation:
    """Clients with `sizes` train rows and `held` validation and test rows each, off the pool in its order; its start is public."""
    steps = np.array([[0, size, held, held] for size in sizes])
    bounds = np.cumsum(steps.ravel()).reshape(steps.shape).astype(np.int64)
    rows = np.arange(bounds[-1, 3], dtype=np.int64)
    return Federation(x, y, rows, bounds, tuple(f"task-{c}" for c in range(len(sizes))), classes, {}, public=x[:PUBLIC])


def small_federation(sizes: Sequence[int] = SIZES) -> Federation:
    """Three classes of points in 6 dimensions; where a class lies depends a little on the client."""
    draw = keys.generator(keys.stream(0, "conformance"))
    n = sum(sizes) + 2 * HELD * len(sizes)
    y = draw.integers(0, 3, n)
    owner = np.repeat(np.arange(len(sizes)), [size + 2 * HELD for size in sizes])
    centres = draw.standard_normal((3, 6)) + 0.5 * draw.standard_normal((len(sizes), 3, 6))
    x = centres[owner, y] + draw.standard_normal((n, 6))
    return federation_from(x.astype(np.float32), y, sizes, ("a", "b", "c"))


def copies_of(federation: Federation, client: int, n: int) -> Federation:
    """A federation of `n` clients that all hold the rows of one client."""
    first, last = federation.bounds[client, 0], federation.bounds[client, 3]
    bounds = (federation.bounds[client] - first) + np.arange(n)[:, None] * (last - first)
    return Federation(federation.x, federation.y, np.tile(federation.rows[first:last], n), bounds,
                      (federation.tasks[client],) * n, federation.classes, federation.truth, public=federation.public)


class Nodes(OwnGrid):
    """One node a client, each with a reply of its own, as in a federation of strangers; or one trusted node for all."""

    def __init__(self, host: Host, *, together: bool) -> None:
        super().__init__()
        everyone = range(host.federation.clients)
        self.handlers = {1: Handler(host, everyone, trusted=True)} if together else {
            c + 1: Handler(host, [c], trusted=False) for c in everyone}

    def get_node_ids(self) -> list[int]:
        """Node c + 1 holds client c, or node 1 all of them."""
        return list(self.handlers)

    def ask(self, messages: list[Message], timeout: float | None) -> list[Message]:
        """Handles the messages one after the other."""
        return [self.handlers[message.metadata.dst_node_id](message) for message in messages]


class Weighted(MethodStrategy):
    """A strategy whose weights are all multiplied by one factor."""

    def __init__(self, scenario: Scenario, model: Params, wire: frozenset[str], factor: float,
                 public: Callable[[int, int], Client]) -> None:
        super().__init__(scenario, model, wire, public=public)
        self.factor = factor

    def weights(self, clients: list[int]) -> npt.NDArray[np.float64]:
        """[len(clients)] how much each client's reply counts."""
        return self.factor * super().weights(clients)


def scenario_of(method: Algorithm, clients: int, sections: dict[str, Any]) -> Scenario:
    """A scenario around a method that need not stand in the folder; `sections` replaces keys of its sections."""
    table: dict[str, Any] = {
        "name": "conformance", "rounds": 1000,
        "tasks": {"source": "digits", "clients": clients},
        "model": {"trunk": "mlp", "hidden": [5], "activation": "tanh", "norm": "layer"},
        "algorithm": {"name": "fedavg"},
        "training": {"lr": 0.1, "batch-size": 4, "epochs": 2},
        "server": {"max-failures": 1.0},
        "runtime": {"kind": "inline", "cohort": 4, "device": "cpu"},
    }
    for section, values in sections.items():
        table[section] = table.get(section, {}) | values if section != "model" else values
    named = AlgorithmSection(name=component_name(type(method)))
    scenario = from_table(table).model_copy(update={"algorithm": named})
    scenario.__dict__["method"] = method
    return scenario


@dataclass
class Trial:
    """A method at work on a federation, round by round. sections: what to change in the scenario; store: where clients keep.

    factor: what all weights are multiplied by; number: the last round that was made; together: as in Nodes.
    """

    method: Algorithm
    federation: Federation = field(default_factory=small_federation)
    sections: dict[str, Any] = field(default_factory=dict)
    store: Store = field(default_factory=MemoryStore)
    factor: float = 1.0
    number: int = 0
    together: bool = False

    def __post_init__(self) -> None:
        scenario = scenario_of(self.method, self.federation.clients, self.sections)
        self.host = Host(scenario, self.federation, self.store)
        self.grid = Nodes(self.host, together=self.together)
        self.strategy = Weighted(scenario, self.host.model, self.host.wire, self.factor, self.host.on_public)
        self.arrays = self.strategy.initial_arrays()

    @property
    def state(self) -> Params:
        """The server's state."""
        return to_params(self.arrays)

    @property
    def shared(self) -> Params:
        """What the server would send next."""
        everyone = range(self.federation.clients)
        return self.method.sends_to(self.state, everyone) if self.method.addressed else self.method.sends(self.state)

    @property
    def parcel(self) -> Parcel:
        """The same, as a node of all clients receives it."""
        return Parcel(self.shared, {c: c for c in range(self.federation.clients)} if self.method.addressed else None)

    def rounds(self, n: int = 1, alter: Alter = list) -> Params:
        """The server's state after `n` more rounds; `alter` stands between the clients' replies and the server."""
        for _ in range(n):
            self.number += 1
            messages = self.strategy.configure_train(self.number, self.arrays, ConfigRecord(), self.grid)
            replies = alter(list(self.grid.send_and_receive(messages)))
            self.arrays = self.strategy.aggregate_train(self.number, replies)[0] or self.arrays
        return self.state

    def kept(self, clients: Sequence[int] | None = None) -> Params:
        """What clients keep, [K, ...]."""
        return self.store.load(range(self.federation.clients) if clients is None else clients)[0]

    def models(self) -> dict[str, Params]:
        """The whole model of every client by its kind (global, personal, adapted), [clients, ...] in the order of their ids."""
        slots = order_of(self.host.sizes, range(self.federation.clients))
        client, by_id = self.host.client(slots, self.number, "adapt"), np.argsort(slots).tolist()
        kinds = self.host.models(client, self.host.received(self.parcel, slots), self.host.kept(client, slots, slots))
        return {kind: {name: leaf[by_id] for name, leaf in params.items()} for kind, params in kinds}

    def outcome(self) -> Params:
        """Everything that a run leaves behind, as one tree."""
        return trees.flatten({"server": self.state, "kept": self.kept(), "models": self.models()})
