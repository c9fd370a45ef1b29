"""Every method gives the same bits in one process and on Ray. One Ray session serves all."""

from __future__ import annotations

import pytest

from fedmtl import run
from fedmtl.algorithms.base import Algorithm
from fedmtl.registry import discover, kebab

METHODS = discover("fedmtl.algorithms", Algorithm)
WORDS = {"rounds": 3, "tasks.clients": 7, "model.hidden": [6], "model.norm": "layer", "runtime.shards": 3, "runtime.cohort": 2,
         "server.participation": 0.8}

# Ray leaves files and processes to the garbage collector
pytestmark = [pytest.mark.slow,
              pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")]


@pytest.mark.parametrize("method", METHODS)
def test_inline_equals_ray(method, session, tmp_path):
    own = {f"algorithm.{kebab(name)}": value for name, value in METHODS[method].proven_with.items()}
    words = {**WORDS, "algorithm.name": method, **own, **({"tasks.public.rows": 20} if METHODS[method].public else {})}
    inline = run("quickstart", {**words, "runtime.kind": "inline"}, out=tmp_path / "inline", report=False)
    on_ray = run("quickstart", {**words, "runtime.kind": "ray", "runtime.workers": 2}, out=tmp_path / "ray", report=False)
    assert session.is_initialized()
    assert on_ray.summary["checksum"] == inline.summary["checksum"]
    assert (on_ray.path / "metrics.jsonl").read_bytes() == (inline.path / "metrics.jsonl").read_bytes()
    for told in ("test", "bytes", "method", "truth"):
        assert on_ray.summary.get(told) == inline.summary.get(told)
