"""Plugin of pytest: two connected daemons for the tests of programs and protocols.

pytest finds it wherever fastn-p2p is installed. The daemons start at the first test that asks for them, once for all
tests, in homes of their own and on the loopback interface only::

    def test_echo(p2p_daemons):
        alice, bob = p2p_daemons
        bob.client.protocols.add("bob", "Echo")
        assert alice.client.call("alice", "bob", "Echo", request={"message": "hi"})["echoed"]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    from fastn_p2p_client.sync import Client

_START_TIMEOUT: Final = 60.0
"""Seconds in which a daemon must be ready, also on a busy machine."""
_STOP_TIMEOUT: Final = 20.0
"""Seconds in which a daemon must end by itself."""


class DaemonOfTests(NamedTuple):
    """A daemon with one identity, which is online.

    Attributes:
        identity: name of the identity.
        id52: its ID52.
        home: the daemon's home, for ``$FASTN_HOME`` of programs.
        client: administers the daemon, and calls as the identity.
    """

    identity: str
    id52: str
    home: Path
    client: Client


class ConnectedDaemons(NamedTuple):
    """Two daemons, each with the other's identity in its address book under its name."""

    alice: DaemonOfTests
    bob: DaemonOfTests


@pytest.fixture(scope="session")
def p2p_daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConnectedDaemons]:
    """Two connected daemons: ``alice`` and ``bob``."""
    root = tmp_path_factory.mktemp("p2p")
    with ExitStack() as stack:
        alice, bob = (stack.enter_context(_daemon(root, name)) for name in ("alice", "bob"))
        for here, there in ((alice, bob), (bob, alice)):
            here.client.peers.add(there.id52, there.identity)
        for here, there in ((alice, bob), (bob, alice)):
            here.client.wait_until_online(here.identity, there.identity, timeout=_START_TIMEOUT)
        yield ConnectedDaemons(alice, bob)


@contextmanager
def _daemon(root: Path, name: str) -> Iterator[DaemonOfTests]:
    from fastn_p2p_client.sync import Client

    home, log = root / name, root / f"{name}.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FASTN_")}
    environment["FASTN_HOST_DIRECTORY"] = str(root / "hosts")
    command = [sys.executable, "-P", "-m", "fastn_p2p", "--home", str(home), "daemon", "--network", "local"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,  # Ctrl-C is for pytest, which then stops the daemon
        )
    try:
        with Client(home, program="pytest") as client:
            _wait_until_ready(process, client, log)
            created = client.identities.create(name)
            client.identities.set_online(name)
            yield DaemonOfTests(name, created.id52, home, client)
    finally:
        _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], client: Client, log: Path) -> None:
    from fastn_p2p_client.errors import P2PError

    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(P2PError):
            if all(each.state == "ready" for each in client.status().processes):
                return
        time.sleep(0.05)
    pytest.fail(f"the daemon did not start:\n{log.read_text(errors='replace')}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
