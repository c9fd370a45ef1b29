"""Other people's Flower apps on our workers: the same results as under Flower's engine, with Flower's promises to their code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedmtl import cli
from fedmtl.errors import FedmtlError, ScenarioError
from fedmtl.runtime import run_flower_app
from fedmtl.runtime.flower_app import load_app

# Ray leaves files and processes to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

STOCK = Path(__file__).parents[2] / "examples" / "flower_app"

WORKSHOP = '''
import os
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client, server = ClientApp(), ServerApp()


@client.train()
def train(message, context):
    """Counts its calls in its Context, says what it got, and then scribbles over it."""
    calls = context.state.metric_records.get("calls", MetricRecord({"n": 0}))
    context.state["calls"] = MetricRecord({"n": int(calls["n"]) + 1})
    node, call = int(context.node_config["partition-id"]), int(calls["n"]) + 1
    if call == context.run_config["bad-round"] and node == context.run_config["bad-node"]:
        if context.run_config["how"] == "exit":
            os._exit(1)
        raise ArithmeticError(f"node {node} is out of sorts")
    arrays, config = message.content["arrays"], message.content["config"]
    told = {"n": call, "node": node, "nodes": int(context.node_config["num-partitions"]), "sum": float(arrays["w"].numpy().sum()),
            "items": len(config["items"]), "records": len(message.content), "pid": os.getpid()}
    arrays["w"].data = Array(np.full(3, 7.0)).data
    arrays["more"] = Array(np.zeros(2))
    config["items"].append(node)
    config["more"] = True
    message.content["more"] = ConfigRecord({"a": 1})
    return Message(RecordDict({"told": MetricRecord(told)}), reply_to=message)


@server.main()
def main(grid, context):
    """Three rounds; what was told, and which errors came, is left in the Context."""
    told, errors = [], []
    for number in range(1, 4):
        arrays, config = ArrayRecord({"w": Array(np.arange(3.0))}), ConfigRecord({"items": [1, 2]})
        replies = list(grid.send_and_receive([
            Message(RecordDict({"arrays": arrays, "config": config}), dst_node_id=node, message_type="train", group_id=str(number))
            for node in grid.get_node_ids()]))
        told.append([dict(reply.content["told"]) for reply in replies if not reply.has_error()])
        errors += [f"{number}: {reply.error.code}: {reply.error.reason}" for reply in replies if reply.has_error()]
        assert all(reply.metadata.reply_to_message_id for reply in replies)
    context.state["out"] = ConfigRecord({"told": repr(told), "errors": errors})
    if context.run_config["how"] == "server":
        raise LookupError("the server gives up")
'''
PAGE = '''
[project]
name = "workshop"
[tool.flwr.app.components]
serverapp = "{module}:server"
clientapp = "{module}:client"
[tool.flwr.app.config]
bad-node = -1
bad-round = 2
how = "raise"
optimizer.lr = 0.1
'''


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("app")
    (folder / "workshop_app.py").write_text(WORKSHOP)
    (folder / "pyproject.toml").write_text(PAGE.format(module="workshop_app"))
    return folder


def outcome(folder, words="", nodes=4):
    """(what the nodes told, round by round; the errors)"""
    app = load_app(folder, words)
    context = run_flower_app(app.server_app, app.client_app, num_supernodes=nodes, workers=2, run_config=app.run_config)
    out = context.state["out"]
    return eval(out["told"]), out["errors"]  # our own repr


@pytest.fixture(scope="module")
def eventful(session, workshop):
    """Three rounds of four nodes on two workers; node 2 raises in the second."""
    return outcome(workshop, "bad-node=2")


def test_contexts_stay_with_their_nodes_and_messages_with_their_receivers(session, eventful):
    told, _ = eventful
    for number, replies in enumerate(told, start=1):
        assert sorted(one["node"] for one in replies) == ([0, 1, 3] if number == 2 else [0, 1, 2, 3])
        for one in replies:
            seen = {name: one[name] for name in ("n", "nodes", "sum", "items", "records")}
            assert seen == {"n": number, "nodes": 4, "sum": 3.0, "items": 2, "records": 2}
    homes = [{one["node"]: one["pid"] for one in replies} for replies in told]
    assert homes[0] == {**homes[0], **homes[1]} == homes[2]
    assert len(set(homes[0].values())) == 2
    assert os.getpid() not in homes[0].values()
    assert session.is_initialized()


def test_a_client_that_raises_is_an_error_reply_and_the_run_goes_on(eventful):
    told, errors = eventful
    assert [len(replies) for replies in told] == [4, 3, 4]
    assert len(errors) == 1
    assert "node 2 is out of sorts" in errors[0]
    assert errors[0].startswith("2: 2: ")  # the round; Flower's code for a ClientApp that raised
    assert {one["node"]: one["n"] for one in told[2]} == {0: 3, 1: 3, 2: 3, 3: 3}


@pytest.mark.slow
def test_a_process_that_dies_is_told(session, workshop):
    with pytest.raises(FedmtlError, match="a worker died, and with it the Contexts of its nodes"):
        outcome(workshop, 'bad-node=1 how="exit"')
    assert session.is_initialized()
    assert outcome(workshop)[1] == []


@pytest.mark.slow
def test_what_the_server_raises_is_raised(session, workshop):
    with pytest.raises(LookupError, match="the server gives up"):
        outcome(workshop, 'how="server"')


@pytest.mark.slow
def test_more_workers_than_nodes_are_not_started(session, workshop):
    app = load_app(workshop)
    context = run_flower_app(app.server_app, app.client_app, num_supernodes=1, workers=8, run_config=app.run_config)
    assert [len(replies) for replies in eval(context.state["out"]["told"])] == [1, 1, 1]


def command(monkeypatch, *words):
    """The exit code of `fedmtl engine ...`; None where it just ends."""
    monkeypatch.setattr(sys, "argv", ["fedmtl", "engine", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.slow
def test_the_command_runs_the_example(session, monkeypatch, capsys):
    assert command(monkeypatch, STOCK, "--nodes", 4, "--run-config", "num-server-rounds=1", "--workers", 2) == 0
    assert "fedmtl:" not in capsys.readouterr().err


def test_run_config_is_flattened_and_overridden(workshop):
    app = load_app(workshop, 'optimizer.lr=0.5 how="raise it"')
    assert app.run_config == {"bad-node": -1, "bad-round": 2, "how": "raise it", "optimizer.lr": 0.5}
    assert app.nodes is None
    assert load_app(STOCK).nodes == 100


def test_an_unknown_key_of_run_config_ends_with_code_2_and_the_nearest_name(workshop, monkeypatch, capsys):
    assert command(monkeypatch, workshop, "--nodes", 2, "--run-config", "bad-nod=1") == 2
    said = capsys.readouterr().err
    assert "bad-nod: the app's [tool.flwr.app.config] has no such key" in said
    assert "did you mean 'bad-node'?" in said


def test_nodes_that_nobody_gives_are_asked_for(workshop, monkeypatch, capsys):
    assert command(monkeypatch, workshop) == 2
    assert "--nodes: the app does not say how many nodes it wants; say it here" in capsys.readouterr().err


@pytest.mark.parametrize(("page", "said"), [
    (None, r"pyproject.toml: cannot be read: No such file"),
    ("[tool.flwr", r"pyproject.toml: not a TOML document"),
    (b"name = '\xff'", r"pyproject.toml: not a TOML document"),
    ("[project]\nname = 'x'", r"tool.flwr.app.components.serverapp: .*pyproject.toml must name it as module:object"),
    ("[tool.flwr.app.components]\nserverapp = 'workshop_app:server'", r"tool.flwr.app.components.clientapp: .* must name it"),
    ("[tool.flwr.app.components]\nserverapp = 'workshop_app'\nclientapp = 'workshop_app:client'", r"serverapp: .*must name it"),
    (PAGE.format(module="nowhere_app"), r"tool.flwr.app.components.serverapp: no module 'nowhere_app'"),
    (PAGE.format(module="workshop_app").replace(":server", ":servr"), r"has no 'servr'\n  did you mean 'server'\?"),
    (PAGE.format(module="workshop_app").replace(":server", ":client"),
     r"tool.flwr.app.components.serverapp: 'workshop_app:client' is not a ServerApp")])
def test_what_is_no_app(page, said, workshop, tmp_path):
    if page is not None:
        (tmp_path / "pyproject.toml").write_bytes(page if isinstance(page, bytes) else page.encode())
    with pytest.raises(ScenarioError, match=said):
        load_app(tmp_path)


@pytest.mark.parametrize("words", ["lr", "lr=", "lr=0.1 how=raise", "= 3"])
def test_what_is_no_run_config(words, workshop):
    with pytest.raises(ScenarioError, match=r"--run-config: .* is not key=value pairs in TOML"):
        load_app(workshop, words)


THEIRS = '''
import time
from copy import copy
import numpy as np
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.simulation import run_simulation

CONFIG = {config!r}
client, server = ClientApp(), ServerApp()

@client.train()
def train(message, context):
    from stock.client import train
    context = copy(context)  # run_simulation has no run config, and does not let a client set it
    context.run_config = CONFIG
    return train(message, context)

@client.evaluate()
def evaluate(message, context):
    from stock.client import evaluate
    context = copy(context)  # run_simulation has no run config, and does not let a client set it
    context.run_config = CONFIG
    return evaluate(message, context)

@server.main()
def main(grid, context):
    from stock.server import main
    while len(list(grid.get_node_ids())) < 10:
        time.sleep(0.05)
    context.run_config = CONFIG
    main(grid, context)
    np.savez("theirs.npz", *context.state["arrays"].to_numpy_ndarrays())

if __name__ == "__main__":
    run_simulation(server, client, 10, backend_config={{"client_resources": {{"num_cpus": 1, "num_gpus": 0.0}},
                                                       "init_args": {{"address": "local", "num_cpus": 2,
                                                                     "include_dashboard": False}}}})
'''


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fedavg", "fedadam"])
def test_the_example_ends_as_under_flowers_own_engine(strategy, tmp_path, leftovers):
    app = load_app(STOCK, f'strategy="{strategy}" num-server-rounds=2')
    context = run_flower_app(app.server_app, app.client_app, num_supernodes=10, workers=2, run_config=app.run_config)
    ours = context.state["arrays"].to_numpy_ndarrays()
    (tmp_path / "theirs.py").write_text(THEIRS.format(config=app.run_config))
    environment = {**os.environ, "PYTHONPATH": str(STOCK), "FLWR_TELEMETRY_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
                   "OMP_NUM_THREADS": "1"}
    told = subprocess.run([sys.executable, "theirs.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr[-3000:]
    with np.load(tmp_path / "theirs.npz") as file:
        theirs = [file[name] for name in file.files]
    assert len(ours) == len(theirs) == 4
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)
    begin = app_start()
    assert max(float(np.abs(mine - first).max()) for mine, first in zip(ours, begin, strict=True)) > 1e-2  # it learnt something


def app_start():
    """The example's initial arrays."""
    from stock.task import make_net

    return [leaf.numpy() for leaf in make_net().state_dict().values()]
