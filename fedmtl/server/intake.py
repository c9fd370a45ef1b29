"""Letting the replies of a round in: what cannot be used is left out with a reason, client by client where that can be told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from flwr.app import Message

from fedmtl.errors import PrivacyError
from fedmtl.server import screen
from fedmtl.server.admit import Answer, RejectedError, odd_ones_out, read_answer
from fedmtl.server.messages import LEAKED, LEDGER
from fedmtl.server.reduce import ShardSums, order_of
from fedmtl.server.replies import Gathered
from fedmtl.server.roster import Roster
from fedmtl.server.round import Round
from fedmtl.trees import Params


@dataclass
class Intake:
    """Takes replies into `sums` and `gathered`, and says in the record `now` who was let in, who was not, and why.

    allowed: what clients may send, by name, without a client axis; statistics: names that may have any shape. groups: the names of
    each group's parameters. users: a name and clients to those of them that have that parameter.
    """

    now: Round
    roster: Roster
    allowed: Params
    groups: Sequence[Collection[str]]
    users: Callable[[str, list[int]], list[int]]
    statistics: Sequence[str]
    sums: ShardSums
    gathered: Gathered = field(default_factory=Gathered)

    def take(self, replies: Iterable[Message]) -> None:
        """All the replies of the round. Raises PrivacyError where a method tried to leak and nobody could be let in."""
        now, leaks, by_node = self.now, list[str](), self.roster.by_node(self.now.sampled)
        for reply in replies:
            asked = by_node.pop(reply.metadata.src_node_id, [])
            try:
                self._admit(read_answer(reply, asked, trusted=self.roster.trusted), asked)
            except RejectedError as error:
                now.rejected |= dict.fromkeys(asked, str(error))
                leaks += [str(error)] if asked and reply.has_error() and reply.error.code == LEAKED else []
        for silent in by_node.values():
            now.rejected |= dict.fromkeys(silent, "no reply in time")
        self._leave_odd_ones_out()
        now.accepted = order_of(self.roster.sizes["train"], [*now.accepted, *self.gathered.clients])
        if leaks and not now.accepted:  # it is the method, not one client that says so
            raise PrivacyError(leaks[0])

    def _admit(self, answer: Answer, asked: list[int]) -> None:
        """Takes from an answer what stands up to the screen. Raises RejectedError where nothing in it does."""
        now, loss = self.now, dict(zip(answer.clients, answer.loss.tolist(), strict=True))
        stacked = {name: torch.from_numpy(array) for name, array in answer.arrays.items()}
        work = answer.work.astype(np.int64)
        now.replied += len(work)
        now.ledger = {name: now.ledger[name] + total for name, total in zip(LEDGER, work.sum(0).tolist(), strict=True)}
        if now.effort:
            now.work |= dict(zip(answer.clients, map(tuple, work[:, :2].tolist()), strict=True))
        if answer.shards is not None:
            self.sums.merge(answer.shards, stacked)
            now.accepted += answer.clients
            now.loss |= loss
            now.rejected |= answer.failed
            return
        present = {int(self.roster.group[client]) for client in asked}
        wanted = {name: leaf for name, leaf in self.allowed.items() if any(name in self.groups[group] for group in present)}
        rows_of = {name: self.users(name, answer.clients) for name in answer.arrays}
        problem = screen.check_reply(answer.arrays, wanted, {name: len(rows) for name, rows in rows_of.items()}, self.statistics)
        if problem:
            raise RejectedError(problem)
        now.rejected |= answer.failed
        now.rejected |= self._unfit(answer, stacked, rows_of)
        now.loss |= {client: loss[client] for client in answer.clients if client not in now.rejected}
        for group in present:
            mine = [client for client in answer.clients if self.roster.group[client] == group]
            own_rows = {name: leaf if len(present) == 1 else leaf[[rows_of[name].index(client) for client in mine]]
                        for name, leaf in stacked.items() if mine and mine[0] in rows_of[name]}
            self.gathered.parts.append((mine, own_rows))
        self.gathered.leave_out({client for client in answer.clients if client in now.rejected})

    def _unfit(self, answer: Answer, stacked: Params, rows_of: dict[str, list[int]]) -> dict[int, str]:
        """Of an answer's clients those whose numbers cannot be used, and why."""
        usable, out = set(answer.clients), dict[int, str]()
        for name, leaf in stacked.items():
            fine = screen.finite({name: leaf}).tolist()
            usable -= {client for client, good in zip(rows_of[name], fine, strict=True) if not good}
        for slot, client in enumerate(answer.clients):
            wrong = screen.check_weight(float(answer.claimed[slot]), float(self.roster.sizes["train"][client]))
            wrong = wrong or (None if client in usable else "its parameters are not finite")
            out |= {client: wrong} if wrong else {}
        return out

    def _leave_odd_ones_out(self) -> None:
        """Leaves out, group by group, who sent other parameters than most."""
        forms = self.gathered.form_of()
        for number in range(len(self.groups)):
            odd = odd_ones_out({client: form for client, form in forms.items() if self.roster.group[client] == number})
            self.gathered.leave_out(odd)
            self.now.rejected |= odd
            self.now.loss = {client: loss for client, loss in self.now.loss.items() if client not in odd}
