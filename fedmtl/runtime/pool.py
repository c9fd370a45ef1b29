"""The rows of all clients of a group, on the device."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmtl.tasks.task import Federation


class Pool:
    """Inputs and targets as they are in one stretch of the run; brought to the device when first wanted.

    dtype: of inputs, tokens too, and of targets that are real numbers.
    """

    def __init__(self, federation: Federation, device: torch.device, dtype: torch.dtype) -> None:
        self.federation, self.device, self.dtype = federation, device, dtype
        self.stage = 0

    def enter(self, stage: int) -> bool:
        """Goes over to another stretch of the run, where tasks drift; whether it is another one."""
        if stage == self.stage:
            return False
        self.stage = stage
        for name in ("x", "y"):
            self.__dict__.pop(name, None)
        return True

    @cached_property
    def x(self) -> Tensor:
        """[rows, ...] inputs."""
        return self.inputs(self.federation.pool(self.stage)[0])

    @cached_property
    def y(self) -> Tensor:
        """[rows, ...] targets."""
        return self._bring(self.federation.pool(self.stage)[1])

    @cached_property
    def public(self) -> Tensor | None:
        """[P, ...] the inputs that every client and the server see."""
        shown = self.federation.public
        return None if shown is None else self.inputs(shown)

    @cached_property
    def soft(self) -> Tensor | None:
        """[rows, outputs] what teachers say of the inputs."""
        said = self.federation.soft
        return None if said is None else self._bring(said)

    def inputs(self, rows: npt.NDArray[Any]) -> Tensor:
        """Inputs on the device, in the pool's dtype."""
        return self._bring(rows).to(self.dtype)

    def _bring(self, rows: npt.NDArray[Any]) -> Tensor:
        """The rows on the device, in the pool's dtype where they are real numbers."""
        out = torch.from_numpy(np.ascontiguousarray(rows))
        return out.to(self.device, self.dtype if out.is_floating_point() else out.dtype)
