"""Another user of the machine: kept out by directories and modes, and, should those ever fail, by the kernel's word
on who is at the other end."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from fastn_p2p_client.ipc.messages import Hello, encode
from tests.support.daemons import Daemon
from tests.support.raw_connections import Raw, hello, unharmed

NOBODY: Final = 65534
PROGRAM: Final = """
import json, os, socket, sys
from pathlib import Path
from tests.support.raw_connections import Raw
request = bytes.fromhex(sys.argv[1])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
outcomes = {}
for path in sys.argv[2:]:
    said = outcomes[Path(path).name] = []
    try:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(1)
            raw.connect(path)
            said.append("connects")
            raw.sendall(os.urandom(300))
    except PermissionError:
        said.append("no permission")
    except OSError:
        pass
    with Raw(Path(path)) as dealer:
        said.append("gets in" if dealer.send(b"1", request, b"", timeout=0.4) else "stays out")
        said.append("gets an answer" if dealer.receive(0.1) else "gets no answer")
print(json.dumps(outcomes))
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(scope="module")
def running() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        daemon = Daemon(Path(name) / "home", Path(name) / "hosts").start()
        daemon.identity("alice")
        yield daemon
        daemon.clean_up()


def sockets(daemon: Daemon) -> list[Path]:
    names = ("vault", "network", "identity-alice")
    return [daemon.home.control_socket, *(daemon.home.mailbox(name) for name in names)]


def as_nobody(daemon: Daemon) -> dict[str, list[str]]:
    """Return what another user's process achieves at each socket."""
    program = [sys.executable, "-c", PROGRAM, encode(Hello(1, "nobody")).hex(), *map(str, sockets(daemon))]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=100, check=True)
    found: dict[str, list[str]] = json.loads(ended.stdout)
    return found


def test_another_user_cannot_reach_the_sockets(running: Daemon) -> None:
    assert stat.S_IMODE(running.home.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets(running)} == {0o600}
    with unharmed(running):
        assert set(map(tuple, as_nobody(running).values())) == {("no permission", "stays out", "gets no answer")}


def test_another_user_who_reaches_the_sockets_is_turned_away(running: Daemon) -> None:
    """With every mode wide open."""
    opened = [running.home.path.parent, *{path.parent for path in sockets(running)}, *sockets(running)]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in opened}
    with unharmed(running):
        for path in opened:
            path.chmod(0o777)
        try:
            outcomes = as_nobody(running)
        finally:
            for path, mode in modes.items():
                path.chmod(mode)
        assert set(map(tuple, outcomes.values())) == {("connects", "stays out", "gets no answer")}
        with Raw(running.home.control_socket) as raw:
            hello(raw)
        with running.client() as client:
            client.start()
