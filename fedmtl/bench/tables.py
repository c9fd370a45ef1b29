"""The leaderboard in files and for people: Markdown, CSV, Parquet and LaTeX, the same bytes for the same runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedmtl.bench.board import ALL, Tables, verdict
from fedmtl.bench.runs import failures
from fedmtl.bench.tuning import trials
from fedmtl.errors import DiskError
from fedmtl.report import words

_BETTER = {"mean": 0, "worst10": 0, "before": 0, "shared": 0, "chosen": 0, "difference": 1, "delta_m": 1, "rank": -1, "harmed": -1}
"""Which way is better: up, down, or as the metric has it (0)."""
_HEADER = {"algorithm": "method", "mean": "test mean", "ci": "95 % of seeds", "worst10": "worst 10 %", "before": "before adapting",
           "shared": "global model", "chosen": "chosen by validation", "difference": "over Local", "p_holm": "p (Holm)",
           "rank": "rank", "delta_m": "Delta-m", "harmed": "harmed", "bytes": "sent", "forward": "rows forward",
           "backward": "rows backward", "kept": "kept", "ended": "ended by", "tuned": "tuned", "without": "without"}
NOTE = ("Means over seeds of the clients' test score after the last round, beside the round that validation chose. Over Local: "
        "paired, of the same seed; * significant at 5 % over clients (Wilcoxon signed-rank, Holm over the methods) and, where "
        "there are several seeds, over these (Student's t).")


def header(rows: pd.DataFrame) -> dict[str, str]:
    """The columns of a scenario's table, by name: those that have something to say."""
    silent = {name for name in ("before", "shared") if rows[name].isna().all()}
    silent |= {"ended"} if (rows["ended"] == "rounds").all() else set()
    silent |= {"tuned"} if rows["trials"].isna().all() else set()
    silent |= {"without"} if (rows["without"] == "").all() else set()
    return {name: title for name, title in _HEADER.items() if name not in silent}


def cells(row: Any) -> dict[str, str]:
    """A row of the leaderboard as people read it. row: a tuple with the leaderboard's fields (`rows_of`)."""
    def score(value: float) -> str:
        return words.score(row.metric, value)

    share = words.is_share(row.metric)
    return {"algorithm": row.algorithm, "mean": score(row.mean), "worst10": score(row.worst10), "before": score(row.before),
            "shared": score(row.shared), "ci": words.NONE if np.isnan(row.low) else f"{score(row.low)} to {score(row.high)}",
            "chosen": words.NONE if np.isnan(row.chosen) else f"{score(row.chosen)} (round {row.chosen_round:.0f})",
            "difference": words.percent(row.difference) if share else words.score(row.metric, row.difference),
            "p_holm": verdict(row) or words.NONE, "rank": words.NONE if np.isnan(row.rank) else f"{row.rank:.3g}",
            "delta_m": words.percent(row.delta_m), "harmed": words.NONE if np.isnan(row.harmed) else f"{100 * row.harmed:.0f} %",
            **{name: words.number(getattr(row, name)) for name in ("forward", "backward", "kept")},
            "bytes": words.size(row.bytes), "ended": row.ended, "tuned": row.tuned, "without": row.without or words.NONE}


def rows_of(rows: pd.DataFrame) -> list[Any]:
    """Rows with fields; `rank` and `mean` are methods of a Series."""
    return list(rows.itertuples(index=False))


def title_of(rows: pd.DataFrame) -> str:
    """A table's title: scenario, metric, seeds, trials where methods were tuned, and the budget where there was one."""
    tried = rows["trials"].max()
    tuning = "" if np.isnan(tried) else f", tuned by {words.several(int(tried), 'trial')} a method"
    budget = f", at most {rows['budget'].iloc[0]} a run" if rows["budget"].iloc[0] else ""
    seeds = words.several(int(rows["seeds"].max()), "seed")
    return f"{rows['scenario'].iloc[0]}: {rows['metric'].iloc[0]}, {seeds}{tuning}{budget}"


def rank_line(ranks: pd.DataFrame, scenario: str) -> str:
    """What the ranks of a scenario's methods rest on, in a sentence; "" where there are none."""
    rows = ranks[ranks["scenario"] == scenario]
    if rows.empty or rows["critical"].isna().all():
        return ""
    first = rows.iloc[0]
    what = words.several(int(first["rows"]), "scenario" if scenario == ALL else "client")
    all_alike = "" if pd.isna(first["friedman"]) else f"; that all methods are alike: p = {first['friedman']:.2g} (Friedman)"
    return f"Ranks over {what}: two that are less than {first['critical']:.3g} apart may be equal (Nemenyi, 5 %){all_alike}."


def write_board(root: Path, said: Tables | None = None) -> list[Path]:
    """leaderboard.md, .csv, .parquet, .tex, pairs.csv, ranks.csv and, where methods were tuned, trials.csv; and seconds.csv.

    said: what its runs say together, where that is known. The same bytes for the same runs, but for seconds.csv. Raises FedmtlError
    where no run has ended, DiskError.
    """
    said = said or Tables.read(root)
    whole, apart, ranks, tried = said.board, said.pairs, said.ranks, trials(root)
    parquet = io.BytesIO()
    whole.to_parquet(parquet, index=False)
    seconds = pd.DataFrame([{"scenario": run.scenario, "algorithm": run.method, "seed": run.seed,
                             "seconds": run.said["seconds"]["total"]} for run in said.runs])
    texts = {"leaderboard.md": markdown(whole, apart, ranks, failures(root)).encode(),
             "leaderboard.csv": whole.to_csv(index=False).encode(), "leaderboard.tex": latex(whole).encode(),
             "leaderboard.parquet": parquet.getvalue(), "pairs.csv": apart.to_csv(index=False).encode(),
             "ranks.csv": ranks.to_csv(index=False).encode(), "seconds.csv": seconds.to_csv(index=False).encode()}
    texts |= {} if tried.empty else {"trials.csv": tried.to_csv(index=False).encode()}
    for name, text in texts.items():
        try:
            (root / name).write_bytes(text)
        except OSError as error:
            raise DiskError(f"{root / name} cannot be written: {error.strerror}") from error
    return [root / name for name in texts]


def markdown(whole: pd.DataFrame, apart: pd.DataFrame, ranks: pd.DataFrame, failed: Sequence[tuple[str, str]]) -> str:
    """The leaderboard, every pair that differs for sure, and the commands that re-run it."""
    lines = ["# Leaderboard", "", NOTE, ""]
    for name, rows in whole.groupby("scenario", sort=False):
        titles = header(rows)
        lines += [f"## {title_of(rows)}", "", "| " + " | ".join(titles.values()) + " |", "|" + "---|" * len(titles)]
        for row in rows_of(rows):
            said = cells(row)
            lines.append("| " + " | ".join(said[key].replace("|", "\\|") for key in titles) + " |")
        lines += ["", *([line, ""] if (line := rank_line(ranks, str(name))) else []), *_sure(apart[apart["scenario"] == name])]
        lines += ["Again, in this directory:", "", "```bash", *rows["command"], "```", ""]
    if line := rank_line(ranks, ALL):
        overall = ranks[ranks["scenario"] == ALL]
        lines += ["## Over all scenarios", "", line, "", "| method | rank |", "|---|---|",
                  *(f"| {method} | {rank:.3g} |" for method, rank in zip(overall["algorithm"], overall["rank"], strict=True)), ""]
    if failed:
        lines += ["## Failed", "", *(f"- {name}: {' '.join(why.split())}" for name, why in failed), ""]
    return "\n".join(lines)


def _sure(apart: pd.DataFrame) -> list[str]:
    """Of every pair of methods, the better one first, those whose difference is significant."""
    sure = [(row.a, row.b) if row.difference > 0 else (row.b, row.a) for row in rows_of(apart) if row.significant]
    if not len(apart):
        return []
    better = [f"{name} than {', '.join(sorted(b for a, b in sure if a == name))}" for name in sorted({a for a, _ in sure})]
    return [f"Better for sure (of {words.several(len(apart), 'pair')}, Holm over all): {'; '.join(better) or 'none'}.", ""]


def latex(whole: pd.DataFrame) -> str:
    """One booktabs table a scenario: in every column the best bold, the second underlined; the commands as comments."""
    lines = ["% needs \\usepackage{booktabs}"]
    for _, rows in whole.groupby("scenario", sort=False):
        titles = header(rows)
        marked = {name: _marks(rows, name) for name in _BETTER}
        lines += [f"% {title_of(rows)}".replace("\n", " "), *(f"% {command}" for command in rows["command"]),
                  f"\\begin{{tabular}}{{l{'r' * (len(titles) - 1)}}}", "\\toprule",
                  " & ".join(_escaped(title) for title in titles.values()) + " \\\\", "\\midrule"]
        for i, row in enumerate(rows_of(rows)):
            said = cells(row)
            lines.append(" & ".join(marked.get(name, [""] * len(rows))[i].replace("?", _escaped(said[name])) or _escaped(said[name])
                                    for name in titles) + " \\\\")
        lines += ["\\bottomrule", "\\end{tabular}", ""]
    return "\n".join(lines)


def _marks(rows: pd.DataFrame, name: str) -> list[str]:
    """How each cell of a column is set: "?" stands for what it says. Equals share a mark."""
    way = _BETTER[name] or (1 if rows["direction"].iloc[0] == "max" else -1)
    values = (way * rows[name].to_numpy(float)).round(9)
    ordered = sorted(set(values[~np.isnan(values)]), reverse=True)
    forms = dict(zip(ordered, ("\\textbf{?}", "\\underline{?}"), strict=False))
    return [forms.get(value, "?") for value in values]


def _escaped(text: str) -> str:
    for sign, said in (("\\", "/"), ("%", "\\%"), ("_", "\\_"), ("&", "\\&"), ("#", "\\#"), (words.NONE, "--"),
                       ("\N{MINUS SIGN}", "$-$")):
        text = text.replace(sign, said)
    return text
