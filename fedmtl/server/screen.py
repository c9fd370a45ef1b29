"""What replies are let in: one bad client can neither stop nor poison a run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedmtl.trees import flat

LARGEST = 1e18
"""A tensor of a larger norm is no model's: its squares leave float32."""


def finite(rows: Mapping[str, Tensor]) -> Tensor:
    """Which rows hold only usable numbers: leaves [K, ...] to [K] bool."""
    checks = [torch.linalg.vector_norm(flat(leaf), dim=1) <= LARGEST for leaf in rows.values() if leaf.is_floating_point()]
    return torch.stack(checks).all(0) if checks else torch.ones(0, dtype=torch.bool)


def check_reply(arrays: Mapping[str, npt.NDArray[np.generic]], like: Mapping[str, Tensor], clients: int) -> str | None:
    """Why a reply's arrays [clients, ...] cannot be those that the server waits for, or None where they can.

    `like`: what the method may send, by name, without a client axis. Names, shapes and dtypes must match; numbers are
    judged client by client with `finite`.
    """
    unknown = sorted(set(arrays) - set(like))
    if unknown:
        return f"unexpected parameters {unknown[:3]}"
    for name, array in arrays.items():
        wanted = (clients, *like[name].shape)
        if array.shape != wanted:
            return f"{name} has shape {list(array.shape)}, expected {list(wanted)}"
        if str(array.dtype) != str(like[name].dtype).removeprefix("torch."):
            return f"{name} has dtype {array.dtype}, expected {like[name].dtype}"
    return None


def check_weight(weight: float, expected: float) -> str | None:
    """Why a client's claimed number of samples is not believed, or None. It was told once, when the client joined."""
    if not np.isfinite(weight) or weight <= 0:
        return f"weight {weight} is not a positive number"
    if weight != expected:
        return f"weight {weight:g} differs from the {expected:g} samples it joined with"
    return None
