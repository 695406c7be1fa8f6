"""The way to a peer: from what a program calls it to a connection over which it has been proved to speak."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    CredentialError,
    P2PError,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import MAX_NAME
from fastn_p2p_client.tickets import Ticket

from ...credentials import (
    Delegation,
    PeerRecord,
    check_validity,
    read_record,
    verify_delegation,
    verify_record,
)
from ..address_book import AddressBook
from ..connections.connection import PeerConnection
from ..connections.pool import ConnectionPool
from ..connections.proven_identities import IntroductionRegistry
from .resolver import (
    Candidate,
    Resolver,
    resolve_candidates,
)
from .search import Search

__all__ = ["PeerRouter", "display_name"]

_PROOF_TIMEOUT: Final = 5.0
_MAX_NAMES_CACHED: Final = 4096


class PeerRouter:
    """Which connection leads to which identity. ``pool`` is set once there is one.

    Args:
        own: the key of this daemon's online identity of a name.
    """

    def __init__(
        self,
        book: AddressBook,
        resolvers: Sequence[Resolver],
        wall: Callable[[], float],
        introductions: IntroductionRegistry,
        own: Callable[[str], bytes | None] = lambda _: None,
    ) -> None:
        self._book = book
        self._own = own
        self._resolvers = resolvers
        self._wall = wall
        self._introductions = introductions
        self.pool: ConnectionPool | None = None
        self._keys: dict[str, bytes] = {}
        self._keys_generation = -1
        self._seen: dict[bytes, float] = {}
        """When a peer of the book was last connected: Unix time."""
        self._unreachable: set[bytes] = set()
        """Peers of the book that the last attempt did not reach."""
        introductions.on_removed = self._left

    def reach_of(self, target: bytes) -> tuple[str, int]:
        """Return how a peer of the book is reached (see ``PeerInfo``), and when it was last connected, in
        milliseconds."""
        if self.open_to(target) is not None:
            self._note(target, reached=True)
        seen = int(self._seen.get(target, 0.0) * 1000)
        if target in self._unreachable:
            return "unreachable", seen
        return ("connected" if self.open_to(target) is not None else ""), seen

    def _left(self, identity: bytes) -> None:
        if self._book.by_key(identity) is not None:
            self._seen[identity] = self._wall()

    def _note(self, target: bytes, *, reached: bool) -> None:
        """Bounded by the address book."""
        if self._book.by_key(target) is None:
            self._seen.pop(target, None)
            self._unreachable.discard(target)
        elif reached:
            self._seen[target] = self._wall()
            self._unreachable.discard(target)
        else:
            self._unreachable.add(target)

    def open_to(self, target: bytes) -> PeerConnection | None:
        """The connection over which ``target`` speaks at the moment, if there is one."""
        return self._introductions.route_to(target, self._wall())

    def parse_peer(self, peer: str) -> bytes:
        """The key of a peer that a program names: a petname, an ID52 or a ticket, or the name of an identity of this
        daemon that is online and no petname. The peer is known from now on.

        Raises:
            PeerUnknown, InvalidKey, InvalidTicket, or the CredentialError that says why the ticket does not hold.
        """
        if self._keys_generation != self._book.generation or len(self._keys) > _MAX_NAMES_CACHED:
            self._keys.clear()
            self._keys_generation = self._book.generation
        key = self._keys.get(peer)
        if key is None:
            own = self._own(peer)
            if own is not None and self._book.by_name(peer) is None:
                return own
            key = self._parse_peer(peer)
            self._book.known.add_called(key)
            if not Ticket.is_ticket(peer):  # a ticket ends some day
                self._keys[peer] = key
        return key

    def _parse_peer(self, peer: str) -> bytes:
        entry = self._book.by_name(peer)
        if entry is not None:
            return bytes(entry.key)
        if Ticket.is_ticket(peer):
            blob = Ticket(peer).record_bytes
            record = verify_record(blob, now=self._wall())
            self._book.note_record(record, blob)
            return bytes(record.identity)
        if len(peer) < 40:  # a name, not a mistyped ID52
            raise PeerUnknown(peer=peer)
        return bytes(PublicKey(peer))

    # ── reaching ─────────────────────────────────────────────────────────────────────────────────

    async def connect(self, target: bytes, peer: str, search: Search | None = None) -> PeerConnection:
        """A connection over which ``target`` has been proved to speak; ``peer`` is what the caller named it by.

        ``search`` is told what is tried.

        Raises:
            PeerUnknown: no resolver knows it.
            PeerOffline: it is an identity of this daemon.
            PeerUnreachable: with what was tried.
        """
        now = asyncio.get_running_loop().time
        search = search or Search(now())
        known = resolve_candidates(target, self._resolvers_for(peer))
        if not known:
            raise PeerUnknown(peer=display_name(target, peer))
        elsewhere = self._without_own_endpoint(known)
        for candidate in elsewhere:
            search.begin(candidate.address, now())
            try:
                connection = await self._try(target, candidate)
                if connection.closed:  # while this task waited for its turn
                    raise ConnectionLost(what="the connection to the peer")
            except P2PError as error:
                search.failed(getattr(error, "reason", "") or str(error), now())
                continue
            self.prefer(connection, target)
            return connection
        if not elsewhere:
            raise PeerOffline(peer=display_name(target, peer))
        self._note(target, reached=False)
        raise PeerUnreachable(peer=display_name(target, peer), reason=search.words(now()))

    def known(self, target: bytes, peer: str) -> list[Candidate]:
        """Other daemons' endpoints through which ``target`` may speak, as far as any resolver knows."""
        return self._without_own_endpoint(resolve_candidates(target, self._resolvers_for(peer)))

    def _resolvers_for(self, peer: str) -> list[Resolver]:
        return [_TicketResolver(peer), *self._resolvers] if Ticket.is_ticket(peer) else list(self._resolvers)

    def _without_own_endpoint(self, known: list[Candidate]) -> list[Candidate]:
        """Without our own endpoint: who speaks through that is an identity of this daemon."""
        own = self.pool.own_endpoint if self.pool is not None else b""
        return [candidate for candidate in known if candidate.address.endpoint != own]

    async def _try(self, target: bytes, candidate: Candidate) -> PeerConnection:
        if self.pool is None:
            raise PeerUnreachable(peer=PublicKey(target).id52, reason="the network process is stopping")
        connection = await self.pool.connect(candidate.address)
        # While this task waited for its turn, another one may have taken its place: both sides are to use the same.
        connection = self.pool.open_to(candidate.address.endpoint) or connection
        if connection.closed:
            raise ConnectionLost(what="the connection to the peer")
        delegation, now = candidate.delegation, self._wall()
        try:
            check_validity(delegation, now)
            self._book.epochs.observe(delegation.key, delegation.lineage, delegation.epoch)
            self._introductions.revoke_older(delegation)
            connection.introductions.add(delegation)
        except (CredentialError, BadMessage):
            if connection.introductions.is_proven(target, now):
                return connection
            try:
                async with asyncio.timeout(_PROOF_TIMEOUT):
                    await connection.request_introduction(target)
            except TimeoutError:
                raise PeerUnreachable(
                    peer=PublicKey(target).id52, reason="its endpoint no longer speaks for it"
                ) from None
        return connection

    # ── what connections tell ────────────────────────────────────────────────────────────────────

    def check_introduction(self, connection: PeerConnection, blob: bytes) -> Delegation:
        """A peer's identity shows itself over a connection. Raises CredentialError or BadMessage."""
        delegation = verify_delegation(blob, now=self._wall(), endpoint=connection.endpoint, epochs=self._book.epochs)
        self._introductions.revoke_older(delegation)
        return delegation

    def prefer(self, connection: PeerConnection, target: bytes) -> None:
        """``target`` has just shown itself over it: calls from now on take the way to that endpoint."""
        self._introductions.prefer(connection.introductions, target)
        self._note(target, reached=True)


def display_name(target: bytes, peer: str) -> str:
    """What errors call a peer: as the caller did, but a ticket is too long."""
    return peer if len(peer) <= MAX_NAME else PublicKey(target).id52


class _TicketResolver:
    """The record inside a ticket that a caller gave instead of a name."""

    def __init__(self, text: str) -> None:
        self._record = Ticket(text).record_bytes

    def records_of(self, key: bytes) -> list[PeerRecord]:
        return [read_record(self._record)]
