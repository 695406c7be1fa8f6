"""Two daemons that the modules of one folder use one after the other, each as if they had just started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.ipc import messages as m
from tests.support.daemons import Daemon, eventually
from tests.support.two_daemons import TwoDaemons, idle, start_two_daemons

SHARED_BY_FOLDER = ("tests/e2e/calls", "tests/e2e/programs", "tests/e2e/sessions", "tests/e2e/workers")
"""Folders whose modules use the same daemons. They run in one process, in their order."""


class SharedDaemons:
    """Lends two daemons to one module at a time. Daemons that cannot be put back are replaced by new ones."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self._daemons: TwoDaemons | None = None
        self._at_start: list[object] = []
        self._env: list[dict[str, str]] = []

    def lend(self) -> TwoDaemons:
        """Return two daemons in the state in which ``start_two_daemons`` leaves them."""
        if self._daemons is None:
            self._daemons = self._running.enter_context(start_two_daemons())
            self._at_start = [_state(each) for each in self._both()]
            self._env = [dict(each.env) for each in self._both()]
        return self._daemons

    def clean_up(self) -> None:
        """Remove what the module has added. End the daemons if they are not as they were then."""
        try:
            for daemon, name, env in zip(self._both(), ("alice", "bob"), self._env, strict=True):
                _remove_additions(daemon, name)
                daemon.env = dict(env)
            if [_state(each) for each in self._both()] == self._at_start:
                for each in self._both():
                    eventually(lambda each=each: idle(each), "nothing is in flight", 5)  # type: ignore[misc]
                return
        except (AssertionError, P2PError, ValueError, OSError) as error:
            print("these daemons are not used again:", error)
        self.close()

    def close(self) -> None:
        """End the daemons, if any run."""
        self._daemons = None
        self._running.close()

    def _both(self) -> tuple[Daemon, Daemon]:
        assert self._daemons is not None
        return self._daemons.one, self._daemons.two


def _state(daemon: Daemon) -> object:
    """Return the state that a module may have changed: processes, files of identities and peers, settings."""
    status = daemon.status()
    own = status.identities
    assert all(each.state == "ready" for each in status.processes)
    files = [*daemon.home.identities.rglob("*.json"), *daemon.home.peers.rglob("[!.]*.json"), daemon.home.config_file]
    return (
        {each.name: (each.pid, each.restarts) for each in status.processes},
        {str(file): file.read_bytes() for file in files if file.exists()},
        [
            (each.name, each.online, sorted((of.protocol, of.instance, of.state) for of in each.bindings))
            for each in own
        ],
    )


def _remove_additions(daemon: Daemon, name: str) -> None:
    """Remove identities beside ``name``, peers, groups, and bindings that it did not have at first."""
    with daemon.client() as client:
        for each in client.control(m.ListIdentities()).identities:
            if each.name != name:
                client.control(m.DeleteIdentity(each.name))
        for peer in client.control(m.ListPeers()).peers:
            client.control(m.RemovePeer(peer.name))
        for group in client.control(m.ListGroups()).groups:
            client.control(m.DeleteGroup(group.name))
        for blocked in client.control(m.ListBlocked()).blocked:
            client.control(m.UnblockPeer(blocked.id52))
        (own,) = daemon.status().identities
        for binding in own.bindings:
            if (binding.protocol, binding.instance) not in FIRST_BINDINGS:
                client.control(m.RemoveProtocol(name, binding.protocol, binding.instance))


FIRST_BINDINGS = {("Trial", "default"), *(("Echo", each) for each in ("default", "short", "large", "private"))}


@pytest.fixture(scope="package")
def shared_daemons() -> Iterator[SharedDaemons]:
    shared = SharedDaemons()
    yield shared
    shared.close()
