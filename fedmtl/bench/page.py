"""index.html of a benchmark: who wins and whether that is sure, on whom, and at what cost; from the run directories alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fedmtl.bench import charts, story
from fedmtl.bench.board import ALL, Tables
from fedmtl.bench.course import COSTS, course, over_seeds
from fedmtl.bench.runs import BASELINE, Run, baselines, failures
from fedmtl.bench.tables import NOTE, rank_line
from fedmtl.bench.winners import means, rank_diagram
from fedmtl.errors import DiskError
from fedmtl.report import words
from fedmtl.report.draw import Chart, Look, looks
from fedmtl.report.files import load_journal, load_split
from fedmtl.report.heatmap import heat_maps
from fedmtl.report.html import replace, template
from fedmtl.report.method import method_charts
from fedmtl.report.relations import load_affinity, load_relations, relation_charts

_FILES = {"leaderboard.md": "Markdown", "leaderboard.csv": "CSV", "leaderboard.parquet": "Parquet", "leaderboard.tex": "LaTeX",
          "pairs.csv": "every pair", "ranks.csv": "ranks", "trials.csv": "trials"}


def write_page(root: Path, said: Tables | None = None) -> Path:
    """Write index.html and figures/*.svg into a benchmark's directory; the path of the page.

    said: what its runs say together, where that is known.
    Raises FedmtlError where no run has ended or one cannot be read, DiskError where the page cannot be written.
    """
    said = said or Tables.read(root)
    runs, whole, ranks = said.runs, said.board, said.ranks
    names = list(dict.fromkeys(whole["scenario"]))
    look = looks(list(dict.fromkeys(whole["algorithm"])), BASELINE)
    parts = [_part(i, name, [run for run in runs if run.scenario == name], (whole, said.pairs, ranks), look)
             for i, name in enumerate(names)]
    overall = rank_chart("all-", ranks, ALL)
    page = template("index.html.j2", Path(__file__).parent).render(
        title=root.resolve().name, facts=story.facts(runs), note=NOTE, failed=failures(root), parts=parts, overall=overall,
        overall_line=rank_line(ranks, ALL), files=[(name, said) for name, said in _FILES.items() if (root / name).exists()])
    try:
        (root / "figures").mkdir(exist_ok=True)
        for chart in [*(chart for part in parts for chart in part["charts"].values()), *([overall] if overall else [])]:
            replace(root / "figures" / f"{chart.name}.svg", chart.standalone())
        replace(root / "index.html", page)
    except OSError as problem:
        raise DiskError(f"{root}: the page cannot be written ({problem.strerror})") from problem
    return root / "index.html"


def is_benchmark(place: Path) -> bool:
    """Whether a directory holds runs and is none itself."""
    return not (place / "scenario.toml").exists() and any(place.glob("*/summary.json"))


def _part(number: int, name: str, runs: Sequence[Run], tables: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
          look: dict[str, Look]) -> dict[str, Any]:
    """What the page shows of one scenario."""
    rows, apart, ranks = (table[table["scenario"] == name] for table in tables)
    found = figures(f"{words.plain(name)}-", rows, ranks, runs, look)
    return {"id": f"s{number}", "name": name, "charts": found, "rank_line": rank_line(ranks, name),
            "relations": _relations(f"{words.plain(name)}-", rows, runs), "answer": story.answer(rows, apart),
            "board": story.leaderboard(rows), "pairs": story.every_pair(apart, str(rows["metric"].iloc[0])),
            "settings": story.settings(rows, runs), "runs": story.each_run(rows, runs),
            "refused": story.refused(runs, baselines(runs)), "split": story.split_words(runs[0], len({run.seed for run in runs}))}


def figures(prefix: str, rows: pd.DataFrame, ranks: pd.DataFrame, runs: Sequence[Run], look: dict[str, Look]) -> dict[str, Chart]:
    """Every figure of a scenario there is something to show in, by what it shows; files are called prefix + that."""
    metric, direction = str(rows["metric"].iloc[0]), str(rows["direction"].iloc[0])
    ways = {method: over_seeds([course(run) for run in runs if run.method == method]) for method in rows["algorithm"]}
    ways = {method: way for method, way in ways.items() if len(way.mean)}
    gained, unlike = _gained(rows, runs)
    split = load_split(runs[0].place)
    made = [means(prefix, rows, runs, BASELINE), rank_chart(prefix, ranks, str(rows["scenario"].iloc[0])),
            *(draw(prefix, ways, metric, look, BASELINE) for draw in (charts.curves, charts.alone) if ways),
            charts.gains(prefix, gained, {c["client"]: str(c["task"]) for c in split["clients"]},
                         "" if unlike else metric, BASELINE) if gained else None,
            charts.tails(prefix, rows, look, direction),
            *(charts.trade(prefix, ways, cost, metric, direction, look) for cost in COSTS if ways),
            *(chart.named(prefix) for chart in heat_maps(split))]
    return {chart.name.removeprefix(prefix): chart for chart in made if chart is not None}


def rank_chart(prefix: str, ranks: pd.DataFrame, scenario: str) -> Chart | None:
    """The critical-difference diagram of a scenario, or of all; None where nothing can be told from so few rows."""
    rows = ranks[ranks["scenario"] == scenario]
    if rows.empty or rows["critical"].isna().all():
        return None
    over = words.several(int(rows["rows"].iloc[0]), "scenario" if scenario == ALL else "client")
    return rank_diagram(prefix, dict(zip(rows["algorithm"], rows["rank"], strict=True)),
                        float(rows["critical"].iloc[0]), over)


def _gained(rows: pd.DataFrame, runs: Sequence[Run]) -> tuple[dict[str, pd.Series[float]], bool]:
    """By method what each client gains over Local, the mean over seeds; whether the gains are relative, as of unlike metrics."""
    base, found = baselines(runs), {}
    unlike = any(run.scores["metric"].nunique() > 1 for run in runs)
    for method in rows["algorithm"]:
        pairs = [(run, base.get((run.scenario, run.seed))) for run in runs if run.method == method and not run.alone]
        each = [run.worth(local) - (0 if unlike else local.worth(local)) for run, local in pairs if local]
        gained = pd.concat(each).dropna().groupby(level=0).mean() if each else pd.Series(dtype=float)
        if len(gained):
            found[str(method)] = gained
    return found, unlike


def _relations(prefix: str, rows: pd.DataFrame, runs: Sequence[Run]) -> list[tuple[str, list[Chart]]]:
    """(method and seed, figures) of the first run of each method: how its clients' updates relate, and what it says of itself."""
    found = []
    for method in rows["algorithm"]:
        run = min((run for run in runs if run.method == method), key=lambda run: run.seed)
        related = relation_charts(load_relations(run.place), load_affinity(run.place), load_split(run.place))
        made = [*related, *method_charts(load_journal(run.place))]
        if made:
            found.append((f"{method}, seed {run.seed}", [chart.named(f"{prefix}{words.plain(method)}-") for chart in made]))
    return found
