"""Train, val and test: every client's rows divided at once, each class in proportion.

A client's rows are laid out class after class, in keyed order within a class, and every (n / n_test)-th is taken:
systematic sampling, exact in integers. So each class gives its share of the test rows to within one, and so for val
among the rest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fedmtl.keys import Keys, fold, stream
from fedmtl.tasks.task import Array, Rows


def part_sizes(sizes: Rows, val: float, test: float) -> tuple[Rows, Rows]:
    """[C] val and [C] test counts: the fractions rounded, 1 or more where the fraction is above 0, leaving 1 train row.

    Each size must be at least 1, plus 1 for each fraction above 0.
    """
    n_val, n_test = (np.maximum(np.floor(f * sizes + 0.5).astype(np.int64), int(f > 0)) for f in (val, test))
    n_test = n_test - np.minimum(np.maximum(n_val + n_test + 1 - sizes, 0), n_test - int(test > 0))
    return n_val - np.maximum(n_val + n_test + 1 - sizes, 0), n_test


def _systematic(client: Rows, sizes: Rows, counts: Rows, keys: Keys) -> npt.NDArray[np.bool_]:
    """[M] which rows are taken: counts[c] of the sizes[c] rows of client c, evenly spaced from a keyed start."""
    place = np.arange(len(client)) - (np.cumsum(sizes) - sizes)[client]
    start = (keys % sizes.astype(np.uint64)).astype(np.int64)[client]
    n, k = sizes[client], counts[client]
    return np.asarray(((place + 1) * k + start) // n > (place * k + start) // n)


def divide(y: Array, sizes: Rows, ids: Rows, *, val: float, test: float, seed: int) -> tuple[Rows, Rows]:
    """Divide rows 0..M-1, which stand client after client: `sizes` [C] of them, y [M] or [M, k], clients `ids` [C].

    Returns the rows [M] in the order train, val, test of each client, and bounds [C, 4] as in Federation. A client's
    division depends on (seed, its id, its own rows) alone.
    """
    client = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(client)) - (np.cumsum(sizes) - sizes)[client]
    keys = stream(seed, "tasks.divide", 0, ids)
    labels = y if y.ndim == 1 else np.zeros(len(y), dtype=np.int64)
    order = np.lexsort((fold(keys[client], place), client * (int(labels.max()) + 1) + labels))
    n_val, n_test = part_sizes(sizes, val, test)
    part = np.zeros(len(client), dtype=np.int64)
    tested = _systematic(client, sizes, n_test, fold(keys, 1, 2))
    part[order[tested]] = 2
    rest, left = order[~tested], sizes - n_test
    part[rest[_systematic(client[~tested], left, n_val, fold(keys, 1, 1))]] = 1
    ends = np.cumsum(np.stack([sizes - n_val - n_test, n_val, n_test], axis=1), axis=1)
    first = (np.cumsum(sizes) - sizes)[:, None]
    return np.argsort(client * 3 + part, kind="stable").astype(np.int64), np.concatenate([first, first + ends], axis=1)
