"""A method as a Flower Strategy: writes the messages, lets replies in, keeps every client's numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedmtl import keys
from fedmtl.errors import PrivacyError, TooManyFailures
from fedmtl.scenario import Scenario
from fedmtl.server import screen
from fedmtl.server.messages import (ABOUT, ARRAYS, LEAKED, column, request, size_of, to_arrays, to_numpy, to_params)
from fedmtl.server.reduce import ShardSums, deal, order_of
from fedmtl.server.roster import Roster
from fedmtl.trees import Params


@dataclass
class Round:
    """What happened in one round. loss, scores: one value a client, in the order of `accepted` or `scored`."""

    number: int
    sampled: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    rejected: dict[int, str] = field(default_factory=dict)
    loss: dict[int, float] = field(default_factory=dict)
    scored: list[int] = field(default_factory=list)
    scores: dict[tuple[str, ...], npt.NDArray[np.float64]] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_evaluate: int = 0


class _Accepted:
    """The accepted replies of one round, as a method sees them (algorithms.base.Replies)."""

    def __init__(self, sums: ShardSums, weight: float, like: Params) -> None:
        self.sums, self.weight, self.like = sums, weight, like

    def mean(self) -> Params:
        """The weighted mean, in the parameters' own dtype."""
        return {name: (leaf / self.weight).to(self.like[name].dtype) for name, leaf in self.sums.total().items()}


class MethodStrategy(Strategy):
    """Runs one method of `scenario` from the initial model; `rounds` keeps what happened, round by round."""

    def __init__(self, scenario: Scenario, model: Params, wire: frozenset[str]) -> None:
        self.scenario, self.method, self.like = scenario, scenario.method, model
        self.initial = self.method.init(model, wire)
        self.wire = wire
        self.roster: Roster | None = None
        self.rounds: dict[int, Round] = {}

    def initial_arrays(self) -> ArrayRecord:
        """The server's state before the first round."""
        return to_arrays(self.initial)

    def round(self, number: int) -> Round:
        """The record of a round."""
        return self.rounds.setdefault(number, Round(number))

    def join(self, grid: Grid) -> Roster:
        """The clients, asked for once."""
        if self.roster is None:
            self.roster = Roster.discover(grid, self.scenario.runtime.timeout)
            self.shard = deal(self.roster.sizes["train"], self.scenario.runtime.shards)
        return self.roster

    def pick(self, number: int) -> list[int]:
        """The clients of a round, by keyed draw: the same whatever the runtime."""
        clients = self._roster.clients
        share = max(1, round(self.scenario.server.participation * clients))
        draw = keys.generator(keys.stream(self.scenario.seed, "participation", number))
        return list(range(clients)) if share >= clients else sorted(draw.choice(clients, share, replace=False).tolist())

    @property
    def _roster(self) -> Roster:
        if self.roster is None:
            raise RuntimeError("the strategy has not met its clients yet: call configure_train first")
        return self.roster

    def weights(self, clients: list[int]) -> npt.NDArray[np.float64]:
        """[len(clients)] how much each client's reply counts."""
        if self.scenario.server.weighting == "uniform":
            return np.ones(len(clients))
        return self._roster.sizes["train"][clients].astype(np.float64)

    def _requests(self, kind: str, number: int, clients: list[int], arrays: ArrayRecord, weighted: bool) -> list[Message]:
        state = to_params(arrays) if any(name.startswith("server/") for name in arrays) else None
        sent = arrays if state is None else to_arrays(self.method.sends(state))
        out = []
        for node, mine in sorted(self._roster.by_node(clients).items(), key=lambda pair: pair[1][0]):
            about: dict[str, Any] = {"round": number, "clients": mine}
            if weighted:
                about["weights"] = self.weights(mine).tolist()
            out.append(request(kind, node, about, sent))
        return out

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """One message for each node that holds a client of this round."""
        roster, now = self.join(grid), self.round(server_round)
        now.sampled = self.pick(server_round)
        self._state = to_params(arrays)
        now.bytes_down = size_of(self.method.sends(self._state)) * len(now.sampled)
        return self._requests(MessageType.TRAIN, server_round, now.sampled, arrays, roster.trusted)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The method's server half on the replies that were let in; None where there are none, so that the state stays.

        Raises TooManyFailures past server.max-failures, PrivacyError where a method tried to leak.
        """
        now = self.round(server_round)
        sums = ShardSums(self.scenario.runtime.shards)
        rows: dict[int, Params] = {}
        by_node = self._roster.by_node(now.sampled)
        for reply in replies:
            self._admit(reply, by_node.pop(reply.metadata.src_node_id, []), now, sums, rows)
        for clients in by_node.values():
            now.rejected |= dict.fromkeys(clients, "no reply in time")
        now.accepted = order_of(self._roster.sizes["train"], [*now.accepted, *rows])
        for client in now.accepted:
            if client in rows:
                sums.add(rows[client], self.weights([client]), self.shard[[client]])
        self._judge(now)
        if not now.accepted:
            return None, None
        sample = {name: self.like[name.rsplit("/", 1)[-1]] for name in sums.sums}
        now.bytes_up = size_of(sample) * len(now.accepted)
        state = self.method.server(self._state, _Accepted(sums, float(self.weights(sorted(now.accepted)).sum()), sample))
        metrics = MetricRecord({"client": sorted(now.accepted), "loss": [now.loss[c] for c in sorted(now.accepted)]})
        return to_arrays(state), metrics

    def _admit(self, reply: Message, clients: list[int], now: Round, sums: ShardSums, rows: dict[int, Params]) -> None:
        if reply.has_error():
            if reply.error.code == LEAKED:
                raise PrivacyError(reply.error.reason)
            now.rejected |= dict.fromkeys(clients, reply.error.reason)
            return
        try:
            about = reply.content.config_records[ABOUT]
            names = column(reply.content, "client").astype(np.int64).tolist()
            claimed, loss = column(reply.content, "num-examples"), column(reply.content, "loss")
            arrays = to_numpy(reply.content.array_records[ARRAYS])
            now.rejected |= dict(zip(about["failed"], about["reasons"], strict=True))
        except (KeyError, ValueError) as error:
            now.rejected |= dict.fromkeys(clients, f"malformed reply: {type(error).__name__} {error}")
            return
        if about["form"] == "sums" and self._roster.trusted:
            sums.merge(list(about["shards"]), {k: torch.from_numpy(v) for k, v in arrays.items()})
            now.accepted += names
            now.loss |= dict(zip(names, loss.tolist(), strict=True))
            return
        problem = screen.check_reply(arrays, {n: t for n, t in self.like.items() if n in self.wire}, len(names))
        if problem or not set(names) <= set(clients):
            now.rejected |= dict.fromkeys(clients, problem or f"it answers for clients {names}, but was asked for {clients}")
            return
        stacked = {name: torch.from_numpy(array) for name, array in arrays.items()}
        usable = screen.finite(stacked).tolist() if stacked else [True] * len(names)
        for slot, client in enumerate(names):
            wrong = screen.check_weight(float(claimed[slot]), float(self._roster.sizes["train"][client]))
            wrong = wrong or (None if usable[slot] else "its parameters are not finite")
            if wrong:
                now.rejected[client] = wrong
            else:
                rows[client] = {name: leaf[slot : slot + 1] for name, leaf in stacked.items()}
                now.loss[client] = float(loss[slot])

    def _judge(self, now: Round) -> None:
        if len(now.rejected) > self.scenario.server.max_failures * len(now.sampled):
            shown = "; ".join(f"client {c}: {why}" for c, why in sorted(now.rejected.items())[:3])
            raise TooManyFailures(f"round {now.number}: {len(now.rejected)} of {len(now.sampled)} clients failed "
                                  f"(server.max-failures = {self.scenario.server.max_failures}). {shown}")

    def configure_evaluate(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """One message for each node that holds a client to be scored, every evaluation.every rounds and after the last."""
        every, now = self.scenario.evaluation.every, self.round(server_round)
        if server_round % every and server_round != self.scenario.rounds:
            return []
        roster = self.join(grid)
        scope = self.scenario.evaluation.clients
        now.scored = now.sampled if scope == "sampled" else list(range(roster.clients))
        now.bytes_evaluate = size_of(self.method.sends(to_params(arrays))) * len(now.scored)
        return self._requests(MessageType.EVALUATE, server_round, now.scored, arrays, False)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Every client's scores, kept apart in `rounds`; the record holds them as lists."""
        now = self.round(server_round)
        place = {client: i for i, client in enumerate(now.scored)}
        for reply in replies:
            if reply.has_error():
                continue
            metrics = reply.content.metric_records["clients"]
            where = [place[c] for c in metrics["client"]]
            for name, values in metrics.items():
                if name != "client":
                    key = tuple(name.split("/"))
                    now.scores.setdefault(key, np.full(len(now.scored), np.nan))[where] = values
        if not now.scores:
            return None
        return MetricRecord({"client": now.scored} | {"/".join(k): v.tolist() for k, v in now.scores.items()})

    def summary(self) -> None:
        """Nothing to log: fedmtl's console says what runs."""
