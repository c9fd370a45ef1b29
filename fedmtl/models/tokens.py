"""Embeddings of tokens: whole numbers that stand for words, or for the items of a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fedmtl.models.layers import Layer
from fedmtl.trees import Lookup, Params, Slope


class MeanEmbedding(nn.Module):
    """Of each row of tokens [B, ...] the mean [B, features] of their vectors. Token 0 fills rows up: it has no vector."""

    def __init__(self, tokens: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(tokens, features))

    def forward(self, x: Tensor) -> Tensor:
        """Zeros for a row of nothing but padding."""
        tokens, share = _read(x.flatten(1), self.weight)
        return (self.weight[tokens] * share.unsqueeze(-1)).sum(1)


class MeanEmbeddings(Layer):
    """The same of a cohort. A step touches the vectors of its own tokens alone, however many others there are."""

    def __init__(self, prefix: str) -> None:
        self.weight = f"{prefix}.weight"
        self.params = (self.weight,)

    def plain(self, params: Params, x: Tensor) -> Tensor:
        return self._mean(params[self.weight], *_read(x.flatten(2), params[self.weight]))

    def _mean(self, weight: Tensor, tokens: Tensor, share: Tensor) -> Tensor:
        if weight.stride(0):
            places = tokens + torch.arange(len(weight), device=tokens.device).reshape(-1, 1, 1) * weight.shape[1]
            found = weight.flatten(0, 1).index_select(0, places.flatten())
        else:  # one model for everyone
            found = weight[0].index_select(0, tokens.flatten())
        return (found.reshape(*tokens.shape, -1) * share.unsqueeze(-1)).sum(2)

    def forward(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        weight = params[self.weight]
        tokens, share = _read(x.flatten(2), weight)
        return self._mean(weight, tokens, share), (tokens, share, weight.shape[1])

    def backward(self, saved: Any, grad: Tensor, wanted: Sequence[bool], below: bool) -> tuple[Tensor | None, list[Slope | None]]:
        tokens, share, many = saved
        each = grad.unsqueeze(2) * share.unsqueeze(-1)
        return None, [Lookup(tokens.flatten(1), each.flatten(1, 2), many) if wanted[0] else None]


def _read(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(tokens [..., L], what each counts in the mean of its row, 0 for padding) of inputs [..., L]."""
    tokens = x.long()
    real = (tokens != 0).to(weight.dtype)
    return tokens, real / real.sum(-1, keepdim=True).clamp(min=1)
