"""One process with everything imported, from which Flower's processes are forked in milliseconds.

Flower starts a process for every message, and each imports torch for seconds. `write_commands` makes stand-ins for Flower's
commands; first on PATH, they pass their arguments and output to the nursery through a socket and live as long as the process
that it forks, and as whoever started them: Flower's own watch over its parents cannot wake a process that waits for a lock. Where
there is no nursery they become the real command. The nursery holds code only: no data, nobody's state.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import threading
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

COMMANDS = ("flower-superlink", "flower-supernode", "flower-superexec", "flwr-serverapp", "flwr-clientapp", "flwr")

_STAND_IN = """#!{python} -IS
import json, os, socket, sys
parent = os.getppid()
asked = socket.socket(socket.AF_UNIX)
try:
    asked.connect({address!r})
except OSError:
    os.environ["PATH"] = os.environ["PATH"].partition(os.pathsep)[2]
    os.execvp({name!r}, [{name!r}, *sys.argv[1:]])
request = json.dumps({{"argv": [{name!r}, *sys.argv[1:]], "cwd": os.getcwd()}}).encode()
socket.send_fds(asked, [len(request).to_bytes(4, "big")], [1, 2])
asked.sendall(request)
asked.settimeout(1)
while os.getppid() == parent:
    try:
        sys.exit((asked.recv(1) or b"\\x01")[0])
    except TimeoutError:
        pass
sys.exit(1)
"""


def write_commands(folder: Path, address: Path) -> None:
    """Stand-ins for Flower's commands in `folder`, which ask the nursery at `address`."""
    folder.mkdir(parents=True)
    for name in COMMANDS:
        path = folder / name
        path.write_text(_STAND_IN.format(python=sys.executable, address=str(address), name=name), encoding="utf-8")
        path.chmod(0o700)


def serve(address: Path) -> NoReturn:
    """Imports everything, then forks a process for each stand-in that asks, until it is ended."""
    mains = _load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries the children
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    address.chmod(0o600)
    listener.listen(64)
    while True:
        asked, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _become(asked, mains)
        asked.close()


def _load() -> dict[str, Callable[[], Any]]:
    """The entry points of Flower's commands, and as a side effect all that a client or a server imports later."""
    from importlib import import_module

    import torch

    from fedmtl.scenario import load_scenario

    for name in ("fedmtl.app", "fedmtl.runs.runner", "fedmtl.report.html", "sklearn.datasets", "scipy.spatial.distance",
                 "flwr_datasets.partitioner"):
        import_module(name)
    load_scenario("quickstart")  # looks through every folder of components
    torch.set_num_threads(1)
    return {entry.name: entry.load() for entry in entry_points(group="console_scripts") if entry.name in COMMANDS}


def _become(asked: socket.socket, mains: dict[str, Callable[[], Any]]) -> NoReturn:
    """Turns this fork into the process that was asked for; it ends with that, or when whoever asked is gone."""
    code = 1
    try:
        head, files, _, _ = socket.recv_fds(asked, 4, 2)
        with asked.makefile("rb") as stream:
            request = json.loads(stream.read(int.from_bytes(head, "big")))
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for place, file in enumerate(files, start=1):
            os.dup2(file, place)
            os.close(file)
        os.chdir(request["cwd"])
        random.seed()
        sys.argv = request["argv"]
        threading.Thread(target=_end_with, args=(asked,), daemon=True).start()
        mains[sys.argv[0]]()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        asked.send(bytes([code & 255]))
        os._exit(code)


def _end_with(asked: socket.socket) -> None:
    """Ends this process when the other end of the socket is closed."""
    asked.recv(1)
    os._exit(1)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
