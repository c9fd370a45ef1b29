"""Which node is which client: Flower draws node ids anew in every run, so the nodes are asked once and clients are known by their own ids."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from flwr.app import MessageType
from flwr.serverapp import Grid

from fedmtl.errors import FedmtlError
from fedmtl.server.messages import about, column, request


@dataclass
class Roster:
    """The clients of a federation. sizes: part to [clients] rows; trusted: nodes that may reply with sums over shards."""

    node_of: dict[int, int] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)
    sizes: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    trusted: bool = True

    @property
    def clients(self) -> int:
        return len(self.tasks)

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
                told = about(reply)
                registered = int(told["registered"])
                roster._welcome(reply.metadata.src_node_id, column(reply, "client").tolist(), registered)
                roster.trusted &= bool(told["trusted"])
                for part in ("train", "val", "test"):
                    values = roster.sizes.setdefault(part, np.zeros(registered, np.int64))
                    values[column(reply, "client")] = column(reply, part)
                for client, task in zip(column(reply, "client"), told["tasks"], strict=True):
                    roster.tasks[client] = task
        return roster

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
