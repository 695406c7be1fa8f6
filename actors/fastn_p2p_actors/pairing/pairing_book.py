"""Address book of the daemon, as a pairing uses it: own identity, the peer's entry, and its removal again."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from fastn_p2p_client.client import Client
from fastn_p2p_client.control_client import list_all_identities, list_all_peers
from fastn_p2p_client.errors import InvalidTicket, P2PError, PeerBlocked, PeerNameTaken, RecordReplayed
from fastn_p2p_client.home import Home
from fastn_p2p_client.ipc.messages import AddPeer, GetAccess, GetTicket, IdentityInfo, ListBlocked, PeerInfo, RemovePeer
from fastn_p2p_client.names import check_name
from fastn_p2p_client.tickets import Ticket

from .pairing_errors import NameInUse, SameIdentity

_WORDS_OF_ACCESS_LISTS = ("everyone", "peers")


@dataclass(frozen=True)
class OwnIdentity:
    """Identity that is paired. ``name`` is what its owner calls it."""

    name: str
    ticket: Ticket

    @property
    def id52(self) -> str:
        return self.ticket.identity.id52


@dataclass(frozen=True)
class StoredPeer:
    """Entry that the pairing has made."""

    name: str
    id52: str
    renamed_from: str
    """Name of the same peer before; empty if it had this one, or was not known."""
    is_new: bool
    """True if the peer was not in the address book."""
    was_invited: bool = False
    """True if it is a bearer of an invitation, and no peer like others until ``confirm``."""


class PairingBook:
    """Requests to the daemon of ``home``.

    Args:
        name: petname for the peer; empty for the name that its owner gave it.

    Raises:
        InvalidName: no peer can have this name.
    """

    purpose = ""

    def __init__(self, home: Home, name: str) -> None:
        self._home = home
        self._name = check_name(name, "a peer") if name else ""

    async def own_identity(self, identity: str) -> OwnIdentity:
        """Return the identity with a fresh ticket.

        Args:
            identity: its name; empty for the only one online.

        Raises:
            P2PError: it does not exist, is offline, or the daemon does not run.
        """
        async with self._client() as client:
            ticket = Ticket((await client.control(GetTicket(identity))).ticket)
        id52 = ticket.identity.id52
        name = identity or next((each.name for each in await self._identities() if each.id52 == id52), "")
        return OwnIdentity(name, ticket)

    def petname(self, of_owner: str) -> str:
        """Return the name under which the peer is stored. Raises InvalidName."""
        return check_name(self._name or of_owner, "a peer")

    async def check(self, own: OwnIdentity, of_owner: str, ticket: str) -> Ticket:
        """Return the peer's ticket if it can be stored.

        Raises:
            SameIdentity: it is the same identity.
            PeerNameTaken: another peer has the name.
            NameInUse: the name means something else here, and the own owner has not chosen it.
            PeerBlocked: the own owner has blocked the peer.
            InvalidName, InvalidTicket: what the peer says is wrong.
        """
        read = Ticket(ticket)
        if read.identity == own.ticket.identity:
            raise SameIdentity(id52=own.id52)
        id52 = read.identity.id52
        async with self._client() as client:
            blocked = (await client.control(ListBlocked())).blocked
        for each in blocked:
            if each.id52 == id52:
                raise PeerBlocked(peer=each.name or id52)
        name = self.petname(of_owner)
        holder = next((peer for peer in await self._peers() if peer.name == name), None)
        if holder is not None and holder.id52 != id52:
            raise PeerNameTaken(name=name)
        if holder is None and not self._name and (use := await self._other_use(name, id52)):
            raise NameInUse(name=name, use=use)
        return read

    async def _other_use(self, name: str, id52: str) -> str:
        """Return for what else than a peer with this ID52 a name stands; empty for nothing.

        A peer that chooses its name must get neither the calls to an identity of this daemon, nor the access of a peer
        that was removed and is still in access lists.
        """
        if name in _WORDS_OF_ACCESS_LISTS:
            return "a word of access lists"
        if any(each.name == name and each.id52 != id52 for each in await self._identities()):
            return "an identity of this daemon"
        async with self._client() as client:
            bindings = (await client.control(GetAccess())).bindings
        lists = [f"{each.identity}/{each.protocol}/{each.instance}" for each in bindings if name in each.allow]
        return f"in the access list of {', '.join(lists)}" if lists else ""

    async def store(self, own: OwnIdentity, of_owner: str, ticket: Ticket) -> StoredPeer:
        """Add the peer, or update it. If this is cancelled, the address book is as before.

        Raises:
            P2PError: the daemon refuses it.
        """
        storing = asyncio.ensure_future(self._store(own, of_owner, ticket))
        try:
            return await asyncio.shield(storing)
        except asyncio.CancelledError:  # the daemon completes what it was asked for
            with contextlib.suppress(P2PError):
                await self.undo(await storing)
            raise

    async def _store(self, own: OwnIdentity, of_owner: str, ticket: Ticket) -> StoredPeer:
        name = self.petname(of_owner)
        id52 = ticket.identity.id52
        known = next((peer for peer in await self._peers() if peer.id52 == id52), None)
        was_invited = known is not None and known.invited
        paired_with = "" if was_invited else own.name
        async with self._client() as client:
            try:
                reply = await client.control(AddPeer(str(ticket), name, paired_with))
            except RecordReplayed:  # another source had a newer record meanwhile, and the daemon keeps that one
                reply = await client.control(AddPeer(id52, name, paired_with))
        if reply.peer.id52 != id52:
            raise InvalidTicket(reason="it is another identity's")
        return StoredPeer(name, id52, reply.renamed_from, known is None, was_invited)

    async def complete(self, own: OwnIdentity, stored: StoredPeer) -> None:
        """Make a bearer of an invitation a peer like others, because both sides have stored each other.

        Not before: an entry that was made a peer cannot be made a bearer again. Raises P2PError.
        """
        if stored.was_invited:
            async with self._client() as client:
                await client.control(AddPeer(stored.id52, stored.name, own.name))

    async def undo(self, stored: StoredPeer) -> None:
        """Make the address book as it was. A newer record of a peer that was known already is kept."""
        async with self._client() as client:
            if stored.is_new:
                await client.control(RemovePeer(stored.name))
            elif stored.renamed_from:
                await client.control(AddPeer(stored.id52, stored.renamed_from))

    async def _identities(self) -> list[IdentityInfo]:
        async with self._client() as client:
            return await list_all_identities(client)

    async def _peers(self) -> list[PeerInfo]:
        async with self._client() as client:
            return await list_all_peers(client)

    def _client(self) -> Client:
        return Client(self._home.path, program="fastn-p2p pair")


def reason_for_peer(error: P2PError) -> str:
    """Return the reason for which this side cannot store the other, in words for the peer's owner."""
    if isinstance(error, PeerBlocked):
        return "it does not say why"
    if isinstance(error, NameInUse):
        return "its owner has to choose a name for this identity: --name NAME"
    if isinstance(error, PeerNameTaken):
        return f"its address book has another peer named {error.name!r}. Its owner can choose a name: --name NAME"
    return str(error)
