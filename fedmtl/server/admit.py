"""Reading replies: whatever is wrong with one is the fault of who sent it, and costs nobody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message

from fedmtl.server.messages import LEDGER, about, column, payload, to_numpy

Numbers = npt.NDArray[Any]


class RejectedError(Exception):
    """A reply that cannot be used; the text is the reason."""


@dataclass(frozen=True)
class Answer:
    """A reply to a train message. clients: [K] who answered; claimed, loss: [K]; failed: the others, with reasons.

    work: [K, 6] what each says that it did and keeps, in the order of LEDGER.

    arrays: leaves [K, ...], or where `shards` holds shard numbers, sums over whole shards [len(shards), ...].
    """

    clients: list[int]
    claimed: Numbers
    loss: Numbers
    work: Numbers
    failed: dict[int, str]
    arrays: dict[str, Numbers]
    shards: list[int] | None


def read_answer(reply: Message, asked: Sequence[int], *, trusted: bool) -> Answer:
    """A node's reply for the clients it was asked for. Raises RejectedError; sums are taken from trusted nodes only."""
    if reply.has_error():
        raise RejectedError(reply.error.reason or f"error {reply.error.code}")
    try:
        clients, told = _clients(reply, asked), about(reply)
        claimed, loss = (_column(reply, name, len(clients)) for name in ("num-examples", "loss"))
        work = np.stack([_column(reply, name, len(clients)) for name in LEDGER], 1)
        if not (np.isfinite(work) & (work >= 0)).all():
            raise RejectedError(f"malformed reply: a client says its {', '.join(LEDGER)}, each 0 or more")
        failed = _failed(told, asked)
        arrays = to_numpy(payload(reply))
        shards = [int(shard) for shard in _list(told["shards"])] if trusted and told["form"] == "sums" else None
    except RejectedError:
        raise
    except Exception as error:  # bytes from outside: numpy alone raises a dozen kinds
        raise RejectedError(f"malformed reply: {type(error).__name__}: {error}") from error
    silent = set(asked) - set(clients) - set(failed)
    failed |= dict.fromkeys(sorted(silent), "its node's reply leaves it out")
    return Answer(clients, claimed, loss, work, failed, arrays, shards)


def read_scores(reply: Message, asked: Sequence[int],
                expected: Collection[tuple[str, ...]]) -> tuple[list[int], dict[tuple[str, ...], Numbers], dict[int, str]]:
    """(clients [K], (part, model, metric) to [K], who failed and why) of a reply to an evaluate message. Raises RejectedError."""
    if reply.has_error():
        raise RejectedError(reply.error.reason or f"error {reply.error.code}")
    try:
        clients = _clients(reply, asked)
        told = about(reply)
        names, failed = [tuple(str(name).split("/")) for name in _list(told["scores"])], _failed(told, asked)
        table = to_numpy(payload(reply))["scores"]
        if table.shape != (len(names), len(clients)) or table.dtype != np.float64:
            raise RejectedError(f"malformed reply: scores {table.dtype} {list(table.shape)}, not {len(names)} x {len(clients)}")
        scores = dict(zip(names, table, strict=True))
    except RejectedError:
        raise
    except Exception as error:
        raise RejectedError(f"malformed reply: {type(error).__name__}: {error}") from error
    strange = sorted("/".join(key) for key in set(scores) - set(expected))
    if strange:
        raise RejectedError(f"unexpected scores {strange[:3]}")
    return clients, scores, failed


def read_affinity(reply: Message, asked: Sequence[int], steps: int) -> tuple[list[int], Numbers]:
    """(clients [n], affinities [n, steps]) of a reply to a message about so many steps. Raises RejectedError."""
    if reply.has_error():
        raise RejectedError(reply.error.reason or f"error {reply.error.code}")
    try:
        clients, table = _clients(reply, asked), to_numpy(payload(reply))["affinity"]
    except RejectedError:
        raise
    except Exception as error:
        raise RejectedError(f"malformed reply: {type(error).__name__}: {error}") from error
    if table.shape != (len(clients), steps) or table.dtype != np.float64:
        raise RejectedError(f"malformed reply: affinities {table.dtype} {list(table.shape)}, not {len(clients)} x {steps}")
    return clients, table


def odd_ones_out(forms: Mapping[int, frozenset[tuple[str, Any]]]) -> dict[int, str]:
    """Clients that sent other parameters than most did (of equal numbers: than those who sent more), with the reason.

    forms: the (name, shape) pairs that each client sent. A mean over some of the clients would be divided by the weight of all.
    """
    sets = Counter(forms.values())
    usual = max(sets, key=lambda form: (sets[form], len(form), sorted(map(str, form))), default=frozenset())
    return {client: f"parameters {sorted({name for name, _ in usual ^ form})[:3]} are missing, or nobody else sent such"
            for client, form in forms.items() if form != usual}


def _clients(reply: Message, asked: Sequence[int]) -> list[int]:
    ids = column(reply, "client")
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise RejectedError("malformed reply: client ids must be a list of integers")
    clients: list[int] = ids.astype(np.int64).tolist()
    if not set(clients) <= set(asked):
        raise RejectedError(f"it answers for clients {clients[:3]}, but was asked for {list(asked)[:3]}")
    if len(set(clients)) < len(clients):
        raise RejectedError("it answers twice for one client")
    return clients


def _column(reply: Message, name: str, length: int) -> Numbers:
    values = column(reply, name)
    if values.shape != (length,):
        raise RejectedError(f"malformed reply: '{name}' must hold a number for each of {length} clients")
    return values.astype(np.float64)


def _list(values: object) -> list[Any]:
    if not isinstance(values, list):
        raise RejectedError("malformed reply: a list is missing")
    return values


def _failed(told: Mapping[str, Any], asked: Sequence[int]) -> dict[int, str]:
    said = zip(_list(told["failed"]), _list(told["reasons"]), strict=True)
    return {int(client): str(reason) for client, reason in said if client in asked}
