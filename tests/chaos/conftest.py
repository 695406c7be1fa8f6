"""Two daemons, alice on one and bob on the other, and programs that keep calling."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.harness import Daemon

from .load import Load

StartLoad = Callable[..., Load]


class Couple(NamedTuple):
    """alice calls, bob echoes; each has a daemon of their own."""

    alice: Daemon
    bob: Daemon
    peer: str
    """ID52 of bob."""

    def side(self, name: str) -> Daemon:
        return {"alice": self.alice, "bob": self.bob}[name]

    def stop(self) -> None:
        """Both stop cleanly, and nothing of them is left: no process, no socket, no file that the next start would not
        expect."""
        for daemon in (self.alice, self.bob):
            assert daemon.stop() == 0
            daemon.clean_up()
            assert sorted(path.name for path in (daemon.home.path / "run").iterdir()) == ["network.port"]
            assert not daemon.home.control_socket.exists()
            if daemon.home.sockets != daemon.home.path:
                assert not daemon.home.sockets.exists()
            hosts = daemon.env["FASTN_HOST_DIRECTORY"]
        assert not list(Path(hosts).iterdir())


@pytest.fixture
def couple(pair: tuple[Daemon, Daemon]) -> Couple:
    alice, bob = pair
    alice.identity("alice", echo=False)
    return Couple(alice, bob, bob.identity("bob", config='{"max_length": 8000000}'))


@pytest.fixture
def start_load(couple: Couple) -> Iterator[StartLoad]:
    """Starts programs in which alice calls bob; each is calling with success when it is returned."""
    started: list[Load] = []

    def start(**order: Any) -> Load:
        load = Load(couple.alice, couple.peer, **order)
        started.append(load)
        load.goes_well()
        return load

    yield start
    for load in started:
        load.kill()
