"""A method as a Flower Strategy: writes the messages, lets replies in, keeps every client's numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedmtl import keys
from fedmtl.algorithms.deltas import PREFIX
from fedmtl.algorithms.steps import Client
from fedmtl.errors import ScenarioError, TooManyFailures
from fedmtl.mtl.modulation.base import Changes, steered
from fedmtl.mtl.standing import Standing
from fedmtl.scenario import Scenario
from fedmtl.server import relations
from fedmtl.server.admit import RejectedError, read_affinity, read_scores
from fedmtl.server.intake import Intake
from fedmtl.server.messages import request, size_of, to_arrays, to_params
from fedmtl.server.reduce import ShardSums, deal
from fedmtl.server.replies import Accepted
from fedmtl.server.roster import Roster
from fedmtl.server.round import Round
from fedmtl.tasks.held_back import held_back
from fedmtl.trees import Params, pick


class MethodStrategy(Strategy):
    """Runs one method of `scenario` from the initial model; `rounds` keeps what happened, round by round.

    model: the parameters of all groups of clients. metrics: the scores that clients report; anything else in their replies is
    refused. groups: the names of each group's parameters; one group that has all is the usual case. clients: how many there
    are, where tasks.clients does not say it. public: see Host.on_public.
    """

    def __init__(self, scenario: Scenario, model: Params, wire: frozenset[str],
                 metrics: Collection[str] = ("accuracy", "mse", "rmse", "loss"),
                 groups: Sequence[Collection[str]] = (), clients: int | None = None,
                 public: Callable[[int, int], Client] | None = None) -> None:
        self.scenario, self.method, self.like = scenario, scenario.method, model
        self.initial = self.method.init(model, wire, scenario.tasks.clients if clients is None else clients)
        self.allowed = pick(model, wire)
        self.metrics, self.public = metrics, public
        self.groups = [frozenset(names) for names in groups or [model]]
        self.roster: Roster | None = None
        self.rounds: dict[int, Round] = {}
        self.last = scenario.rounds
        """The number of the last round; a budget may make it an earlier one."""
        self._made: tuple[ArrayRecord, Params] | None = None
        trunk = steered(self.initial) if scenario.server.modulation != "none" else []
        self.steered = [*trunk, *(PREFIX + name for name in trunk)]
        if scenario.server.modulation != "none" and not self.steered:
            raise ScenarioError("server.modulation", f"'{scenario.algorithm.name}' averages no parameters of the trunk")
        for key in ("relations", "affinity"):
            if getattr(scenario.evaluation, key):
                relations.fits(self.method, self.initial, f"evaluation.{key}")

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
            self.shard = deal(self.roster.sizes["train"], self.scenario.runtime.shards, self.roster.group)
            self.standing = Standing(self.roster.sizes["train"], group=self.roster.group)
        return self.roster

    @cached_property
    def members(self) -> npt.NDArray[np.int64]:
        """The clients that take part in training: all but those that are held back."""
        out = held_back(self.scenario.tasks.held_back, self._roster.group, self.scenario.seed)
        return np.setdiff1d(np.arange(self._roster.clients), out)

    def pick(self, number: int) -> list[int]:
        """The clients of a round: the same whatever the runtime, and never those that are held back."""
        members = self.members
        count = max(1, round(self.scenario.server.participation * len(members)))
        picked = self.scenario.scheduler.pick(number, count, self.standing.of(members), self.scenario.seed)
        return [int(members[place]) for place in picked]

    def effort(self, number: int, clients: list[int]) -> dict[int, float]:
        """The share of its steps that each of `clients` makes; empty where everyone makes all."""
        training, sizes = self.scenario.training, self._roster.sizes["train"][clients]
        steps = -(-self.scenario.sampler.rows(sizes, training.batch_size) // training.batch_size) * training.epochs
        share = self.scenario.pace.shares(number, np.asarray(clients, np.int64), steps, self.scenario.seed)
        return {} if (share >= 1).all() else dict(zip(clients, share.tolist(), strict=True))

    def relates(self, number: int, how: str = "relations") -> bool:
        """Whether a round's updates of the trunk are compared: every evaluation.relations, or affinity, rounds, and in the last."""
        every: int = getattr(self.scenario.evaluation, how)
        return every > 0 and (number % every == 0 or number == self.scenario.rounds)

    @property
    def _roster(self) -> Roster:
        if self.roster is None:
            raise RuntimeError("the strategy has not met its clients yet: call configure_train first")
        return self.roster

    def weights(self, clients: list[int]) -> npt.NDArray[np.float64]:
        """[len(clients)] how much each client's reply counts in the round that `configure_train` began."""
        return self._weights[clients]

    def _state(self, arrays: ArrayRecord) -> Params:
        """The server's state that `arrays` holds; what this strategy made itself is not decoded again."""
        if self._made is None or self._made[0] is not arrays:
            self._made = arrays, to_params(arrays)
        return self._made[1]

    def _requests(self, kind: str, number: int, clients: list[int], arrays: ArrayRecord, **told: Any) -> list[Message]:
        """One message a node. told: what else it says; a callable is asked for the node's clients."""
        state = self._state(arrays)
        sends = self.method.sends_to(state, clients) if self.method.addressed else self.method.sends(state)
        shared = None if self.method.addressed else arrays if sends.keys() == state.keys() else to_arrays(sends)
        out = []
        for node, mine in sorted(self._roster.by_node(clients).items(), key=lambda pair: pair[1][0]):
            about = {"round": number, "clients": mine, "addressed": self.method.addressed}
            about |= {name: value(mine) if callable(value) else value for name, value in told.items()}
            own = to_arrays(rows_of(sends, clients, mine)) if shared is None else shared
            out.append(request(kind, node, about, own))
        return out

    def _sent(self, state: Params, clients: list[int]) -> int:
        """The bytes that it takes to send `clients` what the method sends."""
        if not self.method.addressed:
            return self._bytes({name: size_of({name: leaf}) for name, leaf in self.method.sends(state).items()}, clients)
        one = self.method.sends_to(state, clients[:1])
        return self._bytes({name: size_of({name: leaf}) for name, leaf in one.items()}, clients)

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """One message for each node that holds a client of this round."""
        roster, now = self.join(grid), self.round(server_round)
        now.effort = self.effort(server_round, picked := self.pick(server_round))
        now.sampled = [client for client in picked if now.effort.get(client, 1.0) > 0]
        self._weights = self.scenario.weighting.weights(self.standing, server_round, self.scenario.seed)
        self._before = self._state(arrays)
        now.bytes_down = self._sent(self._before, now.sampled)
        related = self.relates(server_round) or self.relates(server_round, "affinity")
        alone = self.method.rows or self.steered or related or now.effort
        told = {"weights": lambda mine: self.weights(mine).tolist()} if roster.trusted and not alone else {}
        told |= {"effort": lambda mine: [now.effort[client] for client in mine]} if now.effort else {}
        return self._requests(MessageType.TRAIN, server_round, now.sampled, arrays, **told)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The method's server half on the replies that were let in; None where there are none, so that the state stays.

        Raises TooManyFailures past server.max-failures, PrivacyError where a method tried to leak.
        """
        now = self.round(server_round)
        shards = self.scenario.runtime.shards * len(self.groups)
        intake = Intake(now, self._roster, self.allowed, self.groups, self._users, self.method.statistics, ShardSums(range(shards)))
        intake.take(replies)
        sums, gathered, group, sizes = intake.sums, intake.gathered, self._roster.group, self._roster.sizes["train"]
        self._judge(now)
        self.standing.take(now.loss)
        if not now.accepted:
            return None, None
        if self.relates(server_round):
            now.relations = relations.relate(self.method, self._before, gathered, sorted(now.accepted))
        if self.relates(server_round, "affinity"):
            now.affinity = relations.steps_of(self.method, self._before, gathered, sorted(now.accepted))
        for lever in (self.scenario.weighting, self.scenario.scheduler):
            self.standing.memory |= lever.learn(self.standing, sorted(now.accepted))
        let_in = Accepted(server_round, sorted(now.accepted), sums, gathered, group, self.shard, sizes, self.weights, self._users,
                          self._dtype, self.steered, lambda rows, weights: self._modulate(now, rows, weights), self.public)
        now.bytes_up = self._bytes(let_in.sent(), now.accepted)
        state = self.method.server(self._before, let_in)
        now.figures = self.method.figures(state)
        self._made = to_arrays(state), state
        metrics = MetricRecord({"client": sorted(now.accepted), "loss": [now.loss[c] for c in sorted(now.accepted)]})
        return self._made[0], metrics

    def _modulate(self, now: Round, rows: Params, weights: torch.Tensor) -> Params:
        """The parameters that server.modulation makes of the rows [K, ...] of the clients that were let in."""
        before = {} if self.method.averages == "changes" else pick(self.method.sends(self._before), rows)
        changes = Changes(rows, before, weights / weights.sum(), sorted(now.accepted))
        key = keys.stream(self.scenario.seed, "modulation", now.number)
        out, learnt = self.scenario.modulation.combine(changes, self.standing, key)
        self.standing.memory |= learnt
        return out

    def _users(self, name: str, clients: list[int]) -> list[int]:
        """Those of `clients` whose model has a parameter; a statistic is everyone's."""
        last = name.rsplit("/", 1)[-1]
        having = [last in names or last in self.method.statistics for names in self.groups]
        return clients if all(having) else [client for client in clients if having[self._roster.group[client]]]

    def _dtype(self, name: str) -> torch.dtype:
        """Of a parameter its own; of a statistic that of the training."""
        like = self.like.get(name.rsplit("/", 1)[-1])
        return getattr(torch, self.scenario.training.dtype) if like is None else like.dtype

    def _bytes(self, sizes: Mapping[str, int], clients: list[int]) -> int:
        """What it takes to move leaves of `sizes` bytes to or from each client that has them."""
        return sum(size * len(self._users(name, clients)) for name, size in sizes.items())

    def _judge(self, now: Round) -> None:
        if len(now.rejected) > self.scenario.server.max_failures * len(now.sampled):
            shown = "; ".join(f"client {c}: {why}" for c, why in sorted(now.rejected.items())[:3])
            raise TooManyFailures(f"round {now.number}: {len(now.rejected)} of {len(now.sampled)} clients failed "
                                  f"(server.max-failures = {self.scenario.server.max_failures}). {shown}")

    def configure_affinity(self, server_round: int) -> list[Message]:
        """Where affinity is due, one message for each node: what its clients were sent, and every client's step from there."""
        now = self.round(server_round)
        if now.affinity is None:
            return []
        state, clients, updates = self._before, now.affinity.clients, now.affinity.updates
        sends = self.method.sends_to(state, clients) if self.method.addressed else self.method.sends(state)
        now.bytes_evaluate += self._sent(state, clients) + len(clients) * size_of(updates)
        out = []
        for node, mine in sorted(self._roster.by_node(clients).items(), key=lambda pair: pair[1][0]):
            own = rows_of(sends, clients, mine) if self.method.addressed else sends
            about = {"round": server_round, "clients": mine, "addressed": self.method.addressed, "steps": len(clients)}
            out.append(request(MessageType.EVALUATE, node, about, to_arrays({**own, **updates})))
        return out

    def aggregate_affinity(self, server_round: int, replies: Iterable[Message]) -> None:
        """Takes the columns of the affinities from the clients that told theirs; a reply that cannot be used leaves NaN."""
        now = self.round(server_round)
        assert now.affinity is not None
        place, by_node = {client: i for i, client in enumerate(now.affinity.clients)}, self._roster.by_node(now.affinity.clients)
        for reply in replies:
            asked = by_node.pop(reply.metadata.src_node_id, [])
            try:
                clients, rows = read_affinity(reply, asked, len(place))
            except RejectedError as error:
                now.unscored |= dict.fromkeys(asked, f"affinity: {error}")
                continue
            now.affinity.table[:, [place[client] for client in clients]] = rows.T

    def configure_evaluate(self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Iterable[Message]:
        """One message for each node that holds a client to be scored, every evaluation.every rounds and after the last."""
        every, now = self.scenario.evaluation.every, self.round(server_round)
        if server_round % every and server_round != self.last:
            return []
        self.join(grid)
        scope = self.scenario.evaluation.clients
        now.scored = now.sampled if scope == "sampled" else self.members.tolist()
        now.bytes_evaluate += self._sent(self._state(arrays), now.scored)
        return self._requests(MessageType.EVALUATE, server_round, now.scored, arrays)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Every client's scores, kept apart in `rounds`; the record holds their plain means."""
        now = self.round(server_round)
        place = {client: i for i, client in enumerate(now.scored)}
        by_node, expected = self._roster.by_node(now.scored), self._expected_scores()
        for reply in replies:
            asked = by_node.pop(reply.metadata.src_node_id, [])
            try:
                clients, scores, failed = read_scores(reply, asked, expected)
            except RejectedError as error:
                now.unscored |= dict.fromkeys(asked, str(error))
                continue
            where = [place[client] for client in clients]
            now.unscored |= failed | dict.fromkeys(sorted(set(asked) - set(clients)), "its node's reply leaves it out")
            for key, values in scores.items():
                now.scores.setdefault(key, np.full(len(now.scored), np.nan))[where] = values
        for silent in by_node.values():
            now.unscored |= dict.fromkeys(silent, "no reply in time")
        if not now.scores:
            return None
        return MetricRecord(dict(now.means))

    def _expected_scores(self) -> set[tuple[str, ...]]:
        """(part, model, metric) of everything that a client of this method can be scored on."""
        models = {"personal"} | ({"adapted"} if self.method.adapts else set())
        if not self.method.addressed and set(self.like) <= set(self.method.sends(self.initial)):
            models.add("global")
        return {(part, model, metric) for part in self.scenario.evaluation.parts for model in models for metric in self.metrics}

    def summary(self) -> None:
        """Nothing to log: fedmtl's console says what runs."""


def rows_of(made: Params, clients: Sequence[int], some: Sequence[int]) -> Params:
    """Of the rows [K, ...] of `clients` those of `some` of them. What is sent is made for all at once: bits of a product depend on
    how many rows it has, and must not on how many nodes there are.
    """
    place = {client: i for i, client in enumerate(clients)}
    where = torch.tensor([place[client] for client in some], dtype=torch.int64)
    return made if list(some) == list(clients) else {name: leaf[where] for name, leaf in made.items()}
