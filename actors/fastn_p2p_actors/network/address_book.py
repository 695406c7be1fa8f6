"""The address book: peers by petname, their records, and the epochs and sequences seen of their keys."""

from __future__ import annotations

import base64
import logging
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import InvalidName, InvalidTicket, P2PError, PeerNameTaken, PeerNameUnknown, StorageFailed
from fastn_p2p_client.ipc.messages import UNDECODABLE, PeerInfo
from fastn_p2p_client.keys import PublicKey, proven_key
from fastn_p2p_client.names import check_name
from fastn_p2p_client.tickets import Ticket

from ..credentials import PeerRecord, is_from_future, peek_record, read_record, verify_record
from ..storage.atomic_files import write_atomically
from .known_peers import KnownPeers
from .seen_store import SeenStore

log = logging.getLogger(__name__)

_MAX_TICKETS: Final = 1024
"""Number of peers outside of the book whose newest ticket is remembered, because a program called them by it."""


class _PeerFile(msgspec.Struct, kw_only=True):
    """Entry on disk."""

    name: str
    id52: str
    added: str
    record: str = ""
    """Signed record in base64; empty if only the key is known."""


class AddressBookEntry:
    """Peer in the address book.

    A record is verified before it is added to the book. A record from a file is verified when it is first used, because
    10,000 signatures take seconds.

    Raises:
        InvalidTicket: the record belongs to another identity.
    """

    __slots__ = ("_verified", "added", "endpoints", "key", "name", "record", "renamed_from", "sequence")

    def __init__(self, name: str, key: PublicKey, added: str, record: bytes) -> None:
        self.name = name
        self.key = key
        self.added = added
        self.record = record
        self.renamed_from = ""
        """Petname of the same peer before it was added under this one; empty if there was none."""
        self._verified: PeerRecord | None = None
        body = peek_record(record) if record else None
        if body is not None and body.identity != bytes(key):
            raise InvalidTicket(reason="the record is another identity's")
        self.endpoints = len(body.delegations) if body is not None else 0
        self.sequence = body.sequence if body is not None else -1

    def verified(self) -> PeerRecord | None:
        """Return the record with a valid signature, perhaps out of date. None if only the key is known.

        Raises:
            BadMessage, BadSignature: the file holds a damaged or forged record.
        """
        if self._verified is None and self.record:
            self._verified = read_record(self.record)
        return self._verified

    def info(self, reach: str = "", seen_ms: int = 0) -> PeerInfo:
        """Return the entry as programs see it. ``reach`` and ``seen_ms`` as in ``PeerInfo``."""
        return PeerInfo(
            name=self.name, id52=self.key.id52, endpoints=self.endpoints, added=self.added, reach=reach, seen_ms=seen_ms
        )


class AddressBook:
    """Peers in memory and in ``home/peers``, where each has one file.

    Args:
        directory: ``home/peers``.
        now: returns Unix time.
        is_present: returns whether an identity is proven over an open connection.

    Attributes:
        known: peers that the owner deals with: those of the book, and some more.
        epochs, sequences: what has been seen of all identities, against replays.
        generation: number that changes with each change of names or keys, for caches.
        warnings: damaged files, for ``status``.
    """

    def __init__(
        self, directory: Path, now: Callable[[], float], is_present: Callable[[bytes], bool] = lambda _: False
    ) -> None:
        self._directory = directory
        self._now = now
        self._by_name: dict[str, AddressBookEntry] = {}
        self._by_key: dict[bytes, AddressBookEntry] = {}
        self._sorted: list[str] = []
        self._sorted_generation = -1
        self._called_by_ticket: dict[bytes, AddressBookEntry] = {}
        self.known = KnownPeers(self._by_key.__contains__, self._keep_seen)
        self._seen = SeenStore(directory, self.known.__contains__, is_present)
        self.epochs = self._seen.epochs
        self.sequences = self._seen.sequences
        self.generation = 0
        self.warnings: list[str] = []

    def load(self) -> None:
        """Read every file. A damaged file becomes a warning and stays as it is. May run in a thread."""
        for path in sorted(self._directory.glob("*.json")):
            if path.name.startswith("."):
                continue
            try:
                saved = msgspec.json.decode(path.read_bytes(), type=_PeerFile)
                record = base64.b64decode(saved.record, validate=True)
                peer = AddressBookEntry(check_name(saved.name, "a peer"), proven_key(saved.id52), saved.added, record)
                if path.stem != peer.name:
                    raise InvalidName(name=path.stem, what="this file", reason=f"it holds the peer {peer.name!r}")
            except (OSError, *UNDECODABLE, P2PError) as error:
                self._warn(path, error)
                continue
            self._put(peer)
        self._seen.load()
        self.warnings += self._seen.warnings

    def _warn(self, path: Path, error: Exception) -> None:
        self.warnings.append(f"{path} is damaged and not used: {error}")
        log.warning("%s", self.warnings[-1])

    def __len__(self) -> int:
        return len(self._by_name)

    def by_name(self, name: str) -> AddressBookEntry | None:
        return self._by_name.get(name)

    def by_key(self, key: bytes) -> AddressBookEntry | None:
        return self._by_key.get(key)

    def name_of(self, key: bytes) -> str:
        """Return the petname of a key, or an empty string."""
        peer = self._by_key.get(key)
        return peer.name if peer is not None else ""

    def page(self, after: str, limit: int) -> list[AddressBookEntry]:
        """Return at most ``limit`` entries, sorted by name, that follow the name ``after`` (empty: from the first)."""
        if self._sorted_generation != self.generation:
            self._sorted, self._sorted_generation = sorted(self._by_name), self.generation
        start = bisect_right(self._sorted, after) if after else 0
        return [self._by_name[name] for name in self._sorted[start : start + limit]]

    def add(self, text: str, name: str) -> AddressBookEntry:
        """Add a peer, or rename it: a peer has one name. Return the entry, which is on disk by then.

        The newest record of the peer is kept: the one of this ticket, an earlier one, or one by which a program has
        called the peer.

        Args:
            text: a ticket or an ID52.
            name: the petname.

        Raises:
            InvalidName, InvalidTicket, InvalidKey: the name or the text is wrong.
            PeerNameTaken: another peer has the name.
            CredentialError: the ticket is expired or forged.
            StorageFailed: the file cannot be written.
        """
        check_name(name, "a peer")
        if Ticket.is_ticket(text):
            record = Ticket(text).record_bytes
            key = verify_record(record, now=self._now(), sequences=self.sequences).identity
        else:
            record, key = b"", PublicKey(text)
        holder = self._by_name.get(name)
        if holder is not None and holder.key != key:
            raise PeerNameTaken(name=name)
        earlier = self._by_key.get(bytes(key))
        added = holder.added if holder is not None else datetime.now(UTC).isoformat(timespec="seconds")
        peer = AddressBookEntry(name, key, added, record)
        for other in (earlier, self._called_by_ticket.pop(bytes(key), None)):
            if other is None or other.sequence <= peer.sequence:
                continue
            if not record or not is_from_future(other.sequence, self._now()):
                peer = AddressBookEntry(name, key, added, other.record)
        write_atomically(self._path(name), self._encoded(peer))
        if earlier is not None and earlier.name != name:
            self.remove(earlier.name)
            peer.renamed_from = earlier.name
        self._put(peer)
        self._keep_seen(bytes(key))
        return peer

    def note_record(self, record: PeerRecord, blob: bytes) -> None:
        """Keep the verified record of a ticket by which a program named a peer, if it is newer than the known one."""
        key = bytes(record.identity)
        known = self._by_key.get(key) or self._called_by_ticket.get(key)
        if known is not None and record.sequence <= known.sequence and not is_from_future(known.sequence, self._now()):
            return
        peer = AddressBookEntry(
            known.name if known is not None else "", record.identity, known.added if known else "", blob
        )
        if key in self._by_key:
            try:
                write_atomically(self._path(peer.name), self._encoded(peer))
            except StorageFailed as error:
                log.warning("cannot write the newer record of %s, which a restart will forget: %s", peer.name, error)
            self._by_name[peer.name] = self._by_key[key] = peer  # names and keys stay, so the generation too
            return
        self._called_by_ticket.pop(key, None)
        self._called_by_ticket[key] = peer
        if len(self._called_by_ticket) > _MAX_TICKETS:
            del self._called_by_ticket[next(iter(self._called_by_ticket))]

    def remove(self, name: str) -> None:
        """Remove the peer and its file.

        Raises:
            PeerNameUnknown: there is no such petname.
            StorageFailed: the file cannot be deleted.
        """
        peer = self._by_name.get(name)
        if peer is None:
            raise PeerNameUnknown(name=name)
        try:
            self._path(name).unlink(missing_ok=True)
        except OSError as error:
            raise StorageFailed(path=str(self._path(name)), reason=error.strerror or str(error)) from error
        del self._by_name[name]
        del self._by_key[bytes(peer.key)]
        self.generation += 1

    def records_of(self, key: bytes) -> list[PeerRecord]:
        """Return the peer's record, if one is known. It may be out of date."""
        peer = self._by_key.get(key) or self._called_by_ticket.get(key)
        try:
            record = peer.verified() if peer is not None else None
        except P2PError as error:
            if peer is not None:
                self._warn(self._path(peer.name), error)
                peer.record = b""
            return []
        return [record] if record is not None else []

    def is_known(self, key: bytes) -> bool:
        """Return whether the owner deals with the identity, or did so before a restart."""
        return key in self.known or self.epochs.keeps(key)

    def save_seen(self) -> None:
        """Write what has been seen to disk. Raise StorageFailed if that fails."""
        self._seen.save()

    async def save_seen_if_due(self) -> None:
        """Write what has been seen to disk if enough is new. Raise StorageFailed if that fails."""
        await self._seen.save_if_due()

    def _keep_seen(self, key: bytes) -> None:
        """Keep what is seen of the peer from now on, because it is known."""
        self.epochs.keep(key)
        self.sequences.keep(key)

    def _put(self, peer: AddressBookEntry) -> None:
        self._by_name[peer.name] = peer
        self._by_key[bytes(peer.key)] = peer
        self.generation += 1

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    @staticmethod
    def _encoded(peer: AddressBookEntry) -> bytes:
        record = base64.b64encode(peer.record).decode()
        return msgspec.json.encode(_PeerFile(name=peer.name, id52=peer.key.id52, added=peer.added, record=record))
