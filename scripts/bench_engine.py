"""Times one round of FedAvg in several engines, side by side, on the same clients, batches and model.

    python scripts/bench_engine.py                      MLP at 20, 100 and 500 clients
    python scripts/bench_engine.py --clients 5000 --arms floor,loop,inline,ray
    python scripts/bench_engine.py --model cnn --clients 20 --arms flower,loop,pair,inline,ray
    python scripts/bench_engine.py --algorithm fedrep --clients 100 --arms loop,inline,ray       (or ditto)

Arms: `flower` is Flower's own simulation engine with an ordinary torch client; `loop` a plain torch loop over the clients, `pair`
two processes of it; `floor` a hand-written stacked batched-matmul loop for exactly this model; `inline` and `ray` are fedmtl.
Every arm trains all clients for one epoch, averages, and scores every client on its validation and test rows, every round.
Repeats are interleaved; a figure is the median over repeats of the median round. Memory is the peak of all processes together.
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

HERE = Path(__file__).parent
ARMS = ("flower", "loop", "pair", "floor", "inline", "ray")


def scenario_table(model: str, clients: int, rounds: int, batch: int, algorithm: str) -> dict[str, Any]:
    """The scenario that every arm runs."""
    data = {"source": "bench_data:digits_many", "clients": clients, "val": 0.2, "test": 0.2}
    net: dict[str, Any] = {"trunk": "mlp", "hidden": [64]}
    if model != "mlp":
        data |= {"source": "bench_data:images", "val": 0.07, "test": 0.07}
        net = {"trunk": "cnn", "padding": "valid" if model == "cnn" else "same"}
    return {"name": "bench", "rounds": rounds, "tasks": data, "model": net, "algorithm": {"name": algorithm},
            "training": {"lr": 0.1, "batch-size": batch}, "evaluation": {"clients": "all"}}


def prepare(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """(scenario, federation) of this process."""
    from fedmtl.runtime.data import federation_of
    from fedmtl.scenario import from_table

    table = scenario_table(arguments.model, arguments.clients[0], arguments.rounds, arguments.batch, arguments.algorithm)
    scenario = from_table(table, HERE)
    return scenario, federation_of(scenario)


def run_fedmtl(arguments: argparse.Namespace, kind: str) -> dict[str, Any]:
    """fedmtl's own figures: the time between the journal's round lines, everything included."""
    from datetime import datetime

    import fedmtl

    scenario, _ = prepare(arguments)
    runtime = scenario.runtime.model_copy(update={"kind": kind, "workers": arguments.workers})
    with tempfile.TemporaryDirectory() as folder:
        out = fedmtl.run(scenario.model_copy(update={"runtime": runtime}), out=Path(folder) / "run")
        lines = [json.loads(line) for line in (out.path / "journal.jsonl").read_text().splitlines()]
    stamps = [datetime.fromisoformat(line["time"]).timestamp() for line in lines if line["event"] == "round"]
    gaps = [b - a for a, b in pairwise(stamps)]
    score = out.summary["test"]["accuracy"]["mean"]
    return {"rounds": gaps, "startup": out.summary["seconds"]["startup"], "score": score, "bytes": out.summary["bytes"]}


def run_torch(arguments: argparse.Namespace, arm: str) -> dict[str, Any]:
    """The plain loop, two processes of it, or the hand-written stacked floor."""
    import torch
    from bench_rivals import Floor, Loop, Pair

    torch.set_num_threads(1)
    begin = time.perf_counter()
    scenario, federation = prepare(arguments)
    engine = {"loop": Loop, "pair": Pair, "floor": Floor}[arm](scenario, federation)
    started, gaps, score = time.perf_counter() - begin, [], 0.0
    for number in range(arguments.rounds):
        start = time.perf_counter()
        score = engine.round(number)
        gaps.append(time.perf_counter() - start)
    return {"rounds": gaps, "startup": started, "score": score}


def run_flower(arguments: argparse.Namespace) -> dict[str, Any]:
    """Flower's simulation engine with an ordinary client."""
    from bench_rivals import flower_rounds

    scenario, federation = prepare(arguments)
    return flower_rounds(scenario, federation, arguments.rounds, arguments.workers)


def run_arm(arguments: argparse.Namespace) -> dict[str, Any]:
    """One arm in this process."""
    sys.path.insert(0, str(HERE))
    if arguments.arm == "flower":
        return run_flower(arguments)
    return (run_fedmtl if arguments.arm in ("inline", "ray") else run_torch)(arguments, arguments.arm)


class Memory(threading.Thread):
    """The peak of the resident memory of a process and its descendants, and of Ray's, in bytes (shared pages counted once)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.done = pid, 0, threading.Event()

    def run(self) -> None:
        """Samples until told to stop: seldom, because a look at a process's pages stops it for as long as it takes."""
        cost = 0.0
        while not self.done.wait(max(0.2, 100 * cost)):
            start = time.perf_counter()
            self.peak = max(self.peak, sum(_proportional(pid) for pid in _family(self.pid)))
            cost = time.perf_counter() - start


def _family(pid: int) -> list[int]:
    out = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                out += _family(int(child))
        except OSError:  # it ended meanwhile
            return out
    return out


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it ended meanwhile
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def spawn(arguments: argparse.Namespace, arm: str, clients: int) -> dict[str, Any]:
    """One arm in a process of its own, with its peak memory."""
    rounds = arguments.rounds if arm != "flower" else min(arguments.rounds, 6)
    words = [sys.executable, __file__, "--arm", arm, "--clients", str(clients), "--rounds", str(rounds), "--model", arguments.model,
             "--batch", str(arguments.batch), "--workers", str(arguments.workers), "--algorithm", arguments.algorithm]
    with tempfile.TemporaryFile("w+") as errors:
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True, env=alone)
        memory = Memory(process.pid)
        memory.start()
        text, _ = process.communicate()
        memory.done.set()
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"{arm} failed:\n{errors.read()[-3000:]}")
    return {**json.loads(text.splitlines()[-1]), "memory": memory.peak}


def median(values: list[float]) -> float:
    """The middle value."""
    ordered = sorted(values)
    return (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2


def compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every arm at every number of clients, repeats interleaved."""
    rows = []
    for clients in arguments.clients:
        got: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arguments.arms}
        for repeat in range(arguments.repeats):
            for arm in arguments.arms:
                print(f"{clients} clients, repeat {repeat + 1} of {arguments.repeats}: {arm}", file=sys.stderr, flush=True)
                got[arm].append(spawn(arguments, arm, clients))
        for arm, results in got.items():
            rows.append({"clients": clients, "arm": arm, "score": results[-1]["score"],
                         "ms": 1e3 * median([median(r["rounds"][1:]) for r in results]),
                         "startup_s": median([r["startup"] for r in results]),
                         "memory_mb": median([r["memory"] for r in results]) / 1e6})
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table, with ratios to the arms that are there."""
    names = ("clients", "arm", "ms/round", "x flower", "x loop", "/ floor", "start s", "peak MB", "score")
    print(" ".join(f"{name:>9}" for name in names))
    for row in rows:
        of = {r["arm"]: r["ms"] for r in rows if r["clients"] == row["clients"]}
        ratio = [f"{of[arm] / row['ms']:.1f}" if arm in of else "-" for arm in ("flower", "loop")]
        floor = f"{row['ms'] / of['floor']:.2f}" if "floor" in of else "-"
        cells = (row["clients"], row["arm"], f"{row['ms']:.2f}", *ratio, floor, f"{row['startup_s']:.1f}",
                 f"{row['memory_mb']:.0f}",
                 f"{row['score']:.3f}")
        print(" ".join(f"{cell:>9}" for cell in cells))


def main() -> None:
    """Parses, runs, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=lambda t: [int(n) for n in t.split(",")], default=[20, 100, 500])
    parser.add_argument("--arms", type=lambda t: t.split(","), default=[arm for arm in ARMS if arm != "pair"])
    parser.add_argument("--model", choices=("mlp", "cnn", "cnn-same"), default="mlp",
                        help="cnn: FedAvgCNN as in PFLlib and FL-bench, without padding; cnn-same: McMahan's, with it")
    parser.add_argument("--algorithm", choices=("fedavg", "fedrep", "ditto"), default="fedavg",
                        help="of loop, inline and ray; the others run FedAvg")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="also write the table as JSON, and a plot beside it")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        print(json.dumps(run_arm(arguments)))
        return
    rows = compare(arguments)
    show(rows)
    if arguments.out:
        from bench_plot import plot

        arguments.out.write_text(json.dumps(rows, indent=2))
        print(f"wrote {arguments.out} and {plot(rows, arguments.out.with_suffix('.svg'))}")


if __name__ == "__main__":
    main()
