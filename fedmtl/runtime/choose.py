"""One process or Ray: settled from the size of the work, never from a clock, so that a scenario always runs the same way."""

from __future__ import annotations

import os
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from fedmtl.client.store import MemoryStore
from fedmtl.runtime.cohort import Host
from fedmtl.scenario import Scenario
from fedmtl.tasks.task import Federation

RAY_START, RAY_ROUND = 6.0, 0.006
"""Seconds that Ray costs before the first round, and in every round (measured on 2 cores)."""
RATE = 1e10
"""Floating-point operations a second that one core reaches on a cohort of small models (measured)."""


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row_cost(host: Host) -> int:
    """Floating-point operations of one forward pass of one row."""
    x = torch.zeros(1, *host.federation.x.shape[1:], dtype=host.dtype, device=host.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        host.signature.forward.net.eval()(x)
    return int(counter.get_total_flops())


def round_seconds(scenario: Scenario, federation: Federation) -> float:
    """About how long one process computes on one round."""
    host = Host(scenario, federation, MemoryStore())
    passes = 3 * scenario.training.epochs * scenario.server.participation * federation.sizes("train").sum()
    scored = federation.sizes("val").sum() + federation.sizes("test").sum()
    return float(row_cost(host) * (passes + scored) / RATE)


def choose(scenario: Scenario, federation: Federation) -> tuple[Literal["ray", "inline", "flower"], int]:
    """(kind, workers) for a scenario that may leave them open."""
    kind, workers = scenario.runtime.kind, scenario.runtime.workers or min(cores(), scenario.runtime.shards)
    if kind != "auto":
        return kind, 1 if kind == "inline" else workers
    if scenario.runtime.device != "cpu" and torch.cuda.is_available():
        return "inline", 1
    one = round_seconds(scenario, federation)
    saved = scenario.rounds * (one - one / workers - RAY_ROUND)
    return ("ray", workers) if workers > 1 and saved > RAY_START else ("inline", 1)
