"""Data for the engine's benchmark: as many clients as asked for, from scikit-learn's digits, drawn with replacement."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from fedmtl import keys


def _owned(total: int, sizes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return keys.generator(keys.stream(seed, "bench rows")).integers(0, total, len(owner)), owner


def digits_many(clients: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """20 to 60 training rows a client (and 20 % + 20 % beside them): x [N, 64], y [N], owner [N]."""
    x, y = load_digits(return_X_y=True)
    sizes = keys.generator(keys.stream(seed, "bench sizes")).integers(34, 101, clients)
    rows, owner = _owned(len(x), sizes, seed)
    return (x[rows] / 16).astype(np.float32), y[rows], owner


def images(clients: int, seed: int, rows: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`rows` training rows a client (and a sixth beside them) of 28 x 28 images: digits, scaled up. x [N, 1, 28, 28]."""
    x, y = load_digits(return_X_y=True)
    taken, owner = _owned(len(x), np.full(clients, rows * 7 // 6), seed)
    small = (x[taken] / 16).astype(np.float32).reshape(-1, 8, 8)
    return np.pad(small.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))[:, None], y[taken], owner
