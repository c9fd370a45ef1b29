"""A Hugging Face dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from fedmtl.errors import ScenarioError
from fedmtl.tasks.hf import quiet
from fedmtl.tasks.sources.check import Target, as_float32, check_lengths, check_samples, encode, encode_target
from fedmtl.tasks.sources.text import tokens_of
from fedmtl.tasks.task import Array, Samples, Source


@dataclass(frozen=True, kw_only=True)
class Hub(Source):
    """A dataset of the Hugging Face Hub, or a folder of such files on this machine, through Flower Datasets.

    x: the column of inputs, or a list of columns of numbers; images become [N, C, H, W] in [0, 1], then times `scale`.
    y: the column of labels or targets. client: the column that says whose row it is, "" for none. part: which published
    part to read (the whole of it is divided anew). words: 0 where x holds numbers; else x names columns of text, whose words
    become this many tokens (tasks.sources.text), the first `length` of a row, for the trunk `embedding`. cache: the folder for the
    library's files, "" for its own choice.
    """

    dataset: str
    subset: str = ""
    part: str = "train"
    x: str | tuple[str, ...] = "image"
    y: str = "label"
    client: str = ""
    scale: float = 1.0
    target: Target = "auto"
    words: NonNegativeInt = 0
    length: PositiveInt = 64
    cache: str = ""

    def load(self, clients: int, seed: int) -> Samples:
        """All rows of the part, in published order. ScenarioError where the hub, part or column is out of reach."""
        with quiet():
            table = self._table()
            names = (self.x,) if isinstance(self.x, str) else self.x
            others = [("tasks.y", self.y), ("tasks.client", self.client)]
            for key, name in [*(("tasks.x", name) for name in names), *others]:
                if name and name not in table.column_names:
                    known = table.column_names
                    raise ScenarioError(key, f"'{self.dataset}' has no column '{name}'", allowed=known, got=name)
            x = self._inputs(table, names)
            y, classes = self._targets(table)
            owner = None
            if self.client:
                values = _column(table, self.client, "tasks.client")
                owner, _ = encode(values, "tasks.client", f"column '{self.client}'")
        check_lengths({"x": x, "y": y}, "tasks.dataset")
        task = self.dataset.rstrip("/").rpartition("/")[2]
        return check_samples(Samples(x=x, y=y, classes=classes, owner=owner, task=task), "tasks.dataset")

    def _inputs(self, table: Any, names: tuple[str, ...]) -> Array:
        if not self.words:
            parts = [_numbers(table, name) for name in names]
            x = parts[0] if len(parts) == 1 else np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)
            return x * np.float32(self.scale)
        return tokens_of([(name, _column(table, name, "tasks.x")) for name in names], self.words, self.length, self.scale)

    def _table(self) -> Any:
        from datasets.exceptions import DatasetsError
        from flwr_datasets import FederatedDataset
        from huggingface_hub.errors import HfHubHTTPError

        options = {"cache_dir": self.cache} if self.cache else {}
        subset = self.subset or None
        federated = FederatedDataset(dataset=self.dataset, subset=subset, partitioners={}, shuffle=False, **options)
        try:
            return federated.load_split(self.part)
        except (ConnectionError, HfHubHTTPError) as error:
            problem = f"the Hugging Face Hub cannot be reached for '{self.dataset}' ({error})"
            remedy = "name a folder with csv or parquet files instead"
            raise ScenarioError("tasks.dataset", f"{problem}; {remedy}") from error
        except (OSError, ValueError, DatasetsError) as error:
            key = "tasks.part" if "given split" in str(error) else "tasks.dataset"
            raise ScenarioError(key, f"'{self.dataset}' cannot be loaded: {error}") from error

    def _targets(self, table: Any) -> tuple[Array, tuple[str, ...]]:
        values = _column(table, self.y, "tasks.y")
        names = getattr(table.features[self.y], "names", None)
        if names is None or self.target == "value":
            return encode_target(values, self.target, "tasks.y", f"column '{self.y}'")
        return values.astype(np.int64), tuple(names)


def _column(table: Any, name: str, key: str) -> Array:
    """One column as [N, ...]; ScenarioError where values are missing or rows differ in shape."""
    values = table.select_columns([name]).with_format("numpy")[:][name]
    rows = list(values)
    missing = [row for row, value in enumerate(rows) if value is None]
    if missing:
        raise ScenarioError(key, f"column '{name}' has no value in row {missing[0]}")
    if len({np.shape(value) for value in rows}) > 1:
        raise ScenarioError(key, f"the rows of column '{name}' have different shapes")
    stacked = np.asarray(values)
    return stacked if stacked.dtype.kind != "O" else np.array([np.asarray(value) for value in rows])


def _numbers(table: Any, name: str) -> Array:
    """One column as float32 [N, ...]; images as [N, C, H, W] in [0, 1]."""
    from datasets import Image

    values = _column(table, name, "tasks.x")
    if isinstance(table.features[name], Image):
        values = values[:, None] if values.ndim == 3 else np.moveaxis(values, -1, 1)
        return as_float32(values, "tasks.x", name) / np.float32(255)
    return as_float32(values, "tasks.x", f"column '{name}'")
