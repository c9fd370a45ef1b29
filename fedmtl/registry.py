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
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path, PurePath
from types import ModuleType
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

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
def _modules(package: str) -> tuple[ModuleType, ...]:
    root = importlib.import_module(package)
    found = pkgutil.iter_modules(getattr(root, "__path__", []))
    return root, *(importlib.import_module(f"{package}.{module.name}") for module in found)


def discover(package: str, base: type[T]) -> dict[str, type[T]]:
    """Every concrete component of `base` in `package` (a module, or a package whose modules are all scanned once)."""
    kind: Any = base  # mypy takes no type[T] for hashable
    return dict(_found(package, kind))


@cache
def _found(package: str, base: type[Any]) -> dict[str, type[Any]]:
    classes = {
        cls
        for module in _modules(package)
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, base) and cls is not base and cls.__module__ == module.__name__
        and not inspect.isabstract(cls) and not cls.__name__.startswith("_")
    }
    return {component_name(cls): cls for cls in sorted(classes, key=component_name)}


def load_object(reference: str, key: str, folder: Path | None = None) -> Any:
    """The object a user names as `module:Name`, looked up beside the scenario file, then in the working directory.

    Raises ScenarioError where the module or the name is not there, or where the module cannot be imported.
    """
    module_name, _, attribute = reference.partition(":")
    places = [str(place) for place in (folder, Path.cwd()) if place]
    for place in reversed(places):
        if place not in sys.path:
            sys.path.insert(0, place)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ScenarioError(key, f"module '{module_name}' needs '{error.name}', which is not installed") from error
        beside = [path.stem for place in places for path in Path(place).glob("*.py")]
        raise ScenarioError(key, f"no module '{module_name}' (from '{reference}')", allowed=beside, got=module_name) from error
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is imported
        raise ScenarioError(key, f"module '{module_name}' cannot be imported: {said_by(error)}") from error
    _check_origin(module, module_name, places, key)
    if not hasattr(module, attribute):
        raise ScenarioError(key, f"module '{module_name}' has no '{attribute}'", allowed=_public(module), got=attribute)
    return getattr(module, attribute)


def _check_origin(module: Any, name: str, places: list[str], key: str) -> None:
    """Another module of that name may be loaded already: from another scenario's folder, or from Python itself."""
    files = [Path(place, *name.split(".")).with_suffix(".py") for place in places]
    wanted = next((file for file in files if file.exists()), None)
    loaded = getattr(module, "__file__", None)
    if wanted and not (loaded and Path(loaded).exists() and wanted.samefile(loaded)):
        problem = f"'{wanted}' is hidden by another module '{name}' ({loaded or 'built in'})"
        raise ScenarioError(key, f"{problem}; give it another name")


def said_by(error: BaseException) -> str:
    """What a user's code raised, and where; a SyntaxError says so itself, and what the import system raises has no such place."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    inside = isinstance(error, SyntaxError) or "importlib" in last.filename
    return f"{type(error).__name__}: {error}" + ("" if inside else f" ({Path(last.filename).name}, line {last.lineno})")


def _public(module: Any) -> list[str]:
    return [name for name in vars(module) if not name.startswith("_")]


def find(base: type[T], package: str, name: str, key: str, folder: Path | None = None) -> type[T]:
    """The component class called `name`, or a user's own `module:Class`. Raises ScenarioError (at `key`) where there is none."""
    if ":" in name:
        cls = getattr(base, "adopt", lambda own: own)(load_object(name, key, folder))
        if not (inspect.isclass(cls) and issubclass(cls, base)):
            raise ScenarioError(key, f"'{name}' is not a subclass of {base.__module__}.{base.__name__}")
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise ScenarioError(key, f"'{name}' does not define {', '.join(missing)}, which every {base.__name__} needs")
        if not hasattr(cls, "__dataclass_fields__"):
            raise ScenarioError(key, f"'{name}' is not a dataclass: put @dataclass(frozen=True, kw_only=True) above it")
        return cls
    known = discover(package, base)
    if name not in known:
        raise ScenarioError(key, f"unknown name '{name}'", allowed=known, got=name)
    return known[name]


def fields_of(base: type[Any], package: str, name: str, key: str, folder: Path | None = None) -> set[str]:
    """The keys that the component called `name` knows; `key` is the one that names it."""
    return {kebab(f.name) for f in fields(find(base, package, name, key, folder)) if f.init}


def build(base: type[T], package: str, name: str, table: Mapping[str, Any], key: str, *, name_key: str = "name",
          beside: Iterable[str] = (), folder: Path | None = None) -> T:
    """The component of kind `base` called `name`, with the fields of `table` (kebab-case keys, strictly typed).

    `key` is the dotted place in the scenario, and `beside` what else may stand there, for error messages. `name` may be a
    user's own `module:Class`.
    """
    cls: Any = find(base, package, name, f"{key}.{name_key}", folder)
    known = {kebab(f.name): f.name for f in fields(cls) if f.init}
    for entry in table:
        if entry not in known:
            raise ScenarioError(f"{key}.{entry}", f"'{name}' has no such key", allowed={*known, name_key, *beside}, got=entry)
    try:
        built: T = _adapter(cls).validate_json(to_json({known[entry]: value for entry, value in table.items()}), strict=True)
    except ValidationError as error:
        raise explain(error, key) from error
    except PydanticUserError as error:
        raise ScenarioError(f"{key}.{name_key}", f"the fields of '{name}' cannot be read: {error.message}") from error
    return built


@cache
def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    """What checks the fields of a class: making it takes milliseconds, and a scenario has a score of components."""
    return TypeAdapter(cls)


def to_json(table: Mapping[str, Any]) -> str:
    """A parsed TOML table, or what Python gave in its place, as JSON: what pydantic checks strictly without refusing lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return value.item()
        return str(value) if isinstance(value, PurePath) else {type(value).__name__: str(value)}  # no key takes a date

    return json.dumps(table, default=plain)


def explain(error: ValidationError, key: str) -> ScenarioError:
    """The first thing that a pydantic validation found wrong; the branches of a union are told together."""
    found = [(_dotted(key, one["loc"]), one) for one in error.errors()]
    place, first = found[0]
    given = first.get("input")
    if first["type"] == "literal_error" and isinstance(given, str):
        options = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        return ScenarioError(place, f"unknown value '{given}'", allowed=options, got=given)
    said = " or ".join(dict.fromkeys(one["msg"].removeprefix("Value error, ") for at, one in found if at == place))
    said = said.replace("valid array", "list").replace("an object", "a table")
    shown = f" (got {json.dumps(given)})" if isinstance(given, str | int | float | bool | list) else ""
    return ScenarioError(place, said + shown)


def _dotted(key: str, place: tuple[int | str, ...]) -> str:
    """`key` and a place in pydantic's words as one dotted key, without the marks of a union's branches."""
    kinds = ("str", "int", "float", "bool")
    words = [kebab(str(part)) for part in place if str(part) not in kinds and re.fullmatch(r"[\w-]+", str(part))]
    return ".".join([part for part in (key, *words) if part])


def table_of(component: Any, *, skip: Iterable[str] = ()) -> dict[str, Any]:
    """A component's fields as a scenario table; fields that are None are left out, as TOML has no null."""
    values = {kebab(f.name): getattr(component, f.name) for f in fields(component) if f.init and f.name not in skip}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if value is not None}
