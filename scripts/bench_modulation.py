"""What a modulation costs a round: 100 clients and 1,000,000 shared parameters, beside the plain weighted mean of the same replies.

    python scripts/bench_modulation.py [--clients 100] [--parameters 1000000] [names ...]
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import numpy as np
import torch

from fedmtl import keys, registry
from fedmtl.mtl.modulation import Modulation
from fedmtl.mtl.modulation.base import Changes
from fedmtl.mtl.standing import Standing
from fedmtl.server.reduce import ShardSums
from fedmtl.server.replies import Accepted, Gathered
from fedmtl.trees import Params

KEY = keys.stream(0, "bench")


def peak() -> int:
    """The largest memory use of this process, in KiB (Linux)."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def main() -> None:
    """Prints seconds and the growth of the largest memory use."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--parameters", type=int, default=1_000_000)
    parser.add_argument("names", nargs="*", default=["none", "cagrad", "upgrad"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    k, everyone = asked.clients, list(range(asked.clients))
    draw = torch.Generator().manual_seed(0)
    before = {"trunk.w": torch.randn(asked.parameters, generator=draw)}
    rows = {"trunk.w": before["trunk.w"] + 0.01 * torch.randn(k, asked.parameters, generator=draw)}
    parts = [(everyone[i::2], {"trunk.w": rows["trunk.w"][i::2].clone()}) for i in (0, 1)]
    del rows
    sizes, standing = np.ones(k, np.int64), Standing(np.ones(k, np.int64))

    def accepted(modulation: Modulation | None) -> Accepted:
        def modulate(rows: Params, weights: torch.Tensor) -> Params:
            assert modulation is not None
            return modulation.combine(Changes(rows, before, weights / weights.sum(), everyone), standing, KEY)[0]

        return Accepted(1, everyone, ShardSums(range(12)), Gathered(list(parts)), np.zeros(k, np.int64), np.arange(k) % 12, sizes,
                        lambda some: np.ones(len(some)), lambda name, some: some, lambda name: torch.float32,
                        ["trunk.w"] if modulation else (), modulate)

    for name in asked.names:
        built = registry.build(Modulation, "fedmtl.mtl.modulation", name, {}, "server", name_key="modulation")
        one = None if name == "none" else built
        if one:
            share = torch.full((k,), 1 / k, dtype=torch.float64)
            one.combine(Changes({"trunk.w": torch.randn(k, 50, generator=draw)}, {}, share, everyone), standing, KEY)  # imports
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        held = peak()
        spent = []
        for _ in range(3):
            wall, work = time.perf_counter(), time.process_time()
            accepted(one).mean()
            spent.append((time.perf_counter() - wall, time.process_time() - work))
        more = (peak() - held) / 2**20
        wall, work = min(one[0] for one in spent), min(one[1] for one in spent)
        print(f"{name:14} {wall:6.2f} s wall, {work:6.2f} s of one core, {more:5.2f} GiB more than before at the peak")


if __name__ == "__main__":
    main()
