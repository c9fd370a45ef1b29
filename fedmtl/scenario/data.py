"""Where the rows of a scenario come from: its kinds of clients, their sources, splits and transforms, and the public rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmtl import registry
from fedmtl.errors import ScenarioError
from fedmtl.models.base import Head, Trunk
from fedmtl.scenario.sections import PACKAGES, GroupSection, PublicSection, Table, TasksSection
from fedmtl.tasks.public import Public, other
from fedmtl.tasks.sources import function_source
from fedmtl.tasks.task import Source, Split, Transform

if TYPE_CHECKING:
    from fedmtl.scenario.model import Scenario


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


def groups_of(scenario: Scenario) -> list[Group]:
    """The kinds of clients. Raises ScenarioError where [tasks] has both a source and groups, or neither."""
    tasks = scenario.tasks
    if bool(tasks.source) == bool(tasks.group):
        allowed = registry.discover(PACKAGES["tasks", "source"][1], Source)
        raise ScenarioError("tasks.source", "either a source or [[tasks.group]] entries say where data come from",
                            allowed=allowed if not tasks.source else ())
    if not tasks.group:
        return [_group(scenario, tasks, "tasks", "", scenario.head, scenario.trunk, "")]
    names = [group.name for group in tasks.group]
    if len(set(names)) < len(names):
        raise ScenarioError("tasks.group", f"every group needs a name of its own (got {names})")
    for entry in tasks.extra:
        raise ScenarioError(f"tasks.{entry}", "with groups, the fields of a source stand in its group")
    return [_group(scenario, group, f"tasks.group.{i}", group.name, _head(scenario, group, i), _trunk(scenario, group, i), group.at)
            for i, group in enumerate(tasks.group)]


def _group(scenario: Scenario, section: TasksSection | GroupSection, key: str, name: str, head: Head, trunk: Trunk,
           at: str) -> Group:
    tasks, folder = scenario.tasks, scenario.folder
    splits = [_entry(Split, "split", f"{key}.split.{i}", entry, folder) for i, entry in enumerate(section.split)]
    transforms = [_entry(Transform, "transform", f"{key}.transform.{i}", e, folder) for i, e in enumerate(section.transform)]
    val = tasks.val if section.val is None else section.val
    test = tasks.test if section.test is None else section.test
    standardise = tasks.standardise if section.standardise is None else section.standardise
    return Group(name, _source(section, key, folder), splits, transforms, section.clients, val, test, section.objective, head,
                 trunk, at, standardise)


def _head(scenario: Scenario, group: GroupSection, number: int) -> Head:
    if not group.head:
        return scenario.head
    return registry.build(Head, PACKAGES["model", "head"][1], group.head, {}, f"tasks.group.{number}", name_key="head",
                          folder=scenario.folder)


def _trunk(scenario: Scenario, group: GroupSection, number: int) -> Trunk:
    if not group.trunk:
        return scenario.trunk
    table = {"kind": group.trunk} if isinstance(group.trunk, str) else dict(group.trunk)
    name = table.pop("kind", None)
    fields = table if name else registry.table_of(scenario.trunk) | table
    return registry.build(Trunk, PACKAGES["model", "trunk"][1], str(name or scenario.model.trunk), fields,
                          f"tasks.group.{number}.trunk", name_key="kind", folder=scenario.folder)


def public_of(scenario: Scenario) -> Public | None:
    """The rows that all clients and the server see. Raises ScenarioError where they cannot come from where they should."""
    section = scenario.tasks.public
    if section is None:
        return None
    own, sources = (registry.discover(package, base) for package, base in (
        ("fedmtl.tasks.public", Public), (PACKAGES["tasks", "source"][1], Source)))
    if section.source in own:
        made = registry.build(Public, "fedmtl.tasks.public", section.source, {"rows": section.rows, **section.extra},
                              "tasks.public", name_key="source", folder=scenario.folder)
        if made.held and any(group.source != scenario.groups[0].source for group in scenario.groups):
            raise ScenarioError("tasks.public.source", "groups have several sources: say which one, or \"gaussian\"")
        return made
    if section.source not in sources and ":" not in section.source:
        raise ScenarioError("tasks.public.source", f"unknown name '{section.source}'", allowed={*own, *sources},
                            got=section.source)
    return other(_source(section, "tasks.public", scenario.folder), section.rows)


def _source(section: TasksSection | GroupSection | PublicSection, key: str, folder: Path | None) -> Source:
    name, table = section.source, section.extra
    if ":" in name:
        loaded = registry.load_object(name, f"{key}.source", folder)
        if not (isinstance(loaded, type) and issubclass(loaded, Source)):
            return function_source(name, table, folder)
    return registry.build(Source, PACKAGES["tasks", "source"][1], name, beside(table, "path", folder), key, name_key="source",
                          beside=section.own, folder=folder)


def _entry(base: type[Any], what: str, key: str, entry: Table, folder: Path | None) -> Any:
    package = f"fedmtl.tasks.{what}s"
    if not isinstance(entry.get("kind"), str):
        raise ScenarioError(f"{key}.kind", "every entry needs a kind", allowed=registry.discover(package, base))
    table = {k: v for k, v in entry.items() if k != "kind"}
    return registry.build(base, package, entry["kind"], table, key, name_key="kind", folder=folder)


def beside(table: Table, name: str, folder: Path | None) -> Table:
    """The table with the path under `name`, where it is relative and exists in the scenario file's folder, as one from there."""
    if name not in table or not folder or Path(str(table[name])).is_absolute():
        return table
    there = folder / str(table[name])
    return {**table, name: str(there if there.exists() else table[name])}
