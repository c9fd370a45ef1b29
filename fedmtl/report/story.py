"""What the page says in words and tables, made ready so that the template holds no logic."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from fedmtl.report import tables, words
from fedmtl.report.files import load_scenario
from fedmtl.report.kinds import HEADER, kind_rows, kinds_of
from fedmtl.report.metrics import scores
from fedmtl.report.panels import panels

MODEL_WORDS = {
    "personal": "what each client would use next: its own parts, and what it received",
    "global": "the server's model, the same for every client",
    "adapted": "the personal model after the training that the method does only before use",
}
_FOLD = 30  # a longer table of tasks starts folded
_LISTED = 1000  # clients whose data the page lists one by one


def tell(
    run: Path, df: pd.DataFrame, split: dict[str, Any], journal: list[dict[str, Any]], summary: dict[str, Any]
) -> dict[str, Any]:
    """Everything the template shows except the figures."""
    scenario = load_scenario(run)
    tasks, kinds = {client["task"] for client in split["clients"]}, kinds_of(split)
    fields = {key: value for key, value in scenario.get("algorithm", {}).items() if key != "name"}
    return {
        "summary": summary,
        "method": summary["algorithm"],
        "fields": {key: _plain(value) for key, value in fields.items()},
        "facts": [
            words.several(len(split["clients"]), "client"),
            words.several(len(tasks), "task"),
            *([words.several(len(kinds), "kind") + " of tasks"] if kinds else []),
            words.several(int(summary["rounds"]), "round"),
            f"seed {summary['seed']}",
        ],
        "answer": _answer(df, summary),
        "models": _models(summary),
        "model_words": {model: MODEL_WORDS.get(model, "") for model in summary["test_models"]},
        "curves": [f"curves-{words.plain(kind.name)}" for kind in kinds] or [f"curves-{metric}" for metric in summary["test"]],
        "kinds": kind_rows(df, kinds, summary["test_round"]),
        "kind_header": HEADER,
        "labels": [f"labels-{words.plain(panel.name)}" if panel.name else "labels" for panel in panels(split)],
        "made": [(group["name"], group["made"]) for group in split.get("groups") or []],
        "tasks": _tasks(summary, split, bool(kinds)),
        "task_header": ["task", "clients", "metric", "mean"] if kinds else ["task", "clients", *summary["test"]],
        "fold": len(summary["tasks"]) > _FOLD,
        "data": [_data_row(client, split) for client in split["clients"][:_LISTED]],
        "unlisted": max(len(split["clients"]) - _LISTED, 0),
        "jsd": split.get("jsd"),
        "costs": _costs(summary, journal),
        "rejected": _rejected(journal),
        "truth": _flat(summary.get("truth") or {}),
        "scenario": (run / "scenario.toml").read_text(encoding="utf-8"),
        "command": f"fedmtl run {shlex.quote(str(run / 'scenario.toml'))}",
    }


def _answer(df: pd.DataFrame, summary: dict[str, Any]) -> dict[str, Any]:
    """The headline: one number, whose it is, and how it spreads."""
    metric, model, last = summary["primary"], summary["test_model"], summary["test_round"]
    found = summary["test"][metric]
    rows = scores(df, split="test", model=model, metric=metric)
    rows = rows[rows["round"] == last]
    chosen = summary.get("test_at_best_val")
    return {
        "title": words.title(metric),
        "model": model,
        "round": last,
        "value": words.score(metric, found["mean"]),
        "clients": words.several(int(rows["value"].notna().sum()), "client"),
        "undefined": int(rows["value"].isna().sum()),
        "better": "higher is better" if found["direction"] == "max" else "lower is better",
        "spread": {
            name: words.score(metric, found[field])
            for name, field in zip(tables.COLUMNS[1:], tables.FIELDS[1:], strict=True)
        },
        "chosen": (chosen["round"], words.score(metric, chosen[metric]["mean"])) if chosen else None,
    }


def _models(summary: dict[str, Any]) -> list[tuple[str, list[tuple[str, list[tuple[str, list[str]]]]]]]:
    """The table of models as metric -> moment -> rows."""
    grouped = []
    for metric, rows in groupby(tables.model_rows(summary), key=lambda row: row[0]):
        moments = [
            (when, [(model, numbers) for _, _, model, numbers in group])
            for when, group in groupby(rows, key=lambda row: row[1])
        ]
        grouped.append((metric, moments))
    return grouped


def _tasks(summary: dict[str, Any], split: dict[str, Any], unlike: bool) -> list[list[str]]:
    """A row a task: its name, its clients, its mean test scores; of unlike tasks a row for each metric that a task has."""
    clients = Counter(client["task"] for client in split["clients"])
    if unlike:
        return [
            [task, str(clients[task]), metric, words.score(metric, value)]
            for task, found in summary["tasks"].items()
            for metric, value in found.items()
        ]
    return [
        [task, str(clients[task]), *(words.score(metric, found.get(metric)) for metric in summary["test"])]
        for task, found in summary["tasks"].items()
    ]


def _data_row(client: dict[str, Any], split: dict[str, Any]) -> list[str]:
    """What one client holds, its classes spelled out: the words of the heat map."""
    names = (split.get("spaces") or {}).get(client["task"]) or split.get("classes") or []
    labels = [
        f"{names[i] if i < len(names) else i}: {count}" for i, count in enumerate(client.get("labels") or []) if count
    ]
    counts = (client["client"], client["task"], client["train"], client["val"], client["test"])
    return [*(str(cell) for cell in counts), ", ".join(labels)]


def _costs(summary: dict[str, Any], journal: list[dict[str, Any]]) -> list[tuple[str, str]]:
    sent, seconds = summary.get("bytes") or {}, summary.get("seconds") or {}
    found = [(f"sent {way}", words.size(sent[way])) for way in ("up", "down") if way in sent] + tables.work_said(summary)
    named = (("total", "in all"), ("startup", "to start"), ("round_median", "a round, median"))
    found += [(name, words.duration(seconds[key])) for key, name in named if seconds.get(key) is not None]
    events = {event["round"]: event for event in journal if event["event"] == "round"}.values()
    asked, accepted = (sum(event.get(key) or 0 for event in events) for key in ("sampled", "accepted"))
    return [*found, ("replies accepted", f"{accepted} of {asked}")] if asked else found


def _rejected(journal: list[dict[str, Any]]) -> list[list[str]]:
    """Reason, how many replies, from which clients, in which rounds; the commonest first."""
    events = {event["round"]: event for event in journal if event["event"] == "round"}
    found: dict[str, list[tuple[int, int]]] = {}
    for number, event in events.items():
        for reply in event.get("rejected") or []:
            found.setdefault(str(reply["reason"]), []).append((reply["client"], number))
    return [
        [reason, str(len(places)), _listed(client for client, _ in places), _listed(number for _, number in places)]
        for reason, places in sorted(found.items(), key=lambda item: -len(item[1]))
    ]


def _listed(numbers: Iterable[int]) -> str:
    distinct = sorted(set(numbers))
    return ", ".join(map(str, distinct[:12])) + (f" and {len(distinct) - 12} more" if len(distinct) > 12 else "")


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        rows += _flat(value, f"{name}.") if isinstance(value, dict) else [(name, _plain(value))]
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
