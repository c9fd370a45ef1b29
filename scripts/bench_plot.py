"""The picture of an engine benchmark: milliseconds a round against the number of clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def plot(rows: list[dict[str, Any]], path: Path) -> Path:
    """Writes the plot of bench_engine's rows; returns its path."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for arm in dict.fromkeys(row["arm"] for row in rows):
        points = sorted((row["clients"], row["ms"]) for row in rows if row["arm"] == arm)
        axes.plot(*zip(*points, strict=True), marker="o", label=arm)
    axes.set(xscale="log", yscale="log", xlabel="clients", ylabel="milliseconds a round")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)
    return path
