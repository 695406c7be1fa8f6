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

from fastn_p2p_client.errors import (
    InvalidName,
    InvalidTicket,
    P2PError,
    PeerNameTaken,
    PeerNameUnknown,
    RecordReplayed,
    StorageFailed,
)
from fastn_p2p_client.ipc.messages import UNDECODABLE, PeerInfo
from fastn_p2p_client.keys import PublicKey, proven_key
from fastn_p2p_client.names import check_name
from fastn_p2p_client.peer_text import read_peer_text, ticket_of

from ..credentials import PeerRecord, verify_record
from ..storage.atomic_files import write_atomically
from .contacts.groups import Groups
from .contacts.invitation_store import InvitationStore
from .contacts.revocations import KnownRevocation, Revocations
from .known_peers import KnownPeers
from .known_records import KnownRecords
from .seen_store import SeenStore

log = logging.getLogger(__name__)

_MAX_TICKETS: Final = 1024
"""Number of peers outside of the book whose records are remembered: a program called them, and a ticket or another
source had the records."""


class _PeerFile(msgspec.Struct, kw_only=True):
    """Entry on disk."""

    name: str
    id52: str
    added: str
    record: str = ""
    """Newest signed record in base64; empty if only the key is known."""
    older_records: tuple[str, ...] = ()
    """Records of endpoints that the newest one does not name."""
    invited: bool = False
    """As in ``AddressBookEntry``."""


class AddressBookEntry:
    """Peer in the address book.

    Raises:
        InvalidTicket: a record belongs to another identity.
    """

    __slots__ = ("added", "invited", "key", "name", "records", "renamed_from")

    def __init__(self, name: str, key: PublicKey, added: str, records: KnownRecords, *, invited: bool = False) -> None:
        self.invited = invited
        """True if an invitation has let it in, and the owner has not accepted it. Access lists that name ``peers`` or
        its petname do not admit it, because the owner has chosen neither the peer nor the petname."""
        self.name = name
        self.key = key
        self.added = added
        self.records = records
        """Records were verified before they were added. Records from a file are verified when first used."""
        self.renamed_from = ""
        """Petname of the same peer before it was added under this one; empty if there was none."""
        if records.identities - {bytes(key)}:
            raise InvalidTicket(reason="the record is another identity's")

    def info(self, reach: str = "", seen_ms: int = 0, revoked: KnownRevocation | None = None) -> PeerInfo:
        """Return the entry as programs see it. ``reach`` and ``seen_ms`` as in ``PeerInfo``."""
        return PeerInfo(
            name=self.name,
            id52=self.key.id52,
            endpoints=self.records.endpoints,
            added=self.added,
            reach=reach,
            seen_ms=seen_ms,
            revoked="" if revoked is None else revoked.revocation.issued_text,
            successor="" if revoked is None else revoked.revocation.successor_id52,
            invited=self.invited,
        )


class AddressBook:
    """Peers in memory and in ``home/peers``, where each has one file.

    Args:
        directory: ``home/peers``.
        now: returns Unix time.
        is_present: returns whether an identity is proven over an open connection.

    Attributes:
        known: peers that the owner deals with: those of the book, and some more.
        groups: groups of peers.
        revocations: identities that were revoked.
        invitations: those that this daemon has made, with the permissions of their bearers.
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
        self._called_by_ticket: dict[bytes, KnownRecords] = {}
        self.groups = Groups(directory / ".groups.json", self._changed)
        self.invitations = InvitationStore(directory / ".invitations.json", now, self._changed)
        self.known = KnownPeers(self._has, self._keep_seen)
        self.revocations = Revocations(directory / ".revoked.json", now)
        self._seen = SeenStore(directory, self.known.__contains__, is_present, check_revoked=self.revocations.check)
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
                texts = filter(None, (saved.record, *saved.older_records))
                records = KnownRecords([base64.b64decode(text, validate=True) for text in texts])
                name, key = check_name(saved.name, "a peer"), proven_key(saved.id52)
                peer = AddressBookEntry(name, key, saved.added, records, invited=saved.invited)
                if path.stem != peer.name:
                    raise InvalidName(name=path.stem, what="this file", reason=f"it holds the peer {peer.name!r}")
            except (OSError, *UNDECODABLE, P2PError) as error:
                self._warn(path, error)
                continue
            self._put(peer)
        self.warnings += filter(None, (self.groups.load(), self.revocations.load(), self.invitations.load()))
        self._seen.load()
        self.warnings += self._seen.warnings

    def _has(self, key: bytes) -> bool:
        return key in self._by_key or self.groups.has_member(key) or key in self.invitations

    def _changed(self) -> None:
        self.generation += 1

    def _warn(self, path: Path, error: Exception) -> None:
        self.warnings.append(f"{path} is damaged and not used: {error}")
        log.warning("%s", self.warnings[-1])

    def __len__(self) -> int:
        return len(self._by_name)

    def by_name(self, name: str) -> AddressBookEntry | None:
        return self._by_name.get(name)

    def by_key(self, key: bytes) -> AddressBookEntry | None:
        return self._by_key.get(key)

    def trusted(self) -> int:
        """Return the number of peers that access lists with ``peers`` admit."""
        return sum(not each.invited for each in self._by_name.values())

    def name_of(self, key: bytes) -> str:
        """Return the petname of a key, or an empty string."""
        peer = self._by_key.get(key)
        return peer.name if peer is not None else ""

    def names_endpoint(self, endpoint: bytes, but_not: Callable[[bytes], bool] = lambda _: False) -> bool:
        """Return whether a record in the book names the endpoint. Ignore the peers for which ``but_not`` is true."""
        return any(endpoint in entry.records.endpoint_keys() for key, entry in self._by_key.items() if not but_not(key))

    def page(self, after: str, limit: int) -> list[AddressBookEntry]:
        """Return at most ``limit`` entries, sorted by name, that follow the name ``after`` (empty: from the first)."""
        if self._sorted_generation != self.generation:
            self._sorted, self._sorted_generation = sorted(self._by_name), self.generation
        start = bisect_right(self._sorted, after) if after else 0
        return [self._by_name[name] for name in self._sorted[start : start + limit]]

    def check_new(self, key: bytes, name: str) -> None:
        """Check that a peer can be added under a petname. Raises InvalidName, PeerNameTaken or IdentityRevoked."""
        check_name(name, "a peer")
        if key not in self._by_key:
            self.revocations.check(key)
        holder = self._by_name.get(name)
        if holder is not None and bytes(holder.key) != key:
            raise PeerNameTaken(name=name)

    def add(self, text: str, name: str, *, invited: bool | None = None) -> AddressBookEntry:
        """Add a peer, or rename it: a peer has one name. Return the entry, which is on disk by then.

        For each endpoint of the peer, the newest record is kept: the one of this ticket, an earlier one, or one by
        which a program has called the peer.

        Args:
            text: a ticket, an ID52, or a URI of one of them.
            name: the petname.
            invited: as in ``AddressBookEntry``; None keeps what the entry has.

        Raises:
            InvalidName, InvalidTicket, InvalidKey: the name or the text is wrong.
            PeerNameTaken: another peer has the name.
            CredentialError: the ticket is expired or forged.
            StorageFailed: the file cannot be written.
        """
        check_name(name, "a peer")
        blobs: tuple[bytes, ...] = ()
        ticket = ticket_of(text)
        if ticket is not None:
            blobs = (ticket.record_bytes,)
            key = self._verify(blobs[0])
        else:
            key = PublicKey(read_peer_text(text).name)
        self.check_new(bytes(key), name)
        holder, earlier = self._by_name.get(name), self._by_key.get(bytes(key))
        if invited is None:
            invited = earlier is not None and earlier.invited
        added = holder.added if holder is not None else datetime.now(UTC).isoformat(timespec="seconds")
        records = self._records_of(bytes(key)).merged(blobs, self._now())
        self._called_by_ticket.pop(bytes(key), None)
        peer = AddressBookEntry(name, key, added, records, invited=invited)
        write_atomically(self._path(name), self._encoded(peer))
        if earlier is not None and earlier.name != name:
            self.remove(earlier.name)
            peer.renamed_from = earlier.name
        self._put(peer)
        self._keep_seen(bytes(key))
        return peer

    def check_usable(self, key: bytes) -> None:
        """Raise IdentityRevoked, with the petname, if the identity was revoked."""
        if key in self.revocations:
            self.revocations.check(key, self.name_of(key))

    def check_own(self, name: str) -> None:
        """Raise IdentityRevoked if an identity of this daemon with this name was revoked."""
        known = self.revocations.named(name)
        if known is not None:
            raise self.revocations.error(known)

    def replace_key(self, name: str, key: PublicKey) -> AddressBookEntry:
        """Replace the key of a peer by that of its successor, on disk in one step. The petname stays.

        If the book has the successor under another petname, that one is removed.

        Raises:
            PeerNameUnknown: there is no such petname.
            StorageFailed: the file cannot be written.
        """
        entry = self._by_name.get(name)
        if entry is None:
            raise PeerNameUnknown(name=name)
        other = self._by_key.get(bytes(key))
        peer = AddressBookEntry(name, key, entry.added, self._records_of(bytes(key)), invited=entry.invited)
        write_atomically(self._path(name), self._encoded(peer))
        if other is not None and other.name != name:
            self.remove(other.name)
            peer.renamed_from = other.name
        self._by_key.pop(bytes(entry.key), None)
        self._called_by_ticket.pop(bytes(key), None)
        self._put(peer)
        self._keep_seen(bytes(key))
        return peer

    def restore(
        self, name: str, key: PublicKey, added: str, blobs: tuple[bytes, ...], *, invited: bool
    ) -> AddressBookEntry:
        """Add a peer of a backup, on disk when this returns. A peer that is here gets the records and stays as it is.

        Args:
            blobs: signed records, which may be out of date.
            invited: as in ``AddressBookEntry``.

        Raises:
            InvalidName: the name is no petname.
            PeerNameTaken: another peer has it.
            CredentialError, BadMessage, InvalidTicket: a record is damaged, or another identity's.
            StorageFailed: the file cannot be written.
        """
        check_name(name, "a peer")
        present = self._by_key.get(bytes(key))
        if present is not None:
            name, added, invited = present.name, present.added, present.invited
        elif name in self._by_name:
            raise PeerNameTaken(name=name)
        records = self._records_of(bytes(key)).merged(blobs, self._now())
        records.verified()
        peer = AddressBookEntry(name, key, added, records, invited=invited)
        write_atomically(self._path(name), self._encoded(peer))
        self._called_by_ticket.pop(bytes(key), None)
        self._put(peer)
        self._keep_seen(bytes(key))
        return peer

    def _verify(self, blob: bytes) -> PublicKey:
        """Return the identity of a ticket's record, and note its sequence. See ``add`` for the errors."""
        record = verify_record(blob, now=self._now())
        try:
            verify_record(blob, now=self._now(), sequences=self.sequences)
        except RecordReplayed:
            known = self._records_of(bytes(record.identity))
            if not known.blobs or known.merged((blob,), self._now()).blobs == known.blobs:
                raise
        return record.identity

    def _records_of(self, key: bytes) -> KnownRecords:
        """Return the records of a peer, in the book or called by a ticket."""
        entry, called = self._by_key.get(key), self._called_by_ticket.get(key)
        if entry is None or called is None:
            found = entry.records if entry is not None else called
            return found if found is not None else KnownRecords()
        return entry.records.merged(called.blobs, self._now())

    def note_record(self, key: bytes, blob: bytes) -> bool:
        """Keep a verified record of a peer as far as it is newer than the known ones.

        Args:
            key: identity of the record.
            blob: a record that was verified, from a ticket by which a program named the peer, or from another source.

        Returns:
            True if it says something new.
        """
        entry = self._by_key.get(key)
        known = self._records_of(key)
        records = known.merged((blob,), self._now())
        if records.blobs == known.blobs:
            return False
        if entry is not None:
            entry.records = records
            try:
                write_atomically(self._path(entry.name), self._encoded(entry))
            except StorageFailed as error:
                log.warning("cannot write the newer record of %s, which a restart will forget: %s", entry.name, error)
            return True
        self._called_by_ticket.pop(key, None)
        self._called_by_ticket[key] = records
        if len(self._called_by_ticket) > _MAX_TICKETS:
            del self._called_by_ticket[next(iter(self._called_by_ticket))]
        return True

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
        self._changed()

    def newest_signed_record(self, key: bytes) -> bytes:
        """Return the newest signed record of a peer; empty if there is none."""
        return next(iter(self._records_of(key).blobs), b"")

    def records_of(self, key: bytes) -> list[PeerRecord]:
        """Return the peer's records, newest first. They may be out of date."""
        entry = self._by_key.get(key)
        records = entry.records if entry is not None else self._called_by_ticket.get(key)
        try:
            return records.verified() if records is not None else []
        except P2PError as error:
            if entry is not None:
                self._warn(self._path(entry.name), error)
                entry.records = KnownRecords()
            return []

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
        self._changed()

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    @staticmethod
    def _encoded(peer: AddressBookEntry) -> bytes:
        texts = tuple(base64.b64encode(blob).decode() for blob in peer.records.blobs)
        return msgspec.json.encode(
            _PeerFile(
                name=peer.name,
                id52=peer.key.id52,
                added=peer.added,
                record=texts[0] if texts else "",
                older_records=texts[1:],
                invited=peer.invited,
            )
        )
