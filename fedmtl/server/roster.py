"""Which node is which client: Flower draws node ids anew in every run, so nodes are asked once for their clients."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fedmtl.errors import FedmtlError
from fedmtl.server.messages import about, column, request


@dataclass
class Roster:
    """The clients of a federation. group: [clients]; sizes: part to [clients] rows; trusted: nodes may reply with shard sums."""

    node_of: dict[int, int] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    group: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    sizes: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    trusted: bool = True

    @property
    def clients(self) -> int:
        return len(self.tasks)

    @staticmethod
    def registered(grid: Grid, timeout: float) -> int:
        """How many clients there are, by what the first node that answers says. Raises FedmtlError where none does."""
        deadline = time.monotonic() + timeout
        while not (nodes := sorted(grid.get_node_ids())):
            if time.monotonic() > deadline:
                raise FedmtlError(f"no node has joined in {timeout:.0f} s; are any running?")
            time.sleep(0.05)
        replies = list(grid.send_and_receive([request(MessageType.QUERY, nodes[0], {"round": 0})], timeout=timeout))
        if not replies or replies[0].has_error():
            raise FedmtlError(f"a node could not start: {replies[0].error.reason if replies else 'it does not answer'}")
        return int(about(replies[0])["registered"])

    @classmethod
    def discover(cls, grid: Grid, timeout: float) -> Roster:
        """Asks nodes as they appear until every client that any of them knows of is there.

        Raises FedmtlError where clients are missing after `timeout` seconds, or two nodes hold the same client.
        """
        roster, asked, registered, deadline = cls(), set[int](), -1, time.monotonic() + timeout
        while len(roster.node_of) != registered:
            fresh = sorted(set(grid.get_node_ids()) - asked)
            if not fresh:
                if time.monotonic() > deadline:
                    raise FedmtlError(f"{len(roster.node_of)} of {max(registered, 1)} clients answered in {timeout:.0f} s; "
                                      "are all nodes running?")
                time.sleep(0.05)
                continue
            asked |= set(fresh)
            messages = [request(MessageType.QUERY, node, {"round": 0}) for node in fresh]
            for reply in grid.send_and_receive(messages, timeout=max(deadline - time.monotonic(), 1.0)):
                if reply.has_error():
                    raise FedmtlError(f"a node could not start: {reply.error.reason}")
                try:
                    registered = roster._read(reply)
                except (KeyError, ValueError, TypeError, IndexError) as error:
                    raise FedmtlError(f"a node's answer cannot be read: {type(error).__name__}: {error}") from error
        return roster

    def _read(self, reply: Message) -> int:
        """Takes up the clients of a node; returns how many it says there are in all."""
        told, clients = about(reply), column(reply, "client").astype(np.int64)
        registered = int(told["registered"])
        self._welcome(reply.metadata.src_node_id, clients.tolist(), registered)
        self.trusted &= bool(told["trusted"])
        for part in ("train", "val", "test"):
            values = self.sizes.setdefault(part, np.zeros(registered, np.int64))
            values[clients] = column(reply, part)
        if not len(self.group):
            self.group = np.zeros(registered, np.int64)
        self.group[clients] = column(reply, "group")
        for client, task in zip(clients, told["tasks"], strict=True):
            self.tasks[client] = task
        return registered

    def check(self, expected: Mapping[str, npt.NDArray[np.int64]]) -> None:
        """Raises FedmtlError where a client claims other numbers of rows than the scenario gives it: they become weights."""
        for part, sizes in expected.items():
            wrong = np.flatnonzero(self.sizes[part] != sizes) if len(self.sizes[part]) == len(sizes) else [-1]
            if len(wrong):
                claim = f"client {wrong[0]} says that it has {self.sizes[part][wrong[0]]} {part} rows, not {sizes[wrong[0]]}"
                raise FedmtlError(f"{claim}. Do all nodes run the same scenario?" if wrong[0] >= 0 else
                                  f"the nodes know of {len(self.sizes[part])} clients, the scenario of {len(sizes)}")

    def _welcome(self, node: int, clients: list[int], registered: int) -> None:
        self.tasks = self.tasks or [""] * registered
        for client in clients:
            if not 0 <= client < registered:
                raise FedmtlError(f"a node says it is client {client}; there are {registered}")
            if client in self.node_of:
                raise FedmtlError(f"two nodes say that they are client {client}; give each its own partition-id")
            self.node_of[client] = node

    def by_node(self, clients: list[int]) -> dict[int, list[int]]:
        """`clients` by the node that holds them."""
        out: dict[int, list[int]] = {}
        for client in clients:
            out.setdefault(self.node_of[client], []).append(client)
        return out
