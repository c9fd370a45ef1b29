"""Grids around another Grid: they see every message, and the run goes on as it would without them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run


class WrappedGrid(Grid):
    """Passes everything on. Subclasses change what they are there for."""

    def __init__(self, grid: Grid) -> None:
        self.inner = grid
        self.events: list[str] = getattr(grid, "events", [])

    def set_run(self, run: Run) -> None:
        """Takes another run's description."""
        self.inner.set_run(run)

    @property
    def run(self) -> Run:
        """The run's description."""
        return self.inner.run

    def create_message(self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str,
                       ttl: float | None = None) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes."""
        return self.inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sends messages; the ids by which their replies can be pulled."""
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have come."""
        return self.inner.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies to `messages`, as far as they come within `timeout` seconds."""
        return self.inner.send_and_receive(messages, timeout=timeout)


class PromptGrid(WrappedGrid):
    """Looks for replies every `pause` seconds: Flower's network Grid sleeps 3 seconds between two looks."""

    def __init__(self, grid: Grid, pause: float = 0.1) -> None:
        super().__init__(grid)
        self.pause = pause

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See WrappedGrid."""
        waiting = set(self.push_messages(list(messages)))
        deadline = float("inf") if timeout is None else time.monotonic() + timeout
        out: list[Message] = []
        while waiting:
            replies = list(self.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in replies}
            out += replies
            if waiting and time.monotonic() > deadline:
                break
            if waiting:
                time.sleep(self.pause)
        return out
