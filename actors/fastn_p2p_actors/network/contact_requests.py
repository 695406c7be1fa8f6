"""Requests of the gateway about contacts: strangers that were refused, blocked identities, groups, and access."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from fastn_p2p_client.errors import ConnectionLost, InvalidName, PeerBlocked, PeerNameUnknown
from fastn_p2p_client.ipc.messages import (
    AccessEntry,
    Ack,
    BlockedList,
    GroupList,
    Message,
    PeerInfo,
    PeerReply,
    PendingPeerList,
)
from fastn_p2p_client.keys import ID52_LENGTH, PublicKey, id52_of
from fastn_p2p_client.peer_text import name_or_id52

from ..runtime.time_slices import in_time_slices
from .address_book import AddressBook, AddressBookEntry
from .admin_messages import (
    AccessEvaluation,
    ContactRequest,
    EvaluateAccess,
    GetBlocked,
    GetGroups,
    GetPendingPeers,
    ReplacePeer,
    SetBlocked,
    SetMembers,
)
from .connections.connection import PeerConnection
from .connections.pool import ConnectionPool
from .connections.proven_identities import IntroductionRegistry
from .contacts.block_list import BlockList
from .contacts.pending_peers import PendingPeers
from .serving.access_list import AccessList
from .serving.registry import Registry
from .sessions.revocation import SessionRevocation
from .waiting_items import WaitingItems
from .wire.messages import CLOSE_SHUTDOWN

MAX_WAIT: Final = 30.0
"""Seconds that a long poll may take."""


class ContactRequests:
    """Answers them. Each change is on disk and in effect when its request is answered.

    Attributes:
        warnings: files that cannot be used, for ``status``.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        book: AddressBook,
        pending: PendingPeers,
        blocked: BlockList,
        introductions: IntroductionRegistry[PeerConnection],
        pool: ConnectionPool,
        revocation: SessionRevocation,
        waiting: WaitingItems,
    ) -> None:
        self._registry = registry
        self._book = book
        self.pending = pending
        self.blocked = blocked
        self._introductions = introductions
        self._pool = pool
        self._revocation = revocation
        self._waiting = waiting
        self.warnings: list[str] = []
        self._changed = asyncio.Event()
        pending.on_change = self._on_pending

    def load(self) -> None:
        """Read the files. May run in a thread."""
        self.warnings = list(filter(None, (self.pending.load(), self.blocked.load())))

    async def handle(self, message: ContactRequest) -> Message:
        """Carry out one request and return the reply.

        Raises:
            P2PError: the request's own errors.
        """
        if isinstance(message, GetPendingPeers):
            return await self._get_pending(message)
        if isinstance(message, SetBlocked):
            return await self._set_blocked(message)
        if isinstance(message, GetBlocked):
            return BlockedList(self.blocked.infos(self._book.name_of))
        if isinstance(message, GetGroups):
            return GroupList(self._book.groups.infos(self._book.name_of))
        if isinstance(message, EvaluateAccess):
            return self._evaluate(message)
        if isinstance(message, ReplacePeer):
            return await self._replace(message.name, prepare=message.prepare)
        if isinstance(message, SetMembers):
            add, remove = ([self._key_of(peer) for peer in peers] for peers in (message.add, message.remove))
            self._book.groups.change(message.name, add, remove)
        elif message.exists:
            self._book.groups.create(message.name)
        else:
            self._book.groups.delete(message.name)
        await self._revocation.access_changed()
        return Ack()

    def on_added(self, peer: AddressBookEntry) -> None:
        """A peer was added to the address book: it is no stranger, and its daemon is not refused."""
        key = bytes(peer.key)
        self.pending.remove(key)
        if key not in self.blocked:
            for endpoint in peer.records.endpoint_keys():
                self.blocked.release_endpoint(endpoint)

    def remove(self, name: str) -> None:
        """Remove a peer from the address book and from its groups, and take back what invitations have given it.

        Raises:
            PeerNameUnknown: there is no such petname.
            StorageFailed: a file cannot be written. The peer keeps its entry or loses it, and has lost the permissions.
        """
        key = self._key_of(name)
        peer = self._book.by_key(key)
        if peer is not None:
            self._book.invitations.remove_bearer(key)
            name = peer.name
        self._book.remove(name)
        if peer is not None:
            self._book.groups.remove_member(key)

    def _key_of(self, peer: str) -> bytes:
        """Return the key of the peer that a text names (see ``peer_text``).

        Raises:
            PeerNameUnknown: there is no such petname.
            InvalidKey, InvalidTicket, InvalidName: the text is wrong.
        """
        peer = name_or_id52(peer)
        entry = self._book.by_name(peer)
        if entry is not None:
            return bytes(entry.key)
        if len(peer) < ID52_LENGTH - 12:  # a name, not a mistyped ID52
            blocked = self.blocked.find_by_name(peer)
            if blocked is None:
                raise PeerNameUnknown(name=peer)
            return blocked
        return bytes(PublicKey(peer))

    # ── strangers ────────────────────────────────────────────────────────────────────────────────

    def _on_pending(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._waiting.changed()

    async def _get_pending(self, message: GetPendingPeers) -> PendingPeerList:
        seconds = min(message.wait_ms / 1000, MAX_WAIT)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if seconds > 0 else 0):
                while message.seen == self.pending.revision and seconds > 0:
                    await self._changed.wait()
        return PendingPeerList(self.pending.revision, self.pending.infos())

    # ── blocked identities ───────────────────────────────────────────────────────────────────────

    async def _set_blocked(self, message: SetBlocked) -> PeerReply:
        key = self._key_of(message.peer)
        name = self._book.name_of(key)
        if not message.blocked:
            if self.blocked.remove(key):
                async for connection in in_time_slices(self._pool.all()):
                    if not connection.closed:
                        connection.identities.request_refused()
        else:
            own = self._registry.by_key(key)
            if own is not None:
                raise InvalidName(
                    name=message.peer, what="a peer to block", reason=f"it is {own.name}, an identity of this daemon"
                )
            self.blocked.add(key, name)
            self.pending.remove(key)
            await self._disconnect(key)
        return PeerReply(PeerInfo(name=name, id52=id52_of(key), endpoints=0, added=""))

    async def _disconnect(self, key: bytes) -> None:
        """End the calls, the sessions and, unless others speak over them, the connections of a blocked identity."""
        error = PeerBlocked(peer=self._book.name_of(key) or id52_of(key))
        for proven in list(self._introductions.at(key)):
            others = [identity for identity in proven.until if identity not in self.blocked]
            connections = [each for each in self._pool.all() if each.introductions is proven]
            for connection in connections:
                connection.requests.end_identity(key, error)
                connection.identities.note_refused(key)
                if not others:
                    self.blocked.add_endpoint(key, connection.endpoint)
            proven.remove(key)
            if not others:
                for connection in connections:
                    connection.close(CLOSE_SHUTDOWN, "")
        await self._revocation.identity_ended(key, ConnectionLost(what="the session: its peer was blocked"))

    # ── successors ───────────────────────────────────────────────────────────────────────────────

    async def _replace(self, name: str, *, prepare: bool) -> PeerReply:
        """Replace the key of a revoked peer by that of its successor.

        Blocking comes first and the address book last, so that a crash in between admits nobody whom the owner has
        blocked, and the command can be repeated.
        """
        key = self._key_of(name)
        entry = self._book.by_key(key)
        if entry is None:
            raise PeerNameUnknown(name=name)
        name = entry.name
        known = self._book.revocations.get(key)
        if known is None:
            raise InvalidName(name=name, what="a revoked peer", reason="this peer is not revoked")
        successor = known.revocation.successor
        if not successor:
            raise self._book.revocations.error(known, name)
        self._book.revocations.check(successor, name)
        if key in self.blocked:
            self.blocked.add(successor, name)
            await self._disconnect(successor)
        if prepare:
            return PeerReply(entry.info(revoked=known))
        self._book.groups.replace_member(key, successor)
        self._book.invitations.replace_bearer(key, successor)
        peer = self._book.replace_key(name, PublicKey(successor))
        self.on_added(peer)
        await self._revocation.access_changed()
        return PeerReply(peer.info(), peer.renamed_from)

    # ── access ───────────────────────────────────────────────────────────────────────────────────

    def _evaluate(self, message: EvaluateAccess) -> AccessEvaluation:
        bindings = message.bindings or (None,) * len(message.lists)
        lists = [
            AccessList(allow, self._book, self._registry, binding)
            for allow, binding in zip(message.lists, bindings, strict=True)
        ]
        if not message.peer:
            return AccessEvaluation([each.entries() for each in lists])
        key = self._key_of(message.peer)
        return AccessEvaluation([[self._about(each, key)] for each in lists])

    def _about(self, access: AccessList, key: bytes) -> AccessEntry:
        """Return the entry about one peer. Being blocked comes before every access list."""
        why = access.entry_for(key)
        problem = "" if access.admits(key) else "no entry admits it"
        if key in self.blocked:
            why, problem = "", "it is blocked"
        elif key in self._book.revocations:
            why, problem = "", "it was revoked"
        elif not why and not problem:
            why = "peers"  # an identity of this daemon
        return AccessEntry(who=self._book.name_of(key) or id52_of(key), why=why, id52=id52_of(key), problem=problem)
