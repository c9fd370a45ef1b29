"""Every method in the folder holds every property: adding a file adds its tests. And every property catches its fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmtl.algorithms.base import Algorithm, Replies, Update
from fedmtl.algorithms.ditto import Ditto
from fedmtl.algorithms.fedavg import Fedavg
from fedmtl.algorithms.fedper import Fedper
from fedmtl.algorithms.fedprox import Fedprox
from fedmtl.algorithms.lg_fedavg import LgFedavg
from fedmtl.algorithms.local import Local
from fedmtl.algorithms.mr_mtl import MrMtl
from fedmtl.algorithms.steps import Client
from fedmtl.conformance import AS_SHIPPED, PROPERTIES, RELAXED, check_algorithm
from fedmtl.conformance.outcome import predictions
from fedmtl.registry import discover
from fedmtl.trees import Params, Tree, sqdist

METHODS = discover("fedmtl.algorithms", Algorithm)
VARIANTS = [Fedper(share="all"), Fedper(share="none"), Fedper(share="all-norm"), LgFedavg(warm_rounds=1), MrMtl(pull="trunk")]
"""Other hyper-parameters that change what is sent or when; the first two are FedAvg and Local, as they should be."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == "learns" else name for name in PROPERTIES])
@pytest.mark.parametrize("method", METHODS)
def test_method(method: str, name: str) -> None:
    cls = METHODS[method]
    if name in set(cls.departs) - RELAXED:
        pytest.skip(cls.departs[name])
    check_algorithm(cls, only=[name])


@pytest.mark.parametrize(("method", "name"), [
    pytest.param(method, name, marks=pytest.mark.slow if name == "learns" else ())
    for method, cls in METHODS.items() for name in cls.departs])
def test_no_method_departs_without_need(method: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(METHODS[method], "departs", {})
    with pytest.raises(AssertionError, match=f"{METHODS[method].__name__}, {name}: "):
        check_algorithm(METHODS[method], only=[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PROPERTIES if name not in {*AS_SHIPPED, "distinct"}])
@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_variant(method: Algorithm, name: str) -> None:
    check_algorithm(method, only=[name])


def test_methods_are_found() -> None:
    named = "local fedavg fedavg-ft fedprox fedper fedrep fedbabu lg-fedavg ditto mr-mtl"
    assert set(METHODS) >= set(named.split())
    assert len(METHODS) >= 38


@dataclass(frozen=True, kw_only=True)
class Detached(Fedprox):
    """FedProx whose penalty is built from detached tensors."""

    mu: float = 0.5

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        def near(w, batch):
            return client.loss(w, batch) + self.mu / 2 * sqdist({k: v.data for k, v in w.items()}, received)

        return client.sgd(near, received), {}


@dataclass(frozen=True, kw_only=True)
class DrawsTorch(Fedavg):
    """Adds noise from torch's generator."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        return {k: v + 1e-3 * torch.randn(()) for k, v in client.sgd(client.loss, received).items()}, {}


@dataclass(frozen=True, kw_only=True)
class DrawsFresh(Fedavg):
    """Adds noise from a generator of its own without a key."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        draw = np.random.default_rng()
        return {k: v + 1e-3 * float(draw.normal()) for k, v in client.sgd(client.loss, received).items()}, {}


@dataclass(frozen=True, kw_only=True)
class DrawsBySlot(Fedavg):
    """Adds noise from a seed that is the same everywhere: a client's depends on its place in the cohort."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        draw = torch.Generator().manual_seed(0)
        return {k: v + 1e-3 * torch.randn(v.shape, generator=draw) for k, v in client.sgd(client.loss, received).items()}, {}


@dataclass(frozen=True, kw_only=True)
class DrawsNumpy(Fedavg):
    """Draws from numpy's generator, and throws the number away."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        np.random.random()  # noqa: NPY002
        return super().local(client, received, kept)


@dataclass(frozen=True, kw_only=True)
class Mutates(Fedavg):
    """Writes into what it received."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        sent = client.sgd(client.loss, received)
        for leaf in received.values():
            leaf.mul_(0.5)
        return sent, {}


@dataclass(frozen=True, kw_only=True)
class MutatesKept(Ditto):
    """Writes into what it keeps."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        out = super().local(client, received, kept)
        for leaf in kept.values():
            leaf.add_(1)
        return out


@dataclass(frozen=True, kw_only=True)
class Mixes(Ditto):
    """Pulls towards the mean of the cohort."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        sent, v = super().local(client, received, kept)
        return sent, {k: 0.9 * leaf + 0.1 * leaf.mean(0, keepdim=True) for k, leaf in v.items()}


@dataclass(frozen=True, kw_only=True)
class MixesStarts(Ditto):
    """Begins by the mean size of the cohort."""

    def start(self, client: Client, model: Params) -> Tree:
        return {k: v * client.n.double().mean().to(v) for k, v in model.items()}


@dataclass(frozen=True, kw_only=True)
class MixesGuesses(Fedavg):
    """Infers a cluster from the mean of the cohort."""

    def infer(self, client: Client, received: Params) -> dict[str, Tensor]:
        return {"clusters": (client.n > client.n.double().mean()).long()}


@dataclass(frozen=True, kw_only=True)
class SendsHead(Fedper):
    """Sends all, declares the trunk."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        theta = client.sgd(client.loss, {**kept, **received})
        return theta, client.share(theta, "head")[0]


@dataclass(frozen=True, kw_only=True)
class Renames(Fedper):
    """Sends the head's weight under a shared name."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        sent, head = super().local(client, received, kept)
        return {**sent, "trunk.linear0.bias": head["head.weight"]}, head


@dataclass(frozen=True, kw_only=True)
class CountsHead(Fedper):
    """Sends the head as a statistic."""

    statistics: ClassVar[tuple[str, ...]] = ("profile",)

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        sent, head = super().local(client, received, kept)
        return {**sent, "profile": head["head.weight"]}, head


@dataclass(frozen=True, kw_only=True)
class Broadcasts(Fedavg):
    """Has the server send more than is declared."""

    shared: ClassVar[str] = "trunk"

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        return client.share(client.sgd(client.loss, {**kept, **received}), "trunk")

    def init(self, model: Params, wire: frozenset[str], clients: int) -> Params:
        return model


@dataclass(frozen=True, kw_only=True)
class SumsReplies(Fedavg):
    """A server that adds the mean to its state."""

    def server(self, state: Params, replies: Replies) -> Params:
        return {name: state[name] + leaf for name, leaf in replies.mean().items()}


@dataclass(frozen=True, kw_only=True)
class Deaf(Ditto):
    """A server that stays where it is."""

    def server(self, state: Params, replies: Replies) -> Params:
        return state


@dataclass(frozen=True, kw_only=True)
class SendsInVain(Fedavg):
    """Sends a number that the server throws away."""

    statistics: ClassVar[tuple[str, ...]] = ("size",)

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        return {**client.sgd(client.loss, received), "size": client.n.to(client.x.dtype)}, {}

    def server(self, state: Params, replies: Replies) -> Params:
        return {name: leaf for name, leaf in replies.mean().items() if name != "size"}


@dataclass(frozen=True, kw_only=True)
class Favours(Fedavg):
    """A server that has its darling."""

    def init(self, model: Params, wire: frozenset[str], clients: int) -> Params:
        return {**model, "server/favour": torch.zeros(clients)}

    def server(self, state: Params, replies: Replies) -> Params:
        return {**replies.mean(), "server/favour": torch.arange(replies.registered) * state["head.bias"].norm()}


@dataclass(frozen=True, kw_only=True)
class CountsClients(Fedavg):
    """A server that remembers how many it heard."""

    def init(self, model: Params, wire: frozenset[str], clients: int) -> Params:
        return {**model, "server/heard": torch.zeros(1)}

    def server(self, state: Params, replies: Replies) -> Params:
        return {**replies.mean(), "server/heard": state["server/heard"] + len(replies.clients)}


@dataclass(frozen=True, kw_only=True)
class CountsWeight(Fedavg):
    """A server that reads the sum of the weights."""

    def server(self, state: Params, replies: Replies) -> Params:
        return {name: leaf * (1 + 1e-3 * float(replies.weights.sum())) for name, leaf in replies.mean().items()}


@dataclass(frozen=True, kw_only=True)
class Unnormalised(Fedavg):
    """Counts the clients of a round."""

    def server(self, state: Params, replies: Replies) -> Params:
        n = float(replies.weights.sum())
        return {name: state[name] + (leaf - state[name]) * n / (n + 5) for name, leaf in replies.mean().items()}


@dataclass(frozen=True, kw_only=True)
class Remembers(Fedavg):
    """Keeps a count in the process, not in its state."""

    seen: ClassVar[list[int]] = []

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        self.seen.append(1)
        return {k: v + 1e-3 * len(self.seen) for k, v in client.sgd(client.loss, received).items()}, {}


@dataclass(frozen=True, kw_only=True)
class InTheObject(Fedper):
    """FedPer whose heads stand in the object."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        sent, head = client.share(client.sgd(client.loss, {**kept, **getattr(self, "head", {}), **received}), "trunk")
        object.__setattr__(self, "head", {k: v.mean(0, keepdim=True).expand_as(kept[k]) for k, v in head.items()})
        return sent, dict(kept)


MEMORY: dict[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class InTheModule(Fedavg):
    """FedAvg that notes something in its module."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        MEMORY[f"round {client.round}"] = client.size
        return super().local(client, received, kept)


@dataclass(frozen=True, kw_only=True)
class Alias(Algorithm):
    """FedAvg under a name that promises more."""

    lam: float = 0.1

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        return client.sgd(lambda w, batch: client.loss(w, batch) + self.lam * 0.0, received), {}


@dataclass(frozen=True, kw_only=True)
class Hermit(Ditto):
    """A personal model that never looks at the global one."""

    lam: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Idle(Fedavg):
    """A key that is 0 and means nothing."""

    mu: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Twofold(Fedavg):
    """Two models where there should be one."""

    predicts: ClassVar[bool] = True

    def personal(self, received: Params, kept: Mapping[str, Any]) -> Params:
        return {f"{j}/{name}": leaf for j in range(2) for name, leaf in received.items()}


@dataclass(frozen=True, kw_only=True)
class Slow(Fedavg):
    """Learns at a tenth of the rate."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        return client.sgd(client.loss, received, lr=client.optimizer.lr / 30), {}


@dataclass(frozen=True, kw_only=True)
class NarrowKept(Local):
    """Keeps its model in half precision between rounds."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        return {}, {k: v.half() for k, v in client.sgd(client.loss, {k: v.float() for k, v in kept.items()}).items()}


@dataclass(frozen=True, kw_only=True)
class Stands(Fedavg):
    """Does not learn."""

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        return dict(received), {}


@dataclass(frozen=True, kw_only=True)
class Undocumented(Fedavg):
    pass


@dataclass(frozen=True, kw_only=True)
class NoDefault(Fedavg):
    """A field without a default."""

    lam: float


@dataclass(frozen=True, kw_only=True)
class Listed(Fedavg):
    """Cannot be hashed."""

    lam: Any = (1, [2])


FAULTS = [
    (Detached, "penalties", "mu = 0.5 gives the same as mu = 0: it has no gradient"),
    (DrawsTorch, "no-global-generator", "torch's global generator was used"),
    (DrawsTorch, "pure", "another result when called again"),
    (DrawsFresh, "pure", "another result when called again"),
    (DrawsBySlot, "slots-and-neighbours", "depends on its cohort"),
    (DrawsNumpy, "no-global-generator", "numpy's global generator was used"),
    (Mutates, "pure", r"local changes its inputs in place: 'received/"),
    (MutatesKept, "pure", r"local changes its inputs in place: 'kept/"),
    (Mixes, "slots-and-neighbours", "depends on its cohort"),
    (Mixes, "cohort-equals-loop", "a cohort and a loop differ in float32"),
    (MixesStarts, "slots-and-neighbours", r"a new client's result depends on its cohort: in the cohort \[.*\] it begins otherwise"),
    (MixesGuesses, "slots-and-neighbours", "depends on its cohort.*'inferred/clusters'"),
    (SendsHead, "wire", r"it sends \['head.bias', 'head.weight'\], but declares 'trunk' as shared"),
    (Renames, "wire", "it keeps 'head.weight' and sends the same numbers as"),
    (CountsHead, "wire", r"it keeps 'head.weight' and sends the same numbers as \['profile'\]"),
    (Broadcasts, "wire", "it has the server send"),
    (Deaf, "listens", "the server does the same whatever clients send as parameters"),
    (SendsInVain, "listens", "the server does the same whatever clients send as 'size'"),
    (SumsReplies, "learning-rate-0", "with learning rate 0 what is shared moves"),
    (CountsWeight, "scaled-weights", "depends on the sum of the weights"),
    (Unnormalised, "copies", "a copy is sent something else than the client"),
    (CountsClients, "copies", "three copies of a client leave another state of the server than the client: 'server/heard'"),
    (Favours, "alike", "copies of a client are not treated alike: 'server/favour' of the server"),
    (Remembers, "stateless", "a run leaves something in the class attribute 'seen'"),
    (InTheObject, "stateless", "something in the object's 'head': private state goes only through what `local` returns"),
    (InTheModule, "stateless", "a run leaves something in the module's 'MEMORY'"),
    (Remembers, "pure", "another result when called again"),
    (Remembers, "order-of-replies", "depends on the order of replies"),
    (NarrowKept, "whole-model", "of the personal model is torch.float16"),
    (Twofold, "whole-model", "the personal model has no 'trunk.linear0.weight'"),
    (Alias, "distinct", "it predicts what Fedavg predicts, to [0-9e.-]+: it is the same by another name"),
    (Alias, "penalties", "lam = 0.1 gives the same as lam = 0: it has no gradient"),
    (Hermit, "distinct", "it predicts what Local predicts"),
    (Idle, "penalties", "mu = 0.0 gives the same as mu = 0.5: it has no gradient"),
    (Slow, "learns", "after 6 rounds on digits it names"),
    (Stands, "learns", "of ten classes; chance is 10 %"),
    (Undocumented, "documented", "the class has no docstring"),
    (Listed, "builds", "unhashable"),
]


@pytest.mark.parametrize(("method", "name", "message"), FAULTS, ids=lambda v: v if isinstance(v, str) else v.__name__)
def test_fault_is_caught(method: type[Algorithm], name: str, message: str) -> None:
    with pytest.raises(AssertionError, match=rf"{method.__name__}, {name}: .*{message}"):
        check_algorithm(method, only=[name])


def test_a_whole_check_stops_at_the_first_fault() -> None:
    with pytest.raises(AssertionError, match="Stands, learns"):
        check_algorithm(Stands, skip=["documented"])


def test_class_without_defaults() -> None:
    with pytest.raises(AssertionError, match="NoDefault, builds: it cannot be built with its defaults"):
        check_algorithm(NoDefault)


def test_instances_and_choices() -> None:
    with pytest.raises(AssertionError, match="Detached, penalties"):
        check_algorithm(Detached(mu=2.0), only=["penalties"])
    check_algorithm(Detached(mu=2.0), only=["penalties"], skip=["penalties"])
    with pytest.raises(ValueError, match=r"no such property: \['penaltys'\]"):
        check_algorithm(Fedavg, only=["penaltys"])


def test_departures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that departs is left out, or held to what remains; a class is checked with its proving hyper-parameters."""
    monkeypatch.setattr(Unnormalised, "departs", {"copies": "for the sake of this test"})
    check_algorithm(Unnormalised, only=["copies"])
    monkeypatch.setattr(Twofold, "departs", {"whole-model": "two models", "learns": "slowly"})
    check_algorithm(Twofold, only=["whole-model"])
    monkeypatch.setattr(Stands, "departs", {"learns": "slowly"})
    with pytest.raises(AssertionError, match="Stands, learns: after 60 rounds"):
        check_algorithm(Stands, only=["learns"])
    monkeypatch.setattr(Detached, "proven_with", {"mu": 3.0})
    with pytest.raises(AssertionError, match=r"mu = 3\.0 gives the same"):
        check_algorithm(Detached, only=["penalties"])
    monkeypatch.setattr(Detached, "departs", {"penaltys": "no"})
    with pytest.raises(ValueError, match=r"Detached departs from no property: \['penaltys'\]"):
        check_algorithm(Detached, only=["penalties"])


def test_methods_differ_from_each_other() -> None:
    """No method is another in disguise."""
    made = {name: predictions(cls(**cls.proven_with)) for name, cls in METHODS.items()}
    for (a, one), (b, other) in combinations(made.items(), 2):
        assert (one - other).abs().max() > 1e-4, f"{a} and {b} are one method"
