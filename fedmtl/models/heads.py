"""Heads that a scenario can ask for by name."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import nn

from fedmtl.models.base import Head


def readout(features: int, outputs: int, bias: bool) -> nn.Linear:
    """A linear layer, initially as torch draws it but output after output: the first ones are the same in a wider layer."""
    with torch.random.fork_rng(devices=[]):  # what torch draws is not used
        layer = nn.Linear(features, outputs, bias=bias)
    with torch.no_grad():
        drawn = torch.empty(outputs, features + bias).uniform_(-(features**-0.5), features**-0.5)
        layer.weight.copy_(drawn[:, :features])
        if bias:
            layer.bias.copy_(drawn[:, features])
    return layer


@dataclass(frozen=True, kw_only=True)
class Linear(Head):
    """One linear layer on the representation."""

    head_bias: bool = True

    def build(self, features: int, outputs: int) -> nn.Module:
        """[B, features] to [B, outputs]."""
        return readout(features, outputs, self.head_bias)


@dataclass(frozen=True, kw_only=True)
class Mlp(Head):
    """One hidden layer of `head_hidden` units, then a linear layer."""

    head_hidden: PositiveInt = 64
    head_bias: bool = True

    def build(self, features: int, outputs: int) -> nn.Module:
        """[B, features] to [B, outputs]."""
        return nn.Sequential(nn.Linear(features, self.head_hidden), nn.ReLU(), readout(self.head_hidden, outputs, self.head_bias))
