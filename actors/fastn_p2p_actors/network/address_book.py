"""The address book: peers by the names that this machine's owner gave them, and what has been seen of their keys."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from fastn_p2p_client.errors import InvalidName, InvalidTicket, P2PError, PeerNameTaken, PeerNameUnknown, StorageFailed
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.messages import UNDECODABLE, PeerInfo
from fastn_p2p_client.names import check_name
from fastn_p2p_client.tickets import Ticket

from ..credentials import EpochBook, PeerRecord, SequenceBook, read_record, verify_record
from ..files import write_atomically

__all__ = ["AddressBook", "Peer"]

log = logging.getLogger(__name__)

_SEEN: Final = ".seen.json"


class _PeerFile(msgspec.Struct, kw_only=True):
    name: str
    id52: str
    added: str
    record: str = ""
    """The signed record, base64; empty when only the key is known."""


class _SeenFile(msgspec.Struct):
    epochs: dict[str, int] = {}
    sequences: dict[str, list[int | str]] = {}


class Peer:
    """One entry."""

    __slots__ = ("added", "key", "name", "record")

    def __init__(self, name: str, key: PublicKey, added: str, record: bytes) -> None:
        self.name = name
        self.key = key
        self.added = added
        self.record = record

    def info(self) -> PeerInfo:
        endpoints = len(read_record(self.record).delegations) if self.record else 0
        return PeerInfo(name=self.name, id52=self.key.id52, endpoints=endpoints, added=self.added)


class AddressBook:
    """Kept in ``home/peers``, one file for each peer, and in memory.

    ``generation`` changes with each change: whoever caches what follows from the book compares it.
    """

    def __init__(self, directory: Path, now: Callable[[], float]) -> None:
        self._directory = directory
        self._now = now
        self._by_name: dict[str, Peer] = {}
        self._by_key: dict[bytes, Peer] = {}
        self.epochs = EpochBook()
        self.sequences = SequenceBook()
        self.generation = 0
        self.warnings: list[str] = []
        self._saved_seen = b""

    def load(self) -> None:
        """Read what is on disk; a damaged file is a warning and left alone."""
        for path in sorted(self._directory.glob("*.json")):
            if path.name.startswith("."):
                continue
            try:
                saved = msgspec.json.decode(path.read_bytes(), type=_PeerFile)
                record = base64.b64decode(saved.record, validate=True)
                peer = Peer(check_name(saved.name, "a peer"), PublicKey(saved.id52), saved.added, record)
                if path.stem != peer.name:
                    raise InvalidName(name=path.stem, what="this file", reason=f"it holds the peer {peer.name!r}")
                if record and read_record(record).identity != peer.key:
                    raise InvalidTicket(reason="the record is another identity's")
            except (OSError, *UNDECODABLE, P2PError) as error:
                self.warnings.append(f"{path} is damaged and not used: {error}")
                log.warning("%s", self.warnings[-1])
                continue
            self._put(peer)
        try:
            seen = msgspec.json.decode((self._directory / _SEEN).read_bytes(), type=_SeenFile)
            self.epochs = EpochBook.from_dict(seen.epochs)
            self.sequences = SequenceBook.from_dict(seen.sequences)
        except FileNotFoundError:
            pass
        except (OSError, *UNDECODABLE, P2PError) as error:
            self.warnings.append(f"{self._directory / _SEEN} is damaged and not used: {error}")

    def __len__(self) -> int:
        return len(self._by_name)

    def by_name(self, name: str) -> Peer | None:
        return self._by_name.get(name)

    def by_key(self, key: bytes) -> Peer | None:
        return self._by_key.get(key)

    def name_of(self, key: bytes) -> str:
        """The petname, or an empty string."""
        peer = self._by_key.get(key)
        return peer.name if peer is not None else ""

    def infos(self) -> list[PeerInfo]:
        return [self._by_name[name].info() for name in sorted(self._by_name)]

    def add(self, text: str, name: str) -> Peer:
        """Keep a ticket or an ID52 under ``name``; on disk when this returns.

        A newer ticket for the same peer and name replaces the older one.

        Raises:
            InvalidName, InvalidTicket, InvalidKey, PeerNameTaken, StorageFailed, or the CredentialError that says
            why the ticket does not hold.
        """
        check_name(name, "a peer")
        if Ticket.looks_like(text):
            record = Ticket(text).record_bytes
            key = verify_record(record, now=self._now(), sequences=self.sequences).identity
        else:
            record, key = b"", PublicKey(text)
        holder = self._by_name.get(name)
        if holder is not None and holder.key != key:
            raise PeerNameTaken(name=name)
        earlier = self._by_key.get(bytes(key))
        if earlier is not None and not record:
            record = earlier.record
        added = holder.added if holder is not None else datetime.now(UTC).isoformat(timespec="seconds")
        peer = Peer(name, key, added, record)
        write_atomically(self._path(name), self._encoded(peer))
        if earlier is not None and earlier.name != name:
            self.remove(earlier.name)
        self._put(peer)
        self.save_seen()
        return peer

    def remove(self, name: str) -> None:
        """Forget the peer.

        Raises:
            PeerNameUnknown.
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
        """What the book knows of where the peer is; perhaps out of date."""
        peer = self._by_key.get(key)
        return [read_record(peer.record)] if peer is not None and peer.record else []

    def save_seen(self) -> None:
        """Put epochs and sequences on disk, when they have changed."""
        data = msgspec.json.encode(_SeenFile(self.epochs.to_dict(), self.sequences.to_dict()))
        if data != self._saved_seen:
            write_atomically(self._directory / _SEEN, data)
            self._saved_seen = data

    def _put(self, peer: Peer) -> None:
        self._by_name[peer.name] = peer
        self._by_key[bytes(peer.key)] = peer
        self.generation += 1

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.json"

    @staticmethod
    def _encoded(peer: Peer) -> bytes:
        record = base64.b64encode(peer.record).decode()
        return msgspec.json.encode(_PeerFile(name=peer.name, id52=peer.key.id52, added=peer.added, record=record))
