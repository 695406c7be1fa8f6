"""Revocation exchange: takes revocations from everywhere, ends what revoked identities do, and passes them on.

A revocation proves itself, so anyone may bring it: a neighbour, a directory, the LAN, another daemon of this machine.
It is looked at only if it is about an identity that the owner deals with; a stranger's costs no signature check.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from itertools import islice
from typing import Final

from fastn_p2p_client.errors import P2PError
from fastn_p2p_client.keys import PublicKey, id52_of

from ..credentials import peek_revocation, read_revocation
from ..vault.audit_reporter import AuditReporter
from .address_book import AddressBook, AddressBookEntry
from .connections.connection import PeerConnection
from .connections.pool import ConnectionPool
from .contacts.pending_peers import PendingPeers
from .contacts.revocations import KnownRevocation
from .discovery.host_directory import HostDirectory
from .discovery.identity_publisher import IdentityPublisher
from .discovery.online_waits import OnlineWaits
from .discovery.record_source import RecordSource
from .discovery.router import PeerRouter
from .serving.registry import OnlineIdentity, Publication, Registry
from .sessions.revocation import SessionRevocation

log = logging.getLogger(__name__)

_MAX_SENT: Final = 64
"""Revocations that a known peer is told when it is introduced, the newest ones: some 16 KB."""
_MAX_DIALLED: Final = 1000
"""Peers of the address book that are told of a revocation of an own identity, connected or not."""
_DIALS: Final = 8
"""Number of them that are dialled at the same time."""
_INTERVAL: Final = 3600.0
"""Seconds between two publications of a revocation. Each is varied by up to a tenth."""


class _Published:
    """Revocation of an own identity, as record sources publish it: in place of the identity's record."""

    def __init__(self, known: KnownRevocation) -> None:
        self.name = known.name or id52_of(known.revocation.identity)
        self.raw = known.revocation.identity
        self.record = known.blob
        self.packet = known.packet
        self.publications: dict[str, Publication] = {}


class RevocationExchange:
    """Takes and passes on revocations. Create it inside the running event loop.

    Args:
        sources: record sources, which may change.
        wait_for: waits of programs for peers.
    """

    def __init__(
        self,
        *,
        registry: Registry,
        book: AddressBook,
        pending: PendingPeers,
        pool: ConnectionPool,
        router: PeerRouter,
        sessions: SessionRevocation,
        publisher: IdentityPublisher,
        waits: OnlineWaits,
        hosts: HostDirectory,
        sources: Sequence[RecordSource],
        audit: AuditReporter,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._registry = registry
        self._book = book
        self._known = book.revocations
        self._pending = pending
        self._pool = pool
        self._router = router
        self._sessions = sessions
        self._publisher = publisher
        self._waits = waits
        self._hosts = hosts
        self._sources = sources
        self._audit = audit
        self._published: dict[bytes, _Published] = {}
        self._informed: set[PeerConnection] = set()
        """Connections over which a known peer was told the revocations."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Publish the revocations of own identities now, and once an hour."""
        self.publish_all()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    # ── taking ───────────────────────────────────────────────────────────────────────────────────

    def apply(self, blob: bytes, origin: str) -> bool:
        """Take a revocation that ``origin`` has brought. Return whether it is about a revoked identity that is known.

        One of a stranger, a forged one, and a second one of the same identity change nothing.
        """
        try:
            key = peek_revocation(blob).identity
            if key in self._known:
                return True
            if self._registry.by_key(key) is None and not self._book.is_known(key):
                return False
            revocation = read_revocation(blob)
        except P2PError as error:
            log.debug("%s has a useless revocation: %s", origin, error)
            return False
        own = self._registry.by_key(key)
        if self._known.add(revocation, blob, own.name if own is not None else ""):
            who = self._book.name_of(key) or id52_of(key)
            log.warning("%s is revoked, as %s says", who, origin)
            self._audit.record("revocation-received", peer=id52_of(key), successor=revocation.successor_id52)
            spoken = list(self._pool.introductions.at(key))  # its own daemons: they may not know it yet
            self._end(key)
            self._push(blob, lambda each: each.introductions.has_known or each.introductions in spoken)
        return key in self._known

    def restore(self, blob: bytes) -> None:
        """Keep the revocation of a peer, of a backup. Raises BadMessage or BadSignature."""
        revocation = read_revocation(blob)
        if self._registry.by_key(revocation.identity) is None and self._known.add(revocation, blob):
            self._end(revocation.identity)

    async def publish(self, name: str, blob: bytes, packet: bytes) -> None:
        """Publish the revocation of an own identity everywhere. May be called again.

        Raises:
            BadMessage, BadSignature: it is no revocation.
        """
        revocation = read_revocation(blob)
        self._known.add(revocation, blob, name, packet)
        known = self._known.get(revocation.identity)
        if known is None:
            return
        self._end(revocation.identity)
        own = self._registry.by_key(revocation.identity)
        if own is not None:  # withdrawing its record later would withdraw the revocation
            await self._publisher.bring_offline(own)
        self._publish(known)
        self._push(known.blob, lambda _: True)
        self._spawn(self._send_to_absent_peers(known.blob))

    def _end(self, key: bytes) -> None:
        """End the calls and the sessions of a revoked identity, and all that waits for it."""
        known = self._known.get(key)
        if known is None:
            return
        error, reply_error = self._known.error(known, self._book.name_of(key)), known.revocation.error()
        for proven in list(self._pool.introductions.at(key)):
            proven.remove(key)
            proven.reject(key, reply_error)
        for connection in self._pool.all():
            connection.requests.end_identity(key, error)
            connection.identities.on_revoked(key, error, reply_error)
        self._waits.fail(key, error)
        self._pending.remove(key)
        self._spawn(self._end_sessions(key, error, self._registry.by_key(key)))

    async def _end_sessions(self, key: bytes, error: P2PError, own: OnlineIdentity | None) -> None:
        await self._sessions.identity_ended(key, error)
        if own is not None and self._registry.by_key(key) is own:
            await self._publisher.bring_offline(own)

    # ── passing on ───────────────────────────────────────────────────────────────────────────────

    def revocation_of(self, identity: bytes) -> bytes:
        """Return the signed revocation of an identity; empty if it is not revoked."""
        known = self._known.get(identity)
        return known.blob if known is not None else b""

    def on_introduced(self, connection: PeerConnection, identity: bytes) -> None:
        """Tell a known peer the newest revocations, once per connection."""
        if self._known and connection not in self._informed and self._book.by_key(identity) is not None:
            self._informed.add(connection)
            for known in list(islice(reversed(list(self._known)), _MAX_SENT)):
                connection.identities.push_record(known.blob)

    def on_closed(self, connection: PeerConnection) -> None:
        """The connection has ended."""
        self._informed.discard(connection)

    def _push(self, blob: bytes, wanted: Callable[[PeerConnection], bool]) -> None:
        for connection in self._pool.all():
            if not connection.closed and wanted(connection):
                connection.identities.push_record(blob)

    async def _send_to_absent_peers(self, blob: bytes) -> None:
        """Connect to peers of the address book that are not connected, and send them a revocation."""
        slots = asyncio.Semaphore(_DIALS)

        async def send_to(entry: AddressBookEntry) -> None:
            async with slots:
                try:
                    connection = await self._router.connect(bytes(entry.key), entry.name)
                except P2PError as error:
                    log.info("%s is not told of a revocation yet: %s", entry.name, error)
                else:
                    connection.identities.push_record(blob)

        absent = [each for each in self._book.page("", _MAX_DIALLED) if self._router.open_to(bytes(each.key)) is None]
        await asyncio.gather(*map(send_to, absent))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def publish_all(self) -> None:
        """Publish the revocations of own identities at every source, in place of their records."""
        if self._timer is not None:
            self._timer.cancel()
        for known in self._known:
            if known.packet:
                self._publish(known)
        self._timer = self._loop.call_later(_INTERVAL * random.uniform(0.9, 1.1), self.publish_all)

    def _publish(self, known: KnownRevocation) -> None:
        key = known.revocation.identity
        published = self._published.setdefault(key, _Published(known))
        published.record, published.packet = known.blob, known.packet
        self._hosts.publish(PublicKey(key), known.blob)
        for source in self._sources:
            source.publish(published)
