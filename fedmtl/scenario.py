"""A scenario: everything that a run depends on, as typed models; read from TOML, changed by key=value words, written back resolved."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedmtl import registry
from fedmtl.algorithms.base import Algorithm
from fedmtl.errors import ScenarioError
from fedmtl.models.base import Head, Trunk
from fedmtl.optimizers import Optimizer
from fedmtl.tasks.objectives import Objective
from fedmtl.tasks.task import Source, Split, Transform

Table = dict[str, Any]


class Section(BaseModel):
    """Keys in kebab-case, nothing unknown, nothing coerced from a string."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=registry.kebab, populate_by_name=True,
                              arbitrary_types_allowed=True)


class OpenSection(Section):
    """A section that also holds the fields of the components it names."""

    model_config = ConfigDict(extra="allow")

    @property
    def extra(self) -> Table:
        """The fields that belong to the named component."""
        return dict(self.__pydantic_extra__ or {})


class TasksSection(OpenSection):
    """[tasks]: the source and its fields, how many clients, how each client's rows are divided."""

    source: str
    clients: int = Field(20, ge=0)
    val: float = Field(0.2, ge=0, lt=1)
    test: float = Field(0.2, gt=0, lt=1)
    objective: str = "auto"
    split: list[Table] = []
    transform: list[Table] = []


class ModelSection(OpenSection):
    """[model]: trunk and head, and their fields."""

    trunk: str = "mlp"
    head: str = "linear"


class AlgorithmSection(OpenSection):
    """[algorithm]: the method and its fields."""

    name: str


class TrainingSection(OpenSection):
    """[training]: the local training of one round, and the optimiser's fields."""

    optimizer: str = "sgd"
    batch_size: int = Field(10, ge=1)
    epochs: int = Field(1, ge=1)
    dtype: Literal["float32", "float64"] = "float32"


class ServerSection(Section):
    """[server]: who takes part, and how replies are weighted and judged."""

    participation: float = Field(1.0, gt=0, le=1)
    weighting: Literal["size", "uniform"] = "size"
    modulation: Literal["none"] = "none"
    sampler: Literal["none"] = "none"
    scheduler: Literal["uniform"] = "uniform"
    max_failures: float = Field(0.5, ge=0, le=1)
    """The share of a round's clients that may fail or be rejected before the run stops (exit code 3)."""


class EvaluationSection(Section):
    """[evaluation]: how often, and on which parts of each client's data."""

    every: int = Field(1, ge=1)
    clients: Literal["auto", "all", "sampled"] = "auto"
    """Who is scored: everyone, or the round's participants; "auto" is everyone up to 1,000 clients."""
    parts: list[Literal["train", "val", "test"]] = ["val", "test"]


class RuntimeSection(Section):
    """[runtime]: where clients run. Nothing here changes a result but `cohort` and `device`."""

    kind: Literal["auto", "ray", "inline", "flower"] = "auto"
    workers: int = Field(0, ge=0)
    """Worker processes for ray; 0 means one a core."""
    cohort: Literal["auto"] | int = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus_per_worker: float = Field(0.0, ge=0)
    shards: int = Field(12, ge=1)
    """Fixed groups of clients whose sums are added in order; also the most workers that can share the clients."""
    timeout: float = Field(3600.0, gt=0)
    """Seconds to wait for the replies of a round."""


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
    runtime: RuntimeSection = RuntimeSection()
    folder: Path | None = Field(None, exclude=True)
    """Where the scenario file lies: relative paths and a user's own modules are looked up there first."""

    @cached_property
    def method(self) -> Algorithm:
        """The [algorithm] section's component."""
        return registry.build(Algorithm, "fedmtl.algorithms", self.algorithm.name, self.algorithm.extra, "algorithm",
                              folder=self.folder)

    @cached_property
    def source(self) -> Source:
        """The [tasks] section's source."""
        from fedmtl.tasks.sources import function_source

        name, table = self.tasks.source, self.tasks.extra
        if ":" in name:
            loaded = registry.load_object(name, "tasks.source", self.folder)
            if not (isinstance(loaded, type) and issubclass(loaded, Source)):
                return function_source(name, table, self.folder)
        if "path" in table and self.folder and not Path(str(table["path"])).is_absolute():
            beside = self.folder / str(table["path"])
            table["path"] = str(beside if beside.exists() else table["path"])
        return registry.build(Source, "fedmtl.tasks.sources", name, table, "tasks", name_key="source", folder=self.folder)

    @cached_property
    def splits(self) -> list[Split]:
        """The [[tasks.split]] entries."""
        return [self._entry(Split, "splits", "split", entry) for entry in self.tasks.split]

    @cached_property
    def transforms(self) -> list[Transform]:
        """The [[tasks.transform]] entries."""
        return [self._entry(Transform, "transforms", "transform", entry) for entry in self.tasks.transform]

    def _entry(self, base: type[Any], module: str, what: str, entry: Table) -> Any:
        if not isinstance(entry.get("kind"), str):
            known = registry.discover(f"fedmtl.tasks.{module}", base)
            raise ScenarioError(f"tasks.{what}.kind", "every entry needs a kind", allowed=known)
        table = {k: v for k, v in entry.items() if k != "kind"}
        return registry.build(base, f"fedmtl.tasks.{module}", entry["kind"], table, f"tasks.{what}", name_key="kind",
                              folder=self.folder)

    @cached_property
    def trunk(self) -> Trunk:
        """The trunk with those fields of [model] that it knows."""
        from fedmtl.models import trunks

        return self._part(Trunk, trunks.__name__, "trunk", self.model.trunk)

    @cached_property
    def head(self) -> Head:
        """The head with those fields of [model] that it knows."""
        from fedmtl.models import heads

        return self._part(Head, heads.__name__, "head", self.model.head)

    def _part(self, base: type[Any], module: str, what: str, name: str) -> Any:
        mine = registry.fields_of(base, module, name, "model", what, self.folder)
        table = {k: v for k, v in self.model.extra.items() if k in mine}
        return registry.build(base, module, name, table, "model", name_key=what, folder=self.folder)

    @cached_property
    def optimizer(self) -> Optimizer:
        """The [training] section's optimiser."""
        return registry.build(Optimizer, "fedmtl.optimizers", self.training.optimizer, self.training.extra, "training",
                              name_key="optimizer", folder=self.folder)

    def objective(self, classes: tuple[str, ...]) -> Objective:
        """The objective; "auto" is classification where there are class labels, else regression."""
        name = self.tasks.objective
        if name == "auto":
            name = "classification" if classes else "regression"
        return registry.build(Objective, "fedmtl.tasks.objectives", name, {}, "tasks", name_key="objective",
                              folder=self.folder)

    def check(self) -> None:
        """Raises ScenarioError for the first thing that cannot be built; touches no data."""
        for part in (self.method, self.source, self.splits, self.transforms, self.trunk, self.head, self.optimizer):
            del part
        self.objective(())
        mine = {name for base, module, what in ((Trunk, "fedmtl.models.trunks", "trunk"), (Head, "fedmtl.models.heads", "head"))
                for name in registry.fields_of(base, module, getattr(self.model, what), "model", what, self.folder)}
        for entry in self.model.extra:
            if entry not in mine:
                raise ScenarioError(f"model.{entry}", f"neither trunk '{self.model.trunk}' nor head '{self.model.head}' has "
                                    "such a key", allowed=mine | {"trunk", "head"}, got=entry)
        if self.runtime.cohort != "auto" and self.runtime.cohort < 1:
            raise ScenarioError("runtime.cohort", f"1 or more clients, or \"auto\" (got {self.runtime.cohort})")
        if self.runtime.workers > self.runtime.shards:
            raise ScenarioError("runtime.workers", f"at most runtime.shards = {self.runtime.shards} (got {self.runtime.workers})")

    def resolved(self) -> Table:
        """Every key with its value, defaults of the components included: running it again repeats the run."""
        table = self.model_dump(by_alias=True, exclude={"folder"})
        table["algorithm"] |= registry.table_of(self.method)
        table["training"] |= registry.table_of(self.optimizer)
        table["model"] |= registry.table_of(self.trunk) | registry.table_of(self.head)
        if ":" not in self.tasks.source:
            table["tasks"] |= registry.table_of(self.source)
        table["tasks"]["split"] = [{"kind": e["kind"], **registry.table_of(c)} for e, c in zip(self.tasks.split, self.splits, strict=True)]
        table["tasks"]["transform"] = [{"kind": e["kind"], **registry.table_of(c)}
                                       for e, c in zip(self.tasks.transform, self.transforms, strict=True)]
        return table

    def to_toml(self) -> str:
        """The resolved scenario as a TOML document."""
        return tomli_w.dumps(self.resolved())


def shipped() -> dict[str, Path]:
    """The scenarios that come with fedmtl, by name: from the wheel, or from a checkout."""
    here = Path(__file__).parent
    for folder in (here / "scenarios", here.parent / "scenarios"):
        if folder.is_dir():
            return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}
    return {}


def parse_override(word: str) -> tuple[list[str], Any]:
    """`algorithm.lam=0.5` to (["algorithm", "lam"], 0.5); a value that is no TOML is a string."""
    key, equals, text = word.partition("=")
    if not equals or not key.strip():
        raise ScenarioError(word, "an override is written key=value, for example rounds=20 or algorithm.name=ditto")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    return key.strip().split("."), value


def _override(table: Table, path: list[str], value: Any) -> None:
    place: Any = table
    for depth, part in enumerate(path[:-1]):
        if isinstance(place, list):
            if not part.isdigit() or int(part) >= len(place):
                raise ScenarioError(".".join(path), f"'{part}' is not an entry's number (there are {len(place)})")
            place = place[int(part)]
        else:
            place = place.setdefault(part, {})
        if not isinstance(place, dict | list):
            raise ScenarioError(".".join(path), f"'{'.'.join(path[: depth + 1])}' is a value, not a section")
    if isinstance(place, list):
        if not path[-1].isdigit() or int(path[-1]) >= len(place):
            raise ScenarioError(".".join(path), f"'{path[-1]}' is not an entry's number (there are {len(place)})")
        place[int(path[-1])] = value
    elif path[-2:] == ["algorithm", "name"] and place.get("name") != value:
        place.clear()  # another method has other fields; those of the file are the old method's
        place["name"] = value
    else:
        place[path[-1]] = value


def from_table(table: Table, folder: Path | None = None) -> Scenario:
    """A checked scenario from a parsed TOML document. Raises ScenarioError naming the dotted key."""
    if "folder" in table:
        raise ScenarioError("folder", "unknown key", allowed=[registry.kebab(f) for f in Scenario.model_fields if f != "folder"])
    try:
        document = json.dumps({**table, "folder": None if folder is None else str(folder)}, default=str)
        scenario = Scenario.model_validate_json(document, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            allowed = _keys_at(first["loc"][:-1])
            raise ScenarioError(".".join(map(str, first["loc"])), "unknown key", allowed=allowed, got=str(first["loc"][-1])) from error
        raise ScenarioError(*registry.explain(error, "")) from error
    scenario.check()
    return scenario


def from_toml(text: str, folder: Path | None = None) -> Scenario:
    """A checked scenario from a TOML document."""
    return from_table(tomllib.loads(text), folder)


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    model: Any = Scenario
    for part in path:
        model = next((f.annotation for n, f in model.model_fields.items() if registry.kebab(n) == part), None)
    return [registry.kebab(n) for n in getattr(model, "model_fields", {}) if n != "folder"]


def load_scenario(scenario: str | Path, overrides: Mapping[str, Any] | list[str] | tuple[str, ...] = ()) -> Scenario:
    """The scenario at a path, or the shipped one of that name, with overrides (`key=value` words, or a dict of dotted keys).

    Raises ScenarioError, whose text names the key, what is allowed and the nearest valid name.
    """
    path = Path(scenario)
    if not path.suffix == ".toml" or not path.exists():
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
    pairs = [(key.split("."), value) for key, value in overrides.items()] if isinstance(overrides, Mapping) else [
        parse_override(word) for word in overrides]
    for keys, value in sorted(pairs, key=lambda pair: pair[0] != ["algorithm", "name"]):
        _override(table, keys, value)
    return from_table(table, path.parent.resolve())
