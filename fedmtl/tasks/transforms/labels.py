"""What a client's labels mean: some of the classes, one against the rest, or names of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field

from fedmtl.errors import ScenarioError
from fedmtl.keys import permutation, stream
from fedmtl.tasks.task import Rows, Samples, Transform
from fedmtl.tasks.transforms.common import Name, chosen, lists_of, need_labels, numbers_of, turn

Names = Annotated[tuple[Name, ...], Field(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class Relabel(Transform):
    """Every client names the classes in an order of its own, so no classification layer can serve two clients.

    What is common is the representation alone: with private heads the tasks stay learnable, with one shared head they
    contradict each other. The label of class k is permutation[k], keyed by (seed, client).
    """

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """y renamed, and the task with the client's number; what `classes` names are the numbers, now."""
        names = permutation(stream(seed, "tasks.relabel", 0, client), len(samples.classes))
        return replace(samples, y=names[samples.y], task=f"{samples.task}-relabel-{client:02d}")

    def check(self, samples: Samples) -> None:
        """Only class labels can be renamed."""
        need_labels(samples, "relabel", 1)


@dataclass(frozen=True, kw_only=True)
class Subset(Transform):
    """A client keeps the rows of some classes, numbered from 0: a label space of its own.

    classes: the names of the classes, in the order of their new numbers; or a list of such lists, which clients take in
    turn. Left out: `count` classes drawn by key, in their old order. So classes = [["cat", "dog"], ["cat", "car"]] asks
    whether two pairs that share a class help each other. The task is called after its classes: "digits-3-8".
    """

    count: Annotated[int, Field(ge=1)] = 2
    classes: Names | Annotated[tuple[Names, ...], Field(min_length=1)] | None = None

    def _kept(self, samples: Samples, client: int, seed: int) -> Rows:
        if self.classes is None:
            return chosen("tasks.subset", seed, client, len(samples.classes), self.count)
        return numbers_of(turn(lists_of(self.classes), client), samples, "tasks.transform.classes")

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """Fewer rows and fewer classes."""
        kept = self._kept(samples, client, seed)
        number = np.full(len(samples.classes), -1)
        number[kept] = np.arange(len(kept))
        names = tuple(samples.classes[k] for k in kept)
        some = samples.take(np.flatnonzero(number[samples.y] >= 0))
        return replace(some, y=number[some.y], classes=names, task="-".join([samples.task, *names]))

    def check(self, samples: Samples) -> None:
        """All classes that are asked for must be there."""
        have = need_labels(samples, "subset", 1)
        for names in lists_of(self.classes or ()):
            numbers_of(names, samples, "tasks.transform.classes")
        if self.classes is None and self.count > have:
            raise ScenarioError("tasks.transform.count", f"{self.count} classes a client, but the samples have {have}")


@dataclass(frozen=True, kw_only=True)
class OneAgainstRest(Transform):
    """A client tells one class from all others: labels 0, "rest", and 1, the class. All rows stay.

    positive: the class, or a list that clients take in turn; left out, drawn by key. The task is called after it:
    "digits-3-against-rest".
    """

    positive: Name | Names | None = None

    def _turns(self) -> tuple[Name, ...]:
        if self.positive is None:
            return ()
        return (self.positive,) if isinstance(self.positive, str | int) else tuple(self.positive)

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """y: 1 where the row is of the class."""
        turns = self._turns()
        [one] = (numbers_of([turn(turns, client)], samples, "tasks.transform.positive") if turns
                 else chosen("tasks.one-against-rest", seed, client, len(samples.classes), 1))
        name = samples.classes[one]
        return replace(samples, y=(samples.y == one).astype(np.int64), classes=("rest", name),
                       task=f"{samples.task}-{name}-against-rest")

    def check(self, samples: Samples) -> None:
        """The classes must be there, and others beside them."""
        need_labels(samples, "one-against-rest")
        for name in self._turns():
            numbers_of([name], samples, "tasks.transform.positive")
