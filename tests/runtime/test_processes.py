"""`fedmtl deploy`: a real SuperLink and SuperNodes on the loopback; the bits of one process; nobody left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from test_tap import heads

import fedmtl
from fedmtl.errors import DiskError, FedmtlError, ScenarioError
from fedmtl.runtime.family import family
from fedmtl.runtime.processes import deploy
from fedmtl.runtime.tap import leaks, recorded
from fedmtl.scenario import load_scenario

TINY = Path(__file__).with_name("tiny.toml")
ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from fedmtl.cli import main; main()"]


def belonging(out):
    """The processes of a deployment, by their environment: pid to command line."""
    mark, found = f"FEDMTL_OUT={out}".encode(), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
    return found


def gone(out, seconds=10.0):
    """Whether every process of a deployment ends in time."""
    deadline = time.monotonic() + seconds
    while belonging(out) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not belonging(out)


def _heed():
    """SIGINT is ignored by whatever a shell starts with &."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(tmp_path, rounds=50):
    """A deployment by the command line that has finished a round."""
    out = tmp_path / "run"
    process = subprocess.Popen([*CLI, "deploy", str(TINY), f"rounds={rounds}", "--clients", "3", "--out", str(out)],
                               env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               preexec_fn=_heed)  # noqa: PLW1509 one system call, nothing that locks
    deadline = time.monotonic() + 150
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process, out


@pytest.mark.slow
def test_separate_processes_give_the_bits_of_one_and_keep_their_heads(tmp_path, monkeypatch):
    one = fedmtl.run(TINY, {"runtime.kind": "inline"}, out=tmp_path / "one")
    private, out = heads(tmp_path), tmp_path / "many"
    monkeypatch.setenv("FEDMTL_TAP", str(tmp_path / "tap"))
    many = deploy(load_scenario(TINY), 3, out)
    assert not belonging(out)
    assert many.summary["checksum"] == one.summary["checksum"]
    assert (out / "metrics.jsonl").read_text() == (one.path / "metrics.jsonl").read_text()
    for client, mine in enumerate(private):
        folder = out / "private" / f"client-{client:04d}"
        (file,) = folder.iterdir()
        assert folder.stat().st_mode & 0o077 == 0
        kept = load_file(file)
        assert set(kept) == set(mine)
        assert all(np.array_equal(kept[name], mine[name]) for name in mine)
        assert leaks(tmp_path / "tap", mine) == []
    assert len(list(recorded(tmp_path / "tap"))) == 30


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_no_process_outlives_the_command(number, code, tmp_path):
    process, out = started(tmp_path)
    assert len(belonging(out)) > 10
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said
    assert gone(out)


@pytest.mark.slow
def test_a_node_that_dies_ends_the_run_and_says_so(tmp_path):
    process, out = started(tmp_path)
    (victim,) = [pid for pid, command in belonging(out).items() if "flower-supernode" in command and "partition-id=1" in command]
    os.kill(victim, signal.SIGKILL)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 3, said
    assert "supernode-1 died" in said
    assert "Receiving: train message" in (out / "logs" / "supernode-1.log").read_text()
    assert gone(out)


@pytest.mark.slow
def test_an_error_of_the_server_is_the_commands(tmp_path):
    (tmp_path / "teller.py").write_text(
        "from dataclasses import dataclass\nfrom fedmtl.algorithms.fedper import Fedper\n\n\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Teller(Fedper):\n    def local(self, client, received, kept):\n"
        "        sent, kept = super().local(client, received, kept)\n"
        "        return {**sent, 'head.weight': kept['head.weight']}, kept\n")
    scenario = tmp_path / "tiny.toml"
    scenario.write_text(TINY.read_text())
    with pytest.raises(FedmtlError, match=r"head\.weight") as caught:
        deploy(load_scenario(scenario, {"algorithm.name": "teller:Teller"}), 3, tmp_path / "run")
    assert type(caught.value).__name__ == "PrivacyError"
    assert not belonging(tmp_path / "run")


def test_a_directory_that_holds_a_run_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "scenario.toml").write_text("")
    with pytest.raises(DiskError, match="already holds a run"):
        deploy(load_scenario(TINY), 3, tmp_path)


def test_more_clients_than_the_data_have_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(ScenarioError):
        deploy(load_scenario(TINY), 5000, tmp_path / "run")
    assert not belonging(tmp_path / "run")


@pytest.mark.slow
def test_a_family_ends_its_grandchildren_and_those_that_will_not(tmp_path):
    stubborn = "trap '' TERM; sleep 100 & sleep 100; wait"
    with family(tmp_path / "logs", {**os.environ, "FEDMTL_OUT": str(tmp_path)}) as members:
        members.start("stubborn", ["bash", "-c", stubborn])
        members.start("talker", ["bash", "-c", "echo hello; exit 7"])
        while "talker" not in members.ended() or len(belonging(tmp_path)) < 2:
            time.sleep(0.02)
        assert members.tail("talker") == "  hello"
    assert not belonging(tmp_path)
