"""One process or Ray: settled from the size of the work, never from a clock, so that a scenario always runs the same way."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedmtl.client.store import MemoryStore
from fedmtl.runtime.cohort import Host
from fedmtl.runtime.mixed import MixedHost, host_of
from fedmtl.scenario import Scenario
from fedmtl.tasks.task import Federation, Mixed

RAY_START, RAY_ROUND, RAY_CLIENT = 10.0, 0.03, 7e-5
"""Seconds that Ray costs before the first round, in every round, and for every client of a round (measured on 2 cores)."""
RATE = 6e9
"""Floating-point operations a second that one core reaches on a cohort of small models, all that surrounds them included
(scripts/bench_engine.py, 5,000 clients: 1.05 s a round)."""


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def row_cost(host: Host) -> int:
    """About how many floating-point operations one forward pass of one row takes: two a weight, at every place it is used."""
    net, total = host.signature.forward.net, 0

    def count(module: nn.Module, _: tuple[Tensor, ...], out: Any) -> None:
        nonlocal total
        made = out if isinstance(out, Tensor) else out[0]  # recurrent layers give their state too
        total += 2 * sum(p.numel() for p in module.parameters(recurse=False)) * max(made[0].numel() // made.shape[1], 1)

    hooks = [m.register_forward_hook(count) for m in net.modules() if next(m.parameters(recurse=False), None) is not None]
    with torch.no_grad():
        net.eval()(torch.zeros(1, *host.federation.x.shape[1:], dtype=host.dtype, device=host.device))
    for hook in hooks:
        hook.remove()
    return total


def round_seconds(scenario: Scenario, federation: Federation | Mixed) -> float:
    """About how long one process computes on one round."""
    whole = host_of(scenario, federation, MemoryStore())
    seconds = 0.0
    for host in whole.hosts if isinstance(whole, MixedHost) else [whole]:
        drawn = scenario.sampler.rows(host.sizes, scenario.training.batch_size).sum()
        passes = 3 * scenario.training.epochs * scenario.server.participation * drawn
        scored = host.federation.sizes("val").sum() + host.federation.sizes("test").sum()
        seconds += float(row_cost(host) * (passes + scored) / RATE)
    return seconds


def choose(scenario: Scenario, federation: Federation | Mixed) -> tuple[Literal["ray", "inline", "flower"], int]:
    """(kind, workers) for a scenario that may leave them open."""
    kind, workers = scenario.runtime.kind, scenario.runtime.workers or min(cores(), scenario.runtime.shards)
    if kind != "auto":
        return kind, 1 if kind == "inline" else workers
    if scenario.runtime.device != "cpu" and torch.cuda.is_available():
        return "inline", 1
    one = round_seconds(scenario, federation)
    sampled = scenario.server.participation * federation.clients
    saved = scenario.rounds * (one - one / workers - RAY_ROUND - RAY_CLIENT * sampled)
    return ("ray", workers) if workers > 1 and saved > RAY_START else ("inline", 1)
