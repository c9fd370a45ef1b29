"""Times a benchmark three ways: as `fedmtl run` commands one after another, as `fedmtl bench` with one worker, and with one a core.

    python scripts/bench_bench.py                                                       10 methods x 3 seeds x 50 rounds, and Local
    python scripts/bench_bench.py --algorithms fedavg,fedper --seeds 1 --rounds 5       a minute

Every way makes the same runs, which is checked, and starts from nothing. A `fedmtl run` also writes the run's own page, which a
benchmark does not; a benchmark its tables and its page, which are in its time. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from fedmtl.runtime.choose import cores

METHODS = ["fedavg", "fedprox", "fedper", "fedrep", "lg-fedavg", "ditto", "apfl", "pfedme", "fedproto", "scaffold"]


def commands(words: Sequence[str], methods: Sequence[str], seeds: int, out: Path) -> list[list[str]]:
    """One `fedmtl run` for each run of the benchmark."""
    return [["run", "digits-pathological", f"algorithm.name={method}", f"seed={seed}", "runtime.kind=inline", *words,
             "--out", str(out / f"digits-pathological-{method}-seed{seed}")] for method in methods for seed in range(seeds)]


def seconds(made: Sequence[Sequence[str]]) -> float:
    """What `fedmtl` commands take, one after another."""
    begin = time.perf_counter()
    for words in made:
        done = subprocess.run([sys.executable, "-m", "fedmtl.cli", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(words)}: {done.stderr}")
    return time.perf_counter() - begin


def checksums(root: Path) -> dict[str, str]:
    """What every run came to."""
    return {path.parent.name: json.loads(path.read_text())["checksum"] for path in root.glob("*/summary.json")}


def main() -> None:
    """Measures the ways and prints how many times faster the last one is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", type=lambda t: t.split(","), default=METHODS, help="Local is added")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=50)
    asked = parser.parse_args()
    words = [f"rounds={asked.rounds}"]
    bench = ["bench", "digits-pathological", "--algorithms", ",".join(asked.algorithms), "--seeds", str(asked.seeds), *words]
    with tempfile.TemporaryDirectory() as folder:
        ways = {"commands": "fedmtl run, one after another", "one": "fedmtl bench --workers 1",
                "all": f"fedmtl bench, {cores()} cores"}
        places = {way: Path(folder) / way for way in ways}
        made = {"commands": commands(words, ["local", *asked.algorithms], asked.seeds, places["commands"]),
                "one": [[*bench, "--workers", "1", "--out", str(places["one"])]], "all": [[*bench, "--out", str(places["all"])]]}
        took = {way: seconds(made[way]) for way in ways}
        found = {way: checksums(place) for way, place in places.items()}
    runs = asked.seeds * (1 + len(asked.algorithms))
    print(f"{runs} runs: {1 + len(asked.algorithms)} methods x {asked.seeds} seeds, {asked.rounds} rounds, 20 clients; "
          f"load {os.getloadavg()[0]:.1f}")
    for way, said in ways.items():
        print(f"{said:32} {took[way]:7.1f} s   {took[way] / took['all']:.2f} x")
    if not found["commands"] == found["one"] == found["all"] or len(found["all"]) != runs:
        sys.exit("the ways do not make the same runs")


if __name__ == "__main__":
    main()
