"""A user's own function as a source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedmtl.errors import ScenarioError
from fedmtl.registry import kebab, load_object, said_by
from fedmtl.tasks.sources.check import as_float32, check_lengths, check_samples, encode, encode_target
from fedmtl.tasks.task import Samples, Source


@dataclass(frozen=True, kw_only=True)
class _FunctionSource(Source):
    """Samples from `fn(clients=..., seed=..., **options)`; see `function_source`."""

    reference: str
    fn: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self, clients: int, seed: int) -> Samples:
        """What the function gives, checked. What it raises becomes a ScenarioError that says where."""
        try:
            made = self.fn(clients=clients, seed=seed, **self.options)
        except ScenarioError:
            raise
        except Exception as error:  # the user's own code may raise anything
            raise ScenarioError("tasks.source", f"{self.reference} failed: {said_by(error)}") from error
        if isinstance(made, tuple):
            if len(made) not in (2, 3):
                problem = f"{self.reference} gave {len(made)} things, not (x, y) or (x, y, owner)"
                raise ScenarioError("tasks.source", problem)
            arrays = {name: np.asarray(value) for name, value in zip(("x", "y", "owner"), made, strict=False)}
            for name, array in arrays.items():
                if array.ndim == 0:
                    raise ScenarioError("tasks.source", f"{self.reference}: {name} is one value, not an array of rows")
            check_lengths(arrays, "tasks.source")
            x = as_float32(arrays["x"], "tasks.source", "x")
            y, classes = encode_target(arrays["y"], "auto", "tasks.source", "y")
            owner = encode(arrays["owner"], "tasks.source", "owner")[0] if "owner" in arrays else None
            made = Samples(x=x, y=y, classes=classes, owner=owner, task=kebab(self.reference.partition(":")[2]))
        return check_samples(made, "tasks.source")


def function_source(reference: str, options: Mapping[str, Any], folder: Path | None = None) -> Source:
    """The source that calls the user's `module:function`, which gives Samples, (x, y) or (x, y, owner).

    Keys of `options` may be kebab-case. Raises ScenarioError where the module or function is missing, or where the
    function does not take the options.
    """
    fn = load_object(reference, "tasks.source", folder)
    if not callable(fn):
        raise ScenarioError("tasks.source", f"'{reference}' is not a function")
    arguments = {name.replace("-", "_"): value for name, value in options.items()}
    parameters = inspect.signature(fn).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in options:
            if name.replace("-", "_") not in parameters:
                taken = [kebab(p) for p in parameters if p not in ("clients", "seed")]
                raise ScenarioError(f"tasks.{name}", f"'{reference}' takes no such argument", allowed=taken, got=name)
    try:
        inspect.signature(fn).bind(clients=0, seed=0, **arguments)
    except TypeError as error:
        problem = f"'{reference}' does not take clients, seed and these keys: {error}"
        raise ScenarioError("tasks.source", problem) from error
    return _FunctionSource(reference=reference, fn=fn, options=arguments)
