"""The tables of the terminal: how a run ended, and where its time went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from fedmtl.report import words
from fedmtl.report.metrics import MODELS, load_journal

COLUMNS = ("mean", "weighted mean", "std", "worst 10 %", "best 10 %")
FIELDS = ("mean", "weighted_mean", "std", "worst10", "best10")


def model_rows(summary: dict[str, Any]) -> list[tuple[str, str, str, list[str]]]:
    """(metric, when, model, five numbers) for every metric, both reported rounds and every model kind."""
    headline = summary.get("test_model", "personal")
    last = summary.get("test_models") or {headline: summary["test"]}
    at_best = summary.get("test_models_at_best_val") or {}
    if not at_best and summary.get("test_at_best_val"):
        fields = summary["test_at_best_val"]
        at_best = {"round": fields["round"], headline: {k: v for k, v in fields.items() if k != "round"}}
    final = summary.get("test_round", summary["rounds"])
    moments = [(f"{final}, the last", last)]
    if at_best and at_best["round"] == final:
        moments = [(f"{final}, the last, and chosen by validation", last)]
    elif at_best:
        moments.append((f"{at_best['round']}, chosen by validation", at_best))
    metrics = list(dict.fromkeys(metric for model in MODELS for metric in last.get(model, {})))
    return [
        (metric, when, model, [words.score(metric, found[model][metric][field]) for field in FIELDS])
        for metric in metrics
        for when, found in moments
        for model in MODELS
        if metric in found.get(model, {})
    ]


def final_table(summary: dict[str, Any]) -> Table:
    """How the run ended: each model kind and metric, at the last round and at the one validation chose."""
    table = Table(title=_title(summary), caption=_costs(summary), title_justify="left", caption_justify="left")
    for name in ("test metric", "round", "model"):
        table.add_column(name)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    before: tuple[str, str] | None = None
    for metric, when, model, numbers in model_rows(summary):
        if before is not None and before[0] != metric:
            table.add_section()
        shown = (metric if before is None or before[0] != metric else "", when if before != (metric, when) else "")
        table.add_row(*(Text(cell) for cell in (*shown, model, *numbers)))
        before = (metric, when)
    return table


def final_text(summary: dict[str, Any]) -> str:
    """The same as plain text, every row complete, for pipes and log files."""
    rows: list[tuple[str, ...]] = [("test metric", "round", "model", *COLUMNS)]
    rows += [(metric, when, model, *numbers) for metric, when, model, numbers in model_rows(summary)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    forms = [f"{{:{'<' if i < 3 else '>'}{width}}}" for i, width in enumerate(widths)]
    lines = ["  ".join(form.format(cell) for form, cell in zip(forms, row, strict=True)) for row in rows]
    return "\n".join([_title(summary).plain, *(line.rstrip() for line in lines), _costs(summary).plain])


def _title(summary: dict[str, Any]) -> Text:
    held = ", ".join(words.several(_count(summary[f"{noun}s"]), noun) for noun in ("client", "task"))
    rounds = words.several(summary["rounds"], "round")
    return Text(f"{summary['name']}: {summary['algorithm']}, {held}, {rounds}, seed {summary['seed']}")


def _gained(summary: dict[str, Any]) -> str:
    """What the run gained over its baseline, in one sentence."""
    gains = summary["gains"]
    delta, share = (words.percent(summary["delta_m"]), words.span(gains["delta_m"])), words.span(gains["harmed"], 0, signed=False)
    said = [f"against {summary['baseline'].removeprefix('baseline-')}: Delta-m {delta[0]}" + (f" ({delta[1]})" if delta[1] else ""),
            f"a client's gain {words.percent(gains['mean'])}" + (f" ({words.span(gains['clients'])})" if gains["clients"] else "")]
    if gains["harmed"]:
        said.append(f"harmed {100 * summary['harmed']:.0f} % of the clients ({share})")
    return "; ".join(said) + ", intervals at 95 %\n"


def _costs(summary: dict[str, Any]) -> Text:
    sent, seconds = summary.get("bytes") or {}, summary.get("seconds") or {}
    said = [_gained(summary)] if "gains" in summary else []
    if sent:
        said.append(f"sent up {words.size(sent.get('up'))}, down {words.size(sent.get('down'))}")
    said += [f"{what} {how}" for what, how in work_said(summary)]
    if seconds:
        parts = (("total", "in all"), ("round_median", "a round"), ("startup", "to start"))
        said.append(", ".join(f"{words.duration(seconds.get(part))} {name}" for part, name in parts))
    return Text("; ".join(said).replace("\n; ", "\n"))


def work_said(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What the clients' work came to, by names, as far as a run wrote it down."""
    work, kept = summary.get("work") or {}, summary.get("kept") or {}
    found = [("samples processed", words.number(work["samples"]))] if "samples" in work else []
    found += [(f"rows {way}", words.number(work[way])) for way in ("forward", "backward") if way in work]
    if kept:
        found.append(("kept by a client", f"{words.number(kept['parameters'])} numbers ({words.size(kept['bytes'])})"))
    return found


def _count(held: Any) -> int:
    return held if isinstance(held, int) else len(held)


def profile_text(run_dir: Path) -> str:
    """Where the time of a round went: the median over rounds of each span, as `fedmtl run --profile` wrote it."""
    rounds = [event["profile"] for event in load_journal(run_dir) if "profile" in event]
    names = dict.fromkeys(name for spent in rounds for name in spent)
    middle = {name: float(np.median([spent.get(name, 0.0) for spent in rounds])) for name in names}
    own = sum(seconds for name, seconds in middle.items() if not name.startswith("workers: "))
    lines = ["milliseconds of a round (median), by what they went into; workers work side by side, so theirs do not add up:"]
    for name, seconds in sorted(middle.items(), key=lambda pair: -pair[1]):
        share = "" if name.startswith("workers: ") else f"{seconds / own:>7.1%}"
        lines.append(f"{name:>30} {1e3 * seconds:>9.2f} {share}")
    return "\n".join(lines)
