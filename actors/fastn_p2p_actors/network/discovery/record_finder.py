"""Record finder: looks for an identity's records in all sources at once. The address book keeps the good ones."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from fastn_p2p_client.errors import DelegationNotYetValid, P2PError
from fastn_p2p_client.keys import id52_of

from ...credentials import is_revocation, peek_record, verify_record
from ..address_book import AddressBook
from .record_source import RecordSource

log = logging.getLogger(__name__)

_TIMEOUT: Final = 10.0
"""Seconds after which a source that has not answered is given up."""
_MAX_RECORDS: Final = 32
"""Records that one source may report in one lookup. A lying one could report any number."""
_MAX_LOOKUPS: Final = 256
"""Lookups at the same time. Programs cannot make the daemon ask other machines for more."""


class FoundRecord(msgspec.Struct, frozen=True):
    """Record that a source reported.

    Attributes:
        sequence: milliseconds since 1970 at which it was signed; 0 if it could not be read.
        endpoints: number of endpoints that it names.
        problem: reason for which it was not used; empty if it was verified.
        is_early: True if that is that it is not valid yet: a clock is wrong.
    """

    sequence: int
    endpoints: int
    problem: str = ""
    is_early: bool = False


class SourceResult:
    """Answer of one source in a lookup.

    Attributes:
        name: of the source.
        records: what it reported.
        problem: reason for which it did not answer; empty if it did, or has not yet.
        seconds: duration until its last answer; None while it is asked.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.records: list[FoundRecord] = []
        self.problem = ""
        self.seconds: float | None = None


class Lookup:
    """Lookup of one identity in all sources. Several callers share it.

    Attributes:
        answers: by source, in the order of the sources.
        unused: kinds of sources that are not asked, and why each is not.
        changed: ends at the next new record, and when the lookup is done. Must not be cancelled: others wait for it.
    """

    def __init__(self, answers: list[SourceResult], unused: dict[str, str] | None = None) -> None:
        self.answers = answers
        self.unused = unused or {}
        self.changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def done(self) -> bool:
        """True when every source has answered or failed."""
        return all(answer.seconds is not None for answer in self.answers)

    def notify(self) -> None:
        """Tell those who wait that something has changed."""
        changed, self.changed = self.changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)


class RecordFinder:
    """Finds records in sources.

    Args:
        book: keeps what is found.
        wall: returns Unix time.

    Attributes:
        sources: sources that are asked. The owner may change the list at any time.
        unused: returns the kinds of sources that the settings exclude, and why each is excluded.
        on_newer: called with the identity when something newer about it was found.
        on_revocation: called with a signed revocation, not verified, and with its origin. Returns whether it counts.
    """

    def __init__(self, book: AddressBook, wall: Callable[[], float]) -> None:
        self.sources: list[RecordSource] = []
        self.unused: Callable[[], dict[str, str]] = dict
        self.on_newer: Callable[[bytes], None] = lambda _: None
        self.on_revocation: Callable[[bytes, str], bool] = lambda _blob, _origin: False
        self._book = book
        self._wall = wall
        self._loop = asyncio.get_running_loop()
        self._lookups: dict[bytes, Lookup] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def look_up(self, key: bytes) -> Lookup:
        """Ask every source for records of the identity, or join the lookup that runs already."""
        running = self._lookups.get(key)
        if running is not None:
            return running
        sources = self.sources if len(self._lookups) < _MAX_LOOKUPS else []
        lookup = Lookup([SourceResult(source.name) for source in sources], self.unused())
        if sources:
            self._lookups[key] = lookup
            for source, answer in zip(sources, lookup.answers, strict=True):
                task = self._loop.create_task(self._query(key, source, answer, lookup))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return lookup

    def on_announcement(self, key: bytes, blob: bytes, source: str) -> None:
        """Take a record that a source has received without being asked at the moment."""
        self._store_record(key, blob, self._lookups.get(key), source)

    def add_pushed(self, blob: bytes, endpoint: str) -> None:
        """Keep a record or a revocation that the peer daemon at ``endpoint`` has pushed, if it is about a known peer.

        Whose record it is need not be proved over that connection: a record proves itself.
        """
        if self.apply_revocation(blob, endpoint):
            return
        try:
            key = bytes(peek_record(blob).identity)
            if not self._book.is_known(key):
                return
            record = verify_record(blob, now=self._wall())
        except P2PError as error:
            log.debug("%s has pushed a useless record: %s", endpoint, error)
            return
        if bytes(record.identity) == key and self._book.note_record(key, blob):
            log.info("%s has pushed a newer record of %s", endpoint, self._book.name_of(key) or id52_of(key))
            self.on_newer(key)

    def apply_revocation(self, blob: bytes, origin: str) -> bool:
        """Take a revocation that was found in place of a record. Return False if it is none, or changes nothing."""
        return is_revocation(blob) and self.on_revocation(blob, origin)

    def close(self) -> None:
        """Stop all lookups, and close the sources."""
        for task in self._tasks:
            task.cancel()
        for source in self.sources:
            source.close()

    async def _query(self, key: bytes, source: RecordSource, answer: SourceResult, lookup: Lookup) -> None:
        began = self._loop.time()

        def on_record(blob: bytes) -> None:
            if len(answer.records) < _MAX_RECORDS:
                answer.records.append(self._store_record(key, blob, lookup, source.name))

        try:
            async with asyncio.timeout(_TIMEOUT):
                await source.search(key, on_record)
        except TimeoutError:
            answer.problem = f"no answer within {_TIMEOUT:g} s"
        except P2PError as error:
            answer.problem = str(error)
        except Exception:
            log.exception("%s failed while it was searched", source.name)
            answer.problem = "it failed; the log of the network process says why"
        finally:
            answer.seconds = self._loop.time() - began
            if lookup.done:
                self._lookups.pop(key, None)
                lookup.notify()

    def _store_record(self, key: bytes, blob: bytes, lookup: Lookup | None, source: str) -> FoundRecord:
        """Verify a record, and keep it if it is new. A revocation in its place ends the identity."""
        if self.apply_revocation(blob, source):
            if lookup is not None:
                lookup.notify()
            return FoundRecord(0, 0, "the identity was revoked")
        try:
            record = verify_record(blob, now=self._wall())
        except P2PError as error:
            log.debug("%s has a useless record of %s: %s", source, id52_of(key), error)
            return FoundRecord(0, 0, str(error), isinstance(error, DelegationNotYetValid))
        if bytes(record.identity) != key:
            return FoundRecord(record.sequence, len(record.endpoints), f"it is the record of {record.identity}")
        if self._book.note_record(key, blob):
            if lookup is not None:
                lookup.notify()
            self.on_newer(key)
        return FoundRecord(record.sequence, len(record.endpoints))
