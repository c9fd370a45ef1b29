"""What the server's half of a method must hold, with the strategy that calls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from flwr.app import Message
from safetensors.torch import load, save
from torch import Tensor

from fedmtl.algorithms.base import Algorithm
from fedmtl.client.store import DirectoryStore
from fedmtl.conformance.case import ONE_STEP, SIZES, Trial, copies_of, small_federation
from fedmtl.conformance.compare import assert_same, same
from fedmtl.runs.truth import estimates_of
from fedmtl.server.messages import ARRAYS, CLIENTS, to_arrays, to_params
from fedmtl.trees import Params

ORDER = [2, 0, 4, 1, 3]
VICTIM = 2


@lru_cache(maxsize=4)
def usual(method: Algorithm) -> Trial:
    """A trial after two rounds in which nothing happens; it is to stay there."""
    trial = Trial(method, sections=ONE_STEP)
    trial.rounds(2)
    return trial


def listens(method: Algorithm) -> None:
    """Whatever clients send counts: other parameters, or another statistic, leave the server in another state."""
    def usual_then(alter: Callable[[list[Message]], list[Message]]) -> Params:
        trial = Trial(method, sections=ONE_STEP)
        trial.rounds(1)
        out = trial.rounds(1, alter)
        assert not trial.strategy.rounds[2].rejected, f"replies were rejected: {trial.strategy.rounds[2].rejected}"
        return out

    kinds: set[str] = set()

    def looked_at(replies: list[Message]) -> list[Message]:
        kinds.update(_kind(name, method) for reply in replies for name in _sent(reply))
        return replies

    before = usual_then(looked_at)
    for kind in sorted(kinds):
        after = usual_then(lambda replies, kind=kind: [_shifted(reply, i, kind, method)  # type: ignore[misc]
                                                       for i, reply in enumerate(replies)])
        what = f"'{kind}'" if kind else "parameters"
        assert not same(before, after), f"the server does the same whatever clients send as {what}"


def _kind(name: str, method: Algorithm) -> str:
    """A statistic by its name, parameters by what stands before theirs."""
    return name if name.rsplit("/", 1)[-1] in method.statistics else name.rpartition("/")[0]


def _sent(reply: Message) -> Params:
    return to_params(reply.content.array_records[ARRAYS]) if reply.content.array_records else {}


def _shifted(reply: Message, number: int, kind: str, method: Algorithm) -> Message:
    """A reply whose leaves of one kind are others, those of each client by another amount."""
    for record, arrays in reply.content.array_records.items():
        reply.content[record] = to_arrays({name: leaf + 0.01 * (number + 1) if _kind(name, method) == kind else leaf
                                           for name, leaf in to_params(arrays).items()})
    return reply


def order_of_replies(method: Algorithm) -> None:
    """Replies that arrive in another order give the same bits."""
    other = Trial(method, sections=ONE_STEP).rounds(2, lambda replies: [replies[i] for i in ORDER])
    assert_same(usual(method).state, other, "the server's state depends on the order of replies")


def scaled_weights(method: Algorithm) -> None:
    """Weights times a constant change nothing (to 1e-6)."""
    other = Trial(method, sections=ONE_STEP, factor=3.7).rounds(2)
    assert_same(usual(method).state, other, "the server's state depends on the sum of the weights", tolerance=1e-6)


def learning_rate_0(method: Algorithm) -> None:
    """Learning rate 0 is a fixed point: the parameters that the server sends stay (to 1e-6)."""
    own = [f.name for f in fields(method) if f.name == "lr" or f.name.endswith("_lr") or f.name.startswith("eta")]
    trial = Trial(replace(method, **dict.fromkeys(own, 0.0)), sections={"training": {"lr": 0.0, **ONE_STEP["training"]}},
                  together=True)
    before = _parameters(trial)
    trial.rounds(2)
    assert_same(before, _parameters(trial), "with learning rate 0 what is shared moves", tolerance=1e-6)


def _parameters(trial: Trial) -> Params:
    return {name: leaf for name, leaf in trial.shared.items() if name.rsplit("/", 1)[-1] not in trial.method.statistics}


@lru_cache(maxsize=4)
def _alone_and_many(method: Algorithm) -> tuple[dict[str, Params], dict[str, Params]]:
    """What a client, and three copies of one, leave behind after two rounds with full batches in float64."""
    sections, out = {"training": {"dtype": "float64", "batch-size": max(SIZES)}}, []
    for n in (1, 3):
        trial = Trial(method, copies_of(small_federation(), 3, n), sections)
        trial.rounds(2)
        out.append({"is sent": trial.shared, "keeps": trial.kept(), "state": trial.state})
    return out[0], out[1]


def copies(method: Algorithm) -> None:
    """Three copies of a client are that client: in what is sent, kept and in the server's state (to 1e-9 in float64).

    Where the state has a place for each client every copy's is the client's; one for each pair is left to `alike`.
    """
    alone, many = _alone_and_many(method)
    for what, one in alone.items():
        three = {name: leaf for name, leaf in many[what].items() if name not in one or not _by_pair(one[name], leaf)}
        whole = {name: leaf if three[name].shape == leaf.shape else leaf.expand_as(three[name]) if _by_client(leaf, three[name])
                 else leaf for name, leaf in one.items() if name in three}
        told = "three copies of a client leave another state of the server than the client" if what == "state" else (
            f"a copy {what} something else than the client")
        assert_same(whole, three, told, tolerance=1e-9)


def alike(method: Algorithm) -> None:
    """The server and the clients make no difference between three copies of a client (to 1e-9 in float64)."""
    alone, many = _alone_and_many(method)
    for what, three in many.items():
        for name, leaf in three.items():
            one = alone[what].get(name)
            told = f"copies of a client are not treated alike: '{name}' {'of the server' if what == 'state' else what}"
            if one is not None and _by_pair(one, leaf):
                turned = leaf.roll((1, 1), (0, 1))
            elif one is not None and not _by_client(one, leaf):
                continue
            else:
                turned = leaf.roll(1, 0)
            assert_same({name: leaf}, {name: turned}, told, tolerance=1e-9)


def _by_client(alone: Tensor, many: Tensor) -> bool:
    """Whether a leaf has one row a client, where there is one client and where there are three."""
    return len(alone.shape) > 0 and alone.shape[0] == 1 and many.shape[:1] == (3,) and alone.shape[1:] == many.shape[1:]


def _by_pair(alone: Tensor, many: Tensor) -> bool:
    return alone.shape[:2] == (1, 1) and many.shape[:2] == (3, 3) and alone.shape[2:] == many.shape[2:]


def _spoil(reply: Message, how: str) -> Message:
    params = to_params(reply.content.array_records[ARRAYS])
    if how == "weight":
        reply.content.metric_records[CLIENTS]["num-examples"] = [-1]
    elif how == "missing":
        del reply.content[CLIENTS]
    else:
        fill = torch.nan if how == "nan" else 1e30
        reply.content[ARRAYS] = to_arrays({name: torch.full_like(leaf, fill) for name, leaf in params.items()})
    return reply


def rejected_is_absent(method: Algorithm) -> None:
    """A reply that is not let in leaves the server where it would be had the client not answered."""
    absent = Trial(method, sections=ONE_STEP)
    ways = ("nan", "huge") if absent.shared else ("missing",)
    absent.rounds(3, lambda replies: replies[:VICTIM] + replies[VICTIM + 1:])
    spoilt = Trial(method, sections=ONE_STEP)
    for how in ("weight", *ways):
        spoilt.rounds(1, lambda replies, how=how: [  # type: ignore[misc]
            _spoil(reply, how) if i == VICTIM else reply for i, reply in enumerate(replies)])
        now = spoilt.strategy.rounds[spoilt.number]
        assert list(now.rejected) == [VICTIM], f"a spoilt reply ({how}) was let in, or others were rejected: {now.rejected}"
    spoilt.rounds(absent.number - spoilt.number, lambda replies: replies[:VICTIM] + replies[VICTIM + 1:])
    assert_same(absent.state, spoilt.state, "a rejected reply is not the same as no reply")


def empty_round(method: Algorithm) -> None:
    """A round without replies keeps the state, and the next one goes on."""
    trial = Trial(method, sections=ONE_STEP)
    before = trial.rounds(1)
    assert_same(before, trial.rounds(1, _nobody), "a round without replies changes the server's state")
    for name, leaf in trial.rounds(1).items():
        assert leaf.isfinite().all(), f"after a round without replies '{name}' is not finite"


def _nobody(replies: list[Message]) -> list[Message]:
    return []


def round_trip(method: Algorithm) -> None:
    """A run whose server and clients end after every round, and start again from safetensors files, has the same bits."""
    with TemporaryDirectory() as folder:
        state: bytes | None = None
        for number in range(2):
            resumed = Trial(method, sections=ONE_STEP, store=DirectoryStore(Path(folder)), number=number)
            if state is not None:
                resumed.arrays = to_arrays(load(state))
            state = save({name: leaf.contiguous() for name, leaf in resumed.rounds(1).items()})
        assert_same(usual(method).outcome(), resumed.outcome(), "a state that was saved and read again goes on differently")


def estimates(method: Algorithm) -> None:
    """What a method says of its clients (`estimates`, `infer`) has a standard name and a value for every client or pair."""
    trial = usual(method)
    [found] = estimates_of(trial.host, trial.state)
    n = trial.federation.clients
    shapes = {"clusters": (n,), "outliers": (n,), "relation": (n, n), "angle": (n, n), "mixture": (n, None),
              "subspace": (None, None)}
    for name, values in found.items():
        if name not in shapes:
            raise AssertionError(f"'{name}' is no standard name of an estimate: {sorted(shapes)}")
        wanted = shapes[name]
        if values.ndim != len(wanted) or any(size not in (None, got) for size, got in zip(wanted, values.shape, strict=True)):
            raise AssertionError(f"'{name}' of {n} clients has the shape {list(values.shape)}")
