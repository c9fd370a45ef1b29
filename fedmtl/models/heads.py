"""Heads that a scenario can ask for by name."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import PositiveInt
from torch import nn

from fedmtl.models.base import Head


@dataclass(frozen=True, kw_only=True)
class Linear(Head):
    """One linear layer on the representation."""

    head_bias: bool = True

    def build(self, features: int, outputs: int) -> nn.Module:
        """[B, features] to [B, outputs]."""
        return nn.Linear(features, outputs, bias=self.head_bias)


@dataclass(frozen=True, kw_only=True)
class Mlp(Head):
    """One hidden layer of `head_hidden` units, then a linear layer."""

    head_hidden: PositiveInt = 64
    head_bias: bool = True

    def build(self, features: int, outputs: int) -> nn.Module:
        """[B, features] to [B, outputs]."""
        return nn.Sequential(nn.Linear(features, self.head_hidden), nn.ReLU(),
                             nn.Linear(self.head_hidden, outputs, bias=self.head_bias))
