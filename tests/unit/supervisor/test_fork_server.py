"""Processes of the fork server."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fastn_p2p_supervisor.fork_server import ForkedProcess, open_pidfd


def is_readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def test_a_process_that_has_ended_before_it_gets_a_descriptor_counts_as_ended() -> None:
    """A one-shot worker can be faster than the supervisor on a busy machine."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    gone, running = open_pidfd(pid), open_pidfd(os.getpid())
    try:
        assert is_readable(gone)
        assert not is_readable(running)
        with socket.socket() as channel:
            ForkedProcess(pid, gone, channel, -1, running).signal(signal.SIGKILL)  # does not raise
    finally:
        os.close(gone)
        os.close(running)


FORK = """
import json, os, sys
from pathlib import Path
from random import random
from fastn_p2p_actors.runtime.process_setup import erase_variables
from fastn_p2p_supervisor.fork_server import ForkServer
from fastn_p2p_supervisor.restart_policy import FORK_SERVER, RestartHistory

def target(descriptor):
    try:
        return os.readlink(descriptor)
    except FileNotFoundError:  # closed meanwhile: that of the process that has ended
        return ""

private = os.open(sys.argv[2], os.O_RDONLY)
del os.environ["SECRET_VARIABLE"]
erase_variables("SECRET_VARIABLE")
server = ForkServer(Path(sys.argv[1]), RestartHistory(FORK_SERVER, random))
server.start_as_fork([private])
process = server.start(len, "any", b"")  # the fork server has started
at = Path("/proc") / str(server.pid)
found = {
    "files": [target(each) for each in (at / "fd").iterdir()],
    "environment": (at / "environ").read_bytes().decode(errors="replace"),
    "parent": int((at / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid(),
}
server.stop()
print(json.dumps(found))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a process that is not dumpable")
def test_a_fork_of_the_supervisor_has_none_of_its_descriptors_and_variables(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.touch()
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path), str(private)],
        capture_output=True, text=True, check=False, timeout=60, env={**os.environ, "SECRET_VARIABLE": "secret text"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["parent"]
    assert str(private) not in found["files"]
    assert "SECRET_VARIABLE" not in found["environment"]
    assert "secret text" not in found["environment"]
    assert "PATH=" in found["environment"]


DIE = """
import errno, os, signal, sys, threading
from pathlib import Path
from random import random
from unittest.mock import patch
from fastn_p2p_supervisor.fork_server import ForkFailed, ForkServer
from fastn_p2p_supervisor.restart_policy import FORK_SERVER, RestartHistory

server = ForkServer(Path(sys.argv[1]), RestartHistory(FORK_SERVER, random))
server.start(len, "any", b"")
error = {"refused": ConnectionRefusedError(), "end": EOFError(), "full": BlockingIOError(errno.EAGAIN, "no room")}
if sys.argv[3] == "dies":
    threading.Timer(0.05, os.kill, (server.pid, signal.SIGKILL)).start()
try:
    with patch("multiprocessing.forkserver.connect_to_new_process", side_effect=error[sys.argv[2]]):
        server.start(len, "any", b"")
except ForkFailed as failed:
    print(f"{type(failed).__name__}: {failed}")
server.stop()
"""


@pytest.mark.parametrize(
    ("error", "then", "outcome"),
    [
        ("refused", "dies", "ForkServerEnded: the fork server died"),
        ("end", "dies", "ForkServerEnded: the fork server died"),
        ("full", "lives", "ForkFailed: the system has no room for another process"),
    ],
)
def test_a_fork_server_that_dies_during_a_start_is_no_fault_of_the_process(
    error: str, then: str, outcome: str, tmp_path: Path
) -> None:
    """The kernel closes the sockets of a process before it reports the end of the process."""
    done = subprocess.run(
        [sys.executable, "-c", DIE, str(tmp_path), error, then], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == outcome, done.stderr
