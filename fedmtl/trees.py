"""Algebra on parameters of a cohort.

A tree is a dict of tensors, or a dict of such dicts; every leaf is [C, ...], one slice a client. Sums and products of trees
are leaf by leaf; dot, sqdist and norm give one number a client, [C]. A number a client may stand wherever a scalar may;
it takes the dtype of the leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Params = dict[str, Tensor]
Tree = Mapping[str, Any]
Scalar = float | Tensor


def first(leaf: Tensor, clients: int | None) -> Tensor:
    """The slices of the first clients (None: of all)."""
    return leaf if clients is None or clients >= leaf.shape[0] else leaf[:clients]


@dataclass(frozen=True)
class Outer:
    """left^T right for each client: the gradient of a matrix in two factors, left [C, B, out] and right [C, B, in]."""

    left: Tensor
    right: Tensor

    def dense(self) -> Tensor:
        """The product, [C, out, in]."""
        return torch.bmm(self.right.transpose(1, 2), self.left).transpose(1, 2)

    def add_to(self, matrix: Tensor, factor: float) -> None:
        """matrix += factor left^T right, in place, for the first len(matrix) clients: the product itself is never made."""
        own, left, right = matrix, self.left, self.right
        if not matrix.is_contiguous():
            own, left, right = matrix.transpose(1, 2), right, left
        count = own.shape[0]
        if count == 1 < left.shape[0]:  # the last of a cohort: the product of one matrix rounds differently from that of several
            two = own.expand(2, -1, -1).clone(memory_format=torch.contiguous_format)
            own.copy_(two.baddbmm_(left[:2].transpose(1, 2), right[:2], alpha=factor)[:1])
        else:
            own.baddbmm_(first(left, count).transpose(1, 2), first(right, count), alpha=factor)


@dataclass(frozen=True)
class Lookup:
    """The gradient of a matrix [C, rows, width] whose rows `index` [C, N] were looked up: their slopes [C, N, width]; else 0."""

    index: Tensor
    slopes: Tensor
    rows: int

    def dense(self) -> Tensor:
        """The whole matrix, [C, rows, width]."""
        out = self.slopes.new_zeros(len(self.slopes), self.rows, self.slopes.shape[-1])
        self.add_to(out, 1.0)
        return out

    def add_to(self, matrix: Tensor, factor: float) -> None:
        """matrix += factor times this, in place, for the first len(matrix) clients; other rows than `index` are not touched."""
        count = len(matrix)
        places = first(self.index, count) + torch.arange(count, device=matrix.device).unsqueeze(1) * self.rows
        matrix.view(count * self.rows, -1).index_add_(0, places.flatten(), first(self.slopes, count).flatten(0, 1), alpha=factor)


Slope = Tensor | Outer | Lookup
Slopes = Mapping[str, Slope]
"""Gradients by name."""


def dense(slope: Slope) -> Tensor:
    """A gradient as one tensor."""
    return slope if isinstance(slope, Tensor) else slope.dense()


def _fit(scalar: Scalar, leaf: Tensor) -> Scalar:
    if not (isinstance(scalar, Tensor) and scalar.dim() == 1):
        return scalar
    return scalar.to(leaf.dtype).reshape(-1, *[1] * (leaf.dim() - 1))


def zipped(function: Callable[..., Tensor], first: Params, *rest: Params) -> Params:
    """`function` on the leaves of trees with equal keys. Raises KeyError where the keys differ."""
    for other in rest:
        if other.keys() != first.keys():
            raise KeyError(f"trees differ in {sorted(other.keys() ^ first.keys())}")
    return {name: function(leaf, *(other[name] for other in rest)) for name, leaf in first.items()}


def add(a: Params, b: Params) -> Params:
    """a + b."""
    return zipped(torch.add, a, b)


def sub(a: Params, b: Params) -> Params:
    """a - b."""
    return zipped(torch.sub, a, b)


def scale(a: Params, by: Scalar) -> Params:
    """by * a; `by` is a number or one number a client, [C]."""
    return {name: leaf * _fit(by, leaf) for name, leaf in a.items()}


def copy(a: Params) -> Params:
    """The same values in memory of their own."""
    return {name: leaf.detach().clone() for name, leaf in a.items()}


def lerp(a: Params, b: Params, t: Scalar) -> Params:
    """(1 - t) a + t b, exact at t = 0 and t = 1."""
    return zipped(lambda x, y: x * (1 - _fit(t, x)) + y * _fit(t, y), a, b)


def where(condition: Tensor, a: Params, b: Params) -> Params:
    """a for the clients where `condition` ([C], bool) holds, else b."""
    return zipped(lambda x, y: torch.where(condition.reshape(-1, *[1] * (x.dim() - 1)), x, y), a, b)


def flat(leaf: Tensor) -> Tensor:
    """[C, ...] as [C, P]; one number a client, [C], becomes [C, 1]."""
    return leaf.flatten(1) if leaf.dim() > 1 else leaf.unsqueeze(1)


def dot(a: Params, b: Params) -> Tensor:
    """<a, b> over all leaves: [C]. Trees without leaves give 0."""
    terms = [flat(a[name] * b[name]).sum(1) for name in sorted(a)]  # in an order that does not depend on the tree's
    return sum(terms[1:], terms[0]) if terms else torch.zeros(())  # a sum over a stack would depend on the cohort's width


def sqdist(a: Params, b: Params) -> Tensor:
    """norm(a - b)^2 over the leaves that both have: [C]."""
    difference = {name: leaf - b[name] for name, leaf in a.items() if name in b}
    return dot(difference, difference)


def norm(a: Params) -> Tensor:
    """The Euclidean norm over all leaves: [C]."""
    return dot(a, a).sqrt()


def pick(a: Params, names: Iterable[str]) -> Params:
    """The leaves called `names` that `a` has, in a's order."""
    wanted = set(names)
    return {name: leaf for name, leaf in a.items() if name in wanted}


def expand(a: Params, clients: int) -> Params:
    """One model for everyone: [...] becomes [C, ...] without a copy."""
    return {name: leaf.expand(clients, *leaf.shape) for name, leaf in a.items()}


def flatten(tree: Tree, prefix: str = "") -> Params:
    """Nested dicts to one: {"v": {"a": t}} becomes {"v/a": t}."""
    out: Params = {}
    for name, value in tree.items():
        out |= {prefix + name: value} if isinstance(value, Tensor) else flatten(value, f"{prefix}{name}/")
    return out


def unflatten(flat: Params) -> dict[str, Any]:
    """The inverse of flatten."""
    out: dict[str, Any] = {}
    for name, leaf in flat.items():
        *path, last = name.split("/")
        place = out
        for part in path:
            place = place.setdefault(part, {})
        place[last] = leaf
    return out


def matrix(a: Params) -> Tensor:
    """All leaves of each client as one row, in the order of their names: [C, P]."""
    return torch.cat([flat(a[name]) for name in sorted(a)], dim=1)


def from_matrix(rows: Tensor, like: Params) -> Params:
    """The inverse of matrix: rows [C, P], with the names and the per-client shapes of `like`."""
    parts = dict(zip(sorted(like), torch.split(rows, [like[name][0].numel() for name in sorted(like)], dim=1), strict=True))
    return {name: parts[name].reshape(-1, *leaf.shape[1:]) for name, leaf in like.items()}
