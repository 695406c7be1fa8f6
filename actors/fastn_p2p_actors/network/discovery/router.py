"""Router: from the name of a peer to its key, and to a connection over which its identity is proven."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from typing import Final

from fastn_p2p_client.errors import (
    BadMessage,
    ConnectionLost,
    CredentialError,
    IdentityRevoked,
    InvitationNotRedeemed,
    P2PError,
    PeerBlocked,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
)
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.limits import MAX_NAME
from fastn_p2p_client.peer_text import read_peer_text, ticket_of
from fastn_p2p_client.tickets import Ticket

from ...credentials import Delegation, PeerRecord, check_validity, read_record, verify_delegation, verify_record
from ..address_book import AddressBook
from ..connections.connection import PeerConnection
from ..connections.pool import ConnectionPool
from ..connections.proven_identities import IntroductionRegistry
from ..transport.endpoint import EndpointAddress
from ..wire import messages as wire
from .candidate_race import CandidateRace
from .record_finder import RecordFinder
from .resolver import Candidate, Resolver, resolve_candidates
from .search import Search

_PROOF_TIMEOUT: Final = 5.0
"""Seconds that a peer daemon gets to introduce an identity for which only an expired delegation is known."""
_OFFLINE: Final = 5.0
"""Seconds for which a daemon at which an identity is offline is the last of its daemons to be tried."""
_LOOKUP_SECONDS: Final = 5.0
"""Time for sources to say where the daemons of an identity are."""
_MAX_OFFLINE: Final = 1024
"""Pairs of identity and daemon that are remembered."""
_MAX_SEVERAL: Final = 16_384
"""Identities that are known to be at several daemons."""
_MAX_LINEAGES: Final = 16_384
"""Pairs of identity and endpoint whose daemon is remembered."""
NO_NETWORK: Final = "this machine has no network"
"""Problem of this machine, in errors."""
_MAX_NAMES_CACHED: Final = 4096
"""Number of names whose keys are cached."""


class PeerRouter:
    """Finds and opens connections to identities.

    Args:
        wall: returns Unix time.
        finder: looks for records in the sources.
        own: returns the key of this daemon's online identity of a name.
        is_blocked: returns whether the owner has blocked an identity.

    Attributes:
        pool: set once the pool exists, before the first connection.
        several: identities that were found at several daemons.
    """

    def __init__(
        self,
        book: AddressBook,
        resolvers: Sequence[Resolver],
        wall: Callable[[], float],
        introductions: IntroductionRegistry[PeerConnection],
        finder: RecordFinder,
        own: Callable[[str], bytes | None] = lambda _: None,
        is_blocked: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self._is_blocked = is_blocked
        self._book = book
        self._own = own
        self._resolvers = resolvers
        self._wall = wall
        self._introductions = introductions
        self._finder = finder
        self.pool: ConnectionPool | None = None
        self.several: set[bytes] = set()
        self._keys: dict[str, bytes] = {}
        self._keys_generation = -1
        self._seen: dict[bytes, float] = {}
        """Unix time at which a peer of the address book was last connected."""
        self._unreachable: set[bytes] = set()
        """Peers of the address book that the last attempt did not reach."""
        self._lineages: dict[tuple[bytes, bytes], bytes] = {}
        """Lineage of the daemon at which an identity was introduced, by identity and endpoint."""
        self._offline: dict[tuple[bytes, bytes], float] = {}
        """Time until which an identity counts as offline at an endpoint, in the event loop's time."""
        introductions.on_removed = self._on_removed

    def reach_of(self, target: bytes) -> tuple[str, int]:
        """Return how a peer of the address book is reached, as in ``PeerInfo``, and the Unix time in milliseconds at
        which it was last connected (0: never)."""
        if self.open_to(target) is not None:
            self._note(target, reached=True)
        seen = int(self._seen.get(target, 0.0) * 1000)
        if target in self._unreachable:
            return "unreachable", seen
        return ("connected" if self.open_to(target) is not None else ""), seen

    def last_connected(self) -> dict[bytes, float]:
        """Return the Unix time at which each peer of the address book was last connected, as far as that is known."""
        return {key: seen for key, seen in self._seen.items() if self._book.by_key(key) is not None}

    def _on_removed(self, identity: bytes) -> None:
        if self._book.by_key(identity) is not None:
            self._seen[identity] = self._wall()

    def _note(self, target: bytes, *, reached: bool) -> None:
        """Remember the result of an attempt, only for peers of the address book, which bounds the memory."""
        if self._book.by_key(target) is None:
            self._seen.pop(target, None)
            self._unreachable.discard(target)
        elif reached:
            self._seen[target] = self._wall()
            self._unreachable.discard(target)
        else:
            self._unreachable.add(target)

    def open_to(self, target: bytes) -> PeerConnection | None:
        """Return the open connection over which the identity ``target`` is proven, if there is one."""
        return self._introductions.route_to(target, self._wall())

    def all_open_to(self, target: bytes) -> list[PeerConnection]:
        """Return an open connection to each daemon over which the identity ``target`` is proven and that answers."""
        now = self._wall()
        found = [each.connection for each in self._introductions.at(target) if each.is_proven(target, now)]
        return [each for each in found if each is not None and not each.is_silent]

    def parse_peer(self, peer: str, protocol: str = "", instance: str = "") -> bytes:
        """Return the key of a peer that a program names. The peer counts as known from now on.

        Args:
            peer: a petname, an ID52, a ticket or a URI. A name that is no petname may be that of an online identity of
                this daemon.
            protocol, instance: binding that the program names; a URI must not name another one.

        Raises:
            PeerUnknown: there is no such petname.
            InvalidKey, InvalidTicket, InvalidName: the text is wrong.
            CredentialError: the ticket is expired or forged.
        """
        if self._keys_generation != self._book.generation or len(self._keys) > _MAX_NAMES_CACHED:
            self._keys.clear()
            self._keys_generation = self._book.generation
        key = self._keys.get(peer)
        if key is None:
            own = self._own(peer)
            if own is not None and self._book.by_name(peer) is None:
                return own
            named = read_peer_text(peer)
            named.check_target(protocol, instance)
            key = self._parse_peer(named.name)
            self._book.known.add_called(key)
            if not named.protocol and not Ticket.is_ticket(named.name):  # a ticket expires
                self._keys[peer] = key
        return key

    def _parse_peer(self, peer: str) -> bytes:
        entry = self._book.by_name(peer)
        if entry is not None:
            return bytes(entry.key)
        if Ticket.is_ticket(peer):
            ticket = Ticket(peer)
            if ticket.is_invitation:
                if self._book.by_key(bytes(ticket.identity)) is None:
                    raise InvitationNotRedeemed()
                return bytes(ticket.identity)
            blob = ticket.record_bytes
            record = verify_record(blob, now=self._wall())
            key = bytes(record.identity)
            self._book.note_record(key, blob)
            return key
        if len(peer) < 40:  # a name, not a mistyped ID52
            raise PeerUnknown(peer=peer)
        return bytes(PublicKey(peer))

    def check_usable(self, target: bytes) -> None:
        """Raise IdentityRevoked if the identity was revoked."""
        self._book.check_usable(target)

    # ── connecting ───────────────────────────────────────────────────────────────────────────────

    async def connect(self, target: bytes, peer: str, search: Search | None = None) -> PeerConnection:
        """Open or find a connection over which the identity ``target`` is proven.

        Args:
            peer: text by which the caller named the identity, perhaps a ticket.
            search: records the attempts.

        Raises:
            PeerBlocked: the owner has blocked the identity.
            IdentityRevoked: it was revoked.
            PeerUnknown: no resolver and no source knows the identity.
            PeerOffline: it is an identity of this daemon, and offline; or each of its daemons answers that it is.
            PeerUnreachable: every attempt failed; the reason lists them.
        """
        if self._is_blocked(target):
            raise PeerBlocked(peer=self._book.name_of(target) or PublicKey(target).id52)
        self._book.check_usable(target)
        search = search or Search(asyncio.get_running_loop().time())
        search.local_problem = self.local_problem
        known = resolve_candidates(target, self._resolvers_for(peer))
        if known and not self._without_own_endpoint(known):
            raise PeerOffline(peer=display_name(target, peer))
        race = CandidateRace(
            lambda: self.known(target, peer),
            lambda candidate: self._try(target, candidate),
            lambda: self._finder.look_up(target),
            search,
            self._at_once(self.known(target, peer)),
        )
        connection = await race.run()
        self._book.check_usable(target)  # its revocation may have come meanwhile
        if connection is not None:
            self.prefer(connection, target)
            return connection
        raise self._error_of(race, target, peer, search)

    def _at_once(self, known: Sequence[Candidate]) -> int:
        """Return how many candidates are tried at once: two if two daemons are likely to serve the identity."""
        now = self._wall()
        likely = {
            each.delegation.lineage
            for each in known
            if each.delegation.not_after > now
            and not self._is_unlikely(each.delegation.identity, each.address.endpoint)
        }
        return min(len(likely), 2)

    def _error_of(self, race: CandidateRace, target: bytes, peer: str, search: Search) -> P2PError:
        """Return the error of a race without a connection. Its attempts decide, not the records that are known by now:
        they come and go with the identity."""
        name = display_name(target, peer)
        if not all(isinstance(error, PeerOffline) for error in race.errors):
            self._note(target, reached=False)
            return PeerUnreachable(peer=name, reason=search.words(asyncio.get_running_loop().time()))
        if race.errors or self._introductions.is_known_offline(target):
            return PeerOffline(peer=name)
        unknown = PeerUnknown(peer=name)
        unknown.detail = search.sources()
        return unknown

    async def connect_to(self, target: bytes, endpoint: bytes) -> PeerConnection:
        """Open or find a connection to one of the daemons that serve the identity ``target``.

        Its transport key, and with it the endpoint, may have been replaced meanwhile.

        Raises:
            PeerUnreachable: that daemon does not answer, or nothing is known about it.
        """
        lineage = self._lineages.get((target, endpoint))
        return await self._connect_if(
            target, lambda each: each.address.endpoint == endpoint or each.delegation.lineage == lineage
        )

    async def connect_to_lineage(self, target: bytes, lineage: bytes) -> PeerConnection:
        """Open or find a connection to the daemon whose delegations of ``target`` have this lineage.

        Raises:
            PeerUnreachable: that daemon does not answer, or nothing is known about it.
        """
        return await self._connect_if(target, lambda each: each.delegation.lineage == lineage)

    async def connect_to_address(self, address: EndpointAddress) -> PeerConnection:
        """Open or find a connection to an endpoint, whatever identities speak through it. Raises PeerUnreachable."""
        if self.pool is None:
            raise PeerUnreachable(peer=address.endpoint.hex(), reason="the network process is stopping")
        return await self.pool.connect(address)

    async def addresses_of(self, target: bytes) -> dict[bytes, EndpointAddress]:
        """Look for records of an identity, and return the addresses of its other daemons, by endpoint."""
        lookup = self._finder.look_up(target)
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOKUP_SECONDS):
                while not lookup.done:
                    await asyncio.shield(lookup.changed)
        return {each.address.endpoint: each.address for each in reversed(self.known(target))}

    async def connect_beside(self, target: bytes, endpoints: frozenset[bytes]) -> PeerConnection:
        """Open or find a connection to a daemon of an identity that is none of these.

        Raises:
            PeerUnreachable: none is known, or none answers.
        """
        if not self.has_others(target, endpoints):
            raise PeerUnreachable(peer=PublicKey(target).id52, reason="no other daemon of it is known")
        return await self._connect_if(target, lambda each: each.address.endpoint not in endpoints)

    async def connect_elsewhere(self, target: bytes, endpoint: bytes) -> PeerConnection:
        """Open or find a connection to a daemon other than that at ``endpoint``, and use it for calls to ``target``.

        Raises:
            PeerUnreachable: no other daemon that serves the identity answers.
        """
        connection = await self._connect_if(
            target, lambda each: each.address.endpoint != endpoint and not self.is_silent(each.address.endpoint)
        )
        self.prefer(connection, target)
        return connection

    async def _connect_if(self, target: bytes, may_try: Callable[[Candidate], bool]) -> PeerConnection:
        now = asyncio.get_running_loop().time
        race = CandidateRace(
            lambda: [each for each in self.known(target) if may_try(each)],
            lambda candidate: self._try(target, candidate),
            lambda: self._finder.look_up(target),
            search := Search(now()),
        )
        connection = await race.run()
        if connection is None:
            raise PeerUnreachable(peer=PublicKey(target).id52, reason=search.words(now()))
        return connection

    def _note_lineage(self, delegation: Delegation) -> None:
        self._lineages[delegation.identity, delegation.endpoint] = delegation.lineage
        if len(self._lineages) > _MAX_LINEAGES:
            del self._lineages[next(iter(self._lineages))]

    def _is_retired(self, delegation: Delegation) -> bool:
        """Return whether a newer transport key of the same daemon has been seen."""
        return self._book.epochs.is_retired(delegation.identity, delegation.lineage, delegation.epoch)

    def has_others(self, target: bytes, endpoints: Container[bytes]) -> bool:
        """Return whether daemons with other endpoints may serve the identity: they have valid delegations from it."""
        now = self._wall()
        return any(
            each.address.endpoint not in endpoints and each.delegation.not_after > now for each in self.known(target)
        )

    def on_offline(self, target: bytes, endpoint: bytes) -> None:
        """The identity is not online at ``endpoint``: the next call looks for another daemon that serves it."""
        if self.has_others(target, (endpoint,)):
            if len(self._offline) >= _MAX_OFFLINE:
                self._offline.clear()
            self._offline[target, endpoint] = asyncio.get_running_loop().time() + _OFFLINE
            self._introductions.of(endpoint).remove(target)

    def _is_unlikely(self, target: bytes, endpoint: bytes) -> bool:
        """Return whether a daemon does not answer, or has answered that the identity is not online there."""
        until = self._offline.get((target, endpoint), 0.0)
        return self.is_silent(endpoint) or until > asyncio.get_running_loop().time()

    def is_silent(self, endpoint: bytes) -> bool:
        """Return whether the daemon at ``endpoint`` does not answer over the connection that calls to it use."""
        connection = self.pool.open_to(endpoint) if self.pool is not None else None
        return connection is not None and connection.is_silent

    def known(self, target: bytes, peer: str = "") -> list[Candidate]:
        """Return endpoints of other daemons through which the identity may be reached, from all resolvers.

        Daemons that do not answer over their connections, and those at which it was offline, come last. There are none
        of an identity that was revoked. Daemons whose transport key was replaced count only if there are no others:
        they may have a newer delegation.
        """
        if target in self._book.revocations:
            return []
        known = self._without_own_endpoint(resolve_candidates(target, self._resolvers_for(peer)))
        known = [each for each in known if not self._is_retired(each.delegation)] or known
        if len(known) < 2:
            self.several.discard(target)
        elif len(self.several) < _MAX_SEVERAL:
            self.several.add(target)
        return (
            known
            if len(known) < 2
            else sorted(known, key=lambda each: self._is_unlikely(target, each.address.endpoint))
        )

    def _resolvers_for(self, peer: str) -> list[Resolver]:
        ticket = ticket_of(peer)
        if ticket is None or ticket.is_invitation:
            return list(self._resolvers)
        return [_TicketResolver(ticket), *self._resolvers]

    def _without_own_endpoint(self, known: list[Candidate]) -> list[Candidate]:
        """Return the candidates without this daemon's endpoint, whose identities are found in the registry."""
        own = self.pool.own_endpoint if self.pool is not None else b""
        return [candidate for candidate in known if candidate.address.endpoint != own]

    async def _try(self, target: bytes, candidate: Candidate) -> PeerConnection:
        if self.pool is None:
            raise PeerUnreachable(peer=PublicKey(target).id52, reason="the network process is stopping")
        connection = await self.pool.connect(candidate.address)
        # While this task waited to run, another connection may be preferred now: both daemons must use the same one.
        connection = self.pool.open_to(candidate.address.endpoint) or connection
        if connection.closed:
            raise ConnectionLost(what="the connection to the peer")
        delegation, now = candidate.delegation, self._wall()
        try:
            check_validity(delegation, now)
            self._book.epochs.observe(delegation.key, delegation.lineage, delegation.epoch)
            self._note_lineage(delegation)
            self._introductions.revoke_older(delegation)
            is_new = not connection.introductions.is_proven(target, now)
            connection.introductions.add(delegation)
            if is_new:  # the peer daemon learns that this one knows the identity, and tells it the news of it
                connection.send(wire.RequestIntroduction(target))
        except IdentityRevoked:
            raise
        except (CredentialError, BadMessage):
            if connection.introductions.is_proven(target, now):
                return connection
            await self._request_proof(connection, target)
        return connection

    def local_problem(self) -> str:
        """Return what is wrong at this machine, in words; empty if nothing is."""
        return "" if self.pool is None or self.pool.has_network() else NO_NETWORK

    async def _request_proof(self, connection: PeerConnection, target: bytes) -> None:
        """Wait until the peer daemon has proved that the identity speaks through its endpoint.

        Raises:
            PeerOffline: the identity is not online there, as the daemon says, or shows by its silence about it.
            PeerUnreachable: the daemon does not answer at all.
            CredentialError: the proof is not valid by the local clock.
        """
        try:
            async with asyncio.timeout(_PROOF_TIMEOUT):
                await connection.request_introduction(target)
        except TimeoutError:
            id52 = PublicKey(target).id52
            if connection.is_silent:
                raise PeerUnreachable(peer=id52, reason="its daemon does not answer any more") from None
            raise PeerOffline(peer=id52) from None

    # ── events of connections ────────────────────────────────────────────────────────────────────

    def check_introduction(self, connection: PeerConnection, blob: bytes) -> Delegation:
        """Verify the delegation of an identity that introduces itself over a connection, and return it.

        Raises:
            CredentialError, BadMessage: the delegation is not valid.
        """
        delegation = verify_delegation(blob, now=self._wall(), endpoint=connection.endpoint, epochs=self._book.epochs)
        self._note_lineage(delegation)
        self._introductions.revoke_older(delegation)
        return delegation

    def prefer(self, connection: PeerConnection, target: bytes) -> None:
        """Use this connection for calls to ``target`` from now on, because the identity was just proven over it."""
        self._introductions.prefer(connection.introductions, target)
        self._note(target, reached=True)


def display_name(target: bytes, peer: str) -> str:
    """Return the name of a peer in errors: the caller's own text, or the ID52 if that is too long, like a ticket."""
    return peer if len(peer) <= MAX_NAME else PublicKey(target).id52


class _TicketResolver:
    """Resolver of the record inside a ticket that a caller gave in place of a name."""

    def __init__(self, ticket: Ticket) -> None:
        self._record = ticket.record_bytes

    def records_of(self, key: bytes) -> list[PeerRecord]:
        return [read_record(self._record)]
