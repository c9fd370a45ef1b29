"""What every source must hold to, and the conversions they share."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np

from fedmtl.errors import ScenarioError
from fedmtl.tasks.task import Array, Rows, Samples

Target = Literal["auto", "class", "value"]
TOKENS = 2**24
"""Models are given tokens as float32, which holds whole numbers up to this one."""


def check_samples(samples: object, key: str) -> Samples:
    """`samples`, if it is what `Samples` promises: shapes, types, lengths, finite values. Of numbers in y, NaN is a missing one.

    Raises ScenarioError at `key` where it is not.
    """
    if not isinstance(samples, Samples):
        raise ScenarioError(key, f"gave {type(samples).__name__}, not Samples")
    for name in ("x", "y") if samples.owner is None else ("x", "y", "owner"):
        if not isinstance(getattr(samples, name), np.ndarray):
            raise ScenarioError(key, f"{name} is {type(getattr(samples, name)).__name__}, not a numpy array")
    x, y, owner = samples.x, samples.y, samples.owner
    if x.ndim < 2 or x.dtype not in (np.float32, np.int64):
        raise ScenarioError(key, f"x must be [N, ...] float32, or int64 tokens; it is {list(x.shape)} {x.dtype}")
    if x.dtype == np.int64 and np.abs(x).max(initial=0) > TOKENS:
        raise ScenarioError(key, f"tokens go up to {TOKENS}; x holds {np.abs(x).max()}")
    if x.size == 0:
        raise ScenarioError(key, f"x is empty: {list(x.shape)}")
    labelled = y.ndim in (1, 2) and y.size > 0 and y.dtype == np.int64
    if not labelled and not (y.ndim == 2 and y.dtype == np.float32 and y.shape[1] > 0):
        raise ScenarioError(key, f"y must be [N] or [N, L] int64, or [N, k] float32; it is {list(y.shape)} {y.dtype}")
    check_lengths({"x": x, "y": y} | ({} if owner is None else {"owner": owner}), key)
    lowest = -1 if y.ndim == 2 else 0  # of many labels a row, some may be missing
    if labelled and (y.min() < lowest or y.max() >= len(samples.classes)):
        raise ScenarioError(key, f"labels run from {y.min()} to {y.max()}; {len(samples.classes)} classes are named")
    if not labelled and samples.classes:
        raise ScenarioError(key, "classes are named, but y is not a label")
    if owner is not None and (owner.ndim != 1 or owner.dtype != np.int64 or owner.min() < 0):
        raise ScenarioError(key, f"owner must be [N] int64, 0 or more; it is {list(owner.shape)} {owner.dtype}")
    if samples.tasks and (owner is None or len(samples.tasks) <= owner.max()):
        raise ScenarioError(key, f"tasks names {len(samples.tasks)} owners; every owner needs a name, or none")
    check_finite(x, key, "x")
    check_finite(y, key, "y", missing=True)
    return samples


def check_lengths(arrays: dict[str, Array], key: str) -> None:
    """Raise ScenarioError where the arrays have not all the same number of rows."""
    if len({len(array) for array in arrays.values()}) > 1:
        shown = ", ".join(f"{name} has {len(array)}" for name, array in arrays.items())
        raise ScenarioError(key, f"unequal numbers of rows: {shown}")


def check_finite(values: Array, key: str, what: str, *, missing: bool = False) -> None:
    """Raise ScenarioError with the first row of `values` [N, ...] that holds an infinity, or a NaN where none may be `missing`."""
    if values.dtype.kind != "f":
        return
    bad = np.isinf(values) if missing else ~np.isfinite(values)
    if bad.any():
        place = np.argwhere(bad)[0]
        inner = f", place {place[1:].tolist()}" if len(place) > 1 else ""
        raise ScenarioError(key, f"{what} holds {values[tuple(place)]} in row {place[0]}{inner}"
                                 f" ({int(bad.sum())} such values in all, as {values.dtype})")


def as_float32(values: Array, key: str, what: str, *, missing: bool = False) -> Array:
    """`values` [N, ...] as float32, at least two-dimensional; ScenarioError where they are not finite (`missing`: nor NaN)."""
    if values.dtype.kind not in "fiub":
        remedy = " (tasks.words reads text)" if key == "tasks.x" and values.dtype.kind in "OUT" else ""
        raise ScenarioError(key, f"{what} does not hold numbers but {values.dtype}{remedy}")
    check_finite(values, key, what, missing=missing)
    with np.errstate(over="ignore"):
        out = values.astype(np.float32)
    check_finite(out, key, what, missing=missing)
    return out.reshape(len(out), -1) if out.ndim == 1 else out


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A sort key by which "item 9" comes before "item 10"."""
    pieces = re.split(r"([0-9]+)", name)
    numbers = [int(piece) if re.fullmatch(r"[0-9]+", piece) else -1 for piece in pieces]
    return [(number >= 0, number, piece) for number, piece in zip(numbers, pieces, strict=True)]


def encode(values: Array, key: str, what: str) -> tuple[Rows, tuple[str, ...]]:
    """Values [N] of any plain type as numbers 0..K-1, and the K names, numbers by size and text in natural order."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind == "O":
        values = np.array([str(value) for value in values.tolist()])
    if values.ndim != 1 or values.dtype.kind not in "fiubU":
        shown = f"{list(values.shape)} {values.dtype}"
        raise ScenarioError(key, f"{what} must be one column of numbers or text, not {shown}")
    check_finite(values, key, what)
    if values.dtype.kind == "f" and np.array_equal(values, np.round(values)) and np.abs(values).max(initial=0) < 2**53:
        values = values.astype(np.int64)
    found, codes = np.unique(values, return_inverse=True)
    names = [str(value) for value in found]
    if values.dtype.kind == "U":
        order = sorted(range(len(names)), key=lambda i: _natural(names[i]))
        codes = np.argsort(np.array(order, dtype=np.int64))[codes]
        names = [names[i] for i in order]
    return codes.astype(np.int64), tuple(names)


def encode_target(values: Array, target: Target, key: str, what: str) -> tuple[Array, tuple[str, ...]]:
    """y and its classes: [N] int64 labels with their names, or [N, k] float32 targets with ().

    "auto" takes one column of integers, truth values or text as labels, and everything else as numbers to be predicted, of
    which NaN is a missing one.
    """
    single = values.ndim == 1 or (values.ndim == 2 and values.shape[1] == 1)
    if target == "class" or (target == "auto" and single and values.dtype.kind in "iubUSO"):
        return encode(values, key, what)
    out = as_float32(values, key, what, missing=True)
    return out.reshape(len(out), -1), ()
