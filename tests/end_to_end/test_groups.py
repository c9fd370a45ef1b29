"""Federations of several kinds of tasks: who aggregates what, who sees which rows, and what is refused."""

import json

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord

from fedmtl.client.store import MemoryStore
from fedmtl.errors import ScenarioError
from fedmtl.runs.runner import run
from fedmtl.runtime.data import federation_of
from fedmtl.runtime.inline import InlineGrid
from fedmtl.runtime.mixed import MixedHost
from fedmtl.runtime.parcels import Parcel
from fedmtl.scenario import from_table, load_scenario
from fedmtl.server.messages import to_params
from fedmtl.server.strategy import MethodStrategy

GROUPS = [{"name": "deep", "source": "digits", "clients": 3},
          {"name": "shallow", "source": "digits", "clients": 2, "at": "act0", "transform": [{"kind": "target", "what": "ink"}]},
          {"name": "wine", "source": "wine", "clients": 2}]


def table(groups=GROUPS, **model):
    return {"name": "groups", "rounds": 2, "seed": 3, "tasks": {"val": 0.2, "test": 0.2, "group": groups},
            "model": {"trunk": "mlp", "hidden": [12, 6], "adapter": 8, **model}, "algorithm": {"name": "fedper"},
            "training": {"lr": 0.002, "batch-size": 16}, "runtime": {"kind": "inline"}}


def test_a_parameter_is_aggregated_over_those_who_have_it():
    scenario = from_table(table())
    federation = federation_of(scenario)
    host, grid = MixedHost(scenario, federation, MemoryStore()), InlineGrid(scenario, federation)
    strategy = MethodStrategy(scenario, host.model, host.wire, host.metrics, host.names)
    messages = strategy.configure_train(1, strategy.initial_arrays(), ConfigRecord(), grid)
    found = to_params(strategy.aggregate_train(1, grid.send_and_receive(messages))[0])
    rows, weights = {}, {}
    for group, first in enumerate(federation.first):
        member = host.hosts[group]
        sent = member.train(1, list(range(member.federation.clients)), Parcel(strategy.initial))
        for slot, client in enumerate(sent.clients):
            rows[first + client] = {name: leaf[slot].double() for name, leaf in sent.rows.items()}
            weights[first + client] = float(federation.sizes("train")[first + client])
    assert {name.split(".")[1] for name in found} == {"linear0", "linear1"}
    for name, leaf in found.items():
        users = [client for client, row in rows.items() if name in row]
        assert len(users) == (7 if "linear0" in name else 5)  # the shallow group has no second layer
        wanted = sum(rows[c][name] * weights[c] for c in users) / sum(weights[c] for c in users)
        assert torch.allclose(leaf.double(), wanted, atol=1e-7)


def test_what_nobody_used_stays_as_it_was():
    shallow = [{**group, "at": "act0"} for group in GROUPS[:2]]
    scenario = from_table(table([*shallow, GROUPS[2]]))
    federation = federation_of(scenario)
    host, grid = MixedHost(scenario, federation, MemoryStore()), InlineGrid(scenario, federation)
    strategy = MethodStrategy(scenario, host.model, host.wire, host.metrics, host.names)
    strategy.pick = lambda number: [0, 1, 3]  # nobody of the only group that has the second layer
    messages = strategy.configure_train(1, strategy.initial_arrays(), ConfigRecord(), grid)
    found = to_params(strategy.aggregate_train(1, grid.send_and_receive(messages))[0])
    for name, leaf in found.items():
        assert torch.equal(leaf, strategy.initial[name]) == ("linear1" in name)


def test_adapters_and_heads_are_private_and_trunks_start_equal():
    scenario = from_table(table())
    host = MixedHost(scenario, federation_of(scenario), MemoryStore())
    assert all(name.startswith("trunk.") for name in host.wire)
    assert {name.split(".")[1] for name in host.model if name.startswith(("head.", "adapter."))} == {"deep", "shallow", "wine"}
    first, second = host.hosts[0].model, host.hosts[2].model
    assert all(torch.equal(first[name], second[name]) for name in first if name.startswith("trunk."))


def test_groups_of_one_source_have_rows_of_their_own():
    scenario = from_table(table())
    deep, shallow, _ = federation_of(scenario).members
    pictures = [{row.tobytes() for row in member.x} for member in (deep, shallow)]
    assert not pictures[0] & pictures[1]
    assert sum(map(len, pictures)) > 1700


def test_unlike_metrics_stand_in_lines_of_their_own(tmp_path):
    result = run(from_table(table()), out=tmp_path / "run", report=False)
    lines = [json.loads(line) for line in (result.path / "metrics.jsonl").read_text().splitlines()]
    who = {line["metric"]: line["client"] for line in lines}
    assert who == {"accuracy": [0, 1, 2, 5, 6], "mse": [3, 4], "rmse": [3, 4], "loss": list(range(7))}
    assert not any(value is None for line in lines for value in line["value"])
    scenario = from_table(table())
    model = MixedHost(scenario, federation_of(scenario), MemoryStore()).model
    shared = {name: leaf for name, leaf in model.items() if name.startswith("trunk.")}
    deep, shallow = (4 * sum(leaf.numel() for name, leaf in shared.items() if part in name) for part in ("", "linear0"))
    assert result.summary["bytes"]["up"] == 2 * (5 * deep + 2 * shallow)


@pytest.mark.slow
def test_workers_do_not_change_a_bit(tmp_path, session):
    one = run(from_table(table()), out=tmp_path / "one", report=False)
    for workers in (1, 2, 3):
        words = {"runtime.kind": "ray", "runtime.workers": workers}
        many = run(from_table(table()), words, out=tmp_path / str(workers), report=False)
        assert many.summary["checksum"] == one.summary["checksum"]
        assert (many.path / "metrics.jsonl").read_bytes() == (one.path / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(("change", "key", "said"), [
    (lambda t: t["tasks"]["group"][1].update(at="act7"), "tasks.group.at", "act0"),
    (lambda t: t["tasks"].update(source="digits"), "tasks.source", "either a source or"),
    (lambda t: t["tasks"]["group"][1].update(name="deep"), "tasks.group", "a name of its own"),
    (lambda t: t["model"].pop("adapter"), "model.adapter", "put an adapter"),
    (lambda t: t["tasks"]["group"][1].update(sourse="digits"), "tasks.group.1.sourse", "source"),
    (lambda t: t["tasks"]["group"][2].update(objective="regression"), "tasks.group.2.objective", "classification"),
])
def test_what_does_not_fit_is_refused(change, key, said):
    asked = table([dict(group) for group in GROUPS])
    change(asked)
    with pytest.raises(ScenarioError, match=said) as error:
        MixedHost(scenario := from_table(asked), federation_of(scenario), MemoryStore())
    assert key in str(error.value)


@pytest.mark.parametrize("name", ["same-input", "different-inputs", "class-pairs"])
def test_the_shipped_scenarios_run_and_say_what_is_gained(name, tmp_path):
    result = run(load_scenario(name, {"rounds": 2}), out=tmp_path / "run", report=False, baseline="local")
    assert np.isfinite(result.summary["delta_m"])
    assert set(result.summary["gains"]["tasks"]) == set(result.summary["tasks"])
