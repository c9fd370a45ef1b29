"""Numbers as people read them, the same on the terminal and on the page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

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


def number(count: float | None) -> str:
    """A count: three digits and k, M or G where there are many."""
    if count is None or math.isnan(count):
        return NONE
    for unit in ("", " k", " M", " G"):
        if abs(count) < 999.5 or unit == " G":
            break
        count /= 1000
    return f"{count:.0f}" if not unit else f"{count:.3g}{unit}"


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


def several(count: int, noun: str, plural: str = "") -> str:
    """`1 client`, `2 clients`, `3 classes`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def listed(parts: Sequence[str], limit: int) -> str:
    """`a, b and 3 more`: at most `limit` of them by name."""
    return ", ".join(parts[:limit]) + (f" and {len(parts) - limit} more" if len(parts) > limit else "")


def percent(share: float | None, digits: int = 1) -> str:
    """A gain with its sign: `+3.1 %`, `−0.4 %`."""
    if share is None or math.isnan(share):
        return NONE
    return f"{100 * share:+.{digits}f} %".replace("-", "\N{MINUS SIGN}")


def span(interval: Sequence[float] | None, digits: int = 1, *, signed: bool = True) -> str:
    """A 95 % interval of shares: `−2.1 to +4.0 %`; nothing where there is none."""
    if not interval:
        return ""
    low, high = (f"{100 * edge:{'+' if signed else ''}.{digits}f}".replace("-", "\N{MINUS SIGN}") for edge in interval)
    return f"{low} to {high} %"


def plain(name: str) -> str:
    """A name that a file can have: letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
