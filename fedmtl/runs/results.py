"""The run directory: written line by line while the run goes on, read by report/ and by nobody else."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save_file

from fedmtl.client.store import digest
from fedmtl.errors import DiskError
from fedmtl.runs.picture import picture_of
from fedmtl.scenario import Scenario
from fedmtl.server.round import Round
from fedmtl.tasks.federation import mean_js_divergence
from fedmtl.tasks.held_back import held_back
from fedmtl.tasks.task import PARTS, Federation, Mixed
from fedmtl.trees import Params


def next_directory(root: Path, stem: str) -> Path:
    """`root/stem`, or the first `root/stem-N` that does not exist."""
    number = 1
    while (path := root / (stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return path


def split_of(scenario: Scenario, federation: Federation | Mixed, primary: str, decides: Sequence[str]) -> dict[str, Any]:
    """What split.json holds: classes, every client's task, counts and labels, the divergence, the metric that decides.

    decides: the metric that decides for each group of clients. groups, spaces: see `runs.picture.picture_of`. A client that takes
    no part in training is marked as held_back.
    """
    seen = picture_of(scenario, federation, decides)
    labels: list[list[int] | None] = []
    for group in seen["groups"]:
        labels += group.pop("rows") if group["kind"] == "classes" else [None] * group["clients"]
    labels = [row if row is None else row[: len(seen["spaces"].get(task, row))]
              for row, task in zip(labels, federation.tasks, strict=True)]
    sizes = {part: federation.sizes(part).tolist() for part in PARTS}
    names = [group["name"] for group in seen["groups"]]
    held = set(held_back(scenario.tasks.held_back, federation.group, scenario.seed).tolist())
    clients = [{"client": c, "task": task, **({"group": names[federation.group[c]]} if len(names) > 1 else {}),
                **{part: sizes[part][c] for part in PARTS}, "labels": labels[c], "metric": decides[federation.group[c]],
                **({"held_back": True} if c in held else {})}
               for c, task in enumerate(federation.tasks)]
    alone = len(names) == 1 and seen["groups"][0]["kind"] == "classes"
    return {"classes": seen["groups"][0]["classes"] if len(names) == 1 else [], "clients": clients, "primary": primary,
            "jsd": mean_js_divergence(_by_name(clients, seen)) if alone else None, **seen}


def _by_name(clients: list[dict[str, Any]], seen: dict[str, Any]) -> np.ndarray:
    """[clients, classes] counts, also where tasks have classes of their own: equal names are one class."""
    own, spaces = seen["groups"][0]["classes"], seen["spaces"]
    if not spaces:
        return np.asarray([client["labels"] for client in clients])
    place = {name: i for i, name in enumerate(dict.fromkeys([*own, *(name for space in spaces.values() for name in space)]))}
    counts = np.zeros((len(clients), len(place)), np.int64)
    for row, client in zip(counts, clients, strict=True):
        row[[place[name] for name in spaces.get(client["task"], own)]] = client["labels"]
    return counts


def own_modules(table: Any) -> list[Path]:
    """The files of a user's own modules that a resolved scenario names as `module:Name`: its run needs them to be repeated."""
    found: dict[Path, None] = {}
    for value in table.values() if isinstance(table, dict) else table if isinstance(table, list) else ():
        if isinstance(value, dict | list):
            found |= dict.fromkeys(own_modules(value))
        elif isinstance(value, str) and re.fullmatch(r"[\w.]+:\w+", value) and value.partition(":")[0] in sys.modules:
            top = sys.modules[value.partition(".")[0].partition(":")[0]]
            file = Path(str(getattr(top, "__file__", "")))
            if file.is_file() and "site-packages" not in file.parts:
                found[file.parent if file.name == "__init__.py" else file] = None
    return list(found)


@dataclass
class RunDirectory:
    """A run's files. Raises DiskError where the directory already holds a run or cannot be written."""

    path: Path
    _files: dict[str, IO[str]] = field(default_factory=dict)
    _who: dict[tuple[str, str], tuple[list[int], str, str]] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    """Metrics that only some groups of clients have: the others stand in no line of theirs."""
    _conflict: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.path / "scenario.toml").exists():
            raise DiskError(f"{self.path} already holds a run; choose another --out, or remove it first")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DiskError(f"{self.path} cannot be written: {error.strerror}") from error
        for name in ("metrics", "journal"):
            self._open(name)

    def _open(self, name: str) -> None:
        try:
            self._files[name] = (self.path / f"{name}.jsonl").open("w", encoding="utf-8")
        except OSError as error:
            raise DiskError(f"{self.path} cannot be written: {error.strerror}") from error

    def begin(self, scenario: Scenario, federation: Federation | Mixed, primary: str, decides: Sequence[str]) -> None:
        """Writes the resolved scenario and the split."""
        self.write("scenario.toml", scenario.to_toml())
        for source in own_modules(scenario.resolved()):
            keep = shutil.copytree if source.is_dir() else shutil.copyfile
            keep(source, self.path / source.name)
        self.write("split.json", json.dumps(split_of(scenario, federation, primary, decides)))
        for name in ("relations", "affinity"):
            if getattr(scenario.evaluation, name):
                self._open(name)
        self.journal("start", name=scenario.name)

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Says in the journal why a run ended early."""
        if error is not None and not self._files["journal"].closed:
            with suppress(DiskError):
                self.journal("failed", error=type(error).__name__, text=str(error))
        with suppress(DiskError):
            self.close()

    def close(self) -> None:
        """Closes the files. Raises DiskError where what was written does not fit on the disk."""
        problems = []
        for name, file in self._files.items():
            try:
                file.close()
            except OSError as error:
                problems.append(f"{self.path / name}.jsonl cannot be written: {error.strerror}")
        if problems:
            raise DiskError("; ".join(problems))

    def write(self, name: str, text: str) -> None:
        """Writes a file whole."""
        try:
            (self.path / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise DiskError(f"{self.path / name} cannot be written: {error.strerror}") from error

    def _append(self, file: str, line: str) -> None:
        try:
            self._files[file].write(line + "\n")
            self._files[file].flush()
        except OSError as error:
            raise DiskError(f"{self.path / file}.jsonl cannot be written: {error.strerror}") from error

    def journal(self, event: str, **entry: Any) -> None:
        """One line of the journal, with the time."""
        stamp = datetime.now(UTC).isoformat(timespec="microseconds")
        self._append("journal", json.dumps({"event": event, "time": stamp, **entry}))

    def scores(self, now: Round, directions: Mapping[str, str], tasks: list[str], sizes: Mapping[str, Any]) -> None:
        """One line for every (part, model, metric) of a round."""
        lines, said = [], dict[bytes, str]()  # the global and the personal model are often the same
        for (part, model, metric), values in now.scores.items():
            asked = metric in self.asked
            place = np.flatnonzero(~np.isnan(values)) if asked else np.arange(len(values))
            clients = [now.scored[i] for i in place] if asked else now.scored
            key = (metric if asked else "", part)
            if self._who.get(key, ([], "", ""))[0] != clients:
                columns = {"client": clients, "task": [tasks[c] for c in clients]}
                self._who[key] = clients, json.dumps(columns)[1:-1], json.dumps(sizes[part][clients].tolist())
            head = json.dumps({"round": now.number, "split": part, "model": model, "metric": metric,
                               "direction": directions[metric]})[1:-1]
            own = values[place]
            if (value := said.get(own.tobytes())) is None:
                value = said[own.tobytes()] = json.dumps(own.tolist()).replace("NaN", "null")
            lines.append(f'{{{head}, {self._who[key][1]}, "value": {value}, "n": {self._who[key][2]}}}')
        if lines:
            self._append("metrics", "\n".join(lines))

    def relations(self, now: Round) -> None:
        """One line for a round whose clients' updates were compared: their cosines above the diagonal, row by row, and norms.

        And one in affinity.jsonl where each was looked at with each client's loss: row i says what i's step does to everyone.
        """
        if now.affinity is not None:
            table = [[None if math.isnan(value) else float(f"{value:.4g}") for value in row] for row in now.affinity.table.tolist()]
            self._append("affinity", json.dumps({"round": now.number, "client": now.affinity.clients, "affinity": table}))
        if (seen := now.relations) is None:
            return
        rate = None if math.isnan(seen.conflict) else round(seen.conflict, 6)
        cosine = [None if math.isnan(value) else round(value, 4) for value in seen.pairs.tolist()]
        norm = [float(f"{value:.4g}") for value in seen.norm.tolist()]
        self._append("relations", json.dumps({"round": now.number, "client": seen.clients, "conflict": rate, "norm": norm,
                                              "cosine": cosine}))
        self._conflict = {"conflict": {"round": now.number, "rate": rate}}

    def finish(self, scenario: Scenario, state: Params, primary: str, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Writes the last checkpoint and summary.json; returns the summary."""
        self.close()
        try:
            (self.path / "checkpoint").mkdir(exist_ok=True)
            save_file({k: v.contiguous() for k, v in state.items()}, self.path / "checkpoint" / "shared.safetensors")
        except (OSError, SafetensorError) as error:
            raise DiskError(f"{self.path / 'checkpoint'} cannot be written: {error}") from error
        from fedmtl.report import metrics
        from fedmtl.report.kinds import kinds_of

        frame = metrics.load_metrics(self.path)
        summary = {"name": scenario.name, "algorithm": scenario.algorithm.name, "seed": scenario.seed,
                   "rounds": scenario.rounds, **extra, **self._conflict, "checksum": digest(state),
                   **metrics.summarise(frame, primary, kinds_of(metrics.load_split(self.path)))}
        self.write("summary.json", json.dumps(summary, indent=2))
        return summary
