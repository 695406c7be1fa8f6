"""Three daemons: alice's owner, a replica of alice that has joined, and a caller."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastn_p2p_actors.pairing.code import new_code
from fastn_p2p_actors.pairing.host import PairingHost
from fastn_p2p_actors.pairing.joiner import PairingJoiner
from fastn_p2p_actors.pairing.rendezvous import NetworkUse
from fastn_p2p_actors.pairing.replica_books import ReplicaInviteBook, ReplicaJoinBook
from fastn_p2p_client.ipc.messages import AddPeer, ListReplicas, ReplicaInfo
from tests.support.daemons import Daemon, eventually
from tests.support.protocols import install_protocols
from tests.support.replicas import thaw

__all__ = ["JoinedReplicas", "join_replica", "new_joined_replicas", "replicas_of"]

_USE = NetworkUse(mode="local")


@dataclass
class JoinedReplicas:
    """alice is online at ``owner`` and, as a replica, at ``replica``. bob is online at ``caller``."""

    caller: Daemon
    owner: Daemon
    replica: Daemon
    alice: str
    """ID52."""


def replicas_of(daemon: Daemon) -> list[ReplicaInfo]:
    """Return what ``fastn-p2p replica list`` shows."""
    with daemon.client() as client:
        return client.control(ListReplicas()).replicas


def join_replica(owner: Daemon, replica: Daemon, *, identity: str = "alice", name: str = "second") -> None:
    """Have a daemon join an identity as a replica, and wait until that is online there and in the record."""

    async def join() -> None:
        code, shown = new_code(), asyncio.Event()
        host = PairingHost(
            owner.home,
            _USE,
            code,
            identity=identity,
            name="",
            seconds=60.0,
            rival_wait=0.0,
            book=ReplicaInviteBook(owner.home, name),
        )
        hosting = asyncio.create_task(host.run(lambda *_: shown.set()))
        await asyncio.wait([hosting, asyncio.create_task(shown.wait())], return_when=asyncio.FIRST_COMPLETED)
        book = ReplicaJoinBook(replica.home, "")
        joiner = PairingJoiner(replica.home, _USE, code, identity="", name="", seconds=60.0, book=book)
        await asyncio.gather(hosting, joiner.run())
        assert not book.problem, book.problem

    asyncio.run(join())
    eventually(lambda: any(each.state == "online" for each in replicas_of(owner)), "the replica is in the record")


@contextmanager
def new_joined_replicas(**protocols: str) -> Iterator[JoinedReplicas]:
    """Start the three daemons. They find each other by ID52, and have the ``protocols`` (name → module:class)."""
    with tempfile.TemporaryDirectory(prefix="fastn-", dir="/tmp") as name:
        directory = Path(name)
        env = install_protocols(directory / "packages", **protocols) if protocols else {}
        caller, owner, replica = (
            Daemon(directory / each, directory / "hosts", **env) for each in ("caller", "own", "joined")
        )
        try:
            for each in (caller, owner, replica):
                each.launch()
            for each in (caller, owner, replica):
                assert each.wait_ready(), each.report()
            alice = owner.identity("alice")
            caller.identity("bob")
            join_replica(owner, replica)
            with caller.client() as client:
                client.control(AddPeer(alice, "alice"))
            yield JoinedReplicas(caller, owner, replica, alice)
        finally:
            for each in (caller, owner, replica):
                thaw(each)
                each.clean_up()
