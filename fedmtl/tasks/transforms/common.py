"""What transforms share: demands on the samples, choices by client, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import TypeVar, cast

import numpy as np

from fedmtl.errors import ScenarioError
from fedmtl.keys import permutation, stream
from fedmtl.tasks.task import Array, Rows, Samples

T = TypeVar("T")
Name = str | int
"""A class as a scenario names it: 3 and "3" are the same."""


def turn(values: Sequence[T], client: int) -> T:
    """The value of `client` from a list that clients take in turn: client c has number c modulo its length."""
    return values[client % len(values)]


def lists_of(given: Sequence[T] | Sequence[Sequence[T]]) -> list[list[T]]:
    """A list of lists as it is, one list as the only one of them, nothing as none."""
    nested = [one for one in given if isinstance(one, Sequence) and not isinstance(one, str)]
    return [list(one) for one in nested] if nested or not given else [cast(list[T], list(given))]


def need_labels(samples: Samples, kind: str, least: int = 2) -> int:
    """How many classes there are; ScenarioError where y is not one class label a row, or there are fewer than `least`."""
    if not samples.classes or samples.y.ndim != 1:
        raise ScenarioError("tasks.transform.kind", f"'{kind}' changes class labels, and these samples have none")
    if len(samples.classes) < least:
        problem = f"'{kind}' needs {least} classes or more, and there are {len(samples.classes)}"
        raise ScenarioError("tasks.transform.kind", problem)
    return len(samples.classes)


def need_numbers(samples: Samples, kind: str) -> None:
    """ScenarioError where x does not hold numbers but tokens."""
    if samples.x.dtype != np.float32:
        raise ScenarioError("tasks.transform.kind", f"'{kind}' changes numbers, and x holds tokens ({samples.x.dtype})")


def numbers_of(names: Sequence[Name], samples: Samples, key: str) -> Rows:
    """The labels of the classes called `names`; ScenarioError at `key` where there is no such class, or one comes twice."""
    asked = [str(name) for name in names]
    for name in asked:
        if name not in samples.classes:
            raise ScenarioError(key, f"no class '{name}'", allowed=samples.classes, got=name)
        if asked.count(name) > 1:
            raise ScenarioError(key, f"class '{name}' stands there twice")
    return np.array([samples.classes.index(name) for name in asked], dtype=np.int64)


def chosen(purpose: str, seed: int, client: int, n: int, k: int) -> Rows:
    """k of the numbers 0..n-1, in ascending order, drawn by key."""
    return np.sort(permutation(stream(seed, purpose, 0, client), n)[:k])


def flat(x: Array) -> Array:
    """[N, ...] as [N, d], also where N is 0."""
    return x.reshape(len(x), int(np.prod(x.shape[1:])))


def pictures(x: Array, kind: str) -> Array:
    """x as pictures, [N, channels, H, W]: [N, H, W] has one channel, and so has [N, d] if d is a square, H * H.

    Raises ScenarioError where x cannot be pictures.
    """
    if x.ndim == 4:
        return x
    if x.ndim == 3:
        return x[:, None]
    side = isqrt(x.shape[1]) if x.ndim == 2 else 0
    if side < 2 or side * side != x.shape[1]:
        problem = f"'{kind}' needs pictures: [N, H, W], [N, channels, H, W] or [N, H * H], not [N, *{list(x.shape[1:])}]"
        raise ScenarioError("tasks.transform.kind", problem)
    return x.reshape(len(x), 1, side, side)


def need_pictures(samples: Samples, kind: str) -> Array:
    """The samples as pictures of numbers; ScenarioError where they are not."""
    need_numbers(samples, kind)
    return pictures(samples.x, kind)
