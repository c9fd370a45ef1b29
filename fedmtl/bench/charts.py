"""The figures of how methods got there, on whom, and at what cost: one colour, dash and marker a method on the whole page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedmtl.bench.course import Courses, far, front
from fedmtl.report import words
from fedmtl.report.draw import (
    BLUE,
    INK,
    MUTED,
    PAPER,
    RULE,
    SERIES,
    VERMILLION,
    WIDTH,
    Chart,
    Look,
    bars,
    blank,
    by_round,
    in_units,
    legend,
    name_points,
    some,
    styled,
)

_LED = 6  # methods with a colour of their own on one pair of axes; the others are thin and grey there
_WROTE: dict[str, Callable[[float], str]] = {"bytes": words.size, "seconds": words.duration,
                                              "samples": lambda count: f"{count:,.0f}"}
_AXIS = {"bytes": "bytes sent, both ways", "seconds": "seconds of training and aggregation", "samples": "samples trained on"}


@styled()
def curves(prefix: str, courses: Mapping[str, Courses], metric: str, look: Mapping[str, Look], local: str) -> Chart:
    """The mean over seeds by round, and a band that holds every seed; of many methods the best six and Local stand out."""
    led = [method for method in courses if method != local][:_LED]
    figure, axes = blank(height=3.2)
    for method in sorted(courses, key=lambda method: method in led):
        if method in led or method == local:
            _curve(axes, courses[method], look[method], method)
        else:
            axes.plot(courses[method].mean["mean"], color=RULE, linewidth=1)
    if len(courses) > len(led) + (local in courses):
        axes.plot([], [], color=RULE, linewidth=1, label="others")
    by_round(axes)
    in_units(axes.yaxis, metric)
    legend(axes, columns=3)
    rounds = sorted({int(number) for course in courses.values() for number in course.mean.index})
    picked = [rounds[i] for i in some(len(rounds))]
    seeds = max(course.seeds for course in courses.values())
    alt = f"Mean test {metric} by round; " + (f"the band holds all {seeds} seeds." if seeds > 1 else "one seed.")
    return Chart(name=f"{prefix}curves", title=f"{words.title(metric)} by round", alt=alt, figure=figure,
                 header=["round", *courses],
                 rows=[[str(r), *(words.score(metric, course.mean["mean"].get(r)) for course in courses.values())] for r in picked])


def _curve(axes: Axes, course: Courses, look: Look, label: str | None = None, colour: str = "") -> None:
    shade = colour or look.colour
    axes.plot(course.mean["mean"], color=shade, linestyle="solid" if colour else look.dash, linewidth=1.5, label=label,
              marker=look.marker if len(course.mean) == 1 else "", markersize=4)
    axes.fill_between(course.low.index, course.low, course.high, color=shade, alpha=0.14, lw=0)


@styled()
def alone(prefix: str, courses: Mapping[str, Courses], metric: str, look: Mapping[str, Look], local: str) -> Chart:
    """The same curves, each method on axes of its own beside Local."""
    figure, every = panes(len(courses), 1.15)
    for axes, (method, course) in zip(every, courses.items(), strict=True):
        if local in courses and method != local:
            axes.plot(courses[local].mean["mean"], color=MUTED, linewidth=1, linestyle=look[local].dash)
        _curve(axes, course, look[method], colour=BLUE)
        axes.set_title(words.shortened(method, 24), fontsize=9, color=INK, loc="left", pad=3)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        in_units(axes.yaxis, metric)
    alt = f"Mean test {metric} by round, each method beside {local} (dashed), on the same scale; the band holds every seed."
    return Chart(name=f"{prefix}alone", title="Each method by itself", alt=alt, figure=figure)


def panes(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `count` small axes in two columns with shared scales; height: inches of a row."""
    columns = min(count, 2)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, 0.3 + height * rows), layout="constrained")
    figure.patch.set_alpha(0)
    every = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for axes in every:
        axes.patch.set_alpha(0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(RULE)
        axes.tick_params(colors=MUTED, length=0, labelsize=8)
        axes.grid(axis="y", color=RULE, linewidth=0.6)
        axes.set_axisbelow(True)
    for axes in every[count:]:
        axes.remove()
    return figure, every[:count]


@styled()
def gains(prefix: str, apart: Mapping[str, pd.Series[float]], tasks: Mapping[int, str], metric: str, local: str) -> Chart:
    """What each client gains over Local under each method, the mean over seeds, sorted, and coloured by task where tasks are few.

    apart: by method, the gain of each client, positive is better. metric: whose units they are in; "" for relative gains.
    """
    known = sorted(set(tasks.values()))
    few = known if 1 < len(known) <= len(SERIES) else []
    figure, every = panes(len(apart), 1.25)
    whole = np.concatenate([gain.to_numpy() for gain in apart.values()])
    limit = 2 * float(np.quantile(np.abs(whole), 0.95)) or 1e-9
    low, high = max(whole.min(), -limit), min(whole.max(), limit)
    room = 0.06 * max(high - low, 1e-9)
    for axes, (method, gain) in zip(every, apart.items(), strict=True):
        ordered = gain.sort_values(ascending=False, kind="stable")
        heights, places = np.clip(ordered.to_numpy(), low, high), np.arange(len(ordered))
        kinds = np.array([tasks[client] for client in ordered.index])
        parts = [(task, kinds == task) for task in few] or [("better", heights > 0), ("worse", heights < 0)]
        for (label, mine), colour in zip(parts, SERIES if few else (BLUE, VERMILLION), strict=False):
            axes.add_patch(PathPatch(bars(places[mine], heights[mine]), facecolor=colour, linewidth=0,
                                     label=words.shortened(label, 18)))
        axes.axhline(0, color=INK, linewidth=0.7)
        worse = int((ordered < 0).sum())
        axes.set_title(f"{words.shortened(method, 18)}: {worse} worse", fontsize=9, color=INK, loc="left", pad=3)
        axes.set_xlim(-0.6, len(ordered) - 0.4)
        axes.set_ylim(min(low, 0) - room, max(high, 0) + room)
        axes.set_xticks([])
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _points(metric, value, 0) if value else "0"))
    figure.legend(*every[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False, labelcolor=MUTED,
                  handlelength=1.2, columnspacing=1.4, borderpad=0.1)
    cut = " Bars at the edge go on beyond it." if np.abs(whole).max() > limit else ""
    unit = "in points" if words.is_share(metric) else f"in {metric}" if metric else "relative"
    alt = (f"Gain of each client over {local}, {unit}, mean over seeds, best client first, positive is better.{cut}")
    rows = [[method, str(int((gain > 0).sum())), str(int((gain < 0).sum())), _points(metric, float(gain.mean())),
             f"{_points(metric, float(gain.max()))} (client {gain.idxmax()})",
             f"{_points(metric, float(gain.min()))} (client {gain.idxmin()})"] for method, gain in apart.items()]
    return Chart(name=f"{prefix}gains", title=f"Gain over {local} of every client", alt=alt, figure=figure,
                 header=["method", "better", "worse", "mean", "most", "least"], rows=rows)


def _points(metric: str, value: float, digits: int = 1) -> str:
    if words.is_share(metric) or not metric:
        return words.percent(value, digits)
    return f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")


@styled()
def tails(prefix: str, board: pd.DataFrame, look: Mapping[str, Look], direction: str) -> Chart | None:
    """The mean of the worst tenth of the clients against the mean of all; up and right is better."""
    rows = [row for row in board.to_dict("records") if not np.isnan(row["mean"]) and not np.isnan(row["worst10"])]
    if not rows:
        return None
    metric = str(rows[0]["metric"])
    beyond = [far([row[key] for row in rows], direction) for key in ("mean", "worst10")]
    out = list(map(any, zip(*beyond, strict=True)))
    near = [row for row, gone in zip(rows, out, strict=True) if not gone]
    figure, axes = blank(height=3.2)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    for row in near:
        mine = look[row["algorithm"]]
        axes.plot([row["mean"]], [row["worst10"]], linestyle="", marker=mine.marker, color=mine.colour, markersize=6.5)
    _room(axes, direction)
    if direction == "min":
        axes.invert_xaxis()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        in_units(axis, metric)
    axes.set_xlabel(f"mean test {metric}")
    axes.set_ylabel(f"worst tenth of the clients, {metric}")
    name_points(axes, [(row["mean"], row["worst10"]) for row in near], [row["algorithm"] for row in near])
    best = max(rows, key=lambda row: row["worst10"] if direction == "max" else -row["worst10"])
    alt = (f"Mean {metric} of all clients against that of the worst tenth; up and right is better. The worst-off fare best with "
           f"{best['algorithm']}: {words.score(metric, best['worst10'])}."
           + _off([f"{row['algorithm']} ({words.score(metric, row['worst10'])} against {words.score(metric, row['mean'])})"
                   for row, gone in zip(rows, out, strict=True) if gone]))
    return Chart(name=f"{prefix}tails", title="The worst-off against the mean", alt=alt, figure=figure,
                 header=["method", "mean", "worst 10 %"],
                 rows=[[row["algorithm"], words.score(metric, row["mean"]), words.score(metric, row["worst10"])] for row in rows])


def _off(named: Sequence[str]) -> str:
    return f" Off the scale: {', '.join(named)}." if named else ""


def _room(axes: Axes, direction: str) -> None:
    """Room around the points for their names, and errors upside down: up is better."""
    axes.margins(0.14)
    if direction == "min":
        axes.invert_yaxis()


@styled()
def trade(prefix: str, courses: Mapping[str, Courses], cost: str, metric: str, direction: str,
          look: Mapping[str, Look]) -> Chart | None:
    """Where each method ends, score against what it cost, and the way there; the Pareto front is filled and joined.

    cost: "bytes", "seconds" or "samples"; None where a run did not record it.
    """
    if not all(cost in course.mean and len(course.mean) for course in courses.values()):
        return None
    methods = list(courses)
    ends = [(float(courses[m].mean[cost].iloc[-1]), float(courses[m].mean["mean"].iloc[-1])) for m in methods]
    best = front([x for x, _ in ends], [y for _, y in ends], direction)
    out = far([y for _, y in ends], direction)
    figure, axes = blank(height=3.2)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    for i, method in enumerate(methods):
        mine, way = look[method], courses[method].mean
        if out[i]:
            continue
        axes.plot(way[cost], way["mean"], color=mine.colour, linewidth=0.7, alpha=0.45)
        axes.plot(*ends[i], linestyle="", marker=mine.marker, color=mine.colour, markersize=6.5, zorder=4 if i in best else 3,
                  markerfacecolor=mine.colour if i in best else PAPER)
    drawn = [i for i in best if not out[i]]
    axes.step([ends[i][0] for i in drawn], [ends[i][1] for i in drawn], where="post", color=INK, linewidth=0.9,
              linestyle=(0, (1, 2)))
    near = [i for i, gone in enumerate(out) if not gone]
    _limit(axes, [ends[i][1] for i in near])
    _room(axes, direction)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _WROTE[cost](value) if value else "0"))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    in_units(axes.yaxis, metric)
    axes.set_xlabel(_AXIS[cost])
    name_points(axes, [ends[i] for i in near], [methods[i] for i in near])
    frontier = ", ".join(f"{methods[i]} ({words.score(metric, ends[i][1])} for {_WROTE[cost](ends[i][0])})" for i in drawn)
    beside = " Runs shared the machine, so seconds are rough." if cost == "seconds" else ""
    alt = f"Mean test {metric} after the last round against {_AXIS[cost]}. On the Pareto front (filled): {frontier}.{beside}"
    alt += _off([f"{method} ({words.score(metric, end[1])} for {_WROTE[cost](end[0])})"
                 for method, end, gone in zip(methods, ends, out, strict=True) if gone])
    return Chart(name=f"{prefix}{cost}", title=f"{words.title(metric)} for the {cost}", alt=alt, figure=figure,
                 header=["method", cost, metric, "Pareto front"],
                 rows=[[method, _WROTE[cost](ends[i][0]), words.score(metric, ends[i][1]), "yes" if i in best else "no"]
                       for i, method in enumerate(methods)])


def _limit(axes: Axes, ends: Sequence[float]) -> None:
    """The way there may start far below: the axis shows as much of it as the ends are apart."""
    low, high = min(ends), max(ends)
    room = max(high - low, 0.05 * abs(high), 1e-9)
    bottom, top = axes.get_ylim()
    axes.set_ylim(max(bottom, low - room), min(top, high + room))
