"""Trees compared, with a message that says where they differ."""

from __future__ import annotations

import torch
from torch import Tensor

from fedmtl.trees import Params


def bits(leaf: Tensor) -> Tensor:
    """The bytes of a tensor, so that NaN equals itself and -0 is not 0."""
    return leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def equal(a: Tensor, b: Tensor) -> bool:
    """The same dtype, shape and bits."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


def assert_same(a: Params, b: Params, what: str, *, tolerance: float | None = None) -> None:
    """AssertionError where two trees differ: in a bit, or with `tolerance` by more than it (absolute, or relative above 1)."""
    if a.keys() != b.keys():
        raise AssertionError(f"{what}: only one side has {sorted(a.keys() ^ b.keys())[:5]}")
    for name, leaf in a.items():
        other = b[name]
        if equal(leaf, other):
            continue
        if leaf.shape != other.shape or leaf.dtype != other.dtype:
            raise AssertionError(f"{what}: '{name}' is {leaf.dtype} {list(leaf.shape)} and {other.dtype} {list(other.shape)}")
        gap = ((leaf.double() - other.double()).abs() / other.double().abs().clamp(min=1)).max().item()
        if tolerance is None or not gap <= tolerance:
            allowed = "no bit may" if tolerance is None else f"at most {tolerance:g} may"
            raise AssertionError(f"{what}: '{name}' differs by {gap:.3g} ({allowed})")


def same(a: Params, b: Params) -> bool:
    """Whether two trees are equal bit for bit."""
    return a.keys() == b.keys() and all(equal(leaf, b[name]) for name, leaf in a.items())


def snapshot(tree: Params) -> Params:
    """A copy that nothing else can write to."""
    return {name: leaf.detach().clone(memory_format=torch.contiguous_format) for name, leaf in tree.items()}
