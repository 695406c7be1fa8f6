"""Replica books: both sides of ``fastn-p2p replica``, by which another daemon joins an identity.

The owner's side has its vault enrol the endpoint of the other daemon. The joining side stores where the owner's daemon
is. The key of the identity is in neither message.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from fastn_p2p_client.client import Client
from fastn_p2p_client.control_client import list_all_identities
from fastn_p2p_client.errors import BadMessage, IdentityElsewhere, IdentityExists, P2PError
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import (
    AddReplica,
    GetStatus,
    JoinIdentity,
    ListReplicas,
    RemoveJoined,
    RemoveReplica,
    SetIdentityOnline,
)
from fastn_p2p_client.names import check_name
from fastn_p2p_client.tickets import Ticket

from ..runtime.machine_name import machine_name
from .pairing_book import PairingBook, StoredPeer

PURPOSE: Final = " replica"
_AT: Final = "@"


@dataclass(frozen=True)
class OwnDaemon:
    """Statement of one side about itself: a name, and the text of a ticket or an endpoint."""

    name: str
    ticket: str
    id52: str = ""


class ReplicaInviteBook:
    """Owner's side: an identity of the daemon of ``home`` gets a replica.

    Args:
        name: name for the other daemon; empty for the name of its machine.

    Raises:
        InvalidName: no replica can have this name.
    """

    purpose = PURPOSE

    def __init__(self, home: Home, name: str) -> None:
        self._home = home
        self._identity = ""
        self._name = check_name(name, "a replica") if name else ""
        self._peers = PairingBook(home, "")

    async def own_identity(self, identity: str) -> OwnDaemon:
        """Return the identity with a fresh ticket. Raises P2PError if it is not online, or its key is elsewhere."""
        found = await self._peers.own_identity(identity.partition(_AT)[0])
        async with self._client() as client:
            for each in await list_all_identities(client):
                if each.name == found.name and each.owner:
                    raise IdentityElsewhere(identity=each.name, owner=each.owner, what="adding a replica")
        self._identity = found.name
        return OwnDaemon(f"{found.name}{_AT}{machine_name()}", str(found.ticket), found.id52)

    async def check(self, own: OwnDaemon, of_owner: str, ticket: str) -> str:
        """Return the endpoint of the other daemon. Raises BadMessage or InvalidName."""
        if re.fullmatch("[0-9a-f]{64}", ticket) is None:
            raise BadMessage(reason="a replica without an endpoint")
        check_name(self._name or of_owner, "a replica")
        async with self._client() as client:
            if (await client.control(GetStatus(1))).status.endpoint == ticket:
                raise IdentityExists(identity=self._identity)
        return ticket

    async def store(self, own: OwnDaemon, of_owner: str, ticket: str) -> StoredPeer:
        """Have the vault enrol the other daemon. If this is cancelled, it is not enrolled."""
        return await _store_or_undo(self._store(of_owner, ticket), self.undo)

    async def _store(self, of_owner: str, endpoint: str) -> StoredPeer:
        async with self._client() as client:
            added = await client.control(AddReplica(self._identity, endpoint, self._name or of_owner))
        replica = next(each for each in added.replicas if each.state != "removed")
        return StoredPeer(replica.name, endpoint, "", is_new=True)

    async def complete(self, own: OwnDaemon, stored: StoredPeer) -> None:
        """Nothing is left to do."""

    async def undo(self, stored: StoredPeer) -> None:
        """Remove the enrolment, and retire what was signed."""
        async with self._client() as client:
            await client.control(RemoveReplica(self._identity, stored.name, now=True))

    def _client(self) -> Client:
        return Client(self._home.path, program="fastn-p2p replica invite")


class ReplicaJoinBook:
    """Joining side: the daemon of ``home`` becomes a replica.

    Args:
        name: name of the identity here; empty for its name at the owner's daemon.

    Attributes:
        problem: reason for which the identity is not online yet; empty if it is.

    Raises:
        InvalidName: no identity can have this name.
    """

    purpose = PURPOSE

    def __init__(self, home: Home, name: str) -> None:
        self._home = home
        self._name = check_name(name, "an identity") if name else ""
        self.problem = ""

    async def own_identity(self, identity: str) -> OwnDaemon:
        """Return the endpoint of this daemon. Raises P2PError if the daemon does not run."""
        async with self._client() as client:
            return OwnDaemon(machine_name(), (await client.control(GetStatus(1))).status.endpoint)

    async def check(self, own: OwnDaemon, of_owner: str, ticket: str) -> Ticket:
        """Return the ticket of the identity. Raises IdentityExists if it has a name of another one here."""
        read, name = Ticket(ticket), self._name_for(of_owner)
        async with self._client() as client:
            for each in await list_all_identities(client):
                if each.name == name and (not each.owner or each.id52 != read.identity.id52):
                    raise IdentityExists(identity=name)
        return read

    async def store(self, own: OwnDaemon, of_owner: str, ticket: Ticket) -> StoredPeer:
        """Join the identity. If this is cancelled, it is not joined."""
        return await _store_or_undo(self._store(of_owner, ticket), self.undo)

    async def _store(self, of_owner: str, ticket: Ticket) -> StoredPeer:
        name = self._name_for(of_owner)
        owner = of_owner.partition(_AT)[2]
        async with self._client() as client:
            joined = (await client.control(JoinIdentity(name, str(ticket), owner))).identity
        return StoredPeer(joined.name, joined.id52, "", is_new=True)

    async def complete(self, own: OwnDaemon, stored: StoredPeer) -> None:
        """Bring the identity online. ``problem`` says why it is not: then it comes online by itself later."""
        async with self._client() as client:
            try:
                await client.control(SetIdentityOnline(stored.name, True))
                for each in (await client.control(ListReplicas(stored.name))).replicas:
                    if not each.until:
                        self.problem = each.problem or "it has not answered yet"
            except P2PError as error:
                self.problem = str(error)

    async def undo(self, stored: StoredPeer) -> None:
        """End what ``store`` has begun."""
        async with self._client() as client:
            await client.control(RemoveJoined(stored.name))

    def _name_for(self, of_owner: str) -> str:
        return self._name or check_name(of_owner.partition(_AT)[0], "an identity")

    def _client(self) -> Client:
        return Client(self._home.path, program="fastn-p2p replica join")


async def _store_or_undo(
    store: Coroutine[Any, Any, StoredPeer], undo: Callable[[StoredPeer], Awaitable[None]]
) -> StoredPeer:
    """Return what was stored. If this is cancelled, undo it."""
    storing = asyncio.ensure_future(store)
    try:
        return await asyncio.shield(storing)
    except asyncio.CancelledError:
        with contextlib.suppress(P2PError):
            await undo(await storing)
        raise
