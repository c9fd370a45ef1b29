"""Processes that live and die together: each in a group of its own, all gone when the block is left, however it is left."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

PATIENCE = 3.0
"""Seconds between asking a process to end and ending it."""
_PDEATHSIG = 1


def _follow_parent() -> None:
    """Has the kernel end this process when its parent dies, even by SIGKILL (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL)


@dataclass
class Family:
    """Processes by name, each with its log `logs`/NAME.log and the environment `env`."""

    logs: Path
    env: Mapping[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Starts a process in a session of its own."""
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=cwd,
                                       env=dict(self.env), start_new_session=True,
                                       preexec_fn=_follow_parent)  # noqa: PLW1509 one system call, nothing that locks
        self.processes[name] = process
        return process

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self.logs / f"{name}.log"

    def tail(self, name: str, lines: int = 12) -> str:
        """The last lines of a process's log."""
        text = self.log(name).read_text(encoding="utf-8", errors="replace")
        return "\n".join(f"  {line}" for line in text.strip().splitlines()[-lines:])

    def ended(self) -> list[str]:
        """The processes that have ended."""
        return [name for name, process in self.processes.items() if process.poll() is not None]

    def stop(self) -> None:
        """Ends every process and its group: asked first, then made to."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in self.processes.values():
                _signal_group(process.pid, number)
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and any(_group_lives(p) for p in self.processes.values()):
                time.sleep(0.02)
        for process in self.processes.values():
            process.wait()
        self.processes.clear()


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def family(logs: Path, env: Mapping[str, str]) -> Iterator[Family]:
    """A family that is stopped when the block is left, also by SIGINT and SIGTERM (where this is the main thread)."""
    logs.mkdir(parents=True, exist_ok=True)
    members, main = Family(logs, env), threading.current_thread() is threading.main_thread()

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave) if main else None
    try:
        yield members
    finally:
        held = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
        members.stop()
        for number, handler in held.items():
            signal.signal(number, before if number == signal.SIGTERM else handler)
