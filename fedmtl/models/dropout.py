"""Dropout whose noise is keyed, so that a client's result does not depend on who trains beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_A, _B = -7046029254386353131, -4658895280553007687  # SplitMix64's increment and first multiplier, as signed integers


def _shift(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def noise(key: Tensor, n: int) -> Tensor:
    """[*key.shape, n] numbers in [0, 1), a function of the int64 key and the position alone."""
    z = (key[..., None] + torch.arange(1, n + 1, device=key.device)) * _A
    z = (z ^ _shift(z, 30)) * _B
    z = (z ^ _shift(z, 27)) * -7723592293110705685
    return _shift(z ^ _shift(z, 31), 40).to(torch.float32) * 2.0**-24


class Dropout(nn.Module):
    """Inverted dropout (Srivastava et al. JMLR 15, 2014). The buffer `key` is set for each client and step; 0 means off."""

    key: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.register_buffer("key", torch.zeros((), dtype=torch.int64), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, ...] with a share p of its entries set to 0 and the rest divided by 1 - p."""
        return self.apply_keyed(x, self.key)

    def apply_keyed(self, x: Tensor, key: Tensor) -> Tensor:
        """As forward, for keys of shape [] with x [B, ...], or [C] with x [C, B, ...]."""
        inner = x.shape[key.dim():]
        kept = noise(key, inner.numel()).reshape(x.shape) >= self.p
        off = (key == 0).reshape(*key.shape, *[1] * len(inner))
        return torch.where(off, x, x * kept / (1 - self.p))
