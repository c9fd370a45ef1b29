"""A file of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from fedmtl.errors import ScenarioError
from fedmtl.tasks.sources.check import (
    Target,
    as_float32,
    check_finite,
    check_lengths,
    check_samples,
    encode,
    encode_target,
)
from fedmtl.tasks.sources.reading import Columns, open_columns
from fedmtl.tasks.sources.text import tokens_of
from fedmtl.tasks.task import Array, Rows, Samples, Source

Names = str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class File(Source):
    """A file of your own: npz (arrays), csv or parquet (columns).

    x, y: names, or patterns such as "f*", or lists of these; x may be left out: the array x of an npz, or all numeric
    columns that are not used otherwise. client: the column that says whose row it is, of any type, "" for none. task: a
    column that parts rows further, so that each pair of a client and a task is one client, and names the client's task
    ("school-17" in school.npz). task_names, class_names: the array of an npz that names the tasks, or the classes, 0, 1 and
    so on. own_labels: every task numbers its own classes from 0, as labels of different tasks have nothing in common; the
    head is as wide as the largest needs, and a client of fewer classes never sees the outputs beyond its own. In an npz, the
    four arrays NAME_data, NAME_indices, NAME_indptr and NAME_shape of a sparse matrix (scipy's CSR) are read as NAME, and made
    dense. target: what y is, "class", "value" or "auto" (integers, truth values and text are classes; several columns or
    fractions are values); of values, NaN or an empty cell is a missing one. scale: x is multiplied by it; a number, a list of
    them, one a column, or the name of an array in the file. So MNIST as it is published, without its test part:
    path = "mnist.npz", x = "x_train", y = "y_train", scale = 0.00392156862745098. words: 0 where x holds numbers; else x names
    columns of text, whose words become this many tokens (tasks.sources.text), the first `length` of a row, for the trunk
    `embedding`.
    """

    path: str
    x: Names = ""
    y: Names = "y"
    client: str = ""
    task: str = ""
    task_names: str = ""
    class_names: str = ""
    own_labels: bool = False
    scale: float | str | tuple[float, ...] = 1.0
    target: Target = "auto"
    words: NonNegativeInt = 0
    length: PositiveInt = 64

    def load(self, clients: int, seed: int) -> Samples:
        """x [N, ...] float32, or [N, length] int64 tokens; y [N] labels or [N, k] float32; owner in the sorted order of clients,
        then tasks.
        """
        with open_columns(Path(self.path).expanduser()) as columns:
            y_names = _find(columns, self.y, "tasks.y")
            used = {*y_names, self.client, self.task}
            x = self._inputs(columns, used)
            y, classes = self._targets(columns, y_names)
            owner, tasks, task = self._owners(columns)
        check_lengths({"x": x, "y": y} | ({} if owner is None else {"client": owner}), "tasks.path")
        spaces: tuple[tuple[str, ...], ...] = ()
        if self.own_labels:
            y, classes, spaces = self._renumbered(y, classes, owner, task)
        made = Samples(x=x, y=y, classes=classes, owner=owner, task=Path(self.path).stem, tasks=tasks, spaces=spaces)
        return check_samples(made, "tasks.path")

    def _inputs(self, columns: Columns, used: set[str]) -> Array:
        if self.words and not self.x:
            raise ScenarioError("tasks.x", "say which columns hold the text whose words are asked for (tasks.words)")
        names = _find(columns, self.x or columns.default(used), "tasks.x")
        if not self.words:
            return self._scaled(columns, _joined(columns, names, "tasks.x", numbers=True))
        return tokens_of([(name, _rows(columns, name, "tasks.x")) for name in names], self.words, self.length, self.scale)

    def _targets(self, columns: Columns, names: tuple[str, ...]) -> tuple[Array, tuple[str, ...]]:
        y = _joined(columns, names, "tasks.y", missing=self.target != "class")
        y, classes = encode_target(y, self.target, "tasks.y", f"y ({', '.join(names)})")
        if self.class_names and not classes:
            raise ScenarioError("tasks.class-names", "y is of numbers, not of classes (tasks.target = \"class\" makes it so)")
        return y, _called(columns, self.class_names, "tasks.class-names", classes) if self.class_names else classes

    def _renumbered(self, y: Array, classes: tuple[str, ...], owner: Rows | None,
                    task: Rows | None) -> tuple[Array, tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """Labels, as many classes as the largest task (task [N]) has, and each owner's, numbered from 0 in their order."""
        if owner is None or task is None or not classes or self.class_names:
            needs = "needs classes as targets and a column of tasks, and no class-names, as a class has another name in each task"
            raise ScenarioError("tasks.own-labels", needs)
        pairs, place = np.unique(np.stack([task, y]), axis=1, return_inverse=True)
        number = np.arange(pairs.shape[1]) - np.searchsorted(pairs[0], pairs[0])
        names = {int(code): tuple(classes[label] for label in pairs[1, pairs[0] == code]) for code in np.unique(pairs[0])}
        task_of = task[np.unique(owner, return_index=True)[1]]
        spaces = tuple(names[int(code)] for code in task_of)
        return number[place.reshape(-1)], tuple(str(k) for k in range(number.max() + 1)), spaces

    def _owners(self, columns: Columns) -> tuple[Rows | None, tuple[str, ...], Rows | None]:
        """The owner of each row, the task's name of each owner where there is a column of tasks, and each row's task there."""
        parts: list[Rows] = []
        names: tuple[str, ...] = ()
        for key, name in (("tasks.client", self.client), ("tasks.task", self.task)):
            if name:
                [found] = _find(columns, (name,), key)
                codes, names = encode(_rows(columns, found, key), key, f"column '{found}'")
                parts.append(codes)
        if self.task_names:
            if not self.task:
                raise ScenarioError("tasks.task-names", "there is no column of tasks (tasks.task) to name")
            names = _called(columns, self.task_names, "tasks.task-names", names)
        if not parts:
            return None, (), None
        check_lengths({"client": parts[0], "task": parts[-1]}, "tasks.task")
        pairs, owner = np.unique(np.stack(parts), axis=1, return_inverse=True)
        tasks = tuple(f"{Path(self.path).stem}-{names[code]}" for code in pairs[-1]) if self.task else ()
        return owner.reshape(-1).astype(np.int64), tasks, parts[-1] if self.task else None

    def _scaled(self, columns: Columns, x: Array) -> Array:
        """x times `scale`, in place."""
        if not isinstance(self.scale, str):
            factor = np.atleast_1d(np.asarray(self.scale, dtype=np.float64))
            check_finite(factor, "tasks.scale", "scale")
            if factor.size != 1 and factor.shape != x.shape[1:]:
                problem = f"one number, or one for each of {list(x.shape[1:])} as in a row of x (got {factor.size})"
                raise ScenarioError("tasks.scale", problem)
        else:
            [name] = _find(columns, (self.scale,), "tasks.scale")
            factor = np.asarray(columns.read(name, "tasks.scale"))
            if factor.dtype.kind not in "fiu" or (factor.size != 1 and factor.shape != x.shape[1:]):
                raise ScenarioError("tasks.scale", f"'{name}' must be one number, or {list(x.shape[1:])} as a row of x")
        with np.errstate(over="ignore"):
            return np.multiply(x, factor, out=x, casting="same_kind")


def _find(columns: Columns, wanted: Names, key: str) -> tuple[str, ...]:
    """The names in the file that `wanted` (names or patterns) means, in the order asked for, then that of the file."""
    found: list[str] = []
    for name in (wanted,) if isinstance(wanted, str) else wanted:
        hits: Iterable[str] = [name] if name in columns.names else [c for c in columns.names if fnmatchcase(c, name)]
        if not hits:
            raise ScenarioError(key, f"the file has no '{name}'", allowed=columns.names, got=name)
        found += [hit for hit in hits if hit not in found]
    if not found:
        raise ScenarioError(key, "the file has no column of numbers that could be x", allowed=columns.names)
    return tuple(found)


def _called(columns: Columns, name: str, key: str, numbers: tuple[str, ...]) -> tuple[str, ...]:
    """What the array `name` calls these `numbers`: its entries there."""
    [found] = _find(columns, (name,), key)
    names = columns.read(found, key)
    if names.ndim != 1 or names.dtype.kind not in "US" or len(np.unique(names)) < len(names):
        raise ScenarioError(key, f"'{found}' must be a list of different names, not {list(names.shape)} {names.dtype}")
    wrong = [number for number in numbers if not number.isdecimal() or int(number) >= len(names)]
    if wrong:
        raise ScenarioError(key, f"'{found}' names 0 to {len(names) - 1}, but there is {wrong[0]}")
    every = np.char.decode(names, "utf-8", "replace") if names.dtype.kind == "S" else names
    return tuple(str(every[int(number)]) for number in numbers)


def _rows(columns: Columns, name: str, key: str, *, missing: bool = False) -> Array:
    values = columns.read(name, key, missing=missing)
    if values.ndim == 0:
        raise ScenarioError(key, f"'{name}' is a single value, not an array of rows", allowed=columns.names)
    return values


def _joined(columns: Columns, names: tuple[str, ...], key: str, *, numbers: bool = False, missing: bool = False) -> Array:
    """One column as it is, or several side by side: [N, k]; x (`numbers`) is float32 at once. `missing`: NaN may be there."""
    if len(names) == 1:
        values = _rows(columns, names[0], key, missing=missing)
        return as_float32(values, key, f"'{names[0]}'") if numbers else values
    parts = {name: as_float32(_rows(columns, name, key, missing=missing), key, f"'{name}'", missing=missing) for name in names}
    check_lengths(dict(parts), key)
    return np.concatenate([part.reshape(len(part), -1) for part in parts.values()], axis=1)
