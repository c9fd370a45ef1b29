"""The bridge to Flower's partitioners.

They run on a dataset of labels and row numbers alone, put in a keyed order first, since several of them cut it in
sequence. They draw from generators of their own, seeded here, and never from numpy's global one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fedmtl.errors import ScenarioError
from fedmtl.keys import fold, permutation, stream
from fedmtl.tasks.hf import quiet
from fedmtl.tasks.task import Rows, Samples


def partition(make: Callable[[Any, int], Any], labels: Rows, seed: int, kind: str, attempt: int = 0) -> list[Rows]:
    """Row numbers of each client, ascending, from the partitioner `make(flwr_datasets.partitioner, its seed)`.

    The column of labels is called "label". The indices are taken from the partitioner as it made them: to ask for its
    parts one by one costs milliseconds each. What it raises (ValueError and arithmetic errors) passes through.
    """
    key = stream(seed, f"tasks.split.{kind}")
    order = permutation(key, len(labels))
    with quiet(), np.errstate(divide="raise", invalid="raise"):
        import datasets
        from flwr_datasets import partitioner as flower

        made = make(flower, int(fold(key, attempt)))
        made.dataset = datasets.Dataset.from_dict({"label": labels[order], "row": order})
        clients = made.num_partitions
        rows = np.asarray(made.dataset.with_format("numpy")["row"][:], dtype=np.int64)
        indices = made._partition_id_to_indices
    return [np.sort(rows[np.asarray(indices[client], dtype=np.int64)]) for client in range(clients)]


def check_clients(samples: Samples, clients: int, rows: int = 1, key: str = "tasks.clients") -> None:
    """Raise ScenarioError where `samples` cannot give every client `rows` rows."""
    if clients < 1:
        raise ScenarioError("tasks.clients", f"this split needs 1 client or more, not {clients}")
    if clients * rows > len(samples):
        possible = f"at most {len(samples) // rows} clients, or {len(samples) // clients} rows each"
        needed = f"{clients} clients with {rows} or more rows each need {clients * rows}"
        raise ScenarioError(key, f"too few samples: {needed}, and the source has {len(samples)}: {possible}")


def labels_of(samples: Samples, kind: str) -> Rows:
    """[N] the class labels; ScenarioError where there are none to split by."""
    if not samples.classes:
        others = ("iid", "linear", "square", "exponential", "natural")
        raise ScenarioError("tasks.split.kind", f"'{kind}' needs class labels; here y is a value", allowed=others)
    return samples.y
