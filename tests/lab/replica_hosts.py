"""An owner and two replicas of one identity, and two callers, each in a network of its own that can fail."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from fastn_p2p_client.ipc.messages import AddPeer, AddProtocol, GetTicket
from tests.lab.daemons import HostDaemon
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.support.counting_protocol import read_executions
from tests.support.daemons import CLI, eventually
from tests.support.joined_replicas import replicas_of
from tests.support.protocols import install_protocols
from tests.support.replicas import freeze, kill_all, thaw
from tests.support.shifted_clock import ShiftedClock

__all__ = ["FAILURES", "ReplicaHosts", "executed", "replica_hosts"]

FAILURES: Final = ("killed", "frozen", "unplugged", "silent")
"""``unplugged``: its link is down, which it notices. ``silent``: every packet is lost, while its link looks sound."""


class ReplicaHosts:
    """alice is online at ``daemons``, the owner's first; bob calls her from ``caller``, and carol from ``stranger``.

    Attributes:
        alice: ID52.
        clock: of all of them.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.clock = ShiftedClock(directory / "site")
        env = install_protocols(directory / "packages", Counting="tests.support.counting_protocol:Counting")
        env["PYTHONPATH"] = f"{self.clock.site}:{env['PYTHONPATH']}"
        lan = lab.lan()
        names = ("owner", "first", "second", "caller", "stranger")
        self._hosts = {name: lab.host(name, lan) for name in names}
        made = {name: host.daemon(network="lan", **env) for name, host in self._hosts.items()}
        self.daemons = [made[name] for name in names[:3]]
        self.caller, self.stranger = made["caller"], made["stranger"]
        self.alice = ""

    def start(self) -> None:
        """Start all, and have both replicas join."""
        everyone = (*self.daemons, self.caller, self.stranger)
        for each in everyone:
            each.launch()
        for each in everyone:
            assert each.wait_ready(), each.report()
        owner = self.daemons[0]
        self.alice = owner.identity("alice", echo=False)
        for daemon, name in ((self.caller, "bob"), (self.stranger, "carol")):
            daemon.identity(name, echo=False)
        with ThreadPoolExecutor() as threads:
            names = [f"replica-{number}" for number in range(len(self.daemons) - 1)]
            list(threads.map(_join, itertools.repeat(owner), self.daemons[1:], names))
        for each in self.daemons:
            with each.client() as client:
                client.control(AddProtocol("alice", "Counting", "default", ("everyone",)))
        self.wait_joined()
        with owner.client() as client:
            ticket = client.control(GetTicket("alice")).ticket
        for each in (self.caller, self.stranger):
            with each.client() as client:
                client.control(AddPeer(ticket, "alice"))

    def wait_joined(self) -> None:
        """Wait until all daemons are in the record."""
        owner, replicas = self.daemons[0], len(self.daemons) - 1
        eventually(lambda: [each.state for each in replicas_of(owner)] == ["online"] * replicas, "all talk again")

    def start_cold(self) -> None:
        """Start the stranger again. It has no connection, and has forgotten with whom it had one."""
        self.stranger.stop()
        shutil.rmtree(self.stranger.home.path / "run")
        self.stranger.start()

    @asynccontextmanager
    async def failing(self, how: str, *daemons: HostDaemon) -> AsyncIterator[None]:
        """Take daemons away meanwhile."""
        of_daemon = {host.directory: host for host in self._hosts.values()}
        hosts = {each: of_daemon[each.home.path.parent] for each in daemons}
        await asyncio.gather(*(asyncio.to_thread(_begin, *each, how) for each in hosts.items()))
        try:
            yield
        finally:
            await asyncio.gather(*(asyncio.to_thread(_end, *each, how) for each in hosts.items()))


def _begin(daemon: HostDaemon, host: Host, how: str) -> None:
    if how == "killed":
        kill_all(daemon)
    elif how == "frozen":
        freeze(daemon)
    elif how == "unplugged":
        host.link(False)
    else:
        host.silence()


def _end(daemon: HostDaemon, host: Host, how: str) -> None:
    if how == "killed":
        daemon.start()
    elif how == "frozen":
        thaw(daemon)
    elif how == "unplugged":
        host.link(True)
    else:
        host.silence(False)


def executed(daemon: HostDaemon) -> list[int]:
    """Return the numbers that a daemon has executed."""
    return [number for number, _ in read_executions(daemon.home.path)]


@contextmanager
def replica_hosts(directory: Path) -> Iterator[ReplicaHosts]:
    """Start the five daemons."""
    with Lab() as lab:
        hosts = ReplicaHosts(lab, directory)
        try:
            hosts.start()
            yield hosts
        finally:
            with ThreadPoolExecutor() as threads:
                list(threads.map(thaw, hosts.daemons))


def _join(owner: HostDaemon, replica: HostDaemon, name: str) -> None:
    """Join as owners do, by the two commands."""
    command = [*owner._prefix, *CLI, "replica", "invite", "alice", "--name", name, "--json"]
    with subprocess.Popen(command, env=owner.env, stdout=subprocess.PIPE, text=True) as invite:
        assert invite.stdout is not None
        words = json.loads(invite.stdout.readline())["words"].split()
        done = replica.cli("replica", "join", *words, "--json")
        assert done.returncode == 0, done.stderr
        assert invite.wait() == 0
