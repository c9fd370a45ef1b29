"""The scenario itself: its sections, and the components that they name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import Field

from fedmtl import registry
from fedmtl.algorithms.base import Algorithm
from fedmtl.errors import ScenarioError
from fedmtl.models.base import Head, Trunk
from fedmtl.mtl.losses import LossWeighting
from fedmtl.mtl.modulation import Modulation
from fedmtl.mtl.own_tasks import OwnTasks
from fedmtl.mtl.pacing import Pace
from fedmtl.mtl.sampling import Sampler
from fedmtl.mtl.scheduling import Scheduler
from fedmtl.mtl.weighting import Weighting
from fedmtl.optimizers import Optimizer
from fedmtl.scenario import checks
from fedmtl.scenario.data import Group, beside, groups_of, public_of
from fedmtl.scenario.resolved import resolved
from fedmtl.scenario.sections import (
    PACKAGES,
    AlgorithmSection,
    BudgetSection,
    EvaluationSection,
    ModelSection,
    RuntimeSection,
    Section,
    ServerSection,
    Table,
    TasksSection,
    TrainingSection,
)
from fedmtl.tasks.objectives import Objective
from fedmtl.tasks.public import Public

T = TypeVar("T")


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
        section = self.algorithm
        method = registry.build(Algorithm, PACKAGES["algorithm", "name"][1], section.name, section.extra, "algorithm",
                                name_key="name", beside=section.own, folder=self.folder)
        checks.check_selector(method)
        return method

    @cached_property
    def groups(self) -> list[Group]:
        """The kinds of clients."""
        return groups_of(self)

    @cached_property
    def public(self) -> Public | None:
        """The rows that all clients and the server see."""
        return public_of(self)

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

    def _part(self, base: type[T], section: str, what: str) -> T:
        """A component of a section that holds the fields of several."""
        mine, chosen = self.fields_of(section, what), getattr(self, section)
        table = {k: v for k, v in chosen.extra.items() if k in mine}
        for file in ("trace-file", "speed-file"):
            table = beside(table, file, self.folder)
        name = getattr(chosen, what.replace("-", "_"))
        try:
            return registry.build(base, PACKAGES[section, what][1], name, table, section, name_key=what, folder=self.folder)
        except ScenarioError as error:  # a component of two sections may say its name in the other one
            raise (error if error.key.startswith(f"{section}.") else error.at(f"{section}.{what}")) from error

    def fields_of(self, section: str, what: str) -> set[str]:
        """The fields of the component that a section names, as keys."""
        name = getattr(getattr(self, section), what.replace("-", "_"))
        return registry.fields_of(*PACKAGES[section, what], name, f"{section}.{what}", self.folder)

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
        """Raises ScenarioError for the first thing that cannot be built, or that does not fit the others; touches no data."""
        checks.check(self)

    def resolved(self) -> Table:
        """Every key with its value, defaults of the components included: running it again repeats the run."""
        return resolved(self)

    def to_toml(self) -> str:
        """The resolved scenario as a TOML document."""
        return tomli_w.dumps(self.resolved())
