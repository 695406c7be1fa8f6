"""Record publisher: keeps the records of the online identities up to date at every place that takes them.

The places are the host directory and the record sources. A record is published when its identity comes online, when an
address or the home relay changes, and once an hour. Also when the relay was connected again: it may have restarted, and
a directory in the same process with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from fastn_p2p_client.errors import InternalError, P2PError, VaultLocked

from ...credentials import MAX_DELEGATIONS, EndpointEntry, peek_endpoints, peek_record, read_record, verify_record
from ...credentials.delegation import Delegation, peek_delegation
from ...credentials.pkarr import SignedPacket
from ...credentials.record_packet import record_in
from ...vault.messages import SignPacket, SignRecord
from ..address_book import AddressBook
from ..live_settings import LiveSettings
from ..replicas.replica_set import ReplicaSet
from ..serving.registry import OnlineIdentity, Publication, Registry
from ..transport.address_order import is_public
from ..transport.endpoint import EndpointAddress, NetworkEndpoint
from ..vault_client import VaultClient
from .directory_set import DirectorySet
from .due_times import DueTimes
from .host_directory import HostDirectory
from .record_finder import RecordFinder
from .record_source import PublishedIdentity

log = logging.getLogger(__name__)

HOST: Final = "this machine"
"""Name of the host directory among the places of a publication."""
_DEBOUNCE: Final = 0.1
"""Seconds after a change of an address during which further changes are waited for: they come in groups."""
_CHECK_INTERVAL: Final = 30.0
"""Seconds between two looks at the connections to relays."""
_RETRY: Final = 1.0
"""Seconds before a record that the vault did not sign is tried again: when it is unlocked, records follow at once. Also
the longest pause between two batches."""
_ASLEEP, _CALLED, _AWAKE = 0.0, 1.0, 2.0
"""Seconds by which records are due earlier, when those of all identities are due at once."""
_INTERVAL: Final = 3600.0
"""Seconds between two publications of a record. Each is varied by up to a tenth."""
_FIRST_WAIT: Final = 1.5
"""Seconds after the start for which the first publication at directories waits for a relay."""
_LOOKUP_WAIT: Final = 0.5
"""Seconds that the lookup of other daemons' endpoints may delay a publication at directories."""
_LATE_BY: Final = 1.0
"""Seconds by which records of other daemons of this machine may be noticed late when many records are signed."""
MOST_RENEWED: Final = 32
"""Records that are renewed at the same time."""


# Several daemons may serve one identity, and a directory keeps one packet for it. So each daemon looks the identity up
# there before it publishes, and copies the entries of the others' endpoints into its record. It copies them from the
# newest record only, because a daemon that withdraws its endpoint publishes a record without it. A directory that does
# not answer in time is read before its packet is replaced. Cost: one lookup for each publication.
#
# While the vault is locked, nothing is signed. A packet that lacks endpoints of other daemons is not published then:
# peers that use the directory would no longer find those. They reach the identity at them, and this daemon's endpoint
# follows when the vault is unlocked. Directories are not asked until then. ``status`` says what the directory lacks.
#
# There may be ten thousand identities. When all records are due at once, because an address has changed, they are
# renewed in batches, with a pause after each as long as it took. So the event loop and the vault have half of their
# time for calls. Identities that are awake come first, then those that were called since the start of this process.


class RecordPublisher:
    """Signs and publishes records.

    Args:
        settings: name the network mode, relays and directories.
        finder: has the record sources, to which this adds the directories of the settings.
        replicas: other daemons of the identities.
        wall: returns Unix time.

    Attributes:
        on_published: called with each identity whose record is new.
    """

    def __init__(
        self,
        endpoint: NetworkEndpoint,
        vault: VaultClient,
        registry: Registry,
        hosts: HostDirectory,
        book: AddressBook,
        settings: LiveSettings,
        finder: RecordFinder,
        replicas: ReplicaSet,
        wall: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._vault = vault
        self._registry = registry
        self._hosts = hosts
        self._book = book
        self._settings = settings
        self._finder = finder
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._due_times = DueTimes()
        """Times of the event loop at which records are to be published again, by key."""
        self._above: dict[bytes, int] = {}
        """Highest sequence of a packet that a directory has in place of this daemon's."""
        self._published_at: EndpointAddress | None = None
        self._known_address: EndpointAddress | None = None
        """Address of the endpoint in this iteration of the event loop, if it was asked for."""
        self._relay_connections = 0
        self.on_published: Callable[[OnlineIdentity], None] = lambda _: None
        self.replicas = replicas
        self._is_locked = False
        """True if the vault was locked when the last record was to be signed."""
        self._due = asyncio.Event()
        self._debounce_timer: asyncio.TimerHandle | None = None
        self._is_first = True
        self._directories = DirectorySet(settings, finder, wall, self.on_newer, self.on_present, self.publish_all_soon)
        endpoint.watch_address(self._on_address)
        self._task = self._loop.create_task(self._run())

    def close(self) -> None:
        """Stop, and withdraw every record from the host directory. Records in directories expire."""
        self._task.cancel()
        if self._debounce_timer is not None:
            self._debounce_timer.cancel()
        self._hosts.close()

    async def sign(self, identity: OnlineIdentity, *, is_one_of_many: bool = False) -> None:
        """Sign a record with the endpoint's present addresses, and a packet if directories are to get it.

        The record has a new delegation.

        Args:
            is_one_of_many: what other daemons of this machine have published in the last second may be missing.

        Raises:
            P2PError: the vault does not sign.
        """
        if identity.is_joined:
            self.replicas.joined.copy_grant(identity)
            return
        await self.replicas.owned.load(identity)
        address, others = self._address(), self._others_of(identity, _LATE_BY if is_one_of_many else 0.0)
        fields = identity.name, address.relays, address.addresses, others
        if identity.listed and self._directories:
            packet = await self._vault.packet(SignPacket(*fields, above=self._above.get(identity.raw, 0)))
            record, identity.packet = packet.record, packet.body
        else:
            record, identity.packet = (await self._vault.record(SignRecord(*fields))).blob, b""
        if record == identity.record:
            raise VaultLocked(what=f"signing a record of {identity.name!r}")
        identity.delegation, delegation = self._own_delegation(identity, record)
        identity.not_before, identity.not_after = delegation.not_before, delegation.not_after
        identity.record = record

    def publish_first(self, identity: OnlineIdentity) -> None:
        """Publish a signed record at once, and to the directories soon."""
        self._publish(identity, to_directories=False)
        self.publish_soon(identity)

    def publish_soon(self, identity: OnlineIdentity) -> None:
        """Sign and publish a new record, if there are directories for it."""
        if self._is_for_directories(identity):
            self._due_times.set(identity.raw, 0.0)
            self._due.set()

    def publish_all_soon(self) -> None:
        """Sign and publish new records of all identities that are for directories."""
        now = self._loop.time()
        for each in filter(self._is_for_directories, self._registry):
            self._due_times.set(each.raw, now - _urgency(each))
        self._due.set()

    async def renew(self, identity: OnlineIdentity) -> None:
        """Sign and publish a new record now.

        Raises:
            P2PError: the vault does not sign.
        """
        to_directories = not self._is_first and self._is_for_directories(identity)
        if to_directories:
            self._due_times.set(identity.raw, self._loop.time() + _INTERVAL * random.uniform(0.9, 1.1))
            if not self._is_locked:
                await self._directories.look_up(identity.raw, _LOOKUP_WAIT)
        try:
            await self.sign(identity, is_one_of_many=True)
        except P2PError as error:
            self._note_unsigned(identity, error)
            raise
        if self._registry.by_name(identity.name) is identity:
            self._publish(identity, to_directories=to_directories)

    async def unpublish(self, identity: OnlineIdentity) -> None:
        """Withdraw the record of an identity that was taken offline."""
        self._due_times.remove(identity.raw)
        self._hosts.unpublish(identity.key)
        if identity.listed:
            await self._unpublish_from_sources(identity)

    async def set_listed(self, identity: OnlineIdentity, *, listed: bool) -> None:
        """Publish the record to the sources from now on, or withdraw it from them."""
        if identity.listed == listed:
            return
        identity.listed = listed
        if listed:
            self.publish_soon(identity)
        else:
            await self._unpublish_from_sources(identity)

    def on_newer(self, identity: PublishedIdentity, packet: SignedPacket) -> bool:
        """Take a packet that a directory has in place of this daemon's. See ``directory_source.OnNewer``."""
        self._above[identity.raw] = max(packet.sequence, self._above.get(identity.raw, 0))
        online = self._registry.by_key(identity.raw)
        if online is None or online is not identity or not online.listed:
            return False
        try:
            blob = record_in(packet)
            if self._finder.apply_revocation(blob, "a directory"):
                return False
            record = verify_record(blob, now=self._wall())
            if record.identity == online.key:
                self._book.note_record(identity.raw, blob)
                if online.is_joined:
                    return True
                own = self._endpoint.address()
                if any(
                    (each.delegation.endpoint, each.relays, each.addresses) == (own.endpoint, own.relays, own.addresses)
                    for each in record.endpoints
                ):
                    return True
        except P2PError as error:
            log.debug("a directory has a useless packet of %s: %s", identity.name, error)
        self.publish_soon(online)
        return False

    def on_present(self, identity: PublishedIdentity, blob: bytes) -> bool:
        """Take the record that a directory has until it is replaced. See ``directory_source.OnPresent``."""
        online = self._registry.by_key(identity.raw)
        if online is None or online is not identity:
            return False
        self._finder.on_announcement(identity.raw, blob, "a directory")
        if online.is_joined:
            return False
        known = peek_endpoints(peek_record(online.record).endpoints)
        if known.keys() >= peek_endpoints(self._others_of(online, _LATE_BY)).keys():
            return False
        log.info(
            "a directory has endpoints of other daemons of %s: they are copied into its next record", identity.name
        )
        self.publish_soon(online)
        return True

    # ── what is due ──────────────────────────────────────────────────────────────────────────────

    def _on_address(self) -> None:
        if self._debounce_timer is None:
            self._debounce_timer = self._loop.call_later(_DEBOUNCE, self._on_debounced)

    def _on_debounced(self) -> None:
        self._debounce_timer = None
        self._due.set()

    async def renew_all(self, identities: Sequence[OnlineIdentity]) -> list[P2PError | None]:
        """Sign and publish new records of a few identities now. Return the errors of the vault, in the same order.

        The log has a locked vault once.
        """
        outcomes = await asyncio.gather(*map(self.renew, identities), return_exceptions=True)
        errors: list[P2PError | None] = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, P2PError):
                raise outcome
            errors.append(outcome)
            if outcome is not None and not self._is_locked:
                log.warning("cannot renew a record yet: %s", outcome)
                self._is_locked = isinstance(outcome, VaultLocked)
        if identities:
            self._is_locked = any(isinstance(each, VaultLocked) for each in errors)
        return errors

    async def _run(self) -> None:
        await self._wait_for_first()
        while True:
            self._due.clear()
            self._note_changes()
            began = self._loop.time()
            was_locked = self._is_locked
            due_now = map(self._registry.by_key, self._due_times.remove_due(began, MOST_RENEWED))
            batch = [each for each in due_now if each is not None]
            errors = await self.renew_all(batch)
            for each, error in zip(batch, errors, strict=True):
                if error is not None:
                    self._due_times.set(each.raw, self._loop.time() + _RETRY)
            if self._is_locked and not was_locked:
                self._note_all_unsigned(next(filter(None, errors)))
            now = self._loop.time()
            due = self._due_times.next()
            if self._is_locked:
                await asyncio.sleep(_RETRY)
            elif due is not None and due <= now:
                await asyncio.sleep(min(now - began, _RETRY))
            else:
                wait = _CHECK_INTERVAL if due is None else min(_CHECK_INTERVAL, due - now)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._due.wait()

    def _note_changes(self) -> None:
        """Have records published again for which an address or a relay has changed."""
        address, before = self._endpoint.address(), self._relay_connections
        self._relay_connections = self._endpoint.relay_connections()
        if self._relay_connections > before > 0:
            self.publish_all_soon()
        if address != self._published_at:
            self._published_at = address
            now = self._loop.time()
            for each in self._registry:
                self._due_times.set(each.raw, now - _urgency(each))

    def _is_for_directories(self, identity: OnlineIdentity) -> bool:
        return identity.listed and len(self._directories) > 0

    def _note_unsigned(self, identity: OnlineIdentity, error: P2PError) -> None:
        """Note that the vault has not signed the newest record of an identity, which is due again."""
        if self._is_for_directories(identity):
            self._due_times.set(identity.raw, self._loop.time() + _RETRY)
        self._note_problem(identity, error)

    def _note_all_unsigned(self, error: P2PError) -> None:
        """Note that the vault is locked, for all identities that are due: it is not asked for each of them."""
        for identity in map(self._registry.by_key, self._due_times.due(self._loop.time())):
            if identity is not None:
                self._note_problem(identity, error)

    def _note_problem(self, identity: OnlineIdentity, error: P2PError) -> None:
        if identity.listed and not self._is_first:
            self._directories.note_problem(identity, f"its newest record is not there: {error}")

    async def _wait_for_first(self) -> None:
        """Wait for a relay, so that the first record says how peers outside of this network reach the daemon."""
        deadline = self._loop.time() + _FIRST_WAIT
        while self._settings.relays and not self._endpoint.address().relays and self._loop.time() < deadline:
            self._due.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._due.wait()
            except TimeoutError:
                break
        self._is_first = False
        address = self._endpoint.address()
        if self._settings.relays and not address.relays:
            log.warning("no relay has answered yet: records are published without one, and again when it answers")
        if self._settings.relays and not any(map(is_public, address.addresses)):
            log.info("no public address is known yet: records are published again when there is one")

    # ── steps ────────────────────────────────────────────────────────────────────────────────────

    def _address(self) -> EndpointAddress:
        if self._known_address is None:
            self._known_address = self._endpoint.address()
            self._loop.call_soon(self._clear_known_address)
        return self._known_address

    def _clear_known_address(self) -> None:
        self._known_address = None

    def _others_of(self, identity: OnlineIdentity, late_by: float = 0.0) -> tuple[EndpointEntry, ...]:
        """Return the entries of other endpoints of the identity, each as it was stated last."""
        entries: dict[bytes, EndpointEntry] = {}
        own = self.replicas.owned.lineages(identity.raw)
        newest = self._book.newest_signed_record(identity.raw)
        for blob in filter(None, (newest, *self._hosts.signed_records_of(identity.raw, late_by=late_by))):
            try:
                read_record(blob)
                body = peek_record(blob)
                for endpoint, entry in zip(peek_endpoints(body.endpoints), body.endpoints, strict=True):
                    if own and peek_delegation(entry.delegation).lineage in own:
                        continue  # ``entries`` says whether that replica serves
                    known = entries.get(endpoint)
                    if known is None or entry.sequence > known.sequence:
                        entries[endpoint] = entry
            except P2PError as error:
                log.debug("a record of %s is not used: %s", identity.name, error)
        entries.update(self.replicas.owned.entries(identity.raw))
        entries.pop(self._endpoint.id, None)
        return tuple(sorted(entries.values(), key=lambda each: -each.sequence))[: MAX_DELEGATIONS - 1]

    def _own_delegation(self, identity: OnlineIdentity, record: bytes) -> tuple[bytes, Delegation]:
        """Return the delegation to this daemon's endpoint in a record that the vault has just signed."""
        for entry in peek_record(record).endpoints:
            delegation = peek_delegation(entry.delegation)
            if delegation.endpoint == self._endpoint.id and delegation.identity == identity.raw:
                return entry.delegation, delegation
        raise InternalError(reason="the vault signed with another key")

    def _publish(self, identity: OnlineIdentity, *, to_directories: bool) -> None:
        self._hosts.publish(identity.key, identity.record)
        identity.publications[HOST] = Publication(0.0 if self._hosts.problem else self._wall(), self._hosts.problem)
        self.on_published(identity)
        for source in self._finder.sources if identity.listed else ():
            if to_directories or source not in self._directories:
                source.publish(identity)

    async def _unpublish_from_sources(self, identity: OnlineIdentity) -> None:
        """Withdraw a record from the sources. Directories get a packet without this daemon's endpoint."""
        if identity.packet and not identity.is_joined:
            others, above = self._others_of(identity), self._above.get(identity.raw, 0)
            try:
                signed = await self._vault.packet(SignPacket(identity.name, (), (), others, above, withdrawn=True))
                identity.packet = signed.body
            except P2PError as error:
                identity.packet = b""
                if places := self._directories.published_urls(identity):
                    what = "the record of %s stays at %s until it expires: the vault does not sign one without it: %s"
                    log.warning(what, identity.name, " and ".join(places), error)
        for source in self._finder.sources:
            source.unpublish(identity)


def _urgency(identity: OnlineIdentity) -> float:
    """Return the seconds by which the record of an identity is due earlier than others."""
    if not identity.is_asleep:
        return _AWAKE
    return _CALLED if any(each.calls + each.opened for each in identity.bindings.values()) else _ASLEEP
