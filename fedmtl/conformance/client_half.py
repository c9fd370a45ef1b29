"""What the client's half of a method must hold: `local`, `start`, `personal` and `adapt`."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, get_type_hints

import numpy as np
import torch

from fedmtl import keys, trees
from fedmtl.algorithms.base import Algorithm
from fedmtl.conformance.case import ONE_EPOCH, ORDER, Trial
from fedmtl.conformance.compare import assert_same, equal, same, snapshot
from fedmtl.runtime.cohort import Host
from fedmtl.trees import Params

GROUPS = ([3, 2, 4, 1, 0], [3, 1], [4, 0], [2, 2], [2, 4, 1])
"""The same clients in other slots, beside other neighbours, at other widths; by falling size, as cohorts stand."""
CONTAINERS = (dict, list, set, bytearray, np.ndarray, torch.Tensor)


def noisy(host: Host, params: Params, slots: Sequence[int], salt: int) -> Params:
    """`params` [C, ...] moved away from where they are, for every client in a direction of its own."""
    out: Params = {}
    for name, leaf in params.items():
        if name.rsplit("/", 1)[-1] not in host.signature.layout.trainable:
            out[name] = leaf.clone()
            continue
        draws = [keys.generator(keys.stream(salt, name, 0, c)).standard_normal(leaf.shape[1:]) for c in slots]
        out[name] = leaf + 0.2 * torch.from_numpy(np.stack(draws)).to(leaf.dtype)
    return out


def position(host: Host, slots: Sequence[int]) -> tuple[Params, Params]:
    """(received, kept) of every client in the middle of a run; both differ from client to client, and from each other."""
    shared = host.method.sends_to(host.method.init(host.model, host.wire, host.federation.clients), slots)
    client = host.client(slots, 1, "batches")
    _, kept = host.method.local(client, noisy(host, shared, slots, 1), trees.unflatten(begun(host, slots)))
    return noisy(host, shared, slots, 2), snapshot(trees.flatten(kept))


def at(tree: Params, where: Sequence[int]) -> Params:
    """The slices at some places."""
    return {name: leaf[list(where)] for name, leaf in tree.items()}


def second_round(host: Host, slots: Sequence[int], received: Params, kept: Params) -> Params:
    """All that a round gives from a position: sent, kept, inferred, personal, what that predicts and, where it adapts, adapted."""
    method, tree = host.method, trees.unflatten(kept)
    sent, state = method.local(host.client(slots, 2, "batches"), dict(received), tree)
    out: dict[str, Any] = {"sent": sent, "kept": state, "personal": method.personal(received, tree)}
    with torch.no_grad():
        out["inferred"] = method.infer(host.client(slots, 2, "infer"), dict(received))
    if method.predicts:
        client = host.client(slots, 2, "adapt")
        with torch.no_grad():
            says = method.predict(client, out["personal"], client.x[:4].expand(len(slots), 4, *client.x.shape[1:]))
        out["says"] = {"personal": says}
    if method.adapts:
        out["adapted"] = method.adapt(host.client(slots, 2, "adapt"), method.personal(received, tree))
    return snapshot(trees.flatten(out))


def pure(method: Algorithm) -> None:
    """`local` leaves its inputs as they are, and gives the same when it is called again."""
    host = Trial(method).host
    slots = ORDER
    received, kept = position(host, slots)
    client = host.client(slots, 2, "batches")
    before = snapshot(trees.flatten({"received": received, "kept": kept, "pool": {"x": host.pool.x, "y": host.pool.y},
                                     "initial model": host.model}))
    first = second_round(host, slots, received, kept)
    after = trees.flatten({"received": received, "kept": kept, "pool": {"x": host.pool.x, "y": host.pool.y},
                           "initial model": host.model})
    assert_same(before, after, "local changes its inputs in place")
    assert not any(leaf.requires_grad for leaf in after.values()), "local turns on requires_grad of its inputs"
    torch.manual_seed(1)
    assert_same(first, second_round(host, slots, received, kept), "local gives another result when called again")
    one, two = (method.local(client, dict(received), trees.unflatten(kept)) for _ in range(2))
    assert_same(trees.flatten({"sent": one[0], "kept": one[1]}), trees.flatten({"sent": two[0], "kept": two[1]}),
                "local gives another result with the same Client")


def no_global_generator(method: Algorithm) -> None:
    """`local` and `adapt` draw from no generator that others share."""
    host = Trial(method).host
    received, kept = position(host, ORDER)
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    second_round(host, ORDER, received, kept)
    assert torch.equal(torch_state, torch.get_rng_state()), "torch's global generator was used"
    now = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, now, strict=True)), "numpy's global generator was used"
    assert python_state == random.getstate(), "Python's global generator was used"


def stateless(method: Algorithm) -> None:
    """A run leaves nothing in the object, its class or its module: what is remembered is what `local` and `server` return."""
    before = _held(method)
    trial = Trial(method, sections=ONE_EPOCH, together=True)
    trial.rounds(2)
    trial.models()
    changed = sorted(name for name, value in _held(method).items() if value != before.get(name))
    assert not changed, f"a run leaves something in {', '.join(changed)}: private state goes only through what `local` returns"


def _held(method: Algorithm) -> dict[str, str]:
    """What could remember something, as text: the object's attributes, those of its classes, and its module's containers."""
    held = {f"the object's '{name}'": repr(value) for name, value in vars(method).items()}
    for cls in type(method).__mro__[:-1]:
        held |= {f"the class attribute '{name}'": repr(value) for name, value in vars(cls).items() if isinstance(value, CONTAINERS)}
        held |= {f"the module's '{name}'": repr(value) for name, value in vars(sys.modules[cls.__module__]).items()
                 if isinstance(value, CONTAINERS) and not name.startswith("__")}
    return held


def cohort_equals_loop(method: Algorithm) -> None:
    """A cohort gives what its clients give one at a time: to 1e-12 in float64 over two rounds, to 1e-5 in float32 over one."""
    for dtype, tolerance, rounds, epochs in (("float32", 1e-5, 1, 1), ("float64", 1e-12, 2, 2)):
        gave = []
        for width in (1, 4):
            sections = {"runtime": {"cohort": width}, "training": {"dtype": dtype, "epochs": epochs}}
            trial = Trial(method, sections=sections, together=True)
            trial.rounds(rounds)
            gave.append(trial.outcome())
        assert_same(gave[0], gave[1], f"a cohort and a loop differ in {dtype}", tolerance=tolerance)


def slots_and_neighbours(method: Algorithm) -> None:
    """A client's bits do not depend on its slot, its neighbours, or the cohort's width (2 or more)."""
    host = Trial(method).host
    received, kept = position(host, ORDER)
    whole, first = second_round(host, ORDER, received, kept), begun(host, ORDER)
    for group in GROUPS:
        where, what = [ORDER.index(client) for client in group], f"client's result depends on its cohort: in the cohort {group}"
        assert_same(at(first, where), begun(host, group), f"a new {what} it begins otherwise")
        assert_same(at(whole, where), second_round(host, group, at(received, where), at(kept, where)), f"a {what} it is another")


def begun(host: Host, slots: Sequence[int]) -> Params:
    """What clients keep before their first round."""
    return snapshot(trees.flatten(host.method.start(host.client(slots, 1, "batches"), trees.expand(host.model, len(slots)))))


def wire(method: Algorithm) -> None:
    """Only what is declared as shared crosses the wire, in both directions, and nothing that is kept crosses it renamed."""
    host = Trial(method).host
    received, kept = position(host, ORDER)
    sent, state = method.local(host.client(ORDER, 2, "batches"), received, trees.unflatten(kept))
    for way, names in (("sends", sent), ("has the server send", method.sends_to(method.init(host.model, host.wire, 5), ORDER))):
        allowed = {*host.wire, *method.statistics}
        leaking = sorted(name for name in names if name.rsplit("/", 1)[-1] not in allowed)
        assert not leaking, f"it {way} {leaking}, but declares '{method.wire}' as shared"
    private = {name: leaf for name, leaf in trees.flatten(state).items() if name.rsplit("/", 1)[-1] not in host.wire}
    for name, leaf in private.items():
        copies = [other for other, there in sent.items() if leaf.is_floating_point() and equal(leaf, there)]
        assert not copies, f"it keeps '{name}' and sends the same numbers as {copies}"


def strengths(method: Algorithm) -> list[str]:
    """The hyper-parameters that are real numbers."""
    hints = get_type_hints(type(method))
    return [f.name for f in fields(method) if f.init and hints[f.name] is float]


def penalties(method: Algorithm) -> None:
    """Every strength (lam, mu, ...) changes what is sent, kept or used in three rounds: a penalty on detached tensors would not.

    It is compared with 0, and one that is 0 with 1/2. What acts for one choice of another key only may do so as shipped.
    """
    idle = strengths(method)
    for base in (method, type(method)()) if method.proven_with else (method,):
        here = position(Trial(base).host, ORDER)
        for gives in (lambda variant, here=here: second_round(Trial(variant).host, ORDER, *here), _three_rounds):
            full = gives(base) if idle else {}
            idle = [name for name in idle if same(full, gives(replace(base, **{name: _other(base, name)})))]
    told = [f"{name} = {getattr(method, name)} gives the same as {name} = {_other(method, name):g}" for name in idle]
    assert not told, f"{', '.join(told)}: it has no gradient"


def _other(method: Algorithm, name: str) -> float:
    return 0.0 if getattr(method, name) else 0.5


def _three_rounds(variant: Algorithm) -> Params:
    trial = Trial(variant, sections=ONE_EPOCH, together=True)
    trial.rounds(3)
    return trial.outcome()


def whole_model(method: Algorithm) -> None:
    """`personal`, and `adapt` after it, give every parameter of the model under its name, in its shape, dtype and finite numbers.

    A method that departs gives one or several copies of each, every one with a name of its own before the slash.
    """
    trial = Trial(method, sections=ONE_EPOCH, together=True)
    trial.rounds(2)
    for kind, params in trial.models().items():
        for name, leaf in trial.host.model.items():
            copies = [key for key in params if key.rsplit("/", 1)[-1] == name] if "whole-model" in method.departs else [name]
            assert copies, f"the {kind} model has no '{name}'"
            for key in copies:
                assert key in params, f"the {kind} model has no '{key}'"
                found = params[key]
                assert found.dtype == leaf.dtype, f"'{key}' of the {kind} model is {found.dtype}, not {leaf.dtype}"
                assert found.shape == (5, *leaf.shape), f"'{key}' of the {kind} model has shape {list(found.shape)}"
                assert found.isfinite().all(), f"'{key}' of the {kind} model is not finite"
