"""Figures as themed SVG: small, without scripts, and readable on light and on dark ground.

Figures are drawn in the light colours. In the SVG each of them becomes a CSS variable with that colour as fallback: a
page sets its own, and a file by itself follows the reader's preference. pyplot is never imported: no global figures.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fedmtl.report.words import is_share

# Okabe and Ito's palette, for light ground and lifted for dark. Yellow and black are left out.
INK, MUTED, RULE = "#1b1f24", "#59626d", "#d9dde1"
PAPER = "#fdfdfe"
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("solid", (0, (5, 2)), (0, (1, 1)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "<")
DARK = {
    INK: "#e7eaed", MUTED: "#a2abb5", RULE: "#343b43", PAPER: "#14171b", BLUE: "#5ab1ea", VERMILLION: "#ff8d47",
    GREEN: "#2fc69b", PURPLE: "#e3a3c6", ORANGE: "#f2b632", SKY: "#9fd8fb",
}  # fmt: skip
NAMES = {
    INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper", BLUE: "blue", VERMILLION: "vermillion",
    GREEN: "green", PURPLE: "purple", ORANGE: "orange", SKY: "sky",
}  # fmt: skip

WIDTH = 4.4  # inches: near the width of a phone, so that text stays readable where the figure is scaled to fit one
_RC = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a task may be called $x$
    "path.simplify": True,
    "path.simplify_threshold": 0.5,
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
}


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure and what it says in words and numbers, for those who do not see it."""

    name: str
    title: str
    alt: str
    figure: Figure
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    @cached_property
    def _drawn(self) -> str:
        return _svg(self.figure, self.name)

    def named(self, prefix: str) -> Chart:
        """The same under a longer name: of several charts on one page each needs its own."""
        return replace(self, name=f"{prefix}{self.name}")

    def inline(self) -> str:
        """The SVG for a page that sets the colours."""
        return f'<svg role="img" aria-label="{escape(self.alt)}" {self._drawn}'

    def standalone(self) -> str:
        """The SVG as a file of its own."""
        light, dark = (";".join(f"--{NAMES[c]}:{shade(c)}" for c in NAMES) for shade in (str, DARK.__getitem__))
        style = (
            f"<style>svg{{{light};background:var(--paper);font-family:system-ui,sans-serif}}"
            f"@media(prefers-color-scheme:dark){{svg{{{dark}}}.cells{{filter:brightness(1.1)}}}}"
            "image{image-rendering:pixelated}*{stroke-linejoin:round}</style>"
        )
        told = f"{style}<title>{escape(self.title)}</title><desc>{escape(self.alt)}</desc>"
        return "<svg " + self._drawn.replace(">", f">{told}", 1)

    def write_png(self, path: Path) -> None:
        """The figure as a PNG on light ground."""
        with styled(), _quiet_glyphs():
            self.figure.savefig(path, format="png", dpi=200, facecolor="white")


@contextmanager
def styled() -> Iterator[None]:
    """Drawing inside this block follows our settings and no others; they are put back afterwards."""
    with matplotlib.style.context(["default", _RC]):
        yield


def blank(height: float = 2.8, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure with one quiet pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(colors=MUTED, length=0)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(MUTED)
    return figure, axes


def by_round(axes: Axes) -> None:
    """Rounds along the x axis."""
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    low, high = axes.get_xlim()
    if high - low < 1:  # a single round
        axes.set_xlim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
    axes.set_xlabel("round")


def in_units(axis: Axis, metric: str) -> None:
    """Ticks as the scores are written: shares in per cent."""
    if is_share(metric):
        axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g} %"))


def legend(axes: Axes, columns: int) -> None:
    """What the colours mean, above the axes."""
    axes.figure.legend(
        *axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns, frameon=False, labelcolor=MUTED,
        handlelength=1.6, columnspacing=1.4, borderpad=0.1,
    )  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How one of several is drawn wherever it appears: told apart by colour, dash and marker."""

    colour: str
    dash: str | tuple[int, tuple[int, ...]]
    marker: str


def looks(names: Sequence[str], plain: str = "") -> dict[str, Look]:
    """A look for each name, 18 before one comes again; `plain`, what the others are compared with, is dashed ink."""
    others = [name for name in names if name != plain]
    found = {name: Look(SERIES[i % len(SERIES)], _DASHES[i // len(SERIES) % len(_DASHES)], _MARKERS[i % len(_MARKERS)])
             for i, name in enumerate(others)}
    return {**found, plain: Look(INK, (0, (4, 2)), "X")}


def name_points(axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str], size: float = 8.0) -> None:
    """Writes each name near its point, off the other points and names, with a thin line where it had to go further.

    A name for which there is no room is left out.
    """
    assert isinstance(axes.figure, Figure)
    axes.figure.draw_without_rendering()  # settles the layout
    scale = 72 / axes.figure.dpi
    at = axes.transData.transform(np.asarray(points, float)) * scale
    inside = np.asarray(axes.bbox.extents) * scale + (0, -4, 6, 4)
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in at]
    for i in np.lexsort((at[:, 0], -at[:, 1])):
        width, height = 0.58 * size * len(names[i]), 1.15 * size
        for reach, turn in itertools.product((7, 14, 24, 36, 50, 66, 84), (0, 6, 3, 9, 1, 11, 5, 7, 2, 10, 4, 8)):
            dx, dy = reach * np.cos(turn * np.pi / 6), reach * np.sin(turn * np.pi / 6)
            left = at[i, 0] + dx - (0 if dx > 1 else width if dx < -1 else width / 2)
            box = (left, at[i, 1] + dy - height / 2, left + width, at[i, 1] + dy + height / 2)
            out = box[0] < inside[0] or box[1] < inside[1] or box[2] > inside[2] or box[3] > inside[3]
            if not out and not any(_touch(box, other) for other in taken):
                axes.annotate(names[i], points[i], (dx, dy), textcoords="offset points", fontsize=size, color=INK, va="center",
                              zorder=5, bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.4},
                              ha="left" if dx > 1 else "right" if dx < -1 else "center", annotation_clip=False,
                              arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5} if reach > 7 else None)
                taken.append(box)
                break


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def bars(places: np.ndarray, heights: np.ndarray) -> Outline:
    """All bars of one colour as one path: five hundred clients cost no more than a long line."""
    half = 0.4 if len(places) <= 100 else 0.5
    left, right, zero = places - half, places + half, np.zeros(len(places))
    corners = np.stack([[left, zero], [left, heights], [right, heights], [right, zero]]).transpose(2, 0, 1)
    return Outline.make_compound_path(*(Outline(box, closed=False) for box in corners))


def some(count: int) -> list[int]:
    """About a dozen evenly spaced places among `count`, first and last included: the rows that stand for a curve."""
    return sorted({round(i * (count - 1) / 11) for i in range(12)}) if count > 12 else list(range(count))


def _svg(figure: Figure, name: str) -> str:
    """The figure's SVG from after `<svg `: themed, without metadata, style or ids that can collide."""
    buffer = io.StringIO()
    with styled(), matplotlib.rc_context({"svg.hashsalt": name}), _quiet_glyphs(), _laid_out(figure):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") + 5 :]
    svg = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'font-family: [^;"]*;? ?', "", svg)  # the page's own typeface is used
    svg = re.sub(r'font: [^;"]*?([\d.]+px) [^;"]*', r"font-size: \1", svg)
    for colour, variable in NAMES.items():
        svg = svg.replace(f": {colour}", f": var(--{variable}, {colour})")
    return re.sub(r"\n\s*", "\n", svg).replace("<image ", '<image class="cells" ')


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """Settles the layout, for SVG, once: with a layout engine in place, saving a figure draws all of it twice."""
    FigureCanvasSVG(figure)
    engine, dpi = figure.get_layout_engine(), figure.dpi
    if engine is not None:
        figure.dpi = 72
        engine.execute(figure)
        figure.set_layout_engine(None)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)
        figure.dpi = dpi


@contextmanager
def _quiet_glyphs() -> Iterator[None]:
    """A name in a script that matplotlib's own font lacks is no fault: the reader's browser has it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
