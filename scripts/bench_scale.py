"""What many clients, many rounds and large models cost: time of a round, start-up, and the peak memory of all processes.

    python scripts/bench_scale.py                             everything (about ten minutes)
    python scripts/bench_scale.py --cases registered,rounds   some of it

Each case runs in a process of its own; memory is the sum over it and its descendants, pages that they share counted once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench_engine import Memory, _family, _proportional, median

HERE = Path(__file__).parent
GIB = 2**30
FEW = {"tasks": {"source": "bench_models:digits_few"}, "model": {"trunk": "mlp", "hidden": [64]}, "algorithm": {"name": "fedper"}}
MANY = {**FEW, "tasks": {"source": "bench_data:digits_many"}}
DEEP = {"tasks": {"source": "bench_models:colours"}, "model": {"trunk": "bench_models:ResNet18"}, "algorithm": {"name": "fedavg"}}


def sampled(clients: int, rounds: int = 60) -> dict[str, Any]:
    """100 of `clients` clients a round; the same work whatever their number."""
    return {**FEW, "clients": clients, "rounds": rounds, "server": {"participation": 100 / clients},
            "evaluation": {"clients": "sampled"}}


CASES: dict[str, list[dict[str, Any]]] = {
    "registered": [{"what": f"{n:,} registered, 100 sampled", "kind": kind, **sampled(n)}
                   for kind in ("inline", "ray") for n in (200, 100_000)],
    "all": [{"what": "10,000 clients, all take part", "kind": kind, "clients": 10_000, "rounds": 6,
             "evaluation": {"clients": "all"}, **FEW} for kind in ("inline", "ray")],
    "rounds": [{"what": "1,000 tiny rounds", "kind": kind, "clients": 10, "rounds": 1000, "watch": True, **FEW,
                "model": {"trunk": "mlp", "hidden": [8]}} for kind in ("inline", "ray")],
    "memory": [{"what": "500 clients", "kind": "inline", "clients": 500, "rounds": 30, "evaluation": {"clients": "all"}, **MANY}],
    "resnet": [{"what": f"ResNet-18, 50 clients, {name}", "kind": kind, "clients": 50, "rounds": 1, **DEEP,
                "algorithm": {"name": name}}
               for kind, name in (("inline", "fedavg"), ("ray", "fedavg"), ("ray", "ditto"))]}


def table_of(case: dict[str, Any], workers: int) -> dict[str, Any]:
    """The case as a scenario."""
    sections = {name: dict(case[name]) for name in ("tasks", "model", "algorithm", "server", "evaluation") if name in case}
    sections["tasks"] |= {"clients": case["clients"], "val": 0.2, "test": 0.2}
    return {"name": "scale", "rounds": case["rounds"], **sections, "training": {"lr": 0.1, "batch-size": 10},
            "runtime": {"kind": case["kind"], "workers": workers if case["kind"] == "ray" else 0}}


class Watch(threading.Thread):
    """(time, memory, open files) of this process and its descendants, several times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, int, int]] = []

    def run(self) -> None:
        """Samples for ever."""
        while True:
            family = _family(os.getpid())
            self.seen.append((time.time(), sum(map(_proportional, family)), sum(map(_files, family))))
            time.sleep(0.1)

    def at(self, moment: float) -> tuple[float, int, int]:
        """The sample next to a moment."""
        return min(self.seen, key=lambda one: abs(one[0] - moment))


def _files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:  # it ended meanwhile
        return 0


def run_case(case: dict[str, Any], workers: int) -> dict[str, Any]:
    """One case in this process."""
    from datetime import datetime

    import fedmtl
    from fedmtl.scenario import from_table

    watch = Watch()
    if case.get("watch"):
        watch.start()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        out = fedmtl.run(from_table(table_of(case, workers), HERE), out=Path(folder) / "run", report=False)
        lines = [json.loads(line) for line in (out.path / "journal.jsonl").read_text().splitlines()]
        written = sum(file.stat().st_size for file in out.path.rglob("*") if file.is_file())
    rounds = [line for line in lines if line["event"] == "round"]
    stamps = [datetime.fromisoformat(line["time"]).timestamp() for line in rounds]
    gaps = [b - a for a, b in pairwise(stamps)] or [rounds[0]["seconds"]["total"]]
    found = {"ms": 1e3 * median(gaps[len(gaps) // 10 :]), "startup": out.summary["seconds"]["startup"], "written": written,
             "total": time.perf_counter() - begin, "first_ms": 1e3 * rounds[0]["seconds"]["total"],
             "rejected": sum(len(line["rejected"]) for line in rounds)}
    if case.get("watch"):
        tenth, last = watch.at(stamps[len(stamps) // 10]), watch.at(stamps[-1])
        found |= {"growth": last[1] / tenth[1] - 1, "files": [tenth[2], last[2]]}
    return found


def spawn(case: dict[str, Any], workers: int) -> dict[str, Any]:
    """One case in a process of its own, with its peak memory."""
    words = [sys.executable, __file__, "--case", json.dumps(case), "--workers", str(workers)]
    with tempfile.TemporaryFile("w+") as errors:
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=alone)
        memory = Memory(process.pid)
        memory.start()
        text, _ = process.communicate()
        memory.done.set()
        if process.returncode:
            errors.seek(0)
            return {"failed": errors.read()[-2000:]}
    return {**json.loads(text.splitlines()[-1]), "memory": memory.peak}


def verdicts(name: str, case: dict[str, Any], row: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """What a case was measured for, and whether its bar is met."""
    def bar(text: str, met: bool) -> str:
        return f"{text}: {'met' if met else 'MISSED'}"

    out = []
    if name == "registered" and case["clients"] > 200:
        few = next((r for r in rows if r["kind"] == case["kind"] and r["clients"] == 200), None)
        if few:
            out.append(bar(f"{row['ms'] / few['ms']:.2f} x of 200 registered (1.3)", row["ms"] <= 1.3 * few["ms"]))
        out.append(bar("start-up < 30 s", row["startup"] < 30))
        out.append(bar("< 3 GiB", row["memory"] < 3 * GIB))
    if name == "rounds":
        out.append(bar(f"memory {row['growth']:+.1%} from round 100 (5 %)", row["growth"] < 0.05))
        out.append(bar(f"open files {row['files'][0]} to {row['files'][1]}", row["files"][1] <= row["files"][0]))
    if name == "memory":
        out.append(bar("< 600 MB", row["memory"] < 600e6))
    if name == "resnet":
        out.append(bar("< 8 GiB", row["memory"] < 8 * GIB))
    return out + ([f"{row['rejected']} REJECTED"] if row["rejected"] else [])


def main() -> None:
    """Parses, runs, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=lambda t: t.split(","), default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write the table as JSON")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_case(arguments.case, arguments.workers)))
        return
    if unknown := set(arguments.cases) - set(CASES):
        parser.error(f"unknown cases {sorted(unknown)}; there are {', '.join(CASES)}")
    rows: list[dict[str, Any]] = []
    print(f"{'case':>34} {'runtime':>7} {'ms/round':>9} {'start s':>8} {'peak MB':>8}  bars")
    for name in arguments.cases:
        for case in CASES[name]:
            row = {"name": name, **{key: case[key] for key in ("what", "kind", "clients")}, **spawn(case, arguments.workers)}
            rows.append(row)
            if "failed" in row:
                print(f"{case['what']:>34} {case['kind']:>7} FAILED\n{row['failed']}", flush=True)
                continue
            row["bars"] = verdicts(name, case, row, rows)
            print(f"{case['what']:>34} {case['kind']:>7} {row['ms']:>9.2f} {row['startup']:>8.1f} {row['memory'] / 1e6:>8.0f}  "
                  f"{'; '.join(row['bars'])}", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
