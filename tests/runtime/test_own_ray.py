"""A run without an address has a Ray of its own, whatever clusters are about."""

import pytest

from fedmtl import run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_cluster_that_nobody_asked_for_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    words = {"rounds": 1, "tasks.clients": 3, "model.hidden": [4], "runtime.kind": "ray", "runtime.workers": 1}
    assert run("quickstart", words, out=tmp_path / "run", report=False).summary["rounds"] == 1
