"""The scenario itself: its sections, the components that they name, and what must fit together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import Field

from fedmtl import registry
from fedmtl.algorithms.base import Algorithm
from fedmtl.errors import ScenarioError
from fedmtl.models.base import Head, Layout, Trunk
from fedmtl.mtl.fitting import check_own_tasks, shares_trunk, unfit
from fedmtl.mtl.losses import LossWeighting
from fedmtl.mtl.modulation import Modulation
from fedmtl.mtl.own_tasks import OwnTasks
from fedmtl.mtl.pacing import Pace
from fedmtl.mtl.sampling import Sampler
from fedmtl.mtl.scheduling import Scheduler
from fedmtl.mtl.weighting import Weighting
from fedmtl.optimizers import Optimizer
from fedmtl.scenario.sections import (
    PACKAGES,
    AlgorithmSection,
    BudgetSection,
    EvaluationSection,
    GroupSection,
    ModelSection,
    OpenSection,
    PublicSection,
    RuntimeSection,
    Section,
    ServerSection,
    Table,
    TasksSection,
    TrainingSection,
)
from fedmtl.tasks.objectives import Objective
from fedmtl.tasks.public import Public, other
from fedmtl.tasks.task import Source, Split, Transform

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The clients of one kind of task: what [[tasks.group]], or [tasks] alone, says of them. name: "" where there is one kind."""

    name: str
    source: Source
    splits: list[Split]
    transforms: list[Transform]
    clients: int
    val: float
    test: float
    objective: str | Table
    head: Head
    trunk: Trunk
    at: str
    standardise: bool | None


class Scenario(Section):
    """One run. Read it with `load_scenario`."""

    name: str = Field(min_length=1)
    seed: int = Field(0, ge=0, lt=2**63)
    rounds: int = Field(ge=1)
    tasks: TasksSection
    model: ModelSection = ModelSection()
    algorithm: AlgorithmSection
    training: TrainingSection = TrainingSection()
    server: ServerSection = ServerSection()
    evaluation: EvaluationSection = EvaluationSection()
    budget: BudgetSection = BudgetSection()
    runtime: RuntimeSection = RuntimeSection()
    folder: Path | None = Field(None, exclude=True)
    """Where the scenario file lies: relative paths and a user's own modules are looked up there first."""

    @cached_property
    def method(self) -> Algorithm:
        """The [algorithm] section's component."""
        method = self._component(Algorithm, "algorithm", "name", self.algorithm.name, self.algorithm)
        _check_selector(method)
        return method

    @cached_property
    def groups(self) -> list[Group]:
        """The kinds of clients. Raises ScenarioError where [tasks] has both a source and groups, or neither."""
        tasks = self.tasks
        if bool(tasks.source) == bool(tasks.group):
            allowed = registry.discover(PACKAGES["tasks", "source"][1], Source)
            raise ScenarioError("tasks.source", "either a source or [[tasks.group]] entries say where data come from",
                                allowed=allowed if not tasks.source else ())
        if not tasks.group:
            return [self._group(tasks, "tasks", "", self.head, self.trunk, "")]
        names = [group.name for group in tasks.group]
        if len(set(names)) < len(names):
            raise ScenarioError("tasks.group", f"every group needs a name of its own (got {names})")
        for entry in tasks.extra:
            raise ScenarioError(f"tasks.{entry}", "with groups, the fields of a source stand in its group")
        return [self._group(group, f"tasks.group.{i}", group.name, self._head_of(group, i), self._trunk_of(group, i), group.at)
                for i, group in enumerate(tasks.group)]

    def _group(self, section: TasksSection | GroupSection, key: str, name: str, head: Head, trunk: Trunk, at: str) -> Group:
        splits = [self._entry(Split, "split", f"{key}.split.{i}", entry) for i, entry in enumerate(section.split)]
        transforms = [self._entry(Transform, "transform", f"{key}.transform.{i}", e) for i, e in enumerate(section.transform)]
        val = self.tasks.val if section.val is None else section.val
        test = self.tasks.test if section.test is None else section.test
        standardise = self.tasks.standardise if section.standardise is None else section.standardise
        return Group(name, self._source(section, key), splits, transforms, section.clients, val, test, section.objective, head,
                     trunk, at, standardise)

    def _head_of(self, group: GroupSection, number: int) -> Head:
        if not group.head:
            return self.head
        return registry.build(Head, PACKAGES["model", "head"][1], group.head, {}, f"tasks.group.{number}", name_key="head",
                              folder=self.folder)

    def _trunk_of(self, group: GroupSection, number: int) -> Trunk:
        if not group.trunk:
            return self.trunk
        table = {"kind": group.trunk} if isinstance(group.trunk, str) else dict(group.trunk)
        name = table.pop("kind", None)
        fields = table if name else registry.table_of(self.trunk) | table
        return registry.build(Trunk, PACKAGES["model", "trunk"][1], str(name or self.model.trunk), fields,
                              f"tasks.group.{number}.trunk", name_key="kind", folder=self.folder)

    @cached_property
    def public(self) -> Public | None:
        """The rows that all clients and the server see. Raises ScenarioError where they cannot come from where they should."""
        section = self.tasks.public
        if section is None:
            return None
        own, sources = (registry.discover(package, base) for package, base in (
            ("fedmtl.tasks.public", Public), (PACKAGES["tasks", "source"][1], Source)))
        if section.source in own:
            made = registry.build(Public, "fedmtl.tasks.public", section.source, {"rows": section.rows, **section.extra},
                                  "tasks.public", name_key="source", folder=self.folder)
            if made.held and any(group.source != self.groups[0].source for group in self.groups):
                raise ScenarioError("tasks.public.source", "groups have several sources: say which one, or \"gaussian\"")
            return made
        if section.source not in sources and ":" not in section.source:
            raise ScenarioError("tasks.public.source", f"unknown name '{section.source}'", allowed={*own, *sources},
                                got=section.source)
        return other(self._source(section, "tasks.public"), section.rows)

    def _source(self, section: TasksSection | GroupSection | PublicSection, key: str) -> Source:
        from fedmtl.tasks.sources import function_source

        name, table = section.source, section.extra
        if ":" in name:
            loaded = registry.load_object(name, f"{key}.source", self.folder)
            if not (isinstance(loaded, type) and issubclass(loaded, Source)):
                return function_source(name, table, self.folder)
        return registry.build(Source, PACKAGES["tasks", "source"][1], name, self._beside(table, "path"), key, name_key="source",
                              beside=section.own, folder=self.folder)

    def _beside(self, table: Table, name: str) -> Table:
        """The table with the path under `name`, where it is relative and exists beside the scenario file, as one from there."""
        if name not in table or not self.folder or Path(str(table[name])).is_absolute():
            return table
        beside = self.folder / str(table[name])
        return {**table, name: str(beside if beside.exists() else table[name])}

    def _entry(self, base: type[Any], what: str, key: str, entry: Table) -> Any:
        package = f"fedmtl.tasks.{what}s"
        if not isinstance(entry.get("kind"), str):
            raise ScenarioError(f"{key}.kind", "every entry needs a kind", allowed=registry.discover(package, base))
        table = {k: v for k, v in entry.items() if k != "kind"}
        return registry.build(base, package, entry["kind"], table, key, name_key="kind", folder=self.folder)

    @cached_property
    def trunk(self) -> Trunk:
        """The trunk with those fields of [model] that it knows."""
        return self._part(Trunk, "model", "trunk")

    @cached_property
    def head(self) -> Head:
        """The head with those fields of [model] that it knows."""
        return self._part(Head, "model", "head")

    @cached_property
    def weighting(self) -> Weighting:
        """How much replies count, with those fields of [server] that it knows."""
        return self._part(Weighting, "server", "weighting")

    @cached_property
    def modulation(self) -> Modulation:
        """How the clients' updates of the trunk become one, with those fields of [server] that it knows."""
        return self._part(Modulation, "server", "modulation")

    @cached_property
    def scheduler(self) -> Scheduler:
        """Who takes part, with those fields of [server] that it knows."""
        return self._part(Scheduler, "server", "scheduler")

    @cached_property
    def pace(self) -> Pace:
        """How much of its local work a client of a round does, with those fields of [server] that it knows."""
        return self._part(Pace, "server", "pace")

    def _part(self, base: type[T], section: str, what: str) -> T:
        """A component of a section that holds the fields of several."""
        mine, chosen = self._keys_of(section, what), getattr(self, section)
        table = {k: v for k, v in chosen.extra.items() if k in mine}
        for file in ("trace-file", "speed-file"):
            table = self._beside(table, file)
        name = getattr(chosen, what.replace("-", "_"))
        try:
            return registry.build(base, PACKAGES[section, what][1], name, table, section, name_key=what, folder=self.folder)
        except ScenarioError as error:  # a component of two sections may say its name in the other one
            raise (error if error.key.startswith(f"{section}.") else error.at(f"{section}.{what}")) from error

    def _keys_of(self, section: str, what: str) -> set[str]:
        name = getattr(getattr(self, section), what.replace("-", "_"))
        return registry.fields_of(*PACKAGES[section, what], name, f"{section}.{what}", self.folder)

    def _check_shared(self, section: str, *parts: str) -> None:
        """Every field of a section with several components must belong to one of them."""
        chosen = getattr(self, section)
        mine = set[str]().union(*(self._keys_of(section, what) for what in parts))
        for entry in chosen.extra:
            if entry not in mine:
                named = " nor ".join(f"{what} '{getattr(chosen, what.replace('-', '_'))}'" for what in parts)
                raise ScenarioError(f"{section}.{entry}", f"neither {named} has such a key", allowed=mine | set(chosen.own),
                                    got=entry)

    @cached_property
    def optimizer(self) -> Optimizer:
        """The [training] section's optimiser."""
        return self._part(Optimizer, "training", "optimizer")

    @cached_property
    def balance(self) -> LossWeighting:
        """How the losses of a client's several tasks become one, with those fields of [training] that it knows."""
        return self._part(LossWeighting, "training", "loss-weighting")

    @cached_property
    def sampler(self) -> Sampler:
        """Which rows clients draw, with those fields of [training] that it knows."""
        return self._part(Sampler, "training", "sampler")

    @cached_property
    def own_tasks(self) -> OwnTasks:
        """What a client with several tasks does with them, with those fields of [training] that these levers know."""
        modulation = self._part(Modulation, "training", "modulation") if self.training.modulation != "none" else None
        return OwnTasks(self.balance, modulation, self.sampler)

    def _component(self, base: type[T], key: str, name_key: str, name: str, section: OpenSection) -> T:
        return registry.build(base, PACKAGES[key, name_key][1], name, section.extra, key, name_key=name_key,
                              beside=section.own, folder=self.folder)

    def objective(self, group: int, classes: tuple[str, ...]) -> Objective:
        """A group's objective; "auto" is classification where there are class labels, else regression."""
        asked, key = self.groups[group].objective, "tasks" if not self.tasks.group else f"tasks.group.{group}"
        table = dict(asked) if isinstance(asked, dict) else {"kind": asked}
        name = table.pop("kind", "auto")
        if name == "auto":
            name = "classification" if classes else "regression"

        def build(name: str, fields: Mapping[str, Any], place: str) -> Objective:
            return registry.build(Objective, "fedmtl.tasks.objectives", name, fields, place, name_key="kind", folder=self.folder)

        try:
            built = build(str(name), table, f"{key}.objective").made(
                lambda kind, fields, i: build(kind, fields, f"tasks.objective.tasks.{i}"))
        except ScenarioError as error:
            raise (error.within(group) if self.tasks.group and error.key.startswith("tasks.objective") else error) from error
        if self.groups[group].standardise and not built.scaled():
            raise ScenarioError(f"{key}.standardise", f"the targets of '{name}' cannot be standardised; leave the key out")
        return built

    def standardises(self, group: int) -> bool | tuple[int, ...]:
        """Whether a group's targets, or which columns of them, are standardised on each client's train part."""
        return self.groups[group].standardise is not False and self.objective(group, ()).scaled()

    def check(self) -> None:
        """Raises ScenarioError for the first thing that cannot be built; touches no data."""
        for part in (self.method, self.trunk, self.head, self.groups, self.optimizer):
            del part
        for lever in (self.weighting, self.modulation, self.scheduler, self.pace, self.own_tasks):
            del lever
        self.method.check(self.optimizer)
        check_own_tasks(self.method, self.own_tasks, [self.objective(number, ()).names for number in range(len(self.groups))])
        self._check_shared("model", "trunk", "head")
        self._check_shared("training", "optimizer", "loss-weighting", "modulation", "sampler")
        self._check_shared("server", "weighting", "modulation", "scheduler", "pace")
        self._check_modulation()
        self._check_public()
        self._check_kept()
        if self.runtime.workers > self.runtime.shards:
            raise ScenarioError("runtime.workers", f"at most runtime.shards = {self.runtime.shards} (got {self.runtime.workers})")

    def _check_kept(self) -> None:
        """What is best is told by validation rows, which every client must have."""
        if self.evaluation.keep_models and ("val" not in self.evaluation.parts or not all(group.val for group in self.groups)):
            raise ScenarioError("evaluation.keep-models", "the best model is chosen on validation rows: all clients need some "
                                "(tasks.val), and evaluation.parts must name \"val\"")

    def _check_public(self) -> None:
        """A method that needs public rows must have some."""
        if self.public is None and self.method.public:
            raise ScenarioError("tasks.public", f"'{self.algorithm.name}' needs rows that every client and the server see: "
                                "say how many, for example tasks.public.rows=200")

    def _check_modulation(self) -> None:
        """Where updates are modulated, the method must average what clients made of the trunk; where compared, share it."""
        for key in ("relations", "affinity"):
            if getattr(self.evaluation, key) and not shares_trunk(self.method):
                raise ScenarioError(f"evaluation.{key}", f"'{self.algorithm.name}' shares no trunk whose updates could be compared")
        problem = unfit(self.method) if self.server.modulation != "none" else ""
        if problem:
            raise ScenarioError("server.modulation", f"{problem}: '{self.server.modulation}' does not fit '{self.algorithm.name}'")

    def resolved(self) -> Table:
        """Every key with its value, defaults of the components included: running it again repeats the run."""
        table = self.model_dump(by_alias=True, exclude={"folder"})
        table["algorithm"] |= registry.table_of(self.method)
        for part in (self.optimizer, self.balance, self.own_tasks.modulation, self.sampler):
            table["training"] |= registry.table_of(part) if part else {}
        table["model"] |= registry.table_of(self.trunk) | registry.table_of(self.head)
        for lever in (self.weighting, self.modulation, self.scheduler, self.pace):
            table["server"] |= registry.table_of(lever)
        if self.public is not None and ":" not in table["tasks"]["public"]["source"]:
            table["tasks"]["public"] |= registry.table_of(self.public.component)
        for entry, group in zip(table["tasks"]["group"], self.groups if table["tasks"]["group"] else [], strict=True):
            if entry["trunk"]:
                kind = entry["trunk"] if isinstance(entry["trunk"], str) else entry["trunk"].get("kind", self.model.trunk)
                entry["trunk"] = {"kind": kind, **registry.table_of(group.trunk)}
        places = table["tasks"]["group"] or [table["tasks"]]
        for place, group in zip(places, self.groups, strict=True):
            if ":" not in place["source"]:
                place.update(registry.table_of(group.source))
            for what, built in (("split", group.splits), ("transform", group.transforms)):
                place[what] = [{"kind": entry["kind"], **registry.table_of(component)}
                               for entry, component in zip(place[what], built, strict=True)]
        if not any(table["budget"].values()):
            del table["budget"]
        return _without_none(table)

    def to_toml(self) -> str:
        """The resolved scenario as a TOML document."""
        return tomli_w.dumps(self.resolved())


def _check_selector(method: Algorithm) -> None:
    """What the method shares is often one of its fields: a selector that means nothing is told under that field's name."""
    wire, known = method.wire, Layout(frozenset(), frozenset(), ()).roles
    key = next((f.name for f in fields(method) if f.init and getattr(method, f.name) == wire), "name")
    for role in re.split("[+-]", wire):
        if role.strip() not in known:
            problem = f"unknown role '{role.strip()}' in '{wire}'; a selector is a role, or roles joined by + or -"
            raise ScenarioError(f"algorithm.{registry.kebab(key)}", problem, allowed=known, got=role.strip())


def _without_none(table: Table) -> Table:
    """TOML has no null: a key that is None is left out, also in entries of lists."""
    out: Table = {}
    for key, value in table.items():
        if isinstance(value, dict):
            out[key] = _without_none(value)
        elif isinstance(value, list):
            out[key] = [_without_none(entry) if isinstance(entry, dict) else entry for entry in value]
        elif value is not None:
            out[key] = value
    return out
