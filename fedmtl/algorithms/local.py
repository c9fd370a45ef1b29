"""Every client alone: the row that every comparison needs.

No communication; the baseline of McMahan et al., AISTATS 2017, and of every paper on personalisation.

Sends: nothing. Keeps: w, its own model. Server: nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fedmtl.algorithms.base import Algorithm, Replies, Update
from fedmtl.algorithms.steps import Client
from fedmtl.trees import Params


@dataclass(frozen=True, kw_only=True)
class Local(Algorithm):
    """Local training."""

    shared: ClassVar[str] = "none"

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """The same local steps as FedAvg, from the client's own model."""
        return {}, client.sgd(client.loss, dict(kept))

    def server(self, state: Params, replies: Replies) -> Params:
        """The server has no state."""
        return state
