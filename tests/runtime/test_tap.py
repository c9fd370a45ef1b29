"""The audit tap: what it writes, what it finds, and that no message in one process or on Ray holds a private head."""

import json
from pathlib import Path

import numpy as np
import pytest

import fedmtl
from fedmtl.errors import PrivacyError
from fedmtl.runs.results import RunDirectory
from fedmtl.runs.runner import conduct, one_thread, resolve
from fedmtl.runtime.data import federation_of
from fedmtl.runtime.inline import InlineGrid
from fedmtl.runtime.tap import leaks, recorded
from fedmtl.scenario import load_scenario

TINY = Path(__file__).with_name("tiny.toml")

METHODS = '''
"""Two methods that must not pass."""
from dataclasses import dataclass

from fedmtl.algorithms.fedper import Fedper


@dataclass(frozen=True, kw_only=True)
class Smuggler(Fedper):
    """Copies the head's numbers into the trunk's first weight."""

    def local(self, client, received, kept):
        sent, kept = super().local(client, received, kept)
        name = next(n for n in sorted(sent) if sent[n][0].numel() >= kept["head.weight"][0].numel())
        flat = sent[name].flatten(1).clone()
        head = kept["head.weight"].flatten(1)
        flat[:, 5 : 5 + head.shape[1]] = head
        return {**sent, name: flat.view_as(sent[name])}, kept


@dataclass(frozen=True, kw_only=True)
class Teller(Fedper):
    """Sends the head under its own name."""

    def local(self, client, received, kept):
        sent, kept = super().local(client, received, kept)
        return {**sent, "head.weight": kept["head.weight"]}, kept
'''


def heads(tmp_path, overrides=()):
    """[clients] private tensors after a run in this process, by name."""
    scenario = load_scenario(TINY, {"runtime.kind": "inline", **dict(overrides)})
    federation = federation_of(scenario)
    scenario = resolve(scenario, federation)
    grid = InlineGrid(scenario, federation)
    with one_thread():
        conduct(scenario, federation, grid, RunDirectory(tmp_path / "heads"), 0.0, quiet=True)
    kept, known = grid.handler.host.store.load(range(federation.clients))
    assert all(known)
    assert "head.weight" in kept
    return [{name: leaf[c].numpy() for name, leaf in kept.items()} for c in range(federation.clients)]


@pytest.fixture(scope="module")
def smugglers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "tiny.toml").write_text(TINY.read_text())
    (folder / "smugglers.py").write_text(METHODS)
    return folder / "tiny.toml"


def test_the_tap_writes_every_message_of_both_directions(tmp_path, monkeypatch):
    tap = tmp_path / "tap"
    monkeypatch.setenv("FEDMTL_TAP", str(tap))
    fedmtl.run(TINY, {"runtime.kind": "inline"}, out=tmp_path / "run", report=False)
    kinds = [(page["way"], page["type"]) for page in (json.loads(text) for _, text, _ in recorded(tap))]
    assert kinds == [(way, kind) for kind in ("query", "train", "evaluate", "train", "evaluate") for way in ("down", "up")]
    trains = [arrays for file, _, arrays in recorded(tap) if "-up-train" in file]
    assert all(arrays and all(name.startswith("arrays/trunk.") for name in arrays) for arrays in trains)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["inline", pytest.param("ray", marks=pytest.mark.slow)])
def test_no_private_head_in_any_message(kind, tmp_path, monkeypatch, leftovers):
    private = heads(tmp_path)
    monkeypatch.setenv("FEDMTL_TAP", str(tmp_path / "tap"))
    fedmtl.run(TINY, {"runtime.kind": kind}, out=tmp_path / "run", report=False)
    assert list(recorded(tmp_path / "tap"))
    assert [found for client in private for found in leaks(tmp_path / "tap", client)] == []


@pytest.mark.parametrize("weighting", ["size", "uniform"])
def test_a_head_smuggled_inside_the_trunk_is_found(weighting, smugglers, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMTL_TAP", str(tmp_path / "tap"))
    method = {"algorithm.name": "smugglers:Smuggler", "server.weighting": weighting, "runtime.kind": "inline",
              "server.participation": 1 / 3, "rounds": 12}  # one client a round: a node that has them all sends its clients' sum
    scenario = load_scenario(smugglers, method)
    federation = federation_of(scenario)
    scenario = resolve(scenario, federation)
    grid = InlineGrid(scenario, federation)
    conduct(scenario, federation, grid, RunDirectory(tmp_path / "run"), 0.0, quiet=True)
    kept, _ = grid.handler.host.store.load([0, 1, 2])
    for client in range(3):
        found = leaks(tmp_path / "tap", {"head.weight": kept["head.weight"][client].numpy()})
        assert any("-up-train" in line and "the bytes of head.weight" in line for line in found)


def test_a_head_sent_by_name_is_refused(smugglers, tmp_path):
    with pytest.raises(PrivacyError, match=r"head\.weight"):
        fedmtl.run(smugglers, {"algorithm.name": "smugglers:Teller", "runtime.kind": "inline"}, out=tmp_path / "run")


def test_leaks_finds_names_rows_of_stacks_and_other_dtypes(tmp_path):
    secret = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    page = {"way": "up", "type": "train", "records": {}, "error": None}
    for stem, array in (("a", np.stack([np.zeros_like(secret), secret])), ("b", secret.astype(np.float64)), ("c", secret + 1)):
        np.savez(tmp_path / f"{stem}.npz", **{"arrays/trunk.weight": array})
        (tmp_path / f"{stem}.json").write_text(json.dumps(page))
    (tmp_path / "d.json").write_text(json.dumps({**page, "error": {"code": 1, "reason": "head.weight exploded"}}))
    found = leaks(tmp_path, {"head.weight": secret, "head.bias": np.zeros(8, np.float32)})
    assert found == ["a: the bytes of head.weight in arrays/trunk.weight", "b: the bytes of head.weight in arrays/trunk.weight",
                     "d: the name head.weight"]
