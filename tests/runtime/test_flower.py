"""Flower's own simulation engine gives the same bits as one process, hears of no head, and passes errors on."""

from pathlib import Path

import pytest
from test_tap import METHODS, heads

import fedmtl
from fedmtl.errors import PrivacyError
from fedmtl.runtime.tap import leaks, recorded

pytestmark = pytest.mark.usefixtures("leftovers")
TINY = Path(__file__).with_name("tiny.toml")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fedper", "ditto"])
def test_flowers_engine_equals_one_process_bit_for_bit(method, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # somebody's cluster, which is none of ours
    runs = {}
    for kind in ("inline", "flower"):
        monkeypatch.setenv("FEDMTL_TAP", str(tmp_path / "tap" / kind))
        runs[kind] = fedmtl.run(TINY, {"algorithm.name": method, "runtime.kind": kind}, out=tmp_path / kind)
    monkeypatch.delenv("FEDMTL_TAP")
    assert runs["flower"].summary["checksum"] == runs["inline"].summary["checksum"]
    assert runs["flower"].summary["test"] == runs["inline"].summary["test"]
    lines = {kind: (run.path / "metrics.jsonl").read_text() for kind, run in runs.items()}
    assert lines["flower"] == lines["inline"]
    if method == "fedper":
        private = heads(tmp_path)
        assert len(list(recorded(tmp_path / "tap" / "flower"))) == 30
        assert [found for client in private for found in leaks(tmp_path / "tap" / "flower", client)] == []


@pytest.mark.slow
def test_a_methods_leak_is_found_and_one_by_name_ends_the_run(tmp_path, monkeypatch):
    scenario = tmp_path / "tiny.toml"
    scenario.write_text(TINY.read_text())
    (tmp_path / "engine_smugglers.py").write_text(METHODS)
    with pytest.raises(PrivacyError, match=r"head\.weight"):
        fedmtl.run(scenario, {"algorithm.name": "engine_smugglers:Teller", "runtime.kind": "flower"}, out=tmp_path / "teller")
    seen = tmp_path / "tap"
    monkeypatch.setenv("FEDMTL_TAP", str(seen))
    smuggler = {"algorithm.name": "engine_smugglers:Smuggler", "runtime.kind": "flower", "rounds": 1}
    fedmtl.run(scenario, smuggler, out=tmp_path / "smuggler")
    sent = next(arrays for file, _, arrays in recorded(seen) if "-up-train" in file)
    first = next(array for name, array in sorted(sent.items()) if array[0].size >= 160)
    assert leaks(seen, {"head.weight": first.reshape(-1)[5:165]})
