"""Keyed randomness: every draw depends on (seed, purpose, round, client) and on nothing else.

No generator state exists anywhere, so the same draw comes out in any process and in any order. A key is a 64-bit integer,
mixed by SplitMix64 (Steele, Lea, Flood. Fast Splittable Pseudorandom Number Generators. OOPSLA 2014), whose finaliser is a
bijection with full avalanche; arrays of keys give the draws of a whole cohort in one vectorised call.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

Keys = npt.NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(z: Keys) -> Keys:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def fold(key: npt.ArrayLike, *values: npt.ArrayLike) -> Keys:
    """Keys derived from `key` by each of `values` in turn; all broadcast against each other."""
    out = np.asarray(key, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for value in values:
            out = _mix((out ^ _mix(np.asarray(value).astype(np.uint64) + _GOLDEN)) + _GOLDEN)
    return out


def stream(seed: int, purpose: str, round: int = 0, client: npt.ArrayLike = 0) -> Keys:
    """The key of one purpose in one round for one client, or for an array of clients (same shape)."""
    return fold(_purpose(seed, purpose), round, client)


@lru_cache(maxsize=4096)
def _purpose(seed: int, purpose: str) -> Keys:
    return fold(np.uint64(seed), zlib.crc32(purpose.encode()))


def uniform(key: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    """`n` numbers in [0, 1) for each key: shape [*key.shape, n]."""
    bits = fold(np.asarray(key, dtype=np.uint64)[..., None], np.arange(n, dtype=np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(key: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """A uniform permutation of range(n) for each key: shape [*key.shape, n]."""
    bits = fold(np.asarray(key, dtype=np.uint64)[..., None], np.arange(n, dtype=np.uint64))
    return np.argsort(bits, axis=-1, kind="stable")


def generator(key: npt.ArrayLike) -> np.random.Generator:
    """A numpy generator of its own for one key, for draws that numpy or a library shapes."""
    return np.random.Generator(np.random.Philox(int(np.asarray(key, dtype=np.uint64))))


def torch_generator(key: npt.ArrayLike) -> torch.Generator:
    """A torch generator of its own for one key, for initial weights."""
    return torch.Generator().manual_seed(int(np.asarray(key, dtype=np.uint64)) & (2**63 - 1))
