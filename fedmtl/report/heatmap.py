"""Which client holds how many examples of which class."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from fedmtl.report import words
from fedmtl.report.draw import BLUE, INK, MUTED, Chart, blank, styled

_SPELLED = 24  # up to so many clients and half as many classes the counts themselves are written into the cells


@styled()
def label_heatmap(split: dict[str, Any]) -> Chart | None:
    """Clients x classes, darker for more examples; None where no client has labels."""
    counts, clients = _counts(split)
    if not counts.size:
        return None
    names = [str(name) for name in split.get("classes") or range(counts.shape[1])]
    rows, columns = counts.shape
    figure, axes = blank(height=float(np.clip(0.7 + 0.17 * rows, 1.6, 5.2)))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    most = counts.max() or 1.0
    shares = counts / most
    image = np.zeros((rows, columns, 4))
    image[..., :3] = to_rgb(BLUE)
    image[..., 3] = np.sqrt(shares)  # the root keeps a handful of examples visible beside hundreds
    axes.imshow(image, aspect="auto", interpolation="none")
    if rows <= _SPELLED and columns <= _SPELLED // 2:
        _spell(axes, counts, image[..., 3])
    _ticks(axes, clients, names)
    axes.set_title(f"none to {most:.0f} examples of a class", fontsize=9, color=MUTED, loc="left")
    held = (counts > 0).sum(axis=1)
    alt = (
        f"{words.several(rows, 'client')} and {columns} classes; a client holds {held.min()} to {held.max()} of them "
        f"(median {np.median(held):g}), at most {most:.0f} examples of one class."
    )
    if split.get("jsd") is not None:
        alt += f" Jensen-Shannon divergence between clients {split['jsd']:.3f}, where 0 is alike."
    return Chart(name="labels", title="Labels each client holds", alt=alt, figure=figure)


def _counts(split: dict[str, Any]) -> tuple[np.ndarray, list[int]]:
    """[clients, classes] counts of the clients that have labels, and their ids."""
    labelled = [client for client in split["clients"] if client.get("labels")]
    width = max((len(client["labels"]) for client in labelled), default=0)
    counts = np.zeros((len(labelled), width))
    for row, client in zip(counts, labelled, strict=True):
        row[: len(client["labels"])] = client["labels"]
    return counts, [client["client"] for client in labelled]


def _spell(axes: Axes, counts: np.ndarray, alpha: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "#ffffff" if alpha[row, column] > 0.6 else INK
            axes.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=7.5, color=colour)


def _ticks(axes: Axes, clients: list[int], names: list[str]) -> None:
    every = -(-len(clients) // 25)
    axes.set_yticks(range(0, len(clients), every))
    axes.set_yticklabels([str(client) for client in clients[::every]])
    axes.set_ylabel("client")
    short = [words.shortened(name, 12) for name in names]
    longest = max(map(len, short))
    room = 24 if longest > 3 else 12  # upright names stand closer together than lying ones
    step = -(-len(names) // room)
    axes.set_xticks(range(0, len(names), step))
    axes.set_xticklabels(short[::step], rotation=90 if longest > 3 else 0)
    axes.set_xlabel("class")
