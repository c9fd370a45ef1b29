"""Numbers as people read them, the same on the terminal and on the page."""

from __future__ import annotations

import math

NONE = "–"


def score(metric: str, value: float | None) -> str:
    """A score: accuracies in per cent, everything else in four decimals or four digits."""
    if value is None or math.isnan(value):
        return NONE
    if is_share(metric):
        return f"{100 * value:.1f} %"
    return f"{value:.4f}" if value == 0 or 0.01 <= abs(value) < 10 else f"{value:#.4g}".rstrip(".")


def title(metric: str) -> str:
    """A metric at the head of a line: `Accuracy`, `MSE`."""
    return metric.upper() if metric in {"mse", "rmse", "mae", "auc", "r2"} else metric.replace("_", " ").capitalize()


def is_share(metric: str) -> bool:
    """Whether a metric lies in 0..1 and is read in per cent."""
    return metric.endswith("accuracy")


def size(count: float | None) -> str:
    """Bytes in decimal units."""
    if count is None or math.isnan(count):
        return NONE
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"


def duration(seconds: float | None) -> str:
    """Seconds: milliseconds below one, minutes and hours above two minutes."""
    if seconds is None or math.isnan(seconds):
        return NONE
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters, the cut shown."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def several(count: int, noun: str) -> str:
    """`1 client`, `2 clients`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
