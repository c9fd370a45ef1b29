"""What a client predicts: a target made from its pictures, or one of several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedmtl.errors import ScenarioError
from fedmtl.keys import fold, generator, stream, uniform
from fedmtl.registry import Amount, Count
from fedmtl.tasks.task import Array, Samples, Transform
from fedmtl.tasks.transforms.common import flat, need_labels, need_pictures, pictures, turn

What = Literal["parity", "ink", "centroid", "mask", "corrupted", "rows"]


@dataclass(frozen=True, kw_only=True)
class Target(Transform):
    """Pictures stay, and what is asked of them changes: the same input, other losses.

    what: "parity", is the class, a number, odd; 2 classes. "ink": the sum of the pixels, [N, 1]. "centroid": row and
    column of the centre of mass in pixels, [N, 2], the middle where there is no ink. "mask": which pixels exceed
    `threshold`, [N, H * W] labels "off" and "on". "corrupted": x gets Gaussian noise (`std`) and a square of side `block`
    at a place of its own is erased; y is the picture as it was, [N, d]. "rows": which are the `brightest` rows of the
    picture, [N, H] of 0 and 1; of equals the upper one. Channels are averaged ("ink": summed). The task is called after
    it: "digits-parity". A federation with several of these has a [[tasks.group]] for each.
    """

    what: What = "parity"
    threshold: Annotated[float, Field(allow_inf_nan=False)] = 0.5
    std: Amount = 0.2
    block: Count = 3
    brightest: Annotated[int, Field(ge=1)] = 3

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """Another y; x stays but for "corrupted"."""
        made = replace(samples, task=f"{samples.task}-{self.what}", classes=())
        shown = pictures(samples.x, "target")
        if self.what == "parity":
            odd = np.array([int(name) % 2 for name in samples.classes], dtype=np.int64)
            return replace(made, y=odd[samples.y], classes=("even", "odd"))
        if self.what == "mask":
            return replace(made, y=(flat(shown.mean(axis=1)) > self.threshold).astype(np.int64), classes=("off", "on"))
        if self.what == "corrupted":
            return replace(made, x=self._corrupted(shown, client, seed).reshape(samples.x.shape), y=flat(samples.x).copy())
        if self.what == "ink":
            return replace(made, y=flat(shown).sum(axis=1, keepdims=True))
        grey = shown.mean(axis=1)
        return replace(made, y=_centroid(grey) if self.what == "centroid" else self._brightest(grey))

    def _brightest(self, grey: Array) -> Array:
        order = np.argsort(-grey.sum(axis=2), axis=1, kind="stable")
        y = np.zeros(grey.shape[:2], dtype=np.float32)
        np.put_along_axis(y, order[:, : self.brightest], np.float32(1), axis=1)
        return y

    def _corrupted(self, shown: Array, client: int, seed: int) -> Array:
        key, (n, _, height, width) = stream(seed, "tasks.target", 0, client), shown.shape
        x = shown + np.float32(self.std) * generator(key).standard_normal(shown.shape, dtype=np.float32)
        place = uniform(fold(key, np.arange(1, n + 1)), 2) * [max(height - self.block, 0) + 1, max(width - self.block, 0) + 1]
        down, right = (np.arange(side) - np.floor(place[:, i, None]) for i, side in enumerate((height, width)))
        erased = ((down >= 0) & (down < self.block))[:, :, None] & ((right >= 0) & (right < self.block))[:, None, :]
        return np.where(erased[:, None], np.float32(0), x)

    def check(self, samples: Samples) -> None:
        """Pictures, and for "parity" classes whose names are whole numbers."""
        shape = need_pictures(samples, "target").shape
        if self.what == "parity":
            need_labels(samples, "target", 1)
            odd = [name for name in samples.classes if not name.isdecimal()]
            if odd:
                raise ScenarioError("tasks.transform.what", f"\"parity\" needs classes that are numbers, not '{odd[0]}'")
        if self.what == "rows" and self.brightest >= shape[2]:
            raise ScenarioError("tasks.transform.brightest", f"fewer than the picture's {shape[2]} rows are needed")


def _centroid(grey: Array) -> Array:
    """[N, 2] the centre of mass of grey pictures [N, H, W]."""
    mass, out = grey.sum(axis=(1, 2), dtype=np.float64), []
    for axis, other in ((1, 2), (2, 1)):
        along = (grey.sum(axis=other, dtype=np.float64) * np.arange(grey.shape[axis])).sum(axis=1)
        out.append(np.where(mass > 0, along / np.where(mass > 0, mass, 1), (grey.shape[axis] - 1) / 2))
    return np.stack(out, axis=1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Outputs(Transform):
    """A client predicts some of the columns of y [N, k] only: several regressions become as many tasks.

    columns: their numbers, which clients take in turn, or a list of lists of them; left out, client c has column c modulo
    k. The task is called after them: "sarcos-6".
    """

    columns: tuple[Annotated[int, Field(ge=0)], ...] | tuple[tuple[Annotated[int, Field(ge=0)], ...], ...] = ()

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """y: [N, 1], or [N, j] for a list of j."""
        lists = [[one] if isinstance(one, int) else list(one) for one in self.columns]
        kept = turn(lists, client) if lists else [client % samples.y.shape[1]]
        return replace(samples, y=samples.y[:, kept], task="-".join([samples.task, *map(str, kept)]))

    def check(self, samples: Samples) -> None:
        """The columns must be there."""
        if samples.y.ndim != 2 or samples.classes:
            raise ScenarioError("tasks.transform.kind", "'outputs' needs targets of several columns, [N, k] numbers")
        k = samples.y.shape[1]
        every = [np.atleast_1d(one) for one in self.columns]
        if any(not len(one) or one.max() >= k or len(np.unique(one)) < len(one) for one in every):
            raise ScenarioError("tasks.transform.columns", f"different columns from 0 to {k - 1} are needed")
