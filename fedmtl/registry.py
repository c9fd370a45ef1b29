"""Named things chosen in a scenario: found by scanning a package, built from a table of typed fields.

A *component* is a frozen dataclass that derives from the base of its kind (Algorithm, Source, Split, ...). Its name in a
scenario is `name` if the class sets it, else the class name in kebab-case; its fields are the keys a user may set.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from fedmtl.errors import ScenarioError

T = TypeVar("T")

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A strength, a rate, a width: finite and not negative."""
Count = Annotated[int, Field(ge=0)]
"""How many; 0 is allowed."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, 0 to 1."""


def kebab(name: str) -> str:
    """`batch_size` and `BatchSize` both become `batch-size`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).replace("_", "-").lower()


def component_name(cls: type) -> str:
    """The name under which a scenario asks for `cls`."""
    own = cls.__dict__.get("name")
    return own if isinstance(own, str) else kebab(cls.__name__)


def summary_of(cls: type) -> tuple[str, str]:
    """(one line, paper) of a component, from its docstring or, where only that cites a paper, its module's.

    The paper is the second paragraph, if it holds a year.
    """
    for text in (inspect.getdoc(cls), inspect.getdoc(sys.modules[cls.__module__])):
        paragraphs = (text or "").split("\n\n")
        if len(paragraphs) > 1 and re.search(r"\b(19|20)\d\d\b", paragraphs[1]):
            return paragraphs[0].replace("\n", " "), paragraphs[1].replace("\n", " ")
    return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " "), ""


@cache
def discover(package: str, base: type[T]) -> dict[str, type[T]]:
    """Every concrete component of `base` in `package` (a module, or a package whose modules are all scanned)."""
    root = importlib.import_module(package)
    modules = [root]
    for found in pkgutil.iter_modules(getattr(root, "__path__", [])):
        modules.append(importlib.import_module(f"{package}.{found.name}"))
    classes = {
        cls
        for module in modules
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, base) and cls is not base and cls.__module__ == module.__name__
        and not inspect.isabstract(cls) and not cls.__name__.startswith("_")
    }
    return {component_name(cls): cls for cls in sorted(classes, key=component_name)}


def load_object(reference: str, key: str, folder: Path | None = None) -> Any:
    """The object a user names as `module:Name`, looked up beside the scenario file and in the working directory.

    Raises ScenarioError where the module or the name is not there.
    """
    module_name, _, attribute = reference.partition(":")
    for place in (str(folder) if folder else None, str(Path.cwd())):
        if place and place not in sys.path:
            sys.path.insert(0, place)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ScenarioError(key, f"no module '{error.name}' (from '{reference}')") from error
    if not hasattr(module, attribute):
        raise ScenarioError(key, f"module '{module_name}' has no '{attribute}'", allowed=_public(module), got=attribute)
    return getattr(module, attribute)


def _public(module: Any) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")]


def find(base: type[T], package: str, name: str, key: str, folder: Path | None = None) -> type[T]:
    """The component class called `name`, or a user's own `module:Class`. Raises ScenarioError (at `key`) where there is none."""
    if ":" in name:
        cls = load_object(name, key, folder)
        if not (inspect.isclass(cls) and issubclass(cls, base)):
            raise ScenarioError(key, f"'{name}' is not a subclass of {base.__module__}.{base.__name__}")
        return cls
    known = discover(package, base)
    if name not in known:
        raise ScenarioError(key, f"unknown name '{name}'", allowed=known, got=name)
    return known[name]


def fields_of(base: type[Any], package: str, name: str, section: str, name_key: str, folder: Path | None = None) -> set[str]:
    """The keys that the component called `name` knows."""
    cls = find(base, package, name, f"{section}.{name_key}", folder)
    return {kebab(f.name) for f in fields(cls) if f.init}


def build(base: type[T], package: str, name: str, table: Mapping[str, Any], key: str, *, name_key: str = "name",
          folder: Path | None = None) -> T:
    """The component of kind `base` called `name`, with the fields of `table` (kebab-case keys, strictly typed).

    `key` is the dotted place in the scenario, for error messages. `name` may be a user's own `module:Class`.
    """
    cls = find(base, package, name, f"{key}.{name_key}", folder)
    allowed = {kebab(f.name): f.name for f in fields(cls) if f.init}
    for entry in table:
        if entry not in allowed:
            raise ScenarioError(f"{key}.{entry}", f"'{name}' has no such key", allowed=allowed, got=entry)
    adapter = TypeAdapter(cls)
    try:
        return adapter.validate_json(json.dumps({allowed[entry]: value for entry, value in table.items()}, default=str), strict=True)
    except ValidationError as error:
        raise ScenarioError(*explain(error, key)) from error


def explain(error: ValidationError, key: str) -> tuple[str, str]:
    """(dotted key, problem) of the first thing a pydantic validation found wrong."""
    first = error.errors()[0]
    place = ".".join([part for part in [key, *(kebab(str(p)) for p in first["loc"])] if part])
    given = first.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | list) else ""
    return place, first["msg"].removeprefix("Value error, ") + shown


def table_of(component: Any, *, skip: Iterable[str] = ()) -> dict[str, Any]:
    """A component's fields as a scenario table; fields that are None are left out, as TOML has no null."""
    values = {kebab(f.name): getattr(component, f.name) for f in fields(component) if f.init and f.name not in skip}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value is not None}
