"""The contract of a method: both halves of its protocol in one frozen dataclass of hyper-parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from fedmtl.algorithms.steps import Client
from fedmtl.trees import Params, Tree, pick

Update = tuple[Params, Tree]
"""(what a client sends, what it keeps)."""


class Replies(Protocol):
    """The accepted replies of one round."""

    def mean(self) -> Params:
        """The weighted mean of what the clients sent, without a client axis."""


@dataclass(frozen=True, kw_only=True)
class Algorithm(ABC):
    """A method. Client methods see a cohort and must not mix its slices; all of them are pure.

    `shared` is a selector (see models.base.Layout): only parameters that it names may cross the wire.
    """

    shared: ClassVar[str] = "all"
    adapts: ClassVar[bool] = False
    """Whether `adapt` trains the personal model further before it is used."""

    @property
    def wire(self) -> str:
        """The selector of what may cross the wire with these hyper-parameters."""
        return self.shared

    def start(self, client: Client, model: Params) -> Tree:
        """What a client keeps before its first round, from the initial model every client knows: what it does not share."""
        names = client.select(self.wire)
        return {name: leaf for name, leaf in model.items() if name not in names}

    @abstractmethod
    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """One round of one client."""

    def personal(self, received: Params, kept: Mapping[str, Any]) -> Params:
        """The parameters that a client would use: its own, and what it received."""
        return {**kept, **received}

    def adapt(self, client: Client, params: Params) -> Params:
        """The personal model after the training that a method does only before use; `adapts` says whether there is any."""
        return params

    def init(self, model: Params, wire: frozenset[str]) -> Params:
        """The server's state before the first round."""
        return pick(model, wire)

    def sends(self, state: Params) -> Params:
        """What the server broadcasts from its state."""
        return {name: leaf for name, leaf in state.items() if not name.startswith("server/")}

    def server(self, state: Params, replies: Replies) -> Params:
        """The server's state after a round: the weighted mean of what was sent."""
        return {**state, **replies.mean()}
