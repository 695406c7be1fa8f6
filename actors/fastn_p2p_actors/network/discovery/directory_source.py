"""Record source: one directory of signed pkarr packets, to which daemons publish, and which they ask for records."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from fastn_p2p_client.errors import BadMessage, P2PError
from fastn_p2p_client.retry import Backoff

from ...credentials.pkarr import SignedPacket, sequence_of
from ...credentials.record_packet import record_in
from ..serving.registry import Publication
from .directory_client import DirectoryBusy, DirectoryClient, DirectoryRefused, DirectoryUnavailable, NewerPacket
from .record_source import OnRecord, PublishedIdentity

log = logging.getLogger(__name__)

_KNOWN_FOR: Final = 1.0
"""Seconds for which a packet is not asked for again."""
_UNKNOWN_FOR: Final = 5.0
"""Seconds for which a key without a packet is not asked for again."""
_MAX_ANSWERS: Final = 1024
"""Keys whose last answers are kept, some 1.5 KB each."""
_FIRST_DELAY: Final = 1.0
_LONGEST_DELAY: Final = 120.0
"""Seconds before a failed publication is tried again: the first pause, and the longest."""

_READ_FOR: Final = 10.0
"""Seconds after an answer has become old in which the packet may be replaced without reading it again."""
_READ_BACK: Final = 2.0, 4.0
"""Seconds after a publication before it is read back: at least, at most. Two daemons of one identity that publish at
the same moment do not know each other's endpoints, and the later packet replaces the earlier one."""

OnNewer = Callable[[PublishedIdentity, SignedPacket], bool]
"""Takes a packet that the directory has in place of this daemon's. Returns True if it has this daemon's endpoint, too;
otherwise another packet will be published."""
OnPresent = Callable[[PublishedIdentity, bytes], bool]
"""Takes the record in the packet that is about to be replaced. Returns True if that record has endpoints which the new
one lacks; then another packet will be published."""


class _CachedRecord(msgspec.Struct, frozen=True):
    """Last answer of the directory for a key."""

    sequence: int
    """Sequence of the packet; -1 without one."""
    record: bytes
    good_until: float
    """Time of the event loop until which it is not asked for again."""


class _Job(msgspec.Struct, frozen=True, eq=False):
    """Packet to publish."""

    identity: PublishedIdentity
    packet: bytes
    is_removal: bool
    """True if the packet no longer has this daemon's endpoint."""


class _Outcome(msgspec.Struct, frozen=True):
    """Outcome of an attempt to publish. Without a pause, the packet was taken or refused for good."""

    problem: str = ""
    retry_delay: float = 0.0
    """Seconds before another attempt."""
    is_requested: bool = False
    """True if the directory has asked for the pause, so a new packet does not shorten it."""
    is_for_all: bool = False
    """True if the packet of another identity would have had the same outcome."""


# A task publishes one packet after the other: a directory limits the requests of an address, and a daemon may have
# thousands of identities. A packet that the directory refuses is dropped until the next one of its identity. When the
# directory does not answer, the task pauses, longer each time, and goes on with another identity: what fails may be a
# single packet. A new packet ends such a pause, and later ones are short again, because the network may have changed;
# a pause that the directory asked for is kept.


class DirectorySource:
    """Publishes to one directory, and searches it.

    Args:
        client: sends the requests.
        wall: returns Unix time.
        on_newer: called with a packet of an online identity that another daemon has published.
        on_present: called with the record of a packet that was not read until it is to be replaced.

    Attributes:
        name: URL of the directory.
    """

    def __init__(
        self, client: DirectoryClient, wall: Callable[[], float], on_newer: OnNewer, on_present: OnPresent
    ) -> None:
        self.name = client.url
        self._client = client
        self._wall = wall
        self._on_newer = on_newer
        self._on_present = on_present
        self._loop = asyncio.get_running_loop()
        self._cache: OrderedDict[bytes, _CachedRecord] = OrderedDict()
        self._queue: dict[bytes, _Job] = {}
        """Packets to publish, by key of the identity."""
        self._wake = asyncio.Event()
        self._backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        self._worker: asyncio.Task[None] | None = None
        self._reading: dict[bytes, asyncio.Task[None]] = {}
        self._closing: asyncio.Task[None] | None = None

    async def search(self, key: bytes, found: OnRecord) -> None:
        answer = self._cache.get(key)
        if answer is None or self._loop.time() >= answer.good_until:
            answer = self._keep(key, await self._client.get(key))
        if answer.record:
            found(answer.record)

    def publish(self, identity: PublishedIdentity) -> None:
        """Publish ``identity.packet``. Does nothing without one."""
        if identity.packet:
            self._add(_Job(identity, identity.packet, is_removal=False))

    def unpublish(self, identity: PublishedIdentity) -> None:
        """Publish ``identity.packet``, which no longer has this daemon's endpoint, in place of the earlier one."""
        self._queue.pop(identity.raw, None)
        if identity.packet and self.name in identity.publications:
            self._add(_Job(identity, identity.packet, is_removal=True))

    def _add(self, job: _Job) -> None:
        self._queue[job.identity.raw] = job
        self._wake.set()
        if self._worker is None or self._worker.done():
            self._worker = self._loop.create_task(self._publish_all())

    def close(self) -> None:
        """Stop. Published packets stay until they expire."""
        for task in (*self._reading.values(), *filter(None, [self._worker])):
            task.cancel()
        self._closing = self._loop.create_task(self._client.close())

    # ── searching ────────────────────────────────────────────────────────────────────────────────

    def _keep(self, key: bytes, packet: SignedPacket | None) -> _CachedRecord:
        """Keep an answer of the directory, and return it.

        Raises:
            BadMessage: the packet has no record, or something else in its place.
            DirectoryUnavailable: the directory had a newer packet before.
        """
        now = self._loop.time()
        before = self._cache.pop(key, None)
        if packet is None:
            answer = _CachedRecord(-1, b"", now + _UNKNOWN_FOR)
        elif before is not None and packet.sequence < before.sequence:
            self._cache[key] = before
            raise DirectoryUnavailable(reason="it has an older packet than before")
        elif before is not None and packet.sequence == before.sequence:
            answer = msgspec.structs.replace(before, good_until=now + _KNOWN_FOR)
        else:
            answer = _CachedRecord(packet.sequence, record_in(packet), now + _KNOWN_FOR)
        self._cache[key] = answer
        if len(self._cache) > _MAX_ANSWERS:
            self._cache.popitem(last=False)
        return answer

    # ── publishing ───────────────────────────────────────────────────────────────────────────────

    async def _publish_all(self) -> None:
        while self._queue:
            self._wake.clear()
            key, job = next(iter(self._queue.items()))
            outcome = await self._publish(job)
            if outcome.problem:
                self._note(job, outcome.problem)
            if self._queue.get(key) is job:
                del self._queue[key]
                if outcome.retry_delay:
                    self._queue[key] = job
            if outcome.is_for_all:
                self._note_waiting(outcome.problem)
            if outcome.retry_delay:
                await self._rest(outcome)

    async def _publish(self, job: _Job) -> _Outcome:
        try:
            if not job.is_removal and await self._lacks_endpoints(job):
                return _Outcome()
            try:
                await self._client.put(job.identity.raw, job.packet)
            except NewerPacket:
                return await self._read_newer(job)
        except DirectoryBusy as error:
            return _Outcome(str(error), error.retry_delay, is_requested=True, is_for_all=True)
        except DirectoryRefused as error:
            return _Outcome(str(error))
        except DirectoryUnavailable as error:
            return _Outcome(str(error), self._backoff.next_delay(), is_for_all=True)
        except P2PError as error:
            return _Outcome(str(error), self._backoff.next_delay())
        except Exception:
            log.exception("cannot publish to %s", self.name)
            return _Outcome("publishing failed; the log of the network process says why", self._backoff.next_delay())
        self._on_published(job)
        previous = self._reading.pop(job.identity.raw, None)
        if previous is not None:
            previous.cancel()
        if not job.is_removal:
            self._reading[job.identity.raw] = self._loop.create_task(self._read_back(job.identity, job.packet))
        return _Outcome()

    async def _lacks_endpoints(self, job: _Job) -> bool:
        """Read the packet that this one replaces, unless it was read before this one was signed. Return whether a
        further packet follows, with endpoints that this one lacks."""
        identity = job.identity
        answer = self._cache.get(identity.raw)
        if answer is not None and self._loop.time() < answer.good_until + _READ_FOR:
            return False
        try:
            record = self._keep(identity.raw, await self._client.get(identity.raw)).record
        except BadMessage as error:
            log.debug("%s has a useless packet of %s: %s", self.name, identity.name, error)
            return False
        return bool(record) and self._on_present(identity, record)

    def _on_published(self, job: _Job) -> None:
        self._backoff.reset()
        identity = job.identity
        self._cache.pop(identity.raw, None)
        if job.is_removal:
            identity.publications.pop(self.name, None)
        else:
            identity.publications[self.name] = Publication(self._wall())
        log.debug("%s is %s %s", identity.name, "withdrawn from" if job.is_removal else "published at", self.name)

    async def _read_newer(self, job: _Job) -> _Outcome:
        """Read the newer packet that the directory says it has."""
        newer = await self._client.get(job.identity.raw)
        if newer is None or newer.sequence < sequence_of(job.packet):
            return _Outcome("it says that it has a newer packet, and shows none", self._backoff.next_delay())
        if newer.body() == job.packet or self._on_newer(job.identity, newer):
            self._on_published(job)
            return _Outcome()
        return _Outcome("it has a packet with a higher sequence, which the next one will replace")

    async def _read_back(self, identity: PublishedIdentity, packet: bytes) -> None:
        await asyncio.sleep(random.uniform(*_READ_BACK))
        try:
            present = await self._client.get(identity.raw)
            if present is not None and present.sequence > sequence_of(packet):
                self._on_newer(identity, present)
        except P2PError as error:
            log.debug("cannot read %s back from %s: %s", identity.name, self.name, error)
        finally:
            if self._reading.get(identity.raw) is asyncio.current_task():
                del self._reading[identity.raw]

    async def _rest(self, outcome: _Outcome) -> None:
        """Pause before another attempt."""
        if outcome.is_requested:
            await asyncio.sleep(outcome.retry_delay)
            return
        try:
            async with asyncio.timeout(outcome.retry_delay):
                await self._wake.wait()
            self._backoff.reset()
        except TimeoutError:
            return

    def _note(self, job: _Job, problem: str) -> None:
        identity = job.identity
        before = identity.publications.get(self.name)
        if before is None or before.problem != problem:
            what = "is still" if job.is_removal else "cannot be"
            log.warning("%s %s published at %s: %s", identity.name, what, self.name, problem)
        self._set_problem(identity, problem)

    def _note_waiting(self, problem: str) -> None:
        """Let the owner see the problem at each identity whose packet waits. The log has it once."""
        for job in self._queue.values():
            self._set_problem(job.identity, problem)

    def _set_problem(self, identity: PublishedIdentity, problem: str) -> None:
        before = identity.publications.get(self.name)
        identity.publications[self.name] = Publication(before.published if before is not None else 0.0, problem)
