"""Trunks that a scenario can ask for by name."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from pydantic import PositiveInt
from torch import nn

from fedmtl.errors import ScenarioError
from fedmtl.models.base import Trunk
from fedmtl.models.dropout import Dropout
from fedmtl.models.tokens import MeanEmbedding
from fedmtl.registry import Share
from fedmtl.tasks.task import Array

Activation = Literal["relu", "tanh", "gelu", "identity"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "identity": nn.Identity}


class _OfNumbers(Trunk):
    def unfit(self, x: Array) -> str:
        """Tokens, which stand for something."""
        return "it takes numbers, and x holds tokens (int64)" if x.dtype.kind == "i" else ""


@dataclass(frozen=True, kw_only=True)
class Mlp(_OfNumbers):
    """Fully connected layers, each followed by its activation; images are flattened."""

    hidden: tuple[PositiveInt, ...] = (64,)
    activation: Activation = "relu"
    bias: bool = True
    norm: Literal["none", "layer"] = "none"
    dropout: Share = 0.0

    def build(self, in_shape: tuple[int, ...]) -> nn.Module:
        """[B, *in_shape] to [B, hidden[-1]]."""
        if not self.hidden:
            raise ScenarioError("model.hidden", "one or more layer widths are needed")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if len(in_shape) > 1:
            layers["flatten"] = nn.Flatten()
        width = prod(in_shape)
        for i, out in enumerate(self.hidden):
            layers[f"linear{i}"] = nn.Linear(width, out, bias=self.bias)
            if self.norm == "layer":
                layers[f"norm{i}"] = nn.LayerNorm(out)
            layers[f"act{i}"] = ACTIVATIONS[self.activation]()
            if self.dropout > 0:
                layers[f"drop{i}"] = Dropout(self.dropout)
            width = out
        return nn.Sequential(layers)


@dataclass(frozen=True, kw_only=True)
class Flat(_OfNumbers):
    """No layers: the inputs as they are, flattened. With a linear head, a linear model."""

    def build(self, in_shape: tuple[int, ...]) -> nn.Module:
        """[B, *in_shape] to [B, prod(in_shape)]."""
        return nn.Sequential(OrderedDict(flatten=nn.Flatten()))


@dataclass(frozen=True, kw_only=True)
class Embedding(Trunk):
    """Tokens, whole numbers from 0 to `tokens` - 1, to the mean of their vectors of `features` numbers. 0 fills rows up, uncounted.

    With a linear head, on words: Joulin et al. Bag of Tricks for Efficient Text Classification. EACL 2017. arXiv:1607.01759,
    section 2. On one item a row, under private heads: the item factors are shared and every user keeps its own, as in
    Ammad-ud-din et al. Federated Collaborative Filtering for Privacy-Preserving Personalized Recommendation System. 2019.
    arXiv:1901.09888, where a user's own are found in closed form.
    """

    tokens: PositiveInt
    features: PositiveInt = 64

    def unfit(self, x: Array) -> str:
        """Whatever is no whole number from 0 to tokens - 1."""
        wrong, most = np.argwhere((x < 0) | (x >= self.tokens) | (x != np.floor(x))), self.tokens - 1
        return f"'embedding' takes whole numbers from 0 to tokens - 1 = {most}, not {x[tuple(wrong[0])]}" if len(wrong) else ""

    def build(self, in_shape: tuple[int, ...]) -> nn.Module:
        """[B, *in_shape] to [B, features]."""
        return nn.Sequential(OrderedDict(embedding=MeanEmbedding(self.tokens, self.features)))


@dataclass(frozen=True, kw_only=True)
class Cnn(_OfNumbers):
    """Convolution, activation and 2 x 2 pooling for each of `channels`, then one fully connected layer of `features`.

    The defaults are the CNN of McMahan et al. Communication-Efficient Learning of Deep Networks from Decentralized Data.
    AISTATS 2017, section 3: with padding, 1,663,370 parameters for 28 x 28 images and ten classes. Without (padding = "valid")
    it is the one that PFLlib and FL-bench call FedAvgCNN, of 582,026.
    """

    channels: tuple[PositiveInt, ...] = (32, 64)
    kernel: PositiveInt = 5
    padding: Literal["same", "valid"] = "same"
    features: PositiveInt = 512
    norm: Literal["none", "group", "batch"] = "none"
    dropout: Share = 0.0

    def build(self, in_shape: tuple[int, ...]) -> nn.Module:
        """[B, channels, height, width] to [B, features]."""
        if len(in_shape) != 3:
            raise ScenarioError("model.trunk", f"'cnn' needs images [channels, height, width], not {list(in_shape)}")
        depth, height, width = in_shape
        padding = self.kernel // 2 if self.padding == "same" else 0
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, out in enumerate(self.channels):
            layers[f"conv{i}"] = nn.Conv2d(depth, out, self.kernel, padding=padding)
            if self.norm == "group":
                layers[f"norm{i}"] = nn.GroupNorm(min(8, out), out)
            elif self.norm == "batch":
                layers[f"norm{i}"] = nn.BatchNorm2d(out)
            layers[f"act{i}"] = nn.ReLU()
            layers[f"pool{i}"] = nn.MaxPool2d(2)
            depth, height, width = out, *((size + 2 * padding - self.kernel + 1) // 2 for size in (height, width))
            if min(height, width) < 1:
                raise ScenarioError("model.channels", f"{len(self.channels)} convolutions with kernels of {self.kernel} and "
                                    f"poolings are too many for {in_shape[1]} x {in_shape[2]} images (padding = '{self.padding}')")
        layers["flatten"] = nn.Flatten()
        layers["linear"] = nn.Linear(depth * height * width, self.features)
        layers["act"] = nn.ReLU()
        if self.dropout > 0:
            layers["drop"] = Dropout(self.dropout)
        return nn.Sequential(layers)
