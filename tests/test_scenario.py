"""A scenario that was resolved and written is the same scenario; overrides change what they name and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from there import skip_without_data

from fedmtl import load_scenario, run
from fedmtl.errors import ScenarioError
from fedmtl.runs.runner import resolve
from fedmtl.runtime.data import federation_of
from fedmtl.scenario import from_toml, override, parse_override, shipped

METHODS = ["local", "fedavg", "fedper", "fedrep", "ditto", "mr-mtl", "fedbabu", "lg-fedavg", "fedprox", "fedavg-ft"]
INLINE = {"runtime.kind": "inline"}


@pytest.mark.parametrize("name", sorted(shipped()))
@pytest.mark.parametrize("method", METHODS)
def test_resolving_twice_changes_nothing(name, method):
    text = load_scenario(name, {"algorithm.name": method}).to_toml()
    again = from_toml(text)
    assert again.to_toml() == text
    assert again.algorithm.name == method
    assert load_scenario(name, {"algorithm.name": method}) == load_scenario(name, [f"algorithm.name={method}"])


def again(name):
    """Whether a paper's scenario is on the data of one of `natural/`."""
    return name.startswith("papers/") and any(f"/{data}" in name for data in ("school", "landmine", "vehicle", "har"))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if again(name) else ()) for name in sorted(shipped())])
def test_a_run_can_be_repeated_from_its_directory(name, tmp_path):
    skip_without_data(name)
    method = {"quickstart": "ditto", "unlike-models": "fedmd"}.get(name, "fedper")
    words = {"algorithm.name": method, "rounds": 2, "training.epochs": 1, "training.batch-size": 64, "server.participation": 0.5,
             "evaluation.shot-epochs": 2, **INLINE}
    first = run(name, words, out=tmp_path / method, report=False)
    written = (first.path / "scenario.toml").read_text()
    second = run(first.path / "scenario.toml", out=tmp_path / f"{method}-again", report=False)
    assert second.summary["checksum"] == first.summary["checksum"]
    assert (second.path / "scenario.toml").read_text() == written
    assert (second.path / "metrics.jsonl").read_bytes() == (first.path / "metrics.jsonl").read_bytes()
    assert from_toml(written).to_toml() == written
    settled = written.replace('objective = "auto"', "").replace('target = "auto"', "")  # these the data settle
    assert '"auto"' not in settled


@pytest.mark.parametrize(("word", "path", "value"), [
    ("rounds=3", ["rounds"], 3), ("training.lr=1e-3", ["training", "lr"], 1e-3), ("name=a b", ["name"], "a b"),
    ('name="3"', ["name"], "3"), ("name='a=b'", ["name"], "a=b"), ("name=a=b", ["name"], "a=b"), ("name=", ["name"], ""),
    ("model.bias=false", ["model", "bias"], False), ("model.hidden=[3, 4]", ["model", "hidden"], [3, 4]),
    ("tasks.split.0.alpha=0.1", ["tasks", "split", "0", "alpha"], 0.1),
    ('tasks.split=[{kind="iid"}]', ["tasks", "split"], [{"kind": "iid"}]), (" rounds = 3", ["rounds"], 3)])
def test_words(word, path, value):
    assert parse_override(word) == (path, value)
    assert type(parse_override(word)[1]) is type(value)


def test_overrides_reach_every_depth_and_nothing_else():
    before = load_scenario("digits-dirichlet").resolved()
    after = load_scenario("digits-dirichlet", ["tasks.split.0.alpha=0.1", "model.hidden=[8]", "server.participation=0.5",
                                               'name="a name"', "runtime.cohort=3"]).resolved()
    changed = {"tasks": {"split"}, "model": {"hidden"}, "server": {"participation"}, "runtime": {"cohort"}}
    assert after["name"] == "a name"
    assert after["tasks"]["split"] == [{**before["tasks"]["split"][0], "alpha": 0.1}]
    for section in before:
        if isinstance(before[section], dict):
            differs = {key for key in before[section] if before[section][key] != after[section][key]}
            assert differs == changed.get(section, set())


def test_a_dict_of_python_values_is_as_good():
    words = load_scenario("quickstart", ["rounds=7", "training.lr=0.5", "model.hidden=[3, 4]"])
    values = load_scenario("quickstart", {"rounds": np.int64(7), "training.lr": np.float32(0.5), "model.hidden": (3, 4)})
    assert words.to_toml() == values.to_toml()
    with pytest.raises(ScenarioError, match="rounds: Input should be a valid integer"):
        load_scenario("quickstart", {"rounds": "7"})


def test_another_method_starts_from_its_own_defaults():
    assert load_scenario("soft-sharing").method.lam == 0.3
    ditto = load_scenario("soft-sharing", ["algorithm.name=ditto"])
    assert ditto.algorithm.extra == {}
    assert ditto.method.lam == 1.0
    assert load_scenario("soft-sharing", ["algorithm.lam=5", "algorithm.name=ditto"]).method.lam == 5  # in any order
    assert load_scenario("soft-sharing", ["algorithm.name=mr-mtl"]).method.lam == 0.3  # the same one keeps its fields


def test_another_split_or_trunk_drops_what_only_the_old_one_knew():
    assert load_scenario("digits-dirichlet", ["tasks.split.0.kind=iid"]).tasks.split == [{"kind": "iid"}]
    cnn = load_scenario("quickstart", ["model.trunk=cnn", "model.channels=[4]", "tasks.image=true"])
    assert cnn.model.extra == {"channels": [4]}
    adam = load_scenario("quickstart", ["training.optimizer=adam"])
    assert adam.optimizer.lr == 0.1  # what both know stays
    linear = load_scenario("linear-representation", ["tasks.source=digits", "tasks.clients=3"])
    assert linear.tasks.extra == {}


def test_overrides_of_a_scenario_in_hand():
    scenario = load_scenario("quickstart", ["rounds=3"])
    assert override(scenario, ["algorithm.name=ditto"]).rounds == 3
    assert override(scenario, {}) == from_toml(scenario.to_toml(), scenario.folder)
    with pytest.raises(ScenarioError, match="roundz"):
        override(scenario, {"roundz": 1})


def test_paths_are_looked_up_beside_the_scenario_first(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    for place, rows in (("here", 60), ("there", 90)):
        (tmp_path / place / "data.csv").write_text("a,y\n" + "".join(f"{i},{i % 2}\n" for i in range(rows)))
    (tmp_path / "here" / "mine.toml").write_text(
        'name = "x"\nrounds = 1\n[algorithm]\nname = "local"\n[tasks]\nsource = "file"\npath = "data.csv"\nclients = 3\n')
    monkeypatch.chdir(tmp_path / "there")
    scenario = load_scenario(tmp_path / "here" / "mine.toml")
    assert len(federation_of(scenario).x) == 60
    assert from_toml(scenario.to_toml()).to_toml() == scenario.to_toml()  # the path is absolute now


def test_the_shipped_scenarios_are_found_by_name_and_the_nearest_is_named():
    assert {"quickstart", "linear-representation", "soft-sharing"} <= set(shipped())
    with pytest.raises(ScenarioError, match="did you mean 'soft-sharing'"):
        load_scenario("soft-shring")
    with pytest.raises(ScenarioError, match=r"no such file"):
        load_scenario("missing.toml")


def test_a_file_that_is_not_text_or_not_readable(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="not a TOML document"):
        load_scenario(tmp_path / "binary.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ScenarioError, match="cannot be read"):
        load_scenario(tmp_path / "folder.toml")


def test_auto_is_settled():
    scenario = load_scenario("quickstart")
    settled = resolve(scenario, federation_of(scenario))
    assert settled.runtime.kind in ("inline", "ray")
    assert isinstance(settled.runtime.cohort, int)
    assert settled.runtime.device in ("cpu", "cuda")
    assert settled.evaluation.clients == "all"
    assert from_toml(settled.to_toml()).runtime == settled.runtime


def test_the_folder_is_no_part_of_what_is_written():
    scenario = load_scenario("quickstart")
    assert isinstance(scenario.folder, Path)
    assert "folder" not in scenario.to_toml()
