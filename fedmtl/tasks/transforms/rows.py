"""Which rows and labels a client has: wrong labels, rare classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedmtl.keys import fold, permutation, stream, uniform
from fedmtl.registry import Share
from fedmtl.tasks.task import Samples, Transform
from fedmtl.tasks.transforms.common import need_labels


@dataclass(frozen=True, kw_only=True)
class LabelNoise(Transform):
    """A share of a client's labels is wrong: each such label is one of the other classes, all alike likely.

    share: rounded to whole rows. Rows are divided into train, val and test later, so labels are wrong in all three: the
    scores are those against the noisy labels, at most 1 - share for a perfect model.
    """

    share: Share = 0.2

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """y with round(share * N) labels changed."""
        key, classes = stream(seed, "tasks.label-noise", 0, client), len(samples.classes)
        rows = permutation(key, len(samples))[: round(self.share * len(samples))]
        y = samples.y.copy()
        y[rows] = (y[rows] + 1 + (uniform(fold(key, 1), len(rows)) * (classes - 1)).astype(np.int64)) % classes
        return replace(samples, y=y)

    def check(self, samples: Samples) -> None:
        """Another class is needed."""
        need_labels(samples, "label-noise")


@dataclass(frozen=True, kw_only=True)
class Imbalance(Transform):
    """Some classes of a client become rare: of its class in place j of K it keeps the share ratio^(-j / (K - 1)).

    Cui, Jia, Lin, Song, Belongie. Class-Balanced Loss Based on Effective Number of Samples. CVPR 2019. arXiv:1901.05555,
    section 5.1 ("long-tailed": an exponential function of the class's place)

    ratio: of the largest share to the smallest. order: "key", a place of its own for every class in every client, or
    "classes", the same in all. A class that a client has keeps one row at least.
    """

    ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10.0
    order: Literal["key", "classes"] = "key"

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """Fewer rows, in the order in which they stood."""
        key, classes = stream(seed, "tasks.imbalance", 0, client), len(samples.classes)
        place = permutation(key, classes) if self.order == "key" else np.arange(classes)
        have = np.bincount(samples.y, minlength=classes)
        keep = np.maximum(np.rint(have * self.ratio ** (-place / max(classes - 1, 1))), have > 0).astype(np.int64)
        mixed = permutation(fold(key, 1), len(samples))
        order = mixed[np.argsort(samples.y[mixed], kind="stable")]
        within = np.arange(len(order)) - (np.cumsum(have) - have)[samples.y[order]]
        return samples.take(np.sort(order[within < keep[samples.y[order]]]))

    def check(self, samples: Samples) -> None:
        """Two classes make one rarer than the other."""
        need_labels(samples, "imbalance")
