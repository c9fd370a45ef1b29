"""The model and one node's data."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def make_net() -> nn.Module:
    """MLP 64-64-10."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@cache
def load_data(partition: int, partitions: int) -> tuple[Tensor, Tensor]:
    """Every partitions-th digit."""
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x[partition::partitions] / 16, dtype=torch.float32), torch.tensor(y[partition::partitions])
