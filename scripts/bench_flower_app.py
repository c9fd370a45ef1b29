"""Times a round of examples/flower_app, which knows nothing of fedmtl, under Flower's own engine and under `fedmtl engine`.

    python scripts/bench_flower_app.py --nodes 100 --rounds 5

Each engine runs in a process of its own; a round's time is taken between two ends of aggregate_evaluate. Repeats are interleaved; a
figure is the median over repeats of the median round.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from copy import copy
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

APP = Path(__file__).parent.parent / "examples" / "flower_app"


def rounds_of(engine: str, strategy: str, nodes: int, rounds: int) -> list[float]:
    """Seconds of each round but the first."""
    os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "OMP_NUM_THREADS": "1",
                   "PYTHONPATH": os.pathsep.join([str(APP), os.environ.get("PYTHONPATH", "")])}
    sys.path.insert(0, str(APP))
    logging.disable(logging.WARNING)
    from flwr.app import ArrayRecord, Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAdam, FedAvg
    from stock.client import app as stock
    from stock.task import make_net

    base: Any = FedAdam if strategy == "fedadam" else FedAvg
    marks: list[float] = []
    client_app, server_app = ClientApp(), ServerApp()

    def configured(message: Message, context: Context) -> Message:
        context = copy(context)  # run_simulation takes no run config
        context.run_config = {"lr": 0.1}
        return stock(message, context)

    for register in (client_app.train(), client_app.evaluate()):
        register(configured)

    class Timed(base):  # type: ignore[misc]
        def aggregate_evaluate(self, server_round: int, replies: Any) -> Any:
            out = super().aggregate_evaluate(server_round, replies)
            marks.append(time.perf_counter())
            return out

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        chosen = Timed(eta=0.01) if strategy == "fedadam" else Timed()
        chosen.start(grid=grid, initial_arrays=ArrayRecord(make_net().state_dict()), num_rounds=rounds)

    if engine == "flower":
        from flwr.simulation import run_simulation

        run_simulation(server_app, client_app, nodes, backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"address": "local", "num_cpus": 2}})
    else:
        from fedmtl.runtime import run_flower_app

        run_flower_app(server_app, client_app, num_supernodes=nodes, workers=2)
    return [b - a for a, b in pairwise(marks)]


def main() -> None:
    """Runs both engines with both strategies and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--strategies", type=lambda t: t.split(","), default=["fedavg", "fedadam"])
    parser.add_argument("--engine", choices=("flower", "fedmtl"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        print(json.dumps(rounds_of(arguments.engine, arguments.strategies[0], arguments.nodes, arguments.rounds)))
        return
    for strategy in arguments.strategies:
        found: dict[str, list[float]] = {"flower": [], "fedmtl": []}
        for repeat in range(arguments.repeats):
            for engine, seconds in found.items():
                print(f"{strategy}, repeat {repeat + 1} of {arguments.repeats}: {engine}", file=sys.stderr, flush=True)
                words = [sys.executable, __file__, "--engine", engine, "--strategies", strategy, "--nodes", str(arguments.nodes),
                         "--rounds", str(arguments.rounds)]
                text = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
                seconds.append(median(json.loads(text.splitlines()[-1])))
        flower, ours = (median(seconds) for seconds in found.values())
        print(f"{strategy:8} {arguments.nodes} nodes: flower {flower:.3f} s a round, fedmtl engine {ours:.3f} s, "
              f"{flower / ours:.1f} times")


if __name__ == "__main__":
    main()
