"""Scenarios from TOML files and key=value words."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedmtl import registry
from fedmtl.errors import ScenarioError
from fedmtl.mtl.fitting import OF_THE_TRUNK, shares_trunk
from fedmtl.scenario.model import Scenario
from fedmtl.scenario.sections import PACKAGES, Table

Overrides = Mapping[str, Any] | Sequence[str]
"""Dotted keys with their values, or key=value words."""


def shipped() -> dict[str, Path]:
    """The scenarios that come with fedmtl, by name: from the wheel, or from a checkout."""
    here = Path(__file__).parent.parent
    for folder in (here / "scenarios", here.parent / "scenarios"):
        if folder.is_dir():
            return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}
    return {}


def parse_override(word: str) -> tuple[list[str], Any]:
    """`algorithm.lam=0.5` to (["algorithm", "lam"], 0.5); a value that is no TOML is a string."""
    key, equals, text = word.partition("=")
    if not equals:
        raise ScenarioError(repr(word), "an override is written key=value, for example rounds=20 or algorithm.name=ditto")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError as error:
        if text.lstrip().startswith(("[", "{", "'", '"')):
            raise ScenarioError(key, f"not a TOML value: {text}") from error
        value = text
    return _path(key), value


def _path(key: str) -> list[str]:
    path = [part.strip() for part in key.split(".")]
    if not all(path):
        raise ScenarioError(repr(key), "a key is written section.name, for example rounds or algorithm.name")
    return path


def _override(table: Table, path: list[str], value: Any, folder: Path | None) -> None:
    place: Any = table
    for depth, part in enumerate(path[:-1]):
        place = place[_number(place, part, path)] if isinstance(place, list) else place.setdefault(part, {})
        if not isinstance(place, dict | list):
            raise ScenarioError(".".join(path), f"'{'.'.join(path[: depth + 1])}' is a value, not a section")
    if isinstance(place, list):
        place[_number(place, path[-1], path)] = value
        return
    if _chooses(path) and place.get(path[-1]) != value:
        _drop_old(place, path, value, folder)
    place[path[-1]] = value


def _number(place: Sequence[Any], part: str, path: list[str]) -> int:
    if not part.isdecimal() or int(part) >= len(place):
        raise ScenarioError(".".join(path), f"'{part}' is not an entry's number (there are {len(place)}, counted from 0)")
    return int(part)


def _chooses(path: list[str]) -> bool:
    """Whether a key chooses a component."""
    return tuple(path) in PACKAGES or (path[0] == "tasks" and path[-1] == "kind")


def _drop_old(place: Table, path: list[str], new: object, folder: Path | None) -> None:
    """Where another component is chosen, what the file says of the old one goes: a method's or split's fields altogether."""
    if (path[0], path[-1]) not in PACKAGES or path[0] == "algorithm":
        place.clear()
        return
    section: Any = Scenario.model_fields[path[0]].annotation
    old = place.get(path[-1], section.model_fields[path[-1].replace("-", "_")].default)
    if isinstance(old, str) and isinstance(new, str) and not (path[0] == "tasks" and ":" in old + new):
        knows = [registry.fields_of(*PACKAGES[path[0], path[-1]], name, ".".join(path), folder) for name in (old, new)]
        for key in knows[0] - knows[1]:
            place.pop(key, None)


def from_table(table: Table, folder: Path | None = None) -> Scenario:
    """A checked scenario from a parsed TOML document. Raises ScenarioError naming the dotted key."""
    scenario = _parsed(table, folder)
    scenario.check()
    return scenario


def _parsed(table: Table, folder: Path | None) -> Scenario:
    if "folder" in table:
        raise ScenarioError("folder", "unknown key", allowed=[registry.kebab(f) for f in Scenario.model_fields if f != "folder"])
    try:
        return Scenario.model_validate_json(registry.to_json({**table, "folder": folder}), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            allowed, key = _keys_at(first["loc"][:-1]), [str(part) for part in first["loc"]]
            raise ScenarioError(".".join(key), "unknown key", allowed=allowed, got=key[-1]) from error
        raise registry.explain(error, "") from error


def from_toml(text: str, folder: Path | None = None) -> Scenario:
    """A checked scenario from a TOML document."""
    return from_table(tomllib.loads(text), folder)


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    model: Any = Scenario
    for part in path:
        model = next((f.annotation for n, f in model.model_fields.items() if registry.kebab(n) == part), None)
    return [registry.kebab(n) for n in getattr(model, "model_fields", {}) if n != "folder"]


def load_scenario(scenario: str | Path, overrides: Overrides = (), *, spare: bool = False) -> Scenario:
    """The scenario at a path, or the shipped one of that name, with overrides (`key=value` words, or a dict of dotted keys).

    spare: whether a method that shares no trunk is spared what acts on one (`mtl.fitting.OF_THE_TRUNK`), where it stands beside
    others that do; else that is an error.
    Raises ScenarioError, whose text names the key, what is allowed and the nearest valid name.
    """
    path = Path(scenario)
    if path.suffix != ".toml" or not path.exists():
        known = shipped()
        if str(scenario) not in known:
            problem = "no such file" if path.suffix == ".toml" else "no scenario file and no shipped scenario of that name"
            raise ScenarioError(str(scenario), problem, allowed=known, got=str(scenario))
        path = known[str(scenario)]
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(str(path), f"not a TOML document: {error}") from error
    except OSError as error:
        raise ScenarioError(str(path), f"cannot be read: {error.strerror}") from error
    return _overridden(table, overrides, path.parent.resolve(), spare)


def override(scenario: Scenario, overrides: Overrides, *, spare: bool = False) -> Scenario:
    """A scenario with other values. Raises ScenarioError as `load_scenario` does; for `spare`, see there."""
    return _overridden(scenario.resolved(), overrides, scenario.folder, spare)


def _overridden(table: Table, overrides: Overrides, folder: Path | None, spare: bool) -> Scenario:
    pairs = [(_path(key), value) for key, value in overrides.items()] if isinstance(overrides, Mapping) else [
        parse_override(word) for word in overrides]
    for keys, value in sorted(pairs, key=lambda pair: not _chooses(pair[0])):
        _override(table, keys, value, folder)
    if spare and not shares_trunk(_parsed(table, folder).method):
        for key, off in OF_THE_TRUNK.items():
            _override(table, _path(key), off, folder)
    return from_table(table, folder)
