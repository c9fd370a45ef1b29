"""The client's side of a message: what a node does with it, the same in every runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import Message, MessageType

from fedmtl.errors import FedmtlError, PrivacyError
from fedmtl.profiling import spans
from fedmtl.runtime.cohort import Host
from fedmtl.runtime.mixed import MixedHost
from fedmtl.runtime.parcels import Parcel, Trained
from fedmtl.runtime.scoring import Numbers
from fedmtl.server.messages import ARRAYS, LEAKED, LEDGER, about, answer, payload, refusal, to_arrays, to_params
from fedmtl.server.reduce import ShardSums
from fedmtl.server.relations import AHEAD
from fedmtl.tasks.task import PARTS
from fedmtl.trees import Params


class Handler:
    """A node that holds some clients. `trusted`: it may be asked for sums over its clients instead of their replies."""

    def __init__(self, host: Host | MixedHost, clients: Sequence[int], *, trusted: bool) -> None:
        self.host, self.clients, self.trusted = host, list(clients), trusted
        self.members = frozenset(self.clients)
        self.whole = len(self.clients) == host.federation.clients

    def __call__(self, message: Message) -> Message:
        """The reply; a failure of ours is an error reply that says why."""
        try:
            if message.metadata.message_type == MessageType.QUERY:
                return self._query(message)
            with spans.span("messages"):
                return self._train(message) if message.metadata.message_type == MessageType.TRAIN else self._evaluate(message)
        except PrivacyError as error:
            return refusal(message, str(error), LEAKED)
        except FedmtlError as error:
            return refusal(message, str(error))

    def _asked(self, message: Message) -> tuple[int, list[int], Parcel]:
        asked, sent = about(message), payload(message) if ARRAYS in message.content else None
        row = {client: i for i, client in enumerate(asked["clients"])} if asked["addressed"] else None
        parcel = Parcel(to_params(sent) if sent else {}, row)
        return asked["round"], [c for c in asked["clients"] if c in self.members], parcel

    def _query(self, message: Message) -> Message:
        data = self.host.federation
        columns = {"client": self.clients, "group": data.group[self.clients].tolist()}
        columns |= {part: data.sizes(part)[self.clients].tolist() for part in PARTS}
        tasks = [data.tasks[client] for client in self.clients]
        return answer(message, columns, {"tasks": tasks, "registered": data.clients, "trusted": self.trusted})

    def _train(self, message: Message) -> Message:
        number, clients, parcel = self._asked(message)
        asked = about(message)
        weights, effort = (self._told(asked, name, clients) for name in ("weights", "effort"))
        with spans.span("local work"):
            out = self.host.train(number, clients, parcel, weights, effort)
        columns = {"client": out.clients, "num-examples": self.host.sizes[out.clients].tolist(), "loss": out.loss,
                   **{name: [done[i] for done in out.work] for i, name in enumerate(LEDGER)}}
        shards, sums = (out.shards, out.sums) if not (self.whole and out.sums) else ([0], self._total(out))
        failed = {"failed": list(out.failed), "reasons": list(out.failed.values()), "shards": shards,
                  "form": "rows" if weights is None else "sums"}
        return answer(message, columns, failed, to_arrays(out.rows or sums))

    def _total(self, out: Trained) -> Params:
        """What the server would make of the sums over shards, [1, ...], where no other node holds any."""
        sums = ShardSums(range(self.host.scenario.runtime.shards * len(self.host.names)))
        sums.merge(out.shards, out.sums)
        return {name: leaf.unsqueeze(0) for name, leaf in sums.total().items()}

    @staticmethod
    def _told(asked: Mapping[str, Any], name: str, clients: Sequence[int]) -> Numbers | None:
        """[len(clients)] what a message says of each client under a name, where it does."""
        of = dict(zip(asked["clients"], asked[name], strict=True)) if name in asked else None
        return None if of is None else np.array([of[client] for client in clients])

    def _look_ahead(self, message: Message) -> Message:
        """The affinities of the steps that the message holds beside what clients were sent."""
        number, clients, parcel = self._asked(message)
        steps = {name.removeprefix(AHEAD): leaf for name, leaf in parcel.params.items() if name.startswith(AHEAD)}
        sent = {name: leaf for name, leaf in parcel.params.items() if not name.startswith(AHEAD)}
        with spans.span("evaluation"):
            table, failed = self.host.look_ahead(number, clients, Parcel(sent, parcel.row), steps)
        told = {"failed": list(failed), "reasons": list(failed.values())}
        return answer(message, {"client": clients}, told, to_arrays({"affinity": torch.from_numpy(table)}))

    def _evaluate(self, message: Message) -> Message:
        if "steps" in about(message):
            return self._look_ahead(message)
        number, clients, parcel = self._asked(message)
        with spans.span("evaluation"):
            scores, failed = self.host.evaluate(number, clients, parcel)
        table = torch.from_numpy(np.stack(list(scores.values())) if scores else np.zeros((0, len(clients))))
        told = {"scores": ["/".join(key) for key in scores], "failed": list(failed), "reasons": list(failed.values())}
        return answer(message, {"client": clients}, told, to_arrays({"scores": table}))
