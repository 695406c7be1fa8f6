"""Two daemons, alice on one and bob on the other, and programs that keep calling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.support.daemons import Daemon

from .load import Load

StartLoad = Callable[..., Load]


class Daemons(NamedTuple):
    """alice calls, bob echoes; each has a daemon of their own."""

    alice: Daemon
    bob: Daemon
    hosts: Path
    peer: str
    """ID52 of bob."""

    def side(self, name: str) -> Daemon:
        return {"alice": self.alice, "bob": self.bob}[name]

    def stop(self) -> None:
        """Stop both daemons cleanly. Assert that no process, no socket and no unwanted file is left."""
        for daemon in (self.alice, self.bob):
            assert daemon.stop() == 0, daemon.report()
            daemon.clean_up()
            assert {path.name for path in (daemon.home.path / "run").iterdir()} <= KEPT_IN_RUN
            assert not daemon.home.control_socket.exists()
            assert daemon.home.sockets == daemon.home.path or not daemon.home.sockets.exists()
        assert not list(self.hosts.iterdir())


KEPT_IN_RUN: Final = {"network.port", "time", "last-exit.json", "previous-exit.json", "neighbours.json"}
"""Files of ``run/`` that the next start wants: the UDP port, when the daemon ran last, how it ended, and with
which peers it was connected."""


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    """Two daemons, shared by the tests of a module. Each test leaves them running and unharmed."""
    place = tmp_path_factory.mktemp("couple")
    # The variable is one that developers have set, and that a process full of Rust must not follow.
    alice, bob = (Daemon(place / name, place / "hosts", RUST_BACKTRACE="1") for name in ("one", "two"))
    try:
        alice.launch()
        bob.start()
        assert alice.wait_ready(), alice.report()
        alice.identity("alice", echo=False)
        daemons = Daemons(alice, bob, place / "hosts", bob.identity("bob", config='{"max_length": 8000000}'))
        yield daemons
        daemons.stop()
    finally:
        alice.clean_up()
        bob.clean_up()


@pytest.fixture
def start_load(daemons: Daemons) -> Iterator[StartLoad]:
    """Starts programs in which alice calls bob; each is calling with success when it is returned."""
    started: list[Load] = []

    def start(**order: Any) -> Load:
        load = Load(daemons.alice, daemons.peer, **order)
        started.append(load)
        load.assert_calls_succeed()
        return load

    yield start
    for load in started:
        load.kill()
