"""Client x task x class as panels of numbers, one a label space: the terminal and the page draw the same ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedmtl.report import words


@dataclass(frozen=True, kw_only=True)
class Panel:
    """values: [clients, columns], and what they are; shade: the same in 0..1, dark for much. extra: further columns, by name."""

    name: str
    kind: str
    clients: list[dict[str, Any]]
    columns: list[str]
    values: np.ndarray
    shade: np.ndarray
    axis: str
    means: str
    made: list[str] = field(default_factory=list)
    extra: dict[str, list[str]] = field(default_factory=dict)
    spreads: np.ndarray | None = None

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(str(client.get("task", "")) for client in self.clients))

    def cell(self, row: int, column: int) -> str:
        """One value as it is written into its cell; nothing for none."""
        value = self.values[row, column]
        if self.kind in ("classes", "bins"):
            return f"{value:.0f}" if value else ""
        if self.kind in ("entries", "rates"):
            return f"{100 * value:.0f} %" if value else ""
        return f"{value:.3g} ± {self.spreads[row, column]:.2g}" if self.spreads is not None else f"{value:.3g}"

    def sentence(self) -> str:
        """The panel in one sentence, for those who do not see it."""
        held = words.several(len(self.clients), "client")
        if self.kind == "classes":
            count = (self.values > 0).sum(axis=1)
            of_them = (f"every client holds {count.min()} of them" if count.min() == count.max() else
                       f"a client holds {count.min()} to {count.max()} of them (median {np.median(count):g})")
            return (f"{held} and {words.several(len(self.columns), 'class', 'classes')}; {of_them}, "
                    f"at most {self.values.max():.0f} examples of one class.")
        if self.kind in ("entries", "rates"):
            low, high = self.values.min(axis=0), self.values.max(axis=0)
            spans = [f"{name} {100 * a:.0f} to {100 * b:.0f} %" for name, a, b in zip(self.columns, low, high, strict=True)]
            return f"{held}: {self.means}; {words.listed(spans, 6)}."
        if self.kind == "means":
            spans = [f"target {name} {a:.3g} to {b:.3g}" for name, a, b in
                     zip(self.columns, self.values.min(axis=0), self.values.max(axis=0), strict=True)]
            return f"{held}: the clients' means lie at {words.listed(spans, 6)}."
        middle = np.array([float(text.split(" ± ")[0]) for text in self.extra["mean ± std"]])
        return f"{held}: the clients' mean targets lie between {middle.min():.3g} and {middle.max():.3g}."


def panels(split: dict[str, Any]) -> list[Panel]:
    """A panel for each group of clients that there is something to draw of."""
    found = []
    for group in split.get("groups") or [{"kind": "classes", "first": 0, "clients": len(split["clients"])}]:
        clients = split["clients"][group["first"] : group["first"] + group["clients"]]
        columns, values, clients = _table(group, clients, split)
        if not values.size:
            continue
        axis, means = _MEANS[group["kind"]]
        if group["kind"] == "entries":
            means = f"share of the {group['labels']} labels of a row"
        found.append(Panel(name=group.get("name", ""), kind=group["kind"], clients=clients, columns=columns, values=values,
                           shade=_shade(values, group["kind"]), axis=axis, means=means, made=group.get("made", []),
                           extra=_extra(group) | _held(clients),
                           spreads=np.array(group["spreads"]) if group["kind"] == "means" else None))
    return found


_COLUMNS = 100

_MEANS = {
    "classes": ("class", "examples of a class"),
    "entries": ("class", "share of a row's labels"),
    "rates": ("label", "how often each label is set"),
    "bins": ("target, from", "examples by the value of their target"),
    "means": ("target", "mean ± standard deviation of each target"),
}


def _table(group: dict[str, Any], clients: list[dict[str, Any]], split: dict[str, Any]) -> tuple[list[str], np.ndarray, list[Any]]:
    """(column names, [clients, columns], the clients that have any): classes of equal names are one column.

    Where tasks have too many names of their own, the columns are the classes' numbers.
    """
    if group["kind"] != "classes":
        return [str(name) for name in group["columns"]], np.asarray(group["rows"], dtype=float), clients
    clients = [client for client in clients if client.get("labels")]
    width = max((len(client["labels"]) for client in clients), default=0)
    names = [str(name) for name in group.get("classes") or split.get("classes") or range(width)]
    spaces = split.get("spaces") or {}
    mine = [[str(name) for name in spaces.get(client.get("task"), names)] for client in clients]
    columns = list(dict.fromkeys(name for space in mine for name in space))
    if len(columns) > max(_COLUMNS, width):
        mine = [[str(number) for number in range(len(space))] for space in mine]
        columns = [str(number) for number in range(width)]
    columns = sorted(columns, key=int) if all(name.isdecimal() for name in columns) else columns
    place = {name: i for i, name in enumerate(columns)}
    values = np.zeros((len(clients), len(columns)))
    for row, client, space in zip(values, clients, mine, strict=True):
        row[[place[name] for name in space[: len(client["labels"])]]] = client["labels"]
    return columns, values, clients


def _shade(values: np.ndarray, kind: str) -> np.ndarray:
    """The root keeps a handful of examples visible beside hundreds; means go from each column's lowest to its highest."""
    if kind == "means":
        low, span = values.min(axis=0), np.ptp(values, axis=0)
        return np.asarray(0.1 + 0.8 * (values - low) / np.where(span > 0, span, 1))
    return np.asarray(np.sqrt(values / (values.max() or 1.0)))


def _held(clients: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Who takes no part in training, where anybody does not."""
    marks = ["held back" if client.get("held_back") else "" for client in clients]
    return {"training": marks} if any(marks) else {}


def _extra(group: dict[str, Any]) -> dict[str, list[str]]:
    """What else is known of each client: mean and spread, the share of labels that are missing, its cluster or mixture."""
    found: dict[str, list[str]] = {}
    if group["kind"] == "bins":
        found["mean ± std"] = [f"{m:.3g} ± {s:.2g}" for [m], [s] in zip(group["means"], group["spreads"], strict=True)]
    if "missing" in group:
        found["missing"] = [f"{100 * share:.0f} %" for share in group["missing"]]
    for name, values in (group.get("truth") or {}).items():
        singular = {"clusters": "cluster", "outliers": "outlier"}.get(name, name)
        found[singular] = [" ".join(f"{100 * part:.0f}" for part in value) + " %" if isinstance(value, list) else f"{value:g}"
                           for value in values]
    return found
