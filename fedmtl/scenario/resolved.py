"""A scenario as a table with every key, which repeats its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedmtl import registry
from fedmtl.scenario.sections import Table

if TYPE_CHECKING:
    from fedmtl.scenario.model import Scenario


def resolved(scenario: Scenario) -> Table:
    """Every key with its value, defaults of the components included."""
    table = scenario.model_dump(by_alias=True, exclude={"folder"})
    table["algorithm"] |= registry.table_of(scenario.method)
    for part in (scenario.optimizer, scenario.balance, scenario.own_tasks.modulation, scenario.sampler):
        table["training"] |= registry.table_of(part) if part else {}
    table["model"] |= registry.table_of(scenario.trunk) | registry.table_of(scenario.head)
    for lever in (scenario.weighting, scenario.modulation, scenario.scheduler, scenario.pace):
        table["server"] |= registry.table_of(lever)
    _resolve_data(scenario, table["tasks"])
    if not any(table["budget"].values()):
        del table["budget"]
    return _without_none(table)


def _resolve_data(scenario: Scenario, tasks: Table) -> None:
    """Writes the fields of sources, splits, transforms and of the groups' trunks into [tasks]."""
    if scenario.public is not None and ":" not in tasks["public"]["source"]:
        tasks["public"] |= registry.table_of(scenario.public.component)
    for place, group in zip(tasks["group"] or [tasks], scenario.groups, strict=True):
        if trunk := place.get("trunk"):
            kind = trunk if isinstance(trunk, str) else trunk.get("kind", scenario.model.trunk)
            place["trunk"] = {"kind": kind, **registry.table_of(group.trunk)}
        if ":" not in place["source"]:
            place.update(registry.table_of(group.source))
        for what, built in (("split", group.splits), ("transform", group.transforms)):
            place[what] = [{"kind": entry["kind"], **registry.table_of(component)}
                           for entry, component in zip(place[what], built, strict=True)]


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
