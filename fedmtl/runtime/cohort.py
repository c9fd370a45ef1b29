"""Many clients as one batch: the clients that live in one process, trained and scored a cohort at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmtl import keys, trees
from fedmtl.algorithms.affinity import look_ahead
from fedmtl.algorithms.steps import Client, Rows, Signature
from fedmtl.client.gallery import Gallery
from fedmtl.client.store import Store
from fedmtl.errors import FedmtlError, PrivacyError, ScenarioError
from fedmtl.models.base import Layout, Net, Trunk, make_net, state_of
from fedmtl.models.stacked import Forward
from fedmtl.profiling import spans
from fedmtl.runtime.data import device_of
from fedmtl.runtime.parcels import Parcel, Trained
from fedmtl.runtime.pool import Pool
from fedmtl.runtime.scoring import Index, Key, Numbers, Scorer, Scores
from fedmtl.runtime.width import width_of
from fedmtl.scenario import Scenario
from fedmtl.server.reduce import ShardSums, deal, order_of
from fedmtl.server.screen import finite
from fedmtl.tasks.task import PARTS, Federation, PartName, Samples
from fedmtl.trees import Params

BALANCE = "own-tasks"
"""Under this name what a client keeps of the levers of its own tasks (mtl.own_tasks), beside what the method keeps."""
CACHE = 256
"""Cohorts whose index is kept from one round to the next."""


class Host:
    """The clients of one group that live in one process: their data, their private state, the model and the method.

    group: its number in the scenario; first: the id of its first client in the whole federation. Everywhere else in here a
    client goes by its number in the group.
    """

    def __init__(self, scenario: Scenario, federation: Federation, store: Store, group: int = 0, first: int = 0) -> None:
        self.scenario, self.federation, self.store, self.first = scenario, federation, store, first
        self.method = scenario.method
        self.device = device_of(scenario)
        self.dtype = getattr(torch, scenario.training.dtype)
        self.pool = Pool(federation, self.device, self.dtype)
        sample = Samples(federation.x, federation.y, federation.classes)
        self.objective = scenario.objective(group, federation.classes).fitted(sample)
        self.metrics = dict(self.objective.metrics)
        self.primary = next(iter(self.metrics))
        outputs = self.objective.outputs(sample)
        net = self._net(group, outputs).to(self.device, self.dtype)
        self.signature = Signature(Forward(net), Layout.of(net), self.objective, outputs,
                                   scenario.own_tasks if self.objective.heads else None, net.features)
        self.own = self._own_outputs()
        self.method.fits(self.signature)
        if self.signature.balance is not None:
            self.signature.balance.fits(self.signature.layout)
        scenario.sampler.fits(self.objective, torch.from_numpy(federation.y[:1]))
        self.model = state_of(net)
        self.wire = self.signature.layout.select(self.method.wire)
        self.width = width_of(scenario, self.signature.forward, self.model, self.pool.inputs(federation.x[:1])[0])
        parts = tuple(part for part in PARTS if part in scenario.evaluation.parts)
        self.scorer = Scorer(federation, self.objective, parts, self.dtype)
        self._indices: OrderedDict[tuple[int, ...], Index] = OrderedDict()
        self.gallery: Gallery | None = None

    def _net(self, group: int, outputs: int) -> Net:
        """The group's model."""
        scenario, chosen = self.scenario, self.scenario.groups[group]
        try:
            self._check_inputs(chosen.trunk)
            return make_net(chosen.trunk, chosen.head, tuple(self.federation.x.shape[1:]), outputs,
                            keys.stream(scenario.seed, "model"), adapter=scenario.model.adapter, at=chosen.at, group=chosen.name,
                            heads=self.objective.heads)
        except ScenarioError as error:
            place = f"tasks.group.{group}.trunk"
            raise (error if chosen.trunk is scenario.trunk else error.at(
                error.key.replace("model.trunk", place).replace("model.", f"{place}."))) from error

    def _check_inputs(self, trunk: Trunk) -> None:
        """Raises ScenarioError where a model cannot take what clients hold, now or later in the run, or what all see."""
        data, adapter = self.federation, self.scenario.model.adapter
        held = [data.x, *(x for x, _ in data.later), *([] if data.public is None else [data.public])]
        if adapter and data.x.dtype.kind == "i":
            raise ScenarioError("model.adapter", "an adapter takes numbers, and x holds tokens")
        for x in [np.full((1, adapter), 0.5)] if adapter else held:  # what an adapter gives is any number
            if problem := trunk.unfit(x):
                raise ScenarioError("model.trunk", problem)

    def _own_outputs(self) -> npt.NDArray[np.int64] | None:
        """[clients] how many outputs each client's label space has; None where all have as many as the head."""
        counts = np.array([len(space) for space in self.federation.spaces], np.int64)
        if (counts == counts.max(initial=0)).all():
            return None
        if not self.objective.pads:
            raise ScenarioError("tasks.objective", f"clients have from {counts.min()} to {counts.max()} classes, which "
                                f"'{type(self.objective).__name__.lower()}' cannot take together", allowed=["classification"])
        return counts

    @property
    def partial(self) -> frozenset[str]:
        """Metrics that only some clients have: those of single tasks, where clients have several."""
        return frozenset(self.metrics) - {"loss"} if self.objective.heads else frozenset()

    @property
    def decides(self) -> list[str]:
        """The metric that decides for each group: here, of one."""
        return [self.primary]

    @property
    def names(self) -> list[frozenset[str]]:
        """The parameter names of each group: here, of one."""
        return [frozenset(self.model)]

    def on_public(self, round: int, models: int) -> Client:
        """What the server's half of a method sees of the public rows: a cohort of `models` slices, on the processor."""
        one = np.zeros((models, 1), np.int64)
        shown = self.pool.public
        return Client(self.signature, torch.zeros(1), torch.zeros(1), Rows(one, one[:, 0] + 1),
                      keys.stream(self.scenario.seed, "server", round, np.arange(models)), self.scenario.optimizer,
                      self.scenario.training.batch_size, self.scenario.training.epochs, round,
                      public=None if shown is None else shown.cpu()).on_public()

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """[clients] train rows of each client."""
        return self.federation.sizes("train")

    @cached_property
    def shard(self) -> npt.NDArray[np.int64]:
        """[clients] the shard of each client."""
        return deal(self.sizes, self.scenario.runtime.shards)

    def chunks(self, clients: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
        """(clients, slots) of each cohort: `clients` in adding order; slots repeat the last one up to the least width."""
        least = 1 if self.width == 1 else 2 if self.signature.forward.path == "stacked" else self.width
        for start in range(0, len(clients), self.width):
            chunk = list(clients[start : start + self.width])
            yield chunk, chunk + [chunk[-1]] * (least - len(chunk))

    def client(self, slots: Sequence[int], round: int, purpose: str) -> Client:
        """The cohort that a method sees, with its rows as they are in that round."""
        if self.pool.enter(self.federation.stage(round, self.scenario.rounds)):
            self._indices.clear()
        signature = self.signature
        if self.own is not None:
            own = torch.from_numpy(self.own[list(slots)]).to(self.device)
            signature = replace(signature, forward=signature.forward.within(own, signature.outputs))
        ids = np.asarray(slots, np.int64) + self.first
        return Client(signature, self.pool.x, self.pool.y, self._index(tuple(slots)).train,
                      keys.stream(self.scenario.seed, purpose, round, ids), self.scenario.optimizer,
                      self.scenario.training.batch_size, self.scenario.training.epochs, round,
                      keys.stream(self.scenario.seed, "coin", round), sampler=self.scenario.sampler, ids=ids,
                      public=self.pool.public, soft=self.pool.soft)

    def _index(self, slots: tuple[int, ...]) -> Index:
        """The rows of a cohort, kept for the next round while there is room."""
        if slots in self._indices:
            self._indices.move_to_end(slots)
            return self._indices[slots]
        self._indices[slots] = made = self.scorer.index(slots)
        if len(self._indices) > CACHE:
            self._indices.popitem(last=False)
        return made

    def kept(self, client: Client, chunk: Sequence[int], slots: Sequence[int]) -> dict[str, Any]:
        """The private state of a cohort, made now for clients that have none yet."""
        found, known = self.store.load(chunk)
        if all(known) and found:
            state = found
        else:
            state = trees.flatten(self.method.start(client, trees.expand(self.model, len(slots))))
            state |= {f"{BALANCE}/{name}": leaf for name, leaf in client.begin_balance().items()}
            state = {name: leaf[: len(chunk)] for name, leaf in state.items()}
            if found:
                where = torch.tensor([slot for slot, there in enumerate(known) if there], device=self.device)
                state = {name: leaf.clone().index_copy_(0, where, found[name].to(self.device)) for name, leaf in state.items()}
        pad = len(slots) - len(chunk)
        if pad:
            state = {name: torch.cat([leaf, leaf[-1:].expand(pad, *leaf.shape[1:])]) for name, leaf in state.items()}
        tree = trees.unflatten({name: leaf.to(self.device) for name, leaf in state.items()})
        client.balance.update(trees.flatten(tree.pop(BALANCE, {})))
        return tree

    def received(self, parcel: Parcel, slots: Sequence[int]) -> Params:
        """What every client of a cohort received, with a client axis: of all that was sent, what its model or method uses."""
        return parcel.to(slots, {*self.signature.layout.names, *self.method.statistics}, self.device)

    def train(self, round: int, clients: Sequence[int], parcel: Parcel, weights: Numbers | None = None,
              effort: Numbers | None = None) -> Trained:
        """One round of `clients`; with `weights` [len(clients)] replies are sums over shards, else rows.

        effort: [len(clients)] the share of its steps that each makes; left out all. Who makes more steps comes first, so that
        replies are not in adding order: it does not go with `weights`.
        """
        share = None if effort is None else dict(zip(clients, effort.tolist(), strict=True))
        weight_of = dict(zip(clients, weights, strict=True)) if weights is not None else {}
        out, sums, parts = Trained(), ShardSums(sorted({int(self.shard[c]) for c in clients})), []

        def work(chunk: list[int], slots: list[int]) -> None:
            done, rows, loss, steps = self._train_together(round, chunk, slots, parcel, out.failed, share)
            out.clients += done
            out.loss += loss
            out.work += steps
            if rows and weights is None:
                parts.append(rows)
            elif rows:
                with spans.span("aggregation"):
                    sums.add(rows, np.array([weight_of[c] for c in done]), self.shard[done])

        self._each(clients, work, out.failed, self.sizes if share is None else self._steps(share))
        if weights is not None:
            out.shards = sorted({int(self.shard[c]) for c in out.clients})
            out.sums = sums.of(out.shards)
        elif parts:
            out.rows = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        return out

    def _steps(self, effort: Mapping[int, float]) -> Numbers:
        """[clients] how many steps of a pass each of some clients makes."""
        drawn = self.scenario.sampler.rows(self.sizes, self.scenario.training.batch_size)
        share = np.zeros(len(drawn))
        share[list(effort)] = list(effort.values())
        return np.asarray(np.maximum(-(-drawn // self.scenario.training.batch_size), 1) * share)

    def _each(self, clients: Sequence[int], work: Callable[[list[int], list[int]], None], failed: dict[int, str],
              sizes: npt.NDArray[Any]) -> None:
        """Does `work` on the cohorts of `clients`, by falling `sizes` [clients]; where one client's code or data raises, the others
        go on without it.
        """
        for chunk, slots in self.chunks(order_of(sizes, clients)):
            try:
                work(chunk, slots)
            except FedmtlError:
                raise
            except Exception as error:  # a user's own method, model or loss may raise anything; it becomes a journal line
                if len(chunk) == 1:
                    failed[chunk[0]] = f"{type(error).__name__}: {error}"
                else:
                    for client in chunk:
                        self._each([client], work, failed, sizes)

    def _train_together(self, round: int, chunk: list[int], slots: list[int], parcel: Parcel, failed: dict[int, str],
                        effort: Mapping[int, float] | None) -> tuple[list[int], Params, list[float], list[tuple[int, ...]]]:
        client = self.client(slots, round, "batches")
        if effort is not None:
            client.effort = np.array([effort[slot] for slot in slots])
        sent, kept = self.method.local(client, self.received(parcel, slots), self.kept(client, chunk, slots))
        self.guard(sent)
        state = trees.flatten({**kept, BALANCE: client.end_balance()})
        sent = {name: leaf[: len(chunk)].detach() for name, leaf in sent.items()}
        state = {name: leaf[: len(chunk)].detach() for name, leaf in state.items()}
        holds = (sum(leaf[0].numel() for leaf in state.values()), sum(leaf[0].nbytes for leaf in state.values()))
        loss, work = (said[: len(chunk)] for said in (client.mean_train_loss().tolist(), client.work.T.tolist()))
        good = finite({**{f"s/{k}": v for k, v in sent.items()}, **state})
        if not good.all():
            keep = good.nonzero().flatten()
            failed |= {c: "diverged: its parameters are not finite" for c, ok in zip(chunk, good.tolist(), strict=True) if not ok}
            sent, state = ({name: leaf[keep] for name, leaf in tree.items()} for tree in (sent, state))
            chunk, loss, work = ([column[i] for i in keep.tolist()] for column in (chunk, loss, work))
        self.store.save(chunk, state, round)
        return chunk, sent, loss, [(*did, *holds) for did in work]

    def guard(self, sent: Params) -> None:
        """Raises PrivacyError where a method is about to send what it does not declare as shared."""
        allowed = {*self.wire, *self.method.statistics}
        leaking = sorted(name for name in sent if name.rsplit("/", 1)[-1] not in allowed)
        if leaking:
            raise PrivacyError(f"method '{self.scenario.algorithm.name}' tried to send {leaking}, but it declares "
                               f"'{self.method.wire}' as shared")

    def keep_models(self, folder: Path) -> None:
        """From now on, keeps each client's best personal model there, where the scenario asks for it."""
        if self.scenario.evaluation.keep_models:
            self.gallery = Gallery(folder, self.metrics[self.primary])

    def evaluate(self, round: int, clients: Sequence[int], parcel: Parcel) -> tuple[Scores, dict[int, str]]:
        """(the scores of every model of `clients`, in their order, on the scenario's parts after `round`, who failed and why)."""
        place = {client: i for i, client in enumerate(clients)}
        out: Scores = {}
        failed: dict[int, str] = {}

        def work(chunk: list[int], slots: list[int]) -> None:
            client = self.client(slots, round, "adapt")
            received = self.received(parcel, slots)
            where = np.array([place[c] for c in chunk])
            models = list(self.models(client, received, self.kept(client, chunk, slots)))
            found = list(self._scored(client, slots, models))
            if self.gallery is not None:
                self.gallery.keep(chunk, models[-1][1], dict(found)["val", models[-1][0], self.primary], round)
            for key, values in found:
                out.setdefault(key, np.full(len(clients), np.nan))[where] = values[: len(chunk)]

        self._each(clients, work, failed, self.sizes)
        return out, failed

    def look_ahead(self, round: int, clients: Sequence[int], parcel: Parcel, steps: Params) -> tuple[Numbers, dict[int, str]]:
        """([len(clients), K] affinities, NaN for who failed, and why) of K steps of the trunk, [K, ...], from what each received.

        The model is what was received with what the client keeps after its training: each step is looked at with its own head.
        """
        place, failed = {client: i for i, client in enumerate(clients)}, dict[int, str]()
        count = len(next(iter(steps.values())))
        out = np.full((len(clients), count), np.nan)

        def work(chunk: list[int], slots: list[int]) -> None:
            client, received = self.client(slots, round, "affinity"), self.received(parcel, slots)
            kept, names = self.kept(client, chunk, slots), frozenset(self.signature.layout.names)
            now = {**self.method.personal(received, kept), **trees.pick(received, names & received.keys())}
            mine = {name: leaf.to(self.device) for name, leaf in steps.items() if name in names}
            ahead = ({name: now[name] + leaf[k] for name, leaf in mine.items()} for k in range(count))
            found = look_ahead(client, trees.pick(now, names), ahead)
            out[[place[c] for c in chunk]] = found[: len(chunk)].double().cpu().numpy()

        self._each(clients, work, failed, self.sizes)
        return out, failed

    def _scored(self, client: Client, slots: list[int], models: Iterable[tuple[str, Params]]) -> Iterator[tuple[Key, Numbers]]:
        """((part, model, metric), values [C]) of models; one that equals the one before it is not scored again."""
        before: tuple[Params, bool] | None = None
        found: dict[tuple[PartName, str], Numbers] = {}
        for kind, model in models:
            own = self.method.predicts and kind != "global"
            if before is None or own != before[1] or model.keys() != before[0].keys() or any(
                    model[name] is not leaf for name, leaf in before[0].items()):
                says = partial(self.method.predict, client, model) if own else partial(client.signature.forward, model)
                before, found = (model, own), self.score(slots, says)
            yield from (((part, kind, metric), values) for (part, metric), values in found.items())

    def score(self, slots: Sequence[int], says: Callable[[Tensor], Tensor]) -> dict[tuple[PartName, str], Numbers]:
        """(part, metric) to the values [C] of a cohort; says: from inputs [C, B, ...] to outputs."""
        return self.scorer.score(slots, self._index(tuple(slots)), self.pool, says)

    def models(self, client: Client, received: Params, kept: dict[str, Any]) -> Iterator[tuple[str, Params]]:
        """("global", ...) where a whole model is shared, ("personal", ...), and ("adapted", ...) where the method adapts."""
        names = self.signature.layout.names
        if set(names) <= set(received) and not self.method.addressed:
            yield "global", {name: received[name] for name in names}
        personal = self.method.personal(received, kept)
        used = personal if self.method.predicts else {name: personal[name] for name in names}
        yield "personal", used
        if self.method.adapts:
            yield "adapted", self.method.adapt(client, used)
