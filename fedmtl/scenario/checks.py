"""What must fit together in a scenario; touches no data."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING

from fedmtl import registry
from fedmtl.algorithms.base import Algorithm
from fedmtl.errors import ScenarioError
from fedmtl.models.base import Layout
from fedmtl.mtl.fitting import check_own_tasks, shares_trunk, unfit

if TYPE_CHECKING:
    from fedmtl.scenario.model import Scenario


def check(scenario: Scenario) -> None:
    """Raises ScenarioError for the first thing that cannot be built, or that does not fit the others."""
    for part in (scenario.method, scenario.trunk, scenario.head, scenario.groups, scenario.optimizer):
        del part
    for lever in (scenario.weighting, scenario.modulation, scenario.scheduler, scenario.pace, scenario.own_tasks):
        del lever
    scenario.method.check(scenario.optimizer)
    objectives = [scenario.objective(number, ()).names for number in range(len(scenario.groups))]
    check_own_tasks(scenario.method, scenario.own_tasks, objectives)
    _check_fields(scenario, "model", "trunk", "head")
    _check_fields(scenario, "training", "optimizer", "loss-weighting", "modulation", "sampler")
    _check_fields(scenario, "server", "weighting", "modulation", "scheduler", "pace")
    _check_modulation(scenario)
    _check_public(scenario)
    _check_kept(scenario)
    workers, shards = scenario.runtime.workers, scenario.runtime.shards
    if workers > shards:
        raise ScenarioError("runtime.workers", f"at most runtime.shards = {shards} (got {workers})")


def check_selector(method: Algorithm) -> None:
    """What the method shares is often one of its fields: a selector that means nothing is told under that field's name."""
    wire, known = method.wire, Layout(frozenset(), frozenset(), ()).roles
    key = next((f.name for f in fields(method) if f.init and getattr(method, f.name) == wire), "name")
    for role in re.split("[+-]", wire):
        if role.strip() not in known:
            problem = f"unknown role '{role.strip()}' in '{wire}'; a selector is a role, or roles joined by + or -"
            raise ScenarioError(f"algorithm.{registry.kebab(key)}", problem, allowed=known, got=role.strip())


def _check_fields(scenario: Scenario, section: str, *parts: str) -> None:
    """Every field of a section with several components must belong to one of them."""
    chosen = getattr(scenario, section)
    mine = set[str]().union(*(scenario.fields_of(section, what) for what in parts))
    for entry in chosen.extra:
        if entry not in mine:
            named = " nor ".join(f"{what} '{getattr(chosen, what.replace('-', '_'))}'" for what in parts)
            raise ScenarioError(f"{section}.{entry}", f"neither {named} has such a key", allowed=mine | set(chosen.own),
                                got=entry)


def _check_kept(scenario: Scenario) -> None:
    """What is best is told by validation rows, which every client must have."""
    asked = scenario.evaluation
    if asked.keep_models and ("val" not in asked.parts or not all(group.val for group in scenario.groups)):
        raise ScenarioError("evaluation.keep-models", "the best model is chosen on validation rows: all clients need some "
                            "(tasks.val), and evaluation.parts must name \"val\"")


def _check_public(scenario: Scenario) -> None:
    """A method that needs public rows must have some."""
    if scenario.public is None and scenario.method.public:
        raise ScenarioError("tasks.public", f"'{scenario.algorithm.name}' needs rows that every client and the server see: "
                            "say how many, for example tasks.public.rows=200")


def _check_modulation(scenario: Scenario) -> None:
    """Where updates are modulated, the method must average what clients made of the trunk; where compared, share it."""
    name = scenario.algorithm.name
    for key in ("relations", "affinity"):
        if getattr(scenario.evaluation, key) and not shares_trunk(scenario.method):
            raise ScenarioError(f"evaluation.{key}", f"'{name}' shares no trunk whose updates could be compared")
    modulation = scenario.server.modulation
    problem = unfit(scenario.method) if modulation != "none" else ""
    if problem:
        raise ScenarioError("server.modulation", f"{problem}: '{modulation}' does not fit '{name}'")
