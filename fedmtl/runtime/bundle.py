"""What Flower's processes are given: an environment, a home with the connection, and an app that holds one scenario."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import tomli_w

from fedmtl.scenario import Scenario


def environment(folder: Path, out: Path) -> dict[str, str]:
    """The environment of every process: Flower's home in a folder of its own, this fedmtl, these commands first."""
    package, commands = str(Path(__file__).parents[2]), str(Path(sys.executable).parent)
    paths = {"PYTHONPATH": [package], "PATH": [str(folder / "bin"), commands]}
    joined = {name: os.pathsep.join([*first, *filter(None, [os.environ.get(name)])]) for name, first in paths.items()}
    return {**os.environ, **joined, "FLWR_HOME": str(folder / "home"), "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1", "FEDMTL_OUT": str(out),
            "FEDMTL_LINES": str(out / "logs" / "rounds.log"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody uses now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()


def write_app(folder: Path, scenario: Scenario) -> None:
    """A Flower app that holds the scenario and no code: fedmtl itself is installed where the processes run."""
    config = {"document": scenario.to_toml(), "folder": str(scenario.folder or "")}
    components = {"serverapp": "fedmtl.app:server_app", "clientapp": "fedmtl.app:client_app"}
    folder.mkdir()
    (folder / "pyproject.toml").write_text(tomli_w.dumps({
        "project": {"name": "fedmtl-deploy", "version": "0.1.0", "description": scenario.name, "license": "Apache-2.0",
                    "dependencies": []},
        "tool": {"flwr": {"app": {"publisher": "fedmtl", "components": components, "config": config}}}}), encoding="utf-8")


def write_connection(home: Path, port: int) -> None:
    """Flower's home, in which `local-conn` is the SuperLink at a port of the loopback."""
    home.mkdir()
    connection = {"address": f"127.0.0.1:{port}", "insecure": True}
    text = tomli_w.dumps({"superlink": {"default": "local-conn", "local-conn": connection}})
    (home / "config.toml").write_text(text, encoding="utf-8")
