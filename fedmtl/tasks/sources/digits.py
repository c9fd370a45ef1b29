"""The digits that come with scikit-learn: no download."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from fedmtl.tasks.task import Samples, Source


@cache
def _digits() -> Any:
    """What scikit-learn reads from a packed table of text, once; `load` hands out copies."""
    from sklearn.datasets import load_digits

    return load_digits()


@dataclass(frozen=True, kw_only=True)
class Digits(Source):
    """1797 handwritten digits of 8 x 8 pixels in [0, 1], bundled with scikit-learn.

    Alpaydin, Kaynak. Optical Recognition of Handwritten Digits. UCI Machine Learning Repository 1998.

    x: [1797, 64], or [1797, 1, 8, 8] with `image`; y: [1797], classes "0" to "9".
    """

    image: bool = False

    def load(self, clients: int, seed: int) -> Samples:
        """All digits, in the order of the set; neither argument matters."""
        bunch = _digits()
        x = (bunch.data / 16.0).astype(np.float32)
        return Samples(x=x.reshape(-1, 1, 8, 8) if self.image else x, y=bunch.target.astype(np.int64),
                       classes=tuple(str(digit) for digit in range(10)), task="digits")
