"""`flwr run .` from the repository root, on a real SuperLink with Flower's simulation runtime, as docs/flower.md says."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fedmtl
from fedmtl.errors import ScenarioError
from fedmtl.runtime.family import family

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "runtime" / "tiny.toml"
COMMANDS = Path(sys.executable).parent


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def superlink(tmp_path_factory):
    """A running SuperLink: (environment of its users, its log, where its runs go)."""
    folder, port = tmp_path_factory.mktemp("superlink"), free_port()
    (folder / "home").mkdir()
    (folder / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "sim"\n[superlink.sim]\naddress = "127.0.0.1:{port}"\ninsecure = true\n')
    env = {**os.environ, "FLWR_HOME": str(folder / "home"), "FLWR_TELEMETRY_ENABLED": "0", "PYTHONPATH": str(ROOT),
           "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}", "FEDMTL_STATE": str(folder / "state")}
    with family(folder / "logs", env) as members:
        members.start("superlink", ["flower-superlink", "--insecure", "--simulation", "--disable-runtime-dependency-installation",
                                    "--port", str(port)], cwd=folder)
        deadline = time.monotonic() + 60
        while not answers(port):
            assert not members.ended(), members.tail("superlink", 40)
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield env, members.log("superlink"), folder


def flwr_run(env, nodes, config):
    return subprocess.run([COMMANDS / "flwr", "run", str(ROOT), "sim", "--federation-config", f"num-supernodes={nodes}",
                           "--run-config", config, "--stream"], env=env, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow
def test_flwr_run_gives_what_fedmtl_run_gives(superlink, tmp_path):
    env, log, folder = superlink
    said = flwr_run(env, 3, f"scenario='{TINY}' rounds=1 seed=5 algorithm='ditto' overrides='training.lr=0.05 algorithm.lam=0.5'")
    run = folder / "runs" / "tiny-ditto-seed5"
    assert (run / "report.html").exists(), said.stdout + said.stderr + log.read_text()
    one = fedmtl.run(TINY, ["rounds=1", "seed=5", "algorithm.name=ditto", "algorithm.lam=0.5", "training.lr=0.05",
                            "runtime.kind=inline"], out=tmp_path / "one")
    many = json.loads((run / "summary.json").read_text())
    assert many["checksum"] == one.summary["checksum"]
    assert many["test"] == one.summary["test"]
    assert "run directory:" in said.stdout
    (state,) = (folder / "state").iterdir()
    assert sorted(file.name for file in state.iterdir()) == [f"client-{c:06d}.safetensors" for c in range(3)]
    shutil.rmtree(state)


@pytest.mark.slow
def test_a_run_has_as_many_clients_as_there_are_nodes(superlink):
    env, log, folder = superlink
    said = flwr_run(env, 2, f"scenario='{TINY}' rounds=1 seed=6")
    summary = folder / "runs" / "tiny-fedper-seed6" / "summary.json"
    assert summary.exists(), said.stdout + said.stderr + log.read_text()
    assert json.loads(summary.read_text())["clients"] == 2
    assert "tasks.clients = 2 instead of 3" in said.stdout + log.read_text()


def test_a_runs_configuration_makes_the_scenario_that_the_command_line_makes():
    from fedmtl.app import scenario_from
    from fedmtl.scenario import load_scenario

    defaults = {"scenario": "quickstart", "algorithm": "", "rounds": 0, "seed": -1, "overrides": ""}
    assert scenario_from(defaults).resolved() == load_scenario("quickstart", ["runtime.kind=flower"]).resolved()
    changed = {**defaults, "algorithm": "ditto", "rounds": 3, "seed": 0, "overrides": "algorithm.lam=2.0 name='two words'"}
    wanted = load_scenario("quickstart", ["algorithm.name=ditto", "algorithm.lam=2.0", "rounds=3", "name=two words",
                                          "runtime.kind=flower"])
    assert scenario_from(changed).resolved() == wanted.resolved()
    again = scenario_from({"document": wanted.to_toml(), "folder": str(wanted.folder)})
    assert again.resolved() == wanted.resolved()
    with pytest.raises(ScenarioError, match="overrides"):
        scenario_from({**defaults, "overrides": "name='open"})
