"""The two objectives that "auto" chooses between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from fedmtl.errors import ScenarioError
from fedmtl.tasks.objectives.base import Direction, Numbers, Objective
from fedmtl.tasks.task import Samples


@dataclass(frozen=True, kw_only=True)
class Classification(Objective):
    """Multi-class classification: softmax cross-entropy, scored by accuracy."""

    metrics: ClassVar[dict[str, Direction]] = {"accuracy": "max", "loss": "min"}

    def outputs(self, samples: Samples) -> int:
        """The number of classes."""
        if not samples.classes:
            raise ScenarioError("tasks.objective", "classification needs class labels; this source has real-valued targets",
                                allowed=["regression"])
        return len(samples.classes)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """-log softmax(out)[y]."""
        return F.cross_entropy(out.flatten(0, -2), y.flatten(), reduction="none").reshape(y.shape)

    def rows(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Hits and losses."""
        return {"accuracy": (out.argmax(-1) == y).to(out.dtype), "loss": self.loss(out, y)}


@dataclass(frozen=True, kw_only=True)
class Regression(Objective):
    """Regression: squared error, the mean over rows and outputs without the half, scored by the same and its root."""

    metrics: ClassVar[dict[str, Direction]] = {"mse": "min", "rmse": "min", "loss": "min"}

    def outputs(self, samples: Samples) -> int:
        """The number of targets."""
        if samples.classes:
            raise ScenarioError("tasks.objective", "regression needs real-valued targets; this source has class labels",
                                allowed=["classification"])
        return int(samples.y.shape[1])

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        """mean over outputs of (out - y)^2."""
        return (out - y).square().mean(-1)

    def rows(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Squared errors."""
        return {"mse": self.loss(out, y)}

    def scores(self, means: dict[str, Numbers]) -> dict[str, Numbers]:
        """The mean squared error, its root, and the loss, which it is."""
        return {"mse": means["mse"], "rmse": means["mse"] ** 0.5, "loss": means["mse"]}
