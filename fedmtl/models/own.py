"""A user's own torch module as a trunk or a head."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, field, make_dataclass
from typing import Any

from torch import nn


def component_of(module: type[nn.Module], base: type[Any], given: int) -> type[Any]:
    """A component of kind `base` that builds `module`: its fields are the arguments of `module` after the first `given`.

    A trunk is called with the input shape, a head with the number of features and of outputs.
    """
    parameters = list(inspect.signature(module).parameters.values())[given:]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    hints = inspect.get_annotations(module.__init__, eval_str=True)
    fields: list[tuple[str, Any, Any]] = [
        (p.name, hints.get(p.name, Any), field(default=MISSING if p.default is p.empty else p.default)) for p in named]

    def build(self: Any, *shape: Any) -> nn.Module:
        """The module."""
        return module(*shape, **{p.name: getattr(self, p.name) for p in named})

    made = make_dataclass(module.__name__, fields, bases=(base,), namespace={"build": build, "__doc__": module.__doc__},
                          frozen=True, kw_only=True)
    made.__module__ = module.__module__
    return made
