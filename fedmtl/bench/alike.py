"""Which runs can be compared: any run directories, sorted into tables of runs on the same clients, model and budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmtl.bench.runs import Run
from fedmtl.errors import FedmtlError
from fedmtl.report.baseline import flat, why_not

_OF_A_ROW = ("algorithm.", "training.", "server.")
"""Settings that make another row of runs of one method."""


@dataclass(frozen=True)
class Compared:
    """Runs sorted into tables. apart: of a table, why its runs are not in the one before it; left: why some are in none."""

    runs: list[Run]
    apart: dict[str, str]
    left: dict[str, str]


def runs_at(places: Iterable[Path]) -> tuple[list[Run], dict[str, str]]:
    """(the runs in directories, which may be benchmarks; those that have not ended, and what is none). Raises FedmtlError.

    A run that is given twice is one.
    """
    runs: list[Run] = []
    seen: set[Path] = set()
    left: dict[str, str] = {}
    for place in places:
        own = (place / "scenario.toml").exists()
        inside = [place] if own else [path.parent for path in sorted(place.glob("*/scenario.toml"))]
        for one in inside:
            if one.resolve() in seen:
                continue
            seen.add(one.resolve())
            if (one / "summary.json").exists():
                runs.append(Run.read(one))
            else:
                left[str(one)] = "it has not ended"
        if not inside:
            left[str(place)] = "no run, and no directory of runs"
    if not runs:
        raise FedmtlError("; ".join(f"{place}: {why}" for place, why in left.items()) or "no run is given")
    return runs, left


def sort_out(places: Iterable[Path]) -> Compared:
    """Any runs in tables: a run joins the first table with all of whose runs it can be compared (seeds may differ).

    Tables are called after their scenarios; where several would have one name, they are numbered, and `apart` says why. Rows are
    called after their methods, and the settings in which runs of one method differ. A second run of one row and seed is left out.
    Raises FedmtlError where there is no run that has ended.
    """
    found, left = runs_at(places)
    tables: list[list[Run]] = []
    apart: dict[int, str] = {}
    for run in sorted(found, key=lambda run: (run.said["name"], str(run.place))):
        reasons = []
        for table in tables:
            reason = next((why for other in _witnesses(table, run) if (why := why_not(other.place, run.place, seeds=False))), "")
            if not reason:
                table.append(run)
                break
            reasons.append(f"{table[0].place.name} and {run.place.name}: {reason}")
        else:
            if reasons:
                apart[len(tables)] = reasons[0]
            tables.append([run])
    names = _titles([" and ".join(dict.fromkeys(run.said["name"] for run in table)) for table in tables])
    runs = [run for name, table in zip(names, tables, strict=True) for run in _rows(name, table, left)]
    return Compared(runs, {names[i]: why for i, why in apart.items()}, left)


def _witnesses(table: Sequence[Run], run: Run) -> list[Run]:
    """The run of a table that says whether another fits: one of the same seed, whose split must be equal, else the first."""
    return [other for other in table if other.seed == run.seed][:1] or [table[0]]


def _titles(names: Sequence[str]) -> list[str]:
    """Names, with a number where one comes again."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return out


def _rows(title: str, table: Sequence[Run], left: dict[str, str]) -> list[Run]:
    """The runs of a table under the names of their rows."""
    rows, taken = [], dict[tuple[str, int], Path]()
    for run in table:
        alike = [other for other in table if other.said["algorithm"] == run.said["algorithm"]]
        label = f"{run.said['algorithm']}{_settings(run, alike)}"
        first = taken.setdefault((label, run.seed), run.place)
        if first != run.place:
            left[str(run.place)] = f"the same settings and seed as {first}"
        else:
            rows.append(run.named(title, label))
    return rows


def _settings(run: Run, alike: Sequence[Run]) -> str:
    """` (lam=0.5)`: those settings in which runs of one method differ; "" where they do not."""
    tables = [_of_a_row(other) for other in alike]
    mine = _of_a_row(run)
    differ = sorted({key for table in tables for key in table if any(other.get(key) != table[key] for other in tables)})
    said = ", ".join(f"{key.removeprefix('algorithm.')}={mine[key]}" for key in differ if key in mine)
    return f" ({said})" if said else ""


def _of_a_row(run: Run) -> dict[str, Any]:
    return {key: value for key, value in flat(dict(run.asks)).items() if key.startswith(_OF_A_ROW)}
