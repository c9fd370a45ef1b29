"""What our own grids have in common: a Flower Grid whose nodes are ours, so that nothing has to be stored or polled."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedmtl.server.messages import empty_run, set_message_id


class OwnGrid(Grid):
    """A Grid over nodes 1..n that are asked directly; replies to pushed messages wait until they are pulled."""

    def __init__(self) -> None:
        self._run = empty_run()
        self._waiting: dict[str, Message] = {}
        self.events: list[str] = []
        """What went wrong and was mended, for the run's journal."""

    def set_run(self, run: Run) -> None:
        """Takes another run's description."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run's description."""
        return self._run

    def create_message(self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str,
                       ttl: float | None = None) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    @abstractmethod
    def ask(self, messages: list[Message], timeout: float | None) -> list[Message]:
        """The replies of the nodes to messages that have their ids."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """The replies to `messages`, as far as they come within `timeout` seconds."""
        batch = list(messages)
        for message in batch:
            set_message_id(message)
        return self.ask(batch, timeout)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sends messages; their replies can be pulled by the ids returned."""
        batch = list(messages)
        self._waiting |= {reply.metadata.reply_to_message_id: reply for reply in self.send_and_receive(batch)}
        return [message.metadata.message_id for message in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to pushed messages, each given once."""
        return [self._waiting.pop(name) for name in list(message_ids) if name in self._waiting]

    def close(self) -> None:
        """Ends the nodes."""
