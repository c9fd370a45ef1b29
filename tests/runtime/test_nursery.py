"""Stand-ins for Flower's commands."""

import os
import socket
import subprocess
import sys

import pytest

from fedmtl.runtime.nursery import write_commands

STARTER = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:]); time.sleep(60)"


@pytest.mark.skipif(sys.platform != "linux", reason="there are stand-ins on Linux only")
def test_a_stand_in_ends_with_whoever_started_it(tmp_path):
    address = tmp_path / "nursery"
    write_commands(tmp_path / "bin", address)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        listener.settimeout(60)
        with subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path / "bin" / "flwr"), "run"]) as starter:
            asked, _ = listener.accept()
            head, files, _, _ = socket.recv_fds(asked, 4, 2)
            for file in files:
                os.close(file)
            assert b'"argv": ["flwr", "run"]' in asked.recv(int.from_bytes(head, "big"))
            asked.settimeout(0.2)
            with pytest.raises(TimeoutError):
                asked.recv(1)
            starter.kill()
        with asked:
            asked.settimeout(60)
            assert asked.recv(1) == b""
