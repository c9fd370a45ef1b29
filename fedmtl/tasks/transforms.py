"""How one client's rows become its own task."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fedmtl.errors import ScenarioError
from fedmtl.keys import permutation, stream
from fedmtl.tasks.task import Samples, Transform


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
        if not samples.classes:
            raise ScenarioError("tasks.transform.kind", "'relabel' renames classes, and these samples have none")
