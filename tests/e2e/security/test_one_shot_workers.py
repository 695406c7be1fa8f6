"""One-shot workers come from the fork server, and end with the gateway that waits for them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc import messages as m
from tests.conftest import MakeDaemon
from tests.support.daemons import Daemon, eventually
from tests.support.protocols import install_protocols


def parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def workers_of(daemon: Daemon) -> list[int]:
    """Return the pids of one-shot workers. Their parent is that of the gateway."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (directory / "comm").read_text() == "fastn-worker\n":
                found.append(int(directory.name))
    forks = parent(daemon.pid("gateway"))
    return [pid for pid in found if parent(pid) == forks]


def test_a_check_that_hangs_is_killed_with_the_gateway(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    env = install_protocols(tmp_path / "packages", Faulty="tests.support.faulty_protocols:FaultyProtocol")
    daemon = make_daemon(**env).start()
    daemon.identity("alice")

    def add() -> None:
        with suppress(P2PError), daemon.client() as client:
            command = m.AddProtocol("alice", "Faulty", "default", granted=(f"program {sys.executable}",))
            client.control(command, b'{"place": "on_check", "way": "sleep"}', timeout=60)

    adding = threading.Thread(target=add)
    adding.start()
    try:
        (worker,) = eventually(lambda: workers_of(daemon), "a worker runs")
        os.kill(daemon.pid("gateway"), signal.SIGKILL)
        eventually(lambda: parent(worker) == 0, "the worker has gone")
    finally:
        daemon.clean_up()
        adding.join()
