"""Makes every figure and table that README.md shows, and the notebook's outputs.

    python scripts/make_figures.py                      all of them; the speed table takes half an hour and an idle machine
    python scripts/make_figures.py benchmark notebook   only these

benchmark: the picture and the table of who wins, from a benchmark that stays in runs/figures and is gone on with if stopped.
notebook: notebooks/own_data.ipynb, run in a folder of its own. speed: the table of milliseconds, from bench_engine.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedmtl.bench.command import Benchmark
from fedmtl.bench.runs import BASELINE
from fedmtl.bench.tables import cells, rows_of
from fedmtl.bench.winners import means
from fedmtl.errors import FedmtlError
from fedmtl.runtime.choose import cores

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "figures" / "benchmark.svg"
NOTEBOOK = ROOT / "notebooks" / "own_data.ipynb"
METHODS = ["fedavg", "fedprox", "fedper", "fedrep", "lg-fedavg", "ditto"]
MAIN = Benchmark(["quickstart"], METHODS, seeds=3)
COLUMNS = {"algorithm": "method", "mean": "test accuracy", "ci": "95 % of seeds", "worst10": "worst 10 % of clients",
           "difference": "over Local", "p_holm": "p (Holm)", "harmed": "clients harmed", "bytes": "sent"}
ARMS = {"flower": "Flower's engine", "loop": "plain torch loop", "floor": "hand-written floor", "inline": "fedmtl, one process",
        "ray": "fedmtl, Ray with 2 workers"}


def benchmark(readme: str, wanted: Benchmark = MAIN, place: Path = ROOT / "runs" / "figures", picture: Path = PICTURE) -> str:
    """README with the table of a benchmark, whose picture is written. Raises FedmtlError where a run failed."""
    failed, said, _ = wanted.run(place, cores())
    if failed:
        raise FedmtlError("; ".join(f"{name}: {why}" for name, why in failed.items()))
    picture.parent.mkdir(exist_ok=True)
    picture.write_text(means("", said.board, said.runs, BASELINE).standalone(), encoding="utf-8")
    table = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + "---|" * len(COLUMNS)]
    table += ["| " + " | ".join(cells(row)[key] for key in COLUMNS) + " |" for row in rows_of(said.board)]
    return inserted(readme, "benchmark", "\n".join(table))


def notebook(readme: str) -> str:
    """The notebook with the outputs of this version; README as it is."""
    import nbclient
    import nbformat

    made = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(made, timeout=600, resources={"metadata": {"path": folder}}).execute()
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # clock times
    nbformat.write(made, NOTEBOOK)
    return readme


def speed(readme: str) -> str:
    """README with the milliseconds of a round in every engine, measured now."""
    with tempfile.TemporaryDirectory() as folder:
        rows: list[dict[str, Any]] = []
        for words in ([], ["--clients", "5000", "--arms", "inline,ray", "--rounds", "6"]):
            out = Path(folder) / "rows.json"
            subprocess.run([sys.executable, str(ROOT / "scripts" / "bench_engine.py"), "--out", str(out), *words], check=True)
            rows += json.loads(out.read_text())
    return inserted(readme, "speed", speed_table(rows))


def speed_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """bench_engine's rows: milliseconds, and how many times faster than Flower's engine."""
    lines = ["| clients | " + " | ".join(ARMS.values()) + " |", "|" + "---|" * (len(ARMS) + 1)]
    for clients in dict.fromkeys(row["clients"] for row in rows):
        ms = {row["arm"]: row["ms"] for row in rows if row["clients"] == clients}
        said = [f"{ms[arm]:.3g}" if ms.get(arm, 1000) < 100 else f"{ms[arm]:.0f}" if arm in ms else "" for arm in ARMS]
        said = [f"{text} ({ms['flower'] / ms[arm]:.0f})" if arm in ("inline", "ray") and arm in ms and "flower" in ms else text
                for arm, text in zip(ARMS, said, strict=True)]
        lines.append(f"| {clients:,} | " + " | ".join(said) + " |")
    return "\n".join(lines)


def inserted(text: str, name: str, made: str) -> str:
    """`text` with what stands between the marks of `name` replaced. Raises ValueError where they are not there."""
    begin, end = marks(name)
    if begin not in text or end not in text:
        raise ValueError(f"no place for '{name}': it begins with {begin} and ends with {end}")
    return re.sub(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", lambda _: f"\n{made}\n", text, flags=re.DOTALL)


def marks(name: str) -> tuple[str, str]:
    """Where README holds what is made here."""
    return f"<!-- {name}: made by scripts/make_figures.py -->", f"<!-- end of {name} -->"


PARTS: dict[str, Callable[[str], str]] = {"benchmark": benchmark, "notebook": notebook, "speed": speed}


if __name__ == "__main__":
    for name in sys.argv[1:] or list(PARTS):
        README.write_text(PARTS[name](README.read_text(encoding="utf-8")), encoding="utf-8")
