"""A model and data for scripts/bench_scale.py: ResNet-18 with group normalisation, and clients with a handful of rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from fedmtl import keys


def digits_few(clients: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """10 to 20 rows a client, drawn with replacement: x [N, 64], y [N], owner [N]."""
    x, y = load_digits(return_X_y=True)
    sizes = keys.generator(keys.stream(seed, "bench few sizes")).integers(10, 21, clients)
    rows = keys.generator(keys.stream(seed, "bench few rows")).integers(0, len(x), sizes.sum())
    return (x / 16).astype(np.float32)[rows], y[rows], np.repeat(np.arange(clients), sizes)


def colours(clients: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """8 pictures a client, 3 x 32 x 32, of noise: what is measured is memory."""
    draw = keys.generator(keys.stream(seed, "bench colours"))
    n = 8 * clients
    return draw.random((n, 3, 32, 32), np.float32), draw.integers(0, 10, n), np.repeat(np.arange(clients), 8)


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.GroupNorm(8, outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.GroupNorm(8, outputs)
        same = stride == 1 and inputs == outputs
        self.short = nn.Sequential() if same else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.GroupNorm(8, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.short(x))


class ResNet18(nn.Module):
    """He, Zhang, Ren, Sun. Deep Residual Learning for Image Recognition. CVPR 2016. For small pictures; 11.2 million weights."""

    def __init__(self, in_shape: tuple[int, ...]) -> None:
        super().__init__()
        widths = (64, 64, 128, 256, 512)
        self.stem = nn.Sequential(nn.Conv2d(in_shape[0], 64, 3, 1, 1, bias=False), nn.GroupNorm(8, 64), nn.ReLU())
        stages = [nn.Sequential(Block(a, b, 1 if i == 0 else 2), Block(b, b, 1)) for i, (a, b) in enumerate(pairwise(widths))]
        self.stages = nn.Sequential(*stages)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, 512]."""
        return self.stages(self.stem(x)).mean((2, 3))
