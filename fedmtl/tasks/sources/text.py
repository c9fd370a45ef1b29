"""Text as tokens that need no vocabulary, which clients would have to agree on: words are hashed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from fedmtl.errors import ScenarioError
from fedmtl.tasks.sources.check import check_lengths
from fedmtl.tasks.task import Array


def tokens_of(columns: Sequence[tuple[str, Array]], words: int, length: int, scale: object) -> Array:
    """[N, length] int64: of each row's words, in lower case, the first `length`, each as a number from 1 to words - 1; then 0.

    columns: names and texts [N], read one after the other. Weinberger et al. Feature Hashing for Large Scale Multitask Learning.
    ICML 2009. arXiv:0902.2206. scale: that of the source, for numbers alone. Raises ScenarioError where a column holds no text.
    """
    if words < 2:
        raise ScenarioError("tasks.words", f"two at least: 0 fills rows up (got {words})")
    if scale != 1:
        raise ScenarioError("tasks.scale", "words (tasks.words) are no numbers that could be scaled")
    for name, texts in columns:
        if texts.ndim != 1 or not all(isinstance(text, str) for text in texts.tolist()):
            raise ScenarioError("tasks.x", f"'{name}' does not hold text but {texts.dtype} {list(texts.shape)}, and tasks.words "
                                "asks for words")
    check_lengths(dict(columns), "tasks.x")
    out = np.zeros((len(columns[0][1]), length), np.int64)
    for row, said in zip(out, zip(*(texts.tolist() for _, texts in columns), strict=True), strict=True):
        found = re.findall(r"\w+", " ".join(said).lower())[:length]
        row[: len(found)] = [1 + zlib.crc32(word.encode()) % (words - 1) for word in found]
    return out
