"""A user's own torch module as a trunk or a head."""

from __future__ import annotations

import inspect
from copy import deepcopy
from dataclasses import MISSING, field, make_dataclass
from functools import partial
from typing import Any

from torch import nn

from fedmtl.errors import FedmtlError, ScenarioError


def component_of(module: type[nn.Module], base: type[Any], given: int) -> type[Any]:
    """A component of kind `base` that builds `module`: its fields are the arguments of `module` after the first `given`.

    A trunk is called with the input shape, a head with the number of features and of outputs. An argument whose default is
    nothing that a scenario can say, a class for example, is no field and keeps its default.
    """
    key = f"model.{base.__name__.lower()}"
    parameters = list(inspect.signature(module).parameters.values())
    taken = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(taken) < given and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        wanted = "the input shape" if given == 1 else "the numbers of features and of outputs"
        raise ScenarioError(key, f"'{module.__name__}' must take {wanted} as its first argument{'s' * (given > 1)}")
    named = [p for p in parameters[given:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and _plain(p.default, p.empty)]
    hints = inspect.get_annotations(module.__init__, eval_str=True)
    fields: list[tuple[str, Any, Any]] = [(p.name, hints.get(p.name, Any), _field(p.default, p.empty)) for p in named]

    def build(self: Any, *shape: Any) -> nn.Module:
        """The module."""
        try:
            return module(*shape, **{p.name: getattr(self, p.name) for p in named})
        except FedmtlError:
            raise
        except Exception as error:  # whatever a user's module does with its arguments
            raise ScenarioError(key, f"'{module.__name__}' cannot be made: {type(error).__name__}: {error}") from error

    made = make_dataclass(module.__name__, fields, bases=(base,), namespace={"build": build, "__doc__": module.__doc__},
                          frozen=True, kw_only=True)
    made.__module__ = module.__module__
    return made


def _plain(default: Any, empty: Any) -> bool:
    """Whether a scenario can hold this default."""
    if isinstance(default, list | tuple):
        return all(_plain(value, empty) for value in default)
    return default is empty or default is None or isinstance(default, str | bool | int | float)


def _field(default: Any, empty: Any) -> Any:
    """A dataclass field; a list is copied for each component."""
    if isinstance(default, list):
        return field(default_factory=partial(deepcopy, default))
    return field(default=MISSING if default is empty else default)
