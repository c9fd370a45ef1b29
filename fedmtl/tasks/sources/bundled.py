"""Real sets of different kinds that come with scikit-learn: no download.

Features are put into [0, 1] by constants: the range of each feature that the set's own description prints (scikit-learn's
DESCR, copied here). Nothing is fitted to anybody's rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedmtl.tasks.task import Array, Samples, Source

_CANCER = (  # low and high of the 10 means, 10 standard errors and 10 worst values
    (6.981, 28.11), (9.71, 39.28), (43.79, 188.5), (143.5, 2501.0), (0.053, 0.163), (0.019, 0.345), (0.0, 0.427),
    (0.0, 0.201), (0.106, 0.304), (0.05, 0.097), (0.112, 2.873), (0.36, 4.885), (0.757, 21.98), (6.802, 542.2),
    (0.002, 0.031), (0.002, 0.135), (0.0, 0.396), (0.0, 0.053), (0.008, 0.079), (0.001, 0.03), (7.93, 36.04),
    (12.02, 49.54), (50.41, 251.2), (185.2, 4254.0), (0.071, 0.223), (0.027, 1.058), (0.0, 1.252), (0.0, 0.291),
    (0.156, 0.664), (0.055, 0.208))
_WINE = ((11.0, 14.8), (0.74, 5.80), (1.36, 3.23), (10.6, 30.0), (70.0, 162.0), (0.98, 3.88), (0.34, 5.08), (0.13, 0.66),
         (0.41, 3.58), (1.3, 13.0), (0.48, 1.71), (1.27, 4.00), (278.0, 1680.0))


def _ranged(x: Array, ranges: tuple[tuple[float, float], ...]) -> Array:
    low, high = np.array(ranges).T
    return np.asarray((x - low) / (high - low), dtype=np.float32)


def _classified(bunch: Any, ranges: tuple[tuple[float, float], ...], task: str) -> Samples:
    return Samples(x=_ranged(bunch.data, ranges), y=bunch.target.astype(np.int64),
                   classes=tuple(map(str, bunch.target_names)), task=task)


@dataclass(frozen=True, kw_only=True)
class BreastCancer(Source):
    """569 breast tumours, 30 measures of their cells, malignant or benign; bundled with scikit-learn.

    Wolberg, Mangasarian, Street, Street. Breast Cancer Wisconsin (Diagnostic). UCI Machine Learning Repository 1995.

    x: [569, 30] about 0 to 1 (the printed ranges are rounded); y: [569], classes "malignant" and "benign".
    """

    def load(self, clients: int, seed: int) -> Samples:
        """All rows, in the order of the set; neither argument matters."""
        from sklearn.datasets import load_breast_cancer

        return _classified(load_breast_cancer(), _CANCER, "breast-cancer")


@dataclass(frozen=True, kw_only=True)
class Wine(Source):
    """178 wines of three growers, 13 chemical measures; bundled with scikit-learn.

    Aeberhard, Forina. Wine. UCI Machine Learning Repository 1991.

    x: [178, 13] about 0 to 1 (the printed ranges are rounded); y: [178], classes "class_0" to "class_2".
    """

    def load(self, clients: int, seed: int) -> Samples:
        """All rows, in the order of the set; neither argument matters."""
        from sklearn.datasets import load_wine

        return _classified(load_wine(), _WINE, "wine")


@dataclass(frozen=True, kw_only=True)
class Diabetes(Source):
    """442 diabetes patients, 10 measures, and how far the disease went in a year; bundled with scikit-learn.

    Efron, Hastie, Johnstone, Tibshirani. Least Angle Regression. Annals of Statistics 2004. arXiv:math/0406456

    x: [442, 10], as published: centred, with unit sum of squares over all 442 rows; times 21, about the root of 442, so that
    the variance is about 1. y: [442, 1], 25 to 346, as it is.
    """

    def load(self, clients: int, seed: int) -> Samples:
        """All rows, in the order of the set; neither argument matters."""
        from sklearn.datasets import load_diabetes

        bunch = load_diabetes()
        return Samples(x=(bunch.data * 21).astype(np.float32), y=bunch.target.astype(np.float32)[:, None], task="diabetes")
