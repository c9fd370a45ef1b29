"""What a person sees of a benchmark: a table that fills in, or a line a run where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fedmtl.bench.board import ALL, Tables
from fedmtl.bench.pool import State, Work
from fedmtl.bench.tables import NOTE, cells, header, rank_line, rows_of, title_of
from fedmtl.report import words


class LiveTable:
    """One row a scenario and method, one column a seed."""

    def __init__(self, jobs: Sequence[Work], root: Path, *, quiet: bool = False) -> None:
        self.console = Console(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self.jobs, self.root = jobs, root
        self.said = {job.name: "waiting" for job in jobs}
        self.began: dict[str, float] = {}
        live = Live(console=self.console, get_renderable=self.table, refresh_per_second=2)
        self.live = live if self.console.is_terminal else None

    def __enter__(self) -> LiveTable:
        if self.live:
            self.live.start()
        return self

    def __call__(self, job: Work, state: State) -> None:
        """A run has come to another state."""
        name, reason = state
        if name == "running":
            self.began[job.name] = time.perf_counter()
        if name == "done":
            name = job.said(self.root)
        self.said[job.name] = name
        if self.live is None and name != "running":
            took = f" ({words.duration(time.perf_counter() - self.began[job.name])})" if job.name in self.began else " (was there)"
            self.console.print(Text(f"{job.name}: {name}{took}{': ' + reason if reason else ''}"))

    def table(self) -> Table:
        """The state of every run."""
        numbers = sorted({job.seed for job in self.jobs})
        table = Table()
        for title in ("scenario", "method", *(f"seed {seed}" for seed in numbers)):
            table.add_column(title)
        cells_of: dict[tuple[str, str], dict[int, Text]] = {}
        for job in self.jobs:
            said = self.said[job.name]
            if said == "running":
                said = words.duration(time.perf_counter() - self.began[job.name]) + " ..."
            style = {"failed": "bold red", "waiting": "dim"}.get(said, "")
            cells_of.setdefault((job.scenario, job.method), {})[job.seed] = Text(said, style=style)
        for (scenario, method), row in cells_of.items():
            table.add_row(Text(scenario), Text(method), *(row.get(seed, Text()) for seed in numbers))
        return table

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.live:
            self.live.stop()


IN_FILES = {"before", "shared", "chosen", "delta_m", "forward", "backward", "kept"}
"""Columns that a terminal has no room for."""


def board_tables(said: Tables, failed: Sequence[tuple[str, str]]) -> list[Table]:
    """The leaderboard for the terminal: one table a scenario, whose other columns are in leaderboard.md."""
    tables, ranks = [], said.ranks
    for name, rows in said.board.groupby("scenario", sort=False):
        titles = {key: title for key, title in header(rows).items() if key not in IN_FILES}
        caption = f"{NOTE} {rank_line(ranks, str(name))} More columns are in leaderboard.md.".replace("  ", " ")
        table = Table(title=title_of(rows), caption=caption, title_justify="left", caption_justify="left")
        for key, title in titles.items():
            table.add_column(title, justify="left" if key in ("algorithm", "tuned", "ended", "without") else "right")
        for row in rows_of(rows):
            told = cells(row)
            table.add_row(*(Text(told[key]) for key in titles))
        tables.append(table)
    if line := rank_line(ranks, ALL):
        overall = ranks[ranks["scenario"] == ALL]
        table = Table("method", "rank", title="Over all scenarios", caption=line, title_justify="left", caption_justify="left")
        for method, rank in zip(overall["algorithm"], overall["rank"], strict=True):
            table.add_row(Text(method), f"{rank:.3g}")
        tables.append(table)
    if failed:
        table = Table("failed run", "why", title_justify="left")
        for name, why in failed:
            table.add_row(Text(name), Text(why))
        tables.append(table)
    return tables
