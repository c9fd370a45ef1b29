"""The figures of who wins: every method's mean with its interval, and average ranks with what cannot be told apart."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from fedmtl.bench.course import far
from fedmtl.bench.runs import Run
from fedmtl.report import words
from fedmtl.report.draw import BLUE, INK, MUTED, PAPER, RULE, WIDTH, Chart, blank, in_units, styled


@styled()
def means(prefix: str, board: pd.DataFrame, runs: Sequence[Run], local: str) -> Chart:
    """Each method's mean over seeds, best first, with its 95 % interval over seeds and a tick for each of them."""
    rows = [row for row in board.to_dict("records") if not np.isnan(row["mean"])]
    metric = str(rows[0]["metric"])
    figure, axes = blank(height=float(np.clip(0.6 + 0.27 * len(rows), 1.6, 8.5)))
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    off = [place for place, out in enumerate(far([row["mean"] for row in rows], rows[0]["direction"])) if out]
    seen = []
    for place, row in enumerate(rows):
        if place in off:
            continue
        each = [run.said["test"][metric]["mean"] for run in runs if run.method == row["algorithm"]]
        each = [value for value in each if value is not None]
        seen += each
        axes.plot(each, [place + 0.24] * len(each), linestyle="", marker="|", markersize=4, color=MUTED, markeredgewidth=0.8)
        axes.hlines(place, row["low"], row["high"], color=BLUE, linewidth=1.6)
        sure = row["significant"] is True
        axes.plot([row["mean"]], [place], marker="D" if row["algorithm"] == local else "o", markersize=6, color=BLUE,
                  markerfacecolor=BLUE if sure else PAPER, markeredgewidth=1.4)
        if row["algorithm"] == local:
            axes.axvline(row["mean"], color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    cut = _frame(axes, seen, [row for place, row in enumerate(rows) if place not in off])
    for place in off:
        _beyond(axes, place, rows[place])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(range(len(rows)), [words.shortened(str(row["algorithm"]), 20) for row in rows], color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    in_units(axes.xaxis, metric)
    axes.set_xlabel(f"test {metric}, 95 % interval over seeds{'; ends beyond the edge are cut' if cut else ''}")
    dashed = any(row["algorithm"] == local and place not in off for place, row in enumerate(rows))
    alt = (f"Mean test {metric} from {_said(rows[0])} to {_said(rows[-1])}{f'; the dashed line is {local}' if dashed else ''}. "
           f"Filled where the difference from {local} is significant; small ticks are seeds."
           + (f" Off the scale: {', '.join(str(rows[place]['algorithm']) for place in off)}." if off else ""))
    return Chart(name=f"{prefix}means", title=f"Mean {metric} of every method", alt=alt, figure=figure,
                 header=["method", "mean", "95 % interval", "seeds"],
                 rows=[[row["algorithm"], words.score(metric, row["mean"]), between(metric, row["low"], row["high"]),
                        str(row["seeds"])] for row in rows])


def between(metric: str, low: float, high: float) -> str:
    """An interval of scores."""
    return words.NONE if np.isnan(low) else f"{words.score(metric, low)} to {words.score(metric, high)}"


def _beyond(axes: Any, place: int, row: Mapping[Hashable, Any]) -> None:
    """A method that lies off the scale: an arrow at the edge, and its mean."""
    left, (first, last) = row["direction"] == "max", axes.get_xlim()
    edge = first + (last - first) * (0.015 if left else 0.985)
    axes.plot([edge], [place], marker="<" if left else ">", markersize=5, color=BLUE)
    axes.annotate(words.score(row["metric"], row["mean"]), (edge, place), (7 if left else -7, 0),
                  textcoords="offset points", va="center", ha="left" if left else "right", fontsize=8.5, color=MUTED)


def _said(row: Mapping[Hashable, Any]) -> str:
    return f"{words.score(row['metric'], row['mean'])} ({row['algorithm']})"


def _frame(axes: Any, seen: list[float], rows: list[dict[Hashable, Any]]) -> bool:
    """Intervals may reach as far beyond the seeds' scores as those are apart; whether any was cut."""
    low, high = min(seen), max(seen)
    room = 0.5 * max(high - low, 0.02 * abs(high), 1e-9)
    ends = [end for row in rows for end in (row["low"], row["high"]) if not np.isnan(end)]
    first, last = max(min([low, *ends]), low - room), min(max([high, *ends]), high + room)
    margin = 0.04 * (last - first) or room
    axes.set_xlim(first - margin, last + margin)
    return bool(min([low, *ends]) < first or max([high, *ends]) > last)


@styled()
def rank_diagram(prefix: str, ranks: Mapping[str, float], apart: float, over: str) -> Chart:
    """Average ranks on a line, the best left; bars join the methods that lie within the critical difference.

    Demsar. Statistical Comparisons of Classifiers over Multiple Data Sets. JMLR 7, 2006, figure 1.
    """
    order = sorted(ranks, key=lambda method: (ranks[method], method))
    count, half = len(order), (len(order) + 1) // 2
    groups = alike([ranks[method] for method in order], apart)
    first = 0.9 + 0.35 * len(groups)
    figure, axes = blank(height=0.9 + 0.16 * len(groups) + 0.22 * half)
    axes.grid(visible=False)
    axes.spines[["bottom"]].set_visible(False)
    axes.set_yticks([])
    names = {method: f"{words.shortened(method, 16)} {ranks[method]:.2f}" for method in order}
    left, right = (0.075 * max(map(len, side), default=0) + 0.15 for side in ([names[m] for m in order[:half]],
                                                                             [names[m] for m in order[half:]]))
    inch = (count - 1) / (WIDTH - left - right)  # ranks an inch of the line
    axes.set_xlim(1 - left * inch, count + right * inch)
    axes.set_ylim(first + 0.62 * half, -1.6)
    axes.set_xticks([])
    axes.hlines(0, 1, count, color=INK, linewidth=0.9)
    for tick in MaxNLocator(min(count, 9), integer=True).tick_values(1, count):
        if 1 <= tick <= count:
            axes.vlines(tick, -0.2, 0, color=INK, linewidth=0.9)
            axes.text(tick, -0.35, f"{tick:.0f}", ha="center", va="bottom", color=MUTED, fontsize=8.5)
    axes.hlines(-1.3, 1, min(1 + apart, count), color=MUTED, linewidth=1.4)
    axes.text(min(1 + apart, count) + 0.05 * inch, -1.3, f"critical difference {apart:.2f}", va="center", color=MUTED,
              fontsize=8.5)
    for place, method in enumerate(order):
        west = place < half
        level = first + 0.62 * (place if west else count - 1 - place)
        end, sign = (1 - 0.1 * inch, -1) if west else (count + 0.1 * inch, 1)
        axes.plot([ranks[method], ranks[method], end], [0, level, level], color=MUTED, linewidth=0.8)
        axes.plot([ranks[method]], [0], marker="o", markersize=4.5, color=BLUE)
        axes.text(end + sign * 0.05 * inch, level, names[method],
                  ha="right" if west else "left", va="center", color=INK, fontsize=8.5)
    for i, (low, high) in enumerate(groups):
        axes.hlines(0.45 + 0.35 * i, ranks[order[low]] - 0.05 * inch, ranks[order[high]] + 0.05 * inch, color=BLUE, linewidth=3.2)
    joined = "; ".join(", ".join(order[low:high + 1]) for low, high in groups) or "none"
    listed = ", ".join(f"{method} {ranks[method]:.2f}" for method in order)
    alt = (f"Average ranks over {over}, 1 is best: {listed}. Bars join what lies within the critical difference of "
           f"{apart:.2f} (Nemenyi, 5 %): {joined}.")
    return Chart(name=f"{prefix}ranks", title="Average ranks", alt=alt, figure=figure, header=["method", "average rank"],
                 rows=[[method, f"{ranks[method]:.2f}"] for method in order])


def alike(ranks: Sequence[float], apart: float) -> list[tuple[int, int]]:
    """The longest stretches (first, last) of rising ranks that lie closer together than `apart`, of two or more."""
    ends = [max(j for j in range(i, len(ranks)) if ranks[j] - ranks[i] < apart or j == i) for i in range(len(ranks))]
    return [(i, end) for i, end in enumerate(ends) if end > i and (i == 0 or ends[i - 1] < end)]
