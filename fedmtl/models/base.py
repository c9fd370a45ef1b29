"""A model is a trunk, whose output is the shared representation, and a head on it; parameters are told apart by name."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fedmtl.errors import ScenarioError
from fedmtl.keys import Keys
from fedmtl.models.own import component_of
from fedmtl.tasks.task import Array
from fedmtl.trees import Params

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


class Trunk(ABC):
    """Makes the module whose output is the representation. A frozen dataclass; its fields are keys of [model].

    A user's own may also be a torch module as it is: its first argument is the input shape, the others are keys of [model].
    """

    @staticmethod
    def adopt(own: Any) -> Any:
        """A torch module's class as a trunk; anything else as it is."""
        return component_of(own, Trunk, 1) if isinstance(own, type) and issubclass(own, nn.Module) else own

    @abstractmethod
    def build(self, in_shape: tuple[int, ...]) -> nn.Module:
        """The module; input [B, *in_shape], output [B, features]. Raises ScenarioError where the shape does not fit."""

    def unfit(self, x: Array) -> str:
        """What is wrong with inputs x [N, ...], "" where the module can take them: most take any numbers."""
        return ""


class Head(ABC):
    """Makes the module that turns the representation into a task's output. A frozen dataclass; its fields are keys of [model].

    A user's own may also be a torch module as it is: its first arguments are the numbers of features and outputs.
    """

    @staticmethod
    def adopt(own: Any) -> Any:
        """A torch module's class as a head; anything else as it is."""
        return component_of(own, Head, 2) if isinstance(own, type) and issubclass(own, nn.Module) else own

    @abstractmethod
    def build(self, features: int, outputs: int) -> nn.Module:
        """The module; input [B, features], output [B, outputs]."""


class Only(nn.Module):
    """A module under a name of its own, so that the parameters of one group are told apart from another's."""

    def __init__(self, name: str, inner: nn.Module) -> None:
        super().__init__()
        self.add_module(name, inner)

    def forward(self, x: Tensor) -> Tensor:
        """What the module gives."""
        out: Tensor = next(self.children())(x)
        return out


class Beside(nn.Module):
    """Modules by name on the same input; their outputs [B, w] stand beside each other. The heads of a client with several tasks."""

    def __init__(self, inner: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, module in inner.items():
            if hasattr(self, name):
                raise ScenarioError("tasks.objective.tasks", f"a task cannot be called '{name}': torch modules use that name")
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """[B, features] to [B, sum of the widths]."""
        return torch.cat([module(x) for module in self.children()], dim=-1)


class Net(nn.Module):
    """head(trunk(adapter(x))). Its parameters are called `adapter.*`, `trunk.*` and `head.*`, in a group `head.<group>.*`.

    With several tasks `head.<task>.*`, or `head.<group>.<task>.*`. features: how wide the representation is.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, adapter: nn.Module | None = None, group: str = "",
                 features: int = 0) -> None:
        super().__init__()
        self.features = features
        if adapter is not None:
            self.adapter = Only(group, adapter) if group else adapter
        self.trunk = trunk
        self.head = Only(group, head) if group else head

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] to [B, outputs]."""
        for part in self.children():
            x = part(x)
        return x


def make_net(trunk: Trunk, head: Head, in_shape: tuple[int, ...], outputs: int, key: Keys, *, adapter: int = 0, at: str = "",
             group: str = "", heads: Mapping[str, int] | None = None) -> Net:
    """The model of one group, with initial weights that depend on `key` alone: equal trunks start equal.

    adapter: the width of a private linear layer in front of the trunk, 0 for none. at: the trunk's layer after which the head
    leaves, "" for the last. heads: the names and widths of several tasks, each with a head of its own, in place of one.
    Raises ScenarioError where the parts do not fit each other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(key) & (2**63 - 1))
        body = _until(trunk.build((adapter,) if adapter else in_shape), at)
        try:
            with torch.no_grad():
                representation = body.eval()(torch.zeros(2, *((adapter,) if adapter else in_shape)))
        except RuntimeError as error:
            raise ScenarioError("model.trunk", f"it cannot take inputs of shape {list(in_shape)}: {error}") from error
        if representation.dim() != 2:
            raise ScenarioError("model.trunk", f"its output must be [batch, features], not {list(representation.shape)}")
        front = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(in_shape), adapter), nn.ReLU()) if adapter else None
        features = representation.shape[1]  # heads are the last to be drawn: nothing else depends on their widths
        several = {task: head.build(features, width) for task, width in heads.items()} if heads else {}
        top = Beside(several) if several else head.build(features, outputs)
        return Net(body.train(), top, front, group, features)


def _until(trunk: nn.Module, at: str) -> nn.Module:
    """The trunk up to and with its layer `at`; what a deep task adds is not part of a shallow one's model."""
    if not at:
        return trunk
    names = [name for name, _ in trunk.named_children()] if isinstance(trunk, nn.Sequential) else []
    if at not in names:
        raise ScenarioError("tasks.group.at", f"the trunk has no layer '{at}'", allowed=names, got=at)
    kept = OrderedDict(list(trunk.named_children())[: names.index(at) + 1])
    return nn.Sequential(OrderedDict([*kept.items(), ("flat", nn.Flatten())]))


@dataclass(frozen=True)
class Layout:
    """The names of a model's parameters by role, and the selectors over them.

    A selector is a role (`adapter`, `trunk`, `head`, `norm`, `all`, `none`), a sum of roles (`trunk+norm`), or a difference
    (`all-norm`), read from left to right. Floating-point buffers (running statistics) count as parameters that no
    optimiser touches.
    """

    trainable: frozenset[str]
    norm: frozenset[str]
    names: tuple[str, ...]

    @classmethod
    def of(cls, net: nn.Module) -> Layout:
        """Reads the layout off a module."""
        norms = {
            f"{prefix}.{name}" for prefix, module in net.named_modules() if isinstance(module, NORMS)
            for name in {**dict(module.named_parameters()), **dict(module.named_buffers())}
        }
        trainable = {name for name, p in net.named_parameters() if p.requires_grad}
        names = tuple(state_of(net))
        return cls(frozenset(trainable), frozenset(norms) & frozenset(names), names)

    @cached_property
    def roles(self) -> dict[str, frozenset[str]]:
        """Every role and its parameter names."""
        return {
            "adapter": frozenset(n for n in self.names if n.startswith("adapter.")),
            "trunk": frozenset(n for n in self.names if n.startswith("trunk.")),
            "head": frozenset(n for n in self.names if n.startswith("head.")),
            "norm": self.norm, "all": frozenset(self.names), "none": frozenset(),
        }

    def select(self, selector: str) -> frozenset[str]:
        """The names a selector means. Raises ScenarioError for an unknown role."""
        chosen: frozenset[str] = frozenset()
        for sign, role in re.findall(r"([+-]?)\s*([^+-]+)", selector):
            if role.strip() not in self.roles:
                raise ScenarioError("selector", f"unknown role '{role}' in '{selector}'", allowed=self.roles, got=role)
            names = self.roles[role.strip()]
            chosen = chosen - names if sign == "-" else chosen | names
        return chosen


def state_of(net: nn.Module) -> Params:
    """A detached copy of a module's parameters and floating-point buffers, without a client axis."""
    named = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    return {name: t.detach().clone() for name, t in named.items() if t.is_floating_point()}
